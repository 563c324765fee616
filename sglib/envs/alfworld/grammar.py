"""What a `game.tw-pddl` says about its own language: the domain's actions and the grammar's texts, checked and read.

The fast engine knows the *meaning* of the actions of the domain that alfworld ships; it refuses a game whose actions
mean something else. The *words* come from the game's own grammar, so that every release of the data plays as its
authors wrote it: "put mug 1 in/on desk 1" and "You arrive at loc 6." (2.1.1), `help` in one line (2.1.2), `move` (now).
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from sglib.envs.alfworld.games import shipped


class UnsupportedGame(ValueError):
    """The game uses a construct that this engine does not know; it refuses rather than play it wrongly."""


# -- s-expressions and the domain -----------------------------------------------------------------------------------


def parse_sexpr(text: str) -> list:
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
    if len(stack) != 1 or len(stack[0]) != 1 or not isinstance(stack[0][0], list):
        raise UnsupportedGame("problem: must be one expression in brackets")
    return stack[0][0]


def typed_names(words: list[str]) -> list[tuple[str, str]]:
    """["a", "b", "-", "t"] -> [("a", "t"), ("b", "t")]; what has no type is an "object", as in PDDL."""
    pairs, names, i = [], [], 0
    while i < len(words):
        if words[i] != "-":
            names.append(words[i])
        elif not names or i + 1 == len(words) or not isinstance(words[i + 1], str):
            raise UnsupportedGame(f"types: {' '.join(map(str, words[max(0, i - 1) : i + 2]))!r} names no type")
        else:
            i += 1
            pairs += [(name, words[i]) for name in names]
            names = []
        i += 1
    return pairs + [(name, "object") for name in names]


def _meaning(node):
    """An action in one form, however it is written: `and` and `or` flat, sorted and without repetitions, those of one
    part replaced by it, costs left out (they steer a planner and change nothing in the world)."""
    if isinstance(node, str):
        return node
    kind, parts = node[0] if node else None, []
    for child in map(_meaning, node):
        if child[:1] != ("increase",):
            parts += child[1:] if kind in ("and", "or") and child[:1] == (kind,) else [child]
    if kind not in ("and", "or"):
        return tuple(parts)
    parts = sorted(set(parts[1:]), key=repr)
    return parts[0] if len(parts) == 1 else (kind, *parts)


def _replaced(node, old: tuple, new: tuple):
    if node == old:
        return new
    return tuple(_replaced(child, old, new) for child in node) if isinstance(node, tuple) else node


_MAKERS = {"isclean": {"sinkbasintype"}, "ishot": {"microwavetype"}, "iscool": {"fridgetype"}}


@dataclass(frozen=True)
class Domain:
    """Actions by name (nested tuples, see `_meaning`), predicates (name -> types of its arguments), types.

    `makers`: property -> types of the receptacles that give it.
    """

    actions: dict[str, tuple]
    predicates: dict[str, tuple[str, ...]]
    types: frozenset[str]
    makers: Mapping[str, set[str]]


@functools.lru_cache(maxsize=16)
def _parse_domain(text: str) -> Domain:
    expression = parse_sexpr(text)
    if expression[:2] != ["define", ["domain", "alfred"]]:
        raise UnsupportedGame(f"domain: begins with {expression[:2]}, expected (define (domain alfred) ...")
    actions, predicates, types, kind = {}, {}, [], None
    try:
        for section in expression[2:]:
            kind = section[0] if isinstance(section, list) and section else section
            if kind == ":action":
                actions[section[1]] = _meaning(section[2:])
            elif kind == ":predicates":
                predicates = {p[0]: tuple(t for _, t in typed_names(p[1:])) for p in section[1:]}
            elif kind == ":types":
                types = frozenset(section[1:])
            elif kind not in (":requirements", ":functions"):
                raise UnsupportedGame(f"domain: section {kind!r} is not supported")
    except (TypeError, IndexError, RecursionError) as error:
        raise UnsupportedGame(f"domain: section {str(kind)[:60]!r} is not written as in PDDL") from error
    return Domain(actions, predicates, frozenset(types), _MAKERS)


_BASIN, _SINK = (("receptacletype", "?r", kind) for kind in ("sinkbasintype", "sinktype"))


@functools.lru_cache(maxsize=16)
def read_domain(text: str | None = None) -> Domain:
    """The domain of a game; None for the one that alfworld ships. Actions may be missing (data 2.1.1 has no `help`).

    In the published data, things are cleaned in a receptacle of SinkType, too; in the shipped domain that line is a
    comment. `UnsupportedGame` names any other action, predicate or type that differs from the shipped domain's.
    """
    known = _parse_domain(shipped("alfred.pddl"))
    if text is None:
        return known
    domain = _parse_domain(text)
    for name, action in domain.actions.items():
        if name not in known.actions:
            raise UnsupportedGame(f"domain: unknown action {name!r}")
        if name == "cleanobject" and action == _meaning(_replaced(known.actions[name], _BASIN, ("or", _BASIN, _SINK))):
            domain = replace(domain, makers={**_MAKERS, "isclean": {_BASIN[2], _SINK[2]}})
        elif action != known.actions[name]:
            raise UnsupportedGame(f"domain: action {name!r} differs from the one that alfworld ships")
    for name, types in domain.predicates.items():
        if known.predicates.get(name, types) != types:
            raise UnsupportedGame(f"domain: predicate {name!r} differs from the one that alfworld ships")
    if domain.types != known.types:
        raise UnsupportedGame(f"domain: types {sorted(domain.types ^ known.types)} differ from alfworld's")
    return domain


# -- the grammar ----------------------------------------------------------------------------------------------------

_TASK = re.compile(r'("rhs"\s*:\s*"Your task is to: )(.*?)(\."\s*\})')
_TOKEN = re.compile(
    r'\s+|grammar\s*::\s*"""(?P<grammar>.*?)"""\s*;|action\s+(?P<action>[\w/-]+)\s*\{|(?P<end>\})'
    r'|(?P<key>template|feedback)\s*::\s*"(?P<value>[^"]*)"\s*;',
    re.S,
)
_SYMBOL = re.compile(r"(#[^#]+#|\[[^\]]*\]|\{[^}]*\})")
_FORBIDDEN = re.compile(r'[;|"<>\[\]#{}]')  # TextWorld's grammar takes none of these in plain text
_GO = "[{r.name | receptacleatlocation(r:receptacle, lend:location)}]"
_SELF = "#examineReceptacle.feedback#"
# rule -> symbols that its text may use; the text around them is the game's own
_FLAT = {
    "GotoLocation.feedback": {"{r.name}", "{lend.name}", _SELF},
    "OpenObject.feedback": {"{r.name}", _SELF},
    "CloseObject.feedback": {"{r.name}"},
    **dict.fromkeys(("PickupObject.feedback", "PutObject.feedback", "heatObject.feedback", "cleanObject.feedback",
                     "coolObject.feedback"), {"{o.name}", "{r.name}"}),
    "toggleObject.feedback": {"{o.name}"},
    "sliceObject.feedback": {"{co.name}", "{ko.name}"},
    **dict.fromkeys(("task", "help.feedback", "list_empty", "list_separator", "list_last_separator"), set()),
}  # fmt: skip
# rules whose conditions and symbols must be the shipped ones, in that order
_FIXED = ("intro", "inventory.feedback", "examineReceptacle.feedback", "examineObject.feedback", "look.feedback",
          "look-variations", "list_objects_on_the_floor", "list_appliances", "overview(o)", "overview(r)")  # fmt: skip
Parts = tuple[str, ...]  # text, symbol, text, symbol, ..., text

# the variables of each action's command, in the order in which the engine hands them round
VARIABLES = {
    **dict.fromkeys(("gotolocation", "openobject", "closeobject", "examinereceptacle"), ("r",)),
    **dict.fromkeys(("pickupobject", "putobject", "cleanobject", "heatobject", "coolobject"), ("o", "r")),
    **dict.fromkeys(("toggleobject", "examineobject"), ("o",)),
    "sliceobject": ("co", "ko"),
    **dict.fromkeys(("look", "inventory", "help"), ()),
}
# actions whose answer depends on the state by more than the names of what it was done with
_SEEING = {"examinereceptacle", "examineobject", "look", "inventory"}
CONTENT, PLACE = "\0", "\1"  # in an answer: what is seen in the receptacle, and the name of its place


@dataclass(frozen=True)
class Grammar:
    """The words of a game.

    Attributes:
        commands: action (lower case) -> (text, variable, text, variable, ..., text), e.g. "take ", "o", " from ", ....
        rules: rule -> its alternatives, each the parts of its text; the engine chooses among them.
        feedback: the rule of each action that answers it.
        readings: what commands that were met mean, see `read`; filled by the engine, for all games of this grammar.
    """

    commands: dict[str, Parts]
    rules: dict[str, tuple[Parts, ...]]
    feedback: dict[str, str]
    readings: dict[str, list[tuple]] = field(default_factory=dict, repr=False, compare=False)

    @functools.cached_property
    def formats(self) -> dict[str, tuple[str, bool]]:
        """Action -> its command as a %-format, and whether its two names stand in the other order than `VARIABLES`."""
        found = {}
        for action, parts in self.commands.items():
            text = "".join("%s" if i % 2 else part.replace("%", "%%") for i, part in enumerate(parts))
            found[action] = (text, len(parts) == 5 and action in VARIABLES and parts[1] != VARIABLES[action][0])
        return found

    @functools.cached_property
    def by_word(self) -> dict[str, list[str]]:
        """First word of a command -> the actions that it can begin; "" for those that begin with a name."""
        found: dict[str, list[str]] = {}
        for action, parts in self.commands.items():
            word, blank, _ = parts[0].partition(" ")
            found.setdefault(word if blank or len(parts) == 1 else "", []).append(action)
        return found

    def read(self, command: str) -> list[tuple[str, tuple[str, ...], str | None]]:
        """What a command could mean by its wording: (action, names in the order of `VARIABLES`, answer if it works).

        Whether things of these names are there is for the game to say. The answer is None where the state decides it.
        """
        found = []
        for action in (*self.by_word.get(command.partition(" ")[0], ()), *self.by_word.get("", ())):
            parts = self.commands[action]
            if action not in VARIABLES or not (command.startswith(parts[0]) and command.endswith(parts[-1])):
                continue
            body = command[len(parts[0]) : len(command) - len(parts[-1])]
            if len(parts) == 1:
                names = () if command == parts[0] else None
            elif len(parts) == 3:
                names = (body,)
            else:
                first, between, second = body.partition(parts[2])
                names = ((first, second) if parts[1] == VARIABLES[action][0] else (second, first)) if between else None
            if names is not None:
                values = {f"{{{variable}.name}}": name for variable, name in zip(VARIABLES[action], names)}
                values |= {"{lend.name}": PLACE, _SELF: CONTENT}
                found.append((action, names, None if action in _SEEING else self.say(self.feedback[action], values)))
        return found

    def say(self, rule: str, values: Mapping[str, str], alternative: int = 0) -> str:
        """The text of a rule's alternative, its symbols replaced; `values` maps symbols such as "{o.name}" to text."""
        parts = self.rules[rule][alternative]
        return "".join([values[part] if i % 2 else part for i, part in enumerate(parts)])

    def tell(self, rule: str, things: str, name: str = "", alternative: int = 0) -> str:
        """As `say`, with `things` where the rule has a list "[...]", and `name` for its other symbols."""
        parts = self.rules[rule][alternative]
        return "".join([(things if p[0] == "[" else name) if i % 2 else p for i, p in enumerate(parts)])

    def listing(self, things: list[str]) -> str:
        """ "a, b, and c" in the grammar's words."""
        if not things:
            return self.say("list_empty", {})
        if len(things) == 1:
            return things[0]
        return self.say("list_separator", {}).join(things[:-1]) + self.say("list_last_separator", {}) + things[-1]


