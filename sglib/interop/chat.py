"""Episodes as conversations, which is what the formats hold: observations are said to the policy, and what it writes is
an action. `read` makes an episode of anybody's messages; `messages` makes messages of an episode."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sglib.interop import convention
from sglib.records import Trajectory, Turn

GOAL = 200  # characters of the user's first message that are shown as the goal of somebody else's episode


class Said(NamedTuple):
    """One message, whatever the format called its parts."""

    role: str  # "assistant" acts, all others are observed
    text: str  # tool calls are part of it, as text
    reasoning: str = ""
    extra: Mapping | None = None  # the object of the step, by the convention


def messages(trajectory: Trajectory) -> list[dict[str, str]]:
    """An episode as messages with "role" and "content": observation, response, observation, ..., the last observation
    unless it is empty."""
    found = []
    for turn in trajectory.turns:
        found += [{"role": "user", "content": turn.observation}, {"role": "assistant", "content": turn.response}]
    if trajectory.final_observation or not found:
        found.append({"role": "user", "content": trajectory.final_observation})
    return found


def text_of(content: Any) -> str:
    """The text of a message's content: a string, or parts. What is no text (images, files) is named in brackets."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        return json.dumps(content, ensure_ascii=False)
    texts = []
    for part in content:
        kind = part.get("type", "part") if isinstance(part, Mapping) else None
        if not isinstance(part, Mapping):
            texts.append(text_of(part))
        elif isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "tool_result":
            texts.append(text_of(part.get("content")))
        elif kind not in ("reasoning", "thinking", "tool_use", "toolCall"):  # those are read by `said`
            texts.append(f"[{kind}]")
    return "\n".join(texts)


def call_text(call: Any) -> str:
    """A tool call as text, `name(arguments)`: of OpenAI's shape, Inspect's, ATIF's, Anthropic's or Pi's."""
    if not isinstance(call, Mapping):
        return text_of(call)
    inner = call.get("function")
    of = inner if isinstance(inner, Mapping) else call
    name = inner if isinstance(inner, str) else of.get("name", of.get("function_name", "call"))
    arguments = next((of[key] for key in ("arguments", "input") if key in of), "")
    return f"{name}({arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)})"


def said(message: Mapping, extra: Mapping | None = None) -> Said:
    """A message in OpenAI's, Inspect's, Anthropic's or Pi's shape. `ValueError` where it has no role."""
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise ValueError(f"a message with a role was expected, got {json.dumps(message, default=str)[:80]}")
    content = message.get("content")
    parts = [part for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []
    calls = message.get("tool_calls") or message.get("toolCalls") or []
    calls = [calls] if not isinstance(calls, list) else calls
    calls = [*calls, *(part for part in parts if part.get("type") in ("tool_use", "toolCall"))]
    thoughts = [part.get(key) for part in parts for key in ("reasoning", "thinking")]
    thoughts = [message.get("reasoning_content"), message.get("reasoningContent"), *thoughts]
    written = [text_of(content), *map(call_text, calls)]
    return Said(
        message["role"], "\n".join(filter(None, written)), "\n".join(x for x in thoughts if isinstance(x, str)), extra
    )


def read(
    spoken: Iterable[Said], source: str, *, own: Mapping | None = None, task: str = "", reward: float | None = None,
    format: str = "chat",
) -> Trajectory:  # fmt: skip
    """An episode of messages: what is said before the assistant speaks is the observation that it answers.

    With `own`, the object of the convention, everything that it says. Without: the action is what the assistant wrote,
    its reasoning stands as guidance, and its task type says whether an outcome was recorded. A `reward` is the last
    step's and the return; 1 or more is a win, and the score is the reward clipped to 0..1.

    Args:
        spoken: the messages in order.
        source: the format's name, which stands as the environment's.
        task: what the file calls the task; without it the user's first message, which is the goal.
        format: the way of acting that is shown.
    """
    turns: list[Turn] = []
    steps: list[Mapping | None] = []
    heard: list[str] = []
    asked = ""
    for one in spoken:
        asked = asked or (one.text if one.role == "user" else "")
        if one.role != "assistant":
            heard.append(f"[system]\n{one.text}" if one.role in ("system", "developer") else one.text)
            continue
        response = f"{one.reasoning}\n{one.text}" if one.reasoning else one.text
        turns.append(Turn("\n\n".join(heard), response, one.text, True, guidance=one.reasoning or None))
        steps.append(one.extra)
        heard = []
    final = "\n\n".join(heard)
    if own is not None:
        return convention.trajectory(own, [(turn.observation, turn.response) for turn in turns], steps, final)
    goal = asked[:GOAL]
    outcome = source if reward is not None else f"{source}, no outcome recorded"
    result = Trajectory(task or goal, outcome, goal, format, turns, final_observation=final, env=source)
    if reward is not None:
        result.won, result.score, result.total_return = reward >= 1, min(1.0, max(0.0, reward)), reward
        if turns:
            turns[-1].reward = reward
    return result


def own(extra: Any) -> Mapping | None:
    """The object of the convention in a free field, None where there is none."""
    found = extra.get(convention.KEY) if isinstance(extra, Mapping) else None
    return found if isinstance(found, Mapping) else None


def dump(value: Any, name: str) -> str:
    """JSON as its standard has it; `ValueError` where a number is not finite, which `name` has."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{name}: a number that is not finite, which JSON does not have: {error}") from error


def identity(trajectory: Trajectory) -> str:
    """A name of this very episode, 32 hexadecimal digits; the same episode has the same name."""
    return hashlib.sha256(json.dumps(trajectory.to_dict()).encode()).hexdigest()[:32]


def check_version(name: str, value: Any, low: int, high: int) -> None:
    """`ValueError` naming a version that is no whole number from `low` to `high`."""
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name}={value!r}: understood are {low} to {high}")


def parse(text: bytes | str, name: str) -> Any:
    """A JSON value; `ValueError` says where in `name` it is none."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(f"{name}: JSON that is nested too deeply") from error
    except ValueError as error:  # also bytes that are no UTF-8
        raise ValueError(f"{name}: no JSON, or cut off: {error}") from error
