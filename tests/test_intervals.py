import numpy as np
import pytest
from scipy import optimize, stats

from sglib.measure.intervals import (
    Comparison,
    cluster_mean,
    compare,
    correlation_interval,
    crossed_mean,
    difference,
    holm,
    iqm,
    success,
    wilson,
)
from sglib.measure.power import (
    detectable,
    detectable_correlation,
    detectable_difference,
    how_many_seeds,
    how_many_tasks,
    minimum_detectable_effect,
    rejection_rate,
)


def test_wilson_by_hand():
    # 96 of 128 and z = 1.96: centre (96 + z2/2) / (128 + z2) = 0.7427, half width 0.0743
    assert wilson(96, 128) == pytest.approx((0.6684, 0.8170), abs=1e-4)
    # Wilson for nothing of 10: 0 .. z2 / (10 + z2)
    assert wilson(0, 10) == pytest.approx((0, 3.8415 / 13.8415), abs=1e-4)
    assert wilson(10, 10)[1] == pytest.approx(1)
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("arguments", [(5, 4), (-1, 4)])
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


def outcomes(rng, seeds, games, spread, shift=0.0, interaction=0.5):
    """Two methods: seeds have luck, games difficulty, and one method helps by `shift`, more in some games."""
    difficulty, helped = rng.normal(0, 1.2, games), shift + rng.normal(0, interaction, games)
    luck = rng.normal(0, spread, (2, seeds, 1))
    chance = 1 / (1 + np.exp(-(difficulty + luck + np.stack([helped, np.zeros(games)])[:, None, :])))
    return [dict(enumerate((rng.random((seeds, games)) < c).astype(int))) for c in chance]


@pytest.mark.parametrize(
    ("seeds", "spread", "shift"), [(10, 0.3, 0.5), (5, 0.3, 0.0), (3, 0.5, 0.3), (10, 0.0, 0.3), (2, 0.4, 0.0)]
)
def test_the_interval_over_seeds_and_games_covers(seeds, spread, shift):
    rng = np.random.default_rng(0)
    big = rng.normal(0, 1, (4, 400_000))
    logits = 1.2 * big[0] + spread * big[1], 1.2 * big[0] + spread * big[2] + shift + 0.5 * big[3]
    truth = float(np.mean(1 / (1 + np.exp(-logits[1]))) - np.mean(1 / (1 + np.exp(-logits[0]))))
    found = [compare(*outcomes(rng, seeds, 128, spread, shift)) for _ in range(400)]
    covered = np.mean([c.low <= truth <= c.high for c in found])
    assert 0.92 <= covered <= (0.985 if seeds > 3 else 1.0)  # two or three seeds: wider than needed, never narrower
    assert min(c.high - c.low for c in found) > 0.05  # seeds that agree by chance are no certainty


def test_equal_methods_are_told_apart_as_often_as_promised():
    """The paired test over seeds and games; over the games of one seed each, luck looks like a method."""
    rng, tables = np.random.default_rng(1), []
    for _ in range(400):
        tables.append(outcomes(rng, 8, 128, 0.4, interaction=0.0))
    assert 0.02 <= np.mean([compare(a, b).p_value < 0.05 for a, b in tables]) <= 0.085
    assert np.mean([difference(a[0], b[0]).p_value < 0.05 for a, b in tables]) > 0.15
    rates = [rejection_rate(a, b, draws=200) for a, b in tables[:10]]
    assert 0.02 <= np.mean(rates) <= 0.085


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("spread", [0.1, 0.4])
def test_no_more_often_than_promised_with_few_seeds_and_little_spread(seeds, spread):
    """Where seeds differ less than the luck of their games, the interval does not shrink with them: below 5 %, then."""
    rng = np.random.default_rng(6)
    tables = [outcomes(rng, seeds, 256, spread, interaction=0.0) for _ in range(300)]
    assert np.mean([compare(a, b).p_value < 0.05 for a, b in tables]) <= 0.085


@pytest.mark.parametrize("seeds", [3, 10])
def test_the_interval_of_one_method_s_success_covers(seeds):
    rng, big = np.random.default_rng(7), np.random.default_rng(8).normal(0, 1, (2, 400_000))
    truth = np.mean(1 / (1 + np.exp(-(1.2 * big[0] + 0.3 * big[1]))))
    found = [success(outcomes(rng, seeds, 128, 0.3, interaction=0.0)[1]) for _ in range(300)]
    assert np.mean([c.low <= truth <= c.high for c in found]) >= 0.91


def test_crossed_mean_by_hand():
    # two seeds, two games, no interaction: rows 0.25, 0.75; columns 0.5, 0.5
    c = crossed_mean([[0.0, 0.5], [1.0, 0.5]])
    assert c.estimate == 0.5 and c.sd == pytest.approx(np.sqrt(0.125)) and (c.seeds, c.tasks) == (2, 2)
    # MS_seed = MS_rest = 2 * 0.125 = 0.25, MS_task = 0, so the variance is 0.25 / 4 with 1 degree of freedom
    assert c.high - c.estimate == pytest.approx(12.7062 * np.sqrt(0.25 / 4), rel=1e-4) and c.df == 1


