"""Self-Guide's internal reward: the policy's own rating of its progress (arXiv 2604.03098, r_t = g(z_t), Eq 6).

z_t is written before a_t and rates the prefix that ends with o_t, so it pays for what a_{t-1} did. At t = 1 there is
nothing to rate, and nothing rates the last action. The paper leaves both ends open; our choice is 0 for t = 1 and no
extra generation after the last action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sglib.records import Trajectory
from sglib.rewards.schedule import Schedule, Trapezoid, make_schedule


@dataclass(frozen=True)
class SelfGuide:
    """r_t = g(z_t): `positive`, `neutral` or `negative`; 0 at turn 1 and where no label could be read.

    A turn whose label was read but whose action was not (`parse_error` set, `label` set) keeps its rating.

    Attributes:
        weight: multiplies lambda(u); 1 in the paper.
        schedule: lambda(u), or anything `make_schedule` takes; the default is the paper's.
        positive, neutral, negative: g; +0.1, 0 and -0.1 in the paper.
        length_normalized: our variant, not in the paper: divide each value by T - 1, the number of turns that can be
            rated, so that a long episode full of "positive" earns no more than a short one.
    """

    weight: float = 1.0
    schedule: Schedule = Trapezoid()
    positive: float = 0.1
    neutral: float = 0.0
    negative: float = -0.1
    length_normalized: bool = False
    name: str = "self_guide"

    def __post_init__(self):
        object.__setattr__(self, "schedule", make_schedule(self.schedule))

    def __call__(self, trajectories: Sequence[Trajectory], policy=None, games=None) -> list[list[float]]:
        """Unweighted values g(z_t), one float per turn, one list per trajectory."""
        g = {"positive": self.positive, "neutral": self.neutral, "negative": self.negative}
        values = []
        for trajectory in trajectories:
            scale = max(len(trajectory) - 1, 1) if self.length_normalized else 1
            rated = [g.get(turn.label, 0.0) / scale for turn in trajectory.turns[1:]]
            values.append([0.0] * min(len(trajectory), 1) + rated)
        return values
