"""Policies that follow an environment: what a perfect, and what a perfectly careful, agent would do in its state.

`optimal` plans with full knowledge (a planner policy). `explore` knows what the agent has been told: the room's
receptacles from the start, and the content of those that it has seen; nothing behind closed doors. Where that suffices
for a plan it follows the shortest one, else it looks into the next receptacle. Both read the present state only, so
they can be asked in any state that any other agent has reached.
"""

from __future__ import annotations

from typing import Protocol

from sglib.envs.alfworld.oracle import Situation, shortest_plan
from sglib.envs.alfworld.world import World

KINDS = ("explore", "optimal")


class Observed(Protocol):
    """What an expert reads of an environment.

    Attributes:
        world: the room without its state.
        location: where the agent is.
        held: what it holds, None for nothing.
        opened: open receptacles.
        seen: receptacles whose content the agent has been told.
    """

    world: World
    location: str
    held: str | None
    opened: set[str]
    seen: set[str]

    def plan(self) -> list[str] | None: ...

    def situation(self) -> Situation: ...


class Expert(Protocol):
    """A policy bound to an environment."""

    def act(self) -> str:
        """The next command in the environment's present state; always one that is admissible."""
        ...


class Optimal:
    """The first command of a shortest plan with full knowledge; "look" where the goal cannot be reached."""

    def __init__(self, env: Observed):
        self.env = env

    def act(self) -> str:
        plan = self.env.plan()
        return plan[0] if plan else self.env.world.command("look")


class Explore:
    """The first command of a shortest plan from what has been seen, else the way to the next receptacle not yet seen,
    in the order in which the room lists them."""

    def __init__(self, env: Observed):
        self.env = env

    def act(self) -> str:
        env = self.env
        world = env.world
        plan = shortest_plan(self.known())
        if plan:
            return world.command(*plan[0])
        here = [r for r in world.at.get(env.location, ()) if r not in env.seen]
        for r in here or [r for r in world.receptacles if r not in env.seen]:
            if world.place[r] != env.location:
                return world.command("gotolocation", r)
            shut = r in world.openable and r not in env.opened
            return world.command("openobject" if shut else "examinereceptacle", r)
        return world.command("look")

    def known(self) -> Situation:
        """The situation as far as the agent has been told of it."""
        s, seen, held = self.env.situation(), self.env.seen, self.env.held
        where = {o: kept for o, rooms in s.where.items() if (kept := tuple(r for r in rooms if r in seen))}
        near = frozenset(pair for pair in s.near if pair[0] in where)
        met = frozenset(f for f in s.met if f[0] != "inreceptacle" or f[2] in seen)
        props = frozenset(pair for pair in s.props if pair[1] in where or pair[1] == held)
        return s._replace(opened=s.opened & seen, where=where, near=near, met=met, props=props)


def make_expert(env: Observed, kind: str) -> Expert:
    """See `FastAlfworld.expert`."""
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: allowed: {', '.join(map(repr, KINDS))}")
    return Optimal(env) if kind == "optimal" else Explore(env)
