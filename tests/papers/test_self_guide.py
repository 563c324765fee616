"""Self-Guide (arXiv 2604.03098), checked against numbers worked by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglib.advantages import group_relative, to_tokens
from sglib.records import Trajectory, Turn
from sglib.rewards import Constant, Outcome, SelfGuide, Trapezoid, combine, make_schedule


def episode(labels, won=False, group=0):
    turns = [Turn(observation="o", response="r", action="a", valid=True, label=label) for label in labels]
    return Trajectory("g", "pick", "goal", "guide", turns=turns, won=won, group=group)


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0), (39, 0), (40, 0), (45, 0.5), (50, 1), (60, 1), (70, 1), (75, 0.5), (78, 0.2), (80, 0), (99, 0), (100, 0)],
)
def test_lambda_at_its_breakpoints(step, expected):
    """Of 100 steps: 0 below 40; step 45 is halfway up, (45 - 40) / 10 = 0.5; step 78 is (80 - 78) / 10 = 0.2."""
    assert make_schedule("self_guide")(step / 100) == pytest.approx(expected, abs=1e-12)


def test_schedule_jumps():
    at_once, no_annealing = Trapezoid(0, 0, 0.7, 0.8), Trapezoid(0.4, 0.5, 1, 1)
    assert [at_once(0.0), at_once(0.7), at_once(0.9)] == [1, 1, 0]
    assert [no_annealing(0.0), no_annealing(0.5), no_annealing(1.0)] == [0, 1, 1]
    assert make_schedule(0.3)(0.9) == 0.3 and make_schedule("one")(0.1) == 1 and make_schedule({"value": 2})(0.1) == 2
    assert make_schedule({"start": 0.45}) == Trapezoid(start=0.45)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"start": 0.6}, ["full", "0.5", "start=0.6"]),
        ({"end": 1.2}, ["end", "1.2", "1"]),
        ({"start": -0.1}, ["start", "-0.1", "0"]),
        ({"begin": 0.1}, ["begin", "start"]),
        ({"start": "early"}, ["start", "early", "number"]),
        ("selfguide", ["selfguide", "self_guide"]),
        (float("nan"), ["value", "nan"]),
        ({}, ["empty"]),
        (True, ["True"]),
    ],
)
def test_schedule_errors_name_field_value_and_allowed(spec, words):
    with pytest.raises(ValueError) as error:
        make_schedule(spec)
    assert all(word in str(error.value) for word in words), error.value


def test_eq_6_return():
    """R = 10 * won + lambda * sum_t g(z_t), with g(z_1) = 0.

    Labels (positive, positive, negative, positive, neutral, None): turn 1 counts 0, then
    0.1 - 0.1 + 0.1 + 0 + 0 = 0.1. At u = 0.45 lambda is 0.5: R = 10 + 0.05 = 10.05 when won, 0.05 when lost. At u = 0
    it is 10 and 0.
    """
    labels = ["positive", "positive", "negative", "positive", "neutral", None]
    episodes = [episode(labels, won=True), episode(labels)]
    components = [Outcome(weight=10.0), SelfGuide()]
    assert combine(episodes, components, u=0.45) == pytest.approx([10.05, 0.05], abs=1e-12)
    assert episodes[0].total_return == pytest.approx(10.05, abs=1e-12)
    assert [t.rewards["self_guide"] for t in episodes[0].turns] == [0.0, 0.1, -0.1, 0.1, 0.0, 0.0]
    weighted = [t.rewards["self_guide/weighted"] for t in episodes[0].turns]
    assert weighted == pytest.approx([0.0, 0.05, -0.05, 0.05, 0.0, 0.0], abs=1e-12)
    assert [t.rewards["outcome/weighted"] for t in episodes[0].turns] == [0.0] * 5 + [10.0]
    assert combine(episodes, components, u=0.0) == [10.0, 0.0]
    assert episodes[0].turns[1].rewards == {
        "outcome": 0.0, "outcome/weighted": 0.0, "self_guide": 0.1, "self_guide/weighted": 0.0
    }  # fmt: skip


def test_unreadable_label_and_length_normalised_variant():
    """Ten turns, nine rated positive: plain 9 * 0.1 = 0.9; divided by T - 1 = 9 it is 0.1. An unreadable label is 0."""
    long = episode(["positive"] * 10)
    assert combine([long], [SelfGuide(schedule="one")], u=0.0) == pytest.approx([0.9])
    assert combine([long], [SelfGuide(schedule="one", length_normalized=True)], u=0.0) == pytest.approx([0.1])
    long.turns[3].label = None
    assert combine([long], [SelfGuide(schedule="one")], u=0.0) == pytest.approx([0.8])
    assert SelfGuide()([episode([])]) == [[]] and Outcome()([episode([], won=True)]) == [[]]


def test_zero_coefficient_adds_nothing_even_where_the_component_is_not_finite():
    class Broken(Outcome):
        def __call__(self, trajectories, policy=None, games=None):
            return [[float("inf")] * len(t) for t in trajectories]

    episodes = [episode(["neutral"] * 3, won=True)]
    assert combine(episodes, [Outcome(), Broken(name="broken", schedule=Constant(0.0))], u=0.5) == [10.0]
    with pytest.raises(ValueError, match="broken"):
        combine(episodes, [Broken(name="broken")], u=0.5)


def test_combine_errors():
    with pytest.raises(ValueError, match="u: got 1.5"):
        combine([], [Outcome()], u=1.5)
    with pytest.raises(ValueError, match="each name once"):
        combine([], [Outcome(), Outcome()], u=0.5)


def test_eq_8_advantages():
    """Returns 10, 0, 0, 10: mean 5, sample std sqrt(4 * 25 / 3) = 5.7735, so A = +-5 / 5.7736 = +-0.86601.

    Returns 0.3, 0.1 (both failed): mean 0.2, sample std 0.14142, A = +-0.1 / 0.14152 = +-0.70660: as large as a
    success, whatever the coefficient of the internal reward. The spread of R_env over the six is that of
    (10, 0, 0, 10, 0, 0): mean 10/3, variance (2 * (20/3)^2 + 4 * (10/3)^2) / 5 = 26.667, std 5.1640; divided by it,
    A = +-0.1 / 5.1641 = +-0.019364.
    """
    returns, groups = [10, 0, 0, 10, 0.3, 0.1], [0, 0, 0, 0, 7, 7]
    assert group_relative(returns, groups) == pytest.approx(
        [0.86601, -0.86601, -0.86601, 0.86601, 0.70660, -0.70660], abs=1e-5
    )
    assert group_relative(returns, groups, scale="none") == pytest.approx([5, -5, -5, 5, 0.1, -0.1])
    by_outcome = group_relative(returns, groups, scale="outcome", outcomes=[10, 0, 0, 10, 0, 0])
    assert by_outcome == pytest.approx([0.86601, -0.86601, -0.86601, 0.86601, 0.019364, -0.019364], abs=1e-5)
    assert not group_relative([0.3, 0.1], [0, 0], scale="outcome", outcomes=[0, 0]).any()


def test_group_of_one_and_equal_returns_are_exactly_zero():
    assert (group_relative([3.0, 0.1, 0.1, 0.1], [0, 1, 1, 1]) == 0).all()
    assert group_relative([], []).shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (([1.0], [0, 1]), "returns, groups"),
        (([float("nan")], [0]), "returns"),
        (([1.0], [0], 1e-4, "batch"), "scale"),
        (([1.0], [0], 1e-4, "outcome"), "outcomes"),
    ],
)
def test_group_relative_errors(arguments, field):
    with pytest.raises(ValueError, match=field):
        group_relative(*arguments)


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 10.0]) | st.floats(-50, 50, allow_subnormal=False), st.integers(0, 4)),
        min_size=1,
        max_size=40,
    )
)
def test_group_relative_against_brute_force(rows):
    returns, groups = [r for r, _ in rows], [g for _, g in rows]
    expected = []
    for value, group in rows:
        mine = [r for r, g in rows if g == group]
        if len(set(mine)) == 1:
            expected.append(0.0)
            continue
        mean = sum(mine) / len(mine)
        std = (sum((r - mean) ** 2 for r in mine) / (len(mine) - 1)) ** 0.5
        expected.append((value - mean) / (std + 1e-4))
    actual = group_relative(returns, groups)
    assert np.allclose(actual, expected, rtol=1e-9, atol=1e-9)
    order = np.random.default_rng(0).permutation(len(rows))  # the order of trajectories must not matter
    assert np.allclose(group_relative(np.array(returns)[order], np.array(groups)[order]), actual[order], atol=1e-9)


def test_to_tokens():
    """Two turns, tokens p p o o p p p of which p are the policy's: 1.5 on the first two, -2 on the last three."""
    tokens = to_tokens([1.5, -2.0], [(0, 2), (4, 7)], [1, 1, 0, 0, 1, 1, 1])
    assert tokens.tolist() == [1.5, 1.5, 0, 0, -2, -2, -2] and tokens.dtype == np.float32
    assert to_tokens([1.0], [(0, 3)], [1, 0, 1]).tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match="lies in no turn"):
        to_tokens([1.0], [(0, 1)], [1, 1])
    with pytest.raises(ValueError, match="spans: got"):
        to_tokens([1.0, 2.0], [(0, 2), (1, 3)], [1, 1, 1])
    with pytest.raises(ValueError, match="equal lengths"):
        to_tokens([1.0], [(0, 2), (2, 3)], [1, 1, 1])
