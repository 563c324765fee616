"""Preferences between two answers to one prompt, with TRL's `DPOTrainer`: StepAgent's implicit reward (arXiv
2411.03817), which prefers the expert's action over the policy's own at each step.

As in `sft`, the rows are token ids already: nothing is tokenised again, nothing is cut off.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Sequence

import torch
from datasets import Dataset
from peft import PeftModel
from trl import DPOConfig, DPOTrainer

from sglib.training.shared import StepHistory, arguments, restore_after_training


class _Trainer(StepHistory, DPOTrainer):
    NAMES = {
        "loss": "loss",
        "accuracy": "rewards/accuracies",
        "margin": "rewards/margins",
        "logp_expert": "logps/chosen",
        "logp_agent": "logps/rejected",
        "grad_norm": "grad_norm",
        "learning_rate": "learning_rate",
    }

    def _prepare_dataset(self, dataset, *_):
        return dataset  # the rows are what the collator takes


def dpo(
    policy,
    pairs: Sequence,
    *,
    beta: float = 0.1,
    epochs: int = 1,
    learning_rate: float = 1e-4,
    batch_size: int = 16,
    micro_batch_size: int = 8,
    seed: int = 0,
    lr_schedule: str = "constant",
    max_grad_norm: float = 1.0,
    bf16: bool | None = None,
    on_step: Callable[[dict], None] | None = None,
) -> list[dict]:
    """Train `policy.model` in place to prefer the expert's answers, see `sglib.rewards.step_agent.implicit_loss`.

    The reference is the policy as it is handed in: a frozen copy of the model, or of the adapter where there is one.
    The loss sees only the difference of the two answers, so both can become less likely: watch `logp_expert`.

    Args:
        policy: has `model` (PEFT-wrapped or not), `tokenizer` and `device`.
        pairs: have `prompt_ids`, `expert_ids` and `agent_ids`, lists of token ids (`step_agent.Pair`).
        beta: > 0; the larger, the closer the policy stays to the reference.
        epochs: passes over all pairs, shuffled by `seed`; at least 1.
        learning_rate, lr_schedule: AdamW's rate, and transformers' name of its course ("constant", "linear", "cosine").
        batch_size: pairs per optimiser step; the last step of an epoch may have fewer.
        micro_batch_size: at most this many pairs (twice as many sequences) per forward pass; bounds memory. The largest
            divisor of `batch_size` that fits is used. The loss of a step is the mean of its micro-batches' means, which
            is the mean over pairs where the last micro-batch of an epoch is full.
        max_grad_norm: gradients are clipped to this norm, 0 is off.
        bf16: autocast to bfloat16; None means yes on a GPU that supports it, no on CPU.
        on_step: called with each entry of the result as it comes.

    Returns:
        One dict per optimiser step, means over its pairs before the step: `step` (from 1), `loss`, `accuracy` (share
        of pairs with a positive margin), `margin` (the argument of the sigmoid), `logp_expert`, `logp_agent` (nats, of
        whole answers), `grad_norm` (before clipping), `learning_rate`.

    Raises:
        ValueError: for no pairs, a pair without a prompt or an answer (naming its index), or a number out of range.
    """
    if not beta > 0:
        raise ValueError(f"beta: got {beta}; allowed: more than 0")
    if not pairs:
        raise ValueError("pairs: got none; allowed: at least one")
    rows = [_row(i, pair) for i, pair in enumerate(pairs)]
    common = arguments(
        policy, epochs=epochs, batch_size=batch_size, micro_batch_size=micro_batch_size, learning_rate=learning_rate,
        lr_schedule=lr_schedule, max_grad_norm=max_grad_norm, bf16=bf16, seed=seed,
    )  # fmt: skip
    config = DPOConfig(
        **common,
        beta=beta,
        length_column_name="length",
        remove_unused_columns=False,  # default: True, which would remove the lengths before they are read
        weight_decay=0.0,
    )
    model = policy.model
    adapted = isinstance(model, PeftModel)
    dropouts = [m for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    # TRL loads its reference from a hub id or path, which a model in memory need not have; an adapter it copies itself.
    reference = None if adapted else copy.deepcopy(model).requires_grad_(False).eval()
    with contextlib.ExitStack() as after:
        after.enter_context(restore_after_training(model))
        for module in dropouts:  # TRL sets these to 0 for good
            after.callback(setattr, module, "p", module.p)
        trainer = _Trainer(
            on_step=on_step,
            model=model,
            ref_model=reference,
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=policy.tokenizer,
        )
        trainer.train()
    return trainer.history


def _row(index: int, pair) -> dict:
    row = {
        "prompt_ids": list(pair.prompt_ids),
        "chosen_ids": list(pair.expert_ids),
        "rejected_ids": list(pair.agent_ids),
    }
    for name, ids in zip(("prompt_ids", "expert_ids", "agent_ids"), row.values(), strict=True):
        if not ids:
            raise ValueError(f"pairs[{index}]: {name} is empty; allowed: at least one token id")
    if row["chosen_ids"] == row["rejected_ids"]:
        raise ValueError(f"pairs[{index}]: both answers are the same; allowed: two that differ")
    return row | {"length": len(row["prompt_ids"]) + max(len(pair.expert_ids), len(pair.agent_ids))}
