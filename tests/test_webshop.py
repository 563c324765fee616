"""WebShop: catalogues, pages, the reward, the site; and agents in it."""

import asyncio
import dataclasses
import html
import json
import os
import random
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_lab import CHROMIUM, FLAGS

import sglib
from sglib import envs
from sglib.envs.base import Forkable, HasAnswer, HasExpert, HasPlan, HasProgress, task_hash
from sglib.envs.webshop import Product, Purchase, Shop, ShopEnv, catalogue, site, terms
from sglib.envs.webshop.catalogue import read_products
from sglib.envs.webshop.engine import SEP, Part, parse_action
from sglib.envs.webshop.scores import type_factor
from sglib.experiments.recipe import load_recipe
from sglib.models.policy import Policy
from sglib.models.small import build_model, build_tokenizer
from sglib.records import read_trajectories
from sglib.training.grpo import GRPOSettings, train

CARD = envs.get("webshop")
TASKS = CARD.tasks(64, seed=5)


def product(**changes) -> Product:
    given = {
        "asin": "B07", "title": "Aldora Desk Lamp", "category": "furniture", "query": "desk lamp",
        "product_category": "Home › Lighting › Lamps", "description": "Made of oak.", "bullets": ("Dimmable",),
        "attributes": ("easy to assemble",), "price": 20.0, "tag": "$20.0", "options": {"color": ("dark blue", "oak")},
    }  # fmt: skip
    return Product(**given | changes)


def goal(**changes) -> Purchase:
    given = {
        "id": "g", "goal": "a lamp", "asin": "B07", "name": "Aldora Desk Lamp", "category": "furniture",
        "query": "desk lamp", "product_category": "Home › Lighting › Lamps",
        "attributes": ("easy assemble", "dimmable"), "options": ("blue",), "ceiling": 30.0, "shop": Shop(),
    }  # fmt: skip
    return Purchase(**given | changes)


def test_the_reward_by_hand():
    """Two attributes, one option and the price: four points. "easy to assemble" has both words of "easy assemble"
    (token set ratio 100) and the bullet says "dimmable"; "dark blue" stands for "blue"; 20 <= 30."""
    assert terms(product(), ["dark blue"], goal()).total == 1.0
    assert terms(product(), [], goal()).total == 3 / 4
    assert terms(product(price=30.01), ["oak"], goal()).total == 2 / 4
    assert terms(product(), ["dark blue"], goal(options=("light blue",))).options == (1, 1)  # both stand for "blue"
    assert terms(product(), ["x-small"], goal(options=("small",))).options == (1, 1)  # one token set holds the other
    assert terms(product(), ["walnut"], goal(options=(("color", "walnut"),))).options == (1, 1)
    assert terms(product(), ["oak"], goal(options=(("color", "walnut"),))).options == (0, 1)


def test_another_kind_of_thing_is_worth_less():
    """Nouns of "Aldora Desk Lamp" are all three words. One of the three is a third: above 0.2, a match. None: nothing
    is paid. A title of eleven nouns with one in common is below a tenth. Two categories in common are a match too."""
    other = {"query": "rug", "product_category": "Garden"}
    assert type_factor(product(), goal()) == 1.0
    assert type_factor(product(title="Lamp", **other), goal()) == 1.0
    assert type_factor(product(title="Carpet", **other), goal()) == 0.0
    names = "lamp alpha beta gamma delta epsilon zeta theta kappa lambda omega"
    assert type_factor(product(title="Lamp", **other), goal(name=names)) == 0.1
    five = "lamp alpha beta gamma delta epsilon zeta"  # 1/7: above a tenth, not above 0.2
    assert type_factor(product(title="Lamp", **other), goal(name=five)) == 0.5
    assert type_factor(product(title="Lamp", query="rug"), goal(name=five)) == 1.0  # by its categories
    assert type_factor(product(**other), goal(name="the of")) == 0.5  # no noun at all: 0.2, no match


