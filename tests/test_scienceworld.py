"""ScienceWorld: the simulator's solutions, replays, any text, a Java process that dies, forks, lists, the card."""

import importlib.util
import json
import os
import random
import re
import shutil
import signal
import time
import weakref

import pytest

import sglib
from sglib import envs
from sglib.envs.scienceworld import SHORT, TASKS, Habits, ScienceWorldEnv, Variation, demonstrate, simulator
from sglib.envs.scienceworld.engine import ASKS, plain
from sglib.envs.scienceworld.variations import SPLITS, available
from sglib.experiments.recipe import load_recipe
from sglib.models.policy import Policy
from sglib.models.small import build_model, build_tokenizer
from sglib.training.grpo import GRPOSettings, train

CARD = envs.get("scienceworld")
EGG = Variation("find-animal", 3)  # starts outside, where eggs lie
MISSING = [name for name in ("scienceworld", "py4j") if importlib.util.find_spec(name) is None]
MISSING += ["Java"] * (shutil.which("java") is None)
plays = pytest.mark.skipif(bool(MISSING), reason=f"the simulator needs {' and '.join(MISSING)}")
WORDS = re.compile(r"\d+|[A-Za-z']+|[^\sA-Za-z\d']")  # as the small models' tokenizer splits


@pytest.fixture(scope="module", autouse=True)
def quick_java():
    """Short runs are over before Java's second compiler pays; and nothing is left running."""
    before = os.environ.get("JDK_JAVA_OPTIONS")
    os.environ["JDK_JAVA_OPTIONS"] = "-XX:TieredStopAtLevel=1"
    yield
    simulator.stop()
    del os.environ["JDK_JAVA_OPTIONS"]
    if before is not None:
        os.environ["JDK_JAVA_OPTIONS"] = before


@pytest.fixture(scope="module")
def env():
    return ScienceWorldEnv(max_steps=40, admissible=False)


def played(env, task, actions):
    """Every observation of an episode."""
    seen = [env.reset(task)]
    for action in actions:
        if not env.done:
            seen.append(env.step(action))
    return seen


# -- lists of tasks: without Java ------------------------------------------------------------------------------------


def test_lists_go_on_and_splits_share_nothing():
    size = {"tasks": "all"}
    lists = {split: CARD.tasks(available(split, size), seed=4, split=split, size=size) for split in SPLITS}
    assert sum(map(len, lists.values())) == len({t.id for tasks in lists.values() for t in tasks}) == 7207
    many = CARD.tasks(100, seed=4, split="dev")
    assert CARD.tasks(40, seed=4, split="dev") + CARD.tasks(60, seed=4, split="dev", start=40) == many
    assert [t.name for t in many[:10]] == list(SHORT) and many != CARD.tasks(100, seed=5, split="dev")
    whole = available("dev")
    twice = CARD.tasks(2 * whole, split="dev")
    assert len(set(twice)) == whole == 405 and set(twice[:whole]) == set(twice[whole:])
    assert twice[:9] != twice[whole:][:9]
    assert len(CARD.panel(512, "dev")) == whole and sglib.panel("scienceworld", n=20) == CARD.panel(20, "dev")
    assert CARD.remake(many[3].id, many[3].origin) == many[3]


@pytest.mark.parametrize(
    "size, message",
    [
        (3, "size=3: allowed"),
        ({"task": "all"}, "size=.*allowed: tasks and simplifications"),
        ({"tasks": "cook"}, "tasks: 'cook'; allowed: short, all, boil"),
        ({"tasks": []}, r"tasks=\[\]"),
        ({"tasks": ["boil", "boil"]}, "different tasks"),
        ({"simplifications": "hard"}, "simplifications='hard': allowed: 'easy'"),
        ({"simplifications": None}, "simplifications=None"),
        ({"simplifications": "openDoors,noElectricalAction"}, "electrical actions"),
    ],
)
def test_sizes_that_are_not(size, message):
    with pytest.raises(ValueError, match=message):
        CARD.tasks(0, size=size)


