"""Model families: every one is read as its own forward reads it, by slots or by its own cache, or refused by name."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import sglib
from sglib.envs.alfworld import generate_games
from sglib.experiments.recipe import load_recipe
from sglib.models.own_cache import OwnCache, has_slots, new_cache
from sglib.models.policy import Policy, load_policy
from sglib.models.slots import SlotCache, feed
from sglib.models.small import build_tokenizer
from sglib.training.grpo import GRPOSettings, train

TOKENIZER = build_tokenizer("alfworld")
SIZES = {
    "vocab_size": len(TOKENIZER), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 1024,
    "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None,
}  # fmt: skip
WINDOW = {"sliding_window": 6}
FAMILIES = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "mistral": WINDOW,
    "mistral whole": {"sliding_window": None},
    "qwen3 window": {"use_sliding_window": True, "max_window_layers": 1, **WINDOW},
    "gemma2": {"query_pre_attn_scalar": 8, **WINDOW},
    "gemma3_text": {"query_pre_attn_scalar": 8, **WINDOW},
    "phi3": {},
    "olmo": {},
    "olmo2": {},
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 1024},
    "gpt_neox": {},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv", "full_attention"], "conv_L_cache": 3},
    "qwen3_next": {
        "layer_types": ["linear_attention", "full_attention"] * 2, "num_experts": 4, "num_experts_per_tok": 2,
        "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "linear_num_value_heads": 4,
        "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    },
    "qwen3_5_text": {
        "layer_types": ["linear_attention", "full_attention"] * 2, "linear_num_value_heads": 4,
        "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    },
    "bloom": {"n_layer": 2, "n_head": 4},
    "opt": {"word_embed_proj_dim": 32, "ffn_dim": 48, "dropout": 0.0},
}  # fmt: skip
SLOTS = {"llama", "qwen2", "qwen3", "mistral whole", "phi3", "olmo", "olmo2"}
PLAYED = [family for family in FAMILIES if family not in SLOTS or family in ("llama", "phi3")]  # slots are one path


def tiny(family: str, further: int = 0):
    """A random model of a family whose logits are not all alike."""
    kind, sizes = family.split()[0], SIZES | FAMILIES[family]
    if kind in ("gpt2", "bloom"):
        sizes = {k: v for k, v in sizes.items() if "hidden" not in k and "intermediate" not in k} | (
            {"hidden_size": 32} if kind == "bloom" else {}
        )
    return random_model(kind, sizes | {"vocab_size": len(TOKENIZER) + further})


def random_model(kind: str, sizes: dict):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes)).float().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim > 1 and "norm" not in name:
                p.normal_(std=0.15)
    return model


def policy_of(family: str) -> Policy:
    return Policy(tiny(family), TOKENIZER, True, family)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_read_as_its_own_forward_does(family):
    """Rows begin, write, wait, read blocks, forget, leave and are taken twice, far beyond the window: always the logits
    of the plain text."""
    policy, rng = policy_of(family), np.random.default_rng(0)
    cache = new_cache(policy.model, 4, 8)
    assert isinstance(cache, SlotCache if family in SLOTS else OwnCache)
    assert has_slots(policy.model) == (family in SLOTS)
    texts = [[] for _ in range(4)]
    for step in range(16):
        widths = rng.integers(1, 9, len(texts)) if step % 5 == 0 else np.ones(len(texts), dtype=int)
        if step in (3, 7):
            widths[1] = 0  # it waits
        new = [rng.integers(3, 250, n).tolist() for n in widths]
        keep = widths if step == 10 else widths.clip(max=1)
        aside = (widths > 3).astype(int) if step == 10 else np.zeros_like(widths)
        logits = feed(policy, cache, new, keep=keep, aside=aside)
        texts = [text + added for text, added in zip(texts, new)]
        for text, found in zip(texts, logits.split(keep.tolist())):
            if len(found):
                with torch.no_grad():
                    expected = policy.model(torch.tensor([text])).logits[0, -len(found) :]
                torch.testing.assert_close(found.log_softmax(-1), expected.log_softmax(-1), atol=1e-4, rtol=0)
        texts = [text[: len(text) - n] for text, n in zip(texts, aside)]
        if step == 1:
            cache.take([3, 0, 0, 2, 1], room=8)
            texts = [texts[i] for i in (3, 0, 0, 2, 1)]
        if step == 12:
            cache.lengths[0] -= 1
            texts[0] = texts[0][:-1]
        if step == 13:
            texts = [texts[i] for i in cache.drop([1])]
        assert cache.lengths.tolist() == [len(text) for text in texts]
    assert max(map(len, texts)) > 24


@pytest.mark.parametrize("family", ["mistral", "gemma3_text", "qwen3 window"])
def test_slots_would_be_wrong_where_they_are_not_used(family):
    """One mask for all layers sees beyond a window: the test above can fail."""
    policy = policy_of(family)
    text = np.random.default_rng(1).integers(3, 250, 30).tolist()
    with torch.no_grad():
        expected = policy.model(torch.tensor([text])).logits[0, -1].log_softmax(-1)
        found = feed(policy, SlotCache(policy.model, 1, 40), [text])[0].log_softmax(-1)
    assert (found - expected).abs().max() > 0.01


@pytest.mark.parametrize("family", PLAYED)
def test_what_a_rollout_records_is_the_models_own(family):
    policy = policy_of(family)
    trajectories = sglib.rollout(policy, generate_games(2, seed=1, max_receptacles=6), group=2, turns=4, temperature=1)
    for trajectory in trajectories:
        ids = trajectory.prompt_ids + trajectory.completion_ids
        with torch.no_grad():
            logprobs = policy.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        start = len(trajectory.prompt_ids)
        for i, (token, written, recorded) in enumerate(zip(ids[start:], trajectory.mask, trajectory.logprobs)):
            if written:
                assert abs(logprobs[start + i - 1, token] - recorded) < 1e-4


# -- templates -------------------------------------------------------------------------------------------------------

TURN = "{{ '<|turn|>' + m.role + '\n' + m.content + '<|turn_end|>\n' }}"
BODY = "{% for m in messages %}" + TURN + "{% endfor %}"
OPEN = "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
STRICT = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    + TURN + "{% endfor %}" + OPEN
)  # fmt: skip
SILENT = "{% for m in messages if m.role != 'system' %}" + TURN + "{% endfor %}" + OPEN
MOVING = (
    "{% for m in messages if m.role != 'system' %}{% if loop.last and messages[0].role == 'system' %}"
    "{{ messages[0].content }}{% endif %}" + TURN + "{% endfor %}" + OPEN
)  # fmt: skip
THINKS = BODY + OPEN.replace("{% endif %}", "<think>\n{% endif %}")
SWITCH = BODY + OPEN.replace("{% endif %}", "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}")
COUNTS = BODY + "{{ messages | length }}" + OPEN
MESSAGES = [
    {"role": "system", "content": "RULES"}, {"role": "user", "content": "EXAMPLE"}, {"role": "user", "content": "LOOK"}
]  # fmt: skip


def chatting(template: str | None, model=None, thinking=False, **tokens) -> Policy:
    tokenizer = build_tokenizer("alfworld")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>", "<|turn_end|>"]})
    tokenizer.chat_template = template
    for name, token in tokens.items():
        setattr(tokenizer, name, token)
    return Policy(model or tiny("llama", 2), tokenizer, False, "mine", thinking)


@pytest.mark.parametrize("template", [BODY + OPEN, STRICT, SILENT, MOVING])
def test_templates_with_rules_are_served(template):
    text = chatting(template)._template.render(MESSAGES)
    assert text.index("RULES") < text.index("EXAMPLE") < text.index("LOOK") and text.count("RULES") == 1
    assert text.endswith("<|turn_end|>\n<|turn|>assistant\n")


@pytest.mark.parametrize("template", [THINKS, SWITCH])
def test_thoughts_are_closed_unless_they_are_wanted(template):
    assert chatting(template)._template.between.endswith("<|turn|>assistant\n<think>\n\n</think>\n\n")
    wanted = chatting(template, thinking=True)._template.between
    assert wanted.endswith("<|turn|>assistant\n" + "<think>\n" * (template == THINKS))


def test_a_model_that_thinks_is_given_no_beginning_and_its_thought_is_not_read(monkeypatch):
    games, policy = generate_games(1, seed=1, max_receptacles=6), chatting(BODY + OPEN, thinking=True)
    monkeypatch.setattr(policy, "decode", lambda ids: "<think>Action: look</think> Action: go to desk 1")
    turn = sglib.rollout(policy, games, turns=1, options=sglib.Options(max_new_tokens=4))[0].turns[0]
    assert turn.action == "go to desk 1" and turn.response.startswith("<think>")
    given = chatting(BODY + OPEN)
    monkeypatch.setattr(given, "decode", lambda ids: "go to desk 1")
    turn = sglib.rollout(given, games, turns=1, options=sglib.Options(max_new_tokens=4))[0].turns[0]
    assert turn.response == "Action: go to desk 1"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "no chat template; allowed: an instruction-tuned"),
        (COUNTS, "depends on how long the conversation is; allowed: a template that only appends"),
        ("{{ messages[0].content }}", "does not write a user message after an answer"),
        ("{{ raise_exception('never') }}", "cannot write a conversation of user and assistant .never.; allowed"),
    ],
)
def test_templates_that_cannot_be_served_are_refused(template, message):
    with pytest.raises(ValueError, match=f"mine: .*{message}"):
        chatting(template)


def test_an_answer_ends_where_the_template_the_tokenizer_or_the_model_says():
    model = tiny("llama", 2)
    model.generation_config.eos_token_id = [5, 6]
    policy = chatting(BODY + OPEN, model, eos_token="<|end|>")
    turn_end, end = (policy.tokenizer.convert_tokens_to_ids(t) for t in ("<|turn_end|>", "<|end|>"))
    assert policy.stop_ids == [turn_end, end, 5, 6]
    assert policy.between_ids("x", stopped=True) == policy.between_ids("x", stopped=False)[1:]
    plain = "{% for m in messages %}{{ m.content }}{% endfor %}"
    model.generation_config.eos_token_id = None
    with pytest.raises(ValueError, match="mine: nothing says where an answer ends; allowed: a model whose tokenizer"):
        chatting(plain, model, eos_token=None)


# -- what is loaded --------------------------------------------------------------------------------------------------


def saved(folder, model):
    """A folder as users have them."""
    model.save_pretrained(folder)
    chatting(BODY + OPEN).tokenizer.save_pretrained(folder)
    return str(folder)


def test_what_cannot_be_played_is_refused_when_it_is_loaded(tmp_path):
    kinds = {
        "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 2, "expand": 2},
        "bert": {"is_decoder": False, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48},
    }
    for kind, sizes in kinds.items():
        shared = {k: SIZES[k] for k in ("vocab_size", "hidden_size", "num_hidden_layers", "pad_token_id")}
        model = random_model(kind, shared | sizes)
        with pytest.raises(ValueError, match=f"(?i){kind}.*cannot be played"):
            load_policy(saved(tmp_path / kind, model))
    broken = tiny("llama", 2)
    with torch.no_grad():
        broken.model.layers[1].mlp.up_proj.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="broken: its weight model.layers.1.mlp.up_proj.weight holds values"):
        load_policy(saved(tmp_path / "broken", broken))


def test_dropout_is_off_wherever_it_sits(tmp_path):
    """OPT drops by functions: with it the policy that is trained would be another one than that which played."""
    model = tiny("opt", 2)
    model.config.dropout = 0.5
    policy, ids = load_policy(saved(tmp_path, model)), torch.tensor([[5, 6, 7]])
    assert policy.model.config.dropout == 0
    assert torch.equal(policy.model.train()(ids).logits, policy.model.eval()(ids).logits)


def test_adapters_are_saved_merged_and_loaded_again(tmp_path):
    base = saved(tmp_path / "base", tiny("llama", 2))
    policy, ids = load_policy(base, lora=True), torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        for name, p in policy.model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.1)
    before, logits = {n: p.clone() for n, p in policy.model.named_parameters()}, policy.model(ids).logits
    again = load_policy(policy.save(tmp_path / "merged"))
    torch.testing.assert_close(again.model(ids).logits, logits, atol=1e-5, rtol=0)
    assert not torch.allclose(logits, load_policy(base).model(ids).logits, atol=1e-2)
    # it is as it was, and still learns
    assert all(torch.equal(p, before[n]) for n, p in policy.model.named_parameters())
    assert torch.equal(policy.model(ids).logits, logits)
    policy.model(ids).logits.sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in policy.model.parameters())

    policy.model.save_pretrained(tmp_path / "adapter")
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == base
    merged, further = load_policy(str(tmp_path / "adapter")), load_policy(str(tmp_path / "adapter"), lora=True)
    for found in (merged, further):
        torch.testing.assert_close(found.model(ids).logits, logits, atol=1e-5, rtol=0)
    assert type(merged.model).__name__ == "LlamaForCausalLM" and all(p.requires_grad for p in merged.model.parameters())
    assert {n.split(".")[-3] for n, p in further.model.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}
    with pytest.raises(ValueError, match="is an adapter already; allowed: True"):
        load_policy(str(tmp_path / "adapter"), lora={"r": 2})


def test_what_can_be_done_is_listed_where_it_is_asked_for():
    games, policy = generate_games(1, seed=1, max_receptacles=6), chatting(BODY + OPEN)
    options = sglib.Options(show_actions=True, max_new_tokens=4)
    one = sglib.rollout(policy, games, turns=2, options=options)[0]
    text = policy.tokenizer.decode(one.prompt_ids + one.completion_ids)
    assert text.count("help,inventory,look") == 2
    assert "Admissible" not in one.turns[0].observation
    with pytest.raises(ValueError, match="show_actions=True: the small models have never read"):
        sglib.rollout(policy_of("llama"), games, options=options)
    recipe, settings = load_recipe("random"), {"games_per_iteration": 1, "group_size": 2, "max_turns": 2}
    long, short = (
        train(
            policy, games, GRPOSettings(iterations=1, show_actions=s, **settings), recipe.components, recipe.estimator
        )
        for s in (True, False)
    )
    assert long.metrics[0]["tokens_mean"] > short.metrics[0]["tokens_mean"] + 20
    assert long.metrics[0]["logprob_gap"] < 1e-4


def test_two_prompts_a_turn():
    """What is asked depends on the episode alone, not on which others are played beside it."""
    games, policy = generate_games(2, seed=1, max_receptacles=6), chatting(BODY + OPEN)
    given = {"format": "guide_two_stage", "turns": 3, "seed": 4, "options": sglib.Options(max_new_tokens=6)}
    both, one = sglib.rollout(policy, games, group=2, **given), sglib.rollout(policy, games[1:], **given)
    assert [turn.response for turn in one[0].turns] == [turn.response for turn in both[2].turns]
    assert all(turn.label in sglib.LABELS and turn.span == (0, 0) for t in both for turn in t.turns)
    policy.limit = 150
    assert all(t.no_room and not len(t) for t in sglib.rollout(policy, games, **given))


def test_a_full_context_ends_episodes_by_name(caplog):
    policy, games = policy_of("llama"), generate_games(2, seed=1, max_receptacles=6)
    free = sglib.rollout(policy, games, turns=12)
    policy.limit = len(free[0].prompt_ids) + 60
    full = sglib.rollout(policy, games, turns=12)
    assert any(t.no_room for t in full) and not any(t.no_room for t in free)
    assert "episodes ended early, the model's context being full" in caplog.text
    few, policy.limit = policy.limit, 10_000
    again = sglib.rollout(policy, games, turns=12, options=sglib.Options(max_tokens=few))
    assert [t.to_dict() for t in again] == [t.to_dict() for t in full]
    assert all(len(t.prompt_ids) + len(t.completion_ids) <= few for t in full)
    policy.limit = 20
    with pytest.raises(ValueError, match=r"llama: the prompt of .* has \d+ tokens and an answer may .*allowed: 20"):
        sglib.rollout(policy, games)


@pytest.mark.parametrize("family", PLAYED)
def test_a_family_is_trained_on_what_it_played(family):
    """The trainer's forward pass gives the rollout's log-probabilities, and a step changes the weights."""
    policy, recipe = policy_of(family), load_recipe("random")
    settings = GRPOSettings(
        iterations=1, games_per_iteration=2, group_size=2, max_turns=3, learning_rate=1e-3, temperature=0.7
    )  # fmt: skip
    games, before = generate_games(2, seed=1, max_receptacles=6), policy.model.get_input_embeddings().weight.clone()
    row = train(policy, games, settings, recipe.components, recipe.estimator).metrics[-1]
    assert row["logprob_gap"] < 1e-4 and 0 < row["grad_norm"] < 1e4
    assert not torch.equal(before, policy.model.get_input_embeddings().weight)
