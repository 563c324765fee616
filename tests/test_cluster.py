"""Cells on Dask's workers: the same as those of the pool, also when a worker is killed; what is refused, and how."""

import _thread
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from sglib.__main__ import main
from sglib.experiments import cluster, evidence
from sglib.experiments.experiment import STOP, sources
from sglib.experiments.files import repo_root
from sglib.experiments.params import ParameterError
from sglib.experiments.runs import source_hash

distributed = pytest.importorskip("distributed")
dask = pytest.importorskip("dask")
TEXT = """
env: alfworld
size: mini
seed: 1
grpo: {iterations: 3, games_per_iteration: 2, group_size: 2, eval_games: 4, eval_every: 3, max_turns: 3,
       checkpoint_every: 1}
grid: {headline: [self_guide], others: [grpo], headline_seeds: 2, other_seeds: 1}
"""
ONE = {"[self_guide], others: [grpo], headline_seeds: 2, other_seeds: 1": "[grpo], headline_seeds: 1"}
TIMED = ("seconds", "cpu_seconds", "peak_memory_mb", "env_steps_per_second", "policy_tokens_per_second")


def cells_of(folder: Path, changed: dict[str, str] | None = None) -> list:
    text = TEXT
    for old, new in (changed or {}).items():
        assert old in text
        text = text.replace(old, new)
    (folder / "mini.yaml").write_text(text)
    return evidence.plan(folder / "mini.yaml")


class Machines:
    """A scheduler and workers as people start them, each worker with an outputs folder of its own."""

    def __init__(self, folder: Path):
        self.folder, self.running = folder, []  # the scheduler first
        self.start(folder / "scheduler", "scheduler", "--port", "0", "--scheduler-file", str(folder / "file"))
        while not (folder / "file").exists():
            assert self.running[0].poll() is None, (folder / "scheduler" / "log").read_text()
            time.sleep(0.05)
        self.address = json.loads((folder / "file").read_text())["address"]

    def start(self, folder: Path, *arguments: str, code: Path | None = None) -> subprocess.Popen:
        folder.mkdir()
        environment = os.environ | {"SGLIB_OUTPUT": str(folder / "out"), "PYTHONPATH": str(code or repo_root())}
        command = [sys.executable, "-m", "dask", *arguments, "--host", "127.0.0.1", "--dashboard-address", ":0"]
        with open(folder / "log", "w") as log:
            self.running.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log))
        return self.running[-1]

    def worker(self, name: str, code: Path | None = None) -> subprocess.Popen:
        options = ("--nthreads", "1", "--memory-limit", "0", "--no-nanny")
        return self.start(self.folder / name, "worker", self.address, *options, code=code)

    def some(self) -> str:
        """The scheduler's address, with a worker if there is none any more."""
        if all(process.poll() is not None for process in self.running[1:]):
            self.worker(f"worker {len(self.running)}")
        return self.address


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    made = Machines(tmp_path_factory.mktemp("machines"))
    yield made
    for process in made.running:
        process.kill()
        process.wait()


def rows(folder: Path) -> int:
    file = folder / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


def content(cells: list) -> dict[str, dict]:
    """Everything of the cells but what differs every time."""
    found = evidence.read_evidence(cells)
    assert not found.missing, str(found)
    for cell in found.cells.values():
        for name in TIMED:
            del cell["card"][name]
        cell["batches"] = {name: column for name, column in cell["batches"].items() if not name.endswith("_seconds")}
    return found.cells


