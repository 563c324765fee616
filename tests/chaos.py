"""Does anything get lost? Kills, full disks, two at once, hostile inputs and long runs, in bounded time: `make chaos`.

    python tests/chaos.py --short            # 40 seconds, what the suite runs
    python tests/chaos.py --out chaos.json   # the long form, about 20 minutes on two idle cores
    python tests/chaos.py --only kills fuzz --seed 3

Each part is repeated with random moments and inputs that follow from the seed, and has a time after which it ends with
the trials that it has, so that other work on the machine does not keep it for hours. The table says how many trials
there were, how many of them ended as they should, and how many records were lost or altered, which must be none.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import hashlib
import importlib.util
import json
import os
import platform
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import conftest  # noqa: F401  (no network, one thread, before anything is loaded)
import fuzzing
import psutil
import torch

import sglib
from sglib import envs
from sglib.experiments import params, pool, runs
from sglib.experiments.experiment import Experiment
from sglib.experiments.files import repo_root
from sglib.records import (
    read_checked,
    read_trajectories,
    write_atomic,
    write_checked,
    write_trajectories,
)
from sglib.training import checkpoint, pretrain

torch.set_num_threads(1)
SMALL = {
    "env": "alfworld", "size": "smoke", "iterations": 4, "games_per_iteration": 2, "group_size": 2, "eval_games": 4,
    "eval_every": 2, "max_turns": 4, "checkpoint_every": 1,
}  # fmt: skip
TIMED = ("second", "machine", "started", "finished", "elapsed", "peak_memory", "replaced", "git")  # differ every time
LONGEST = 900.0  # seconds that a child may take before it counts as hanging
# seconds after which a row of the long form begins no further round, about twice what it takes on two idle cores
LIMIT = {
    "pre-training": 60, "supervised training": 60, "GRPO with an internal reward": 180, "the evidence runner": 180,
    "the study (papermill)": 180, "Dask's workers": 180, "workers": 90,
}  # fmt: skip


@dataclass
class Row:
    """A line of the table."""

    part: str
    what: str
    trials: int = 0
    survived: int = 0
    lost: int = 0  # records that are missing, altered, or not those of an undisturbed run
    note: str = ""

    def count(self, wrong: str | None, lost: int = 0) -> None:
        self.trials += 1
        self.survived += wrong is None
        self.lost += lost
        if wrong is not None and wrong not in self.note:
            self.note = f"{self.note}; {wrong}".strip("; ")[:600]


@dataclass(frozen=True)
class Setting:
    """How much of everything: of the short form, or of the long one."""

    short: bool
    seed: int
    folder: Path

    def of(self, short: int, long: int) -> int:
        return short if self.short else long


def rounds(row: Row, wanted: int, seconds: float) -> Iterator[int]:
    """1, 2, ... until a row has the trials that are wanted, or so many seconds are over, which its note then says."""
    until, number = time.monotonic() + seconds, 0
    while row.trials < wanted:
        if time.monotonic() > until:
            row.note = f"{row.note}; ended after its {seconds:.0f} s, {wanted} trials were wanted".strip("; ")
            return
        yield (number := number + 1)


# -- processes --------------------------------------------------------------------------------------------------------


def child(work: Callable[[], object], log: Path, kill_after: float | None = None) -> int:
    """The exit status of a process that does `work` (-9: it was killed after so many seconds); 1 with a traceback in
    `log` where that raises."""
    pid = os.fork()
    if pid == 0:
        try:
            sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(sink, 1)
            os.dup2(sink, 2)
            work()
            sys.stdout.flush()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
    until = time.monotonic() + (LONGEST if kill_after is None else kill_after)
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def dies_at(number: int, before: bool) -> None:
    """In a child: SIGKILL at its n-th rename, before or after it; renames are where files become what others read."""
    counted = [0]

    def patched(real):
        def call(*args, **kwargs):
            counted[0] += 1
            if counted[0] == number and before:
                os.kill(os.getpid(), signal.SIGKILL)
            real(*args, **kwargs)
            if counted[0] == number:
                os.kill(os.getpid(), signal.SIGKILL)

        return call

    os.replace, os.rename = patched(os.replace), patched(os.rename)


def _dying(work: Callable[[], object], at: int, before: bool) -> None:
    dies_at(at, before)
    work()


@contextlib.contextmanager
def output(folder: Path) -> Iterator[None]:
    """Everything is written below `folder`."""
    before = os.environ.get("SGLIB_OUTPUT")
    os.environ["SGLIB_OUTPUT"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("SGLIB_OUTPUT")
        if before is not None:
            os.environ["SGLIB_OUTPUT"] = before


# -- what there is, and whether it is whole ---------------------------------------------------------------------------


def untimed(value):
    """JSON data without what differs every time: seconds, dates, memory."""
    if isinstance(value, dict):
        return {k: untimed(v) for k, v in value.items() if not any(name in k for name in TIMED)}
    return [untimed(v) for v in value] if isinstance(value, list) else value


def records(folder: Path) -> dict[str, str]:
    """A hash of each record below a folder: a row, an episode, a file of weights, a table."""
    found = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder).as_posix()
        # hidden files are locks and what a kill left half written; a checkpoint and the notebook are no results
        if any(part.startswith(".") or part.startswith(("checkpoint-", "earlier")) for part in Path(name).parts):
            continue
        if file.suffix == ".jsonl":
            parts = [json.dumps(untimed(json.loads(line))) for line in file.read_text().splitlines()]
        elif file.suffix == ".json" and file.name not in ("key.json", "params.json"):
            parts = [json.dumps(untimed({k: v for k, v in json.loads(file.read_text()).items() if k != "check"}))]
        elif file.suffix in (".safetensors", ".csv"):
            parts = [hashlib.sha256(file.read_bytes()).hexdigest()]
        else:
            continue
        found |= {f"{name}:{number}": part for number, part in enumerate(parts)}
    return found


def damage(folder: Path) -> str | None:
    """A file below a folder that cannot be read, as it is right after a kill; None for none."""
    for file in folder.rglob("*"):
        if not file.is_file() or any(part.startswith(".") for part in file.relative_to(folder).parts):
            continue
        try:
            if file.name == "metrics.jsonl":  # grows line by line: the last may be half
                for line in file.read_text().split("\n")[:-1]:
                    json.loads(line)
            elif file.suffix == ".jsonl":
                read_trajectories(file)
            elif file.name == "state.json":
                checkpoint.read_state(file.parent)
            elif file.suffix == ".json" and file.name != "key.json":
                read_checked(file)
        except ValueError as error:
            return f"{file.name} damaged: {error}"[:200]
    return None


def compared(whole: dict[str, str], found: dict[str, str]) -> tuple[str | None, int]:
    """What is wrong, and how many records are missing or differ."""
    differing = [name for name in {**whole, **found} if whole.get(name) != found.get(name)]
    return (f"not as undisturbed: {', '.join(sorted(differing)[:3])}" if differing else None), len(differing)


# -- kills ------------------------------------------------------------------------------------------------------------

ECHO = "env.py"  # a game of one move, with a card that pre-training takes


def _pretraining(folder: Path) -> Callable[[Path], Callable]:
    from test_pretrain import ECHO as text

    (folder / ECHO).write_text(text)
    card = str(folder / ECHO)

    def stage(out: Path):
        recipe = {**envs.get(card).pretraining, "stop": 25}
        return lambda: pretrain.pretrain(card, recipe, out / "base", points=2, games=2)

    return stage


def _experiment(recipe: str, **changes) -> Callable[[Path], Callable]:
    def stage(out: Path):
        def work():
            with output(out):
                Experiment(recipe, params.check("grpo", {**SMALL, "arms": [recipe], **changes})).train()

        return work

    return stage


def stages(folder: Path, iterations: int) -> dict[str, Callable[[Path], Callable]]:
    """Name -> a function of a folder that gives the work of a process there."""
    warm = folder / "warm.yaml"
    warm.write_text("format: act\nstart: {kind: imitation, games: 12, batch_size: 4}\n")
    return {
        "pre-training": _pretraining(folder),
        "supervised training": _experiment(str(warm)),
        "GRPO with an internal reward": _experiment("self_guide", iterations=iterations),
    }


def kills(s: Setting) -> Iterator[Row]:
    """SIGKILL at random moments and at random renames of a stage, started again until it ends: the same records, bit
    for bit, as undisturbed, and nothing that cannot be read in between."""
    rng, log = random.Random(f"kills {s.seed}"), s.folder / "kills.log"
    for name, stage in stages(s.folder, s.of(2, 4)).items():
        of_grpo = name.startswith("GRPO")
        if s.short and not of_grpo:
            continue
        undisturbed, began = s.folder / f"{name}-whole", time.monotonic()
        status = child(stage(undisturbed), log)
        took, whole = time.monotonic() - began, records(undisturbed)
        row = Row("kills", name)
        if status or not whole:
            row.count(f"the undisturbed run failed: {log.read_text()[-300:]}", len(whole) or 1)
            yield row
            continue
        for number in rounds(row, s.of(1, 25 if of_grpo else 12), LIMIT[name]):
            folder = s.folder / f"{name}-{number}"
            wrong, killed = None, 0
            for _ in range(rng.randint(1, 3)):
                if rng.random() < 0.4:  # at a rename
                    at, before = rng.randint(1, 14), rng.random() < 0.5
                    status = child(functools.partial(_dying, stage(folder), at, before), log)
                else:
                    status = child(stage(folder), log, rng.uniform(0, took))
                if status == 0:
                    break
                killed += status == -signal.SIGKILL
                wrong = wrong or (None if status == -signal.SIGKILL else f"exit status {status}") or damage(folder)
            status = child(stage(folder), log)
            differs, lost = compared(whole, records(folder))
            wrong = wrong or (f"exit status {status}: {log.read_text()[-200:]}" if status else differs)
            for trial in range(killed):
                row.count(wrong, lost if trial == 0 else 0)
            shutil.rmtree(folder, ignore_errors=True)
        row.note = f"{len(whole)} records each; undisturbed {took:.0f} s; {row.note}".strip("; ")
        yield row


def commands(s: Setting) -> Iterator[Row]:
    """In the long form the same of whole commands, whose processes are killed one and all or the first alone: what is
    left of the others must not stop the next start."""
    if s.short:
        return
    rng, regime = random.Random(f"commands {s.seed}"), s.folder / "mini.yaml"
    regime.write_text(
        "env: alfworld\nsize: mini\nseed: 1\ngrpo: {iterations: 3, games_per_iteration: 2, group_size: 2, "
        "eval_games: 4, eval_every: 1, max_turns: 3, checkpoint_every: 1}\n"
        "grid: {headline: [grpo, self_guide], headline_seeds: 1}\n"
    )
    smoke = str(repo_root() / "params" / "smoke.yaml")
    given = {
        "the evidence runner": (["evidence", "--params", str(regime), "--jobs", "2"], "evidence", 4),
        "the study (papermill)": (["study", "--params", smoke, "--only", "01_pilot_study"], "01_pilot_study", 3),
    }
    for name, (arguments, results, wanted) in given.items():
        whole_folder, row, began = s.folder / f"{results}-whole", Row("commands", name), time.monotonic()
        status, said = command(arguments, whole_folder)
        took, whole = time.monotonic() - began, records(whole_folder / results)
        if status or not whole:
            row.count(f"the undisturbed run failed: {said[-300:]}", 1)
            yield row
            continue
        for number in rounds(row, wanted, LIMIT[name]):
            folder, killed, wrong = s.folder / f"{results}-{number}", 0, None
            for _ in range(rng.randint(1, 2)):
                status, said = command(arguments, folder, rng.uniform(0.2 * took, took), rng.random() < 0.5)
                killed += status == -signal.SIGKILL
                wrong = wrong or damage(folder)
                if status == 0:
                    break
            status, said = command(arguments, folder)
            differs, lost = compared(whole, records(folder / results))
            wrong = wrong or (f"exit status {status}: {said[-300:]}" if status else differs)
            for trial in range(killed):
                row.count(wrong, lost if trial == 0 else 0)
        row.note = f"{len(whole)} records each; undisturbed {took:.0f} s; {row.note}".strip("; ")
        yield row
        if results == "evidence":
            yield dask_workers(s, [*arguments, "--scheduler", "local"], whole)


def dask_workers(s: Setting, arguments: list[str], whole: dict[str, str]) -> Row:
    """Dask's workers are killed while they train the evidence's cells, which end as those of the pool."""
    rng, row = random.Random(f"dask {s.seed}"), Row("commands", "Dask's workers")
    for number in rounds(row, 6, LIMIT[row.what]):
        folder, log, killed, most = s.folder / f"dask-{number}", s.folder / "dask.log", 0, rng.randint(1, 3)
        with open(log, "w") as said:
            running = start(arguments, folder, stdout=said)
        began = time.monotonic()
        while running.poll() is None and time.monotonic() - began < LONGEST:
            time.sleep(rng.uniform(0.05, 0.6))
            if killed < most and (training := trainers(folder / "cache", running.pid)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    rng.choice(training).kill()
                    killed += 1
        status = running.poll()
        if status is None:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
        differs, lost = compared(whole, records(folder / "evidence"))
        wrong = f"exit status {status}: {log.read_text()[-300:]}" if status != 0 else damage(folder) or differs
        for trial in range(killed):
            row.count(wrong, lost if trial == 0 else 0)
    return row


def trainers(folder: Path, parent: int | None = None) -> list[psutil.Process]:
    """The processes below `parent` (this one) that train something in folders below `folder`."""
    locks = [path.read_text() for path in folder.glob("*/.training")]
    with contextlib.suppress(psutil.Error):
        children = psutil.Process(parent).children(recursive=True)
        return [child for child in children if any(f"process {child.pid} " in lock for lock in locks)]
    return []


def command(arguments: list[str], folder: Path, kill_after: float | None = None, alone: bool = True) -> tuple[int, str]:
    """Exit status and words of `python -m sglib ...`; killed after so many seconds, `alone` or with its group."""
    running = start(arguments, folder, stdout=subprocess.PIPE)
    try:
        said, _ = running.communicate(timeout=kill_after or LONGEST)
        return running.returncode, said
    except subprocess.TimeoutExpired:
        (os.kill if alone else os.killpg)(running.pid, signal.SIGKILL)
        running.wait()
        running.stdout.close()
        return -signal.SIGKILL, ""


def start(arguments: list[str], folder: Path, stdout) -> subprocess.Popen:
    environment = os.environ | {"SGLIB_OUTPUT": str(folder), "PYTHONPATH": str(repo_root())}
    return subprocess.Popen(
        [sys.executable, "-m", "sglib", *arguments], env=environment, text=True, start_new_session=True,
        stdout=stdout, stderr=subprocess.STDOUT, cwd=repo_root(),
    )  # fmt: skip


# -- disk -------------------------------------------------------------------------------------------------------------


def writers(folder: Path) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Name -> (write something that is there already once more, and larger; read what is there)."""
    with output(folder):
        run = runs.start_run("00_the_game", params.check("game", {"env": "alfworld", "size": "smoke"}))
        runs._TAKEN.pop(run.folder).close()  # with its lock open the file system could not be made read-only
    policy = sglib.load_policy("base", env="alfworld")
    few = sglib.rollout(policy, sglib.panel("alfworld", n=1), turns=2, seed=0)
    (folder / "run").mkdir()
    optimizer = {"step|w": torch.zeros(200_000)}

    def state(iteration: int) -> dict:
        return {"iteration": iteration, "fingerprint": {}, "metrics": []}

    checkpoint.write(folder / "run", state(1), policy.model, optimizer)
    return {
        "a text": (lambda: write_atomic(folder / "a.txt", "x" * 3_000_000), (folder / "a.txt").read_bytes),
        "episodes": (lambda: write_trajectories(folder / "t.jsonl", few * 400),
                     lambda: read_trajectories(folder / "t.jsonl")),
        "checked data": (lambda: write_checked(folder / "c.json", {"a": "x" * 3_000_000}),
                         lambda: read_checked(folder / "c.json")),
        "a run's table": (lambda: run.write_table("t.csv", [{"a": "x" * 3_000_000}]),
                          (run.folder / "t.csv").read_bytes),
        "a checkpoint": (lambda: checkpoint.write(folder / "run", state(2), policy.model, optimizer),
                         lambda: checkpoint.read_state(checkpoint.find(folder / "run", {}))),
        "a policy": (lambda: policy.save(folder / "p"),
                     lambda: [(p.name, p.read_bytes()) for p in sorted((folder / "p").iterdir())]),
    }  # fmt: skip


