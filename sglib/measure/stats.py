"""Intervals, paired comparisons and power for success rates, on scipy and statsmodels.

Two questions, two answers. *Is this policy better than that one on these games?* `difference`: pairs are games, one
training run each. *Is this method better than that one?* `compare`: pairs are seeds x games, and the interval covers
another seed as well as other games. The second is what a claim about a method needs; it is wider.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize, stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint


def points(estimate: float, low: float, high: float, unit: str = "") -> str:
    """A difference of two rates (fractions) with its interval, in points: "+1.2 [-0.3, +2.7]"."""
    return f"{100 * estimate:+.1f}{unit} [{100 * low:+.1f}, {100 * high:+.1f}]"


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
        gap = points(self.estimate, self.low, self.high, " points")
        return f"{gap}, p = {self.p_value:.3g}, n = {self.n} pairs"


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


@dataclass(frozen=True, slots=True)
class Comparison:
    """A paired difference of two methods over seeds and tasks, or one method's success.

    Attributes:
        estimate: mean of a minus mean of b over seeds and tasks, -1..1; of one method, its mean.
        low, high: its interval, for other seeds and other tasks.
        p_value: two-sided, of the hypothesis that the mean is 0.
        seeds, tasks: how many.
        sd: standard deviation of the seeds' means; what another seed changes.
        df: degrees of freedom of the t distribution behind the interval.
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

    def detectable(
        self, power: float = 0.8, level: float = 0.95, beyond: float = 0.0, seeds: int | None = None
    ) -> float:
        """The smallest true difference that another comparison like this one finds with probability `power`: its
        interval leaves out 0 (by the noncentral t distribution), and its estimate lies beyond `beyond`. The standard
        error is taken as known, so of few seeds it is a rough number (the tests simulate it).

        Args:
            beyond: 0..1, a band that the estimate has to leave, too (`sglib.experiments.verdicts.noise_band`).
            seeds: paired seeds on as many tasks; None as here.
        """
        _check_level(power, "power")
        seeds = self.seeds if seeds is None else seeds
        error, df = self._with(seeds)
        critical, clear = stats.t.ppf((1 + level) / 2, df), stats.norm.ppf(power)
        if math.isfinite(df):
            found = optimize.brentq(lambda shift: stats.nct.sf(critical, df, shift) - power, 0, 20 * critical)
        else:
            found = critical + clear
        return float(max(found * error, beyond + clear * error))

    def how_many_seeds(self, effect: float, power: float = 0.8, level: float = 0.95, most: int = 10_000) -> int | None:
        """Paired seeds on as many tasks that find a true difference `effect` with probability `power`; None where no
        number of seeds does, since the tasks alone leave too much open.

        Raises:
            ValueError: an effect of 0.
        """
        if not effect:
            raise ValueError("effect = 0: must be other than 0")
        if self.detectable(power, level, seeds=most) > abs(effect):
            return None
        low, high = 1, most  # of `low` it is not known, or known that they are too few
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.detectable(power, level, seeds=middle) <= abs(effect) else (middle, high)
        return high

    def _with(self, seeds: int) -> tuple[float, float]:
        """Standard error and degrees of freedom with another number of seeds."""
        if seeds < 2:
            raise ValueError(f"seeds = {seeds}: must be at least 2")
        if seeds == self.seeds:
            return self.error, self.df
        of_seeds = max(self.error**2 - self.of_tasks**2, 0.0) * self.seeds / seeds
        total = of_seeds + self.of_tasks**2
        if total == 0:
            return 0.0, math.inf
        return math.sqrt(total), total**2 / (of_seeds**2 / (seeds - 1) + self.of_tasks**4 / (self.tasks - 1))

    def __str__(self) -> str:
        gap = points(self.estimate, self.low, self.high, " points")
        return f"{gap}, p = {self.p_value:.2g}, {self.seeds} seeds x {self.tasks} games"


