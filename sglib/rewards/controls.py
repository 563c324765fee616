"""Two rewards that no paper proposes: an upper bound that knows the truth, and noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sglib.envs.base import Environment
from sglib.records import Trajectory
from sglib.rewards.schedule import Constant, Schedule, make_schedule


@dataclass(frozen=True)
class OraclePotential:
    """UPPER BOUND, not a method: potential-based shaping by the oracle's distance (Ng, Harada, Russell 1999).

    r_t = gamma * Phi(s_{t+1}) - Phi(s_t) with Phi(s) = -d(s) / d_0, in units of the whole way to the goal: an action
    that brings the goal one step nearer earns 1 / d_0 (gamma = 1). With gamma = 1 the episode's plain sum is
    1 - d_T / d_0: potential-based shaping telescopes, so that sum cannot be farmed by going back and forth. A sum that
    is discounted by another gamma (GiGPO's step part) can, a little: a step forth counts more than the step back after
    it, for good about half a step's pay. With that gamma here, standing still would be paid in the plain sum instead.

    Attributes:
        weight: multiplies lambda(u).
        schedule: lambda(u), or anything `make_schedule` takes.
        gamma: 0..1.
    """

    weight: float = 1.0
    schedule: Schedule = Constant(1.0)
    gamma: float = 1.0
    name: str = "oracle"

    def __post_init__(self):
        object.__setattr__(self, "schedule", make_schedule(self.schedule))
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma: got {self.gamma!r}; allowed: 0 to 1")

    def lacks(self, card: Environment) -> str | None:
        return None if card.offers("distance") or card.offers("progress") else "a distance or true progress"

    def __call__(self, trajectories: Sequence[Trajectory], policy=None, games=None) -> list[list[float]]:
        """Unweighted values, one float per turn.

        Raises:
            ValueError: a trajectory was recorded without the truth.
        """
        values = []
        for trajectory in trajectories:
            left = trajectory.remaining()
            if left is None:
                raise ValueError(f"{trajectory.game_id}: recorded without the truth (Options(truth=True))")
            phi = [-x / max(left[0], 1) for x in left]
            values.append([self.gamma * after - before for before, after in zip(phi, phi[1:])])
        return values


@dataclass(frozen=True)
class RandomReward:
    """CONTROL: independent noise on every turn, so that a gain by any internal reward can be told from more variance.

    Values are normal with the given `scale`, drawn from (seed, the rollout's seed, the place in the batch): the same
    batch gets the same noise.

    Attributes:
        weight: multiplies lambda(u).
        schedule: lambda(u), or anything `make_schedule` takes.
        scale: standard deviation of a turn's value, > 0.
        seed: >= 0.
    """

    weight: float = 1.0
    schedule: Schedule = Constant(1.0)
    scale: float = 0.1
    seed: int = 0
    name: str = "random"

    def __post_init__(self):
        object.__setattr__(self, "schedule", make_schedule(self.schedule))
        if not self.scale > 0:
            raise ValueError(f"scale: got {self.scale!r}; allowed: more than 0")

    def __call__(self, trajectories: Sequence[Trajectory], policy=None, games=None) -> list[list[float]]:
        """Unweighted values, one float per turn."""
        return [
            np.random.default_rng([self.seed, t.seed, i]).normal(0.0, self.scale, len(t)).tolist()
            for i, t in enumerate(trajectories)
        ]
