import contextlib
import json

import numpy as np
import pandas as pd
import pytest

from sglib.experiments import params, runs
from sglib.records import read_trajectories
from sglib.training import checkpoint


@pytest.fixture
def run(outputs):
    return runs.start_run("04_joint_grpo", params.GRPOParams(env="alfworld", size="tiny", seed=3))


def test_start_run_writes_what_is_known(run, outputs):
    assert run.folder == outputs / "04_joint_grpo" / "tiny-seed3"
    info = json.loads((run.folder / "run.json").read_text())
    assert info["state"] == "running" and info["seed"] == 3
    assert info["versions"]["python"] and info["versions"]["torch"]
    assert json.loads((run.folder / "params.json").read_text())["iterations"] == run.params.iterations
    assert runs.find_runs("04_joint_grpo") == []


def test_finish(run):
    run.finish(success=np.float64(0.5))
    (info,) = runs.find_runs("04_joint_grpo")
    assert info["results"] == {"success": 0.5} and info["folder"] == run.folder and info["elapsed"] >= 0


def test_a_new_start_leaves_nothing_of_the_old_run(run):
    run.write_json("figures/old.json", 1)
    run.finish()
    run.path("running.ipynb").write_text("being written")
    again = runs.start_run("04_joint_grpo", run.params)
    names = [".lock", "earlier", "params.json", "run.json", "running.ipynb"]
    assert sorted(p.name for p in again.folder.iterdir()) == names
    assert runs.find_runs("04_joint_grpo") == []


def test_a_complete_run_stays_until_another_is_complete(run):
    run.write_json("result.json", 1)
    run.finish()
    for _ in range(2):  # neither of these comes to its end
        runs.start_run("04_joint_grpo", run.params).write_json("half.json", 1)
    kept = run.folder / "earlier"
    assert json.loads((kept / "run.json").read_text())["state"] == "complete" and (kept / "result.json").exists()
    assert not (kept / "half.json").exists()
    runs.start_run("04_joint_grpo", run.params).finish()
    assert sorted(p.name for p in run.folder.iterdir()) == [".lock", "params.json", "run.json"]


def test_killed_while_it_moves_the_earlier_run_away_nothing_is_lost(run, monkeypatch):
    """At each of its renames and removals; the next start comes to the same folder."""
    for name in ("notebook_source", "_git_commit", "versions"):  # slow, and not what this is about
        monkeypatch.setattr(runs, name, lambda *_: {})
    for name in ("a.json", "figures/b.json", "z.json"):
        run.write_json(name, 1)
    run.finish()
    for _ in range(2):
        runs.start_run("04_joint_grpo", run.params)  # an unfinished one on top, and earlier/
    for number in range(1, 20):
        begun = []

        def killed(real, begun=begun, number=number):
            def call(*args, **kwargs):
                begun.append(1)
                if len(begun) == number:
                    raise KeyboardInterrupt
                return real(*args, **kwargs)

            return call

        again = runs.start_run("04_joint_grpo", run.params)
        again.write_json("new.json", number)
        if number % 2:
            again.finish()
        with monkeypatch.context() as patched, contextlib.suppress(KeyboardInterrupt):
            patched.setattr(runs.Path, "rename", killed(runs.Path.rename))
            patched.setattr(runs.shutil, "rmtree", killed(runs.shutil.rmtree))
            runs.start_run("04_joint_grpo", run.params)
        again = runs.start_run("04_joint_grpo", run.params)
        names = [".lock", "earlier", "params.json", "run.json"]
        assert sorted(p.name for p in again.folder.iterdir()) == names
        kept = json.loads((again.folder / "earlier" / "run.json").read_text())
        assert kept["state"] == "complete" and (again.folder / "earlier" / "params.json").exists()
        if number % 2:
            assert json.loads((again.folder / "earlier" / "new.json").read_text()) == number
    assert len(begun) < number  # the last rounds were not interrupted any more


def test_a_damaged_run_json_hides_no_other_run_and_costs_nothing(run):
    run.write_json("result.json", 1)
    run.finish()
    other = runs.start_run("04_joint_grpo", run.params.model_copy(update={"seed": 4}))
    other.finish()
    (run.folder / "run.json").write_text('{"state": "comp')
    with pytest.warns(UserWarning, match=r"left out: .*tiny-seed3/run\.json: damaged"):
        assert [info["seed"] for info in runs.find_runs("04_joint_grpo")] == [4]
    again = runs.start_run("04_joint_grpo", run.params)
    assert (again.folder / "earlier" / "result.json").exists()


def test_a_run_is_one_process_s(run):
    message = r"tiny-seed3 is in use by another run \(process \d+ on .*since"
    with pytest.raises(RuntimeError, match=message), checkpoint.locked(run.folder):
        pass
    run.finish()
    with checkpoint.locked(run.folder), pytest.raises(RuntimeError, match="in use by another run"):
        runs.start_run("04_joint_grpo", run.params)
    assert json.loads((run.folder / "run.json").read_text())["state"] == "complete"


