"""A game compiled: what never changes in it (names, places, types, the goal as sets of facts), read from its PDDL.

Only the game's own problem is read, as official files and generated ones state it. As in the reference, whose types all
descend from "object", a receptacle may stand where an object is expected, and is listed after the objects; other facts
of the wrong type mean nothing except that their names are counted.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable

from sglib.envs.alfworld.goal import Fact, Goal
from sglib.envs.alfworld.grammar import Domain, UnsupportedGame, parse_sexpr, read_domain, read_grammar, typed_names

# property -> (action that gives it, what the object must be)
PROCESSES = {
    "isclean": ("cleanobject", "cleanable"),
    "ishot": ("heatobject", "heatable"),
    "iscool": ("coolobject", "coolable"),
}
_NEEDED = {"knifetype", "butterknifetype", "sinkbasintype", "microwavetype", "fridgetype"}  # named by the actions
_CONSTANTS = _NEEDED | {"sinktype"}  # which only the published data's domain names, and which a problem may lack
# where an object is expected: what else the reference takes there, in the order of its lists
_TYPES = ("object", "agent", "location", "otype", "receptacle", "rtype")
_LOOSE = {"inreceptacle", "inreceptacleobject", "objectatlocation", "wasinreceptacle"}


def names_of(ids: Iterable[str]) -> dict[str, str]:
    """alfworld's `Demangler`: per class, ids sorted, numbered downwards; an id without "_bar_" ends with a blank."""
    names: dict[str, str] = {}
    classes: dict[str, list[str]] = {}
    for id_ in sorted(ids):
        head, bar, _ = id_.partition("_bar_")
        if bar:
            classes.setdefault(f"{head}basin" if "basin" in id_ else head, []).append(id_)
        else:
            for word, sign in (("_minus_", "-"), ("_plus_", "+"), ("_dot_", "."), ("_comma_", ",")):
                head = head.replace(word, sign)
            names[id_] = f"{head} "
    for head, members in classes.items():
        for number, id_ in zip(range(len(members), 0, -1), members):
            names[id_] = f"{head} {number}"
    return names


# -- reading the problem --------------------------------------------------------------------------------------------


def read_problem(text: str) -> tuple[dict[str, str], list[list[str]], list]:
    """(object -> type, initial facts, goal) of a PDDL problem, in lower case."""
    found, rest = {}, []
    for section in parse_sexpr(text):
        if isinstance(section, list) and section and section[0] in (":objects", ":init"):
            found[section[0]] = section[1:]
        else:
            rest.append(section)
    for name in (":objects", ":init"):
        if name not in found:
            raise UnsupportedGame(f"problem: section {name!r} is missing")
    if not all(isinstance(word, str) for word in found[":objects"]):
        raise UnsupportedGame("problem: (:objects ...) holds something in brackets")
    facts = []
    for fact in found[":init"]:
        if not isinstance(fact, list) or not fact:
            raise UnsupportedGame(f"problem: the initial fact {fact!r} is not in brackets")
        if fact[0] == "=" and len(fact) == 3 and isinstance(fact[1], list) and str(fact[2]).isdigit():
            continue  # costs and distances: nothing that an agent can see
        if fact[0] in ("not", "=") or not all(isinstance(word, str) for word in fact):
            raise UnsupportedGame(f"problem: the initial fact ({' '.join(map(str, fact))}) is not supported")
        facts.append(fact)
    objects: dict[str, str] = {}
    for name, type_ in typed_names(found[":objects"]):
        if name in objects:
            raise UnsupportedGame(f"problem: the object {name!r} is declared twice")
        objects[name] = type_
    goal = None
    if rest[:1] != ["define"] or len(rest) < 2 or rest[1][:1] != ["problem"]:
        raise UnsupportedGame("problem: must be (define (problem ...) (:domain alfred) (:objects ...) ...)")
    for section in rest[2:]:
        if section == [":domain", "alfred"] or section[:1] in ([":requirements"], [":metric"]):
            continue
        if section[:1] != [":goal"] or len(section) != 2 or goal is not None:
            raise UnsupportedGame(f"problem: section '{' '.join(map(str, section))[:60]}' is not supported")
        goal = section[1]
    if goal is None:
        raise UnsupportedGame("problem: section ':goal' is missing")
    return objects, facts, goal


