"""Environments: `get(name)` is a card, `make(name)` a running environment. See `sglib.envs.base`."""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from sglib.envs.base import Environment, Task, TextEnv, task_hash
from sglib.records import Trajectory

__all__ = ["Environment", "Task", "TextEnv", "get", "make", "names", "of", "replay", "task_hash", "task_of"]


_FILES: set[str] = set()  # environments in files of the user's that `get` was asked for


@functools.cache
def names() -> tuple[str, ...]:
    """The environments that are shipped: the folders of this package."""
    return tuple(sorted(path.parent.name for path in Path(__file__).parent.glob("*/card.py")))


@functools.cache
def get(name: str) -> Environment:
    """The card of one of `names()`, or of a Python file with an object `ENVIRONMENT`, by its path."""
    if name in names():
        return importlib.import_module(f"sglib.envs.{name}.card").ENVIRONMENT
    path = Path(name)
    if path.suffix != ".py" or not path.is_file():
        raise ValueError(f"env={name!r}: allowed: {', '.join(names())}, or the path of a .py file with an ENVIRONMENT")
    module = f"sglib_env_{path.stem}"
    spec = importlib.util.spec_from_file_location(module, path.resolve())
    loaded = sys.modules[module] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    card = getattr(loaded, "ENVIRONMENT", None)
    if not isinstance(card, Environment):
        raise ValueError(f"env={name!r}: the file has no ENVIRONMENT that is an sglib.envs.Environment")
    _FILES.add(name)
    return card


def of(trajectory: Trajectory) -> Environment:
    """The card of the environment that an episode was played in.

    A recording may come from anybody, so the name in it never makes a file run: an environment in a file has to be
    loaded with `get` first.
    """
    if trajectory.env:
        if trajectory.env not in (*names(), *_FILES):
            there = ", ".join((*names(), *sorted(_FILES)))
            raise ValueError(f"env={trajectory.env!r}: allowed: {there}, or a file that sglib.envs.get has loaded")
        return get(trajectory.env)
    return next(card for card in map(get, names()) if card.keeps_unnamed)


def make(name: str, **options) -> TextEnv:
    """A running environment; `options` as for the card's `make`."""
    return get(name).make(**options)


def task_of(trajectory: Trajectory, tasks: Mapping[str, Task] | None = None) -> Task:
    """The task that an episode was played on: from `tasks` (by id), else made again."""
    if tasks and trajectory.game_id in tasks:
        return tasks[trajectory.game_id]
    if trajectory.origin is None:
        raise ValueError(f"tasks: {trajectory.game_id!r} is not among them, and cannot be made again")
    return of(trajectory).remake(trajectory.game_id, trajectory.origin)


def replay(task: Task, actions: Iterable[str]) -> Iterator[TextEnv]:
    """The environment at the start of a task and after each action; one object, so use it before going on."""
    env = get(task.env).make(admissible=False)
    env.reset(task)
    yield env
    for action in actions:
        env.step(action)
        yield env


def __getattr__(name: str):
    """An environment's package, imported when it is first asked for: `sglib.envs.<name>`."""
    if name in names():
        return importlib.import_module(f"sglib.envs.{name}")
    raise AttributeError(f"module 'sglib.envs' has no attribute {name!r}")
