"""Reading what a policy wrote. Any text gives something; what does not follow a format is a named failure."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Parsed:
    """What was read out of a response.

    Attributes:
        action: always a text, perhaps empty.
        guidance, label, progress: what the format has of these, else None.
        error: the first failure, None for none: "empty_response", "missing_action", "missing_guidance",
            "missing_label", "unknown_label", "missing_progress" or "bad_progress".
    """

    action: str
    guidance: str | None = None
    label: str | None = None
    progress: float | None = None
    error: str | None = None


_FIELD = re.compile(r"\b(Guidance|Label|Progress|Action)\s*:", re.I)


def fields(text: str) -> dict[str, str]:
    """Split "Guidance: a Label: b Action: c" into fields; of a repeated field the first is kept."""
    parts = _FIELD.split(text)
    found: dict[str, str] = {}
    for key, value in zip(parts[1::2], parts[2::2]):
        found.setdefault(key.lower(), value.strip())
    return found


def clean_action(text: str) -> str:
    """First line, without quotes, asterisks, a leading ">" or a final full stop, white space folded."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    line = re.sub(r"\s+", " ", lines[0]) if lines else ""
    return line.lstrip("> ").strip("`\"'* ").rstrip(".").strip()[:200]


def action_of(response: str, found: dict[str, str]) -> tuple[str, str | None]:
    """(action, failure or None). A bare command is understood, and still counted where a format asks for more."""
    if "action" in found:
        action, error = clean_action(found["action"]), None
    else:
        action, error = clean_action(response.strip().splitlines()[-1]), "missing_action"
    return action, error if action else "missing_action"
