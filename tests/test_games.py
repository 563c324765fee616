"""Generated games: reproducible, varied, and won by their walkthrough."""

import pytest

from sglib import envs
from sglib.envs.alfworld import TASK_TYPES, generate_games
from sglib.envs.alfworld.games import room_of


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
        ({"n": 1, "tasks": ["juggle"]}, r"tasks=\('juggle',\): allowed: None, or"),
        ({"n": 1, "tasks": []}, r"tasks=\(\): .* at least one of"),
        ({"n": 1, "max_receptacles": 2}, "max_receptacles=2: must be at least 4"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        generate_games(**arguments)


def test_environments_by_name():
    with pytest.raises(ValueError, match="env='chess'"):
        envs.make("chess")
    with pytest.raises(ValueError, match="engine='slow'"):
        envs.make("alfworld", engine="slow")
    env = envs.make("alfworld", max_steps=1)
    assert isinstance(env, envs.TextEnv)
    env.reset(generate_games(1)[0])
    assert env.step("look").done
    with pytest.raises(RuntimeError, match="episode is over"):
        env.step("look")
