"""What the inspector shows, as plain data: tables, filters, timelines, comparisons, tokens. No HTML here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from sglib.measure.evaluate import is_looping, label_agreement
from sglib.measure.hacking import internal
from sglib.records import Trajectory, Turn
from sglib.rewards.self_guide import LABEL_VALUES

# -- the list ---------------------------------------------------------------------------------------------------------

COLUMNS = {  # column -> what its head says
    "number": "#",
    "run": "run",
    "won": "outcome",
    "task": "task type",
    "goal": "goal",
    "turns": "turns",
    "invalid": "invalid",
    "looping": "loops",
    "disagreement": "labels off",
    "internal": "internal",
    "total": "return",
}


def table(trajectories: Sequence[Trajectory], runs: Sequence[str] | None = None) -> pd.DataFrame:
    """One row an episode, in order; `runs` names the run that each comes from.

    Returns:
        Columns as `COLUMNS`: `won` and `looping` bool, `turns` and `invalid` counts, `disagreement` the share of its
        positive and negative labels that the truth contradicts (NaN where there are none), `internal` what all
        components but the outcome paid, `total` the return (NaN before training); and `score`, `game`, `group`.
    """
    rows = []
    for number, t in enumerate(trajectories):
        agree, counted = label_agreement([t])
        rows.append(
            (
                number, runs[number] if runs else "", t.won, t.task_type, t.goal, len(t),
                sum(not turn.valid for turn in t.turns), bool(t.turns) and is_looping(t),
                1 - agree / counted if counted else np.nan, internal(t),
                np.nan if t.total_return is None else t.total_return, t.score, t.game_id, t.group,
            )
        )  # fmt: skip
    return pd.DataFrame(rows, columns=[*COLUMNS, "score", "game", "group"])


def search_text(trajectory: Trajectory) -> str:
    """Everything that was seen, written and done, in lower case, for text search."""
    parts = [trajectory.goal, trajectory.game_id]
    for turn in trajectory.turns:
        parts += [turn.observation, turn.response, turn.action]
    return "\n".join([*parts, trajectory.final_observation]).lower()


@dataclass(frozen=True)
class Query:
    """Which episodes are listed, and in which order. None, "" and False let all through."""

    run: str = ""
    task: str = ""
    outcome: str = ""  # "won" or "lost"
    shortest: int | None = None  # turns, both ends counted
    longest: int | None = None
    looping: bool = False
    invalid: bool = False  # at least one action did nothing
    disagreeing: bool = False  # the truth contradicts at least half of its labels
    text: str = ""  # found in observations, answers or actions, whatever the case
    sort: str = "number"  # a column of `COLUMNS`; rows without a value come last either way
    descending: bool = False

    def __post_init__(self):
        if self.outcome not in ("", "won", "lost"):
            raise ValueError(f"outcome={self.outcome!r}: allowed: won, lost, or nothing")
        if self.sort not in COLUMNS:
            raise ValueError(f"sort={self.sort!r}: allowed: {', '.join(COLUMNS)}")


def select(rows: pd.DataFrame, query: Query, texts: Callable[[], Sequence[str]] | None = None) -> np.ndarray:
    """Numbers of the episodes that a query lets through, in its order. `rows` are of `table`; `texts`, called only
    where a text is searched, gives `search_text` of every episode."""
    keep = rows["turns"].between(query.shortest or 0, np.inf if query.longest is None else query.longest)
    for column, wanted in (("run", query.run), ("task", query.task)):
        if wanted:
            keep &= rows[column] == wanted
    if query.outcome:
        keep &= rows["won"] == (query.outcome == "won")
    if query.looping:
        keep &= rows["looping"]
    if query.invalid:
        keep &= rows["invalid"] > 0
    if query.disagreeing:
        keep &= rows["disagreement"] >= 0.5
    if query.text and texts is not None:
        keep &= np.array([query.text.lower() in text for text in texts()], dtype=bool)
    chosen = rows[keep].sort_values(query.sort, ascending=not query.descending, kind="stable", na_position="last")
    return chosen["number"].to_numpy()


# -- an episode -------------------------------------------------------------------------------------------------------


@dataclass
class Timeline:
    """One episode's progress, 0..1, before each turn and after the last: T + 1 points, None where unknown."""

    true: list[float | None]  # `Trajectory.progress`; 0 where the goal can no longer be reached
    stated: list[float | None]  # what the policy said before acting, clipped (the last point is None)
    hindsight: list[float | None]  # what it said of the state after the episode (the first is 0 where there is any)
    polarity: list[float | None]  # -1, 0, 1: of the label written at turn t, which rates the state there


