"""GRPO on whole multi-turn trajectories, on CPU and GPU alike: `train`.

One iteration has five stages, which are the three methods of `Training`: rollout -> reward (Self-Guide, arXiv
2604.03098, Eq 6) -> advantage (Eq 8, or another estimator) -> log-probabilities -> clipped loss (Eq 9). TRL's
`GRPOTrainer` does the loss, the optimiser, LoRA and accelerate; `sglib.training.trainer` brings trajectories into its
shape.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import peft
import pydantic
import torch
from datasets import Dataset
from pydantic import Field
from safetensors.torch import load_file
from transformers import TrainerCallback
from transformers.integrations import get_available_reporting_integrations, get_reporting_integration_callbacks
from trl import GRPOConfig, GRPOTrainer

from sglib import envs, formats
from sglib.advantages.estimators import GRPO, Estimator, set_advantages, treatment
from sglib.measure.batch import batch_metrics, cut_answers, trouble
from sglib.models import processes
from sglib.models.endpoint import check_trainable
from sglib.play.episode import Options
from sglib.play.rollout import rollout, shared
from sglib.records import Trajectory, write_atomic, write_trajectories
from sglib.rewards import Component, check_environment, combine
from sglib.rewards.fields import Count, Float, Int, Seed, Warmth
from sglib.training import checkpoint, forward
from sglib.training.settings import BatchSettings
from sglib.training.shared import arguments, restore_after_training
from sglib.training.trainer import TrajectoryGRPOTrainer

log = logging.getLogger(__name__)


def check_trackers(names: Sequence[str]) -> Sequence[str]:
    """Trackers as they are; `ValueError` if one is unknown or not installed."""
    installed = get_available_reporting_integrations()
    for name in names:
        if name not in installed:
            raise ValueError(f"{name!r} is unknown or not installed; installed: {', '.join(installed) or 'none'}")
    return names


class GRPOSettings(BatchSettings):
    """Settings of one training run; an unknown name or a value out of range is an error that names it.

    Attributes:
        iterations: how many batches are played and trained on. u = iteration / iterations, from 0 to just below 1.
        epsilon: see `epsilon_high`.
        temperature: of sampling, and of the log-probabilities in the loss; in (0, 2].
        max_turns, format: handed to the rollout.
        seed: games, their order and all sampling follow from it.
        eval_every, save_trajectories_every: in iterations; 0 is never. The last iteration is always evaluated.
        report_to: installed trackers that get every iteration's numbers, at the last of its optimiser steps, by
            transformers' names: "tensorboard" (into `run_dir`), "trackio", "wandb", ...
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    iterations: Count
    epsilon: Float = Field(0.2, gt=0, lt=1)
    temperature: Warmth = 1.0
    max_turns: Count = 30
    format: str = "act"
    seed: Seed = 0
    eval_every: Int = Field(0, ge=0)
    save_trajectories_every: Int = Field(0, ge=0)
    report_to: tuple[str, ...] = ()
    _installed = pydantic.field_validator("report_to")(check_trackers)
    _known_format = pydantic.field_validator("format")(formats.check_format)


# Settings that may differ between an interrupted run and its continuation, since they do not change what is learned.
FREE_SETTINGS = {"eval_every", "checkpoint_every", "save_trajectories_every", "report_to", "rollout_batch"}


@dataclass
class TrainingResult:
    """What `train` returns."""

    policy: object  # that was handed in, trained
    metrics: list[dict] = field(default_factory=list)  # one dict per iteration (docs/metrics.md)
    resumed_from: int = 0  # the iteration that a checkpoint let this call start with, 0 where there was none
    run_dir: Path | None = None
    stopped: bool = False  # whether `stop` ended it before its last iteration


