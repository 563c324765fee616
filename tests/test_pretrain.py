"""Demonstrators and pre-training: imperfect but capable, reproducible, resumable."""

import json
import random

import pytest
import torch

from sglib.envs.alfworld import FastAlfworld, generate_games
from sglib.envs.alfworld.demonstrators import Habits, demonstrate, true_label
from sglib.models.policy import load_policy
from sglib.training import pretrain

GAMES = generate_games(60, seed=8)
TINY = pretrain.RECIPE | {"steps": 4, "stop": 4, "transcripts_per_step": 2, "warmup_steps": 2, "max_turns": 8}


def test_a_careful_explorer_wins_and_a_noisy_one_wins_less():
    careful = Habits(noise=0.0, impossible=0.0)
    wins = {}
    for name, habits in {"careful": careful, "default": Habits(), "wild": Habits(noise=1.0, impossible=0.5)}.items():
        wins[name] = sum(demonstrate(FastAlfworld(), g, random.Random(i), habits, 30)[1] for i, g in enumerate(GAMES))
    assert wins["careful"] >= 0.95 * len(GAMES)
    assert wins["careful"] > wins["default"] > wins["wild"]


def test_impossible_attempts_are_not_imitated():
    for i, game in enumerate(GAMES[:20]):
        env, steps = FastAlfworld(), demonstrate(FastAlfworld(), game, random.Random(i), Habits(), 30)[0]
        observation = env.reset(game)
        for step in steps:
            assert observation.text == step.observation
            assert step.imitate == (step.action in observation.admissible)
            observation = env.step(step.action)


def test_labels_are_right_when_they_are_not_drawn():
    """Without noise in the labels each one is what the oracle says of the step before it."""
    for i, game in enumerate(GAMES[:20]):
        env = FastAlfworld()
        steps, _ = demonstrate(FastAlfworld(), game, random.Random(i), Habits(wrong_label=0.0), 30)
        observation, distance, expected = env.reset(game), None, "neutral"
        distance = env.distance()
        for step in steps:
            assert step.label == expected
            valid = step.action in observation.admissible
            observation, before = env.step(step.action), distance
            distance = env.distance()
            expected = true_label(before, distance, valid)


def test_true_label_by_hand():
    assert true_label(5, 4, True) == "positive"
    assert true_label(5, 5, True) == "neutral"
    assert true_label(5, 6, True) == "negative"
    assert true_label(5, 5, False) == "negative"


@pytest.mark.parametrize("format", ["act", "guide", "progress"])
def test_weights_cover_answers_only(format):
    policy = load_policy("new")
    steps, _ = demonstrate(FastAlfworld(), GAMES[0], random.Random(0), Habits(), 30)
    ids, weights = pretrain.encode_demonstration(policy, format, steps, 0.3)
    assert len(ids) == len(weights) and set(weights) <= {0.0, 0.3, 1.0}
    answered = policy.decode([i for i, w in zip(ids, weights) if w == 1.0])
    assert all(step.action in answered for step in steps if step.imitate)
    assert "You arrive at" not in answered


def test_the_same_number_draws_the_same_transcripts():
    policy = load_policy("new")
    assert pretrain.draw_transcripts(policy, TINY, 3, 4) == pretrain.draw_transcripts(policy, TINY, 3, 4)
    assert pretrain.draw_transcripts(policy, TINY, 3, 4) != pretrain.draw_transcripts(policy, TINY, 4, 4)


def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path, monkeypatch):
    whole = pretrain.pretrain(TINY, tmp_path / "a", tmp_path / "wa", save_every=2)
    calls = 0
    real = pretrain.loss_of

    def breaks(*arguments):
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(pretrain, "loss_of", breaks)
    with pytest.raises(KeyboardInterrupt):
        pretrain.pretrain(TINY, tmp_path / "b", tmp_path / "wb", save_every=2)
    monkeypatch.setattr(pretrain, "loss_of", real)
    resumed = pretrain.pretrain(TINY, tmp_path / "b", tmp_path / "wb", save_every=2)
    for (name, one), two in zip(whole.model.named_parameters(), resumed.model.parameters()):
        assert torch.equal(one, two), name
    assert json.loads((tmp_path / "b" / "card.json").read_text())["recipe"] == TINY