def crossed_mean(values, level: float = 0.95) -> Comparison:
    """The mean of a table of seeds x tasks, both drawn at random, with its interval.

    x_st = mu + seed_s + task_t + rest_st, the two-way random model. The variance of the grand mean is
    (MS_seed + MS_task - MS_rest) / (S T); its degrees of freedom are Satterthwaite's (1946, Biometrics Bull. 2:110). It
    is never taken below MS_seed / (S T) or MS_rest / (S T), then with S - 1 degrees of freedom: few seeds can agree by
    chance, and their means then say nothing about the spread. A t interval, since with ten seeds a percentile bootstrap
    is too narrow (the tests simulate its coverage).

    Args:
        values: (S, T) outcomes or differences of outcomes, S and T at least 2.
        level: confidence, in (0, 1).

    Raises:
        ValueError: another shape, or a value that is not finite.
    """
    _check_level(level)
    x = np.asarray(values, dtype=float)
    if x.ndim != 2 or min(x.shape) < 2 or not np.isfinite(x).all():
        raise ValueError(f"values: shape {x.shape}; allowed: at least 2 seeds x 2 tasks, finite")
    seeds, tasks = x.shape
    mean, rows, columns = x.mean(), x.mean(1), x.mean(0)
    of_seed = tasks * rows.var(ddof=1)
    of_task = seeds * columns.var(ddof=1)
    rest = x - rows[:, None] - columns[None, :] + mean
    dof = {"seed": seeds - 1, "task": tasks - 1, "rest": (seeds - 1) * (tasks - 1)}
    of_rest = float((rest**2).sum() / dof["rest"])
    total, parts = of_seed + of_task - of_rest, [(of_seed, "seed"), (of_task, "task"), (of_rest, "rest")]
    least = max(of_seed, of_rest)
    if total <= least:
        total, parts = least, [(least, "seed")]
    sd = float(rows.std(ddof=1))
    if np.ptp(x) == 0:  # nothing varies
        return Comparison(float(mean), float(mean), float(mean), float(mean == 0), seeds, tasks, sd, math.inf)
    df = total**2 / sum(ms**2 / dof[name] for ms, name in parts)
    error = math.sqrt(total / (seeds * tasks))
    of_tasks = math.sqrt(max(of_task - of_rest, 0.0) / (seeds * tasks))
    half = float(stats.t.ppf((1 + level) / 2, df)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, df))
    return Comparison(
        float(mean), float(mean - half), float(mean + half), p, seeds, tasks, sd, float(df), error, of_tasks
    )


def success(outcomes: Mapping[int, Sequence[int]], level: float = 0.95) -> Comparison:
    """A method's success over its seeds, each on the same tasks, with an interval for other seeds and tasks.

    Args:
        outcomes: seed -> (T,) outcomes 0/1.

    Raises:
        ValueError: fewer than two seeds, or unequal numbers of tasks.
    """
    found = crossed_mean(_table(outcomes, sorted(outcomes)), level)
    return _clipped(found, 0.0, 1.0)


def compare(a: Mapping[int, Sequence[int]], b: Mapping[int, Sequence[int]], level: float = 0.95) -> Comparison:
    """Compare two methods, paired over seeds and tasks: the same seed means the same training games and the same
    evaluation. Only seeds that both have count; `seeds` of the result says how many.

    Args:
        a, b: seed -> (T,) outcomes 0/1 of the same tasks in the same order.
        level: confidence, in (0, 1).

    Raises:
        ValueError: fewer than two common seeds, or unequal numbers of tasks.
    """
    common = sorted(set(a) & set(b))
    first, second = _table(a, common), _table(b, common)
    if first.shape != second.shape:
        raise ValueError(f"a has {first.shape[1]} tasks, b has {second.shape[1]}; allowed: the same")
    return _clipped(crossed_mean(first - second, level), -1.0, 1.0)


def _table(outcomes: Mapping[int, Sequence[int]], seeds: Sequence[int]) -> np.ndarray:
    if len(seeds) < 2:
        raise ValueError(f"{len(seeds)} seed(s); allowed: at least 2")
    rows = [np.asarray(outcomes[seed], dtype=float) for seed in seeds]
    if len({row.shape for row in rows}) > 1 or rows[0].ndim != 1:
        raise ValueError("seeds have different numbers of tasks; allowed: the same panel for all")
    return np.stack(rows)


def _clipped(found: Comparison, least: float, most: float) -> Comparison:
    return replace(found, low=max(found.low, least), high=min(found.high, most))