def test_variations_that_are_not():
    with pytest.raises(ValueError, match="number=30: allowed for boil: 0 to 29"):
        Variation("boil", 30)
    assert Variation("boil", 1, "").id == "boil-1-none" != Variation("boil", 1).id
    with pytest.raises(ValueError, match="split='valid'"):
        CARD.tasks(1, split="valid")


def test_what_is_missing_is_named(monkeypatch):
    """Only when something is played; lists, cards and capabilities are there without."""
    simulator.stop()
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert all(map(CARD.offers, ("progress", "plan", "expert", "fork"))) and not CARD.offers("distance")
    if not MISSING or MISSING == ["Java"]:
        with pytest.raises(RuntimeError, match="no Java .* install version 8"):
            CARD.make().reset(EGG)
    monkeypatch.setitem(__import__("sys").modules, "py4j.java_gateway", None)
    with pytest.raises(RuntimeError, match=r"pip install 'sglib\[scienceworld\]'"):
        CARD.make().reset(EGG)


def test_what_reaches_the_simulator():
    assert plain(" open door ") == "open door" and plain("a\ud800b") == "a?b"
    assert [plain(x) for x in (None, 7, "reset task", "RESET a task", "x" * 100_000)] == [""] * 5


# -- the simulator ---------------------------------------------------------------------------------------------------


@plays
def test_the_table_is_the_simulators():
    world = simulator.World()
    assert list(world.interface.getTaskNames()) == list(TASKS)
    assert [world.interface.getTaskMaxVariations(name) for name in TASKS] == [sum(sizes) for sizes in TASKS.values()]
    for name in ("boil", "grow-fruit", "lifespan-shortest-lived"):  # the rule of the other tasks is the same
        world.load(Variation(name, 0))
        asked = world.interface.getVariationsTrain, world.interface.getVariationsDev, world.interface.getVariationsTest
        for split, ask in zip(SPLITS, asked):
            listed = CARD.tasks(available(split, {"tasks": name}), split=split, size={"tasks": name})
            assert sorted(task.number for task in listed) == list(ask())


@plays
@pytest.mark.parametrize("name", SHORT[::3])
def test_solutions_win_and_replays_are_the_same(env, name):
    task = CARD.tasks(1, split="dev", size={"tasks": name})[0]
    first = env.reset(task)
    assert first.text.startswith("Your task is to ") and first.goal in first.text and not first.done
    plan, scores = env.plan(), [first.score]
    assert 3 <= len(plan) <= 28
    words = set(CARD.vocabulary()[1])
    seen = [first]
    for place, action in enumerate(plan):
        assert env.expert("gold") == action and env.plan() == plan[place:] and env.progress() == scores[-1]
        seen.append(env.step(action))
        scores.append(seen[-1].score)
    last = seen[-1]
    assert (last.won, last.done, last.score, last.info["points"]) == (True, True, 1.0, 100) and env.plan() == []
    assert scores == sorted(scores) and sum(o.reward for o in seen) == pytest.approx(1 - first.score)
    assert not {w for text in (*plan, *(o.text for o in seen)) for w in WORDS.findall(text)} - words
    if len(plan) < 10:
        assert played(ScienceWorldEnv(max_steps=40, admissible=False), task, plan) == seen


@plays
def test_worlds_in_circles_are_let_go(monkeypatch):
    """A world holds 12 MiB of Java's memory, of which Python's collector knows nothing."""
    monkeypatch.setattr(simulator, "TIDY", 4)
    left = []
    for task in CARD.tasks(9):
        env = CARD.make(admissible=False)
        env.reset(task)
        env.itself = env
        left.append(weakref.ref(env))
        del env
    assert sum(ref() is not None for ref in left) <= 4


