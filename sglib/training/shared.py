"""What the three trainings with TRL share: a model as it was before, and what `sft` and `dpo` have in common."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

import torch
from peft import PeftModel
from transformers import PrinterCallback, ProgressCallback


@contextlib.contextmanager
def restore_after_training(model) -> Iterator[None]:
    """Restores everything that a TRL trainer changes on a model, except the weights: the mode, gradients, adapters
    that it added for a reference, and a `forward` replaced on the instance, with which a copy of the model would still
    call the original's weights."""
    adapted = isinstance(model, PeftModel)
    patched = [(m, m.__dict__.get("forward")) for m in {model, model.get_base_model() if adapted else model}]
    adapters, training = set(model.peft_config) if adapted else set(), model.training
    try:
        yield
    finally:
        for module, forward in patched:
            module.__dict__.pop("forward", None)
            module.__dict__.pop("_original_forward", None)
            if forward is not None:
                module.forward = forward
        for name in set(model.peft_config) - adapters if adapted else ():
            model.delete_adapter(name)
        model.zero_grad(set_to_none=True)
        model.train(training)


def arguments(
    policy,
    *,
    epochs: int,
    batch_size: int,
    micro_batch_size: int,
    learning_rate: float,
    lr_schedule: str,
    max_grad_norm: float,
    bf16: bool | None,
    seed: int,
) -> dict:
    """Keywords of `SFTConfig` and `DPOConfig`: rows of token ids, shuffled but much of a length together, none of them
    cut off; a log entry each optimiser step, nothing on disk. The parameters are those of `sglib.training.sft.sft`.

    Raises:
        ValueError: `epochs` or a size of batches below 1.
    """
    for name, value in {"epochs": epochs, "batch_size": batch_size, "micro_batch_size": micro_batch_size}.items():
        if value < 1:
            raise ValueError(f"{name}: got {value}; allowed: at least 1")
    micro = max(size for size in range(1, min(micro_batch_size, batch_size) + 1) if batch_size % size == 0)
    cuda = torch.device(policy.device).type == "cuda"
    return {
        "output_dir": tempfile.gettempdir(),  # nothing is written there
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": 1,
        "num_train_epochs": epochs,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": batch_size // micro,
        "train_sampling_strategy": "group_by_length",  # shuffled, but less padding
        "learning_rate": learning_rate,
        "lr_scheduler_type": lr_schedule,
        "max_grad_norm": max_grad_norm,
        "max_length": None,  # TRL's default of 1024 would cut long episodes silently
        "gradient_checkpointing": False,  # default: True
        "bf16": bf16 if bf16 is not None else cuda and torch.cuda.is_bf16_supported(),  # default: True
        "use_cpu": not cuda,
        "seed": seed,
        "dataloader_pin_memory": False,
    }


class StepHistory:
    """Mixin for a trainer: `history`, and `on_step`, get a dict each optimiser step with `step` (from 1) and `NAMES`
    (ours: the trainer's). Nothing is printed."""

    NAMES: ClassVar[Mapping[str, str]]

    def __init__(self, *, on_step: Callable[[dict], None] | None, **kwargs):
        self.history, self._on_step = [], on_step
        super().__init__(**kwargs)
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)

    def log(self, logs, start_time=None):
        step = self.state.global_step
        super().log(logs, start_time)
        if "grad_norm" not in logs:  # the summary at the end
            return
        self.history.append({"step": step} | {name: logs[theirs] for name, theirs in self.NAMES.items()})
        if self._on_step is not None:
            self._on_step(self.history[-1])
