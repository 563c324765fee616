"""Is an internal reward true? What it says of a step, and what the step did to the distance to the goal.

True progress of an action is d_t - d_{t+1}, the change of the oracle's distance: positive where it helped. Each signal
is matched to the action it evaluates, even if another turn received the reward:

| signal | of action t | from |
|---|---|---|
| `label` | the label written at turn t + 1: +1, 0, -1 | Self-Guide |
| `rater` | what the label of a side reading is worth there (`self_guide.hidden`, `frozen`) | Self-Guide, ours |
| `online` | change of the progress stated before and after, in 0..1 | RePro's p~ |
| `retrospective` | change of the progress rated after the episode, in 0..1 | RePro's P |
| any other component | its own value of the turn | `turn.rewards` |

Each reward's file declares its own (`sglib.rewards.component.Component.signal_values`). A turn without a statement is
left out, and counted by `n`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from sglib.formats import true_progress
from sglib.measure.intervals import cluster_interval, correlation_interval
from sglib.records import Trajectory
from sglib.rewards import COMPONENTS
from sglib.rewards.repro import discrimination

FEWEST = 5  # episodes that an interval needs


@dataclass(frozen=True)
class Signal:
    """What one internal reward says, step by step.

    Attributes:
        value: (n,) what it says of each action.
        progress: (n,) steps by which the action brought the goal nearer; negative where it led away.
        episode: (n,) index of the episode, for resampling whole episodes.
    """

    value: np.ndarray
    progress: np.ndarray
    episode: np.ndarray

    @property
    def helped(self) -> np.ndarray:
        """(n,) whether the action brought the goal nearer."""
        return self.progress > 0


def signals(trajectories: Sequence[Trajectory]) -> dict[str, Signal]:
    """Every signal that the episodes hold, by name (the table at the top of this file). Raises ValueError for a
    trajectory that was recorded without oracle distances."""
    rows: dict[str, list[tuple[float, float, int]]] = {}
    for number, trajectory in enumerate(trajectories):
        left = trajectory.remaining()
        if left is None:
            raise ValueError(f"{trajectory.game_id}: recorded without the truth (Options(truth=True))")
        for t in range(len(trajectory)):
            for name, value in signal_values(trajectory, t).items():
                rows.setdefault(name, []).append((value, left[t] - left[t + 1], number))
    return {name: Signal(*(np.array(column) for column in zip(*of, strict=True))) for name, of in sorted(rows.items())}


def signal_values(trajectory: Trajectory, turn: int) -> dict[str, float]:
    """What each signal says of one action, counted from 0; only those that say something of it."""
    paid = trajectory.turns[turn].rewards.items()
    found = {name: value for name, value in paid if "/" not in name and name not in COMPONENTS}
    for component in COMPONENTS.values():
        found |= component.signal_values(trajectory, turn)
    return found


def correlation(value: np.ndarray, progress: np.ndarray) -> float | None:
    """Pearson's correlation with true progress; None where either does not vary."""
    if len(value) < 2 or np.ptp(value) == 0 or np.ptp(progress) == 0:
        return None
    return float(np.corrcoef(value, progress)[0, 1])


def sign_accuracy(value: np.ndarray, progress: np.ndarray) -> float | None:
    """Of the steps that are spoken well or ill of (value not 0), the share where that is right: a positive value where
    the step helped, a negative one where it did not. None where there is none."""
    spoken = value != 0
    return float(np.mean((value[spoken] > 0) == (progress[spoken] > 0))) if spoken.any() else None


def auroc(value: np.ndarray, progress: np.ndarray) -> float | None:
    """Probability that a step that helped is valued above one that did not, ties counting half (Mann and Whitney's U
    over its maximum). None where all steps helped or none did."""
    good, bad = value[progress > 0], value[progress <= 0]
    if not len(good) or not len(bad):
        return None
    return float(stats.mannwhitneyu(good, bad).statistic / (len(good) * len(bad)))


MEASURES = {"correlation": correlation, "sign": sign_accuracy, "auroc": auroc}


def calibrate(trajectories: Sequence[Trajectory]) -> dict[str, float | int | None]:
    """`<signal>/<measure>` for every signal and `MEASURES`, `<signal>/n`, and what components add (RePro's
    `retrospective/discrimination`): the numbers without intervals, as each training batch keeps them."""
    found: dict[str, float | int | None] = {}
    for name, signal in signals(trajectories).items():
        found |= {f"{name}/{key}": measure(signal.value, signal.progress) for key, measure in MEASURES.items()}
        found[f"{name}/n"] = len(signal.value)
    for component in COMPONENTS.values():
        found |= component.calibration(trajectories)
    return found


