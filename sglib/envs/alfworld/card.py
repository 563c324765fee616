"""ALFWorld's card: everything that the rest of the library asks of it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from sglib.envs import base
from sglib.envs.alfworld import room
from sglib.envs.alfworld.demonstrators import Habits, demonstrate
from sglib.envs.alfworld.experts import EXPERTS
from sglib.envs.alfworld.failures import FAILURES
from sglib.envs.alfworld.fast import FastAlfworld
from sglib.envs.alfworld.games import SPLITS, Game
from sglib.envs.alfworld.generate import generate_games, regenerate
from sglib.envs.alfworld.official import OFFICIAL_SPLITS, official_panel, official_training, read_official
from sglib.envs.alfworld.words import BANNER, PHRASES, RULES, words
from sglib.envs.base import Board, Demonstration, Environment, TextEnv
from sglib.records import Trajectory

ENGINES = ("fast", "textworld")
OFFICIAL = tuple(f"official_{split}" for split in OFFICIAL_SPLITS)
PRETRAINING = base.PRETRAINING | {  # of base, and with seed 1 of base_seed1
    "steps": 1500, "stop": 1000, "transcripts_per_step": 16, "max_turns": 30, "size": 12,
    "with_example": 0.05, "observation_weight": 0.3,
    "habits": {"ordered": 0.7, "noise": 0.3, "impossible": 0.1, "again": 0.3, "wrong_label": 0.3, "wrong_subgoal": 0.1},
}  # fmt: skip

# for ALFWorld's own games: a model that knows small rooms goes on in whole ones. Their long lists teach little more, so
# what is observed weighs little; demonstrators look where most things lie first, and their errors are not imitated
WHOLE_ROOMS = PRETRAINING | {
    "start": "base_strong", "steps": 800, "stop": 800, "transcripts_per_step": 8, "max_turns": 50, "size": 60,
    "formats": {"act": 1.0}, "with_example": 0.0, "observation_weight": 0.02, "muon_lr": 0.01, "adamw_lr": 1e-3,
    "warmup_steps": 20, "habits": {"likely": 1.0, "noise": 0.3, "noise_taught": 0.0, "impossible": 0.05, "again": 0.2,
                                   "wrong_label": 0.0, "wrong_subgoal": 0.0},
}  # fmt: skip

# the same from nothing: to see what lies in sight is learned soonest where a room has few places
SMALL_ROOMS = PRETRAINING | {
    "steps": 2400, "stop": 1200, "max_turns": 20, "size": 6, "formats": {"act": 0.5, "guide": 0.5}, "with_example": 0.0,
    "habits": {"ordered": 0.5, "likely": 0.5, "noise": 0.2, "noise_taught": 0.0, "impossible": 0.05, "again": 0.2,
               "wrong_label": 0.0, "wrong_subgoal": 0.0},
}  # fmt: skip
FROM_NOTHING = WHOLE_ROOMS | {"start": "small_rooms"}


class Alfworld(Environment):
    """Household tasks in text. `size`: most receptacles of a generated room, 4..60 (a whole room has up to 54); or
    "official", ALFWorld's own games from the user's copy: its training games to train on, and both validation sets as
    one panel (140 seen, then 134 unseen), whatever the split."""

    name = "alfworld"
    revision = 1
    splits = SPLITS
    panels = OFFICIAL
    size = 12
    turns = 30
    answer_tokens = 12
    rules = RULES
    banner = BANNER
    experts = tuple(EXPERTS)
    answers = ("facts",)
    pretraining = PRETRAINING
    further_pretraining = {"whole_rooms": WHOLE_ROOMS, "small_rooms": SMALL_ROOMS, "from_nothing": FROM_NOTHING}
    failures = FAILURES
    keeps_unnamed = True

    def tasks(self, n: int, *, seed: int = 0, split: str = "train", size: Any = None, start: int = 0) -> list[Game]:
        """See `generate_games` and `official_training`."""
        size = self.size if size is None else size
        if size == "official":
            if split != self.splits[0]:
                raise ValueError(f"split={split!r}: allowed with size='official': {self.splits[0]}")
            return official_training(n, seed, start) if n else []
        if isinstance(size, bool) or not isinstance(size, int) or not 4 <= size <= 60:
            raise ValueError(f"size={size!r}: allowed for {self.name}: a number of receptacles, 4 to 60, or 'official'")
        return generate_games(n, seed=seed, split=split, max_receptacles=size, start=start)

    def panel(self, n: int, split: str, size: Any = None) -> list[Game]:
        """The official panels are ALFWorld's own games, from the user's copy (`official.official_folder`)."""
        if split in OFFICIAL:
            return read_official(split.removeprefix("official_"), n=n)
        if size == "official":
            return [game for each in OFFICIAL_SPLITS for game in official_panel(each)][:n]
        return super().panel(n, split, size)

    def make(self, *, max_steps: int | None = None, admissible: bool = True, engine: str = "fast") -> TextEnv:
        """`engine`: "fast" (pure Python) or "textworld" (the reference; about 20 steps a second)."""
        if engine not in ENGINES:
            raise ValueError(f"engine={engine!r}: allowed: {', '.join(map(repr, ENGINES))}")
        if engine == "textworld":
            # imported here: TextWorld pulls in a grammar compiler and a planner that the fast engine never needs
            from sglib.envs.alfworld.textworld import TextWorldAlfworld

            return TextWorldAlfworld(max_steps=max_steps)
        return FastAlfworld(max_steps=max_steps, admissible=admissible)

    def remake(self, id: str, origin: dict) -> Game:
        return regenerate(id, origin)

    def board(self, trajectory: Trajectory, turn: int) -> Board | None:
        return room.board(trajectory, turn)

    def vocabulary(self) -> tuple[Sequence[str], Sequence[str]]:
        return PHRASES, words()

    def demonstrate(
        self, env: TextEnv, task: Game, rng: random.Random, habits: Mapping[str, float], max_turns: int
    ) -> tuple[list[Demonstration], bool]:
        return demonstrate(env, task, rng, Habits(**habits), max_turns)


ENVIRONMENT = Alfworld()
