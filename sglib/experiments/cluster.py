"""Experiments on other machines, by Dask: its scheduler hands them to its workers, and to others when a worker is lost.

    dask scheduler                                                       # on one machine; it says its address
    dask worker tcp://10.0.0.1:8786 --nthreads 1 --nworkers 4 --memory-limit 0     # on each of the others
    python -m sglib evidence --scheduler tcp://10.0.0.1:8786

A worker trains in its own outputs folder and sends back what is asked of the result; no file system is shared. Dask's
protocol pickles what it sends, so whoever reaches the scheduler can run code on all of these machines.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import platform
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence

import torch

from sglib.experiments import params as parameters
from sglib.experiments.experiment import STOP, Experiment, sources
from sglib.experiments.pool import ORPHANED, PATIENCE, at_once
from sglib.experiments.runs import source_hash, versions
from sglib.training.checkpoint import InUse

REACHED = 10.0  # seconds that a scheduler, and then its first worker, is waited for
POLL = 1.0  # seconds between two looks at whether there are workers, and at whether a training is still wanted
# what Dask runs in a worker of this machine at its start: Ctrl-C is answered by the process that asked
UNINTERRUPTED = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
# two trainings in one process would draw from the same random numbers
SEVERAL = "worker {worker}: {threads} threads; allowed: 1 (dask worker ... --nthreads 1 --nworkers 4)"
SAME = "use the same version on both, and start the worker anew"


class Unfit(RuntimeError):
    """A worker could make something else of an experiment than this machine."""


# -- on a worker ------------------------------------------------------------------------------------------------------


@functools.cache  # of the time when it was first asked for: a process goes on with the code that it has loaded
def _source(env: str) -> str:
    return source_hash(*sources(env))


def _about(env: str) -> dict:
    """What a worker is: the code that decides results there, and installed packages."""
    return {"source": _source(env), "versions": {"python": platform.python_version(), **versions()}}


def _train(
    recipe: str, params: parameters.GRPOParams, key: str, source: str, content: Callable[[Experiment], dict]
) -> dict:
    """Train an experiment to its end, going on from what is there, and return `content` of it.

    Raises:
        Unfit: the code, or what the recipe, the model and the environment's files hold, is not what was asked for, or
            the worker has several threads.
        RuntimeError: it was cancelled, or something else in this folder asked it to stop.
    """
    import distributed

    worker, experiment = distributed.get_worker(), Experiment(recipe, params)  # a new one, whose folder is here
    if worker.state.nthreads != 1:
        raise Unfit(SEVERAL.format(worker=worker.address, threads=worker.state.nthreads))
    for what, asked, here in (
        ("code", source, _source(experiment.params.env)),
        ("files on disk", source, source_hash(*sources(experiment.params.env))),  # newer than what is loaded
        (f"recipe, model or environment of {experiment.name}", key, experiment.key),
    ):
        if asked != here:
            raise Unfit(f"worker {worker.address}: {what}: {here} there, {asked} here; {SAME}")
    if not torch.cuda.is_available():
        torch.set_num_threads(1)  # as in the pool: the number decides the last bits of sums
    experiment.folder.mkdir(parents=True, exist_ok=True)
    (experiment.folder / STOP).unlink(missing_ok=True)
    with _stopped_when_cancelled(experiment):
        until = time.monotonic() + ORPHANED
        while not experiment.done and not (experiment.folder / STOP).exists():
            try:
                experiment.train()
                break
            except InUse:  # by a worker of this machine that the scheduler has lost, and that will end
                if time.monotonic() > until:
                    raise
                time.sleep(1)
    if not experiment.done:
        raise RuntimeError(f"{experiment.name}: asked to stop")
    return content(experiment)


@contextlib.contextmanager
def _stopped_when_cancelled(experiment: Experiment) -> Iterator[None]:
    """Dask cannot end a task that runs; so this asks the training to end after its present iteration, with a
    checkpoint, once nobody waits for it any more."""
    import distributed

    worker, over = distributed.get_worker(), threading.Event()
    task = worker.get_current_task()

    def watch():
        while not over.wait(POLL):
            found = worker.state.tasks.get(task)
            if found is None or found.state == "cancelled":
                return (experiment.folder / STOP).touch()

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()


def _running(dask_worker) -> int:
    """How many trainings occupy a worker, cancelled ones too."""
    return len(dask_worker.state.all_running_tasks)


# -- here -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def connected(scheduler: str, jobs: int | None = None) -> Iterator:
    """A Dask client of the scheduler at this address; of "local" one with `jobs` workers is started here.

    Raises:
        ParameterError: Dask is missing, or there is no scheduler at this address.
    """
    if importlib.util.find_spec("distributed") is None:
        raise parameters.ParameterError(
            f"--scheduler {scheduler}: needs Dask, which is missing: pip install -c constraints.txt -e '.[cluster]'"
        )
    import dask
    import distributed
    from distributed.utils import silence_logging_cmgr

    with contextlib.ExitStack() as stack:
        stack.enter_context(silence_logging_cmgr(logging.CRITICAL))  # what matters is said by what follows
        address = scheduler
        if scheduler == "local":
            # else a killed worker that is not back within 15 s is given up for good, and on a busy machine all of them
            patient = {"distributed.deploy.lost-worker-timeout": "1 hour", "distributed.comm.timeouts.connect": "120 s"}
            stack.enter_context(dask.config.set(patient))
            address = stack.enter_context(
                distributed.LocalCluster(
                    n_workers=at_once(jobs), threads_per_worker=1, memory_limit=0, dashboard_address=":0",
                    silence_logs=logging.CRITICAL, preload=[UNINTERRUPTED],
                )
            )  # fmt: skip
        try:
            client = distributed.Client(address, timeout=REACHED)
        except (OSError, ValueError, TypeError) as error:  # no such name or kind of address, or TLS that is not set up
            raise parameters.ParameterError(
                f"--scheduler {scheduler}: no scheduler there ({type(error).__name__}: {str(error).strip()[:200]}); "
                "allowed: local, or the address that `dask scheduler` says"
            ) from None
        yield stack.enter_context(client)


def check_workers(client, scheduler: str, env: str) -> list[str]:
    """What there is to say about the workers of a client, in lines for people.

    Raises:
        RuntimeError: there is none, one has several threads, or (`Unfit`) other code than is here; it is named.
    """
    with contextlib.suppress(TimeoutError):
        client.wait_for_workers(1, timeout=REACHED)
    workers = client.scheduler_info()["workers"]
    start = f"dask worker {scheduler} --nthreads 1 --memory-limit 0"
    if not workers:
        raise RuntimeError(f"--scheduler {scheduler}: it has no workers; start some: {start}")
    for address, worker in workers.items():
        if worker["nthreads"] != 1:
            raise Unfit(SEVERAL.format(worker=address, threads=worker["nthreads"]))
    mine, notes = _about(env) | {"source": source_hash(*sources(env))}, []
    for address, found in client.run(_about, env, on_error="return").items():
        if isinstance(found, OSError):
            continue  # it was lost meanwhile
        if isinstance(found, BaseException):
            raise Unfit(
                f"worker {address}: cannot say what code it has ({type(found).__name__}: {found}); allowed: the same "
                f"version of sglib as here, {mine['source']}, and an environment of your own at the same path"
            )
        if found["source"] != mine["source"]:
            raise Unfit(f"worker {address}: code: {found['source']} there, {mine['source']} here; {SAME}")
        both = {name: (found["versions"].get(name), version) for name, version in mine["versions"].items()}
        others = [f"{name} {there} ({here} here)" for name, (there, here) in both.items() if there != here]
        notes += [f"worker {address}: {', '.join(others)}: the last digits may differ"] if others else []
    shown = f"dashboard: {client.dashboard_link}"
    if client.run_on_scheduler(importlib.util.find_spec, "bokeh") is None:
        shown = "no dashboard, since bokeh is not installed where the scheduler runs"
    return [f"{len(workers)} worker{'s' * (len(workers) > 1)} of {client.scheduler.address}; {shown}", *notes]


def train_all(
    scheduler: str,
    experiments: Sequence[Experiment],
    content: Callable[[Experiment], dict],
    on_end: Callable[[int, str | None, dict | None], None],
    jobs: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Train experiments of one environment on the workers of a Dask scheduler, in order, as many at a time as there are
    workers. One whose worker is lost is begun again on another one, as often as the scheduler allows (its setting
    `allowed-failures`, 3). Interrupted, what is complete is told, the rest cancelled: workers end after their present
    iteration, with a checkpoint of their own.

    Args:
        scheduler: its address, or "local" for one with `jobs` workers on this machine.
        content: what is asked of a complete experiment, JSON data; called on the worker, which finds it by its name.
        on_end: called with each one's number and, when it is complete, None and its content, when it failed, its
            traceback and None; what it raises stops the others.
        say: called with lines for people.

    Raises:
        ParameterError, RuntimeError: as of `connected` and `check_workers`; the scheduler was lost.
    """
    env = experiments[0].params.env
    with connected(scheduler, jobs) as client:
        for line in check_workers(client, scheduler, env):
            say(line)
        source, name = source_hash(*sources(env)), f"train-{uuid.uuid4().hex}"
        pending = {
            client.submit(
                _train, e.recipe, e.params, e.key, source, content, key=(name, e.name), priority=-number
            ): number
            for number, e in enumerate(experiments)
        }  # fmt: skip
        there = set(client.scheduler_info()["workers"])
        try:
            while pending:
                for future in _ended(client, scheduler, pending):
                    _tell(future, pending[future], on_end)
                    del pending[future]
                if pending and (now := set(client.scheduler_info()["workers"])) != there:
                    counts = f"{len(there - now)} lost, {len(now - there)} new"
                    say(f"workers: {counts}, {len(now)} there" + ("" if now else "; waiting for one"))
                    there = now
        except KeyboardInterrupt:
            for future in [future for future in pending if future.status == "finished"]:
                _tell(future, pending.pop(future), on_end)
            raise
        finally:
            if client.status == "running":
                client.cancel(list(pending))
                if scheduler == "local":  # they end with this process
                    _let_end(client)


def _ended(client, scheduler: str, pending: dict) -> list:
    """The futures that have ended, after at most `POLL` seconds; `RuntimeError`: the scheduler is gone."""
    import distributed

    with contextlib.suppress(TimeoutError, distributed.CancelledError):
        distributed.wait(list(pending), timeout=POLL, return_when="FIRST_COMPLETED")
    if client.status != "running" or any(future.status in ("cancelled", "lost") for future in pending):
        raise RuntimeError(
            f"--scheduler {scheduler}: it was lost; what was complete is kept, and the same command goes on from there"
        )
    return [future for future in pending if future.done()]


def _tell(future, number: int, on_end: Callable[[int, str | None, dict | None], None]) -> None:
    if future.status == "finished":
        return on_end(number, None, future.result())
    error = future.exception()
    if isinstance(error, Unfit):  # of a worker that came later: whatever it is given would fail
        raise error
    on_end(number, "".join(traceback.format_exception(error.with_traceback(future.traceback()))), None)


def _let_end(client) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and any(client.run(_running).values()):
        time.sleep(0.2)
