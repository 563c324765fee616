"""Self-Guide (arXiv 2604.03098), checked against numbers worked by hand."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sglib
from sglib import formats
from sglib.advantages.formulas import group_relative, to_tokens
from sglib.envs.alfworld import generate_games
from sglib.models import generate
from sglib.models import policy as policies
from sglib.play import answers as generation
from sglib.play.answers import fill_in, rate
from sglib.records import LABELS, Trajectory, Turn
from sglib.rewards import Component, Constant, Outcome, SelfGuide, Trapezoid, combine, make_schedule

CARD = sglib.envs.get("alfworld")


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
        ({}, ["{}", "kind"]),
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
    @dataclasses.dataclass(frozen=True)
    class Broken(Component):
        name: str = "broken"

        def __call__(self, trajectories, policy=None, games=None):
            return [[float("inf")] * len(t) for t in trajectories]

    episodes = [episode(["neutral"] * 3, won=True)]
    assert combine(episodes, [Outcome(), Broken(schedule=Constant(0.0))], u=0.5) == [10.0]
    with pytest.raises(ValueError, match="broken"):
        combine(episodes, [Broken()], u=0.5)


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


# -- ours: credit, hidden guidance, a frozen rater --------------------------------------------------------------------


def test_credit_on_the_rated_turn_is_the_same_sum_shifted_by_one():
    """Labels (positive, positive, negative, None, positive): the writer's turns get 0, .1, -.1, 0, .1. What they rate
    is the turn before: .1, -.1, 0, .1, and nothing rates the last. Divided by T - 1 = 4: a quarter of it."""
    episodes = [episode(["positive", "positive", "negative", None, "positive"]), episode(["negative"]), episode([])]
    assert SelfGuide()(episodes) == [[0, 0.1, -0.1, 0, 0.1], [0], []]
    assert SelfGuide(credit="rated")(episodes) == [[0.1, -0.1, 0, 0.1, 0], [0], []]
    assert SelfGuide(credit="rated", length_normalized=True)(episodes)[0] == [0.025, -0.025, 0, 0.025, 0]
    options = {"components": [SelfGuide(schedule="one", credit="rated")], "u": 0.5}
    assert combine(episodes, **options) == combine(episodes, [SelfGuide(schedule="one")], u=0.5)
    with pytest.raises(ValueError, match="credit\n  Input should be 'writer' or 'rated'"):
        SelfGuide(credit="reader")


@pytest.fixture(scope="module")
def base():
    return sglib.load_policy("base")


@pytest.fixture(scope="module")
def played(base):
    """Ragged: an episode of three turns between longer ones, and one in the format `guide`."""
    games = generate_games(3, seed=8, max_receptacles=8)
    short = sglib.rollout(base, games[:1], format="act", turns=3, seed=2)
    return [*sglib.rollout(base, games, format="act", turns=6, seed=2), *short]


@pytest.fixture(scope="module")
def other(base):
    """The base model after some training: its weights moved."""
    policy = copy.deepcopy(base)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight += 0.03 * torch.randn(weight.shape, generator=generator)
    return policy


def slow_labels(policy, trajectory):
    """Reference: render the conversation anew at every turn, re-read all of it for every token, write whole answers."""
    messages, labels = formats.opening("guide", CARD, trajectory.turns[0].observation, policy.compact), []
    for t, turn in enumerate(trajectory.turns):
        if t:
            messages.append({"role": "user", "content": CARD.shown(turn.observation)})
        prompt, answer = policy.prompt_ids(messages, "Guidance:"), []
        while len(answer) < 32 and (not answer or answer[-1] not in policy.stop_ids):
            with torch.no_grad():
                answer.append(int(policy.model(torch.tensor([prompt + answer])).logits[0, -1].argmax()))
        text = f"Guidance: {policy.decode(answer)}"
        labels.append(formats.parse("guide", text).label)
        messages.append({"role": "assistant", "content": f"{text.split(' Action:')[0]} Action: {turn.action}"})
    return labels


def test_rate_equals_a_plain_loop_without_a_cache(other, played):
    base = sglib.load_policy("base_v1")  # writes all three labels
    guided = sglib.rollout(base, generate_games(1, seed=9, max_receptacles=8), format="guide", turns=4, seed=2)
    episodes = [*played, *guided, Trajectory("g", "pick", "goal", "act")]
    for policy in (base, other):
        labels = rate(policy, episodes, temperature=0.0)
        assert labels == [slow_labels(policy, t) if len(t) else [] for t in episodes]
        assert labels == [rate(policy, [t], temperature=0.0)[0] for t in episodes]
    assert {label for t in rate(base, episodes, temperature=0.0) for label in t} > {"neutral"}


def test_rate_reads_what_the_policy_itself_would_have_read(base, monkeypatch):
    """Greedily the side reading of one's own `guide` episode is that episode, token by token up to the last label."""
    games = generate_games(3, seed=8, max_receptacles=8)
    guided = sglib.rollout(base, games, format="guide", turns=6, temperature=0.0)
    seen, fill = [], generation.fill_in
    monkeypatch.setattr(generation, "fill_in", lambda *a, **k: seen.extend([a[1], fill(*a, **k)]) or seen[1])
    assert rate(base, guided, temperature=0.0) == [[turn.label for turn in t.turns] for t in guided]
    for t, pieces, blanks in zip(guided, *seen, strict=True):
        read = [token for piece, blank in zip(pieces, blanks) for token in [*piece, *base.encode(blank)]]
        assert (t.prompt_ids + t.completion_ids)[: len(read)] == read
        assert base.decode(read).endswith(f"Label: {t.turns[-1].label}")


