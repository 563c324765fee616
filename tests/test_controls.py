"""The assay's controls: the truth degraded to a known AUROC, permuted in episodes, gated; a treatment's strength."""

import numpy as np
import pytest

from sglib.advantages import additive
from sglib.advantages.estimators import GRPO, IGPO, Additive, GiGPO, closed, set_advantages, treatment
from sglib.measure.truth import auroc
from sglib.records import Trajectory, Turn
from sglib.rewards import ConstantReward, OraclePotential, Outcome, RandomReward, combine
from sglib.rewards.mix import shuffled


def episode(distances, won, group=0, seed=0, observations=None):
    names = observations or [f"o{t}" for t in range(len(distances) - 1)]
    turns = [Turn(o, "a", "a", True, distance=d) for o, d in zip(names, distances)]
    return Trajectory(f"g{group}", "", "", "act", turns, won, final_distance=distances[-1], group=group, seed=seed)


def many(n=400, turns=10, seed=5):
    """Episodes whose steps help, do nothing or hurt by one, at random."""
    rng = np.random.default_rng(seed)
    walks = 10 + np.cumsum(rng.choice([-1, 0, 1], (n, turns), p=[0.4, 0.3, 0.3]), axis=1)
    return [episode([10, *row.tolist()], False, i, seed) for i, row in enumerate(walks)]


def values_of(batch, component):
    return np.concatenate(component(batch)), np.array([
        a - b for t in batch for a, b in zip(t.remaining(), t.remaining()[1:])
    ])  # fmt: skip


@pytest.mark.parametrize("wanted", [0.5, 0.6, 0.8, 0.9, 1.0])
def test_the_degraded_truth_has_the_auroc_that_it_says(wanted):
    value, progress = values_of(many(), OraclePotential(auroc=wanted))
    assert auroc(value, progress) == pytest.approx(wanted, abs=0.03)


def test_the_degraded_truth_keeps_its_values_and_is_the_same_again():
    batch = many(50)
    exact, noisy = (np.concatenate(OraclePotential(auroc=a)(batch)) for a in (None, 0.7))
    assert set(noisy) <= set(exact) and (noisy != exact).any()
    assert noisy.std() == pytest.approx(exact.std(), rel=0.15)
    assert OraclePotential(auroc=0.7)(batch) == OraclePotential(auroc=0.7)(batch)
    assert OraclePotential(auroc=0.7, seed=1)(batch) != OraclePotential(auroc=0.7)(batch)
    assert OraclePotential(auroc=1.0)(batch) == OraclePotential()(batch)
    assert OraclePotential(auroc=0.7)([]) == []
    with pytest.raises(ValueError, match="seed: got 3; allowed: only with auroc"):
        OraclePotential(seed=3)
    with pytest.raises(ValueError, match="gamma: got 0.9; allowed: only with step: potential"):
        OraclePotential(step="asinh", gamma=0.9)
    lost = episode([4, 3, None], False)
    assert OraclePotential(step="asinh")([lost]) == [[np.arcsinh(1), np.arcsinh(3 - 8)]]  # out of reach: twice the way
    back = episode([4, 3, 4, 4, None, None], False)  # nearer, back, nothing, a dead end, and nothing after it
    assert OraclePotential(step="sign")([back]) == [[1.0, -1.0, 0.0, -1.0, 0.0]]
    with pytest.raises(ValueError, match="auroc"):
        OraclePotential(auroc=0.4)


def test_shuffling_keeps_each_episodes_sum_and_its_values():
    values = [[1.0, 2.0, 3.0, 4.0], [], [5.0, 0.0, 7.0]]
    mixed = shuffled(values, [3, 3, 3])
    assert [sorted(v) for v in mixed] == [sorted(v) for v in values] and mixed == shuffled(values, [3, 3, 3])
    assert shuffled([list(range(20)), [1.0]], [1, 1]) != shuffled([list(range(20)), [1.0]], [2, 2])
    # what cannot be paid on the last turn (IGPO's gains) is not put there
    for seed in range(20):
        assert all(v[-1] == 0 for v in shuffled([[1.0, 2.0, 0.0], [3.0, 4.0, 5.0, 0.0]], [seed, seed]))


def test_a_shuffled_component_pays_the_same_return_on_other_turns():
    batch = [episode([5, 4, 3, 3, 4, 2, 1], False, seed=2)]
    exact, mixed = (combine(batch, [OraclePotential(shuffled=s)], 0.0)[0] for s in (False, True))
    assert exact == pytest.approx(mixed) == pytest.approx(0.8)
    paid = [turn.rewards["oracle/weighted"] for turn in batch[0].turns]
    exactly = [0.2, 0.2, 0.0, -0.2, 0.4, 0.2]
    assert sorted(paid) == pytest.approx(sorted(exactly)) and paid != pytest.approx(exactly)


