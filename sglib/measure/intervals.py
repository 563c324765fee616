"""Intervals and paired comparisons of success rates, on scipy and statsmodels; all intervals are 95 %.

Two questions, two answers. *Is this policy better than that one on these games?* `difference`: pairs are games, one
training run each. *Is this method better than that one?* `compare`: pairs are seeds x games, and the interval covers
another seed as well as other games. The second is what a claim about a method needs; it is wider.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

LEVEL = 0.95
TAILS = (1 - LEVEL) / 2, (1 + LEVEL) / 2


def points(estimate: float, low: float, high: float, unit: str = "") -> str:
    """A difference of two rates (fractions) with its interval, in points: "+1.2 [-0.3, +2.7]"."""
    return f"{100 * estimate:+.1f}{unit} [{100 * low:+.1f}, {100 * high:+.1f}]"


def wilson(successes: int, n: int) -> tuple[float, float]:
    """(low, high), in 0..1, of a success rate: Wilson's score interval (1927, J. Am. Stat. Assoc. 22:209)."""
    if not 0 <= successes <= n:
        raise ValueError(f"successes = {successes}: must be between 0 and n = {n}")
    if n == 0:
        return 0.0, 1.0
    low, high = proportion_confint(successes, n, alpha=1 - LEVEL, method="wilson")
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
        gap = points(self.estimate, self.low, self.high, " points")
        return f"{gap}, p = {self.p_value:.3g}, n = {self.n} pairs"


