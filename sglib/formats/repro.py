"""`repro`: a thought, the estimate of progress in percent, the command, in one answer (RePro's forward step, arXiv
2606.14302: the online estimate is emitted together with the action), for language models.

`retrospect` is its second prompt: the finished episode and its outcome, one number per step. OURS, since the paper's
wording is not public: the words, lines in place of tags, the thought before the estimate (an estimate without one is
the format `progress`), and that earlier estimates stay in the context.
"""

from __future__ import annotations

from dataclasses import replace

from sglib.formats import progress, react
from sglib.formats.reading import Parsed

PREFIX = react.PREFIX
INSTRUCTION = (
    "Before each action reason in a sentence or two about what has been reached and what is missing, then state how "
    "much of the task is done so far: 0 is nothing, 100 is all of it, and a step that leads away lowers it. Answer "
    "with three lines:\nThought: <your reasoning>\nProgress: <0-100>\nAction: <command>"
)


def write(action: str, *, progress: float, thought: str = "I go on.", **_) -> str:
    return f"Thought: {thought}\nProgress: {round(progress)}\nAction: {action}"


def parse(response: str) -> Parsed:
    response = react.unnumbered(response)
    parsed = progress.parse(response)
    return replace(parsed, error=parsed.error or (None if react.thought_of(response) else "missing_thought"))
