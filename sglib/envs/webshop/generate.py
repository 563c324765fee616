"""The embedded catalogue: drawn products in the form of the official files, the same on every machine.

Five categories of eight kinds of things, thirty products of a kind at 1,200: they share queries, words and prices, and
differ in what only their features say, so that the right one has to be looked at. Some titles have accents, others what
HTML would take for its own.
"""

from __future__ import annotations

import random

BRANDS = (
    "Aldora", "Bexley", "Café", "Dunmore", "Élan", "Fairway", "Gröna", "Hartley", "Iveria", "Jolie", "Kestrel", "Lumen",
    "Montero", "Niño", "Orchard", "Pineco", "Quill", "Rivera", "Señor", "Tundra",
)  # fmt: skip
MARKS = ("", "", "", "", "", "", "& Co", "<Pro>", '"Plus"', "(2 Pack)")
COLORS = ("black", "white", "red", "blue", "green", "pink", "grey", "brown", "navy", "purple")
SIZES = ("x-small", "small", "medium", "large", "x-large")
# category -> ((levels of the kind's categories), kinds (query), attributes, option kind -> values)
CATEGORIES = {
    "beauty": (
        ("Beauty & Personal Care",),
        {"hair mask": "Hair Care", "face cream": "Skin Care", "lip balm": "Makeup", "nail polish": "Makeup",
         "hand soap": "Bath", "body lotion": "Skin Care", "eye shadow": "Makeup", "hair brush": "Hair Care"},
        ("cruelty free", "long lasting", "paraben free", "for dry skin", "fragrance free", "with vitamin", "vegan",
         "for sensitive skin"),
        {"scent": ("rose", "lemon", "vanilla", "coconut", "mint"), "size": ("1 ounce", "4 ounce", "8 ounce")},
    ),
    "electronics": (
        ("Electronics",),
        {"usb cable": "Accessories", "phone case": "Accessories", "party speaker": "Audio", "headphones": "Audio",
         "night light": "Lighting", "camera strap": "Camera", "keyboard": "Computers", "charger": "Power"},
        ("fast charging", "water resistant", "noise cancelling", "easy to install", "wireless", "high speed",
         "with microphone", "heavy duty"),
        {"color": COLORS[:6], "length": ("3 feet", "6 feet", "10 feet")},
    ),
    "fashion": (
        ("Clothing, Shoes & Jewelry", "Men", "Women"),
        {"running shoes": "Shoes", "rain jacket": "Clothing", "wool socks": "Clothing", "t-shirt": "Clothing",
         "summer dress": "Clothing", "leather sandals": "Shoes", "sun hat": "Accessories", "pajama set": "Clothing"},
        ("machine washable", "slip resistant", "made of cotton", "with pockets", "for daily wear", "quick drying",
         "with arch support", "loose fit"),
        {"color": COLORS, "size": SIZES},
    ),
    "grocery": (
        ("Grocery & Gourmet Food",),
        {"green tea": "Beverages", "trail mix": "Snacks", "protein bar": "Snacks", "olive oil": "Pantry",
         "coffee beans": "Beverages", "rice crackers": "Snacks", "onion soup": "Pantry", "dark chocolate": "Snacks"},
        ("gluten free", "low sugar", "organic", "non gmo", "dairy free", "high protein", "kosher", "keto friendly"),
        {"flavor": ("original", "honey", "chili", "cinnamon", "berry"), "count": ("1 pack", "6 pack", "12 pack")},
    ),
    "home": (
        ("Home & Garden",),
        {"coffee table": "Tables", "coat hanger": "Storage", "bar stool": "Seating", "reading lamp": "Lighting",
         "curtain rod": "Windows", "shoe rack": "Storage", "floor rug": "Decor", "wall mirror": "Decor"},
        ("solid wood", "easy to assemble", "space saving", "with storage", "mid century", "non slip", "scratch proof",
         "for living room"),
        {"color": ("walnut", "white", "black", "grey", "oak"), "size": ("small", "medium", "large")},
    ),
}  # fmt: skip
SYLLABLES = ("KA", "LO", "MI", "RU", "TE", "VO", "SA", "NI", "DU", "PE")


def items(count: int) -> tuple[list[dict], dict[str, dict]]:
    """`count` (40..1500) products in the form of `items_shuffle` and `items_ins_v2`; a longer list begins with a
    shorter one's."""
    rng, raw, told = random.Random("the embedded catalogue"), [], {}
    kinds = [(category, kind) for category, (_, kinds, _, _) in CATEGORIES.items() for kind in kinds]
    for number in range(count):
        category, kind = kinds[number % len(kinds)]
        above, groups, attributes, options = CATEGORIES[category]
        own = rng.sample(attributes, rng.randint(3, 4))
        told_in_title, in_features, in_text = own[0], own[1:], own[-1]
        brand, mark = rng.choice(BRANDS), rng.choice(MARKS)
        dollars, cents = rng.randint(4, 89), rng.choice(("99", "49", "95", "25"))
        pricing = f"${dollars}.{cents}"
        if rng.random() < 0.1:
            pricing += f" - ${dollars + rng.randint(2, 9)}.{cents}"
        if rng.random() < 0.03:
            pricing = ""
        asin, middle = asin_of(number), rng.sample(above[1:], min(1, len(above) - 1))
        title = " ".join(part for part in (brand, kind.title(), mark, told_in_title.title()) if part)
        made = {
            name: [{"value": value} for value in rng.sample(values, rng.randint(2, min(5, len(values))))]
            for name, values in options.items()
        }
        raw.append({
            "asin": asin, "name": title, "category": category, "query": kind, "pricing": pricing,
            "product_category": " › ".join((above[0], *middle, groups[kind])),
            "full_description": f"{kind.capitalize()} of {brand}, {in_text}.",
            "small_description": [feature.capitalize() for feature in in_features],
            "images": [""], "customization_options": made if rng.random() < 0.9 else {},
        })  # fmt: skip
        told[asin] = {"attributes": sorted(own)}
    return raw, told


def asin_of(number: int) -> str:
    """The id of a drawn product: a word that begins with B, and two digits, such as BKALO37."""
    return f"B{SYLLABLES[number // 50 % 10]}{SYLLABLES[number // 500]}{number % 50 + 10}"
