"""Batched multi-turn rollouts with the key-value cache kept across turns.

The whole episode is one token sequence: prompt, answer, observation, answer, … Each turn feeds only what is new. Rows
of the
batch have different lengths; every row writes its keys and values behind its own last token (`SlotCache`), so the
cache has no
holes, and positions are those of the plain sequence. Episodes that are over leave the batch.

Every episode has its own stream of random numbers, one per generated token, so what it does depends on the seed and
on its
place in the list of games, not on which other episodes share its batch.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import torch

from sglib import envs, formats
from sglib.endpoint import EndpointPolicy
from sglib.policy import Policy
from sglib.records import Observation, Trajectory, Turn

MAX_NEW_TOKENS = {"act": 12, "progress": 16, "guide": 32}


class SlotCache:
    """A preallocated key-value cache in which each row has its own length; the interface that transformers' models
    call.

    Attributes:
        lengths: (B,) tokens already stored in each row.
    """

    is_compileable = False

    def __init__(self, config, rows: int, capacity: int, dtype, device):
        heads, size = (
            config.num_key_value_heads,
            getattr(config, "head_dim", config.hidden_size // config.num_attention_heads),
        )
        shape = (rows, heads, capacity + 1, size)  # the last column takes what padding writes
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_hidden_layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_hidden_layers)]
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)

    @property
    def capacity(self) -> int:
        return self.keys[0].shape[2] - 1

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return int(self.lengths.max())

    def prepare(self, counts: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Make room for `counts` (B,) new tokens a row, right-aligned in a block of `width`.

        Returns positions (B, width) and an additive attention mask (B, 1, width, new longest length).
        """
        needed = int((self.lengths + counts).max())
        if needed > self.capacity:
            self._grow(max(needed, 2 * self.capacity))
        offset = torch.arange(width, device=self.lengths.device)[None, :] - (width - counts)[:, None]  # <0: padding
        positions = (self.lengths[:, None] + offset).clamp(min=0)
        self._columns = torch.where(offset >= 0, positions, self.capacity)
        self._rows = torch.arange(len(counts), device=self.lengths.device)[:, None]
        self._upto = needed
        self.lengths = self.lengths + counts
        visible = torch.arange(needed, device=self.lengths.device)[None, None, :] <= positions[:, :, None]
        dtype = self.keys[0].dtype
        mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill(
            ~visible, torch.finfo(dtype).min
        )
        return positions, mask[:, None]

    def update(self, keys, values, layer_idx: int, *_, **__):
        self.keys[layer_idx][self._rows, :, self._columns] = keys.transpose(1, 2)
        self.values[layer_idx][self._rows, :, self._columns] = values.transpose(1, 2)
        return self.keys[layer_idx][:, :, : self._upto], self.values[layer_idx][:, :, : self._upto]

    def rewind(self, lengths: torch.Tensor):
        """Forget what was stored behind `lengths` (B,) tokens a row: the next tokens are written there."""
        self.lengths = lengths.clone()

    def keep(self, rows: torch.Tensor):
        """Keep only these rows, in this order."""
        self.keys = [k[rows] for k in self.keys]
        self.values = [v[rows] for v in self.values]
        self.lengths = self.lengths[rows]

    def _grow(self, capacity: int):
        extra = capacity - self.capacity
        self.keys = [torch.nn.functional.pad(k, (0, 0, 0, extra)) for k in self.keys]
        self.values = [torch.nn.functional.pad(v, (0, 0, 0, extra)) for v in self.values]


class _Row:
    """What is needed to write one answer: tokens to feed next, random numbers; and the answer."""

    def __init__(self, pending: list[int], rng: np.random.Generator):
        self.pending, self.rng = pending, rng
        self.answer: list[int] = []
        self.logprobs: list[float] = []


class _Episode(_Row):
    """One running episode: its environment and its record."""

    def __init__(self, index: int, env, trajectory: Trajectory, observation: Observation, rng, prefix: str):
        super().__init__(list(trajectory.prompt_ids), rng)
        self.index, self.env, self.trajectory, self.observation = index, env, trajectory, observation
        self.prefix = prefix  # the part of the answer that is given
        self.between: list[int] = []  # those of the pending tokens that the environment wrote