def test_official_files_are_read_as_the_original_reads_them(tmp_path):
    raw = [
        {"asin": "nan"}, {"asin": "TOOLONGASIN"},
        {"asin": "B1", "name": "Shoe", "category": "fashion", "query": " Red Shoe ", "product_category": "A › B",
         "full_description": "d", "small_description": "one", "pricing": "$10.99 - $20.50", "images": ["x"],
         "customization_options": {"Color": [{"value": " Dark/Red "}], "none": None}},
    ]  # fmt: skip
    raw += [raw[2] | {"name": "again"}, raw[2] | {"asin": "B2", "pricing": "", "customization_options": {}}]
    first, second = read_products(raw, {"B1": {"attributes": ["soft"]}}, random.Random(3))
    assert (first.title, first.query, first.bullets, first.options) == (
        "Shoe", "red shoe", ("one",), {"color": ("dark | red",)},
    )  # fmt: skip
    assert first.tag == "$10.99 to $20.5" and first.price == random.Random(3).uniform(10.99, 20.5)
    assert (second.price, second.tag, second.attributes) == (100.0, "$100.0", ("DUMMY_ATTR",))
    with pytest.raises(ValueError, match="product 0: 'query' is missing"):
        read_products([{"asin": "B3", "name": "x"}], {}, random.Random(0))
    with pytest.raises(ValueError, match=r"no file items_shuffle\*.json"):
        CARD.tasks(1, split="test", size={"data": str(tmp_path)})
    (tmp_path / "items_shuffle.json").write_text(json.dumps(raw))
    (tmp_path / "items_ins_v2.json").write_text("{")
    with pytest.raises(ValueError, match="items_ins_v2.json: no JSON"):
        CARD.tasks(1, split="test", size={"data": str(tmp_path)})
    (tmp_path / "items_ins_v2.json").write_text(json.dumps({"B1": {"attributes": ["soft"]}}))
    entry = {"instruction": "buy it.", "instruction_attributes": ["soft"], "instruction_options": ["dark | red"]}
    (tmp_path / "items_human_ins.json").write_text(json.dumps({"B1": [entry, entry | {"instruction_attributes": []}]}))
    (task,) = CARD.tasks(1, split="test", size={"data": str(tmp_path), "products": None})
    assert task.goal.startswith("buy it, and price lower than ") and task.origin is None
    env = CARD.make()
    env.reset(task)
    for action in ("search[shoe]", "click[b1]", "click[Dark | Red]", "click[Buy Now]"):
        found = env.step(action)
    assert found.won and found.reward == 1.0
    with pytest.raises(ValueError, match="n=2: allowed: 0..1 of test"):
        CARD.tasks(2, split="test", size={"data": str(tmp_path), "products": None})


def test_tasks_are_the_same_again_and_apart():
    assert [task_hash(t) for t in TASKS] == [task_hash(t) for t in CARD.tasks(64, seed=5)]
    assert CARD.tasks(70, seed=5)[:64] == TASKS and CARD.tasks(6, seed=5, start=64) == CARD.tasks(70, seed=5)[64:]
    train, valid = CARD.tasks(400), CARD.tasks(400, split="valid")
    assert not {t.asin for t in train} & {t.asin for t in valid} and len({t.category for t in valid}) == 5
    again = CARD.remake(TASKS[3].id, json.loads(json.dumps(TASKS[3].origin)))
    assert again == TASKS[3] and again.content() == TASKS[3].content()
    for bad in ({"products": 7}, {"nothing": 1}, {"human": 1}, [3], {"data": 3}):
        with pytest.raises(ValueError, match="size="):
            CARD.tasks(1, size=bad)
    with pytest.raises(ValueError, match="only with size"):
        CARD.tasks(1, split="test")


def test_the_catalogue_has_what_a_shop_has():
    shop = catalogue(Shop())
    texts = [p.title for p in shop.products.values()]
    assert len(shop.products) == 1200 and len({p.category for p in shop.products.values()}) == 5
    assert any("é" in t for t in texts) and any("<" in t for t in texts) and any("&" in t for t in texts)
    assert any(" to " in p.tag for p in shop.products.values()) and any(not p.options for p in shop.products.values())
    kinds = {}
    for p in shop.products.values():
        kinds.setdefault(p.query, []).append(p)
    assert min(map(len, kinds.values())) == 30  # so the kind alone does not find it
    assert list(catalogue(Shop(40)).products) == list(shop.products)[:40]


@pytest.mark.parametrize(
    "action, read",
    [
        ("search[red shoe]", ("search", "red shoe")), ("Click [Buy Now] now", ("click", "buy now")), (7, ("", "")),
        ("click[a[b]]", ("click[a", "b]")), ("search[]", ("", "")), ("[x]", ("", "")), ("buy", ("", "")),
        ("a\nclick[b]", ("", "")), ("click]b[", ("", "")),
    ],
)  # fmt: skip
def test_reading_actions(action, read):
    assert parse_action(action) == read


