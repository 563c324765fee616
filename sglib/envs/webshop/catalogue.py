"""What a shop sells and what its customers are asked to buy, read from files of the official form.

The official data are three JSON files, `items_shuffle*.json`, `items_ins_v2*.json` and `items_human_ins.json`; the
embedded catalogue (`generate`) is of the same form and read by the same code.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sglib.envs.bm25 import Index

NO_CEILING = 1_000_000.0
HITS = 50  # products a search finds at most
SHUFFLE_SEED = 233  # of the official goals


@dataclass(frozen=True)
class Product:
    """Something on sale. Texts as the shop shows them; `attributes` are known to the reward alone.

    Attributes:
        price: in dollars; of a range, the one that was drawn for it.
        tag: the price as it is shown.
        options: kind of option -> its values, as they are clicked.
    """

    asin: str
    title: str
    category: str
    query: str
    product_category: str
    description: str
    bullets: tuple[str, ...]
    attributes: tuple[str, ...]
    price: float
    tag: str
    options: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Purchase:
    """A task: buy this.

    Attributes:
        goal: the instruction, with the ceiling of the price in it.
        asin: the product that it was written for; another one can do as well.
        attributes, options: what is asked for, each worth as much as the price. An option is a value, or (kind, value)
            in the official goals that are made from options.
        ceiling: in dollars.
        shop: what `shop` makes the catalogue from.
    """

    id: str
    goal: str
    asin: str
    name: str
    category: str
    query: str
    product_category: str
    attributes: tuple[str, ...]
    options: tuple[str | tuple[str, str], ...]
    ceiling: float
    shop: Shop = field(repr=False)
    env: str = "webshop"

    @property
    def task_type(self) -> str:
        return self.category

    def values(self) -> list[str]:
        """The option values that are asked for."""
        return [option if isinstance(option, str) else option[1] for option in self.options]

    @property
    def origin(self) -> dict | None:
        """A purchase of the embedded catalogue can be made again anywhere; the files of another stay where they are."""
        if self.shop.data:
            return None
        return {
            "goal": self.goal, "asin": self.asin, "attributes": list(self.attributes), "options": list(self.options),
            "ceiling": self.ceiling, "products": self.shop.products,
        }  # fmt: skip

    def content(self) -> list:
        asked = [self.goal, self.asin, list(self.attributes), list(self.options), self.ceiling]
        return [*asked, catalogue(self.shop).hash]


@dataclass(frozen=True)
class Shop:
    """Which catalogue: the first `products` (None: all) of the embedded one, or of the official files in the folder
    `data`; `human`: whether their goals are people's, else made from options. `seed`: of drawn prices and ceilings."""

    products: int | None = 1200
    data: str | None = None
    human: bool = True
    seed: int = 0


class Catalogue:
    """Products, a search over them, and the official goals in the official order (none of the embedded catalogue, whose
    goals the card draws).

    Attributes:
        engine: (query, k) -> ids of products, best first; put another one in its place for Lucene's own order, for
            example `lambda q, k: [hit.docid for hit in LuceneSearcher(folder).search(q, k)]` of Pyserini.
    """

    def __init__(self, products: Sequence[Product], goals: Sequence[Purchase] = ()):
        self.products = {product.asin: product for product in products}
        self.goals = list(goals)
        self._order = list(self.products)
        # Pyserini's defaults, on the text that the original indexes
        self._index = Index([_document(product) for product in self.products.values()], k1=0.9, b=0.4)
        self.engine: Callable[[str, int], list[str]] = self._bm25
        told = json.dumps([[p.asin, _document(p), p.tag, p.price, p.attributes] for p in self.products.values()])
        self.hash = hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:12]

    def search(self, query: str) -> tuple[Product, ...]:
        """The products that a query finds, best first, at most `HITS`."""
        return tuple(self.products[asin] for asin in self.engine(query, HITS) if asin in self.products)

    def _bm25(self, query: str, k: int) -> list[str]:
        return [self._order[i] for i in self._index.search(query, k)]


def _document(product: Product) -> str:
    options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in product.options.items())
    first = product.bullets[0] if product.bullets else ""
    return f"{product.title} {product.description} {first} {options}".lower()


@functools.lru_cache(maxsize=8)
def catalogue(shop: Shop) -> Catalogue:
    """The catalogue of a shop, made once in a process.

    Raises:
        ValueError: a file is missing or cannot be read; names it and what is wrong.
    """
    if shop.data is None:
        from sglib.envs.webshop.generate import items

        raw, told = items(shop.products)
        return Catalogue(read_products(raw, told, random.Random(shop.seed)))
    folder = Path(shop.data)
    raw, told = _json(folder, "items_shuffle*.json", list), _json(folder, "items_ins_v2*.json", dict)
    human = _json(folder, "items_human_ins.json", dict) if shop.human else None
    # one generator for prices, then ceilings, in the original's order; there it is Python's global one, never seeded
    rng = random.Random(shop.seed)
    products = read_products(raw[: shop.products], told, rng)
    goals = _human_goals(products, human, rng, shop) if human is not None else _made_goals(products, told, rng, shop)
    random.Random(SHUFFLE_SEED).shuffle(goals)
    return Catalogue(products, goals)


