"""Reading what a policy wrote. Any text gives something; what does not follow a format is a named failure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Parsed:
    """What was read out of a response.

    Attributes:
        action: always a text, perhaps empty.
        guidance, label, progress: what the format has of these, else None.
        error: the first failure, None for none: "empty_response", "missing_action", "missing_guidance",
            "missing_label", "unknown_label", "missing_thought", "missing_progress" or "bad_progress".
    """

    action: str
    guidance: str | None = None
    label: str | None = None
    progress: float | None = None
    error: str | None = None


# A field's name, perhaps in Markdown or numbered: "**Action:**", "## Action:", "3. Action:". Counts are bounded, so
# that it takes linear time.
_NAME = r"(?<![A-Za-z0-9])(Guidance|Label|Progress|Action)"
_FIELD = re.compile(
    rf"(?:^[ \t]{{0,8}}\d{{1,2}}[.)])?[ \t>#*_`-]{{0,8}}{_NAME}[*_`]{{0,4}}\s{{0,8}}[:\uff1a][*_`]{{0,4}}", re.I | re.M
)
_TAG = re.compile(r"(?:\b(?:guidance|label|progress|action):\s{0,8})?<(/?)(guidance|label|progress|action)>", re.I)
_COMMAND = re.compile(r"</?(?:command|action)>", re.I)
_FENCE = re.compile(r"```\w*$")
_BULLET = re.compile(r"(?:[-*>\u2022]|\d{1,2}[.)])\s+")
_ASIDE = re.compile(r"\s\([^()]*\)$")
_PAIRS = {"<": ">", "[": "]", "(": ")", "{": "}"}
_QUOTES = "`\"'* \u201c\u201d\u2018\u2019"


def fields(text: str) -> dict[str, str]:
    """Split "Guidance: a Label: b Action: c" into fields, by lower-case name; JSON and tags are understood, too. Before
    one that begins a line, the same name within a line is prose ("my last action: ..."), and so is an action within the
    guidance; of a repeated field the first is kept."""
    if (found := _json(text)) is not None:
        return found
    text = _TAG.sub(lambda m: "\n" if m[1] else f"\n{m[2]}: ", text)
    names = list(_FIELD.finditer(text))
    lines: dict[str, int] = {}  # where each name first begins a line
    for m in names:
        if m.start() == 0 or text[m.start() - 1] == "\n":
            lines.setdefault(m[1].lower(), m.start())
    names = [m for m in names if m.start() >= lines.get(m[1].lower(), 0)]
    label = next((m.start() for m in names if m[1].lower() == "label"), 0)
    actions = [m.start() for m in names if m[1].lower() == "action"]
    if "action" not in lines and actions and actions[-1] > label:
        names = [m for m in names if m[1].lower() != "action" or m.start() > label]
    found = {}
    for m, end in zip(names, [*(m.start() for m in names[1:]), len(text)]):
        found.setdefault(m[1].lower(), text[m.end() : end].strip())
    return found


def _json(text: str) -> dict[str, str] | None:
    """The fields of an answer that is a JSON object with one of their names; None for any other."""
    start, end = text.find("{"), text.rfind("}")
    if not 0 <= start < end:
        return None
    try:
        found = json.loads(text[start : end + 1])
    except (ValueError, RecursionError):
        return None
    found = {str(k).lower(): str(v) for k, v in found.items() if isinstance(v, str | int | float)}
    return found if found.keys() & {"guidance", "label", "progress", "action"} else None


def clean_action(text: str) -> str:
    """First line that is no code fence, without what stands around a command in an answer: quotes, asterisks, brackets,
    a bullet or number before it, a full stop or a remark in parentheses behind it; nor the capital that begins a
    sentence, or capitals throughout. White space is folded."""
    lines = [line.strip() for line in _COMMAND.sub(" ", text).strip().splitlines()]
    line = next((re.sub(r"\s+", " ", line) for line in lines if line and not _FENCE.match(line)), "")
    line = _bare(_BULLET.sub("", line.lstrip("> "), count=1))[:200]
    line = _bare(_ASIDE.sub("", line))
    if line and _PAIRS.get(line[0]) == line[-1] and line[0] not in line[1:]:  # one pair around all of it
        line = _bare(line[1:-1])
    if line.isupper():
        return line.lower()
    return line[0].lower() + line[1:] if re.match(r"[A-Z][a-z]", line) else line


def _bare(line: str) -> str:
    return line.strip(_QUOTES).rstrip(".").rstrip(_QUOTES)


def action_of(response: str, found: dict[str, str]) -> tuple[str, str | None]:
    """(action, failure or None). A bare command is understood, and still counted where a format asks for more."""
    if "action" in found:
        action, error = clean_action(found["action"]), None
    else:
        action, error = clean_action(response.strip().splitlines()[-1]), "missing_action"
    return action, error if action else "missing_action"
