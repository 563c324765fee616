"""What would have happened? Episodes re-played from one of their turns with another action or guidance.

The oracle says how far the goal is; it does not say what *this policy* makes of a step. Re-rolling does: from a
snapshot before turn t, k episodes in which the step is kept and k in which it is something else, and the difference in
success. That is the step's true advantage under the policy, up to the noise of 2 k episodes, and what any internal
reward of the step can be scored against.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from statsmodels.stats.proportion import confint_proportions_2indep

from sglib.envs import Task, task_of
from sglib.formats import PREFIX, WRITES_TOO, clean_action, format_response
from sglib.measure.intervals import wilson
from sglib.models.policy import Policy
from sglib.play.answers import generate
from sglib.play.episode import Fork, Options
from sglib.play.rollout import rollout
from sglib.records import LABELS, Trajectory

LONGEST = 40  # tokens of an action


@dataclass(frozen=True)
class WhatIf:
    """Success of k re-rolled episodes as it was, and of k with the change.

    Attributes:
        kept, changed: shares won, 0..1.
        k: episodes of each.
        delta, low, high: changed - kept and its 95 % interval (Newcombe, two independent shares).
        examples: the changed episodes.
    """

    kept: float
    changed: float
    k: int
    delta: float
    low: float
    high: float
    examples: list[Trajectory]

    def __str__(self) -> str:
        return (
            f"{100 * self.kept:.0f} -> {100 * self.changed:.0f} % won: {100 * self.delta:+.0f} points "
            f"[{100 * self.low:+.0f}, {100 * self.high:+.0f}], {self.k} episodes each"
        )


def what_if(
    policy: Policy,
    trajectory: Trajectory,
    turn: int,
    *,
    action: str | None = None,
    guidance: str | None = None,
    label: str | None = None,
    delete_guidance: bool = False,
    k: int = 32,
    max_turns: int = 30,
    temperature: float = 1.0,
    seed: int = 0,
    games: Mapping[str, Task] | None = None,
) -> WhatIf:
    """Change one turn of a recorded episode and let the policy go on, k times, and k times without the change.

    Exactly one change: another `action` (the guidance or progress written before it stays), another `guidance` and
    `label` after which the policy chooses its action again, or none of it (`delete_guidance`). What it is compared with
    is the recorded action where the action changes, and the recorded guidance where that does.

    Args:
        policy: what plays on, with the tokenizer of the recording.
        trajectory: recorded, with its tokens.
        turn: counted from 0.
        max_turns: counts the recorded turns too.
        games: the game by id, if it was not generated here.
    """
    Fork(trajectory, turn)  # checks the turn
    changes = [action is not None, guidance is not None or label is not None, delete_guidance]
    if sum(changes) != 1:
        raise ValueError("what_if: exactly one of action, guidance (with label) and delete_guidance must be given")
    if (changes[1] or changes[2]) and trajectory.format != "guide":
        raise ValueError(f"guidance: the episode has the format {trajectory.format!r}; allowed: 'guide'")
    if label is not None and label not in LABELS:
        raise ValueError(f"label={label!r}: allowed: {', '.join(LABELS)}")
    if k < 1:
        raise ValueError(f"k={k!r}: must be at least 1")
    old = trajectory.turns[turn]
    format = WRITES_TOO.get(trajectory.format, trajectory.format)
    for needed in {"guide": ("guidance", "label"), "progress": ("progress",)}.get(format, ()):
        if getattr(old, needed) is None:  # what stays, or what the change is compared with
            raise ValueError(f"turn={turn}: its {needed} could not be read; allowed: a turn whose answer has one")
    if action is not None:
        kept = {"guidance": old.guidance, "label": old.label, "progress": old.progress}
        response = format_response(trajectory.format, action, **{k: v for k, v in kept.items() if v is not None})
        forks = [Fork(trajectory, turn, response=old.response), Fork(trajectory, turn, response=response)]
    else:
        before = _guidance(old.guidance, old.label)
        after = PREFIX["act"] if delete_guidance else _guidance(
            old.guidance if guidance is None else guidance, old.label if label is None else label
        )  # fmt: skip
        forks = [Fork(trajectory, turn, prefix=before), Fork(trajectory, turn, prefix=after)]
    episodes = _play(policy, forks, k, max_turns, temperature, seed, games)
    kept, changed = (sum(t.won for t in part) for part in (episodes[:k], episodes[k:]))
    return WhatIf(kept / k, changed / k, k, changed / k - kept / k, *_interval(changed, kept, k), episodes[k:])


def _guidance(guidance: str, label: str) -> str:
    return f"Guidance: {guidance} Label: {label} {PREFIX['act']}"


def _interval(a: int, b: int, k: int) -> tuple[float, float]:
    low, high = confint_proportions_2indep(a, k, b, k, method="newcomb", compare="diff")
    return float(low), float(high)


def _play(policy, forks, k, max_turns, temperature, seed, games) -> list[Trajectory]:
    played = [task_of(fork.trajectory, games) for fork in forks]
    return rollout(
        policy, played, format=forks[0].trajectory.format, group=k, turns=max_turns, temperature=temperature,
        seed=seed, options=Options(forks=forks, truth=False)
    )  # fmt: skip


@dataclass(frozen=True)
class StepValue:
    """What a recorded step was worth to the policy.

    Attributes:
        episode, turn: where it is: index of the trajectory, turn from 0.
        kept: share won when the step is kept and the policy goes on.
        redrawn: share won when the policy chooses again at this turn.
        advantage: kept - redrawn, -1..1; low, high: its 95 % interval.
        k: episodes of each.
    """

    episode: int
    turn: int
    kept: float
    redrawn: float
    advantage: float
    low: float
    high: float
    k: int


def step_values(
    policy: Policy,
    trajectories: Sequence[Trajectory],
    steps: Sequence[tuple[int, int]],
    *,
    k: int = 16,
    max_turns: int = 30,
    temperature: float = 1.0,
    seed: int = 0,
    games: Mapping[str, Task] | None = None,
) -> list[StepValue]:
    """The counterfactual advantage of recorded steps: success when the step is kept minus when it is drawn again, both
    by k episodes from the same snapshot.

    Args:
        trajectories: of one format, with their tokens.
        steps: (index of the trajectory, turn from 0).
        others: see `what_if`.
    """
    if k < 1:
        raise ValueError(f"k={k!r}: must be at least 1")
    if not steps:
        return []
    forks = []
    for i, t in steps:
        forks += [Fork(trajectories[i], t, response=trajectories[i].turns[t].response), Fork(trajectories[i], t)]
    if len({fork.trajectory.format for fork in forks}) > 1:
        raise ValueError("trajectories: several formats; allowed: one")
    won = np.array([t.won for t in _play(policy, forks, k, max_turns, temperature, seed, games)]).reshape(-1, 2, k)
    return [
        StepValue(i, t, kept / k, redrawn / k, (kept - redrawn) / k, *_interval(kept, redrawn, k), k)
        for (i, t), (kept, redrawn) in zip(steps, won.sum(2).tolist(), strict=True)
    ]


def sample_steps(trajectories: Sequence[Trajectory], n: int, seed: int = 0) -> list[tuple[int, int]]:
    """At most `n` steps of recorded episodes, drawn without replacement from all of them."""
    places = [(i, t) for i, trajectory in enumerate(trajectories) for t in range(len(trajectory))]
    chosen = np.random.default_rng(seed).permutation(len(places))[:n]
    return [places[i] for i in sorted(chosen)]


@torch.no_grad()
def steerability(policy: Policy, trajectories: Sequence[Trajectory], seed: int = 0) -> list[dict]:
    """Does what is written change what is done? At one turn of each recorded `guide` episode the guidance is replaced,
    and the most likely action after it is compared with the most likely one after what was written.

    The turn is drawn at random from those whose guidance was read; the other label is one of the other two; the other
    sub-goal is that of another turn of the same episode (episodes that have none are left out of its rows).

    Returns:
        Rows for `replaced` "label", "guidance" and "both": the share of actions that `changed`, its 95 % interval
        (Wilson) `low` and `high`, and `n` episodes. 0: guidance that says nothing to the one who wrote it.
    """
    rng, prompts, asked = np.random.default_rng(seed), [], []
    for number, trajectory in enumerate(trajectories):
        read = [t for t, turn in enumerate(trajectory.turns) if turn.guidance and turn.label]
        if trajectory.format != "guide" or not read:
            continue
        t = int(rng.choice(read))
        turn = trajectory.turns[t]
        context = [*trajectory.prompt_ids, *trajectory.completion_ids[: turn.span[0]]]
        label = str(rng.choice([name for name in LABELS if name != turn.label]))
        others = [trajectory.turns[i].guidance for i in read if trajectory.turns[i].guidance != turn.guidance]
        variants = {"": (turn.guidance, turn.label), "label": (turn.guidance, label)}
        if others:
            other = str(rng.choice(others))
            variants |= {"guidance": (other, turn.label), "both": (other, label)}
        for replaced, written in variants.items():
            text = _guidance(*written).removeprefix(PREFIX["guide"])
            prompts.append(context + policy.encode(text))
            asked.append((number, replaced))
    answers = generate(policy, prompts, max_new_tokens=LONGEST, temperature=0.0) if prompts else []
    actions = {key: clean_action(text) for key, text in zip(asked, answers, strict=True)}
    rows = []
    for replaced in ("label", "guidance", "both"):
        pairs = [(action, actions[number, ""]) for (number, what), action in actions.items() if what == replaced]
        if pairs:
            changed = sum(a != b for a, b in pairs)
            low, high = wilson(changed, len(pairs))
            row = {"replaced": replaced, "changed": changed / len(pairs), "low": low, "high": high, "n": len(pairs)}
            rows.append(row)
    return rows
