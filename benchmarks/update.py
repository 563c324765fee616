"""How long does one GRPO update take by our trainer (on TRL's) beside a bare PyTorch step on the same episodes?

    python benchmarks/update.py                  # all of it: under ten minutes on two cores
    python benchmarks/update.py --quick          # smoke run, under a minute; too few and too short episodes to judge by
    python benchmarks/update.py --threads 1      # without torch's other threads
    python benchmarks/update.py --out update.json

Both start from the same weights and do the same number of optimiser steps; that they do the same work is checked: the
gradients of the first step and the weights after all steps must agree, or the benchmark fails. What is measured is
printed with the results.
"""

from __future__ import annotations

import argparse
import copy
import gc
import importlib.metadata
import json
import os
import platform
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from tqdm.auto import tqdm
from transformers import PrinterCallback, TrainerCallback

import sglib
from sglib import envs
from sglib.advantages import estimators, to_tokens
from sglib.records import write_atomic
from sglib.rewards import Outcome, combine
from sglib.training import forward, grpo
from sglib.training.trainer import TrajectoryGRPOTrainer

GOAL = 1.15
TOLERANCE = {"gradients": 1e-4, "weights": 2e-2}
CELLS = ("plain", "every turn", "2 updates", "LoRA")
DEFINITIONS = f"""\
Wall time in seconds of perf_counter, fp32, from recorded episodes with their advantages to changed weights; no rollout.
"a (b to c)" is the median of the repetitions and their range. A repetition is a step of one and then of the other, in
one process; the first of each is the warm-up.
Episodes  played by the base model: generated games (at most 12 receptacles) in groups, at most 30 turns, format "act",
          temperature 1.
bare      PyTorch with transformers' Qwen3 (torch's attention, causal, no mask): micro-batches of the same size, sorted
          by length and padded on the right; one forward pass; logits, log-softmax and entropies at the policy's tokens
          alone; Eq 9; backward; gradients clipped; AdamW. Torch's own threads.
ours      TrajectoryGRPOTrainer, from the end of its `sample` to the call of its `finish`.
bare+     the bare step with log-probabilities and entropies by sglib.training.forward: ours / bare+ is what TRL,
          transformers' Trainer and accelerate cost (less what episodes without an advantage save, see there).
plain     outcome rewards, Eq 8. Groups that all won or all lost have no advantage, hence no gradient: ours reads them
          without a backward pass; how many there are is printed.
every turn, 2 updates, LoRA: every turn has an advantage, as with internal rewards (noise is added to those of Eq 8);
          the same with two optimiser steps, whose second has the ratio of Eq 9; the same with LoRA of rank 16.
Parts     of ours, mean of the repetitions, by timers. "head": output layer, log-softmax and entropies, by its share of
          the forward passes summed over threads. "batch": what TRL does between the rollout and the first micro-batch.
Same work the distance of ours from bare, as Euclidean norms over all parameters: gradients of the first step (after
          clipping) over their length, weights after all steps over the way they have come. AdamW divides each gradient
          by its own size, so weights of next to no gradient differ more.
Goal      ours takes at most {GOAL} x bare."""
LINE = "{:<14}{:>8}  {:<22}{:<22}{:<22}{:>11}{:>12}  {}"
HEAD = ("", "threads", "bare", "bare+", "ours", "ours/bare", "ours/bare+", f"goal <= {GOAL}")


@dataclass
class Cell:
    """One comparison."""

    name: str
    threads: int
    policy: object
    trajectories: list
    updates: int = 1


def played(args) -> tuple[object, list]:
    """The base model and its episodes, rewarded by their outcome."""
    policy = sglib.load_policy("base", device="cpu")
    count, size, turns = (2, 4, 15) if args.quick else (8, 8, 30)
    games = envs.alfworld.generate_games(count, seed=args.seed, split="train", max_receptacles=12)
    trajectories = sglib.rollout(policy, games, format="act", turns=turns, seed=args.seed, group=size)
    combine(trajectories, [Outcome()], 0.0, policy, {game.id: game for game in games})
    for trajectory, values in zip(trajectories, estimators.GRPO()(trajectories)):
        for turn, value in zip(trajectory.turns, values):
            turn.advantage = float(value)
    return policy, trajectories


