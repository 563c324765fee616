"""How well a policy plays: success on a fixed list of games, with an interval, and what goes wrong."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sglib import envs
from sglib.envs.panels import panel_hash
from sglib.formats import true_progress
from sglib.measure.intervals import wilson
from sglib.models.policy import Policy
from sglib.play.episode import Options
from sglib.play.rollout import rollout
from sglib.records import LABELS, Trajectory


@dataclass
class Report:
    """What `evaluate` found. Rates are shares in 0..1.

    Attributes:
        n, wins, success: games, games won, share won.
        low, high: 95 % Wilson interval of `success`.
        by_task: task type -> (wins, games).
        turns: mean actions an episode.
        invalid: share of actions that did nothing.
        looping: share of episodes with one action at least 5 times in a row or in at least half of at least 10 steps.
        score: mean score, 0..1; the same as `success` where a task is won or lost.
        failures: the environment's named ways to fail, share of each (`Environment.failures`).
        parse_errors: name of the parse failure -> count.
        labels: label -> share of turns, empty without guidance.
        agreement: share of positive and negative labels that agree with the oracle (see `label_agreement`), None
            without guidance.
        outcomes: 1 or 0 per game, in order, for paired comparison.
        trajectories: the episodes.
        panel: hash of the games (`sglib.envs.panels.panel_hash`); "" where the games were not at hand.
    """

    n: int
    wins: int
    success: float
    low: float
    high: float
    by_task: dict[str, tuple[int, int]]
    turns: float
    invalid: float
    looping: float
    score: float
    failures: dict[str, float]
    parse_errors: dict[str, int]
    labels: dict[str, float]
    agreement: float | None
    outcomes: list[int] = field(repr=False)
    trajectories: list[Trajectory] = field(repr=False)
    panel: str = ""

    def numbers(self) -> dict:
        """The scalar fields, for a metrics file."""
        names = ("panel", "n", "wins", "success", "score", "low", "high", "turns", "invalid", "looping", "agreement")
        labels = {f"label_{k}": v for k, v in self.labels.items()}
        return {name: getattr(self, name) for name in names} | self.failures | labels


def is_looping(trajectory: Trajectory) -> bool:
    """One action at least five times in a row, or in at least half of the steps (Self-Guide's definition; of ten
    steps or more)."""
    actions = [turn.action for turn in trajectory.turns]
    longest = max((len(list(run)) for _, run in itertools.groupby(actions)), default=0)
    return longest >= 5 or (len(actions) >= 10 and max(Counter(actions).values()) >= len(actions) / 2)


def label_agreement(trajectories: Sequence[Trajectory]) -> tuple[int, int]:
    """(labels that agree with the truth, labels counted). The label of turn t rates the step before it: positive agrees
    where the goal came nearer, negative where it did not; neutral labels and first turns are not counted."""
    agree = counted = 0
    for trajectory in trajectories:
        left = trajectory.remaining() or ()
        for now, before, after in zip(trajectory.turns[1:], left, left[1:]):
            if now.label in ("positive", "negative"):
                counted += 1
                agree += (now.label == "positive") == (after < before)
    return agree, counted


def summarize(trajectories: Sequence[Trajectory]) -> Report:
    """The numbers of `Report` from recorded episodes, at least one."""
    if not trajectories:
        raise ValueError("trajectories: none to summarize")
    turns = [turn for trajectory in trajectories for turn in trajectory.turns]
    outcomes = [int(t.won) for t in trajectories]
    low, high = wilson(sum(outcomes), len(outcomes))
    by_task: dict[str, list[int]] = defaultdict(list)
    for trajectory, won in zip(trajectories, outcomes):
        by_task[trajectory.task_type].append(won)
    labelled = [turn.label for turn in turns if turn.label is not None]
    agree, counted = label_agreement(trajectories)
    n = len(trajectories)
    return Report(
        n=n,
        wins=sum(outcomes),
        success=sum(outcomes) / n,
        low=low,
        high=high,
        by_task={task: (sum(w), len(w)) for task, w in sorted(by_task.items())},
        turns=len(turns) / n,
        invalid=sum(not turn.valid for turn in turns) / max(1, len(turns)),
        looping=sum(map(is_looping, trajectories)) / n,
        score=sum(t.score for t in trajectories) / n,
        failures={name: share(trajectories) for name, share in envs.of(trajectories[0]).failures.items()},
        parse_errors=dict(Counter(turn.parse_error for turn in turns if turn.parse_error)),
        labels={label: labelled.count(label) / len(labelled) for label in LABELS} if labelled else {},
        agreement=agree / counted if counted else None,
        outcomes=outcomes,
        trajectories=list(trajectories),
    )


def evaluate(
    policy: Policy, tasks: Sequence, *, format: str = "act", temperature: float = 0.4, turns: int | None = None,
    seed: int = 0, options: Options | None = None, play: Callable[..., list[Trajectory]] = rollout,
) -> Report:  # fmt: skip
    """Play each task exactly once (arguments as for `sglib.rollout`) and sum up; the result does not depend on the
    order of the tasks, and none may be there twice. `play` is another function with the signature of `rollout`, such as
    `sglib.play.rollout.shared()`."""
    if not tasks:
        raise ValueError("tasks: none to evaluate on")
    panel = panel_hash(tasks)
    played = play(policy, tasks, format=format, temperature=temperature, turns=turns, seed=seed, options=options)
    return dataclasses.replace(summarize(played), panel=panel)


def progress_error(trajectories: Sequence[Trajectory]) -> float | None:
    """Mean |stated - true| progress in points of 0..100, over turns that state a number; None where none does."""
    errors = []
    for trajectory in trajectories:
        truth = [0.0, *true_progress(trajectory)]
        errors += [abs(turn.progress - x) for turn, x in zip(trajectory.turns, truth) if turn.progress is not None]
    return sum(errors) / len(errors) if errors else None
