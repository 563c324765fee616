"""One step of generation: `Decoder` is the model's own forward, whatever rows do; rollouts are a plain loop."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3ForCausalLM

import sglib
from sglib import envs, formats
from sglib.envs.alfworld import generate_games
from sglib.models import generate, own_cache
from sglib.models.decoder import decoder_of
from sglib.models.policy import Policy
from sglib.models.slots import SlotCache, feed
from sglib.models.small import build_model, build_tokenizer
from sglib.play.episode import answer_tokens
from sglib.records import Trajectory

GAMES = generate_games(3, seed=15, max_receptacles=8)


@pytest.fixture(scope="module")
def base():
    return sglib.load_policy("base")


def variant(**changes) -> Policy:
    """An untrained model with random weights in its norms too, which a fresh model has at 1."""
    tokenizer = build_tokenizer("alfworld")
    model = build_model(tokenizer, **changes).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name:
                p.uniform_(0.5, 1.5)
            elif "proj" in name:
                p.mul_(4)
    return Policy(model, tokenizer, True, "variant")


def lora() -> Policy:
    policy = variant(layers=2)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", lora_dropout=0.3)
    policy.model = get_peft_model(policy.model, config).eval()
    with torch.no_grad():
        for name, p in policy.model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.3)
    return policy


@pytest.mark.parametrize(
    "make",
    [
        variant,
        lambda: variant(heads=6, kv_heads=1, layers=1),
        lambda: variant(heads=2, kv_heads=2, hidden=64),
        lora,
    ],
)
def test_decoder_is_the_models_forward(make):
    """Rows begin, read blocks of any length or nothing, forget, leave and are taken twice: logits are those of the
    model on the plain sequence, and nothing of a row is left in another."""
    policy, rng = make(), np.random.default_rng(0)
    decoder = decoder_of(policy.model)
    assert decoder is not None
    # capacity 3: the cache has to grow
    cache = SlotCache(policy.model, 5, 3, decoder)
    texts = [[] for _ in range(5)]
    for step in range(14):
        widths = rng.integers(0, 9, len(texts)) if step % 3 == 0 else rng.integers(0, 2, len(texts))
        widths[rng.integers(len(texts))] += 1
        new = [rng.integers(3, 250, n).tolist() for n in widths]
        keep = widths if step % 2 == 0 else widths.clip(max=1)  # logits behind every new token, or behind the last
        logits = feed(policy, cache, new, keep=keep)
        texts = [text + added for text, added in zip(texts, new)]
        assert cache.lengths.tolist() == [len(text) for text in texts]
        assert len(logits) == keep.sum()
        for text, found in zip(texts, logits.split(keep.tolist())):
            if len(found):
                with torch.no_grad():
                    expected = policy.model(torch.tensor([text])).logits[0, -len(found) :]
                torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        if step == 4:  # as when a group shares its prompt
            cache.take([4, 0, 0, 2, 1, 3], room=8)
            texts = [texts[i] for i in (4, 0, 0, 2, 1, 3)]
        if step in (6, 10):
            texts = [texts[i] for i in cache.drop([0, len(texts) - 2])]
        if step == 8:
            kept = [len(text) // 2 for text in texts]
            cache.lengths = np.array(kept)
            texts = [text[:n] for text, n in zip(texts, kept)]
    assert len(texts) == 2


def test_what_it_does_not_know_goes_through_the_model():
    known = variant(layers=1).model
    config = known.config
    assert decoder_of(known) is not None
    assert decoder_of(Qwen3ForCausalLM(config).bfloat16()) is None
    for change in (
        {"attention_bias": True},
        {"hidden_act": "gelu"},
        {"layer_types": ["sliding_attention"], "sliding_window": 8, "use_sliding_window": True},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
    ):
        fields = config.to_dict() | change
        assert decoder_of(Qwen3ForCausalLM(type(config)(**fields))) is None, change
    shared = {k: getattr(config, k) for k in ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads")}
    assert decoder_of(Qwen2ForCausalLM(Qwen2Config(num_hidden_layers=1, **shared))) is None
    half_lora = get_peft_model(known, LoraConfig(r=2, target_modules=["q_proj"], use_dora=True))
    assert decoder_of(half_lora) is None


def test_weights_are_those_of_now():
    """A decoder is made for one rollout; after a training step the next one must not know the old weights."""
    policy = variant(layers=1)
    cache = SlotCache(policy.model, 1, 8, decoder_of(policy.model))
    before = feed(policy, cache, [[5, 6, 7]])
    with torch.no_grad():
        policy.model.model.layers[0].mlp.down_proj.weight.add_(0.1)
        policy.model.model.norm.weight.mul_(1.5)
    cache = SlotCache(policy.model, 1, 8, decoder_of(policy.model))
    after = feed(policy, cache, [[5, 6, 7]])
    assert not torch.allclose(before, after, atol=1e-2)
    with torch.no_grad():
        torch.testing.assert_close(
            after[0], policy.model(torch.tensor([[5, 6, 7]])).logits[0, -1], atol=1e-4, rtol=1e-4
        )


def plain(policy: Policy, game, format: str, max_turns: int) -> Trajectory:
    """An episode played greedily, re-reading everything for every token."""
    env = sglib.envs.make("alfworld", max_steps=max_turns)
    observation, prefix = env.reset(game), formats.PREFIX[format]
    ids = policy.prompt_ids(formats.opening(format, sglib.envs.get("alfworld"), observation.text, True), prefix)
    record = Trajectory(game.id, game.task_type, observation.goal, format, prompt_ids=ids)
    while not observation.done:
        answer = []
        while len(answer) < answer_tokens(envs.get("alfworld"), format, True):
            with torch.no_grad():
                read = record.prompt_ids + record.completion_ids + answer
                logprobs = torch.log_softmax(policy.model(torch.tensor([read])).logits[0, -1], -1)
            answer.append(int(logprobs.argmax()))
            record.logprobs.append(float(logprobs.max()))
            if answer[-1] in policy.stop_ids:
                break
        record.completion_ids += answer
        observation = env.step(formats.parse(format, f"{prefix} {policy.decode(answer)}").action)
        if not observation.done:
            between = policy.between_ids(observation.text, prefix, answer[-1] in policy.stop_ids)
            record.completion_ids += between
            record.logprobs += [0.0] * len(between)
    record.won = observation.won
    return record


def take(monkeypatch, path: str):
    """Read by the Decoder, by the model's own forward in slots, or with the model's own cache."""
    if path == "model":
        monkeypatch.setattr(own_cache, "decoder_of", lambda model: None)
    if path == "own cache":
        for module in (own_cache, generate):
            monkeypatch.setattr(module, "has_slots", lambda model: False)


@pytest.mark.parametrize("format", formats.FORMATS)
@pytest.mark.parametrize("path", ["decoder", "model", "own cache"])
def test_greedy_rollouts_are_a_plain_loop_without_a_cache(base, monkeypatch, format, path):
    """Token for token, with log-probabilities; rows have different lengths, and some are over before others."""
    take(monkeypatch, path)
    strong = sglib.load_policy("base_strong") if format != "progress" else base
    played = sglib.rollout(strong, GAMES, format=format, turns=9, temperature=0.0, group=2)
    for i, trajectory in enumerate(played):
        expected = plain(strong, GAMES[i // 2], format, 9) if i % 2 == 0 else expected  # noqa: F821
        assert trajectory.prompt_ids == expected.prompt_ids
        assert trajectory.completion_ids == expected.completion_ids
        assert trajectory.won == expected.won
        np.testing.assert_allclose(trajectory.logprobs, expected.logprobs, atol=1e-4)
    if format != "progress":
        assert len({len(t) for t in played}) > 1, "no episode was over early: the test needs other games"


@pytest.mark.parametrize("format", formats.FORMATS)
@pytest.mark.parametrize("path", ["model", "own cache"])
def test_decoder_and_model_play_the_same(base, monkeypatch, format, path):
    """Sampled, in a batch that shrinks, with groups: all paths give the same episodes."""
    options = {"format": format, "turns": 12, "group": 3, "seed": 4}
    fast = sglib.rollout(base, GAMES, **options)
    take(monkeypatch, path)
    slow = sglib.rollout(base, GAMES, **options)
    assert [t.completion_ids for t in fast] == [t.completion_ids for t in slow]
    for a, b in zip(fast, slow):
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-4)
        assert a.turns == b.turns and a.mask == b.mask


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_threads_change_nothing(base, threads):
    played = []
    for n in (1, 2, 3):
        threads(n)
        played.append(sglib.rollout(base, GAMES, format="guide", turns=6, group=8, seed=1))
        assert torch.get_num_threads() == n
    assert [t.completion_ids for t in played[0]] == [t.completion_ids for t in played[1]]
    assert [t.completion_ids for t in played[0]] == [t.completion_ids for t in played[2]]


def test_an_error_in_one_thread_ends_the_rollout(base, threads):
    threads(2)

    def broken(index, turn):
        if (index, turn) == (5, 2):
            raise KeyError("nothing to say")
        return "Action:"

    base.model.train()
    try:
        with pytest.raises(KeyError, match="nothing to say"):
            sglib.rollout(base, GAMES, turns=500, group=8, options=sglib.Options(answer_prefix=broken))
        assert base.model.training and torch.get_num_threads() == 2
    finally:
        base.model.eval()
