"""Exercises: the checks fail on the stubs and pass on the solutions, apart from the notebook that they stand in."""

import re
from pathlib import Path

import jupytext
import numpy as np
import pytest

import sglib
from sglib.view.exercises import solved

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
PAGES = {"09_report"}  # no lesson: it shows a page without code, which the library builds and one sends to others
SOURCES = {path.stem: path for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.py")) if path.stem not in PAGES}

TITLE = re.compile(r"^# ### (\d\d\.\d) .*[●○]{3} · \d+ minutes$", re.MULTILINE)


def code(path: Path, tag: str) -> list[str]:
    return [cell.source for cell in jupytext.read(path).cells if tag in cell.metadata.get("tags", [])]


def run(cells: list[str]) -> dict:
    """Run cells as a reader would who opened nothing else: with numpy and sglib at hand."""
    names = {"np": np, "sglib": sglib}
    for source in cells:
        exec(compile(source, "<cell>", "exec"), names)
    return names


@pytest.mark.parametrize("name", SOURCES)
def test_checks_fail_on_stubs_and_pass_on_solutions(name, capsys):
    stubs, checks = code(SOURCES[name], "exercise"), code(SOURCES[name], "check")
    titles = TITLE.findall(SOURCES[name].read_text(encoding="utf-8"))
    assert len(titles) >= 3 and titles == [f"{name[:2]}.{k + 1}" for k in range(len(titles))]
    assert len(checks) == len(titles) == len(stubs)
    solved.clear()
    run([*stubs, *checks])
    assert solved == dict.fromkeys(titles, False), capsys.readouterr().out
    solutions = jupytext.read(NOTEBOOKS / "solutions" / f"{name}.py").cells
    run([*stubs, *(cell.source for cell in solutions if cell.cell_type == "code"), *checks])
    assert solved == dict.fromkeys(titles, True), capsys.readouterr().out


def test_a_check_says_what_is_missing(capsys):
    with sglib.exercise("99.1"):
        raise NotImplementedError
    with sglib.exercise("99.2"):
        raise AssertionError("one and one are two")
    with sglib.exercise("99.3"):
        raise ZeroDivisionError("division by zero")
    with sglib.exercise("99.4"):
        pass
    assert capsys.readouterr().out.splitlines() == [
        "Exercise 99.1: to do", "Exercise 99.2: not yet. one and one are two",
        "Exercise 99.3: not yet: your code raised ZeroDivisionError: division by zero", "Exercise 99.4: solved",
    ]  # fmt: skip
    with pytest.raises(KeyboardInterrupt), sglib.exercise("99.5"):
        raise KeyboardInterrupt
