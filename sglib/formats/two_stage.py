"""`guide_two_stage`: Self-Guide with two prompts a turn, as its authors ask language models (arXiv 2604.03098).

One asks for a rating of the trajectory so far, two lines, the reason first; the next shows score and reason and asks
for the action. Earlier guidance is not shown again. The wording is ours, and so is that the first turn, with nothing to
rate, is neutral without being asked.
"""

from __future__ import annotations

import re

from sglib.envs.base import Environment
from sglib.formats.guide import label_of
from sglib.formats.reading import Parsed, action_of, fields
from sglib.records import Trajectory

NAME = "guide_two_stage"
SCORES = {"negative": -0.1, "neutral": 0.0, "positive": 0.1}  # g(z) of Section 3
FIRST = "nothing has been done yet"
RATE = (
    "TASK=rate\nYou judge the latest step of an agent's trajectory. positive: it clearly brought the task closer, or "
    "what it showed will be used. neutral: neither is clear. negative: it was wasted, led away, contradicted what is "
    "known, or repeated what did not work. Answer with two lines:\n"
    "Reason: <one short sentence>\nLabel: <negative|neutral|positive>"
)
ACT = (
    "Decide on the next action. A judge has rated the trajectory so far; take its reason into account. Answer with one "
    'JSON object: {"think": "<short>", "action": "<command>"}'
)


def rating_messages(card: Environment, trajectory: Trajectory, observation: str) -> list[dict]:
    """The prompt under which the latest step is rated; `observation` is the present one, as the policy reads it."""
    told = _history(card, trajectory, observation)
    return [{"role": "system", "content": RATE}, {"role": "user", "content": told}]


def actor_messages(
    card: Environment, trajectory: Trajectory, observation: str, guidance: str | None, label: str
) -> list[dict]:
    """The prompt under which the policy acts."""
    rated = f"Score: {SCORES[label]:+.1f}\nReason: {guidance or 'none given'}"
    told = f"{_history(card, trajectory, observation)}\n\n{rated}"
    return [{"role": "system", "content": f"{card.rules} {ACT}"}, {"role": "user", "content": told}]


def _history(card: Environment, trajectory: Trajectory, observation: str) -> str:
    lines = []
    for t, turn in enumerate(trajectory.turns, 1):
        lines += [card.shown(turn.observation), f"Step {t}: {turn.action}"]
    return "\n".join([*lines, observation])


def read_rating(text: str) -> tuple[str | None, str, str | None]:
    """(reason, label, name of the failure or None). A label that cannot be read counts as neutral."""
    before, *stated = re.split(r"\blabel\b[*_\s]{0,8}[:\uff1a]", text, maxsplit=1, flags=re.I)
    label, wrong = label_of("".join(stated))
    reason = re.sub(r"^[\W_]*(reason\b)?[\s*_:]*", "", before, count=1, flags=re.I).strip(" *_#>`\n-")
    return reason[:400] or None, label or "neutral", wrong


def parse(rating: str | None, answer: str) -> Parsed:
    """What the two answers of a turn say; `rating` is None at the first one. Never raises on any text."""
    action, error = action_of(answer, fields(answer)) if answer.strip() else ("", "empty_response")
    reason, label, wrong = (FIRST, "neutral", None) if rating is None else read_rating(rating)
    return Parsed(action, reason, label, error=error or ("missing_guidance" if reason is None else wrong))
