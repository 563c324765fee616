"""Ways of acting: how an episode is put to the policy, and how what it writes is read.

| format | the policy writes | paper |
|---|---|---|
| `act` | the command | the baseline (ReAct without a thought) |
| `progress` | its estimate of progress in percent, then the command | RePro's online progress (arXiv 2606.14302) |
| `guide` | a self-guidance (reason, then a label of the prefix so far), then the command | Self-Guide, Eq 3-4 |
| `retrospect` | after the episode: one progress number per step | RePro's retrospection |

`guide` keeps the guidance and the action in one answer: z_t ~ pi(.|h, o_t), a_t ~ pi(.|h, o_t, z_t) is then one
continuation, and past guidance stays in the context (Eq 2).

Reading is total: any text gives a `Parsed`; what does not follow the format is a named failure in `Parsed.error`,
never an exception, and the best command that can be made of the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sglib.records import LABELS, Trajectory

FORMATS = ("act", "progress", "guide")
ERRORS = (
    "empty_response",
    "missing_action",
    "missing_guidance",
    "missing_label",
    "unknown_label",
    "missing_progress",
    "bad_progress",
)

COMMANDS = (
    "look | inventory | go to (receptacle) | open (receptacle) | close (receptacle) | take (object) from (receptacle)"
    " | move (object) to (receptacle) | examine (something) | use (object) | heat (object) with (receptacle) | "
    "clean (object) with (receptacle) | cool (object) with (receptacle) | slice (object) with (object)"
)
# What a language model is told. The shipped base model was trained on the format's name alone (`compact=True`).
INSTRUCTIONS = {
    "act": f"You act in a household. Commands: {COMMANDS}. Answer with one line:\nAction: <command>",
    "progress": (
        f"You act in a household. Commands: {COMMANDS}. Before each action estimate how much of the task is done. "
        "Answer with two lines:\nProgress: <0-100>\nAction: <command>"
    ),
    "guide": (
        f"You act in a household. Commands: {COMMANDS}. Before each action rate the trajectory so far: positive if the "
        "latest step clearly brought the task closer or gave information that will be used, negative if it was wasted, "
        "regressing, contradictory or stuck, neutral otherwise. Answer with three lines:\n"
        "Guidance: <short reason and what to do next>\nLabel: <negative|neutral|positive>\nAction: <command>"
    ),
    "retrospect": (
        "The episode is over and its outcome is known. Rate the progress after each step, 0-100; a success ends at "
        "100, a failure below 100. Answer with one line:\nProgress: <one number per step, separated by spaces>"
    ),
}
WELCOME = "-= Welcome to TextWorld, ALFRED! =-"


@dataclass(frozen=True, slots=True)
class Parsed:
    """What was read out of a response. `action` is always a string (perhaps empty); `error` names the first failure
    or is None."""

    action: str
    guidance: str | None = None
    label: str | None = None
    progress: float | None = None
    error: str | None = None


def check_format(name: str) -> str:
    """Return `name`, or raise `ValueError` naming the allowed formats."""
    if name not in FORMATS:
        raise ValueError(f"format={name!r}: allowed: {', '.join(FORMATS)}")
    return name


def system_message(name: str, compact: bool) -> dict:
    """The system message of a format; `compact` for the shipped base model, which knows formats by name."""
    return {"role": "system", "content": name if compact else INSTRUCTIONS[name]}


def observation_text(text: str) -> str:
    """What the policy reads of an environment's text: all of it but the welcome banner."""
    return text.replace(WELCOME, "", 1).strip() if text.startswith(WELCOME) else text.strip()


def opening(name: str, first_observation: str, compact: bool, example: str | None = None) -> list[dict]:
    """The messages before the first answer: instructions, an optional worked example, the first observation."""
    messages = [system_message(name, compact)]
    if example is not None:
        messages.append({"role": "user", "content": example})
    return [*messages, {"role": "user", "content": observation_text(first_observation)}]


def write(
    name: str, action: str, *, guidance: str | None = None, label: str | None = None, progress: float | None = None
) -> str:
    """A response in a format: the inverse of `parse`, used for demonstrations."""
    if name == "guide":
        return f"Guidance: {guidance} Label: {label} Action: {action}"
    if name == "progress":
        return f"Progress: {round(progress)} Action: {action}"
    return f"Action: {action}"


# What the policy has to begin with; given, not generated, so that the smallest model spends no token on it.
PREFIX = {"act": "Action:", "progress": "Progress:", "guide": "Guidance:"}

