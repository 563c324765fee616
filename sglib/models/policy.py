"""Policies: a shipped small model, a local folder, a hub id; LoRA on top. All go through the same code, each by its own
tokenizer."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging

from sglib import envs
from sglib.models.endpoint import SCHEME, EndpointPolicy
from sglib.models.small import CHAT_TEMPLATE, SPECIAL, build_model, build_tokenizer, shipped, shipped_folder
from sglib.records import Trajectory

logging.disable_progress_bar()  # "Loading weights" of a model of 3 MB: a line of noise in every notebook


@dataclass
class Policy:
    """A model that writes responses, with its tokenizer."""

    model: torch.nn.Module  # a causal language model, perhaps with LoRA on top
    tokenizer: PreTrainedTokenizerFast  # with a chat template
    compact: bool  # whether formats are named by one word (the shipped base) or by full instructions
    name: str  # for run records

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
        history = (("user", "A"), ("assistant", marker), ("user", "OBSERVED"))
        rendered = self._render([{"role": role, "content": text} for role, text in history])
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
        """Token ids between an answer and the next one: end of turn (unless the answer `stopped` with it), the
        observation, the part of the next answer that is given."""
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
        model = self.model if isinstance(self.model, PreTrainedModel) else self.model.merge_and_unload()
        model.save_pretrained(directory, safe_serialization=True)
        self.tokenizer.save_pretrained(directory)
        return Path(directory)


@contextlib.contextmanager
def eval_mode(model: torch.nn.Module) -> Iterator[None]:
    """The model without dropout, with which it would be another policy; afterwards as it was."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def load_policy(
    name: str = "base",
    *,
    env: str | None = None,
    lora: dict | bool | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> Policy | EndpointPolicy:
    """Load a policy.

    Args:
        name: "base" or another shipped model (see `sglib.models.small.shipped`), "new" (the same architecture,
            untrained), a local folder, a hub id, or "endpoint:http://localhost:8000/v1#model" (see
            `sglib.models.endpoint`).
        env: the environment whose model or vocabulary is meant, a name or the path of a .py file; None takes the first
            that has one.
        lora: True for rank 16 on all linear layers, or `peft.LoraConfig`'s arguments; None or False for full training.
        device: "cpu", "cuda", …; None takes a GPU if there is one.
        dtype: "float32", "bfloat16"; None takes float32 for small models and on CPU, bfloat16 on GPU.
    """
    if name.startswith(SCHEME):
        if lora or device or dtype:
            raise ValueError(f"name={name!r}: an endpoint has no weights: allowed without lora, device and dtype")
        return EndpointPolicy(name)
    if dtype not in (None, "float32", "bfloat16", "float16"):
        raise ValueError(f"dtype={dtype!r}: allowed: 'float32', 'bfloat16', 'float16', None")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if name == "new":
        tokenizer = build_tokenizer(env or envs.names()[0])
        model = build_model(tokenizer)
    else:
        source = shipped_folder(name, env) or Path(name)
        if env and not source.exists() and shipped_folder(name):  # not another environment's: it has other words
            raise ValueError(
                f"name={name!r}: the environment {env!r} has no model of this name; allowed: 'new', a model of another "
                f"environment by its whole name ({', '.join(shipped())}), a folder with a model, a hub id"
            )
        path = str(source) if source.exists() else name
        kwargs = {"dtype": getattr(torch, dtype or ("float32" if device == "cpu" or source.exists() else "bfloat16"))}
        try:
            tokenizer = AutoTokenizer.from_pretrained(path)
            model = AutoModelForCausalLM.from_pretrained(path, use_safetensors=True, **kwargs)
        except OSError as error:
            raise ValueError(
                f"name={name!r}: neither 'new', a shipped model ({', '.join(shipped())}), a folder with a model, nor a "
                f"hub id that loads: {error}"
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


def load_frozen(name: str, trajectories: Sequence[Trajectory], policy: Policy | None) -> Policy:
    """A policy that nobody trains, for the environment of some episodes (at least one) and on the device of `policy`;
    loaded once in a process."""
    envs.of(trajectories[0])  # refuses a file that nobody has loaded: the name in a recording must not make it run
    return _load_frozen(name, trajectories[0].env or None, None if policy is None else str(policy.device))


@functools.lru_cache(maxsize=2)
def _load_frozen(name: str, env: str | None, device: str | None) -> Policy:
    return load_policy(name, env=env, device=device)