@pytest.mark.slow
def test_two_workers_make_the_pools_cells_though_one_is_killed(machines, tmp_path, monkeypatch):
    """It dies in the middle of its second cell; the other worker, which shares no file with it, makes that anew."""
    workers, cells, shot, said = {name: machines.worker(name) for name in ("one", "two")}, cells_of(tmp_path), [], []
    assert evidence.fill(cells, jobs=2) == (3, {})
    whole = content(cells)
    assert any(any(cell["batches"]["grad_norm"]) for cell in whole.values()), "nothing was learned that could differ"

    def kill():
        while not shot:
            for name, worker in workers.items():
                begun = [path.parent for path in (machines.folder / name).glob("out/cache/grpo-*/metrics.jsonl")]
                ended = [folder for folder in begun if (folder / "done.json").exists()]
                if ended and any(rows(folder) for folder in begun if folder not in ended):
                    worker.send_signal(signal.SIGSTOP)  # or it could end while this looks
                    if [folder for folder in begun if not (folder / "done.json").exists()]:
                        worker.kill()
                        return shot.append(name)
                    worker.send_signal(signal.SIGCONT)
            time.sleep(0.05)

    monkeypatch.setenv("SGLIB_OUTPUT", str(tmp_path / "here"))
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    assert evidence.fill(cells_of(tmp_path), on_update=said.append, scheduler=machines.address) == (3, {})
    assert shot and content(cells_of(tmp_path)) == whole
    assert said[0].startswith(f"2 workers of {machines.address}; ") and said[-1].endswith("; 0 to go")
    assert "workers: 1 lost, 0 new, 1 there" in said
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["evidence"]  # trained elsewhere


@pytest.mark.slow
def test_interrupted_what_runs_ends_at_the_next_safe_point_and_goes_on(machines, tmp_path):
    address = machines.some()
    (cell,) = cells_of(tmp_path, ONE | {"iterations: 3": "iterations: 300", "eval_every: 3": "eval_every: 300"})

    def folder() -> Path | None:
        return next((path.parent for path in machines.folder.glob(f"*/out/cache/{cell.folder.name}/base.json")), None)

    def interrupt():
        while not (folder() and rows(folder())):
            time.sleep(0.02)
        _thread.interrupt_main()

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        evidence.fill([cell], scheduler=address)
    where, until = folder(), time.monotonic() + 30

    def kept() -> int | None:
        return next((int(path.name[11:]) for path in where.glob("checkpoint-*")), None)

    while not (where / STOP).exists() or rows(where) != kept():
        assert time.monotonic() < until
        time.sleep(0.1)
    assert 0 < rows(where) < 300 and not (where / "done.json").exists()
    assert evidence.read_evidence([cell]).missing == [cell.name]


@pytest.mark.slow
def test_a_cell_that_fails_there_is_told_here(machines, tmp_path):
    said = []
    cells = cells_of(tmp_path, ONE | {"seed: 1": "seed: 1\nmodel: base-none"})
    done, failed = evidence.fill(cells, on_update=said.append, scheduler=machines.some())
    assert done == 0 and "base-none" in failed["grpo-seed1"] and "_train" in failed["grpo-seed1"]
    assert "FAILED: " in said[-1] and "base-none" in evidence.read_evidence(cells).failed["grpo-seed1"]


@pytest.mark.slow
def test_a_worker_with_other_code_is_refused(machines, tmp_path):
    code = tmp_path / "code"
    shutil.copytree(repo_root() / "sglib", code / "sglib", ignore=shutil.ignore_patterns("models.safetensors"))
    (code / "params").symlink_to(repo_root() / "params")
    with open(code / "sglib" / "records.py", "a") as file:
        file.write("# changed\n")
    other, (cell, *_) = machines.worker("other", code), cells_of(tmp_path)
    with distributed.Client(machines.address) as client:
        while str(other.pid) not in str(client.run(os.getpid).values()):
            time.sleep(0.1)
    try:
        mine = source_hash(*sources("alfworld"))
        with pytest.raises(cluster.Unfit, match=rf"worker tcp://127\S+: code: [0-9a-f]{{16}} there, {mine} here"):
            evidence.fill([cell], scheduler=machines.address)
    finally:
        other.kill()


