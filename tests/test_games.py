"""Generated games and the oracle: reproducible, varied, solvable, and the distance exact by exhaustive search."""

import collections
import copy
import random

import pytest

from sglib import envs
from sglib.envs.alfworld import TASK_TYPES, FastAlfworld, UnsupportedGame, generate_games
from sglib.envs.alfworld_games import room_of

IDLE = ("look", "inventory", "help", "examine")


def state_of(env):
    return (
        env.location, env.held, frozenset(env.opened), frozenset(env.where.items()),
        frozenset((p, o) for p, members in env.props.items() for o in members),
    )  # fmt: skip


def snapshot(env):
    """Everything that changes during an episode, copied."""
    variables = {k: copy.copy(v) for k, v in vars(env).items() if k != "world"}
    variables["inside"] = {r: list(things) for r, things in env.inside.items()}
    variables["props"] = {p: set(members) for p, members in env.props.items()}
    return variables


def restore(env, variables):
    vars(env).update(variables)
    vars(env).update(snapshot(env))


def exhaustive_distance(env, most):
    """Breadth-first over every admissible action: the reference of the oracle; None where `most` states are too few."""
    start = snapshot(env)
    queue, seen = collections.deque([(start, 0)]), {state_of(env)}
    try:
        while queue and len(seen) < most:
            variables, depth = queue.popleft()
            restore(env, variables)
            if env.won:
                return depth
            for action in env.admissible():
                if action.startswith(IDLE):
                    continue
                restore(env, variables)
                env.step(action)
                if state_of(env) not in seen:
                    seen.add(state_of(env))
                    queue.append((snapshot(env), depth + 1))
        return None
    finally:
        restore(env, start)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASK_TYPES)
def test_oracle_distance_equals_exhaustive_search(task):
    """From random states of the smallest rooms, with wrong things in hand and doors open."""
    rng, compared = random.Random(task), 0
    for game in generate_games(12, seed=21, tasks=[task], max_receptacles=4):
        env = FastAlfworld()
        observation = env.reset(game)
        for _ in range(rng.randrange(8)):
            if observation.done:
                break
            observation = env.step(rng.choice([a for a in observation.admissible if not a.startswith(IDLE)]))
        if observation.done or env.oracle_distance() > 8:
            continue
        expected = exhaustive_distance(env, 8000)
        if expected is not None:
            assert env.oracle_distance() == expected == len(env.plan()), game.id
            compared += 1
    assert compared >= 2


def test_following_the_plan_lowers_the_distance_by_one_each_step():
    env = FastAlfworld()
    for game in generate_games(40, seed=4):
        observation = env.reset(game)
        while not observation.won:
            before = env.oracle_distance()
            observation = env.step(env.plan()[0])
            assert env.oracle_distance() == before - 1
        assert observation.steps == len(game.walkthrough)


def test_one_action_changes_the_distance_by_at_most_a_detour():
    """No action can bring the goal more than one step nearer."""
    env, rng = FastAlfworld(max_steps=25), random.Random(0)
    for game in generate_games(30, seed=6):
        observation = env.reset(game)
        while not observation.done:
            before = env.oracle_distance()
            observation = env.step(rng.choice(observation.admissible))
            assert env.oracle_distance() >= before - 1


def test_games_are_varied_and_repeatable():
    games = generate_games(120, seed=1)
    assert {g.task_type for g in games} == set(TASK_TYPES)
    assert {room_of(g.scene) for g in games} == {"Kitchen", "LivingRoom", "Bedroom", "Bathroom"}
    assert len({g.id for g in games}) == len({g.problem for g in games}) == 120
    assert games[:30] == generate_games(30, seed=1) and games[:30] != generate_games(30, seed=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": -1}, "n=-1"),
        ({"n": 1, "split": "test"}, "split='test'.*train, valid_seen, valid_unseen"),
        ({"n": 1, "tasks": ["juggle"]}, "'juggle' is not a task type"),
        ({"n": 1, "tasks": []}, "at least one task type"),
        ({"n": 1, "max_receptacles": 2}, "max_receptacles=2: must be at least 4"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        generate_games(**arguments)


def test_environments_by_name():
    with pytest.raises(ValueError, match="name='chess'"):
        envs.make("chess")
    with pytest.raises(ValueError, match="engine='slow'"):
        envs.make("alfworld", engine="slow")
    env = envs.make("alfworld", max_steps=1)
    assert isinstance(env, envs.TextEnv)
    env.reset(generate_games(1)[0])
    assert env.step("look").done
    with pytest.raises(RuntimeError, match="episode is over"):
        env.step("look")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.replace("(:goal", "(:goal (forall (?x - object) (holds agent1 ?x)) )\n (:old"), "forall"),
        (lambda p: p.rsplit(")", 1)[0], "bracket"),
    ],
)
def test_what_the_engine_does_not_know_it_refuses(change, message):
    import dataclasses

    game = generate_games(1, seed=3)[0]
    with pytest.raises(UnsupportedGame, match=message):
        FastAlfworld().reset(dataclasses.replace(game, problem=change(game.problem)))
    with pytest.raises(UnsupportedGame, match="domain"):
        FastAlfworld().reset(dataclasses.replace(game, domain="(define (domain other))"))
    with pytest.raises(UnsupportedGame, match="grammar"):
        FastAlfworld().reset(dataclasses.replace(game, grammar="grammar :: nothing"))
