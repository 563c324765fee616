"""Texts at the points of an episode, recorded or being played: the cache is invisible, every token is read once, and
what is played and the policy are left as they were."""

import copy

import numpy as np
import pytest
import torch

import sglib
from sglib import formats
from sglib.envs.alfworld import generate_games
from sglib.models import generate, own_cache
from sglib.models.policy import Policy
from sglib.models.slots import feed
from sglib.models.small import build_model
from sglib.play import scoring
from sglib.play.scoring import branch_logprobs, token_logprobs

GAMES = generate_games(5, seed=6)
SHORT = generate_games(3, seed=10, max_receptacles=6)


@pytest.fixture(scope="module")
def base():
    return sglib.load_policy("base")


@pytest.fixture(scope="module")
def episodes(base):
    """Ragged: two formats, one to five turns, prompts and answers of different lengths."""
    short = sglib.rollout(base, GAMES[:2], turns=1, seed=3, options=sglib.Options(truth=False))
    long = sglib.rollout(base, GAMES[2:4], turns=5, seed=4, options=sglib.Options(truth=False))
    return [short[0], *long, *sglib.rollout(
        base, GAMES[4:], format="guide", turns=3, options=sglib.Options(truth=False)
    ), short[1]]


@pytest.fixture(scope="module")
def branches(base, episodes):
    """Of 0 to 7 tokens; the first turn of the first episode has none, the last turn of the third has the longest."""
    rng = np.random.default_rng(0)
    drawn = [[rng.integers(6, len(base.tokenizer), rng.integers(0, 6)).tolist() for _ in t.turns] for t in episodes]
    drawn[0][0], drawn[2][-1] = [], [7, 8, 9, 10, 11, 12, 13]
    return drawn


def slow(policy, trajectory, t, branch, dropped):
    """Reference: one forward pass over the context and the branch, no cache."""
    ids = trajectory.prompt_ids + trajectory.completion_ids
    context = ids[: len(trajectory.prompt_ids) + trajectory.turns[t].span[0] - dropped]
    with torch.no_grad():
        table = torch.log_softmax(
            policy.model(torch.tensor([context + branch], device=policy.device)).logits[0].float(), -1
        )
    return [float(table[len(context) - 1 + j, token]) for j, token in enumerate(branch)]


@pytest.mark.parametrize("batch_size", [2, 64])
@pytest.mark.parametrize("drop_prefix", [False, True])
def test_same_as_a_full_forward_pass(base, episodes, branches, drop_prefix, batch_size):
    found = branch_logprobs(base, episodes, branches, drop_prefix=drop_prefix, batch_size=batch_size)
    assert [len(row) for row in found] == [len(t) for t in episodes] and {len(t) for t in episodes} >= {1, 5}
    for trajectory, row, asked in zip(episodes, found, branches):
        for t, (logprobs, branch) in enumerate(zip(row, asked)):
            # the prefix ("Action:", "Guidance:") is one token in this vocabulary
            assert logprobs.shape == (len(branch),) and logprobs.dtype == np.float64
            assert logprobs == pytest.approx(slow(base, trajectory, t, branch, int(drop_prefix)), abs=1e-4)


def test_the_recorded_answers_score_as_when_they_were_sampled(base, episodes):
    """Branches that repeat what was written give the log-probabilities of the rollout (temperature 1)."""
    asked = [[t.completion_ids[slice(*turn.span)] for turn in t.turns] for t in episodes]
    for trajectory, row in zip(episodes, branch_logprobs(base, episodes, asked)):
        for turn, logprobs in zip(trajectory.turns, row):
            assert logprobs == pytest.approx(trajectory.logprobs[slice(*turn.span)], abs=1e-4)


def test_every_token_is_read_once(base, episodes, branches, monkeypatch):
    fed = []

    def spy(policy, cache, tokens, **wanted):
        fed.append(sum(map(len, tokens)))
        return original(policy, cache, tokens, **wanted)

    original = scoring.feed
    monkeypatch.setattr(scoring, "feed", spy)
    branch_logprobs(base, episodes, branches)
    contexts = sum(len(t.prompt_ids) + t.turns[-1].span[0] for t in episodes)
    # a branch's last token predicts nothing that is asked for
    assert sum(fed) == contexts + sum(max(len(b) - 1, 0) for row in branches for b in row)


def test_nothing_asked_and_nothing_played(base, episodes):
    empty = branch_logprobs(base, episodes, [[[]] * len(t) for t in episodes])
    assert [[x.shape for x in row] for row in empty] == [[(0,)] * len(t) for t in episodes]
    assert branch_logprobs(base, [], []) == []
    none = copy.copy(episodes[0])
    none.turns = []
    assert [len(row) for row in branch_logprobs(base, [none, episodes[1]], [[], [[7]] * len(episodes[1])])] == [
        0, len(episodes[1])
    ]  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
