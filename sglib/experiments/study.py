"""The whole study as one command: notebooks in order, each into its run folder; and how it is kept for a commit.

    python -m sglib study --params params/cpu.yaml
    python -m sglib store --params params/reference.yaml
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

from sglib.experiments import params as parameters
from sglib.experiments.runs import EXECUTED, notebook_source, output_root, repo_root, write_manifest
from sglib.records import write_atomic
from sglib.rewards.fields import unknown


def study(params_file: str | Path, only: list[str] | None = None, force: bool = False) -> Path:
    """Run the notebooks of the study (`only` these) in order, each into its own run folder; returns the last, executed.

    A notebook that is complete with the same parameters and the same source is not run again without `force`; once one
    has run, all later ones do, since they may read what it wrote.

    Raises:
        ParameterError: before anything runs.
        RuntimeError: a notebook failed; what it wrote so far is kept.
    """
    import jupytext
    import papermill

    content = parameters.load_file(params_file)
    plans = []
    for section, name in _chosen(only):
        given = parameters.common(content) | {section: content.get(section, {})}
        checked = parameters.check(name, given)
        whole = checked.model_dump()  # with whole paths: notebooks run in another folder
        given = {k: whole[k] for k in given if k != section} | {section: {k: whole[k] for k in given[section]}}
        plans.append((name, given, checked))

    began = time.monotonic()
    for number, (name, given, checked) in enumerate(plans, 1):
        folder = output_root(checked.output_dir) / name / checked.run_name
        head = f"[{number}/{len(plans)}] {name}"
        if not force and _complete(folder, name, checked):
            print(f"{head}: complete already, kept ({shown(folder)})", flush=True)
            continue
        force = True
        print(f"{head} -> {shown(folder)}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        try:
            with _relayed_progress():
                papermill.execute_notebook(
                    jupytext.read(repo_root() / "notebooks" / f"{name}.py"),  # the half that people review
                    str(folder / EXECUTED),
                    parameters=given,
                    cwd=str(repo_root() / "notebooks"),  # as in JupyterLab
                    progress_bar=False,
                    log_output=False,
                    extra_arguments=["--log-level=ERROR"],  # the kernel's own notices are not about the study
                )
        except papermill.PapermillExecutionError as error:
            raise RuntimeError(
                f"{name} failed in cell {error.exec_count}: {error.ename}: {error.evalue}\n"
                f"The notebook with the whole error: {shown(folder / EXECUTED)}. What earlier notebooks wrote is "
                "kept; run the same command again to go on from here."
            ) from None
        print(f"    {_minutes(time.monotonic() - start)}", flush=True)
    print(f"Study: {_minutes(time.monotonic() - began)}")
    report = folder / EXECUTED
    page = _as_html(report)
    print(f"Report: {page}")
    return report


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
        and (folder / EXECUTED).exists()
    )


def _as_html(notebook: Path) -> Path:
    """The executed notebook as a page that opens in any browser, images inside."""
    import nbconvert
    import nbformat

    page, _ = nbconvert.HTMLExporter(embed_images=True).from_notebook_node(nbformat.read(notebook, as_version=4))
    return write_atomic(notebook.with_suffix(".html"), page)


@contextlib.contextmanager
def _relayed_progress():
    """Print the kernel's progress bars in this terminal: on a tty in place, elsewhere a line every 20 seconds."""
    stop, terminal = threading.Event(), sys.stderr.isatty()

    def relay(path: Path):
        last = ""
        while not stop.wait(0.5 if terminal else 20):
            line = path.read_text(encoding="utf-8").strip() if path.exists() else ""
            if line and line != last:
                print(f"\r\x1b[2K    {line}" if terminal else f"    {line}", end="" if terminal else "\n",
                      file=sys.stderr, flush=True)  # fmt: skip
            last = line or last
        if terminal and last:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="sglib-progress-") as folder:
        os.environ["SGLIB_PROGRESS"] = str(Path(folder) / "line")  # the kernel inherits it
        thread = threading.Thread(target=relay, args=(Path(folder) / "line",), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            del os.environ["SGLIB_PROGRESS"]


def shown(path: Path) -> str:
    """A path as short as it can be copied."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _minutes(seconds: float) -> str:
    return f"{int(seconds // 60)} min {seconds % 60:.0f} s" if seconds >= 60 else f"{seconds:.0f} s"