def _json(folder: Path, pattern: str, kind: type) -> Any:
    found = sorted(folder.glob(pattern), key=lambda file: file.stat().st_size)
    if not found:
        raise ValueError(f"data={str(folder)!r}: no file {pattern}; allowed: a folder with WebShop's JSON files")
    try:
        read = json.loads(found[-1].read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{found[-1]}: no JSON: {error}") from error
    if not isinstance(read, kind):
        raise ValueError(f"{found[-1]}: {type(read).__name__}; allowed: {kind.__name__}")
    return read


def read_products(raw: Sequence[dict], told: Mapping[str, dict], rng: random.Random) -> list[Product]:
    """Products from `items_shuffle` (raw) and `items_ins_v2` (told), as the original loads them: of an id the first
    counts, ids longer than ten characters are left out, no price is 100 dollars, of a range the price is drawn once."""
    found: dict[str, tuple[int, dict, list[float]]] = {}
    for number, item in enumerate(raw):
        with _named(number):
            asin = item["asin"]
            if asin != "nan" and len(asin) <= 10 and asin not in found:
                found[asin] = number, item, _prices(item.get("pricing"))
                item["name"], item["query"], item["category"], item["product_category"], item["full_description"]
    products = []
    for asin, (number, item, prices) in found.items():
        with _named(number):
            products.append(_product(asin, item, prices, told.get(asin, {}).get("attributes", ["DUMMY_ATTR"]), rng))
    return products


@contextlib.contextmanager
def _named(number: int) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"product {number}: {reason}; allowed: WebShop's own fields") from error


def _product(asin: str, item: Mapping, prices: list[float], attributes: Sequence[str], rng: random.Random) -> Product:
    bullets = item.get("small_description") or ()
    options = {
        name.lower(): tuple(option["value"].strip().replace("/", " | ").lower() for option in values)
        for name, values in (item.get("customization_options") or {}).items()
        if values is not None
    }
    price = rng.uniform(*prices[:2]) if len(prices) > 1 else prices[0]
    tag = f"${prices[0]} to ${prices[1]}" if len(prices) > 1 else f"${prices[0]}"
    return Product(
        asin, item["name"], item["category"], item["query"].lower().strip(), item["product_category"],
        item["full_description"] or "", tuple(bullets if isinstance(bullets, list | tuple) else [bullets]),
        tuple(attributes), price, tag, options,
    )  # fmt: skip


def _prices(pricing: str | None) -> list[float]:
    prices = [float(re.sub(r"[^\d.]", "", part)) for part in pricing.split("$")[1:]] if pricing else [100.0]
    if not prices:
        raise ValueError(f"pricing={pricing!r}: no price in dollars")
    return prices


def ceiling(price: float, rng: random.Random) -> tuple[float, str]:
    """(a ceiling above the price, the words that say so): the larger of two of the next four multiples of ten."""
    above = [10.0 * i for i in range(1, 100) if 10.0 * i > price][:4]
    if len(above) < 2:
        return NO_CEILING, ""
    upper = max(rng.sample(above, 2))
    return upper, f", and price lower than {upper:.2f} dollars"


def asked_for(
    product: Product, text: str, attributes: Sequence[str], options: Sequence, upper: float, id: str, shop: Shop
) -> Purchase:
    """The task of buying a product."""
    return Purchase(
        id, text, product.asin, product.title, product.category, product.query, product.product_category,
        tuple(attributes), tuple(options), upper, shop,
    )  # fmt: skip


def _human_goals(products: Sequence[Product], human: Mapping, rng: random.Random, shop: Shop) -> list[Purchase]:
    goals = []
    for product in products:
        for entry in human.get(product.asin, ()):
            if not entry["instruction_attributes"]:
                continue
            upper, told = ceiling(product.price, rng)
            text, id = entry["instruction"].strip(".") + told, f"{product.asin}-{len(goals)}"
            goals.append(asked_for(
                product, text, entry["instruction_attributes"], entry["instruction_options"], upper, id, shop
            ))  # fmt: skip
    return goals


def _made_goals(products: Sequence[Product], told: Mapping, rng: random.Random, shop: Shop) -> list[Purchase]:
    """A goal for every combination of a product's options."""
    goals = []
    for product in products:
        entry = told.get(product.asin, {})
        if entry.get("instruction") is None:
            continue
        upper, price = ceiling(product.price, rng)
        names = sorted(product.options)
        for values in itertools.product(*(product.options[name] for name in names)):
            chosen = dict(zip(names, values))
            text = ", and ".join(f"{name}: {value}" for name, value in chosen.items())
            text = f"{entry['instruction']}{f' with {text}' if text else ''}{price}"
            options, id = list(chosen.items()), f"{product.asin}-{len(goals)}"
            goals.append(asked_for(product, text, entry["instruction_attributes"], options, upper, id, shop))
    return goals
