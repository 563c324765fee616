"""ALFWorld in pure Python: the same `game.tw-pddl`, the same text, admissible commands and outcome, at the speed of
learning. The reference is TextWorld's `PddlEnv` (`alfworld_textworld.py`); `tests/test_engine_parity.py` plays both in
lock-step. What looks odd below is the reference's behaviour, found by reading and playing it:

- names are counted down per class over the sorted ids ("cabinet 4" comes first);
- lists follow the sorted ids;
- `examine <object>` works only for what is held: the domain's other clause quantifies over a type "location,";
- `look` in the middle of the room sees nothing, the introduction sees every receptacle;
- a thing moved between two receptacles at one place is also seen "next to" the first of them;
- `use` on a lamp always says that it is turned on: `isToggled` never becomes false.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections import Counter, defaultdict

from sglib.envs.alfworld_games import Game, shipped
from sglib.records import Observation


class UnsupportedGame(ValueError):
    """The game uses a construct that this engine does not know; it refuses rather than play it wrongly."""


PROCESSES = {  # property -> (verb, what the object must be, type of the receptacle that does it)
    "isclean": ("clean", "cleanable", "sinkbasintype"),
    "ishot": ("heat", "heatable", "microwavetype"),
    "iscool": ("cool", "coolable", "fridgetype"),
}
DYNAMIC = {"inreceptacle", "isclean", "ishot", "iscool", "issliced", "istoggled", "holds", "atlocation"}


@functools.cache
def _grammar_pattern() -> tuple[str, str]:
    return tuple(shipped("alfred.twl2").split("UNKNOWN GOAL"))


@functools.cache
def _help_text() -> str:
    rule = re.search(r'"help.feedback".*?"rhs": "(.*?)"\s*\n', shipped("alfred.twl2"), re.S).group(1)
    return rule.replace("\\n", "\n").lstrip("\n")


def goal_of_grammar(grammar: str) -> str:
    """The task sentence inside a game's grammar, without the full stop.

    Raises:
        UnsupportedGame: where the grammar is not the shipped one with a task filled in.
    """
    before, after = _grammar_pattern()
    if not (grammar.startswith(before) and grammar.endswith(after)):
        raise UnsupportedGame("grammar: differs from the one that alfworld ships by more than the task sentence")
    return grammar[len(before) : len(grammar) - len(after)]


def parse_sexpr(text: str):
    """Parse one s-expression into nested lists of lower-case words. Comments (`;`) are dropped."""
    tokens = re.findall(r"[()]|[^\s()]+", re.sub(r";[^\n]*", "", text).lower())
    stack: list[list] = [[]]
    for token in tokens:
        if token == "(":
            stack.append([])
        elif token == ")":
            if len(stack) == 1:
                raise UnsupportedGame("problem: a closing bracket too many")
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(token)
    if len(stack) != 1 or not stack[0]:
        raise UnsupportedGame("problem: a bracket is not closed")
    return stack[0][0]


def _typed(words: list[str]) -> list[tuple[str, str]]:
    """["a", "b", "-", "t"] -> [("a", "t"), ("b", "t")]."""
    pairs, names, i = [], [], 0
    while i < len(words):
        if words[i] == "-":
            pairs += [(name, words[i + 1]) for name in names]
            names, i = [], i + 2
        else:
            names.append(words[i])
            i += 1
    return pairs


class _World:
    """What never changes in a game: names, places, types, and the goal compiled to bindings."""

    def __init__(self, problem: str, goal: str, grammar: str | None, domain: str | None):
        if domain is not None and domain != shipped("alfred.pddl"):
            raise UnsupportedGame("domain: differs from the one that alfworld ships")
        self.goal_text = goal if grammar is None else goal_of_grammar(grammar)
        sections = {part[0]: part for part in parse_sexpr(problem)[1:]}
        self.type_of = dict(_typed(sections[":objects"][1:]))
        facts: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for predicate, *arguments in sections[":init"][1:]:
            if predicate != "=":  # costs and distances: nothing that an agent can see
                facts[predicate].append(tuple(arguments))
        self.facts = facts
        self.names = _names({argument for rows in facts.values() for row in rows for argument in row})
        self.ids = {name: id_ for id_, name in self.names.items()}
        one = {p: {row[0] for row in facts[p]} for p in ("openable", "pickupable", "cleanable", "heatable", "coolable")}
        self.openable, self.pickupable = one["openable"], one["pickupable"]
        self.can_be = {"cleanable": one["cleanable"], "heatable": one["heatable"], "coolable": one["coolable"]}
        self.toggleable = {row[0] for row in facts["toggleable"]}
        self.sliceable = {row[0] for row in facts["sliceable"]}
        self.holder = {row[0] for row in facts["isreceptacleobject"]}
        self.inner = defaultdict(list)
        for inside, outside in sorted(facts["inreceptacleobject"]):
            self.inner[outside].append(inside)
        self.place: dict[str, str] = {}
        for receptacle, location in facts["receptacleatlocation"]:
            if receptacle in self.place:
                raise UnsupportedGame(f"receptacleAtLocation: {receptacle} is at two places")
            self.place[receptacle] = location
        self.receptacles = sorted(self.place)
        self.at: dict[str, list[str]] = defaultdict(list)
        for receptacle in self.receptacles:
            self.at[self.place[receptacle]].append(receptacle)
        types = defaultdict(set)
        for receptacle, type_ in facts["receptacletype"]:
            types[receptacle].add(type_)
        self.does = {  # property -> receptacles that give it
            prop: [r for r in self.receptacles if kind in types[r]] for prop, (_, _, kind) in PROCESSES.items()
        }
        otypes = defaultdict(set)
        for object_, type_ in facts["objecttype"]:
            otypes[object_].add(type_)
        self.knives = {o for o, kinds in otypes.items() if kinds & {"knifetype", "butterknifetype"}}
        allowed = defaultdict(set)
        for rtype, otype in facts["cancontain"]:
            allowed[rtype].add(otype)
        fits = {r: set().union(*(allowed[t] for t in types[r])) for r in self.receptacles}
        self.accepts = {r: {o for o, kinds in otypes.items() if kinds & fits[r]} for r in self.receptacles}
        # (sorted) go-to commands from each place; built on demand
        self._go: dict[str, list[str]] = {}
        self.conditions = self._compile(sections[":goal"][1])
        intro = ", ".join(f"a {self.names[r]}" for r in self.receptacles[:-1])
        last = f"a {self.names[self.receptacles[-1]]}"
        self.overview = f"{intro}, and {last}" if intro else last

    def go_commands(self, location: str) -> list[str]:
        if location not in self._go:
            self._go[location] = [f"go to {self.names[r]}" for r in self.receptacles if self.place[r] != location]
        return self._go[location]

    # -- the goal ------------------------------------------------------------------------------------------------

    def _compile(self, goal) -> list[list[tuple[tuple[str, ...], ...]]]:
        """Goal -> conditions; each is a list of bindings; each is a tuple of facts that must hold together.

        What never changes is resolved here, so checking a goal at play time is a few set look-ups.
        """
        parts = goal[1:] if goal[0] == "and" else [goal]
        compiled = []
        for part in parts:
            variables, literals = {}, []
            self._flatten(part, variables, literals)
            bindings = [tuple(b) for b in self._bind(variables, literals)]
            compiled.append(list(dict.fromkeys(bindings)))
        return compiled

    def _flatten(self, node, variables, literals):
        if node[0] == "exists":
            variables.update(_typed(node[1]))
            self._flatten(node[2], variables, literals)
        elif node[0] == "and":
            for child in node[1:]:
                self._flatten(child, variables, literals)
        elif node[0] in ("or", "forall", "imply"):
            raise UnsupportedGame(f"goal: '{node[0]}' is not supported")
        else:
            literals.append(node)

    def _bind(self, variables, literals):
        dynamic = [tuple(x) for x in literals if x[0] in DYNAMIC]
        static = [x for x in literals if x[0] not in DYNAMIC]
        differ = [tuple(x[1][1:]) for x in static if x[0] == "not" and x[1][0] == "="]
        positive = [x for x in static if x[0] != "not"]
        if len(differ) + len(positive) != len(static):
            raise UnsupportedGame("goal: 'not' is supported for '=' only")
        for literal in positive:
            if literal[0] in ("opened", "ison", "holdsany", "objectatlocation", "checked", "isreceptacleobjectfull"):
                raise UnsupportedGame(f"goal: predicate '{literal[0]}' is not supported")
        partial = [{}]
        for predicate, *arguments in positive:
            grown = []
            for binding, row in itertools.product(partial, sorted(set(self.facts[predicate]))):
                new = dict(binding)
                if all(
                    new.setdefault(a, value) == value if a[0] == "?" else a == value for a, value in zip(arguments, row)
                ):
                    grown.append(new)
            partial = grown
        for variable in sorted({a for x in dynamic for a in x[1:] if a[0] == "?"}):
            candidates = sorted(n for n, t in self.type_of.items() if t == variables.get(variable))
            partial = [
                b if variable in b else {**b, variable: c}
                for b in partial
                for c in ([None] if variable in b else candidates)
            ]
        for binding in partial:
            if all(binding.get(a) != binding.get(b) for a, b in differ):
                yield [(p, *(binding.get(a, a) for a in arguments)) for p, *arguments in dynamic]


def _names(ids: set[str]) -> dict[str, str]:
    """alfworld's `Demangler`: per class, ids sorted, numbered downwards."""
    counts, classes = Counter(), {}
    for id_ in sorted(ids):
        head, bar, _ = id_.partition("_bar_")
        if bar:
            classes[id_] = head + ("basin" if "basin" in id_ else "")
            counts[classes[id_]] += 1
    names = {}
    for id_ in sorted(ids):
        if id_ in classes:
            names[id_] = f"{classes[id_]} {counts[classes[id_]]}"
            counts[classes[id_]] -= 1
    return names


