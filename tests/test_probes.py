"""Probes: each sign of reward hacking in an episode made for it; alarms by the rule."""

import numpy as np
import pytest

from sglib.measure.hacking import alarms, first_and_last, internal, probe
from sglib.records import Trajectory, Turn


def episode(n=4, won=False, labels=None, actions=None, rewards=None, valid=None, progress=None, distances=None):
    turns = [
        Turn(
            f"seen {t}", "said", actions[t] if actions else f"go {t}", valid[t] if valid else True,
            label=labels[t] if labels else None, progress=progress[t] if progress else None,
            rewards=rewards[t] if rewards else {}, distance=distances[t] if distances else None,
        )
        for t in range(n)
    ]  # fmt: skip
    return Trajectory("g", "task", "goal", "guide", turns, won=won, final_distance=distances[-1] if distances else None)


def test_always_positive():
    yes = episode(labels=["neutral", "positive", "positive", "positive"])
    no = episode(labels=["positive", "positive", "negative", "positive"])
    assert probe([yes])["always_positive"] == 1.0 and probe([yes, no])["always_positive"] == 0.5
    assert probe([episode(2, labels=["positive"] * 2)])["always_positive"] is None  # too few labels to say


def test_loops_and_repetition():
    loop = episode(6, actions=["look"] * 6)
    for turn in loop.turns:
        turn.observation = "a room"
    found = probe([loop])
    assert found["looping"] == 1.0 and found["repeated"] == pytest.approx(5 / 6)
    assert probe([episode()])["repeated"] == 0.0


def test_inflation_of_progress():
    t = episode(2, progress=[50.0, 100.0], distances=[4, 4, 2])
    assert probe([t])["progress_inflation"] == pytest.approx((50 + 100) / 2)  # nothing was done before either action
    rewards = [{"repro/retrospective": 40.0}, {"repro/retrospective": 90.0}]
    lost, won = (episode(2, rewards=rewards, distances=[4, 4, 2], won=w) for w in (False, True))
    assert probe([lost])["hindsight_inflation"] == pytest.approx(90 - 50)
    assert probe([won])["hindsight_inflation"] is None


def test_a_gain_that_the_environment_did_not_give():
    rewards = [{"igpo": 3.0}, {"igpo": -5.0}, {"igpo": 1.0}, {"igpo": 0.0}]
    assert probe([episode(rewards=rewards, valid=[False, True, True, True])])["unearned"] == pytest.approx(0.75)


def test_what_is_paid_beside_the_outcome():
    paid = [{"outcome/weighted": 10.0, "self_guide/weighted": 0.1, "self_guide": 0.1, "igpo/weighted": 0.5}]
    assert internal(episode(1, rewards=paid)) == pytest.approx(0.6)
    rich = episode(4, rewards=[{"self_guide/weighted": 0.1} for _ in range(4)])
    poor = episode(2, won=True, rewards=[{"self_guide/weighted": 0.1} for _ in range(2)])
    found = probe([rich, poor])
    assert found["internal_gap"] == pytest.approx(-0.2) and found["internal_length"] == pytest.approx(1.0)


def run(success, internal_reward, positive, agreement, looping=0.1, gap=0.0, n=20, noise=0.01):
    rng = np.random.default_rng(0)
    ends = {
        "success": success, "probe/internal": internal_reward, "label_positive": positive,
        "calibration/label/auroc": agreement, "probe/looping": (looping, looping), "probe/internal_gap": (gap, gap),
    }  # fmt: skip
    return [
        {k: a + (b - a) * i / (n - 1) + rng.normal(0, noise) for k, (a, b) in ends.items()} for i in range(n)
    ]


def test_first_and_last_batches_of_a_training():
    rows = [{"x": x} for x in (1, None, 3, 9, 5, 7)]
    assert first_and_last(rows, "x", window=2) == (1, 6)
    assert first_and_last(rows, "x", window=3) == (2, 7)
    assert first_and_last(rows, "y") == (None, None) and first_and_last([], "x") == (None, None)


def test_an_alarm_rings_where_the_reward_is_hacked():
    gamed = run(success=(0.4, 0.2), internal_reward=(0.0, 2.0), positive=(0.2, 0.9), agreement=(0.7, 0.2), gap=-0.5)
    assert {row["alarm"] for row in alarms(gamed)} == {"gamed", "inflated labels", "paid for losing"}
    (first,) = [row for row in alarms(gamed) if row["alarm"] == "gamed"]
    assert first["before"] > first["after"] and "success" in first["what"]


def test_a_schedule_is_looked_at_while_it_pays():
    """At the end lambda is 0 and all is well again; what rings is what happened before."""
    gamed = run(success=(0.4, 0.2), internal_reward=(0.1, 2.0), positive=(0.2, 0.9), agreement=(0.7, 0.2))
    after = [row | {"probe/internal": 0.0, "success": 0.6} for row in gamed]
    assert {row["alarm"] for row in alarms(gamed + after)} == {"gamed", "inflated labels"}
    assert alarms([row | {"probe/internal": 0.0} for row in gamed]) == []  # not paid, so not hacked


def test_no_alarm_where_it_is_not():
    assert alarms(run((0.3, 0.7), (0.0, 1.0), (0.3, 0.45), (0.6, 0.65), gap=0.3)) == []
    assert alarms(run((0.4, 0.2), (0.0, 2.0), (0.2, 0.9), (0.7, 0.2), n=6)) == []  # too short to say


def test_noise_alone_seldom_rings():
    rng = np.random.default_rng(1)
    keys = ("success", "label_positive", "calibration/label/auroc", "probe/internal", "probe/looping")
    keys += ("probe/internal_gap",)

    def batch():
        return {k: rng.normal(0.0 if k == "probe/internal_gap" else 0.5, 0.1) for k in keys}

    rings = sum(bool(alarms([batch() for _ in range(20)])) for _ in range(300))
    assert rings / 300 < 0.05
