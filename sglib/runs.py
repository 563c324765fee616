"""Run folders, prerequisites kept between runs, progress bars, and the whole study as one command.

    outputs/<notebook>/<run>/   run.json (parameters, seed, versions, state), params.json, what the notebook writes,
                                figures/, notebook.ipynb (as executed)
    outputs/cache/              what several notebooks need, by the hash of everything it depends on
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from tqdm import tqdm

from sglib import params as parameters
from sglib.records import Trajectory, write_atomic, write_trajectories

Item = TypeVar("Item")
PACKAGES = ("sglib", "torch", "transformers", "trl", "peft", "alfworld", "textworld", "numpy", "openai")
EXECUTED = "notebook.ipynb"
MANIFEST = "MANIFEST.json"


def repo_root() -> Path:
    """The repository's folder, whatever the working directory (in JupyterLab it is `notebooks/`)."""
    return Path(__file__).resolve().parent.parent


def output_root(output_dir: str | Path = "outputs") -> Path:
    """Where runs are kept: the environment variable SGLIB_OUTPUT, else `output_dir` from the repository's folder."""
    return Path(os.environ.get("SGLIB_OUTPUT") or repo_root() / output_dir).resolve()


def source_hash(*paths: str | Path) -> str:
    """Hash (16 hex digits) of files, or of folders' files, given relative to the repository.

    Notebooks' executed halves and Python's caches are left out: they do not decide what a run computes.
    """
    digest = hashlib.sha256()
    for path in paths:
        path = repo_root() / path
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and file.suffix not in (".pyc", ".ipynb") and not file.name.startswith("."):
                digest.update(file.relative_to(repo_root()).as_posix().encode() + b"\0")
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, default=_plain) + "\n"


def _plain(value: Any) -> Any:
    """numpy's and pandas' numbers and arrays, paths: as JSON knows them."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


class Run:
    """One folder of results. Made by `start_run`; every file is written whole or not at all.

    Attributes:
        folder: where it is.
        params: the validated parameters.
        info: what `run.json` holds.
    """

    def __init__(self, folder: Path, params: parameters.Params, info: dict[str, Any]):
        self.folder, self.params, self.info = folder, params, info
        self._rows: dict[str, list[dict]] = {}

    def path(self, name: str) -> Path:
        """A path inside the folder; its parent exists."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write_json(self, name: str, value: Any) -> Path:
        """Keep a result (dicts, lists, numbers, numpy) as JSON. Returns the path."""
        return write_atomic(self.folder / name, _json(value))

    def write_table(self, name: str, rows: list[dict] | pd.DataFrame) -> Path:
        """Keep a table, one dict per row; `name` ends in .parquet, .csv or .jsonl. Returns the path.

        Raises:
            ValueError: another ending.
        """
        return write_table(self.folder / name, rows)

    def log(self, name: str, **row: Any) -> None:
        """Add a row to a .jsonl file of metrics; it is on disk when this returns."""
        rows = self._rows.setdefault(name, [])
        rows.append(row)
        write_table(self.folder / name, rows)

    def write_trajectories(self, name: str, trajectories: Iterable[Trajectory]) -> Path:
        """Keep episodes as JSON lines (`sglib.read_trajectories` reads them). Returns the path."""
        return write_trajectories(self.folder / name, trajectories)

    def figure(self, name: str, figure, show: bool = True) -> None:
        """Keep a plotly figure as figures/<name>.html and .png, and show it in a notebook."""
        from sglib.view import still

        script = self.folder.parent.parent / "plotly.min.js"  # 5 MB, once for all runs; works without a network
        if not script.exists():
            from plotly.offline import get_plotlyjs

            write_atomic(script, get_plotlyjs())
        page = figure.to_html(include_plotlyjs=os.path.relpath(script, self.folder / "figures"))
        write_atomic(self.folder / "figures" / f"{name}.html", page)
        image = still.static_png(figure)
        write_atomic(self.folder / "figures" / f"{name}.png", image)
        if show:
            still.show(figure, image)

    def finish(self, **results: Any) -> None:
        """Mark the run complete and keep `results` (a few numbers) in run.json."""
        now = datetime.now(UTC)
        elapsed = (now - datetime.fromisoformat(self.info["started"])).total_seconds()
        self.info |= {"state": "complete", "finished": now.isoformat(timespec="seconds")}
        self.info |= {"elapsed": round(elapsed, 1), "results": results}
        self.write_json("run.json", self.info)


