"""GRPO on whole multi-turn trajectories: one subclass of TRL's `GRPOTrainer`, on CPU and GPU alike.

One iteration: draw games, play `group_size` episodes of each, compute R(tau; u) from the reward components (Self-Guide,
arXiv 2604.03098, Eq 6), advantages (Eq 8, or another estimator), and take one step on the clipped loss (Eq 9). TRL does
the forward pass, the loss, the optimiser, LoRA and accelerate; from here come the token ids (through its
`rollout_func`), the mask of policy tokens (its `env_mask`) and the per-token advantages.
"""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pydantic
import torch
from datasets import Dataset
from pydantic import Field
from safetensors.torch import load_file, save_file
from transformers import PrinterCallback, ProgressCallback
from transformers.integrations import get_available_reporting_integrations
from trl import GRPOConfig
from trl.trainer.utils import add_fused_lm_head

from sglib import envs
from sglib.advantages.estimators import GRPO, Estimator, set_advantages
from sglib.measure.evaluate import label_agreement
from sglib.measure.hacking import mean, probe
from sglib.measure.truth import calibrate
from sglib.models.endpoint import check_trainable
from sglib.records import Trajectory, write_atomic, write_trajectories
from sglib.rewards import Component, check_environment, combine
from sglib.training.shared import lent
from sglib.training.trainer import TrajectoryGRPOTrainer


def check_trackers(names: Sequence[str]) -> Sequence[str]:
    """Trackers as they are, if each is installed.

    Raises:
        ValueError: one is unknown or not installed.
    """
    installed = get_available_reporting_integrations()
    for name in names:
        if name not in installed:
            raise ValueError(f"{name!r} is unknown or not installed; installed: {', '.join(installed) or 'none'}")
    return names


