"""Texts at the points of an episode, recorded or being played: the cache is invisible, every token is read once, and
what is played and the policy are left as they were."""

import copy

import numpy as np
import pytest
import torch
from sglib.models.slots import SlotCache, feed

import sglib
from sglib import formats
from sglib.envs.alfworld import generate_games
from sglib.models import decoder, generate, slots
from sglib.models.policy import Policy
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
    core.train_from_iterator([formats.INSTRUCTIONS["act"]], trainer)
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
    with pytest.raises(ValueError, match="batch_size=0"):
        branch_logprobs(base, episodes, branches, batch_size=0)
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


@pytest.fixture(params=["decoder", "model"])
def path(request, monkeypatch):
    """The Decoder, and the model's own forward."""
    if request.param == "model":
        for module in (decoding, scoring):
            monkeypatch.setattr(module, "decoder_of", lambda model: None)
    return request.param


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


class Asks:
    """`ask`: `draw(trajectory)` gives the ids; keeps every question, and what of the episode was there."""

    def __init__(self, draw):
        self.draw, self.kept = draw, {}

    def __call__(self, env, trajectory):
        question = Question(self.draw(trajectory))
        asked = self.kept.setdefault(id(trajectory), [])
        assert len(asked) == len(trajectory) == env.steps, "asked once before each answer"
        asked.append(question)
        return question

    def of(self, trajectories):
        return [self.kept[id(t)] for t in trajectories]


def drawn(trajectory):
    """0 to 7 ids, other ones at each point and in each game."""
    rng = np.random.default_rng([trajectory.group, len(trajectory)])
    return rng.integers(6, 250, (5 * trajectory.group + 3 * len(trajectory)) % 8).tolist()


def same_play(one, two):
    assert [(t.prompt_ids, t.completion_ids, t.mask, t.turns) for t in one] == [
        (t.prompt_ids, t.completion_ids, t.mask, t.turns) for t in two
    ]
    for a, b in zip(one, two):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)


def answers_as_recorded(policy, played, asks):
    """The answers are those of `branch_logprobs` on the episodes."""
    questions = asks.of(played)
    recorded = branch_logprobs(policy, played, [[q.ids for q in row] for row in questions], drop_prefix=True)
    for row, expected in zip(questions, recorded, strict=True):
        for question, logprobs in zip(row, expected, strict=True):
            assert question.logprobs.shape == logprobs.shape and question.logprobs.dtype == np.float64
            assert question.logprobs == pytest.approx(logprobs, abs=1e-4)
    return questions


@pytest.mark.parametrize("format", list(formats.PREFIX))
@pytest.mark.parametrize(
    "options", [{}, {"group_size": 3, "temperature": 0.6}, {"temperature": 0.0, "batch_size": 2}], ids=str
)
def test_a_rollout_that_is_asked_plays_the_same(path, format, options):
    """Ragged: questions of 0 to 7 tokens, episodes that win early; scored at temperature 1 whatever samples."""
    policy = sglib.load_policy("base" if format == "progress" else "base_strong")
    options = {"format": format, "max_turns": 9, "seed": 10, **options}
    asks = Asks(drawn)
    played = sglib.rollout(policy, SHORT, ask=asks, **options)
    same_play(played, sglib.rollout(policy, SHORT, **options))
    assert format == "progress" or len({len(t) for t in played}) > 1, "no episode was over early: use other games"
    questions = answers_as_recorded(policy, played, asks)
    assert {len(q.ids) for row in questions for q in row} >= {0, 1, 7}
    t, q = played[0], max(questions[0], key=lambda q: len(q.ids))
    assert q.logprobs == pytest.approx(slow(policy, t, questions[0].index(q), q.ids, 1), abs=1e-4)


def test_nothing_but_the_questions_is_read_more(base, path, threads, monkeypatch):
    threads(1)  # each thread reads the prompts of its own episodes
    fed, original = [], decoding.feed

    def spy(policy, cache, tokens, *wanted, **named):
        fed.append(sum(map(len, tokens)))
        return original(policy, cache, tokens, *wanted, **named)

    monkeypatch.setattr(decoding, "feed", spy)
    options = {"max_turns": 4, "group_size": 3, "oracle": False}
    played = sglib.rollout(base, GAMES, **options)
    plain, asks = sum(fed), Asks(drawn)
    # of a group's prompt all but the last token is read once; of an answer that ends the episode the last token never
    prompts = sum(len(t.prompt_ids) - 1 for t in played[::3]) + len(played)
    assert plain == prompts + sum(len(t.completion_ids) - 1 for t in played)
    fed.clear()
    asked = sglib.rollout(base, GAMES, ask=asks, **options)
    more = sum(max(len(q.ids) - 1, 0) for row in asks.of(asked) for q in row)
    # the token before the given prefix, behind which a question stands, is each member's own, too
    first = (3 - 1) * len(GAMES)
    assert more > 0 and sum(fed) == plain + more + first


