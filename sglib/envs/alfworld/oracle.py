"""Shortest plans with full knowledge, exact: A* over errands (go there, open it, do it).

A goal is a choice of bindings (sets of facts); each is searched alone, the most promising first, so that a question
costs a tenth of a millisecond. The tests compare with exhaustive search and with alfworld's planner.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from sglib.envs.alfworld.world import PROCESSES, Fact, World

Step = tuple[str, ...]  # (action, ids...)


class Situation(NamedTuple):
    """The changeable facts of a state, as a planner needs them.

    Attributes:
        where: object -> receptacles that it is in; objects that are not listed are taken to be nowhere.
        near: (object, place) facts, which slicing asks for.
        props: ("isclean", object) and the like.
        met: the facts of the goal that hold.
    """

    world: World
    location: str
    held: str | None
    opened: frozenset[str]
    where: Mapping[str, tuple[str, ...]]
    near: frozenset[Fact]
    props: frozenset[Fact]
    met: frozenset[Fact]


def shortest_plan(s: Situation) -> list[Step] | None:
    """A plan with the fewest actions from a situation to the goal; [] where it holds, None where it cannot be reached.

    Bindings are searched in the order of their lower bounds, and none that cannot beat the best plan so far.
    """
    if any(s.met.issuperset(binding) for binding in s.world.bindings):
        return []
    best: list[Step] | None = None
    searches = [_Search(s, binding) for binding in s.world.bindings]
    for bound, _, search in sorted((search.at_least(search.start), i, search) for i, search in enumerate(searches)):
        limit = _NEVER if best is None else len(best)
        if bound >= limit:
            break
        best = search.solve(limit) or best
    return best


# -- search ---------------------------------------------------------------------------------------------------------

_NEVER = 10**6


class _State(NamedTuple):
    location: str
    held: str | None
    opened: frozenset[str]
    where: tuple[frozenset[str], ...]  # of `_Search.objects`
    near: frozenset[Fact]
    props: frozenset[Fact]


class _Search:
    """A* to one binding. A move is a whole errand step: go there, open if need be, do it. Closing and walking about are
    never worth an action, and things that the binding does not name are never worth taking."""

    def __init__(self, s: Situation, binding: tuple[Fact, ...]):
        self.s, self.world, self.binding = s, s.world, binding
        world = s.world
        named = {f[2] if f[0] == "holds" else f[1] for f in binding if f[0] != "atlocation"}
        self.slices = {f[1] for f in binding if f[0] == "issliced" and f not in s.met}
        self.knives = world.knives & world.pickupable if self.slices else set()
        objects = named | ({s.held} if s.held else set()) | {k for k in self.knives if s.where.get(k) or k == s.held}
        self.objects = sorted(objects)
        self.index = {o: i for i, o in enumerate(self.objects)}
        self.targets = {(f[1], f[2]) for f in binding if f[0] == "inreceptacle"}
        self.start = _State(
            s.location,
            s.held,
            s.opened,
            tuple(frozenset(r for r in s.where.get(o, ()) if r in world.place) for o in self.objects),
            frozenset(pair for pair in s.near if pair[0] in self.slices),
            frozenset(pair for pair in s.props if pair[1] in objects),
        )

    def holds(self, state: _State, fact: Fact) -> bool:
        kind = fact[0]
        if kind == "inreceptacle":
            if fact[2] not in self.world.place:  # out of reach nothing ever changes
                return fact in self.s.met
            return fact[2] in state.where[self.index[fact[1]]]
        if kind == "holds":
            return state.held == fact[2]
        if kind == "atlocation":
            return state.location == fact[2]
        return fact in state.props

    def at_least(self, state: _State) -> int:
        """A lower bound of the actions still needed: what must be done, and the places and doors that it needs."""
        world, held = self.world, state.held
        actions, take, visits, doors, puts_held, cut = 0, set(), set(), set(), False, False
        for fact in self.binding:
            if self.holds(state, fact):
                continue
            kind, object_ = fact[0], fact[1]
            if kind == "atlocation":
                if fact[2] not in world.at:
                    return _NEVER
                visits.add(fact[2])
                continue
            if kind == "holds":
                object_ = fact[2]
            else:
                actions += 1
            if kind == "inreceptacle":
                if fact[2] not in world.place or object_ not in world.accepts[fact[2]]:
                    return _NEVER
                visits.add(world.place[fact[2]])
                if fact[2] in world.openable and fact[2] not in state.opened:
                    doors.add(fact[2])
                puts_held = puts_held or object_ == held
            elif kind == "istoggled":
                if object_ not in world.toggleable:
                    return _NEVER
                continue
            elif kind == "issliced":
                if object_ not in world.sliceable:
                    return _NEVER
                cut = cut or held not in world.knives
                continue
            elif kind in PROCESSES and (object_ not in world.can_be[PROCESSES[kind][1]] or not world.does[kind]):
                return _NEVER
            if object_ != held:
                take.add(object_)
        for object_ in take:
            sources = state.where[self.index[object_]]
            if object_ not in world.pickupable or not sources:
                return _NEVER
            if len(sources) == 1:
                (source,) = sources
                visits.add(world.place[source])
                if source in world.openable and source not in state.opened:
                    doors.add(source)
        if cut and not take & self.knives:
            actions += 1
        if held is not None and (take or cut) and not puts_held:
            actions += 1
        return actions + len(take) + len(doors) + len(visits - {state.location})

    def solve(self, limit: int) -> list[Step] | None:
        """The shortest plan if it has fewer than `limit` actions, else None."""
        counter = itertools.count()
        queue = [(self.at_least(self.start), next(counter), 0, self.start, None)]
        cheapest = {self.start: 0}
        while queue:
            bound, _, cost, state, path = heapq.heappop(queue)
            if bound >= limit:
                return None
            if cost > cheapest[state]:
                continue
            if all(self.holds(state, fact) for fact in self.binding):
                steps = []
                while path is not None:
                    path, last = path
                    steps[:0] = last
                return steps
            for moves, after in self.moves(state):
                total = cost + len(moves)
                if total < cheapest.get(after, _NEVER):
                    cheapest[after] = total
                    estimate = total + self.at_least(after)
                    if estimate < limit:
                        heapq.heappush(queue, (estimate, next(counter), total, after, (path, moves)))
        return None

    def moves(self, state: _State) -> Iterator[tuple[list[Step], _State]]:
        world, held, todo = self.world, state.held, [f for f in self.binding if not self.holds(state, f)]
        for fact in todo:
            kind, object_ = fact[0], fact[1]
            if kind == "atlocation" and fact[2] in world.at:
                yield [("gotolocation", world.at[fact[2]][0])], state._replace(location=fact[2])
            elif kind == "istoggled":
                for r in sorted(state.where[self.index[object_]]):
                    yield self._do(state, r, ("toggleobject", object_), inside=False, add=fact)
            elif kind in PROCESSES and object_ == held:
                for r in sorted(world.does[kind]):
                    gone = {"ishot": "iscool", "iscool": "ishot"}.get(kind)
                    yield self._do(state, r, (PROCESSES[kind][0], held, r), inside=False, add=fact, remove=(gone, held))
            elif kind == "issliced" and held in world.knives:
                for _, place in sorted(pair for pair in state.near if pair[0] == object_):
                    if place == state.location or place in world.at:
                        steps = [] if place == state.location else [("gotolocation", world.at[place][0])]
                        after = state._replace(location=place, props=state.props | {fact})
                        yield [*steps, ("sliceobject", object_, held)], after
        if held is None:
            for object_, i in self.index.items():
                if object_ in world.pickupable:
                    for r in sorted(state.where[i]):
                        steps, after = self._do(state, r, ("pickupobject", object_, r))
                        near = state.near - {(object_, after.location)}
                        where = self._with(state, i, state.where[i] - {r})
                        yield steps, after._replace(held=object_, where=where, near=near)
            return
        i = self.index[held]
        for r in self._rooms_for(state, todo):
            steps, after = self._do(state, r, ("putobject", held, r))
            near = state.near | {(held, after.location)} if held in self.slices else state.near
            yield steps, after._replace(held=None, where=self._with(state, i, state.where[i] | {r}), near=near)

    @staticmethod
    def _with(state: _State, i: int, receptacles: frozenset[str]) -> tuple[frozenset[str], ...]:
        return (*state.where[:i], receptacles, *state.where[i + 1 :])

    def _do(self, state: _State, receptacle: str, step: Step, inside=True, add=None, remove=None):
        """A step at a receptacle, after those that bring the agent there (and open it); and the state then."""
        place, opened, steps = self.world.place[receptacle], state.opened, []
        if place != state.location:
            steps.append(("gotolocation", receptacle))
        if inside and receptacle in self.world.openable and receptacle not in opened:
            steps.append(("openobject", receptacle))
            opened = opened | {receptacle}
        props = (state.props - {remove}) | {add} if add else state.props
        return [*steps, step], state._replace(location=place, opened=opened, props=props)

    def _rooms_for(self, state: _State, todo: list[Fact]) -> list[str]:
        """Receptacles worth putting the held thing into: where the goal wants it; else, to free the hand, the cheapest
        at each place that the plan may pass, and one anywhere else (those are all alike)."""
        world, held = self.world, state.held
        wanted = {r for o, r in self.targets if o == held}
        stops = {r for rooms in state.where for r in rooms} | {r for _, r in self.targets}
        places = {state.location, *(world.place[r] for r in stops if r in world.place), *(p for _, p in state.near)}
        for fact in todo:
            if fact[0] == "atlocation":
                places.add(fact[2])
            places |= {world.place[r] for r in world.does.get(fact[0], ())}
        chosen, open_elsewhere, shut_elsewhere = [], None, None
        for r in world.receptacles:
            if held not in world.accepts[r]:
                continue
            shut = r in world.openable and r not in state.opened
            if r in wanted or (world.place[r] in places and (not shut or r in stops)):
                chosen.append(r)
            elif not shut:
                open_elsewhere = open_elsewhere or r
            elif world.place[r] in places and not any(world.place[c] == world.place[r] for c in chosen):
                chosen.append(r)
            else:
                shut_elsewhere = shut_elsewhere or r
        elsewhere = open_elsewhere or shut_elsewhere
        return chosen + ([elsewhere] if elsewhere else [])
