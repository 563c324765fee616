"""WebShop as an environment of this library."""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Sequence
from typing import Any

from sglib.envs import base
from sglib.envs.base import Board, Environment, mean_of
from sglib.envs.webshop import demonstrators, engine, generate
from sglib.envs.webshop.catalogue import Product, Purchase, Shop, asked_for, catalogue, ceiling
from sglib.envs.webshop.engine import ShopEnv
from sglib.records import Trajectory, Turn

SIZE = {"products": 1200, "data": None, "human": True}
OFFICIAL = {"test": (0, 500), "valid": (500, 1500), "train": (1500, None)}  # the field's goals, by number
HELD_OUT = 5  # of that many embedded products one belongs to the split "valid"
PRETRAINING = base.PRETRAINING | {
    "steps": 4000, "stop": 2000, "transcripts_per_step": 8, "max_turns": 10, "size": {"products": 400},
    "adamw_lr": 3e-3, "warmup_steps": 50,
    "habits": {"noise": 0.1, "hasty": 0.03, "impossible": 0.02, "wrong_label": 0.3},
}  # fmt: skip
_INSTRUCTIONS = ("i want {kind} {that}", "i am looking for {kind} {that}", "find me {kind} {that}")


def bought(trajectory: Trajectory) -> bool:
    """Whether the episode ended with a purchase."""
    return any(_clicked(turn) == engine.squeezed(engine.BUY) for turn in trajectory.turns[-1:])


class WebShop(Environment):
    """The card; see `Environment`. A size is {"products": how many of the embedded catalogue (of official files: read;
    None for all), "data": a folder with WebShop's three official files, "human": whether their goals are people's};
    what is left out is `SIZE`'s. Of official goals 0 to 499 are the panel "test", 500 to 1499 the split "valid", the
    others "train", as in the field."""

    name = "webshop"
    size = SIZE
    panels = ("test",)
    turns = 15
    answer_tokens = 20
    turn_tokens = 120
    bridge = "Action: click"
    rules = (
        "You shop on a website for what the instruction asks for. search finds products, click follows what is on the "
        "page: a product by its id, an option, a button. Choose the options that are asked for before you buy. "
        "Commands: search[words] | click[text]."
    )
    failures = {
        "no_purchase": mean_of(lambda t: not bought(t)),
        "imperfect_purchase": mean_of(lambda t: bought(t) and not t.won),
        "no_options": mean_of(lambda t: bought(t) and not t.won and not _chose(t)),
    }
    experts = engine.EXPERTS
    answers = ("answer",)
    cased = False  # the site compares clicks and searches in small letters
    pretraining = PRETRAINING

    def tasks(self, n: int, *, seed: int = 0, split: str = "train", size: Any = None, start: int = 0) -> list[Purchase]:
        """See `Environment.tasks`; official goals come in their order, whatever the seed."""
        shop, split = _shop(size), self.check_split(split)
        if shop.data:
            first, last = OFFICIAL[split]
            goals = catalogue(shop).goals[first:last]
            if start + n > len(goals):
                raise ValueError(f"n={n!r}: allowed: 0..{max(0, len(goals) - start)} of {split}, start={start}")
            return goals[start : start + n]
        if split in self.panels:
            raise ValueError(f"split={split!r}: has tasks only with size={{'data': folder with the official files}}")
        return [_drawn(shop, split, seed, number) for number in range(start, start + n)]

    def make(self, *, max_steps: int | None = None, admissible: bool = True, mode: str = "text") -> ShopEnv:
        """See `ShopEnv`."""
        return ShopEnv(max_steps, admissible, mode)

    def remake(self, id: str, origin: dict) -> Purchase:
        shop = Shop(products=origin["products"])
        product = catalogue(shop).products[origin["asin"]]
        return asked_for(product, origin["goal"], origin["attributes"], origin["options"], origin["ceiling"], id, shop)

    def board(self, trajectory: Trajectory, turn: int) -> Board | None:
        played = [*trajectory.turns, None][turn]
        page = played.observation if played else trajectory.final_observation or ""
        return Board(caption=trajectory.goal, text=self.shown(page).replace(engine.SEP, "\n"))

    def shown(self, observation: str) -> str:
        """The page without the instruction, which the first one has said already."""
        parts = observation.split(engine.SEP)
        return engine.SEP.join(parts[2:] if parts[0] == engine.HEAD.strip() else parts).strip()

    def demonstrate(self, env, task, rng, habits, max_turns):
        """See `demonstrators.demonstrate`."""
        return demonstrators.demonstrate(env, task, rng, demonstrators.Habits(**habits), max_turns)

    def vocabulary(self) -> tuple[Sequence[str], Sequence[str]]:
        buttons = (engine.BACK, engine.NEXT, engine.PREV, engine.BUY, *engine.SUBPAGES)
        phrases = (
            engine.SEP.strip(), *buttons, *(f"click[{button.lower()}]" for button in buttons), "click[", "search[",
            engine.HEAD.strip(), engine.THANKS, engine.SCORE, "Price:", "Rating: N.A.", "Total results:", "WebShop",
            "Search",
        )  # fmt: skip
        return phrases, _words()


