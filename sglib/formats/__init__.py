"""Ways of acting: how an episode is put to the policy, and how what it writes is read. One file each.

| format | the policy writes |
|---|---|
| `act` | the command |
| `progress` | its estimate of progress in percent, then the command |
| `guide` | a self-guidance (reason, then a label of the steps so far), then the command |
| `guide_two_stage` | the same in two answers to two prompts, by language models alone, without training |
| `react` | a thought, then the command; by language models alone, as the next two |
| `react_sparse` | the command, or a thought in its place |
| `repro` | a thought, the estimate of progress, the command |
| `retrospect` | after the episode: one progress number per step |

A format is a module with the `PREFIX` that begins each answer (given, not generated, so that the smallest model spends
no token on it), the number of `TOKENS` that the small model writes besides the action, the `INSTRUCTION` for language
models, `write` and `parse`.
"""

from __future__ import annotations

from sglib.envs.base import Environment
from sglib.formats import act, guide, progress, react, react_sparse, repro, two_stage
from sglib.formats.reading import Parsed, clean_action
from sglib.formats.retrospect import (
    example_message,
    parse_retrospect,
    retrospect_messages,
    transcript,
    true_progress,
)

__all__ = [
    "FORMATS", "LANGUAGE", "PREFIX", "Parsed", "WRITES_TOO", "check_format", "clean_action", "example_message",
    "format_response", "opening", "parse", "parse_retrospect", "retrospect_messages", "shown_instead", "transcript",
    "true_progress",
]  # fmt: skip

FORMATS = {"act": act, "progress": progress, "guide": guide}  # that every model knows
PROMPTED = {"react": react, "react_sparse": react_sparse, "repro": repro}  # explained in words to language models
_ALL = FORMATS | PROMPTED
PREFIX = {name: module.PREFIX for name, module in _ALL.items()} | {two_stage.NAME: ""}
LANGUAGE = (*PROMPTED, two_stage.NAME)  # not for the shipped small models, which have never read such an answer
WRITES_TOO = {"repro": "progress"}  # format: another one, all of whose fields it writes as well


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
    told = name if compact else f"{card.rules} {_ALL[name].INSTRUCTION}"
    messages = [{"role": "system", "content": told}]
    if example is not None:
        messages.append({"role": "user", "content": example})
    return [*messages, {"role": "user", "content": card.shown(first_observation)}]


def format_response(
    name: str, action: str, *, guidance: str | None = None, label: str | None = None, progress: float | None = None
) -> str:
    """A response in a format: the inverse of `parse`, used for demonstrations."""
    return _ALL[name].write(action, guidance=guidance, label=label, progress=progress)


def parse(name: str, response: str) -> Parsed:
    """Read what the policy wrote, the prefix included. Never raises on any text."""
    check_format(name)
    return _ALL[name].parse(response) if response.strip() else Parsed("", error="empty_response")


def shown_instead(name: str, action: str) -> str | None:
    """What the policy reads in place of the environment's answer to an action; None for that answer."""
    return react_sparse.answered(action) if name == "react_sparse" else None