def cell_of(name: str, threads: int, policy, trajectories) -> Cell:
    policy = copy.copy(policy)
    policy.model = copy.deepcopy(policy.model)
    if name != "plain":
        trajectories, noise = copy.deepcopy(trajectories), np.random.default_rng(0)
        for turn in (turn for t in trajectories for turn in t.turns):
            turn.advantage += noise.normal(scale=0.1)
    if name == "LoRA":
        torch.manual_seed(0)
        policy.model = get_peft_model(policy.model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
    return Cell(name, threads, policy, trajectories, 2 if name == "2 updates" else 1)


# -- the two -----------------------------------------------------------------------------------------------------------


class Bare:
    """The bare steps: `step` does those of one batch."""

    def __init__(self, cell: Cell, settings: grpo.GRPOSettings, plain: bool = True):
        self.model, self.cell, self.settings, self.plain = copy.deepcopy(cell.policy.model), cell, settings, plain
        self.model.train()
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=settings.learning_rate, weight_decay=0.0)
        self.gradients = None  # of the first step

    def micro_batches(self) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Token ids, which of them are the policy's, and their advantages: (rows, longest) each."""
        rows = []
        for t in self.cell.trajectories:
            advantages = to_tokens([turn.advantage for turn in t.turns], [turn.span for turn in t.turns], t.mask)
            before = [0] * len(t.prompt_ids)
            rows.append((t.prompt_ids + t.completion_ids, before + t.mask, before + list(advantages)))
        rows.sort(key=lambda row: -len(row[0]))
        size, found = self.settings.micro_batch_size, []
        for part in (rows[i : i + size] for i in range(0, len(rows), size)):
            width, types = len(part[0][0]), (torch.long, torch.bool, torch.float32)
            padded = ([list(values) + [0] * (width - len(values)) for values in column] for column in zip(*part))
            found.append(tuple(torch.tensor(column, dtype=type) for column, type in zip(padded, types)))
        return found

    def read(self, ids: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities and entropies (N,) of the wanted tokens."""
        if not self.plain:
            return tuple(x[wanted] for x in forward.policy_logps(self.model, ids, wanted, self.settings.temperature))
        inner = self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model
        hidden = inner.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1][wanted[:, 1:]]
        every = (inner.lm_head(hidden) / self.settings.temperature).log_softmax(-1)
        with torch.no_grad():
            entropies = -(every.exp() * every).sum(-1)
        return every.gather(1, ids[wanted][:, None])[:, 0], entropies

    def step(self) -> float:
        """Seconds of all updates on the batch."""
        begin, old, epsilon = time.perf_counter(), {}, self.settings.epsilon
        micro_batches = self.micro_batches()
        total = sum(int(wanted.sum()) for _, wanted, _ in micro_batches)
        for _ in range(self.cell.updates):
            entropy = 0.0
            for i, (ids, wanted, advantages) in enumerate(micro_batches):
                logps, entropies = self.read(ids, wanted)
                ratio = (logps - old.setdefault(i, logps.detach())).exp()
                values = advantages[wanted]
                loss = -torch.min(ratio * values, ratio.clamp(1 - epsilon, 1 + epsilon) * values).sum() / total
                loss.backward()
                entropy += float(entropies.sum()) / total
            torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm)
            if self.gradients is None:
                self.gradients = flat([p.grad for p in self.parameters])
            self.optimizer.step()
            self.optimizer.zero_grad()
        return time.perf_counter() - begin


class Ours(TrainerCallback):
    """The trainer: each batch is the recorded one, and before it a bare step is made and timed."""

    def __init__(self, cell: Cell, settings: grpo.GRPOSettings, others: list[Bare], bar):
        self.cell, self.others, self.bar = cell, others, bar
        self.seconds, self.other_seconds, self.parts = [], [[] for _ in others], []
        self.marks, self.head, self.gradients, self.begin = Counter(), Counter(), None, 0.0
        groups = len({t.group for t in cell.trajectories})
        rows = groups * settings.iterations
        self.trainer = trainer = TrajectoryGRPOTrainer(
            sample=self.sample, finish=self.finish, model=cell.policy.model, processing_class=cell.policy.tokenizer,
            args=grpo.training_arguments(settings, cell.policy.device, settings.iterations * cell.updates, 0.0),
            train_dataset=Dataset.from_dict({"prompt": [""] * rows}),
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(self)
        self.timed("reading", trainer, "_get_per_token_logps_and_entropies")
        self.timed("loss", trainer, "_compute_loss")
        self.timed("batch", trainer, "_prepare_inputs")
        self.timed("backward", trainer.accelerator, "backward")
        self.timed("clipping", trainer, "_clip_grad_norm")
        self.timed("logging", trainer, "log")
        self.timed_head()

    def timed(self, part: str, owner, name: str):
        function = getattr(owner, name)

        def wrapper(*args, **kwargs):
            begin = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.marks[part] += time.perf_counter() - max(begin, self.begin)  # not what came before the clock

        setattr(owner, name, wrapper)

    def timed_head(self):
        """The share of output layer, log-softmax and entropies in a forward pass, added up over threads."""
        read, started, model = forward._read, threading.local(), self.cell.policy.model
        inner = model.get_base_model() if hasattr(model, "peft_config") else model

        def wrapper(model, *args):
            begin = time.perf_counter()
            found = read(model, *args)
            now = time.perf_counter()
            if model is inner:
                self.head.update(all=now - begin, head=now - started.head)
            return found

        hook = inner.lm_head.register_forward_pre_hook(lambda *_: setattr(started, "head", time.perf_counter()))
        forward._read = wrapper
        self.restore = lambda: (setattr(forward, "_read", read), hook.remove())

    def sample(self, iteration: int) -> list:
        for bare, seconds in zip(self.others, self.other_seconds):
            settle()
            seconds.append(bare.step())
            self.bar.update()
        settle()
        self.marks.clear()
        self.head.clear()
        self.begin = time.perf_counter()
        return self.cell.trajectories

    def on_pre_optimizer_step(self, *_, **__):
        if self.gradients is None:
            self.gradients = flat([p.grad for p in self.cell.policy.model.parameters() if p.requires_grad])
        self.optimizer_begin = time.perf_counter()

    def on_optimizer_step(self, *_, **__):
        self.marks["optimiser"] += time.perf_counter() - self.optimizer_begin

    def finish(self, iteration: int, logs: dict):
        now, marks = time.perf_counter(), self.marks
        self.seconds.append(now - self.begin)
        share = self.head["head"] / self.head["all"]
        parts = {
            "forward": marks["reading"] * (1 - share),
            "head": marks["reading"] * share,
            "loss": marks["loss"] - marks["reading"],
            "backward": marks["backward"],
            "clipping and optimiser": marks["clipping"] + marks["optimiser"],
            "batch": marks["batch"],
            "logging": marks["logging"],
        }
        self.parts.append(parts | {"everything else": self.seconds[-1] - sum(parts.values())})
        self.bar.update()

    def run(self):
        try:
            self.trainer.train()
        finally:
            self.restore()


def settle():
    gc.collect()
    gc.freeze()


def apart(a: torch.Tensor, b: torch.Tensor, start: torch.Tensor) -> float:
    """How far a is from b, over how far b is from the start; 0 where nothing has moved."""
    return float((a - b).norm() / (b - start).norm().clamp(min=1e-12))


def flat(tensors) -> torch.Tensor:
    return torch.cat([t.detach().flatten() for t in tensors]).clone()


# -- all together ------------------------------------------------------------------------------------------------------


def compare(cell: Cell, args, bar) -> dict:
    """Everything that is measured of one cell."""
    torch.set_num_threads(cell.threads)
    group = sum(t.group == 0 for t in cell.trajectories)
    settings = grpo.GRPOSettings(
        iterations=args.repeats + 1, games_per_iteration=len(cell.trajectories) // group, group_size=group,
        updates_per_batch=cell.updates, learning_rate=1e-4, micro_batch_size=args.micro_batch,
        lr_schedule="constant", loss_type="dapo",
    )  # fmt: skip
    bar.set_description(f"{cell.name}, threads {cell.threads}")
    bare, fast = Bare(cell, settings), Bare(cell, settings, plain=False)
    start = flat(bare.parameters)
    ours = Ours(cell, settings, [bare, fast], bar)
    load = os.getloadavg()[0]
    ours.run()
    weights = flat(p for p in cell.policy.model.parameters() if p.requires_grad)
    distance = {
        "gradients": apart(ours.gradients, bare.gradients, torch.zeros(())),
        "weights": apart(weights, flat(bare.parameters), start),
    }
    seconds = dict(zip(("bare", "bare+", "ours"), (x[1:] for x in (*ours.other_seconds, ours.seconds))))
    middle = {name: median(values) for name, values in seconds.items()}
    return {
        "name": cell.name,
        "threads": cell.threads,
        "seconds": seconds,
        "ratio": middle["ours"] / middle["bare"],
        "ratio_to_bare_plus": middle["ours"] / middle["bare+"],
        "parts": {part: float(np.mean([p[part] for p in ours.parts[1:]])) for part in ours.parts[0]},
        "distance": distance,
        "episodes_without_advantage": sum(not any(turn.advantage for turn in t.turns) for t in cell.trajectories),
        "load_before": load,
    }


def spread(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run: few and short episodes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, torch.get_num_threads()}))
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=CELLS, help="leave out some comparisons")
    parser.add_argument("--repeats", type=int, help="(default 5; --quick: 1)")
    parser.add_argument("--micro-batch", type=int, default=8, metavar="N", help="sequences per micro-batch (default 8)")
    parser.add_argument("--out", type=Path, help="write every number to this JSON file")
    args = parser.parse_args()
    args.repeats = args.repeats or (1 if args.quick else 5)
    policy, trajectories = played(args)
    lengths = [len(t.prompt_ids) + len(t.completion_ids) for t in trajectories]
    tokens = sum(sum(t.mask) for t in trajectories)
    with tqdm(total=3 * (args.repeats + 1) * len(args.cells) * len(args.threads), unit="step") as bar:
        rows = [
            compare(cell_of(name, threads, policy, trajectories), args, bar)
            for threads in args.threads
            for name in args.cells
        ]
    print(DEFINITIONS + "\n")
    if args.quick:
        print("--quick: episodes too few and too short to judge anything by.\n")
    print(
        f"{len(trajectories)} episodes of {min(lengths)} to {max(lengths)} tokens (mean {np.mean(lengths):.0f}), of "
        f"which {tokens / len(trajectories):.0f} are the policy's. Without an advantage in {rows[0]['name']!r}: "
        f"{rows[0]['episodes_without_advantage']}.\n"
    )
    print(LINE.format(*HEAD))
    for row in rows:
        cells = [spread(row["seconds"][name]) for name in ("bare", "bare+", "ours")]
        ratios = [f"{row[name]:.2f}" for name in ("ratio", "ratio_to_bare_plus")]
        print(LINE.format(row["name"], row["threads"], *cells, *ratios, "met" if row["ratio"] <= GOAL else "NOT met"))
    print("\nParts of ours, in seconds")
    for row in rows:
        parts = ", ".join(f"{part} {seconds:.3f}" for part, seconds in row["parts"].items())
        print(f"{row['name']}, threads {row['threads']}: {parts}")
    print("\nSame work: distance of ours from bare")
    for row in rows:
        found = ", ".join(f"{name} {value:.1e} (<= {TOLERANCE[name]})" for name, value in row["distance"].items())
        print(f"{row['name']}, threads {row['threads']}: {found}")
    if args.out:
        options = {key: value for key, value in vars(args).items() if key != "out"}
        made_by = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "trl")}
        made_by |= {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
        found = {"made_by": made_by, "options": options, "definitions": DEFINITIONS, "lengths": lengths}
        write_atomic(args.out, json.dumps(found | {"policy_tokens": tokens, "rows": rows}, indent=1))
    wrong = [row for row in rows if any(not row["distance"][name] <= most for name, most in TOLERANCE.items())]
    if wrong:
        raise SystemExit(f"not the same work: {', '.join(row['name'] for row in wrong)}")


if __name__ == "__main__":
    main()