def _group(rows: list[list[str]], objects: dict[str, str], domain: Domain) -> tuple[dict[str, list[Fact]], set[str]]:
    """(predicate -> facts whose arguments have the right types, every name that any fact mentions)."""
    grouped: dict[str, list[list[str]]] = defaultdict(list)
    for predicate, *arguments in rows:
        grouped[predicate].append(arguments)
    of_type = defaultdict(set)
    for name, type_ in objects.items():
        of_type[type_].add(name)
    facts: dict[str, list[Fact]] = defaultdict(list)
    mentioned: set[str] = set()
    for predicate, group in grouped.items():
        types = domain.predicates.get(predicate)
        if types is None:
            raise UnsupportedGame(f"problem: unknown predicate {predicate!r}")
        if set(map(len, group)) != {len(types)}:
            raise UnsupportedGame(f"problem: predicate {predicate!r} takes {len(types)} arguments")
        columns = [set(column) for column in zip(*group)]
        for column, type_ in zip(columns, types):
            mentioned |= column
            if column <= of_type[type_]:
                continue
            if type_ == "object":
                if predicate not in _LOOSE and (other := column & objects.keys() - of_type["object"]):
                    raise UnsupportedGame(f"problem: {predicate} of {min(other)!r}, which is no object")
            else:
                # variables have types, but what an action names is found whatever it is declared as: official files
                # have "SinkType - otype"
                free = _CONSTANTS if predicate in ("receptacletype", "objecttype") else ()
                fits = [[t in ("object", objects.get(n)) or n in free for n, t in zip(row, types)] for row in group]
                group = [row for row, fit in zip(group, fits) if all(fit)]
        facts[predicate] = list(dict.fromkeys(map(tuple, group)))  # canContain is stated once per receptacle
    if unknown := mentioned - objects.keys():
        raise UnsupportedGame(f"problem: {min(unknown)!r} is used but not declared")
    if unknown := set(objects.values()) - domain.types:
        raise UnsupportedGame(f"problem: unknown type {min(unknown)!r}")
    if missing := _NEEDED - objects.keys():
        raise UnsupportedGame(f"problem: {min(missing)!r} is not declared, which the domain's actions name")
    return facts, mentioned


# -- the world ------------------------------------------------------------------------------------------------------


