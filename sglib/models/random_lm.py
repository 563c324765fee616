"""`load_policy("random-lm")`: a Llama of random weights with a tokenizer of bytes and frequent pieces and a chat
template, made in a second. It goes the way of every language model and knows nothing: for tests, for smoke runs, and to
see what a number is worth that a real model reaches.
"""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sglib import envs, formats

NAME = "random-lm"
PIECES = 1024  # of the tokenizer, bytes included
CHAT = (
    "{% for m in messages %}{{ '<|turn|>' + m.role + '\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)


def build(env: str, **shape) -> tuple[PreTrainedTokenizerFast, LlamaForCausalLM]:
    """Tokenizer and model for an environment's texts; `shape` as of `LlamaConfig`, which has two small layers else."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    card = envs.get(env)
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special, alphabet = ["<|pad|>", "<|end|>", "<|turn|>"], sorted(pre_tokenizers.ByteLevel.alphabet())
    told = [card.rules, *(" ".join(part) for part in card.vocabulary())]
    told += [formats.opening(name, card, "", False)[0]["content"] for name in (*formats.FORMATS, *formats.PROMPTED)]
    how = {"vocab_size": PIECES, "special_tokens": special, "initial_alphabet": alphabet, "show_progress": False}
    core.train_from_iterator(told, trainers.BpeTrainer(**how))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=special[0], eos_token=special[1], additional_special_tokens=special[2:],
        chat_template=CHAT, clean_up_tokenization_spaces=False, model_max_length=8192,
    )  # fmt: skip
    small = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes = small | {"num_key_value_heads": 2, "tie_word_embeddings": True, "vocab_size": len(tokenizer)} | shape
    torch.manual_seed(0)
    config = LlamaConfig(
        **sizes, max_position_embeddings=8192, pad_token_id=0, eos_token_id=1, bos_token_id=None
    )  # fmt: skip
    return tokenizer, LlamaForCausalLM(config).float()