def test_a_worker_that_came_later_refuses_what_it_would_make_otherwise(tmp_path, monkeypatch):
    (cell, *_), source = cells_of(tmp_path), source_hash(*sources("alfworld"))
    for threads, asked, says in (
        (2, (cell.key, source), "worker tcp://x: 2 threads; allowed: 1"),
        (1, (cell.key, "a"), f"code: {source} there, a here"),
        (1, ("b", source), f"recipe, model or environment of self_guide-seed1: {cell.key} there, b here"),
    ):
        worker = SimpleNamespace(address="tcp://x", state=SimpleNamespace(nthreads=threads))
        monkeypatch.setattr(distributed, "get_worker", lambda worker=worker: worker)
        with pytest.raises(cluster.Unfit, match=says):
            cluster._train(cell.recipe, cell.params, *asked, evidence.made)
    monkeypatch.setattr(cluster, "_source", lambda env: source)  # loaded before the files were changed
    monkeypatch.setattr(cluster, "source_hash", lambda *paths: "c")
    with pytest.raises(cluster.Unfit, match=f"files on disk: c there, {source} here"):
        cluster._train(cell.recipe, cell.params, cell.key, source, evidence.made)


def test_what_comes_back_and_is_no_such_cell_is_not_kept(tmp_path, monkeypatch):
    cells, said = cells_of(tmp_path), []

    def answer(scheduler, waiting, content, on_end, jobs, say):
        on_end(0, None, {"recipe": "self_guide"})
        on_end(1, "Traceback\nOSError: No space left", None)

    monkeypatch.setattr(cluster, "train_all", answer)
    assert evidence.fill(cells[:2], on_update=said.append, scheduler="tcp://x")[0] == 0
    assert "self_guide-seed1: FAILED: ValueError: not a cell of the evidence" in said[0]
    assert said[1] == "grpo-seed1: FAILED: OSError: No space left" and len(evidence.read_evidence(cells).missing) == 3


def test_a_killed_worker_of_this_machine_is_replaced_however_slowly():
    """Dask gives a worker up that is not back in time: here it would be, at once."""
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "1 ms"}), cluster.connected("local", 1) as client:
        (killed,) = client.run(os.getpid).values()
        os.kill(killed, signal.SIGKILL)
        came, until = {killed}, time.monotonic() + 120
        while came <= {killed} and time.monotonic() < until:
            time.sleep(0.2)
            with contextlib.suppress(OSError):  # it is being lost
                came = set(client.run(os.getpid).values())
        assert came and came != {killed}, "no worker came back"


def test_no_scheduler_and_no_worker_are_told_in_time(tmp_path, monkeypatch, capsys):
    cells_of(tmp_path)
    monkeypatch.setattr(cluster, "REACHED", 0.5)
    given = ["evidence", "--params", str(tmp_path / "mini.yaml"), "--scheduler"]
    for address, says in (
        ("tcp://127.0.0.1:1", "Timed out trying to connect"),
        ("xyz://a", "unknown address scheme 'xyz'"),
        ("tls://127.0.0.1:1", "TLS expects"),
    ):
        assert main([*given, address]) == 1
        said = capsys.readouterr().err.strip()
        assert said.startswith(f"--scheduler {address}: no scheduler there (") and says in said
        assert said.endswith("allowed: local, or the address that `dask scheduler` says") and "\n" not in said
    with distributed.LocalCluster(n_workers=0, dashboard_address=None) as empty:
        assert main([*given, empty.scheduler_address]) == 1
    start = f"dask worker {empty.scheduler_address} --nthreads 1 --memory-limit 0"
    assert capsys.readouterr().err.strip().endswith(f": it has no workers; start some: {start}")


def test_without_dask_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    cells_of(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["evidence", "--params", str(tmp_path / "mini.yaml"), "--scheduler", "local"]) == 1
    said = capsys.readouterr().err.strip()
    assert said == "--scheduler local: needs Dask, which is missing: pip install -c constraints.txt -e '.[cluster]'"


@pytest.mark.parametrize("given", [{"unseen": True}, {"status": True}, {"keep": True}, {"jobs": 2}])
def test_options_that_do_not_go_together(tmp_path, given):
    cells_of(tmp_path)
    given = {"only": None, "jobs": None, "unseen": False, "status": False, "keep": False} | given
    with pytest.raises(ParameterError, match="--scheduler tcp://x"):
        evidence.command(tmp_path / "mini.yaml", **given, scheduler="tcp://x")
