"""ALFWorld in pure Python: the same `game.tw-pddl`, the same text, admissible commands and outcome, at the speed of
learning. The reference is TextWorld's `PddlEnv` (`textworld.py`); `tests/test_engine_parity.py` plays both in
lock-step, and `make parity` does so at scale. What looks odd below is the reference's behaviour, found by reading and
playing it:

- names are counted down per class over the sorted ids ("cabinet 4" comes first), and lists follow the sorted ids: the
  reference sorts the facts that it goes through, so nothing depends on a hash seed and nothing is normalised here;
- `examine <object>` works only for what is held: the domain's other clause quantifies over a type "location,";
- `look` in the middle of the room sees nothing, the introduction sees every receptacle;
- a thing moved between two receptacles at one place is also seen "next to" the first of them;
- official files put things into two receptacles at once (a mug on the countertop and in its coffee machine): taken from
  one, it is still seen in the other, and can be taken there again after it was put down;
- `use` on a lamp always says that it is turned on: `isToggled` never becomes false.
"""

from __future__ import annotations

import functools
from bisect import bisect
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from sglib.envs.alfworld.experts import EXPERTS
from sglib.envs.alfworld.games import Game
from sglib.envs.alfworld.grammar import CONTENT, PLACE, UnsupportedGame
from sglib.envs.alfworld.oracle import Situation, shortest_plan
from sglib.envs.alfworld.world import PROCESSES, Fact, World, world_of
from sglib.records import Observation

__all__ = ["FastAlfworld", "UnsupportedGame"]

NOTHING = "Nothing happens."
ON, INSIDE = "On the {1}, you see a {0}.", "The {1} is open. In it, you see a {0}."  # where a thing lies
MAX_CACHED = 192  # texts, and lists of admissible commands, kept for a game
MAX_DISTANCES = 1024
_TOGETHER = (
    ("isclean", "ishot", "issliced"), ("isclean", "iscool", "issliced"), ("isclean", "issliced"),
    ("ishot", "issliced"), ("iscool", "issliced"), ("isclean", "ishot"), ("isclean", "iscool"),
    ("ishot",), ("isclean",), ("iscool",),
)  # fmt: skip


def _keep(cache: dict, key, value, most: int):
    """Remember a value; a full cache is emptied, which is cheaper than to know what was used last."""
    if len(cache) >= most:
        cache.clear()
    cache[key] = value


@functools.lru_cache(maxsize=256)
def _info(score: float) -> Mapping[str, float]:
    """`Observation.info`, one read-only object per score: made at every step, it must cost nothing."""
    return MappingProxyType({"goal_conditions": score})


