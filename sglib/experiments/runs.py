"""Run folders, the manifest of committed results, prerequisites kept between runs.

    outputs/<notebook>/<run>/   run.json (parameters, seed, versions, state), params.json, what the notebook writes,
                                figures/, notebook.ipynb (as executed); earlier/: the last complete run of this name,
                                until another is complete
    outputs/cache/              what several notebooks need, by the hash of everything it depends on
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from sglib.experiments import params as parameters
from sglib.experiments.files import repo_root
from sglib.records import Trajectory, write_atomic, write_trajectories
from sglib.training.checkpoint import locked

EXECUTED, RUNNING, EARLIER = "notebook.ipynb", "running.ipynb", "earlier"
_TAKEN: dict[Path, contextlib.ExitStack] = {}  # the folders that this process is writing into
MANIFEST = "MANIFEST.json"


def output_root(output_dir: str | Path = "outputs") -> Path:
    """Where runs are kept: the environment variable SGLIB_OUTPUT, else `output_dir` from the repository's folder."""
    return Path(os.environ.get("SGLIB_OUTPUT") or repo_root() / output_dir).resolve()


def source_hash(*paths: str | Path) -> str:
    """Hash (16 hex digits) of files, or of folders' files; relative paths are in the repository, and a file outside it
    counts by its name.

    Notebooks' executed halves and Python's caches are left out: they do not decide what a run computes.
    """
    digest = hashlib.sha256()
    root = repo_root()
    for path in (root / path for path in paths):
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and file.suffix not in (".pyc", ".ipynb") and not file.name.startswith("."):
                name = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
                digest.update(name.encode() + b"\0")
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _json(value: Any, **options: Any) -> str:
    """JSON text; numpy's numbers and arrays become numbers and lists."""
    return json.dumps(value, default=lambda other: other.tolist(), **options)


@dataclass(frozen=True)
class Run:
    """One folder of results. Made by `start_run`; every file is written whole or not at all."""

    folder: Path
    params: parameters.Params
    info: dict[str, Any]  # what `run.json` holds

    def path(self, name: str) -> Path:
        """A path inside the folder; its parent exists.

        Raises:
            ValueError: it is outside of the folder.
            FileNotFoundError: the folder is gone, and what the run wrote before.
        """
        path = Path(os.path.normpath(self.folder / name))
        if not path.is_relative_to(self.folder):
            raise ValueError(f"name={name!r}: allowed: a path inside the run's folder {self.folder}")
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{self.folder}: the run's folder was removed while it ran; begin the run again")
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise ValueError(f"name={name!r}: leaves the run's folder {self.folder} by a link")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write_json(self, name: str, value: Any) -> None:
        """Keep a result (dicts, lists, numbers, numpy) as JSON. Nothing is returned: a cell would show it."""
        write_atomic(self.path(name), _json(value, indent=1) + "\n")

    def write_table(self, name: str, rows: list[dict] | pd.DataFrame) -> None:
        """Keep a table, one dict per row, as .csv or .parquet."""
        table = pd.DataFrame(rows)
        data = table.to_parquet(index=False) if name.endswith(".parquet") else table.to_csv(index=False)
        write_atomic(self.path(name), data)

    def write_trajectories(self, name: str, trajectories: Iterable[Trajectory]) -> None:
        """Keep episodes as JSON lines (`sglib.read_trajectories` reads them)."""
        write_trajectories(self.path(name), trajectories)

    def finish(self, **results: Any) -> None:
        """Mark the run complete and keep `results` (a few numbers) in run.json."""
        now = datetime.now(UTC)
        elapsed = (now - datetime.fromisoformat(self.info["started"])).total_seconds()
        self.info.update(
            state="complete", finished=now.isoformat(timespec="seconds"), elapsed=round(elapsed, 1), results=results
        )
        self.write_json("run.json", self.info)
        shutil.rmtree(self.folder / EARLIER, ignore_errors=True)
        _TAKEN.pop(self.folder, contextlib.ExitStack()).close()


def start_run(notebook: str, params: parameters.Params) -> Run:
    """Make the folder `outputs/<notebook>/<run>/` of a notebook ("04_joint_grpo") and write what is known before
    anything runs. The files of an earlier run of the same name go, so that none is mistaken for this one's; those of a
    complete one into `earlier/`, where they stay until this one is complete, too.

    Raises:
        RuntimeError: another process has begun this run and not ended it.
    """
    folder = output_root(params.output_dir) / notebook / params.run_name
    if folder not in _TAKEN:  # this process may begin again
        with contextlib.ExitStack() as stack:
            stack.enter_context(locked(folder))
            _TAKEN[folder] = stack.pop_all()
    _move_away(folder)
    info = {
        "notebook": notebook,
        "run": params.run_name,
        "state": "running",
        "seed": params.seed,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "params": params.model_dump(),
        "source": notebook_source(notebook),
        "files": params.files,
        "git": _git_commit(),
        "versions": {"python": platform.python_version(), **versions()},
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
    }
    run = Run(folder, params, info)
    run.write_json("params.json", params.model_dump())
    run.write_json("run.json", info)
    return run