def test_pages_and_buttons():
    env, task = CARD.make(), TASKS[0]
    first = env.reset(task)
    assert first.text == f"WebShop [SEP] Instruction: [SEP] {task.goal} [SEP] Search"
    assert first.admissible == ("search[<words>]",) and CARD.shown(first.text) == first.text
    results = env.step(f"search[{task.query}]")
    assert " [SEP] Page 1 (Total results: 30) [SEP] Next > [SEP] B" in results.text and len(env.listed()) == 10
    assert CARD.shown(results.text).startswith("Back to Search [SEP] Page 1")
    for number in (2, 3, 4):  # past the end, too
        assert f"Page {number} " in env.step("click[next >]").text
    assert not env.listed() and not env.step("click[buy now]").valid
    env.step("click[< prev]")
    asin = env.listed()[0].asin
    item = env.step(f"click[{asin}]")
    assert item.valid and "Rating: N.A. [SEP] Description [SEP] Features [SEP] Reviews [SEP] Buy Now" in item.text
    kind, values = next(iter(env.product.options.items()))
    env.step(f"click[{values[0]}]"), env.step(f"click[{values[1]}]")
    assert dict(env.state.options) == {kind: values[1]}
    assert all(bullet in env.step("click[features]").text for bullet in env.product.bullets)
    assert env.step("click[< prev]").text == item.text  # a choice is not seen in this mode
    assert "Page 3" in env.step("click[< prev]").text and env.state.options == ()
    before = env.step("click[back to search]")
    assert before.text == first.text and not env.step("click[search]").valid
    rich = ShopEnv(mode="text_rich")
    rich.reset(task), rich.step(f"search[{env.shop.products[asin].title}]"), rich.step(f"click[{asin}]")
    assert "[button] Buy Now [button_]" in rich.step("click[next >]").text
    page = CARD.make(mode="html")
    assert task.goal in (text := html.unescape(page.reset(task).text)) and 'name="words"' in text
    page.step(f"search[{env.shop.products[asin].title}]")
    assert f'value="click[{values[1]}]"' in html.unescape(page.step(f"click[{asin}]").text)
    with pytest.raises(ValueError, match="mode='url': allowed"):
        CARD.make(mode="url")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.text(), st.text().map("search[{}]".format), st.sampled_from(range(40))), max_size=12))
@example(["[" * 100_000 + "]" * 100_000, "click[" * 20_000, "search[" + "x " * 50_000 + "]", "\0", "search[\ud800]"])
def test_any_text_is_a_turn(actions):
    env = CARD.make(max_steps=20)
    found = env.reset(TASKS[1])
    for action in actions:
        if env.done:
            break
        can = [a for a in found.admissible if a.startswith("click")] or ["search[lamp]"]
        found = env.step(can[action % len(can)] if isinstance(action, int) else action)
        assert 0 <= found.score <= 1 and 0 <= env.progress() <= 1 and isinstance(found.text, str)


def test_what_is_known_of_a_purchase():
    """The plan wins in as many actions as it has; the truth is what a purchase would pay now; a state comes back."""
    env = CARD.make(max_steps=15)
    for capability in (HasProgress, HasPlan, HasExpert, HasAnswer, Forkable):
        assert isinstance(env, capability)
    for task in TASKS[:40]:
        found = env.reset(task)
        plan, progress = env.plan(), [env.progress()]
        kept = env.snapshot()
        for action in plan:
            found = env.step(action)
            progress.append(env.progress())
        assert found.won and found.steps == len(plan) and progress[0] == 0 and progress[-1] == 1.0
        assert env.restore(kept).steps == 0 and env.plan() == plan and env.progress() == 0
    env.step("search[table]")
    env.step(f"click[{env.listed()[0].asin}]")
    would = env.progress()
    assert env.step("click[buy now]").reward == would


def test_the_careful_customer_is_good_and_not_perfect():
    scores = {}
    for kind in ("optimal", "explore"):
        env, won = CARD.make(max_steps=15), 0
        for task in TASKS:
            found = env.reset(task)
            while not found.done:
                found = env.step(env.expert(kind))
            won += found.won
        scores[kind] = won / len(TASKS)
    assert scores["optimal"] == 1.0 and 0.2 < scores["explore"] < 0.9
    with pytest.raises(ValueError, match="kind='x': allowed: 'optimal', 'explore'"):
        env.expert("x")


def test_the_small_tokenizer_knows_every_word():
    tokenizer = build_tokenizer("webshop")
    rng, env = random.Random(0), CARD.make(max_steps=12)
    for task in TASKS[:16]:
        steps, _ = CARD.demonstrate(env, task, rng, CARD.pretraining["habits"], 12)
        for step in steps:
            ids = tokenizer(f"{CARD.shown(step.observation)} {step.action} {step.guidance}").input_ids
            assert tokenizer.unk_token_id not in ids, step


