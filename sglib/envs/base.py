"""The protocol that every environment speaks. Nothing here knows of TextWorld."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from sglib.records import Observation


@runtime_checkable
class TextEnv(Protocol):
    """An environment that reads and answers text.

    `reset(game)` starts an episode, `step(action)` takes one action. An inadmissible or malformed action is a turn in
    which nothing happens, never an exception. Stepping a finished episode raises `RuntimeError`.
    """

    def reset(self, game) -> Observation: ...

    def step(self, action: str) -> Observation: ...

    def oracle_distance(self) -> int | None:
        """Fewest actions from here to the goal with full knowledge; None where the environment has no oracle."""
        ...
