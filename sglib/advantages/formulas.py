"""Advantages as pure functions of plain arrays: per turn (or per episode) in, per token out.

N trajectories of T_i turns each; `groups` is (N,), and trajectories with the same value were sampled for the same task.
Only these ids say what belongs together: the order of the batch never matters. Whatever is compared with nothing but
equals gets exactly 0, never NaN. Results are float64. Shapes that differ and values that are not finite are a
ValueError that names the argument, what it was, and what is allowed.

Arguments that several functions share:
    rewards: N arrays (T_i,), one reward per turn; turns, not tokens, are counted.
    groups: (N,) trajectories with the same value were sampled for the same task.
    gamma: discount per turn, 0..1.
    eps: added to each spread, > 0.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np


def group_relative(
    returns: Sequence[float], groups: Sequence[int], eps: float = 1e-4, scale: str = "group",
    outcomes: Sequence[float] | None = None,
) -> np.ndarray:  # fmt: skip
    """A_i = (R_i - mean) / (std + eps) within each group (GRPO; Self-Guide, arXiv 2604.03098, Eq 8).

    Mean and spread are taken over *trajectories*, one value each, never over turns or tokens (which would weight long
    episodes more). The papers do not say which standard deviation; this is the sample one (n - 1) with eps 1e-4, as
    TRL computes it. A group of one, and a group whose returns are all equal, get exactly 0.

    Args:
        returns: (N,) one return per trajectory.
        scale: "group" divides by the group's spread of `returns` (Eq 8); "none" does not divide (as Dr. GRPO,
            arXiv 2503.20783, which leaves out the loss's length division, too); "outcome" is our variant: it divides by
            the group's spread of `outcomes` alone, so that in a group where every episode failed (or won) the internal
            reward is not blown up to unit size. Such a group has no spread of its own and takes that of the whole
            batch; where that is 0 too, advantages are 0.
        outcomes: (N,) the environment's part of the returns; needed for scale "outcome" only.

    Returns (N,).
    """
    assert scale in ("group", "none", "outcome") and eps > 0
    returns = _finite("returns", returns)
    groups = _ids("returns", len(returns), groups)
    if scale == "outcome":
        outcomes = _finite("outcomes", outcomes if outcomes is not None else [])
        _check(len(outcomes) == len(returns), "outcomes", f"shape {outcomes.shape}", returns.shape)
    advantages = np.zeros_like(returns)
    for group in np.unique(groups):
        members = groups == group
        if scale == "outcome":
            spread = _spread(outcomes[members]) or _spread(outcomes)
            advantages[members] = _relative(returns[members], "none", eps) * (1 / (spread + eps) if spread else 0.0)
        else:
            advantages[members] = _relative(returns[members], scale, eps)
    return advantages


def discounted(rewards: Sequence[Sequence[float]], gamma: float) -> list[np.ndarray]:
    """R_t = sum over k >= t of gamma^(k - t) r_k, over the turns of each trajectory (GiGPO, arXiv 2505.10978, Eq 5).
    Returns N arrays (T_i,)."""
    assert 0 <= gamma <= 1
    returns = [_finite(f"rewards[{i}]", values) for i, values in enumerate(rewards)]
    for values in returns:
        for t in reversed(range(len(values) - 1)):
            values[t] += gamma * values[t + 1]
    return returns


def gigpo(
    rewards: Sequence[Sequence[float]], groups: Sequence[int], anchors: Sequence[Sequence[Hashable]],
    gamma: float = 0.95, omega: float = 1.0, eps: float = 1e-4, scale: str = "group",
) -> list[np.ndarray]:  # fmt: skip
    """A = A_E + omega * A_S: episodes compared with episodes, turns with turns (GiGPO, arXiv 2505.10978, Eq 8).

    A_E = (R(tau) - mean) / std over the trajectories of a group (Eq 3). A_S = (R_t - mean) / std over all turns of a
    group that were taken in the same anchor state (Eq 6, 7), with the discounted R_t of Eq 5: the discount comes before
    the normalisation. A turn that is alone in its anchor state has A_S = 0.

    Our choices, where the paper leaves it open: R(tau) is the plain sum of rewards, so gamma acts in A_S alone; each
    trajectory counts once in A_E, however long; a state visited twice in one trajectory counts twice in A_S; standard
    deviation and eps as in `group_relative`.

    Args:
        anchors: N sequences of T_i hashable keys: the state that each turn was taken in, say the observation's text.
        gamma: 0.95 in the paper.
        omega: weight of A_S, >= 0; 1 in the paper. With 0 this is `group_relative` on every turn.
        scale: "group" divides by the spread; "none" leaves both divisions out (the paper's F_norm = 1).

    Returns N arrays (T_i,).
    """
    assert scale in ("group", "none") and omega >= 0
    returns = discounted(rewards, gamma)  # R_t (Eq 5)
    groups = _ids("rewards", len(returns), groups)
    _check(len(anchors) == len(returns), "anchors", f"{len(anchors)} sequences", len(returns))
    totals = [math.fsum(values) for values in rewards]  # R(tau); fsum: exact, in whatever order rewards came
    episode = group_relative(totals, groups, eps, scale)  # A_E (Eq 3)
    turns = defaultdict(list)  # (group, state) -> its turns (i, t) (Eq 6)
    for i, (group, keys) in enumerate(zip(groups.tolist(), anchors, strict=True)):
        _check(len(keys) == len(returns[i]), f"anchors[{i}]", f"{len(keys)} keys", len(returns[i]))
        for t, key in enumerate(keys):
            turns[group, key].append((i, t))
    advantages = [np.full(len(values), a) for values, a in zip(returns, episode, strict=True)]
    for members in turns.values():
        step = _relative(np.array([returns[i][t] for i, t in members]), scale, eps)  # A_S (Eq 7)
        for (i, t), a in zip(members, step, strict=True):
            advantages[i][t] += omega * a  # Eq 8
    return advantages


def turn_level(
    gains: Sequence[Sequence[float]], outcomes: Sequence[float], groups: Sequence[int], gamma: float = 1.0,
    normalize: str = "separate", baseline: str = "pooled", eps: float = 1e-6, scale: str = "group",
) -> list[np.ndarray]:  # fmt: skip
    """A_t = sum over k >= t of gamma^(k - t) r~_k, of turn rewards normalised before (IGPO, arXiv 2510.14967).

    r~_t = (r_t - mu_IG) / sigma_IG for t < T; r~_T = (O - mu_O) / sigma_O. mu_IG and sigma_IG pool the turns t < T of
    all trajectories of a group, not each turn index by itself; mu_O and sigma_O are over its outcomes. The standard
    deviation is the population's. A gain of 0 is a gain. A trajectory of one turn has its outcome only; one that is
    alone in its group still has its turns compared with each other.

    Our choices, where the paper leaves it open: the options "none"; eps is added to sigma; gains without spread (up to
    rounding) become 0 also with baseline "none", there being no unit to measure them in, except with scale "none"; a
    trajectory cut off by the turn limit is like any other, with its outcome, say 0, on its last turn.

    Args:
        gains: N arrays (T_i,), T_i >= 1; 0 on the last turn, which has the outcome instead.
        outcomes: (N,) one outcome per trajectory.
        normalize: "separate" as above; "joint" takes one mu and one sigma over all gains and outcomes of a group.
        baseline: "pooled" as above; "none" does not subtract mu from gains. With gamma = 1 that subtraction adds
            -(T - t) * mu / sigma to A_t, which punishes long episodes where mu > 0. Without it, gains that hardly vary
            around a mean far from 0 become large by the division: take scale "none" for such.
        scale: "group" as above; "none" does not divide.

    Returns N arrays (T_i,). A trajectory without turns, or a gain on a last turn, is a ValueError, too.
    """
    assert normalize in ("separate", "joint") and baseline in ("pooled", "none") and scale in ("group", "none")
    assert eps > 0
    rewards = [_finite(f"gains[{i}]", values) for i, values in enumerate(gains)]
    outcomes, groups = _finite("outcomes", outcomes), _ids("gains", len(rewards), groups)
    _check(len(outcomes) == len(rewards), "outcomes", f"shape {outcomes.shape}", (len(rewards),))
    for i, values in enumerate(rewards):
        _check(values[-1:].tolist() == [0], f"gains[{i}]", f"{values[-1:]} as last turn", "one that gains 0")
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        pool, last = np.concatenate([rewards[i][:-1] for i in members]), outcomes[members]
        if normalize == "joint":
            pool = last = np.concatenate([pool, last])
        for i in members:
            rewards[i][:-1] = _normalised(rewards[i][:-1], pool, baseline == "pooled", scale, eps)
            rewards[i][-1:] = _normalised(outcomes[i : i + 1], last, True, scale, eps)
    return discounted(rewards, gamma)


def additive(
    internal: Sequence[Sequence[float]], outcomes: Sequence[float], groups: Sequence[int], alpha: float = 1.0,
    eps: float = 1e-4,
) -> list[np.ndarray]:  # fmt: skip
    """A_t = A_outcome + alpha * (r_t - mu) / (sigma + eps): a turn's internal reward as an advantage beside GRPO's.

    A_outcome is `group_relative` of the outcomes; mu and sigma (n - 1) are over all turns of the batch that have an
    internal reward, so one good step is worth the same in every group. Nothing is discounted and nothing telescopes: a
    step is paid for what it did itself. CAST (arXiv 2607.25308) adds a solver's step change to the outcome's advantage
    like this, with asinh(r) / RMS in place of the standardised r; standardising is ours.

    Args:
        internal: N arrays (T_i,), the internal rewards; NaN on a turn that takes no part in mu and sigma and gets
            A_outcome alone.
        outcomes: (N,) one outcome per trajectory.
        alpha: weight of the step part, >= 0.

    Returns N arrays (T_i,).
    """
    assert alpha >= 0 and eps > 0
    steps = [np.array(values, dtype=np.float64) for values in internal]
    _check(len(steps) == len(outcomes), "internal", f"{len(steps)} trajectories", f"{len(outcomes)}, as outcomes")
    pool = np.concatenate([*steps, np.zeros(0)])
    pool = pool[~np.isnan(pool)]
    _finite("internal", pool)
    spread = _spread(pool) if len(pool) > 1 else 0.0
    whole = group_relative(outcomes, groups, eps)
    if not spread:
        return [np.full(len(values), a) for values, a in zip(steps, whole, strict=True)]
    parts = (alpha * (values - pool.mean()) / (spread + eps) for values in steps)
    return [a + np.nan_to_num(part, nan=0.0) for part, a in zip(parts, whole, strict=True)]


def to_tokens(per_turn: Sequence[float], spans: Sequence[tuple[int, int]], mask: Sequence[int]) -> np.ndarray:
    """Spread per-turn advantages over the tokens of one trajectory.

    Args:
        per_turn: (T,) one advantage per turn.
        spans: (T,) pairs [start, end) into the completion, in order and without overlap.
        mask: (C,) 1 where the policy wrote the token, 0 elsewhere.

    Returns (C,) float32; 0 where `mask` is 0. Spans that do not fit are a ValueError, and so is a policy token in no
    span (it would silently not be trained).
    """
    mask = np.asarray(mask, dtype=bool)
    _check(len(per_turn) == len(spans), "per_turn, spans", f"lengths {len(per_turn)}, {len(spans)}", "equal lengths")
    tokens, covered, previous = np.zeros(len(mask), dtype=np.float32), np.zeros(len(mask), dtype=bool), 0
    for value, (start, end) in zip(per_turn, spans, strict=True):
        fits = previous <= start <= end <= len(mask)
        _check(fits, "spans", f"({start}, {end})", f"within {previous}..{len(mask)}, in order")
        tokens[start:end], covered[start:end], previous = value, True, end
    left = np.flatnonzero(mask & ~covered)
    _check(not len(left), "spans", f"policy token {left[:1]} that lies in no turn's span", "none")
    tokens[~mask] = 0.0
    return tokens


def _spread(values: np.ndarray) -> float:
    # Compared rather than subtracted: the mean of equal floats can differ from them in the last bit, and dividing that
    # by eps would turn it into a signal.
    return 0.0 if values.min() == values.max() else float(values.std(ddof=1))


def _relative(values: np.ndarray, scale: str, eps: float) -> np.ndarray:
    spread = _spread(values)
    if not spread:
        return np.zeros_like(values)
    return (values - values.mean()) / (spread + eps if scale == "group" else 1.0)


def _normalised(values: np.ndarray, pool: np.ndarray, centre: bool, scale: str, eps: float) -> np.ndarray:
    if not len(values):
        return values
    if np.ptp(pool) <= 1e-12 * np.abs(pool).max():
        return np.zeros_like(values) if centre or scale == "group" else values
    return (values - centre * pool.mean()) / (pool.std() + eps if scale == "group" else 1.0)


def _finite(name: str, values: Sequence[float]) -> np.ndarray:
    array = np.array(values, dtype=np.float64)
    _check(array.ndim == 1, name, f"shape {array.shape}", "one dimension")
    _check(np.isfinite(array).all(), name, array[~np.isfinite(array)][:1], "finite numbers")
    return array


def _ids(name: str, count: int, groups: Sequence[int]) -> np.ndarray:
    groups = np.asarray(groups)
    _check(groups.shape == (count,), f"{name}, groups", f"{count} and shape {groups.shape}", "one group each")
    return groups


def _check(good: bool, name: str, got: object, allowed: object) -> None:
    if not good:
        raise ValueError(f"{name}: got {got}; allowed: {allowed}")
