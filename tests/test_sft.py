"""Supervised training on a tiny random Qwen3."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from sglib.training.sft import IGNORE, sft


def make_policy():
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=16, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=128, tie_word_embeddings=True, pad_token_id=0,
        eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    core = Tokenizer(models.WordLevel({f"t{i}": i for i in range(16)}, unk_token="t0"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="t0", eos_token="t1", unk_token="t0")
    return SimpleNamespace(model=Qwen3ForCausalLM(config).float(), tokenizer=tokenizer, device=torch.device("cpu"))


def successors(count=24, seed=0):
    """Prompt of random tokens (not learned), then each token followed by the next number (learned)."""
    rng, examples = np.random.default_rng(seed), []
    for _ in range(count):
        prompt = rng.integers(2, 16, rng.integers(1, 6)).tolist()
        answer = [2 + (prompt[-1] - 2 + k) % 14 for k in range(1, 5)]
        examples.append({"input_ids": prompt + answer, "labels": [IGNORE] * len(prompt) + answer})
    return examples


def loss_of(model, examples):
    """Mean negative log-likelihood per learned token, plainly."""
    total, count = 0.0, 0
    for example in examples:
        ids = torch.tensor([example["input_ids"]])
        keep = torch.tensor(example["labels"])[1:] != IGNORE
        logps = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        total, count = total - (logps * keep).sum(), count + int(keep.sum())
    return total / count


def test_learns_and_reports():
    policy, examples = make_policy(), successors()
    history = sft(policy, examples, epochs=20, learning_rate=2e-2, batch_size=8)
    assert len(history) == 60 and [h["step"] for h in history] == list(range(1, 61))
    assert history[-1]["loss"] < 0.3 < 2 < history[0]["loss"]
    assert "forward" not in policy.model.__dict__
    with torch.no_grad():
        assert loss_of(policy.model, successors(seed=1)) < 0.5


@pytest.mark.parametrize("micro", [1, 4, 8])
def test_one_step_equals_plain_pytorch_on_the_learned_tokens_only(micro):
    """Mean over all learned tokens of the step, whatever the micro-batches; prompts contribute no gradient."""
    policy, examples = make_policy(), successors(8)
    bare = copy.deepcopy(policy.model)
    history = sft(policy, examples, learning_rate=1e-3, batch_size=8, micro_batch_size=micro)
    optimizer = torch.optim.AdamW(bare.parameters(), lr=1e-3, weight_decay=0.0)
    loss = loss_of(bare, examples)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(bare.parameters(), 1.0)
    optimizer.step()
    assert len(history) == 1
    assert history[0]["loss"] == pytest.approx(loss.item(), abs=1e-5)
    assert history[0]["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)
    for a, b in zip(policy.model.parameters(), bare.parameters(), strict=True):
        assert torch.allclose(a, b, atol=2e-5)


def test_masked_tokens_get_no_gradient():
    """Tokens whose label is masked, and which no learned token comes after, can be replaced: the update is the same."""
    example = {"input_ids": [5, 6, 7, 8, 9], "labels": [IGNORE, 6, 7, IGNORE, IGNORE]}
    other = {"input_ids": [5, 6, 7, 11, 12], "labels": [IGNORE, 6, 7, IGNORE, IGNORE]}
    a, b = make_policy(), make_policy()
    sft(a, [example], learning_rate=1e-2, batch_size=1)
    sft(b, [other], learning_rate=1e-2, batch_size=1)
    assert all(torch.equal(x, y) for x, y in zip(a.model.parameters(), b.model.parameters(), strict=True))
    assert not torch.equal(a.model.model.norm.weight, make_policy().model.model.norm.weight)


def test_numbers_that_are_not_finite_stop_it_by_name():
    policy = make_policy()
    with torch.no_grad():
        policy.model.model.norm.weight[0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"step 1: (loss|grad_norm) is nan; allowed: finite"):
        sft(policy, successors(8), batch_size=4)


def test_same_seed_same_weights_and_lora():
    from peft import LoraConfig, get_peft_model

    def trained(seed):
        policy = make_policy()
        torch.manual_seed(0)
        policy.model = get_peft_model(policy.model, LoraConfig(r=2, target_modules="all-linear"))
        before = {n: p.detach().clone() for n, p in policy.model.named_parameters()}
        sft(policy, successors(), seed=seed, batch_size=4, learning_rate=1e-2)
        after = dict(policy.model.named_parameters())
        assert all(torch.equal(before[n], after[n]) == ("lora_" not in n) for n in after)
        return torch.cat([p.flatten() for p in policy.model.parameters()])

    assert torch.equal(trained(0), trained(0)) and not torch.equal(trained(0), trained(1))


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([], "examples: got none"),
        ([{"input_ids": [2, 3], "labels": [3]}], r"examples\[0\]: 1 labels; allowed: as many as token ids, 2"),
        ([{"input_ids": [2, 3], "labels": [IGNORE, 4]}], "label 4 at 1; allowed: 3"),
        ([{"input_ids": [2, 3], "labels": [2, IGNORE]}], "no token to learn"),
    ],
)
def test_errors(examples, message):
    with pytest.raises(ValueError, match=message):
        sft(make_policy(), examples)
    for wrong in ({"seed": 2**32}, {"seed": -1}, {"learning_rate": float("nan")}, {"learning_rate": 0.0}):
        with pytest.raises(ValueError, match="seed, learning_rate: got .*allowed"):
            sft(make_policy(), successors(2), **wrong)
    with pytest.raises(ValueError, match="epochs: got 0"):
        sft(make_policy(), successors(), epochs=0)
