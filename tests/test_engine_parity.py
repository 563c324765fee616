"""The fast engine says and does, step by step, exactly what TextWorld's engine does.

A small sample, another one in every run (a failure prints the seed that repeats it); `make parity` plays hundreds of
games and tens of thousands of steps with the same code. A difference is reported with the commands that lead to it.
"""

from __future__ import annotations

import gzip
import json
import os
import random
from dataclasses import replace

import parity
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sglib.envs.alfworld import TASK_TYPES, FastAlfworld, Game, generate_games
from sglib.envs.alfworld.games import room_of
from sglib.envs.alfworld.textworld import TextWorldAlfworld

SEED = int(os.environ.get("SGLIB_PARITY_SEED", random.SystemRandom().randrange(10**6)))
AGAIN = f"SGLIB_PARITY_SEED={SEED} plays the same games"


@pytest.fixture(scope="module")
def reference() -> TextWorldAlfworld:
    return TextWorldAlfworld()


def agree(reference, game: Game, rng: random.Random, steps: int, kind: str) -> parity.Transcript:
    """One walk on the reference, compared whole; returns the recording."""
    transcript = parity.walk(reference, game, rng, steps, kind)
    difference = parity.compare_with(FastAlfworld, transcript)
    assert difference is None, f"{difference}\n{AGAIN}"
    return transcript


def follow(reference, game: Game, script: list[str]) -> list[dict]:
    """A script on both engines; returns what was said."""
    rows = [parity._row(None, reference.reset(game))]
    for command in script:
        if rows[-1]["done"]:
            break
        rows.append(parity._row(command, reference.step(command)))
    names = ("id", "task_type", "goal", "split", "scene", "problem", "domain", "grammar")
    about = {name: getattr(game, name) for name in names}
    difference = parity.compare_with(FastAlfworld, {"game": about, "kind": "script", "steps": rows})
    assert difference is None, f"{difference}\n{AGAIN}"
    return rows


# -- samples ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASK_TYPES)
def test_walks_and_walkthroughs(reference, task):
    rng = random.Random(f"{SEED} {task}")
    games = generate_games(2, seed=SEED, tasks=(task,), max_receptacles=9)
    games += generate_games(1, seed=SEED, split="valid_unseen", tasks=(task,), max_receptacles=7)
    for game, kind in zip(games, parity.KINDS):
        agree(reference, game, rng, 25, kind)
        rows = follow(reference, game, list(game.walkthrough))
        assert rows[-1]["won"] and len(rows) == len(game.walkthrough) + 1, game.id


@pytest.mark.parametrize("number", range(6))
def test_official_traits(reference, number):
    """What official files have and generated games lack, in the words of every release of the data."""
    rng = random.Random(f"{SEED} official {number}")
    (game,) = generate_games(1, seed=SEED + number, max_receptacles=9)
    for _ in range(20):
        variant = parity.official_style(game, rng)
        if number % 3:
            variant = parity.other_grammar(variant, ("2.1.1", "2.1.2")[number % 3 - 1])
        try:
            won = reference.reset(variant).won
        except ValueError:
            continue  # the reference cannot load every variant
        if not won:
            agree(reference, variant, rng, 30, parity.KINDS[number % 3])
            return
    pytest.fail(f"no variant could be loaded; {AGAIN}")


def test_goals_with_slicing(reference):
    rng = random.Random(f"{SEED} slices")
    env = FastAlfworld()
    for game in filter(None, map(parity.sliced, generate_games(150, seed=SEED, max_receptacles=8))):
        env.reset(game)
        if plan := env.plan():  # the reference cannot load goals that no action could ever meet
            break
    else:
        pytest.fail(f"no game with a sliced goal can be won; {AGAIN}")
    assert follow(reference, game, plan)[-1]["won"], game.id
    agree(reference, game, rng, 20, "search")


def test_every_kind_of_room(reference):
    rng = random.Random(f"{SEED} rooms")
    pool = generate_games(60, seed=SEED, max_receptacles=9)
    verbs = set()
    for room in ("Kitchen", "LivingRoom", "Bedroom", "Bathroom"):
        game = next(g for g in pool if room_of(g.scene) == room)
        for before, after in zip((rows := agree(reference, game, rng, 40, "random")["steps"]), rows[1:]):
            if after["command"] in before["admissible"]:
                verbs.add(after["command"].split()[0])
    wanted = {"go", "take", "move", "examine", "look", "inventory", "help"}
    assert verbs >= wanted, f"never played: {sorted(wanted - verbs)}; {AGAIN}"


