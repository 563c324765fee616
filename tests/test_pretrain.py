"""Demonstrators and pre-training: imperfect but capable, reproducible."""

import json
import os
import random

import pytest
import torch

from sglib import envs
from sglib.envs.alfworld import FastAlfworld, generate_games
from sglib.envs.alfworld.demonstrators import Habits, demonstrate
from sglib.envs.base import true_label
from sglib.models.policy import load_policy
from sglib.models.small import build_tokenizer
from sglib.training import checkpoint, pretrain

GAMES = generate_games(60, seed=8)
CARD = envs.get("alfworld")
TINY = {**CARD.pretraining, "steps": 4, "stop": 4, "transcripts_per_step": 2, "warmup_steps": 2, "max_turns": 8}


def test_a_careful_explorer_wins_and_a_noisy_one_wins_less():
    careful = Habits(noise=0.0, impossible=0.0)
    wins = {}
    for name, habits in {"careful": careful, "default": Habits(), "wild": Habits(noise=1.0, impossible=0.5)}.items():
        wins[name] = sum(demonstrate(FastAlfworld(), g, random.Random(i), habits, 30)[1] for i, g in enumerate(GAMES))
    assert wins["careful"] >= 0.95 * len(GAMES)
    assert wins["careful"] > wins["default"] > wins["wild"]


def test_a_basin_of_a_bathtub_is_a_sink_where_there_is_no_other():
    """A room of four receptacles whose cloth is cleaned in "bathtubbasin 1", which is one of ALFWorld's sinks."""
    (game,) = generate_games(1, seed=1_000_007, max_receptacles=4, start=868)
    assert "clean cloth 1 with bathtubbasin 1" in game.walkthrough
    assert demonstrate(FastAlfworld(), game, random.Random(0), Habits(noise=0.0, impossible=0.0), 30)[1]


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
    ids, weights = pretrain.encode_demonstration(policy, CARD, format, steps, 0.3)
    assert len(ids) == len(weights) and set(weights) <= {0.0, 0.3, 1.0}
    answered = policy.decode([i for i, w in zip(ids, weights) if w == 1.0])
    assert all(step.action in answered for step in steps if step.imitate)
    assert "You arrive at" not in answered


def test_likely_places_are_looked_into_first():
    (game,) = CARD.tasks(1, seed=3, size=60)
    habits = dict.fromkeys(CARD.pretraining["habits"], 0.0) | {"likely": 1.0}
    steps, _ = CARD.demonstrate(CARD.make(), game, random.Random(0), habits, 30)
    looked = [step.action.split()[2] for step in steps if step.action.startswith("go to")]
    assert looked[0] in ("countertop", "diningtable", "desk", "coffeetable", "bed", "sofa", "dresser", "sinkbasin")
    plain, _ = CARD.demonstrate(CARD.make(), game, random.Random(0), habits | {"likely": 0.0, "ordered": 1.0}, 30)
    assert [s.action for s in plain] != [s.action for s in steps]


def test_random_actions_can_be_shown_without_being_taught():
    (game,) = CARD.tasks(1, seed=3, size=60)
    habits = dict.fromkeys(CARD.pretraining["habits"], 0.0) | {"noise": 1.0, "ordered": 1.0}
    taught, _ = CARD.demonstrate(CARD.make(), game, random.Random(0), habits, 30)
    shown, _ = CARD.demonstrate(CARD.make(), game, random.Random(0), habits | {"noise_taught": 0.0}, 30)
    assert all(step.imitate for step in taught) and not all(step.imitate for step in shown)


def test_a_name_that_the_card_does_not_have(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["pretrain", "--env", "alfworld", "--name", "whole_room"])
    with pytest.raises(SystemExit):
        pretrain.main()
    assert "allowed: base, whole_rooms" in capsys.readouterr().err


def test_the_same_number_draws_the_same_transcripts():
    policy = load_policy("new")
    assert pretrain.draw_transcripts(policy, CARD, TINY, 3, 4) == pretrain.draw_transcripts(policy, CARD, TINY, 3, 4)
    assert pretrain.draw_transcripts(policy, CARD, TINY, 3, 4) != pretrain.draw_transcripts(policy, CARD, TINY, 4, 4)


def test_the_committed_base_has_the_vocabulary_and_the_recipe_of_the_card():
    for name, seed in (("base", 0), ("base_seed1", 1)):
        base = load_policy(name, env="alfworld")
        assert build_tokenizer("alfworld").get_vocab() == base.tokenizer.get_vocab()
        made = json.loads((CARD.folder / "models" / name / "card.json").read_text())["recipe"]
        assert made == CARD.pretraining | {"seed": seed}
    for name, recipe in CARD.further_pretraining.items():
        assert json.loads((CARD.folder / "models" / name / "card.json").read_text())["recipe"] == recipe


