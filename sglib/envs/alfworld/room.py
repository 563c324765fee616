"""The room as the agent can know it, for people: receptacles, what was seen in them, what is carried. Read from the
episode's texts alone."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sglib.envs.base import Board, Box
from sglib.records import Trajectory

# Names are short and texts are cut: a hostile text would keep a pattern without bounds busy for minutes.
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


@dataclass(slots=True)
class _Place:
    things: list[str] | None = None  # None before the first look
    closed: bool = False


def _things(text: str) -> list[str]:
    """ "a mug 1, a pen 2, and nothing" -> ["mug 1", "pen 2"]."""
    words = re.split(r", and |, | and ", text.strip())
    return [re.sub(r"^(?:an?|the) ", "", word.strip()) for word in words if word.strip() not in ("", "nothing")]


def board(trajectory: Trajectory, turn: int) -> Board | None:
    """The room before the action of `turn` (T for the end). Texts in another wording give None; nothing is guessed."""
    places: dict[str, _Place] = {}
    carried: list[str] = []
    here = None
    texts = [t.observation for t in trajectory.turns] + [trajectory.final_observation]
    for t, text in enumerate(text[:LONGEST] for text in texts[: turn + 1]):
        if match := _AROUND.search(text):
            for name in _things(match[1]):
                places.setdefault(name, _Place())
        action = trajectory.turns[t - 1].action if t else ""
        arrived = _AT.search(text)
        target = arrived[1] if arrived else action.removeprefix("go to ") if action.startswith("go to ") else None
        if target in places and not text.startswith("Nothing happens"):
            here = target
        for on, things, inside, within in _SEEN.findall(text):
            place = places.setdefault(on or inside, _Place())
            place.things, place.closed = _things(things or within), False
        for one, two in _CLOSED.findall(text):
            places.setdefault(one or two, _Place()).closed = True
        for thing, name in _TAKEN.findall(text):
            carried.append(thing)
            if name in places and thing in (places[name].things or ()):
                places[name].things.remove(thing)
        for one, two, name in _MOVED.findall(text):
            if (one or two) in carried:
                carried.remove(one or two)
            place = places.setdefault(name, _Place())
            place.things = [*(place.things or []), one or two]
    boxes = [Box(name, at.things, "closed" if at.closed else "", name == here) for name, at in places.items()]
    return Board(f"carries: {', '.join(carried) or 'nothing'}", boxes=boxes) if boxes else None
