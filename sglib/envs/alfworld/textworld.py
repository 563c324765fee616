"""The reference engine: alfworld's own wrappers around TextWorld's `PddlEnv`, one game at a time.

Slow (tens of steps per second) and exact by definition: it runs the code that published ALFWorld numbers come from.
The fast engine is tested against it and every reported evaluation can be replayed on it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from sglib.envs.alfworld.games import Game
from sglib.records import Observation

_TASK = "Your task is to: "


@contextlib.contextmanager
def _translating(game: Game) -> Iterator[None]:
    """Guard a call into Fast Downward's translator, which overwrites `sys.argv` and may leave by `sys.exit`."""
    argv = sys.argv
    try:
        yield
    except (SystemExit, Exception) as error:
        raise ValueError(f"game {game.id!r}: TextWorld cannot load it: {type(error).__name__}: {error}") from error
    finally:
        sys.argv = argv


class TextWorldAlfworld:
    """ALFWorld on TextWorld; implements `TextEnv`.

    Args:
        max_steps: the episode is over after this many actions; None for no limit.

    Each instance owns one copy of Fast Downward's library (megabytes with a game loaded, gigabytes for a few), so keep
    one and `reset` it. It has no distance: its planner's plans are not the shortest.
    """

    def __init__(self, max_steps: int | None = None):
        if max_steps is not None and max_steps < 1:
            raise ValueError(f"max_steps: {max_steps}; must be at least 1, or None for no limit")
        # Imported here: TextWorld takes a second to import, and users of the fast engine never need it.
        import textworld
        from alfworld.agents.environment.alfred_tw_env import AlfredDemangler, AlfredInfos
        from textworld.envs import PddlEnv

        # The wrappers get an environment of their own. Instances handed to `textworld.gym.register_games` would be
        # shared by all slots of a synchronous batch, which then play one and the same game.
        infos = textworld.EnvInfos(won=True, admissible_commands=True, extras=["gamefile"])
        self._env = AlfredInfos(AlfredDemangler(PddlEnv(infos), shuffle=False))
        self._max_steps, self._done = max_steps, True
        self._game: Game | None = None

    def reset(self, game: Game) -> Observation:
        """Start `game`: 0.5 to 4 seconds the first time, half of it when the same game object is reset again. Raises
        `ValueError` naming a game that TextWorld cannot load."""
        self._done = True
        with _translating(game):
            if game is not self._game:
                self._game = None  # a failed load must not pass for a loaded game
                self._env.load(game.data())  # PddlEnv takes the content of game.tw-pddl as well as its path
                self._game = game
            state = self._env.reset()
        self._goal = state.feedback.partition(_TASK)[2].removesuffix(".")
        self._steps = 0
        return self._observe(state)

    def step(self, action: str) -> Observation:
        """Take one action. What is no admissible command (or no string) is a turn in which nothing happens."""
        if self._done:
            raise RuntimeError("the episode is over: call reset(game) before step(action)")
        valid = action in self._admissible
        state, _, _ = self._env.step(action if isinstance(action, str) else "")
        self._steps += 1
        return self._observe(state, valid)

    def plan(self) -> list[str] | None:
        """Commands of the engine's own planner from here to the goal (not always the fewest); None where it finds none.

        Runs inside Fast Downward, not interruptible: 0.02 s for simple tasks, minutes for some pick_two kitchens.
        """
        if self._env.state["won"]:
            return []
        core = self._env.unwrapped
        return core._pddl_state.replan(core._entity_infos) or None

    def _observe(self, state, valid: bool = True) -> Observation:
        won = bool(state["won"])
        self._admissible = tuple(state["admissible_commands"])
        self._done = won or (self._max_steps is not None and self._steps >= self._max_steps)
        return Observation(
            state.feedback, self._goal, self._admissible, 1.0 if won and self._steps else 0.0, won, self._done,
            self._steps, score=1.0 if won else 0.0, valid=valid,
        )  # fmt: skip
