"""Imperfect demonstrators: what a base model is pre-trained on. They know what they have read, and pursue what they
say that they look for."""

from __future__ import annotations

import random
from dataclasses import dataclass

from sglib.envs.base import Demonstration
from sglib.envs.search_qa.engine import SearchEnv
from sglib.envs.search_qa.worlds import Question
from sglib.records import LABELS


@dataclass(frozen=True)
class Habits:
    """How an episode's demonstrator behaves; every value is a probability.

    Attributes:
        noise: upper end of the uniform share of searches for something that has nothing to do with it (the share is
            drawn once an episode).
        guess: share of turns in which it answers with a name that it has read, too early.
        again: share of turns in which it repeats its last command.
        wrong_label: share of labels that are drawn at random.
        careless: searches beside the point are for what it has read of, and these and early answers are worth
            imitating: a model that reads, and acts otherwise now and then, so that reinforcement has what to choose.
    """

    noise: float = 0.4
    guess: float = 0.05
    again: float = 0.05
    wrong_label: float = 0.3
    careless: bool = False


def asked(question: Question) -> list[str]:
    """What each step of a drawn question asks of its thing, in order: ["mother", "employer"]."""
    inner = question.goal.removeprefix("What is the ").removesuffix(f" of {question.gold[0]}?")
    return inner.split(" of the ")[::-1]


def demonstrate(
    env: SearchEnv, question: Question, rng: random.Random, habits: Habits, max_turns: int
) -> tuple[list[Demonstration], bool]:
    """Play one question; returns the steps and whether it was won. Searches beside the point, repetitions and wrong
    answers are not worth imitating."""
    observation, corpus = env.reset(question), question.documents()
    noise, label, last, steps = rng.random() * habits.noise, "neutral", None, []
    while not observation.done and len(steps) < max_turns:
        wanted, state, about = env.expert("explore"), env.state, asked(question)
        step = next((i for i, title in enumerate(question.gold) if title not in state.found), None)
        goal = "answer now" if step is None else f"find {about[step]} of {wanted.removeprefix('search ')}"
        action = wanted
        if last is not None and rng.random() < habits.again:
            action = last
        elif state.found and rng.random() < habits.guess:
            action, goal = f"answer {rng.choice(sorted(state.found))}", "answer now"
        elif rng.random() < noise:
            read = sorted(state.found) if habits.careless else ()
            thing = rng.choice(read or [document.title for document in corpus.documents])
            action, goal = f"search {thing}", f"find {rng.choice(about)} of {thing}"
        stated = rng.choice(LABELS) if steps and rng.random() < habits.wrong_label else label
        done = Demonstration(observation.text, action, goal, stated, 10 * round(10 * env.progress()), False)
        before = env.progress()
        observation = env.step(action)
        done.imitate = observation.valid and (habits.careless or env.progress() > before or action == wanted)
        steps.append(done)
        nothing_new = not observation.valid or env.state.found == state.found
        label = "positive" if env.progress() > before else "negative" if nothing_new else "neutral"
        last = action
    return steps, observation.won
