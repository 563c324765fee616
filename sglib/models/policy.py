"""Policies: a shipped small model, a local folder, a hub id; LoRA on top. All go through the same code, each by its own
tokenizer."""

from __future__ import annotations

import contextlib
import functools
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging

from sglib import envs
from sglib.models import random_lm
from sglib.models.decoder import LARGEST, unwrapped
from sglib.models.endpoint import SCHEME, EndpointPolicy
from sglib.models.own_cache import new_cache
from sglib.models.slots import feed
from sglib.models.small import (
    CHAT_TEMPLATE,
    SPECIAL,
    build_model,
    build_tokenizer,
    is_compact,
    located,
    shipped,
    shipped_folder,
)  # fmt: skip
from sglib.models.template import OBSERVED, Template
from sglib.models.vllm_engine import ENGINES, VLLM, Engine
from sglib.models.vllm_server import VLLMServer, check_server
from sglib.records import Trajectory

logging.disable_progress_bar()  # "Loading weights" of a model of 3 MB: a line of noise in every notebook

SAFE = {"trust_remote_code": False}  # a model's folder holds data: without this, transformers asks whether to run code


@dataclass
class Policy:
    """A model that writes responses, with its tokenizer."""

    model: torch.nn.Module  # a causal language model, perhaps with LoRA on top
    tokenizer: PreTrainedTokenizerFast  # with a chat template
    compact: bool  # whether formats are named by one word (the shipped base) or by full instructions
    name: str  # for run records
    thinking: bool = False  # whether a model that can think before it answers does
    engine: Engine | None = None  # that writes answers in the model's place

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def __post_init__(self):
        self._template = Template(self.tokenizer, self.name, self.compact, self.thinking)
        self._between_ids = functools.lru_cache(4096)(self.encode)  # most observations come again and again
        ends = getattr(getattr(self.model, "generation_config", None), "eos_token_id", None)
        ends = [self._template.end_id(), self.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])]
        # The token ids that end an answer: the chat template's, the tokenizer's and those of the generation config.
        self.stop_ids = list(dict.fromkeys(end for end in ends if end is not None))
        if not self.stop_ids:
            raise ValueError(
                f"{self.name}: nothing says where an answer ends; allowed: a model whose tokenizer or generation "
                "config names an end (eos_token), or whose chat template ends an answer with a special token"
            )
        config = self.model.config.get_text_config()
        # The tokens that a text may have; models without learned or rotary positions name none.
        self.limit: int = getattr(config, "max_position_embeddings", None) or self.tokenizer.model_max_length

    def encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def prompt_ids(self, messages: list[dict], prefix: str = "") -> list[int]:
        """Token ids of a conversation up to where the policy writes, `prefix` already written."""
        return self.encode(self._template.render(messages) + prefix)

    def between_ids(self, observation: str, prefix: str = "", stopped: bool = True) -> list[int]:
        """Token ids between an answer and the next one: end of turn (unless the answer `stopped` with it), the
        observation, the part of the next answer that is given."""
        ids = self._between_ids(self._template.between.replace(OBSERVED, observation) + prefix)
        return ids[1 if stopped and ids[0] in self.stop_ids else 0 :]

    def decode(self, ids: list[int]) -> str:
        """Text of generated tokens, special tokens left out."""
        if not self.compact:
            return self.tokenizer.decode(ids, skip_special_tokens=True)
        words = [w for w in self.tokenizer.convert_ids_to_tokens(ids) if w not in SPECIAL or w == "<|unk|>"]
        return re.sub(r" ([.,:])", r"\1", " ".join(words))

    def save(self, directory: str | Path) -> Path:
        """Write model (safetensors) and tokenizer; LoRA weights are merged in what is written, and the policy stays as
        it is. Each file is written whole or not at all, and none before all could be."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory, prefix=".") as temporary:
            self._write(temporary)
            for file in sorted(Path(temporary).iterdir()):
                file.replace(directory / file.name)
        return directory

    def _write(self, directory: str) -> None:
        with self.whole_weights() as weights:
            unwrapped(self.model).save_pretrained(directory, state_dict=weights)
        self.tokenizer.save_pretrained(directory)

    @contextlib.contextmanager
    def whole_weights(self) -> Iterator[dict[str, torch.Tensor]]:
        """The model's weights by their names without an adapter, which is merged in them as long as they are used."""
        model, kept = unwrapped(self.model), {}
        if model is self.model:
            yield model.state_dict()
            return
        # merging rounds, and so would taking it back
        kept = {n: p.detach().to("cpu", copy=True) for n, p in model.named_parameters() if ".base_layer." in n}
        self.model.merge_adapter()
        try:
            state = model.state_dict()
            yield {n.replace(".base_layer.", "."): t for n, t in state.items() if ".lora_" not in n}
        finally:
            self.model.unmerge_adapter()
            with torch.no_grad():
                for name, weight in kept.items():
                    model.get_parameter(name).copy_(weight)


