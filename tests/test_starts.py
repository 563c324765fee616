"""What a recipe teaches before reinforcement: RePro's warmup, StepAgent's preferences; alone, and before GRPO."""

import re

import pytest
import yaml

import sglib
from sglib.experiments import params
from sglib.experiments.experiment import Experiment
from sglib.experiments.params import ParameterError
from sglib.experiments.recipe import load_recipe, make_recipe
from sglib.experiments.starts import Imitation, Preference, Stages, Warmup
from sglib.records import read_trajectories

SMALL = {"iterations": 1, "games_per_iteration": 2, "group_size": 2, "eval_games": 4, "eval_every": 1, "max_turns": 10}


def weights(policy):
    return {name: p.detach().clone() for name, p in policy.model.named_parameters()}


def changed(before, policy):
    return any((before[name] != p).any() for name, p in policy.model.named_parameters())


@pytest.mark.slow
@pytest.mark.parametrize("start", [
    Warmup(games=48, epochs=1), Imitation(games=16), Stages((Imitation(games=16), Preference(games=4, cycles=2)))
])  # fmt: skip
def test_same_seed_same_weights(start):
    trained = []
    for seed in (0, 0, 1):
        policy = sglib.load_policy("base")
        before = weights(policy)
        start(policy, card=sglib.envs.get("alfworld"), seed=seed, turns=20, size=12)
        assert changed(before, policy) and not policy.model.training
        trained.append(policy)
    assert not changed(weights(trained[0]), trained[1]) and changed(weights(trained[0]), trained[2])


def test_the_papers_recipes_start_where_they_should():
    assert load_recipe("repro").start == Warmup() and load_recipe("repro").components
    assert load_recipe("repro_warmup").start == Warmup() and not load_recipe("repro_warmup").components
    assert load_recipe("step_agent_implicit").start == Preference()
    assert load_recipe("step_agent_sft").start == Imitation()
    assert load_recipe("step_agent_sft_implicit").start == Stages((Imitation(), Preference()))
    assert Imitation().games == Preference().games * Preference().cycles  # the same expert on the same games
    assert all(load_recipe(f"repro_{name}").start is None for name in ("meta", "l1", "l2"))


@pytest.mark.slow
@pytest.mark.parametrize("reinforced", [True, False])
def test_an_arm_with_a_start(tmp_path, reinforced):
    text = "about: x\nformat: progress\nstart: {kind: warmup, games: 64, epochs: 1}\n"
    if reinforced:
        text += "components: [{name: outcome}, {name: repro, answer: steps}]\nadvantage: {kind: gigpo}\n"
    (tmp_path / "mine.yaml").write_text(text)
    name = str(tmp_path / "mine.yaml")
    p = params.check("grpo", {"size": "smoke", **SMALL, "max_turns": 20, "arms": [name], "win_reward": None})
    one = Experiment(name, p)
    one.train()
    result = one.read()
    assert result.card and len(result.before) == len(result.start) == len(result.after) == 4
    assert len(result.batches) == reinforced
    assert result.curve[0]["success"] == sum(result.start) / 4
    if reinforced:
        turns = [turn for t in read_trajectories(one.folder / "trajectories" / "000000.jsonl") for turn in t.turns]
        assert all({"outcome/weighted", "repro/weighted"} <= turn.rewards.keys() for turn in turns)
        row = result.batches[0]
        assert {"calibration/online/n", "probe/progress_inflation", "probe/internal"} <= row.keys()
    else:
        assert result.after == result.start and result.card["episodes"]["started"] == 0


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("start: {kind: warmup, games: 0}", "start.warmup.games = 0: "),
        ("start: {kind: warmup, games: few}", "start.warmup.games = 'few': "),
        ("start: {kind: warmup, learning_rate: 0}", "start.warmup.learning_rate = 0: "),
        ("start: {kind: warmup, cycles: 3}", "start.warmup: cycles: unknown key"),
        ("start: {kind: preference, states: mine}", "states = 'mine': Input should be 'expert' or 'own'"),
        ("start: {kind: sft}", "tags: 'warmup', 'imitation', 'preference'"),
        ("start: yes", "start = True: "),
        ("start: [{kind: warmup}, {kind: sft}]", "stages[1] = {'kind': 'sft'}: "),
        ("start: [{kind: warmup}, {kind: preference, cycles: 0}]", "stages[1].preference.cycles = 0: "),
        ("about: nothing", "must list at least one component, or leave it to start"),
        ("start: {kind: warmup}\nadvantage: {kind: gigpo}", "advantage and replicate do nothing without components"),
        ("start: {kind: warmup}\nreplicate: 2", "advantage and replicate do nothing without components"),
        ("components: [{name: outcome}]\nreplicate: -1", "replicate = -1: "),
        ("components: [{name: outcome}]\nreplicate: true", "replicate = True: "),
    ],
)
def test_a_bad_start_is_named(text, what):
    with pytest.raises(ParameterError, match=re.escape(what)):
        make_recipe(yaml.safe_load(text), "mine")


@pytest.mark.slow
def test_a_replicate_plays_the_same_games_otherwise(tmp_path):
    p = params.check("grpo", {"size": "smoke", **SMALL, "arms": ["grpo", "grpo_again"]})
    played = {}
    for name in p.arms:
        one = Experiment(name, p)
        one.train()
        played[name] = read_trajectories(one.folder / "trajectories" / "000000.jsonl")
    one, two = ([[turn.action for turn in t.turns] for t in played[name]] for name in p.arms)
    assert {t.game_id for t in played["grpo"]} == {t.game_id for t in played["grpo_again"]} and one != two
