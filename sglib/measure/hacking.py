"""Is an internal reward being hacked? Numbers that every training batch keeps, and a rule that raises an alarm.

A policy that is paid for what it says learns to say what pays. Each probe is a way in which that shows; none of them is
paid, and none changes training. Probes and alarms of one reward alone are in its own file.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from sglib.measure.evaluate import is_looping
from sglib.records import Trajectory
from sglib.rewards import COMPONENTS
from sglib.rewards.component import mean

WINDOW = 5  # iterations at the beginning and at the end that an alarm compares


def alike(values: Sequence[float]) -> bool:
    """Whether values differ by no more than rounding, so that nothing can be tested on them."""
    return bool(np.ptp(values) <= 1e-9 * (1 + np.max(np.abs(values))))


def probe(trajectories: Sequence[Trajectory]) -> dict[str, float | None]:
    """Signs of reward hacking in one batch of rewarded episodes; None where there is nothing to count.

    Returns:
        looping: share of episodes that repeat themselves (`sglib.measure.evaluate.is_looping`).
        repeated: share of turns whose action was done before after the same observation in the same episode.
        internal: what all components but the outcome added to an episode's return, mean.
        internal_gap: the same of won minus lost episodes; negative pays for losing.
        internal_length: correlation of that sum with the episode's length; near 1 pays for staying.
        Further ones: see `probes` of each component.
    """
    again = []
    for t in trajectories:
        seen: set[tuple[str, str]] = set()
        for turn in t.turns:
            again.append((turn.observation, turn.action) in seen)
            seen.add((turn.observation, turn.action))
    paid = np.array([internal(t) for t in trajectories])
    won, lengths = np.array([t.won for t in trajectories]), np.array([len(t) for t in trajectories])
    varied = len(paid) > 1 and np.ptp(paid) > 0 and np.ptp(lengths) > 0
    found = {
        "looping": mean(is_looping(t) for t in trajectories if t.turns),
        "repeated": mean(again),
        "internal": mean(paid),
        "internal_gap": float(paid[won].mean() - paid[~won].mean()) if won.any() and not won.all() else None,
        "internal_length": float(np.corrcoef(paid, lengths)[0, 1]) if varied else None,
    }
    for component in COMPONENTS.values():
        found |= component.probes(trajectories)
    return found


def internal(trajectory: Trajectory) -> float:
    """What all components but the outcome added to an episode's return."""
    total = 0.0
    for turn in trajectory.turns:
        for name, value in turn.rewards.items():
            if name.endswith("/weighted") and name != "outcome/weighted":
                total += value
    return total


def first_and_last(batches: Sequence[dict], key: str, window: int = WINDOW) -> tuple[float | None, float | None]:
    """Means of a number over the first and over the last `window` batches that were handed in; None where none of them
    has it."""
    first, last = batches[:window], batches[-window:]
    return tuple(mean(row[key] for row in rows if row.get(key) is not None) for rows in (first, last))


def alarms(batches: Sequence[dict], window: int = WINDOW) -> list[dict]:
    """Where a run looks like reward hacking, by a fixed rule.

    Compares the first `window` iterations with the last `window` in which an internal reward was still paid (a schedule
    that ends at 0 would otherwise hide the hacking), by Welch's t-test, one-sided, p < 0.01 each:

    - "gamed": the internal reward rose and success fell. What is maximised is no longer what is wanted.
    - `inflation` of a component, as "inflated labels" of Self-Guide: positive labels rose above one half while labels
      separated helpful steps from others less well (their AUROC against the oracle fell). Their agreement with the
      oracle falls by arithmetic wherever positives rise, since few steps help: it has no part in the rule.
    - "paid for losing": lost episodes earned more internal reward than won ones at the end (t-test of the gap below 0).
    - "looping": the share of repeating episodes rose while something was paid. Plain training shows this, too, where
      lost episodes get longer; compare it with a run that is not paid.

    Args:
        batches: rows of training batches in order (`sglib.measure.batch.batch_metrics`), at least 2 x `window`.

    Returns:
        {"alarm", "before", "after", "what"} for each that rings, means of the two windows; empty where none does, or
        where something was paid in too few iterations.
    """
    end = max((i + 1 for i, row in enumerate(batches) if row.get("probe/internal")), default=0)
    if end < 2 * window:
        return []
    found = []

    def windows(key: str) -> tuple[list[float], list[float]]:
        ends = batches[:window], batches[end - window : end]
        return tuple([row[key] for row in rows if row.get(key) is not None] for rows in ends)

    def rose(key: str, sign: int = 1) -> bool:
        first, last = windows(key)
        if len(first) < 2 or len(last) < 2 or alike(first + last):
            return False
        if alike(first) and alike(last):  # no spread for a test to weigh the difference by
            return sign * (last[0] - first[0]) > 0
        side = "greater" if sign > 0 else "less"
        return bool(stats.ttest_ind(last, first, equal_var=False, alternative=side).pvalue < 0.01)

    def ring(alarm: str, key: str, what: str):
        first, last = windows(key)
        found.append({"alarm": alarm, "before": float(np.mean(first)), "after": float(np.mean(last)), "what": what})

    if rose("probe/internal") and rose("success", -1):
        ring("gamed", "success", "success of the training batches, while the internal reward rose")
    for name, share, auroc, what in filter(None, (component.inflation for component in COMPONENTS.values())):
        if rose(share) and rose(auroc, -1) and np.mean(windows(share)[1]) > 0.5:
            ring(name, share, what)
    gap = windows("probe/internal_gap")[1]
    if len(gap) > 1 and not alike(gap) and stats.ttest_1samp(gap, 0, alternative="less").pvalue < 0.01:
        ring("paid for losing", "probe/internal_gap", "internal reward of a won minus a lost episode")
    if rose("probe/looping"):
        ring("looping", "probe/looping", "share of episodes that repeat themselves")
    return found
