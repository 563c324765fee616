"""The study and its command, on notebooks of three lines."""

import json
import os
import subprocess
import sys

import jupytext
import nbformat
import pytest

from sglib.__main__ import main
from sglib.experiments import files, params, runs, study

SOURCE = """# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% tags=["parameters"]
seed = 0
size = "tiny"
{section} = {{}}

# %%
from sglib.experiments import params, runs
from sglib import progress_bar
p = params.check("{name}", globals())
run = runs.start_run("{name}", p)
for _ in progress_bar(range(3), desc="working"):
    pass
{extra}

# %%
run.finish()
"""


@pytest.fixture
def small_study(tmp_path, monkeypatch):
    """A repository of two tiny notebooks; the returned function runs them."""
    root = tmp_path / "repo"
    (root / "notebooks").mkdir(parents=True)
    (root / "sglib").mkdir()
    (root / "tiny.yaml").write_text("env: alfworld\nsize: tiny\nseed: 3\ngame: {games: 2}\n")
    sections = {name: params.SECTIONS[name] for name in ("game", "report")}
    monkeypatch.setattr(params, "SECTIONS", sections)
    for module in (runs, study):
        monkeypatch.setattr(module, "repo_root", lambda: root)
    monkeypatch.setattr(files, "params_dir", lambda: root)
    monkeypatch.chdir(tmp_path)

    def write(section, extra=""):
        name = sections[section][0]
        # the kernel is another process: it must find the same params/ folder
        patch = "import pathlib\nfrom sglib.experiments import files\n"
        patch += f"files.params_dir = lambda: pathlib.Path({str(root)!r})\n"
        patch += f"runs.repo_root = lambda: pathlib.Path({str(root)!r})\n"
        text = SOURCE.format(section=section, name=name, extra=extra).replace("p = params", patch + "p = params")
        (root / "notebooks" / f"{name}.py").write_text(text)
        nbformat.write(jupytext.reads(text, "py:percent"), root / "notebooks" / f"{name}.ipynb")

    write("game")
    write("report")
    return root, write


# papermill's last request, answered slowly: the kernel is interrupted while it is at it
SLOW = """
import time
kernel = get_ipython().kernel
asked = kernel.shell_handlers["kernel_info_request"]
async def slow(*args):
    await asked(*args)
    time.sleep(3)
kernel.shell_handlers["kernel_info_request"] = slow
"""


def test_study_runs_skips_and_goes_on(small_study, outputs, capfd):
    root, write = small_study
    write("report", "1 / 0")
    with pytest.raises(RuntimeError, match=r"09_report failed in cell \d+: ZeroDivisionError(.|\n)*the same command"):
        study.study(root / "tiny.yaml")
    game = outputs / "00_the_game" / "tiny-seed3"
    assert json.loads((game / "run.json").read_text())["params"]["games"] == 2
    stored = nbformat.read(outputs / "09_report" / "tiny-seed3" / "notebook.ipynb", as_version=4)
    assert stored.metadata.papermill.exception
    first = (game / "run.json").stat().st_mtime_ns

    write("report", SLOW)
    capfd.readouterr()
    report = study.study(root / "tiny.yaml")
    told, noise = capfd.readouterr()
    assert "KeyboardInterrupt" not in noise
    assert "[1/2] 00_the_game: complete already" in told and "[2/2] 09_report -> " in told and "Report: " in told
    assert (game / "run.json").stat().st_mtime_ns == first
    assert report == outputs / "09_report" / "tiny-seed3" / "notebook.ipynb"
    assert report.with_suffix(".html").stat().st_size > 1000
    # the progress bar was one display, stored at its end
    shown = [o for c in nbformat.read(report, as_version=4).cells for o in c.get("outputs", []) if "data" in o]
    assert len(shown) == 1 and "working: 100%" in shown[0].data["text/plain"] and "3/3" in shown[0].data["text/plain"]

    write("game", "x = 1")  # changed source: it and all after it run again
    write("report", "run.path('report.html').write_text('a page without code')")
    study.study(root / "tiny.yaml")
    told = capfd.readouterr().out
    assert "complete already" not in told
    assert f"Report: {study.shown(report.with_name('report.html'))}" in told, "the report's own page goes first"
    assert "SGLIB_PROGRESS" not in os.environ


def test_study_checks_everything_first(small_study, outputs):
    root, _ = small_study
    (root / "bad.yaml").write_text("env: alfworld\nreport: {reference: 3}")
    with pytest.raises(params.ParameterError, match="report.reference = 3"):
        study.study(root / "bad.yaml")
    with pytest.raises(params.ParameterError, match="05_no: unknown notebook"):
        study.study(root / "tiny.yaml", only=["05_no"])
    assert not list(outputs.iterdir())


def test_command_line_says_one_clear_thing(tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("env: alfworld\ngrpo: {iterations: 0}")
    command = [sys.executable, "-m", "sglib", "study", "--params", str(bad)]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 1 and "grpo.iterations = 0" in found.stderr and "Traceback" not in found.stderr


@pytest.mark.parametrize("command", ["study", "store", "evidence", "verdicts"])
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0 and f"sglib {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--only", "gpo"], "--only gpo: no such recipe"), (["--jobs", "0"], "--jobs 0: must be at least 1")],
)
def test_wrong_options_are_named(arguments, message, capsys):
    assert main(["evidence", *arguments]) == 1 and message in capsys.readouterr().err