# keyed by the texts (a str keeps its hash), so that a group playing one game compiles it once
_world = functools.lru_cache(maxsize=1024)(_World)


def _listing(names: list[str]) -> str:
    if not names:
        return "nothing"
    items = [f"a {name}" for name in names]
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + ", and " + items[-1]


class FastAlfworld:
    """The `TextEnv` of ALFWorld in pure Python.

    Args:
        max_steps: after so many actions an episode is done even if it is not won; None for no limit.
        admissible: whether observations list the admissible commands (the larger part of a step's cost).
    """

    def __init__(self, max_steps: int | None = None, admissible: bool = True):
        if max_steps is not None and max_steps < 1:
            raise ValueError(f"max_steps={max_steps!r}: must be a positive number or None")
        self.max_steps, self.with_admissible = max_steps, admissible
        self.done = True

    # -- the protocol --------------------------------------------------------------------------------------------

    def reset(self, game: Game) -> Observation:
        """Start an episode.

        Raises:
            UnsupportedGame: the game uses a construct that this engine does not know.
        """
        self.world = world = _world(game.problem, game.goal, game.grammar, game.domain)
        facts = world.facts
        self.location = facts["atlocation"][0][1]
        self.held: str | None = facts["holds"][0][1] if facts["holds"] else None
        self.opened = {row[0] for row in facts["opened"]}
        self.where: dict[str, str] = {}
        for object_, receptacle in facts["inreceptacle"]:
            if object_ in self.where:
                raise UnsupportedGame(f"inReceptacle: {object_} is in two receptacles")
            self.where[object_] = receptacle
        self.inside: dict[str, list[str]] = {r: [] for r in world.receptacles}
        for object_ in sorted(self.where):
            self.inside[self.where[object_]].append(object_)
        self.near: dict[str, str] = dict(facts["objectatlocation"])  # objectAtLocation: object -> place
        self.left: set[tuple[str, str]] = set()  # (object, receptacle) that it was taken from and not put back to
        self.props: dict[str, set[str]] = {
            p: {row[0] for row in facts[p]} for p in ("isclean", "ishot", "iscool", "issliced", "istoggled")
        }
        self.steps, self.done = 0, False
        self.won = self._goal_holds()
        here = world.at.get(self.location)
        first = (
            self._look()
            if here
            else f"You are in the middle of a room. Looking quickly around you, you see {world.overview}."
        )
        return self._observe(f"-= Welcome to TextWorld, ALFRED! =-\n\n{first}\n\nYour task is to: {world.goal_text}.")

    def step(self, action: str) -> Observation:
        """Take one action; what is not admissible answers "Nothing happens.".

        Raises:
            RuntimeError: the episode is over.
        """
        if self.done:
            raise RuntimeError("the episode is over: call reset(game) before step")
        text = self._apply(action.strip() if isinstance(action, str) else "")
        self.steps += 1
        return self._observe("Nothing happens." if text is None else text)

    def admissible(self) -> tuple[str, ...]:
        """The commands that do something now, sorted."""
        world, names, held = self.world, self.world.names, self.held
        commands = ["look", "inventory", "help", *world.go_commands(self.location)]
        here = world.at.get(self.location, ())
        for r in here:
            name = names[r]
            commands.append(f"examine {name}")
            is_open = r in self.opened
            if r in world.openable:
                commands.append(f"close {name}" if is_open else f"open {name}")
            if is_open or r not in world.openable:
                if held is None:
                    commands += [f"take {names[o]} from {name}" for o in self.inside[r] if o in world.pickupable]
                elif held in world.accepts[r]:
                    commands.append(f"move {names[held]} to {name}")
            for o in self.inside[r]:
                if o in world.toggleable:
                    commands.append(f"use {names[o]}")
        if held is not None:
            commands.append(f"examine {names[held]}")
            for prop, (verb, able, _) in PROCESSES.items():
                if held in world.can_be[able]:
                    commands += [f"{verb} {names[held]} with {names[r]}" for r in world.does[prop] if r in here]
            if held in world.knives:
                commands += [
                    f"slice {names[o]} with {names[held]}"
                    for o, place in self.near.items()
                    if place == self.location and o in world.sliceable
                ]
        return tuple(sorted(set(commands)))

    # -- what actions do -----------------------------------------------------------------------------------------

    def _observe(self, text: str) -> Observation:
        self.done = self.won or (self.max_steps is not None and self.steps >= self.max_steps)
        commands = self.admissible() if self.with_admissible else ()
        return Observation(text, self.world.goal_text, commands, float(self.won), self.won, self.done, self.steps)

    def _accessible(self, receptacle: str) -> bool:
        return receptacle not in self.world.openable or receptacle in self.opened

    def _here(self, name: str) -> str | None:
        """The receptacle of that name if the agent stands at it."""
        id_ = self.world.ids.get(name)
        return id_ if self.world.place.get(id_) == self.location else None

    def _apply(self, command: str) -> str | None:
        verb, _, rest = command.partition(" ")
        if verb == "go" and rest.startswith("to "):
            return self._go(self.world.ids.get(rest[3:]))
        if verb in ("open", "close"):
            return self._set_open(self._here(rest), verb == "open")
        if verb == "take":
            return self._take(*self._two(rest, " from "))
        if verb == "move":
            return self._move(*self._two(rest, " to "))
        if verb in ("clean", "heat", "cool"):
            return self._process(verb, *self._two(rest, " with "))
        if verb == "use":
            return self._use(self.world.ids.get(rest))
        if verb == "examine":
            return self._examine(rest)
        if verb == "slice":
            return self._slice(*self._two(rest, " with "))
        if command == "look":
            return self._look()
        if command == "inventory":
            return (
                f"You are carrying: {_listing([self.world.names[self.held]])}."
                if self.held
                else "You are not carrying anything."
            )
        if command == "help":
            return _help_text()
        return None

    def _two(self, rest: str, word: str) -> tuple[str | None, str | None]:
        first, _, second = rest.partition(word)
        return self.world.ids.get(first), self.world.ids.get(second)

    def _go(self, receptacle):
        place = self.world.place.get(receptacle)
        if place is None or place == self.location:
            return None
        self.location = place
        self._check()
        return f"You arrive at {self.world.names[receptacle]}. {self._contents(receptacle)}"

    def _set_open(self, receptacle, to_open: bool):
        if receptacle is None or receptacle not in self.world.openable or (receptacle in self.opened) == to_open:
            return None
        name = self.world.names[receptacle]
        if to_open:
            self.opened.add(receptacle)
            return f"You open the {name}. {self._contents(receptacle)}"
        self.opened.discard(receptacle)
        return f"You close the {name}."

    def _take(self, object_, receptacle):
        world = self.world
        if self.held is not None or object_ not in world.pickupable or self.where.get(object_, "") != receptacle:
            return None
        if world.place[receptacle] != self.location or not self._accessible(receptacle):
            return None
        self.held = object_
        del self.where[object_]
        self.inside[receptacle].remove(object_)
        if self.near.get(object_) == self.location:
            del self.near[object_]
        self.left.add((object_, receptacle))
        self._check()
        return f"You pick up the {world.names[object_]} from the {world.names[receptacle]}."

    def _move(self, object_, receptacle):
        world = self.world
        if object_ is None or object_ != self.held or world.place.get(receptacle, "") != self.location:
            return None
        if not self._accessible(receptacle) or object_ not in world.accepts[receptacle]:
            return None
        self.held = None
        self.where[object_] = receptacle
        self.inside[receptacle] = sorted([*self.inside[receptacle], object_])
        self.near[object_] = self.location
        self.left.discard((object_, receptacle))
        self._check()
        return f"You move the {world.names[object_]} to the {world.names[receptacle]}."

    def _process(self, verb, object_, receptacle):
        world = self.world
        prop, able = next((p, a) for p, (v, a, _) in PROCESSES.items() if v == verb)
        if object_ is None or object_ != self.held or object_ not in world.can_be[able]:
            return None
        if receptacle not in world.does[prop] or world.place[receptacle] != self.location:
            return None
        self.props[prop].add(object_)
        if prop != "isclean":
            self.props["iscool" if prop == "ishot" else "ishot"].discard(object_)
        self._check()
        return f"You {verb} the {world.names[object_]} using the {world.names[receptacle]}."

    def _use(self, object_):
        receptacle = self.where.get(object_)
        if object_ not in self.world.toggleable or self.world.place.get(receptacle, "") != self.location:
            return None
        self.props["istoggled"].add(object_)
        self._check()
        return f"You turn on the {self.world.names[object_]}."

    def _slice(self, object_, knife):
        if knife is None or knife != self.held or knife not in self.world.knives or object_ not in self.world.sliceable:
            return None
        if self.near.get(object_) != self.location:
            return None
        self.props["issliced"].add(object_)
        self._check()
        return f"You sliced the {self.world.names[object_]} with the {self.world.names[knife]}."

    def _examine(self, name: str):
        receptacle = self._here(name)
        if receptacle is not None:
            return self._contents(receptacle)
        if self.held is None or self.world.names[self.held] != name:
            return None
        held = self.held
        if held in self.world.holder:
            inner = _listing([self.world.names[o] for o in self.world.inner[held]])
            return f"This is a normal {name}. In it, you see {inner}."
        has = {prop: held in members for prop, members in self.props.items()}
        clean, sliced = has["isclean"], has["issliced"]
        state = "hot" if has["ishot"] else "cool" if has["iscool"] else ""
        if sliced and (clean or state):
            words = " and ".join(filter(None, [state, "clean" if clean else ""]))
            return f"This is a {words} sliced {name}."
        if clean and state:
            return f"This is a {state} and clean {name}."
        if state or clean:
            return f"This is a {'clean' if clean else 'cold' if state == 'cool' else state} {name}."
        if held in self.world.toggleable and has["istoggled"]:
            return f"This {name} is on."
        if sliced:
            return f"This is a sliced {name}."
        return f"There's nothing special about {name}."

    def _contents(self, receptacle: str) -> str:
        world, name = self.world, self.world.names[receptacle]
        things = _listing([world.names[o] for o in self.inside[receptacle]])
        if receptacle not in world.openable:
            return f"On the {name}, you see {things}."
        if receptacle in self.opened:
            return f"The {name} is open. In it, you see {things}."
        return f"The {name} is closed."

    def _look(self) -> str:
        here = self.world.at.get(self.location)
        if not here:
            return "You are in the middle of a room. Looking quickly around you, you see nothing."
        names = self.world.names
        facing = [names[r] for r in here]
        facing = facing[0] if len(facing) == 1 else ", ".join(facing[:-1]) + ", and " + facing[-1]
        floor = [
            names[o]
            for o, place in sorted(self.near.items())
            if place == self.location
            for r in here
            if (o, r) in self.left
        ]
        return f"You are facing the {facing}. Next to it, you see {_listing(floor)}."

    # -- the goal and the way to it ------------------------------------------------------------------------------

    def _holds(self, fact: tuple[str, ...]) -> bool:
        predicate, *arguments = fact
        if predicate == "inreceptacle":
            return self.where.get(arguments[0]) == arguments[1]
        if predicate == "holds":
            return self.held == arguments[1]
        if predicate == "atlocation":
            return self.location == arguments[1]
        return arguments[0] in self.props[predicate]

    def _goal_holds(self) -> bool:
        return all(any(all(map(self._holds, b)) for b in bindings) for bindings in self.world.conditions)

    def _check(self):
        self.won = self._goal_holds()

    def oracle_distance(self) -> int | None:
        """Fewest actions from here to the goal with full knowledge; None if the goal cannot be reached."""
        plan = self._best_plan()
        return None if plan is None else len(plan)

    def plan(self) -> list[str] | None:
        """A shortest list of commands from here to the goal with full knowledge; None if there is none."""
        plan = self._best_plan()
        return None if plan is None else [self._command(step) for step in plan]

    def _command(self, step: tuple[str, ...]) -> str:
        verb, *arguments = step
        words = [self.world.names[a] for a in arguments]
        joint = {"take": " from ", "move": " to ", "clean": " with ", "heat": " with ", "cool": " with "}.get(verb, "")
        return f"{'go to' if verb == 'go' else verb} {joint.join(words)}"

    def _best_plan(self) -> list[tuple[str, ...]] | None:
        """Every way of meeting the goal is a short sequence of legs (drop what is held, fetch, treat, put): with full
        knowledge nothing else ever shortens a plan, so the shortest of all sequences is exact."""
        if self.won:
            return []
        best = None
        for combination in itertools.product(*self.world.conditions):
            facts = [fact for binding in combination for fact in binding]
            target = {f[1]: f[2] for f in facts if f[0] == "inreceptacle" and f[1] in self.world.pickupable}
            hold = next((f[2] for f in facts if f[0] == "holds"), None)
            place = next((f[2] for f in facts if f[0] == "atlocation"), None)
            fixed = [f for f in facts if f[0] == "inreceptacle" and f[1] not in self.world.pickupable]
            if not all(map(self._holds, fixed)):
                continue
            lamps = [f[1] for f in facts if f[0] == "istoggled" and not self._holds(f)]
            needs = defaultdict(list)
            for f in facts:
                if f[0] in PROCESSES and not self._holds(f):
                    needs[f[1]].append(f[0])
            if any(f[0] == "issliced" and not self._holds(f) for f in facts):
                continue  # slicing is left to the completed engine; such goals have no oracle yet
            todo = [o for o in target if self.where.get(o) != target[o] or needs[o]]
            for order in itertools.permutations(todo):
                if self.held in order and order[0] != self.held:
                    continue
                first = hold if hold is not None else (order[0] if order else None)
                for start in self._free_hands(first):
                    plan = self._legs(start, order, target, needs, hold, place, lamps, best)
                    if plan is not None and (best is None or len(plan) < len(best)):
                        best = plan
        return best

    def _free_hands(self, wanted):
        """(steps, location, opened, held) after putting down what is in the way; one entry if nothing is."""
        if self.held is None or self.held == wanted:
            yield [], self.location, self.opened, self.held
            return
        for r in self.world.receptacles:
            if self.held in self.world.accepts[r]:
                steps: list = []
                location, opened = self._approach(steps, self.location, self.opened, r)
                yield [*steps, ("move", self.held, r)], location, opened, None

    def _approach(self, steps, location, opened, receptacle, inside=True):
        if self.world.place[receptacle] != location:
            steps.append(("go", receptacle))
            location = self.world.place[receptacle]
        if inside and receptacle in self.world.openable and receptacle not in opened:
            steps.append(("open", receptacle))
            opened = opened | {receptacle}
        return location, opened

    def _legs(self, start, order, target, needs, hold, place, lamps, best):
        world = self.world
        steps, location, opened, held = list(start[0]), *start[1:]
        for object_ in order if hold is None else [hold]:
            if held != object_:
                source = self.where.get(object_)
                if source is None:
                    return None
                location, opened = self._approach(steps, location, opened, source)
                steps.append(("take", object_, source))
                held = object_
            for prop in needs[object_]:
                verb, able, _ = PROCESSES[prop]
                if object_ not in world.can_be[able] or not world.does[prop]:
                    return None
                final = world.place[target[object_]] if object_ in target else None
                # among several sinks, one where the agent stands or where it must go anyway saves a step
                r = min(world.does[prop], key=lambda r: (world.place[r] != location) + (world.place[r] != final))
                location, _ = self._approach(steps, location, opened, r, inside=False)
                steps.append((verb, object_, r))
            if hold is None:
                if object_ not in world.accepts[target[object_]]:
                    return None
                location, opened = self._approach(steps, location, opened, target[object_])
                steps.append(("move", object_, target[object_]))
                held = None
            if best is not None and len(steps) >= len(best):
                return None
        if place is not None and place != location:
            if place not in world.at:
                return None
            steps.append(("go", world.at[place][0]))
        return steps + [("use", lamp) for lamp in lamps]