def difference(a, b) -> Difference:
    """Compare two policies that played the same games.

    The p-value is McNemar's exact test; the interval is Newcombe's square-and-add of two Wilson intervals with the
    correlation taken into account (method 10 of Newcombe 1998, Stat. Med. 17:2635), good for few pairs too.

    `a`, `b` are outcomes 0/1 (or bool) by game, in the same order, (n,), n >= 1; anything else is a ValueError.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.ndim != 1 or a.shape != b.shape or len(a) == 0 or not np.isin([a, b], (0, 1)).all():
        raise ValueError(f"a, b: shapes {a.shape}, {b.shape}; allowed: equally many outcomes, each 0 or 1")
    both, only_a, only_b = (int(x.sum()) for x in (a * b, a * (1 - b), b * (1 - a)))
    neither = (n := len(a)) - both - only_a - only_b
    p = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0

    rate_a, rate_b = a.mean(), b.mean()
    low_a, high_a = wilson(both + only_a, n)
    low_b, high_b = wilson(both + only_b, n)
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


@dataclass(frozen=True, slots=True)
class Comparison:
    """A paired difference of two methods over seeds and tasks, or one method's success.

    Attributes:
        estimate: mean of a minus mean of b over seeds and tasks, -1..1; of one method, its mean.
        low, high: its interval, for other seeds and other tasks.
        p_value: two-sided, of the hypothesis that the mean is 0.
        seeds, tasks: how many.
        sd: standard deviation of the seeds' means; what another seed changes.
        df: degrees of freedom of the t distribution that the interval is from.
        error: standard error of the estimate, for other seeds and other tasks.
        of_tasks: the part of it that more seeds on the same number of tasks would leave; error^2 is the sum of squares.
    """

    estimate: float
    low: float
    high: float
    p_value: float
    seeds: int
    tasks: int
    sd: float
    df: float
    error: float = 0.0
    of_tasks: float = 0.0

    def __str__(self) -> str:
        gap = points(self.estimate, self.low, self.high, " points")
        return f"{gap}, p = {self.p_value:.2g}, {self.seeds} seeds x {self.tasks} games"


def crossed_mean(values) -> Comparison:
    """The mean of a table of seeds x tasks, both drawn at random, with its interval.

    x_st = mu + seed_s + task_t + rest_st, the two-way random model. The variance of the grand mean is
    (MS_seed + MS_task - MS_rest) / (S T); its degrees of freedom are Satterthwaite's (1946, Biometrics Bull. 2:110). It
    is never taken below MS_seed / (S T) or MS_rest / (S T), then with S - 1 degrees of freedom: few seeds can agree by
    chance, and their means then say nothing about the spread. A t interval, since with ten seeds a percentile bootstrap
    is too narrow (the tests simulate its coverage). Values that are all alike leave as much open as if one of them were
    1 more: no data are certain.

    `values` are (S, T) outcomes or differences of outcomes, S and T at least 2, finite, or it is a ValueError.
    """
    x = np.asarray(values, dtype=float)
    if x.ndim != 2 or min(x.shape) < 2 or not np.isfinite(x).all():
        raise ValueError(f"values: shape {x.shape}; allowed: at least 2 seeds x 2 tasks, finite")
    seeds, tasks = x.shape
    mean, sd = x.mean(), float(x.mean(1).std(ddof=1))
    if np.ptp(x) < 1e-9:
        x = x + (np.arange(x.size) == 0).reshape(x.shape)
    rows, columns = x.mean(1), x.mean(0)
    of_seed = tasks * rows.var(ddof=1)
    of_task = seeds * columns.var(ddof=1)
    rest = x - rows[:, None] - columns[None, :] + x.mean()
    dof = {"seed": seeds - 1, "task": tasks - 1, "rest": (seeds - 1) * (tasks - 1)}
    of_rest = float((rest**2).sum() / dof["rest"])
    total, parts = of_seed + of_task - of_rest, [(of_seed, "seed"), (of_task, "task"), (of_rest, "rest")]
    least = max(of_seed, of_rest)
    if total <= least:
        total, parts = least, [(least, "seed")]
    df = total**2 / sum(ms**2 / dof[name] for ms, name in parts)
    error = math.sqrt(total / (seeds * tasks))
    of_tasks = math.sqrt(max(of_task - of_rest, 0.0) / (seeds * tasks))
    half = float(stats.t.ppf(TAILS[1], df)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, df))
    return Comparison(
        float(mean), float(mean - half), float(mean + half), p, seeds, tasks, sd, float(df), error, of_tasks
    )


def success(outcomes: Mapping[int, Sequence[int]]) -> Comparison:
    """A method's success over its seeds, each on the same tasks, with an interval for other seeds and tasks.
    `outcomes`: seed -> (T,) outcomes 0/1; ValueError for fewer than two seeds or unequal numbers of tasks."""
    found = crossed_mean(table_of(outcomes, sorted(outcomes)))
    return replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))


def compare(a: Mapping[int, Sequence[int]], b: Mapping[int, Sequence[int]]) -> Comparison:
    """Compare two methods, paired over seeds and tasks: the same seed means the same training games and the same
    evaluation. Only seeds that both have count; `seeds` of the result says how many. `a`, `b`: seed -> (T,) outcomes
    0/1 of the same tasks in the same order; ValueError for fewer than two common seeds or unequal numbers of tasks."""
    found = crossed_mean(paired_table(a, b))
    return replace(found, low=max(found.low, -1.0), high=min(found.high, 1.0))


def paired_table(a: Mapping[int, Sequence[int]], b: Mapping[int, Sequence[int]]) -> np.ndarray:
    """(S, T) outcomes of a minus those of b, for the seeds that both have. Raises as `compare`."""
    common = sorted(set(a) & set(b))
    first, second = table_of(a, common), table_of(b, common)
    if first.shape != second.shape:
        raise ValueError(f"a has {first.shape[1]} tasks, b has {second.shape[1]}; allowed: the same")
    return first - second


def table_of(outcomes: Mapping[int, Sequence[int]], seeds: Sequence[int]) -> np.ndarray:
    """(S, T) outcomes. Raises as `success`."""
    if len(seeds) < 2:
        raise ValueError(f"{len(seeds)} seed(s); allowed: at least 2")
    rows = [np.asarray(outcomes[seed], dtype=float) for seed in seeds]
    if len({row.shape for row in rows}) > 1 or rows[0].ndim != 1:
        raise ValueError("seeds have different numbers of tasks; allowed: the same panel for all")
    return np.stack(rows)


def iqm(scores, seed: int = 0, resamples: int = 2000) -> tuple[float, float, float]:
    """(estimate, low, high): the interquartile mean over seeds (Agarwal et al. 2021, arXiv 2108.13264) and its
    bootstrap interval.

    The lowest and the highest quarter of all values are left out of the mean. Whole seeds are resampled, all kinds of
    tasks together: there (stratified) each kind has runs of its own, here one training plays all of them. Of few seeds
    the interval is too narrow, as any bootstrap's (the tests measure how much).

    `scores` are (S,), one a seed, or (S, M) of M kinds of tasks, finite, or it is a ValueError. `seed`: of resampling.
    """
    x = np.asarray(scores, dtype=float)
    x = x[:, None] if x.ndim == 1 else x
    if x.ndim != 2 or x.size == 0 or not np.isfinite(x).all():
        raise ValueError(f"scores: shape {x.shape}; allowed: finite scores of at least one seed")
    rng = np.random.default_rng(seed)
    resampled = x[rng.integers(len(x), size=(resamples, len(x)))].reshape(resamples, -1)
    low, high = np.quantile(stats.trim_mean(resampled, 0.25, axis=1), TAILS)
    return float(stats.trim_mean(x.ravel(), 0.25)), float(low), float(high)


def cluster_interval(
    statistic: Callable[[np.ndarray], float | None], cluster, seed: int = 0, resamples: int = 2000
) -> tuple[float | None, float | None]:
    """Percentile bootstrap interval whose samples draw whole clusters, as many as there are: the turns of one episode
    together. Returns (low, high), None where no sample has the statistic.

    Args:
        statistic: of a sample's indices; a sample for which it is None is left out.
        cluster: (n,) what each number belongs to.
        seed: of the resampling.
    """
    cluster = np.asarray(cluster)
    members = [np.flatnonzero(cluster == c) for c in np.unique(cluster)]
    rng = np.random.default_rng(seed)
    samples = (rng.integers(len(members), size=len(members)) for _ in range(resamples))
    drawn = [statistic(np.concatenate([members[i] for i in sample])) for sample in samples]
    drawn = [x for x in drawn if x is not None]
    if not drawn:
        return None, None
    low, high = np.quantile(drawn, TAILS)
    return float(low), float(high)


def cluster_mean(values, cluster, seed: int = 0, resamples: int = 2000) -> tuple[float, float, float]:
    """(mean, low, high) of finite values (n,), by `cluster_interval`; other values are a ValueError."""
    values, cluster = np.asarray(values, dtype=float), np.asarray(cluster)
    if values.ndim != 1 or values.shape != cluster.shape or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"values, cluster: shapes {values.shape}, {cluster.shape}; allowed: equal, (n,), finite")
    return float(values.mean()), *cluster_interval(lambda i: values[i].mean(), cluster, seed, resamples)


def correlation_interval(x, y, cluster=None, seed: int = 0, resamples: int = 2000) -> tuple[float, float, float]:
    """(estimate, low, high): Pearson's correlation of paired numbers, by `cluster_interval`.

    Args:
        x, y: (n,), n >= 3, both not constant.
        cluster: (n,) what a pair belongs to (its episode), at least three; None takes pairs as independent.

    Anything else is a ValueError.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.shape != y.shape or x.ndim != 1 or len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        raise ValueError(f"x, y: shapes {x.shape}, {y.shape}; allowed: at least three pairs, neither constant")
    cluster = np.arange(len(x)) if cluster is None else np.asarray(cluster)
    if cluster.shape != x.shape or len(np.unique(cluster)) < 3:
        raise ValueError(f"cluster: shape {cluster.shape}; allowed: {x.shape}, with at least 3 clusters")

    def correlation(i):
        constant = np.ptp(x[i]) == 0 or np.ptp(y[i]) == 0  # a sample can be
        return None if constant else np.corrcoef(x[i], y[i])[0, 1]

    return float(np.corrcoef(x, y)[0, 1]), *cluster_interval(correlation, cluster, seed, resamples)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values adjusted for there being several of them (Holm 1979, Scand. J. Stat. 6:65): with probability at least
    1 - alpha none of those below alpha is of a true null hypothesis. None (no data) stays None and is not counted."""
    there = [p for p in p_values if p is not None]
    adjusted = iter(multipletests(there, method="holm")[1].tolist() if there else [])
    return [None if p is None else next(adjusted) for p in p_values]
