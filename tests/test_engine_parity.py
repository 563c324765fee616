"""The fast engine says and does, step by step, exactly what TextWorld's engine does.

`SGLIB_PARITY_SCALE` multiplies the number of games (default 1: under a minute); `SGLIB_ALFRED_TRIALS` adds
ALFRED-derived games. A difference is reported with the game's id and the commands that lead to it.
"""

from __future__ import annotations

import os
import random
from dataclasses import replace

import pytest

from sglib.envs.alfworld_fast import FastAlfworld
from sglib.envs.alfworld_games import TASK_TYPES, Game, generate_games, room_of
from sglib.envs.alfworld_textworld import TextWorldAlfworld

SCALE = int(os.environ.get("SGLIB_PARITY_SCALE", "1"))
STEPS = 30
MALFORMED = (
    "",
    " ",
    "\t\n",
    "go",
    "go to",
    "go to ",
    "take",
    "take from",
    "xyzzy",
    "GO TO DESK 1",
    "go to desk 99",
    "look ",
    "  inventory",
    "look around",
    "examine",
    "open  drawer 1",
    "é\u202e\U0001f600",
    "\ud800",
    "a" * 5000,
    "{r.name}",
    "#look.feedback#",
    "use",
    "help me",
    "inventory\n",
    "slice with",
    "go to location 1",
    "examine agent1",
    "examine agent1 ",
    "go  to desk 1",
    "heat with",
    "move to",
    "None",
    "0",
)


@pytest.fixture(scope="module")
def reference() -> TextWorldAlfworld:
    return TextWorldAlfworld()


def explore(rng: random.Random, observation, names: list[str], recent: list[str]) -> str:
    """A command: mostly admissible, each kind equally likely (else `go to` drowns the rest); some that are not."""
    draw = rng.random()
    if draw < 0.08:
        return rng.choice(MALFORMED)
    if draw < 0.20:  # well formed, rarely admissible: all kinds about things that may be elsewhere
        a, b = rng.choice(names), rng.choice(names)
        return rng.choice(
            (
                f"take {a} from {b}",
                f"move {a} to {b}",
                f"open {a}",
                f"close {a}",
                f"use {a}",
                f"examine {a}",
                f"heat {a} with {b}",
                f"cool {a} with {b}",
                f"clean {a} with {b}",
                f"slice {a} with {b}",
                f"go to {a}",
                f"put {a} in/on {b}",
            )
        )
    if draw < 0.25 and recent:
        return rng.choice(recent)
    kinds: dict[str, list[str]] = {}
    for command in observation.admissible:
        kinds.setdefault(command.split()[0], []).append(command)
    # things happen where things are held: prefer what changes the world over looking at it
    acting = ("take", "move", "slice", "heat", "cool", "clean", "use", "open")
    weights = [3.0 if kind in acting else 1.0 for kind in kinds]
    return rng.choice(kinds[rng.choices(list(kinds), weights)[0]])


def play_both(
    reference, game: Game, rng: random.Random, steps: int, script: tuple[str, ...] = ()
) -> tuple[set[str], int, bool]:
    """Play `script` and then a random walk on both engines, comparing every observation whole.

    Half of the walks follow the walkthrough for a random part first; the others leave it at once.
    Returns the kinds of commands that did something, the steps compared, and whether the game was won.
    """
    fast = FastAlfworld()
    expected, got = reference.reset(game), fast.reset(game)
    played: list[str] = []
    compare(game, played, expected, got)
    names = [command.removeprefix("go to ") for command in expected.admissible if command.startswith("go to ")]
    plan = list(game.walkthrough or ())
    script = list(script) or plan[: rng.randrange(len(plan) + 1) if rng.random() < 0.5 else 0]
    kinds: set[str] = set()
    while len(played) < steps and not expected.done:
        command = script.pop(0) if script else explore(rng, expected, names, played)
        if command in expected.admissible:
            kinds.add(command.split()[0])
        seen = [c.removeprefix("take ").split(" from ")[0] for c in expected.admissible if c.startswith("take ")]
        names += [name for name in seen if name not in names]
        played.append(command)
        expected, got = reference.step(command), fast.step(command)
        compare(game, played, expected, got)
    return kinds, len(played), expected.won