def test_fill_in_forgets_what_lies_behind_the_end(base, played, monkeypatch):
    """A blank keeps one word and is cut once five more are there; what comes next is predicted from the text as cut."""
    prompt = base.prompt_ids(formats.opening("guide", CARD, played[0].turns[0].observation, True), "Guidance:")
    pieces = [prompt, base.encode(" Label: negative Action:"), base.encode(" Guidance: look Label:")]
    predicted, feed = [], generate.feed
    monkeypatch.setattr(generate, "feed", lambda *a: predicted.append((a[2], feed(*a))) or predicted[-1][1])
    blanks = fill_in(base, [pieces], [[0]], end=r"(?<=\S)( \S+){5}", max_new_tokens=12, temperature=0.0)[0]
    first = [logits[0] for tokens, logits in predicted if len(tokens[0]) > 1]  # those behind a piece
    assert len(first) == 3 and len(predicted) > 9
    ids = []
    for piece, blank, logits in zip(pieces, blanks, first, strict=True):
        ids = ids + piece
        with torch.no_grad():
            assert torch.allclose(base.model(torch.tensor([ids])).logits[0, -1], logits, atol=1e-3)
        assert base.encode(blank)[0] == int(logits.argmax())
        ids += base.encode(blank)


def test_rate_stops_where_the_context_is_full(base, played, monkeypatch):
    labels = rate(base, played[:1], temperature=0.0)[0]
    room = len(base.prompt_ids(formats.opening("guide", CARD, played[0].turns[0].observation, True), "Guidance:")) + 60
    monkeypatch.setattr(base, "limit", room)
    full = rate(base, played[:1], temperature=0.0)[0]
    known = next(i for i, label in enumerate(full) if label is None)
    assert 0 < known < len(labels) == len(full) and full == labels[:known] + [None] * (len(labels) - known)