def write_table(path: str | Path, rows: list[dict] | pd.DataFrame) -> Path:
    """Write a table as .parquet, .csv or .jsonl, atomically. Returns the path."""
    path = Path(path)
    if path.suffix == ".jsonl":
        rows = rows.to_dict("records") if isinstance(rows, pd.DataFrame) else rows
        return write_atomic(path, "".join(json.dumps(row, default=_plain) + "\n" for row in rows))
    frame = pd.DataFrame(rows)
    if path.suffix == ".parquet":
        return write_atomic(path, frame.to_parquet(index=False))
    if path.suffix == ".csv":
        return write_atomic(path, frame.to_csv(index=False))
    raise ValueError(f"{path.name}: a table's name ends in .parquet, .csv or .jsonl")


def read_table(path: str | Path) -> pd.DataFrame:
    """Read what `write_table` wrote.

    Raises:
        ValueError: another ending than .parquet, .csv or .jsonl.
    """
    path = Path(path)
    readers = {".parquet": pd.read_parquet, ".csv": pd.read_csv, ".jsonl": lambda p: pd.read_json(p, lines=True)}
    if path.suffix not in readers:
        raise ValueError(f"{path.name}: a table's name ends in {', '.join(readers)}")
    return readers[path.suffix](path)


def start_run(notebook: str, params: parameters.Params) -> Run:
    """Make (or begin anew) the folder `outputs/<notebook>/<run>/` and write what is known before anything runs.

    An earlier run of the same name is replaced: its files go, so that nothing of it is mistaken for this one's.

    Args:
        notebook: as in `sglib.params.SECTIONS`, "04_joint_grpo".
        params: from `sglib.params.check`.
    """
    folder = output_root(params.output_dir) / notebook / params.run_name
    if (folder / "run.json").exists():  # a folder without it is not ours to empty
        for old in folder.iterdir():
            if old.name == EXECUTED:  # papermill is writing it right now
                continue
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    info = {
        "notebook": notebook,
        "run": params.run_name,
        "state": "running",
        "seed": params.seed,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "params": params.model_dump(),
        "source": _notebook_source(notebook),
        "git": _git_commit(),
        "versions": {"python": platform.python_version(), **versions()},
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
    }
    run = Run(folder, params, info)
    run.write_json("params.json", params.model_dump())
    run.write_json("run.json", info)
    return run


def find_runs(notebook: str, output_dir: str | Path = "outputs", reference: bool = False) -> list[dict[str, Any]]:
    """`run.json` of every complete run of a notebook, oldest first, each with its `folder`.

    Args:
        notebook: as in `sglib.params.SECTIONS`.
        output_dir: where this machine's runs are.
        reference: look at the committed results in `outputs/reference/` instead.
    """
    root = repo_root() / "outputs" / "reference" if reference else output_root(output_dir)
    found = []
    for path in root.glob(f"{notebook}/*/run.json"):
        info = json.loads(path.read_text(encoding="utf-8"))
        if info["state"] == "complete":
            found.append({**info, "folder": path.parent})
    return sorted(found, key=lambda info: info["finished"])


def cached(name: str, key: Any, make: Callable[[Path], None], output_dir: str | Path = "outputs") -> Path:
    """A folder that several notebooks need, made once.

    Args:
        name: what it is, for people: "warmup-demonstrations".
        key: JSON data that decides the content: parameters, `source_hash(...)` of the code that makes it.
        make: called with an empty folder to fill; if it fails, nothing is kept.

    Returns:
        The filled folder, `outputs/cache/<name>-<hash>`. Delete it to have it made again.
    """
    digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=_plain).encode()).hexdigest()[:12]
    folder = output_root(output_dir) / "cache" / f"{name}-{digest}"
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}.") as temporary:
        made = Path(temporary) / "content"
        made.mkdir()
        make(made)
        write_atomic(made / "key.json", _json(key))
        try:
            made.rename(folder)
        except OSError:  # another process made it meanwhile; the same key means the same content
            if not folder.exists():
                raise
    return folder


def _notebook_source(notebook: str) -> str:
    return source_hash("sglib", f"notebooks/{notebook}.py")


def _git_commit() -> str | None:
    """The commit, with "+" where files differ from it; None outside a repository."""
    git = ["git", "-C", str(repo_root())]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed.strip() else "")


