"""What a policy writes outside an episode of its own: answers to prompts, blanks in texts, labels for recorded ones."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np
import torch

from sglib import envs, formats
from sglib.models.endpoint import EndpointPolicy
from sglib.models.generate import Continuation, generate_into
from sglib.models.policy import Policy, eval_mode
from sglib.play.episode import answer_tokens
from sglib.records import Trajectory

SIDE_BY_SIDE = 256  # texts that are filled in at a time; changes speed and memory, not results


@torch.no_grad()
def generate(
    policy: Policy | EndpointPolicy,
    prompts: Sequence[list[int]] | Sequence[list[dict]],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    streams: Sequence[Sequence[int]] | None = None,
    batch_size: int = 64,
) -> list[str]:
    """One answer to each prompt (token ids; for an endpoint a list of messages), decoded; same seed, same answers. A
    prompt's random numbers follow from its stream; without `streams` that is the seed and its place. ValueError for a
    number of tokens or prompts at a time below 1, or a temperature outside 0..10."""
    if min(max_new_tokens, batch_size) < 1 or not 0 <= temperature <= 10:
        got = f"max_new_tokens={max_new_tokens!r}, batch_size={batch_size!r}, temperature={temperature!r}"
        raise ValueError(f"{got}: the first two must be at least 1, the last in 0..10")
    streams = [[seed, i] for i in range(len(prompts))] if streams is None else streams
    if isinstance(policy, EndpointPolicy):
        return policy.generate(
            prompts, max_new_tokens=max_new_tokens, temperature=temperature, streams=streams, batch_size=batch_size
        )
    texts = []
    with eval_mode(policy.model):
        for first in range(0, len(prompts), batch_size):
            rows = [
                Continuation(list(ids), np.random.default_rng(stream))
                for ids, stream in zip(prompts[first : first + batch_size], streams[first : first + batch_size])
            ]
            generate_into(policy, rows, temperature=temperature, max_new_tokens=max_new_tokens, room=max_new_tokens)
            texts += [policy.decode(row.answer) for row in rows]
    return texts


@torch.no_grad()
def fill_in(
    policy: Policy,
    texts: Sequence[Sequence[list[int]]],
    streams: Sequence[list[int]],
    *,
    end: str,
    max_new_tokens: int,
    temperature: float = 1.0,
) -> list[list[str]]:
    """Let a policy fill in the blanks of texts: piece, blank, piece, blank. Each token is read once.

    Args:
        texts: N lists of pieces (token ids, none empty); a blank follows each piece.
        streams: N seeds, each a list of integers: a text's random numbers follow from its own alone.
        end: a blank ends before what this regular expression finds in it (it may span eight tokens), and at a stop
            token; what was written from there on is forgotten.
        max_new_tokens: of a blank, at least 1.
        temperature: 0..10; 0 takes the most likely token.

    Returns:
        N lists of what was written, one text a blank; "" for the blanks that the model's context has no room for.
    """
    found, options = re.compile(end, re.I), {"temperature": temperature, "max_new_tokens": max_new_tokens}
    every = [
        _Blanks(policy, p, np.random.default_rng(s), found, max_new_tokens) for p, s in zip(texts, streams, strict=True)
    ]
    rows = [row for row in every if row.pieces]
    with eval_mode(policy.model):
        for first in range(0, len(rows), SIDE_BY_SIDE):
            part = rows[first : first + SIDE_BY_SIDE]
            generate_into(policy, part, room=max(sum(map(len, row.pieces)) for row in part), **options)
    return [row.filled for row in every]


class _Blanks(Continuation):
    """One text that is filled in. `read` counts the tokens in the cache before the present answer."""

    def __init__(self, policy, pieces: Sequence[list[int]], rng, end: re.Pattern, max_new_tokens: int):
        super().__init__(list(pieces[0]) if pieces else [], rng)
        self.policy, self.pieces, self.end, self.filled = policy, pieces, end, []
        self.read = len(self.pending)
        self.limit = policy.limit - max_new_tokens

    def ended(self) -> bool:
        return self.end.search(self.policy.decode(self.answer[-8:])) is not None

    def advance(self) -> bool:
        text, kept = _before(self.policy, self.answer, self.end)
        self.filled.append(text)
        left = self.pieces[len(self.filled) :]
        if not left:
            return False
        fed = min(kept, len(self.answer) - 1)  # the last token of an answer has not been read
        self.forget = len(self.answer) - 1 - fed
        self.pending = self.answer[fed:kept] + left[0]
        self.read += kept + len(left[0])
        if self.read > self.limit:
            self.filled += [""] * len(left)
            return False
        return True


def _before(policy, answer: list[int], end: re.Pattern) -> tuple[str, int]:
    """What an answer says before `end` or a stop token, and how many tokens say it."""
    kept = len(answer) - (answer[-1] in policy.stop_ids)
    text = policy.decode(answer[:kept])
    if found := end.search(text):
        text = text[: found.start()].rstrip()
        while kept and len(policy.decode(answer[:kept]).rstrip()) > len(text):
            kept -= 1
    return text, kept


def stream_of(trajectory: Trajectory, seed: int) -> list[int]:
    """A seed for what is asked about an episode, from its own seed, game and actions: the same whatever else is asked
    about, in any order."""
    played = "\n".join([trajectory.game_id, *(turn.action for turn in trajectory.turns)])
    return [seed, trajectory.seed, zlib.crc32(played.encode())]


def rate(
    policy: Policy,
    trajectories: Sequence[Trajectory],
    *,
    temperature: float = 1.0,
    seed: int = 0,
) -> list[list[str | None]]:
    """The labels that a policy gives to recorded episodes: those of the format `guide`, had it acted as recorded.

    At every turn the policy writes guidance and a label in its own context; the recorded action stands in place of its
    own, and the recorded observation follows. The episodes are not changed; they may have been played by anyone in any
    format. Equal episodes get equal labels, and the order of episodes does not matter (`stream_of`).

    Returns:
        For each episode a list with a label for each turn, one of `LABELS`, or None where none could be read.
    """
    prefix, texts = formats.PREFIX["guide"], []
    for trajectory in trajectories:
        card, pieces = envs.of(trajectory), []
        for t, turn in enumerate(trajectory.turns):
            if t == 0:
                opening = formats.opening("guide", card, turn.observation, policy.compact)
                pieces.append(policy.prompt_ids(opening, prefix))
            else:
                acted = policy.encode(f" Action: {trajectory.turns[t - 1].action}") + policy.stop_ids[:1]
                pieces.append(acted + policy.between_ids(card.shown(turn.observation), prefix))
        texts.append(pieces)
    budgets = [answer_tokens(envs.of(t), "guide", policy.compact) for t in trajectories]
    written = fill_in(
        policy, texts, [stream_of(t, seed) for t in trajectories], end=r"\bAction\s*:",
        max_new_tokens=max(budgets, default=1), temperature=temperature,
    )  # fmt: skip
    return [[formats.parse("guide", f"{prefix} {text}").label for text in blanks] for blanks in written]
