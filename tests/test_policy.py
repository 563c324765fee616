"""Policies: the tokenizer knows every text of the game, templates keep their prefix, bad names are explained."""

import json

import pytest
import torch

import sglib
from sglib.envs.alfworld import FastAlfworld, generate_games
from sglib.models.policy import Policy, load_frozen, load_policy
from sglib.models.small import build_tokenizer, shipped, shipped_folder

CARD = sglib.envs.get("alfworld")

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_no_unknown_word_in_a_thousand_observations():
    policy, env = load_policy("new"), FastAlfworld()
    for game in generate_games(120, seed=9, max_receptacles=None):
        texts = [env.reset(game).text]
        for action in [*game.walkthrough]:
            texts.append(env.step(action).text)
            assert policy.decode(policy.encode(action)) == action
        assert not any(policy.tokenizer.unk_token_id in policy.encode(CARD.shown(t)) for t in texts)


def test_text_between_answers_keeps_the_prefix():
    """Under a ChatML template (Qwen's family) as under ours: rendering step by step equals rendering at once."""
    tokenizer = build_tokenizer("alfworld")
    tokenizer.chat_template = CHATML
    model = load_policy("new").model
    policy = Policy(model, tokenizer, False, "chatml")
    between = policy._template.between
    assert between.startswith("<|im_end|>") and between.endswith("<|im_start|>assistant\n")
    messages = [
        {"role": "user", "content": "look"},
        {"role": "assistant", "content": "go to desk 1"},
        {"role": "user", "content": "On the desk 1"},
    ]
    whole = policy.encode(policy._template.render(messages))
    assert whole == policy.prompt_ids(messages[:1]) + policy.encode("go to desk 1") + policy.between_ids(
        "On the desk 1", stopped=False
    )


def test_save_and_load_give_the_same_model(tmp_path):
    policy = load_policy("new")
    policy.save(tmp_path / "m")
    again = load_policy(str(tmp_path / "m"))
    ids = torch.tensor([policy.encode("go to desk 1")])
    assert torch.equal(policy.model(ids).logits, again.model(ids).logits) and again.compact


def test_a_language_model_that_knows_nothing_goes_the_way_of_all():
    policy = load_policy("random-lm", env="alfworld")
    text = "Thought: go to desk 1, \u00fcber\nAction: <command>"
    assert policy.decode(policy.encode(text)) == text and not policy.compact and policy.stop_ids == [1]
    weights = [load_policy("random-lm", env=env).model.state_dict() for env in ("alfworld", "alfworld", "sokoban")]
    assert all(torch.equal(a, b) for a, b in zip(weights[0].values(), weights[1].values()))
    played = sglib.rollout(policy, generate_games(1, seed=1, max_receptacles=4), format="react_sparse", turns=2)[0]
    ids, start = torch.tensor([played.prompt_ids + played.completion_ids]), len(played.prompt_ids) - 1
    with torch.no_grad():
        scores = policy.model(ids).logits[0].log_softmax(-1)
    for i, (token, written, recorded) in enumerate(zip(played.completion_ids, played.mask, played.logprobs)):
        assert not written or abs(scores[start + i, token] - recorded) < 1e-4


def test_lora_starts_as_the_base_and_saves_merged(tmp_path):
    policy = load_policy("base", lora=True)
    trainable = sum(p.numel() for p in policy.model.parameters() if p.requires_grad)
    assert 0 < trainable < sum(p.numel() for p in policy.model.parameters()) / 3
    ids = torch.tensor([policy.encode("go to desk 1")])
    assert torch.allclose(policy.model(ids).logits, load_policy("base").model(ids).logits, atol=1e-5)
    trajectory = sglib.rollout(policy, generate_games(1, seed=1), turns=2)[0]
    assert len(trajectory) == 2 or trajectory.won


@pytest.mark.parametrize("name", ["base-none", "/no/such/folder"])
def test_names_that_do_not_exist(name):
    with pytest.raises(ValueError, match=name):
        load_policy(name)


def test_bad_dtype():
    with pytest.raises(ValueError, match="dtype='int4'"):
        load_policy("new", dtype="int4")


@pytest.mark.parametrize("name", shipped())
def test_the_shipped_models_come_with_their_card(name):
    env, _, model = name.partition("/")
    card = json.loads((shipped_folder(name) / "card.json").read_text())
    assert card["parameters"] == sum(p.numel() for p in load_policy(name, env=env).model.parameters())
    assert {"recipe", "wall_seconds", "command"} <= set(card) or model == "official"  # which was trained by GRPO
    assert (shipped_folder(name) / "model.safetensors").stat().st_size < 12e6


def test_a_frozen_model_is_loaded_again_when_its_files_change(tmp_path, trajectory):
    trajectory.env = "alfworld"
    for name in ("base", "base_strong"):
        load_policy(name).save(tmp_path)
        found = load_frozen(str(tmp_path), [trajectory], None)
        weights = zip(found.model.parameters(), load_policy(name).model.parameters())
        assert all(torch.equal(a, b) for a, b in weights)
    assert load_frozen(str(tmp_path), [trajectory], None) is found
