"""Figures of one training batch, from its trajectories alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from sglib.measure.evaluate import label_agreement
from sglib.measure.hacking import probe
from sglib.measure.truth import auroc, calibrate
from sglib.records import Trajectory
from sglib.rewards.component import mean


def batch_metrics(trajectories: Sequence[Trajectory]) -> dict[str, float | None]:
    """Figures of one batch of played and rewarded episodes. None where there is nothing to count.

    Shares are over turns: `invalid_actions`, `parse_errors` over all; the labels over turns 2..T that carry one (at
    turn 1 there is nothing to rate). `label_agreement`: the label of turn t rates the prefix that ends with action
    t - 1; of the positive and negative ones whose true distances are known, the share that is positive where that
    action brought the goal nearer (d_t < d_{t-1}) or negative where it did not (farther, or wasted). `zero_advantage`,
    `no_room`: share of episodes without any advantage, and of those that ended since the model's context was full.
    `reward/<component>`: mean per-episode sum of what entered the return.
    `calibration/internal/auroc`: of the internal reward that entered the return at a turn, for "this step helped".
    `calibration/<signal>/<measure>`: see `sglib.measure.truth.calibrate` (where the truth is known).
    `probe/<name>`: see `sglib.measure.hacking.probe`.
    """
    turns = [turn for t in trajectories for turn in t.turns]
    pairs = [(a, b) for t in trajectories for a, b in zip(t.turns, t.turns[1:], strict=False) if b.label is not None]
    agree, counted = label_agreement(trajectories)
    metrics = {
        "success": mean(t.won for t in trajectories),
        "return_mean": mean(t.total_return for t in trajectories),
        "turns_mean": mean(len(t) for t in trajectories),
        "tokens_mean": mean(len(t.prompt_ids) + len(t.completion_ids) for t in trajectories),
        "policy_tokens_mean": mean(sum(t.mask) for t in trajectories),
        "invalid_actions": mean(not turn.valid for turn in turns),
        "parse_errors": mean(turn.parse_error is not None for turn in turns),
        "label_positive": mean(b.label == "positive" for _, b in pairs),
        "label_neutral": mean(b.label == "neutral" for _, b in pairs),
        "label_negative": mean(b.label == "negative" for _, b in pairs),
        "label_agreement": agree / counted if counted else None,
        "advantage_mean": mean(turn.advantage for turn in turns),
        "advantage_abs": mean(abs(turn.advantage) for turn in turns),
        "no_room": mean(t.no_room for t in trajectories),
        "zero_advantage": mean(not any(turn.advantage for turn in t.turns) for t in trajectories),
    }
    names = sorted({name for turn in turns for name in turn.rewards if name.endswith("/weighted")})
    for name in names:
        key = f"reward/{name.removesuffix('/weighted')}"
        metrics[key] = mean(sum(turn.rewards.get(name, 0.0) for turn in t.turns) for t in trajectories)
    if all(t.remaining() is not None for t in trajectories):
        metrics |= {f"calibration/{name}": value for name, value in calibrate(trajectories).items()}
        metrics["calibration/internal/auroc"] = internal_auroc(trajectories)
    return metrics | {f"probe/{name}": value for name, value in probe(trajectories).items()}


def cut_answers(trajectories: Sequence[Trajectory], ends: Collection[int]) -> float | None:
    """Share of turns whose answer had no room for its end: it reached the most tokens that an answer may have, without
    one of the token ids `ends`. What was written is read as it is. None without tokens."""
    last = [t.completion_ids[turn.span[1] - 1] for t in trajectories for turn in t.turns if turn.span[1] > turn.span[0]]
    return mean(token not in ends for token in last)


COLLAPSED = 1e-3  # nats a policy token


def trouble(row: Mapping[str, float | None]) -> list[str]:
    """What a row of metrics says that a batch suffered from; training goes on, and the run card counts them.

    Returns:
        Of these: "without_advantage" (no episode had one, so that nothing was learned), "unread" (no answer followed
        the format), "collapsed" (an entropy below `COLLAPSED`: every episode of a group is the same), "no_room" (the
        model's context ended an episode).
    """
    rules = {
        "without_advantage": row["zero_advantage"] == 1,
        "unread": row["parse_errors"] == 1,
        "collapsed": row.get("entropy") is not None and row["entropy"] < COLLAPSED,
        "no_room": (row.get("no_room") or 0) > 0,  # rows from before it was counted have none
    }
    return [name for name, holds in rules.items() if holds]


def internal_auroc(trajectories: Sequence[Trajectory]) -> float | None:
    """How often a step that brought the goal nearer is paid above one that did not, by all components but `outcome`
    together (ties count half); None where nothing internal is paid, or there is nothing to compare."""
    paid, progress = [], []
    for t in trajectories:
        left = t.remaining()
        for turn, before, after in zip(t.turns, left, left[1:]):
            internal = [v for k, v in turn.rewards.items() if k.endswith("/weighted") and k != "outcome/weighted"]
            paid.append(sum(internal))
            progress.append(before - after)
    return auroc(np.array(paid), np.array(progress)) if any(paid) else None
