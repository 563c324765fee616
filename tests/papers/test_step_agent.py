"""StepAgent (arXiv 2411.03817), checked against numbers worked by hand and against slow, plain code."""

import copy
import dataclasses
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sglib
from sglib.envs import replay
from sglib.envs.alfworld import generate_games
from sglib.play.answers import generate
from sglib.play.rollout import rollout
from sglib.records import Trajectory, Turn
from sglib.rewards import check_environment, combine
from sglib.rewards.step_agent import (
    IGNORE,
    InverseReward,
    conversation,
    expert_answers,
    expert_examples,
    expert_turns,
    fit_discriminator,
    implicit_loss,
    inspect_steps,
    step_features,
)
from sglib.training.sft import sft

CARD = sglib.envs.get("alfworld")


@pytest.fixture(scope="module")
def policy():
    return sglib.load_policy("base", device="cpu")


@pytest.fixture(scope="module")
def games():
    return generate_games(4, seed=3, max_receptacles=6)


@pytest.fixture(scope="module")
def played(policy, games):
    return rollout(policy, games, group=2, turns=6, seed=0, options=sglib.Options(truth=False))


def episode_of(game, turns):
    """A trajectory with these (observation, action)."""
    return Trajectory(game.id, game.task_type, "", "act", [Turn(o, "", a, True) for o, a in turns])


# -- the implicit reward -------------------------------------------------------------------------------------------


def test_implicit_loss_by_hand():
    """Two steps, beta 0.1.

    The expert's answer gained 1 nat over the reference and the policy's own lost 1: the margin is 0.1 * (1 + 1) = 0.2,
    the loss log(1 + e^-0.2) = 0.598139. The expert's answer is as likely as before and the own one gained 5: the margin
    is -0.5, the loss log(1 + e^0.5) = 0.974077. Their mean is 0.786108. Before any training it is log 2.
    """
    assert implicit_loss([-2, -4], [-5, -1], [-3, -4], [-4, -6], beta=0.1) == pytest.approx(0.786108, abs=1e-6)
    assert implicit_loss([-2, -4], [-5, -1], [-2, -4], [-5, -1], beta=0.1) == pytest.approx(math.log(2))


LOGP = st.floats(-40, 0)


@given(st.lists(st.tuples(LOGP, LOGP, LOGP, LOGP), min_size=1, max_size=8), st.floats(0.01, 2))
def test_implicit_loss_against_brute_force(rows, beta):
    total = 0.0
    for expert, agent, ref_expert, ref_agent in rows:
        x = beta * math.log(math.exp(expert) / math.exp(ref_expert))
        x -= beta * math.log(math.exp(agent) / math.exp(ref_agent))
        total -= math.log(1 / (1 + math.exp(-x)))
    assert implicit_loss(*zip(*rows), beta) == pytest.approx(total / len(rows), rel=1e-6, abs=1e-9)


# -- inspection ----------------------------------------------------------------------------------------------------


def test_inspection_along_the_expert_against_one_prompt_at_a_time(policy, games):
    """Each prompt is written anew from the replayed game; the most likely answer is asked for alone."""
    pairs, counts = inspect_steps(policy, games, temperature=0)
    expected, compared = [], 0
    for game in games:
        ids, turn = [], 0
        env = next(replay(game, ()))
        while not env.done:
            text = sglib.envs.get("alfworld").shown(env.observation.text)
            if turn:
                ids = ids + policy.between_ids(text, "Action:")
            else:
                ids = policy.prompt_ids([{"role": "system", "content": "act"}, {"role": "user", "content": text}])
                ids = ids + policy.encode("Action:")
            own = generate(policy, [ids], max_new_tokens=12, temperature=0)[0]
            wanted = env.expert("optimal")
            answers = [policy.encode(text) + policy.stop_ids for text in (wanted, own)]
            if own != wanted:
                expected.append((ids, *answers, wanted, own, game.id, turn))
            ids, turn, compared = ids + answers[0], turn + 1, compared + 1
            env.step(wanted)
    assert [tuple(pair) for pair in pairs] == expected
    assert counts == {"compared": compared, "identical": compared - len(pairs)} and 0 < len(pairs) < compared
    backwards, same_counts = inspect_steps(policy, games[::-1], temperature=0)
    assert sorted(backwards) == sorted(pairs) and same_counts == counts


