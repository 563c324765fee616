"""ALFWorld: games and engines. `textworld` is the reference engine, `fast` the one to learn with."""

from sglib.envs.alfworld_fast import FastAlfworld, Snapshot, replay
from sglib.envs.alfworld_games import SPLITS, TASK_TYPES, UNSEEN_SCENES, Game
from sglib.envs.alfworld_generate import game_of, generate_games, regenerate
from sglib.envs.alfworld_grammar import UnsupportedGame
from sglib.envs.alfworld_official import official_panel
from sglib.envs.alfworld_trials import from_alfred_trials, load_games

__all__ = [
    "SPLITS",
    "TASK_TYPES",
    "UNSEEN_SCENES",
    "FastAlfworld",
    "Game",
    "Snapshot",
    "UnsupportedGame",
    "from_alfred_trials",
    "game_of",
    "generate_games",
    "load_games",
    "official_panel",
    "regenerate",
    "replay",
]
