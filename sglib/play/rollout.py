"""Batched multi-turn rollouts: a policy plays tasks, and every token that the trainer needs is recorded.

An episode is played by one machine (`sglib.play.episode`), whatever writes its answers: a model that is loaded here
(`local`) or one that answers over HTTP (`remote`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from numbers import Integral

import msgspec

from sglib import envs, formats
from sglib.envs.base import Task
from sglib.formats.two_stage import NAME as TWO_STAGE
from sglib.models import processes
from sglib.models.endpoint import EndpointPolicy
from sglib.models.policy import Policy
from sglib.play import local, remote, two_stage
from sglib.play.episode import THINKING_TOKENS, Fork, Options, Plan, answer_tokens
from sglib.records import Trajectory


def rollout(
    policy: Policy | EndpointPolicy,
    tasks: Sequence[Task],
    *,
    format: str = "act",
    turns: int | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    group: int = 1,
    options: Options | None = None,
) -> list[Trajectory]:
    """Let a policy play tasks; same seed, same trajectories.

    Args:
        policy: of an endpoint the trajectories have no tokens (see `sglib.models.endpoint`).
        tasks: G tasks of one environment.
        format: "act", "progress", "guide"; with a language model also "react", "react_sparse", "repro", and
            "guide_two_stage" (without token ids). See `sglib.formats`.
        turns: actions that an episode may take, at least 1; None takes the environment's own number.
        temperature: 0..10; 0 takes the most likely token.
        group: episodes per task (a GRPO group), at least 1.

    Returns:
        G x group trajectories, task by task; `Trajectory.group` is the task's index.

    Raises:
        EndpointError: a request to an endpoint failed.
    """
    options = options or Options()
    formats.check_format(format)
    if len({task.env for task in tasks}) > 1:
        raise ValueError(f"tasks: of {sorted({task.env for task in tasks})}; allowed: of one environment")
    if not tasks:
        return []
    card = envs.get(tasks[0].env)
    turns = card.turns if turns is None else turns
    numbers = {"turns": (turns, 1), "group": (group, 1), "batch_size": (options.batch_size, 1), "seed": (seed, 0)}
    for name, (value, least) in numbers.items():
        if not (isinstance(value, Integral) and value >= least):
            raise ValueError(f"{name}={value!r}: must be a whole number, at least {least}")
    if not 0 <= temperature <= 10:
        raise ValueError(f"temperature={temperature!r}: must be in 0..10")
    for name in ("max_new_tokens", "max_tokens"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise ValueError(f"{name}={value!r}: must be at least 1, or None")
    if options.max_tokens and (format == TWO_STAGE or isinstance(policy, EndpointPolicy)):
        raise ValueError(f"max_tokens={options.max_tokens!r}: allowed: with models that are loaded here, in one text")
    if options.show_actions and policy.compact:
        raise ValueError("show_actions=True: the small models have never read such a list; allowed: with other models")
    if options.forks is not None:
        _check_forks(options.forks, policy, tasks, format, turns)
    if policy.compact and format in formats.LANGUAGE:
        raise ValueError(f"format={format!r}: allowed with small models: {', '.join(formats.FORMATS)}")
    if format == TWO_STAGE and (options.forks or options.answer_prefix or options.example):
        raise ValueError(f"format={format!r}: allowed: without forks, answer_prefix and example")
    usual = THINKING_TOKENS if policy.thinking else answer_tokens(card, format, policy.compact)
    budget = options.max_new_tokens or usual
    plan = Plan(card, tasks, format, turns, temperature, seed, group, options, policy.compact, budget)
    if format == TWO_STAGE:
        return two_stage.play(policy, plan)
    return remote.play(policy, plan) if isinstance(policy, EndpointPolicy) else local.play(policy, plan)


def _check_forks(forks: Sequence[Fork], policy, tasks: Sequence[Task], format: str, turns: int) -> None:
    if isinstance(policy, EndpointPolicy):
        raise ValueError("forks: not with an endpoint, whose episodes have no tokens")
    if len(forks) != len(tasks):
        raise ValueError(f"forks: got {len(forks)} for {len(tasks)} tasks; must be one for each")
    for fork, task in zip(forks, tasks):
        source = fork.trajectory
        if (source.game_id, source.format) != (task.id, format):
            raise ValueError(
                f"forks: got an episode of {source.game_id!r} in format {source.format!r}; "
                f"must be {task.id!r}, {format!r}"
            )
        if fork.turn >= turns:
            raise ValueError(f"forks: turn={fork.turn}: must be below turns={turns}")


def shared(play: Callable[..., list[Trajectory]] = rollout) -> Callable[..., list[Trajectory]]:
    """A rollout function by which all processes (`sglib.models.processes`) play together: each its share of the tasks,
    all `group` episodes of them, and all get all episodes. They are those that one process plays, since an episode's
    random numbers follow from the seed and its task alone. ValueError: a task that is there twice."""
    return play if processes.count() == 1 else functools.partial(_share, play)


def _share(play, policy, tasks, *, group: int = 1, **how) -> list[Trajectory]:
    if len({task.id for task in tasks}) < len(tasks):
        raise ValueError(f"tasks: one is there twice; allowed with {processes.count()} processes: each once")
    mine = processes.share(tasks)
    played = play(policy, mine, group=group, **how) if mine else []
    if len(played) != len(mine) * group:
        raise ValueError(f"rollout: returned {len(played)} trajectories; expected {len(mine) * group}")
    parts = processes.gathered(msgspec.json.encode(played))
    found = [t for part in parts for t in msgspec.json.decode(part, type=list[Trajectory])]
    for place, trajectory in enumerate(found):
        trajectory.group = place // group
    return found
