"""Sokoban through the card: its base model plays, is measured, drawn, and trained on with the recipes of the papers."""

import dataclasses
import json
from collections import Counter

import pytest

import sglib
from sglib import envs, rewards
from sglib.envs.sokoban.card import boards
from sglib.envs.sokoban.graph import distance, read
from sglib.experiments import evidence, params
from sglib.experiments.recipe import load_recipe
from sglib.experiments.runs import repo_root
from sglib.experiments.starts import Imitation, Warmup
from sglib.measure import counterfactual, truth
from sglib.models.small import build_tokenizer
from sglib.training.grpo import GRPOSettings, train
from sglib.view.inspect import inspect

CARD = envs.get("sokoban")
RECIPES = sorted(path.stem for path in params.recipe_file("grpo").parent.glob("*.yaml"))


@pytest.fixture(scope="module")
def policy():
    return sglib.load_policy("base", env="sokoban")


@pytest.fixture(scope="module")
def played(policy):
    tasks = sglib.panel("sokoban", n=16)
    return sglib.rollout(policy, tasks, format="guide", group=2, temperature=1.0, seed=3)


def test_the_committed_base_is_the_cards(policy):
    made = json.loads((CARD.folder / "models" / "base" / "card.json").read_text())
    assert made["recipe"] == CARD.pretraining and made["parameters"] < 3_000_000 and made["wall_seconds"] < 30 * 60
    assert build_tokenizer("sokoban").get_vocab() == policy.tokenizer.get_vocab()
    assert 0.03 <= made["curve"][-1]["success"]["act"] <= 0.3


def test_there_is_room_to_learn_at_every_difficulty(policy):
    report = sglib.evaluate(policy, sglib.panel("sokoban", n="small"), seed=0)
    won, of = Counter(), Counter()
    for t in report.trajectories:
        of[t.task_type] += 1
        won[t.task_type] += t.won
    assert set(of) == {"6x6-1", "6x6-2"}
    assert all(0.02 <= won[kind] / of[kind] <= 0.35 for kind in of), (won, of)
    assert set(report.failures) == {"deadlock", "into_wall", "back_and_forth"}


def test_panels_are_the_manifests():
    for split in CARD.splits:
        rows = envs.panels.manifest("sokoban", split)
        assert [task.id for task in sglib.panel("sokoban", split)] == [row["id"] for row in rows] and len(rows) == 512
    drawn = [{task.board for task in sglib.panel("sokoban", split)} for split in CARD.splits]
    assert not drawn[0] & drawn[1]


def test_recorded_distances_are_those_of_the_boards(played):
    for t in played:
        drawn = [board.replace(" ", "") for board in boards(t)]
        found = [distance(*read(board)) if "X" in board else 0 for board in drawn]
        assert t.distances == found and (t.won or len(found) == CARD.turns + 1)


def test_labels_are_measured_against_the_exact_distance(played):
    signal = truth.signals(played)["label"]
    expected = []
    for t in played:
        for turn, after in zip(t.turns, t.turns[1:]):
            if after.label:
                expected.append(
                    after.distance is not None and turn.distance is not None and after.distance < turn.distance
                )
    assert signal.helped.tolist() == expected and 0 < sum(expected) < len(expected)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_applies_or_is_refused_by_name(name):
    given = {"env": "sokoban", "size": "mine", "grpo": {"arms": [name]}}
    if name.startswith("igpo"):
        with pytest.raises(params.ParameterError, match="'igpo' asks for the answer '(facts|answer)'.*'sokoban'"):
            params.check("grpo", given)
    elif name == "step_agent_explore":  # a player sees the whole board: there is nothing to explore
        with pytest.raises(params.ParameterError, match="'step_agent' asks for .*explore.*'sokoban'"):
            params.check("grpo", given)
    else:
        assert params.check("grpo", given).arms == [name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["grpo", "gigpo", "oracle", "random", "self_guide", "repro_no_retrospection", "repro",
                                  "step_agent"])  # fmt: skip
def test_recipes_train(name):
    recipe, policy = load_recipe(name), sglib.load_policy("base", env="sokoban")
    settings = GRPOSettings(
        iterations=2, games_per_iteration=2, group_size=4, max_turns=6, format=recipe.format, learning_rate=1e-3
    )
    batches = []
    result = train(
        policy, CARD.tasks(4, seed=9, size="6x6-1"), settings, recipe.components, recipe.estimator,
        on_iteration=lambda _, played: batches.append(played),
    )  # fmt: skip
    assert [m["iteration"] for m in result.metrics] == [0, 1]
    assert all(t.env == "sokoban" and turn.advantage is not None for t in batches[-1] for turn in t.turns)


def test_information_gain_reads_the_plan(policy, played):
    component = rewards.InformationGain(target="plan")
    games = {task.id: task for task in sglib.panel("sokoban", n=16)}
    copies = [sglib.Trajectory.from_dict(t.to_dict()) for t in played[:6]]
    rewards.combine(copies, [component], u=0.5, policy=policy, games=games)
    gains = [turn.rewards["igpo"] for t in copies for turn in t.turns]
    assert len(set(gains)) > len(gains) // 2


@pytest.mark.slow
@pytest.mark.parametrize("start", [Warmup(games=48, epochs=1), Imitation(games=8, epochs=1)])
def test_what_is_learned_before_reinforcement(start):
    policy = sglib.load_policy("base", env="sokoban")
    before = {name: value.clone() for name, value in policy.model.state_dict().items()}
    start(policy, card=CARD, seed=0, turns=CARD.turns, size="6x6-1")
    assert any((value != before[name]).any() for name, value in policy.model.state_dict().items())


def test_steps_are_played_again(policy, played):
    steps = counterfactual.sample_steps(played, 3, seed=0)
    values = counterfactual.step_values(policy, played, steps, k=4, max_turns=CARD.turns)
    assert [(v.episode, v.turn) for v in values] == steps and all(-1 <= v.advantage <= 1 for v in values)


def test_the_board_stands_beside_each_turn_and_what_if_plays_on(policy, played):
    t = played[0]
    widget = inspect(played, game=0, step=1, policy=policy)
    board = t.turns[1].observation.partition("\n")[2]
    assert board.split("\n")[2] in widget.page and "shortest plan: <code>" in widget.page
    widget.act("whatif", {"kind": "action", "text": "up", "k": "2"})
    assert widget.result.k == 2 and all(e.turns[1].action == "up" for e in widget.result.examples)


def test_the_committed_runs_are_those_of_the_parameters_file():
    cells = evidence.plan(repo_root() / "params" / "sokoban.yaml")
    found = evidence.read_evidence(cells, evidence.folders(cells[0].params)[1:])
    assert sorted(found.cells) == ["grpo-seed1", "oracle-seed1"] and not found.unknown
    for cell in found.cells.values():
        assert len(cell["batches"]["success"]) == 40 and cell["curve"][-1]["iteration"] == 40


def test_a_task_is_made_again_from_its_recording(played):
    assert [envs.task_of(t) for t in played] == [task for task in sglib.panel("sokoban", n=16) for _ in range(2)]
    task = envs.task_of(played[0])
    assert dataclasses.replace(task) == task
