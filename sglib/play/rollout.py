"""Batched multi-turn rollouts with the key-value cache kept across turns.

The whole episode is one token sequence: prompt, answer, observation, answer, … Each turn reads only what is new, and a
prompt that the members of a group share is read once. Episodes that are over leave the batch. On a CPU the episodes of
a small model are dealt to as many Python threads as torch has threads, each on one core: its steps are too short to be
divided, and while one thread steps environments the other computes.

Every episode has its own stream of random numbers, one per generated token, from the seed, its game and how many
episodes of that game came before: what it does depends neither on the order of the games nor on which others there are.
"""

from __future__ import annotations

import multiprocessing
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from tqdm import tqdm

from sglib import envs, formats
from sglib.models.decoding import Question, Writer, is_small, write
from sglib.models.endpoint import EndpointPolicy
from sglib.models.policy import Policy
from sglib.models.threads import each
from sglib.play.progress_bar import progress_bar
from sglib.play.scoring import given_tokens
from sglib.records import Trajectory, Turn

MAX_NEW_TOKENS = {"act": 12, "progress": 16, "guide": 32}
FEWEST = 8  # episodes that are worth a thread


@dataclass(frozen=True)
class Fork:
    """A recorded episode up to one of its turns, from where it is played on.

    Attributes:
        trajectory: with its token ids (not of an endpoint).
        turn: 0..T-1, written in this episode (an episode that is itself a fork begins with turns that were not); what
            was recorded before it stays.
        response: this turn's answer, word for word, its prefix included; None lets the policy write it.
        prefix: how this turn's answer begins, for the policy to go on; None is the format's own, "" nothing. A guidance
            is edited with "Guidance: ... Label: positive Action:" and deleted with "Action:".
    """

    trajectory: Trajectory
    turn: int
    response: str | None = None
    prefix: str | None = None

    def __post_init__(self):
        if not 0 <= self.turn < len(self.trajectory):
            raise ValueError(f"turn={self.turn!r}: must be in 0..{len(self.trajectory) - 1}, of the recorded turns")
        start, end = self.trajectory.turns[self.turn].span
        if start == end:  # an endpoint's, or a turn that this episode took over as its own prompt
            raise ValueError(f"turn={self.turn!r}: this turn was not written in this episode and has no tokens in it")
        if self.response is not None and self.prefix is not None:
            raise ValueError("prefix: does nothing beside a response")


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
    ask: Callable[[object, Trajectory], Question] | None = None,
    forks: Sequence[Fork] | None = None,
) -> list[Trajectory]:
    """Let a policy play games; same seed, same trajectories. What takes longer than ten seconds shows a progress bar.

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
        batch_size: at most so many episodes run side by side in a thread; changes speed and memory, not results.
        oracle: record the true distance to the goal at every turn.
        example: a worked example shown before each episode (`formats.example_message`).
        answer_prefix: (episode index, turn number) -> text with which the answer begins instead of the format's own
            prefix.
        ask: called before each answer with the environment and the episode so far. The question that it returns (keep
            it, it belongs to nobody else) has its `logprobs` when the answer is there: those of its tokens in place of
            the answer with its prefix, as by `scoring.branch_logprobs` with `drop_prefix`. What is played does not depend on it.
        forks: one for each game; its episodes begin with the fork's recorded turns. All that was written before is
            their prompt; the spans of recorded turns are (0, 0).

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
    if ask is not None and (answer_prefix is not None or isinstance(policy, EndpointPolicy)):
        raise ValueError(f"ask={ask!r}: allowed without answer_prefix, and not of an endpoint")
    if forks is not None:
        _check_forks(forks, policy, games, format, max_turns)
    if max_new_tokens is None:
        max_new_tokens = MAX_NEW_TOKENS[format] if policy.compact else 200
    if isinstance(policy, EndpointPolicy):
        return policy.rollout(
            games, env=env, engine=engine, format=format, max_turns=max_turns, temperature=temperature, seed=seed,
            group_size=group_size, max_new_tokens=max_new_tokens, batch_size=batch_size, oracle=oracle, example=example,
            answer_prefix=answer_prefix,
        )  # fmt: skip

    total = len(games) * group_size
    # A large model's weights are best read by all cores together; and below some rows Python is all that a thread does.
    threads = torch.get_num_threads() if is_small(policy.model) else 1
    size = max(1, min(batch_size, max(FEWEST, -(-total // threads))))
    was_training = policy.model.training
    policy.model.eval()
    try:
        quiet = multiprocessing.parent_process() is not None  # a worker's bar would be drawn over its parent's
        with progress_bar(desc=policy.name, total=total, unit="episode", leave=False, delay=10, disable=quiet) as bar:
            table = _Table(
                policy, games, env, engine, format, max_turns, seed, group_size, max_new_tokens, oracle, example,
                answer_prefix, ask, forks, bar,
            )  # fmt: skip

            def play(first: int) -> list[Trajectory]:
                with table.lock:
                    episodes = [_Episode(table, index) for index in range(first, min(first + size, total))]
                if begun := [episode for episode in episodes if not episode.over]:
                    write(
                        policy, begun, temperature=temperature, max_new_tokens=max_new_tokens, room=40 * max_turns,
                        stopped=table.stopped.is_set,
                    )  # fmt: skip
                return [episode.trajectory for episode in episodes]

            firsts = range(0, total, size)
            parts = each(play, firsts, table.stopped.set) if threads > 1 else list(map(play, firsts))
    finally:
        policy.model.train(was_training)
    return [trajectory for part in parts for trajectory in part]


def _check_forks(forks: Sequence[Fork], policy, games: Sequence, format: str, max_turns: int) -> None:
    if isinstance(policy, EndpointPolicy):
        raise ValueError("forks: not with an endpoint, whose episodes have no tokens")
    if len(forks) != len(games):
        raise ValueError(f"forks: got {len(forks)} for {len(games)} games; must be one for each")
    for fork, game in zip(forks, games):
        source = fork.trajectory
        if (source.game_id, source.format) != (game.id, format):
            raise ValueError(
                f"forks: got an episode of {source.game_id!r} in format {source.format!r}; "
                f"must be {game.id!r}, {format!r}"
            )
        if fork.turn >= max_turns:
            raise ValueError(f"forks: turn={fork.turn}: must be below max_turns={max_turns}")


@dataclass
class _Table:
    """What all episodes of one rollout share."""

    policy: Policy
    games: Sequence
    env: str
    engine: str
    format: str
    max_turns: int
    seed: int
    group_size: int
    max_new_tokens: int
    oracle: bool
    example: str | None
    answer_prefix: Callable[[int, int], str] | None
    ask: Callable[[object, Trajectory], Question] | None
    forks: Sequence[Fork] | None
    bar: tqdm

    def __post_init__(self):
        self.stopped = threading.Event()
        played: Counter[str] = Counter()
        self.streams = []  # of each episode
        for game in (game for game in self.games for _ in range(self.group_size)):
            self.streams.append([self.seed, zlib.crc32(game.id.encode()), played[game.id]])
            played[game.id] += 1
        self.lock = threading.Lock()  # not every engine is safe in threads, and Python would run them in turn anyway
        self.limit = getattr(self.policy.model.config, "max_position_embeddings", 1 << 30)

    def prefix(self, index: int, turn: int) -> str:
        """The part of an answer that is given."""
        return self.answer_prefix(index, turn) if self.answer_prefix else formats.PREFIX[self.format]


class _Episode(Writer):
    """One running episode: its environment and its record."""

    def __init__(self, table: _Table, index: int):
        policy, game, group = table.policy, table.games[index // table.group_size], index // table.group_size
        self.table, self.index, self.prefix = table, index, table.prefix(index, 0)
        self.env = envs.make(table.env, engine=table.engine, max_steps=table.max_turns)
        self.observation = self.env.reset(game)
        self.trajectory = Trajectory(
            game.id, game.task_type, self.observation.goal, table.format, group=group, seed=table.seed,
            recipe=game.traj_data.get("generator"),
            final_distance=self.env.oracle_distance() if table.oracle else None,
        )  # fmt: skip
        messages = formats.opening(table.format, self.observation.text, policy.compact, table.example)
        self.trajectory.prompt_ids = policy.prompt_ids(messages, self.prefix)
        super().__init__(self.trajectory.prompt_ids, np.random.default_rng(table.streams[index]))
        self.over = table.forks is not None and not self._follow(table.forks[group])
        if not self.over:
            self._ask()

    def _follow(self, fork: Fork) -> bool:
        """Take up what was recorded, and the fork's own answer; whether the policy has to write anything."""
        table, policy, source, t = self.table, self.table.policy, fork.trajectory, fork.turn
        for turn in source.turns[:t]:
            self.trajectory.turns.append(replace(turn, rewards={}, advantage=None, span=(0, 0)))
            self.observation = self.env.step(turn.action)
        if table.oracle:
            self.trajectory.final_distance = self.env.oracle_distance()
        context = source.prompt_ids + source.completion_ids[: source.turns[t].span[0]]
        where = f"forks: {source.game_id!r}, turn {t + 1}"
        given = given_tokens(policy, context, formats.PREFIX[table.format], where)
        context = context[: len(context) - given]
        if fork.response is not None:
            answer = policy.encode(fork.response) + policy.stop_ids[:1]
            self.prefix, self.answer, self.logprobs = "", answer, [0.0] * len(answer)
            self.trajectory.prompt_ids = context
            more = self._act()
            self.trajectory.turns[-1].span = (0, 0)  # not the policy's, so none of its tokens
            self.answer, self.logprobs = [], []
            context = context + self.trajectory.completion_ids
            self.trajectory.completion_ids, self.trajectory.mask, self.trajectory.logprobs = [], [], []
        else:
            self.prefix = table.prefix(self.index, t) if fork.prefix is None else fork.prefix
            context, more = context + policy.encode(self.prefix), True
        self.pending = self.trajectory.prompt_ids = context
        return more

    def _ask(self):
        if self.table.ask is not None:
            self.question = self.table.ask(self.env, self.trajectory)
            where = f"ask: game {self.trajectory.game_id!r}, turn {len(self.trajectory.turns) + 1}"
            self.given = given_tokens(self.table.policy, self.pending, self.prefix, where)

    def advance(self) -> bool:
        with self.table.lock:
            more = self._act()
            if not more:
                self.table.bar.update()
            return more

    def _act(self) -> bool:
        """Read the answer, act on it, record the turn, prepare what is read next. False where the episode is over:
        won, out of turns, or without room in the model's context for another answer."""
        table, policy, trajectory, answer = self.table, self.table.policy, self.trajectory, self.answer
        start = len(trajectory.completion_ids)
        trajectory.completion_ids += answer
        trajectory.mask += [1] * len(answer)
        trajectory.logprobs += self.logprobs
        response = f"{self.prefix} {policy.decode(answer)}".strip()
        parsed = formats.parse(table.format, response)
        before = self.observation
        valid = parsed.action in before.admissible
        observation = self.observation = self.env.step(parsed.action)
        trajectory.turns.append(
            Turn(
                before.text, response, parsed.action, valid, parsed.guidance, parsed.label, parsed.progress,
                parsed.error, observation.reward, trajectory.final_distance,
                span=(start, len(trajectory.completion_ids)),
            )
        )  # fmt: skip
        trajectory.won, trajectory.final_observation = observation.won, observation.text
        if table.oracle:
            trajectory.final_distance = self.env.oracle_distance()
        if observation.done:
            return False
        self.prefix = table.prefix(self.index, len(trajectory.turns))
        stopped = answer[-1] in policy.stop_ids
        between = policy.between_ids(formats.observation_text(observation.text), self.prefix, stopped)
        used = len(trajectory.prompt_ids) + len(trajectory.completion_ids) + len(between)
        if used + table.max_new_tokens > table.limit:
            return False
        trajectory.completion_ids += between
        trajectory.mask += [0] * len(between)
        trajectory.logprobs += [0.0] * len(between)
        self.pending = [answer[-1], *between]
        self._ask()
        return True
