"""Step-level internal rewards for language agents: the whole study on a laptop, the same code on GPUs.

import sglib
policy = sglib.load_policy("base")
games = sglib.envs.alfworld.generate_games(64, seed=0)
trajectories = sglib.rollout(policy, games, format="guide", max_turns=30)
sglib.inspect(trajectories)
"""

from sglib import advantages, envs, formats, params, rewards, runs, stats
from sglib.evaluate import Report, evaluate, progress_error, replay_on_reference, summarize
from sglib.generation import generate
from sglib.panels import panel
from sglib.policy import Policy, load_policy
from sglib.progress_bar import progress_bar
from sglib.records import LABELS, Observation, Trajectory, Turn, read_trajectories, write_trajectories
from sglib.rollout import rollout
from sglib.view import figures
from sglib.view.inspect import inspect

__version__ = "0.1.0"

__all__ = [
    "LABELS",
    "Observation",
    "Policy",
    "Report",
    "Trajectory",
    "Turn",
    "advantages",
    "envs",
    "evaluate",
    "figures",
    "formats",
    "generate",
    "inspect",
    "load_policy",
    "panel",
    "params",
    "progress_bar",
    "progress_error",
    "read_trajectories",
    "replay_on_reference",
    "rewards",
    "rollout",
    "runs",
    "stats",
    "summarize",
    "write_trajectories",
]