class FastAlfworld:
    """The `TextEnv` of ALFWorld in pure Python.

    Args:
        max_steps: after that many actions an episode is done even if it is not won; None for no limit.
        admissible: whether observations list the admissible commands (the larger part of a step's cost).

    `Observation.info["goal_conditions"]` is the share of the goal's conditions that hold, 0..1, for the way of meeting
    the goal that is closest: ALFRED's goal-condition success, which the reference engine lacks.
    """

    __slots__ = ("done", "held", "inside", "left", "location", "max_steps", "met", "near", "observation", "opened",
                 "props", "score", "seen", "steps", "where", "with_admissible", "won", "world")  # fmt: skip

    def __init__(self, max_steps: int | None = None, admissible: bool = True):
        if max_steps is not None and max_steps < 1:
            raise ValueError(f"max_steps={max_steps!r}: must be a positive number or None")
        self.max_steps, self.with_admissible = max_steps, admissible
        self.done = True

    # -- the protocol --------------------------------------------------------------------------------------------

    def reset(self, game: Game) -> Observation:
        """Start an episode. Raises `UnsupportedGame` where the game has a construct that this engine does not know."""
        self.done = True
        self.world = world = world_of(game.problem, game.goal, game.grammar, game.domain)
        if world.start is None:
            self._begin()
            grammar = world.grammar
            task = grammar.say("task", {}).replace("UNKNOWN GOAL", world.goal_text)
            text = grammar.say("intro", {"#look.feedback#": self._introduction(), "#task#": task})
            world.start, world.initial = (self._state(), text), None
        state, text = world.start
        self._set(state)
        return self._observe(text)

    def _begin(self):
        """The state that the problem's initial facts describe."""
        world, facts = self.world, self.world.initial
        self.location: str = facts["atlocation"][0][1]
        self.held: str | None = facts["holds"][0][1] if facts["holds"] else None
        self.opened: set[str] = {row[0] for row in facts["opened"]}
        inside: dict[str, list[str]] = {r: [] for r in world.receptacles}
        self.where: dict[str, tuple[str, ...]] = {}  # object -> receptacles that it is in, those out of reach too
        for object_, receptacle in sorted(facts["inreceptacle"]):
            self.where[object_] = (*self.where.get(object_, ()), receptacle)
            if receptacle in inside and object_ != receptacle:
                inside[receptacle].append(object_)
        self.inside: dict[str, tuple[str, ...]] = {
            r: tuple(sorted(objects, key=world.order) if world.order else objects) for r, objects in inside.items()
        }
        self.near: set[Fact] = set(facts["objectatlocation"])  # (object, place)
        self.left: set[Fact] = set()  # (object, receptacle) that it was taken from and not put back to
        self.props: set[Fact] = {  # ("isclean", object), ...
            (p, row[0]) for p in ("isclean", "ishot", "iscool", "issliced", "istoggled") for row in facts[p]
        }
        self.seen: set[str] = set()  # receptacles whose content the agent has seen
        self.steps, self.won, self.score = 0, False, 0.0
        self.met: set[Fact] = {f for f in world.relevant if self._holds(f)}  # facts of the goal that hold
        self.done = False
        self._judge()

    def step(self, action: str) -> Observation:
        """Take one action; what is not admissible answers "Nothing happens."."""
        if self.done:
            raise RuntimeError("the episode is over: call reset(game) before step")
        if not isinstance(action, str):
            action = ""
        known = self.observation.admissible
        for method, arguments in self.world.commands.get(action) or self._learn(action.strip()):
            text = method(self, *arguments)
            if text is not None:
                break
        else:
            text = NOTHING
        self.steps += 1
        return self._observe(text, action in known if self.with_admissible else text is not NOTHING)

    def admissible(self) -> tuple[str, ...]:
        """The commands that do something now, sorted."""
        world, held = self.world, self.held
        here = world.at.get(self.location, ())
        sliceable = ()
        if held in world.knives:
            sliceable = tuple(sorted(o for o, place in self.near if place == self.location and o in world.sliceable))
        key = (self.location, held, sliceable, *[(r in self.opened, self.inside[r]) for r in here])
        if (found := world.choices.get(key)) is None:
            found = self._admissible(here, sliceable)
            _keep(world.choices, key, found, MAX_CACHED)
        return found

    def snapshot(self) -> tuple[World, tuple, Observation]:
        return self.world, self._state(), self.observation

    def restore(self, snapshot: tuple[World, tuple, Observation]) -> Observation:
        self.world, state, self.observation = snapshot
        self._set(state)
        return self.observation

    def _state(self) -> tuple:
        """Everything that changes during an episode, copied."""
        return (self.location, self.held, self.opened.copy(), self.where.copy(), self.inside.copy(), self.near.copy(),
                self.left.copy(), self.props.copy(), self.seen.copy(), self.met.copy(), self.steps, self.won,
                self.score, self.done)  # fmt: skip

    def _set(self, state: tuple):
        (self.location, self.held, opened, where, inside, near, left, props, seen, met, self.steps, self.won,
         self.score, self.done) = state  # fmt: skip
        self.opened, self.where, self.inside = opened.copy(), where.copy(), inside.copy()
        self.near, self.left, self.props = near.copy(), left.copy(), props.copy()
        self.seen, self.met = seen.copy(), met.copy()

    def expert(self, kind: str) -> str:
        """What an expert would do now: "optimal" plans with full knowledge; "explore" knows only what the agent has
        seen, and looks on where that does not suffice."""
        if kind not in EXPERTS:
            raise ValueError(f"kind={kind!r}: allowed: {', '.join(map(repr, EXPERTS))}")
        return EXPERTS[kind](self)

    # -- what there is to say ------------------------------------------------------------------------------------

    def _observe(self, text: str, valid: bool = True) -> Observation:
        won, steps, limit = self.won, self.steps, self.max_steps
        self.done = done = won or (limit is not None and steps >= limit)
        commands = self.admissible() if self.with_admissible else ()
        self.observation = Observation(
            text, self.world.goal_text, commands, 1.0 if won else 0.0, won, done, steps, _info(self.score),
            1.0 if won else 0.0, valid,
        )  # fmt: skip
        return self.observation

    def _accessible(self, receptacle: str) -> bool:
        return receptacle not in self.world.openable or receptacle in self.opened

    def _admissible(self, here: Sequence[str], sliceable: Sequence[str]) -> tuple[str, ...]:
        world, held, names, formats = self.world, self.held, self.world.names, self.world.grammar.formats
        found = world.always.copy()
        for r in here:
            name, inside, is_open = names[r], self.inside[r], r in self.opened
            found.append(formats["examinereceptacle"][0] % name)
            if r in world.openable:
                found.append(formats["closeobject" if is_open else "openobject"][0] % name)
            if is_open or r not in world.openable:
                if held is None:
                    text, swapped = formats["pickupobject"]
                    for o in inside:
                        if o in world.pickupable:
                            found.append(text % ((name, names[o]) if swapped else (names[o], name)))
                elif held in world.accepts[r]:
                    found.append(world.command("putobject", held, r))
            if not world.toggleable.isdisjoint(inside):
                found += [formats["toggleobject"][0] % names[o] for o in inside if o in world.toggleable]
        if held is not None:
            found.append(formats["examineobject"][0] % names[held])
            for prop, (action, able) in PROCESSES.items():
                if held in world.can_be[able]:
                    found += [world.command(action, held, r) for r in world.does[prop] if r in here]
            found += [world.command("sliceobject", o, held) for o in sliceable]
        found = sorted(set(found))  # a lamp in two receptacles at one place would be used twice
        go = world.go_commands(self.location)
        i = bisect(found, go[0]) if go else 0
        if go and i < len(found) and not go[-1] < found[i]:  # the block of "go to ..." has another command within it
            return tuple(sorted([*go, *found]))
        return (*found[:i], *go, *found[i:])

    def _introduction(self) -> str:
        world, grammar = self.world, self.world.grammar
        if self.location in world.at:
            return self._look()
        overview = grammar.listing([f"a {world.names[r]}" for r in world.receptacles])
        return grammar.say("look.feedback", {"#list_appliances#": overview}, 1)

    # -- what actions do -----------------------------------------------------------------------------------------

    def _learn(self, command: str) -> list[tuple]:
        """[(method, its arguments)] that a command calls; kept if it names things of this game.

        The last argument is the answer as far as it is known beforehand: a text, or the texts before and after what is
        seen in a receptacle.
        """
        world, grammar = self.world, self.world.grammar
        readings = grammar.readings.get(command)
        known, found = readings is not None, []
        for action, names, answer in readings if known else grammar.read(command):
            ids = [world.ids.get(name) for name in names]
            if None in ids or action not in world.actions:
                continue
            if action in ("gotolocation", "openobject"):
                if ids[0] not in world.place:
                    continue
                answer = answer.replace(PLACE, world.names[world.place[ids[0]]]).split(CONTENT)
            found.append((_METHODS[action], (*ids, answer)))
        if found:
            _keep(world.commands, command, found, 4 * MAX_CACHED)
            if not known:
                _keep(grammar.readings, command, grammar.read(command), 20_000)
        return found

    def _go(self, receptacle: str, answer: list[str] | None) -> str | None:
        world = self.world
        place = world.place.get(receptacle)
        if place is None or place == self.location:
            return None
        before, self.location = self.location, place
        if world.goal_places:
            self._change(gone=("atlocation", world.agent, before), new=("atlocation", world.agent, place))
        return self._see(receptacle).join(answer)

    def _see(self, receptacle: str) -> str:
        world, texts, is_open = self.world, self.world.texts, receptacle in self.opened
        if is_open or receptacle not in world.openable:
            self.seen.add(receptacle)
        key = (receptacle, is_open, self.inside[receptacle])
        if (found := texts.get(key)) is None:
            alternative = 2 if receptacle not in world.openable else 0 if is_open else 1
            things = world.grammar.listing([f"a {world.names[o]}" for o in self.inside[receptacle]])
            found = world.grammar.tell("examineReceptacle.feedback", things, world.names[receptacle], alternative)
            _keep(texts, key, found, MAX_CACHED)
        return found

    def _at_door(self, receptacle: str) -> bool:
        return self.world.place.get(receptacle) == self.location and receptacle in self.world.openable

    def _open(self, receptacle: str, answer: list[str]) -> str | None:
        if not self._at_door(receptacle) or receptacle in self.opened:
            return None
        self.opened.add(receptacle)
        return self._see(receptacle).join(answer)

    def _close(self, receptacle: str, answer: str) -> str | None:
        if not self._at_door(receptacle) or receptacle not in self.opened:
            return None
        self.opened.discard(receptacle)
        return answer

    def _take(self, object_: str, receptacle: str, answer: str) -> str | None:
        world = self.world
        if self.held is not None or object_ not in world.pickupable or world.place.get(receptacle) != self.location:
            return None
        if object_ not in self.inside[receptacle] or not self._accessible(receptacle):
            return None
        self.held = object_
        self.where[object_] = tuple(r for r in self.where[object_] if r != receptacle)
        self.inside[receptacle] = tuple(o for o in self.inside[receptacle] if o != object_)
        self.near.discard((object_, self.location))
        self.left.add((object_, receptacle))
        self._change(gone=("inreceptacle", object_, receptacle), new=("holds", world.agent, object_))
        return answer

    def _move(self, object_: str, receptacle: str, answer: str) -> str | None:
        world = self.world
        if object_ != self.held or world.place.get(receptacle) != self.location:
            return None
        if not self._accessible(receptacle) or object_ not in world.accepts[receptacle]:
            return None
        self.held = None
        if receptacle not in self.where.get(object_, ()):
            self.where[object_] = (*self.where.get(object_, ()), receptacle)
            self.inside[receptacle] = tuple(sorted((*self.inside[receptacle], object_), key=world.order))
        self.near.add((object_, self.location))
        self.left.discard((object_, receptacle))
        self._change(gone=("holds", world.agent, object_), new=("inreceptacle", object_, receptacle))
        return answer

    def _process(self, prop: str, object_: str, receptacle: str, answer: str) -> str | None:
        world = self.world
        if object_ != self.held or object_ not in world.can_be[PROCESSES[prop][1]]:
            return None
        if receptacle not in world.does[prop] or world.place[receptacle] != self.location:
            return None
        self.props.add((prop, object_))
        gone = None
        if prop != "isclean":
            gone = ("iscool" if prop == "ishot" else "ishot", object_)
            self.props.discard(gone)
        self._change(gone=gone, new=(prop, object_))
        return answer

    def _use(self, object_: str, answer: str) -> str | None:
        here = any(self.world.place.get(r) == self.location for r in self.where.get(object_, ()))
        if object_ not in self.world.toggleable or not here:
            return None
        self.props.add(("istoggled", object_))
        self._change(gone=None, new=("istoggled", object_))
        return answer

    def _slice(self, object_: str, knife: str, answer: str) -> str | None:
        world = self.world
        if knife != self.held or knife not in world.knives:
            return None
        if object_ not in world.sliceable or (object_, self.location) not in self.near:
            return None
        self.props.add(("issliced", object_))
        self._change(gone=None, new=("issliced", object_))
        return answer

    def _examine_receptacle(self, receptacle: str, answer: None) -> str | None:
        return self._see(receptacle) if self.world.place.get(receptacle) == self.location else None

    def _examine_object(self, object_: str, answer: None) -> str | None:
        if object_ != self.held:
            return None
        world, props = self.world, {prop for prop, o in self.props if o == object_}
        conditions = [  # in the grammar's order; the reference takes the first that holds
            object_ in world.holder,
            *(props.issuperset(together) for together in _TOGETHER),
            object_ in world.toggleable and "istoggled" in props,
            False,  # "is off" asks for a fact that the reference never states
            object_ in world.sliceable and "issliced" in props,
            True,
        ]
        inner = world.grammar.listing([f"a {world.names[o]}" for o in world.inner.get(object_, ())])
        return world.grammar.tell("examineObject.feedback", inner, world.names[object_], conditions.index(True))

    def _look(self, answer: None = None) -> str:
        world, grammar = self.world, self.world.grammar
        here = world.at.get(self.location)
        if not here:
            return grammar.say("look.feedback", {"#list_appliances#": grammar.listing([])}, 1)
        facing = grammar.tell("look-variations", grammar.listing([world.names[r] for r in here]))
        floor = grammar.listing(
            [f"a {world.names[o]}" for o, r in sorted(self.left) if r in here and (o, self.location) in self.near]
        )
        return grammar.say("look.feedback", {"#look-variations#": facing, "#list_objects_on_the_floor#": floor}, 0)

    def _inventory(self, answer: None) -> str:
        if self.held is None:
            return self.world.grammar.say("inventory.feedback", {}, 1)
        return self.world.grammar.tell("inventory.feedback", f"a {self.world.names[self.held]}")

    # -- the goal ------------------------------------------------------------------------------------------------

    def _holds(self, fact: Fact) -> bool:
        predicate, *arguments = fact
        if predicate == "inreceptacle":
            return arguments[1] in self.where.get(arguments[0], ())
        if predicate == "holds":
            return self.held == arguments[1]
        if predicate == "atlocation":
            return self.location == arguments[1]
        return (predicate, arguments[0]) in self.props

    def _change(self, gone: Fact | None, new: Fact):
        """Keep `met` up to date; the goal is judged again only where it asks for one of the two facts."""
        relevant = self.world.relevant
        if gone in relevant:
            self.met.discard(gone)
        if new in relevant:
            self.met.add(new)
        if gone in relevant or new in relevant:
            self._judge()

    def _judge(self):
        """Whether the goal holds, and the largest share of a binding's changeable facts that does."""
        asking, met, best = self.world.asking, self.met, 0.0
        for fact in (None, *met):  # None: bindings that nothing can change
            for binding, asked in asking.get(fact, ()):
                missing = len(binding - met)
                if not missing:
                    self.won, self.score = True, 1.0
                    return
                if asked > missing and best < 1 - missing / asked:
                    best = 1 - missing / asked
        self.won, self.score = False, best

    def situation(self) -> Situation:
        """What the oracle plans from: the changeable facts of the present state."""
        return Situation(self.world, self.location, self.held, frozenset(self.opened), self.where,
                         frozenset(self.near), frozenset(self.props), frozenset(self.met))  # fmt: skip

    def distance(self) -> int | None:
        """Fewest actions from here to the goal with full knowledge, exact; None if the goal cannot be reached."""
        s, distances = self.situation(), self.world.distances  # members of a group meet the same situations
        where = tuple(s.where.get(object_) for object_ in self.world.wanted)
        key = (s.location, s.held, s.opened, where, s.near, s.props, s.met)
        if key not in distances:
            plan = shortest_plan(s)
            _keep(distances, key, None if plan is None else len(plan), MAX_DISTANCES)
        return distances[key]

    def answer(self, name: str) -> str:
        """Of "facts": where the things lie that a shortest plan from here takes or switches on, in the plan's order, in
        the engine's own sentences (a model that has read nothing else finds any other wording unlikely, wherever the
        thing is); "" where there is no plan or it needs nothing that lies somewhere."""
        if name != "facts":
            raise ValueError(f"name={name!r}: allowed: 'facts'")
        world, rooms = self.world, {}
        for action, *ids in shortest_plan(self.situation()) or []:
            if action == "pickupobject" and ids[1] in self.where.get(ids[0], ()):
                rooms.setdefault(*ids)
            elif action == "toggleobject":
                rooms.setdefault(ids[0], next(r for r in self.where[ids[0]] if r in world.place))
        return " ".join(
            (INSIDE if r in world.openable else ON).format(world.names[o], world.names[r]) for o, r in rooms.items()
        )

    def plan(self) -> list[str] | None:
        """A shortest list of commands from here to the goal with full knowledge; None if there is none."""
        plan = shortest_plan(self.situation())
        return None if plan is None else [self.world.command(*step) for step in plan]


_METHODS = {
    "gotolocation": FastAlfworld._go,
    "openobject": FastAlfworld._open,
    "closeobject": FastAlfworld._close,
    "pickupobject": FastAlfworld._take,
    "putobject": FastAlfworld._move,
    "cleanobject": lambda env, *arguments: env._process("isclean", *arguments),
    "heatobject": lambda env, *arguments: env._process("ishot", *arguments),
    "coolobject": lambda env, *arguments: env._process("iscool", *arguments),
    "toggleobject": FastAlfworld._use,
    "sliceobject": FastAlfworld._slice,
    "examinereceptacle": FastAlfworld._examine_receptacle,
    "examineobject": FastAlfworld._examine_object,
    "look": FastAlfworld._look,
    "inventory": FastAlfworld._inventory,
    "help": lambda env, answer: answer,
}
