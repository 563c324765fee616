"""Playing with a model on a server: anything that speaks OpenAI's chat completions (vLLM, llama.cpp, Ollama, a
hosted service). Inference only: the server keeps the weights, so nothing here can be trained on.

What differs from a model that is loaded here:

- an episode is a conversation of messages; its trajectory has turns, but no token ids and no log-probabilities;
- an answer cannot be begun for the model. It writes the format's first word itself, and a text that `answer_prefix`
  gives is put into the user message with the request to begin with it. The model may not obey: how often it did not
  is logged;
- every request carries a seed of its own, from the call's seed, the episode and the turn; whether the same seed gives
  the same answer is up to the server.

An API key is read from the environment variable OPENAI_API_KEY; it is sent to the address that the policy names, and is
neither recorded nor printed.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import responses
from urllib.parse import urlsplit

import numpy as np

from sglib.records import Trajectory

log = logging.getLogger(__name__)

SCHEME = "endpoint:"
ALLOWED = "endpoint:http://HOST:PORT/v1#MODEL or endpoint:https://HOST/v1#MODEL"
LONGEST_TOKEN = 40  # characters; on average tokens have about four
# How vLLM, llama.cpp, TGI and hosted services say that a conversation has become too long.
_TOO_LONG = re.compile(
    r"context[ _-]?(length|size|window|overflow)|max_(model|seq)_len|too many tokens|reduce the length|`inputs` tokens"
    r"|\b(prompt|input)s?\b[^.]{0,40}\b(too (long|large)|exceeds)\b", re.I,
)  # fmt: skip
# OpenAI's newer models have renamed the parameter; other servers know the old name only.
_RENAMED = re.compile(r"unsupported.{0,40}max_tokens", re.I | re.S)


class EndpointError(RuntimeError):
    """A request that failed, after the client's retries; the message names the address, the model and the status."""

    def __init__(self, message: str, status: int | None = None, trajectories: Sequence[Trajectory] = ()):
        super().__init__(message)
        self.status = status  # HTTP's, None where no answer came
        self.trajectories = list(trajectories)  # episodes of the same `rollout` that were finished, in order
        self.too_long = False  # whether the server says that the conversation is too long for the model


def check_trainable(policy) -> None:
    """Raise `ValueError` naming the policy if it is an endpoint: there are no weights to train."""
    if isinstance(policy, EndpointPolicy):
        raise ValueError(f"policy={policy.name!r}: an endpoint has no weights to train: it can only play")


