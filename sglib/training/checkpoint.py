"""Checkpoints of a training run: weights and optimiser state as safetensors, everything else as JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import multiprocessing
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from sglib.records import read_checked, set_aside, write_checked


class InUse(RuntimeError):
    """Another process has the folder. `orphan`: it is a worker whose parent is gone, so that it will end soon."""

    def __init__(self, folder: Path, owner: str):
        owner = owner.strip() or "a process that does not say its name"
        super().__init__(f"run_dir: {folder} is in use by another run ({owner}); allowed: one run at a time")
        found = re.search(r" for process (\d+) on (\S+), since", owner)
        self.orphan = found is not None and found[2] == platform.node() and not _alive(int(found[1]))


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True


@contextlib.contextmanager
def locked(run_dir: Path, name: str = ".lock") -> Iterator[None]:
    """Keep a folder for one run; the lock, a file of this name, ends with the process, however that ends.

    Raises:
        InUse: another run has it, naming its process.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with open(run_dir / name, "a+", encoding="utf-8") as file:  # its content is the owner's
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise InUse(run_dir, file.read(200)) from None
        file.truncate(0)
        began, parent = datetime.now(UTC).isoformat(timespec="seconds"), multiprocessing.parent_process()
        whose = f" for process {parent.pid}" if parent else ""
        file.write(f"process {os.getpid()}{whose} on {platform.node()}, since {began}")
        file.flush()
        yield


def described(thing: Any) -> Any:
    """JSON data that says how a component or an estimator is set: of a dataclass its class and the values that are not
    defaults, so that a field added later changes nothing; of anything else its `repr`."""
    if not dataclasses.is_dataclass(thing):
        return repr(thing)
    fields = {f.name: (getattr(thing, f.name), f.default) for f in dataclasses.fields(thing) if f.repr}
    changed = {name: described(value) for name, (value, default) in fields.items() if value != default}
    return {"class": type(thing).__name__} | changed


def find(run_dir: Path, fingerprint: dict) -> Path | None:
    """The newest whole checkpoint of a folder, None where there is none. It is complete: it was renamed into place. One
    that was damaged since is set aside, with a warning; so training starts from an earlier one, or over.

    Raises:
        ValueError: it was made with other settings, which are named.
    """
    for left in run_dir.glob(".checkpoint-*"):  # of a process that was killed while it wrote
        shutil.rmtree(left)
    while checkpoint := max(run_dir.glob("checkpoint-*"), default=None):
        try:
            found = read_state(checkpoint)["fingerprint"]
            break
        except (OSError, ValueError, KeyError) as error:
            set_aside(checkpoint, error)
    else:
        return None
    for name in [*fingerprint, *found]:
        got, made_with = (data.get(name, "the default") for data in (fingerprint, found))
        if got != made_with:
            raise ValueError(
                f"{name}: got {got!r}, but {checkpoint} was made with {made_with!r}; "
                "allowed: the same value, another run_dir, or resume=False"
            )
    return checkpoint


def read_state(checkpoint: Path) -> dict:
    """`iteration`, how many are done; `fingerprint`, as for `find`; `metrics`, a row for each iteration.

    Raises:
        ValueError: one of the checkpoint's files is not as it was written.
    """
    state = read_checked(checkpoint / "state.json")
    for name, written in state.pop("files", {}).items():  # none in checkpoints from before they were kept
        if _sum(checkpoint / name) != written:
            raise ValueError(f"{checkpoint / name}: damaged: its checksum does not fit")
    return state


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(run_dir: Path, state: dict, model: torch.nn.Module, optimizer: dict[str, torch.Tensor]) -> None:
    """Write a checkpoint and remove the older ones.

    Of the model only trained parameters are kept: the adapter where there is one. `optimizer` is what
    `TrajectoryGRPOTrainer.optimizer_tensors` returns.
    """
    target = run_dir / f"checkpoint-{state['iteration']:06d}"
    temporary = Path(tempfile.mkdtemp(dir=run_dir, prefix=".checkpoint-"))
    save_file({n: p.detach().cpu().contiguous() for n, p in _trained(model).items()}, temporary / "weights.safetensors")
    save_file(optimizer, temporary / "optimizer.safetensors")
    files = {}
    for file in sorted(temporary.iterdir()):
        with file.open("rb") as written:
            os.fsync(written.fileno())
        files[file.name] = _sum(file)
    write_checked(temporary / "state.json", state | {"files": files})
    if target.exists():
        shutil.rmtree(target)
    temporary.chmod(0o755)
    temporary.rename(target)
    for old in sorted(run_dir.glob("checkpoint-*"))[:-1]:
        shutil.rmtree(old)


def load_weights(model: torch.nn.Module, checkpoint: Path) -> None:
    """Put a checkpoint's weights into a model; `ValueError` if the two have not the same trained parameters."""
    weights, parameters = load_file(checkpoint / "weights.safetensors"), _trained(model)
    if wrong := sorted(set(weights) ^ set(parameters)):
        raise ValueError(f"{checkpoint}: parameter {wrong[0]!r} is in the checkpoint or in the model, not in both")
    with torch.no_grad():
        for name, tensor in weights.items():
            parameters[name].copy_(tensor)


def _trained(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}  # tied weights come once
