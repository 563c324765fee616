"""An environment that nobody knew, in one file: asked only through its card, it is played, measured and trained on."""

from pathlib import Path

import pytest

import sglib
from sglib.advantages.estimators import GRPO, GiGPO
from sglib.envs.panels import panel_hash
from sglib.measure import counterfactual, truth
from sglib.rewards import InformationGain, InverseReward, Outcome, SelfGuide
from sglib.rewards.controls import OraclePotential, RandomReward
from sglib.rewards.repro import ProgressReward
from sglib.training.grpo import GRPOSettings, train

NAME = str(Path(__file__).parent / "corridor.py")


@pytest.fixture(scope="module")
def card():
    return sglib.envs.get(NAME)


def test_the_card_answers(card):
    assert card.name == "corridor" and card.sources == [Path(NAME).resolve()]
    offered = {name for name in ("distance", "progress", "plan", "expert", "answer", "fork") if card.offers(name)}
    assert offered == {"distance", "plan"}
    tasks = sglib.panel(NAME, "valid", 4)
    assert tasks == card.tasks(4, seed=424_242, split="valid") and len(panel_hash(tasks)) == 12
    with pytest.raises(ValueError, match="split='test': allowed for corridor: train, valid"):
        sglib.panel(NAME, "test", 4)
    for wrong in ("nowhere", "nowhere.py"):
        with pytest.raises(ValueError, match="allowed: alfworld, sokoban, or the path of a .py file"):
            sglib.envs.get(wrong)


def test_it_is_played_measured_and_made_again(card):
    policy, tasks = sglib.load_policy("base"), sglib.panel(NAME, n=6)
    report = sglib.evaluate(policy, tasks, seed=1)
    assert report.n == 6 and report.failures == {} and report.turns <= card.turns
    played = report.trajectories
    assert all(t.env == NAME and t.distances[0] == task.length for t, task in zip(played, tasks))
    assert all(t.progress()[-1] == 1.0 for t in played if t.won)
    assert [sglib.envs.task_of(t) for t in played] == tasks
    records = [sglib.Trajectory.from_dict(t.to_dict()) for t in played]
    assert records == played
    assert counterfactual.step_values(policy, played, [(0, 0)], k=2, max_turns=card.turns)


@pytest.mark.parametrize(
    ("format", "components", "estimator"),
    [
        ("act", [Outcome()], GRPO()),
        ("act", [Outcome(), OraclePotential()], GiGPO()),
        ("act", [Outcome(), RandomReward()], GiGPO()),
        ("guide", [Outcome(), SelfGuide()], GRPO()),
        ("progress", [Outcome(), ProgressReward()], GiGPO()),
    ],
)
def test_it_can_be_trained_on(card, format, components, estimator):
    policy = sglib.load_policy("base")
    settings = GRPOSettings(
        iterations=2, games_per_iteration=2, group_size=2, max_turns=4, format=format, learning_rate=1e-3
    )
    batches = []
    result = train(
        policy, card.tasks(4), settings, components, estimator, on_iteration=lambda _, played: batches.append(played)
    )
    assert len(result.metrics) == 2 and all(m["grad_norm"] is not None for m in result.metrics)
    assert all(turn.advantage is not None for t in batches[-1] for turn in t.turns)
    assert format == "act" or truth.signals(batches[-1])


@pytest.mark.parametrize(
    ("component", "missing"),
    [(InformationGain(), "'igpo' asks for the answer 'facts'"), (InverseReward(), "'step_agent' asks for expert='opt")],
)
def test_what_it_lacks_is_refused_before_anything_runs(card, component, missing):
    settings = GRPOSettings(iterations=1, games_per_iteration=1, group_size=2)
    with pytest.raises(ValueError, match=f"{missing}.*'corridor'"):
        train(sglib.load_policy("base"), card.tasks(1), settings, [Outcome(), component], rollout_fn=pytest.fail)
