"""What a policy thinks of a text at each point of a recorded episode, read with one key-value cache.

A context point lies just before an answer: point 0 behind the prompt, point t behind answer t and the observation that
followed it. At each point the text is fed behind the context, its log-probabilities are kept, and the cache is rewound
to where the context ended: every token of the episode is read once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sglib import formats
from sglib.decoding import SlotCache, decoder_of, feed
from sglib.policy import Policy
from sglib.records import Trajectory


@torch.no_grad()
def branch_logprobs(
    policy: Policy,
    trajectories: Sequence[Trajectory],
    branches: Sequence[Sequence[list[int]]],
    drop_prefix: bool = False,
    batch_size: int = 64,
) -> list[list[np.ndarray]]:
    """Log-probability of each token of `branches[i][t]`, had it been written at context point t of episode i.

    Temperature 1, no gradient, in eval mode; the model is left as it was found. Contexts are the recorded token ids.

    Args:
        policy: what reads; it must have the tokenizer that the episodes were recorded with.
        trajectories: N episodes of T_i turns, with their token ids.
        branches: token ids for each of the T_i context points of each episode; they may differ in length or be empty.
        drop_prefix: leave out the given beginning of the answer (`formats.PREFIX`, e.g. "Action:") with which a
            context ends, so that the branch begins the answer itself.
        batch_size: episodes that are read side by side; changes speed and memory, not results.

    Returns:
        N lists of T_i float64 arrays, shaped as the branches.

    Raises:
        ValueError: naming the argument or the episode, and what is allowed.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size!r}: must be at least 1")
    if [len(b) for b in branches] != [len(t) for t in trajectories]:
        raise ValueError(
            f"branches: got {[len(b) for b in branches]} for episodes of {[len(t) for t in trajectories]} turns; "
            "allowed: one branch for each turn"
        )
    rows = [_Row(policy, t, b, drop_prefix) for t, b in zip(trajectories, branches) if len(t)]
    was_training = policy.model.training
    policy.model.eval()
    try:
        for first in range(0, len(rows), batch_size):
            _read(policy, rows[first : first + batch_size])
    finally:
        policy.model.train(was_training)
    read = iter(rows)
    return [next(read).logprobs if len(t) else [] for t in trajectories]


class _Row:
    """One episode cut into what is new at each of its context points."""

    def __init__(self, policy: Policy, trajectory: Trajectory, branches: Sequence[list[int]], drop_prefix: bool):
        self.branches, self.logprobs = branches, []
        ids = [*trajectory.prompt_ids, *trajectory.completion_ids]
        ends = [len(trajectory.prompt_ids) + turn.span[0] for turn in trajectory.turns]
        if drop_prefix:
            ends = [end - self._given(policy, trajectory, ids[:end], t) for t, end in enumerate(ends)]
        self.new = [ids[start:end] for start, end in zip([0, *ends], ends)]
        if not all(self.new) or ends[-1] > len(ids):
            raise ValueError(f"trajectories: game {trajectory.game_id!r}: recorded without its token ids")
        self.longest = ends[-1] + max(map(len, branches))

    @staticmethod
    def _given(policy: Policy, trajectory: Trajectory, context: list[int], t: int) -> int:
        """How many tokens at the end of a context spell the answer's given prefix."""
        prefix = formats.PREFIX[trajectory.format]
        for count in range(1, min(len(prefix), len(context)) + 1):
            if policy.decode(context[-count:]).strip() == prefix:
                return count
        raise ValueError(
            f"trajectories: game {trajectory.game_id!r}, turn {t + 1}: the answer was not begun with {prefix!r}, as "
            f"format {trajectory.format!r} has it"
        )


def _read(policy: Policy, rows: list[_Row]):
    """Fill `logprobs` of each row: per turn, feed what is new, then the branch, then rewind."""
    cache = SlotCache(policy.model, len(rows), max(row.longest for row in rows), decoder_of(policy.model))
    t = 0
    while True:
        branches = [list(row.branches[t]) for row in rows]
        width = max(map(len, branches))
        before = feed(policy, cache, [row.new[t] for row in rows])  # logits behind the contexts (B, V)
        logits = before[:, None]
        if width > 1:
            ends = cache.lengths
            behind = feed(policy, cache, [b[:-1] for b in branches], every=True)  # right-aligned (B, width - 1, V)
            logits = torch.cat([logits, behind], dim=1)
            cache.rewind(ends)
        if width:
            tokens = torch.tensor([[0] * (width - len(b)) + b for b in branches], device=policy.device)
            for i, b in enumerate(branches):
                if b:  # what is behind the context predicts a branch's first token, wherever its column is
                    logits[i, width - len(b)] = before[i]
            found = torch.log_softmax(logits, dim=-1).gather(-1, tokens[:, :, None])[:, :, 0].double().cpu().numpy()
        for i, (row, branch) in enumerate(zip(rows, branches)):
            row.logprobs.append(found[i, width - len(branch) :].copy() if branch else np.zeros(0))
        t += 1
        over = [i for i, row in enumerate(rows) if len(row.new) <= t]
        if len(over) == len(rows):
            break
        rows = [rows[i] for i in cache.drop(over)]
