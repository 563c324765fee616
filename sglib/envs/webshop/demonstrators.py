"""Imperfect demonstrators: what a base model is pre-trained on. They know the instruction and the pages that they have
opened, and do what they say that they do next."""

from __future__ import annotations

import random
from dataclasses import dataclass

from sglib.envs.base import Demonstration
from sglib.envs.webshop.catalogue import Product
from sglib.envs.webshop.engine import BUY, NEXT, PAGE, PREV, ShopEnv
from sglib.records import LABELS

PAGES = 3  # results pages that a careful customer turns at most


@dataclass(frozen=True)
class Habits:
    """How an episode's demonstrator behaves; every value is a probability.

    Attributes:
        noise: upper end of the uniform share of clicks at random (the share is drawn once an episode).
        hasty: share of turns on a product's page in which it buys at once.
        impossible: share of clicks on what is not there.
        wrong_label: share of labels that are drawn at random.
        careless: what it clicks beside the point and buys too early is worth imitating: a model that reads, and acts
            otherwise now and then, so that reinforcement has what to choose.
    """

    noise: float = 0.3
    hasty: float = 0.1
    impossible: float = 0.05
    wrong_label: float = 0.3
    careless: bool = False


def _may_do(env: ShopEnv, product: Product) -> bool:
    """Whether title and lowest price, which a results page shows, allow that it is the one."""
    lowest = float(product.tag.removeprefix("$").split(" to ")[0])
    return all(word in product.title.lower() for word in env.task.query.split()) and lowest <= env.task.ceiling


def _known_fit(env: ShopEnv, product: Product) -> int:
    """How many of the wanted attributes the title and, where they were read, the features have."""
    told = product.title.lower()
    if (product.asin, "features") in env.state.read:
        told += " ".join(product.bullets).lower()
    return sum(attribute in told for attribute in env.task.attributes)


def words_of(env: ShopEnv) -> str:
    """What a search for the instruction's thing says: its kind and attributes."""
    return " ".join((env.task.query, *env.task.attributes))


def explore(env: ShopEnv) -> str:
    """The next action of a careful customer: searches for what is asked for, opens what title and price allow, reads
    the features where the title does not tell all, buys the first that has everything, else the best that it saw."""
    s, goal = env.state, env.task
    if s.page == "index":
        return f"search[{words_of(env)}]"
    if s.page == "sub":
        return f"click[{PREV.lower()}]"
    if s.page == "results":
        if new := [p for p in env.listed() if _may_do(env, p) and p.asin not in s.seen]:
            return f"click[{new[0].asin.lower()}]"
        if s.number < PAGES and s.number * PAGE < len(env.hits()):
            return f"click[{NEXT.lower()}]"
        known = [env.shop.products[asin] for asin in sorted(s.seen)]
        best = max((p for p in known if _may_do(env, p)), key=lambda p: _known_fit(env, p), default=None)
        if best in env.listed():
            return f"click[{best.asin.lower()}]"
        words = best.title.lower() if best else goal.query
        if words != s.keywords or not env.listed():
            return f"search[{words}]"
        return f"click[{env.listed()[0].asin.lower()}]"
    product = env.product
    fit, read = _known_fit(env, product), (product.asin, "features") in s.read
    if fit < len(goal.attributes) and not read:
        return "click[features]"
    pages = env.hits()[: PAGES * PAGE]
    left = any(_may_do(env, p) and p.asin not in s.seen for p in pages)
    if left and (fit < len(goal.attributes) or not _may_do(env, product)):
        return f"click[{PREV.lower()}]"
    there = {value for values in product.options.values() for value in values} - set(dict(s.options).values())
    return next((f"click[{value}]" for value in goal.values() if value in there), f"click[{BUY.lower()}]")


def stated(env: ShopEnv, action: str) -> str:
    """What a customer who does this says first."""
    argument = action.partition("[")[2].removesuffix("]")
    if action.startswith("search"):
        return f"find {argument}"
    known = {BUY.lower(): "buy now", PREV.lower(): "go back", NEXT.lower(): "see more", "features": "read features"}
    if argument in known:
        return known[argument]
    if any(argument == p.text for p in env.parts() if p.kind == "option"):
        return f"choose {argument}"
    return "look at it"


def demonstrate(
    env: ShopEnv, task, rng: random.Random, habits: Habits, max_turns: int
) -> tuple[list[Demonstration], bool]:
    """Play one purchase; returns the steps and whether it was won. Clicks beside the point, and purchases that are not
    worth everything, are not worth imitating."""
    observation, noise, label, steps = env.reset(task), rng.random() * habits.noise, "neutral", []
    while not observation.done and len(steps) < max_turns:
        wanted = action = explore(env)
        clicks = [f"click[{p.text.lower()}]" for p in env.parts() if p.kind in ("button", "product", "option")]
        if rng.random() < habits.impossible:
            action = f"click[{rng.choice(('buy now', 'features', 'next >', '< prev'))}]"
        elif env.state.page == "item" and rng.random() < habits.hasty:
            action = f"click[{BUY.lower()}]"
        elif clicks and rng.random() < noise:
            action = rng.choice(clicks)
        said = rng.choice(LABELS) if steps and rng.random() < habits.wrong_label else label
        before = env.progress()
        step = Demonstration(observation.text, action, stated(env, action), said, 10 * round(10 * before), False)
        observation = env.step(action)
        after = env.progress()
        right = action == wanted and (not observation.done or observation.won)
        step.imitate = observation.valid and (habits.careless or right or (after > before and not observation.done))
        steps.append(step)
        label = "positive" if after > before else "negative" if after < before or not observation.valid else "neutral"
    return steps, observation.won