def versions() -> dict[str, str]:
    """Installed versions of what decides results."""
    installed = {d.name.lower(): d.version for d in importlib.metadata.distributions()}
    return {name: installed[name] for name in PACKAGES if name in installed}


# ---------------------------------------------------------------------------------------------------------------------
# Progress


class _KernelBar(tqdm):
    """A tqdm bar that is one display, updated in place.

    tqdm.auto's widget stays at 0 % in a stored notebook, plain tqdm leaves a line for every refresh; one updated
    display moves in JupyterLab and leaves its last state in a notebook executed by papermill.
    """

    def __init__(self, *args, **kwargs):
        from IPython.display import display

        self.handle = display({"text/plain": ""}, raw=True, display_id=True)
        super().__init__(*args, file=io.StringIO(), **kwargs)

    def display(self, msg=None, pos=None):  # what tqdm calls to draw, at most every `mininterval` seconds
        line = msg if msg is not None else str(self)
        if line:
            self.handle.update({"text/plain": line}, raw=True)
        if path := os.environ.get("SGLIB_PROGRESS"):
            write_atomic(path, line)

    def close(self):
        if not self.disable:
            self.refresh()  # the last state, which stays
            self.disable = True


def progress(iterable: Iterable[Item] | None = None, desc: str = "", total: int | None = None) -> tqdm:
    """A progress bar that is right in JupyterLab, in a notebook run by papermill, and in a terminal.

    Args:
        iterable: what to go through; None for a bar moved by hand with `.update(n)` and ended with `.close()`.
        desc: what is being done.
        total: number of steps, where `iterable` has no length.

    Returns:
        A tqdm bar: iterate over it, or use it as a context manager; `.set_postfix_str("success 41 %")` adds a note.
    """
    kind = _KernelBar if _in_kernel() else tqdm
    return kind(iterable, desc=desc, total=total, mininterval=0.5, ncols=100, leave=True, dynamic_ncols=False)


def _in_kernel() -> bool:
    if "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return shell is not None and hasattr(shell, "kernel")


# ---------------------------------------------------------------------------------------------------------------------
# The study


def study(params_file: str | Path, only: list[str] | None = None, force: bool = False) -> Path:
    """Run the notebooks of the study in order, each into its own run folder.

    A notebook that is complete with the same parameters and the same source is not run again; once one has run, all
    later ones do, since they may read what it wrote.

    Args:
        params_file: YAML with a section for each notebook; its name becomes the `size` of the runs.
        only: notebooks to run, None for all.
        force: run them even if they are complete.

    Returns:
        The executed report (the last notebook).

    Raises:
        ParameterError: before anything runs.
        RuntimeError: a notebook failed; what it wrote so far is kept.
    """
    import jupytext
    import papermill

    content = parameters.load_file(params_file)
    content.setdefault("size", Path(params_file).stem)
    plans = []
    for section, name in _chosen(only):
        given = {k: v for k, v in content.items() if k in parameters.COMMON} | {section: content.get(section, {})}
        plans.append((name, given, parameters.check(name, given)))

    began = time.monotonic()
    for number, (name, given, checked) in enumerate(plans, 1):
        folder = output_root(checked.output_dir) / name / checked.run_name
        head = f"[{number}/{len(plans)}] {name}"
        if not force and _complete(folder, name, checked):
            print(f"{head}: complete already, kept ({_shown(folder)})", flush=True)
            continue
        force = True
        print(f"{head} -> {_shown(folder)}", flush=True)
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
                f"The notebook with the whole error: {_shown(folder / EXECUTED)}. What earlier notebooks wrote is "
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
    if unknown := set(only or ()) - set(names):
        raise parameters.ParameterError(f"{sorted(unknown)[0]}: unknown notebook; there are: {', '.join(names)}")
    return [(section, name) for section, (name, _) in parameters.SECTIONS.items() if not only or name in only]


def store(params_file: str | Path, only: list[str] | None = None) -> list[Path]:
    """Keep a finished study as the committed one: notebooks in `notebooks/`, small tables in `outputs/reference/`.

    Args:
        params_file: as `study`.
        only: notebooks to keep, None for all.

    Raises:
        RuntimeError: a notebook has not been run with these parameters and this source.
    """
    import nbformat

    content = parameters.load_file(params_file)
    content.setdefault("size", Path(params_file).stem)
    kept = []
    for section, name in _chosen(only):
        checked = parameters.check(name, {k: v for k, v in content.items() if k in (*parameters.COMMON, section)})
        folder = output_root(checked.output_dir) / name / checked.run_name
        if not _complete(folder, name, checked):
            raise RuntimeError(f"{name}: {_shown(folder)} is not complete with these parameters and this source")
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


