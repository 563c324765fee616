"""Sokoban: push every box onto a target. `ENVIRONMENT` is its card; levels are generated or read from XSB files."""

from sglib.envs.sokoban.card import ENVIRONMENT, Sokoban
from sglib.envs.sokoban.demonstrators import Habits, demonstrate
from sglib.envs.sokoban.engine import SokobanEnv
from sglib.envs.sokoban.graph import TooLarge
from sglib.envs.sokoban.levels import Level, load_xsb, to_xsb

__all__ = ["ENVIRONMENT", "Habits", "Level", "Sokoban", "SokobanEnv", "TooLarge", "demonstrate", "load_xsb",
           "to_xsb"]  # fmt: skip