def test_same_recipe_same_model_and_its_card(tmp_path):
    one = pretrain.pretrain("alfworld", TINY, tmp_path / "a", points=2, games=2)
    two = pretrain.pretrain("alfworld", TINY, tmp_path / "b", games=0)
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True))
    card = json.loads((tmp_path / "a" / "card.json").read_text())
    assert card["recipe"] == TINY and [row["step"] for row in card["curve"]] == [2, 4]
    assert all(set(row["success"]) == set(TINY["formats"]) for row in card["curve"])
    again = load_policy(str(tmp_path / "a"), device="cpu").model
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), again.parameters(), strict=True))


def test_a_recipe_goes_on_from_a_shipped_model(tmp_path):
    still = TINY | {"start": "base_strong", "muon_lr": 0.0, "adamw_lr": 0.0, "stop": 1}
    made = pretrain.pretrain("alfworld", still, tmp_path / "a", games=0).model
    shipped = load_policy("base_strong", env="alfworld", device="cpu").model
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), shipped.parameters(), strict=True))


def test_drawn_batches_come_again(monkeypatch):
    """With `drawn`, in another order; without it never."""
    monkeypatch.setattr(pretrain, "BUCKET", 4)
    policy, seen = load_policy("new", env="alfworld"), {}
    for drawn in (0, 4):
        stream = pretrain.batches(policy, CARD, TINY | {"drawn": drawn})
        seen[drawn] = [str(next(stream)[0].tolist()) for _ in range(8)]
        assert (sorted(seen[drawn][:4]) == sorted(seen[drawn][4:])) == bool(drawn)
    assert seen[0][:4] == seen[4][:4]


def test_an_interrupted_pretraining_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain, "BUCKET", 1)  # a checkpoint before each step but the first
    whole = pretrain.pretrain("alfworld", TINY, tmp_path / "whole", points=2, games=2)
    loss_of, calls = pretrain.loss_of, []

    def interrupted(*given):
        calls.append(1)
        if len(calls) == 1:  # a second one, into the same folder
            with pytest.raises(checkpoint.InUse, match=f"process {os.getpid()}"):
                pretrain.pretrain("alfworld", TINY, tmp_path / "parts", points=2, games=2)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return loss_of(*given)

    monkeypatch.setattr(pretrain, "loss_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pretrain.pretrain("alfworld", TINY, tmp_path / "parts", points=2, games=2)
    assert not (tmp_path / "parts").exists() and (tmp_path / "parts.part").exists()
    parts = pretrain.pretrain("alfworld", TINY, tmp_path / "parts", points=2, games=2)
    assert len(calls) == 5, "the last step alone was left"
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True))
    curves = [json.loads((tmp_path / name / "card.json").read_text())["curve"] for name in ("whole", "parts")]
    assert [row["loss"] for row in curves[0]] == [row["loss"] for row in curves[1]]
    assert not (tmp_path / "parts.part").exists()


ECHO = """
import sglib.envs.base as base
from sglib.records import Observation

class Task:
    env, task_type, origin = __file__, "echo", None
    def __init__(self, word): self.id, self.word, self.goal = word, word, "Say " + word + "."
    def content(self): return [self.id]

class Game:
    def reset(self, task):
        self.task, self.steps = task, 0
        return self.seen(task.goal)
    def step(self, action):
        self.steps, won = self.steps + 1, action == "say " + self.task.word
        return self.seen("Said." if won else "What?", won)
    def seen(self, text, won=False):
        return Observation(text, self.task.goal, (), float(won), won, won or self.steps > 3, self.steps, score=won)

class Echo(base.Environment):
    name = "echo"
    pretraining = {
        "seed": 0, "steps": 120, "stop": 60, "transcripts_per_step": 8, "max_turns": 3, "size": None,
        "formats": {"act": 1.0}, "with_example": 0.2, "observation_weight": 0.3, "muon_lr": 0.02, "adamw_lr": 5e-3,
        "warmup_steps": 5, "habits": {}, "model": {"hidden": 32, "layers": 2},
    }
    def tasks(self, n, *, seed=0, split="train", size=None, start=0):
        return [Task("abcd"[(seed + start + i) % 4]) for i in range(n)]
    def make(self, *, max_steps=None, admissible=True): return Game()
    def vocabulary(self): return (), [*"abcd", *"Say say Said What ?".split()]
    def demonstrate(self, env, task, rng, habits, max_turns):
        first, action = env.reset(task), "say " + task.word
        return [base.Demonstration(first.text, action, "say it", "neutral", 0.0, True)], env.step(action).won

ENVIRONMENT = Echo()
"""


def test_another_environment_needs_its_card_alone(tmp_path):
    """A game of one move; sixty steps on its demonstrations are enough to win it."""
    (tmp_path / "echo.py").write_text(ECHO)
    env = str(tmp_path / "echo.py")
    pretrain.pretrain(env, envs.get(env).pretraining, tmp_path / "base", games=4)
    card = json.loads((tmp_path / "base" / "card.json").read_text())
    assert card["curve"][-1]["success"]["act"] >= 0.75 and card["parameters"] < 100_000
