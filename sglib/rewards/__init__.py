"""Per-turn rewards: one paper, one file, all of one shape, so that papers can be mixed.

A component is a small object with `name` (str), `weight` (float), `schedule` (lambda(u)) and
`__call__(trajectories, policy=None, games=None) -> list[list[float]]`: unweighted per-turn values, one list per
trajectory, one float per turn. `policy` is the model being trained, `games` the games by id, for rewards that ask them.
What a value was computed from goes into `turn.rewards` beside it, as "<name>/<what>".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from sglib.envs.base import Environment
from sglib.records import Trajectory
from sglib.rewards.controls import OraclePotential, RandomReward
from sglib.rewards.igpo import InformationGain
from sglib.rewards.outcome import Outcome
from sglib.rewards.repro import ProgressFormat, ProgressReward, RePro, discrimination
from sglib.rewards.schedule import Constant, Schedule, Trapezoid, make_schedule
from sglib.rewards.self_guide import SelfGuide
from sglib.rewards.step_agent import InverseReward

__all__ = [
    "COMPONENTS",
    "Component",
    "Constant",
    "InformationGain",
    "InverseReward",
    "OraclePotential",
    "Outcome",
    "ProgressFormat",
    "ProgressReward",
    "RandomReward",
    "RePro",
    "Schedule",
    "SelfGuide",
    "Trapezoid",
    "check_environment",
    "combine",
    "discrimination",
    "make_schedule",
]

# what a recipe can name
COMPONENTS: dict[str, type] = {
    cls.name: cls
    for cls in (
        Outcome, SelfGuide, RePro, ProgressFormat, ProgressReward, InformationGain, InverseReward, OraclePotential,
        RandomReward,
    )
}  # fmt: skip


class Component(Protocol):
    name: str
    weight: float
    schedule: Schedule

    def __call__(self, trajectories: Sequence[Trajectory], policy=None, games=None) -> list[list[float]]: ...


def check_environment(components: Sequence[Component], card: Environment) -> None:
    """Refuse a component that asks for what an environment does not have.

    Raises:
        ValueError: naming the component, what it asks for, the environment and what that has.
    """
    for component in components:
        lacks = getattr(component, "lacks", None)  # (card) -> what the environment does not have, None for nothing
        if lacks is not None and (missing := lacks(card)):
            raise ValueError(f"component {component.name!r} asks for {missing}; the environment is {card.name!r}")


def combine(
    trajectories: Sequence[Trajectory], components: Sequence[Component], u: float, policy=None, games=None
) -> list[float]:
    """R(tau; u) = sum over components and turns of weight * lambda(u) * value (Self-Guide, arXiv 2604.03098, Eq 6).

    A plain sum: no discount. For each component, `turn.rewards[name]` is set to its raw value and
    `turn.rewards[name + "/weighted"]` to what entered the return; `trajectory.total_return` is set to the return. A
    component whose weight * lambda(u) is 0 is evaluated and recorded, but nothing is added for it, so the returns are
    bit for bit those without it.

    Args:
        trajectories: N episodes; changed in place as described.
        components: reward components with distinct names.
        u: training fraction, 0 <= u <= 1.
        policy, games: handed to each component.

    Returns:
        The N returns.

    Raises:
        ValueError: for u outside [0, 1], a repeated name, values of the wrong shape, or a value that is not finite.
    """
    if not 0 <= u <= 1:
        raise ValueError(f"u: got {u!r}; allowed: 0 <= u <= 1")
    names = [component.name for component in components]
    if len(set(names)) < len(names):
        raise ValueError(f"components: got names {names}; allowed: each name once")
    returns = [0.0] * len(trajectories)
    for turn in (turn for t in trajectories for turn in t.turns):  # what another mix paid before counts no more
        turn.rewards = {key: value for key, value in turn.rewards.items() if not key.endswith("/weighted")}
    for component in components:
        coefficient = component.weight * component.schedule(u)
        values = component(trajectories, policy, games)
        if [len(v) for v in values] != [len(t) for t in trajectories]:
            raise ValueError(f"component {component.name!r}: returned values that are not one float per turn")
        for i, (trajectory, per_turn) in enumerate(zip(trajectories, values, strict=True)):
            for turn, value in zip(trajectory.turns, per_turn, strict=True):
                effective = coefficient * value if coefficient else 0.0
                if not math.isfinite(effective):
                    raise ValueError(f"component {component.name!r}: got {value!r}; allowed: finite values")
                turn.rewards[component.name] = float(value)
                turn.rewards[f"{component.name}/weighted"] = float(effective)
                if coefficient:
                    returns[i] += effective
    for trajectory, total in zip(trajectories, returns, strict=True):
        trajectory.total_return = total
    return returns
