"""The environment's sparse terminal reward R_env (Self-Guide, arXiv 2604.03098, Eq 6, first term)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic.dataclasses import dataclass

from sglib.records import Trajectory
from sglib.rewards.component import Component
from sglib.rewards.fields import Float


@dataclass(frozen=True)
class Outcome(Component):
    """R_env(tau) = weight * won, put on the last turn.

    The paper does not state the size of R_env. The default of 10 is our choice: the framework its authors used pays 10
    for success, and with 1 the sum of the internal reward (up to 5 in 50 turns) would swamp it. That framework's
    penalty of 0.1 for an action that is not admissible is left out.
    """

    weight: Float = 10.0
    name: Literal["outcome"] = "outcome"

    def __call__(self, trajectories: Sequence[Trajectory], policy=None, games=None) -> list[list[float]]:
        """0.0 on every turn, and 1.0 on the last turn of a won episode."""
        return [[0.0] * (len(t) - 1) + [float(t.won)] if len(t) else [] for t in trajectories]

    @classmethod
    def signal_values(cls, trajectory: Trajectory, turn: int) -> dict[str, float]:
        return {}
