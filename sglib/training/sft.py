"""Supervised training on transcripts with TRL's `SFTTrainer`: RePro's warmup (arXiv 2606.14302) and any other.

The warmup mixes two kinds of example (acting with an estimate of progress, and judging it afterwards); to this module
they are all token ids with labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from sglib.models.endpoint import check_trainable
from sglib.rewards.repro import IGNORE
from sglib.training.shared import StepHistory, arguments, restore_after_training


class _Trainer(StepHistory, SFTTrainer):
    NAMES = {name: name for name in ("loss", "grad_norm", "learning_rate")}


def sft(
    policy,
    examples: Sequence[dict],
    *,
    epochs: int = 1,
    learning_rate: float = 2e-4,
    batch_size: int = 16,
    micro_batch_size: int = 8,
    seed: int = 0,
    lr_schedule: str = "constant",
    max_grad_norm: float = 1.0,
    weight_decay: float = 0.0,
    bf16: bool | None = None,
    on_step: Callable[[dict], None] | None = None,
) -> list[dict]:
    """Train `policy.model` in place to predict the labelled tokens.

    Args:
        policy: has `model` (PEFT-wrapped or not), `tokenizer` and `device`.
        examples: dicts with `input_ids`, a list of n token ids, and either `labels`, n values of which `IGNORE` (-100)
            is not learned and any other equals its token id, or `mask`, n values of which only 1 is learned. Nothing is
            cut off, so n must fit the model.
        epochs: passes over all examples, shuffled by `seed`; at least 1.
        learning_rate, lr_schedule: AdamW's rate, and transformers' name of its course ("constant", "linear", "cosine").
        batch_size: examples per optimiser step; the last step of an epoch may have fewer.
        micro_batch_size: at most this many per forward pass; bounds memory. The largest divisor of `batch_size` that
            fits is used. The loss is the mean over all learned tokens of the step, whatever this is.
        bf16: autocast to bfloat16; None means yes on a GPU that supports it, no on CPU.
        on_step: called with each entry of the result as it comes.

    Returns:
        One dict per optimiser step: `step` (from 1), `loss` (nats per learned token, before the step), `grad_norm`
        (before clipping), `learning_rate`.

    Raises:
        ValueError: for no examples, an example whose parts differ in length or that has nothing to learn (naming its
            index), or numbers below 1.
    """
    check_trainable(policy)
    if not examples:
        raise ValueError("examples: got none; allowed: at least one")
    rows = [_row(i, example) for i, example in enumerate(examples)]
    common = arguments(
        policy, epochs=epochs, batch_size=batch_size, micro_batch_size=micro_batch_size, learning_rate=learning_rate,
        lr_schedule=lr_schedule, max_grad_norm=max_grad_norm, bf16=bf16, seed=seed,
    )  # fmt: skip
    # The rows are ready: no tokenising, and TRL must not drop or rebuild what is there.
    config = SFTConfig(**common, weight_decay=weight_decay, dataset_kwargs={"skip_prepare_dataset": True})
    with restore_after_training(policy.model):
        trainer = _Trainer(
            on_step=on_step,
            model=policy.model,
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=policy.tokenizer,
        )
        trainer.train()
    return trainer.history


def _row(index: int, example: dict) -> dict:
    ids = list(example["input_ids"])
    if "labels" in example:
        labels = list(example["labels"])
    elif "mask" in example:
        labels = [token if keep == 1 else IGNORE for token, keep in zip(ids, example["mask"], strict=False)]
        labels = labels if len(example["mask"]) == len(ids) else []
    else:
        raise ValueError(f"examples[{index}]: has neither labels nor mask; allowed: one of them")
    if len(labels) != len(ids):
        raise ValueError(f"examples[{index}]: labels or mask and input_ids differ in length; {len(ids)} token ids")
    if wrong := [i for i, label in enumerate(labels) if label not in (IGNORE, ids[i])]:
        raise ValueError(
            f"examples[{index}]: label {labels[wrong[0]]} at {wrong[0]}; allowed: {ids[wrong[0]]} or {IGNORE}"
        )
    # The first token has no prediction; an example with nothing else to learn would divide by 0.
    if all(label == IGNORE for label in labels[1:]):
        raise ValueError(f"examples[{index}]: no token to learn; allowed: at least one label after the first token")
    return {"input_ids": ids, "labels": labels}