@plays
def test_worlds_do_not_disturb_each_other():
    """They draw from one generator, which animals that wander use: an episode is the same alone and among others."""
    tasks = [EGG, Variation("find-animal", 40), Variation("find-plant", 8)]
    actions = ["teleport to outside", "wait1", "look around", "open door", "0", "wait1", "look around"]
    alone = [played(ScienceWorldEnv(admissible=False), task, actions) for task in tasks]
    together = [ScienceWorldEnv(admissible=False) for _ in tasks]
    seen = [[each.reset(task)] for each, task in zip(together, tasks)]
    for action in actions:
        for each, found in zip(together, seen):
            found.append(each.step(action))
    assert seen == alone
    world = together[0].world
    drawn = world.random.nextInt()
    fresh = simulator.World()
    fresh.load(EGG)
    assert fresh.random.nextInt() != drawn, "nothing was drawn: the test proves nothing"


@plays
def test_any_text_is_a_turn(env):
    env.reset(EGG)
    rng = random.Random(0)
    texts = ["x" * 100_000, "a\0b", "\0", "look \ud800", "go\nnowhere", "", " ", "é ü 漢", "reset task",
             "Reset the task", None, "%s %d {}", "\\", '"', "move to to in"]  # fmt: skip
    texts += ["".join(map(chr, rng.choices(range(1, 0x3000), k=9))) for _ in range(4)]
    for number, text in enumerate(texts, 1):
        seen = env.step(text)
        assert (seen.steps, seen.valid, seen.done, seen.reward) == (number, False, False, 0.0), text
    assert env.plan() == [step.action for step in simulator.gold(EGG)], "nothing has changed"
    assert env.step("LOOK  around\n").valid
    with pytest.raises(ValueError, match="max_steps"):
        ScienceWorldEnv(max_steps=0)
    short = ScienceWorldEnv(max_steps=1, admissible=False)
    short.reset(EGG)
    assert short.step("inventory").done
    with pytest.raises(RuntimeError, match="call reset"):
        short.step("inventory")


@plays
def test_a_question_is_answered_by_a_number():
    env = ScienceWorldEnv()
    first = env.reset(EGG)
    assert {"open OBJ", "OBJ = air"} <= {*first.admissible} and "reset task" not in first.admissible
    asked = env.step("open door")
    assert asked.text.startswith(ASKS) and asked.valid and asked.admissible == ("0", "1", "2")
    assert env.step(" 1 ").text == "The door is already open."
    env.step("open door")
    dropped = env.step("reset task")
    assert not dropped.valid and dropped.text.startswith("Unknown action")
    assert env.step("1").valid is False and env.plan() is None


@plays
def test_a_wrong_focus_ends_it(env):
    env.reset(EGG)
    last = env.step("focus on air")
    assert (last.done, last.won, last.score, last.info["points"]) == (True, False, 0.0, -100)
    assert last.reward <= -1 and env.progress() == 0 and env.plan() is None


@plays
def test_states_come_back_and_the_expert_finds_its_way(env):
    env.reset(EGG)
    steps = simulator.gold(EGG)
    for step in steps[:2]:
        env.step(step.action)
    kept = env.snapshot()
    env.step("teleport to foundry")
    assert env.plan() is None and env.expert("gold") == f"teleport to {steps[2].room}"
    rest = ["teleport to workshop", "wait1", "look around"]
    other = ScienceWorldEnv(max_steps=40, admissible=False)
    runs = []
    for each in (env, other, env):
        assert each.restore(kept) == kept.observation
        runs.append([each.step(action) for action in rest])
    assert runs[0] == runs[1] == runs[2]
    while not env.done:
        last = env.step(env.expert("gold"))
    assert last.won
    with pytest.raises(ValueError, match="kind='best'.*'gold'"):
        env.expert("best")


@plays
def test_java_dies_and_the_episode_goes_on(env):
    actions = [step.action for step in simulator.gold(EGG)]
    whole = played(env, EGG, actions)
    env.reset(EGG)
    for action in actions[:3]:
        env.step(action)
    old = simulator.running()
    os.kill(old.process.pid, signal.SIGKILL)
    assert [env.step(action) for action in actions[3:]] == whole[4:]
    assert simulator.running() is not old and not old.alive and old.process.poll() is not None

    def dies():
        raise simulator.Died

    with pytest.raises(RuntimeError, match="died twice in a row"):
        simulator.again(dies)


