"""The environment's sparse terminal reward R_env (Self-Guide, arXiv 2604.03098, Eq 6, first term)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sglib.records import Trajectory
from sglib.rewards.schedule import Constant, Schedule, make_schedule


@dataclass(frozen=True)
class Outcome:
    """R_env(tau) = weight * won, put on the last turn.

    The paper does not state the size of R_env. The default of 10 is our choice: the framework its authors used pays 10
    for success, and with 1 the sum of the internal reward (up to 5 in 50 turns) would swamp it. That framework's
    penalty of 0.1 for an action that is not admissible is left out.

    Attributes:
        weight: what a success pays.
        schedule: lambda(u), or anything `make_schedule` takes.
    """

    weight: float = 10.0
    schedule: Schedule = Constant(1.0)
    name: str = "outcome"

    def __post_init__(self):
        object.__setattr__(self, "schedule", make_schedule(self.schedule))

    def __call__(self, trajectories: Sequence[Trajectory], policy=None, games=None) -> list[list[float]]:
        """Unweighted values: 0.0 on every turn, and 1.0 on the last turn of a won episode; one list per trajectory."""
        return [[0.0] * (len(t) - 1) + [float(t.won)] if len(t) else [] for t in trajectories]