def disk(s: Setting) -> Iterator[Row]:
    """A disk that is full at different moments, a folder that cannot be written, one that is gone: an error at once
    that names it, and what was written before is as it was."""
    small, how = s.folder / "small", "a file system of 24 MB"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        how = "a limit on the size of files (no right to mount)"
    try:
        yield from _full(s, small, not mounted.returncode, how)
    finally:
        if not mounted.returncode:
            subprocess.run(["umount", "-l", str(small)], capture_output=True)
    row = Row("disk", "a folder that is gone")
    for number in range(s.of(1, 3)):
        with output(s.folder / f"gone{number}"):
            run = runs.start_run("00_the_game", params.check("game", {"env": "alfworld", "size": "smoke"}))
            shutil.rmtree(run.folder)
            row.count(_refused(lambda run=run: run.write_json("x.json", 1), "removed while it ran"))
            row.count(_refused(lambda run=run: run.finish(), "removed while it ran"))
            row.count(None if not run.folder.exists() else "it was made again, half empty")
    yield row


def _refused(work: Callable[[], object], says: str) -> str | None:
    """What is wrong with how something is refused; None where an error says what it should."""
    try:
        work()
    except Exception as error:
        return None if says in str(error) or says in repr(error.__context__) else f"it says {error!r}"[:200]
    return "no error"


