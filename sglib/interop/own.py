"""Our own records, JSON lines: what `sglib.write_trajectories` writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sglib.interop import chat
from sglib.records import Trajectory

ABOUT = "sglib's trajectories (write_trajectories)"


def found(rows: Sequence[Mapping]) -> bool:
    return {"game_id", "turns"} <= set(rows[0])


def write(trajectories: Sequence[Trajectory]) -> str:
    """JSON lines, one an episode."""
    return "".join(chat.dump(t.to_dict(), f"episode {number}") + "\n" for number, t in enumerate(trajectories))


def read(rows: Sequence[Mapping]) -> list[Trajectory]:
    """One episode a row."""
    return [Trajectory.from_dict(row) for row in rows]
