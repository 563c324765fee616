"""The small models: a word-level tokenizer in which an environment's fixed phrases are one token each, and a Qwen3 of
0.8 M parameters, so that an episode of 30 turns is about 500 tokens."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from sglib import envs
from sglib.models import smollm2

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ("<|pad|>", "<|unk|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
# What the formats write: fixed phrases, and words.
PHRASES = ("Example:", "Outcome:", "Guidance:", "Label:", "Progress:", "Action:")
WORDS = (
    *".,:", "act", "progress", "guide", "retrospect", "negative", "neutral", "positive", "success", "failure",
    *map(str, range(0, 101, 10)),
)  # fmt: skip


def build_tokenizer(env: str) -> PreTrainedTokenizerFast:
    """The tokenizer of an environment's small models: its own phrases and words, and those of the formats."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    card = envs.get(env)
    written = str if card.cased else str.lower
    phrases, words = card.vocabulary()
    phrases = [written(phrase) for phrase in (*phrases, *PHRASES)]
    vocabulary = list(dict.fromkeys([*SPECIAL, *phrases, *map(written, words), *WORDS]))
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<|unk|>"))
    if not card.cased:
        core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Split(Regex(_pattern(phrases)), behavior="removed", invert=True)
    core.decoder = decoders.Fuse()  # words are joined in `Policy.decode`
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<|pad|>", unk_token="<|unk|>", eos_token="<|end|>",
        additional_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"], chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False, model_max_length=4096,
    )  # fmt: skip


def _pattern(phrases: Sequence[str]) -> str:
    longest_first = "|".join(re.escape(p) for p in sorted(phrases, key=len, reverse=True))
    return rf"{longest_first}|\d+|[A-Za-z']+|[^\sA-Za-z\d']"


def build_model(
    tokenizer, hidden: int = 128, layers: int = 4, heads: int = 4, kv_heads: int = 2, seed: int = 0
) -> Qwen3ForCausalLM:
    """A fresh Qwen3 of about 0.8 M parameters (hidden 128, 4 layers) in fp32."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=32, max_position_embeddings=4096,
        rope_theta=10_000.0, tie_word_embeddings=True, pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    return Qwen3ForCausalLM(config).float()


@functools.cache
def shipped() -> dict[str, Path]:
    """The models that come with the environments, by "<environment>/<name>"."""
    files = [(name, file) for name in envs.names() for file in envs.get(name).folder.glob("models/*/config.json")]
    return {f"{name}/{file.parent.name}": file.parent for name, file in sorted(files)}


def shipped_folder(name: str, env: str | None = None) -> Path | None:
    """The folder of a shipped model, None if there is none: "<environment>/<name>", or the name alone, of `env` (a name
    or the path of a .py file with `models/` next to it), where that is None of the first that has one."""
    if "/" in name:
        return shipped().get(name)
    if env:
        folder = envs.get(env).folder / "models" / name
        return folder if (folder / "config.json").exists() else None
    return next((shipped()[key] for key in (f"{e}/{name}" for e in envs.names()) if key in shipped()), None)


def is_compact(name: str, env: str | None = None) -> bool:
    """Whether a name that `load_policy` takes is a small model of ours, shipped or "new": it knows formats by name."""
    return name == "new" or shipped_folder(name, env) is not None


def located(name: str, env: str | None = None) -> Path:
    """Where a model lies that is shipped (of `env`, as above) or was fetched; any other name as a path, which may be a
    local folder or the id of a hub."""
    return Path(shipped_folder(name, env) or smollm2.source(name) or name)
