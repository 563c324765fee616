"""Advantage estimators: from the per-turn rewards that `sglib.rewards.combine` recorded to one advantage per turn.

The mathematics is in `sglib.advantages`; here is only what of a trajectory each estimator reads.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, Protocol

import numpy as np
from pydantic.dataclasses import dataclass

from sglib.advantages.formulas import additive, gigpo, group_relative, turn_level
from sglib.records import Trajectory
from sglib.rewards.fields import Coefficient, Part, Share

# "outcome": internal rewards count only where a group's outcomes differ. In a group that failed (or won) as one they
# are all that there is to compare: a tie-breaker (Self-Guide's view), or noise blown up to full size (verl-recipe, pull
# request 125); this option is there to find out.
Gate = Literal["none", "outcome"]


class Estimator(Protocol):
    kind: str
    gate: Gate

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[np.ndarray]:
        """(T_i,) advantages for each of N trajectories, to which `combine` was applied."""


def paid(trajectory: Trajectory, component: str | None = None) -> np.ndarray:
    """(T,) what entered the return at each turn: of one component, or of all of them."""
    suffix = "/weighted"
    return np.array([
        sum(v for k, v in turn.rewards.items() if k.endswith(suffix) and component in (None, k.removesuffix(suffix)))
        for turn in trajectory.turns
    ], dtype=np.float64)  # fmt: skip


def closed(trajectories: Sequence[Trajectory], gate: Gate) -> list[bool]:
    """(N,) whether a trajectory's internal rewards do not count: those of groups whose outcomes are all alike, with
    gate "outcome"."""
    if gate == "none":
        return [False] * len(trajectories)
    outcomes = defaultdict(set)
    for t in trajectories:
        outcomes[t.group].add(paid(t, "outcome").sum())
    return [len(outcomes[t.group]) == 1 for t in trajectories]


def counted(trajectories: Sequence[Trajectory], gate: Gate) -> list[np.ndarray]:
    """What entered the return at each turn, (T_i,) for each trajectory, as the gate lets it."""
    shut = closed(trajectories, gate)
    return [paid(t, "outcome" if alone else None) for t, alone in zip(trajectories, shut, strict=True)]


@dataclass(frozen=True)
class GRPO(Part):
    """One advantage per trajectory from R(tau; u), repeated for each turn, z and a tokens alike (Self-Guide,
    arXiv 2604.03098, Eq 8). `scale`: see `formulas.group_relative`; "none" is the
    half of Dr. GRPO (arXiv 2503.20783) that is about the spread; the loss's division by length is TRL's `loss_type`."""

    scale: Literal["group", "none", "outcome"] = "group"
    gate: Gate = "none"
    kind: Literal["grpo"] = "grpo"

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[np.ndarray]:
        outcomes = [paid(t, "outcome").sum() for t in trajectories] if self.scale == "outcome" else None
        returns, groups = [t.total_return for t in trajectories], [t.group for t in trajectories]
        if self.gate != "none":
            returns = [values.sum() for values in counted(trajectories, self.gate)]
        values = group_relative(returns, groups, scale=self.scale, outcomes=outcomes)
        return [np.full(len(t), value) for t, value in zip(trajectories, values, strict=True)]


@dataclass(frozen=True)
class GiGPO(Part):
    """Episode advantage plus omega times the advantage within anchor states: turns of one group that read the same
    observation (GiGPO, arXiv 2505.10978). All components' rewards count, turn by turn."""

    gamma: Share = 0.95
    omega: Coefficient = 1.0
    scale: Literal["group", "none"] = "group"
    gate: Gate = "none"
    kind: Literal["gigpo"] = "gigpo"

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[np.ndarray]:
        return gigpo(
            counted(trajectories, self.gate),
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
    gate: Gate = "none"
    kind: Literal["igpo"] = "igpo"

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[np.ndarray]:
        outcomes = [paid(t, "outcome") for t in trajectories]
        gains = [all_ - outcome for all_, outcome in zip(counted(trajectories, self.gate), outcomes, strict=True)]
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


@dataclass(frozen=True)
class Additive(Part):
    """A_outcome + alpha * A_step: GRPO's advantage of the outcome, and beside it each turn's internal reward,
    standardised over the batch (`formulas.additive`). The internal rewards are those of all components but `outcome`;
    their weights count only against each other."""

    alpha: Coefficient = 1.0
    gate: Gate = "none"
    kind: Literal["additive"] = "additive"

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[np.ndarray]:
        outcomes = [paid(t, "outcome") for t in trajectories]
        internal = [paid(t) - outcome for t, outcome in zip(trajectories, outcomes, strict=True)]
        for values, shut in zip(internal, closed(trajectories, self.gate), strict=True):
            if shut:
                values[:] = np.nan
        totals = [outcome.sum() for outcome in outcomes]
        return additive(internal, totals, [t.group for t in trajectories], alpha=self.alpha)


def treatment(trajectories: Sequence[Trajectory], estimator: Estimator) -> dict[str, float | None]:
    """How much the internal rewards of a batch with advantages change these, turn by turn.

    Returns:
        `correlation` of the advantage with that of success alone by the same estimator, -1..1 (None where one of them
        does not vary): 1 is a treatment that does nothing; and `share` of the turns whose advantage differs.
    """
    alone = [
        replace(t, turns=[replace(turn, rewards={k: v for k, v in turn.rewards.items() if k == "outcome/weighted"})
                          for turn in t.turns])
        for t in trajectories
    ]  # fmt: skip
    for t in alone:
        t.total_return = float(paid(t).sum())
    without = np.concatenate([*estimator(alone), np.zeros(0)])
    given = np.array([turn.advantage for t in trajectories for turn in t.turns], dtype=np.float64)
    varied = len(given) and np.ptp(given) > 0 and np.ptp(without) > 0
    return {
        "correlation": float(np.corrcoef(given, without)[0, 1]) if varied else None,
        "share": float(np.mean(np.abs(given - without) > 1e-6)) if len(given) else 0.0,
    }


def set_advantages(trajectories: Sequence[Trajectory], estimator: Estimator) -> None:
    """Give every turn of a rewarded batch its advantage."""
    for trajectory, values in zip(trajectories, estimator(trajectories), strict=True):
        for turn, value in zip(trajectory.turns, values, strict=True):
            turn.advantage = float(value)
