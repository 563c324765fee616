"""What an environment says about itself, and how the rest of the library asks.

An environment is a folder of `sglib/envs`, or a Python file of yours, with an object `ENVIRONMENT`: its *card*. Tasks,
episodes, prompts, budgets, failure kinds, drawings and demonstrators come from the card; no other module knows which
environments there are. What only some environments can do (an exact distance, an expert, going back to an earlier
state) is a capability: a small protocol that the running environment satisfies or does not.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from sglib.records import Observation, Trajectory


class Task(Protocol):
    """One task of an environment: what a panel lists and an episode plays.

    Attributes:
        env: name of its environment.
        id: unique among the tasks of its environment.
        task_type: its kind, for tables.
        goal: the task in one sentence.
        origin: JSON data from which `Environment.remake` makes the same task again; None where that cannot be done.
    """

    env: str
    id: str
    task_type: str
    goal: str

    @property
    def origin(self) -> dict | None: ...

    def content(self) -> list:
        """JSON data of everything that decides the task, for its hash."""


def task_hash(task: Task) -> str:
    """16 hex digits of everything that decides a task."""
    return hashlib.sha256(json.dumps(task.content()).encode()).hexdigest()[:16]


@runtime_checkable
class TextEnv(Protocol):
    """A running environment. An action that does nothing, or that cannot be read, is a turn with `Observation.valid`
    False, never an exception. Stepping a finished episode raises `RuntimeError`."""

    def reset(self, task) -> Observation: ...

    def step(self, action: str) -> Observation: ...


# -- capabilities: what only some environments can do ----------------------------------------------------------------


@runtime_checkable
class HasDistance(Protocol):
    def distance(self) -> int | None:
        """Fewest actions from here to the goal with full knowledge; None where it can no longer be reached."""


@runtime_checkable
class HasProgress(Protocol):
    """Knows how much of the task is done. Where there is a distance, progress follows from it and need not be here."""

    def progress(self) -> float:
        """0..1; 1 where the task is done."""


@runtime_checkable
class HasPlan(Protocol):
    def plan(self) -> list[str] | None:
        """The actions of a shortest way to the goal with full knowledge; None where there is none."""


@runtime_checkable
class HasExpert(Protocol):
    """Has experts that can be asked in any state; `Environment.experts` names their kinds."""

    def expert(self, kind: str) -> str:
        """The action that this expert would take in the present state."""


@runtime_checkable
class HasAnswer(Protocol):
    """Has texts whose likelihood says how much the policy knows; `Environment.answers` names them."""

    def answer(self, name: str) -> str:
        """The text in the present state, "" where there is none."""


@runtime_checkable
class Forkable(Protocol):
    """Can go back to an earlier state. A snapshot is good for any number of `restore`s, on any instance; `restore` sets
    the step count, too, and returns the observation made there."""

    def snapshot(self) -> Any: ...

    def restore(self, snapshot: Any) -> Observation: ...


CAPABILITIES = {
    "distance": HasDistance, "progress": HasProgress, "plan": HasPlan, "expert": HasExpert, "answer": HasAnswer,
    "fork": Forkable,
}  # fmt: skip


# -- drawings and demonstrations -------------------------------------------------------------------------------------


class Box(NamedTuple):
    """A place in a drawing."""

    name: str
    things: Sequence[str] | None = None  # seen in it; None: not looked into yet
    state: str = ""
    here: bool = False  # whether the agent is there


class Board(NamedTuple):
    """A drawing of the state for people: a line above it, a text in a fixed-width font, and places. The inspector
    escapes all of it."""

    caption: str = ""
    text: str = ""
    boxes: Sequence[Box] = ()


@dataclass(slots=True)
class Demonstration:
    """One step of a demonstrated episode.

    Attributes:
        observation: what was read.
        action: what was done.
        guidance, label, progress: what is stated before it (progress in percent, 0..100).
        imitate: whether the action is worth imitating.
    """

    observation: str
    action: str
    guidance: str
    label: str
    progress: float
    imitate: bool


def true_label(before: int | None, after: int | None, valid: bool) -> str:
    """The label that a step deserves: positive where the distance to the goal fell, negative where it rose, where the
    goal can no longer be reached or where nothing happened, else neutral."""
    if not valid or (before is not None and (after is None or after > before)):
        return "negative"
    return "positive" if before is not None and after < before else "neutral"


def mean_of(measure: Callable[[Trajectory], float]) -> Callable[[Sequence[Trajectory]], float]:
    """The mean of a measure over episodes."""
    return lambda trajectories: sum(map(measure, trajectories)) / len(trajectories)


PRETRAINING: dict[str, Any] = {  # what every environment's recipe has in common, see `sglib.training.pretrain`
    "seed": 0, "formats": {"act": 0.5, "guide": 0.4, "progress": 0.1}, "with_example": 0.0, "observation_weight": 0.1,
    "muon_lr": 0.02, "adamw_lr": 2e-3, "warmup_steps": 100, "model": {"hidden": 128, "layers": 4},
}  # fmt: skip


# -- the card --------------------------------------------------------------------------------------------------------


class Environment:
    """The card of an environment. A subclass sets the attributes and writes `tasks` and `make`; the rest has defaults.

    Attributes:
        name: its name; that of its folder.
        revision: raised by one when a default or a meaning changes, so that earlier results count no more.
        splits: names of the splits; training draws from the first, the second is the one that is reported by default.
        panels: names of further fixed lists of tasks, from which nothing is drawn; see `panel`.
        size: what `tasks(size=None)` takes; any JSON value that the environment understands.
        turns: actions that an episode may take unless something else is asked for.
        answer_tokens: tokens that an action of the environment's own small model has at most.
        turn_tokens: tokens that a turn has, roughly; rollouts set aside that much memory.
        rules: what a language model reads first: where it is and which actions there are.
        banner: a text at the start of first observations that no policy needs to read, "" for none.
        experts: kinds of `HasExpert`, the one that knows most first.
        answers: names of `HasAnswer`.
        cased: whether a capital letter says anything; where not, its small models read and write small letters.
        bridge: what stands before such a text where a policy is asked how likely it finds it.
        pretraining: recipe of its small model, see `sglib.training.pretrain`; empty where it has none.
        further_pretraining: name of another small model -> its recipe.
        failures: name -> share (0..1) of a way to fail, from recorded episodes.
        keeps_unnamed: whether episodes that were recorded before they named their environment are its own.
    """

    name: str
    revision: int = 1
    splits: tuple[str, ...] = ("train", "valid")
    panels: tuple[str, ...] = ()
    size: Any = None
    turns: int = 30
    answer_tokens: int = 12
    turn_tokens: int = 40
    rules: str = ""
    banner: str = ""
    experts: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    cased: bool = True
    bridge: str = "Guidance:"
    pretraining: Mapping[str, Any] = {}
    further_pretraining: Mapping[str, Mapping[str, Any]] = {}
    failures: Mapping[str, Callable[[Sequence[Trajectory]], float]] = {}
    keeps_unnamed: bool = False

    @property
    def folder(self) -> Path:
        """Where it lives. Shipped models lie in `models/<name>/`, panels in `panels/<split>.csv`."""
        return Path(inspect.getfile(type(self))).resolve().parent

    @property
    def sources(self) -> list[Path]:
        """The files that decide how it behaves: its folder's Python files, or its one file."""
        file = Path(inspect.getfile(type(self))).resolve()
        return sorted(file.parent.glob("*.py")) if file.name in ("__init__.py", "card.py") else [file]

    def tasks(self, n: int, *, seed: int = 0, split: str = "train", size: Any = None, start: int = 0) -> list[Task]:
        """`n` tasks; same arguments, same tasks, on any machine, and a longer list begins with a shorter one's.

        Args:
            split: one of `splits`, which share no task.
            size: how large or hard; None takes `self.size`.
            start: number of the first draw, to continue a list.
        """
        raise NotImplementedError

    def panel(self, n: int, split: str, size: Any = None) -> list[Task]:
        """The first `n` tasks of a fixed list that results are reported on."""
        return self.tasks(n, seed=PANEL_SEED, split=split, size=size)

    def make(self, *, max_steps: int | None = None, admissible: bool = True) -> TextEnv:
        """A running environment.

        Args:
            max_steps: an episode is over after that many actions; None for no limit.
            admissible: whether observations list the actions that do something now, which costs time.
        """
        raise NotImplementedError

    def remake(self, id: str, origin: dict) -> Task:
        """The task with this id from its `origin`, or `ValueError` where there is none."""
        raise ValueError(f"{self.name}: {id!r} cannot be made again")

    def board(self, trajectory: Trajectory, turn: int) -> Board | None:
        """The state before `turn` (T for the end of an episode of T turns), as far as the agent can know it; None
        where there is nothing to draw."""
        return None

    def vocabulary(self) -> tuple[Sequence[str], Sequence[str]]:
        """(fixed phrases, words) of the environment, one token each in its small model's tokenizer."""
        return (), ()

    def demonstrate(
        self, env: TextEnv, task: Task, rng: random.Random, habits: Mapping[str, float], max_turns: int
    ) -> tuple[list[Demonstration], bool]:
        """An imperfect demonstrator's episode and whether it was won, for pre-training; `habits` are probabilities, by
        the environment's own names."""
        raise NotImplementedError(f"{self.name} has no demonstrators")

    def shown(self, observation: str) -> str:
        """What a policy reads of an environment's text: all of it but the banner."""
        return observation.removeprefix(self.banner).strip()

    def offers(self, capability: str) -> bool:
        """Whether its running environments have a capability, a key of `CAPABILITIES`."""
        return isinstance(self.make(), CAPABILITIES[capability])

    def check_split(self, split: str) -> str:
        """`split` as it is if it is a split or a panel, or `ValueError` naming those that there are."""
        if split not in (*self.splits, *self.panels):
            raise ValueError(f"split={split!r}: allowed for {self.name}: {', '.join((*self.splits, *self.panels))}")
        return split


PANEL_SEED = 424_242
