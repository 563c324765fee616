"""ALFWorld: games and engines. `textworld` is the reference engine, `fast` the one to learn with."""

from sglib.envs.alfworld.fast import FastAlfworld
from sglib.envs.alfworld.games import SPLITS, TASK_TYPES, UNSEEN_SCENES, Game
from sglib.envs.alfworld.generate import generate_games, regenerate
from sglib.envs.alfworld.grammar import UnsupportedGame
from sglib.envs.alfworld.official import official_panel
from sglib.envs.alfworld.trials import from_alfred_trials, load_games

__all__ = [
    "SPLITS", "TASK_TYPES", "UNSEEN_SCENES", "FastAlfworld", "Game", "UnsupportedGame", "from_alfred_trials",
    "generate_games", "load_games", "official_panel", "regenerate",
]  # fmt: skip
