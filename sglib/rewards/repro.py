"""RePro (arXiv 2606.14302): act, then rate each step knowing the outcome. Here: the data of the warmup.

The warmup teaches two abilities at once: to act while stating progress, and to rate a finished episode step by step.
The paper
has a large model annotate a small number of won episodes; our annotator is the environment's oracle,
p_t = 1 - d_t / d_0 clipped to [0, 1] (our decision: at this scale no annotator model exists, and the oracle is exact).
"""

from __future__ import annotations

from sglib import formats
from sglib.policy import Policy
from sglib.records import Trajectory

IGNORE = -100  # label of tokens that are not trained on


def annotate(trajectory: Trajectory) -> list[float]:
    """Progress before each action and after the last one, in percent, in steps of ten: T + 1 numbers from the oracle.

    Raises:
        ValueError: the trajectory was recorded without oracle distances.
    """
    after = formats.true_progress(trajectory)
    return [10.0 * round(p / 10) for p in [0.0, *after]]


def forward_example(policy: Policy, trajectory: Trajectory) -> dict:
    """An episode rewritten so that each answer states the annotated progress before the action (format `progress`).

    Returns:
        {"input_ids": (n,), "labels": (n,)}; labels are -100 on everything that the policy does not write, and on
        answers
        whose action was not admissible (the warmup should not teach those).
    """
    progress, prefix = annotate(trajectory), formats.PREFIX["progress"]
    ids = policy.prompt_ids(formats.opening("progress", trajectory.turns[0].observation, policy.compact), prefix)
    labels = [IGNORE] * len(ids)
    for t, turn in enumerate(trajectory.turns):
        if t:
            between = policy.between_ids(formats.observation_text(turn.observation), prefix)
            ids, labels = ids + between, labels + [IGNORE] * len(between)
        text = formats.write("progress", turn.action, progress=progress[t]).removeprefix(prefix)
        answer = policy.encode(text) + policy.stop_ids[:1]
        ids, labels = ids + answer, labels + (answer if turn.valid else [IGNORE] * len(answer))
    return {"input_ids": ids, "labels": labels}


def retrospect_example(policy: Policy, trajectory: Trajectory) -> dict:
    """A finished episode, its outcome, and the annotated progress after each step as the answer (format
    `retrospect`)."""
    progress = annotate(trajectory)[1:]
    ids = policy.prompt_ids(formats.retrospect_messages(trajectory, policy.compact), "Progress:")
    answer = policy.encode(" ".join(str(round(p)) for p in progress)) + policy.stop_ids[:1]
    return {"input_ids": ids + answer, "labels": [IGNORE] * len(ids) + answer}


def warmup_examples(policy: Policy, trajectories: list[Trajectory]) -> list[dict]:
    """Both kinds of example for each *won* episode.

    Raises:
        ValueError: no episode was won.
    """
    won = [t for t in trajectories if t.won]
    if not won:
        raise ValueError(f"trajectories: none of {len(trajectories)} was won; play more games or allow more turns")
    return [make(policy, t) for t in won for make in (forward_example, retrospect_example)]
