"""Worlds of random facts, and questions that walk through them.

A world has people, cities, companies, universities, countries and films, and one short document of each. Facts are
drawn anew for every world, so that no answer can sit in a model's weights: its probability rises by what was found.
Names are shared on purpose (people of one surname, companies and films named after people and cities), some things are
called by another name in other documents, and some facts are written nowhere, which makes a question unanswerable.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sglib.envs.bm25 import Index

FIRST = [
    "Ada", "Ben", "Cora", "Dino", "Ella", "Finn", "Gita", "Hugo", "Ines", "Jon", "Kira", "Leo", "Mona", "Nils",
    "Olga", "Paul", "Rosa", "Sven", "Tara", "Yuri",
]  # fmt: skip
LAST = [
    "Adler", "Berg", "Costa", "Duval", "Ekman", "Frost", "Grau", "Holm", "Ivanov", "Jansen", "Klein", "Lund",
    "Moreau", "Novak", "Okoye", "Petrov", "Quist",
]  # fmt: skip
PLACES = [
    "Alden", "Brava", "Corvo", "Delmar", "Estra", "Fenwick", "Garda", "Halden", "Ilmar", "Jorvik", "Kelso",
    "Lorca", "Marno", "Nervi", "Olmo", "Pavia",
]  # fmt: skip
LANDS = ["Arvia", "Bolmen", "Caldor", "Dravia", "Eland", "Fardal"]
TRADES = ["Steel", "Foods", "Motors", "Press", "Glass", "Energy"]
SUBJECTS = ["Winter", "Letter", "Garden", "Bridge", "Island", "Mirror", "River", "Shadow"]
UNKNOWN = "unknown"  # the answer where a needed fact is written nowhere

# relation: (kind of its subject, kind of its object, how a document states it, how a question calls it)
RELATIONS = {
    "birthplace": ("person", "city", "{s} was born in {o}.", "birthplace"),
    "home": ("person", "city", "{s} lives in {o}.", "home city"),
    "employer": ("person", "company", "{s} works for {o}.", "employer"),
    "school": ("person", "university", "{s} studied at the {o}.", "university"),
    "mother": ("person", "person", "The mother of {s} is {o}.", "mother"),
    "spouse": ("person", "person", "{s} is married to {o}.", "spouse"),
    "seat": ("company", "city", "{s} has its headquarters in {o}.", "headquarters"),
    "founder": ("company", "person", "{s} was founded by {o}.", "founder"),
    "place": ("university", "city", "The {s} stands in {o}.", "location"),
    "country": ("city", "country", "{s} is a city in {o}.", "country"),
    "mayor": ("city", "person", "The mayor of {s} is {o}.", "mayor"),
    "capital": ("country", "city", "The capital of {s} is {o}.", "capital"),
    "leader": ("country", "person", "{s} is led by {o}.", "leader"),
    "director": ("film", "person", "{s} was directed by {o}.", "director"),
    "setting": ("film", "city", "{s} takes place in {o}.", "setting"),
}


@dataclass(frozen=True)
class Document:
    title: str
    text: str


class Corpus:
    """Documents that can be searched by BM25; see `Index`."""

    def __init__(self, documents: Sequence[Document], aliases: Mapping[str, str] | None = None):
        """`aliases`: other names of things, by title."""
        self.documents, self.aliases = list(documents), dict(aliases or {})
        self._index = Index([f"{d.title} {d.text}" for d in self.documents])

    def search(self, query: str, k: int) -> list[Document]:
        """The best `k` documents that have a word of the query; equal ones in the corpus's order."""
        return [self.documents[i] for i in self._index.search(query, k)]


@dataclass(frozen=True)
class Question:
    """A question over a corpus.

    Attributes:
        answers: the gold answers, at least one; the first is the one that is shown.
        gold: titles of the documents that answer it, in the order of its steps.
        world: (seed, number of people) of the drawn world that it is about; None where it was read from a file.
        corpus: what is searched; None makes the drawn world's.
    """

    id: str
    goal: str
    answers: tuple[str, ...]
    gold: tuple[str, ...]
    task_type: str = "1 step"
    world: tuple[str, int] | None = None
    corpus: Corpus | None = field(default=None, compare=False, repr=False)
    env: str = "search_qa"

    @property
    def origin(self) -> dict | None:
        if self.world is None:
            return None
        kept = {"goal": self.goal, "answers": self.answers, "gold": self.gold, "task_type": self.task_type}
        return {name: list(x) if isinstance(x, tuple) else x for name, x in kept.items()} | {"world": list(self.world)}

    def content(self) -> list:
        return [self.goal, list(self.answers), list(self.gold), self.world and list(self.world)]

    def documents(self) -> Corpus:
        """What is searched."""
        return self.corpus or world(*self.world).corpus


