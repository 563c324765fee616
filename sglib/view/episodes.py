"""What the inspector shows, as plain data: tables, filters, timelines, rooms, alignments, tokens. No HTML here."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from sglib.measure.evaluate import is_looping, label_agreement
from sglib.measure.hacking import internal
from sglib.measure.truth import LABEL_VALUES
from sglib.records import Trajectory, Turn

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
    """One row an episode, in order.

    Args:
        trajectories: N episodes.
        runs: name of the run that each comes from; None leaves it empty.

    Returns:
        Columns as `COLUMNS`: `won` and `looping` bool, `turns` and `invalid` counts, `disagreement` the share of its
        positive and negative labels that the oracle contradicts (NaN where there are none), `internal` what all
        components but the outcome paid, `total` the return (NaN before training); and `game`, `group`.
    """
    rows = []
    for number, t in enumerate(trajectories):
        agree, counted = label_agreement([t])
        rows.append(
            (
                number, runs[number] if runs else "", t.won, t.task_type, t.goal, len(t),
                sum(not turn.valid for turn in t.turns), bool(t.turns) and is_looping(t),
                1 - agree / counted if counted else np.nan, internal(t),
                np.nan if t.total_return is None else t.total_return, t.game_id, t.group,
            )
        )  # fmt: skip
    return pd.DataFrame(rows, columns=[*COLUMNS, "game", "group"])


def search_text(trajectory: Trajectory) -> str:
    """Everything that was seen, written and done, in lower case, for text search."""
    parts = [trajectory.goal, trajectory.game_id]
    for turn in trajectory.turns:
        parts += [turn.observation, turn.response, turn.action]
    return "\n".join([*parts, trajectory.final_observation]).lower()


@dataclass(frozen=True)
class Query:
    """Which episodes are listed, and in which order. None and "" let all through.

    Attributes:
        run, task: exactly these.
        outcome: "won" or "lost".
        shortest, longest: turns, both ends counted.
        looping, invalid, disagreeing: only episodes that loop, with an inadmissible action, with at least half of
            their labels contradicted by the oracle.
        text: found in observations, answers or actions, whatever the case.
        sort: a column of `COLUMNS`; descending: the largest first. Rows without a value come last either way.
    """

    run: str = ""
    task: str = ""
    outcome: str = ""
    shortest: int | None = None
    longest: int | None = None
    looping: bool = False
    invalid: bool = False
    disagreeing: bool = False
    text: str = ""
    sort: str = "number"
    descending: bool = False

    def __post_init__(self):
        if self.outcome not in ("", "won", "lost"):
            raise ValueError(f"outcome={self.outcome!r}: allowed: won, lost, or nothing")
        if self.sort not in COLUMNS:
            raise ValueError(f"sort={self.sort!r}: allowed: {', '.join(COLUMNS)}")


def select(rows: pd.DataFrame, query: Query, texts: Callable[[], Sequence[str]] | None = None) -> np.ndarray:
    """Numbers of the episodes that a query lets through, in its order.

    Args:
        rows: of `table`.
        texts: gives `search_text` of every episode; called only where a text is searched.
    """
    keep = np.ones(len(rows), dtype=bool)
    for column, wanted in (("run", query.run), ("task", query.task)):
        if wanted:
            keep &= (rows[column] == wanted).to_numpy()
    if query.outcome:
        keep &= rows["won"].to_numpy() == (query.outcome == "won")
    if query.shortest is not None:
        keep &= rows["turns"].to_numpy() >= query.shortest
    if query.longest is not None:
        keep &= rows["turns"].to_numpy() <= query.longest
    if query.looping:
        keep &= rows["looping"].to_numpy()
    if query.invalid:
        keep &= rows["invalid"].to_numpy() > 0
    if query.disagreeing:
        keep &= rows["disagreement"].to_numpy() >= 0.5
    if query.text and texts is not None:
        wanted = query.text.lower()
        keep &= np.array([wanted in text for text in texts()], dtype=bool)
    chosen = rows[keep].sort_values(query.sort, ascending=not query.descending, kind="stable", na_position="last")
    return chosen["number"].to_numpy()


# -- an episode -------------------------------------------------------------------------------------------------------


@dataclass
class Timeline:
    """One episode's progress, point t before turn t (from 0) and one behind the last: T + 1 points, None where unknown.

    Attributes:
        true: 1 - d_t / d_0 by the oracle, clipped to 0..1.
        stated: what the policy said before acting, clipped to 0..1 (the last point is None).
        hindsight: what it said afterwards of the state, 0..1 (the first point is 0 where there is any).
        polarity: of the label written at turn t: -1, 0, 1; it speaks of the state at t (the last point is None).
    """

    true: list[float | None]
    stated: list[float | None]
    hindsight: list[float | None]
    polarity: list[float | None]


def timeline(trajectory: Trajectory) -> Timeline:
    """Progress as it was, as it was claimed, and what the guidance said of it, on one axis."""
    first = trajectory.distances[0] if trajectory.distances else None
    true = [
        None if d is None or first is None else min(1.0, max(0.0, 1 - d / max(first, 1))) for d in trajectory.distances
    ]
    rated = [_share(turn.detail("retrospective")) for turn in trajectory.turns]
    return Timeline(
        true,
        [_share(turn.progress) for turn in trajectory.turns] + [None],
        [0.0 if any(x is not None for x in rated) else None, *rated],
        [None if turn.label is None else LABEL_VALUES.get(turn.label) for turn in trajectory.turns] + [None],
    )


def _share(percent: float | None) -> float | None:
    """Percent as 0..1, clipped; None for none and for what is no number."""
    return None if percent is None or not np.isfinite(percent) else min(1.0, max(0.0, percent / 100))


@dataclass
class Place:
    """A receptacle as the agent knows it: things seen in it at the last look, None before the first."""

    name: str
    things: list[str] | None = None
    closed: bool = False
    here: bool = False


@dataclass
class Room:
    """What the agent has seen of the room, and what it carries."""

    places: dict[str, Place] = field(default_factory=dict)
    carried: list[str] = field(default_factory=list)


# Names are short and texts are cut: what a hostile text could make of a pattern without bounds takes minutes.
LONGEST = 4000
_NAME, _LIST = r"[^,.]{1,60}", r"[^.]{0,2000}"
_SEEN = re.compile(
    rf"(?:On the|In the) ({_NAME}), you see ({_LIST})\.|The ({_NAME}) is open\. In it, you see ({_LIST})\."
)
_AROUND = re.compile(rf"around you, you see ({_LIST})\.")
_CLOSED = re.compile(rf"(?:^|\. )The ({_NAME}) is closed\.|You close the ({_NAME})\.")
_AT = re.compile(rf"You arrive at ({_NAME})\.")
_TAKEN = re.compile(rf"You (?:pick up|take) the ({_NAME}?) from the ({_NAME})\.")
_MOVED = re.compile(rf"You (?:move the ({_NAME}?) to|put the ({_NAME}?) in/on) the ({_NAME})\.")


def _things(text: str) -> list[str]:
    """ "a mug 1, a pen 2, and nothing" -> ["mug 1", "pen 2"]."""
    words = re.split(r", and |, | and ", text.strip())
    return [re.sub(r"^(?:an?|the) ", "", word.strip()) for word in words if word.strip() not in ("", "nothing")]


def room(trajectory: Trajectory, turn: int) -> Room:
    """The room as the agent knows it before it acts at `turn` (T for the end), read from the texts alone.

    Texts in another wording leave the map empty; nothing is guessed.
    """
    found = Room()
    texts = [t.observation for t in trajectory.turns] + [trajectory.final_observation]
    for t, text in enumerate(text[:LONGEST] for text in texts[: turn + 1]):
        if match := _AROUND.search(text):
            for name in _things(match[1]):
                found.places.setdefault(name, Place(name))
        action = trajectory.turns[t - 1].action if t else ""
        arrived = _AT.search(text)
        target = arrived[1] if arrived else action.removeprefix("go to ") if action.startswith("go to ") else None
        if target in found.places and not text.startswith("Nothing happens"):
            for place in found.places.values():
                place.here = place.name == target
        for on, things, inside, within in _SEEN.findall(text):
            place = found.places.setdefault(on or inside, Place(on or inside))
            place.things, place.closed = _things(things or within), False
        for one, two in _CLOSED.findall(text):
            found.places.setdefault(one or two, Place(one or two)).closed = True
        for thing, place in _TAKEN.findall(text):
            found.carried.append(thing)
            known = found.places.get(place)
            if known is not None and known.things is not None and thing in known.things:
                known.things.remove(thing)
        for one, two, place in _MOVED.findall(text):
            thing = one or two
            if thing in found.carried:
                found.carried.remove(thing)
            known = found.places.setdefault(place, Place(place))
            known.things = [*(known.things or []), thing]
    return found


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
    """The first turn (from 0) at which two episodes of one game saw or did something different; None if one is the
    beginning of the other or they are the same."""
    for t, (one, two) in enumerate(zip(a.turns, b.turns, strict=False)):
        if (one.observation, one.action) != (two.observation, two.action):
            return t
    return None


def anchors(members: Sequence[Trajectory]) -> Mapping[str, list[tuple[int, int]]]:
    """Observations that several of a group's episodes met, where GiGPO can compare them: text -> (member, turn) in
    order of first meeting. The group's own first observation is one of them."""
    met: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for number, member in enumerate(members):
        for t, turn in enumerate(member.turns):
            met[turn.observation].append((number, t))
    return {text: places for text, places in met.items() if len({member for member, _ in places}) > 1}


