"""IGPO (arXiv 2510.14967), checked against numbers worked by hand and against plain forward passes."""

import copy
import math
import re
import types

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sglib
from sglib.envs import replay
from sglib.envs.alfworld import TASK_TYPES, FastAlfworld, generate_games
from sglib.models import policy as policies
from sglib.records import Trajectory, Turn
from sglib.rewards import Outcome, combine, igpo
from sglib.rewards.igpo import InformationGain, targets

GAMES = {game.id: game for game in generate_games(4, seed=8)}
TARGETS = ("facts", "plan", "shuffled")


@pytest.fixture(scope="module")
def base():
    return sglib.load_policy("base")


@pytest.fixture(scope="module")
def played(base):
    """Three games of up to four turns, one of a single turn."""
    games = list(GAMES.values())
    long = sglib.rollout(base, games[:3], turns=4, seed=1, options=sglib.Options(truth=False))
    return [*long, *sglib.rollout(base, games[3:], turns=1, seed=2, options=sglib.Options(truth=False))]


@pytest.fixture(autouse=True)
def recorded_nothing(played):
    for trajectory in played:
        for turn in trajectory.turns:
            turn.rewards.clear()


# -- the arithmetic, with numbers in place of a model -----------------------------------------------------------------

WORDS = types.SimpleNamespace(  # a policy in which every word is a token
    encode=lambda text: list(range(10, 10 + len(text.split()))), tokenizer=types.SimpleNamespace(unk_token_id=1)
)


def score_with(monkeypatch, logprobs, **options):
    """The component on one episode whose target, behind a bridge of one word, has these log-probabilities by turn."""
    episode = Trajectory("g", "pick", "goal", "act", [Turn("o", "r", "a", True) for _ in logprobs])
    pieces = [[[("bridge", False), ("word " * len(x), True)] for x in logprobs]]
    monkeypatch.setattr(igpo, "targets", lambda *_: [pieces])
    monkeypatch.setattr(igpo, "branch_logprobs", lambda *_, **__: [[np.array([-100.0, *x]) for x in logprobs]])
    return InformationGain(**options)([episode], WORDS)[0], episode


LOGPROBS = [[-3.0, -1.0], [-1.0, 0.0], [-2.0, -1.0]]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [1.5, -1.0, 0.0]),
        ({"version": "probability"}, [0.471195, -0.383401, 0.0]),
        ({"reduce": "sum"}, [3.0, -2.0, 0.0]),
        ({"reduce": "sum", "version": "probability"}, [0.349564, -0.318092, 0.0]),
    ],
)
def test_gains_worked_by_hand(monkeypatch, options, expected):
    """Three turns, an answer of two tokens; the bridge's -100 does not count.

    At C_0 the tokens have log-probability -3 and -1, at C_1 -1 and 0, at C_2 -2 and -1. s = (-2, -0.5, -1.5), so
    r_1 = -0.5 + 2 = 1.5, r_2 = -1.5 + 0.5 = -1, and turn 3, the last, gets 0. First version: P = (0.135335, 0.606531,
    0.223130), r = 0.471195, -0.383401. With sums (not the paper) s = (-4, -1, -3), r = 3, -2 and, in probability,
    P = (0.018316, 0.367879, 0.049787), r = 0.349564, -0.318092.
    """
    gains, episode = score_with(monkeypatch, LOGPROBS, **options)
    assert gains == pytest.approx(expected, abs=1e-6)
    s = [-4.0, -1.0, -3.0] if options.get("reduce") == "sum" else [-2.0, -0.5, -1.5]
    assert [turn.rewards for turn in episode.turns] == [
        {"igpo/before": s[0], "igpo/after": s[1]}, {"igpo/before": s[1], "igpo/after": s[2]}, {"igpo/before": s[2]}
    ]  # fmt: skip


def test_one_turn_no_turn_and_states_without_a_target(monkeypatch):
    """One turn is the last turn: 0. Where C_1 has no target, neither the gain to it nor the one from it exists: 0."""
    assert score_with(monkeypatch, [[-3.0]])[0] == [0.0]
    assert score_with(monkeypatch, [])[0] == []
    gains, episode = score_with(monkeypatch, [[-3.0], [], [-1.0], [-0.5]])
    assert gains == [0.0, 0.0, 0.5, 0.0] and episode.turns[1].rewards == {"igpo/after": -1.0}


@given(st.lists(st.lists(st.floats(-30, 0), min_size=1, max_size=5), min_size=1, max_size=8), st.booleans())
def test_gains_telescope(logprobs, probability):
    """The sum of the raw gains is s_{T-1} - s_0, or P_{T-1} - P_0."""
    with pytest.MonkeyPatch.context() as patch:
        gains, _ = score_with(patch, logprobs, version="probability" if probability else "logprob")
    first, last = (sum(x) / len(x) for x in (logprobs[0], logprobs[-1]))
    expected = math.exp(last) - math.exp(first) if probability else last - first
    assert len(gains) == len(logprobs) and gains[-1] == 0.0
    assert sum(gains) == pytest.approx(expected, abs=1e-9)