@pytest.mark.parametrize("name", ["../out.json", "/tmp/out.json", "a/../../out.json"])
def test_a_run_writes_into_its_folder_alone(run, name):
    for write in (run.path, lambda n: run.write_json(n, 1), lambda n: run.write_trajectories(n, [])):
        with pytest.raises(ValueError, match=r"out.json': allowed: a path inside the run's folder"):
            write(name)


def test_a_folder_that_is_no_run_is_not_emptied(outputs):
    folder = outputs / "04_joint_grpo" / "tiny-seed3"
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("precious")
    runs.start_run("04_joint_grpo", params.GRPOParams(env="alfworld", size="tiny", seed=3))
    assert (folder / "mine.txt").read_text() == "precious"


def test_tables(run):
    rows = [{"iteration": 0, "success": np.float32(0.25)}, {"iteration": 1, "success": 0.5}]
    for table in (rows, pd.DataFrame(rows)):
        for name, read in (("t.csv", pd.read_csv), ("t.parquet", pd.read_parquet)):
            run.write_table(name, table)
            found = read(run.path(name))
            assert found.to_dict("records") == [{"iteration": 0, "success": 0.25}, {"iteration": 1, "success": 0.5}]


def test_trajectories_and_figures(run, outputs, trajectory):
    run.write_trajectories("eval/t.jsonl", [trajectory])
    assert read_trajectories(run.path("eval/t.jsonl")) == [trajectory]
    from sglib.view import bars, keep_figure

    keep_figure(run, "bars", bars(["a"], [0.5], [0.4], [0.6]))
    assert (run.folder / "figures" / "bars.png").read_bytes().startswith(b"\x89PNG")
    page = (run.folder / "figures" / "bars.html").read_text()
    assert "../../../plotly.min.js" in page and len(page) < 50_000
    assert (outputs / "plotly.min.js").exists()


def test_cached_makes_once_and_keeps_no_failure(outputs):
    made = []

    def make(folder):
        made.append(1)
        (folder / "x").write_text("content")

    first = runs.cached("things", {"seed": 0, "n": np.int64(3)}, make)
    assert runs.cached("things", {"n": 3, "seed": 0}, make) == first and len(made) == 1
    assert (first / "x").read_text() == "content"
    assert runs.cached("things", {"seed": 1, "n": 3}, make) != first

    def fail(folder):
        (folder / "half").write_text("")
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        runs.cached("broken", 1, fail)
    assert not list((outputs / "cache").glob("*broken*"))


def test_cached_when_another_process_was_faster():
    def make(folder):
        runs.cached("race", 1, lambda other: (other / "x").write_text("theirs"))
        (folder / "x").write_text("ours")

    assert (runs.cached("race", 1, make) / "x").read_text() == "theirs"


def test_source_hash(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "repo_root", lambda: tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.py").write_text("1")
    before = runs.source_hash("a")
    (tmp_path / "a" / "x.pyc").write_text("cache")
    (tmp_path / "a" / "x.ipynb").write_text("executed")
    assert runs.source_hash("a") == before
    (tmp_path / "a" / "x.py").write_text("2")
    assert runs.source_hash("a") != before


def test_files_outside_the_repository_count_by_name_and_content(tmp_path):
    (tmp_path / "mine.py").write_text("1")
    before = runs.source_hash(tmp_path / "mine.py")
    assert runs.source_hash((tmp_path / "mine.py").rename(tmp_path / "other.py")) != before
    (tmp_path / "mine.py").write_text("1")
    assert runs.source_hash(tmp_path / "mine.py") == before
    (tmp_path / "mine.py").write_text("2")
    assert runs.source_hash(tmp_path / "mine.py") != before


def test_output_root(monkeypatch, tmp_path):
    monkeypatch.delenv("SGLIB_OUTPUT")
    monkeypatch.chdir(tmp_path)  # as in JupyterLab, the working directory does not matter
    assert runs.output_root() == runs.repo_root() / "outputs"
    assert runs.output_root(tmp_path / "elsewhere") == tmp_path / "elsewhere"


def test_every_missing_or_changed_result_file_is_named(tmp_path):
    names = ("tuning.csv", "04_joint_grpo/r/curves.csv", "04_joint_grpo/r/run.json", "evidence/grpo-seed1.json")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert "NOT CHECKED, MANIFEST.json: FileNotFoundError" in runs.check_manifest(tmp_path)
    runs.write_manifest(tmp_path)
    assert runs.check_manifest(tmp_path) == "committed results: 3 of 3 files"  # cells are counted by their plan
    for name in names[:3]:
        text = (tmp_path / name).read_text()
        (tmp_path / name).unlink()
        assert runs.check_manifest(tmp_path) == f"committed results: 2 of 3 files; 1 MISSING: {name}"
        (tmp_path / name).write_text(text + "9")
        assert runs.check_manifest(tmp_path) == f"committed results: 3 of 3 files; 1 CHANGED: {name}"
        (tmp_path / name).write_text(text)


def test_the_committed_results_are_those_of_the_manifest():
    assert runs.check_manifest().split(";")[1:] == []
