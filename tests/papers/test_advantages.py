"""Advantages, checked against numbers worked by hand and against slow loops written straight from the formulas.

Group-relative advantages on worked numbers: see `test_self_guide.py`. Errors that give no error message:
`test_silent_bugs.py`.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sglib.advantages.formulas import discounted, gigpo, group_relative, to_tokens, turn_level

quick = settings(max_examples=60, deadline=None)
values = st.sampled_from([0.0, 0.1, -0.1, 1.0, 10.0]) | st.floats(-20, 20, allow_subnormal=False)


@st.composite
def batches(draw, most=7):
    """Up to 7 episodes of 1 to 5 turns: per-turn values, outcomes, groups, anchor states."""
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=most))
    rewards = [draw(st.lists(values, min_size=n, max_size=n)) for n in lengths]
    anchors = [draw(st.lists(st.sampled_from("stu"), min_size=n, max_size=n)) for n in lengths]
    groups = draw(st.lists(st.integers(0, 2), min_size=len(lengths), max_size=len(lengths)))
    outcomes = draw(st.lists(values, min_size=len(lengths), max_size=len(lengths)))
    return rewards, outcomes, groups, anchors


def no_gain_at_the_end(rewards):
    return [[*r[:-1], 0.0] for r in rewards]


def close(a, b, tolerance=1e-6):
    return len(a) == len(b) and all(
        np.shape(x) == np.shape(y) and np.allclose(x, y, rtol=tolerance, atol=tolerance)
        for x, y in zip(a, b, strict=True)
    )


# --- the slow references: plain loops, nothing shared with the library ---


def slow_discounted(rewards, gamma):
    return [[sum(gamma ** (k - t) * r[k] for k in range(t, len(r))) for t in range(len(r))] for r in rewards]


def slow_relative(value, pool, divide=True):
    """(value - mean) / (sample std + 1e-4), 0 where all are equal."""
    if len(set(pool)) == 1:
        return 0.0
    mean = sum(pool) / len(pool)
    std = (sum((x - mean) ** 2 for x in pool) / (len(pool) - 1)) ** 0.5
    return (value - mean) / (std + 1e-4) if divide else value - mean


def slow_gigpo(rewards, groups, anchors, gamma, omega, divide):
    returns, result = slow_discounted(rewards, gamma), []
    for i in range(len(rewards)):
        mates = [j for j in range(len(rewards)) if groups[j] == groups[i]]
        episode = slow_relative(sum(rewards[i]), [sum(rewards[j]) for j in mates], divide)
        row = []
        for t in range(len(rewards[i])):
            pool = [returns[j][k] for j in mates for k in range(len(rewards[j])) if anchors[j][k] == anchors[i][t]]
            row.append(episode + omega * slow_relative(returns[i][t], pool, divide))
        result.append(row)
    return result


def slow_normalised(value, pool, subtract, divide):
    """(value - mean) / (population std + 1e-6); 0 where all are equal, unless nothing is asked for."""
    mean = sum(pool) / len(pool)
    if max(pool) - min(pool) <= 1e-12 * max(abs(x) for x in pool):
        return 0.0 if subtract or divide else value
    std = (sum((x - mean) ** 2 for x in pool) / len(pool)) ** 0.5
    return (value - (mean if subtract else 0.0)) / (std + 1e-6 if divide else 1.0)


def slow_turn_level(gains, outcomes, groups, gamma, normalize, baseline, divide):
    normalised = []
    for i, row in enumerate(gains):
        mates = [j for j in range(len(gains)) if groups[j] == groups[i]]
        inner, last = [g for j in mates for g in gains[j][:-1]], [outcomes[j] for j in mates]
        if normalize == "joint":
            inner = last = inner + last
        turns = [slow_normalised(g, inner, baseline == "pooled", divide) for g in row[:-1]]
        normalised.append([*turns, slow_normalised(outcomes[i], last, True, divide)])
    return slow_discounted(normalised, gamma)


# --- discounted ---


def test_discounted_return():
    """gamma 0.5, rewards 1, 0, 4: R_3 = 4, R_2 = 0 + 0.5 * 4 = 2, R_1 = 1 + 0.5 * 2 = 2. A single turn keeps its."""
    a, b, empty = discounted([[1, 0, 4], [3], []], gamma=0.5)
    assert a.tolist() == [2, 2, 4] and b.tolist() == [3] and empty.shape == (0,)
    assert a.dtype == np.float64 and discounted([], 0.5) == []
    assert discounted([[1, 2, 3]], gamma=0.0)[0].tolist() == [1, 2, 3]


@quick
@given(batches(), st.sampled_from([0.0, 0.5, 0.95, 1.0]))
def test_discounted_against_brute_force(batch, gamma):
    rewards = [np.array(r) for r in batch[0]]
    before = [r.copy() for r in rewards]
    assert close(discounted(rewards, gamma), slow_discounted(batch[0], gamma))
    assert all((a == b).all() for a, b in zip(rewards, before, strict=True))  # the input is left alone


# --- GiGPO ---


def test_gigpo_by_hand():
    """gamma 0.5. Group 0: A has rewards 0, 10 in states s, x; B has 0, 0, 0 in s, x, s. Group 7: C has 3 in s.

    R_t: A 5, 10; B 0, 0, 0; C 3.
    A_E: returns 10, 0: mean 5, sample std 7.07107, so +-5 / 7.07117 = +-0.70710. C is alone: 0.
    A_S in s: 5, 0, 0: mean 5/3, std sqrt((3.33333^2 + 2 * 1.66667^2) / 2) = 2.88675: A 3.33333 / 2.88685 = 1.15466,
    B -1.66667 / 2.88685 = -0.57733 twice. In x: 10, 0: +-0.70710. C's s belongs to another group: 0.
    A = A_E + A_S: A 1.86176, 1.41420; B -1.28443, -1.41420, -1.28443.
    Without division: A_E +-5, A_S in s 10/3, -5/3, in x +-5.
    """
    arguments = ([[0, 10], [0, 0, 0], [3]], [0, 0, 7], [["s", "x"], ["s", "x", "s"], ["s"]])
    expected = [[1.86176, 1.41420], [-1.28443, -1.41420, -1.28443], [0]]
    result = gigpo(*arguments, gamma=0.5)
    assert close(result, expected, 1e-5) and all(a.dtype == np.float64 for a in result)
    plain = gigpo(*arguments, gamma=0.5, scale="none")
    assert close(plain, [[5 + 10 / 3, 10], [-5 - 5 / 3, -10, -5 - 5 / 3], [0]])
    half = gigpo(*arguments, gamma=0.5, omega=0.5)
    assert close(half, [[0.70710 + 1.15466 / 2, 1.06065], [-0.99577, -1.06065, -0.99577], [0]], 1e-5)


@quick
@given(batches(), st.sampled_from([0.0, 0.5, 0.95, 1.0]), st.sampled_from([0.0, 0.5, 1.0]), st.booleans())
def test_gigpo_against_brute_force(batch, gamma, omega, divide):
    rewards, _, groups, anchors = batch
    actual = gigpo(rewards, groups, anchors, gamma, omega, scale="group" if divide else "none")
    assert close(actual, slow_gigpo(rewards, groups, anchors, gamma, omega, divide))


@quick
@given(batches())
def test_gigpo_without_step_part_is_group_relative(batch):
    rewards, _, groups, anchors = batch
    per_episode = group_relative([sum(r) for r in rewards], groups)
    expected = [np.full(len(r), a) for r, a in zip(rewards, per_episode, strict=True)]
    assert close(gigpo(rewards, groups, anchors, omega=0.0), expected, 1e-9)
    alone = [[(i, t) for t in range(len(r))] for i, r in enumerate(rewards)]  # no state is met twice: A_S = 0
    assert close(gigpo(rewards, groups, alone), expected, 1e-9)


def test_gigpo_scale_and_shift():
    """Ten times the rewards (and eps): the same advantages. 1 more for every turn is no shift at all: it pays longer
    episodes more. 1 more for every *outcome* shifts all returns alike where gamma is 1, and nothing changes; with
    gamma < 1 what arrives at a turn depends on how far the end is, and A_S changes."""
    rewards, groups = [[0.0, 1.0], [0.0, 0.0, 0.5], [0.2]], [0, 0, 0]
    anchors = [["s", "x"], ["s", "x", "s"], ["s"]]
    more = [[*r[:-1], r[-1] + 1] for r in rewards]
    plain = gigpo(rewards, groups, anchors, eps=1e-4)
    assert close(gigpo([[10 * x for x in r] for r in rewards], groups, anchors, eps=1e-3), plain, 1e-9)
    assert not close(gigpo([[x + 1 for x in r] for r in rewards], groups, anchors), plain, 1e-2)
    assert close(gigpo(more, groups, anchors, gamma=1.0), gigpo(rewards, groups, anchors, gamma=1.0), 1e-9)
    assert not close(gigpo(more, groups, anchors), plain, 1e-2)


def test_gigpo_nothing_to_compare_is_exactly_zero():
    """One episode in states of its own; episodes with equal rewards, in any order of their floats."""
    assert gigpo([[0.1, 0.7]], [0], [["s", "t"]])[0].tolist() == [0, 0]
    same = gigpo([[0.1, 0.2, 0.3]] * 3, [5] * 3, [["s", "s", "t"]] * 3, gamma=1.0, omega=0.0)
    assert all(a.tolist() == [0, 0, 0] for a in same)
    reordered = gigpo([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]], [0, 0], [["a", "b", "c"], ["d", "e", "f"]])
    assert all(a.tolist() == [0, 0, 0] for a in reordered)
    assert gigpo([], [], []) == []


# --- IGPO ---


def test_turn_level_by_hand():
    """gamma 0.5, one group: A gains 0.2, 0.4, outcome 1; B gains 0, 0.2, outcome 0; C has one turn, outcome 0.5.

    Gains 0.2, 0.4, 0, 0.2: mu 0.2, variance (0 + 0.04 + 0.04 + 0) / 4 = 0.02, sigma 0.141421: A 0, 1.41421; B -1.41421,
    0. Outcomes 1, 0, 0.5: mu 0.5, variance 0.5 / 3, sigma 0.408248: 1.22474, -1.22474, 0.
    A: A_3 = 1.22474; A_2 = 1.41421 + 0.5 * 1.22474 = 2.02659; A_1 = 0 + 0.5 * 2.02659 = 1.01329.
    B: A_3 = -1.22474; A_2 = 0 - 0.61237 = -0.61237; A_1 = -1.41421 - 0.30619 = -1.72040. C: 0.
    """
    arguments = ([[0.2, 0.4, 0], [0, 0.2, 0], [0]], [1, 0, 0.5], [3, 3, 3])
    result = turn_level(*arguments, gamma=0.5)
    assert close(result, [[1.01329, 2.02659, 1.22474], [-1.72040, -0.61237, -1.22474], [0]], 1e-5)
    assert all(a.dtype == np.float64 for a in result)


def test_turn_level_joint_by_hand():
    """gamma 1, one group: A gains 1, outcome 3; B gains 1, outcome -1. All four: 1, 3, 1, -1: mu 1, sigma
    sqrt((0 + 4 + 0 + 4) / 4) = 1.41421. A: 0, 1.41421, so A_t = 1.41421 on both turns; B: -1.41421 on both.
    Without mu on the gains: each has 1 / 1.41421 = 0.70711 more on turn 1. Without division: +-2, on turn 1 one more.
    """
    arguments = ([[1, 0], [1, 0]], [3, -1], [0, 0])
    assert close(turn_level(*arguments, normalize="joint"), [[1.41421] * 2, [-1.41421] * 2], 1e-5)
    no_mean = turn_level(*arguments, normalize="joint", baseline="none")
    assert close(no_mean, [[2.12132, 1.41421], [-0.70711, -1.41421]], 1e-5)
    raw = turn_level(*arguments, normalize="joint", baseline="none", scale="none")
    assert close(raw, [[3, 2], [-1, -2]])


@quick
@given(
    batches(),
    st.sampled_from([0.0, 0.5, 0.95, 1.0]),
    st.sampled_from(["separate", "joint"]),
    st.sampled_from(["pooled", "none"]),
    st.booleans(),
)
def test_turn_level_against_brute_force(batch, gamma, normalize, baseline, divide):
    rewards, outcomes, groups, _ = batch
    gains = no_gain_at_the_end(rewards)
    actual = turn_level(gains, outcomes, groups, gamma, normalize, baseline, scale="group" if divide else "none")
    assert close(actual, slow_turn_level(gains, outcomes, groups, gamma, normalize, baseline, divide))


@quick
@given(batches())
def test_without_gains_every_turn_has_the_normalised_outcome(batch):
    """gamma 1: A_t is the sum from t on, and only the last turn has anything. This is GRPO with the population's
    standard deviation. (Not so with one mu for both: it moves gains of 0 away from 0.)"""
    rewards, outcomes, groups, _ = batch
    zeros = [[0.0] * len(r) for r in rewards]
    expected = []
    for r, outcome, group in zip(rewards, outcomes, groups, strict=True):
        pool = [o for o, g in zip(outcomes, groups, strict=True) if g == group]
        expected.append([slow_normalised(outcome, pool, True, True)] * len(r))
    assert close(turn_level(zeros, outcomes, groups), expected)


def test_zero_gains_are_moved_by_a_joint_mean():
    """Gains 0, 0, outcomes 1, 0: mu 0.25, sigma sqrt(3) / 4, so a gain of 0 becomes -0.57735."""
    joint = turn_level([[0, 0], [0, 0]], [1, 0], [0, 0], normalize="joint")
    assert close(joint, [[1.73205 - 0.57735, 1.73205], [-1.15470, -0.57735]], 1e-5)


@quick
@given(st.lists(st.lists(st.floats(-5, 0), min_size=1, max_size=6), min_size=1, max_size=4))
def test_raw_gains_telescope(scores):
    """gamma 1, gains s_t - s_{t-1} as they are, equal outcomes: A_t = s_{T-1} - s_{t-1} for t < T, 0 on the last turn.

    `scores` holds s_0 .. s_{T-1} of each episode.
    """
    gains = [[*np.diff(s), 0.0] for s in scores]
    actual = turn_level(gains, [1.0] * len(scores), [0] * len(scores), baseline="none", scale="none")
    assert close(actual, [[s[-1] - before for before in s] for s in scores], 1e-9)
    assert close(discounted(gains, 1.0), actual, 1e-9)


def test_subtracting_the_mean_gain_punishes_long_episodes():
    """One episode gains 0.1 on each of 30 turns (3.0 in all), one 0.4 on each of 2 (0.8 in all); the same outcome.

    mu = 3.8 / 32 = 0.11875. Minus mu, the first has -0.5625 from turn 1 on and the second 0.5625, although the first
    gained more, and on every turn. sigma^2 = (30 * 0.01875^2 + 2 * 0.28125^2) / 32 = 0.0052734, sigma 0.072618.
    Without subtraction: 3.0 / 0.072618 = 41.312 against 0.8 / 0.072618 = 11.016.
    """
    arguments = ([[0.1] * 30 + [0], [0.4] * 2 + [0]], [1, 1], [0, 0])
    long, short = turn_level(*arguments)
    assert [long[0], short[0]] == pytest.approx([-7.7460, 7.7460], abs=1e-3)
    long, short = turn_level(*arguments, baseline="none")
    assert [long[0], short[0]] == pytest.approx([41.312, 11.016], abs=1e-2)


def test_turn_level_scale_and_shift():
    """Gains and outcomes are normalised each for itself: either may be shifted or scaled. Not so gains with baseline
    "none", which are counted from 0, nor one of the two alone where they share one mu and sigma."""
    gains, outcomes, groups = [[0.2, -0.4, 0.0], [0.1, 0.0], [0.0]], [1.0, 0.0, 0.5], [0, 0, 0]
    shifted = [[*(x + 3 for x in g[:-1]), 0.0] for g in gains]
    larger = [[5 * x for x in g] for g in gains]
    more, fivefold = [o + 3 for o in outcomes], [5 * o for o in outcomes]

    def same(a, b, **options):
        return close(turn_level(*a, groups, eps=1e-12, **options), turn_level(*b, groups, eps=1e-12, **options), 1e-6)

    for other in ((shifted, outcomes), (larger, outcomes), (gains, more), (gains, fivefold)):
        assert same((gains, outcomes), other)
        assert not same((gains, outcomes), other, normalize="joint")
    assert same((gains, outcomes), (shifted, more), normalize="joint")
    assert same((gains, outcomes), (larger, fivefold), normalize="joint")
    assert same((gains, outcomes), (larger, more), baseline="none")
    assert not same((gains, outcomes), (shifted, outcomes), baseline="none")
    assert not same((gains, outcomes), (larger, outcomes), scale="none")


@pytest.mark.parametrize("normalize", ["separate", "joint"])
@pytest.mark.parametrize("baseline", ["pooled", "none"])
def test_turn_level_values_without_spread_are_exactly_zero(normalize, baseline):
    """Equal up to rounding: 0.3 - 0.2 is not 0.1 to the last bit, and dividing 0.1 by their distance would be 1e5."""
    for gain in (0.1, 0.3 - 0.2):
        rows = [[0.1, gain, 0], [0.1, 0]]
        assert all((a == 0).all() for a in turn_level(rows, [0.1, 0.1], [0, 0], 1.0, normalize, baseline))
    assert turn_level([[0.0]], [10.0], [0], 1.0, normalize, baseline)[0].tolist() == [0]


def test_turn_level_alone_in_its_group():
    """The outcome says nothing, but gains 1, 3 (mu 2, sigma 1) are still compared: -1, 1, so A = 0, 1, 0."""
    assert close(turn_level([[1, 3, 0]], [10], [0]), [[0, 1, 0]], 1e-5)
    assert turn_level([], [], []) == []


# --- what holds for all ---


@quick
@given(batches(), st.randoms(use_true_random=False))
def test_order_of_episodes_does_not_matter(batch, random):
    rewards, outcomes, groups, anchors = batch
    order = list(range(len(rewards)))
    random.shuffle(order)

    def functions(rewards, outcomes, groups, anchors):
        gains = no_gain_at_the_end(rewards)
        return [
            [np.array([a]) for a in group_relative(outcomes, groups)],
            gigpo(rewards, groups, anchors),
            turn_level(gains, outcomes, groups, 0.9),
            turn_level(gains, outcomes, [f"game {g}" for g in groups], 0.9, "joint", "none"),
        ]

    before = functions(rewards, outcomes, groups, anchors)
    after = functions(*([column[i] for i in order] for column in (rewards, outcomes, groups, anchors)))
    for one, other in zip(before, after, strict=True):
        assert close([one[i] for i in order], other)


@quick
@given(st.lists(values, min_size=2, max_size=6), st.floats(0.5, 5), st.floats(-5, 5))
def test_group_relative_scale_and_shift(returns, factor, shift):
    """A shift never matters. c times the returns and c times eps: the same; "none" keeps the factor. With "outcome" the
    unit is the outcome's: c times the returns alone is c times the advantage."""
    groups, outcomes = [0] * len(returns), [0.0, 1.0] * 3
    moved, larger = [r + shift for r in returns], [factor * r for r in returns]
    for scale in ("group", "none", "outcome"):
        options = {"scale": scale, "outcomes": outcomes[: len(returns)]}
        plain = group_relative(returns, groups, **options)
        assert np.allclose(group_relative(moved, groups, **options), plain, atol=1e-6)
        if scale == "group":
            assert np.allclose(group_relative(larger, groups, eps=factor * 1e-4), plain, atol=1e-6)
        else:
            assert np.allclose(group_relative(larger, groups, **options), factor * plain, atol=1e-6)


