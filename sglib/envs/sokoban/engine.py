"""Sokoban as text: a board and one sentence at every turn, the commands up, down, left, right.

Rules and rewards are gym-sokoban's, which RAGEN and verl-agent play: -0.1 an action, +1 for a box that comes onto a
target, -1 for one that leaves its target, +10 when all boxes are on targets, which ends the episode.
`tests/parity_sokoban.py` plays both in lock-step. Two differences, both only at the start of an episode: boxes that are
on a target then are counted (gym-sokoban pays for them at the first step), and levels come from `levels.py`.

What is no command, and a move into a wall or into a box that cannot move, is a turn in which nothing happens: it costs
-0.1 as every action, and `Observation.valid` is False.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType

from sglib.envs.sokoban import graph
from sglib.envs.sokoban.graph import COMMANDS, read
from sglib.envs.sokoban.levels import GOAL, Level
from sglib.records import Observation

EXPERTS = ("optimal",)
TASK = f"Your task is to: {GOAL}."
NOTHING, MOVED, PUSHED = "Nothing happens.", "You move.", "You push a box."
ONTO, OFF = "You push a box onto a target.", "You push a box off a target."
WON, STUCK = "Every box is on a target.", "The boxes can no longer all reach a target."
SENTENCES = (TASK, NOTHING, MOVED, PUSHED, ONTO, OFF, WON, STUCK)
_DIRECTIONS = {command: direction for direction, command in enumerate(COMMANDS)}


@functools.lru_cache(maxsize=256)
def _info(on_target: int, boxes: int) -> Mapping[str, float]:
    """`Observation.info`, one read-only object for each share."""
    return MappingProxyType({"boxes_on_target": on_target / boxes})


class SokobanEnv:
    """The `TextEnv` of Sokoban.

    Args:
        max_steps: after that many actions an episode is done even if it is not won; None for no limit.
        admissible: whether observations list the commands that do something.
        end_on_deadlock: whether an episode ends, lost, as soon as the goal cannot be reached any more.

    `Observation.info["boxes_on_target"]` is the share of boxes on targets, 0..1; `score` is 1.0 when all are, else 0.0.
    """

    __slots__ = ("boxes", "done", "end_on_deadlock", "level", "max_steps", "maze", "observation", "player",
                 "steps", "with_admissible")  # fmt: skip

    def __init__(self, max_steps: int | None = None, admissible: bool = True, end_on_deadlock: bool = False):
        if max_steps is not None and (type(max_steps) is not int or max_steps < 1):
            raise ValueError(f"max_steps={max_steps!r}: must be a positive number or None")
        self.max_steps, self.with_admissible, self.end_on_deadlock = max_steps, admissible, end_on_deadlock
        self.done = True

    def reset(self, level: Level) -> Observation:
        """Start an episode. Raises `TooLarge` if `end_on_deadlock` on a map whose distances are not searched."""
        self.done = True
        self._set(level, *read(level.board)[1:], 0)
        if self.end_on_deadlock:
            self.distance()
        return self._observe(TASK, 0.0, True)

    def _set(self, level: Level, player: int, boxes: int, steps: int):
        self.level, self.maze, self.player, self.boxes, self.steps = level, read(level.board)[0], player, boxes, steps

    def step(self, action: str) -> Observation:
        """Take one action: a command in any case, blanks around it ignored."""
        if self.done:
            raise RuntimeError("the episode is over: call reset(level) before step")
        self.steps += 1
        direction = _DIRECTIONS.get(action.strip().lower()) if isinstance(action, str) else None
        if direction is None:
            return self._observe(NOTHING, -0.1, False)
        maze, player, before = self.maze, self.player, self.boxes
        cell, boxes = maze.move(direction, player, before)
        if cell == player:
            return self._observe(NOTHING, -0.1, False)
        self.player, sentence, reward = cell, MOVED, -0.1
        if boxes != before:
            self.boxes, targets = boxes, maze.targets
            change = (boxes & targets).bit_count() - (before & targets).bit_count()
            sentence = PUSHED if not change else ONTO if change > 0 else OFF
            reward += change
            if boxes == targets:
                sentence, reward = WON, reward + 10
            elif self.end_on_deadlock and self.distance() is None:
                return self._observe(STUCK, reward, True, over=True)
        return self._observe(sentence, reward, True)

    def _observe(self, sentence: str, reward: float, valid: bool, over: bool = False) -> Observation:
        maze, boxes, limit = self.maze, self.boxes, self.max_steps
        board, commands = maze.view(self.player, boxes)
        won = boxes == maze.targets
        self.done = done = won or over or (limit is not None and self.steps >= limit)
        self.observation = observation = Observation(
            f"{sentence}\n{board}", GOAL, commands if self.with_admissible else (), reward, won, done, self.steps,
            _info((boxes & maze.targets).bit_count(), boxes.bit_count()), 1.0 if won else 0.0, valid,
        )  # fmt: skip
        return observation

    def admissible(self) -> tuple[str, ...]:
        """The commands that change something now, sorted."""
        return self.maze.view(self.player, self.boxes)[1]

    # -- what is known of the state ------------------------------------------------------------------------------

    def distance(self) -> int | None:
        """Fewest actions to the goal; None in a deadlock. Raises `TooLarge` on a map with too many states."""
        return graph.distance(self.maze, self.player, self.boxes)

    def progress(self) -> float:
        """True progress 0..1: 1 - d / d at the start, not below 0; 0 in a deadlock. Raises as `distance`."""
        left = self.distance()
        return 0.0 if left is None else max(0.0, 1 - left / graph.distance(*read(self.level.board)))

    def plan(self) -> list[str] | None:
        """The commands of a shortest plan; None in a deadlock. Raises as `distance`."""
        return graph.plan(self.maze, self.player, self.boxes)

    def expert(self, kind: str) -> str:
        """The first command of a shortest plan; in a deadlock the first command that does something."""
        if kind not in EXPERTS:
            raise ValueError(f"kind={kind!r}: allowed: {', '.join(map(repr, EXPERTS))}")
        return (self.plan() or [*self.admissible(), COMMANDS[0]])[0]

    def snapshot(self) -> tuple[Level, int, int, Observation]:
        return self.level, self.player, self.boxes, self.observation

    def restore(self, snapshot: tuple[Level, int, int, Observation]) -> Observation:
        level, player, boxes, self.observation = snapshot
        self._set(level, player, boxes, self.observation.steps)
        self.done = self.observation.done
        return self.observation
