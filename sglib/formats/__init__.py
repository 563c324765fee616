"""Ways of acting: how an episode is put to the policy, and how what it writes is read. One file each.

| format | the policy writes |
|---|---|
| `act` | the command |
| `progress` | its estimate of progress in percent, then the command |
| `guide` | a self-guidance (reason, then a label of the steps so far), then the command |
| `guide_two_stage` | the same in two answers to two prompts, by language models alone, without training |
| `retrospect` | after the episode: one progress number per step |

A format is a module with the `PREFIX` that begins each answer (given, not generated, so that the smallest model spends
no token on it), the number of `TOKENS` that the small model writes besides the action, the `INSTRUCTION` for language
models, `write` and `parse`.
"""

from __future__ import annotations

from sglib.envs.base import Environment
from sglib.formats import act, guide, progress, two_stage
from sglib.formats.reading import Parsed, clean_action
from sglib.formats.retrospect import (
    example_message,
    parse_retrospect,
    retrospect_messages,
    transcript,
    true_progress,
)

__all__ = [
    "FORMATS", "PREFIX", "Parsed", "check_format", "clean_action", "example_message", "format_response", "opening",
    "parse", "parse_retrospect", "retrospect_messages", "transcript", "true_progress",
]  # fmt: skip

FORMATS = {"act": act, "progress": progress, "guide": guide}
PREFIX = {name: module.PREFIX for name, module in FORMATS.items()} | {two_stage.NAME: ""}


def check_format(name: str) -> str:
    """Return `name`, or raise `ValueError` naming the allowed formats."""
    if name not in PREFIX:
        raise ValueError(f"format={name!r}: allowed: {', '.join(PREFIX)}")
    return name


def opening(
    name: str, card: Environment, first_observation: str, compact: bool, example: str | None = None
) -> list[dict]:
    """The messages before the first answer: instructions, an optional worked example, the first observation.

    `compact`: True for the shipped small models, which know a format by its name and need no rules.
    """
    messages = [{"role": "system", "content": name if compact else f"{card.rules} {FORMATS[name].INSTRUCTION}"}]
    if example is not None:
        messages.append({"role": "user", "content": example})
    return [*messages, {"role": "user", "content": card.shown(first_observation)}]


def format_response(
    name: str, action: str, *, guidance: str | None = None, label: str | None = None, progress: float | None = None
) -> str:
    """A response in a format: the inverse of `parse`, used for demonstrations."""
    return FORMATS[name].write(action, guidance=guidance, label=label, progress=progress)


def parse(name: str, response: str) -> Parsed:
    """Read what the policy wrote, the prefix included. Never raises on any text."""
    check_format(name)
    return FORMATS[name].parse(response) if response.strip() else Parsed("", error="empty_response")