def compare(game: Game, played: list[str], expected, got):
    for field in ("text", "goal", "admissible", "reward", "won", "done", "steps"):
        a, b = getattr(expected, field), getattr(got, field)
        if field == "admissible" and a != b:
            a, b = sorted(set(a) - set(b)), sorted(set(b) - set(a))  # only what one engine has
        assert a == b, f"{game.id}: {field} differs after {played}\nTextWorld: {a!r}\nfast:      {b!r}"


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
    receptacle = env.where[object_]
    script = [*reach(env, receptacle), f"take {env.world.names[object_]} from {env.world.names[receptacle]}"]
    env.step(script[-1])
    return script


def slicing(game: Game) -> list[str] | None:
    """Slice a thing, look at it in the hand, clean or heat or cool it where the room allows, look again."""
    env = FastAlfworld()
    env.reset(game)
    world, names = env.world, env.world.names
    knives = sorted(world.knives & set(env.where))
    food = sorted(o for o in world.sliceable & set(env.where) if any(world.does.values()))
    if not knives or not food:
        return None
    knife, thing = knives[0], food[0]
    script = fetch(env, knife) + [f"examine {names[knife]}"]
    script += reach(env, env.where[thing]) + [f"slice {names[thing]} with {names[knife]}", "inventory"]
    place = next((r for r in world.receptacles if knife in world.accepts[r]), None)
    script += reach(env, place) + [f"move {names[knife]} to {names[place]}", "look"]
    env.step(script[-2])
    script += fetch(env, thing) + [f"examine {names[thing]}"]
    for prop, verb in (("ishot", "heat"), ("isclean", "clean"), ("iscool", "cool")):
        for r in world.does[prop][:1]:
            script += reach(env, r) + [f"{verb} {names[thing]} with {names[r]}", f"examine {names[thing]}"]
    return script if env.held == thing else None


def processing(game: Game) -> list[str] | None:
    """All three treatments of one unsliced thing, in every order that changes what `examine` says."""
    env = FastAlfworld()
    env.reset(game)
    world, names = env.world, env.world.names
    sets = [world.can_be[a] for a in ("cleanable", "heatable", "coolable")]
    things = sorted(set.intersection(*sets) & set(env.where) - world.holder)
    if not things or not all(world.does.values()):
        return None
    thing = things[0]
    script = fetch(env, thing)
    for verb in ("cool", "heat", "cool", "clean", "heat"):
        r = world.does[{"cool": "iscool", "heat": "ishot", "clean": "isclean"}[verb]][0]
        script += reach(env, r) + [f"{verb} {names[thing]} with {names[r]}", f"examine {names[thing]}"]
    return script if env.held == thing else None


def lighting(game: Game) -> list[str] | None:
    """Use a lamp twice, from where it stands and from elsewhere; try to take it and to look at it."""
    env = FastAlfworld()
    env.reset(game)
    lamps = sorted(env.world.toggleable & set(env.where))
    if not lamps:
        return None
    lamp, holder = env.world.names[lamps[0]], env.world.names[env.where[lamps[0]]]
    script = [f"use {lamp}", *reach(env, env.where[lamps[0]])]
    script += [f"use {lamp}", f"examine {lamp}", f"take {lamp} from {holder}"]
    return script + [f"use {lamp}", f"examine {holder}", "look"]


def side_by_side(game: Game) -> list[str] | None:
    """Move a thing between two receptacles at one place, back and forth, with `look` after each: it is "next to"."""
    env = FastAlfworld()
    env.reset(game)
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


def container(game: Game) -> list[str] | None:
    """Look into a movable receptacle (bowl, box, pan, ...) in the hand."""
    env = FastAlfworld()
    env.reset(game)
    bowls = sorted(env.world.holder & set(env.where))
    return fetch(env, bowls[0]) + [f"examine {env.world.names[bowls[0]]}", "inventory"] if bowls else None


