"""A running search: commands in, documents out."""

from __future__ import annotations

import re
from typing import NamedTuple

from sglib.envs.search_qa.scores import exact_match, f1
from sglib.envs.search_qa.worlds import Question
from sglib.records import Observation

_COMMAND = re.compile(r"\s*<?(search|answer)\b[>:\s\[]*(.*?)\s*(?:</\1>|\])?\s*", re.I | re.S)
RESULTS = 3  # documents a search
WORDS = 400  # of an observation, about 500 tokens of a language model
EXPERTS = ("optimal", "explore")
ACTIONS = ("answer <text>", "search <words>")  # what can be done; the text is free
HELP = "Nothing happens. Commands: search <words> | answer <text>"
NONE = "No document has these words."


class State(NamedTuple):
    """Where a search stands: what a snapshot is."""

    steps: int
    found: frozenset[str]  # titles that were shown
    done: bool
    score: float
    won: bool


class SearchEnv:
    """One question at a time. `search` shows the best documents, `answer` ends the episode: won if it is a gold answer
    (exact match), `score` and the reward are its F1. Tags as in the field's data are understood: <search>…</search>,
    <answer>…</answer>."""

    def __init__(self, max_steps: int | None = None):
        self.max_steps = max_steps

    def reset(self, task: Question) -> Observation:
        self.task, self.corpus = task, task.documents()
        self.state = State(0, frozenset(), False, 0.0, False)
        return self._observe(f"Question: {task.goal}", True, 0.0)

    @property
    def done(self) -> bool:
        return self.state.done

    def step(self, action: str) -> Observation:
        if self.state.done:
            raise RuntimeError("the episode is over: call reset(question) before step")
        steps = self.state.steps + 1
        self.state = self.state._replace(steps=steps, done=steps == self.max_steps)
        command = _COMMAND.fullmatch(action) if isinstance(action, str) else None
        if command is None or not command[2]:
            return self._observe(HELP, False, 0.0)
        if command[1].lower() == "answer":
            score, won = f1(command[2], self.task.answers), exact_match(command[2], self.task.answers)
            self.state = self.state._replace(done=True, score=score, won=won)
            return self._observe("The answer was taken.", True, score)
        found = self.corpus.search(command[2], RESULTS)
        self.state = self.state._replace(found=self.state.found | {d.title for d in found})
        lines = [f"Doc {i}(Title: {d.title}) {d.text}" for i, d in enumerate(found, 1)]
        text = " ".join("\n".join(lines).split(" ")[:WORDS]) or NONE
        return self._observe(f"<information>{text}</information>", bool(found), 0.0)

    def _observe(self, text: str, valid: bool, reward: float) -> Observation:
        s, goal = self.state, self.task.goal
        self.observation = Observation(text, goal, ACTIONS, reward, s.won, s.done, s.steps, {}, s.score, valid)
        return self.observation

    def progress(self) -> float:
        """Share of what is needed: the documents on the question's way that were shown, and the right answer."""
        if self.state.won:
            return 1.0
        return sum(title in self.state.found for title in self.task.gold) / (len(self.task.gold) + 1)

    def plan(self) -> list[str] | None:
        """With full knowledge the answer is all that is needed; None after a wrong one."""
        if self.state.done:
            return [] if self.state.won else None
        return [f"answer {self.task.answers[0]}"]

    def expert(self, kind: str) -> str:
        """The next command: of "optimal" the answer, of "explore", which knows what it has read, a search for the next
        thing on the question's way by the name that it was given, and the answer when it has read of them all."""
        if kind not in EXPERTS:
            raise ValueError(f"kind={kind!r}: allowed: {', '.join(map(repr, EXPERTS))}")
        names = self.corpus.aliases
        left = [names.get(title, title) if i else title for i, title in enumerate(self.task.gold)
                if title not in self.state.found]  # fmt: skip
        return f"search {left[0]}" if left and kind == "explore" else f"answer {self.task.answers[0]}"

    def answer(self, name: str) -> str:
        """ "answer": the gold answers, one a line."""
        return "\n".join(self.task.answers)

    def snapshot(self) -> tuple[Question, State, Observation]:
        return self.task, self.state, self.observation

    def restore(self, snapshot: tuple[Question, State, Observation]) -> Observation:
        self.task, self.state, self.observation = snapshot
        self.corpus = self.task.documents()
        return self.observation
