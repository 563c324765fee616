"""Advantages as pure functions of plain arrays: per turn (or per episode) in, per token out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SCALES = ("group", "none", "outcome")


def group_relative(
    returns: Sequence[float],
    groups: Sequence[int],
    eps: float = 1e-4,
    scale: str = "group",
    outcomes: Sequence[float] | None = None,
) -> np.ndarray:
    """A_i = (R_i - mean) / (std + eps) within each group (GRPO; Self-Guide, arXiv 2604.03098, Eq 8).

    Mean and spread are taken over *trajectories*, one value each, never over turns or tokens (which would weight long
    episodes more). The papers do not say which standard deviation; this is the sample one (n - 1) with eps 1e-4, as
    TRL computes it. A group of one, and a group whose returns are all equal, get exactly 0.

    Args:
        returns: (N,) one return per trajectory.
        groups: (N,) trajectories with the same value were sampled for the same task.
        eps: added to the spread, > 0.
        scale: "group" divides by the group's spread of `returns` (Eq 8); "none" does not divide (as Dr. GRPO,
            arXiv 2503.20783); "outcome" is our variant: it divides by the group's spread of `outcomes` alone, so that
            in a group where every episode failed (or won) the internal reward is not blown up to unit size. Such a
            group has no spread of its own and takes that of the whole batch; where that is 0 too, advantages are 0.
        outcomes: (N,) the environment's part of the returns; needed for scale "outcome" only.

    Returns:
        (N,) float64.

    Raises:
        ValueError: for an unknown scale, shapes that differ, or values that are not finite.
    """
    returns, groups = np.asarray(returns, dtype=np.float64), np.asarray(groups)
    if scale not in SCALES:
        raise ValueError(f"scale: got {scale!r}; allowed: {', '.join(SCALES)}")
    if returns.ndim != 1 or returns.shape != groups.shape:
        raise ValueError(f"returns, groups: got shapes {returns.shape}, {groups.shape}; allowed: both (N,)")
    if not np.isfinite(returns).all():
        raise ValueError("returns: got a value that is not finite; allowed: finite numbers")
    if scale == "outcome":
        outcomes = np.asarray(outcomes if outcomes is not None else [], dtype=np.float64)
        if outcomes.shape != returns.shape or not np.isfinite(outcomes).all():
            raise ValueError(f"outcomes: got shape {outcomes.shape}; allowed: {returns.shape}, finite")
    advantages = np.zeros_like(returns)
    for group in np.unique(groups):
        members = groups == group
        values = returns[members]
        # Compared rather than subtracted: the mean of equal floats can differ from them in the last bit, and dividing
        # that by eps would turn it into a signal.
        if values.min() == values.max():
            continue
        advantages[members] = values - values.mean()
        if scale == "group":
            advantages[members] /= values.std(ddof=1) + eps
        elif scale == "outcome":
            spread = _spread(outcomes[members]) or _spread(outcomes)
            advantages[members] *= 1 / (spread + eps) if spread else 0.0
    return advantages


def _spread(values: np.ndarray) -> float:
    return 0.0 if values.min() == values.max() else float(values.std(ddof=1))


def to_tokens(per_turn: Sequence[float], spans: Sequence[tuple[int, int]], mask: Sequence[int]) -> np.ndarray:
    """Spread per-turn advantages over the tokens of one trajectory.

    Args:
        per_turn: (T,) one advantage per turn.
        spans: (T,) pairs [start, end) into the completion, in order and without overlap.
        mask: (C,) 1 where the policy wrote the token, 0 elsewhere.

    Returns:
        (C,) float32; 0 where `mask` is 0.

    Raises:
        ValueError: if the spans do not fit, or a policy token lies in no span (it would silently not be trained).
    """
    mask = np.asarray(mask, dtype=bool)
    if len(per_turn) != len(spans):
        raise ValueError(f"per_turn, spans: got lengths {len(per_turn)}, {len(spans)}; allowed: equal lengths")
    tokens, covered, previous = np.zeros(len(mask), dtype=np.float32), np.zeros(len(mask), dtype=bool), 0
    for value, (start, end) in zip(per_turn, spans, strict=True):
        if not previous <= start <= end <= len(mask):
            raise ValueError(f"spans: got ({start}, {end}); allowed: within {previous}..{len(mask)}, in order")
        tokens[start:end], covered[start:end], previous = value, True, end
    if (mask & ~covered).any():
        raise ValueError(f"spans: policy token {int(np.argmax(mask & ~covered))} lies in no turn's span")
    tokens[~mask] = 0.0
    return tokens