@dataclass(frozen=True)
class Token:
    """One token of the sequence that the trainer saw.

    Attributes:
        text: as the tokenizer writes it.
        trained: whether the policy wrote it, so that it was trained on.
        turn: the turn (from 0) that wrote it, None elsewhere.
        advantage: that turn's, None where it was not trained on.
        logprob: when it was sampled, None elsewhere.
        ratio: log of its probability under another policy over that when it was sampled, None elsewhere.
    """

    text: str
    trained: bool
    turn: int | None
    advantage: float | None
    logprob: float | None
    ratio: float | None = None


def tokens(
    trajectory: Trajectory, decode: Callable[[int], str], logprobs: Sequence[float] | None = None
) -> list[Token]:
    """The exact sequence that the trainer saw; empty where the recording has no tokens.

    Args:
        decode: token id -> text.
        logprobs: (C,) of another policy (`sglib.play.scoring.token_logprobs`), for the ratio.
    """
    owner = {i: t for t, turn in enumerate(trajectory.turns) for i in range(*turn.span)}
    found = [Token(decode(i), False, None, None, None) for i in trajectory.prompt_ids]
    for i, (id_, mask, logprob) in enumerate(
        zip(trajectory.completion_ids, trajectory.mask, trajectory.logprobs, strict=True)
    ):
        turn = owner.get(i)
        advantage = trajectory.turns[turn].advantage if turn is not None and mask else None
        ratio = logprobs[i] - logprob if logprobs is not None and mask else None
        found.append(Token(decode(id_), bool(mask), turn, advantage, logprob if mask else None, ratio))
    return found