def test_the_policy_is_left_as_it_was(base, episodes, branches, training, monkeypatch):
    before = {name: p.detach().clone() for name, p in base.model.named_parameters()}
    played = sglib.rollout(base, GAMES[:2], turns=3, seed=9, options=sglib.Options(truth=False))
    modes, original = [], scoring.feed

    def spy(policy, *args, **kwargs):
        modes.append((policy.model.training, torch.is_grad_enabled()))
        return original(policy, *args, **kwargs)

    monkeypatch.setattr(scoring, "feed", spy)
    try:
        base.model.train(training)
        branch_logprobs(base, episodes, branches)
        assert base.model.training is training and set(modes) == {(False, False)}
    finally:
        base.model.eval()
    assert torch.is_grad_enabled()
    assert all(p.grad is None and torch.equal(p, before[name]) for name, p in base.model.named_parameters())
    again = sglib.rollout(base, GAMES[:2], turns=3, seed=9, options=sglib.Options(truth=False))
    assert [(t.completion_ids, t.logprobs) for t in again] == [(t.completion_ids, t.logprobs) for t in played]


def splitting() -> Policy:
    """Byte-pair encoding, instructions in words, answers without a stop token: the prefix is several tokens there."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<|im_end|>", "<|im_start|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=special, initial_alphabet=alphabet)
    core.train_from_iterator([sglib.envs.get("alfworld").rules + formats.FORMATS["act"].INSTRUCTION], trainer)
    template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|im_end|>", chat_template=template,
        additional_special_tokens=special[1:],
    )  # fmt: skip
    return Policy(build_model(tokenizer, hidden=32, layers=1).eval(), tokenizer, False, "words in pieces")


def test_a_tokenizer_that_splits_words():
    policy = splitting()
    played = sglib.rollout(policy, GAMES[:2], turns=2, options=sglib.Options(max_new_tokens=4, truth=False))
    given, branch = len(policy.encode("Action:")), policy.encode("Guidance: go")
    assert given > 1
    for trajectory, row in zip(played, branch_logprobs(policy, played, [[branch] * 2] * 2, drop_prefix=True)):
        for t, logprobs in enumerate(row):
            assert logprobs == pytest.approx(slow(policy, trajectory, t, branch, given), abs=1e-4)


def test_errors(base, episodes, branches):
    with pytest.raises(ValueError, match="branches: got"):
        branch_logprobs(base, episodes, branches[1:])
    with pytest.raises(ValueError, match="branches: got"):
        branch_logprobs(base, episodes[1:2], [[[7]]])
    bare = copy.copy(episodes[1])
    bare.prompt_ids = bare.completion_ids = []
    with pytest.raises(ValueError, match="recorded without its token ids"):
        branch_logprobs(base, [bare], branches[1:2])
    begun = sglib.rollout(
        base, GAMES[:1], turns=1, options=sglib.Options(truth=False, answer_prefix=lambda i, t: "Action: go to")
    )
    with pytest.raises(ValueError, match="turn 1: the answer was not begun with 'Action:'"):
        branch_logprobs(base, begun, [[[7]]], drop_prefix=True)


# -- asked while episodes are played ----------------------------------------------------------------------------------


@pytest.fixture(params=["decoder", "model", "own cache"])
def path(request, monkeypatch):
    """The Decoder, the model's own forward in slots, and its own cache."""
    if request.param == "model":
        monkeypatch.setattr(own_cache, "decoder_of", lambda model: None)
    if request.param == "own cache":
        for module in (own_cache, generate):
            monkeypatch.setattr(module, "has_slots", lambda model: False)
    return request.param


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_tokens_that_are_read_aside(base, path):
    """No later token sees them, and only logits that were asked for are given: all as on the plain text. Rows read
    blocks, single tokens or nothing, with and without."""
    rng = np.random.default_rng(1)
    cache = own_cache.new_cache(base.model, 5, 3)
    assert (cache.decoder is None) == (path != "decoder")
    texts = [[] for _ in range(5)]
    for _ in range(8):
        new = [rng.integers(6, 250, n).tolist() for n in rng.integers(0, 5, 5)]
        new[rng.integers(5)] = [6, 7, 8]
        extra = [rng.integers(6, 250, rng.integers(0, 4)).tolist() if n else [] for n in new]
        aside = np.array([len(e) for e in extra])
        keep = np.array([rng.integers(0, len(n) + len(e) + 1) for n, e in zip(new, extra)])
        logits = feed(base, cache, [n + e for n, e in zip(new, extra)], keep, aside).split(keep.tolist())
        for i, (text, n, e) in enumerate(zip(texts, new, extra)):
            behind = [text + n[: j + 1] for j in range(len(n))]
            behind += [text + n + e[: j + 1] for j in range(len(e))]
            assert len(logits[i]) == keep[i]
            for found, read in zip(logits[i], behind[len(behind) - keep[i] :], strict=True):
                with torch.no_grad():
                    expected = base.model(torch.tensor([read])).logits[0, -1]
                torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        texts = [text + n for text, n in zip(texts, new)]
        assert cache.lengths.tolist() == [len(text) for text in texts]


def test_log_probabilities_of_an_episodes_own_tokens():
    """Under the policy that wrote them they are the recorded ones."""
    policy = sglib.load_policy("base")
    games = sglib.envs.alfworld.generate_games(2, seed=5)
    for t in sglib.rollout(policy, games, format="guide", turns=5, temperature=1.0):
        found = token_logprobs(policy, t)
        assert found == pytest.approx(t.logprobs, abs=1e-4) and all(x == 0 for x, m in zip(found, t.mask) if not m)
    assert token_logprobs(policy, sglib.Trajectory("g", "t", "goal", "act")) == []
    t.prompt_ids[0] = 10**6
    with pytest.raises(ValueError, match="token 1000000; allowed: below"):
        token_logprobs(policy, t)
