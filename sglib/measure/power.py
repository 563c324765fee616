"""How large an effect a comparison can find, with 80 % power at the 95 % level, and how much data an effect needs."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import optimize, stats
from statsmodels.stats.power import TTestPower

from sglib.measure.intervals import LEVEL, TAILS, Comparison, crossed_mean, paired_table

POWER = 0.8
MOST = 10_000  # seeds that `how_many_seeds` considers


def detectable(found: Comparison, beyond: float = 0.0, seeds: int | None = None) -> float:
    """The smallest true difference that another comparison like this one finds: its interval leaves out 0 (by the
    noncentral t distribution), and its estimate lies beyond `beyond`. The standard error is taken as known, so of few
    seeds it is a rough number (the tests simulate it).

    Args:
        beyond: 0..1, a band that the estimate has to leave, too (`sglib.experiments.verdicts.noise_band`).
        seeds: paired seeds on as many tasks, at least 2; None as there.
    """
    error, df = found.error, found.df
    if seeds is not None and seeds < 2:
        raise ValueError(f"seeds = {seeds}: must be at least 2")
    if seeds not in (None, found.seeds):
        of_seeds = max(error**2 - found.of_tasks**2, 0.0) * found.seeds / seeds
        total = of_seeds + found.of_tasks**2
        error, df = math.sqrt(total), math.inf
        if total:
            df = total**2 / (of_seeds**2 / (seeds - 1) + found.of_tasks**4 / (found.tasks - 1))
    critical, clear = stats.t.ppf(TAILS[1], df), stats.norm.ppf(POWER)
    if math.isfinite(df):
        shift = optimize.brentq(lambda shift: stats.nct.sf(critical, df, shift) - POWER, 0, 20 * critical)
    else:
        shift = critical + clear
    return float(max(shift * error, beyond + clear * error))


def how_many_seeds(found: Comparison, effect: float) -> int | None:
    """Paired seeds on as many tasks that find a true difference `effect`, not 0; None where no number of seeds does,
    since the tasks alone leave too much open."""
    if not effect:
        raise ValueError("effect = 0: must be other than 0")
    if detectable(found, seeds=MOST) > abs(effect):
        return None
    return 2 + bisect.bisect(range(2, MOST), False, key=lambda seeds: detectable(found, seeds=seeds) <= abs(effect))


def minimum_detectable_effect(sd: float, seeds: int) -> float:
    """The smallest true difference that a paired t test over `seeds` (at least 2) finds, for one number a seed, such as
    a training batch's, where the seeds' differences have the standard deviation `sd` >= 0. Of a `Comparison` over seeds
    and tasks: `detectable`."""
    if seeds < 2 or not 0 <= sd < math.inf:
        raise ValueError(f"sd = {sd}, seeds = {seeds}: must be sd >= 0 and at least 2 seeds")
    return float(sd * TTestPower().solve_power(nobs=seeds, alpha=1 - LEVEL, power=POWER)) if sd else 0.0


def how_many_tasks(rate: float, effect: float, correlation: float = 0.0) -> int:
    """Games that show a difference of two policies (one run each) by McNemar's test, played by both.

    n = (z_a sqrt(d) + z_b sqrt(d - effect^2))^2 / effect^2 with d the share of games that only one of them wins
    (Connor 1987, Biometrics 43:207).

    Args:
        rate: success of the one, in (0, 1).
        effect: success of the other minus `rate`.
        correlation: of their outcomes over games, 0 for none (then it is about the number an arm needs unpaired); one
            that two such rates cannot have is a ValueError.
    """
    other = rate + effect
    if not (0 < rate < 1 and 0 < other < 1) or not effect:
        raise ValueError(f"rate = {rate}, effect = {effect}: both rates must be inside (0, 1), effect not 0")
    both = rate * other + correlation * math.sqrt(rate * (1 - rate) * other * (1 - other))
    discordant = rate + other - 2 * both
    if not (max(0.0, rate + other - 1) <= both <= min(rate, other)):
        raise ValueError(f"correlation = {correlation}: not possible between rates {rate} and {other}")
    z_level, z_power = stats.norm.ppf(TAILS[1]), stats.norm.ppf(POWER)
    root = z_level * math.sqrt(discordant) + z_power * math.sqrt(max(discordant - effect**2, 0.0))
    return math.ceil((root / effect) ** 2)


def detectable_difference(tasks: int, rate: float = 0.5) -> float:
    """The smallest difference of two policies (one run each, the same `tasks`, at least 1, no correlation between their
    outcomes) that McNemar's test finds, `rate` in (0, 1) being the weaker one's success: the inverse of
    `how_many_tasks`; inf if none is found."""
    low, high = 1e-4, 1 - rate - 1e-9
    if how_many_tasks(rate, high) > tasks:
        return math.inf
    while high - low > 1e-5:
        middle = (low + high) / 2
        low, high = (low, middle) if how_many_tasks(rate, middle) <= tasks else (middle, high)
    return high


def detectable_correlation(n: int) -> float:
    """The smallest true correlation of `n` independent pairs, at least 4, that is found to differ from 0, by Fisher's z
    (1921, Metron 1:3)."""
    if n < 4:
        raise ValueError(f"n = {n}: must be at least 4 pairs")
    return float(np.tanh((stats.norm.ppf(TAILS[1]) + stats.norm.ppf(POWER)) / math.sqrt(n - 3)))


def rejection_rate(
    a: Mapping[int, Sequence[int]], b: Mapping[int, Sequence[int]], draws: int = 2000, seed: int = 0
) -> float:
    """How often `compare` would reject (p < 0.05) if the two methods were one: should be 0.05.

    Under the null hypothesis the labels a and b can be swapped for each seed. This is the share of tables with swapped
    labels and resampled tasks that the test rejects: whether it keeps its promise on outcomes that are spread like
    these, not whether the two methods differ.
    """
    table, rng = paired_table(a, b), np.random.default_rng(seed)
    rejected = 0
    for _ in range(draws):
        signs = rng.choice((-1.0, 1.0), size=(len(table), 1))
        columns = rng.integers(table.shape[1], size=table.shape[1])
        rejected += crossed_mean(table[:, columns] * signs).p_value < 1 - LEVEL
    return rejected / draws