def test_experts_walk_alike(reference):
    """Both experts' actions are admissible on the reference and win there."""
    for game in generate_games(2, seed=SEED + 1, max_receptacles=8):
        for kind in ("explore", "optimal"):
            env, script = FastAlfworld(), []
            observation = env.reset(game)
            while not observation.done and len(script) < 60:
                script.append(env.expert(kind))
                observation = env.step(script[-1])
            assert follow(reference, game, script)[-1]["won"], f"{game.id} {kind}"


def test_alfred_derived_games(reference):
    """Full rooms with real placements and human sentences."""
    path = os.environ.get("SGLIB_ALFRED_TRIALS")
    if not path:
        pytest.skip("SGLIB_ALFRED_TRIALS does not name a file of ALFRED trial facts")
    from sglib.envs.alfworld.trials import from_alfred_trials

    rng = random.Random(f"{SEED} trials")
    games = [g for g in from_alfred_trials(path, split="valid_seen", sentences="human") if len(g.problem) < 40_000]
    for game, kind in zip(rng.sample(games, 3), parity.KINDS):
        agree(reference, game, rng, 20, kind)


# -- any sequence of commands -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def forks():
    """A game on both engines, the reference played along one trunk: fast states to go on from, and what it says."""
    (game,) = generate_games(1, seed=SEED, max_receptacles=6)
    return game


WORDS = st.sampled_from(["look", "go to", "open", "take", "from", "move", "to", "in/on", "with", "1", "2", "examine",
                         "help", "inventory", "use", "heat", "desk", "drawer", "", " "])  # fmt: skip


@settings(max_examples=6, deadline=None, phases=[Phase.generate, Phase.shrink], derandomize=False,
          suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])  # fmt: skip
@given(data=st.data())
def test_any_commands(reference, forks, data):
    """Hypothesis draws the commands: admissible ones by number, arbitrary text, and shuffled words of the language."""
    expected, fast = reference.reset(forks), FastAlfworld()
    played = []
    got = fast.reset(forks)
    while True:
        for name in parity.FIELDS:
            assert getattr(got, name) == getattr(expected, name), f"{forks.id}: {name} after {played}; {AGAIN}"
        if expected.done or len(played) == 15:
            return
        by_number = st.integers(0, 200).map(lambda i, known=expected.admissible: known[i % len(known)])
        phrase = st.lists(WORDS, max_size=5).map(" ".join)
        played.append(data.draw(st.one_of(by_number, by_number, by_number, phrase, st.text(max_size=30)), "command"))
        expected, got = reference.step(played[-1]), fast.step(played[-1])


# -- scripts: what a random walk meets too seldom ---------------------------------------------------------------------


def reach(env: FastAlfworld, receptacle: str) -> list[str]:
    """Commands that bring the fast engine to a receptacle and open it; plays them."""
    name, script = env.world.names[receptacle], []
    if env.location != env.world.place[receptacle]:
        script.append(f"go to {name}")
    if receptacle in env.world.openable and receptacle not in env.opened:
        script.append(f"open {name}")
    for command in script:
        env.step(command)
    return script


def fetch(env: FastAlfworld, object_: str) -> list[str]:
    """Commands that take an object; plays them."""
    receptacle = env.where[object_][0]
    script = [*reach(env, receptacle), f"take {env.world.names[object_]} from {env.world.names[receptacle]}"]
    env.step(script[-1])
    return script


