"""Calibration against the oracle: measures by hand, signals on the action that they speak of, intervals."""

import numpy as np
import pytest

from sglib.measure import truth as calibration
from sglib.measure.truth import (
    Signal,
    auroc,
    calibrate,
    correlation,
    hindsight,
    reliability,
    sign_accuracy,
    signals,
    with_interval,
)
from sglib.records import Trajectory, Turn


def episode(distances, labels=None, progress=None, rewards=None, won=False):
    n = len(distances) - 1
    turns = [
        Turn(
            "seen", "said", "go", True, distance=distances[t], label=labels and labels[t],
            progress=progress and progress[t], rewards=dict(rewards[t]) if rewards else {},
        )
        for t in range(n)
    ]  # fmt: skip
    return Trajectory("game", "task", "goal", "guide", turns, won=won, final_distance=distances[-1])


def test_a_label_speaks_of_the_action_before_it():
    t = episode([5, 4, 4, 3], labels=["positive", "negative", "positive"])
    signal = signals([t])["label"]
    # of action 1 (helped: 5 -> 4) turn 2 says negative, of action 2 (did not) turn 3 says positive; of the last, nobody
    assert signal.value.tolist() == [-1, 1] and signal.progress.tolist() == [1, 0]
    assert signal.helped.tolist() == [True, False]
    assert sign_accuracy(signal.value, signal.progress) == 0.0


def test_progress_is_taken_as_its_change():
    rewards = [{"repro/retrospective": 20.0, "repro": 9.0}, {"repro/retrospective": 10.0, "repro": 9.0}]
    t = episode([4, 3, 3], progress=[0.0, 30.0], rewards=rewards)
    found = signals([t])
    assert found["online"].value.tolist() == [0.3] and found["online"].progress.tolist() == [1]
    assert found["retrospective"].value == pytest.approx([0.2, -0.1])
    assert "repro" not in found


def test_components_are_signals_and_the_last_gain_is_none():
    rewards = [{"igpo": 0.5, "igpo/before": -1.0, "igpo/weighted": 0.5, "outcome": 0.0}, {"igpo": 0.0, "outcome": 1.0}]
    found = signals([episode([2, 1, 0], rewards=rewards)])
    assert list(found) == ["igpo"] and found["igpo"].value.tolist() == [0.5]
    shaped = episode([2, 1, 0], rewards=[{"oracle": 0.5}, {"oracle": 0.5}])
    assert signals([shaped])["oracle"].value.tolist() == [0.5, 0.5]


def test_measures_by_hand():
    value, progress = np.array([3.0, 1.0, 2.0, -1.0, 0.0]), np.array([1, 1, -1, 0, 1])
    # pairs (helped, did not): 3>2, 3>-1, 1<2, 1>-1, 0<2, 0>-1
    assert auroc(value, progress) == pytest.approx(4 / 6)
    assert sign_accuracy(value, progress) == pytest.approx(3 / 4)  # of 3, 1, 2, -1 the 2 is wrong
    assert correlation(value, progress) == pytest.approx(np.corrcoef(value, progress)[0, 1])
    assert auroc(np.array([1.0, 1.0]), np.array([1, 0])) == 0.5  # ties count half
    assert auroc(np.array([1.0, 2.0]), np.array([1, 1])) is None
    assert correlation(np.ones(3), np.arange(3)) is None
    assert sign_accuracy(np.zeros(3), np.arange(3)) is None


def test_every_batch_keeps_them():
    t = [episode([3, 2, 2, 1], labels=["neutral", "positive", "negative"]), episode([2, 2, 1], labels=["neutral"] * 2)]
    found = calibrate(t)
    assert found["label/n"] == 3 and found["label/sign"] == 1.0 and found["label/auroc"] == 1.0


def test_without_distances_there_is_no_truth(trajectory):
    trajectory.final_distance = trajectory.turns[0].distance = None
    with pytest.raises(ValueError, match="without the truth"):
        signals([trajectory])


