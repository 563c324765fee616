"""Step-level internal rewards for language agents: the whole study on a laptop, the same code on GPUs.

import sglib
policy = sglib.load_policy("base", env="sokoban")
levels = sglib.panel("sokoban", n=64)
trajectories = sglib.rollout(policy, levels, format="guide")
sglib.inspect(trajectories)
"""

from sglib import advantages, envs, formats, interop, rewards
from sglib.envs.panels import panel
from sglib.experiments import params, runs
from sglib.measure import intervals, power
from sglib.measure.evaluate import Report, evaluate, progress_error, summarize
from sglib.models.policy import Policy, load_policy
from sglib.play.answers import generate
from sglib.play.episode import Fork, Options
from sglib.play.progress_bar import progress_bar
from sglib.play.rollout import rollout
from sglib.records import LABELS, Observation, Trajectory, Turn, read_trajectories, write_trajectories
from sglib.view import figures
from sglib.view.exercises import exercise
from sglib.view.inspect import inspect

__version__ = "0.1.0"

__all__ = [
    "Fork", "LABELS", "Observation", "Options", "Policy", "Report", "Trajectory", "Turn", "advantages", "envs",
    "evaluate", "exercise", "figures", "formats", "generate", "inspect", "interop", "intervals", "load_policy",
    "panel", "params", "power", "progress_bar", "progress_error", "read_trajectories", "rewards", "rollout", "runs",
    "summarize", "write_trajectories",
]  # fmt: skip
