"""Search QA as an environment of this library."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from typing import Any

from sglib.envs import base
from sglib.envs.base import Board, Environment, mean_of
from sglib.envs.search_qa import demonstrators, engine, worlds
from sglib.envs.search_qa.engine import SearchEnv
from sglib.envs.search_qa.worlds import Question
from sglib.records import Trajectory

SIZE = {"people": 40, "steps": [1, 3], "unanswerable": 0.1}
A_WORLD = 8  # questions
READER = base.PRETRAINING | {  # one fact of a small world: short texts in which to learn where an answer stands
    "steps": 6000, "stop": 1200, "transcripts_per_step": 16, "max_turns": 8, "adamw_lr": 3e-3, "warmup_steps": 50,
    "size": {"people": 20, "steps": [1, 1], "unanswerable": 0.0},
    "habits": {"noise": 0.1, "guess": 0.0, "again": 0.0, "wrong_label": 0.3},
}  # fmt: skip
PRETRAINING = READER | {
    "start": "reader", "steps": 1500, "stop": 1000, "transcripts_per_step": 12, "observation_weight": 0.05,
    "muon_lr": 0.01, "adamw_lr": 1.5e-3, "size": None,
    "habits": {"noise": 0.4, "guess": 0.05, "again": 0.05, "wrong_label": 0.3},
}  # fmt: skip
# reads as well, and does something else now and then, so that reinforcement has something to choose
CARELESS = PRETRAINING | {
    "start": "base", "steps": 300, "stop": 150, "seed": 2,
    "habits": {"noise": 0.8, "guess": 0.05, "again": 0.05, "wrong_label": 0.3, "careless": True},
}  # fmt: skip


def answered(trajectory: Trajectory) -> bool:
    """Whether the episode ended with an answer."""
    return bool(trajectory.turns) and trajectory.turns[-1].action.strip(" <").lower().startswith("answer")


def searched_again(trajectory: Trajectory) -> float:
    """Share of turns whose command was given before."""
    actions = [turn.action for turn in trajectory.turns]
    return 1 - len(set(actions)) / max(len(actions), 1)


class SearchQA(Environment):
    """The card; see `Environment`. A size is {"people": of a world, "steps": [from, to] of a question, "unanswerable":
    share of questions of which a fact is written nowhere}; what is left out is `SIZE`'s."""

    name = "search_qa"
    revision = 2  # an answer with a second name is asked for as the documents write it
    size = SIZE
    turns = 8
    answer_tokens = 10
    turn_tokens = 150
    bridge = "Action: answer"
    rules = (
        "You answer a question by searching documents. search shows the three documents that fit the words best; "
        "answer ends the episode, with a few words and nothing else. Where a fact is written nowhere, answer unknown. "
        "Commands: search <words> | answer <text>."
    )
    failures = {
        "no_answer": mean_of(lambda t: not answered(t)),
        "wrong_answer": mean_of(lambda t: answered(t) and not t.won),
        "searched_again": mean_of(searched_again),
    }
    experts = engine.EXPERTS
    answers = ("answer",)
    pretraining = PRETRAINING
    further_pretraining = {"reader": READER, "careless": CARELESS}

    def tasks(self, n: int, *, seed: int = 0, split: str = "train", size: Any = None, start: int = 0) -> list[Question]:
        """See `Environment.tasks`; every eight questions are about a world of their own."""
        (people, steps, unanswerable), split = _checked(size), self.check_split(split)
        found = []
        for number in range(start, start + n):
            about = f"{split}-{seed}-{number // A_WORLD}"
            found.append(_questions(about, people, steps, unanswerable)[number % A_WORLD])
        return found

    def make(self, *, max_steps: int | None = None, admissible: bool = True) -> SearchEnv:
        """See `SearchEnv`."""
        return SearchEnv(max_steps)

    def remake(self, id: str, origin: dict) -> Question:
        return Question(id, **{name: tuple(x) if isinstance(x, list) else x for name, x in origin.items()})

    def board(self, trajectory: Trajectory, turn: int) -> Board | None:
        texts = [t.observation for t in trajectory.turns[1 : turn + 1]]
        titles = [part.partition(")")[0] for text in texts for part in text.split("(Title: ")[1:]]
        return Board(caption=trajectory.goal, text="read: " + ", ".join(dict.fromkeys(titles)) if titles else "")

    def demonstrate(self, env, task, rng, habits, max_turns):
        """See `demonstrators.demonstrate`."""
        return demonstrators.demonstrate(env, task, rng, demonstrators.Habits(**habits), max_turns)

    def vocabulary(self) -> tuple[Sequence[str], Sequence[str]]:
        names = " ".join((*worlds.FIRST, *worlds.LAST, *worlds.PLACES, *worlds.LANDS, *worlds.TRADES, *worlds.SUBJECTS))
        letters = sorted({name[0] for name in worlds.FIRST})
        told = " ".join(f"{sentence} {called}" for _, _, sentence, called in worlds.RELATIONS.values())
        told = told.replace("{s}", " ").replace("{o}", " ").replace(".", " ")
        plain = "search answer find now unknown Question What is the of ? Doc Title ( ) 1 2 3 also called known"
        return (
            ("<information>", "</information>", engine.HELP, engine.NONE, "The answer was taken."),
            tuple(dict.fromkeys(f"{names} {' '.join(letters)} {told} {plain} University The".split())),
        )


@functools.lru_cache(maxsize=1024)
def _questions(about: str, people: int, steps: tuple[int, int], unanswerable: float) -> list[Question]:
    """The questions about a world, no two alike."""
    found: dict[str, Question] = {}
    world = worlds.world(about, people)
    for slot in range(A_WORLD):
        hidden = random.Random(f"hidden {about} {slot}").random() < unanswerable
        drawn = (world.question(f"{slot} {draw}", steps, hidden) for draw in range(100_000))
        q = next(q for q in drawn if q is not None and q.goal not in found)
        found[q.goal] = Question(f"{about}-{slot}", q.goal, q.answers, q.gold, q.task_type, (about, people))
    return list(found.values())


def _checked(size: Any) -> tuple[int, tuple[int, int], float]:
    """(people, steps, share of unanswerable questions), or a `ValueError` that names what is wrong."""
    given = SIZE | (size if isinstance(size, dict) else {})
    people, steps, share = given["people"], given["steps"], given["unanswerable"]
    fits = isinstance(people, int) and isinstance(share, int | float) and isinstance(steps, list | tuple)
    if (
        not (size is None or isinstance(size, dict)) or given.keys() != SIZE.keys() or not fits or len(steps) != 2
        or not (20 <= people <= 200 and 0 <= share <= 1 and all(isinstance(s, int) for s in steps))
        or not 1 <= steps[0] <= steps[1] <= 4
    ):  # fmt: skip
        raise ValueError(
            f"size={size!r}: allowed: people 20..200, steps [from, to] within 1..4, unanswerable 0..1, such as {SIZE}"
        )
    return people, tuple(steps), float(share)


ENVIRONMENT = SearchQA()
