import numpy as np
import pytest

from sglib.stats import bootstrap_mean, difference, wilson


def test_wilson_by_hand():
    # 96 of 128 and z = 1.96: centre (96 + z2/2) / (128 + z2) = 0.7427, half width 0.0743
    assert wilson(96, 128) == pytest.approx((0.6684, 0.8170), abs=1e-4)
    # Wilson for nothing of 10: 0 .. z2 / (10 + z2)
    assert wilson(0, 10) == pytest.approx((0, 3.8415 / 13.8415), abs=1e-4)
    assert wilson(10, 10)[1] == pytest.approx(1)
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("arguments", [(5, 4), (-1, 4), (1, 4, 1.0), (1, 4, 95)])
def test_wilson_rejects(arguments):
    with pytest.raises(ValueError, match="must be between"):
        wilson(*arguments)


def test_wilson_covers():
    rng = np.random.default_rng(0)
    for rate in (0.1, 0.5, 0.9):
        hits = sum(low <= rate <= high for low, high in (wilson(int(k), 64) for k in rng.binomial(64, rate, 2000)))
        assert 0.93 <= hits / 2000 <= 0.98


def test_difference_by_hand():
    # 36 won by both, 12 only by a, 2 only by b: the worked example of Newcombe 1998, table II, method 10
    a, b = [1] * 36 + [1] * 12 + [0] * 2, [1] * 36 + [0] * 12 + [1] * 2
    found = difference(a, b)
    assert (found.estimate, found.low, found.high) == pytest.approx((0.20, 0.0569, 0.3404), abs=2e-4)
    # exact McNemar: 2 * P(X <= 2), X ~ Binomial(14, 1/2) = 2 * (1 + 14 + 91) / 2**14
    assert found.p_value == pytest.approx(2 * 106 / 2**14)
    assert (found.n, found.only_a, found.only_b) == (50, 12, 2)
    assert str(found) == "+20.0 points [+5.7, +34.0], p = 0.0129, n = 50 pairs"


def test_difference_is_antisymmetric_and_certain_of_nothing_when_equal():
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 2, 40), rng.integers(0, 2, 40)
    one, other = difference(a, b), difference(b, a)
    assert (one.estimate, one.low, one.high) == pytest.approx((-other.estimate, -other.high, -other.low))
    same = difference(a, a)
    assert same.p_value == 1 and same.estimate == 0 and same.low < 0 < same.high


def test_difference_covers():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(1000):  # rates 0.6 and 0.4, correlated through a shared difficulty
        difficulty = rng.random(64) * 0.4 - 0.2
        a, b = rng.random(64) < 0.6 + difficulty, rng.random(64) < 0.4 + difficulty
        found = difference(a, b)
        hits += found.low <= 0.2 <= found.high
    assert 0.93 <= hits / 1000 <= 0.99


@pytest.mark.parametrize("a, b", [([1], [1, 0]), ([], []), ([2], [1]), ([[1]], [[1]])])
def test_difference_rejects(a, b):
    with pytest.raises(ValueError):
        difference(a, b)


def test_bootstrap_mean():
    values = np.random.default_rng(3).normal(5, 2, 200)
    mean, low, high = bootstrap_mean(values, seed=0)
    assert mean == pytest.approx(values.mean())
    half = 1.96 * values.std() / np.sqrt(200)
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.05)
    assert bootstrap_mean(values, seed=0) == (mean, low, high)
    assert bootstrap_mean(values, seed=1) != (mean, low, high)
    assert bootstrap_mean([2.0, 2.0]) == (2, 2, 2)
    with pytest.raises(ValueError):
        bootstrap_mean([])
    with pytest.raises(ValueError):
        bootstrap_mean([1, float("nan")])
