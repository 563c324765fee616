"""The oracle is exact: against exhaustive search, against itself along every step, and in every kind of goal."""

import collections
import random
import re
from dataclasses import replace

import pytest
from parity import official_style, sliced

from sglib.envs.alfworld import TASK_TYPES, FastAlfworld, UnsupportedGame, generate_games

IDLE = ("look", "inventory", "help", "examine")


def state_of(env):
    return env.location, env.held, frozenset(env.opened), frozenset(env.where.items()), frozenset(env.props)


def exhaustive_distance(env, most, deepest):
    """Breadth-first over every admissible action; "far" if it takes more than `deepest`, None if more than `most`
    states would have to be looked at."""
    start = env.snapshot()
    queue, seen = collections.deque([(start, 0)]), {state_of(env)}
    try:
        while queue and len(seen) < most:
            here, depth = queue.popleft()
            env.restore(here)
            if env.won:
                return depth
            if depth == deepest:
                continue
            for action in env.admissible():
                if action.startswith(IDLE):
                    continue
                env.restore(here)
                env.step(action)
                if state_of(env) not in seen:
                    seen.add(state_of(env))
                    queue.append((env.snapshot(), depth + 1))
        return None if queue else "far"
    finally:
        env.restore(start)


def check(env, rng, games, wanted, most=6000, deepest=9):
    """Compare in random states of the games until `wanted` comparisons were possible."""
    compared = 0
    for game in games:
        try:
            observation = env.reset(game)
        except UnsupportedGame:
            continue
        for _ in range(rng.randrange(8)):
            if not observation.done:
                moves = [a for a in observation.admissible if not a.startswith(IDLE)]
                observation = env.step(rng.choice(moves))
        distance = env.distance()
        if observation.done or (distance is not None and distance > deepest):
            continue
        expected = exhaustive_distance(env, most, deepest)
        if expected is not None:
            assert ("far" if distance is None else distance) == expected, game.id
            compared += 1
            if compared == wanted:
                return
    pytest.fail(f"only {compared} comparisons were possible")


@pytest.mark.slow
@pytest.mark.parametrize("task", TASK_TYPES)
def test_equals_exhaustive_search(task):
    """From random states of the smallest rooms, with wrong things in hand and doors open."""
    games = generate_games(20, seed=21, tasks=[task], max_receptacles=4)
    check(FastAlfworld(), random.Random(task), games, wanted=3)


@pytest.mark.slow
def test_equals_exhaustive_search_with_official_traits():
    """Things in two receptacles at once, things on the floor, hands full at the start, doors that do not open."""
    rng = random.Random("official")
    games = [official_style(g, rng) for g in generate_games(60, seed=22, max_receptacles=4)]
    check(FastAlfworld(), rng, games, wanted=6)


@pytest.mark.slow
def test_equals_exhaustive_search_with_slicing():
    """Where the knife is put down, and where the thing is cut, both matter."""
    rng, kitchens = random.Random("slices"), ("pick_and_place_simple", "pick_heat_then_place_in_recep")
    pool = generate_games(250, seed=23, tasks=kitchens, max_receptacles=5)
    games = [with_few_things(game) for game in map(sliced, pool) if game is not None]
    check(FastAlfworld(), rng, games, wanted=3, most=40_000, deepest=13)


def with_few_things(game):
    """Only what the goal names and one knife: exhaustive search grows with every thing that can be carried."""
    target = re.search(r"\(objectType \?o1? (\w+)\)", game.problem).group(1)
    kinds = dict(re.findall(r"\(objectType (\S+) (\w+)\)", game.problem))
    knives = [o for o, kind in kinds.items() if kind in ("KnifeType", "ButterKnifeType")][:1]
    kept = {o for o, kind in kinds.items() if kind == target} | set(knives)
    lines = [line for line in game.problem.splitlines() if not any(o in line for o in kinds.keys() - kept)]
    return replace(game, problem="\n".join(lines))


GOALS = {
    "only clean": ("(exists (?o - object) (and (objectType ?o {o}) (isClean ?o)))", 9),
    "either": ("(or (exists (?o - object) (and (objectType ?o {o}) (holds agent1 ?o))) "
               "(exists (?o - object) (and (objectType ?o {o}) (isHot ?o))))", 9),
    "all of a kind": ("(exists (?r - receptacle) (and (receptacleType ?r {r}) "
                      "(forall (?o - object) (imply (objectType ?o {o}) (inReceptacle ?o ?r)))))", 12),
    "hold one, place another": ("(exists (?r - receptacle ?o - object ?p - object) (and (not (= ?o ?p)) "
                                "(receptacleType ?r {r}) (objectType ?o {o}) (objectType ?p {o}) "
                                "(inReceptacle ?o ?r) (holds agent1 ?p)))", 12),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", GOALS)
def test_goals_of_other_forms(name):
    """Goals that no game of alfworld's library has, written with all that PDDL offers."""
    goal, deepest = GOALS[name]
    rng, games = random.Random(name), []
    for game in generate_games(40, seed=24, tasks=["pick_two_obj_and_place"], max_receptacles=4):
        names = re.search(r"\(objectType \?o1 (\w+)\)\s*\(receptacleType \?r (\w+)\)", game.problem)
        text = f"(:goal {goal.format(o=names.group(1), r=names.group(2))})\n"
        few = with_few_things(game)
        start, end = few.problem.index("(:goal"), few.problem.index("(:metric")
        games.append(replace(few, problem=few.problem[:start] + text + few.problem[end:]))
    check(FastAlfworld(), rng, games, wanted=2, most=40_000, deepest=deepest)


def test_following_the_plan_lowers_the_distance_by_one_each_step():
    env = FastAlfworld()
    for game in generate_games(40, seed=4):
        observation = env.reset(game)
        while not observation.won:
            before = env.distance()
            observation = env.step(env.plan()[0])
            assert env.distance() == before - 1
        assert observation.steps == len(game.walkthrough)


@pytest.mark.parametrize("change", [lambda game, rng: game, official_style])
def test_no_action_gains_more_than_one_and_some_action_gains_one(change):
    """Bellman's equation, d(s) = 1 + min d(s'), in random states of rooms of every size."""
    env, rng, states = FastAlfworld(max_steps=12), random.Random(0), 0
    for i in range(24):
        (game,) = generate_games(1, seed=6, start=i, max_receptacles=(5, 9, None)[i % 3])
        observation = env.reset(change(game, rng))
        while not observation.done:
            here, before = env.snapshot(), env.distance()
            if states % 5 == 0 and before is not None:
                after = []
                for action in observation.admissible:
                    env.restore(here)
                    env.step(action)
                    after.append(env.distance())
                env.restore(here)
                assert 1 + min(d for d in after if d is not None) == before, game.id
            states += 1
            observation = env.step(rng.choice(observation.admissible))
    assert states > 100


def test_a_goal_out_of_reach_has_no_distance():
    (game,) = generate_games(1, seed=4, tasks=["pick_and_place_simple"])
    kind = re.search(r"\(objectType \?o (\w+)\)", game.problem).group(1)
    lost = re.sub(rf"\(inReceptacle {kind.removesuffix('Type')}_bar_\S+ \S+\)", "", game.problem)
    env = FastAlfworld()
    env.reset(replace(game, problem=lost))
    assert env.distance() is None and env.plan() is None and env.expert("optimal") == "look"