def _split(rule: str, text: str) -> Parts:
    parts = tuple(_SYMBOL.split(text))
    for i in range(0, len(parts), 2):
        if found := _FORBIDDEN.search(parts[i]):
            raise UnsupportedGame(f"grammar: rule {rule!r} has {found.group()!r} in its text")
    return (parts[0].lstrip(), *parts[1:])  # the reference drops blanks in front


def _blocks(text: str) -> tuple[dict[str, list[dict]], dict[str, dict[str, str]]]:
    """(rules, actions) of a grammar's text; later rules of a name replace earlier ones, as in the reference."""
    rules: dict[str, list[dict]] = {}
    actions: dict[str, dict[str, str]] = {}
    current, at = None, 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise UnsupportedGame(f"grammar: cannot be read at {text[at : at + 40]!r}")
        at = found.end()
        if found["grammar"] is not None:
            try:
                rules.update(json.loads(found["grammar"]))
            except ValueError as error:
                raise UnsupportedGame(f"grammar: rules are not JSON: {error}") from None
        elif found["action"]:
            current = actions.setdefault(found["action"].lower(), {})
        elif found["key"] and current is not None:
            current[found["key"]] = found["value"]
        elif found["end"]:
            current = None
    return rules, actions


def _alternatives(rules: dict, name: str) -> list[tuple[str, Parts]]:
    if name not in rules:
        raise UnsupportedGame(f"grammar: rule {name!r} is missing")
    try:
        return [("".join(rule.get("condition", "").split()), _split(name, rule["rhs"])) for rule in rules[name]]
    except (AttributeError, KeyError, TypeError) as error:
        raise UnsupportedGame(f"grammar: rule {name!r} is broken: {error!r}") from None


