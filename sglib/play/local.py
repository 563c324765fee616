"""The back end for models that are loaded here: an episode is one growing text of token ids."""

from __future__ import annotations

import logging
import math
import multiprocessing
import threading
import zlib
from collections import Counter

import numpy as np
import torch

from sglib import formats
from sglib.models import processes
from sglib.models.decoder import is_small
from sglib.models.endpoint import without_thought
from sglib.models.generate import Continuation, generate_into
from sglib.models.policy import Policy, eval_mode
from sglib.models.threads import thread_map
from sglib.play.episode import Episode, Fork, Plan
from sglib.play.progress_bar import progress_bar
from sglib.play.scoring import given_tokens
from sglib.records import Trajectory

log = logging.getLogger(__name__)
FEWEST = 8  # episodes that are worth a thread


@torch.no_grad()
def play(policy: Policy, plan: Plan) -> list[Trajectory]:
    """Play all episodes of a plan, in order. What takes longer than ten seconds shows a progress bar."""
    total = len(plan)
    # A large model's weights are best read by all cores together; and below some rows Python is all that a thread does.
    threads = torch.get_num_threads() if is_small(policy.model) and not policy.engine else 1
    size = max(1, min(plan.options.batch_size, max(FEWEST, -(-total // threads))))
    # a worker's bar would be drawn over its parent's, and those of several processes over each other
    quiet = multiprocessing.parent_process() is not None or not processes.first()
    bar = progress_bar(desc=policy.name, total=total, unit="episode", leave=False, delay=10, disable=quiet)
    streams = streams_of(plan)
    lock = threading.Lock()  # not every engine is safe in threads, and Python would run them in turn anyway
    stopped = threading.Event()

    def some(first: int) -> list[Trajectory]:
        with lock:
            rows = [
                _Row(policy, Episode(plan, i), streams[i], lock, bar.update)
                for i in range(first, min(first + size, total))
            ]
        begun = [row for row in rows if not row.over]
        if begun and policy.engine:
            policy.engine.generate_into(
                policy, begun, temperature=plan.temperature, max_new_tokens=plan.answer_tokens, stopped=stopped.is_set
            )
        elif begun:
            generate_into(
                policy, begun, temperature=plan.temperature, max_new_tokens=plan.answer_tokens,
                room=plan.card.turn_tokens * plan.turns, stopped=stopped.is_set,
            )  # fmt: skip
        return [row.episode.trajectory for row in rows]

    with eval_mode(policy.model), bar:
        if policy.engine:
            policy.engine.take_weights(policy)
        firsts = range(0, total, size)
        parts = thread_map(some, firsts, stopped.set) if threads > 1 else list(map(some, firsts))
    played = [trajectory for part in parts for trajectory in part]
    if math.isnan(sum(sum(trajectory.logprobs) for trajectory in played)):
        raise FloatingPointError(f"{policy.name}: its log-probabilities are no numbers; allowed: finite weights")
    return tell_full(policy, played)


def tell_full(policy: Policy, trajectories: list[Trajectory]) -> list[Trajectory]:
    """The episodes as they are; logs how many of them a full context ended, if any."""
    if full := sum(t.no_room for t in trajectories):
        count = len(trajectories)
        log.warning("%s: %d of %d episodes ended early, the model's context being full", policy.name, full, count)
    return trajectories


def streams_of(plan: Plan) -> list[list[int]]:
    """A seed for each episode's random numbers, one per token, from the plan's seed, the task and how many episodes of
    that task came before: what it does depends neither on the order of the tasks nor on which others there are."""
    played: Counter[str] = Counter()
    streams = []
    for task in (task for task in plan.tasks for _ in range(plan.group)):
        streams.append([plan.seed, zlib.crc32(task.id.encode()), played[task.id]])
        played[task.id] += 1
    return streams


class _Row(Continuation):
    """An episode as a text that the policy continues."""

    def __init__(self, policy: Policy, episode: Episode, stream: list[int], lock, count):
        self.policy, self.episode, self.lock, self.count = policy, episode, lock, count
        plan, trajectory = episode.plan, episode.trajectory
        self.prefix = self._prefix()
        trajectory.prompt_ids = policy.prompt_ids(episode.opening(), self.prefix)
        super().__init__(trajectory.prompt_ids, np.random.default_rng(stream))
        self.limit = min(policy.limit, plan.options.max_tokens or policy.limit)
        forks, asked = plan.options.forks, len(trajectory.prompt_ids)
        if forks is None and asked + plan.answer_tokens > self.limit:
            raise ValueError(
                f"{policy.name}: the prompt of {trajectory.game_id!r} has {asked} tokens and an answer may have "
                f"{plan.answer_tokens}; allowed: {self.limit} together, the model's context or max_tokens"
            )
        self.over = forks is not None and not self._fork(forks[trajectory.group])

    def _prefix(self) -> str:
        plan, episode = self.episode.plan, self.episode
        default = "" if self.policy.thinking else formats.PREFIX[plan.format]
        return plan.prefix(episode.index, len(episode.trajectory), default)

    def _fork(self, fork: Fork) -> bool:
        """Take up what was recorded, and the fork's own answer; whether the policy has to write anything."""
        policy, trajectory, source, t = self.policy, self.episode.trajectory, fork.trajectory, fork.turn
        self.episode.follow(source.turns[:t])
        context = source.prompt_ids + source.completion_ids[: source.turns[t].span[0]]
        where = f"forks: {source.game_id!r}, turn {t + 1}"
        given = given_tokens(policy, context, formats.PREFIX[trajectory.format], where)
        context = context[: len(context) - given]
        if fork.response is not None:
            answer = policy.encode(fork.response) + policy.stop_ids[:1]
            self.prefix, self.answer, self.logprobs = "", answer, [0.0] * len(answer)
            trajectory.prompt_ids = context
            more = self._act()
            trajectory.turns[-1].span = (0, 0)  # not the policy's, so none of its tokens
            self.answer, self.logprobs = [], []
            context = context + trajectory.completion_ids
            trajectory.completion_ids, trajectory.mask, trajectory.logprobs = [], [], []
        else:
            self.prefix = self._prefix() if fork.prefix is None else fork.prefix
            context, more = context + policy.encode(self.prefix), True
        self.pending = trajectory.prompt_ids = context
        return more

    def advance(self) -> bool:
        with self.lock:
            more = self._act()
            if not more:
                self.count()
            return more

    def _act(self) -> bool:
        """Hand the answer to the episode and prepare what is read next. False where the episode is over: by itself, or
        for lack of room in the model's context for another answer."""
        policy, episode, trajectory, answer = self.policy, self.episode, self.episode.trajectory, self.answer
        plan = episode.plan
        start = len(trajectory.completion_ids)
        trajectory.completion_ids += answer
        trajectory.mask += [1] * len(answer)
        trajectory.logprobs += self.logprobs
        response = f"{self.prefix} {policy.decode(answer)}".strip()
        read = response if plan.compact else without_thought(response)
        if not episode.take(response, read, (start, len(trajectory.completion_ids))):
            return False
        self.prefix = self._prefix()
        stopped = answer[-1] in policy.stop_ids
        between = policy.between_ids(episode.shown(), self.prefix, stopped)
        used = len(trajectory.prompt_ids) + len(trajectory.completion_ids) + len(between)
        if used + plan.answer_tokens > self.limit:
            trajectory.no_room = True
            return False
        trajectory.completion_ids += between
        trajectory.mask += [0] * len(between)
        trajectory.logprobs += [0.0] * len(between)
        self.pending = [answer[-1], *between]
        return True