def _full(s: Setting, small: Path, mounted: bool, how: str) -> Iterator[Row]:
    full, closed = Row("disk", "full", note=how), Row("disk", "read-only")
    given = writers(small)
    write_atomic(small / "a.txt", "old")
    write_trajectories(small / "t.jsonl", [sglib.Trajectory("g", "t", "goal", "act")])
    write_checked(small / "c.json", {"a": 1})
    for name, (write, read) in given.items():
        if name == "a run's table":
            write_atomic(next(small.rglob("run.json")).parent / "t.csv", "old")
        if name == "a policy":
            write()
        before = read()

        def attempt(write=write):
            if not mounted:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
            try:
                write()
            except Exception as error:
                words = f"{type(error).__name__} {error}"
                known = ("No space left", "File too large", "not written", "Read-only", "SafetensorError", "IoError")
                os._exit(3 if any(word in words for word in known) else 4)

        fillers = []
        for left in (0, 100_000, 400_000)[: s.of(2, 3)]:
            if mounted:
                free = shutil.disk_usage(small).free
                filler = small / f"filler{left}"
                with contextlib.suppress(OSError):
                    filler.write_bytes(b"0" * max(0, free - left))
                fillers.append(filler)
            status = child(attempt, s.folder / "disk.log")
            for filler in fillers:
                filler.unlink(missing_ok=True)
            full.count({3: None, 0: "it was written in spite of it"}.get(status, f"{name}: exit status {status}"))
            full.count(None if read() == before else f"{name}: what was there is damaged", read() != before)
        if mounted:
            subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True, capture_output=True)
            status = child(attempt, s.folder / "disk.log")
            subprocess.run(["mount", "-o", "remount,rw", str(small)], check=True, capture_output=True)
            closed.count({3: None, 0: "it was written"}.get(status, f"{name}: exit status {status}"))
            closed.count(None if read() == before else f"{name}: what was there is damaged", read() != before)
    left = [path.name for path in small.rglob(".*") if path.name not in (".lock",)]
    full.count(f"left behind: {left[:3]}" if left else None)
    if not mounted:
        closed.note = "not tried: no right to mount"
    yield full
    yield closed


