"""Policies: the shipped base model, a local path, a hub id; LoRA on top; and the small model's tokenizer.

The base model is a Qwen3 of 0.8 M parameters with a word-level tokenizer in which the engine's fixed phrases are one
token each, so that an episode of 30 turns is about 500 tokens. A larger model goes through the same code by its own
tokenizer.
"""

from __future__ import annotations

import functools
import importlib.resources
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from transformers.utils import logging

from sglib.models.endpoint import SCHEME, EndpointPolicy

logging.disable_progress_bar()  # "Loading weights" of a model of 3 MB: a line of noise in every notebook

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SHIPPED = ("base", "base_strong")
SPECIAL = ("<|pad|>", "<|unk|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
# Fixed phrases of the engine (alfred.twl2) and of the formats; the longest match wins.
PHRASES = (
    "You are in the middle of a room. Looking quickly around you, you see a", "Your task is to:", "You arrive at",
    "You open the", "You close the", "You pick up the", "You move the", "You clean the", "You heat the",
    "You cool the", "You turn on the", "You sliced the", "You are carrying: a", "You are not carrying anything.",
    "You are facing the", "Next to it, you see", "Nothing happens.", "is closed.", "is open. In it, you see",
    "On the", ", you see a", ", you see nothing.", "you see", "There's nothing special about", "This is a normal",
    "In it, you see", "This is a", ", and a", ", a", "from the", "to the", "using the", "with the", "go to",
    "put it in", "put them in", "under the", "Example:", "Outcome:", "Guidance:", "Label:", "Progress:", "Action:",
)  # fmt: skip
WORDS = (
    ". , : a an the and in on of is it with from to some two put find look at examine clean heat cool hot cold cool "
    "sliced slice open close take move use inventory help nothing act progress guide retrospect negative neutral "
    "positive success failure then search You The you see them under"
)


def _pattern() -> str:
    phrases = "|".join(re.escape(p) for p in sorted(PHRASES, key=len, reverse=True))
    return rf"{phrases}|\d+|[A-Za-z']+|[^\sA-Za-z\d']"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The small models' tokenizer: words, numbers and the engine's fixed phrases; about 300 tokens."""
    from alfworld.gen import constants
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    things = sorted(
        {
            name.lower()
            for name in set(constants.OBJECTS) | constants.RECEPTACLES | set(constants.VAL_RECEPTACLE_OBJECTS)
        }
    )
    numbers = [str(n) for n in [*range(0, 41), 50, 60, 70, 80, 90, 100]]
    vocabulary = list(dict.fromkeys([*SPECIAL, *PHRASES, *WORDS.split(), *numbers, *things]))
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<|unk|>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(_pattern()), behavior="removed", invert=True)
    core.decoder = decoders.Fuse()  # words are joined in `Policy.decode`
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<|pad|>", unk_token="<|unk|>", eos_token="<|end|>",
        additional_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"], chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False, model_max_length=4096,
    )  # fmt: skip


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


@dataclass
class Policy:
    """A model that writes responses, with its tokenizer.

    Attributes:
        model: a causal language model, perhaps with LoRA on top.
        tokenizer: with a chat template.
        compact: whether formats are named by one word (the shipped base) or by full instructions.
        name: for run records.
    """

    model: torch.nn.Module
    tokenizer: PreTrainedTokenizerFast
    compact: bool
    name: str

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def stop_ids(self) -> list[int]:
        return [self.tokenizer.eos_token_id]

    def __post_init__(self):
        # What the chat template writes between an answer and the next one, found by rendering a conversation with a
        # marker: adding only this text keeps the prefix as it was generated, also under templates that rewrite earlier
        # answers.
        marker = "MARKED ANSWER"
        history = [
            {"role": "user", "content": "A"},
            {"role": "assistant", "content": marker},
            {"role": "user", "content": "OBSERVED"},
        ]
        rendered = self._render(history)
        self._between = rendered[rendered.rindex(marker) + len(marker) :]
        self._between_ids = functools.lru_cache(4096)(self.encode)  # most observations come again and again
        if "OBSERVED" not in self._between:
            raise ValueError(f"{self.name}: the chat template does not write a user message after an answer")

    def _render(self, messages: list[dict]) -> str:
        kwargs = {} if self.compact else {"enable_thinking": False}
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **kwargs)

    def encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def prompt_ids(self, messages: list[dict], prefix: str = "") -> list[int]:
        """Token ids of a conversation up to where the policy writes, `prefix` already written."""
        return self.encode(self._render(messages) + prefix)

    def between_ids(self, observation: str, prefix: str = "", stopped: bool = True) -> list[int]:
        """Token ids between an answer and the next one: end of turn, the observation, the start of the answer.

        Args:
            observation: what the environment said.
            prefix: the part of the next answer that is given.
            stopped: whether the last answer ended with the stop token (it is not written again then).
        """
        ids = self._between_ids(self._between.replace("OBSERVED", observation) + prefix)
        return ids[1 if stopped and ids[0] in self.stop_ids else 0 :]

    def decode(self, ids: list[int]) -> str:
        """Text of generated tokens, special tokens left out."""
        if not self.compact:
            return self.tokenizer.decode(ids, skip_special_tokens=True)
        words = [w for w in self.tokenizer.convert_ids_to_tokens(ids) if w not in SPECIAL or w == "<|unk|>"]
        return re.sub(r" ([.,:])", r"\1", " ".join(words))

    def save(self, directory: str | Path) -> Path:
        """Write model (safetensors) and tokenizer; LoRA weights are merged in."""
        model = self.model.merge_and_unload() if hasattr(self.model, "merge_and_unload") else self.model
        model.save_pretrained(directory, safe_serialization=True)
        self.tokenizer.save_pretrained(directory)
        return Path(directory)


def asset(name: str) -> Path:
    """A shipped model's folder."""
    return Path(str(importlib.resources.files("sglib") / "envs" / "alfworld" / "models" / name))


def load_policy(
    name: str = "base", *, lora: dict | bool | None = None, device: str | None = None, dtype: str | None = None
) -> Policy | EndpointPolicy:
    """Load a policy.

    Args:
        name: "base" (the shipped model), "new" (the same architecture, untrained), a local folder, a hub id, or
            "endpoint:http://localhost:8000/v1#model" (a model behind a chat endpoint, see `sglib.endpoint`).
        lora: True for rank 16 on all linear layers, or `peft.LoraConfig`'s arguments; None or False for full training.
        device: "cpu", "cuda", …; None takes a GPU if there is one.
        dtype: "float32", "bfloat16"; None takes float32 for small models and on CPU, bfloat16 on GPU.

    Raises:
        ValueError: naming what was not found or not allowed.
    """
    if name.startswith(SCHEME):
        if lora or device or dtype:
            raise ValueError(f"name={name!r}: an endpoint has no weights: allowed without lora, device and dtype")
        return EndpointPolicy(name)
    if dtype not in (None, "float32", "bfloat16", "float16"):
        raise ValueError(f"dtype={dtype!r}: allowed: 'float32', 'bfloat16', 'float16', None")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if name == "new":
        tokenizer = build_tokenizer()
        model = build_model(tokenizer)
    else:
        source = asset(name) if name in SHIPPED else Path(name)
        if name in SHIPPED and not (source / "model.safetensors").exists():
            raise ValueError(f"name={name!r}: no such shipped model at {source}; `make base` builds 'base'")
        path = str(source) if source.exists() else name
        kwargs = {"dtype": getattr(torch, dtype or ("float32" if device == "cpu" or source.exists() else "bfloat16"))}
        try:
            tokenizer = AutoTokenizer.from_pretrained(path)
            model = AutoModelForCausalLM.from_pretrained(path, use_safetensors=True, **kwargs)
        except OSError as error:
            raise ValueError(
                f"name={name!r}: neither 'base', 'new', a folder with a model, nor a hub id that loads: {error}"
            ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    compact = tokenizer.chat_template == CHAT_TEMPLATE
    model = model.to(device).eval()
    if lora:
        import peft

        config = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
        model = peft.get_peft_model(model, peft.LoraConfig(**(config | (lora if isinstance(lora, dict) else {}))))
    return Policy(model, tokenizer, compact, name)


@functools.lru_cache(maxsize=2)
def load_frozen(name: str, device: str | None) -> Policy:
    """`load_policy` for a policy that nobody trains: once in a process for each name and device."""
    return load_policy(name, device=device)
