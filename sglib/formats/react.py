"""`react`: a thought, then the command, at every turn (ReAct, arXiv 2210.03629, the form for tasks where reasoning
comes first: Thought, Action, Observation), for language models.

The paper shows worked examples with thoughts written by people. OURS: the wording; no example unless
`Options.example` gives one; the chat's turns in place of the numbers ("Thought 1:", which are read all the same).
Thoughts stay in the context, as in the paper.
"""

from __future__ import annotations

import re

from sglib.formats.reading import Parsed, action_of, fields

PREFIX = "Thought:"
INSTRUCTION = (
    "Alternate between thinking and acting: first reason in a sentence or two about what the last observation means "
    "for the task and what follows from it, then choose one command. Answer with two lines:\n"
    "Thought: <your reasoning>\nAction: <command>"
)
_NUMBERED = re.compile(r"\b(Thought|Action|Progress)[ \t]{1,4}\d{1,3}[ \t]{0,4}(?=[:\uff1a])", re.I)
_THOUGHT = re.compile(r"[\s*_#>`\"{]{0,8}(?:thought|think)\b[*_\"]{0,4}\s{0,8}[:\uff1a]\s{0,8}", re.I)
_NEXT = re.compile(r"[\s*_#>`\",]{0,8}\b(?:progress|action)\b[*_\"]{0,4}\s{0,8}[:\uff1a]", re.I)


def write(action: str, *, thought: str = "I go on.", **_) -> str:
    return f"Thought: {thought}\nAction: {action}"


def parse(response: str) -> Parsed:
    response = unnumbered(response)
    action, error = action_of(response, fields(response))
    return Parsed(action, error=error or (None if thought_of(response) else "missing_thought"))


def unnumbered(response: str) -> str:
    """An answer without the numbers of its steps, "Action 3:"."""
    return _NUMBERED.sub(r"\1", response)


def thought_of(response: str) -> str:
    """The thought of an answer that begins with one, "" where there is none; lines or JSON."""
    begin = _THOUGHT.match(response)
    rest = response[begin.end() :] if begin else ""
    end = _NEXT.search(rest)
    return rest[: end.start() if end else len(rest)].strip(' \n"*_,')