class World:
    """What never changes in a game. (Slots: with that many attributes, Python would keep a dictionary of its own for
    each of a thousand worlds.)

    Attributes:
        names, ids: id -> name as the player reads it, and back.
        receptacles: those that can be gone to, sorted by id; `place`: where each is; `at`: what is at a place.
        bindings: the goal: sorted facts, any set of which wins (`sets` has the same as sets).
        relevant: every fact that the goal asks for; `fixed`: those of them that nothing can change.
        initial: the facts at the start, by predicate, until the engine has made its first state of them (`start`).
        grammar, goal_text: the words of the game, and its task sentence.
    """

    __slots__ = (
        "_all_go", "_go", "accepts", "actions", "agent", "always", "asking", "at", "bindings", "can_be",
        "choices", "commands", "distances", "does", "fixed", "goal_places", "goal_text", "grammar", "holder", "ids",
        "initial", "inner", "knives", "names", "openable", "order", "pickupable", "place", "receptacles",
        "relevant", "sets", "sliceable", "start", "texts", "toggleable", "wanted",
    )  # fmt: skip

    def __init__(self, problem: str, goal: str, grammar: str | None = None, domain: str | None = None):
        rules = read_domain(domain)
        self.actions = frozenset(rules.actions)
        self.grammar, self.goal_text = read_grammar(grammar, goal)
        if missing := self.actions - self.grammar.commands.keys():
            raise UnsupportedGame(f"grammar: action {min(missing)!r} has no command")
        objects, rows, goal_expression = read_problem(problem)
        facts, mentioned = _group(rows, objects, rules)
        self.initial = facts
        agents = [name for name, type_ in objects.items() if type_ == "agent"]
        if len(agents) != 1:
            raise UnsupportedGame(f"problem: {len(agents)} agents, expected one")
        if len(facts["atlocation"]) != 1:
            raise UnsupportedGame(f"atLocation: the agent is at {len(facts['atlocation'])} places, expected one")
        if len(facts["holds"]) > 1 or len(facts["holds"]) != len(facts["holdsany"]):
            raise UnsupportedGame("holds: the agent holds several things, or holds and holdsAny disagree")
        self.agent = agents[0]
        self.names = names_of(mentioned)
        self.ids = {name: id_ for id_, name in self.names.items()}
        one = {p: {row[0] for row in facts[p]} for p in
               ("openable", "pickupable", "cleanable", "heatable", "coolable", "toggleable", "sliceable",
                "isreceptacleobject")}  # fmt: skip
        self.openable, self.pickupable, self.toggleable = one["openable"], one["pickupable"], one["toggleable"]
        self.sliceable, self.holder = one["sliceable"], one["isreceptacleobject"]
        self.can_be = {able: one[able] for _, able in PROCESSES.values()}
        self.place: dict[str, str] = {}
        for receptacle, location in facts["receptacleatlocation"]:
            if receptacle in self.place:
                raise UnsupportedGame(f"receptacleAtLocation: {receptacle} is at two places")
            self.place[receptacle] = location
        self.receptacles = sorted(self.place)
        at: dict[str, list[str]] = defaultdict(list)
        for receptacle in self.receptacles:
            at[self.place[receptacle]].append(receptacle)
        self.at = dict(at)
        # the order of lists: by id; things of another type than "object" come last
        self.order = None
        if any(objects[fact[0]] != "object" for p in ("inreceptacle", "inreceptacleobject") for fact in facts[p]):
            self.order = lambda name: (_TYPES.index(objects[name]), name)
        self.inner: dict[str, list[str]] = defaultdict(list)
        for inside, outside in facts["inreceptacleobject"]:
            if inside != outside:
                self.inner[outside].append(inside)
        for things in self.inner.values():
            things.sort(key=self.order)
        self._compile_types(rules)
        self.sets = Goal(objects, facts, rules).ground(goal_expression)
        self.bindings = [tuple(sorted(binding)) for binding in self.sets]
        self.relevant = frozenset().union(*self.sets)
        # facts of the goal that nothing can change (a lamp that stays where it is) are no conditions to be met
        self.fixed = frozenset(f for f in self.relevant if f[0] == "inreceptacle" and f[1] not in self.pickupable)
        self.goal_places = frozenset(f[2] for f in self.relevant if f[0] == "atlocation")
        self.always = [self.command(action) for action in ("look", "inventory", "help") if action in self.actions]
        # each fact that can change -> the bindings that ask for it, with the number of such facts in them
        self.asking: dict[Fact | None, list[tuple[frozenset[Fact], int]]] = defaultdict(list)
        for binding in self.sets:
            for fact in (changeable := binding - self.fixed) or (None,):
                self.asking[fact].append((binding, len(changeable)))
        # filled by the engine as the game is played: the first state, commands, texts, lists of admissible commands
        self.start: tuple | None = None
        self.commands: dict[str, list[tuple]] = {}
        self.texts: dict[tuple, str] = {}
        self.choices: dict[tuple, tuple[str, ...]] = {}
        # distances, filled by the oracle, and the objects whose whereabouts they depend on
        self.distances: dict[tuple, int | None] = {}
        named = {f[2] if f[0] == "holds" else f[1] for f in self.relevant if f[0] != "atlocation"}
        self.wanted = sorted(named | self.knives)
        self._go: dict[str, list[str]] = {}
        self._all_go = sorted((self.command("gotolocation", r), self.place[r]) for r in self.receptacles)

    def _compile_types(self, rules: Domain):
        facts = self.initial
        types: dict[str, tuple[str, ...]] = defaultdict(tuple)
        for receptacle, type_ in facts["receptacletype"]:
            types[receptacle] += (type_,)
        self.does = {  # property -> receptacles that give it
            prop: [r for r in self.receptacles if not rules.makers[prop].isdisjoint(types[r])] for prop in PROCESSES
        }
        of_type: dict[str, set[str]] = defaultdict(set)
        for object_, type_ in facts["objecttype"]:
            of_type[type_].add(object_)
        self.knives = of_type["knifetype"] | of_type["butterknifetype"]
        takes: dict[str, set[str]] = defaultdict(set)
        for rtype, otype in facts["cancontain"]:
            takes[rtype] |= of_type[otype]
        # receptacles of one type share one set
        shared = {kinds: takes[kinds[0]] if len(kinds) == 1 else set().union(*(takes[k] for k in kinds))
                  for kinds in {types[r] for r in self.receptacles}}  # fmt: skip
        self.accepts = {r: shared[types[r]] for r in self.receptacles}

    def command(self, action: str, *ids: str) -> str:
        """The command of an action in the game's words: ("pickupobject", mug, desk) -> "take mug 1 from desk 1"."""
        (text, swapped), names = self.grammar.formats[action], self.names
        return text % tuple([names[id_] for id_ in (reversed(ids) if swapped else ids)])

    def go_commands(self, location: str) -> list[str]:
        """Sorted commands that lead elsewhere."""
        if location not in self._go:
            self._go[location] = [command for command, place in self._all_go if place != location]
        return self._go[location]


@functools.lru_cache(maxsize=1024)
def world_of(problem: str, goal: str, grammar: str | None, domain: str | None) -> World:
    """`World`, compiled once per game: keyed by the texts, so that a group playing one game shares it."""
    return World(problem, goal, grammar, domain)
