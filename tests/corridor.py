"""A toy environment in one file, for tests: walk east to the end of a corridor."""

from __future__ import annotations

from dataclasses import dataclass

from sglib.envs.base import Board, Environment
from sglib.records import Observation

MOVES = {"go to east": 1, "go to west": -1}


@dataclass(frozen=True)
class Corridor:
    id: str
    length: int
    env: str = __file__
    task_type: str = "corridor"
    goal: str = "go to east"

    @property
    def origin(self) -> dict:
        return {"length": self.length}

    def content(self) -> list:
        return [self.length]


class Walk:
    def __init__(self, max_steps: int | None):
        self.max_steps = max_steps

    def reset(self, task: Corridor) -> Observation:
        self.length, self.place, self.steps = task.length, 0, 0
        return self.observe(True)

    def step(self, action: str) -> Observation:
        moved = min(self.length, max(0, self.place + MOVES.get(action, 0)))
        self.place, self.steps, valid = moved, self.steps + 1, moved != self.place
        return self.observe(valid)

    def observe(self, valid: bool) -> Observation:
        won = self.place == self.length
        done = won or self.steps == self.max_steps
        text = f"You arrive at desk {self.place}."
        return Observation(text, "go to east", tuple(MOVES), float(won), won, done, self.steps, {}, float(won), valid)

    def distance(self) -> int:
        return self.length - self.place

    def plan(self) -> list[str]:
        return ["go to east"] * self.distance()


class CorridorCard(Environment):
    name, turns, rules = "corridor", 6, "You are in a corridor. Commands: go to east | go to west."

    def tasks(self, n, *, seed=0, split="train", size=None, start=0):
        return [Corridor(f"{split}-{seed}-{i}", 2 + i % 3) for i in range(start, start + n)]

    def make(self, *, max_steps=None, admissible=True):
        return Walk(max_steps)

    def remake(self, id, origin):
        return Corridor(id, **origin)

    def board(self, trajectory, turn):
        return Board(text=f"<place {turn}>")


ENVIRONMENT = CorridorCard()