def test_inspection_along_the_policy(policy, games, played):
    """The states are those of `rollout`, token for token, and the expert is the one of the replayed game."""
    pairs, counts = inspect_steps(policy, games, states="own", expert="explore", max_turns=6, seed=5)
    episodes = {t.game_id: t for t in rollout(policy, games, turns=6, seed=5)}
    by_id = {game.id: game for game in games}
    for pair in pairs:
        t = episodes[pair.game_id]
        turn = t.turns[pair.turn]
        answer = t.completion_ids[slice(*turn.span)]
        assert pair.prompt_ids + answer == t.prompt_ids + t.completion_ids[: turn.span[1]]
        assert pair.agent_ids == answer and pair.agent_action == turn.action != pair.expert_action
        *_, env = replay(by_id[pair.game_id], [u.action for u in t.turns[: pair.turn]])
        assert pair.expert_action == env.expert("explore")
    steps = [turn for t in episodes.values() for turn in t.turns]
    assert counts["compared"] == len(steps) and counts["identical"] == len(steps) - len(pairs) and pairs
    assert inspect_steps(policy, games, states="own", expert="explore", max_turns=6, seed=5)[0] == pairs


def test_expert_examples_learn_the_expert_and_nothing_else(policy, games):
    for game, example in zip(games, expert_examples(policy, games), strict=True):
        actions = [action for _, action in expert_turns(game)]
        learned = [i for i in example["labels"] if i != IGNORE]
        assert policy.decode(learned) == " ".join(actions) and learned.count(policy.stop_ids[0]) == len(actions)
        assert all(label in (IGNORE, token) for token, label in zip(example["input_ids"], example["labels"]))
        *_, env = replay(game, actions)
        assert env.won and len(actions) == len(game.walkthrough)
    sft(copy.deepcopy(policy), [example], batch_size=1)  # the rows are what it takes


# -- the discriminator ---------------------------------------------------------------------------------------------


def discriminator_objective(d_agent, d_expert):
    """E_pi[log D(s, a)] + E_e[log(1 - D(s, a))], D of the policy's steps and of the expert's."""
    return float(np.log(d_agent).mean() + np.log1p(np.negative(d_expert)).mean())


def test_discriminator_objective_by_hand():
    """D of the policy's steps 0.8, 0.5, of the expert's 0.2, 0.6: (log 0.8 + log 0.5) / 2 = -0.458145 and
    (log 0.8 + log 0.4) / 2 = -0.569717, together -1.027862. A D that knows nothing gets 2 log 0.5 = -1.386294."""
    assert discriminator_objective([0.8, 0.5], [0.2, 0.6]) == pytest.approx(-1.027862, abs=1e-6)
    assert discriminator_objective([0.5], [0.5, 0.5]) == pytest.approx(-1.386294, abs=1e-6)


def test_discriminator_and_reward_by_hand():
    """One feature, 1 for the policy and -1 for the expert, l2 = 1 / (2 log 3).

    With b = 0 by symmetry, -2 log(1 + e^-w) - l2 w^2 / 2 is greatest where 2 / (1 + e^w) = l2 w: at w = log 3 both are
    1/2. So D(1) = 3/4 and D(-1) = 1/4: the rewards are -log 3/4 = 0.287682 and -log 1/4 = 1.386294.
    """
    w, b = fit_discriminator(np.array([[1.0]]), np.array([[-1.0]]), l2=1 / (2 * math.log(3)))
    assert w == pytest.approx([math.log(3)], abs=1e-6) and b == pytest.approx(0, abs=1e-6)
    assert [math.log(1 + math.exp(-(x * w[0] + b))) for x in (1, -1)] == pytest.approx([0.287682, 1.386294], abs=1e-6)


def test_best_discriminator_is_the_ratio_of_frequencies():
    """Feature 1 in 3 of 4 steps of the policy and in 2 of 8 of the expert: D(1) = 0.75 / (0.75 + 0.25) = 0.75, and
    D(0) = 0.25 / (0.25 + 0.75) = 0.25, however many steps each has."""
    agent, expert = np.array([1.0, 1, 1, 0])[:, None], np.array([1.0, 1, 0, 0, 0, 0, 0, 0])[:, None]
    w, b = fit_discriminator(agent, expert, l2=1e-9)
    d = 1 / (1 + np.exp(-(np.array([1.0, 0.0]) * w[0] + b)))
    assert d == pytest.approx([0.75, 0.25], abs=1e-5)
    best = discriminator_objective(d[[0, 0, 0, 1]], d[[0, 0, 1, 1, 1, 1, 1, 1]])
    for other in ([0.7, 0.25], [0.75, 0.3], [0.6, 0.4]):
        o = np.array(other)
        assert discriminator_objective(o[[0, 0, 0, 1]], o[[0, 0, 1, 1, 1, 1, 1, 1]]) < best


