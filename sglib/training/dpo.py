"""Preferences between two answers to one prompt, with TRL's `DPOTrainer`: StepAgent's implicit reward (arXiv
2411.03817), which prefers the expert's action over the policy's own at each step.

As in `sft`, the rows are token ids already: nothing is tokenised again, nothing is cut off.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence

import torch
from datasets import Dataset
from peft import PeftModel
from trl import DPOConfig, DPOTrainer

from sglib.models import processes
from sglib.rewards.step_agent import Pair
from sglib.training.shared import StepHistory, epoch_arguments, restore_after_training

NAMES = {  # ours: TRL's
    "loss": "loss",
    "accuracy": "rewards/accuracies",
    "margin": "rewards/margins",
    "logp_expert": "logps/chosen",
    "logp_agent": "logps/rejected",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
}


class _Trainer(DPOTrainer):
    def _prepare_dataset(self, dataset, *_):
        return dataset  # the rows are what the collator takes


def dpo(
    policy,
    pairs: Sequence[Pair],
    *,
    beta: float = 0.1,
    epochs: int = 1,
    learning_rate: float = 1e-4,
    batch_size: int = 16,
    micro_batch_size: int = 8,
    seed: int = 0,
) -> list[dict]:
    """Train `policy.model` in place to prefer the expert's answers, see `sglib.rewards.step_agent.implicit_loss`; by
    AdamW at a constant rate.

    The reference is the policy as it is handed in: a frozen copy of the model, or of the adapter where there is one.
    The loss sees only the difference of the two answers, so both can become less likely: watch `logp_expert`.

    Args:
        beta: > 0; the larger, the closer the policy stays to the reference.
        batch_size: pairs per optimiser step.
        micro_batch_size: in pairs, which are two sequences each. The loss of a step is the mean of its micro-batches'
            means, which is the mean over pairs where the last micro-batch of an epoch is full.
        Others as of `sglib.training.sft.sft`.

    Returns:
        One dict per optimiser step, means over its pairs before the step: `step` (from 1), `loss`, `accuracy` (share
        of pairs with a positive margin), `margin` (the argument of the sigmoid), `logp_expert`, `logp_agent` (nats, of
        whole answers), `grad_norm` (before clipping to 1), `learning_rate`.

    Raises:
        ValueError: for no pairs, a pair without a prompt or an answer (naming its index), a number out of range, or
            several processes (`sglib.models.processes`).
        FloatingPointError: a loss or a gradient is not finite, naming the step.
    """
    if not beta > 0:
        raise ValueError(f"beta: got {beta}; allowed: more than 0")
    if not pairs:
        raise ValueError("pairs: got none; allowed: at least one")
    if processes.count() > 1:
        raise ValueError(f"dpo: started in {processes.count()} processes; allowed: one")
    rows = [_row(i, pair) for i, pair in enumerate(pairs)]
    config = DPOConfig(
        **epoch_arguments(policy, epochs, batch_size, micro_batch_size, learning_rate, seed),
        beta=beta,
        length_column_name="length",
        remove_unused_columns=False,  # default: True, which would remove the lengths before they are read
    )
    history = StepHistory(NAMES)
    model = policy.model
    adapted = isinstance(model, PeftModel)
    dropouts = [m for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    # TRL loads its reference from a hub id or path, which a model in memory need not have; an adapter it copies itself.
    reference = None if adapted else copy.deepcopy(model).requires_grad_(False).eval()
    with contextlib.ExitStack() as after:
        after.enter_context(restore_after_training(model))
        for module in dropouts:  # TRL sets these to 0 for good
            after.callback(setattr, module, "p", module.p)
        same = {"args": config, "train_dataset": Dataset.from_list(rows), "processing_class": policy.tokenizer}
        history.train(_Trainer(model=model, ref_model=reference, **same))
    return history.rows


def _row(index: int, pair: Pair) -> dict:
    for name in ("prompt_ids", "expert_ids", "agent_ids"):
        if not getattr(pair, name):
            raise ValueError(f"pairs[{index}]: {name} is empty; allowed: at least one token id")
    if list(pair.expert_ids) == list(pair.agent_ids):
        raise ValueError(f"pairs[{index}]: both answers are the same; allowed: two that differ")
    length = len(pair.prompt_ids) + max(len(pair.expert_ids), len(pair.agent_ids))
    prompt, expert, agent = (list(ids) for ids in (pair.prompt_ids, pair.expert_ids, pair.agent_ids))
    return {"prompt_ids": prompt, "chosen_ids": expert, "rejected_ids": agent, "length": length}
