"""`guide`: a self-guidance (a reason, then a label of the steps so far), then the command (Self-Guide, arXiv
2604.03098, Eq 3-4).

The guidance and the action are one answer: z_t ~ pi(.|h, o_t), a_t ~ pi(.|h, o_t, z_t) is then one continuation, and
past guidance stays in the context (Eq 2).
"""

from __future__ import annotations

import re

from sglib.formats.reading import Parsed, action_of, fields
from sglib.records import LABELS

PREFIX = "Guidance:"
TOKENS = 20
INSTRUCTION = (
    "Before each action rate the trajectory so far: positive if the "
    "latest step clearly brought the task closer or gave information that will be used, negative if it was wasted, "
    "regressing, contradictory or stuck, neutral otherwise. Answer with three lines:\n"
    "Guidance: <short reason and what to do next>\nLabel: <negative|neutral|positive>\nAction: <command>"
)


def write(action: str, *, guidance: str, label: str, **_) -> str:
    return f"Guidance: {guidance} Label: {label} Action: {action}"


def parse(response: str) -> Parsed:
    found = fields(response)
    action, error = action_of(response, found)
    guidance, (label, wrong) = found.get("guidance") or None, label_of(found.get("label", ""))
    return Parsed(action, guidance, label, error=error or ("missing_guidance" if guidance is None else wrong))


def label_of(stated: str) -> tuple[str | None, str | None]:
    """(label, None), or (None, name of the failure). What follows a first punctuation explains: "neutral (no gain)"."""
    word = "".join(re.match(r"[^a-z]*([a-z\s]*)", stated.lower())[1].split())
    return (word, None) if word in LABELS else (None, "unknown_label" if word else "missing_label")
