"""Task panels: fixed lists of tasks that results are reported on, each with the hash of its content.

A panel is a manifest in the environment's folder, `panels/<split>.csv`: number, id and content hash of each task. The
tasks are made again from their seed and compared with it, so a result that carries the panel's hash was measured on
these tasks, on whatever machine. Training and pre-training draw from other seeds.

    python -m sglib.envs.panels NAME     # write an environment's manifests; only when its tasks were meant to change
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sglib.envs import get
from sglib.envs.base import Task, task_hash
from sglib.records import write_atomic

SIZES = {"small": 128, "full": 512}


def panel_hash(tasks: Sequence[Task]) -> str:
    """12 hex digits of a set of tasks, whatever their order.

    Raises:
        ValueError: a task is in it twice.
    """
    if repeated := [id_ for id_, count in Counter(task.id for task in tasks).items() if count > 1]:
        raise ValueError(f"tasks: {repeated[0]!r} is there more than once; allowed: each task once")
    return hashlib.sha256("".join(sorted(map(task_hash, tasks))).encode()).hexdigest()[:12]


@functools.cache
def _manifest(name: str, split: str) -> tuple[dict[str, str], ...]:
    file = get(name).folder / "panels" / f"{split}.csv"
    return tuple(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8")))) if file.is_file() else ()


def manifest(name: str, split: str) -> list[dict[str, str]]:
    """The rows of a split's manifest, `number`, `id`, `hash` of each of its tasks, in order; empty where the
    environment has none.

    Raises:
        ValueError: an unknown environment or split.
    """
    get(name).check_split(split)
    return [dict(row) for row in _manifest(name, split)]


def panel(name: str, split: str | None = None, n: int | str = "full", size: Any = None) -> list[Task]:
    """The tasks of a panel; a longer one begins with a shorter one's tasks.

    Args:
        name: of the environment.
        split: one of its splits; None takes the one that is reported by default.
        n: "small" (128), "full" (512), or how many.
        size: as for the environment's `tasks`; with another than its default, and beyond the manifest's tasks, there is
            nothing to compare with.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
        RuntimeError: a task made here is not the one of the manifest.
    """
    card = get(name)
    split = card.splits[1] if split is None else card.check_split(split)
    if isinstance(n, str) and n not in SIZES:
        raise ValueError(f"n={n!r}: allowed: {', '.join(SIZES)}, or a number")
    tasks = card.panel(SIZES.get(n, n), split, size)
    for row, task in zip(_manifest(name, split) if size in (None, card.size) else (), tasks):
        if row["hash"] != task_hash(task):
            raise RuntimeError(
                f"panel {split}, task {row['number']}: {task.id} has the hash {task_hash(task)}, the manifest says "
                f"{row['id']}, {row['hash']}; this version of the environment or of Python makes other tasks"
            )
    return tasks


def write_manifests(name: str) -> None:
    """Write the manifests of all splits of an environment."""
    card = get(name)
    for split in card.splits:
        tasks = card.panel(SIZES["full"], split)
        rows = [f"{number},{task.id},{task_hash(task)}" for number, task in enumerate(tasks)]
        write_atomic(card.folder / "panels" / f"{split}.csv", "\n".join(["number,id,hash", *rows]) + "\n")
        print(f"{split}: small {panel_hash(tasks[: SIZES['small']])}, full {panel_hash(tasks)}")


if __name__ == "__main__":
    write_manifests(sys.argv[1])