_FIELD = re.compile(r"\b(Guidance|Label|Progress|Action)\s*:", re.I)


def _fields(text: str) -> dict[str, str]:
    """Split "Guidance: a Label: b Action: c" into fields; of a repeated field the first is kept."""
    parts = _FIELD.split(text)
    fields: dict[str, str] = {}
    for key, value in zip(parts[1::2], parts[2::2]):
        fields.setdefault(key.lower(), value.strip())
    return fields


def clean_action(text: str) -> str:
    """First line, without quotes, asterisks, a leading ">" or a final full stop, white space folded."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    line = re.sub(r"\s+", " ", lines[0]) if lines else ""
    return line.lstrip("> ").strip("`\"'* ").rstrip(".").strip()[:200]


def parse(name: str, response: str) -> Parsed:
    """Read a response. Total: never raises on any text.

    Args:
        name: the format, one of `FORMATS`.
        response: what the policy wrote, the prefix included.
    """
    check_format(name)
    if not response.strip():
        return Parsed("", error="empty_response")
    fields = _fields(response)
    error = None
    if "action" in fields:
        action = clean_action(fields["action"])
    else:  # a bare command is understood, and still counted where the format asks for more
        lines = response.strip().splitlines()
        action, error = clean_action(lines[-1]), "missing_action"
    if not action:
        error = "missing_action"
    guidance = label = progress = None
    if name == "guide":
        guidance = fields.get("guidance") or None
        word = re.sub(r"[^a-z]", "", fields.get("label", "").lower())
        label = word if word in LABELS else None
        if error is None and guidance is None:
            error = "missing_guidance"
        if error is None and label is None:
            error = "unknown_label" if word else "missing_label"
    elif name == "progress":
        number = re.match(r"\s*(-?\d+(?:\.\d+)?)", fields.get("progress", ""))
        if number and 0 <= float(number.group(1)) <= 100:
            progress = float(number.group(1))
        elif error is None:
            error = "bad_progress" if fields.get("progress") else "missing_progress"
    return Parsed(action, guidance, label, progress, error)


# -- after the episode ----------------------------------------------------------------------------------------------


def transcript(trajectory: Trajectory, progress: list[float] | None = None) -> str:
    """An episode as plain text, one line an observation and one an action, with progress in percent behind each
    action if given.

    Raises:
        ValueError: `progress` has another length than the episode.
    """
    if progress is not None and len(progress) != len(trajectory):
        raise ValueError(f"progress: {len(progress)} numbers for {len(trajectory)} turns")
    lines = []
    for t, turn in enumerate(trajectory.turns):
        note = "" if progress is None else f" Progress: {round(progress[t])}"
        lines += [observation_text(turn.observation), f"Action: {turn.action}{note}"]
    lines.append(trajectory.final_observation.strip())
    return "\n".join(lines)


def example_message(trajectory: Trajectory, progress: list[float] | None = None) -> str:
    """A worked example to put before an episode (retrospective demonstration prompting, RePro's pilot study)."""
    return f"Example:\n{transcript(trajectory, progress)}"


def retrospect_messages(trajectory: Trajectory, compact: bool) -> list[dict]:
    """The prompt under which a policy rates each step of a finished episode, knowing how it ended."""
    outcome = "success" if trajectory.won else "failure"
    text = f"{transcript(trajectory)}\nOutcome: {outcome}"
    return [system_message("retrospect", compact), {"role": "user", "content": text}]


def parse_retrospect(response: str, steps: int) -> tuple[list[float] | None, str | None]:
    """Read one progress number per step: (numbers or None, name of the failure or None). Total."""
    text = _fields(response).get("progress", response)
    numbers = [float(x) for x in re.findall(r"\d+(?:\.\d+)?", text)]
    if len(numbers) != steps:
        return None, "missing_progress" if len(numbers) < steps else "bad_progress"
    if any(x > 100 for x in numbers):
        return None, "bad_progress"
    return numbers, None


def true_progress(trajectory: Trajectory) -> list[float]:
    """Progress after each step by the oracle, in percent: 100 (1 - d_t / d_0), clipped to 0..100 (our decision for
    RePro's annotator).

    Raises:
        ValueError: the trajectory was recorded without oracle distances.
    """
    first = trajectory.turns[0].distance if trajectory.turns else None
    after = trajectory.distances[1:]
    if first is None or any(d is None for d in after):
        raise ValueError("trajectory: recorded without oracle distances (rollout(..., oracle=True))")
    return [100.0 * min(1.0, max(0.0, 1 - d / max(first, 1))) for d in after]