# -- what stands for the answer ---------------------------------------------------------------------------------------

SENTENCE = re.compile(r"On the (\w+ \d+), you see a (\w+ \d+)\.|The (\w+ \d+) is open\. In it, you see a (\w+ \d+)\.")


def read(text):
    """[(thing, receptacle)] of a text made of such sentences."""
    found = [(b or d, a or c) for a, b, c, d in SENTENCE.findall(text)]
    assert SENTENCE.sub("", text).strip() == ""
    return found


@pytest.mark.parametrize("task", TASK_TYPES)
def test_facts_are_true_and_what_the_goal_needs(task):
    for game in generate_games(6, seed=21, tasks=(task,)):
        text = next(replay(game, ())).answer("facts")
        found, taken = read(text), [c.split() for c in game.walkthrough if c.startswith("take ")]
        expected = [(f"{a} {b}", f"{c} {d}") for _, a, b, _, c, d in taken]
        lamps = [pair for pair in found if pair[0].startswith("desklamp")]
        assert [pair for pair in found if pair not in lamps] == expected
        assert len(expected) == (2 if task == "pick_two_obj_and_place" else 1)
        assert len(lamps) == (task == "look_at_obj_in_light")
        for (thing, receptacle), sentence in zip(found, SENTENCE.finditer(text)):  # the engine says so to who looks
            env = next(replay(game, ()))
            seen = env.step(f"go to {receptacle}").text + env.step(f"open {receptacle}").text
            assert sentence[0].rpartition(thing)[0] in seen and re.search(rf"\ba {thing}\b", seen), (seen, thing)


def test_target_texts_are_in_the_small_models_vocabulary(base):
    unknown = base.tokenizer.unk_token_id
    for game in generate_games(40, seed=22, max_receptacles=None):
        text = f"Guidance: {next(replay(game, ())).answer('facts')} {' Action: '.join(game.walkthrough)}"
        assert unknown not in base.encode(text), text


def test_unknown_words_are_counted_and_nothing_breaks(base, played, monkeypatch):
    monkeypatch.setattr(FastAlfworld, "answer", lambda env, name: "you see a zeppelin and a theremin.")
    gains = InformationGain()(played[:1], base, GAMES)[0]
    assert all(map(math.isfinite, gains))
    assert all(turn.rewards["igpo/unknown"] == 2 for turn in played[0].turns)


def test_the_plan_wins_from_where_the_episode_is(base, played):
    for trajectory, texts in zip(played, targets("plan", played, base, GAMES)[0], strict=True):
        assert len(texts) == len(trajectory)
        for t, pieces in enumerate(texts):
            commands = [words.strip() for words, counts in pieces if counts]
            assert "".join(words for words, _ in pieces) == "".join(f"Action: {c}\n" for c in commands)
            *_, env = replay(GAMES[trajectory.game_id], [turn.action for turn in trajectory.turns[:t]])
            assert len(commands) == env.distance()
            for command in commands:
                won = env.step(command).won
            assert won


def test_facts_stay_and_the_shuffled_control_takes_another_games(base, played):
    own, other = (targets(name, played, base, GAMES)[0] for name in ("facts", "shuffled"))
    said = {t.game_id: texts[0][1][0] for t, texts in zip(played, own)}
    for trajectory, texts, control in zip(played, own, other, strict=True):
        assert texts == [[("Guidance:", False), (said[trajectory.game_id], True)]] * len(trajectory)
        assert control == control[:1] * len(trajectory)
        words = control[0][1][0]
        assert words in said.values() and words != said[trajectory.game_id]


def test_the_shuffled_control_prefers_a_text_of_the_same_length():
    """The next by id with as many words, else the next; one's own words, said of another game, are none."""
    facts = {"a": "x y", "b": "one", "c": "z w", "d": "x y"}
    assert igpo._shuffled(facts, WORDS) == {"a": "z w", "b": "z w", "c": "x y", "d": "z w"}
    assert igpo._shuffled(facts | {"b": ""}, WORDS)["a"] == "z w"
    with pytest.raises(ValueError, match="shuffled.*two games"):
        igpo._shuffled({"a": "x y", "b": "x y"}, WORDS)


# -- with the model ---------------------------------------------------------------------------------------------------