@torch.no_grad()
def rollout(
    policy: Policy | EndpointPolicy,
    games: Sequence,
    *,
    env: str = "alfworld",
    engine: str = "fast",
    format: str = "act",
    max_turns: int = 30,
    temperature: float = 1.0,
    seed: int = 0,
    group_size: int = 1,
    max_new_tokens: int | None = None,
    batch_size: int = 256,
    oracle: bool = True,
    example: str | None = None,
    answer_prefix: Callable[[int, int], str] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> list[Trajectory]:
    """Let a policy play games; same seed, same trajectories.

    Args:
        policy: what plays; of an endpoint the trajectories have no tokens (see `sglib.endpoint`).
        games: G games.
        env, engine: see `sglib.envs.make`.
        format: "act", "progress" or "guide".
        max_turns: actions an episode may take, at least 1.
        temperature: of sampling; 0 takes the most likely token.
        seed: of all random numbers.
        group_size: episodes per game (a GRPO group).
        max_new_tokens: tokens an answer may have; None takes what the format needs (200 for models that are told
            formats in words).
        batch_size: episodes that run side by side; changes speed and memory, not results.
        oracle: record the true distance to the goal at every turn.
        example: a worked example shown before each episode (`formats.example_message`).
        answer_prefix: (episode index, turn number) -> text with which the answer begins instead of the format's own
            prefix.
        on_progress: called with the number of finished episodes whenever one ends.

    Returns:
        G x group_size trajectories, game by game; `group` is the game's index.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
        EndpointError: a request to an endpoint failed.
    """
    formats.check_format(format)
    for name, value, least in (
        ("max_turns", max_turns, 1),
        ("group_size", group_size, 1),
        ("batch_size", batch_size, 1),
    ):
        if value < least:
            raise ValueError(f"{name}={value!r}: must be at least {least}")
    if not 0 <= temperature <= 10:
        raise ValueError(f"temperature={temperature!r}: must be in 0..10")
    if max_new_tokens is None:
        max_new_tokens = MAX_NEW_TOKENS[format] if policy.compact else 200
    if isinstance(policy, EndpointPolicy):
        return policy.rollout(
            games, env=env, engine=engine, format=format, max_turns=max_turns, temperature=temperature, seed=seed,
            group_size=group_size, max_new_tokens=max_new_tokens, batch_size=batch_size, oracle=oracle, example=example,
            answer_prefix=answer_prefix, on_progress=on_progress,
        )  # fmt: skip
    was_training = policy.model.training
    policy.model.eval()
    jobs = [(i, games[i // group_size]) for i in range(len(games) * group_size)]
    finished: list[Trajectory] = []
    try:
        for first in range(0, len(jobs), batch_size):
            chunk = [
                _start(
                    policy,
                    game,
                    i,
                    i // group_size,
                    env,
                    engine,
                    format,
                    max_turns,
                    seed,
                    example,
                    oracle,
                    answer_prefix,
                )
                for i, game in jobs[first : first + batch_size]
            ]
            _play(policy, chunk, format, temperature, max_new_tokens, oracle, answer_prefix, first, on_progress)
            finished += [episode.trajectory for episode in chunk]
    finally:
        policy.model.train(was_training)
    return finished


def _start(
    policy, game, index, group, env, engine, format, max_turns, seed, example, oracle, answer_prefix
) -> _Episode:
    world = envs.make(env, engine=engine, max_steps=max_turns)
    observation = world.reset(game)
    recipe = game.traj_data.get("generator")
    trajectory = Trajectory(game.id, game.task_type, observation.goal, format, group=group, seed=seed, recipe=recipe)
    prefix = answer_prefix(index, 0) if answer_prefix else formats.PREFIX[format]
    messages = formats.opening(format, observation.text, policy.compact, example)
    rng = np.random.default_rng([seed, index])
    trajectory.prompt_ids = policy.prompt_ids(messages, prefix)
    if oracle:
        trajectory.final_distance = world.oracle_distance()
    return _Episode(index, world, trajectory, observation, rng, prefix)


def _play(policy, episodes, format, temperature, max_new_tokens, oracle, answer_prefix, first, on_progress):
    limit = getattr(policy.model.config, "max_position_embeddings", 1 << 30)
    cache = _cache_for(policy, episodes, 256)
    active = list(episodes)
    done = first
    while active:
        _answer(policy, active, cache, temperature, max_new_tokens)
        still = []
        for row, episode in enumerate(active):
            over = _act(policy, episode, format, oracle, answer_prefix)
            used = len(episode.trajectory.prompt_ids) + len(episode.trajectory.completion_ids)
            if over or used + len(episode.between) + max_new_tokens > limit:
                episode.trajectory.final_observation = episode.observation.text
                done += 1
                if on_progress:
                    on_progress(done)
            else:
                episode.trajectory.completion_ids += episode.between
                episode.trajectory.mask += [0] * len(episode.between)
                episode.trajectory.logprobs += [0.0] * len(episode.between)
                still.append(row)
        if len(still) < len(active):
            cache.keep(torch.tensor(still, dtype=torch.long, device=policy.device))
            active = [active[row] for row in still]


def _cache_for(policy, rows: Sequence[_Row], room: int) -> SlotCache:
    longest = max(len(row.pending) for row in rows)
    return SlotCache(policy.model.config, len(rows), longest + room, policy.model.dtype, policy.device)


@torch.no_grad()
def generate(
    policy: Policy | EndpointPolicy,
    prompts: Sequence[list[int]] | Sequence[list[dict]],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 64,
) -> list[str]:
    """One answer to each prompt (token ids; for an endpoint a list of messages), decoded; same seed, same answers. For
    what is asked outside an episode."""
    if isinstance(policy, EndpointPolicy):
        return policy.generate(
            prompts, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed, batch_size=batch_size
        )
    texts, was_training = [], policy.model.training
    policy.model.eval()  # with LoRA's dropout on, another policy would answer
    try:
        for first in range(0, len(prompts), batch_size):
            rows = [
                _Row(list(ids), np.random.default_rng([seed, first + i]))
                for i, ids in enumerate(prompts[first : first + batch_size])
            ]
            _answer(policy, rows, _cache_for(policy, rows, max_new_tokens), temperature, max_new_tokens)
            texts += [policy.decode(row.answer) for row in rows]
    finally:
        policy.model.train(was_training)
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
    batch_size: int = 256,
) -> list[list[str]]:
    """Let a policy fill in the blanks of texts: piece, blank, piece, blank. Each token is read once.

    Args:
        policy: what writes.
        texts: N lists of pieces (token ids, none empty); a blank follows each piece.
        streams: N seeds, each a list of integers: a text's random numbers follow from its own alone.
        end: a blank ends before what this regular expression finds in it (it may span eight tokens), and at a stop
            token; what was written from there on is forgotten.
        max_new_tokens: tokens that a blank may have, at least 1.
        temperature: of sampling, 0..10; 0 takes the most likely token.
        batch_size: texts that are filled in side by side; changes speed and memory, not results.

    Returns:
        N lists of what was written, one text a blank; "" for the blanks that the model's context has no room for.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """
    if not 0 <= temperature <= 10:
        raise ValueError(f"temperature={temperature!r}: must be in 0..10")
    for name, value in (("max_new_tokens", max_new_tokens), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name}={value!r}: must be at least 1")
    every = [_Blanks(pieces, np.random.default_rng(s)) for pieces, s in zip(texts, streams, strict=True)]
    rows = [row for row in every if row.pieces]
    was_training = policy.model.training
    policy.model.eval()
    try:
        for first in range(0, len(rows), batch_size):
            _fill(policy, rows[first : first + batch_size], re.compile(end, re.I), temperature, max_new_tokens)
    finally:
        policy.model.train(was_training)
    return [row.filled for row in every]


class _Blanks(_Row):
    """One text that is filled in."""

    def __init__(self, pieces: Sequence[list[int]], rng: np.random.Generator):
        super().__init__(list(pieces[0]) if pieces else [], rng)
        self.pieces, self.filled = pieces, []


def _fill(policy, rows: list[_Blanks], end: re.Pattern, temperature: float, max_new_tokens: int):
    limit = getattr(policy.model.config, "max_position_embeddings", 1 << 30)
    cache = _cache_for(policy, rows, 256)
    while rows:
        starts = cache.lengths + torch.tensor([len(row.pending) for row in rows], device=policy.device)
        _fill_one(policy, rows, cache, end, temperature, max_new_tokens)
        fed, still = [], []
        for i, row in enumerate(rows):
            text, kept = _before(policy, row.answer, end)
            row.filled.append(text)
            fed.append(min(kept, len(row.answer) - 1))  # the last token of an answer was not fed
            left = row.pieces[len(row.filled) :]
            if left:
                row.pending = row.answer[fed[i] : kept] + left[0]
                if int(starts[i]) + fed[i] + len(row.pending) + max_new_tokens <= limit:
                    still.append(i)
                else:
                    row.filled += [""] * len(left)
        cache.rewind(starts + torch.tensor(fed, device=policy.device))
        if len(still) < len(rows):
            cache.keep(torch.tensor(still, dtype=torch.long, device=policy.device))
            rows = [rows[i] for i in still]


def _fill_one(policy, rows: list[_Blanks], cache: SlotCache, end: re.Pattern, temperature: float, max_new_tokens: int):
    """Write the next blank of each row into `row.answer`, up to where `end` is found, that included."""
    new, open_rows = [row.pending for row in rows], [True] * len(rows)
    for row in rows:
        row.answer = []
    for _ in range(max_new_tokens):
        logits = feed(policy, cache, new)
        uniform = np.array([row.rng.random() if open_rows[i] else 0.0 for i, row in enumerate(rows)])
        tokens, _ = _sample(logits, temperature, uniform)
        for i, row in enumerate(rows):
            if open_rows[i]:
                row.answer.append(tokens[i])
                open_rows[i] = tokens[i] not in policy.stop_ids and not end.search(policy.decode(row.answer[-8:]))
        if not any(open_rows):
            break
        new = [[token] if open_rows[i] else [] for i, token in enumerate(tokens)]


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
    max_new_tokens: int | None = None,
    batch_size: int = 256,
) -> list[list[str | None]]:
    """The labels that a policy gives to recorded episodes: those of the format `guide`, had it acted as recorded.

    At every turn the policy writes guidance and a label in its own context; the recorded action stands in place of its
    own, and the recorded observation follows. The episodes are not changed; they may have been played by anyone in any
    format. Equal episodes get equal labels, and the order of episodes does not matter (`stream_of`).

    Args:
        policy: the rater.
        trajectories: N episodes of T_i turns.
        temperature, seed: of sampling; temperature 0 takes the most likely token.
        max_new_tokens: tokens that guidance and label may have; None as in `rollout`.
        batch_size: episodes that are read side by side; changes speed and memory, not results.

    Returns:
        N lists of T_i labels, one of `LABELS`, or None where none could be read.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """
    prefix, texts = formats.PREFIX["guide"], []
    for trajectory in trajectories:
        pieces = []
        for t, turn in enumerate(trajectory.turns):
            if t == 0:
                pieces.append(policy.prompt_ids(formats.opening("guide", turn.observation, policy.compact), prefix))
            else:
                acted = policy.encode(f" Action: {trajectory.turns[t - 1].action}") + policy.stop_ids[:1]
                pieces.append(acted + policy.between_ids(formats.observation_text(turn.observation), prefix))
        texts.append(pieces)
    if max_new_tokens is None:
        max_new_tokens = MAX_NEW_TOKENS["guide"] if policy.compact else 200
    written = fill_in(
        policy, texts, [stream_of(t, seed) for t in trajectories], end=r"\bAction\s*:", max_new_tokens=max_new_tokens,
        temperature=temperature, batch_size=batch_size,
    )  # fmt: skip
    return [[formats.parse("guide", f"{prefix} {text}").label for text in blanks] for blanks in written]


def feed(policy, cache: SlotCache, tokens: list[list[int]], every: bool = False) -> torch.Tensor:
    """Feed new tokens, one list a row, right-aligned in a block as wide as the longest.

    Returns:
        Logits, float32: of the token behind the last one (B, V); with `every`, of those behind each (B, width, V).
    """
    width = max(len(t) for t in tokens)
    pad = policy.tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(t)) + t for t in tokens], device=policy.device)
    counts = torch.tensor([len(t) for t in tokens], device=policy.device)
    positions, mask = cache.prepare(counts, width)
    out = policy.model(
        input_ids=ids,
        position_ids=positions,
        attention_mask=mask,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=0 if every else 1,
    )
    return out.logits.float() if every else out.logits[:, -1].float()


