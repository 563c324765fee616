"""What all reward components have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from pydantic.dataclasses import dataclass

from sglib import formats
from sglib.envs.base import Environment, Task
from sglib.records import Trajectory
from sglib.rewards.fields import Flag, Float, Part
from sglib.rewards.schedule import Constant, Schedule

KNOWS = ("nothing", "an expert's view", "the true answer", "the hidden state")  # from least to most


@dataclass(frozen=True)
class Component(Part):
    """One per-turn reward. A subclass sets `name`, a Literal, and overrides what is its own. Class methods read what an
    episode holds, whether or not the component was paid.

    Attributes:
        weight: multiplies lambda(u).
        schedule: lambda(u), in any of the forms of `sglib.rewards.schedule.Schedule`.
        shuffled: CONTROL: what is paid is permuted within each episode by `sglib.rewards.mix.combine`: the same return,
            on other turns. What is lost by that is what the reward's *placement* was worth.
    """

    weight: Float = 1.0
    schedule: Schedule = Constant(1.0)
    shuffled: Flag = False

    last_accuracy: ClassVar[float | None] = None  # at the last call, of a reward that is fitted to the batch
    # what it is computed from, besides what the policy itself reads and writes: one of `KNOWS`
    knows: ClassVar[str] = "nothing"
    needs_format: ClassVar[str | None] = None  # the format that writes what it reads (`formats.WRITES_TOO`)
    # whether it is costly and pays each episode whatever else is in the batch: then several processes share the work
    apart: ClassVar[bool] = False
    # (name of the alarm, share that rises, AUROC that falls, what the share is): see `sglib.measure.hacking.alarms`
    inflation: ClassVar[tuple[str, str, str, str] | None] = None

    def __call__(
        self, trajectories: Sequence[Trajectory], policy: Any = None, games: Mapping[str, Task] | None = None
    ) -> list[list[float]]:
        """Unweighted values: one list per trajectory, one float per turn.

        What a value was computed from goes into `turn.rewards` too, as "<name>/<what>".

        Args:
            policy: the model being trained.
            games: the games by id, for rewards that ask them.
        """
        raise NotImplementedError

    def lacks(self, card: Environment) -> str | None:
        """What it asks for and the environment does not have."""

    def useless(self, format: str, estimator: str) -> str | None:
        """Why it, or a setting of it, could do nothing with this format and this kind of estimator."""
        if self.shuffled and estimator == "grpo":
            return f"{self.name}: shuffled does nothing with advantage kind 'grpo', a sum over turns"
        if self.needs_format not in (None, format, formats.WRITES_TOO.get(format)):
            return f"format = {format!r}: component {self.name!r} pays for what format {self.needs_format!r} writes"

    @classmethod
    def signal_values(cls, trajectory: Trajectory, turn: int) -> dict[str, float]:
        """What it says of one action (`turn` counts from 0), by the name of the signal; see `sglib.measure.truth`."""
        value = trajectory.turns[turn].rewards.get(cls.name)
        return {} if value is None else {cls.name: value}

    @classmethod
    def calibration(cls, trajectories: Sequence[Trajectory]) -> dict[str, float | None]:
        """Further numbers about the truth of its signals, as "<signal>/<number>"."""
        return {}

    @classmethod
    def probes(cls, trajectories: Sequence[Trajectory]) -> dict[str, float | None]:
        """Signs that it is hacked, None where there is nothing to count; see `sglib.measure.hacking.probe`."""
        return {}

    @classmethod
    def reading(cls, detail: str, value: float) -> dict[str, float]:
        """The value of "<name>/<detail>" in other units, for the inspector."""
        return {}


def mean(values: Iterable[float]) -> float | None:
    """Mean; None for an empty sequence."""
    values = [float(value) for value in values]
    return sum(values) / len(values) if values else None