class World:
    """Facts drawn from a seed (any text), with their documents."""

    def __init__(self, seed: str, people: int):
        rng = random.Random(f"world {seed}")
        names = rng.sample([f"{a} {b}" for a in FIRST for b in LAST], people)
        self.things: dict[str, list[str]] = {
            "person": names,
            "city": rng.sample(PLACES, min(len(PLACES), max(4, people // 4))),
            "country": rng.sample(LANDS, 4),
        }
        surnames = sorted({name.split()[1] for name in names})
        called = [f"{n} {trade}" for n in (*surnames, *self.things["city"]) for trade in TRADES]
        self.things["company"] = rng.sample(called, max(4, people // 5))
        self.things["university"] = [f"University of {city}" for city in self.things["city"][: max(3, people // 8)]]
        self.things["film"] = rng.sample([f"The {s} of {n}" for s in SUBJECTS for n in (*FIRST, *PLACES)], people // 5)
        self.facts: dict[tuple[str, str], str] = {}
        self.written: set[tuple[str, str]] = set()
        # a fifth of the people are known by their first letter and surname elsewhere, where that means one person
        short = {name: f"{name[0]}. {name.split()[1]}" for name in names}
        once = [name for name in names if list(short.values()).count(short[name]) == 1]
        self.aliases = {name: short[name] for name in once if rng.random() < 0.2}
        texts: dict[str, list[str]] = {}
        for kind, things in self.things.items():
            for thing in things:
                texts[thing] = [f"{thing} is also called {self.aliases[thing]}."] if thing in self.aliases else []
                for relation, (of, to, sentence, _) in RELATIONS.items():
                    if of != kind:
                        continue
                    other = rng.choice([x for x in self.things[to] if x != thing])
                    self.facts[thing, relation] = other
                    if rng.random() < 0.9:
                        self.written.add((thing, relation))
                        texts[thing].append(sentence.format(s=thing, o=self.aliases.get(other, other)))
        documents = [Document(thing, " ".join(text or [f"{thing} is known."])) for thing, text in texts.items()]
        self.corpus = Corpus(documents, self.aliases)

    def question(self, number: str, steps: tuple[int, int], hidden: bool) -> Question | None:
        """A question of that many steps (from, to), or None where this draw leads nowhere; the same number, the same
        question. `hidden`: one whose last fact is written nowhere."""
        rng = random.Random(f"question {self.corpus.documents[0].text} {number}")
        count = rng.randint(*steps)
        kind = rng.choice([kind for kind in self.things if kind != "country"])
        thing = start = rng.choice(self.things[kind])
        gold, called = [], []
        for step in range(count):
            choices = [r for r, (of, _, _, _) in RELATIONS.items() if of == kind]
            last = step == count - 1
            choices = [r for r in choices if ((thing, r) not in self.written) == (last and hidden)]
            choices = [r for r in choices if self.facts[thing, r] not in (start, *gold)]
            if not choices:
                return None
            relation = rng.choice(choices)
            gold.append(thing)
            called.append(RELATIONS[relation][3])
            thing, kind = self.facts[thing, relation], RELATIONS[relation][1]
        goal = f"What is the {' of the '.join(reversed(called))} of {start}?"
        names = (self.aliases[thing], thing) if thing in self.aliases else (thing,)  # as it is written there, first
        answers = (UNKNOWN,) if hidden else names
        return Question("", goal, answers, tuple(gold), f"{count} step{'s' * (count > 1)}")


@functools.lru_cache(maxsize=256)
def world(seed: str, people: int) -> World:
    """The world of a seed, kept for the questions that are asked about it."""
    return World(seed, people)
