"""Per-turn rewards: one paper, one file, each a `Component`, so that papers can be mixed.

A file says everything about its reward: what it pays, what it needs, its signals, its probes for reward hacking and
what the inspector shows. A new one is a file and an entry in `COMPONENTS`.
"""

from sglib.rewards.component import Component
from sglib.rewards.controls import ConstantReward, OraclePotential, RandomReward
from sglib.rewards.igpo import InformationGain
from sglib.rewards.mix import check_environment, combine
from sglib.rewards.outcome import Outcome
from sglib.rewards.repro import ProgressFormat, ProgressReward, RePro, discrimination
from sglib.rewards.schedule import Constant, Schedule, Trapezoid, make_schedule
from sglib.rewards.self_guide import SelfGuide
from sglib.rewards.step_agent import InverseReward

__all__ = [
    "COMPONENTS", "Component", "Constant", "ConstantReward", "InformationGain", "InverseReward", "OraclePotential",
    "Outcome", "ProgressFormat", "ProgressReward", "RandomReward", "RePro", "Schedule", "SelfGuide", "Trapezoid",
    "check_environment", "combine", "discrimination", "make_schedule",
]  # fmt: skip

# what a recipe can name
COMPONENTS: dict[str, type[Component]] = {
    cls.name: cls
    for cls in (
        Outcome, SelfGuide, RePro, ProgressFormat, ProgressReward, InformationGain, InverseReward, OraclePotential,
        RandomReward, ConstantReward,
    )
}  # fmt: skip