def with_interval(
    signal: Signal, measure: str = "correlation", resamples: int = 1000, seed: int = 0
) -> tuple[float | None, float | None, float | None]:
    """(estimate, low, high) of one of `MEASURES`; the percentile interval resamples whole episodes, since the turns of
    one are not independent. Below `FEWEST` episodes it would be far too narrow: low and high are None."""
    if measure not in MEASURES:
        raise ValueError(f"measure={measure!r}: allowed: {', '.join(MEASURES)}")
    function = MEASURES[measure]
    estimate = function(signal.value, signal.progress)
    if estimate is None or len(np.unique(signal.episode)) < FEWEST:
        return estimate, None, None
    return estimate, *cluster_interval(
        lambda i: function(signal.value[i], signal.progress[i]), signal.episode, seed, resamples
    )


def reliability(signal: Signal, bins: int = 6, resamples: int = 500, seed: int = 0) -> list[dict[str, float]]:
    """Share of steps that helped, by what was said of them: bins of about equally many steps (a signal with few values
    has a bin for each). Rows of `value` (mean), `helped`, `low`, `high` (95 %, episodes resampled), `n`."""
    values = np.unique(signal.value)
    if len(values) <= bins:
        place = np.searchsorted(values, signal.value)
    else:
        edges = np.unique(np.quantile(signal.value, np.linspace(0, 1, bins + 1)[1:-1]))
        place = np.searchsorted(edges, signal.value, side="left")
    rows, rng, episodes = [], np.random.default_rng(seed), np.unique(signal.episode)
    for number in np.unique(place):
        inside = place == number
        # of each episode: how many of its steps are in this bin, and how many of them helped
        n = np.array([np.sum(inside & (signal.episode == e)) for e in episodes])
        good = np.array([np.sum(inside & signal.helped & (signal.episode == e)) for e in episodes])
        draws = rng.integers(len(episodes), size=(resamples, len(episodes)))
        totals = n[draws].sum(1)
        shares = good[draws].sum(1)[totals > 0] / totals[totals > 0]
        low, high = np.quantile(shares, [0.025, 0.975])
        rows.append({"value": float(signal.value[inside].mean()), "helped": float(signal.helped[inside].mean()),
                     "low": float(low), "high": float(high), "n": int(inside.sum())})  # fmt: skip
    return rows


def hindsight(trajectories: Sequence[Trajectory], seed: int = 0) -> dict[str, float]:
    """How true RePro's ratings are, of at least one episode to which its component was applied.

    Returns `readable`, the share of episodes whose rating could be read, and of these alone: `readable_won` and
    `readable_lost` (how many), `retrospect_error` (mean |rated - true| progress, points of 0..100, each episode counts
    the same), `correlation` of the gains that are paid with the true ones, with `correlation_low` and
    `correlation_high` (whole episodes resampled, from three on), and `discrimination`. NaN where nothing can be
    counted.
    """
    rated = [t for t in trajectories if t.turns and "repro/retrospective" in t.turns[0].rewards]
    won = sum(t.won for t in rated)
    found = {"readable": len(rated) / len(trajectories), "readable_won": won, "readable_lost": len(rated) - won}
    names = ("correlation_low", "correlation_high", "retrospect_error", "correlation", "discrimination")
    found |= dict.fromkeys(names, float("nan"))
    if not rated:
        return found
    stated = [[turn.rewards["repro/retrospective"] for turn in t.turns] for t in rated]
    truth = [true_progress(t) for t in rated]
    found["retrospect_error"] = float(np.mean([np.mean(np.abs(np.subtract(x, y))) for x, y in zip(stated, truth)]))
    paid = np.array([turn.rewards["repro/progress"] for t in rated for turn in t.turns])
    gained = np.concatenate([np.diff([0.0, *x]) for x in truth])
    if (together := correlation(paid, gained)) is not None:
        found["correlation"] = together
        if len(rated) > 2:
            owner = np.repeat(np.arange(len(rated)), [len(t) for t in rated])
            low, high = correlation_interval(paid, gained, cluster=owner, seed=seed)[1:]
            found |= {"correlation_low": low, "correlation_high": high}
    if (apart := discrimination(rated)) is not None:
        found["discrimination"] = apart
    return found