def write_manifest(reference: Path) -> Path:
    """Write down which files committed results consist of (the evidence's cells apart): `MANIFEST`, a SHA-256 each."""
    files = sorted(path for path in reference.rglob("*") if path.is_file() and path.name != MANIFEST)
    names = {path.relative_to(reference).as_posix(): path for path in files}
    sums = {n: hashlib.sha256(p.read_bytes()).hexdigest() for n, p in names.items() if not n.startswith("evidence/")}
    return write_atomic(reference / MANIFEST, json.dumps(sums, indent=1) + "\n")


def check_manifest(reference: Path | None = None) -> str:
    """Which of the committed result files are there, in one line that names every missing or changed one.

    Args:
        reference: folder with a `MANIFEST`; None is `outputs/reference` of the repository.
    """
    reference = repo_root() / "outputs" / "reference" if reference is None else reference
    try:
        sums = json.loads((reference / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return f"committed results: NOT CHECKED, {MANIFEST}: {type(error).__name__}"
    missing = [name for name in sums if not (reference / name).exists()]
    there = {name: reference / name for name in sums if name not in missing}
    changed = [n for n, path in there.items() if hashlib.sha256(path.read_bytes()).hexdigest() != sums[n]]
    text = f"committed results: {len(there)} of {len(sums)} files"
    for what, names in (("MISSING", missing), ("CHANGED", changed)):
        text += f"; {len(names)} {what}: {', '.join(names)}" if names else ""
    return text


def _complete(folder: Path, notebook: str, params: parameters.Params) -> bool:
    try:
        info = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return (
        info.get("state") == "complete"
        and info.get("params") == json.loads(_json(params.model_dump()))
        and info.get("source") == _notebook_source(notebook)
        and (folder / EXECUTED).exists()
    )


def _as_html(notebook: Path) -> Path:
    """The executed notebook as a page that opens in any browser, images inside."""
    import nbconvert
    import nbformat

    page, _ = nbconvert.HTMLExporter(embed_images=True).from_notebook_node(nbformat.read(notebook, as_version=4))
    return write_atomic(notebook.with_suffix(".html"), page)


class _relayed_progress:
    """Print the kernel's progress bars in this terminal: on a tty in place, elsewhere a line every 20 seconds."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="sglib-progress-")
        self.path = Path(self.folder.name) / "line"
        os.environ["SGLIB_PROGRESS"] = str(self.path)  # the kernel inherits it
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._relay, daemon=True)
        self.thread.start()

    def _relay(self):
        terminal = sys.stderr.isatty()
        last = ""
        while not self.stop.wait(0.5 if terminal else 20):
            line = self.path.read_text(encoding="utf-8").strip() if self.path.exists() else ""
            if line and line != last:
                print(f"\r\x1b[2K    {line}" if terminal else f"    {line}", end="" if terminal else "\n",
                      file=sys.stderr, flush=True)  # fmt: skip
            last = line or last
        if terminal and last:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)

    def __exit__(self, *error):
        self.stop.set()
        self.thread.join()
        del os.environ["SGLIB_PROGRESS"]
        self.folder.cleanup()


def _shown(path: Path) -> str:
    """A path as short as it can be copied."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _minutes(seconds: float) -> str:
    return f"{int(seconds // 60)} min {seconds % 60:.0f} s" if seconds >= 60 else f"{seconds:.0f} s"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sglib", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("study", help="run the notebooks in order")
    command.add_argument("--params", default=str(repo_root() / "params" / "cpu.yaml"), help="default: %(default)s")
    command.add_argument("--only", nargs="+", metavar="NOTEBOOK", help="only these, such as 09_report")
    command.add_argument("--force", action="store_true", help="also what is complete already")
    command = commands.add_parser("store", help="keep a finished study in notebooks/ and outputs/reference/")
    reference = str(repo_root() / "params" / "reference.yaml")
    command.add_argument("--params", default=reference, help="default: %(default)s")
    command.add_argument("--only", nargs="+", metavar="NOTEBOOK", help="only these")
    options = parser.parse_args(arguments)
    try:
        if options.command == "store":
            print("\n".join(_shown(path) for path in store(options.params, options.only)))
        else:
            study(options.params, options.only, options.force)
    except (parameters.ParameterError, RuntimeError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
