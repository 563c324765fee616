"""Trajectories in and out in the field's formats: `load` opens a file whoever wrote it, `export` writes one for others.

What a step was paid, and what else no format has a field for, goes by one convention into the free fields
(`sglib.interop.convention`, docs/step-reward-convention.md), so that our episodes come back whole.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sglib.interop import atif, dataset, files, inspect_log, own, traces, verifiers
from sglib.records import Trajectory, write_atomic

__all__ = ["FORMATS", "convert", "export", "inside", "load", "recognise"]

READ = (own, atif, inspect_log, traces, verifiers, dataset)  # asked in this order whether a file is theirs
FORMATS = ("atif", "inspect", "traces", "dataset", "verifiers", "verifiers_results", "own")
SUFFIXES = {"atif": ".json", "inspect": ".json or .eval", "dataset": ".parquet"}  # of all others .jsonl
EACH = {"atif": atif, "traces": traces}  # formats with one episode a file
LOOKED_AT = {".jsonl", ".json", ".eval", ".parquet"}  # files of a folder


def export(trajectories: Trajectory | Iterable[Trajectory], path: str | os.PathLike, format: str = "atif") -> Path:
    """Write episodes in one of `FORMATS`, each file whole or not at all: the path.

    Args:
        trajectories: an episode or several, at least one.
        path: a file with the format's suffix: .json (atif), .json or .eval (inspect), .parquet (dataset), else .jsonl.
            "atif" and "traces" have one episode a file: for several a folder, which is new or empty.
        format: "atif" (Harbor), "inspect" (Inspect AI), "traces" (the Hugging Face Hub's viewer), "dataset"
            (`datasets`, TRL), "verifiers" (its traces), "verifiers_results" (prompt, completion, reward, ...), "own".

    Raises:
        ValueError: an unknown format, a path that does not fit, no episode, or a number that is not finite.
    """
    given = [trajectories] if isinstance(trajectories, Trajectory) else list(trajectories)
    path = Path(path)
    if format not in FORMATS:
        raise ValueError(f"format={format!r}: allowed: {', '.join(FORMATS)}")
    if not given:
        raise ValueError("trajectories: at least one episode is needed")
    suffix, each = SUFFIXES.get(format, ".jsonl"), EACH.get(format)
    if each and not path.suffix:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ValueError(f"path={str(path)!r}: a new or empty folder is needed")
        for number, text in enumerate(each.write(given)):
            write_atomic(path / f"{number:06}{suffix}", text)
        return path
    if path.suffix not in suffix.split(" or "):
        raise ValueError(f"path={str(path)!r}: format {format!r} is written to a file *{suffix}")
    if each and len(given) > 1:
        raise ValueError(f"path={str(path)!r}: {format!r} has one episode a file, got {len(given)}: name a folder")
    match format:
        case "inspect":
            content = inspect_log.write(given, archive=path.suffix == ".eval")
        case "dataset":
            content = dataset.write(given)
        case "verifiers" | "verifiers_results":
            content = verifiers.write(given, results=format == "verifiers_results")
        case "own":
            content = own.write(given)
        case _:
            (content,) = each.write(given)
    return write_atomic(path, content)


def load(path: str | os.PathLike) -> list[Trajectory]:
    """The episodes of a file or folder in any of the formats, which is known by the content.

    Our own come back as they were. Of others' what can be had: messages become observations and actions, tool calls
    text, reasoning guidance, an outcome the reward of the last turn; such an episode's `env` is its format's name.

    Raises:
        ValueError: names the file, what was found and what is understood.
    """
    path = Path(path)
    if path.is_dir():
        if (path / "dataset_info.json").exists():
            from datasets import load_from_disk  # imported here: takes a second

            return _named(path, lambda: convert(load_from_disk(str(path))))
        if not (there := inside(path)):
            raise ValueError(f"{path}: no file of trajectories in it. {_understood()}")
        return [trajectory for file in there for trajectory in load(file)]
    return _named(path, lambda: convert(files.rows(path)))


def inside(folder: Path) -> list[Path]:
    """The files of a folder that are in one of the formats, in order; what cannot be read is none of them."""
    found = []
    for file in sorted(folder.rglob("*")):
        with contextlib.suppress(ValueError, OSError):
            if file.suffix in LOOKED_AT and recognise(files.rows(file)):
                found.append(file)
    return found


def convert(value: Any) -> list[Trajectory]:
    """Episodes of what others hold in memory: a dataset, a log or trajectory object of theirs (Pydantic's), or dicts as
    in their files. `ValueError` says what was found and what is understood."""
    rows = _rows(value)
    if not rows:
        return []
    if (module := recognise(rows)) is None:
        keys = ", ".join(map(repr, list(rows[0])[:6])) if isinstance(rows[0], Mapping) else ""
        raise ValueError(f"found {f'an object with {keys}' if keys else repr(rows[0])[:60]}. {_understood()}")
    return module.read(rows)


def recognise(value: Any):
    """The module of the format that `convert` would read something as, None where it is of none."""
    rows = _rows(value)
    if not rows or not all(isinstance(row, Mapping) for row in rows):
        return None
    return next((module for module in READ if module.found(rows)), None)


def _rows(value: Any) -> list:
    rows = [value] if isinstance(value, Mapping) or hasattr(value, "model_dump") else list(value)
    return [row.model_dump(mode="json") if hasattr(row, "model_dump") else row for row in rows]


def _understood() -> str:
    return f"Understood: {'; '.join(module.ABOUT for module in READ)}"


def _named(path: Path, read) -> list[Trajectory]:
    """What `read` returns; an error names the path."""
    try:
        return read()
    except RecursionError as error:
        raise ValueError(f"{path}: nested too deeply") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from error
