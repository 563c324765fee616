"""What tests/test_several_processes.py runs in two processes, and itself in one."""

import os
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
from accelerate import DistributedType, PartialState
from accelerate.commands import launch
from accelerate.utils.launch import prepare_multi_gpu_env
from safetensors.torch import save_file
from test_sft import make_policy
from torch.distributed.tensor import DTensor

from sglib.experiments import params as parameters
from sglib.experiments.experiment import Experiment
from sglib.experiments.runs import output_root
from sglib.models import processes
from sglib.rewards.repro import IGNORE
from sglib.training.grpo import Training
from sglib.training.sft import sft
from sglib.training.trainer import TrajectoryGRPOTrainer

SMALL = {"iterations": 2, "games_per_iteration": 4, "group_size": 4, "eval_games": 6, "eval_every": 2,
         "checkpoint_every": 1, "learning_rate": 8.0e-4, "max_turns": 6}  # fmt: skip
RECIPES = {  # and how they are trained here: both losses, fixed micro-batches and those by tokens
    "grpo": {"micro_batch_size": 3, "updates_per_batch": 2, "iterations": 3},
    "self_guide": {"loss_type": "dapo", "tokens_per_micro_batch": 900},
    "gigpo": {"tokens_per_micro_batch": 700, "beta": 0.05},
    "truth_noisy_80": {},  # drawn from the whole batch
}


CONFIGS = Path(__file__).parents[1] / "params" / "accelerate"


def experiment(recipe: str) -> Experiment:
    grpo = SMALL | RECIPES[recipe] | {"arms": [recipe]}
    return Experiment(recipe, parameters.check("grpo", {"env": "sokoban", "size": "small", "grpo": grpo}))


def arguments(config: str) -> Namespace:
    """What `accelerate launch` makes of a file of params/accelerate/."""
    given = ["--config_file", str(CONFIGS / config), "-m", "sglib", "train"]
    return launch._validate_launch_command(launch.launch_command_parser().parse_args(given))[0]


def supervised() -> dict[str, torch.Tensor]:
    """Weights of a tiny model after two epochs over 21 examples of 1 to 9 tokens, in batches of 8."""
    policy, rng, examples = make_policy(), np.random.default_rng(0), []
    for _ in range(21):
        ids = rng.integers(2, 16, rng.integers(2, 10)).tolist()
        examples.append({"input_ids": ids, "labels": [IGNORE, *ids[1:]]})
    sft(policy, examples, epochs=2, learning_rate=1e-2, batch_size=8, micro_batch_size=2)
    return {name: p.detach().clone() for name, p in policy.model.named_parameters()}


def seen_in_pieces(trainer, *args):
    assert all(isinstance(p, DTensor) and p.to_local().numel() < p.numel() for p in trainer.model.parameters())
    return TrajectoryGRPOTrainer.training_step(trainer, *args)


def main() -> None:
    processes.join()
    for recipe in RECIPES:
        experiment(recipe).train()
    weights = supervised()
    save_file(weights, output_root() / f"supervised{processes.rank()}.safetensors")

    # FSDP2 over CPUs, which accelerate would use on GPUs only: it is told that these are some
    found = PartialState.__init__

    def taken_for_gpus(self, *args, **kwargs):
        found(self, *args, **kwargs)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    PartialState.__init__ = taken_for_gpus
    os.environ |= {k: v for k, v in prepare_multi_gpu_env(arguments("fsdp.yaml")).items() if "FSDP" in k}
    os.environ["SGLIB_OUTPUT"] += "/fsdp"
    Training.training_step = seen_in_pieces
    experiment("gigpo").train()


if __name__ == "__main__":
    main()
