"""Every notebook: its two halves say the same, and it runs from its text with the smallest parameters."""

import difflib
import json
import os
from pathlib import Path

import jupytext
import nbformat
import papermill
import pytest
import yaml

from sglib.experiments import params

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.py"))
NAMES = {path.stem: path for path in SOURCES}
STUDY = [name for name, _ in params.SECTIONS.values()]
SMOKE = ROOT / "params" / "smoke.yaml"

# What each notebook leaves for the report and for people, besides run.json and params.json.
LEAVES = {
    "00_the_game": ["trajectories.jsonl", "engines.csv"],
    "01_pilot_study": ["conditions.csv", "figures/success.html", "figures/success.png"],
    "02_inference_self_guidance": ["formats.csv", "figures/success.html", "figures/success.png"],
    "03_repro_warmup": ["summary.csv", "annotated.jsonl", "figures/success.png"],
    "04_joint_grpo": ["curves.csv", "summary.csv", "outcomes.json", "batches/grpo.jsonl", "figures/success.png"],
    "05_credit_assignment": ["trajectories.jsonl", "truth.csv", "figures/igpo.html", "figures/own_spread.png"],
    "06_is_the_reward_true": ["calibration.csv", "counterfactual.csv", "farmed.csv", "figures/alarm.png"],
    "07_how_sure": ["cells.csv", "power.csv"],
    "08_inspecting_trajectories": ["guide.jsonl", "act.jsonl", "episodes.csv", "episodes.html"],
    "09_report": ["claims.csv", "verdicts.csv", "rates.csv", "report.html", "figures/claims.png"],
    "10_assay": ["curve.csv", "figures/response.png"],
    "11_when_do_step_rewards_help": ["phase.csv", "figures/phase.png"],
    "12_a_real_language_model": ["curve.csv", "arms.csv", "steerability.csv", "figures/demonstrations.png"],
    "13_scale_up": ["ways.csv", "scale.csv"],
    "14_the_real_benchmark": ["success.csv", "curves.json", "played.jsonl"],
}

pytestmark = pytest.mark.slow


def test_the_study_has_its_notebooks():
    assert set(STUDY) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_pair_is_in_sync(name):
    other = NAMES[name].with_suffix(".ipynb")
    assert other.exists(), f"{other.name} is missing: make sync"
    # by content, never by file times or cell ids, which change whenever the notebook is written
    text = jupytext.writes(jupytext.read(other, config=_config()), "py:percent", config=_config())
    mine = NAMES[name].read_text(encoding="utf-8")
    drift = "\n".join(difflib.unified_diff(mine.splitlines(), text.splitlines(), name + ".py", name + ".ipynb", n=1))
    assert not drift, f"the halves differ, make sync writes the .ipynb from the .py:\n{drift}"


@pytest.mark.parametrize("name", NAMES)
def test_the_stored_notebook_was_executed_without_error(name):
    stored = nbformat.read(NAMES[name].with_suffix(".ipynb"), as_version=4)
    nbformat.validate(stored)
    code = [cell for cell in stored.cells if cell.cell_type == "code" and cell.source.strip()]
    assert all(cell.execution_count for cell in code), "committed notebooks carry their outputs"
    assert not [o for cell in code for o in cell.outputs if o.output_type == "error"]
    assert NAMES[name].with_suffix(".ipynb").stat().st_size < 3_000_000
    paths = [cell.source for cell in code if "PosixPath(" in str(cell.outputs)]
    assert not paths, "they show a path of the machine that it ran on"


def test_parameter_cells_declare_what_is_read():
    for section, (name, _) in params.SECTIONS.items():
        cells = jupytext.read(NAMES[name]).cells
        (cell,) = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
        declared = [line.split("=")[0].strip() for line in cell.source.splitlines() if "=" in line]
        assert declared == ["seed", "size", section], name


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One outputs folder for all notebooks: later ones find what earlier ones wrote, as in the study."""
    return tmp_path_factory.mktemp("study")


@pytest.mark.parametrize("name", STUDY)
def test_it_runs(name, folder, monkeypatch):
    monkeypatch.setenv("SGLIB_OUTPUT", str(folder))
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    papermill.execute_notebook(
        jupytext.read(NAMES[name]),  # straight from the text that people review
        str(folder / f"{name}.ipynb"),
        parameters=yaml.safe_load(SMOKE.read_text()),
        progress_bar=False,
        extra_arguments=["--log-level=ERROR"],
    )
    run = folder / name / "smoke-seed0"
    info = json.loads((run / "run.json").read_text())
    assert info["state"] == "complete" and info["params"]["size"] == "smoke"
    missing = [file for file in ["params.json", *LEAVES[name]] if not (run / file).exists()]
    assert not missing, f"{sorted(str(p.relative_to(run)) for p in run.rglob('*') if p.is_file())}"


def _config():
    from jupytext.config import load_jupytext_config

    return load_jupytext_config(str(ROOT / "notebooks" / "x.ipynb"))
