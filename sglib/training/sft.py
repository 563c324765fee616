"""Supervised training on transcripts with TRL's `SFTTrainer`: RePro's warmup (arXiv 2606.14302) and any other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from datasets import Dataset
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl import SFTConfig, SFTTrainer

from sglib.models import processes
from sglib.models.endpoint import check_trainable
from sglib.rewards.repro import IGNORE
from sglib.training.shared import StepHistory, epoch_arguments, restore_after_training


def sft(
    policy,
    examples: Sequence[dict],
    *,
    epochs: int = 1,
    learning_rate: float = 2e-4,
    batch_size: int = 16,
    micro_batch_size: int = 8,
    seed: int = 0,
) -> list[dict]:
    """Train `policy.model` in place to predict the labelled tokens, by AdamW at a constant rate. Several processes
    (`sglib.models.processes`), each with the same examples, take a share of each step's.

    Args:
        examples: dicts with `input_ids`, a list of n token ids, and `labels`, n values of which `IGNORE` (-100) is not
            learned and any other equals its token id. Nothing is cut off, so n must fit the model.
        epochs: passes over all examples, shuffled by `seed`; at least 1.
        batch_size: examples per optimiser step; the last step of an epoch may have fewer.
        micro_batch_size: at most this many per forward pass; bounds memory. The largest divisor of `batch_size` that
            fits is used. The loss is the mean over all learned tokens of the step, whatever this is.

    Returns:
        One dict per optimiser step: `step` (from 1), `loss` (nats per learned token, before the step), `grad_norm`
        (before clipping to 1), `learning_rate`.

    Raises:
        ValueError: for no examples, one whose parts differ in length or that has nothing to learn (naming its index),
            numbers below 1, or a number of processes that does not divide `batch_size`.
        FloatingPointError: a loss or a gradient is not finite, naming the step.
    """
    check_trainable(policy)
    if not examples:
        raise ValueError("examples: got none; allowed: at least one")
    rows = [_row(i, example) for i, example in enumerate(examples)]
    common = epoch_arguments(policy, epochs, batch_size, micro_batch_size, learning_rate, seed)
    # The rows are ready: no tokenising, and TRL must not drop or rebuild what is there.
    config = SFTConfig(**common, dataset_kwargs={"skip_prepare_dataset": True})
    if processes.count() > 1:  # each has the same number of them: what is missing at the end teaches nothing
        rows.append({"input_ids": rows[0]["input_ids"][:2], "labels": [IGNORE] * 2})
    history = StepHistory({name: name for name in ("loss", "grad_norm", "learning_rate")})
    with restore_after_training(policy.model):
        data = Dataset.from_list(rows)
        history.train(_Trainer(policy.model, args=config, train_dataset=data, processing_class=policy.tokenizer))
    return history.rows


class _Trainer(SFTTrainer):
    """An order of examples that the number of processes does not change: theirs goes by the size of one's share."""

    def _get_train_sampler(self, train_dataset=None):
        return _Order([len(ids) for ids in self.train_dataset["input_ids"]], self.args)


class _Order(Sampler):
    """Places of examples, much of a length together, as transformers' `LengthGroupedSampler` draws them; for several
    processes, so often the last one, which is none, that each has as many micro-batches."""

    def __init__(self, lengths: Sequence[int], args):
        self.together = args.train_batch_size * processes.count()
        self.batch = self.together * args.gradient_accumulation_steps
        self.lengths = lengths[:-1] if processes.count() > 1 else lengths
        self.more = -len(self.lengths) % self.together if processes.count() > 1 else 0

    def __len__(self) -> int:
        return len(self.lengths) + self.more

    def __iter__(self) -> Iterator[int]:
        yield from processes.told(lambda: list(LengthGroupedSampler(self.batch, lengths=self.lengths)))
        yield from [len(self.lengths)] * self.more


def _row(index: int, example: dict) -> dict:
    ids, labels = list(example["input_ids"]), list(example["labels"])
    if len(labels) != len(ids):
        raise ValueError(f"examples[{index}]: {len(labels)} labels; allowed: as many as token ids, {len(ids)}")
    if wrong := [i for i, label in enumerate(labels) if label not in (IGNORE, ids[i])]:
        raise ValueError(
            f"examples[{index}]: label {labels[wrong[0]]} at {wrong[0]}; allowed: {ids[wrong[0]]} or {IGNORE}"
        )
    # The first token has no prediction; an example with nothing else to learn would divide by 0.
    if all(label == IGNORE for label in labels[1:]):
        raise ValueError(f"examples[{index}]: no token to learn; allowed: at least one label after the first token")
    return {"input_ids": ids, "labels": labels}
