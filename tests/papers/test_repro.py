"""RePro (arXiv 2606.14302), checked against numbers worked by hand."""

import copy
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sglib
from sglib import formats
from sglib.envs.alfworld import generate_games
from sglib.records import Trajectory, Turn
from sglib.rewards import Outcome, combine, repro
from sglib.rewards.repro import TERMS, ProgressFormat, ProgressReward, RePro, discrimination

GAMES = generate_games(4, seed=8, max_receptacles=8)


def episode(stated, won=False, name="g", group=0):
    turns = [
        Turn("o", "r", "look", True, progress=x, parse_error="bad_progress" if x is None else None) for x in stated
    ]
    return Trajectory(name, "pick", "goal", "progress", turns=turns, won=won, group=group)


def pay(component, episodes, answers, **options):
    """The component's values where the policy's retrospection of the game `name` reads `answers[name]`."""
    policy = SimpleNamespace(compact=True, prompt_ids=lambda messages, prefix="": [1], encode=lambda text: [1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repro, "stream_of", lambda trajectory, seed: trajectory.game_id)
        patch.setattr(repro, "fill_in", lambda policy, asked, names, **_: [[answers[name]] for name in names])
        if options:
            return combine(episodes, [Outcome(), component], policy=policy, **options)
        return component(episodes, policy)


def test_each_term_and_all_together():
    """Won in four turns; stated 0, 30, unreadable, 80 %; in hindsight 25, 50, 40, 100 %, so P = 0, .25, .5, .4, 1.

    r_p = P_t - P_{t-1} = .25, .25, -.1, .6, together P_T = 1. r_align = -.1 |p~_t - P_{t-1}| = 0 (stated 0 at the
    start, where P_0 = 0), -.1 |.3 - .25| = -.005, 0 (nothing stated), -.1 |.8 - .4| = -.04. r_format = -.1 on turn 3.
    All: .25, .245, -.2, .56, together .855; with a success of 10 the return is 10.855.
    """
    expected = {"progress": [0.25, 0.25, -0.1, 0.6], "align": [0, -0.005, 0, -0.04], "format": [0, 0, -0.1, 0]}
    won, answers = episode([0, 30, None, 80], won=True), {"g": "25 50 40 100"}
    for term in TERMS:
        assert pay(RePro(terms=(term,)), [won], answers)[0] == pytest.approx(expected[term], abs=1e-12)
        recorded = {name: [turn.rewards[f"repro/{name}"] for turn in won.turns] for name in TERMS}
        assert recorded == {name: pytest.approx(expected[name] if name == term else [0] * 4) for name in TERMS}
    assert pay(RePro(), [won], answers)[0] == pytest.approx([0.25, 0.245, -0.2, 0.56], abs=1e-12)
    assert [turn.rewards["repro/retrospective"] for turn in won.turns] == [25, 50, 40, 100]
    assert pay(RePro(), [won], answers, u=0.5) == pytest.approx([10.855])
    assert pay(RePro(alpha=1, beta=2, terms=("align", "progress")), [won], answers)[0] == pytest.approx(
        [0.5, 0.45, -0.2, 0.8]
    )


def test_boundary_conditions():
    """Lost in two turns, stated 10, 20 %; in hindsight 60, 100 %: P_1 = .6 > .5 costs .1 on turn 1, P_T = 1 after a
    failure .1 on turn 2. r_p = .6, .4; r_align = -.1 (.1), -.1 |.2 - .6| = -.01, -.04. All: .49, .26.

    Won and rated 90 % at the end costs .1 on the last turn. Won in one turn, 100 %: the first is the last, no fault.
    """
    assert pay(RePro(), [episode([10, 20])], {"g": "60 100"})[0] == pytest.approx([0.49, 0.26])
    only = RePro(terms=("format",))
    assert pay(only, [episode([10, 20])], {"g": "50 99"}) == [[0, 0]]
    assert pay(only, [episode([10, 20], won=True)], {"g": "50 90"}) == [[0, -0.1]]
    assert pay(only, [episode([10, 20], won=True)], {"g": "50 100"}) == [[0, 0]]
    assert pay(only, [episode([10], won=True)], {"g": "100"}) == [[0]]
    assert pay(RePro(terms=("format",), first_at_most=0.2), [episode([10, 20])], {"g": "30 40"}) == [[-0.1, 0]]


@pytest.mark.parametrize("answer", ["", "25 50 40", "25 50 40 60 100", "25 50 40 170", "no idea"])
def test_an_unreadable_list_pays_only_the_penalty(answer):
    """Four turns, the third unreadable: -.1 there, and -.1 on the last turn for the list. What an earlier, readable
    list had recorded is gone."""
    won = episode([0, 30, None, 80], won=True)
    pay(RePro(), [won], {"g": "25 50 40 100"})
    assert pay(RePro(), [won], {"g": answer}) == [[0, 0, -0.1, -0.1]]
    assert all("repro/retrospective" not in turn.rewards for turn in won.turns)
    assert pay(RePro(), [episode([None])], {"g": answer}) == [[-0.2]]
    assert pay(RePro(terms=("progress", "align")), [won], {"g": answer}) == [[0, 0, 0, 0]]


percent = st.integers(0, 100)


@given(
    st.lists(st.tuples(percent | st.none(), percent), min_size=1, max_size=8),
    st.booleans(),
    st.floats(0, 2), st.floats(0, 2), st.floats(0, 1), st.floats(0, 1),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_against_brute_force_and_terms_alone_sum_to_the_whole(steps, won, alpha, beta, penalty, first):
    stated, listed = [s for s, _ in steps], [p for _, p in steps]
    options = {"alpha": alpha, "beta": beta, "format_penalty": penalty, "first_at_most": first}
    answers = {"g": " ".join(map(str, listed))}
    whole = pay(RePro(**options), [episode(stated, won)], answers)[0]
    expected = []
    for t in range(1, len(steps) + 1):
        now, before = listed[t - 1] / 100, listed[t - 2] / 100 if t > 1 else 0
        value = beta * (now - before)
        if stated[t - 1] is None:
            value -= penalty
        else:
            value -= alpha * abs(stated[t - 1] / 100 - before)
        if t == 1 and len(steps) > 1 and now > first:
            value -= penalty
        if t == len(steps) and won is not (listed[t - 1] == 100):
            value -= penalty
        expected.append(value)
    assert whole == pytest.approx(expected, abs=1e-9)
    alone = [pay(RePro(terms=(term,), **options), [episode(stated, won)], answers)[0] for term in TERMS]
    assert np.sum(alone, axis=0) == pytest.approx(whole, abs=1e-9)
    assert sum(pay(RePro(terms=("progress",), **options), [episode(stated, won)], answers)[0]) == pytest.approx(
        beta * listed[-1] / 100, abs=1e-9
    )


def test_format_only_baseline():
    """L1: -.1 on each turn that cannot be read, whatever the policy would say afterwards."""
    assert ProgressFormat()([episode([0, None, 50, None]), episode([])]) == [[0, -0.1, 0, -0.1], []]


def test_predicted_progress_baseline():
    """L2, stated 10, 40, unreadable, 30, 90: turn t earns p~_{t+1} - p~_t = .3, 0 (nothing new), -.1, .6, and 0 at the
    end; the sum is .9 - .1 = .8. Unreadable first: the number after it holds. Never readable: 0."""
    values = ProgressReward()([episode([10, 40, None, 30, 90]), episode([None, 50, 70]), episode([None]), episode([])])
    assert values[0] == pytest.approx([0.3, 0, -0.1, 0.6, 0]) and sum(values[0]) == pytest.approx(0.8)
    assert values[1:] == [pytest.approx([0, 0.2, 0]), [0], []]
    assert ProgressReward(beta=2)([episode([10, 40])])[0] == pytest.approx([0.6, 0])


def test_weight_zero_adds_nothing_and_is_recorded():
    won = episode([0, 30], won=True)
    assert pay(RePro(weight=0.0), [won], {"g": "40 100"}, u=0.5) == [10.0]
    assert won.turns[1].rewards["repro"] == pytest.approx(0.59) and won.turns[1].rewards["repro/weighted"] == 0.0


def test_values_belong_to_their_episodes_in_any_order():
    answers = {"a": "20 100", "b": "10 20 30", "c": "", "d": ""}
    episodes = [episode([0, 30], True, "a"), episode([0, 5, 10], False, "b"), episode([0], False, "c"), episode([])]
    episodes[3].game_id = "d"
    expected = pay(RePro(), episodes, answers)
    for order in itertools.permutations(range(4)):
        assert pay(RePro(), [episodes[i] for i in order], answers) == [expected[i] for i in order]
    assert expected[3] == []


def test_intermediate_discrimination():
    """Won, rated 20, 60, 100: intermediate 20 and 60. Lost, rated 10, 30, 20 and 0, 0: 10, 30 and 0. 40 - 40/3."""
    episodes = [episode([0] * 3, True, "a"), episode([0] * 3, False, "b"), episode([0] * 2, False, "c")]
    assert discrimination(episodes) is None
    pay(RePro(), episodes, {"a": "20 60 100", "b": "10 30 20", "c": "0 0"})
    assert discrimination(episodes) == pytest.approx(40 - 40 / 3)
    assert discrimination(episodes[:1]) is None


def test_errors_name_field_value_and_allowed():
    with pytest.raises(ValueError, match="terms.0\n  Input should be 'progress', 'align' or 'format'"):
        RePro(terms=("alignment",))
    for options in ({"terms": ()}, {"terms": ("align", "align")}, {"alpha": -1}, {"first_at_most": 2}, {"answer": "x"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            RePro(**options)
    with pytest.raises(ValueError, match="policy=None"):
        RePro()([episode([0])])
    act = episode([None])
    act.format = "act"
    for component in (RePro(terms=("align",)), ProgressFormat(), ProgressReward()):
        with pytest.raises(ValueError, match="format 'act'; allowed: 'progress'"):
            component([act], object())
    assert pay(RePro(terms=("progress",)), [act], {"g": "30"}) == [[0.3]], "hindsight alone needs no stated progress"


# -- the real base model --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base():
    return sglib.load_policy("base")


@pytest.fixture(scope="module")
def played(base):
    return sglib.rollout(base, GAMES, format="progress", turns=5, seed=2)


@pytest.mark.parametrize("answer", ["list", "steps"])
def test_end_to_end_on_the_base_model(base, played, answer):
    """Finite, the same again, the same in another order and for one episode alone; episodes keep their tokens."""
    episodes, component = copy.deepcopy(played), RePro(answer=answer, temperature=1.0)
    returns = combine(episodes, [Outcome(), component], 0.5, base)
    values = [[turn.rewards["repro"] for turn in t.turns] for t in episodes]
    assert np.isfinite(returns).all()
    assert component(episodes, base) == values
    assert component(episodes[::-1], base) == values[::-1]
    assert component(episodes[1:2], base) == values[1:2]
    assert [t.completion_ids for t in episodes] == [t.completion_ids for t in played]
    for t in episodes:
        for turn in t.turns:
            assert turn.rewards["repro"] == sum(turn.rewards[f"repro/{term}"] for term in TERMS)


def test_filled_in_steps_equal_a_plain_loop_without_a_cache(base, played):
    """Reference: re-read everything for every number. A blank that is no number is left empty and forgotten."""
    asked = [repro._asked(base, t, "steps") for t in played]
    filled = repro.fill_in(
        base, asked, [[0]] * len(asked), end=r"(?<=\d)\s|[^\d\s]", max_new_tokens=2, temperature=0.0
    )
    for pieces, blanks, trajectory in zip(asked, filled, played, strict=True):
        assert len(blanks) == len(trajectory)
        ids = []
        for piece, blank in zip(pieces, blanks, strict=True):
            ids = ids + piece
            with torch.no_grad():
                first = int(base.model(torch.tensor([ids])).logits[0, -1].argmax())
            number = base.decode([first])
            assert blank == (number if number.isdigit() else "")
            ids += [first] if blank else []
        lists = repro.retrospect(base, [trajectory], answer="steps")
        assert lists == [[float(b) for b in blanks] if all(blanks) else None]


def test_warmup_teaches_what_is_asked(base, played):
    """The annotated progress is what is learned, at the places where the policy will write it."""
    for answer in ("list", "steps"):
        for t in played:
            example = repro.retrospect_example(base, t, answer)
            given = [i for i, label in zip(example["input_ids"], example["labels"]) if label == repro.IGNORE]
            learned = [label for label in example["labels"] if label != repro.IGNORE]
            assert given == [i for piece in repro._asked(base, t, answer) for i in piece]
            text = base.decode(learned)
            assert formats.parse_retrospect(text, len(t))[0] == repro.annotate(t)[1:]
            assert learned[-1] in base.stop_ids