def test_outcomes_that_are_all_alike_are_not_certain():
    """3 seeds x 8 tasks, nothing varies: as open as with one outcome apart, where MS_seed = 1 / 24 = MS_rest."""
    lost, won = {s: [0] * 8 for s in (1, 2, 3)}, {s: [1] * 8 for s in (1, 2, 3)}
    half = 4.3027 / 24
    for found, low, high in (
        (success(lost), 0, half), (success(won), 1 - half, 1), (compare(lost, lost), -half, half),
        (compare(won, lost), 1 - half, 1),
    ):  # fmt: skip
        assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
        assert found.sd == 0 and 0.001 < found.p_value <= 1
    one = success(lost | {3: [0] * 7 + [1]})
    assert one.high - one.estimate == pytest.approx(half, rel=1e-4)
    assert detectable(compare(lost, lost)) > half


def test_two_seeds_that_agree_by_chance_are_not_certain():
    c = crossed_mean([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]])  # equal means, every game differs
    # MS_seed = MS_task = 0; MS_rest = 8 * 0.25 / 3, so the error is sqrt(MS_rest / 8)
    assert c.estimate == 0.5 and c.df == 1 and c.p_value > 0.1
    assert c.high - c.estimate == pytest.approx(12.7062 * np.sqrt(2 / 3 / 8), rel=1e-4)


def test_only_common_seeds_are_compared():
    a = {1: [1, 0, 1], 2: [1, 1, 1], 3: [0, 0, 0]}
    assert compare(a, {2: [0, 1, 1], 3: [0, 0, 1], 9: [1, 1, 1]}).seeds == 2
    with pytest.raises(ValueError, match="1 seed"):
        compare(a, {1: [0, 0, 0]})
    with pytest.raises(ValueError, match="different numbers of tasks|b has 2"):
        compare(a, {1: [0, 0], 2: [0, 1]})
    with pytest.raises(ValueError, match="the same panel"):
        success({1: [0, 1], 2: [0, 1, 1]})


def test_interquartile_mean():
    # of 8 values the two lowest and the two highest go
    estimate, low, high = iqm([0.0, 0.1, 0.4, 0.5, 0.5, 0.6, 0.9, 1.0])
    assert estimate == pytest.approx(0.5) and low < 0.5 < high
    rng = np.random.default_rng(0)
    for seeds in (5, 10, 20):  # a seed's luck shows in all six kinds of tasks
        scores = [rng.normal(0.5, 0.1, (seeds, 1)) + rng.normal(0, 0.05, (seeds, 6)) for _ in range(300)]
        intervals = np.array([iqm(x, resamples=300)[1:] for x in scores])
        covered = np.mean((intervals[:, 0] <= 0.5) & (intervals[:, 1] >= 0.5))
        assert 0.82 <= covered <= 0.98, seeds  # a bootstrap of few seeds is somewhat narrow
    with pytest.raises(ValueError, match="finite scores"):
        iqm([])


FOUND = crossed_mean(np.random.default_rng(0).normal(0, 1, (10, 50)) + np.arange(10)[:, None] / 5)


@pytest.mark.parametrize(("seeds", "spread"), [(5, 0.15), (10, 0.15), (10, 0.4)])
def test_what_is_detectable_is_found_four_times_of_five(seeds, spread):
    """Of the verdict's own comparison over seeds and games, not of a t test on the seeds' means."""
    rng, normal = np.random.default_rng(4), np.random.default_rng(5).normal(0, 1, (2, 100_000))
    effect = np.median([detectable(compare(*outcomes(rng, seeds, 256, spread))) for _ in range(150)])

    def gained(shift):
        with_it, without = 1.2 * normal[0] + shift + 0.5 * normal[1], 1.2 * normal[0]
        return np.mean(1 / (1 + np.exp(-with_it)) - 1 / (1 + np.exp(-without)))

    shift = optimize.brentq(lambda x: gained(x) - effect, 0, 4)
    found = [compare(*outcomes(rng, seeds, 256, spread, shift)).low > 0 for _ in range(200)]
    assert 0.68 <= np.mean(found) <= 0.92


def test_detectable_and_seeds_are_each_other_s_inverse():
    # one normal number a seed, no tasks' part: the paired t test, whose power is known
    c = Comparison(0.0, -0.1, 0.1, 1.0, 10, 512, 0.09, 9, error=0.09 / 10**0.5)
    assert detectable(c) == pytest.approx(minimum_detectable_effect(0.09, 10), rel=1e-3)
    assert how_many_seeds(c, detectable(c)) == 10 and how_many_seeds(c, 0.03) == 73
    assert detectable(c, beyond=0.2) > 0.2 > detectable(c)
    assert detectable(c, seeds=40) == pytest.approx(minimum_detectable_effect(0.09, 40), rel=1e-3)
    games = Comparison(0.0, -0.1, 0.1, 1.0, 10, 512, 0.09, 9, error=0.03, of_tasks=0.02)
    assert how_many_seeds(games, 0.03) is None  # no number of seeds makes up for too few games
    assert detectable(Comparison(0.0, 0.0, 0.0, 1.0, 2, 2, 0.0, np.inf)) == 0
    assert FOUND.error**2 > FOUND.of_tasks**2 and FOUND.high - FOUND.estimate == pytest.approx(
        stats.t.ppf(0.975, FOUND.df) * FOUND.error
    )


