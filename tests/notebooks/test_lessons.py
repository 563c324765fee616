"""Notebooks as lessons: what a class can read in one sitting, with something to do at the end of each."""

import re

import jupytext
import pytest
from test_exercises import NOTEBOOKS, PAGES, SOURCES, TITLE

from sglib.experiments import params

LESSONS = sorted(SOURCES)
LINES, COLUMNS, WORDS, NAMES = 25, 100, (6, 14), 12


@pytest.fixture(params=LESSONS)
def lesson(request):
    return jupytext.read(SOURCES[request.param])


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_is_no_lesson_and_shows_no_code(name):
    """`PAGES` keep neither the limits below nor exercises, since what they show is a page for people who want results:
    whatever code they have is hidden, and nothing in them asks the reader to do something."""
    code = [cell for cell in jupytext.read(NOTEBOOKS / f"{name}.py").cells if cell.cell_type == "code"]
    tags = [set(cell.metadata["tags"]) for cell in code]
    assert tags[0] == {"parameters"} and all(tag == {"hide-input"} for tag in tags[1:])
    assert sum(len(cell.source.splitlines()) for cell in code) < 40, "the library builds the page"


def test_cells_fit_on_a_screen(lesson):
    cells = [cell.source.splitlines() for cell in lesson.cells if cell.cell_type == "code"]
    assert not [f"{len(lines)} lines: {lines[0]}" for lines in cells if len(lines) > LINES]
    assert not [f"{len(line)} columns: {line}" for lines in cells for line in lines if len(line) > COLUMNS]


def test_there_is_as_much_to_read_as_in_good_lessons(lesson):
    """Words of prose for a line of code, over the whole notebook, exercises included."""
    sources = {kind: [cell.source for cell in lesson.cells if cell.cell_type == kind] for kind in ("markdown", "code")}
    words = sum(len(text.split()) for text in sources["markdown"])
    lines = sum(bool(line.strip()) for text in sources["code"] for line in text.splitlines())
    assert WORDS[0] <= words / lines <= WORDS[1], f"{words} words for {lines} lines of code"


def test_a_claim_first_limits_and_exercises_last(lesson):
    assert "**By the end you will have " in lesson.cells[0].source
    assert re.search(r"\*Time:\*.*\*Writes:\*", lesson.cells[0].source, re.DOTALL)
    texts = [cell.source for cell in lesson.cells if cell.cell_type == "markdown"]
    (last,) = [number for number, text in enumerate(texts) if "**Limits.**" in text]
    headings = re.findall(r"^#+ (.+)$", "\n".join(texts[last + 1 :]), re.MULTILINE)
    after = [heading for heading in headings if not re.match(r"\d\d\.\d ", heading)]
    assert after in (["Exercises"], ["Exercises", "Try it yourself"])
    assert len(headings) - len(after) >= 3
    assert any("assert " in cell.source for cell in lesson.cells if cell.cell_type == "code" and not cell.metadata)


def test_exercises_get_harder():
    for name in LESSONS:
        titles = [line for line in SOURCES[name].read_text(encoding="utf-8").splitlines() if TITLE.match(line)]
        difficulty = [title.count("●") for title in titles]
        assert difficulty == sorted(difficulty) and difficulty[0] < difficulty[-1], name


def test_parameters_are_shown_by_name():
    """All of them where they are few, else a choice of those that matter."""
    for name, model in params.SECTIONS.values():
        if name in LESSONS:
            source = SOURCES[name].read_text(encoding="utf-8")
            chosen = re.search(r"^print\(p\.model_dump\(include=\{(.+?)\}", source, re.MULTILINE | re.DOTALL)
            shown = [field for field, of in model.model_fields.items() if of.repr]
            names = re.findall(r'"(\w+)"', chosen[1]) if chosen else shown
            assert chosen or "\nprint(p)\n" in source, name
            assert len(names) <= NAMES and set(names) <= set(model.model_fields), name