def slicing(env: FastAlfworld) -> list[str] | None:
    """Slice a thing, look at it in the hand, clean or heat or cool it where the room allows, look again."""
    world, names = env.world, env.world.names
    knives = sorted(world.knives & set(env.where))
    food = sorted(o for o in world.sliceable & set(env.where) if any(world.does.values()))
    if not knives or not food:
        return None
    knife, thing = knives[0], food[0]
    script = fetch(env, knife) + [f"examine {names[knife]}"]
    script += reach(env, env.where[thing][0]) + [f"slice {names[thing]} with {names[knife]}", "inventory"]
    place = next((r for r in world.receptacles if knife in world.accepts[r]), None)
    script += reach(env, place) + [f"move {names[knife]} to {names[place]}", "look"]
    env.step(script[-2])
    script += fetch(env, thing) + [f"examine {names[thing]}"]
    for prop, verb in (("ishot", "heat"), ("isclean", "clean"), ("iscool", "cool")):
        for r in world.does[prop][:1]:
            script += reach(env, r) + [f"{verb} {names[thing]} with {names[r]}", f"examine {names[thing]}"]
    return script if env.held == thing else None


def processing(env: FastAlfworld) -> list[str] | None:
    """All three treatments of one unsliced thing, in every order that changes what `examine` says."""
    world, names = env.world, env.world.names
    things = sorted(set.intersection(*world.can_be.values()) & set(env.where) - world.holder)
    if not things or not all(world.does.values()):
        return None
    thing = things[0]
    script = fetch(env, thing)
    for verb in ("cool", "heat", "cool", "clean", "heat"):
        r = world.does[{"cool": "iscool", "heat": "ishot", "clean": "isclean"}[verb]][0]
        script += reach(env, r) + [f"{verb} {names[thing]} with {names[r]}", f"examine {names[thing]}"]
    return script if env.held == thing else None


def lighting(env: FastAlfworld) -> list[str] | None:
    """Use a lamp twice, from where it stands and from elsewhere; try to take it and to look at it."""
    lamps = sorted(env.world.toggleable & set(env.where))
    if not lamps:
        return None
    room = env.where[lamps[0]][0]
    lamp, holder = env.world.names[lamps[0]], env.world.names[room]
    script = [f"use {lamp}", *reach(env, room)]
    script += [f"use {lamp}", f"examine {lamp}", f"take {lamp} from {holder}"]
    return script + [f"use {lamp}", f"examine {holder}", "look"]


def side_by_side(env: FastAlfworld) -> list[str] | None:
    """Move a thing between two receptacles at one place, back and forth, with `look` after each: it is "next to"."""
    world, names = env.world, env.world.names
    for first, second in [(a, b) for group in world.at.values() for a in group for b in group if a != b]:
        both = sorted(world.pickupable & set(env.inside[first]) & world.accepts[first] & world.accepts[second])
        if both:
            thing = both[0]
            break
    else:
        return None
    script = reach(env, first) + reach(env, second) + fetch(env, thing) + ["look"]
    for target in (second, first, second):
        script += [f"move {names[thing]} to {names[target]}", "look", f"examine {names[target]}"]
        script += [f"take {names[thing]} from {names[target]}", "look"]
    elsewhere = next((r for r in world.receptacles if world.place[r] != env.location and r not in world.openable), None)
    script += [f"move {names[thing]} to {names[second]}", f"go to {names[elsewhere]}", "look"] if elsewhere else []
    return script + ([f"go to {names[first]}", "look"] if elsewhere else [])


def container(env: FastAlfworld) -> list[str] | None:
    """Look into a movable receptacle (bowl, box, pan, ...) in the hand."""
    bowls = sorted(env.world.holder & set(env.where))
    return fetch(env, bowls[0]) + [f"examine {env.world.names[bowls[0]]}", "inventory"] if bowls else None


@pytest.mark.parametrize("script_of", [slicing, processing, lighting, side_by_side, container])
def test_scripted(reference, script_of):
    """Each script on the first game that allows it."""
    tasks = ("look_at_obj_in_light",) if script_of is lighting else None
    for game in generate_games(80, seed=SEED, tasks=tasks, max_receptacles=14):
        env = FastAlfworld()
        env.reset(game)
        if script := script_of(env):
            break
    else:
        pytest.fail(f"no game allows this script; {AGAIN}")
    rows = follow(reference, game, script)
    played = {after["command"].split()[0] for before, after in zip(rows, rows[1:])
              if after["command"] in before["admissible"]}  # fmt: skip
    wanted = {"slicing": {"slice", "move"}, "processing": {"clean", "heat", "cool"}, "lighting": {"use"},
              "side_by_side": {"move", "look"}, "container": {"take", "examine"}}[script_of.__name__]  # fmt: skip
    assert rows[-1]["won"] or played >= wanted, f"{game.id}: {sorted(wanted - played)} did nothing in {script}; {AGAIN}"