class GRPOSettings(pydantic.BaseModel):
    """Settings of one training run; an unknown name or a value out of range is an error that names it.

    Attributes:
        iterations: how many batches are played and trained on. u = iteration / iterations, from 0 to just below 1.
        games_per_iteration, group_size: games per batch, and episodes of each game (G in Eq 8, at least 2).
        learning_rate, weight_decay, max_grad_norm: AdamW; gradients are clipped to this norm, 0 is off.
        lr_schedule: "constant", or "linear": falling to 0 over the iterations, so that the last policy is not one of
            many that the noise of single batches throws about.
        updates_per_batch: optimiser steps on each batch. With 1 the ratio of Eq 9 is exactly 1, so that `epsilon` and
            `epsilon_high` do nothing; they act from 2 on.
        epsilon, epsilon_high: the ratio of Eq 9 is clipped to [1 - epsilon, 1 + epsilon_high]; None means epsilon.
        beta: coefficient of the KL term to the initial policy; 0 (no KL, as in Eq 9) keeps no reference model.
        temperature: of sampling, and of the log-probabilities in the loss.
        max_turns, format: handed to the rollout.
        seed: games, their order and all sampling follow from it.
        loss_type: how token losses are averaged, which the paper leaves open. "grpo" (default, our choice): first
            within each episode, then over episodes. "dapo": every policy token of the batch counts the same, so a
            token of a long episode weighs as much as one of a short one.
        micro_batch_size: at most this many sequences per forward pass; bounds memory, changes nothing else.
        bf16: autocast to bfloat16; None means yes on a GPU that supports it, no on CPU (slower below 3 M parameters).
        lora, lora_rank: train a LoRA adapter on all linear layers, unless the policy has an adapter already.
        eval_every, checkpoint_every, save_trajectories_every: in iterations; 0 is never. The last iteration is always
            evaluated and checkpointed.
        report_to: trackers that get every iteration's numbers, by transformers' names: "tensorboard" (into `run_dir`),
            "trackio", "wandb", ...; each must be installed.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    iterations: int = Field(ge=1)
    games_per_iteration: int = Field(8, ge=1)
    group_size: int = Field(8, ge=2)
    learning_rate: float = Field(2e-4, gt=0)
    lr_schedule: Literal["constant", "linear"] = "linear"
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, ge=0)
    updates_per_batch: int = Field(1, ge=1)
    epsilon: float = Field(0.2, gt=0, lt=1)
    epsilon_high: float | None = Field(None, gt=0)
    beta: float = Field(0.0, ge=0)
    temperature: float = Field(1.0, gt=0)
    max_turns: int = Field(30, ge=1)
    format: str = "act"
    seed: int = Field(0, ge=0)
    loss_type: Literal["grpo", "dapo"] = "grpo"
    micro_batch_size: int = Field(8, ge=1)
    bf16: bool | None = None
    lora: bool = False
    lora_rank: int = Field(16, ge=1)
    eval_every: int = Field(0, ge=0)
    checkpoint_every: int = Field(10, ge=0)
    save_trajectories_every: int = Field(0, ge=0)
    report_to: tuple[str, ...] = ()
    _there = pydantic.field_validator("report_to")(check_trackers)


# Settings that may differ between an interrupted run and its continuation, since they do not change what is learned.
FREE_SETTINGS = {"eval_every", "checkpoint_every", "save_trajectories_every", "report_to"}


@dataclass
class TrainingResult:
    """What `train` returns.

    Attributes:
        policy: the trained policy, the same object that was handed in.
        metrics: one dict per iteration; see `batch_metrics` and `train`.
        resumed_from: the iteration a checkpoint let this call start at, 0 where there was none.
        run_dir: where metrics and checkpoints lie, None where nothing was written.
        stopped: whether `stop` ended it before its last iteration.
    """

    policy: object
    metrics: list[dict] = field(default_factory=list)
    resumed_from: int = 0
    run_dir: Path | None = None
    stopped: bool = False


def draw_games(count: int, per_iteration: int, seed: int, iteration: int) -> list[int]:
    """Indices of the games of one iteration: shuffled passes over all games, without replacement within a pass.

    What does not fill an iteration at the end of a pass is left out of that pass, so no batch holds a game twice.

    Raises:
        ValueError: if there are fewer games than one iteration needs.
    """
    if count < per_iteration:
        raise ValueError(f"games: got {count}; allowed: at least games_per_iteration={per_iteration}")
    epoch, position = divmod(iteration, count // per_iteration)
    order = np.random.default_rng([seed, epoch]).permutation(count)
    return order[position * per_iteration : (position + 1) * per_iteration].tolist()


def batch_metrics(trajectories: Sequence[Trajectory]) -> dict[str, float | None]:
    """Figures of one batch of played and rewarded episodes. None where there is nothing to count.

    Shares are over turns: `invalid_actions`, `parse_errors` over all; the labels over turns 2..T that carry one (at
    turn 1 there is nothing to rate). `label_agreement`: the label of turn t rates the prefix that ends with action
    t - 1; of the positive and negative ones whose oracle distances are known, the share that is positive where that
    action brought the goal nearer (d_t < d_{t-1}) or negative where it did not (farther, or wasted). `zero_advantage`:
    share of episodes without any advantage. `reward/<component>`: mean per-episode sum of what entered the return.
    `calibration/<signal>/<measure>`: see `sglib.measure.truth.calibrate` (with oracle distances). `probe/<name>`: see
    `sglib.measure.hacking.probe`.
    """
    turns = [turn for t in trajectories for turn in t.turns]
    pairs = [(a, b) for t in trajectories for a, b in zip(t.turns, t.turns[1:], strict=False) if b.label is not None]
    agree, counted = label_agreement(trajectories)
    metrics = {
        "success": mean(t.won for t in trajectories),
        "return_mean": mean(t.total_return for t in trajectories),
        "turns_mean": mean(len(t) for t in trajectories),
        "tokens_mean": mean(len(t.prompt_ids) + len(t.completion_ids) for t in trajectories),
        "policy_tokens_mean": mean(sum(t.mask) for t in trajectories),
        "invalid_actions": mean(not turn.valid for turn in turns),
        "parse_errors": mean(turn.parse_error is not None for turn in turns),
        "label_positive": mean(b.label == "positive" for _, b in pairs),
        "label_neutral": mean(b.label == "neutral" for _, b in pairs),
        "label_negative": mean(b.label == "negative" for _, b in pairs),
        "label_agreement": agree / counted if counted else None,
        "advantage_mean": mean(turn.advantage for turn in turns),
        "advantage_abs": mean(abs(turn.advantage) for turn in turns),
        "zero_advantage": mean(not any(turn.advantage for turn in t.turns) for t in trajectories),
    }
    names = sorted({name for turn in turns for name in turn.rewards if name.endswith("/weighted")})
    for name in names:
        key = f"reward/{name.removesuffix('/weighted')}"
        metrics[key] = mean(sum(turn.rewards.get(name, 0.0) for turn in t.turns) for t in trajectories)
    if all(t.remaining() is not None for t in trajectories):
        metrics |= {f"calibration/{name}": value for name, value in calibrate(trajectories).items()}
    return metrics | {f"probe/{name}": value for name, value in probe(trajectories).items()}


def training_arguments(
    settings: GRPOSettings, device: torch.device, updates: int, beta: float, run_dir: Path | None = None
) -> GRPOConfig:
    """TRL's arguments for `updates` optimiser steps on `device`; trackers that write files write into `run_dir`."""
    batch = settings.games_per_iteration * settings.group_size
    micro = max(size for size in range(1, min(settings.micro_batch_size, batch) + 1) if batch % size == 0)
    cuda = device.type == "cuda"
    return GRPOConfig(
        # nothing but TensorBoard's events is written there: checkpoints are ours, see `_write_checkpoint`
        output_dir=str(run_dir or tempfile.gettempdir()),
        save_strategy="no",
        report_to=list(settings.report_to) or "none",
        project="sglib",
        run_name=run_dir.name if run_dir else None,
        disable_tqdm=True,
        logging_steps=1,  # `log` marks the end of an iteration
        max_steps=updates,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=batch // micro,  # one optimiser step per pass over the batch
        num_generations=settings.group_size,
        num_iterations=settings.updates_per_batch,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        epsilon=settings.epsilon,
        epsilon_high=settings.epsilon_high,
        beta=beta,
        loss_type=settings.loss_type,
        temperature=settings.temperature,
        seed=settings.seed,
        shuffle_dataset=False,
        remove_unused_columns=False,
        disable_dropout=True,  # the loss must see the distribution that was sampled from
        gradient_checkpointing=False,  # TRL's default is True; micro-batches already bound the memory
        bf16=settings.bf16 if settings.bf16 is not None else cuda and torch.cuda.is_bf16_supported(),  # default: True
        use_cpu=not cuda,
        dataloader_pin_memory=False,
    )