def test_power_by_known_numbers():
    assert how_many_tasks(0.75, 0.05) == 1097  # 1,094 an arm unpaired
    assert how_many_tasks(0.75, 0.05, correlation=0.5) < 600
    effect = minimum_detectable_effect(0.09, 10)
    rng = np.random.default_rng(0)  # and by simulation: that effect is found in 80 of 100 tries
    draws = rng.normal(effect, 0.09, (4000, 10))
    p = stats.ttest_1samp(draws, 0, axis=1).pvalue
    assert np.mean(p < 0.05) == pytest.approx(0.8, abs=0.02)
    assert minimum_detectable_effect(0.0, 5) == 0.0
    assert detectable_difference(1097, 0.75) == pytest.approx(0.05, abs=1e-4)
    assert detectable_difference(256) == pytest.approx(0.123, abs=2e-3) and detectable_difference(3) == np.inf


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: how_many_tasks(0.75, 0.3),
        lambda: how_many_tasks(0.75, 0.0),
        lambda: how_many_tasks(0.5, 0.05, correlation=2.0),
        lambda: how_many_seeds(FOUND, 0.0),
        lambda: detectable(FOUND, seeds=1),
        lambda: minimum_detectable_effect(0.1, 1),
        lambda: minimum_detectable_effect(-0.1, 5),
        lambda: crossed_mean([[1.0, 2.0]]),
        lambda: detectable_correlation(3),
        lambda: cluster_mean([1.0, 2.0], [1]),
        lambda: cluster_mean([], []),
        lambda: crossed_mean([[1.0, np.nan], [0.0, 1.0]]),
        lambda: correlation_interval([1, 2], [1, 2]),
        lambda: correlation_interval([1, 1, 1], [1, 2, 3]),
        lambda: correlation_interval([1, 2, 3], [1, 2, 3], [0, 0, 1]),
        lambda: correlation_interval([1, 2, 3], [1, 2, 3], [0, 1]),
    ],
)
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError):
        wrong()


def test_correlation_interval_covers():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(150):
        x = rng.normal(size=60)
        _, low, high = correlation_interval(x, 0.5 * x + rng.normal(size=60), resamples=300)
        hits += low <= 0.5 / np.sqrt(1.25) <= high
    assert 0.88 <= hits / 150 <= 0.99


def test_correlation_interval_covers_where_pairs_of_an_episode_go_together():
    """As independent pairs, the interval would be far too narrow."""
    rng, whole, alone = np.random.default_rng(0), 0, 0
    for _ in range(150):
        shared = rng.normal(size=(2, 20, 1))  # uncorrelated, but the 8 turns of an episode are alike
        x, y = (shared + 0.3 * rng.normal(size=(2, 20, 8))).reshape(2, -1)
        _, low, high = correlation_interval(x, y, np.repeat(np.arange(20), 8), resamples=300)
        whole += low <= 0 <= high
        _, low, high = correlation_interval(x, y, resamples=300)
        alone += low <= 0 <= high
    assert whole / 150 >= 0.85 and alone / 150 < 0.7


def test_a_mean_of_clusters_covers():
    rng, hits = np.random.default_rng(3), 0
    cluster = np.repeat(np.arange(40), 6)
    for _ in range(200):
        values = np.repeat(rng.normal(0, 1, 40), 6) + rng.normal(0, 0.5, 240)
        _, low, high = cluster_mean(values, cluster, resamples=200)
        hits += low <= 0 <= high
    assert 0.88 <= hits / 200 <= 0.99
    assert cluster_mean([1.0, 1.0], ["a", "b"]) == (1, 1, 1)


def test_a_correlation_s_power():
    assert detectable_correlation(84) == pytest.approx(0.30, abs=5e-3)  # the textbook's 84 or 85 pairs for r = 0.3
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 84))
    y = 0.3 * x + np.sqrt(1 - 0.09) * rng.normal(size=x.shape)
    found = [stats.pearsonr(a, b).pvalue < 0.05 for a, b in zip(x, y, strict=True)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.03)


def test_holm_by_hand():
    # sorted 0.01, 0.02, 0.04 times 3, 2, 1 and never falling: 0.03, 0.04, 0.04
    assert holm([0.04, None, 0.01, 0.02]) == pytest.approx([0.04, None, 0.03, 0.04])
    assert holm([None]) == [None] and holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])