def test_what_is_inside_a_thing_in_the_hand(reference):
    """`inReceptacleObject`: listed whatever else is said of the inner things; what is no object comes last."""
    for game in generate_games(80, seed=SEED, max_receptacles=8):
        env = FastAlfworld()
        env.reset(game)
        if script := container(env):
            break
    bowl = script[-2].removeprefix("examine ")
    bowl, room = env.world.ids[bowl], env.world.receptacles[0]
    inner = [o for o in sorted(env.where) if o != bowl][:2]
    facts = "".join(f"(inReceptacleObject {thing} {bowl})" for thing in (room, *inner, bowl))
    game = replace(game, problem=game.problem.replace("(:init", f"(:init {facts}"))
    said = follow(reference, game, script)[-2]["text"]
    listed = said.partition("you see ")[2].split(", ")
    assert said.startswith("This is a normal ") and len(listed) == 3, said
    assert listed[-1] == f"and a {env.world.names[room]}.", said  # a receptacle, so behind the objects


# -- the harness itself -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", parity.MALFORMED)
def test_malformed_commands_do_nothing(loaded, command):
    """Whatever the string, nothing is raised and both engines answer alike (`strip` makes "look " admissible)."""
    reference, fast = loaded
    expected, got = reference.step(command), fast.step(command)
    assert parity._row(command, got) == parity._row(command, expected)


@pytest.fixture(scope="module")
def loaded():
    """One game on both engines, shared by the malformed commands: they are turns of one long episode."""
    game = generate_games(1, seed=15, max_receptacles=6)[0]
    engines = TextWorldAlfworld(), FastAlfworld()
    for engine in engines:
        engine.reset(game)
    return engines


def test_step_limit():
    """Both engines end an episode at `max_steps`, and refuse to go on."""
    game = generate_games(1, seed=15, max_receptacles=6)[0]
    for env in (TextWorldAlfworld(max_steps=2), FastAlfworld(max_steps=2)):
        with pytest.raises(RuntimeError):
            env.step("look")  # before the first reset
        assert not env.reset(game).done
        assert not env.step("look").done
        observation = env.step("xyzzy")
        assert observation.done and not observation.won and observation.steps == 2 and observation.reward == 0.0
        with pytest.raises(RuntimeError):
            env.step("look")
        assert not env.reset(game).done
    for engine in (TextWorldAlfworld, FastAlfworld):
        with pytest.raises(ValueError, match="max_steps"):
            engine(max_steps=0)


def test_the_comparison_can_fail(reference):
    """One other letter, one other command, one exception: each is found and described. The harness is no formality."""
    game = generate_games(1, seed=15, max_receptacles=6)[0]
    transcript = parity.walk(reference, game, random.Random(0), 5, "random")
    assert parity.compare_with(FastAlfworld, transcript) is None

    class Other(FastAlfworld):
        def reset(self, game):
            return super().reset(replace(game, goal=game.goal + "s"))

    class Deaf(FastAlfworld):
        def admissible(self):
            return super().admissible()[:-1]

    class Broken(FastAlfworld):
        def step(self, action):
            raise KeyError(action)

    for engine, message in ((Other, "text differs"), (Deaf, "admissible differs"), (Broken, "KeyError")):
        assert message in parity.compare_with(engine, transcript)


def test_recordings_are_kept_and_found_again(tmp_path, monkeypatch, reference):
    """What was recorded is not played again, and is compared from disk."""
    monkeypatch.setattr(parity, "FOLDER", tmp_path)
    monkeypatch.setattr(parity, "_reference", reference, raising=False)
    game = generate_games(1, seed=15, max_receptacles=5)[0]
    job = parity.Job(game, "random", 4, 0)
    assert parity._record(job) is None
    assert json.loads(gzip.decompress(job.path().read_bytes()))["game"]["id"] == game.id
    parity.record([job], workers=1)  # nothing is missing: no worker starts
    assert parity.compare(FastAlfworld) == []
