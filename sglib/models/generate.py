"""Generation: a policy writes into many texts at once, answer after answer, with one key-value cache for each text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from sglib.models.own_cache import OwnCache, has_slots, new_cache
from sglib.models.slots import SlotCache, feed


class Continuation:
    """One text that a policy continues, with random numbers of its own."""

    def __init__(self, pending: list[int], rng: np.random.Generator):
        self.pending, self.rng = pending, rng  # token ids that are read next, at least one
        self.forget = 0  # how many of the tokens read last are forgotten before that
        self.answer: list[int] = []
        self.logprobs: list[float] = []  # of the answer's tokens, when they were sampled

    def ended(self) -> bool:
        """Whether the answer ends here for another reason than a stop token or its length."""
        return False

    def advance(self) -> bool:
        """Called when an answer is complete. Its last token has not been read. Sets `pending` and `forget`; returns
        whether another answer follows."""
        return False


@torch.no_grad()  # here, too: a thread does not inherit it
def generate_into(
    policy,
    rows: Sequence[Continuation],
    *,
    temperature: float,
    max_new_tokens: int,
    room: int,
    stopped: Callable[[], bool] = lambda: False,
):
    """Let the policy write answer after answer into each row, until none wants more.

    Every step reads a token or more in each row: where an answer is complete, what follows it is read while other rows
    are in the middle of theirs. Only where the model's own forward has to be used, which pads all rows to the longest,
    do they wait for each other.

    Args:
        temperature: 0 takes the most likely token.
        max_new_tokens: an answer ends with a stop token, where `Continuation.ended` says so, or here.
        room: tokens that a row will probably need after its first `pending`.
        stopped: asked before each step whether to leave off.
    """
    stop, rows = set(policy.stop_ids), list(rows)
    cache = _begin(policy, rows, room)
    while not stopped():
        wait = cache.decoder is None and any(row.answer for row in rows)
        fed = [i for i, row in enumerate(rows) if row.answer or not wait]
        reading = set(fed)
        logits = feed(policy, cache, [row.pending if i in reading else () for i, row in enumerate(rows)])
        uniform, gone = np.array([rows[i].rng.random() for i in fed]), []
        for i, token, logprob in zip(fed, *sample(logits, temperature, uniform), strict=True):
            row = rows[i]
            row.answer.append(token)
            row.logprobs.append(logprob)
            if token not in stop and len(row.answer) < max_new_tokens and not row.ended():
                row.pending = [token]
            elif row.advance():
                cache.lengths[i] -= row.forget
                row.answer, row.logprobs = [], []
            else:
                gone.append(i)
        if len(gone) == len(rows):
            break
        if gone:
            rows = [rows[i] for i in cache.drop(gone)]


def _begin(policy, rows: Sequence[Continuation], room: int) -> SlotCache | OwnCache:
    """A cache for B texts that begin, with room for `room` more tokens. What several begin with (a group's prompt) is
    read once; its last token stays pending, since what follows it is each text's own."""
    heads = [tuple(row.pending[:-1]) for row in rows]
    place = {head: i for i, head in enumerate(dict.fromkeys(heads))}
    longest = max(len(row.pending) for row in rows)
    if len(place) == len(rows) or not all(heads) or not has_slots(policy.model):
        return new_cache(policy.model, len(rows), longest + room)
    cache = new_cache(policy.model, len(place), longest)
    feed(policy, cache, list(place), keep=np.zeros(len(place), dtype=np.int64))
    cache.take([place[head] for head in heads], longest - min(map(len, place)) + room)
    for row, head in zip(rows, heads):
        row.pending = row.pending[len(head) :]
    return cache


def sample(logits: torch.Tensor, temperature: float, uniform: np.ndarray) -> tuple[list[int], list[float]]:
    """One token a row by inverting the cumulative distribution at `uniform` (B,); its log-probability under that
    distribution. Temperature 0: the most likely token, and its log-probability at temperature 1."""
    logprobs = torch.log_softmax(logits / temperature if temperature > 0 else logits, dim=-1)
    if temperature > 0:
        cumulative = logprobs.double().exp().cumsum(-1)
        points = torch.as_tensor(uniform, device=logits.device)[:, None] * cumulative[:, -1:]
        tokens = torch.searchsorted(cumulative, points, right=True).clamp(max=logits.shape[-1] - 1)
    else:
        tokens = logprobs.argmax(-1, keepdim=True)
    return tokens[:, 0].tolist(), logprobs.gather(-1, tokens)[:, 0].tolist()
