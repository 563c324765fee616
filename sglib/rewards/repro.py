"""RePro (arXiv 2606.14302): act while stating progress, then rate each step knowing the outcome.

RePro-PO pays r_t = r_env + r_p + r_align + r_format (`RePro`; r_env is `Outcome`). After an episode the same policy
writes its progress after each action, P_1..P_T (format `retrospect`). How the paper's indices are read is our
decision: turn t begins where action t - 1 led, so the paper's p_t is our P_{t-1}, and P_0 = 0.

    r_p     =  beta  (p_{t+1} - p_t)  =  beta  (P_t - P_{t-1})       the gain of turn t's own action
    r_align = -alpha |p~_t - p_t|     = -alpha |p~_t - P_{t-1}|      p~_t is stated before action t, about that state

Turn 1 gets beta P_1 - alpha p~_1, turn T beta (P_T - P_{T-1}) - alpha |p~_T - P_{T-1}|; r_p sums to beta P_T. The
warmup uses the same indices. Alpha and beta are not public; ours are 0.1 and 1 against a success of 10.

The warmup teaches both abilities; without it a small policy writes no list that can be read. The paper has a large
model annotate a few won episodes; our annotator is the environment's oracle, 1 - d_t / d_0 clipped to [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic.dataclasses import dataclass

from sglib import envs, formats
from sglib.models.policy import Policy
from sglib.play.answers import fill_in, stream_of
from sglib.records import Trajectory, Turn
from sglib.rewards.component import Component, mean
from sglib.rewards.fields import Coefficient, Float, Seed, Share, Temperature

IGNORE = -100  # label of tokens that are not trained on
TERMS = ("progress", "align", "format")


def retrospect(
    policy: Policy,
    trajectories: Sequence[Trajectory],
    *,
    answer: Literal["list", "steps"] = "list",
    temperature: float = 0.0,
    seed: int = 0,
) -> list[list[float] | None]:
    """The policy's progress after each step of finished episodes, in percent; None where it cannot be read.

    It reads the whole episode and the outcome. "list": it then writes one number per step. "steps", OURS: its answer
    repeats the recorded actions, which are given, and it writes the number after each; a small model that cannot
    count thirty numbers can do this. Random numbers follow from `seed` and the episode (`play.answers.stream_of`), not
    from the order or number of episodes.
    """
    asked = [_asked(policy, t, answer) for t in trajectories]
    room = {"list": max(map(len, trajectories), default=0) + 4, "steps": 1}[answer]
    written = fill_in(
        policy, asked, [stream_of(t, seed) for t in trajectories], temperature=temperature,
        end=r"(?!)" if answer == "list" else r"(?<=\d)\s|[^\d\s]",  # nothing; whatever is not part of one number
        max_new_tokens=room * (1 if policy.compact else 4),  # "100 " can be four tokens
    )  # fmt: skip
    return [
        formats.parse_retrospect(" ".join(blanks), len(t))[0] if len(t) else None
        for blanks, t in zip(written, trajectories, strict=True)
    ]


def _asked(policy: Policy, trajectory: Trajectory, answer: str) -> list[list[int]]:
    """Token ids of the retrospection: what is given before each blank; nothing for an empty episode."""
    messages = formats.retrospect_messages(trajectory, policy.compact)
    if answer == "list" or not len(trajectory):
        return [policy.prompt_ids(messages, "Progress:")] if len(trajectory) else []
    given = [f"Action: {turn.action} Progress:" for turn in trajectory.turns]
    return [policy.prompt_ids(messages, given[0]), *(policy.encode(f" {text}") for text in given[1:])]


@dataclass(frozen=True)
class RePro(Component):
    """r_p + r_align + r_format of RePro-PO, as at the top of this file; progress is in 0..1.

    r_format is -format_penalty for each fault: an answer that does not follow the format (on its turn); on the last
    turn, a list that cannot be read, or P_T = 1 after a failure, or P_T < 1 after a success; on the first of several
    turns, P_1 > first_at_most. Without a readable list r_p = r_align = 0, and r_align = 0 where a turn states no
    number; silence saves at most alpha a turn, so keep format_penalty >= alpha.

    Recorded per turn: "repro/progress", "repro/align", "repro/format" (0 where switched off), and P_t in percent as
    "repro/retrospective" if the list was readable.

    Attributes:
        terms: which of "progress" (r_p), "align" and "format" are paid.
        alpha, beta, format_penalty: coefficients, at least 0; ours.
        first_at_most: ours; one action of a shortest plan of two or more gains at most one half.
        answer, temperature, seed: of the retrospection, see `retrospect`; the warmup has the same `answer`.
    """

    terms: tuple[Literal[TERMS], ...] = TERMS
    alpha: Coefficient = 0.1
    beta: Coefficient = 1.0
    format_penalty: Coefficient = 0.1
    first_at_most: Share = 0.5
    answer: Literal["list", "steps"] = "list"
    temperature: Temperature = 0.0
    seed: Seed = 0
    name: Literal["repro"] = "repro"

    apart: ClassVar = True

    def __post_init__(self):
        if not self.terms or len(set(self.terms)) < len(self.terms):
            raise ValueError(f"terms = {self.terms!r}: allowed: at least one, each once")

    @property
    def needs_format(self) -> str | None:
        """The format that writes what is read: `progress`; None (any) where r_p alone is paid."""
        return None if set(self.terms) == {"progress"} else "progress"

    def __call__(self, trajectories: Sequence[Trajectory], policy=None, games=None) -> list[list[float]]:
        """Raises ValueError without a policy, or for a format that lacks p~_t."""
        if policy is None:
            raise ValueError(f"{self.name}: policy=None; allowed: the policy that rates the episodes")
        _check_format(self, trajectories)
        lists = retrospect(policy, trajectories, answer=self.answer, temperature=self.temperature, seed=self.seed)
        return [self._values(t, after) for t, after in zip(trajectories, lists, strict=True)]

    def _values(self, trajectory: Trajectory, after: list[float] | None) -> list[float]:
        """after: P_1..P_T in percent, or None. Records every term."""
        values, last = [], len(trajectory) - 1
        p = None if after is None else [0.0, *(x / 100 for x in after)]  # P_0..P_T
        for t, turn in enumerate(trajectory.turns):  # t counts from 0: the turn leads from p[t] to p[t + 1]
            r, faults = dict.fromkeys(TERMS, 0.0), int(_unreadable(turn))
            turn.rewards.pop(f"{self.name}/retrospective", None)
            if p is not None:
                turn.rewards[f"{self.name}/retrospective"] = after[t]
                r["progress"] = self.beta * (p[t + 1] - p[t])
                if turn.progress is not None:
                    r["align"] -= self.alpha * abs(turn.progress / 100 - p[t])
                faults += t == last and (p[-1] == 1) != trajectory.won
                faults += t == 0 and last > 0 and p[1] > self.first_at_most
            else:
                faults += t == last
            r["format"] -= self.format_penalty * faults
            paid = {term: value if term in self.terms else 0.0 for term, value in r.items()}
            turn.rewards.update({f"{self.name}/{term}": value for term, value in paid.items()})
            values.append(sum(paid.values()))
        return values

    @classmethod
    def signal_values(cls, trajectory: Trajectory, turn: int) -> dict[str, float]:
        """`online`: change of the progress stated before and after the action, in 0..1; `retrospective`: that of the
        progress rated after the episode."""
        turns, found = trajectory.turns, {}
        stated = [t.progress for t in turns[turn : turn + 2]]
        if len(stated) == 2 and None not in stated:
            found["online"] = (stated[1] - stated[0]) / 100
        before, rated = (turns[t].detail("retrospective") if t >= 0 else None for t in (turn - 1, turn))
        if rated is not None:
            found["retrospective"] = (rated - (before or 0.0)) / 100
        return found

    @classmethod
    def calibration(cls, trajectories: Sequence[Trajectory]) -> dict[str, float | None]:
        rated = any(turn.detail("retrospective") is not None for t in trajectories for turn in t.turns)
        return {"retrospective/discrimination": discrimination(trajectories)} if rated else {}

    @classmethod
    def probes(cls, trajectories: Sequence[Trajectory]) -> dict[str, float | None]:
        """progress_inflation: stated minus true progress before each action, in points of 0..100, mean.
        hindsight_inflation: of lost episodes, progress rated after the last action minus the true one, in points."""
        online, hindsight = [], []
        for t in (t for t in trajectories if t.turns and t.progress() is not None):
            truth = [100 * x for x in t.progress()]
            online += [turn.progress - x for turn, x in zip(t.turns, truth) if turn.progress is not None]
            rated = t.turns[-1].detail("retrospective")
            if rated is not None and not t.won:
                hindsight.append(rated - truth[-1])
        return {"progress_inflation": mean(online), "hindsight_inflation": mean(hindsight)}


def discrimination(trajectories: Sequence[Trajectory], name: str = "repro") -> float | None:
    """Intermediate Discrimination: mean retrospective progress (0..100) of intermediate steps of successes minus that
    of failures, as `RePro` recorded it; None where either has none. All steps but the last (its progress is decided by
    the outcome) are intermediate and count the same: ours."""
    key, steps = f"{name}/retrospective", {True: [], False: []}
    for t in trajectories:
        steps[t.won] += [turn.rewards[key] for turn in t.turns[:-1] if key in turn.rewards]
    return float(np.mean(steps[True]) - np.mean(steps[False])) if all(steps.values()) else None


def _unreadable(turn: Turn) -> bool:
    return turn.parse_error is not None or turn.progress is None


def _check_format(component, trajectories: Sequence[Trajectory]):
    needed = component.needs_format
    writing = {needed, *(name for name, of in formats.WRITES_TOO.items() if of == needed)}
    if needed and (other := sorted({t.format for t in trajectories} - writing)):
        raise ValueError(f"{component.name}: got episodes in the format {other[0]!r}; allowed: {needed!r}")


# -- the paper's baselines; "Meta Prompt" is a prompt without a reward: format `progress`, `Outcome` alone ----------


@dataclass(frozen=True)
class _Stated(Component):
    """A reward for what the format `progress` writes; its signal is `RePro`'s."""

    needs_format: ClassVar = "progress"

    @classmethod
    def signal_values(cls, trajectory: Trajectory, turn: int) -> dict[str, float]:
        return {}


