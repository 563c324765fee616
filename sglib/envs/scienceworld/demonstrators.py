"""Imperfect demonstrators: what a base model is pre-trained on. They follow the simulator's solution and say the
sub-goal that it is about to reach; in between they look at things, wander off, repeat themselves and say what is not
understood."""

from __future__ import annotations

import random
from dataclasses import dataclass

from sglib.envs.base import Demonstration, true_label
from sglib.envs.scienceworld.engine import ASKS, ScienceWorldEnv
from sglib.envs.scienceworld.variations import Variation
from sglib.records import LABELS

NOISE = ("look at {}", "look in {}", "open {}", "go {}", "activate {}")  # none that ends an episode
DONE = "task is done"


@dataclass(frozen=True)
class Habits:
    """How an episode's demonstrator behaves; every value is a probability.

    Attributes:
        noise: upper end of the uniform share of actions on things at random (the share is drawn once an episode).
        again: share of turns in which it repeats its last action.
        unknown: share of turns in which it says what is not understood.
        wrong_label: share of labels that are drawn at random.
    """

    noise: float = 0.2
    again: float = 0.05
    unknown: float = 0.05
    wrong_label: float = 0.3


def demonstrate(
    env: ScienceWorldEnv, task: Variation, rng: random.Random, habits: Habits, max_turns: int
) -> tuple[list[Demonstration], bool]:
    """Play one task; returns the steps and whether it was won. Worth imitating is what the expert would do there, too,
    and is understood."""
    observation = env.reset(task)
    noise, label, last, steps = rng.random() * habits.noise, "neutral", None, []
    while not observation.done and len(steps) < max_turns:
        action = wanted = env.expert("gold")
        if observation.text.startswith(ASKS):
            action = rng.choice(env.admissible(observation.text) or (wanted,))
        elif last is not None and rng.random() < habits.again:
            action = last
        elif rng.random() < habits.unknown:
            action = wanted.split()[0] + " nothing"
        elif rng.random() < noise:
            action = rng.choice(NOISE).format(rng.choice(env.objects()))
        stated = rng.choice(LABELS) if steps and rng.random() < habits.wrong_label else label
        percent = 10 * round(10 * env.progress())
        step = Demonstration(observation.text, action, env.subgoal() or DONE, stated, percent, False)
        before = env.points
        observation = env.step(action)
        step.imitate = observation.valid and action == wanted
        steps.append(step)
        label = true_label(100 - before, None if env.points < 0 else 100 - env.points, observation.valid)
        last = action
    return steps, observation.won