# -- two at once ------------------------------------------------------------------------------------------------------


def concurrency(s: Setting) -> Iterator[Row]:
    """Two processes on one run: the second says who has it and leaves; a dead owner keeps nothing; readers of a file
    that is written all the time see whole ones; several that make the same thing make it once."""
    lock, folder = Row("two at once", "one run, a second process, a dead owner"), s.folder / "locked"
    for _ in range(s.of(2, 10)):
        ready = s.folder / "ready"

        def hold(ready=ready):
            with checkpoint.locked(folder):
                ready.touch()
                time.sleep(60)

        pid = os.fork()
        if pid == 0:
            hold()
        while not ready.exists():
            time.sleep(0.005)
        lock.count(_refused(lambda: checkpoint.locked(folder).__enter__(), f"process {pid} "))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        ready.unlink()
        with checkpoint.locked(folder):
            lock.count(None)
    yield lock

    torn, path = Row("two at once", "a reader while two write"), s.folder / "torn.json"
    write_checked(path, {"a": []})

    def writer(seed: int):
        rng = random.Random(seed)
        for _ in range(s.of(20, 400)):
            write_checked(path, {"a": [rng.random()] * rng.randint(1, 20_000)})

    pids = []
    for seed in (1, 2):
        pid = os.fork()
        if pid == 0:
            writer(seed)
            os._exit(0)
        pids.append(pid)
    while pids:
        try:
            read_checked(path)
            torn.count(None)
        except ValueError as error:
            torn.count(str(error)[:200], 1)
        pids = [pid for pid in pids if not os.waitpid(pid, os.WNOHANG)[0]]
    yield torn

    once = Row("two at once", "several make the same thing")
    with output(s.folder / "once"):
        for number in range(s.of(2, 20)):

            def make(number=number):
                runs.cached("thing", number, lambda f: (time.sleep(0.02), write_atomic(f / "x", str(os.getpid()))))

            pids = [os.fork() for _ in range(1)]
            if pids[0] == 0:
                make()
                os._exit(0)
            make()
            status = os.waitpid(pids[0], 0)[1]
            once.count(f"exit status {status}" if status else None)
        made = [path for path in (s.folder / "once" / "cache").iterdir() if not path.name.startswith(".")]
        left = [path for path in (s.folder / "once" / "cache").iterdir() if path.name.startswith(".")]
        once.count(None if (len(made), left) == (s.of(2, 20), []) else f"{len(made)} made, {len(left)} left behind")
    yield once

    if s.short:  # a test of the suite has it
        return
    workers = Row("two at once", "workers killed in the middle are replaced and counted")
    with output(s.folder / "workers"):
        for _ in rounds(workers, 2, LIMIT["workers"]):
            workers.count(*_killed_workers(s))
    yield workers