@dataclass(frozen=True)
class ProgressFormat(_Stated):
    """The paper's baseline L1, the format penalty alone: -penalty on a turn whose answer does not follow the format."""

    penalty: Float = 0.1
    name: Literal["progress_format"] = "progress_format"

    def __call__(self, trajectories: Sequence[Trajectory], policy=None, games=None) -> list[list[float]]:
        _check_format(self, trajectories)
        return [[-self.penalty if _unreadable(turn) else 0.0 for turn in t.turns] for t in trajectories]


@dataclass(frozen=True)
class ProgressReward(_Stated):
    """The paper's baseline L2, the predicted progress as reward: r_t = beta (p~_{t+1} - p~_t), 0 on the last turn.

    Level or change is left open. We pay the change, on the turn whose action made it: then L2 differs from r_p only in
    when progress is stated, and length alone earns nothing. A turn that states no number keeps the one before (the
    first ones the one after), so that silence hides no fall.
    """

    beta: Float = 1.0
    name: Literal["progress_reward"] = "progress_reward"

    def __call__(self, trajectories: Sequence[Trajectory], policy=None, games=None) -> list[list[float]]:
        _check_format(self, trajectories)
        return [self._values([turn.progress for turn in t.turns]) for t in trajectories]

    def _values(self, stated: list[float | None]) -> list[float]:
        known, filled = next((x for x in stated if x is not None), 0.0), []
        for x in stated:
            known = known if x is None else x
            filled.append(known / 100)
        return [self.beta * (after - before) for before, after in zip(filled, [*filled[1:], *filled[-1:]])]


