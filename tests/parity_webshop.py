"""Random walks through shops on this engine and on WebShop's released code, in lock-step, and random purchases scored
by both.

    git clone https://github.com/princeton-nlp/WebShop && pip install flask beautifulsoup4
    python tests/parity_webshop.py WebShop [--steps 10000] [--pairs 10000] [--out outputs/reference/webshop_parity.json]

Files of the official form are drawn, with what such files have in them (ranges and missing prices, ids that are too
long, repeated or "nan", options that are called like buttons, HTML, other alphabets); both read them. Pages (both
modes), what can be clicked, rewards and ends must be equal. The search is ours on both sides (Lucene needs its index),
and so is the rule for nouns where spaCy's model is not installed. gym, pyserini, cleantext and rank_bm25 are stood in
for.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import random
import sys
import tempfile
import types
from pathlib import Path

from sglib.envs.webshop import ENVIRONMENT, Shop, ShopEnv, catalogue, scores
from sglib.envs.webshop.engine import BUY, SEP
from sglib.envs.webshop.generate import items
from sglib.records import write_atomic

STRANGE = (
    {"pricing": ""}, {"pricing": "$1,299.99"}, {"pricing": "$5.00 - $18.50"}, {"pricing": None}, {"asin": "nan"},
    {"asin": "TOOLONGANASIN"}, {"name": "Lamp <b>bright</b> & \"safe\""}, {"name": "灯 lampe d'été"},
    {"customization_options": {"Style/Set": [{"value": " Dark Blue/Red "}, {"value": "reviews"}], "none": None}},
    {"customization_options": {"color": [{"value": "next >"}, {"value": "Light BLUE"}], "x": [{"value": "blue"}]}},
    {"full_description": "Two\nlines"}, {"product_category": "Home › Home"}, {"query": " Desk Lamp "},
    {"small_description": []}, {"name": "the of"},
)  # fmt: skip
ODD = ("click[search]", "search[]", "buy", "click[nothing]", "click[a[b]]", "search[lamp] please", "", "click[")


def write_files(folder: Path, rng: random.Random, count: int = 200) -> None:
    """Three files of the official form."""
    raw, told = items(count)
    for item in raw:
        if rng.random() < 0.3:
            item.update(rng.choice(STRANGE))
        item["small_description"] = item["small_description"] or [""]  # the original's index reads the first
    raw += rng.sample(raw, 10)  # ids twice
    human = {}
    for item in raw:
        values = [v["value"] for options in (item["customization_options"] or {}).values() for v in options or ()]
        entry = {
            "instruction": f"buy {item['name']}..", "instruction_attributes": rng.sample(
                ["vegan", "non slip", "machine washable", "water", "for daily wear", "usb cable"], rng.randint(0, 3)),
            "instruction_options": rng.sample(values, min(len(values), rng.randint(0, 2))),
        }  # fmt: skip
        human[item["asin"]] = [entry]
        if item["asin"] in told:
            wanted = (f"i want {item['query']}", told[item["asin"]]["attributes"])
            wanted = wanted if rng.random() < 0.5 else (None, None)
            told[item["asin"]] |= dict(zip(("instruction", "instruction_attributes"), wanted))
    for name, content in (("items_shuffle", raw), ("items_ins_v2", told), ("items_human_ins", human)):
        (folder / f"{name}.json").write_text(json.dumps(content))


def released(checkout: Path, data: Path, human: bool, seed: int):
    """The released text environment over these files, its prices and ceilings drawn from `seed`."""
    for name in ("cleantext", "rank_bm25", "pyserini", "pyserini.search", "pyserini.search.lucene", "gym"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["rank_bm25"].BM25Okapi = sys.modules["pyserini.search.lucene"].LuceneSearcher = object
    sys.modules["gym"].Env = object
    package = types.ModuleType("web_agent_site.envs")  # its own imports selenium
    package.__path__ = [str(checkout / "web_agent_site" / "envs")]
    sys.modules["web_agent_site.envs"] = package
    if str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))
    import spacy

    if scores._tagger() is None:
        kind = types.SimpleNamespace
        spacy.load = lambda _: lambda title: [kind(text=word, pos_="NOUN") for word in scores.nouns(title)]
    engine = importlib.import_module("web_agent_site.engine.engine")
    engine.DEFAULT_ATTR_PATH, engine.HUMAN_ATTR_PATH = data / "items_ins_v2.json", data / "items_human_ins.json"
    text = importlib.import_module("web_agent_site.envs.web_agent_text_env")
    text.init_search_engine = lambda num_products=None: None
    ours = catalogue(Shop(None, str(data), human, seed))
    found = lambda words, _, __, by_id: [by_id[p.asin] for p in ours.search(" ".join(words).strip())]  # noqa: E731
    text.get_top_n_product_from_keywords = found
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        random.seed(seed)
        env = text.WebAgentTextEnv(observation_mode="text", file_path=data / "items_shuffle.json", human_goals=human)
    return env, ours, importlib.import_module("web_agent_site.engine.goal")


def compare(checkout: Path, steps: int, pairs: int, seed: int = 0) -> dict:
    """Play and score; counts of what was met, and the first differences."""
    counts = {"steps": 0, "pairs": 0, "purchases": 0, "goals": 0, "results": 0, "sub": 0, "invalid": 0, "rich": 0}
    differences = []
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), random.Random(seed))
        for human in (True, False):
            theirs, ours, goal_module = released(Path(checkout), Path(folder), human, seed)
            listed = [(g["instruction_text"], g["asin"], g["price_upper"]) for g in theirs.server.goals]
            if listed != [(g.goal, g.asin, g.ceiling) for g in ours.goals]:
                differences.append(f"goals, human={human}")
                continue
            counts["goals"] += len(listed)
            prices = {asin: p.price for asin, p in ours.products.items()}
            if prices != theirs.server.product_prices:
                differences.append(f"prices, human={human}")
            rng = random.Random(f"{seed} {human}")
            walk(theirs, ours, rng, steps // 2, counts, differences)
            score(theirs, ours, goal_module, rng, pairs // 2, counts, differences)
    return counts | {"differences": len(differences), "first": differences[:5]}


def walk(theirs, ours, rng, steps, counts, differences):
    until = counts["steps"] + steps
    while counts["steps"] < until:
        number = rng.randrange(len(ours.goals))
        env, rich = ShopEnv(admissible=True), ShopEnv(mode="text_rich")
        mine, done, taken = env.reset(ours.goals[number]), False, []
        rich.reset(ours.goals[number])
        theirs.session_prefix = f"{counts['steps']}-"  # a new session, so that nothing was seen in it yet
        text = theirs.reset(session=number)[0]
        while not done and len(taken) < 25:
            if text != mine.text:
                differences.append(f"{number} {taken}: {text!r} != {mine.text!r}")
            can = {f"click[{c}]" for c in theirs.get_available_actions()["clickables"]} - {"click[search]"}
            if can != {a for a in mine.admissible if a.startswith("click")}:
                differences.append(f"{number} {taken}: {sorted(can)} != {mine.admissible}")
            words = rng.choice([p.title for p in ours.products.values()]).split()
            search = f"search[{' '.join(rng.sample(words, min(2, len(words))))}]"
            action = rng.choices((rng.choice(sorted(can) or [search]), search, rng.choice(ODD)), (8, 2, 1))[0]
            if action.lower() == f"click[{BUY.lower()}]" and rng.random() < 0.7:
                continue
            taken.append(action)
            text, reward, done, _ = theirs.step(action)
            mine, other = env.step(action), rich.step(action)
            counts["steps"] += 1
            counts["invalid"] += not mine.valid
            counts[env.state.page] = counts.get(env.state.page, 0) + 1
            counts["purchases"] += done
            if (reward, done) != (mine.reward, mine.done):
                differences.append(f"{number} {taken}: {reward, done} != {mine.reward, mine.done}")
            if done:  # the pages after a purchase differ, and are said to
                break
            theirs.observation_mode = "text_rich"
            rich_text, mine_rich = ([x.strip() for x in t.splitlines()] for t in (theirs.observation, other.text))
            if rich_text != mine_rich:
                differences.append(f"{number} {taken}: {theirs.observation!r} != {other.text!r}")
            theirs.observation_mode, counts["rich"] = "text", counts["rich"] + 1


def score(theirs, ours, goal_module, rng, pairs, counts, differences):
    by_id, products = theirs.server.product_item_dict, list(ours.products.values())
    for _ in range(pairs):
        number, product = rng.randrange(len(ours.goals)), rng.choice(products)
        if rng.random() < 0.5:
            product = ours.products[ours.goals[number].asin]
        options = {name: rng.choice(v) for name, v in product.options.items() if rng.random() < 0.7 and v}
        price = theirs.server.product_prices[product.asin]
        reward = goal_module.get_reward(by_id[product.asin], theirs.server.goals[number], price=price, options=options)
        mine = scores.terms(product, list(options.values()), ours.goals[number]).total
        counts["pairs"] += 1
        if reward != mine:
            differences.append(f"goal {number}, {product.asin}, {options}: {reward} != {mine}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--out", type=Path, help="write the counts to this JSON file")
    options = parser.parse_args()
    counts = compare(options.checkout, options.steps, options.pairs)
    print(json.dumps(counts, indent=1, ensure_ascii=False))
    if options.out:
        write_atomic(options.out, json.dumps(counts | {"environment": ENVIRONMENT.name, "separator": SEP}, indent=1))
    return counts["differences"] > 0


if __name__ == "__main__":
    sys.exit(main())
