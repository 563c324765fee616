"""What a perfect, and what a perfectly careful, agent would do in an environment's state.

`optimal` plans with full knowledge. `explore` knows what the agent has seen: the room's receptacles from the start, and
the content of those that it has looked into; nothing of what is behind closed doors. Both read the present state only,
so they can be asked in any state that any other agent has reached. Their commands are always admissible.
"""

from __future__ import annotations

from sglib.envs.alfworld.oracle import Situation, shortest_plan


def optimal(env) -> str:
    """The first command of a shortest plan with full knowledge; "look" where the goal cannot be reached."""
    return (env.plan() or [env.world.command("look")])[0]


def explore(env) -> str:
    """The first command of a shortest plan from what has been seen, else the way to the next receptacle not yet seen,
    in the order in which the room lists them."""
    world = env.world
    if plan := shortest_plan(known(env)):
        return world.command(*plan[0])
    here = [r for r in world.at.get(env.location, ()) if r not in env.seen]
    for r in here or [r for r in world.receptacles if r not in env.seen]:
        if world.place[r] != env.location:
            return world.command("gotolocation", r)
        shut = r in world.openable and r not in env.opened
        return world.command("openobject" if shut else "examinereceptacle", r)
    return world.command("look")


def known(env) -> Situation:
    """The situation as far as the agent has seen it."""
    s, seen, held = env.situation(), env.seen, env.held
    where = {o: kept for o, rooms in s.where.items() if (kept := tuple(r for r in rooms if r in seen))}
    near = frozenset(pair for pair in s.near if pair[0] in where)
    met = frozenset(f for f in s.met if f[0] != "inreceptacle" or f[2] in seen)
    props = frozenset(pair for pair in s.props if pair[1] in where or pair[1] == held)
    return s._replace(opened=s.opened & seen, where=where, near=near, met=met, props=props)


EXPERTS = {"optimal": optimal, "explore": explore}  # the one that knows most first
