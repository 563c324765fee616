"""ATIF, Harbor's Agent Trajectory Interchange Format: a JSON document an episode, written as 1.7, read from 1.4 on
(https://harborframework.com/docs/trajectory-format, and the models in the package `harbor`)."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from sglib.interop import chat, convention
from sglib.records import Trajectory

ABOUT = "ATIF (schema_version ATIF-v1.4 to ATIF-v1.8)"
WRITTEN, UNDERSTOOD = "ATIF-v1.7", ("ATIF-v1.4", "ATIF-v1.5", "ATIF-v1.6", "ATIF-v1.7", "ATIF-v1.8")


class Result(msgspec.Struct):
    content: Any = None


class Feedback(msgspec.Struct):
    results: list[Result]


class Step(msgspec.Struct):
    source: Literal["system", "user", "agent"]
    message: Any
    reasoning_content: str | None = None
    tool_calls: list[dict] | None = None
    observation: Feedback | None = None
    extra: dict | None = None


class Document(msgspec.Struct):
    steps: list[Step]
    agent: dict
    session_id: str | None = None
    trajectory_id: str | None = None
    extra: dict | None = None
    subagent_trajectories: list[dict] | None = None


def found(rows: Sequence[Mapping]) -> bool:
    return str(rows[0].get("schema_version", "")).startswith("ATIF-")


def document(trajectory: Trajectory) -> dict:
    """One episode: the first observation is the user's, what an action brought is its step's observation."""
    first = trajectory.turns[0].observation if trajectory.turns else trajectory.final_observation
    steps = [{"step_id": 1, "source": "user", "message": first}]
    after = [turn.observation for turn in trajectory.turns[1:]] + [trajectory.final_observation]
    for number, (turn, observation) in enumerate(zip(trajectory.turns, after, strict=False), 2):
        start, end = turn.span
        ids, logprobs = trajectory.completion_ids[start:end], trajectory.logprobs[start:end]
        metrics = {"completion_tokens": len(ids), "completion_token_ids": ids, "logprobs": logprobs}
        steps.append({
            "step_id": number, "source": "agent", "message": turn.response,
            "observation": {"results": [{"content": observation}]}, **({"metrics": metrics} if ids else {}),
            "extra": {convention.KEY: convention.step(turn)},
        })  # fmt: skip
    name = chat.identity(trajectory)
    return {
        "schema_version": WRITTEN, "session_id": name, "trajectory_id": name,
        "agent": {"name": "sglib", "version": importlib.metadata.version("sglib")}, "steps": steps,
        "extra": {convention.KEY: convention.episode(trajectory, steps=False)},
    }  # fmt: skip


def write(trajectories: Sequence[Trajectory]) -> list[str]:
    """One file an episode."""
    return [chat.dump(document(t), f"episode {i}") for i, t in enumerate(trajectories)]


def read(rows: Sequence[Mapping]) -> list[Trajectory]:
    """One episode a document, and one more for each subagent's that is in it."""
    episodes = []
    for row in rows:
        if (version := row.get("schema_version")) not in UNDERSTOOD:
            raise ValueError(f"schema_version={version!r}: understood are {', '.join(UNDERSTOOD)}")
        it = msgspec.convert(row, Document)
        own, spoken = chat.own(it.extra), []
        for step in it.steps:
            calls = {"role": "assistant", "content": step.message, "tool_calls": step.tool_calls}
            if step.source == "agent":
                reasoning = {"reasoning_content": step.reasoning_content}
                spoken.append(chat.said({**calls, **reasoning}, chat.own(step.extra)))
            else:
                spoken.append(chat.Said(step.source, chat.text_of(step.message)))
            results = step.observation.results if step.observation else []
            spoken += [chat.Said("tool", chat.text_of(result.content)) for result in results]
        episodes.append(chat.read(spoken, "ATIF", own=own, task=it.trajectory_id or it.session_id or ""))
        episodes += read(it.subagent_trajectories or [])
    return episodes
