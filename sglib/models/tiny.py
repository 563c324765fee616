"""A randomly initialised Qwen3 as a hub holds a trained one: Qwen's tokenizer class, chat template and files. It plays
badly, and goes every way that a pre-trained model goes."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM

from sglib import envs
from sglib.models.small import PHRASES, WORDS


def build_qwen_tokenizer(env: str, size: int = 600) -> Qwen2Tokenizer:
    """A tokenizer of Qwen's class with its chat template: a byte-level BPE of `size` entries, at least 260, learned
    from the rules, phrases and words of an environment."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from trl.chat_template_utils import qwen3_chat_template  # loads TRL, which takes seconds

    card = envs.get(env)
    phrases, words = card.vocabulary()
    core, like = Tokenizer(models.BPE()), Qwen2Tokenizer().backend_tokenizer
    core.normalizer, core.pre_tokenizer = like.normalizer, like.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=size - 3, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    core.train_from_iterator([card.rules, " ".join([*phrases, *words, *PHRASES, *WORDS])], trainer)
    learned = json.loads(core.to_str())["model"]
    return Qwen2Tokenizer(
        learned["vocab"], [tuple(pair) for pair in learned["merges"]], eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"], chat_template=qwen3_chat_template, model_max_length=4096,
    )  # fmt: skip


def write_tiny_qwen3(folder: str | Path, env: str, *, hidden: int = 64, layers: int = 2, seed: int = 0) -> Path:
    """Write such a model into a folder, for `load_policy(folder)`. Same arguments, same weights."""
    tokenizer = build_qwen_tokenizer(env)
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, head_dim=32, max_position_embeddings=4096,
        tie_word_embeddings=True, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )  # fmt: skip
    Qwen3ForCausalLM(config).float().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)