def test_the_interval_covers_when_turns_of_an_episode_go_together():
    """Episodes differ as wholes; an interval that resamples turns would be far too narrow."""
    rng, hits, trials = np.random.default_rng(0), 0, 120
    for _ in range(trials):
        shift = np.repeat(rng.normal(0, 2, 40), 10)
        value = shift + rng.normal(0, 1, 400)
        progress = 0.5 * value + np.repeat(rng.normal(0, 1, 40), 10) + rng.normal(0, 1, 400)
        signal = Signal(value, progress, np.repeat(np.arange(40), 10))
        _, low, high = with_interval(signal, resamples=150)
        truth = 0.5 * 5 / np.sqrt(5 * (0.25 * 5 + 1 + 1))
        hits += low <= truth <= high
    assert 0.88 <= hits / trials <= 0.99


def test_reliability_of_labels_has_a_bin_for_each():
    rng = np.random.default_rng(0)
    value = rng.choice([-1.0, 0.0, 1.0], 600)
    progress = (rng.random(600) < np.select([value < 0, value > 0], [0.1, 0.8], 0.4)).astype(int)
    rows = reliability(Signal(value, progress, np.repeat(np.arange(60), 10)))
    assert [row["value"] for row in rows] == [-1, 0, 1] and sum(row["n"] for row in rows) == 600
    for row, truth in zip(rows, (0.1, 0.4, 0.8), strict=True):
        assert row["low"] <= row["helped"] <= row["high"] and abs(row["helped"] - truth) < 0.1
    assert len(reliability(Signal(rng.normal(size=600), progress, np.repeat(np.arange(60), 10)), bins=5)) == 5


def test_an_unknown_measure_is_named():
    with pytest.raises(ValueError, match="measure='r2': allowed: correlation, sign, auroc"):
        with_interval(Signal(np.ones(2), np.ones(2), np.arange(2)), "r2")


def test_what_one_turn_says():
    t = episode([5, 4, 4], labels=["positive", "negative"])
    assert calibration.signal_values(t, 0) == {"label": -1.0} and calibration.signal_values(t, 1) == {}


def test_a_side_reading_is_a_signal_of_its_own():
    t = episode([5, 4, 4], labels=["positive", "negative"], rewards=[{}, {"self_guide/label": 0.1}])
    assert calibration.signal_values(t, 0) == {"label": -1.0, "rater": 0.1}


def test_few_episodes_have_no_interval():
    signal = Signal(np.array([1.0, 0.0, 1.0, 0.5]), np.array([1, 0, 0, 1]), np.array([0, 1, 2, 3]))
    assert with_interval(signal) == (correlation(signal.value, signal.progress), None, None)


def test_hindsight_by_hand():
    """Rated 50, 100 where 25, 100 is true: 25 and 0 points off, gains 0.5, 0.5 paid and 25, 75 true. And 40, 20 where
    50, 0 is true: 10 and 20 off, gains 0.4, -0.2 and 50, -50. Before the last step 50 was said of the won, 40 of the
    lost."""

    def rated(distances, after, won):
        gains = np.diff([0.0, *after]) / 100
        rewards = [{"repro/retrospective": p, "repro/progress": gain} for p, gain in zip(after, gains)]
        return episode(distances, rewards=rewards, won=won)

    won, lost = rated([4, 3, 0], [50.0, 100.0], True), rated([2, 1, 2], [40.0, 20.0], False)
    unread = episode([2, 1, 0], won=True)
    found = hindsight([won, lost, unread, unread])
    assert (found["readable"], found["readable_won"], found["readable_lost"]) == (0.5, 1, 1)
    assert found["retrospect_error"] == pytest.approx(np.mean([12.5, 15.0])) and found["discrimination"] == 10.0
    assert found["correlation"] == pytest.approx(np.corrcoef([0.5, 0.5, 0.4, -0.2], [25, 75, 50, -50])[0, 1])
    assert np.isnan(found["correlation_low"]), "two episodes have no interval"
    assert np.isfinite(hindsight([won, lost, lost])["correlation_low"])
    assert np.isnan(hindsight([unread])["retrospect_error"]) and hindsight([unread])["readable"] == 0
