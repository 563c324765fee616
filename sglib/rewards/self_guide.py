"""Self-Guide's internal reward: the policy's own rating of its progress (arXiv 2604.03098, r_t = g(z_t), Eq 6).

z_t is written before a_t and rates the prefix that ends with o_t, so it pays for what a_{t-1} did. At t = 1 there is
nothing to rate, and nothing rates the last action. The paper leaves both ends open; our choice is 0 for t = 1 and no
extra generation after the last action.

Who writes the labels that are paid is the paper's actor itself, or one of ours:

| | the actor sees its guidance (format `guide`) | `hidden`: it does not (any other format) |
|---|---|---|
| rated by the policy | its own labels, as published | a side reading by the same policy |
| rated by `frozen` | a side reading by an earlier policy | a side reading by an earlier policy |

A side reading (`sglib.play.answers.rate`) goes through the recorded episode in the format `guide`, with the rater's own
guidance and the recorded actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass

from sglib.models.policy import Policy, load_frozen
from sglib.play.answers import rate
from sglib.records import Trajectory
from sglib.rewards.component import Component, mean
from sglib.rewards.fields import Flag, Float, Seed, Temperature, Text
from sglib.rewards.schedule import Schedule, Trapezoid

LABEL_VALUES = {"negative": -1.0, "neutral": 0.0, "positive": 1.0}  # a label as a signal


@dataclass(frozen=True)
class SelfGuide(Component):
    """r_t = g(z_t): `positive`, `neutral` or `negative`; 0 at turn 1 and where no label could be read.

    A turn whose label was read but whose action was not (`parse_error` set, `label` set) keeps its rating.

    Attributes:
        weight, schedule: 1 and the default in the paper.
        positive, neutral, negative: g; +0.1, 0 and -0.1 in the paper.
        length_normalized: our variant, not in the paper: divide each value by T - 1, the number of turns that can be
            rated, so that a long episode full of "positive" earns no more than a short one.
        credit: "writer", as in the paper, puts g(z_t) on turn t, which wrote it. OURS: "rated" puts g(z_{t+1}) on turn
            t, whose action it rates, and 0 on the last turn: the same sum, another step-level advantage.
        hidden: OURS: pay for labels of a side reading that the actor never sees.
        frozen: OURS: the rater is this policy (a model of the episodes' environment, or a folder), loaded at first use.
        temperature, seed: of the side reading (refused where there is none); 1 as guidance is sampled in a rollout.
    """

    schedule: Schedule = Trapezoid()
    positive: Float = 0.1
    neutral: Float = 0.0
    negative: Float = -0.1
    length_normalized: Flag = False
    credit: Literal["writer", "rated"] = "writer"
    hidden: Flag = False
    frozen: Text | None = None
    temperature: Temperature = 1.0
    seed: Seed = 0
    name: Literal["self_guide"] = "self_guide"

    inflation: ClassVar = (
        "inflated labels", "label_positive", "calibration/label/auroc",
        "share of positive labels, while their AUROC for the truth fell",
    )  # fmt: skip

    def __post_init__(self):
        if not (self.hidden or self.frozen) and (self.temperature, self.seed) != (1.0, 0):
            got = f"temperature: got {self.temperature!r}, seed: {self.seed!r}"
            raise ValueError(f"{got}; allowed: only with hidden or frozen, since there is no side reading otherwise")

    @property
    def needs_format(self) -> str | None:
        """The format that writes the labels; None (any but `guide`) where a side reading is hidden from the actor."""
        return None if self.hidden else "guide"

    @property
    def apart(self) -> bool:
        return bool(self.hidden or self.frozen)  # else there is nothing to read

    def useless(self, format: str, estimator: str) -> str | None:
        if self.hidden and format == "guide":
            return f"format = 'guide': {self.name}: hidden needs an actor that writes none"
        if self.credit == "rated" and estimator == "grpo":
            return f"{self.name}: credit = 'rated' does nothing with advantage kind 'grpo', a sum over turns"
        return super().useless(format, estimator)

    def __call__(self, trajectories: Sequence[Trajectory], policy=None, games=None) -> list[list[float]]:
        """A side reading records g of its labels as "self_guide/label" (no entry where none could be read) and fills in
        `turn.label` where the actor wrote none. Raises ValueError: hidden, and an episode in the format `guide` or no
        policy."""
        g = {"positive": self.positive, "neutral": self.neutral, "negative": self.negative}
        values = []
        for trajectory, labels in zip(trajectories, self._labels(trajectories, policy), strict=True):
            if self.hidden or self.frozen:
                for turn, label in zip(trajectory.turns, labels, strict=True):
                    turn.rewards.pop(f"{self.name}/label", None)
                    if label is not None:
                        turn.rewards[f"{self.name}/label"] = g[label]
                        turn.label = turn.label or label
            scale = max(len(trajectory) - 1, 1) if self.length_normalized else 1
            rated, rest = [g.get(label, 0.0) / scale for label in labels[1:]], [0.0] * min(len(trajectory), 1)
            values.append(rest + rated if self.credit == "writer" else rated + rest)
        return values

    def _labels(self, trajectories: Sequence[Trajectory], policy: Policy | None) -> list[list[str | None]]:
        if self.hidden and any(t.format == "guide" for t in trajectories):
            raise ValueError("hidden: got episodes in the format 'guide'; allowed: formats without guidance, as 'act'")
        if not (self.hidden or self.frozen) or not trajectories:
            return [[turn.label for turn in t.turns] for t in trajectories]
        if self.frozen:
            policy = load_frozen(self.frozen, trajectories, policy)
        if policy is None:
            raise ValueError("hidden: policy=None; allowed: the policy that rates, or frozen")
        return rate(policy, trajectories, temperature=self.temperature, seed=self.seed)

    @classmethod
    def signal_values(cls, trajectory: Trajectory, turn: int) -> dict[str, float]:
        """`label`, written at the next turn, and `rater`, what a side reading's label is worth there."""
        found = {}
        for after in trajectory.turns[turn + 1 : turn + 2]:
            if after.label is not None:
                found["label"] = LABEL_VALUES[after.label]
            if f"{cls.name}/label" in after.rewards:
                found["rater"] = after.rewards[f"{cls.name}/label"]
        return found

    @classmethod
    def probes(cls, trajectories: Sequence[Trajectory]) -> dict[str, float | None]:
        """always_positive: share of episodes in which at least 9 of 10 labels are positive (three labels or more)."""
        labels = [[turn.label for turn in t.turns[1:] if turn.label is not None] for t in trajectories]
        return {"always_positive": mean(of.count("positive") >= 0.9 * len(of) for of in labels if len(of) >= 3)}