def _killed_workers(s: Setting) -> tuple[str | None, int]:
    p = params.check("grpo", {**SMALL, "arms": ["grpo"], "seed": s.seed, "iterations": 8})
    one, shot, ended = Experiment("grpo", p), [], []
    shutil.rmtree(one.folder, ignore_errors=True)

    def look():
        rows = one.folder / "metrics.jsonl"
        if len(shot) < 3 and rows.exists() and len(rows.read_text().splitlines()) > len(shot):
            for process in trainers(one.folder.parent)[:1]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
                    shot.append(process.pid)

    pool.train_all([one], lambda number, error: ended.append(error), jobs=1, on_poll=look, poll=0.05, threads=1)
    if ended != [None]:
        return f"it ended as {ended}"[:300], 1
    card = one.read().card
    counted = card["replaced"]
    lost = p.iterations - len(one.read().batches)
    return (None if counted == len(shot) and shot and not lost else f"{counted} counted of {len(shot)} killed"), lost


# -- inputs -----------------------------------------------------------------------------------------------------------


def fuzz(s: Setting) -> Iterator[Row]:
    """Mutations of good inputs to everything that reads text from outside: a result or the promised error, quickly, in
    time that does not grow with the square of the input. What was found once is read again."""
    names, per_target = fuzzing.targets(), s.of(100, 100_000)
    for name, target in names.items():
        row = Row("fuzz", name)
        for text in fuzzing.corpus(name):
            row.count(fuzzing.tried(target, text))
        # the cheap ones get most inputs: the others have as much time
        count, wrong = fuzzing.fuzz(name, per_target, s.of(1, 8), s.seed)
        row.trials, row.survived = row.trials + count, row.survived + count - len(wrong)
        row.note = "; ".join(f"{found} <- {text[:200]!r}" for found, text in wrong.values())
        if target.grows and not s.short:
            row.count(fuzzing.growth(name))
        yield row
    if not s.short:
        yield from guided(s)
    fuzzing.tidy()