@contextlib.contextmanager
def eval_mode(model: torch.nn.Module) -> Iterator[None]:
    """The model without dropout, with which it would be another policy; afterwards as it was."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def check_thinking(name: str, env: str | None) -> None:
    """`ValueError` for a name whose model cannot be told to think before it answers."""
    if name.startswith(SCHEME):
        raise ValueError(
            f"thinking=True: {name!r} is a server, whose own settings say whether its model thinks; allowed: False, or "
            'in Python sglib.models.endpoint.EndpointPolicy(name, extra={"chat_template_kwargs": {"enable_thinking": '
            "True}})"
        )
    if is_compact(name, env):
        raise ValueError(f"thinking=True: {name!r} is a small model that has no thoughts; allowed: language models")


def load_policy(
    name: str | Path = "base",
    *,
    env: str | None = None,
    lora: dict | bool | None = None,
    device: str | None = None,
    dtype: str | None = None,
    thinking: bool = False,
    engine: str | None = None,
    server: str | None = None,
) -> Policy | EndpointPolicy:
    """Load a policy.

    Args:
        name: "base" or another shipped model (see `sglib.models.small.shipped`), "new" (the same architecture,
            untrained), "smollm2" (see `sglib.models.smollm2`), "random-lm" (a language model that knows nothing, see
            `sglib.models.random_lm`), a local folder, a hub id, or
            "endpoint:http://localhost:8000/v1#model" (see `sglib.models.endpoint`).
        env: the environment whose model or vocabulary is meant, a name or the path of a .py file; None takes the first
            that has one.
        lora: True for rank 16 on all linear layers, or `peft.LoraConfig`'s arguments; None or False for full training.
            A folder with an adapter: True trains it further, else it is merged in.
        device: "cpu", "cuda", …; None takes a GPU if there is one.
        dtype: "float32", "bfloat16"; None takes bfloat16 on a GPU for what has over 100 M parameters, else float32.
        thinking: let a model think before it answers, if its chat template knows that; its answers then get 1,000
            tokens and begin freely. Not of a small model or an endpoint.
        engine: "vllm" has vLLM write the answers of episodes (see `sglib.models.vllm_engine`); None the model itself.
        server: the address of a vLLM server that writes them (see `sglib.models.vllm_server`), which may also lower
            how many tokens a text may have; None has vLLM in this process.

    Raises:
        EngineError: the server is not there, or not what it has to be.
        ValueError: there is no such model, or it cannot be played: no chat template or none that only appends, no end
            of an answer, weights that are no numbers, an architecture that does not read in pieces what it reads at
            once.
    """
    name = str(name)
    if thinking:
        check_thinking(name, env)
    if name.startswith(SCHEME):
        if lora or device or dtype or engine or server:
            allowed = "allowed without lora, device, dtype, engine and server"
            raise ValueError(f"name={name!r}: an endpoint has no weights: {allowed}")
        return EndpointPolicy(name)
    if engine not in (None, *ENGINES):
        raise ValueError(f"engine={engine!r}: allowed: {', '.join(map(repr, ENGINES))}, None")
    if server is not None:
        check_server(server, engine)
    if dtype not in (None, "float32", "bfloat16", "float16"):
        raise ValueError(f"dtype={dtype!r}: allowed: 'float32', 'bfloat16', 'float16', None")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if name == "new":
        tokenizer = build_tokenizer(env or envs.names()[0])
        model = build_model(tokenizer)
    elif name == random_lm.NAME:
        tokenizer, model = random_lm.build(env or envs.names()[0])
    else:
        source = located(name, env)
        if env and not source.exists() and shipped_folder(name):  # not another environment's: it has other words
            raise ValueError(
                f"name={name!r}: the environment {env!r} has no model of this name; allowed: 'new', a model of another "
                f"environment by its whole name ({', '.join(shipped())}), a folder with a model, a hub id"
            )
        path = str(source)
        small = source.exists() and sum(file.stat().st_size for file in source.glob("*.safetensors")) < 4 * LARGEST
        dtype = dtype or ("float32" if device == "cpu" or small else "bfloat16")
        try:
            tokenizer, model = _pretrained(path, getattr(torch, dtype), lora)
        except OSError as error:
            raise ValueError(
                f"name={name!r}: neither 'new', a shipped model ({', '.join(shipped())}), 'smollm2' (once `python -m "
                f"sglib smollm2` has fetched it), a folder with a model, nor a hub id that loads: {error}"
            ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    compact = tokenizer.chat_template == CHAT_TEMPLATE
    model = model.to(device).eval()
    if lora and isinstance(model, PreTrainedModel):
        import peft

        config = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
        model = peft.get_peft_model(model, peft.LoraConfig(**(config | (lora if isinstance(lora, dict) else {}))))
    policy = Policy(model, tokenizer, compact, name, thinking)
    if not is_compact(name, env):
        _check(policy)
    if server:
        policy.engine = VLLMServer(policy, server)
        policy.limit = min(policy.limit, policy.engine.limit)
    elif engine:
        policy.engine = VLLM(policy)
    return policy


def _pretrained(path: str, dtype: torch.dtype, lora: dict | bool | None):
    """Tokenizer and model of a folder or a hub id, which may hold an adapter alone."""
    from transformers.utils.peft_utils import find_adapter_config_file

    adapter = find_adapter_config_file(path)
    if adapter is None:
        tokenizer, config = (kind.from_pretrained(path, **SAFE) for kind in (AutoTokenizer, AutoConfig))
        for part in (config, config.get_text_config()):  # some drop by functions that nobody can find and switch off
            for field, value in list(vars(part).items()):
                if "drop" in field and isinstance(value, float):
                    setattr(part, field, 0.0)
        more = {"config": config, "use_safetensors": True, "dtype": dtype}
        return tokenizer, AutoModelForCausalLM.from_pretrained(path, **more, **SAFE)
    import peft

    if isinstance(lora, dict):
        raise ValueError(f"lora={lora!r}: {path} is an adapter already; allowed: True (train it further), False, None")
    base = peft.PeftConfig.from_pretrained(path).base_model_name_or_path
    tokenizer, model = _pretrained(base, dtype, None)
    with contextlib.suppress(OSError, ValueError):  # an adapter's folder may have a tokenizer of its own
        tokenizer = AutoTokenizer.from_pretrained(path, **SAFE)
    model = peft.PeftModel.from_pretrained(model, path, is_trainable=bool(lora))
    return tokenizer, model if lora else model.merge_and_unload().requires_grad_(True)


@torch.no_grad()
def _check(policy: Policy) -> None:
    """Refuse a model that cannot be played, by name: weights that are no numbers, or texts that it reads in pieces
    otherwise than at once."""
    for name, weight in policy.model.named_parameters():
        if weight.is_floating_point() and not torch.isfinite(weight).all():
            raise ValueError(f"{policy.name}: its weight {name} holds values that are no finite numbers")
    kind, vocabulary = type(unwrapped(policy.model)).__name__, policy.model.config.get_text_config().vocab_size
    texts = [[(7 * i + 13 * row) % vocabulary for i in range(9 + row)] for row in range(2)]
    try:
        cache = new_cache(policy.model, 2, 12)
        found = [feed(policy, cache, [text[a:b] for text in texts]) for a, b in ((0, 4), (4, 5), (5, 8))]
        read = [policy.model(torch.tensor([text[:8]], device=policy.device)).logits[0] for text in texts]
        more = policy.model(torch.tensor([texts[0][:9]], device=policy.device)).logits[0, :8]
    except Exception as error:
        raise ValueError(f"{policy.name}: {kind} cannot be played: {type(error).__name__}: {error}") from error
    apart = max(
        *(float((a.log_softmax(-1) - b[end - 1].float().log_softmax(-1)).abs().mean())
          for part, end in zip(found, (4, 5, 8)) for a, b in zip(part, read)),
        float((more.float().log_softmax(-1) - read[0].float().log_softmax(-1)).abs().mean()),
    )  # fmt: skip
    if not apart < (1e-3 if more.dtype == torch.float32 else 0.1):
        raise ValueError(
            f"{policy.name}: {kind} reads a text in pieces otherwise than at once (log-probabilities {apart:.2g} "
            "apart), so it cannot be played; allowed: a causal language model"
        )


def load_frozen(name: str, trajectories: Sequence[Trajectory], policy: Policy | None) -> Policy:
    """A policy that nobody trains, for the environment of some episodes (at least one) and on the device of `policy`;
    loaded once in a process, and again when its folder has changed."""
    envs.of(trajectories[0])  # refuses a file that nobody has loaded: the name in a recording must not make it run
    env = trajectories[0].env or None
    seen = tuple((file.name, file.stat().st_ctime_ns) for file in sorted(located(name, env).glob("*")))
    return _load_frozen(name, env, None if policy is None else str(policy.device), seen)


@functools.lru_cache(maxsize=2)
def _load_frozen(name: str, env: str | None, device: str | None, seen: tuple) -> Policy:
    return load_policy(name, env=env, device=device)