def test_hidden_labels_change_nothing_but_rewards_and_missing_labels(base, played):
    episodes, component = copy.deepcopy(played), SelfGuide(schedule="one", hidden=True)
    combine(episodes, [Outcome(), component], 0.5, base)
    g = {"positive": 0.1, "neutral": 0.0, "negative": -0.1}
    for after, before in zip(episodes, played, strict=True):
        assert any(turn.label in LABELS for turn in after.turns)
        values = [turn.rewards["self_guide"] for turn in after.turns]
        assert values == [0.0] + [g.get(turn.label, 0.0) for turn in after.turns[1:]]
        for turn in after.turns:
            assert turn.rewards.get("self_guide/label") == g.get(turn.label)
        a, b = after.to_dict(), before.to_dict()
        assert {k for k in a if a[k] != b[k]} == {"turns", "total_return"}
        for a, b in zip(after.to_dict()["turns"], before.to_dict()["turns"], strict=True):
            assert {k for k in a if a[k] != b[k]} <= {"rewards", "label"}
    shifted = SelfGuide(hidden=True, credit="rated")(copy.deepcopy(played), base)
    assert shifted == [[*(turn.rewards["self_guide"] for turn in t.turns[1:]), 0.0] for t in episodes]
    assert component.needs_format is None and SelfGuide().needs_format == "guide"


def test_side_readings_belong_to_their_episodes_in_any_order(base, played):
    component = SelfGuide(hidden=True)
    values = component(copy.deepcopy(played), base)
    assert component(copy.deepcopy(played), base) == values
    assert component(copy.deepcopy(played[::-1]), base) == values[::-1]
    assert component(copy.deepcopy(played[2:3]), base) == values[2:3]
    assert SelfGuide(hidden=True, seed=1)(copy.deepcopy(played), base) != values
    later = [dataclasses.replace(t, seed=t.seed + 1) for t in copy.deepcopy(played)]
    assert component(later, base) != values, "the same actions in another iteration are rated anew"


def test_frozen_rater_stays_when_the_policy_changes(base, other, played, monkeypatch):
    loaded, load = [], policies.load_policy
    monkeypatch.setattr(policies, "load_policy", lambda *a, **k: loaded.append(a) or load(*a, **k))
    policies._load_frozen.cache_clear()
    component = SelfGuide(hidden=True, frozen="base")
    before = repr(component)
    values = component(copy.deepcopy(played), base)
    assert component(copy.deepcopy(played), other) == values == component(copy.deepcopy(played), None)
    assert values == SelfGuide(hidden=True)(copy.deepcopy(played), base)
    assert values != SelfGuide(hidden=True)(copy.deepcopy(played), other)
    assert len(loaded) == 2 and repr(component) == before, "once for each device asked for; None is its own"


def test_frozen_rater_is_paid_and_the_actors_own_labels_stay(base):
    games = generate_games(2, seed=8, max_receptacles=8)
    guided = sglib.rollout(base, games, format="guide", turns=6, seed=4)
    own = [[turn.label for turn in t.turns] for t in guided]
    component = SelfGuide(frozen="base", temperature=0.0)
    labels = rate(base, guided, temperature=0.0)
    g = {"positive": 0.1, "neutral": 0.0, "negative": -0.1}
    assert component(guided, base) == [[0.0] + [g.get(x, 0.0) for x in t[1:]] for t in labels]
    assert own == [[turn.label for turn in t.turns] for t in guided] and own != labels
    recorded = [[turn.rewards["self_guide/label"] for turn in t.turns] for t in guided]
    assert recorded == [[g[label] for label in t] for t in labels]


def test_hidden_errors(played):
    with pytest.raises(ValueError, match="hidden: got episodes in the format 'guide'"):
        SelfGuide(hidden=True)([episode(["neutral"])], object())
    with pytest.raises(ValueError, match="hidden: policy=None"):
        SelfGuide(hidden=True)(played)


@pytest.mark.parametrize("what", [{"temperature": 0.5}, {"seed": 3}])
def test_settings_of_a_side_reading_are_refused_where_there_is_none(what):
    with pytest.raises(ValueError, match=f"{next(iter(what))}: .*allowed: only with hidden or frozen"):
        SelfGuide(**what)
    SelfGuide(**what, hidden=True), SelfGuide(**what, frozen="base")