def guided(s: Setting) -> Iterator[Row]:
    """The pure readers, guided by coverage, where atheris is installed."""
    row = Row("fuzz", "guided by coverage (atheris)")
    if importlib.util.find_spec("atheris") is None:
        row.note = "not tried: atheris is not installed"
        yield row
        return
    for name in ("format guide", "format retrospect", "thoughts", "webshop action", "game problem", "checked file"):
        seeds = s.folder / f"seeds {name}"
        seeds.mkdir()
        for number, text in enumerate((*fuzzing.targets()[name].seeds, *fuzzing.corpus(name))):
            (seeds / str(number)).write_text(text, errors="replace")
        limits = ["-max_total_time=15", "-timeout=5", "-max_len=2000"]
        arguments = [sys.executable, __file__, "--atheris", name, *limits, str(seeds)]
        done = subprocess.run(arguments, capture_output=True, text=True, cwd=s.folder)
        ran = [line.split() for line in done.stderr.splitlines() if line.startswith("Done ")]
        row.trials += (tried := int(ran[-1][1]) if ran else 0)
        row.survived += tried
        if done.returncode:
            row.count(f"{name}: {done.stderr[-300:]}")
    yield row


def under_atheris(name: str, arguments: list[str]) -> None:
    import atheris

    for module in [module for called, module in sys.modules.items() if called.startswith(fuzzing.READERS)]:
        for function in vars(module).values():
            if isinstance(function, types.FunctionType) and function.__module__ == module.__name__:
                atheris.instrument_func(function)
    target = fuzzing.targets()[name]

    def one(data: bytes):
        with contextlib.suppress(*target.errors):
            target.read(data.decode("utf-8", "replace"))

    atheris.Setup([sys.argv[0], *arguments], one)
    atheris.Fuzz()


