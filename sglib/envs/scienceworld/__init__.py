"""ScienceWorld: science tasks of primary school in a simulated building. `ENVIRONMENT` is its card; the simulator is
that of the package `scienceworld` (the extra `sglib[scienceworld]`), which needs Java."""

from sglib.envs.scienceworld.card import ENVIRONMENT, ScienceWorld
from sglib.envs.scienceworld.demonstrators import Habits, demonstrate
from sglib.envs.scienceworld.engine import ScienceWorldEnv
from sglib.envs.scienceworld.variations import SHORT, TASKS, Variation

__all__ = ["ENVIRONMENT", "Habits", "SHORT", "ScienceWorld", "ScienceWorldEnv", "TASKS", "Variation",
           "demonstrate"]  # fmt: skip
