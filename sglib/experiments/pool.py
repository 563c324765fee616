"""Running several experiments at a time: one process each, with one thread each where there is no GPU.

Two runs with one thread each finish more iterations an hour than one run with two.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import multiprocessing.context
import os
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence

import torch

from sglib.experiments.experiment import KILLED, STOP, Experiment, Result
from sglib.experiments.params import GRPOParams
from sglib.records import write_atomic
from sglib.training.checkpoint import InUse

REPLACED = 3  # how often a worker that was killed is started again
PATIENCE = 60.0  # seconds that workers have to end by themselves
ORPHANED = 900.0  # seconds that the worker of a killed process is waited for


@functools.cache
def _context() -> multiprocessing.context.BaseContext:
    """How processes are started. A fork of a process with threads can hang, and a new one spends ten seconds importing:
    so all are forked from a server that has done nothing but import."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "trl.trainer.grpo_trainer"])
    return context


def at_once(jobs: int | None) -> int:
    """How many trainings at a time: what is asked for, or one a core without a GPU and one with."""
    return jobs or (1 if torch.cuda.is_available() else os.cpu_count() or 1)


def _work(experiment: Experiment, threads: int, environment: dict[str, str]) -> None:
    os.environ.clear()  # the server's is of the time when it was started
    os.environ.update(environment)
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is answered by the parent, which asks for a checkpoint
    until = time.monotonic() + ORPHANED
    try:
        while True:
            try:
                return experiment.train()
            except InUse as error:
                if not error.orphan or time.monotonic() > until:
                    raise
                time.sleep(1)  # the worker of a killed process ends after its present iteration, with a checkpoint
    except Exception:
        write_atomic(experiment.folder / "error.txt", traceback.format_exc())
        raise


def train_all(
    experiments: Sequence[Experiment],
    on_end: Callable[[int, str | None], None],
    jobs: int | None = None,
    on_poll: Callable[[], None] | None = None,
    poll: float = 2.0,
    paused: Callable[[], bool] | None = None,
    threads: int | None = None,
) -> None:
    """Train experiments, several at a time; those that are complete are not run again. A worker that is killed is
    replaced, up to `REPLACED` times for an experiment, and counted in its run card. Interrupted, the workers end after
    their present iteration, with a checkpoint; interrupted again, at once.

    Args:
        on_end: called with each one's number when it is complete (None) or failed (its traceback); what it raises
            stops the others.
        jobs: processes at a time; None takes one a core without a GPU and one with.
        on_poll: called every `poll` seconds.
        paused: asked as often; while it says True, those that run end after their present iteration with a checkpoint,
            and none is started; then they go on from there.
        threads: of each process, which also decide the last bits of its sums; None takes one, or all of torch's for a
            process alone.
    """
    jobs = at_once(jobs)
    threads = threads or (torch.get_num_threads() if jobs == 1 else 1)
    waiting = list(enumerate(experiments))
    running: dict[int, tuple[multiprocessing.process.BaseProcess, Experiment]] = {}
    try:
        while waiting or running:
            resting = paused is not None and paused()
            for _, experiment in running.values() if resting else ():
                (experiment.folder / STOP).touch()
            while waiting and len(running) < jobs and not resting:
                number, experiment = waiting.pop(0)
                if experiment.done:
                    on_end(number, None)
                    continue
                experiment.folder.mkdir(parents=True, exist_ok=True)
                for left in ("error.txt", STOP):
                    (experiment.folder / left).unlink(missing_ok=True)
                process = _context().Process(target=_work, args=(experiment, threads, dict(os.environ)))
                process.start()
                running[number] = process, experiment
            if running or resting:
                time.sleep(poll)
            for number in [n for n, (process, _) in running.items() if not process.is_alive()]:
                process, experiment = running.pop(number)
                if not process.exitcode and not experiment.done:  # it was asked to stop
                    waiting.insert(0, (number, experiment))
                    continue
                error = experiment.folder / "error.txt"
                if process.exitcode < 0 and experiment.replaced < REPLACED:
                    with open(experiment.folder / KILLED, "a", encoding="utf-8") as file:
                        file.write(f"{signal.strsignal(-process.exitcode)}\n")
                    waiting.insert(0, (number, experiment))
                    continue
                reason = error.read_text() if error.exists() else f"exit code {process.exitcode}"
                on_end(number, reason if process.exitcode else None)
            if on_poll:
                on_poll()
    finally:
        _end(running.values())


def _end(running: Iterable[tuple[multiprocessing.process.BaseProcess, Experiment]]) -> None:
    """Let workers end after their present iteration, if that takes no longer than `PATIENCE`."""
    processes = list(running)
    try:
        for _, experiment in processes:
            with contextlib.suppress(OSError):
                (experiment.folder / STOP).touch()
        until = time.monotonic() + PATIENCE
        for process, _ in processes:
            process.join(max(0.0, until - time.monotonic()))
    finally:
        for process, _ in processes:
            process.terminate()
            process.join()


def train_recipes(
    p: GRPOParams,
    on_update: Callable[[dict[str, Result]], None] | None = None,
    jobs: int | None = None,
    poll: float = 2.0,
    paused: Callable[[], bool] | None = None,
) -> dict[str, Result]:
    """Train every recipe of `p.arms`, several at a time, and return recipe -> result in that order; interrupted and
    called again, it goes on where it was. `on_update` is called every `poll` seconds with what every begun one has
    written; `jobs`, `poll` and `paused` as for `train_all`.

    Raises:
        RuntimeError: one failed, with its traceback; the others' results stay.
    """
    experiments = {name: Experiment(name, p) for name in p.arms}
    done = [name for name, experiment in experiments.items() if experiment.done]
    if p.report_to and done:
        warnings.warn(
            f"{', '.join(done)}: trained before, so nothing goes to {', '.join(p.report_to)}; remove "
            f"{experiments[done[0]].folder.parent}/grpo-* to train again",
            stacklevel=2,
        )

    def end(number: int, error: str | None):
        if error is not None:
            raise RuntimeError(f"arm {p.arms[number]!r} failed:\n{error}")

    def look():
        if on_update:
            on_update({name: e.read() for name, e in experiments.items() if e.folder.exists()})

    train_all(list(experiments.values()), end, jobs, look, poll, paused)
    return {name: experiment.read() for name, experiment in experiments.items()}