# -- long runs --------------------------------------------------------------------------------------------------------


def soak(s: Setting) -> Iterator[Row]:
    """Episode after episode with random commands: memory stays as it was after the first part. And whole rollouts of
    the small model."""
    for name in ("alfworld", "sokoban", "search_qa", "webshop", "scienceworld"):
        row = Row("soak", name)
        there = importlib.util.find_spec("scienceworld") and shutil.which("java")
        if name == "scienceworld" and (s.short or not there):
            continue
        wanted = s.of(200, 100_000 if name != "scienceworld" else 300)
        row.trials, grown, took = _episodes(name, wanted, s.of(1, 120), s.seed)
        row.survived = row.trials
        row.note = f"{grown:+.1f} MB, {row.trials / took:.0f} episodes/s"
        if grown > 30:
            row.survived, row.lost = 0, 0
            row.note = f"memory grew: {row.note}"
        yield row
    row, policy = Row("soak", "rollouts of the small model"), sglib.load_policy("base", env="alfworld")
    tasks, seen, until = sglib.panel("alfworld", n=16), [], time.monotonic() + s.of(1, 30)
    while time.monotonic() < until or len(seen) < 3:
        row.trials += len(sglib.rollout(policy, tasks, turns=6, seed=len(seen)))
        gc.collect()
        seen.append(memory())
    grown = seen[-1] - seen[min(len(seen) // 5 + 1, len(seen) - 1)]
    row.survived, row.note = (row.trials if grown < 60 else 0), f"{grown:+.1f} MB after the first fifth"
    yield row


def memory() -> float:
    """MB of this process that are in memory."""
    return psutil.Process().memory_info().rss / 2**20


def _episodes(name: str, wanted: int, seconds: float, seed: int) -> tuple[int, float, float]:
    """(episodes played, MB grown after the first two fifths, seconds). Tasks change every 200 episodes, since what is
    kept of the last thousand, which is bounded, has to be full by then."""
    card, rng = envs.get(name), random.Random(seed)
    env, tasks = card.make(max_steps=10), card.tasks(20, seed=seed)
    played, base, began = 0, None, time.monotonic()
    while played < wanted and time.monotonic() - began < seconds:
        if played and played % 200 == 0 and name in ("sokoban", "alfworld"):
            tasks = card.tasks(20, seed=seed, start=played)
        seen = env.reset(tasks[played % len(tasks)])
        while not seen.done:
            seen = env.step(rng.choice(seen.admissible) if seen.admissible and rng.random() < 0.9 else "xyzzy")
        played += 1
        if base is None and (played >= 0.4 * wanted or time.monotonic() - began > 0.4 * seconds):
            gc.collect()
            base = memory()
    gc.collect()
    return played, memory() - (base or memory()), time.monotonic() - began


# -- all --------------------------------------------------------------------------------------------------------------

PARTS = {"kills": kills, "commands": commands, "disk": disk, "two": concurrency, "fuzz": fuzz, "soak": soak}
NAMES = {"two": "two at once"}


def table(rows: list[Row]) -> str:
    width = max(len(f"{row.part}: {row.what}") for row in rows)
    lines = [f"{'':{width}}  {'trials':>9} {'survived':>9} {'lost':>5}"]
    for row in rows:
        name = f"{row.part}: {row.what}"
        lines.append(f"{name:{width}}  {row.trials:9,} {row.survived:9,} {row.lost:5}  {row.note[:200]}")
    total = f"{sum(r.trials for r in rows):9,} {sum(r.survived for r in rows):9,} {sum(r.lost for r in rows):5}"
    return "\n".join([*lines, f"{'all':{width}}  {total}"])


def report(given: list[str], seed: int, seconds: float, rows: list[Row]) -> dict:
    """The table as JSON data."""
    return {
        "command": f"python tests/chaos.py {' '.join(given)}", "seed": seed, "seconds": round(seconds),
        "cores": os.cpu_count(), "system": platform.platform(), "trials": sum(r.trials for r in rows),
        "survived": sum(r.survived for r in rows), "records_lost": sum(r.lost for r in rows),
        "rows": [asdict(row) for row in rows],
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run the parts; returns 0 where every trial ended as it should and no record was lost."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["--atheris"]:
        return under_atheris(given[1], given[2:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="a form of at most 40 seconds")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), help="only these parts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="also write the table there; with --only beside the other parts")
    o = parser.parse_args(given)
    rows, kept, began = [], [], time.monotonic()
    if o.only and o.out and o.out.exists():
        parts = {NAMES.get(name, name) for name in o.only}
        kept = [Row(**row) for row in json.loads(o.out.read_text())["rows"] if row["part"] not in parts]
    warnings.simplefilter("ignore")  # of the libraries; ours are what is tested
    with tempfile.TemporaryDirectory(prefix="sglib-chaos-") as folder:
        for name in o.only or PARTS:
            at = time.monotonic()
            for row in PARTS[name](Setting(o.short, o.seed, Path(folder))):
                rows.append(row)
                print(f"{time.monotonic() - began:6.0f} s  {row.part}: {row.what}: {row.survived:,} of {row.trials:,}"
                      f", {row.lost} lost  {row.note[:300]}", flush=True)  # fmt: skip
                if o.out:  # at once, so that a run that is ended leaves what it has
                    seconds = time.monotonic() - began
                    write_atomic(o.out, json.dumps(report(given, o.seed, seconds, kept + rows), indent=1) + "\n")
            print(f"        {name}: {time.monotonic() - at:.0f} s", flush=True)
    print(table(rows))
    return int(any(row.survived < row.trials or row.lost for row in rows))


if __name__ == "__main__":
    sys.exit(main())