def slow_scores(policy, trajectory, texts):
    """s_t by one plain forward pass a turn: the conversation's ids without its last "Action:", then the text."""
    ids, scores = trajectory.prompt_ids + trajectory.completion_ids, []
    for turn, pieces in zip(trajectory.turns, texts):
        context = ids[: len(trajectory.prompt_ids) + turn.span[0] - len(policy.encode("Action:"))]
        kept = []
        for words, counts in pieces:
            for token in policy.encode(words):
                if counts:
                    with torch.no_grad():
                        logits = policy.model(torch.tensor([context], device=policy.device)).logits[0, -1].double()
                    kept.append(float(logits[token] - logits.logsumexp(0)))
                context = [*context, token]
        scores.append(sum(kept) / len(kept))
    return scores


@pytest.mark.parametrize("target", TARGETS)
def test_gains_equal_those_of_plain_forward_passes(base, played, target):
    gains = InformationGain(target=target)(played, base, GAMES)
    probabilities = InformationGain(target=target, version="probability")(played, base, GAMES)
    texts = targets(target, played, base, GAMES)[0]
    for i in (0, 3):  # a long episode and the one of a single turn
        s = slow_scores(base, played[i], texts[i])
        assert gains[i] == pytest.approx([b - a for a, b in zip(s, s[1:])] + [0.0], abs=1e-4)
        assert probabilities[i] == pytest.approx(
            [math.exp(b) - math.exp(a) for a, b in zip(s, s[1:])] + [0.0], abs=1e-4
        )
        assert [turn.rewards["igpo/before"] for turn in played[i].turns] == pytest.approx(s, abs=1e-4)
        assert "igpo/after" not in played[i].turns[-1].rewards


@pytest.mark.parametrize("target", TARGETS)
def test_the_order_of_episodes_changes_nothing(base, played, target):
    gains = InformationGain(target=target)(played, base, GAMES)
    turned = InformationGain(target=target, batch_size=3)(played[::-1], base, dict(reversed(GAMES.items())))
    for one, two in zip(gains, turned[::-1], strict=True):
        assert one == pytest.approx(two, abs=1e-5)


def test_games_are_made_again_where_they_are_not_given(base, played):
    assert InformationGain()(played, base) == InformationGain()(played, base, GAMES)


def test_weights_and_gradients_are_untouched(base, played):
    before = {name: p.detach().clone() for name, p in base.model.named_parameters()}
    InformationGain(target="plan")(played, base, GAMES)
    assert not base.model.training
    assert all(p.grad is None and torch.equal(p, before[name]) for name, p in base.model.named_parameters())


def test_in_a_return_beside_the_outcome(base, played):
    """A plain sum: outcome on the last turn, gains before it; the schedule and the weight act on the gains."""
    gains = InformationGain()(played, base, GAMES)
    component = InformationGain(weight=2.0, schedule=0.25)
    returns = combine(played, [Outcome(), component], u=0.5, policy=base, games=GAMES)
    expected = [10.0 * t.won + 0.5 * sum(row) for t, row in zip(played, gains)]
    assert returns == pytest.approx(expected, abs=1e-5)
    assert played[0].turns[0].rewards["igpo"] == pytest.approx(gains[0][0], abs=1e-6)


def test_a_frozen_scorer_is_asked_in_place_of_the_policy(base, played, monkeypatch):
    policies._load_frozen.cache_clear()
    loads, load = [], policies.load_policy
    monkeypatch.setattr(policies, "load_policy", lambda name, **_: loads.append(name) or load(name))
    trained = copy.deepcopy(base)
    with torch.no_grad():
        for p in trained.model.parameters():
            p.mul_(0.5)
    frozen = InformationGain(frozen="base")
    assert loads == []
    assert frozen(played, trained, GAMES) == InformationGain()(played, base, GAMES) == frozen(played, base, GAMES)
    assert loads == ["base"]
    assert InformationGain()(played, trained, GAMES) != frozen(played, trained, GAMES)
    other = types.SimpleNamespace(tokenizer=types.SimpleNamespace(get_vocab=lambda: {"a": 0}))
    monkeypatch.setattr(igpo, "load_frozen", lambda *_: other)
    with pytest.raises(ValueError, match="frozen='elsewhere': its tokenizer is not that of the policy 'base'"):
        InformationGain(frozen="elsewhere")(played, base, GAMES)


def test_errors(base, played):
    with pytest.raises(ValueError, match="policy=None: component 'igpo'"):
        InformationGain()(played)
    for field in ("version", "target", "reduce"):
        with pytest.raises(ValueError, match=f"{field}\n  Input should be '"):
            InformationGain(**{field: "guess"})
    with pytest.raises(ValueError, match="shuffled"):
        InformationGain(target="shuffled")(played[:1], base, GAMES)
    unknown = copy.copy(played[0])
    unknown.game_id, unknown.origin = "nowhere", None
    with pytest.raises(ValueError, match="'nowhere' is not among them"):
        InformationGain()([unknown], base, GAMES)
