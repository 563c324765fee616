"""What a training costs, computed from the architecture, against a model; and a Qwen3 that goes every way."""

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM

import sglib
from sglib.experiments import experiment
from sglib.experiments.params import check
from sglib.experiments.recipe import load_recipe
from sglib.models.tiny import write_tiny_qwen3
from sglib.training import sizes
from sglib.training.grpo import GRPOSettings, train

SMALL = {
    "vocab_size": 300,
    "intermediate_size": 160,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
CONFIGS = [
    Qwen3Config(hidden_size=64, num_hidden_layers=2, tie_word_embeddings=True, **SMALL),
    Qwen3Config(hidden_size=96, num_hidden_layers=3, tie_word_embeddings=False, **SMALL),
]
TEXTS = torch.arange(256).view(2, 128)


def model_of(config):
    torch.manual_seed(0)
    return Qwen3ForCausalLM(config).float().train()


def test_parameters_as_published():
    """In billions, with and without embeddings: the models' cards. "8B" has an output layer of its own."""
    published = {"0.6B": (0.6, 0.44), "1.7B": (1.7, 1.4), "4B": (4.0, 3.6), "8B": (8.2, 6.95)}
    for name, config in sizes.QWEN3.items():
        tables = config.vocab_size * config.hidden_size * (1 if config.tie_word_embeddings else 2)
        every = sizes.parameters(config) / 1e9
        assert round(every, 1) == published[name][0]
        assert every - tables / 1e9 == pytest.approx(published[name][1], abs=0.05)


@pytest.mark.parametrize("config", CONFIGS)
def test_parameters_and_operations_are_exact(config):
    model = model_of(config)
    assert sizes.parameters(config) == sum(p.numel() for p in model.parameters())
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        hidden = model.model(input_ids=TEXTS, use_cache=False).last_hidden_state
        model.lm_head(hidden[:, :10])
    assert sizes.forward_flops(config, [128, 128], 20) == counter.get_total_flops()
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules="all-linear"))
    assert sizes.lora_parameters(config, 4) == sum(p.numel() for p in adapted.parameters() if p.requires_grad)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_within_two_percent(config, bf16, checkpointing):
    """With checkpointing what is kept lacks the block that is computed again, one at a time."""
    model, tokens = model_of(config), TEXTS.numel()
    expected = sizes.activation_bytes(config, tokens, bf16=bf16, checkpointing=checkpointing)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": True})  # keeps what it keeps where a hook sees it
        expected -= sizes.block_bytes(config, tokens, bf16)

    def forward():
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            model.model(inputs_embeds=model.model.embed_tokens(TEXTS), use_cache=False)

    assert sizes.kept_bytes(model, forward) == pytest.approx(expected, rel=0.02)


def test_cache_of_a_rollout():
    model, config = model_of(CONFIGS[0]), CONFIGS[0]
    cache = model(TEXTS, use_cache=True).past_key_values
    kept = sum(x.numel() * x.element_size() for layer in cache.layers for x in (layer.keys, layer.values))
    assert kept == sizes.cache_bytes(config, TEXTS.numel())


# -- a Qwen3 that goes every way -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_qwen3(tmp_path_factory.mktemp("qwen3"), "alfworld")


GAMES = sglib.envs.get("alfworld").tasks(2, seed=5)
BRIEF = sglib.Options(max_new_tokens=8)


def trained(folder, way=None, **settings):
    """One step of the random reward, and the policy after it."""
    policy, recipe = sglib.load_policy(folder, env="alfworld", **way or {}), load_recipe("random")
    settings = {"games_per_iteration": 2, "group_size": 2, "max_turns": 2, "lr_schedule": "constant"} | settings

    def brief(*args, options, **how):
        brief.batches.append(options.batch_size)
        return sglib.rollout(*args, options=BRIEF, **how)

    brief.batches = []
    result = train(
        policy, GAMES, GRPOSettings(iterations=1, **settings), recipe.components, recipe.estimator, rollout_fn=brief
    )
    return policy, result.metrics[0], brief.batches


def test_it_is_like_a_hubs_model(folder):
    policy = sglib.load_policy(folder, env="alfworld")
    assert type(policy.tokenizer) is Qwen2Tokenizer and not policy.compact
    text = "You are in the middle of a room. Straße, 部屋"
    assert policy.tokenizer.decode(policy.encode(text)) == text, "any text can be read"
    assert policy._template.between.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    (trajectory,) = sglib.rollout(policy, GAMES[:1], format="guide", turns=2, options=BRIEF)
    assert len(trajectory) == 2 and all(turn.span[1] - turn.span[0] <= 8 for turn in trajectory.turns)


def test_memory_savings_change_nothing(folder):
    plain, row, batches = trained(folder, learning_rate=1e-3)
    saving, other, fewer = trained(
        folder, learning_rate=1e-3, gradient_checkpointing=True, tokens_per_micro_batch=1200, rollout_batch=2
    )
    assert (batches, fewer) == ([256], [2])
    assert other["loss"] == pytest.approx(row["loss"], abs=1e-5) and row["logprob_gap"] < 1e-4
    for a, b in zip(plain.model.parameters(), saving.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_saved_with_its_adapter_it_plays_on_the_same(folder, tmp_path):
    policy, row, _ = trained(folder, {"lora": True}, learning_rate=1e-3)
    again = sglib.load_policy(policy.save(tmp_path / "m"), env="alfworld")
    ids = torch.tensor([policy.prompt_ids([{"role": "user", "content": "look"}])])
    base = sglib.load_policy(folder, env="alfworld").model(ids).logits
    assert torch.allclose(policy.model(ids).logits, again.model(ids).logits, atol=1e-5)
    assert row["grad_norm"] > 0 and not torch.allclose(base, again.model(ids).logits, atol=1e-5)


# -- weights that are trained ----------------------------------------------------------------------------------------


def test_a_small_step_is_lost_in_bfloat16(folder):
    """The papers' learning rate: weights in float32 move, those in bfloat16 are rounded back."""
    moved = {}
    for dtype in ("float32", "bfloat16"):
        before = [p.clone() for p in sglib.load_policy(folder, env="alfworld", dtype=dtype).model.parameters()]
        policy, *_ = trained(folder, {"dtype": dtype}, learning_rate=1e-6)
        pairs = list(zip(before, policy.model.parameters(), strict=True))
        moved[dtype] = np.mean(np.concatenate([(a != b).flatten().numpy() for a, b in pairs]))
    assert moved["float32"] > 0.5 and moved["bfloat16"] < 0.1, moved


@pytest.mark.parametrize(("lora", "dtype"), [(False, "float32"), (True, None)])
def test_what_is_trained_whole_is_loaded_in_float32(lora, dtype, monkeypatch):
    """Also on a GPU, where a large model is otherwise loaded in bfloat16."""

    class Seen(Exception):
        pass

    def load(name, **how):
        raise Seen(how)

    monkeypatch.setattr(experiment, "load_policy", load)
    p = check("grpo", {"size": "smoke", "lora": lora})
    with pytest.raises(Seen) as caught:
        experiment.Experiment("grpo", p).train()
    assert caught.value.args[0]["dtype"] == dtype
