"""WebShop's reward (arXiv 2207.01206, section 3), with what its released code makes of it.

    r = r_type * (matched attributes + matched options + [price <= ceiling]) / (attributes + options + 1)

Matching is loose in the original, and is so here, since it is the benchmark: "small" is matched by "x-small" and "light
blue" by "dark blue light".
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

from thefuzz import fuzz

from sglib.envs.webshop.catalogue import Product, Purchase

# An option that has one of these in it stands for the first of them (alphabetically): "dark blue" for "blue".
COLOURS = (
    "alabaster", "apricot", "aqua", "ash", "asphalt", "azure", "banana", "beige", "black", "blue", "blush",
    "bordeaux", "bronze", "brown", "burgundy", "camel", "camo", "caramel", "champagne", "charcoal", "cheetah",
    "chestnut", "chocolate", "christmas", "coffee", "cognac", "copper", "coral", "cranberry", "cream", "crystal",
    "dark", "denim", "eggplant", "elephant", "espresso", "fuchsia", "gold", "granite", "grape", "graphite", "grass",
    "gray", "green", "grey", "heather", "indigo", "ivory", "ivy", "khaki", "lavender", "lemon", "leopard", "light",
    "lilac", "lime", "magenta", "maroon", "mauve", "merlot", "midnight", "mint", "mocha", "multicolor", "mushroom",
    "mustard", "natural", "navy", "nude", "olive", "orange", "peach", "pewter", "pink", "plum", "purple", "rainbow",
    "red", "rose", "royal", "rust", "sand", "sapphire", "seashell", "silver", "skull", "slate", "steel", "stone",
    "stonewash", "sunflower", "tan", "taupe", "teal", "tiger", "turquoise", "violet", "walnut", "wheat", "white",
    "wine", "yellow",
)  # fmt: skip
ALIKE = 85  # a token set ratio (0..100) above it is a match

# Words of titles that are no nouns, where no tagger is installed; words that end like an adverb or an adjective, too.
NOT_NOUNS = frozenset((
    "a", "an", "the", "of", "for", "with", "and", "or", "in", "on", "to", "by", "from", "at", "as", "is", "are",
    "be", "your", "my", "it", "its", "this", "that", "these", "those", "no", "not", "non", "free", "new", "best",
    "great", "good", "easy", "small", "large", "medium", "big", "mini", "long", "short", "wide", "high", "low",
    "deep", "soft", "hard", "thick", "thin", "light", "dark", "heavy", "warm", "cool", "dry", "wet", "clean",
    "fresh", "sweet", "hot", "cold", "rich", "pure", "raw", "real", "natural", "organic", "black", "white", "red",
    "blue", "green", "pink", "brown", "gray", "grey", "yellow", "purple", "gold", "beige", "navy", "ivory",
    "sturdy", "quick", "fast", "slow", "slim", "classic", "modern", "portable",
))  # fmt: skip
_ENDINGS = re.compile(r"(?:ly|able|ible|proof|less|ful|ous|ish)$")


class Terms(NamedTuple):
    """A purchase's reward, term by term.

    Attributes:
        type: factor 0..1 for buying another kind of thing.
        attributes, options: matched, and of how many.
        cheap: whether the price is within the ceiling.
        total: the reward, 0..1.
    """

    type: float
    attributes: tuple[int, int]
    options: tuple[int, int]
    cheap: bool
    total: float


def terms(product: Product, chosen: Sequence[str], goal: Purchase) -> Terms:
    """The reward of buying `product` with these option values, for a goal."""
    has = sum(_has(product, wanted) for wanted in goal.attributes)
    picked = [_colour(value) for value in chosen]
    wanted = [_colour(option) for option in goal.options]
    fits = sum(any(_alike(value, option) for value in picked) for option in wanted)
    cheap, kind = product.price <= goal.ceiling, type_factor(product, goal)
    of = len(goal.attributes) + len(goal.options) + 1
    total = kind * ((has + fits + cheap) / of)
    return Terms(kind, (has, len(goal.attributes)), (fits, len(goal.options)), cheap, total)


def type_factor(product: Product, goal: Purchase) -> float:
    """1, or less where another kind of thing was bought: 0.5 if neither query, two categories nor titles agree, 0.1 if
    less than a tenth of the wanted title's nouns is in the bought one, 0 if none is."""
    wanted = nouns(goal.name)
    # repeated nouns of the wanted title count each time in the number that is divided by, as in the original
    title = len(set(wanted) & set(nouns(product.title))) / len(wanted) if wanted else 0.2
    mine, theirs = ({part.strip() for part in x.product_category.split("›")} for x in (product, goal))
    match = product.query == goal.query or len(mine & theirs) >= 2 or title > 0.2
    return 0.0 if title == 0 else 0.1 if title < 0.1 else 1.0 if match else 0.5


@functools.lru_cache(maxsize=65536)
def nouns(title: str) -> tuple[str, ...]:
    """The nouns of a title in lower case, in order. Where spaCy's `en_core_web_sm` is installed it says which these
    are, as in the original; elsewhere it is every word that `NOT_NOUNS` and its rule leave over, so that the factor for
    other kinds of things can differ."""
    if tagger := _tagger():
        return tuple(token.text.lower() for token in tagger(title) if token.pos_ in ("NOUN", "PROPN"))
    words = re.findall(r"[^\W\d_]{2,}", title.lower())
    return tuple(word for word in words if word not in NOT_NOUNS and not _ENDINGS.search(word))


@functools.cache
def _tagger():
    try:
        import spacy

        return spacy.load("en_core_web_sm")
    except (ImportError, OSError):  # spaCy, or its model, is not there
        return None


def _has(product: Product, wanted: str) -> bool:
    return (
        any(_alike(attribute, wanted) for attribute in product.attributes)
        or wanted in product.title.lower()
        or wanted in " ".join(product.bullets).lower()
        or wanted in product.description.lower()
    )


@functools.lru_cache(maxsize=262144)
def _alike(text: str, wanted: str) -> bool:
    return fuzz.token_set_ratio(text, wanted) > ALIKE


def _colour(option: str | tuple[str, str]) -> str:
    found = next((colour for colour in COLOURS if colour in option), option)  # of a pair: that is one of the two
    return found if isinstance(found, str) else " ".join(found)
