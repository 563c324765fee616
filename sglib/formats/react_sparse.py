"""`react_sparse`: a turn is a command, or a thought in its place (ReAct, arXiv 2210.03629, the form for tasks of many
actions: the model decides when to think), for language models.

A thought is written "think: ...", changes nothing, is answered "OK." and takes one of the episode's turns. OURS: the
wording; no example unless `Options.example` gives one (the paper shows two); a thought is no invalid action.
"""

from __future__ import annotations

import re

from sglib.formats.reading import Parsed, action_of, clean_action, fields

PREFIX = ">"
OK = "OK."  # what a thought is answered
INSTRUCTION = (
    "At each turn write one line. It is either a command, or a thought that begins with think: when it is time to "
    f"plan, to keep track of what is done, or to change the plan. A thought changes nothing and is answered {OK}\n"
    "> <command>, or\n> think: <your reasoning>"
)
_THOUGHT = re.compile(r"[\s>*_`\"]{0,8}think\b[*_`]{0,4}\s{0,8}[:\uff1a]\s{0,8}", re.I)


def write(action: str, **_) -> str:
    return f"> {action}"


def parse(response: str) -> Parsed:
    if begin := _THOUGHT.match(response):
        thought = " ".join(response[begin.end() :].strip().partition("\n")[0].split())[:400]
        return Parsed(f"think: {thought}", error=None if thought else "missing_action")
    found = fields(response)
    if "action" in found:  # "Action: look", which is read in every format
        action, error = action_of(response, found)
        return Parsed(action, error=error)
    action = clean_action(response.strip().lstrip("> "))
    return Parsed(action, error=None if action else "missing_action")


def answered(action: str) -> str | None:
    """What is shown in place of the environment's answer to a thought; None for a command."""
    return OK if action.startswith("think:") else None
