"""vLLM in a process of yours as the writer of answers: `load_policy(..., engine="vllm", server="http://127.0.0.1:8000")`.

The server sees the same folders as the trainer, is reached by nobody else, and is started in its development mode on
the same model, for example (on a CPU with `--no-enable-chunked-prefill --max-num-batched-tokens 4096` more):

    VLLM_SERVER_DEV_MODE=1 vllm serve FOLDER --host 127.0.0.1 --dtype float32 --logprobs-mode processed_logprobs

Before each rollout the weights are written as safetensors, whole or not at all, and the server is told to load them.
Over HTTP nothing else works without GPUs: vLLM's own transfer of weights has engines for NCCL, CUDA's handles and RDMA.
That it did is checked twice. It says its weights' SHA-256, and the norms' are compared: vLLM neither fuses, packs, pads
nor divides those, and every step of a full training changes them (of an adapter, none). And it writes an answer of some
tokens, whose log-probabilities are compared with the model's: within 1e-3 on average in float32, else 0.1.

Whatever a server answers ends in an answer or in an `EngineError` of one line.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import re
import shutil
import tempfile
import weakref
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import torch
from safetensors.torch import save_file

from sglib.models.vllm_engine import Engine, check_one_process

ALLOWED = "http://HOST:PORT of a vLLM server, or None"
PATIENCE = 600.0  # seconds without a byte; a server that compiles takes minutes for its first answer
SHORT = 60.0  # what needs no model
MOST = 64 * 2**20  # bytes of an answer
CONNECTIONS = 256
PROBE = 16  # tokens of the answer by which weights are checked
CHECKED = "norm.weight"  # how the names of the weights end that are compared
DTYPES = {f"torch.{name}": getattr(torch, name) for name in ("float32", "bfloat16", "float16")}


class EngineError(RuntimeError):
    """A server that is not there, is not what it has to be, or answers something else than it was asked."""


def check_server(value: str, engine: str | None = "vllm") -> str:
    """A server's address, without a slash at its end. `ValueError`: it is none, holds what belongs into no record, or
    comes without engine="vllm"."""
    if "@" in value:  # not shown: it may be a secret
        raise ValueError(f"server: an address holds no user and no password; allowed: {ALLOWED}")
    try:
        url = urlsplit(value)
        right = url.scheme in ("http", "https") and url.hostname and (url.port or 1)  # a port may be no number
    except ValueError:
        right = False
    if not right or re.search(r"[^!-~]|[?#]", value):
        raise ValueError(f"server={value!r}: allowed: {ALLOWED}")
    if engine is None:
        raise ValueError(f"server={value!r}: engine is None; allowed: with engine='vllm'")
    return value.rstrip("/")


class VLLMServer(Engine):
    """An engine on a server. `limit`: tokens that a text may have there."""

    def __init__(self, policy, address: str):
        """
        Raises:
            ValueError: no address, or there are several processes.
            EngineError: no vLLM server in its development mode there, one with other options, or with another model.
        """
        check_one_process()
        self.address = check_server(address)
        self._folder = tempfile.mkdtemp(prefix="sglib-vllm-")  # TMPDIR says where
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        try:
            self._model = str(self._ask("/v1/models")["data"][0]["id"])
            told = self._ask("/server_info?config_format=json")["vllm_config"]
            model, device = told["model_config"], told["device_config"]["device"]
            self.limit = int(model["max_model_len"])
            mode, dtype = str(model["logprobs_mode"]), str(model["dtype"])
            in_parts = device == "cpu" and told["scheduler_config"]["enable_chunked_prefill"]
        except (LookupError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise self._error(f"it does not describe itself as vLLM 0.32 does ({error!r})") from None
        if mode != "processed_logprobs":  # else those before the temperature
            raise self._error(f"logprobs_mode={mode!r}; allowed: --logprobs-mode processed_logprobs")
        if in_parts:
            raise self._error(
                "on a CPU a prompt that is read in parts ends vLLM 0.32; allowed: --no-enable-chunked-prefill "
                f"--max-num-batched-tokens {self.limit}"
            )
        if dtype not in DTYPES:
            raise self._error(f"dtype={dtype!r}; allowed: {', '.join(DTYPES)}")
        self._dtype = DTYPES[dtype]
        self._compare(policy, loaded=False)  # what has other names would end the server

    @torch.no_grad()
    def take_weights(self, policy) -> None:
        self._write(policy)
        self._ask("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": self._folder}})
        if self._ask("/reset_prefix_cache", {}).get("success") is not True:  # keys and values of the old weights
            raise self._error("it keeps its cache of prefixes: does somebody else use it?")
        self._compare(policy, loaded=True)
        self._read_again(policy)

    def _write(self, policy) -> None:
        file = Path(self._folder) / "model.safetensors"
        with policy.whole_weights() as weights:
            whole, seen = {}, set()
            for name, weight in weights.items():
                weight = weight.detach().cpu().contiguous()
                # A head that is tied to the embedding, too: on a CPU vLLM has its own copy of it, and keeps the old one
                # where the file has none. A file holds no piece of memory twice.
                whole[name] = weight.clone() if weight.data_ptr() in seen else weight
                seen.add(weight.data_ptr())
            save_file(whole, file.with_suffix(".new"), {"format": "pt"})
        file.with_suffix(".new").replace(file)

    def _read_again(self, policy) -> None:
        """Refuse a server whose log-probabilities of an answer are not the policy's."""
        prompt = policy.prompt_ids([{"role": "user", "content": "1 2 3"}])
        ((tokens, theirs),) = self.answers(policy, [prompt], [0], temperature=1.0, max_new_tokens=PROBE)
        logits = policy.model(torch.tensor([prompt + tokens], device=policy.device)).logits[0, len(prompt) - 1 : -1]
        mine = logits.float().log_softmax(-1).gather(-1, torch.tensor(tokens, device=policy.device)[:, None])[:, 0]
        gap = float((mine.cpu() - torch.tensor(theirs)).abs().mean())
        most = 1e-3 if logits.dtype == self._dtype == torch.float32 else 0.1
        if not gap <= most:
            raise self._error(
                f"it was told to load {self._folder}, and its log-probabilities are {gap:.2g} from the model's; "
                f"allowed: {most} on average"
            )

    def _compare(self, policy, loaded: bool) -> None:
        """Refuse a server whose norms have other names than the policy's or, once `loaded`, other values."""
        with policy.whole_weights() as weights:
            mine = {
                name: hashlib.sha256(
                    weight.detach().to("cpu", self._dtype).contiguous().view(-1).view(torch.uint8).numpy()
                ).hexdigest()
                for name, weight in weights.items()
                if name.endswith(CHECKED)
            }
        found = self._ask("/weight_checker", {"action": "checksum"}).get("checksums")
        found = found.items() if isinstance(found, dict) else ()
        # before the colon stands which of several GPUs it is
        theirs = [(name.rpartition(":")[2], value) for name, value in found if name.endswith(CHECKED)]
        if not mine or {name for name, _ in theirs} != set(mine):
            raise self._error(
                f"it serves {self._model!r}, whose {len(theirs)} weights *{CHECKED} are not the {len(mine)} of "
                f"{policy.name!r}; allowed: a server of that model"
            )
        if loaded and (wrong := [name for name, value in theirs if value != mine[name]]):
            raise self._error(
                f"it was told to load {self._folder}, and {len(wrong)} of the {len(theirs)} weights that were compared "
                f"are others ({wrong[0]})"
            )

    def answers(self, policy, prompts, seeds, *, temperature, max_new_tokens):
        how = {
            "model": self._model, "temperature": temperature, "max_tokens": max_new_tokens, "logprobs": 0,
            "return_token_ids": True, "stop_token_ids": policy.stop_ids, "ignore_eos": True,
            # all of them, or the model's generation config says them
            "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0,
            "presence_penalty": 0.0, "frequency_penalty": 0.0,
        }  # fmt: skip
        ask = functools.partial(self._answer, how=how, size=policy.model.config.get_text_config().vocab_size)
        with ThreadPoolExecutor(min(len(prompts), CONNECTIONS)) as pool:
            return list(pool.map(ask, prompts, seeds))

    def _answer(self, prompt: list[int], seed: int, how: dict, size: int) -> tuple[list[int], list[float]]:
        found = self._ask("/v1/completions", {"prompt": prompt, "seed": seed, **how})
        try:
            (choice,) = found["choices"]
            tokens, logprobs = choice["token_ids"], choice["logprobs"]["token_logprobs"]
            stop, most = set(how["stop_token_ids"]), how["max_tokens"]
            right = 0 < len(tokens) == len(logprobs) <= most
            right = right and all(type(token) is int and 0 <= token < size for token in tokens)
            right = right and all(type(p) in (int, float) and -1e5 < p < 1e-3 for p in logprobs)
            right = right and not stop & set(tokens[:-1]) and (len(tokens) == most or tokens[-1] in stop)
        except (LookupError, TypeError, ValueError):
            right = False
        if not right:
            raise self._error(
                "it answers otherwise than asked; allowed: token_ids of the model up to a stop token or max_tokens, "
                "and as many finite log-probabilities"
            )
        return tokens, [float(p) for p in logprobs]

    def _ask(self, path: str, body: dict | None = None) -> dict:
        """What the server says to a GET, or to a POST with a `body`: a JSON object."""
        data = None if body is None else json.dumps(body).encode()
        request, hint = Request(self.address + path, data, {"Content-Type": "application/json"}), ""
        try:
            with urlopen(request, timeout=SHORT if body is None else PATIENCE) as response:
                found = json.loads(response.read(MOST))
            if isinstance(found, dict):
                return found
            reason = f"no JSON object, but a {type(found).__name__}"
        except HTTPError as error:
            said = b""
            with error, contextlib.suppress(OSError, HTTPException):
                said = error.read(2000)
            reason = f"HTTP {error.code}: {said.decode(errors='replace')}"
            if error.code == 404:
                hint = " (is it vLLM 0.32 or newer, started with VLLM_SERVER_DEV_MODE=1?)"
        except (OSError, HTTPException) as error:
            reason = f"no answer: {getattr(error, 'reason', None) or repr(error)}"
        except (ValueError, RecursionError) as error:
            reason = f"no JSON object: {error}"
        if path == "/collective_rpc":
            hint = hint or " (does it serve this model, and see this folder? vLLM 0.32 ends after such an error)"
            reason = f"it does not load the weights in {self._folder}: {reason}"
        raise self._error(f"{path}: {reason}", hint)

    def _error(self, reason: str, hint: str = "") -> EngineError:
        reason = " ".join(reason[:800].split())
        reason = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in reason)
        return EngineError(f"engine='vllm', server={self.address!r}: {reason[:400]}{hint}")
