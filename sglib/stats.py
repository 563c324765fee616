"""Intervals and paired comparisons for success rates, on scipy and statsmodels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats
from statsmodels.stats.proportion import proportion_confint


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a success rate (Wilson 1927, J. Am. Stat. Assoc. 22:209).

    Args:
        successes: 0..n.
        n: episodes, >= 0; with none of them nothing is known.
        level: confidence, in (0, 1).

    Returns:
        (low, high), both in 0..1.

    Raises:
        ValueError: `successes` outside 0..n or `level` outside (0, 1).
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes = {successes}: must be between 0 and n = {n}")
    _check_level(level)
    if n == 0:
        return 0.0, 1.0
    low, high = proportion_confint(successes, n, alpha=1 - level, method="wilson")
    return max(0.0, float(low)), min(1.0, float(high))


@dataclass(frozen=True, slots=True)
class Difference:
    """A paired difference of two success rates.

    Attributes:
        estimate: rate of a minus rate of b, -1..1.
        low, high: its interval.
        p_value: two-sided, of the hypothesis that both win equally often.
        n: pairs.
        only_a, only_b: pairs that only a, only b won; these alone carry the evidence.
    """

    estimate: float
    low: float
    high: float
    p_value: float
    n: int
    only_a: int
    only_b: int

    def __str__(self) -> str:
        points = [100 * x for x in (self.estimate, self.low, self.high)]
        interval = f"[{points[1]:+.1f}, {points[2]:+.1f}]"
        return f"{points[0]:+.1f} points {interval}, p = {self.p_value:.3g}, n = {self.n} pairs"


def difference(a, b, level: float = 0.95) -> Difference:
    """Compare two policies that played the same games.

    The p-value is McNemar's exact test; the interval is Newcombe's square-and-add of two Wilson intervals with the
    correlation taken into account (method 10 of Newcombe 1998, Stat. Med. 17:2635), good for few pairs too.

    Args:
        a, b: outcomes 0/1 (or bool) by game, in the same order, (n,).
        level: confidence, in (0, 1).

    Raises:
        ValueError: unequal lengths, no pair, or values other than 0 and 1.
    """
    _check_level(level)
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.ndim != 1 or a.shape != b.shape or len(a) == 0:
        raise ValueError(f"expected two equally long lists of outcomes, got shapes {a.shape} and {b.shape}")
    if not np.isin([a, b], (0, 1)).all():
        raise ValueError("outcomes must be 0 or 1")
    n = len(a)
    both, only_a = int((a * b).sum()), int((a * (1 - b)).sum())
    only_b = int((b * (1 - a)).sum())
    neither = n - both - only_a - only_b
    p = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0

    rate_a, rate_b = a.mean(), b.mean()
    low_a, high_a = wilson(both + only_a, n, level)
    low_b, high_b = wilson(both + only_b, n, level)
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    agreement = both * neither - only_a * only_b
    if agreement > 0:  # continuity correction
        agreement = max(agreement - n / 2, 0)
    phi = agreement / np.sqrt(margins) if margins else 0.0
    below = np.hypot(rate_a - low_a, high_b - rate_b) ** 2 - 2 * phi * (rate_a - low_a) * (high_b - rate_b)
    above = np.hypot(high_a - rate_a, rate_b - low_b) ** 2 - 2 * phi * (high_a - rate_a) * (rate_b - low_b)
    mean = float(rate_a - rate_b)
    low, high = mean - float(np.sqrt(max(below, 0))), mean + float(np.sqrt(max(above, 0)))
    return Difference(mean, max(low, -1.0), min(high, 1.0), float(p), n, only_a, only_b)


def bootstrap_mean(values, seed: int = 0, level: float = 0.95, resamples: int = 2000) -> tuple[float, float, float]:
    """A mean and its percentile bootstrap interval (Efron 1979, Ann. Stat. 7:1).

    Args:
        values: independent numbers, (n,), n >= 1; seeds or episodes, not turns of one episode.
        seed: of the resampling: same seed, same interval.

    Returns:
        (mean, low, high); one value, or equal ones, give an interval of no width, which says nothing about the spread.

    Raises:
        ValueError: no value, or one that is not finite.
    """
    _check_level(level)
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
        raise ValueError("expected at least one finite value")
    mean = float(values.mean())
    if (values == values[0]).all():
        return mean, mean, mean
    interval = stats.bootstrap(
        (values,), np.mean, n_resamples=resamples, confidence_level=level, method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return mean, float(interval.low), float(interval.high)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level = {level}: must be between 0 and 1")
