"""The sum that a recipe makes of its components."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from sglib.envs.base import Environment
from sglib.models import processes
from sglib.records import Trajectory
from sglib.rewards.component import Component


def check_environment(components: Sequence[Component], card: Environment) -> None:
    """Refuse a component that asks for what an environment does not have, by a ValueError that names both."""
    for component in components:
        if missing := component.lacks(card):
            raise ValueError(f"component {component.name!r} asks for {missing}; the environment is {card.name!r}")


def combine(
    trajectories: Sequence[Trajectory], components: Sequence[Component], u: float, policy=None, games=None
) -> list[float]:
    """R(tau; u) = sum over components and turns of weight * lambda(u) * value (Self-Guide, arXiv 2604.03098, Eq 6).

    A plain sum: no discount. Several processes share the work of components that are `apart`.

    For each component, `turn.rewards[name]` is set to its raw value and
    `turn.rewards[name + "/weighted"]` to what entered the return; `trajectory.total_return` is set to the return. A
    component whose weight * lambda(u) is 0 is evaluated and recorded, but nothing is added for it, so the returns are
    bit for bit those without it.

    `u` is the training fraction, 0..1; `policy` and `games` are handed to each component. Returns the N returns, for N
    episodes. Raises ValueError: u outside 0..1, a repeated name, values of the wrong shape, or one that is not finite.
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
        together = component.apart and processes.count() > 1
        values = (functools.partial(_share, component) if together else component)(trajectories, policy, games)
        if [len(v) for v in values] != [len(t) for t in trajectories]:
            raise ValueError(f"component {component.name!r}: returned values that are not one float per turn")
        if component.shuffled:
            values = shuffled(values, [t.seed for t in trajectories])
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


def _share(component: Component, trajectories: Sequence[Trajectory], policy, games) -> list[list[float]]:
    """What a component pays and writes into turns, of which each process finds out a share."""
    mine = processes.share(trajectories)
    values = component(mine, policy, games) if mine else []
    parts = processes.everyone([values, [[(turn.rewards, turn.label) for turn in t.turns] for t in mine]])
    written = [turn for _, notes in parts for episode in notes for turn in episode]
    for turn, (rewards, label) in zip((turn for t in trajectories for turn in t.turns), written, strict=True):
        turn.rewards, turn.label = rewards, label
    return [episode for values, _ in parts for episode in values]


def shuffled(values: Sequence[Sequence[float]], seeds: Sequence[int]) -> list[list[float]]:
    """Values permuted within each of N episodes; each keeps its sum. The order follows from the rollout's seed and the
    place in the batch. Where no episode has anything on its last turn, that one stays out of it: the reward cannot pay
    there."""
    never = all(not v[-1] for v in values if len(v))
    mixed = []
    for i, (v, seed) in enumerate(zip(values, seeds, strict=True)):
        end = len(v) - never if len(v) else 0
        order = np.random.default_rng([seed, i]).permutation(end)
        mixed.append([v[j] for j in order] + list(v[end:]))
    return mixed