def _clicked(turn: Turn) -> str:
    """What a turn clicked, squeezed; "" where it did something else, or nothing."""
    name, text = engine.parse_action(turn.action)
    return engine.squeezed(text) if turn.valid and name == "click" else ""


def _chose(trajectory: Trajectory) -> bool:
    """Whether an option was clicked: something that is no button and no product's id."""
    buttons = {engine.squeezed(b) for b in (engine.BACK, engine.NEXT, engine.PREV, engine.BUY, *engine.SUBPAGES)}
    clicked = filter(None, map(_clicked, trajectory.turns))
    return any(text not in buttons and not re.fullmatch(r"b(?=.*\d)[a-z0-9]{6,9}", text) for text in clicked)


def _drawn(shop: Shop, split: str, seed: int, number: int) -> Purchase:
    """A task of the embedded catalogue: up to two attributes, and a value of each kind of option."""
    rng = random.Random(f"{split} {seed} {number}")
    product = rng.choice(_of_split(shop, split))
    attributes = sorted(rng.sample(product.attributes, rng.randint(1, 2)))
    chosen = {name: rng.choice(values) for name, values in product.options.items() if rng.random() < 0.8}
    upper, price = ceiling(product.price, rng)
    article = "" if product.query.endswith("s") else "an " if product.query[0] in "aeio" else "a "  # a usb cable
    text = rng.choice(_INSTRUCTIONS).format(kind=article + product.query, that=f"that is {' and '.join(attributes)}")
    text += "".join(f", and {name}: {value}" for name, value in chosen.items()) + price
    return asked_for(product, text, attributes, list(chosen.values()), upper, f"{split}-{seed}-{number}", shop)


@functools.lru_cache(maxsize=16)
def _of_split(shop: Shop, split: str) -> list[Product]:
    """No product that is asked for in one split is asked for in another; all are on sale in both."""
    products = list(catalogue(shop).products.values())
    number = {product.asin: i // len(_kinds()) for i, product in enumerate(products)}
    return [p for p in products if (number[p.asin] % HELD_OUT == 0) == (split == "valid")]


def _kinds() -> list[str]:
    return [kind for _, kinds, _, _ in generate.CATEGORIES.values() for kind in kinds]


@functools.cache
def _words() -> tuple[str, ...]:
    """Every word of the embedded pages and instructions, as the small tokenizer splits them."""
    raw, told = generate.items(SIZE["products"])
    texts = [*_INSTRUCTIONS, "that is a an and price lower than dollars 00 Page find choose look at it go back buy now"]
    texts += ["see more read features to ( ) $ [ ] :", " ".join(map(str, (*range(100), *range(100, 200, 10))))]
    for item in raw:
        texts += [item["asin"], item["name"], item["query"], item["full_description"], *item["small_description"]]
        texts += [f"{name} {v['value']}" for name, values in item["customization_options"].items() for v in values]
        texts += told[item["asin"]]["attributes"]
    words = re.findall(r"\d+|[A-Za-z']+|[^\sA-Za-z\d']", " ".join(texts))
    return tuple(dict.fromkeys(words))


def _shop(size: Any) -> Shop:
    """The shop of a size, or a `ValueError` that names what is wrong."""
    given = SIZE | (size if isinstance(size, dict) else {})
    count, data = given["products"], given["data"]
    counted = isinstance(count, int) and not isinstance(count, bool) and (count > 0 if data else 80 <= count <= 1500)
    if (
        not (size is None or isinstance(size, dict)) or given.keys() != SIZE.keys()
        or not (counted or (data and count is None)) or not (data is None or isinstance(data, str))
        or not isinstance(given["human"], bool)
    ):  # fmt: skip
        raise ValueError(
            f"size={size!r}: allowed: products 80..1500 (with data any number, or null), data a folder, human true or "
            f"false, such as {SIZE}"
        )
    return Shop(products=count, data=data, human=given["human"])


ENVIRONMENT = WebShop()