def test_additive_by_hand():
    """Two groups; outcomes 10 and 0 in the first, 0 and 0 in the second."""
    internal = [[1.0, -1.0], [1.0, 1.0], [1.0, -1.0, 0.0], [0.0]]
    found = additive(internal, [10.0, 0.0, 0.0, 0.0], [0, 0, 1, 1], alpha=0.5)
    pool = np.array([1, -1, 1, 1, 1, -1, 0, 0.0])
    unit = (pool - 0.25) / (pool.std(ddof=1) + 1e-4)
    whole = 5 / (np.std([10, 0], ddof=1) + 1e-4)
    expected = [whole + 0.5 * unit[:2], -whole + 0.5 * unit[2:4], 0.5 * unit[4:7], 0.5 * unit[7:]]
    for a, b in zip(found, expected, strict=True):
        assert a == pytest.approx(b, abs=1e-12)


def test_additive_without_a_step_part_is_grpo():
    batch = [episode([3, 2, 1], won, group=i // 4) for i, won in enumerate([True, False] * 4)]
    combine(batch, [Outcome(weight=10.0), ConstantReward()], 0.0)
    grpo = GRPO()([t for t in batch if combine([t], [Outcome(weight=10.0)], 0.0) is not None])
    for a, b in zip(Additive(alpha=0.0)(batch), grpo, strict=True):
        assert a == pytest.approx(b)
    combine(batch, [Outcome(weight=10.0), ConstantReward()], 0.0)  # the same on every turn: nothing to compare
    for a, b in zip(Additive(alpha=3.0)(batch), grpo, strict=True):
        assert a == pytest.approx(b)


def test_additive_refuses_what_is_not_finite_or_does_not_fit():
    with pytest.raises(ValueError, match="internal: got 1 trajectories; allowed: 2, as outcomes"):
        additive([[1.0]], [0.0, 1.0], [0, 0])
    with pytest.raises(ValueError, match="internal.*finite"):
        additive([[np.inf], [0.0]], [0.0, 1.0], [0, 0])
    assert additive([], [], []) == []


ESTIMATORS = {"grpo": GRPO, "gigpo": GiGPO, "igpo": IGPO, "additive": Additive}


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_the_gate_shuts_out_internal_rewards_where_outcomes_are_alike(kind):
    """Group 0 fails as one, group 1 does not."""
    batch = [episode([5, 4, 4, 3, 3], False, 0), episode([5, 5, 4, 4, 4], False, 0),
             episode([5, 4, 3, 2, 1], False, 1), episode([5, 5, 4, 2, 0], True, 1)]  # fmt: skip
    internal = OraclePotential(shuffled=False)
    combine(batch, [Outcome(weight=10.0), internal], 0.0)
    if kind == "igpo":  # nothing internal on the last turn
        for t in batch:
            t.turns[-1].rewards["oracle/weighted"] = 0.0
    gated, free = ESTIMATORS[kind](gate="outcome")(batch), ESTIMATORS[kind]()(batch)
    assert closed(batch, "outcome") == [True, True, False, False] and closed(batch, "none") == [False] * 4
    assert all(not values.any() for values in gated[:2]) and any(values.any() for values in free[:2])
    assert any(values.any() for values in gated[2:])
    if kind != "additive":  # there the other groups' scale follows from what is counted
        for a, b in zip(gated[2:], free[2:], strict=True):
            assert a == pytest.approx(b, abs=1e-9)


def test_the_strength_of_a_treatment():
    batch = [episode([5, 4, 4, 3, 3], False, 0), episode([5, 5, 4, 2, 0], True, 0)]
    for t in batch:
        t.group = 0
    combine(batch, [Outcome(weight=10.0), OraclePotential(weight=0.0)], 0.0)
    set_advantages(batch, GRPO())
    assert treatment(batch, GRPO()) == {"correlation": pytest.approx(1), "share": 0.0}
    combine(batch, [Outcome(weight=10.0), OraclePotential()], 0.0)
    set_advantages(batch, Additive())
    strong = treatment(batch, Additive())
    assert 0 < strong["correlation"] < 0.99 and strong["share"] == 1.0
    assert batch[0].total_return == pytest.approx(0.4)  # left as it was
    lost = [episode([5, 4, 4], False, 0), episode([5, 5, 4], False, 0)]
    combine(lost, [Outcome(weight=10.0), OraclePotential()], 0.0)
    set_advantages(lost, Additive())
    assert treatment(lost, Additive())["correlation"] is None  # success alone says nothing there


def test_useless_controls_are_refused():
    assert "shuffled does nothing" in OraclePotential(shuffled=True).useless("act", "grpo")
    assert OraclePotential(shuffled=True).useless("act", "additive") is None
    assert RandomReward().knows == ConstantReward().knows == "nothing" and OraclePotential().knows == "the hidden state"