def draw_games(count: int, per_iteration: int, seed: int, iteration: int) -> list[int]:
    """Indices of the games of one iteration: shuffled passes over all games, without replacement within a pass. What
    does not fill an iteration at the end of a pass is left out of that pass, so no batch holds a game twice."""
    if count < per_iteration:
        raise ValueError(f"games: got {count}; allowed: at least games_per_iteration={per_iteration}")
    epoch, position = divmod(iteration, count // per_iteration)
    order = np.random.default_rng([seed, epoch]).permutation(count)
    return order[position * per_iteration : (position + 1) * per_iteration].tolist()


def training_arguments(policy, settings: GRPOSettings, run_dir: Path | None) -> GRPOConfig:
    """TRL's arguments for a run; trackers that write files write into `run_dir`."""
    batch = settings.games_per_iteration * settings.group_size
    same_names = {"learning_rate", "weight_decay", "max_grad_norm", "epsilon", "epsilon_high", "beta", "loss_type"}
    return GRPOConfig(
        # trackers are callbacks that come after `Bookkeeping`, which adds our numbers
        # a process's whole part: micro-batches are the trainer's own
        **arguments(policy, batch, batch // processes.count(), settings.bf16, settings.gradient_checkpointing),
        **settings.model_dump(include=same_names | {"temperature", "seed"}),
        # only TensorBoard's events are written there: checkpoints are ours
        output_dir=str(run_dir or tempfile.gettempdir()),
        project="sglib",
        run_name=run_dir.name if run_dir else None,
        max_steps=settings.iterations * settings.updates_per_batch,
        num_generations=settings.group_size,
        num_iterations=settings.updates_per_batch,
        shuffle_dataset=False,
        remove_unused_columns=False,
        disable_dropout=True,  # the loss must see the distribution that was sampled from
    )


# -- one iteration -----------------------------------------------------------------------------------------------------


class Training(TrajectoryGRPOTrainer):
    """The five stages of an iteration; arguments as in `train` and `TrajectoryGRPOTrainer`."""

    def __init__(
        self, policy, games, settings, components=(), estimator=None, rollout_fn=rollout, *, run_dir=None, **kwargs
    ):
        self.policy, self.games, self.settings, self.rollout = policy, games, settings, shared(rollout_fn)
        self.components, self.estimator = components, estimator or GRPO()
        # only the number of rows matters: TRL repeats each `group_size` times and hands that many to the rollout
        rows = Dataset.from_dict({"prompt": [""] * settings.iterations * settings.games_per_iteration})
        sizes = {name: getattr(settings, name) for name in ("micro_batch_size", "tokens_per_micro_batch")}
        super().__init__(
            model=policy.model, args=training_arguments(policy, settings, run_dir), train_dataset=rows,
            linear=settings.lr_schedule == "linear", processing_class=policy.tokenizer,
            corrected=getattr(policy, "engine", None) is not None, **sizes, **kwargs,
        )  # fmt: skip

    def sample(self, iteration: int) -> list[Trajectory]:
        """The trajectories of an iteration's batch, with rewards and advantages."""
        s, begin = self.settings, time.perf_counter()
        drawn = draw_games(len(self.games), s.games_per_iteration, s.seed, iteration)
        games = [self.games[i] for i in drawn]

        # Stage 1: rollout. G episodes of each game.
        seed = int(np.random.SeedSequence([s.seed, iteration]).generate_state(1)[0])
        self.batch = self.rollout(
            self.policy, games, format=s.format, turns=s.max_turns, temperature=s.temperature, seed=seed,
            group=s.group_size,
            options=Options(
                batch_size=s.rollout_batch, show_actions=s.show_actions, max_tokens=s.max_tokens,
                max_new_tokens=s.answer_tokens, make=s.env_options,
            ),
        )  # fmt: skip
        played = time.perf_counter()

        # Stage 2: reward. R(tau; u) of Eq 6, turn by turn.
        combine(self.batch, self.components, iteration / s.iterations, self.policy, {game.id: game for game in games})

        # Stage 3: advantage. Eq 8, or another estimator's, for each turn.
        set_advantages(self.batch, self.estimator)

        self.times = begin, played, time.perf_counter()
        return self.batch

    def log_probabilities(self, model, ids: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities and entropies (B, L) in nats of the `wanted` ones of `ids` (B, L), 0 elsewhere."""
        # Stage 4: log-probabilities, of the policy's own tokens.
        if self.lean:
            return forward.policy_logps(model, ids, wanted, self.temperature)
        # Padded on the right only, see `split_by_length`: no attention mask is needed, and torch's attention is faster
        # without. The labels say at which positions TRL computes logits.
        with self.accelerator.autocast():
            out = model(input_ids=ids, labels=ids.masked_fill(~wanted, -100), fused_lm_head=True)
        return out.log_probs, out.entropy

    def loss(self, model, micro_batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The loss of one micro-batch, with its gradient."""
        # Stage 5: loss. Eq 9 by TRL, which calls stage 4. Where no token has an advantage there is no gradient, so the
        # forward pass alone will do. One micro-batch of a step must have a backward pass all the same, or the optimiser
        # would see no gradients instead of zeros.
        learns = self.beta or self.opens or self.pieces or bool(micro_batch["advantages"].any())
        with contextlib.nullcontext() if learns else torch.no_grad():
            loss = GRPOTrainer._compute_loss(self, model, micro_batch)
        return loss if learns else loss.requires_grad_()

    def metrics(self, logs: dict) -> dict:
        """The row of the iteration that was just trained on; `logs` are TRL's, of its last optimiser step."""
        iteration, (begin, played, rewarded) = self.iteration - 1, self.times
        u = iteration / self.settings.iterations
        row = {"iteration": iteration, "u": u}
        row |= {f"lambda/{component.name}": component.schedule(u) for component in self.components}
        row |= batch_metrics(self.batch)
        row["cut_answers"] = cut_answers(self.batch, ends) if (ends := getattr(self.policy, "stop_ids", ())) else None
        for component in self.components:
            if component.last_accuracy is not None:
                row[f"reward/{component.name}/accuracy"] = component.last_accuracy
        if any(component.name != "outcome" for component in self.components):
            row |= {f"treatment/{name}": x for name, x in treatment(self.batch, self.estimator).items()}
        row |= {name: logs.get(name) for name in ("entropy", "loss", "grad_norm", "learning_rate")}
        row |= {"logprob_gap": self.logprob_gap, "clip_ratio": logs.get("clip_ratio/region_mean"), "kl": logs.get("kl")}
        row |= {"rollout_seconds": played - begin, "reward_seconds": rewarded - played}
        return row | {"update_seconds": time.perf_counter() - rewarded, "episodes": len(self.batch)}


@dataclass(eq=False)
class Bookkeeping(TrainerCallback):
    """What follows an iteration: its row of metrics, evaluation, files, trackers, and perhaps the end. `trainer` is set
    once there is one."""

    result: TrainingResult
    fingerprint: dict
    evaluate_fn: Callable | None
    on_iteration: Callable | None
    stop: Callable | None
    trainer: Training = None
    told: set[str] = field(default_factory=set)
    interrupted: bool = False

    @contextlib.contextmanager
    def answering_interrupts(self):
        """Ctrl-C, or a notebook's stop button, ends the training after its present iteration, with a checkpoint; the
        second one at once. Where there is no folder for a checkpoint, so does the first."""
        if self.result.run_dir is None or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(signal.SIGINT)
        if before in (signal.SIG_IGN, None):
            yield
            return

        def answer(*_):
            signal.signal(signal.SIGINT, before)
            self.interrupted = True
            if processes.first():
                print("Interrupted: ends after this iteration, with a checkpoint; again: at once", file=sys.stderr)

        signal.signal(signal.SIGINT, answer)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
        if self.interrupted:
            done = f"{self.trainer.iteration} of {self.trainer.settings.iterations} iterations"
            if self.trainer.zero:
                raise KeyboardInterrupt(f"{done} are lost: with DeepSpeed the same call starts over")
            raise KeyboardInterrupt(f"{done} are kept in {self.result.run_dir}; the same call goes on from there")

    def on_log(self, args, state, control, logs, **_):
        if "grad_norm" not in logs or state.global_step % self.trainer.num_iterations:
            return
        trainer, settings, result, run_dir = self.trainer, self.trainer.settings, self.result, self.result.run_dir
        done = trainer.iteration
        if not math.isfinite(logs["grad_norm"]):
            raise FloatingPointError(f"iteration {done - 1}: the gradient norm is {logs['grad_norm']}")
        row = trainer.metrics(logs)
        for name in (name for name in trouble(row) if name not in self.told):
            self.told.add(name)
            level = logging.WARNING if name in ("unread", "collapsed") else logging.INFO  # the others are everyday
            log.log(level, "iteration %d: batch %s, for the first time (sglib.measure.batch.trouble)", done - 1, name)
        last = done == settings.iterations

        def due(every: int) -> bool:
            return bool(every) and done % every == 0

        # what one process is told, all do
        told = processes.everyone([self.interrupted, self.stop is not None and bool(self.stop())])
        self.interrupted = any(interrupted for interrupted, _ in told)
        result.stopped = not last and any(map(any, told))
        if self.evaluate_fn is not None and (last or due(settings.eval_every)):
            with trainer.acting():
                row |= {f"eval/{name}": value for name, value in self.evaluate_fn(result.policy).items()}
        result.metrics.append(row)
        save = run_dir is not None and (last or result.stopped or due(settings.checkpoint_every))
        save &= last or not trainer.zero  # without its optimiser's state a run could not go on to the same result
        state = (trainer.player(), trainer.optimizer_tensors()) if save else ()
        if run_dir is not None and processes.first():
            with open(run_dir / "metrics.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            if due(settings.save_trajectories_every):
                write_trajectories(run_dir / "trajectories" / f"{done - 1:06d}.jsonl", trainer.batch)
            if save:
                new = {"iteration": done, "fingerprint": self.fingerprint, "metrics": result.metrics}
                checkpoint.write(run_dir, new, *state)
        if self.on_iteration is not None and processes.first():
            self.on_iteration(row, trainer.batch)
        # trackers are called with the same `logs` after this; they show what begins with eval_ apart
        logs |= {k.replace("eval/", "eval_", 1): v for k, v in row.items() if type(v) in (int, float)}
        control.should_training_stop |= result.stopped


# -- all of them -------------------------------------------------------------------------------------------------------


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
    rollout_fn: Callable[..., list[Trajectory]] = rollout,
) -> TrainingResult:
    """Train `policy` in place by GRPO on whole trajectories.

    With `run_dir`, `metrics.jsonl` grows by one line per iteration and `checkpoint-<iteration>/` is written every
    `checkpoint_every` iterations (weights and optimiser state as safetensors, the rest as JSON). Called again with the
    same arguments after an interruption, training goes on from the last checkpoint and ends with the same weights as
    if it had not been interrupted.

    Started in several processes (`accelerate launch`), each with the same arguments, these play and learn a share each
    of one batch, the one that a single process would have; the first writes the files. Each process's `policy` ends
    with the same weights. With FSDP2 or DeepSpeed's ZeRO-2, as accelerate is configured, `policy` plays, and a copy in
    pieces is trained; with DeepSpeed there is no checkpoint before the last iteration.

    Args:
        policy: has `model` (a causal language model, PEFT-wrapped or not), `tokenizer` and `device`.
        games: what to play; at least `settings.games_per_iteration`.
        components: of the reward (Eq 6).
        estimator: of the advantages; None is Eq 8.
        evaluate_fn: called with the policy every `eval_every` iterations and after the last one; its numbers join the
            metrics as "eval/<name>".
        on_iteration: called, in the first process, with the metrics and the trajectories of each finished iteration.
        resume: continue from a checkpoint in `run_dir`; False starts over and replaces what is there.
        stop: asked after each iteration; True ends the call there, after a checkpoint to continue from (in `run_dir`,
            which it needs).
        rollout_fn: plays the games, with the signature of `sglib.play.rollout.rollout`.

    Raises:
        ValueError: for too few games, a rollout that does not fit, a number of processes that does not divide
            `games_per_iteration`, or a checkpoint that was made with other settings (naming the first that differs).
        RuntimeError: if another run is using `run_dir`.
        FloatingPointError: if a gradient is not finite; the checkpoint before it stays as it was.
        KeyboardInterrupt: after the iteration in which Ctrl-C came, and a checkpoint in `run_dir`.
    """
    check_trainable(policy)
    processes.part("games_per_iteration", settings.games_per_iteration)  # a game's episodes are played by one of them
    processes.join()
    draw_games(len(games), settings.games_per_iteration, settings.seed, 0)  # fail before anything is loaded
    for name in {game.env for game in games}:
        check_environment(components, envs.get(name))
    for name, needed in (("stop", stop is not None), ("report_to", "tensorboard" in settings.report_to)):
        if needed and run_dir is None:
            raise ValueError(f"run_dir: got None; allowed with {name}: a folder")
    result = TrainingResult(policy, run_dir=None if run_dir is None else Path(run_dir))
    fingerprint = settings.model_dump(exclude=FREE_SETTINGS, exclude_defaults=True) | {
        "components": [checkpoint.described(component) for component in components],
        "estimator": checkpoint.described(estimator or GRPO()),
    }
    after = Bookkeeping(result, fingerprint, evaluate_fn, on_iteration, stop)
    with checkpoint.locked(result.run_dir) if run_dir is not None and processes.first() else contextlib.nullcontext():
        found = _last_checkpoint(result, fingerprint, resume) if run_dir is not None else None
        if settings.lora and not isinstance(policy.model, peft.PeftModel):
            torch.manual_seed(settings.seed)  # the adapter starts from random numbers
            rank = settings.lora_rank
            config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
            policy.model = peft.get_peft_model(policy.model, config)
        if result.resumed_from == settings.iterations:
            checkpoint.load_weights(policy.model, found)
            return result
        with restore_after_training(policy.model):
            after.trainer = Training(
                policy, games, settings, components, estimator, rollout_fn,
                start=result.resumed_from,
                optimizer_state=load_file(found / "optimizer.safetensors") if found else None,
                callbacks=[after, *get_reporting_integration_callbacks(list(settings.report_to))],
                run_dir=result.run_dir,
            )  # fmt: skip
            if found:  # after the reference was copied from the weights that training began with
                for model in {policy.model, after.trainer.model}:
                    checkpoint.load_weights(model, found)
            with after.answering_interrupts():
                after.trainer.train()
            after.trainer.player()
    return result


def _last_checkpoint(result: TrainingResult, fingerprint: dict, resume: bool) -> Path | None:
    """The checkpoint to go on from, whose metrics go into `result` and `metrics.jsonl`; None to start over."""

    def look() -> str | None:
        found = checkpoint.find(result.run_dir, fingerprint) if resume else None
        for old in () if resume else result.run_dir.glob("checkpoint-*"):
            shutil.rmtree(old)
        return found and str(found)

    found = processes.told(look)
    if found:
        state = checkpoint.read_state(Path(found))
        result.metrics, result.resumed_from = state["metrics"], state["iteration"]
    if processes.first():
        write_atomic(result.run_dir / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in result.metrics))
    return found and Path(found)