def _answer(policy, active: Sequence[_Row], cache: SlotCache, temperature: float, max_new_tokens: int):
    """Generate one answer a row, into `row.answer` and `row.logprobs`."""
    stop = set(policy.stop_ids)
    new = [e.pending for e in active]
    open_rows = np.ones(len(active), dtype=bool)
    for e in active:
        e.answer, e.logprobs = [], []
    for _ in range(max_new_tokens):
        logits = feed(policy, cache, new)
        uniform = np.array([e.rng.random() if open_rows[i] else 0.0 for i, e in enumerate(active)])
        tokens, logprobs = _sample(logits, temperature, uniform)
        for i, e in enumerate(active):
            if open_rows[i]:
                e.answer.append(tokens[i])
                e.logprobs.append(logprobs[i])
                open_rows[i] = tokens[i] not in stop
        if not open_rows.any():
            break
        # a row that is done feeds nothing; the last token of an answer is fed with the observation that follows it
        new = [[token] if open_rows[i] else [] for i, token in enumerate(tokens)]


def _act(policy, episode: _Episode, format: str, oracle: bool, answer_prefix) -> bool:
    """Read the answer, act on it, record the turn, prepare what is fed next. Returns whether the episode is over."""
    trajectory, answer = episode.trajectory, episode.answer
    start = len(trajectory.completion_ids)
    trajectory.completion_ids += answer
    trajectory.mask += [1] * len(answer)
    trajectory.logprobs += episode.logprobs
    response = f"{episode.prefix} {policy.decode(answer)}".strip()
    parsed = formats.parse(format, response)
    before = episode.observation
    valid = parsed.action in before.admissible
    observation = episode.observation = episode.env.step(parsed.action)
    trajectory.turns.append(
        Turn(
            before.text, response, parsed.action, valid, parsed.guidance, parsed.label, parsed.progress, parsed.error,
            observation.reward, trajectory.final_distance, span=(start, len(trajectory.completion_ids)),
        )
    )  # fmt: skip
    trajectory.won = observation.won
    if oracle:
        trajectory.final_distance = episode.env.oracle_distance()
    if observation.done:
        return True
    episode.prefix = answer_prefix(episode.index, len(trajectory.turns)) if answer_prefix else formats.PREFIX[format]
    stopped = answer[-1] in policy.stop_ids
    between = policy.between_ids(formats.observation_text(observation.text), episode.prefix, stopped)
    episode.between, episode.pending = between, [answer[-1], *between]
    return False


def _sample(logits: torch.Tensor, temperature: float, uniform: np.ndarray) -> tuple[list[int], list[float]]:
    """One token a row by inverting the cumulative distribution at `uniform` (B,); its log-probability under that
    distribution."""
    logprobs = torch.log_softmax(logits / temperature if temperature > 0 else logits, dim=-1)
    if temperature > 0:
        cumulative = logprobs.double().exp().cumsum(-1)
        points = torch.as_tensor(uniform, device=logits.device)[:, None] * cumulative[:, -1:]
        tokens = torch.searchsorted(cumulative, points, right=True).clamp(max=logits.shape[-1] - 1)
    else:
        tokens = logprobs.argmax(-1, keepdim=True)
    return tokens[:, 0].tolist(), logprobs.gather(-1, tokens)[:, 0].tolist()