@given(st.integers(0, 100))
def test_discriminator_does_not_depend_on_order_and_is_the_best(seed):
    rng = np.random.default_rng(seed)
    agent, expert = rng.normal(0.5, 1, (int(rng.integers(1, 12)), 3)), rng.normal(0, 2, (int(rng.integers(1, 12)), 3))
    w, b = fit_discriminator(agent, expert, 0.3)
    again = fit_discriminator(rng.permutation(agent), rng.permutation(expert), 0.3)
    assert np.allclose(again[0], w, atol=1e-4) and again[1] == pytest.approx(b, abs=1e-4)
    spread = np.concatenate([agent, expert]).std(0)

    def score(w, b):
        da, de = (1 / (1 + np.exp(-(x @ w + b))) for x in (agent, expert))
        return discriminator_objective(da, de) - 0.15 * ((w * spread) ** 2).sum()

    for _ in range(5):
        assert score(w + rng.normal(0, 0.05, 3), b + rng.normal(0, 0.05)) <= score(w, b) + 1e-9


def test_features_are_the_last_hidden_states_and_others_are_read_in_their_place(policy, played):
    turns = [(turn.observation, turn.action) for turn in played[0].turns]
    others = ["look", *(f"go to drawer {i}" for i in range(1, len(turns)))]
    rows = step_features(policy, CARD, turns, others)
    ids, spans = conversation(policy, CARD, turns)
    with torch.no_grad():
        hidden = policy.model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0]
    assert np.allclose(rows[: len(turns)], hidden[[end - 2 for _, end in spans]], atol=1e-4)
    for t, other in enumerate(others):
        alone = step_features(policy, CARD, [*turns[:t], (turns[t][0], other)])[-1]
        assert np.allclose(rows[len(turns) + t], alone, atol=1e-4)


def test_discriminator_knows_the_expert_from_random_actions(policy):
    """In the same states, on games that it was not fitted to; measured 0.73 on 68 of each."""
    rng, rows = random.Random(0), []
    for game in generate_games(24, seed=9, max_receptacles=6):
        turns = expert_turns(game)
        choices = [env.admissible() for _, env in zip(turns, replay(game, [a for _, a in turns]))]
        rows.append(np.split(step_features(policy, CARD, turns, [rng.choice(c) for c in choices]), 2))
    expert, agent = ([np.concatenate(half) for half in (r[:12], r[12:])] for r in zip(*rows))
    w, b = fit_discriminator(agent[0], expert[0], 0.3)
    assert ((agent[1] @ w + b >= 0).mean() + (expert[1] @ w + b < 0).mean()) / 2 > 0.6


# -- the inverse reward --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("states", ["expert", "own"])
def test_inverse_reward_is_minus_log_d(policy, games, played, states):
    by_id = {game.id: game for game in games}
    component = InverseReward(states=states, expert="explore")
    episodes = copy.deepcopy(played)
    values = component(episodes, policy, by_id)
    assert [len(v) for v in values] == [len(t) for t in episodes]
    d = [turn.rewards["step_agent/D"] for t in episodes for turn in t.turns]
    assert sum(values, []) == pytest.approx([min(5.0, -math.log(x)) for x in d], abs=1e-6)
    assert len(set(d)) > len(d) / 2 and 0 <= component.last_accuracy <= 1
    # the same by hand: which half is fitted to, its features, D of every step
    half = np.random.default_rng(0).permutation(sorted(by_id)).tolist()[:2]
    mine, theirs = [], []
    for t in played:
        if t.game_id in half:
            turns, game = [(turn.observation, turn.action) for turn in t.turns], by_id[t.game_id]
            mine.append(step_features(policy, CARD, turns))
            if states == "own":
                wanted = expert_answers(game, [action for _, action in turns], "explore")
                turns = [[*turns[:i], (o, a)] for i, ((o, _), a) in enumerate(zip(turns, wanted))]
                theirs += [step_features(policy, CARD, one)[-1:] for one in turns]
            else:
                theirs.append(step_features(policy, CARD, expert_turns(game, "explore")))
    w, b = fit_discriminator(np.concatenate(mine), np.concatenate(theirs), 0.3)
    for t, value in zip(played, values):
        x = step_features(policy, CARD, [(turn.observation, turn.action) for turn in t.turns])
        assert np.allclose(value, np.minimum(5.0, np.log1p(np.exp(-(x @ w + b)))), atol=1e-3)