def timeline(trajectory: Trajectory) -> Timeline:
    """True progress, stated progress and the labels of the guidance, on one axis."""
    rated = [_share(turn.detail("retrospective")) for turn in trajectory.turns]
    return Timeline(
        trajectory.progress() or [None] * (len(trajectory) + 1),
        [_share(turn.progress) for turn in trajectory.turns] + [None],
        [0.0 if any(x is not None for x in rated) else None, *rated],
        [None if turn.label is None else LABEL_VALUES.get(turn.label) for turn in trajectory.turns] + [None],
    )


def _share(percent: float | None) -> float | None:
    """Percent as 0..1, clipped; None where it is missing or not finite."""
    return None if percent is None or not np.isfinite(percent) else min(1.0, max(0.0, percent / 100))


def turn_rewards(turn: Turn) -> list[tuple[str, float, dict[str, float]]]:
    """(component, what it was worth unweighted, its details), the environment first; details are "<component>/<what>"
    without the component's name, and "weighted" is what entered the return."""
    details: dict[str, dict[str, float]] = defaultdict(dict)
    values: dict[str, float] = {"environment": turn.reward}
    for name, value in turn.rewards.items():
        component, _, what = name.partition("/")
        if what:
            details[component][what] = value
        else:
            values[component] = value
    for component in details:
        values.setdefault(component, details[component].get("weighted", float("nan")))
    return [(name, value, details.get(name, {})) for name, value in values.items()]


# -- several episodes -------------------------------------------------------------------------------------------------


def divergence(a: Trajectory, b: Trajectory) -> int | None:
    """The first turn (from 0) at which the observations or actions of two episodes of one task differ; None where one
    episode is the beginning of the other."""
    for t, (one, two) in enumerate(zip(a.turns, b.turns, strict=False)):
        if (one.observation, one.action) != (two.observation, two.action):
            return t
    return None


def anchors(members: Sequence[Trajectory]) -> dict[str, list[tuple[int, int]]]:
    """Anchor states, observations that several episodes of a group met, where GiGPO compares them: text -> (member,
    turn), in order. The group's first observation is always one."""
    met: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for number, member in enumerate(members):
        for t, turn in enumerate(member.turns):
            met[turn.observation].append((number, t))
    return {text: places for text, places in met.items() if len({member for member, _ in places}) > 1}


class Token(NamedTuple):
    """One token of the sequence that the trainer saw."""

    text: str  # as the tokenizer writes it
    trained: bool  # whether the policy wrote it, so that it was trained on; the fields below are None elsewhere
    turn: int | None = None  # that wrote it, from 0
    advantage: float | None = None  # that turn's
    logprob: float | None = None  # when it was sampled
    ratio: float | None = None  # log-probability under another policy minus `logprob`


def tokens(
    trajectory: Trajectory, decode: Callable[[int], str], logprobs: Sequence[float] | None = None
) -> list[Token]:
    """The exact sequence that the trainer saw; empty where the recording has no tokens. `decode` turns a token id into
    text; `logprobs` (C,) of another policy (`sglib.play.scoring.token_logprobs`) are for the ratio."""
    owner = {i: t for t, turn in enumerate(trajectory.turns) for i in range(*turn.span)}
    found = [Token(decode(i), False) for i in trajectory.prompt_ids]
    for i, (id_, mask, logprob) in enumerate(
        zip(trajectory.completion_ids, trajectory.mask, trajectory.logprobs, strict=True)
    ):
        turn = owner.get(i)
        advantage = trajectory.turns[turn].advantage if turn is not None and mask else None
        ratio = logprobs[i] - logprob if logprobs is not None and mask else None
        found.append(Token(decode(id_), bool(mask), turn, advantage, logprob if mask else None, ratio))
    return found
