"""`act`: the command alone, the baseline (ReAct without a thought)."""

from __future__ import annotations

from sglib.formats.reading import Parsed, action_of, fields

PREFIX = "Action:"
TOKENS = 0  # that the small model writes besides the action
INSTRUCTION = "Answer with one line:\nAction: <command>"


def write(action: str, **_) -> str:
    return f"Action: {action}"


def parse(response: str) -> Parsed:
    action, error = action_of(response, fields(response))
    return Parsed(action, error=error)
