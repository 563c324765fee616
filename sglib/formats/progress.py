"""`progress`: the policy's estimate of its progress in percent, then the command (RePro's online progress, arXiv
2606.14302)."""

from __future__ import annotations

import re

from sglib.formats.reading import Parsed, action_of, fields

PREFIX = "Progress:"
TOKENS = 4
INSTRUCTION = (
    "Before each action estimate how much of the task is done. "
    "Answer with two lines:\nProgress: <0-100>\nAction: <command>"
)


def write(action: str, *, progress: float, **_) -> str:
    return f"Progress: {round(progress)} Action: {action}"


def parse(response: str) -> Parsed:
    found = fields(response)
    action, error = action_of(response, found)
    number = re.match(r"[^\d\n-]{0,16}(-?\d+(?:\.\d+)?)", found.get("progress", ""))  # "about 40 %"
    if number and 0 <= float(number.group(1)) <= 100:
        return Parsed(action, progress=float(number.group(1)), error=error)
    return Parsed(action, error=error or ("bad_progress" if found.get("progress") else "missing_progress"))
