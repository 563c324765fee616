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
    """R_env(tau) = weight * won, put on the last turn; for tasks that can be done in part weight * score.

    The paper does not state the size of R_env. The default of 10 is our choice: the framework its authors used pays 10
    for success, and with 1 the sum of the internal reward (up to 5 in 50 turns) would swamp it. That framework's
    penalty of 0.1 for an action that is not admissible is left out.

    Attributes:
        pays: "won" (0 or 1) or "score" (0..1; of a question the F1 of its answer, IGPO's outcome, arXiv 2510.14967).
        malformed: what an episode with an answer that could not be read is paid in place of it; None pays it as any
            other. IGPO's code has -2 beside a score of at most 1.
    """

    weight: Float = 10.0
    pays: Literal["won", "score"] = "won"
    malformed: Float | None = None
    name: Literal["outcome"] = "outcome"

    def __call__(self, trajectories: Sequence[Trajectory], policy=None, games=None) -> list[list[float]]:
        """0.0 on every turn but the last; there, for "won", 1.0 if the episode was."""
        return [[0.0] * (len(t) - 1) + [self._paid(t)] if len(t) else [] for t in trajectories]

    def _paid(self, trajectory: Trajectory) -> float:
        if self.malformed is not None and any(turn.parse_error for turn in trajectory.turns):
            return self.malformed
        return float(trajectory.won if self.pays == "won" else trajectory.score)

    @classmethod
    def signal_values(cls, trajectory: Trajectory, turn: int) -> dict[str, float]:
        return {}
