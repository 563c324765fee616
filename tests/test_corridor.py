"""An environment that nobody knew, in one file: asked only through its card, it is played, measured and trained on."""

import shutil
from pathlib import Path

import pytest

import sglib
from sglib.advantages.estimators import GRPO, GiGPO
from sglib.envs.panels import panel_hash
from sglib.measure import counterfactual, truth
from sglib.models.policy import load_frozen
from sglib.rewards import InformationGain, InverseReward, Outcome, SelfGuide, self_guide
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
        with pytest.raises(ValueError, match="allowed: alfworld, .*webshop, or the path of a .py file"):
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


def test_the_name_in_a_recording_runs_no_file(tmp_path):
    file = tmp_path / "hostile.py"
    file.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ValueError, match="allowed: alfworld, .*get has loaded"):
        sglib.envs.of(sglib.Trajectory("g", "t", "goal", "act", env=str(file)))
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def with_model(tmp_path):
    """A copy of the environment with an untrained model of its own, and two episodes in it."""
    file = shutil.copy(NAME, tmp_path / "hall.py")
    own = sglib.load_policy("new", env=str(file))
    own.save(tmp_path / "models" / "base")
    played = sglib.rollout(own, sglib.envs.get(str(file)).tasks(2), turns=2)
    return str(file), own, played


def test_its_own_model_is_loaded(with_model, monkeypatch):
    """`model: base`, and a reward's `frozen: base` and `features: base`, are the model of the episodes' environment."""
    file, own, played = with_model
    words = own.tokenizer.get_vocab()
    assert sglib.load_policy("base", env=file).tokenizer.get_vocab() == words
    assert sglib.load_policy("alfworld/base", env=file).tokenizer.get_vocab() != words
    readers = []
    monkeypatch.setattr(self_guide, "rate", lambda policy, of, **_: readers.append(policy) or [[None] * len(of[0])] * 2)
    SelfGuide(frozen="base")(played)
    assert InverseReward(features="base")._reader(played, None) is load_frozen("base", played, None) is readers[0]
    assert readers[0].tokenizer.get_vocab() == words and readers[0] is not own


def test_without_a_model_of_its_own_it_is_named(card):
    played = [sglib.Trajectory("g", "t", "goal", "act", [sglib.Turn("o", "r", "a", True)], env=NAME)]
    calls = (
        lambda: sglib.load_policy("base", env=NAME),
        lambda: SelfGuide(frozen="base")(played),
        lambda: InverseReward(features="base")(played),
        lambda: InformationGain(frozen="base")(played, sglib.load_policy("base")),
        lambda: sglib.inspect(played, policy="base"),
    )
    for call in calls:
        with pytest.raises(ValueError, match="name='base': the environment '.*corridor.py' has no model.*alfworld/b"):
            call()
