"""The whole study as one command: notebooks in order, each into its run folder; and how it is kept for a commit.

    python -m sglib study --params params/cpu.yaml
    python -m sglib store --params params/reference.yaml
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context, parent_process
from pathlib import Path

from sglib.experiments import params as parameters
from sglib.experiments.runs import EXECUTED, RUNNING, notebook_source, output_root, repo_root, write_manifest
from sglib.models import random_lm
from sglib.models.small import is_compact
from sglib.records import write_atomic
from sglib.rewards.fields import unknown

PAGE = "report.html"
# whose files a notebook reads, or whose trainings it shows; the report reads everybody's
READS = {"05_credit_assignment": {"03_repro_warmup"}, "06_is_the_reward_true": {"04_joint_grpo"}}


def study(params_file: str | Path, only: list[str] | None = None, force: bool = False, jobs: int | None = None) -> Path:
    """Run the notebooks of the study (`only` these), each into its own run folder; returns the last, executed.

    `jobs` run at a time (two with shipped models, one with a model of your own), each after those that it reads. A
    notebook that is complete with the same parameters and the same source is not run again without `force`, if none
    before it has to be: it may read what they write.

    Raises:
        ParameterError: before anything runs.
        RuntimeError: a notebook failed; what was written so far is kept.
    """
    content = parameters.load_file(params_file)
    if jobs is not None and jobs < 1:
        raise parameters.ParameterError(f"--jobs {jobs}: must be at least 1")
    plans = {}
    for section, name in _chosen(only):
        given = parameters.common(content) | {section: content.get(section, {})}
        checked = parameters.check(name, given)
        whole = checked.model_dump()  # with whole paths: notebooks run in another folder
        given = {k: whole[k] for k in given if k != section} | {section: {k: whole[k] for k in given[section]}}
        plans[name] = (given, checked, output_root(checked.output_dir) / name / checked.run_name)
    if jobs is None:
        used = {(checked.model, checked.env) for _, checked, _ in plans.values()}
        jobs = 2 if all(model == random_lm.NAME or is_compact(model, env) for model, env in used) else 1

    began, names = time.monotonic(), list(plans)
    reads = READS | {"09_report": set(names)}
    kept = [] if force else list(itertools.takewhile(lambda n: _complete(plans[n][2], n, plans[n][1]), names))
    for name in kept:
        print(f"{_head(name, names)}: complete already, kept ({shown(plans[name][2])})", flush=True)
    # the longest, which has processes of its own, first: what is short fits beside it
    waiting, running = sorted(names[len(kept) :], key=lambda name: jobs > 1 and name != "04_joint_grpo"), {}
    # processes, since the client of a kernel cannot be interrupted in a thread
    several = jobs > 1 and len(waiting) > 1
    pool = ProcessPoolExecutor(jobs, get_context("fork"), _end_with_parent) if several else _Here()
    with pool, tempfile.TemporaryDirectory(prefix="sglib-progress-") as progress, _relayed(Path(progress)):
        try:
            while waiting or running:
                for name in list(waiting):
                    others = {*waiting, *running.values()} - {name}
                    if len(running) < jobs and not others & reads.get(name, set()):
                        print(f"{_head(name, names)} -> {shown(plans[name][2])}", flush=True)
                        waiting.remove(name)
                        running[pool.submit(_execute, name, plans[name][0], plans[name][2], progress)] = name
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    print(f"    {running[done]}: {_minutes(done.result())}", flush=True)
                    del running[done]
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    print(f"Study: {_minutes(time.monotonic() - began)}")
    report = plans[names[-1]][2] / EXECUTED
    page = report.with_name(PAGE)  # the report's own page, without code
    if not page.exists():
        page = _as_html(report)
    print(f"Report: {page}")
    return report


def _end_with_parent() -> None:
    """Of a process that runs notebooks: it ends when the study is killed, and its kernel with it."""

    def wait_for(parent):
        parent.join()
        os._exit(1)

    threading.Thread(target=wait_for, args=(parent_process(),), daemon=True).start()


class _Here(Executor):
    """Runs what is submitted at once, in this process."""

    def submit(self, function, *args):
        done = Future()
        done.set_result(function(*args))
        return done


def _head(name: str, names: list[str]) -> str:
    return f"[{names.index(name) + 1}/{len(names)}] {name}"


def _execute(name: str, given: dict, folder: Path, progress: str) -> float:
    """Runs a notebook into `folder`; returns the seconds that it took."""
    import jupytext
    import papermill

    os.environ["SGLIB_PROGRESS"] = str(Path(progress) / name)  # the kernel inherits it
    logging.getLogger("papermill").setLevel(logging.ERROR)  # keys for all notebooks are not in each one's cell
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    try:
        papermill.execute_notebook(
            jupytext.read(repo_root() / "notebooks" / f"{name}.py"),  # the half that people review
            str(folder / RUNNING),
            parameters=given,
            cwd=str(repo_root() / "notebooks"),  # as in JupyterLab
            progress_bar=False,
            log_output=False,
            # the kernel's own notices are not about the study: at its end it says that it was interrupted
            extra_arguments=["--log-level=CRITICAL"],
        )
    except papermill.PapermillExecutionError as error:
        (folder / RUNNING).replace(folder / EXECUTED)
        raise RuntimeError(
            f"{name} failed in cell {error.exec_count}: {error.ename}: {error.evalue}\n"
            f"The notebook with the whole error: {shown(folder / EXECUTED)}. What other notebooks wrote is "
            "kept; run the same command again to go on from here."
        ) from None
    finally:
        del os.environ["SGLIB_PROGRESS"]
        if parent_process():
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # idle from here: Ctrl-C is answered by the parent
    (folder / RUNNING).replace(folder / EXECUTED)
    return time.monotonic() - start


def _chosen(only: list[str] | None) -> list[tuple[str, str]]:
    names = [name for name, _ in parameters.SECTIONS.values()]
    if odd := set(only or ()) - set(names):
        raise parameters.ParameterError(unknown(min(odd), names, "notebook"))
    return [(section, name) for section, (name, _) in parameters.SECTIONS.items() if not only or name in only]


def store(params_file: str | Path, only: list[str] | None = None) -> list[Path]:
    """Keep a finished study as the committed one: notebooks in `notebooks/`, small tables in `outputs/reference/`.

    Raises:
        RuntimeError: a notebook has not been run with these parameters and this source.
    """
    import nbformat

    content = parameters.load_file(params_file)
    kept = []
    for section, name in _chosen(only):
        checked = parameters.check(name, parameters.common(content) | {section: content.get(section, {})})
        folder = output_root(checked.output_dir) / name / checked.run_name
        if not _complete(folder, name, checked):
            raise RuntimeError(f"{name}: {shown(folder)} is not complete with these parameters and this source")
        notebook = nbformat.read(folder / EXECUTED, as_version=4)
        # what papermill put in goes, so that the pair stays the same text; the run's parameters are printed by it
        notebook.cells = [c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])]
        for part in (notebook, *notebook.cells):
            part.metadata.pop("papermill", None)
            if part.metadata.get("tags") == []:
                del part.metadata["tags"]
        target = repo_root() / "notebooks" / f"{name}.ipynb"
        kept.append(write_atomic(target, nbformat.writes(notebook)))
        reference = repo_root() / "outputs" / "reference" / name / checked.run_name
        kinds = ("*.json", "*.csv", "figures/success.png", "figures/claims.png")
        for file in (file for kind in kinds for file in folder.glob(kind)):
            kept.append(write_atomic(reference / file.relative_to(folder), file.read_bytes()))
    kept.append(write_manifest(repo_root() / "outputs" / "reference"))
    return kept


def _complete(folder: Path, notebook: str, params: parameters.Params) -> bool:
    try:
        info = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return (
        info.get("state") == "complete"
        and info.get("params") == params.model_dump(mode="json")
        and info.get("source") == notebook_source(notebook)
        and info.get("files", {}) == params.files
        and (folder / EXECUTED).exists()
    )


def _as_html(notebook: Path) -> Path:
    """The executed notebook as a page that opens in any browser, images inside."""
    import nbconvert
    import nbformat

    page, _ = nbconvert.HTMLExporter(embed_images=True).from_notebook_node(nbformat.read(notebook, as_version=4))
    return write_atomic(notebook.with_suffix(".html"), page)


@contextlib.contextmanager
def _relayed(folder: Path):
    """Print the kernels' progress bars in this terminal: on a tty in place, elsewhere a line every 20 seconds."""
    stop, terminal = threading.Event(), sys.stderr.isatty()

    def relay():
        last = ""
        while not stop.wait(0.5 if terminal else 20):
            files = sorted(folder.glob("[0-9]*"), key=lambda file: file.stat().st_mtime)  # one a notebook
            line = files[-1].read_text(encoding="utf-8").strip() if files else ""
            if line and line != last:
                print(f"\r\x1b[2K    {line}" if terminal else f"    {line}", end="" if terminal else "\n",
                      file=sys.stderr, flush=True)  # fmt: skip
            last = line or last
        if terminal and last:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)

    thread = threading.Thread(target=relay, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def shown(path: Path) -> str:
    """A path as short as it can be copied."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _minutes(seconds: float) -> str:
    return f"{int(seconds // 60)} min {seconds % 60:.0f} s" if seconds >= 60 else f"{seconds:.0f} s"
