"""The tasks: which there are, how many variations each has, and which of them a list holds. Nothing here needs Java."""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SPLITS = ("train", "dev", "test")
# Variations of each split; they follow one another: those of "dev" begin where "train" ends. A test asks the simulator.
TASKS = {
    "boil": (14, 7, 9), "change-the-state-of-matter-of": (14, 7, 9), "chemistry-mix": (16, 8, 8),
    "chemistry-mix-paint-secondary-color": (18, 9, 9), "chemistry-mix-paint-tertiary-color": (18, 9, 9),
    "find-animal": (150, 75, 75), "find-living-thing": (150, 75, 75), "find-non-living-thing": (150, 75, 75),
    "find-plant": (150, 75, 75), "freeze": (14, 7, 9), "grow-fruit": (62, 31, 33), "grow-plant": (62, 31, 33),
    "identify-life-stages-1": (6, 3, 5), "identify-life-stages-2": (4, 2, 4),
    "inclined-plane-determine-angle": (84, 42, 42), "inclined-plane-friction-named-surfaces": (692, 346, 348),
    "inclined-plane-friction-unnamed-surfaces": (80, 40, 42), "lifespan-longest-lived": (62, 31, 32),
    "lifespan-longest-lived-then-shortest-lived": (62, 31, 32), "lifespan-shortest-lived": (62, 31, 32),
    "measure-melting-point-known-substance": (218, 109, 109),
    "measure-melting-point-unknown-substance": (150, 75, 75), "melt": (14, 7, 9),
    "mendelian-genetics-known-plant": (60, 30, 30), "mendelian-genetics-unknown-plant": (240, 120, 120),
    "power-component": (10, 5, 5), "power-component-renewable-vs-nonrenewable-energy": (10, 5, 5),
    "test-conductivity": (450, 225, 225), "test-conductivity-of-unknown-substances": (300, 150, 150),
    "use-thermometer": (270, 135, 135),
}  # fmt: skip
SHORT = (  # the ten whose solutions are the shortest: up to 17 actions, of one up to 28
    "find-animal", "find-living-thing", "find-non-living-thing", "find-plant", "identify-life-stages-2",
    "lifespan-longest-lived", "lifespan-longest-lived-then-shortest-lived", "lifespan-shortest-lived",
    "power-component", "power-component-renewable-vs-nonrenewable-energy",
)  # fmt: skip
GROUPS = {"short": SHORT, "all": tuple(TASKS)}
SIMPLIFICATIONS = ("teleportAction", "selfWateringFlowerPots", "openContainers", "openDoors", "noElectricalAction")
ELECTRICAL = ("power-component", "conductivity")  # in the names of tasks that cannot do without such actions
SIZE = {"tasks": "short", "simplifications": "easy"}


@dataclass(frozen=True)
class Variation:
    """A variation of a task.

    Attributes:
        name: one of `TASKS`.
        number: 0.. of its variations, all splits together.
        simplifications: "", "easy", or some of `SIMPLIFICATIONS`, separated by commas.

    Raises:
        ValueError: there is no such variation.
    """

    name: str
    number: int
    simplifications: str = SIZE["simplifications"]
    env = "scienceworld"

    def __post_init__(self):
        if self.name not in TASKS:
            raise ValueError(f"tasks: {self.name!r}; allowed: {', '.join((*GROUPS, *TASKS))}")
        if type(self.number) is not int or not 0 <= self.number < (count := sum(TASKS[self.name])):
            raise ValueError(f"number={self.number!r}: allowed for {self.name}: 0 to {count - 1}")
        _check(self.simplifications)
        if "noElectricalAction" in self.simplifications and any(part in self.name for part in ELECTRICAL):
            raise ValueError(f"simplifications={self.simplifications!r}: allowed for {self.name}: electrical actions")

    @property
    def id(self) -> str:
        """As "find-animal-17", with the simplifications where they are not the usual ones."""
        given = "" if self.simplifications == SIZE["simplifications"] else f"-{self.simplifications or 'none'}"
        return f"{self.name}-{self.number}{given}"

    @property
    def task_type(self) -> str:
        return self.name

    @property
    def goal(self) -> str:
        """The kind of task; the sentence, which names things and places of this variation, is `Observation.goal`."""
        return self.name.replace("-", " ")

    @property
    def origin(self) -> dict:
        return {"name": self.name, "number": self.number, "simplifications": self.simplifications}

    def content(self) -> list:
        return [self.name, self.number, self.simplifications]


def _check(simplifications: Any) -> None:
    named = simplifications.split(",") if isinstance(simplifications, str) and simplifications else []
    if not isinstance(simplifications, str) or (simplifications != "easy" and set(named) - set(SIMPLIFICATIONS)):
        raise ValueError(
            f"simplifications={simplifications!r}: allowed: 'easy', '', or some of {','.join(SIMPLIFICATIONS)}"
        )


def read_size(size: Any) -> tuple[tuple[str, ...], str]:
    """(names of tasks, simplifications) of a size, or a `ValueError` that says what is wrong with it."""
    if size is not None and (not isinstance(size, Mapping) or set(size) - set(SIZE)):
        raise ValueError(f"size={size!r}: allowed: tasks and simplifications, such as {SIZE}")
    given = SIZE | dict(size or {})
    names, simplifications = given["tasks"], given["simplifications"]
    names = GROUPS.get(names, (names,)) if isinstance(names, str) else names
    if not isinstance(names, list | tuple) or not names or len({*map(str, names)}) < len(names):
        raise ValueError(f"tasks={names!r}: allowed: {', '.join(GROUPS)}, or a list of different tasks")
    for name in names:
        Variation(name, 0, simplifications)
    return tuple(names), simplifications


def available(split: str, size: Any = None) -> int:
    """How many different tasks a split has."""
    return sum(TASKS[name][SPLITS.index(split)] for name in read_size(size)[0])


@functools.lru_cache(maxsize=64)
def _pass(names: tuple[str, ...], simplifications: str, seed: int, split: str, number: int) -> list[Variation]:
    """Every variation of the split once: the tasks take turns, one that has no more is passed over."""
    queues, which = [], SPLITS.index(split)
    for name in names:
        first, count = sum(TASKS[name][:which]), TASKS[name][which]
        numbers = list(range(first, first + count))
        random.Random(f"scienceworld {seed} {split} {number} {name}").shuffle(numbers)
        queues.append([Variation(name, n, simplifications) for n in numbers])
    rounds = range(max(map(len, queues)))
    return [queue[r] for r in rounds for queue in queues if r < len(queue)]


def tasks(n: int, *, seed: int = 0, split: str = "train", size: Any = None, start: int = 0) -> list[Variation]:
    """`n` variations. When all that there are were drawn (`available`) they come again, in another order.

    Args:
        size: {"tasks": "short" (ten tasks, of few actions), "all" or a list of names, "simplifications": see
            `Variation`}; what is left out is `SIZE`'s.
        n, seed, split, start: see `Environment.tasks`.
    """
    if type(n) is not int or n < 0:
        raise ValueError(f"n={n!r}: allowed: a whole number from 0")
    names, simplifications = read_size(size)
    many, found = available(split, size), []
    for place in range(start, start + n):
        found.append(_pass(names, simplifications, seed, split, place // many)[place % many])
    return found