@quick
@given(st.lists(st.tuples(values, st.integers(1, 3), st.integers(0, 3)), min_size=1, max_size=5), st.integers(0, 4))
def test_only_the_policys_tokens_have_advantages(turns, padding):
    """Each turn: its advantage, its tokens, then the observation's tokens; after the last one padding."""
    mask, spans, expected = [], [], []
    for value, written, read in turns:
        spans.append((len(mask), len(mask) + written))
        mask += [1] * written + [0] * read
        expected += [value] * written + [0.0] * read
    tokens = to_tokens([v for v, _, _ in turns], spans, mask + [0] * padding)
    assert np.allclose(tokens, np.array(expected + [0.0] * padding, dtype=np.float32))
    assert (tokens[np.array(mask + [0] * padding) == 0] == 0).all()
    whole = [(start, start + written + read) for (start, _), (_, written, read) in zip(spans, turns, strict=True)]
    assert (to_tokens([v for v, _, _ in turns], whole, mask + [0] * padding) == tokens).all()


NAN = float("nan")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: discounted([[1.0], [NAN]], gamma=1), ["rewards[1]", "nan", "finite"]),
        (lambda: discounted([1.0], gamma=1), ["rewards[0]", "shape ()", "one dimension"]),
        (lambda: gigpo([[1.0]], [0, 1], [["s"]]), ["groups", "(2,)", "one group each"]),
        (lambda: gigpo([[1.0]], [0], []), ["anchors", "0 sequences", "1"]),
        (lambda: gigpo([[1.0, 2.0]], [0], [["s"]]), ["anchors[0]", "1 keys", "2"]),
        (lambda: turn_level([[0.0]], [1.0, 2.0], [0]), ["outcomes", "(2,)", "(1,)"]),
        (lambda: turn_level([[0.0]], [1.0], [0, 0]), ["groups", "(2,)"]),
        (lambda: turn_level([[0.0], []], [1.0, 1.0], [0, 0]), ["gains[1]", "last turn"]),
        (lambda: turn_level([[0.0, 0.3]], [1.0], [0]), ["gains[0]", "0.3", "last turn"]),
        (lambda: turn_level([[NAN, 0.0]], [1.0], [0]), ["gains[0]", "nan", "finite"]),
    ],
)
def test_errors_name_argument_value_and_allowed(call, words):
    with pytest.raises(ValueError) as error:
        call()
    assert all(word in str(error.value) for word in words), error.value
