"""Generated games are ALFWorld games: alfworld's own loader and engine play and win them, its planner solves them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest

from sglib.envs.alfworld.games import SPLITS, TASK_TYPES, UNSEEN_SCENES
from sglib.envs.alfworld.generate import generate_games
from sglib.envs.alfworld.textworld import TextWorldAlfworld
from sglib.envs.alfworld.trials import load_games

DIGEST = """
import hashlib, json
from sglib.envs.alfworld.generate import generate_games
games = [g for split in ("train", "valid_seen", "valid_unseen") for g in generate_games(12, seed=3, split=split)]
text = json.dumps([[g.id, g.data(), g.traj_data] for g in games])
print(hashlib.sha256(text.encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(folder, games): one small game of each task type, in the official layout."""
    folder = tmp_path_factory.mktemp("json_2.1.1")
    games = [generate_games(1, seed=21, tasks=(task,), max_receptacles=6)[0] for task in TASK_TYPES]
    for game in games:
        game.save(folder)
    return folder, sorted(games, key=lambda g: g.id)


@pytest.fixture
def config(saved):
    """The keys of alfworld's `base_config.yaml` that its TextWorld environment reads."""
    folder = str(saved[0] / "train")
    return {
        "dataset": {"data_path": folder, "eval_id_data_path": folder, "eval_ood_data_path": folder,
                    "num_train_games": -1, "num_eval_games": -1},
        "env": {"goal_desc_human_anns_prob": 0, "task_types": [1, 2, 3, 4, 5, 6], "domain_randomization": False,
                "expert_type": "handcoded"},
        "general": {"training_method": "dqn"},
        "rl": {"training": {"max_nb_steps_per_episode": 50}},
    }  # fmt: skip


def test_alfworld_loads_and_wins_every_task_type(saved, config, monkeypatch):
    """`AlfredTWEnv.init_env` as published, asynchronous worker and all, one game after the other."""
    from alfworld.agents.environment.alfred_tw_env import AlfredTWEnv

    monkeypatch.setattr(sys, "argv", list(sys.argv))  # the planner's translator overwrites it
    folder, games = saved
    loaded = AlfredTWEnv(config, train_eval="eval_in_distribution")
    by_file = {str(folder / game.id / "game.tw-pddl"): game for game in games}
    assert sorted(loaded.game_files) == sorted(by_file)
    env = loaded.init_env(batch_size=1)
    played = set()
    try:
        for _ in games:
            texts, infos = env.reset()
            game = by_file[infos["extra.gamefile"][0]]
            assert texts[0].endswith(f"Your task is to: {game.goal}.")
            for i, command in enumerate(game.walkthrough):
                assert command in infos["admissible_commands"][0]
                texts, scores, dones, infos = env.step([command])
                last = i == len(game.walkthrough) - 1
                assert (bool(dones[0]), bool(infos["won"][0]), scores[0] == 1) == (last, last, last), (
                    f"{game.id}: {command}"
                )
            played.add(game.task_type)
    finally:
        env.close()
    assert played == set(TASK_TYPES)


def test_our_engine_answers_as_alfworld_does(saved, config, monkeypatch):
    """`TextWorldAlfworld` gives the observations of `AlfredTWEnv`: same texts, same admissible commands."""
    from alfworld.agents.environment.alfred_tw_env import AlfredTWEnv

    monkeypatch.setattr(sys, "argv", list(sys.argv))
    folder, games = saved
    official = AlfredTWEnv(config, train_eval="eval_in_distribution").init_env(batch_size=1)
    ours = TextWorldAlfworld()
    try:
        texts, infos = official.reset()
        game = next(g for g in games if str(folder / g.id) in infos["extra.gamefile"][0])
        observation = ours.reset(game)
        for command in ["", "look", "inventory", "help", "go to nowhere", *game.walkthrough]:
            assert (observation.text, list(observation.admissible)) == (texts[0], infos["admissible_commands"][0]), (
                command
            )
            texts, _, dones, infos = official.step([command])
            observation = ours.step(command)
        assert (observation.text, observation.won, observation.reward) == (texts[0], True, 1.0) and dones[0]
    finally:
        official.close()


def test_planner_agrees_and_walkthroughs_are_no_longer(saved):
    """alfworld's planner finds a plan that wins, and it is nowhere shorter than ours."""
    env, argv = TextWorldAlfworld(), list(sys.argv)
    for game in saved[1]:
        env.reset(game)
        plan = env.plan()
        assert plan, f"{game.id}: the planner finds no plan"
        assert len(game.walkthrough) <= len(plan), f"{game.id}: planner {plan}, ours {game.walkthrough}"
        env.reset(game)
        assert [env.step(command).won for command in plan][-1], f"{game.id}: the planner's plan does not win"
    assert sys.argv == argv, "sys.argv must survive the planner's translator"


def test_reloaded_games_equal_the_saved(saved):
    folder, games = saved
    assert load_games(folder) == games


def test_same_seed_same_bytes_in_any_process():
    """Two processes with different hash seeds make the same games, byte for byte."""
    digests = []
    for hash_seed in ("0", "4321"):
        run = subprocess.run(
            [sys.executable, "-c", DIGEST],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        digests.append(run.stdout.strip())
    assert digests[0] == digests[1] and len(digests[0]) == hashlib.sha256().digest_size * 2


def test_other_seeds_and_longer_lists():
    games = generate_games(8, seed=3)
    assert generate_games(5, seed=3) == games[:5]
    assert {g.problem for g in generate_games(8, seed=4)}.isdisjoint(g.problem for g in games)
    assert len({g.id for g in games}) == 8


def test_unseen_scenes_are_in_valid_unseen_only():
    scenes = {split: {g.scene for g in generate_games(60, seed=2, split=split)} for split in SPLITS}
    assert scenes["valid_unseen"] == set(UNSEEN_SCENES) == {10, 219, 308, 424}
    assert not (scenes["train"] | scenes["valid_seen"]) & set(UNSEEN_SCENES)
    assert len(scenes["train"]) > 20


def test_broken_problem_is_named():
    """A game that TextWorld cannot load is a ValueError with its id, and leaves the engine usable."""
    import dataclasses

    (game,) = generate_games(1, seed=21, max_receptacles=5)
    env = TextWorldAlfworld()
    with pytest.raises(ValueError, match=game.id):
        env.reset(dataclasses.replace(game, problem="(define (problem p))"))
    with pytest.raises(RuntimeError):
        env.step("look")
    assert env.reset(game).goal == game.goal
    assert not hasattr(env, "distance")
    for action in (None, 3, b"look", ["look"]):  # no string: a turn in which nothing happens
        assert env.step(action).text == "Nothing happens."
