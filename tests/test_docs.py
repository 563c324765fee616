"""docs/: every number that is logged is explained, and every file that the glossary names is there."""

import json
import re
from pathlib import Path

import pytest

import sglib
from sglib import envs
from sglib.measure.evaluate import evaluate
from sglib.rewards import Outcome, SelfGuide
from sglib.training.grpo import GRPOSettings, train

ROOT = Path(__file__).parents[1]
METRICS, GLOSSARY = ((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("metrics", "glossary"))
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
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "(docs/metrics.md)" in readme and "(docs/glossary.md)" in readme