# -- tests ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASK_TYPES)
def test_random_walks_and_walkthroughs(reference, task):
    rng = random.Random(f"parity {task}")
    games = generate_games(2 * SCALE, seed=11, split="train", tasks=(task,), max_receptacles=10)
    games += generate_games(SCALE, seed=12, split="valid_unseen", tasks=(task,), max_receptacles=8)
    for game in games:
        play_both(reference, game, rng, STEPS)
        _, steps, won = play_both(reference, game, rng, 99, game.walkthrough)
        assert won and steps == len(game.walkthrough), f"{game.id}: the walkthrough does not win at its last step"


@pytest.mark.parametrize("script_of", [slicing, processing, lighting, side_by_side, container])
def test_scripted(reference, script_of):
    """Each script on the first games that allow it, then a random walk from the state it leads to."""
    rng = random.Random(script_of.__name__)
    tasks = {"lighting": ("look_at_obj_in_light",)}.get(script_of.__name__)
    pool = generate_games(80, seed=13, tasks=tasks, max_receptacles=14)
    found = [(game, script) for game in pool if (script := script_of(game))][:SCALE]
    assert found, "no game allows this script"
    for game, script in found:
        kinds, steps, won = play_both(reference, game, rng, len(script) + 15, tuple(script))
        wanted = {"slicing": {"slice", "move"}, "processing": {"clean", "heat", "cool"}, "lighting": {"use"},
                  "side_by_side": {"move", "look"}, "container": {"take", "examine"}}[script_of.__name__]  # fmt: skip
        assert won or kinds >= wanted, f"{game.id}: {sorted(wanted - kinds)} did nothing in {script}"


def test_every_kind_of_command_and_room(reference):
    """The walks must reach every verb and kind of room; else parity would be claimed for what was never played."""
    rng = random.Random("all kinds")
    pool = generate_games(60, seed=14, max_receptacles=9)
    kinds = set()
    for room in ("Kitchen", "LivingRoom", "Bedroom", "Bathroom"):
        games = [g for g in pool if room_of(g.scene) == room][:SCALE]
        assert games, f"no game in a {room}"
        for game in games:
            kinds |= play_both(reference, game, rng, 2 * STEPS)[0]
    wanted = {"go", "open", "close", "take", "move", "examine", "look", "inventory", "help"}
    assert kinds >= wanted, f"never played: {sorted(wanted - kinds)}"


@pytest.mark.parametrize("command", MALFORMED)
def test_malformed_commands_do_nothing(loaded, command):
    """Whatever the string, nothing is raised and both engines answer alike (`strip` makes "look " admissible)."""
    game, reference, fast = loaded
    compare(game, [command], reference.step(command), fast.step(command))


@pytest.fixture(scope="module")
def loaded():
    """One game on both engines, shared by the malformed commands: they are turns of one long episode."""
    game = generate_games(1, seed=15, max_receptacles=6)[0]
    reference, fast = TextWorldAlfworld(), FastAlfworld()
    compare(game, [], reference.reset(game), fast.reset(game))
    return game, reference, fast


def test_step_limit(reference):
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


def test_comparison_can_fail(reference):
    """A single different character in the room is found: the comparison is no formality."""
    game = generate_games(1, seed=15, max_receptacles=6)[0]
    other = replace(game, goal=game.goal + "s")
    with pytest.raises(AssertionError, match="text differs"):
        compare(game, [], reference.reset(game), FastAlfworld().reset(other))


def test_alfred_derived_games(reference):
    """Full rooms with real placements and human sentences."""
    path = os.environ.get("SGLIB_ALFRED_TRIALS")
    if not path:
        pytest.skip("SGLIB_ALFRED_TRIALS does not name a file of ALFRED trial facts")
    from sglib.envs.alfworld_trials import from_alfred_trials

    rng = random.Random("trials")
    games = from_alfred_trials(path, split="valid_seen", sentences="human")
    games = sorted(games, key=lambda g: len(g.problem))[:: max(1, len(games) // (3 * SCALE))][: 3 * SCALE]
    assert games
    for game in games:
        play_both(reference, game, rng, STEPS)
        assert play_both(reference, game, rng, 99, game.walkthrough)[2]