@plays
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_has_a_java_of_its_own_which_ends_with_it(env):
    expected = env.reset(EGG).text
    env.step("look around")
    reading, writing = os.pipe()
    child = os.fork()
    if not child:  # the running episode goes on in the child, too
        same = env.step("inventory").valid and env.reset(EGG).text == expected
        os.write(writing, f"{same} {simulator.running().process.pid}".encode())
        os.kill(os.getpid(), signal.SIGKILL)  # nothing is cleaned up
    os.close(writing)
    same, java = os.read(reading, 100).decode().split()
    os.close(reading)
    os.waitpid(child, 0)
    assert same == "True" and int(java) != simulator.running().process.pid
    assert env.step("inventory").valid and env.reset(EGG).text == expected
    until = time.monotonic() + 20
    while time.monotonic() < until and _runs(int(java)):
        time.sleep(0.1)
    assert not _runs(int(java))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# -- the card --------------------------------------------------------------------------------------------------------


@plays
def test_demonstrations_are_the_same_again(env):
    habits = {"noise": 0.9, "again": 0.2, "unknown": 0.1, "wrong_label": 0.3}
    task, words = Variation("find-non-living-thing", 150), set(CARD.vocabulary()[1])
    steps, won = CARD.demonstrate(env, task, random.Random(3), habits, 15)
    assert (steps, won) == demonstrate(env, task, random.Random(3), Habits(**habits), 15)
    clean, won = demonstrate(env, task, random.Random(3), Habits(0.0, 0.0, 0.0, 0.0), 15)
    assert won and all(step.imitate for step in clean) and "positive" in {step.label for step in clean}
    assert clean[0].guidance.startswith("focus on ") and not all(step.imitate for step in steps)
    for step in steps + clean:
        assert step.label in sglib.LABELS and step.progress in range(0, 101, 10)
        assert not set(WORDS.findall(f"{step.observation} {step.guidance} {step.action}")) - words


@plays
def test_it_is_trained_and_looked_at():
    tokenizer = build_tokenizer("scienceworld")
    policy = Policy(build_model(tokenizer, hidden=32, layers=1), tokenizer, True, "untrained")
    recipe, tasks = load_recipe("random"), CARD.tasks(1, size={"tasks": "lifespan-shortest-lived"})
    settings = GRPOSettings(iterations=1, games_per_iteration=1, group_size=2, max_turns=2)
    row = train(policy, tasks, settings, recipe.components, recipe.estimator).metrics[0]
    assert row["logprob_gap"] < 1e-4 and 0 < row["grad_norm"] < 1e3
    one = sglib.rollout(policy, tasks, turns=2)[0]
    assert {*sglib.summarize([one]).failures} == {"wrong_focus", "not_understood", "asked_back"}
    assert one.remaining()[0] == 1 - one.turns[0].truth
    assert CARD.board(one, 0).caption == one.goal and CARD.board(one, 2).text.startswith("This ")
    one.turns[-1].reward, one.turns[0].valid, one.turns[1].valid, one.final_observation = -1.17, True, False, ASKS
    one.turns[1].observation = "You focus on the air."
    found = {name: share([one]) for name, share in CARD.failures.items()}
    assert found == {"wrong_focus": 1, "not_understood": 0.5, "asked_back": 0.5}


def test_the_shipped_model_has_the_card_s_recipe_and_vocabulary():
    made = json.loads((CARD.folder / "models/base/card.json").read_text())
    assert made["recipe"] == CARD.pretraining
    policy = sglib.load_policy("base", env="scienceworld", device="cpu")
    assert policy.tokenizer.get_vocab() == build_tokenizer("scienceworld").get_vocab()


@plays
def test_the_shipped_model_finds_living_things():
    tasks = CARD.tasks(12, seed=5, size={"tasks": "find-living-thing"})
    report = sglib.evaluate(sglib.load_policy("base", env="scienceworld"), tasks, turns=30)
    assert report.success >= 0.5
