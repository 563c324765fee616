"""Task panels: fixed lists of tasks that results are reported on, each with the hash of its content.

A panel is a manifest in the environment's folder, `panels/<split>.csv`: number, id and content hash of each task. The
tasks are made (or read) again and compared with it, so a result that carries the panel's hash was measured on these
tasks, on whatever machine. Training and pre-training draw from other seeds.

    python -m sglib.envs.panels NAME     # write an environment's manifests; only when its tasks were meant to change
"""

from __future__ import annotations

import csv
import hashlib
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sglib.envs import get
from sglib.envs.base import Task, task_hash
from sglib.records import write_atomic

SIZES = {"small": 128, "full": 512}


def panel_hash(tasks: Sequence[Task]) -> str:
    """12 hex digits of a set of tasks, whatever their order; `ValueError` where one is in it twice."""
    if repeated := [id_ for id_, count in Counter(task.id for task in tasks).items() if count > 1]:
        raise ValueError(f"tasks: {repeated[0]!r} is there more than once; allowed: each task once")
    return hashlib.sha256("".join(sorted(map(task_hash, tasks))).encode()).hexdigest()[:12]


def manifest(name: str, split: str) -> list[dict[str, str]]:
    """The rows of a panel's manifest, `number`, `id`, `hash` of each task, in order; empty where there is none."""
    file = get(name).folder / "panels" / f"{get(name).check_split(split)}.csv"
    return list(csv.DictReader(file.read_text(encoding="utf-8").splitlines())) if file.is_file() else []


def write_manifest(name: str, split: str, tasks: Sequence[Task]) -> None:
    """Make these tasks the panel of a split; only ever when its tasks are meant to change."""
    rows = [f"{number},{task.id},{task_hash(task)}" for number, task in enumerate(tasks)]
    write_atomic(get(name).folder / "panels" / f"{split}.csv", "\n".join(["number,id,hash", *rows]) + "\n")
    print(f"{split}: small {panel_hash(tasks[: SIZES['small']])}, full {panel_hash(tasks)}")


def verified(name: str, split: str, tasks: list[Task]) -> list[Task]:
    """`tasks` as they are, if they are the first of the panel's; else `RuntimeError` naming the first that is not."""
    for row, task in zip(manifest(name, split), tasks):
        if row["hash"] != task_hash(task):
            raise RuntimeError(
                f"panel {split}, task {row['number']}: {task.id} has the hash {task_hash(task)}, the manifest says "
                f"{row['id']}, {row['hash']}; made by another version of the environment or of Python, or changed"
            )
    return tasks


def panel(name: str, split: str | None = None, n: int | str = "full", size: Any = None) -> list[Task]:
    """The tasks of a panel; a longer one begins with a shorter one's tasks.

    Args:
        name: of the environment.
        split: one of its splits; None takes the one that is reported by default.
        n: "small" (128), "full" (512), or how many.
        size: as for the environment's `tasks`; with another than its default, and beyond the manifest's tasks, there is
            nothing to compare with.

    A ValueError names the argument that is wrong; a task that is not the manifest's is a RuntimeError.
    """
    card = get(name)
    split = card.splits[1] if split is None else card.check_split(split)
    if isinstance(n, str) and n not in SIZES:
        raise ValueError(f"n={n!r}: allowed: {', '.join(SIZES)}, or a number")
    tasks = card.panel(SIZES.get(n, n), split, size)
    return verified(name, split, tasks) if size in (None, card.size) else tasks


if __name__ == "__main__":
    for each in get(sys.argv[1]).splits:
        write_manifest(sys.argv[1], each, get(sys.argv[1]).panel(SIZES["full"], each))