# -- the data of the warmup -----------------------------------------------------------------------------------------


def annotate(trajectory: Trajectory) -> list[float]:
    """Progress before each action and after the last one, in percent, in steps of ten: T + 1 numbers from the oracle.
    Raises ValueError for a trajectory that was recorded without its distances."""
    return [10.0 * round(p / 10) for p in [0.0, *formats.true_progress(trajectory)]]


def forward_example(policy: Policy, trajectory: Trajectory) -> dict:
    """An episode rewritten so that each answer states the annotated progress before the action (format `progress`).

    Returns {"input_ids": (n,), "labels": (n,)}; labels are IGNORE on everything that the policy does not write, and on
    answers whose action was not admissible (the warmup should not teach those).
    """
    progress, prefix, card = annotate(trajectory), formats.PREFIX["progress"], envs.of(trajectory)
    ids = policy.prompt_ids(formats.opening("progress", card, trajectory.turns[0].observation, policy.compact), prefix)
    labels = [IGNORE] * len(ids)
    for t, turn in enumerate(trajectory.turns):
        if t:
            between = policy.between_ids(card.shown(turn.observation), prefix)
            ids, labels = ids + between, labels + [IGNORE] * len(between)
        text = formats.format_response("progress", turn.action, progress=progress[t]).removeprefix(prefix)
        answer = policy.encode(text) + policy.stop_ids[:1]
        ids, labels = ids + answer, labels + (answer if turn.valid else [IGNORE] * len(answer))
    return {"input_ids": ids, "labels": labels}


def retrospect_example(policy: Policy, trajectory: Trajectory, answer: Literal["list", "steps"] = "list") -> dict:
    """A finished episode, its outcome, and the annotated progress after each step; `answer` as in `retrospect`."""
    numbers = [str(round(p)) for p in annotate(trajectory)[1:]]
    ids, labels = [], []
    for given, text in zip(_asked(policy, trajectory, answer), [" ".join(numbers)] if answer == "list" else numbers):
        written = policy.encode(f" {text}")
        ids, labels = ids + given + written, labels + [IGNORE] * len(given) + written
    return {"input_ids": ids + policy.stop_ids[:1], "labels": labels + policy.stop_ids[:1]}


def warmup_examples(
    policy: Policy, trajectories: list[Trajectory], answer: Literal["list", "steps"] = "list"
) -> list[dict]:
    """Both kinds of example for each *won* episode; `ValueError` where none was won."""
    won = [t for t in trajectories if t.won]
    if not won:
        raise ValueError(f"trajectories: none of {len(trajectories)} was won; play more games or allow more turns")
    return [e for t in won for e in (forward_example(policy, t), retrospect_example(policy, t, answer))]
