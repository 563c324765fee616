"""Advantage estimators: from the per-turn rewards that `sglib.rewards.combine` recorded to one advantage per turn.

The mathematics is in `sglib.advantages`; here is only what of a trajectory each estimator reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from pydantic.dataclasses import dataclass

from sglib.advantages.formulas import gigpo, group_relative, turn_level
from sglib.records import Trajectory
from sglib.rewards.fields import Coefficient, Part, Share


class Estimator(Protocol):
    kind: str

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[np.ndarray]:
        """(T_i,) advantages for each of N trajectories, to which `combine` was applied."""


def paid(trajectory: Trajectory, component: str | None = None) -> np.ndarray:
    """(T,) what entered the return at each turn: of one component, or of all of them."""
    suffix = "/weighted"
    return np.array([
        sum(v for k, v in turn.rewards.items() if k.endswith(suffix) and component in (None, k.removesuffix(suffix)))
        for turn in trajectory.turns
    ], dtype=np.float64)  # fmt: skip


@dataclass(frozen=True)
class GRPO(Part):
    """One advantage per trajectory from R(tau; u), repeated for each turn, z and a tokens alike (Self-Guide,
    arXiv 2604.03098, Eq 8). `scale`: see `formulas.group_relative`; "none" is Dr. GRPO (arXiv 2503.20783)."""

    scale: Literal["group", "none", "outcome"] = "group"
    kind: Literal["grpo"] = "grpo"

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[np.ndarray]:
        outcomes = [paid(t, "outcome").sum() for t in trajectories] if self.scale == "outcome" else None
        returns, groups = [t.total_return for t in trajectories], [t.group for t in trajectories]
        values = group_relative(returns, groups, scale=self.scale, outcomes=outcomes)
        return [np.full(len(t), value) for t, value in zip(trajectories, values, strict=True)]


@dataclass(frozen=True)
class GiGPO(Part):
    """Episode advantage plus omega times the advantage within anchor states: turns of one group that read the same
    observation (GiGPO, arXiv 2505.10978). All components' rewards count, turn by turn."""

    gamma: Share = 0.95
    omega: Coefficient = 1.0
    scale: Literal["group", "none"] = "group"
    kind: Literal["gigpo"] = "gigpo"

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[np.ndarray]:
        return gigpo(
            [paid(t) for t in trajectories],
            [t.group for t in trajectories],
            [[turn.observation for turn in t.turns] for t in trajectories],
            gamma=self.gamma, omega=self.omega, scale=self.scale,
        )  # fmt: skip


@dataclass(frozen=True)
class IGPO(Part):
    """Turn-level advantages: internal rewards and outcomes normalised, then discounted (IGPO, arXiv 2510.14967).

    The internal rewards of a turn are those of all components but `outcome`; on the last turn only the outcome counts,
    so a component that pays there is refused rather than dropped.
    """

    gamma: Share = 1.0
    normalize: Literal["separate", "joint"] = "separate"
    baseline: Literal["pooled", "none"] = "pooled"
    kind: Literal["igpo"] = "igpo"

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[np.ndarray]:
        outcomes = [paid(t, "outcome") for t in trajectories]
        gains = [paid(t) - outcome for t, outcome in zip(trajectories, outcomes, strict=True)]
        for trajectory, gain in zip(trajectories, gains, strict=True):
            if len(gain) and abs(gain[-1]) > 1e-12:
                raise ValueError(
                    f"advantage igpo: {trajectory.game_id}: an internal reward of {gain[-1]:g} on the last turn, where "
                    "only the outcome counts; allowed: components that pay nothing there (self_guide: credit: rated)"
                )
            gain[-1:] = 0.0
        return turn_level(
            gains,
            [outcome.sum() for outcome in outcomes],
            [t.group for t in trajectories],
            gamma=self.gamma, normalize=self.normalize, baseline=self.baseline,
        )  # fmt: skip


def set_advantages(trajectories: Sequence[Trajectory], estimator: Estimator) -> None:
    """Give every turn of a rewarded batch its advantage."""
    for trajectory, values in zip(trajectories, estimator(trajectories), strict=True):
        for turn, value in zip(trajectory.turns, values, strict=True):
            turn.advantage = float(value)
