"""What a policy thinks of a text at each point of a recorded episode, read with one key-value cache.

A context point lies just before an answer: point 0 after the prompt, point t after answer t and the observation that
followed it. At each point the text is read after the context, its log-probabilities are kept, and it is forgotten
again: every token of the episode is read once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sglib import formats
from sglib.models.own_cache import new_cache
from sglib.models.policy import Policy, eval_mode
from sglib.models.slots import feed, logprobs_of
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
        trajectories: N episodes of T_i turns, with the policy's token ids.
        branches: token ids for each of the T_i context points of each episode; they may differ in length or be empty.
        drop_prefix: leave out the given beginning of the answer (`formats.PREFIX`, e.g. "Action:") with which a
            context ends, so that the branch begins the answer itself.
        batch_size: episodes side by side; changes speed and memory, not results.

    Returns:
        N lists of T_i float64 arrays, shaped as the branches.

    Raises:
        ValueError: an episode without token ids, or one branch too many or too few.
    """
    if [len(b) for b in branches] != [len(t) for t in trajectories]:
        raise ValueError(
            f"branches: got {[len(b) for b in branches]} for episodes of {[len(t) for t in trajectories]} turns; "
            "allowed: one branch for each turn"
        )
    rows = [_Row(policy, t, b, drop_prefix) for t, b in zip(trajectories, branches) if len(t)]
    with eval_mode(policy.model):
        for first in range(0, len(rows), batch_size):
            _read(policy, rows[first : first + batch_size])
    read = iter(rows)
    return [next(read).logprobs if len(t) else [] for t in trajectories]


@torch.no_grad()
def token_logprobs(policy: Policy, trajectory: Trajectory) -> list[float]:
    """Log-probabilities at temperature 1 of a recorded episode's own tokens under a policy, which need not be the one
    that wrote them: (C,) like `trajectory.logprobs`, 0.0 where `mask` is 0.

    Raises:
        ValueError: tokens that the policy does not have.
    """
    ids = torch.tensor([trajectory.prompt_ids + trajectory.completion_ids], device=policy.device)
    count, size = len(trajectory.completion_ids), policy.model.config.get_text_config().vocab_size
    if not count:
        return []
    if int(ids.max()) >= size:
        raise ValueError(f"trajectory: token {int(ids.max())}; allowed: below {size}, those of the policy's tokenizer")
    logits = policy.model(input_ids=ids, logits_to_keep=count + 1).logits[0, :-1].float()
    found = logits.log_softmax(-1).gather(1, ids[0, -count:, None])[:, 0]
    return (found * torch.tensor(trajectory.mask, device=found.device)).tolist()


class _Row:
    """One episode cut into what is new at each of its context points."""

    def __init__(self, policy: Policy, trajectory: Trajectory, branches: Sequence[list[int]], drop_prefix: bool):
        self.branches, self.logprobs = branches, []
        ids = [*trajectory.prompt_ids, *trajectory.completion_ids]
        ends = [len(trajectory.prompt_ids) + turn.span[0] for turn in trajectory.turns]
        if drop_prefix:
            prefix = formats.PREFIX[trajectory.format]
            where = f"trajectories: game {trajectory.game_id!r}"
            ends = [
                end - given_tokens(policy, ids[:end], prefix, f"{where}, turn {t + 1}") for t, end in enumerate(ends)
            ]
        self.new = [ids[start:end] for start, end in zip([0, *ends], ends)]
        if not all(self.new) or ends[-1] > len(ids):
            raise ValueError(f"trajectories: game {trajectory.game_id!r}: recorded without its token ids")
        self.longest = ends[-1] + max(map(len, branches))


def given_tokens(policy: Policy, context: Sequence[int], prefix: str, where: str) -> int:
    """How many tokens at the end of a context spell `prefix`, the given beginning of the answer; `ValueError` that
    begins with `where` if none do. A model that thinks first is given none."""
    if policy.thinking:
        return 0
    spelled = prefix, policy.decode(policy.encode(prefix)).strip()  # a tokenizer may know small letters alone
    for count in range(1, min(len(prefix), len(context)) + 1):
        if policy.decode(context[-count:]).strip() in spelled:
            return count
    raise ValueError(f"{where}: the answer was not begun with {prefix!r}, as its format has it")


def _read(policy: Policy, rows: list[_Row]):
    """Fill `logprobs` of each row: per turn, what is new is read, then the branch, which is forgotten."""
    cache = new_cache(policy.model, len(rows), max(row.longest for row in rows))
    t = 0
    while True:
        branches = [row.branches[t] for row in rows]
        sizes = np.array([len(b) for b in branches])
        tokens = [[*row.new[t], *b[:-1]] for row, b in zip(rows, branches)]
        logits = feed(policy, cache, tokens, keep=sizes, aside=(sizes - 1).clip(min=0))
        found = logprobs_of(logits, [token for b in branches for token in b])
        for row, part in zip(rows, np.split(found, sizes.cumsum()[:-1])):
            row.logprobs.append(part.copy())
        t += 1
        over = [i for i, row in enumerate(rows) if len(row.new) <= t]
        if len(over) == len(rows):
            break
        rows = [rows[i] for i in cache.drop(over)]