@functools.lru_cache(maxsize=16)
def _parse_grammar(text: str) -> Grammar:
    rules, actions = _blocks(text)
    known_rules, known_actions = _blocks(shipped("alfred.twl2"))
    read: dict[str, tuple[Parts, ...]] = {}
    for name in (*_FLAT, *_FIXED):
        if name == "help.feedback" and name not in rules:
            continue
        mine, known = _alternatives(rules, name), _alternatives(known_rules, name)
        if [condition for condition, _ in mine] != [condition for condition, _ in known]:
            raise UnsupportedGame(f"grammar: rule {name!r} has other conditions than alfworld's")
        for (_, parts), (_, expected) in zip(mine, known):
            symbols = parts[1::2]
            if not set(symbols) <= _FLAT[name] if name in _FLAT else symbols != expected[1::2]:
                raise UnsupportedGame(f"grammar: rule {name!r} uses the symbols {symbols}")
        read[name] = tuple(parts for _, parts in mine)
    commands, feedback = {}, {}
    for name, action in actions.items():
        if name not in known_actions:
            raise UnsupportedGame(f"grammar: unknown action {name!r}")
        if not {"template", "feedback"} <= action.keys():
            raise UnsupportedGame(f"grammar: action {name!r} lacks its template or feedback")
        template = action["template"].replace(_GO, "{r}")
        variables = re.findall(r"\{(\w+)\}", template)
        expected = re.findall(r"\{(\w+)\}", known_actions[name]["template"].replace(_GO, "{r}"))
        parts = re.split(r"\{\w+\}", template)
        if sorted(variables) != sorted(expected) or any(_FORBIDDEN.search(part) for part in parts):
            raise UnsupportedGame(f"grammar: action {name!r} has the template {action['template']!r}")
        commands[name] = tuple(x for pair in zip(parts, variables) for x in pair) + (parts[-1],)
        rule = action["feedback"]
        if rule == known_actions[name]["feedback"]:
            feedback[name] = rule.strip("#")
        elif name == "help" and not _SYMBOL.search(rule):  # data 2.1.2: the text itself instead of a rule
            read["help.feedback"], feedback[name] = (_split("help", rule),), "help.feedback"
        else:
            raise UnsupportedGame(f"grammar: action {name!r} answers by {rule[:60]!r}")
    return Grammar(commands, read, feedback)


def read_grammar(text: str | None, goal: str) -> tuple[Grammar, str]:
    """The words of a game and its task sentence (without the full stop): of its grammar's `text`; None takes the one
    that alfworld ships, with the task sentence `goal`."""
    if text is None:
        text = shipped("alfred.twl2")
    else:
        tasks = _TASK.findall(text)
        if len(tasks) != 1:
            raise UnsupportedGame(f'grammar: {len(tasks)} task sentences ("Your task is to: ..."), expected one')
        goal = tasks[0][1]
        text = _TASK.sub(r"\1UNKNOWN GOAL\3", text)  # as in the shipped one: one parse for a whole data release
    if _FORBIDDEN.search(goal) or "\\" in goal:
        raise UnsupportedGame(f"grammar: the task sentence {goal!r} has a sign that the grammar reads as its own")
    return _parse_grammar(text), goal