class EndpointPolicy:
    """A policy whose model answers over HTTP. `sglib.rollout`, `sglib.generate` and `sglib.evaluate` take it."""

    compact = False  # formats are explained in words
    thinking = False  # its thoughts are the server's business: they do not count as the answer

    def __init__(self, name: str, *, concurrency: int = 8, retries: int = 4, extra: dict | None = None):
        """
        Args:
            name: "endpoint:<http or https address>#<model>", such as "endpoint:http://localhost:8000/v1#qwen".
            concurrency: requests at the same time, at least 1; `Options.batch_size` lowers it.
            retries: how often a request is sent again, with growing pauses, when the connection breaks or the server
                answers 408, 409, 429 or 5xx.
            extra: further fields of every request that only some servers know, such as
                `{"chat_template_kwargs": {"enable_thinking": False}}` (vLLM, llama.cpp).
        """
        for argument, value, least in (("concurrency", concurrency, 1), ("retries", retries, 0)):
            if value < least:
                raise ValueError(f"{argument}={value!r}: must be at least {least}")
        self.base_url, self.model_name = _parts(name)
        self.name, self.concurrency, self.extra = name, concurrency, extra
        # what the server made us change, see `_adapt`
        self._limit, self._seeded = "max_tokens", True

        import openai  # here: it takes half a second, which only those who use it pay

        self._key = os.environ.get("OPENAI_API_KEY", "").strip()
        self._client = openai.OpenAI(
            base_url=self.base_url,
            api_key=self._key or "none",  # local servers ask for none, the client does
            timeout=openai.Timeout(300.0, connect=10.0),  # seconds
            max_retries=retries,
        )

    def __repr__(self) -> str:
        return f"EndpointPolicy({self.name!r})"

    def __getattr__(self, attribute: str):
        name = self.__dict__.get("name")
        raise AttributeError(f"{attribute}: an endpoint has no weights: {name} can play and be evaluated, no more")

    # -- one request -------------------------------------------------------------------------------------------------

    def ask(self, messages: list[dict], *, temperature: float, max_new_tokens: int, seed: int) -> tuple[str, bool]:
        """One answer: (its text, whether it was cut at `max_new_tokens`). Any text is an answer, also none."""
        import openai

        limit, seeded = self._limit, self._seeded
        fields = {limit: max_new_tokens} | ({"seed": seed} if seeded else {})
        try:
            completion = self._client.chat.completions.create(
                model=self.model_name, messages=messages, temperature=temperature, extra_body=self.extra, **fields
            )
        except openai.APIStatusError as error:
            said = str(error.body)
            if error.status_code in (400, 422) and self._adapt(said, limit, seeded):
                return self.ask(messages, temperature=temperature, max_new_tokens=max_new_tokens, seed=seed)
            raise self._failure(error.body, error.status_code) from None
        except Exception as error:  # no connection, no JSON, …: whatever it is, it must not cost the other episodes
            raise self._error(f"{error} ({error.__cause__ or type(error).__name__})") from None
        try:
            choice = completion.choices[0]
            content, cut = choice.message.content, choice.finish_reason == "length"
            wrong = getattr(choice, "error", None)
        except (AttributeError, TypeError, LookupError):
            wrong = getattr(completion, "error", None) or f"what came is no chat completion: {completion!r}"
        if wrong:  # some servers say what went wrong with the status of success
            raise self._failure(wrong, 200)
        if isinstance(content, list):  # some services answer in parts
            content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
        # a lone surrogate could not be sent back in the next turn
        text = str(content or "").encode("utf-8", "replace").decode()
        # some servers do not keep to the limit; a conversation of such answers would grow without bound
        longest = LONGEST_TOKEN * max_new_tokens
        return text[:longest], cut or len(text) > longest

    def _adapt(self, said: str, limit: str, seeded: bool) -> bool:
        """Whether a refused request should be sent again without what the server says that it does not know."""
        if limit == "max_tokens" and _RENAMED.search(said):
            self._limit = "max_completion_tokens"
            return True
        if seeded and re.search(r"\bseed\b", said):
            if self._seeded:
                log.warning("%s refuses seeds: its answers cannot be repeated", self.name)
            self._seeded = False
            return True
        return False

    def _failure(self, body: object, status: int) -> EndpointError:
        """The error of an answer whose `body` says what went wrong."""
        message = body.get("message") if isinstance(body, dict) else None
        failure = self._error(message if isinstance(message, str) else str(body), status)
        failure.too_long = bool(_TOO_LONG.search(str(body)))
        return failure

    def _error(self, reason: str, status: int | None = None) -> EndpointError:
        if self._key:
            reason = reason.replace(self._key, "***")
        reason = reason if len(reason) <= 400 else f"{reason[:400]} …"
        # it is printed: what commands a terminal is named instead
        reason = "".join(c if c.isprintable() or c in "\n\t" else f"\\u{ord(c):04x}" for c in reason)
        hint = ""
        if status in (401, 403):
            hint = f" (the key is what OPENAI_API_KEY holds, which is {'set' if self._key else 'not set'})"
        elif status == 404:
            hint = " (is the model's name right, and does the address end as the server wants it, often in /v1?)"
        state = "no answer" if status is None else f"HTTP {status} {responses.get(status, '')}".strip()
        return EndpointError(f"{self.base_url}, model {self.model_name!r}: {state}: {reason}{hint}", status)

    # -- many requests -----------------------------------------------------------------------------------------------

    def generate(
        self, conversations: Sequence[list[dict]], *, streams: Sequence[Sequence[int]], batch_size: int, **options
    ) -> list[str]:
        """One answer to each conversation (a list of messages), thoughts left out; its seed follows from its stream;
        `options` as for `ask`."""
        for messages in conversations:
            if not all(isinstance(message, dict) for message in messages):
                raise ValueError(f"prompts: token ids were given; {self.name} takes conversations, lists of messages")
        pool = ThreadPoolExecutor(max(1, min(self.concurrency, batch_size)))
        try:
            futures = [
                pool.submit(self.ask, alternating(messages), seed=request_seed(*stream), **options)
                for messages, stream in zip(conversations, streams)
            ]
            return [without_thought(future.result()[0]) for future in futures]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _parts(name: str) -> tuple[str, str]:
    """(base URL, model) of an endpoint's name."""
    address, _, model = name.removeprefix(SCHEME).partition("#")
    if "@" in address or "?" in address:  # not shown: it may be a secret
        raise ValueError(
            "name: an endpoint's address holds no user, password or query, since it is kept in run records; the key "
            f"comes from the environment variable OPENAI_API_KEY; allowed: {ALLOWED}"
        )
    try:
        url = urlsplit(address)
        _ = url.port  # raises for a port that is no number
    except ValueError as error:
        raise ValueError(f"name={name!r}: {error}; allowed: {ALLOWED}") from None
    wrong = (
        "it does not begin with endpoint:" if not name.startswith(SCHEME)
        else "the address is neither http nor https" if url.scheme not in ("http", "https")
        else "the address has no host" if not url.hostname
        else "it names no model" if not model.strip()
        else "it has a space or a control character" if re.search(r"[\s\x00-\x1f\x7f]", name)
        else None
    )  # fmt: skip
    if wrong:
        raise ValueError(f"name={name!r}: {wrong}; allowed: {ALLOWED}")
    return address.rstrip("/"), model


def request_seed(seed: int, *place: int) -> int:
    """A request's own seed, 0..2^31 - 1, from a call's seed and the request's place in it."""
    return int(np.random.SeedSequence([seed, *place]).generate_state(1)[0]) & 0x7FFFFFFF


def alternating(messages: list[dict]) -> list[dict]:
    """Neighbouring messages of one role as one: many models' templates refuse two user messages in a row."""
    merged: list[dict] = []
    for message in messages:
        if merged and merged[-1]["role"] == message["role"]:
            merged[-1] = {**message, "content": f"{merged[-1]['content']}\n\n{message['content']}"}
        else:
            merged.append(message)
    return merged


def without_thought(text: str) -> str:
    """An answer without the <think> … </think> that some models put before it."""
    _, end, answer = text.rpartition("</think>")
    return (answer if end else text.partition("<think>")[0]).strip()
