"""Rollouts: the cache is invisible, seeds decide everything, masks and log-probabilities are those of the sequence."""

import numpy as np
import pytest
import torch

import sglib
from sglib import formats
from sglib.envs.alfworld import generate_games

CARD = sglib.envs.get("alfworld")

GAMES = generate_games(6, seed=5)


@pytest.fixture(scope="module")
def base():
    return sglib.load_policy("base")


@pytest.fixture(scope="module", params=formats.FORMATS)
def played(request, base):
    """Ragged: eight turns of rooms with different texts, answers of different lengths, some episodes over early."""
    return sglib.rollout(base, GAMES, format=request.param, turns=8, temperature=1.0, seed=3)


def full_logprobs(policy, trajectory, temperature):
    ids = torch.tensor([trajectory.prompt_ids + trajectory.completion_ids])
    with torch.no_grad():
        return torch.log_softmax(policy.model(ids).logits[0].float() / temperature, -1)[
            len(trajectory.prompt_ids) - 1 :
        ]


def test_logprobs_are_those_of_one_full_forward_pass(base, played):
    for trajectory in played:
        table = full_logprobs(base, trajectory, 1.0)
        for i, (token, own, logprob) in enumerate(zip(trajectory.completion_ids, trajectory.mask, trajectory.logprobs)):
            assert logprob == pytest.approx(float(table[i, token]), abs=1e-4) if own else logprob == 0.0


def test_tokens_tell_the_episode(base, played):
    """The sequence is what the chat template would render, and spans cover exactly the policy's tokens."""
    for trajectory in played:
        spans = [i for turn in trajectory.turns for i in range(*turn.span)]
        assert spans == [i for i, own in enumerate(trajectory.mask) if own]
        prefix = formats.PREFIX[trajectory.format]
        for turn in trajectory.turns:
            answer = trajectory.completion_ids[slice(*turn.span)]
            assert turn.response == f"{prefix} {base.decode(answer)}".strip()
            assert turn.action == formats.parse(trajectory.format, turn.response).action
        messages = formats.opening(trajectory.format, CARD, trajectory.turns[0].observation, compact=True)
        for turn, after in zip(trajectory.turns, trajectory.turns[1:]):
            messages.append({"role": "assistant", "content": turn.response})
            messages.append({"role": "user", "content": CARD.shown(after.observation)})
        messages.append({"role": "assistant", "content": trajectory.turns[-1].response})
        whole = base.encode(base.tokenizer.apply_chat_template(messages, tokenize=False))
        ids = trajectory.prompt_ids + trajectory.completion_ids
        assert whole[: len(ids)] == ids


def test_greedy_equals_a_plain_loop_without_a_cache(base):
    """Reference: re-read the whole conversation for every token."""
    trajectory = sglib.rollout(base, GAMES[:1], format="act", turns=4, temperature=0.0)[0]
    env = sglib.envs.make("alfworld", max_steps=4)
    observation = env.reset(GAMES[0])
    ids = base.prompt_ids(formats.opening("act", CARD, observation.text, True), "Action:")
    prompt = len(ids)
    while not observation.done:
        answer = []
        while len(answer) < 12 and (not answer or answer[-1] not in base.stop_ids):
            with torch.no_grad():
                answer.append(int(base.model(torch.tensor([ids + answer])).logits[0, -1].argmax()))
        ids = ids + answer
        observation = env.step(formats.parse("act", "Action: " + base.decode(answer)).action)
        if not observation.done:
            ids = ids + base.between_ids(observation.text, "Action:", answer[-1] in base.stop_ids)
    assert ids == trajectory.prompt_ids + trajectory.completion_ids
    assert trajectory.prompt_ids == ids[:prompt]


def test_same_seed_same_trajectories_whatever_the_batch(base):
    options = {"format": "guide", "turns": 5, "group": 2, "seed": 11}
    one = sglib.rollout(base, GAMES, **options)
    two = sglib.rollout(base, GAMES, **options, options=sglib.Options(batch_size=5))
    assert [t.completion_ids for t in one] == [t.completion_ids for t in two]
    assert [t.group for t in one] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    other = sglib.rollout(base, GAMES, **(options | {"seed": 12}))
    assert [t.completion_ids for t in one] != [t.completion_ids for t in other]
    assert one[0].completion_ids != one[1].completion_ids, "members of a group must not share their random numbers"


def test_sampling_follows_the_distribution():
    from sglib.models.generate import sample

    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2]])).repeat(20_000, 1)
    tokens, logprobs = sample(logits, 1.0, np.random.default_rng(0).random(20_000))
    shares = np.bincount(tokens, minlength=3) / 20_000
    assert np.abs(shares - [0.5, 0.3, 0.2]).max() < 0.015  # four standard errors
    assert np.allclose(np.exp(logprobs), np.array([0.5, 0.3, 0.2])[tokens])
    sharp, _ = sample(logits, 0.5, np.random.default_rng(0).random(20_000))  # squares, renormalised: 25 : 9 : 4
    assert np.abs(np.bincount(sharp, minlength=3) / 20_000 - np.array([25, 9, 4]) / 38).max() < 0.015


def test_an_answer_can_be_begun_for_the_policy(base):
    trajectories = sglib.rollout(
        base, GAMES[:2], format="progress", turns=3,
        options=sglib.Options(answer_prefix=lambda i, t: f"Progress: {10 * (t + 1)} Action:")
    )
    for trajectory in trajectories:
        assert [turn.progress for turn in trajectory.turns] == [10.0 * (t + 1) for t in range(len(trajectory))]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "sing"}, "format='sing'"),
        ({"turns": 0}, "turns=0"),
        ({"temperature": -1}, "temperature=-1"),
        ({"turns": 2.5}, "turns=2.5"),
        ({"group": 0}, "group=0"),
        ({"seed": -1}, "seed=-1"),
        ({"options": sglib.Options(make={"engine": "warp"})}, "engine='warp'"),
        ({"options": sglib.Options(max_new_tokens=0)}, "max_new_tokens=0"),
    ],
)
def test_bad_arguments(base, options, message):
    with pytest.raises(ValueError, match=message):
        sglib.rollout(base, GAMES[:1], **options)


@pytest.mark.parametrize("options", [{"max_new_tokens": 0}, {"batch_size": 0}, {"temperature": float("nan")}])
def test_bad_arguments_of_generate(base, options):
    with pytest.raises(ValueError, match="={0!r}, |={0!r}:".format(*options.values())):
        sglib.generate(base, [[1, 2]], **{"max_new_tokens": 1} | options)


def test_weights_that_are_no_numbers_play_nothing():
    policy = sglib.load_policy("base")
    with torch.no_grad():
        next(policy.model.parameters()).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="base: its log-probabilities are no numbers"):
        sglib.rollout(policy, GAMES[:1], turns=1)
