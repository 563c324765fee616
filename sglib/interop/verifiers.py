"""Rollouts of the library `verifiers` (Prime Intellect): the traces of version 1 (`traces.jsonl`, written and read) and
the results of 0.1 (`results.jsonl`: prompt, completion, reward, info, state columns; read, and written by
`write(results=True)`)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from sglib.interop import chat, convention
from sglib.records import Trajectory

ABOUT = "verifiers' rollouts (traces.jsonl of trace version 1, or results.jsonl)"
VERSION = 1  # of the trace schema
LEAST = {"prompt", "completion", "reward"}  # columns by which results are known


class Node(msgspec.Struct):
    message: dict
    parent: int | None = None
    advantages: list[float] | None = None


class Reward(msgspec.Struct):
    score: float
    weight: float = 1.0


class Trace(msgspec.Struct):
    id: str
    nodes: list[Node]
    version: Any = VERSION
    rewards: dict[str, Reward | None] = {}
    info: dict = {}


class Episode(msgspec.Struct):
    traces: list[dict]


class Step(msgspec.Struct):
    reward: float | None = None
    advantage: float | None = None


class Result(msgspec.Struct):
    prompt: list[dict] | str | None
    completion: list[dict] | str | None
    reward: float | None
    example_id: Any = ""
    info: Any = None
    trajectory: list[Step] | None = None


def found(rows: Sequence[Mapping]) -> bool:
    lists = [rows[0][name] for name in ("traces", "outputs") if isinstance(rows[0].get(name), list)]
    return set(rows[0]) >= LEAST or any(isinstance(item, Mapping) for of in lists for item in of[:1])


def episode(trajectory: Trajectory) -> dict:
    """One episode with one trace: a chain of messages, each with the tokens that it adds to the sequence, and of those
    that the policy wrote the log-probabilities and advantages."""
    task = {"type": "Task", "data": {"id": trajectory.game_id, "prompt": chat.messages(trajectory)[0]["content"]}}
    ids, spans = trajectory.completion_ids, [turn.span for turn in trajectory.turns]
    heard = [ids[end:start] for (_, end), (start, _) in itertools.pairwise([(0, 0), *spans, (len(ids), 0)])]
    heard[0] = trajectory.prompt_ids + heard[0]
    nodes = []
    for number, message in enumerate(chat.messages(trajectory)):
        node = {"parent": number - 1 if number else None, "message": message, "timestamp": 0.0}
        if message["role"] == "assistant":
            turn = trajectory.turns[number // 2]
            node |= {"sampled": True, "token_ids": ids[slice(*turn.span)]}
            node["mask"] = [bool(x) for x in trajectory.mask[slice(*turn.span)]]
            node["logprobs"] = [trajectory.logprobs[i] for i in range(*turn.span) if trajectory.mask[i]]
            if turn.advantage is not None:
                node["advantages"] = [turn.advantage] * len(node["logprobs"])
        else:
            node |= {"token_ids": heard[number // 2], "mask": [False] * len(heard[number // 2])}
        nodes.append(node)
    name = chat.identity(trajectory)
    trace = {
        "version": VERSION, "id": name, "task": task, "agent": {"config": {}}, "nodes": nodes,
        "rewards": {"score": {"score": trajectory.score, "weight": 1.0}}, "is_completed": True, "ok": True,
        "info": {convention.KEY: convention.episode(trajectory)},
    }  # fmt: skip
    group = {"id": f"{trajectory.game_id}/{trajectory.group}"}
    return {"id": name, "env": {"id": trajectory.env}, "task": task, "group": group, "ok": True, "traces": [trace]}


def result(trajectory: Trajectory, number: int) -> dict:
    """One row of `results.jsonl`: the first observation is the prompt, all that follows the completion."""
    spoken = chat.messages(trajectory)
    return {
        "example_id": number, "task": trajectory.env or "sglib", "prompt": spoken[:1], "completion": spoken[1:],
        "reward": trajectory.score, "metrics": {"won": float(trajectory.won)}, "timing": {}, "is_completed": True,
        "is_truncated": trajectory.no_room, "info": {convention.KEY: convention.episode(trajectory)},
    }  # fmt: skip


def write(trajectories: Sequence[Trajectory], results: bool = False) -> str:
    """JSON lines, one an episode."""
    made = (result(t, i) if results else episode(t) for i, t in enumerate(trajectories))
    return "".join(chat.dump(row, f"episode {number}") + "\n" for number, row in enumerate(made))


def read(rows: Sequence[Mapping]) -> list[Trajectory]:
    """One episode a row of results, or a branch of a trace."""
    episodes = []
    for row in rows:
        if isinstance(row.get("outputs"), list):
            episodes += read(row["outputs"])
        elif "traces" in row:
            episodes += [episode for trace in msgspec.convert(row, Episode).traces for episode in _traced(trace)]
        else:
            episodes.append(_result(msgspec.convert(row, Result)))
    return episodes


def _result(it: Result) -> Trajectory:
    """A row of results; its steps have rewards and advantages where the state column `trajectory` was kept."""
    spoken = [chat.said(m) for m in _messages(it.prompt, "user") + _messages(it.completion, "assistant")]
    own = chat.own(it.info)
    made = chat.read(spoken, "verifiers", own=own, task=str(it.example_id), reward=it.reward)
    if own is None and len(it.trajectory or []) == len(made):
        for turn, step in zip(made.turns, it.trajectory, strict=True):
            turn.reward = turn.reward if step.reward is None else step.reward
            turn.advantage = step.advantage
    return made


def _traced(data: Mapping) -> Iterator[Trajectory]:
    """The branches of a trace; a turn's advantage is the mean over its tokens."""
    it = msgspec.convert(data, Trace)
    chat.check_version("version of the trace", it.version, VERSION, VERSION)
    paid = [reward.score * reward.weight for reward in it.rewards.values() if reward]
    own, reward = chat.own(it.info), sum(paid) if paid else None
    for path in _branches(it.nodes):
        nodes = [it.nodes[i] for i in path]
        spoken = [chat.said(node.message) for node in nodes]
        made = chat.read(spoken, "verifiers", own=own, task=it.id, reward=reward)
        if own is None:
            acted = [node for node, one in zip(nodes, spoken, strict=True) if one.role == "assistant"]
            for turn, node in zip(made.turns, acted, strict=True):
                turn.advantage = sum(node.advantages) / len(node.advantages) if node.advantages else None
        yield made


def _messages(part: list[dict] | str | None, role: str) -> list[dict]:
    """A prompt or completion: messages, or a string, which `role` said."""
    return [{"role": role, "content": part}] if isinstance(part, str) else part or []


def _branches(nodes: Sequence[Node]) -> Iterator[list[int]]:
    """The paths from a root to each leaf: a conversation each."""
    parents = {node.parent for node in nodes}
    for leaf in (i for i in range(len(nodes)) if i not in parents):
        path: list[int] = []
        at: int | None = leaf
        while at is not None:
            if not 0 <= at < len(nodes) or (path and at >= path[-1]):
                raise ValueError(f"node {path[-1]}: parent {at} is no earlier node")
            path.append(at)
            at = nodes[at].parent
        yield path[::-1]