def test_inverse_reward_order_repetition_clip_and_recipe(policy, games, played):
    """Episodes in any order; asked again; clipped; games made again by their recipe; in `combine`."""
    component = InverseReward()
    values = component(copy.deepcopy(played), policy, {game.id: game for game in games})
    order = np.random.default_rng(1).permutation(len(played)).tolist()
    shuffled = InverseReward()(copy.deepcopy([played[i] for i in order]), policy)
    for i, value in zip(order, shuffled):
        assert value == pytest.approx(values[i], abs=1e-4)
    assert component(copy.deepcopy(played), policy) == values
    clipped = InverseReward(clip=0.5, centered=True)(copy.deepcopy(played), policy)
    expected = [min(r, 0.5) - math.log(2) for v in values for r in v]
    assert sum(clipped, []) == pytest.approx(expected, abs=1e-6) and max(expected) == pytest.approx(0.5 - math.log(2))
    episodes = copy.deepcopy(played)
    returns = combine(episodes, [InverseReward(weight=2.0)], 0.5, policy)
    assert returns == pytest.approx([2 * sum(v) for v in values])
    assert set(episodes[0].turns[0].rewards) == {"step_agent", "step_agent/D", "step_agent/weighted"}


def test_inverse_reward_is_equal_where_policy_and_expert_do_the_same(policy, games):
    """The policy's episodes are the expert's: D = 1/2 everywhere, r = log 2, centred 0; one game: no accuracy."""
    episodes = [episode_of(game, expert_turns(game)) for game in games]
    by_id = {game.id: game for game in games}
    for states in ("expert", "own"):
        component = InverseReward(states=states)
        values = component(episodes, policy, by_id)
        assert sum(values, []) == pytest.approx([math.log(2)] * sum(map(len, episodes)), abs=1e-3)
        assert component.last_accuracy is not None
        component(episodes[:1], policy, by_id)
        assert component.last_accuracy is None
        centered = InverseReward(states=states, centered=True)(episodes, policy, by_id)
        assert sum(centered, []) == pytest.approx([0.0] * sum(map(len, episodes)), abs=1e-3)
    empty = episode_of(games[0], [])
    assert InverseReward()([], policy) == [] and InverseReward()([empty], policy) == [[]]
    assert [len(v) for v in InverseReward()([empty, episodes[1]], policy, by_id)] == [0, len(episodes[1])]


def test_features_stay_frozen_and_the_state_is_private(policy, games, played):
    """Training does not change what reads: a copy at the first call, a named model, or LoRA's base."""
    by_id = {game.id: game for game in games}
    moving, component, named = copy.deepcopy(policy), InverseReward(), InverseReward(features="base")
    values = component(copy.deepcopy(played), moving, by_id)
    with torch.no_grad():
        for parameter in moving.model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    assert component(copy.deepcopy(played), moving, by_id) == values
    assert named(copy.deepcopy(played), None, by_id) == values
    assert named(copy.deepcopy(played), moving, by_id) == values
    assert InverseReward()(copy.deepcopy(played), moving, by_id) != values
    adapted = sglib.load_policy("base", lora={"r": 2, "init_lora_weights": False}, device="cpu")
    lora = InverseReward()
    assert sum(lora(copy.deepcopy(played), adapted, by_id), []) == pytest.approx(sum(values, []), abs=1e-3)
    assert repr(component) == repr(InverseReward()) and component == InverseReward()
    assert dataclasses.replace(component, weight=2.0).last_accuracy is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        component.weight = 2.0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p, g: InverseReward(states="both"), ["states", "both", "expert", "own"]),
        (lambda p, g: check_environment([InverseReward(expert="best")], CARD), ["best", "optimal", "explore"]),
        (lambda p, g: InverseReward(l2=0), ["l2", "0", "greater than 0"]),
        (lambda p, g: InverseReward(clip=math.inf), ["clip", "inf", "less than or equal to 1000000000"]),
        (lambda p, g: InverseReward()([episode_of(g[0], [("o", "look")])]), ["policy", "features"]),
        (lambda p, g: expert_examples(p, g, expert="best"), ["expert", "best"]),
    ],
)
def test_errors_name_the_argument(policy, games, call, words):
    with pytest.raises(ValueError) as error:
        call(policy, games)
    assert all(word in str(error.value) for word in words), error.value


def test_a_plain_model_with_peft_s_traces_is_read_from_a_frozen_copy():
    """`peft_config` stays on a model that an adapter was merged into."""
    policy = sglib.load_policy("base", device="cpu")
    policy.model.peft_config = {}
    assert InverseReward()._reader([], policy).model is not policy.model
