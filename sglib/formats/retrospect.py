"""`retrospect`: after the episode, one progress number per step, knowing the outcome (RePro, arXiv 2606.14302)."""

from __future__ import annotations

import re

from sglib import envs
from sglib.formats.reading import fields
from sglib.records import Trajectory

INSTRUCTION = (
    "The episode is over and its outcome is known. Rate the progress after each step, 0-100; a success ends at "
    "100, a failure below 100. Answer with one line:\nProgress: <one number per step, separated by spaces>"
)

_STEP = re.compile(r"\bstep\s{0,4}\d{1,3}\W{1,8}(\d+(?:\.\d+)?)", re.I)


def transcript(trajectory: Trajectory, progress: list[float] | None = None) -> str:
    """An episode as plain text, one line an observation and one an action, with progress in percent after each action
    if given (T numbers)."""
    assert progress is None or len(progress) == len(trajectory)
    card, lines = envs.of(trajectory), []
    for t, turn in enumerate(trajectory.turns):
        note = "" if progress is None else f" Progress: {round(progress[t])}"
        lines += [card.shown(turn.observation), f"Action: {turn.action}{note}"]
    lines.append(trajectory.final_observation.strip())
    return "\n".join(lines)


def example_message(trajectory: Trajectory, progress: list[float] | None = None) -> str:
    """A worked example to put before an episode (retrospective demonstration prompting, RePro's pilot study)."""
    return f"Example:\n{transcript(trajectory, progress)}"


def retrospect_messages(trajectory: Trajectory, compact: bool) -> list[dict]:
    """The prompt under which a policy rates each step of a finished episode, knowing how it ended."""
    outcome = "success" if trajectory.won else "failure"
    system = {"role": "system", "content": "retrospect" if compact else INSTRUCTION}
    return [system, {"role": "user", "content": f"{transcript(trajectory)}\nOutcome: {outcome}"}]


def parse_retrospect(response: str, steps: int) -> tuple[list[float] | None, str | None]:
    """One progress number per step: (numbers or None, name of the failure or None). Never raises on any text."""
    numbers = [float(x) for x in _STEP.findall(response)]  # "Step 1: 20", as language models like to number them
    if len(numbers) != steps:
        text = fields(response).get("progress", response)
        numbers = [float(x) for x in re.findall(r"\d+(?:\.\d+)?", text)]
    if len(numbers) != steps:
        return None, "missing_progress" if len(numbers) < steps else "bad_progress"
    if any(x > 100 for x in numbers):
        return None, "bad_progress"
    return numbers, None


def true_progress(trajectory: Trajectory) -> list[float]:
    """True progress after each step in percent, 0..100 (our decision for RePro's annotator), see `Trajectory.progress`.
    """
    found = trajectory.progress()
    if found is None:
        raise ValueError("trajectory: recorded without the truth (rollout's Options(truth=True))")
    return [100.0 * x for x in found[1:]]
