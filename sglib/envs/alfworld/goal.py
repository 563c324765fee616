"""A goal in PDDL, made into sets of facts: any of the sets wins.

What can never change is decided here, once; what is left is what the agent can bring about.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable

from sglib.envs.alfworld.grammar import Domain, UnsupportedGame, typed_names

Fact = tuple[str, ...]

DYNAMIC = {"inreceptacle", "isclean", "ishot", "iscool", "issliced", "istoggled", "holds", "atlocation"}
# change as the agent acts, but no goal of alfworld's library is about them
_UNTRACKED = {"opened", "checked", "examined", "ison", "holdsany", "objectatlocation", "holdsanyreceptacleobject",
              "isreceptacleobjectfull", "full", "wasinreceptacle"}  # fmt: skip
MAX_BINDINGS = 20_000


class Goal:
    """Grounds a goal: a list of bindings, each a set of changeable facts that must hold together; any will do."""

    def __init__(self, objects: dict[str, str], facts: dict[str, list[Fact]], domain: Domain):
        self.objects, self.facts, self.domain = objects, facts, domain
        self.static = {p: set(rows) for p, rows in facts.items() if p not in DYNAMIC}
        self.of_type = defaultdict(list)
        for name in sorted(objects):
            self.of_type[objects[name]].append(name)
        self.of_type["object"] = sorted(objects)

    def ground(self, goal) -> list[frozenset[Fact]]:
        variables, literals = {}, []
        flat = self._flatten(goal, variables, literals)
        bindings = self._join(variables, literals) if flat else self._expand(goal, {})
        unique = sorted(dict.fromkeys(bindings), key=len)
        return unique[:1] if unique and not unique[0] else unique  # nothing to do is enough

    def _flatten(self, node, variables: dict[str, str], literals: list) -> bool:
        """Collect a goal made of `and` and `exists` only; False where it has more, or uses a variable's name twice."""
        kind = self._kind(node)
        if kind == "exists":
            new = self._variables(node)
            # the same name in two quantifiers means two things, unless both are the agent
            if any(v in variables and not variables[v] == t == "agent" for v, t in new.items()):
                return False
            variables.update(new)
            return self._flatten(node[2], variables, literals)
        if kind == "and":
            return all(self._flatten(child, variables, literals) for child in node[1:])
        if kind == "literal" or (kind == "not" and self._kind(node[1]) == "literal"):
            literals.append(node)
            return True
        return False

    def _kind(self, node) -> str:
        if not isinstance(node, list) or not node or not isinstance(node[0], str):
            raise UnsupportedGame(f"goal: {node!r} is not an expression")
        kind, size = node[0], {"exists": 3, "forall": 3, "not": 2, "imply": 3}.get(node[0])
        if size is not None and len(node) != size:
            raise UnsupportedGame(f"goal: ({kind} ...) has {len(node) - 1} parts")
        if kind in ("and", "or", "exists", "forall", "not", "imply"):
            return kind
        if kind == "=" and len(node) == 3:
            return "literal"
        types = self.domain.predicates.get(kind)
        if types is None or len(types) != len(node) - 1 or not all(isinstance(word, str) for word in node):
            raise UnsupportedGame(f"goal: unknown construct {kind!r}")
        if kind in _UNTRACKED:
            raise UnsupportedGame(f"goal: predicate {kind!r} is not supported")
        return "literal"

    def _variables(self, node) -> dict[str, str]:
        if not isinstance(node[1], list) or not all(isinstance(word, str) for word in node[1]):
            raise UnsupportedGame(f"goal: ({node[0]} ...) names no variables")
        variables = dict(typed_names(node[1]))
        if unknown := set(variables.values()) - self.domain.types:
            raise UnsupportedGame(f"goal: unknown type {min(unknown)!r}")
        return variables

    def _join(self, variables: dict[str, str], literals: list) -> list[frozenset[Fact]]:
        """Bindings of a conjunction: static facts joined one by one, then what is left free, then `not`."""
        for literal in literals:
            for word in (literal[1] if literal[0] == "not" else literal)[1:]:
                self._check_word(word, variables)
        plain = [x for x in literals if x[0] not in ("not", "=")]
        checks = [x for x in literals if x[0] in ("not", "=")]
        partial: list[dict[str, str]] = [{}]
        for predicate, *words in (x for x in plain if x[0] not in DYNAMIC):
            rows = sorted(self.facts.get(predicate, ()))
            rows = [found for row in rows if (found := self._unify(words, row, variables)) is not None]
            partial = [a | b for a in partial for b in rows if all(a.get(word, x) == x for word, x in b.items())]
            self._limit(len(partial))
        dynamic = [x for x in plain if x[0] in DYNAMIC]
        used = {w for x in (*dynamic, *checks) for w in (x[1] if x[0] == "not" else x)[1:] if w[0] == "?"}
        for variable in sorted(variables):
            if partial and variable not in partial[0]:
                candidates = self.of_type[variables[variable]]
                if variable not in used:  # must exist, whoever it is
                    partial = partial if candidates else []
                    continue
                self._limit(len(partial) * len(candidates))
                partial = [{**binding, variable: c} for binding in partial for c in candidates]
        return [
            frozenset((p, *(binding.get(w, w) for w in words)) for p, *words in dynamic)
            for binding in partial
            if all(self._literal(check, binding) == [frozenset()] for check in checks)
        ]

    def _unify(self, words: list[str], row: Fact, variables: dict[str, str]) -> dict[str, str] | None:
        """What a static fact says about a literal's words: word -> object, None where they do not fit."""
        found: dict[str, str] = {}
        for word, value in zip(words, row):
            fits = variables[word] in ("object", self.objects[value]) if word[0] == "?" else word == value
            if not fits or found.setdefault(word, value) != value:
                return None
        return found

    def _check_word(self, word: str, known):
        if word[0] == "?" and word not in known:
            raise UnsupportedGame(f"goal: the variable {word!r} is not introduced")
        if word[0] != "?" and word not in self.objects:
            raise UnsupportedGame(f"goal: {word!r} is used but not declared")

    @staticmethod
    def _limit(size: int):
        if size > MAX_BINDINGS:
            raise UnsupportedGame(f"goal: more than {MAX_BINDINGS} ways to meet it")

    def _literal(self, node, binding: dict[str, str]) -> list[frozenset[Fact]]:
        """[] where a literal is false for good, [empty set] where it is true for good, else the fact it asks for."""
        if node[0] == "not":
            inner = self._literal(node[1], binding)
            if inner and inner[0]:
                raise UnsupportedGame(f"goal: 'not' before {node[1][0]!r} is not supported")
            return [] if inner else [frozenset()]
        predicate, *words = node
        for word in words:
            self._check_word(word, binding)
        values = tuple(binding.get(w, w) for w in words)
        if predicate == "=":
            return [frozenset()] if values[0] == values[1] else []
        if predicate in DYNAMIC:
            return [frozenset({(predicate, *values)})]
        return [frozenset()] if values in self.static.get(predicate, ()) else []

    def _expand(self, node, binding: dict[str, str]) -> list[frozenset[Fact]]:
        """Any goal by going through all objects: `or`, `forall`, `imply` and nested variables of one name."""
        kind = self._kind(node)
        if kind == "literal" or (kind == "not" and self._kind(node[1]) == "literal"):
            return self._literal(node, binding)
        if kind == "and":
            return self._all(self._expand(child, binding) for child in node[1:])
        if kind == "or":
            return self._any(self._expand(child, binding) for child in node[1:])
        if kind == "imply":
            return self._any([self._expand(["not", node[1]], binding), self._expand(node[2], binding)])
        if kind == "not":
            of, *parts = node[1]
            flipped = {"and": "or", "or": "and", "exists": "forall", "forall": "exists", "imply": "and"}.get(of)
            if flipped is None:  # not not
                return self._expand(parts[0], binding)
            kept = 0 if of in ("and", "or") else 1  # the variables, or a of "not (a implies b)"
            return self._expand([flipped, *parts[:kept], *(["not", part] for part in parts[kept:])], binding)
        variables = self._variables(node)
        choices = itertools.product(*(self.of_type[t] for t in variables.values()))
        parts = (self._expand(node[2], {**binding, **dict(zip(variables, choice))}) for choice in choices)
        return self._any(parts) if kind == "exists" else self._all(parts)

    def _any(self, parts: Iterable[list[frozenset[Fact]]]) -> list[frozenset[Fact]]:
        found: dict[frozenset[Fact], None] = {}
        for part in parts:
            found.update(dict.fromkeys(part))
            self._limit(len(found))
        return [frozenset()] if frozenset() in found else list(found)

    def _all(self, parts: Iterable[list[frozenset[Fact]]]) -> list[frozenset[Fact]]:
        found: list[frozenset[Fact]] = [frozenset()]
        for part in parts:
            if not part:
                return []
            if part != [frozenset()]:
                self._limit(len(found) * len(part))
                found = list(dict.fromkeys(a | b for a in found for b in part))
        return found