def iqm(scores, seed: int = 0, level: float = 0.95, resamples: int = 2000) -> tuple[float, float, float]:
    """Interquartile mean over seeds (Agarwal et al. 2021, arXiv 2108.13264) and its bootstrap interval.

    The lowest and the highest quarter of all values are left out of the mean. Whole seeds are resampled, all kinds of
    tasks together: there (stratified) each kind has runs of its own, here one training plays all of them. Of few seeds
    the interval is too narrow, as any bootstrap's (the tests measure how much).

    Args:
        scores: (S,) one score a seed, or (S, M) of M kinds of tasks.
        seed: of the resampling.

    Returns:
        (estimate, low, high).

    Raises:
        ValueError: no score, or one that is not finite.
    """
    _check_level(level)
    x = np.asarray(scores, dtype=float)
    x = x[:, None] if x.ndim == 1 else x
    if x.ndim != 2 or x.size == 0 or not np.isfinite(x).all():
        raise ValueError("expected finite scores of at least one seed")
    rng = np.random.default_rng(seed)
    resampled = x[rng.integers(len(x), size=(resamples, len(x)))].reshape(resamples, -1)
    low, high = np.quantile(stats.trim_mean(resampled, 0.25, axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(stats.trim_mean(x.ravel(), 0.25)), float(low), float(high)


def minimum_detectable_effect(sd: float, seeds: int, power: float = 0.8, level: float = 0.95) -> float:
    """The smallest true difference that a paired t test over `seeds` finds with probability `power`, for one number a
    seed, such as a training batch's. Of a `Comparison` over seeds and tasks: `Comparison.detectable`.

    Args:
        sd: standard deviation of the seeds' differences, >= 0.
        seeds: pairs, at least 2.

    Raises:
        ValueError: a number out of range.
    """
    _check_level(level)
    _check_level(power, "power")
    if seeds < 2 or not 0 <= sd < math.inf:
        raise ValueError(f"sd = {sd}, seeds = {seeds}: must be sd >= 0 and at least 2 seeds")
    size = TTestPower().solve_power(nobs=seeds, alpha=1 - level, power=power) if sd else 0.0
    return float(sd * size)


def how_many_tasks(
    rate: float, effect: float, power: float = 0.8, level: float = 0.95, correlation: float = 0.0
) -> int:
    """Games that show a difference of two policies (one run each) by McNemar's test, played by both.

    n = (z_a sqrt(d) + z_b sqrt(d - effect^2))^2 / effect^2 with d the share of games that only one of them wins
    (Connor 1987, Biometrics 43:207).

    Args:
        rate: success of the one, in (0, 1).
        effect: success of the other minus `rate`.
        correlation: of their outcomes over games, 0 for none (then it is about the number an arm needs unpaired).

    Raises:
        ValueError: a rate outside (0, 1), an effect of 0, or a correlation that two such rates cannot have.
    """
    _check_level(level)
    _check_level(power, "power")
    other = rate + effect
    if not (0 < rate < 1 and 0 < other < 1) or not effect:
        raise ValueError(f"rate = {rate}, effect = {effect}: both rates must be inside (0, 1), effect not 0")
    both = rate * other + correlation * math.sqrt(rate * (1 - rate) * other * (1 - other))
    discordant = rate + other - 2 * both
    if not (max(0.0, rate + other - 1) <= both <= min(rate, other)):
        raise ValueError(f"correlation = {correlation}: not possible between rates {rate} and {other}")
    z_level, z_power = stats.norm.ppf((1 + level) / 2), stats.norm.ppf(power)
    root = z_level * math.sqrt(discordant) + z_power * math.sqrt(max(discordant - effect**2, 0.0))
    return math.ceil((root / effect) ** 2)


def detectable_difference(tasks: int, rate: float = 0.5, power: float = 0.8, level: float = 0.95) -> float:
    """The smallest difference of two policies (one run each, the same games, no correlation between their outcomes)
    that McNemar's test finds with probability `power`: the inverse of `how_many_tasks`; inf if none is found.

    Args:
        tasks: games, at least 1.
        rate: success of the weaker one, in (0, 1).

    Raises:
        ValueError: a number out of range.
    """
    if tasks < 1 or not 0 < rate < 1:
        raise ValueError(f"tasks = {tasks}, rate = {rate}: must be at least 1, and inside (0, 1)")
    most = 1 - rate - 1e-9
    if how_many_tasks(rate, most, power, level) > tasks:
        return math.inf
    low, high = 1e-4, most
    while high - low > 1e-5:
        middle = (low + high) / 2
        low, high = (low, middle) if how_many_tasks(rate, middle, power, level) <= tasks else (middle, high)
    return high


def rejection_rate(
    a: Mapping[int, Sequence[int]],
    b: Mapping[int, Sequence[int]],
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> float:
    """The size of `compare`'s test on tables like those of two runs of the *same* method: should be 1 - level.

    Which of the two is called a is drawn anew for each seed; if they are the same method, each such table was as likely
    as the one that was observed, and the true difference over them is 0. Tasks are resampled. So this says whether the
    test keeps its promise on outcomes that are spread like these, not whether the two methods differ.

    Raises:
        ValueError: as `compare`.
    """
    common = sorted(set(a) & set(b))
    table, rng = _table(a, common) - _table(b, common), np.random.default_rng(seed)
    found = 0
    for _ in range(draws):
        signs = rng.choice((-1.0, 1.0), size=(len(table), 1))
        columns = rng.integers(table.shape[1], size=table.shape[1])
        found += crossed_mean(table[:, columns] * signs, level).p_value < 1 - level
    return found / draws


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


def cluster_interval(
    statistic: Callable[[np.ndarray], float | None], cluster, seed: int = 0, level: float = 0.95, resamples: int = 2000
) -> tuple[float | None, float | None]:
    """Percentile bootstrap interval whose samples draw whole clusters, as many as there are: the turns of one episode
    together.

    Args:
        statistic: of a sample's indices; a sample for which it is None is left out.
        cluster: (n,) what each number belongs to.
        seed: of the resampling.

    Returns:
        (low, high), None where no sample has the statistic.
    """
    cluster = np.asarray(cluster)
    members = [np.flatnonzero(cluster == c) for c in np.unique(cluster)]
    rng = np.random.default_rng(seed)
    samples = (rng.integers(len(members), size=len(members)) for _ in range(resamples))
    drawn = [statistic(np.concatenate([members[i] for i in sample])) for sample in samples]
    drawn = [x for x in drawn if x is not None]
    if not drawn:
        return None, None
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def cluster_mean(
    values, cluster, seed: int = 0, level: float = 0.95, resamples: int = 2000
) -> tuple[float, float, float]:
    """A mean and its percentile bootstrap interval that draws whole clusters.

    Args:
        values: (n,), n >= 1.
        cluster: (n,) what a value belongs to (its game or episode).
        seed: of the resampling.

    Returns:
        (mean, low, high).

    Raises:
        ValueError: another shape, or a value that is not finite.
    """
    _check_level(level)
    values, cluster = np.asarray(values, dtype=float), np.asarray(cluster)
    if values.ndim != 1 or values.shape != cluster.shape or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"values, cluster: shapes {values.shape}, {cluster.shape}; allowed: equal, (n,), finite")
    return float(values.mean()), *cluster_interval(lambda i: values[i].mean(), cluster, seed, level, resamples)


def correlation_interval(
    x, y, cluster=None, seed: int = 0, level: float = 0.95, resamples: int = 2000
) -> tuple[float, float, float]:
    """Pearson's correlation of paired numbers and its percentile bootstrap interval.

    Args:
        x, y: (n,), n >= 3, both not constant.
        cluster: (n,) what a pair belongs to (its episode); whole clusters are resampled, at least three of them. None
            takes pairs as independent.
        seed: of the resampling.

    Returns:
        (estimate, low, high).

    Raises:
        ValueError: another shape, a constant, or too few clusters.
    """
    _check_level(level)
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.shape != y.shape or x.ndim != 1 or len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        raise ValueError(f"x, y: shapes {x.shape}, {y.shape}; allowed: at least three pairs, neither constant")
    cluster = np.arange(len(x)) if cluster is None else np.asarray(cluster)
    count = len(np.unique(cluster))
    if cluster.shape != x.shape or count < 3:
        raise ValueError(f"cluster: shape {cluster.shape}, {count} clusters; allowed: {x.shape}, at least 3")

    def correlation(i):
        constant = np.ptp(x[i]) == 0 or np.ptp(y[i]) == 0  # a sample can be
        return None if constant else np.corrcoef(x[i], y[i])[0, 1]

    return float(np.corrcoef(x, y)[0, 1]), *cluster_interval(correlation, cluster, seed, level, resamples)


def detectable_correlation(n: int, power: float = 0.8, level: float = 0.95) -> float:
    """The smallest true correlation of `n` independent pairs that is told from 0 with probability `power`, by Fisher's
    z (Fisher 1921, Metron 1:3).

    Raises:
        ValueError: fewer than four pairs.
    """
    _check_level(level)
    _check_level(power, "power")
    if n < 4:
        raise ValueError(f"n = {n}: must be at least 4 pairs")
    return float(np.tanh((stats.norm.ppf((1 + level) / 2) + stats.norm.ppf(power)) / math.sqrt(n - 3)))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values adjusted for there being several of them (Holm 1979, Scand. J. Stat. 6:65): with probability at least
    1 - alpha none of those below alpha is of a true null hypothesis.

    Args:
        p_values: in 0..1; None (no data) stays None and is not counted.
    """
    there = [p for p in p_values if p is not None]
    adjusted = iter(multipletests(there, method="holm")[1].tolist() if there else [])
    return [None if p is None else next(adjusted) for p in p_values]


def _check_level(level: float, name: str = "level") -> None:
    if not 0 < level < 1:
        raise ValueError(f"{name} = {level}: must be between 0 and 1")
