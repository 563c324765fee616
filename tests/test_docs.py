"""docs/: every number that is logged is explained, and every file that the glossary names is there."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sglib
from sglib import envs
from sglib.measure.evaluate import evaluate
from sglib.rewards import Outcome, SelfGuide
from sglib.training.grpo import GRPOSettings, train

ROOT = Path(__file__).parents[1]
METRICS, GLOSSARY = ((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("metrics", "glossary"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
CELLS = sorted((ROOT / "outputs" / "reference" / "evidence").glob("*/*.json"))
WORDS = """\
card (environment), capability, panel, recipe, component, estimator, experiment, cell, grid, band (A/A band),
verdict, anchor state, group, rollout, turn, guidance, label, retrospection, truth, distance, progress, score,
reward hacking, alarm, probe, calibration, counterfactual, fork, snapshot, warmup, start\
"""


def documented(name: str) -> bool:
    """Whether a row of a table has the name, or a pattern such as `calibration/<signal>/auroc`."""
    cells = [line.split("|")[1] for line in METRICS.splitlines() if line.startswith("| `")]
    patterns = [re.escape(text) for cell in cells for text in re.findall(r"`([^`]+)`", cell) if text != "eval/<name>"]
    return any(re.fullmatch(re.sub(r"<\w+>", "[^/]+", pattern), name.removeprefix("eval/")) for pattern in patterns)


def test_a_number_that_nobody_explains_is_found():
    assert documented("eval/success") and documented("calibration/label/auroc")
    for name in ("no_such_number", "eval/no_such_number", "calibration/label/new", "probe/new", "reward/a/b"):
        assert not documented(name), name


def test_every_number_of_a_training_is_explained():
    policy, games = sglib.load_policy("base"), sglib.panel("alfworld", n=1)
    settings = GRPOSettings(iterations=1, games_per_iteration=1, group_size=2, max_turns=3, format="guide")
    result = train(
        policy, games, settings, [Outcome(), SelfGuide()],
        evaluate_fn=lambda policy: evaluate(policy, games, format="guide", turns=3).numbers(),
    )  # fmt: skip
    names = set(result.metrics[0])
    assert {"eval/success", "calibration/label/auroc", "logprob_gap", "lambda/self_guide"} <= names
    assert not [name for name in sorted(names) if not documented(name)]


@pytest.mark.skipif(not CELLS, reason="no committed cells")
def test_every_number_of_the_committed_cells_is_explained():
    names = set()
    for path in CELLS:
        cell = json.loads(path.read_text(encoding="utf-8"))
        names |= {*cell["batches"], *cell["card"], *(name for row in cell["curve"] for name in row)}
        missing = [name for name in cell if f"`{name}`" not in METRICS]
        assert not missing, missing
    assert not [name for name in sorted(names) if not documented(name)]


@pytest.mark.parametrize("env", envs.names())
def test_every_way_to_fail_is_explained(env):
    assert not [name for name in envs.get(env).failures if not documented(name)]


def test_the_glossary_has_the_words_and_files_that_are_there():
    rows = [line.split("|")[1:4] for line in GLOSSARY.splitlines() if line.startswith("| ")][1:]
    assert not set(re.split(r",\s+", WORDS)) - {word.strip() for word, _, _ in rows}
    for word, _, where in rows:
        assert (ROOT / where.strip().strip("`")).exists(), f"{word}: {where}"


def test_the_readme_links_both_pages():
    assert "(docs/metrics.md)" in README and "(docs/glossary.md)" in README


def long_sentences(text: str, words: int = 30) -> list[str]:
    """The sentences of prose, list items and table cells that have more words; code and addresses do not count."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    text = re.sub(r"^    .*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    paragraphs = re.split(r"\n\s*\n|\n(?=[-|#]|\d\. )", text)
    pieces = [cell for paragraph in paragraphs for cell in (paragraph.split("|") if "|" in paragraph else [paragraph])]
    sentences = [sentence for piece in pieces for sentence in re.split(r"(?<=[.!?:;])[)*]*\s", piece)]
    return [sentence for sentence in sentences if len(re.findall(r"\w[\w.'’-]*", sentence)) > words]


def test_the_readme_is_for_newcomers():
    assert len(README.splitlines()) <= 200
    assert not long_sentences(README)
    assert long_sentences("    code\n\nA line. " + "word " * 31) and not long_sentences("Only ten words. " * 11)


def test_every_file_that_the_readme_names_is_there():
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", README)
    assert len(links) > 30 and not [link for link in links if "://" not in link and not (ROOT / link).exists()]


@pytest.mark.slow
def test_the_site_builds_with_every_link_good(tmp_path):
    """In a process of its own: Sphinx changes what is imported. A warning, such as a link to nowhere, is an error."""
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", "-c", "docs", ".", str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    built = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.html")}
    expected = {"index.html", "README.html", "docs/index.html", "docs/results.html", "notebooks/09_report.html"}
    assert expected <= built
    reference = (tmp_path / "docs" / "reference.html").read_text(encoding="utf-8")
    assert "sglib.advantages.formulas.gigpo" in reference and "2505.10978" in reference