def _move_away(folder: Path) -> None:
    """Empty the folder of a run that begins: a complete one's files go into `earlier/`, others are removed. Killed at
    any point of it and called again, it comes to the same: `run.json`, which says what there is, is moved last."""
    kept, gone = folder / ".old", folder / ".gone"
    shutil.rmtree(gone, ignore_errors=True)
    if not (folder / "run.json").exists() and not kept.exists():  # a folder without either is not ours to empty
        return
    try:
        complete = kept.exists() or _read_info(folder / "run.json")["state"] == "complete"
    except ValueError:
        complete = True  # nobody can say any more, so it is kept
    target = kept if complete else gone
    target.mkdir(exist_ok=True)
    names = {path.name for path in folder.iterdir()} - {RUNNING, EARLIER, ".lock", kept.name, gone.name}
    for name in sorted(names, key=lambda name: name == "run.json"):
        (folder / name).rename(target / name)
    shutil.rmtree(folder / EARLIER if complete else gone, ignore_errors=True)
    if complete:
        kept.rename(folder / EARLIER)


def _read_info(path: Path) -> dict[str, Any]:
    """A `run.json`; `ValueError` names one that is damaged."""
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(info, dict) or "state" not in info:
            raise ValueError("it does not say how the run stands")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: damaged: {error}") from error
    return info


def find_runs(notebook: str, output_dir: str | Path = "outputs", reference: bool = False) -> list[dict[str, Any]]:
    """`run.json` of every complete run of a notebook ("04_joint_grpo"), oldest first, each with its `folder`; with
    `reference` of the committed ones in `outputs/reference/`."""
    root = repo_root() / "outputs" / "reference" if reference else output_root(output_dir)
    found = []
    for path in root.glob(f"{notebook}/*/run.json"):
        try:
            info = _read_info(path)
        except ValueError as error:
            warnings.warn(f"left out: {error}", stacklevel=2)
            continue
        if info["state"] == "complete":
            found.append({**info, "folder": path.parent})
    return sorted(found, key=lambda info: info["finished"])


def cache_folder(name: str, key: Any, output_dir: str | Path = "outputs") -> Path:
    """Where `cached` keeps what it makes."""
    digest = hashlib.sha256(_json(key, sort_keys=True).encode()).hexdigest()[:12]
    return output_root(output_dir) / "cache" / f"{name}-{digest}"


def cached(name: str, key: Any, make: Callable[[Path], None], output_dir: str | Path = "outputs") -> Path:
    """A folder that several notebooks need, `outputs/cache/<name>-<hash>`, made once; delete it to have it made again.

    `key` is JSON data that decides the content: parameters, `source_hash(...)` of the code that makes it. `make` is
    called with an empty folder to fill; if it fails, nothing is kept.
    """
    folder = cache_folder(name, key, output_dir)
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}.") as temporary:
        made = Path(temporary) / "content"
        made.mkdir()
        make(made)
        write_atomic(made / "key.json", _json(key, indent=1))
        try:
            made.rename(folder)
        except OSError:  # another process made it meanwhile; the same key means the same content
            if not folder.exists():
                raise
    return folder


def notebook_source(notebook: str) -> str:
    """Hash of the code of a notebook's run: its text half and all of `sglib`."""
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
    """Installed versions of this package and of those that it requires."""
    needed = [re.match(r"[\w-]+", line)[0] for line in importlib.metadata.requires("sglib") if "extra ==" not in line]
    installed = {d.name.lower(): d.version for d in importlib.metadata.distributions()}
    return {name: installed[name] for name in ("sglib", *needed) if name in installed}


def write_manifest(reference: Path) -> Path:
    """Write down which files committed results consist of (the evidence's cells apart): `MANIFEST`, a SHA-256 each."""
    files = sorted(path for path in reference.rglob("*") if path.is_file() and path.name != MANIFEST)
    names = {path.relative_to(reference).as_posix(): path for path in files}
    sums = {n: hashlib.sha256(p.read_bytes()).hexdigest() for n, p in names.items() if not n.startswith("evidence/")}
    return write_atomic(reference / MANIFEST, json.dumps(sums, indent=1) + "\n")


def check_manifest(reference: Path | None = None) -> str:
    """Which of the committed result files (`reference`: a folder with a `MANIFEST`) are there, in one line that names
    every missing or changed one."""
    reference = repo_root() / "outputs" / "reference" if reference is None else reference
    try:
        sums = json.loads((reference / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return f"committed results: NOT CHECKED, {MANIFEST}: {type(error).__name__}"
    missing = [name for name in sums if not (reference / name).exists()]
    there = {name: reference / name for name in sums if name not in missing}
    changed = [n for n, path in there.items() if hashlib.sha256(path.read_bytes()).hexdigest() != sums[n]]
    wrong = {"MISSING": missing, "CHANGED": changed}
    parts = [f"{len(names)} {what}: {', '.join(names)}" for what, names in wrong.items() if names]
    return "; ".join([f"committed results: {len(there)} of {len(sums)} files", *parts])
