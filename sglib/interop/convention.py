"""What a step was paid, how far the goal was, what the policy said of itself: no interchange format has a field for
it, so it goes into their free fields by one convention, docs/step-reward-convention.md. Version 1.0."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from sglib.records import TOKENS, Trajectory, Turn

KEY = "step_rewards"  # of the free field that has it
VERSION = "1.0"
# key of the convention -> field of `Turn` or `Trajectory`; messages have the observations and what was written
STEP = {
    "action": "action", "admissible": "valid", "reward": "reward", "rewards": "rewards", "advantage": "advantage",
    "distance": "distance", "progress": "truth", "guidance": "guidance", "label": "label",
    "stated_progress": "progress", "parse_error": "parse_error", "span": "span",
}  # fmt: skip
EPISODE = {
    "env": "env", "task": "game_id", "task_type": "task_type", "goal": "goal", "format": "format", "won": "won",
    "score": "score", "return": "total_return", "group": "group", "seed": "seed", "final_distance": "final_distance",
    "final_progress": "final_truth", "no_room": "no_room", "origin": "origin",
}  # fmt: skip


def anchor(observation: str) -> str:
    """The anchor state of a step, where GiGPO compares actions: 16 hexadecimal digits of its observation's SHA-256."""
    return hashlib.sha256(observation.encode(errors="surrogatepass")).hexdigest()[:16]


def step(turn: Turn) -> dict:
    """One step's object; what is not known is left out."""
    known = {key: getattr(turn, name) for key, name in STEP.items() if getattr(turn, name) is not None}
    return {**known, "span": list(turn.span), "anchor": anchor(turn.observation)}


def episode(trajectory: Trajectory, steps: bool = True) -> dict:
    """An episode's object; with `steps` those of its steps, too, for formats whose messages have no free field."""
    known = {key: getattr(trajectory, name) for key, name in EPISODE.items() if getattr(trajectory, name) is not None}
    tokens = {name: getattr(trajectory, name) for name in TOKENS if getattr(trajectory, name)}
    listed = {"steps": [step(turn) for turn in trajectory.turns]} if steps else {}
    return {"version": VERSION, **known, **({"tokens": tokens} if tokens else {}), **listed}


def trajectory(
    found: Mapping, said: Sequence[tuple[str, str]], steps: Sequence[Mapping | None], final_observation: str
) -> Trajectory:
    """The inverse: `found` is an episode's object, `said` observation and response of each step, `steps` their objects
    where messages have them. `ValueError` names a version, a key or a count that does not fit; unknown keys do not
    count."""
    version = found.get("version")
    if not isinstance(version, str) or version.partition(".")[0] != VERSION.partition(".")[0]:
        raise ValueError(f"{KEY}.version={version!r}: understood is {VERSION.partition('.')[0]}.x")
    listed = found.get("steps", steps)
    if not isinstance(listed, Sequence) or len(listed) != len(said):
        raise ValueError(f"{KEY}.steps: {len(said)} actions were taken, and there are not as many objects")
    turns = []
    for number, ((observation, response), one) in enumerate(zip(said, listed, strict=True)):
        if not isinstance(one, Mapping):
            raise ValueError(f"{KEY}: step {number} has no object")
        known = {name: one[key] for key, name in STEP.items() if key in one}
        turns.append({"observation": observation, "response": response, "action": response, "valid": True, **known})
    known = {name: found[key] for key, name in EPISODE.items() if key in found}
    tokens = found.get("tokens", {})
    known |= {name: tokens[name] for name in TOKENS if name in tokens} if isinstance(tokens, Mapping) else {}
    return Trajectory.from_dict({**known, "turns": turns, "final_observation": final_observation})
