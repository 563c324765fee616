"""Imperfect demonstrators: what the base model is pre-trained on.

They see the whole board, as any player does, so their best moves are those of a shortest plan; how often they make them
is a matter of habit, and so are moves at random, which may end in a deadlock, and attempts at what does nothing.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from sglib.envs.base import Demonstration, true_label
from sglib.envs.sokoban.engine import SokobanEnv
from sglib.envs.sokoban.graph import COMMANDS, distance
from sglib.envs.sokoban.levels import Level
from sglib.records import LABELS

SIDES = ("get below box", "get above box", "get right of box", "get left of box")  # to push it up, down, left, right
PUSHES = tuple(f"push box {command}" for command in COMMANDS)
SUBGOALS = (*SIDES, *PUSHES, *(f"{push} onto target" for push in PUSHES), "box is stuck")


@dataclass(frozen=True)
class Habits:
    """How an episode's demonstrator behaves; every value is a probability.

    Attributes:
        skill: share of its own moves that are the planner's; the others are random among those after which the goal
            can still be reached: it sees a trap, but not the way.
        noise: upper end of the uniform share of random admissible moves (the share is drawn once an episode).
        impossible: share of attempts at something that does nothing.
        wrong_label, wrong_subgoal: share of guidance labels, and of stated sub-goals, that are drawn at random.
    """

    skill: float = 0.8
    noise: float = 0.3
    impossible: float = 0.08
    wrong_label: float = 0.3
    wrong_subgoal: float = 0.1


def subgoal(env: SokobanEnv) -> str:
    """What the shortest plan does next, one of `SUBGOALS`: the side of the box to get to, or the push."""
    maze, player, boxes = env.maze, env.player, env.boxes
    for ahead, command in enumerate(env.plan() or ()):
        direction = COMMANDS.index(command)
        player, after = maze.move(direction, player, boxes)
        if after != boxes:
            onto = maze.targets >> maze.steps[direction][player] & 1
            return SIDES[direction] if ahead else f"{PUSHES[direction]} onto target" if onto else PUSHES[direction]
    return SUBGOALS[-1]


def demonstrate(
    env: SokobanEnv, level: Level, rng: random.Random, habits: Habits, max_turns: int
) -> tuple[list[Demonstration], bool]:
    """Play one level; returns the steps and whether it was won.

    Not worth imitating are attempts that do nothing, the move that makes the goal unreachable, and all after it.
    """
    observation = env.reset(level)
    noise = rng.random() * habits.noise
    left, label, steps = env.distance(), "neutral", []
    while not observation.done and len(steps) < max_turns:
        possible, blocked = env.admissible(), [c for c in COMMANDS if c not in env.admissible()]
        if rng.random() < habits.impossible or not possible:
            action = rng.choice(blocked or ["push"])  # the word is no command
        elif rng.random() < noise or left is None:
            action = rng.choice(possible)
        else:
            action = env.plan()[0] if rng.random() < habits.skill else rng.choice(_safe(env))
        goal = rng.choice(SUBGOALS) if rng.random() < habits.wrong_subgoal else subgoal(env)
        stated = rng.choice(LABELS) if steps and rng.random() < habits.wrong_label else label
        step = Demonstration(observation.text, action, goal, stated, 10 * round(10 * env.progress()), False)
        observation = env.step(action)
        after = env.distance()
        step.imitate = observation.valid and after is not None
        steps.append(step)
        label, left = true_label(left, after, observation.valid), after
    return steps, observation.won


def _safe(env: SokobanEnv) -> list[str]:
    """The commands after which the goal can still be reached."""
    moves = ((command, env.maze.move(d, env.player, env.boxes)) for d, command in enumerate(COMMANDS))
    return [c for c, state in moves if state[0] != env.player and distance(env.maze, *state) is not None]
