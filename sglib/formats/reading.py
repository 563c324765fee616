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


# a field's name, perhaps in Markdown: "**Action:**", "## Action:"; counts are bounded, so that it takes linear time
_NAME = r"(?<![A-Za-z0-9])(Guidance|Label|Progress|Action)"
_FIELD = re.compile(rf"[ \t>#*_`-]{{0,8}}{_NAME}[*_`]{{0,4}}\s{{0,8}}:[*_`]{{0,4}}", re.I)
_FENCE = re.compile(r"```\w*$")
_PAIRS = {"<": ">", "[": "]", "(": ")"}


def fields(text: str) -> dict[str, str]:
    """Split "Guidance: a Label: b Action: c" into fields. Before one that begins a line, the same name within a line is
    prose ("my last action: ..."); of a repeated field the first is kept."""
    names = list(_FIELD.finditer(text))
    lines: dict[str, int] = {}  # where each name first begins a line
    for m in names:
        if m.start() == 0 or text[m.start() - 1] == "\n":
            lines.setdefault(m[1].lower(), m.start())
    names = [m for m in names if m.start() >= lines.get(m[1].lower(), 0)]
    found: dict[str, str] = {}
    for m, end in zip(names, [*(m.start() for m in names[1:]), len(text)]):
        found.setdefault(m[1].lower(), text[m.end() : end].strip())
    return found


def clean_action(text: str) -> str:
    """First line that is no code fence, without quotes, asterisks, brackets around all of it, a leading ">", a final
    full stop or a capital that begins a sentence; white space folded."""
    lines = [line.strip() for line in text.strip().splitlines()]
    line = next((re.sub(r"\s+", " ", line) for line in lines if line and not _FENCE.match(line)), "")
    line = line.lstrip("> ").strip("`\"'* ").rstrip(".").strip()[:200]
    if line and _PAIRS.get(line[0]) == line[-1]:
        line = line[1:-1].strip()
    return line[0].lower() + line[1:] if re.match(r"[A-Z][a-z]", line) else line


def action_of(response: str, found: dict[str, str]) -> tuple[str, str | None]:
    """(action, failure or None). A bare command is understood, and still counted where a format asks for more."""
    if "action" in found:
        action, error = clean_action(found["action"]), None
    else:
        action, error = clean_action(response.strip().splitlines()[-1]), "missing_action"
    return action, error if action else "missing_action"