def train(
    policy,
    games: Sequence,
    settings: GRPOSettings,
    components: Sequence[Component],
    estimator: Estimator | None = None,
    *,
    evaluate_fn: Callable[[object], dict] | None = None,
    on_iteration: Callable[[dict, list[Trajectory]], None] | None = None,
    run_dir: str | Path | None = None,
    resume: bool = True,
    stop: Callable[[], bool] | None = None,
    rollout_fn: Callable[..., list[Trajectory]] | None = None,
) -> TrainingResult:
    """Train `policy` in place by GRPO on whole trajectories.

    With `run_dir`, `metrics.jsonl` grows by one line per iteration and `checkpoint-<iteration>/` is written every
    `checkpoint_every` iterations (weights and optimiser state as safetensors, the rest as JSON). Called again with the
    same arguments after an interruption, training goes on from the last checkpoint and ends with the same weights as
    if it had not been interrupted.

    Args:
        policy: has `model` (a causal language model, PEFT-wrapped or not), `tokenizer` and `device`.
        games: what to play; at least `settings.games_per_iteration`.
        settings: see `GRPOSettings`.
        components: reward components (Eq 6), see `sglib.rewards.combine`.
        estimator: makes advantages of the rewards, see `sglib.training.estimators`; None is Eq 8.
        evaluate_fn: called with the policy every `eval_every` iterations and after the last one; its numbers join the
            metrics as "eval/<name>".
        on_iteration: called with the metrics and the trajectories of each finished iteration.
        run_dir: where to write; None writes nothing.
        resume: continue from a checkpoint in `run_dir`; False starts over and replaces what is there.
        stop: asked after each iteration; True ends the call there, behind a checkpoint to continue from (in `run_dir`,
            which it needs).
        rollout_fn: plays the games, with the signature of `sglib.play.rollout.rollout`, which is the default.

    Returns:
        The policy and, for each iteration, a dict with `iteration`, `u`, `lambda/<component>`, everything of
        `batch_metrics`, `reward/step_agent/accuracy` (of `InverseReward`'s discriminator on the games that it was not
        fitted to, 0..1, chance 0.5), `entropy` (nats per policy token), `clip_ratio`, `grad_norm` (before clipping),
        `loss`, `learning_rate`, `logprob_gap` (mean absolute difference between the log-probabilities that the rollout
        recorded and those of the trainer, nats; above 0.001 in float32 the two disagree about the tokens),
        `rollout_seconds`, `update_seconds`, and the evaluation where there was one.

    Raises:
        ValueError: for too few games, a rollout that does not fit, more than one process, or a checkpoint that was made
            with other settings (naming the first that differs).
        FloatingPointError: if a gradient is not finite; the checkpoint before it stays as it was.
    """
    check_trainable(policy)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(f"WORLD_SIZE: got {os.environ['WORLD_SIZE']}; allowed: 1 (one process)")
    estimator = GRPO() if estimator is None else estimator
    if rollout_fn is None:
        from sglib.play.rollout import rollout as rollout_fn
    draw_games(len(games), settings.games_per_iteration, settings.seed, 0)  # fail before anything is loaded
    for name in {game.env for game in games if hasattr(game, "env")}:
        check_environment(components, envs.get(name))
    for name, needs in (("stop", stop is not None), ("report_to", "tensorboard" in settings.report_to)):
        if needs and run_dir is None:
            raise ValueError(f"run_dir: got None; allowed with {name}: a folder")
    run_dir = Path(run_dir) if run_dir is not None else None
    fingerprint = _fingerprint(settings, components, estimator)
    checkpoint = _find_checkpoint(run_dir, fingerprint) if run_dir is not None and resume else None
    state = json.loads((checkpoint / "state.json").read_text()) if checkpoint else {"iteration": 0, "metrics": []}
    start, metrics = state["iteration"], state["metrics"]
    if run_dir is not None:
        if not resume:
            for old in run_dir.glob("checkpoint-*"):
                shutil.rmtree(old)
        write_atomic(run_dir / "metrics.jsonl", "".join(json.dumps(m) + "\n" for m in metrics))

    device = torch.device(policy.device)
    if settings.lora and not hasattr(policy.model, "peft_config"):
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(settings.seed)  # the adapter starts from random numbers
        config = LoraConfig(r=settings.lora_rank, lora_alpha=2 * settings.lora_rank, target_modules="all-linear")
        policy.model = get_peft_model(policy.model, config)
    model, batch = policy.model, {}

    def sample(iteration: int) -> list[Trajectory]:
        begin = time.perf_counter()
        picked = draw_games(len(games), settings.games_per_iteration, settings.seed, iteration)
        drawn = [games[i] for i in picked]
        trajectories = rollout_fn(
            policy, drawn, format=settings.format, turns=settings.max_turns, temperature=settings.temperature,
            seed=int(np.random.SeedSequence([settings.seed, iteration]).generate_state(1)[0]),
            group=settings.group_size,
        )
        played = time.perf_counter()
        by_id = {game.id: game for game in drawn if hasattr(game, "id")}
        combine(trajectories, components, iteration / settings.iterations, policy, by_id)
        set_advantages(trajectories, estimator)
        now = time.perf_counter()
        batch.update(trajectories=trajectories, rollout=played - begin, reward=now - played, since=now)
        return trajectories

    def finish(iteration: int, logs: dict) -> None:
        update = time.perf_counter() - batch["since"]
        if not math.isfinite(logs["grad_norm"]):
            raise FloatingPointError(f"iteration {iteration}: the gradient norm is {logs['grad_norm']}")
        u, done = iteration / settings.iterations, iteration + 1
        entry = {"iteration": iteration, "u": u}
        entry |= {f"lambda/{component.name}": component.schedule(u) for component in components}
        entry |= batch_metrics(batch["trajectories"])
        for component in components:  # of a discriminator that is fitted to each batch
            if (accuracy := getattr(component, "last_accuracy", None)) is not None:
                entry[f"reward/{component.name}/accuracy"] = accuracy
        entry |= {name: logs.get(name) for name in ("entropy", "loss", "grad_norm", "learning_rate", "logprob_gap")}
        entry |= {"clip_ratio": logs.get("clip_ratio/region_mean"), "kl": logs.get("kl")}
        entry |= {"rollout_seconds": batch["rollout"], "reward_seconds": batch["reward"], "update_seconds": update}
        entry["episodes"] = len(batch["trajectories"])
        last = done == settings.iterations
        result.stopped = not last and stop is not None and stop()
        if evaluate_fn is not None and (last or (settings.eval_every and done % settings.eval_every == 0)):
            model.eval()
            try:
                entry |= {f"eval/{name}": value for name, value in evaluate_fn(policy).items()}
            finally:
                model.train()
        metrics.append(entry)
        if run_dir is not None:
            with open(run_dir / "metrics.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
            if settings.save_trajectories_every and done % settings.save_trajectories_every == 0:
                write_trajectories(run_dir / "trajectories" / f"{iteration:06d}.jsonl", batch["trajectories"])
            if last or result.stopped or (settings.checkpoint_every and done % settings.checkpoint_every == 0):
                new = {"iteration": done, "fingerprint": fingerprint, "metrics": metrics}
                _write_checkpoint(run_dir, new, model, trainer.optimizer_tensors())
        if on_iteration is not None:
            on_iteration(entry, batch["trajectories"])
        trainer.report(done, entry)
        if result.stopped:
            trainer.control.should_training_stop = True

    result = TrainingResult(policy, metrics, start, run_dir)
    if start == settings.iterations:
        _load_weights(model, checkpoint)
        return result

    adapted = hasattr(model, "peft_config")
    # TRL loads its reference from a hub id or path, which a model in memory need not have.
    reference = copy.deepcopy(model).requires_grad_(False) if settings.beta and not adapted else None
    updates = (settings.iterations - start) * settings.updates_per_batch
    arguments = training_arguments(settings, device, updates, settings.beta if adapted else 0.0, run_dir)
    rows = (settings.iterations - start) * settings.games_per_iteration
    linear = settings.lr_schedule == "linear"
    with lent(model):
        trainer = TrajectoryGRPOTrainer(
            sample=sample,
            finish=finish,
            first_iteration=start,
            optimizer_state=load_file(checkpoint / "optimizer.safetensors") if checkpoint else None,
            total_updates=settings.iterations * settings.updates_per_batch if linear else None,
            model=model,
            args=arguments,
            # Only the number of rows matters: TRL repeats each `group_size` times and hands that many to `_play`.
            train_dataset=Dataset.from_dict({"prompt": [""] * rows}),
            processing_class=policy.tokenizer,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        if reference is not None:
            add_fused_lm_head(reference, temperature=settings.temperature, outputs=("log_probs", "entropy"))
            trainer.beta = settings.beta
            trainer.ref_model = trainer.accelerator.prepare_model(reference, evaluation_mode=True)
        if checkpoint:  # after the reference was copied from the weights that training began with
            _load_weights(model, checkpoint)
        trainer.train()
    return result


def _fingerprint(settings: GRPOSettings, components: Sequence[Component], estimator: Estimator) -> dict:
    fixed = settings.model_dump(exclude=FREE_SETTINGS)
    return fixed | {"components": [repr(c) for c in components], "estimator": repr(estimator)}


def _find_checkpoint(run_dir: Path, fingerprint: dict) -> Path | None:
    # A checkpoint is renamed into place when it is complete, so the newest one is whole.
    checkpoint = max(run_dir.glob("checkpoint-*"), default=None)
    if checkpoint is None:
        return None
    found = json.loads((checkpoint / "state.json").read_text())["fingerprint"]
    for name, value in fingerprint.items():
        if found.get(name) != value:
            raise ValueError(
                f"{name}: got {value!r}, but {checkpoint} was made with {found.get(name)!r}; "
                "allowed: the same value, another run_dir, or resume=False"
            )
    return checkpoint


def _write_checkpoint(run_dir: Path, state: dict, model, optimizer: dict[str, torch.Tensor]) -> None:
    target = run_dir / f"checkpoint-{state['iteration']:06d}"
    temporary = Path(tempfile.mkdtemp(dir=run_dir, prefix=".checkpoint-"))
    # Only what is trained: the adapter where there is one. Tied weights come once.
    weights = {n: p.detach().cpu().contiguous() for n, p in model.named_parameters() if p.requires_grad}
    save_file(weights, temporary / "weights.safetensors")
    save_file(optimizer, temporary / "optimizer.safetensors")
    write_atomic(temporary / "state.json", json.dumps(state))
    if target.exists():
        shutil.rmtree(target)
    temporary.chmod(0o755)
    temporary.rename(target)
    for old in sorted(run_dir.glob("checkpoint-*"))[:-1]:
        shutil.rmtree(old)


def _load_weights(model, checkpoint: Path) -> None:
    weights = load_file(checkpoint / "weights.safetensors")
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if set(weights) != set(parameters):
        name = sorted(set(weights) ^ set(parameters))[0]
        raise ValueError(f"{checkpoint}: parameter {name!r} is in the checkpoint or in the model, not in both")
    with torch.no_grad():
        for name, tensor in weights.items():
            parameters[name].copy_(tensor)
