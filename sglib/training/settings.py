"""What a GRPO training is set to, whether in Python (`sglib.training.grpo.GRPOSettings`) or in a YAML file
(`sglib.experiments.params.GRPOParams`). Loads nothing heavy."""

from __future__ import annotations

from typing import Any, Literal

import pydantic
from pydantic import Field

from sglib.rewards.fields import Coefficient, Count, Flag, Int, Positive, Rate


class BatchSettings(pydantic.BaseModel):
    """How batches are made and trained on.

    Attributes:
        games_per_iteration, group_size: games per batch, and episodes of each game (G in Eq 8, at least 2).
        learning_rate, weight_decay, max_grad_norm: AdamW; gradients are clipped to this norm, 0 is off.
        lr_schedule: "constant", or "linear": falling to 0 over the iterations, so that the last policy does not
            depend on the noise of the last few batches.
        updates_per_batch: optimiser steps on each batch. With 1 the ratio of Eq 9 is exactly 1: clipping has no effect.
        epsilon_high: the ratio of Eq 9 is clipped to [1 - epsilon, 1 + epsilon_high]; None means epsilon.
        beta: coefficient of the KL term to the initial policy; 0 (no KL, as in Eq 9) keeps no reference model.
        loss_type: how token losses are averaged, which the paper leaves open. "grpo" (default, our choice): first
            within each episode, then over episodes. "dapo": every policy token of the batch counts the same, so that
            lost episodes, which are about twice as long as won ones, weigh more.
        rollout_batch: at most this many episodes are played side by side; bounds the memory of their keys and values.
        micro_batch_size: at most this many sequences per forward pass; bounds memory, changes nothing else.
        tokens_per_micro_batch: instead, as many sequences as have at most this many tokens, padding included; a
            longer one is alone, and never cut.
        gradient_checkpointing: keep few activations for the backward pass and compute the others again: less memory,
            about a third more time, nothing else changes. Not with an own forward pass as the small models have: theirs
            is left out then.
        max_tokens: of an episode, prompt included; None is the model's context. One without room for another whole
            answer ends before it (`no_room` counts them): nothing is cut off.
        answer_tokens: of an answer at most; None is what the format and the environment need (200 for models to which
            formats are explained in words, 1,000 where they think).
        bf16: autocast to bfloat16; None means yes on a GPU that supports it, no on CPU (slower below 3 M parameters).
        show_actions: list what can be done now after each observation, as the papers' prompts do; for other models than
            the shipped ones.
        env_options: further options of the environment's `make`, in training and on the panel: Sokoban's
            {end_on_deadlock: true} ends an episode where the goal cannot be reached any more.
        lora, lora_rank: train a LoRA adapter on all linear layers, unless the policy has an adapter already.
        checkpoint_every: in iterations; 0 writes one at the end only.
    """

    games_per_iteration: Count = 8
    group_size: Int = Field(8, ge=2)
    learning_rate: Rate = 2e-4
    lr_schedule: Literal["constant", "linear"] = "linear"
    weight_decay: Coefficient = 0.0
    max_grad_norm: Coefficient = 1.0
    updates_per_batch: Count = 1
    epsilon_high: Positive | None = None
    beta: Coefficient = 0.0
    loss_type: Literal["grpo", "dapo"] = "grpo"
    rollout_batch: Count = 256
    micro_batch_size: Count = 8
    tokens_per_micro_batch: Count | None = None
    gradient_checkpointing: Flag = False
    max_tokens: Count | None = None
    answer_tokens: Count | None = None
    bf16: Flag | None = None
    show_actions: Flag = False
    env_options: dict[str, Any] = {}
    lora: Flag = False
    lora_rank: Count = 16
    checkpoint_every: Int = Field(10, ge=0)