def test_an_agent_shops_and_learns(tmp_path):
    tokenizer = build_tokenizer("webshop")
    policy = Policy(build_model(tokenizer, layers=1, hidden=64), tokenizer, True, "untrained")
    played = sglib.rollout(policy, TASKS[:4], turns=4, seed=0)
    assert all(t.env == "webshop" and t.turns[0].truth == 0 for t in played)
    assert CARD.failures["no_purchase"](played) + CARD.failures["imperfect_purchase"](played) <= 1
    for name in ("grpo", "truth", "self_guide", "repro"):
        recipe = load_recipe(name)
        made = GRPOSettings(iterations=1, games_per_iteration=2, group_size=2, max_turns=3, format=recipe.format)
        assert len(train(policy, TASKS, made, recipe.components, recipe.estimator).metrics) == 1, name


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: make browser")
def test_a_person_shops_in_a_browser(tmp_path):
    """The page is used as a person would; the reward is shown term by term, the session opens as a trajectory, and
    what sellers write is text."""
    from playwright.sync_api import sync_playwright

    task = next(t for t in TASKS if len(t.options) == 2 and "<Pro>" in t.name)
    loop, started, at = asyncio.new_event_loop(), threading.Event(), []

    async def begin():
        at.extend(await site.serve([task], tmp_path))
        started.set()

    thread = threading.Thread(target=lambda: (loop.run_until_complete(begin()), loop.run_forever()), daemon=True)
    thread.start()
    assert started.wait(20)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = browser.new_page()
            page.goto(at[1])
            assert page.inner_text("#instruction") == task.goal
            page.fill("input[name=words]", task.name)
            page.click("text=Search")
            page.click(f"button.product:has-text('{task.asin}')")
            assert page.locator(f"text={task.name}").count() and not page.locator("pro").count()
            page.click(f"button.option:has-text('{task.options[0]}')")
            assert page.inner_text("button.chosen").strip() == task.options[0]
            page.click("text=Buy Now")
            wanted = len(task.attributes) + 2
            reward = page.inner_text("#reward")
            cells = page.locator("td").all_inner_texts()
            saved = page.inner_text("#saved")
            browser.close()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
    assert cells[cells.index("options") + 1] == "1 of 2"
    assert float(reward) == pytest.approx(wanted / (wanted + 1), abs=1e-3)
    (recorded,) = read_trajectories(saved)
    assert Path(saved).parent == tmp_path and [t.action for t in recorded.turns][-1] == "click[Buy Now]"
    assert recorded.score == pytest.approx(wanted / (wanted + 1)) and envs.task_of(recorded) == task
    again = list(envs.replay(task, [t.action for t in recorded.turns]))[-1]
    assert again.observation.text == recorded.final_observation
    assert task.asin in CARD.board(recorded, 1).text.replace(SEP, "")
    sglib.inspect([recorded], game=0, step=2)


def test_hostile_products_are_shown_and_run_nothing(tmp_path):
    attack = "<script>alert(1)</script>'\"><img src=x onerror=alert(1)>"
    session = site.Session(TASKS[0], tmp_path, "s")
    kinds = ("text", "button", "product", "option", "search")
    session.env.parts = lambda: [Part(kind, attack, attack) for kind in kinds]
    session.env.task = dataclasses.replace(TASKS[0], goal=f"{attack}, the goal")
    page = session.page()
    assert "<script>" not in page and "<img" not in page and page.count("&lt;script&gt;") >= 5


def test_the_shipped_model_shops():
    """It buys, and in a shop of 400 products the right thing in more than a fifth of visits."""
    report = sglib.evaluate(sglib.load_policy("base", env="webshop"), CARD.tasks(64, seed=5, size={"products": 400}))
    assert report.success > 0.2 and np.mean([t.score for t in report.trajectories]) > 0.5


def test_small_models_read_the_shop_in_small_letters():
    tokenizer = build_tokenizer("webshop")
    asin = next(iter(catalogue(TASKS[0].shop).products))
    assert tokenizer.encode(f"Action: click[{asin}]") == tokenizer.encode(f"action: click[{asin.lower()}]")
    for task in TASKS[:20]:
        for step in CARD.demonstrate(CARD.make(), task, random.Random(0), {"noise": 0.5, "careless": True}, 12)[0]:
            assert tokenizer.unk_token_id not in tokenizer.encode(f"{step.observation} {step.guidance} {step.action}")


def test_the_site_says_which_port_it_cannot_have():
    async def twice():
        server, address = await site.serve(TASKS[:1], "x")
        with pytest.raises(ValueError, match="port=.*allowed: a free one"):
            await site.serve(TASKS[:1], "x", int(address.rsplit(":", 1)[1].strip("/")))
        server.stop()

    asyncio.run(twice())


def test_equal_to_the_released_code():
    """Where a checkout of WebShop is: WEBSHOP_CHECKOUT=folder, and flask."""
    checkout = os.environ.get("WEBSHOP_CHECKOUT")
    if not checkout:
        pytest.skip("needs WEBSHOP_CHECKOUT, a clone of WebShop, and flask")
    import parity_webshop

    counts = parity_webshop.compare(checkout, 200, 1000, seed=1)
    assert counts["differences"] == 0 and counts["pairs"] == 1000 and counts["purchases"] > 0, counts
