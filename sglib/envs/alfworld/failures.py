"""ALFWorld's ways to fail, seen in recorded episodes."""

from __future__ import annotations

from collections.abc import Sequence

from sglib.records import Trajectory


def took_wrong_object(trajectory: Trajectory) -> bool:
    """Whether a thing of a kind that the task sentence does not name was picked up; slicing needs a knife."""
    named = set(trajectory.goal.split())
    named |= {"knife", "butterknife"} if named & {"slice", "sliced"} else set()
    return any(t.valid and t.action.startswith("take ") and t.action.split()[1] not in named for t in trajectory.turns)


def redundant_visits(trajectory: Trajectory) -> tuple[int, int]:
    """(`go to` actions back to a receptacle already looked into since the last take, move or put (official games say
    "put"), all valid `go to` actions)."""
    seen: set[str] = set()
    again = total = 0
    texts = [turn.observation for turn in trajectory.turns[1:]] + [trajectory.final_observation]
    for turn, answer in zip(trajectory.turns, texts):
        verb, _, rest = turn.action.partition(" ")
        if not turn.valid:
            continue
        if verb in ("take", "move", "put"):
            seen = set()
        elif verb == "go":
            total += 1
            again += rest[3:] in seen
            if not answer.endswith("is closed."):
                seen.add(rest[3:])
        elif verb == "open":
            seen.add(rest)
    return again, total


def wrong_object(trajectories: Sequence[Trajectory]) -> float:
    """Share of episodes that picked up a thing of a kind that the task does not name."""
    return sum(map(took_wrong_object, trajectories)) / len(trajectories)


def redundant(trajectories: Sequence[Trajectory]) -> float:
    """Share of valid `go to` actions that return to a receptacle already looked into with nothing taken or put in
    between."""
    visits = [redundant_visits(t) for t in trajectories]
    return sum(again for again, _ in visits) / max(1, sum(total for _, total in visits))


FAILURES = {"wrong_object": wrong_object, "redundant": redundant}
