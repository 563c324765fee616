"""Controls, which no paper proposes: the truth (exact, or degraded to a known AUROC), noise, and pay for nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from sglib.envs.base import Environment
from sglib.records import Trajectory
from sglib.rewards.component import Component
from sglib.rewards.fields import Float, Positive, Seed, Share


@dataclass(frozen=True)
class OraclePotential(Component):
    """UPPER BOUND, not a method: potential-based shaping by the oracle's distance (Ng, Harada, Russell 1999).

    r_t = gamma * Phi(s_{t+1}) - Phi(s_t) with Phi(s) = -d(s) / d_0, in units of the whole way to the goal: an action
    that brings the goal one step nearer earns 1 / d_0 (gamma = 1). With gamma = 1 the episode's plain sum is
    1 - d_T / d_0: potential-based shaping telescopes, so going back and forth earns nothing. In a sum that is
    discounted by another gamma (GiGPO's step part) it earns a little: a step forth counts more than the step back after
    it, for good about half a step's pay. With that gamma here, standing still would be paid in the plain sum instead.

    With `step` "asinh" a step earns asinh(d_t - d_{t+1}) instead, in actions (CAST, arXiv 2607.25308): one that makes
    the goal unreachable, many times the others by its distance, is some four of them then. With "sign" it earns 1 if it
    brought the goal nearer, -1 if it led away from it or out of its reach, else 0: what a labeller without fault says.

    With `auroc` the truth is degraded: each turn keeps its value with probability 2 * auroc - 1 and else gets that of a
    turn drawn from the whole batch, so that values have the same distribution, and where good steps share one value and
    the others another, theirs tell a good step from another with exactly that AUROC in expectation (own against own: 1,
    otherwise 1/2 on average). The draw follows from (seed, the rollout's seed).
    """

    gamma: Share = 1.0
    step: Literal["potential", "asinh", "sign"] = "potential"
    auroc: Annotated[Float, Field(ge=0.5, le=1)] | None = None
    seed: Seed = 0
    name: Literal["oracle"] = "oracle"

    knows: ClassVar = "the hidden state"

    def __post_init__(self):
        if self.step != "potential" and self.gamma != 1:
            raise ValueError(f"gamma: got {self.gamma}; allowed: only with step: potential")
        if self.auroc is None and self.seed:
            raise ValueError(f"seed: got {self.seed}; allowed: only with auroc, since nothing is drawn otherwise")

    def lacks(self, card: Environment) -> str | None:
        return None if card.offers("distance") or card.offers("progress") else "a distance or true progress"

    def __call__(self, trajectories: Sequence[Trajectory], policy=None, games=None) -> list[list[float]]:
        """Raises ValueError for a trajectory that was recorded without the truth."""
        values = []
        for trajectory in trajectories:
            left = trajectory.remaining()
            if left is None:
                raise ValueError(f"{trajectory.game_id}: recorded without the truth (Options(truth=True))")
            if self.step != "potential":
                of = math.asinh if self.step == "asinh" else np.sign
                values.append([float(of(before - after)) for before, after in zip(left, left[1:])])
                continue
            phi = [-x / max(left[0], 1) for x in left]
            values.append([self.gamma * after - before for before, after in zip(phi, phi[1:])])
        return values if self.auroc is None or not trajectories else self._degraded(values, trajectories[0].seed)

    def _degraded(self, values: list[list[float]], seed: int) -> list[list[float]]:
        rng, pool = np.random.default_rng([self.seed, seed]), np.concatenate(values)
        kept = rng.random(len(pool)) < 2 * self.auroc - 1
        mixed = np.where(kept, pool, rng.choice(pool, len(pool)) if len(pool) else pool)
        return [part.tolist() for part in np.split(mixed, np.cumsum([len(v) for v in values])[:-1])]


@dataclass(frozen=True)
class RandomReward(Component):
    """CONTROL: independent noise on every turn, normal with standard deviation `scale`: what more variance alone does.
    It is drawn from (seed, the rollout's seed, place in the batch): the same batch gets the same noise."""

    scale: Positive = 0.1
    seed: Seed = 0
    name: Literal["random"] = "random"

    def __call__(self, trajectories: Sequence[Trajectory], policy=None, games=None) -> list[list[float]]:
        return [
            np.random.default_rng([self.seed, t.seed, i]).normal(0.0, self.scale, len(t)).tolist()
            for i, t in enumerate(trajectories)
        ]


@dataclass(frozen=True)
class ConstantReward(Component):
    """CONTROL: 1 on every turn, whatever was done: pay for being there, which long episodes collect most of."""

    name: Literal["constant"] = "constant"

    def __call__(self, trajectories: Sequence[Trajectory], policy=None, games=None) -> list[list[float]]:
        return [[1.0] * len(t) for t in trajectories]
