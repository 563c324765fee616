"""What the three trainings with TRL share."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterator, Mapping

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PrinterCallback, ProgressCallback, Trainer, TrainerCallback

from sglib.models import processes

# what is kept for the backward pass, or not, by transformers' names; before 5.20, which vLLM's releases want, the older
KEPT = "activation" if hasattr(PreTrainedModel, "activation_checkpointing_disable") else "gradient"


@contextlib.contextmanager
def restore_after_training(model) -> Iterator[None]:
    """Restores everything that a TRL trainer changes on a model, except the weights: the mode, gradients and their
    checkpoints, the configuration's `use_cache`, adapters that it added for a reference, and a `forward` replaced on
    the instance, with which a copy of the model would still call the original's weights."""
    adapted = isinstance(model, PeftModel)
    base = model.get_base_model() if adapted else model
    checkpointing = getattr(base, f"is_{KEPT}_checkpointing")
    patched = [(m, m.__dict__.get("forward")) for m in {model, base}]
    config, cached = model.config, getattr(model.config, "use_cache", None)
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
        if getattr(base, f"is_{KEPT}_checkpointing") and not checkpointing:
            getattr(base, f"{KEPT}_checkpointing_disable")()
            base.disable_input_require_grads()
        if cached is not None:
            config.use_cache = cached
        model.zero_grad(set_to_none=True)
        model.train(training)


def arguments(
    policy, batch_size: int, micro_batch_size: int, bf16: bool | None = None, gradient_checkpointing: bool = False
) -> dict:
    """Keywords of TRL's three configurations: nothing is printed or saved; an optimiser step takes a batch, of which
    each process has the same share, and is logged. `bf16` None means yes on a GPU that supports it, no on CPU."""
    share = processes.part("batch_size", batch_size)
    micro = max(size for size in range(1, min(micro_batch_size, share) + 1) if share % size == 0)
    cuda = torch.device(policy.device).type == "cuda"
    return {
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": 1,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": share // micro,
        "gradient_checkpointing": gradient_checkpointing,  # TRL's default is True
        "bf16": bf16 if bf16 is not None else cuda and torch.cuda.is_bf16_supported(),  # default: True
        "use_cpu": not cuda,
        "dataloader_pin_memory": False,
    }


def epoch_arguments(
    policy, epochs: int, batch_size: int, micro_batch_size: int, learning_rate: float, seed: int
) -> dict:
    """Keywords of `SFTConfig` and `DPOConfig`: rows of token ids, shuffled but much of a length together, none of them
    cut off. The parameters are those of `sglib.training.sft.sft`.

    Raises:
        ValueError: `epochs` or a size of batches below 1, a seed or a rate that is not allowed.
    """
    for name, value in {"epochs": epochs, "batch_size": batch_size, "micro_batch_size": micro_batch_size}.items():
        if value < 1:
            raise ValueError(f"{name}: got {value}; allowed: at least 1")
    if not (0 <= seed < 2**32 and 0 < learning_rate <= 1):
        raise ValueError(f"seed, learning_rate: got {seed}, {learning_rate}; allowed: 0 to 2**32 - 1, above 0 to 1")
    return arguments(policy, batch_size, micro_batch_size) | {
        "output_dir": tempfile.gettempdir(),  # nothing is written there
        "num_train_epochs": epochs,
        "train_sampling_strategy": "group_by_length",  # shuffled, but less padding
        "learning_rate": learning_rate,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_length": None,  # TRL's default of 1024 would cut long episodes silently
        "seed": seed,
    }


def silence(trainer: Trainer) -> None:
    """Take the callbacks away that print."""
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)


class StepHistory(TrainerCallback):
    """`rows` gets a dict for each optimiser step, with `step` (from 1) and `names` (ours: the trainer's).

    Raises:
        FloatingPointError: a loss or a gradient is not finite, naming the step.
    """

    def __init__(self, names: Mapping[str, str]):
        self.names, self.rows = names, []

    def train(self, trainer: Trainer) -> None:
        silence(trainer)
        trainer.add_callback(self)
        trainer.train()

    def on_log(self, args, state, control, logs, **_):
        if "grad_norm" in logs:  # not the summary at the end
            row = {name: logs[theirs] for name, theirs in self.names.items()}
            for name in ("loss", "grad_norm"):
                if not math.isfinite(row[name]):
                    raise FloatingPointError(f"step {state.global_step}: {name} is {row[name]}; allowed: finite values")
            self.rows.append({"step": state.global_step} | row)