def test_a_rollout_in_two_threads_is_asked(base, path, threads):
    played = {}
    for n in (1, 2):
        threads(n)
        asks = Asks(drawn)
        played[n] = sglib.rollout(base, GAMES, ask=asks, turns=4, group=2, format="guide")
        answers_as_recorded(base, played[n], asks)
    same_play(played[1], played[2])


def test_a_prefix_of_several_tokens_is_given_back(path):
    policy, asks = splitting(), Asks(drawn)
    options = {"max_turns": 3, "max_new_tokens": 4, "oracle": False, "group_size": 2}
    played = sglib.rollout(policy, GAMES[:2], ask=asks, **options)
    same_play(played, sglib.rollout(policy, GAMES[:2], **options))
    given = len(policy.encode("Action:"))
    for trajectory, row in zip(played, answers_as_recorded(policy, played, asks)):
        for t, question in enumerate(row):
            assert question.logprobs == pytest.approx(slow(policy, trajectory, t, question.ids, given), abs=1e-4)


def test_what_can_not_be_asked(base):
    asks = Asks(drawn)
    with pytest.raises(ValueError, match="ask=.*without answer_prefix"):
        sglib.rollout(base, GAMES[:1], ask=asks, options=sglib.Options(answer_prefix=lambda i, t: "Action: go"))
    with pytest.raises(ValueError, match="ask=.*not of an endpoint"):
        sglib.rollout(sglib.load_policy("endpoint:http://localhost:1/v1#none"), GAMES[:1], ask=asks)
    assert not asks.kept


def test_tokens_that_are_read_aside(base, path):
    """They do not see the tokens in whose place they stand, no later token sees them, and only logits that were asked
    for are given: all as on the plain text. Rows read blocks, single tokens or nothing, with and without."""
    rng = np.random.default_rng(1)
    cache = SlotCache(base.model, 5, 3, decoder.decoder_of(base.model))
    assert (cache.decoder is None) == (path == "model")
    texts = [[] for _ in range(5)]
    for _ in range(8):
        new = [rng.integers(6, 250, n).tolist() for n in rng.integers(0, 5, 5)]
        new[rng.integers(5)] = [6, 7, 8]
        back = np.array([rng.integers(0, len(n)) if n else 0 for n in new])
        extra = [rng.integers(6, 250, rng.integers(0, 4)).tolist() if n else [] for n in new]
        aside = np.array([len(e) for e in extra])
        keep = np.array([rng.integers(0, len(n) + len(e) + 1) for n, e in zip(new, extra)])
        logits = feed(base, cache, [n + e for n, e in zip(new, extra)], keep, aside, back).split(keep.tolist())
        for i, (text, n, e) in enumerate(zip(texts, new, extra)):
            behind = [text + n[: j + 1] for j in range(len(n))]
            behind += [(text + n)[: len(text) + len(n) - back[i]] + e[: j + 1] for j in range(len(e))]
            assert len(logits[i]) == keep[i]
            for found, read in zip(logits[i], behind[len(behind) - keep[i] :], strict=True):
                with torch.no_grad():
                    expected = base.model(torch.tensor([read])).logits[0, -1]
                torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        texts = [text + n for text, n in zip(texts, new)]
        assert cache.lengths.tolist() == [len(text) for text in texts]


def test_log_probabilities_of_an_episodes_own_tokens():
    """Under the policy that wrote them they are the recorded ones; at another temperature they are not."""
    policy = sglib.load_policy("base")
    games = sglib.envs.alfworld.generate_games(2, seed=5)
    for t in sglib.rollout(policy, games, format="guide", turns=5, temperature=1.0):
        assert token_logprobs(policy, t) == pytest.approx(t.logprobs, abs=1e-4)
        cool = token_logprobs(policy, t, temperature=0.5)
        assert cool != pytest.approx(t.logprobs, abs=1e-2) and all(x == 0 for x, m in zip(cool, t.mask) if not m)
    assert token_logprobs(policy, sglib.Trajectory("g", "t", "goal", "act")) == []
    with pytest.raises(ValueError, match="temperature=0"):
        token_logprobs(policy, t, temperature=0)
    t.prompt_ids[0] = 10**6
    with pytest.raises(ValueError, match="token 1000000; allowed: below"):
        token_logprobs(policy, t)
