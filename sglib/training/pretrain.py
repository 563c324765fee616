"""Build the base model: next-token prediction on transcripts of imperfect demonstrators (`make base`).

Muon on the weight matrices and AdamW on the rest; a loss of weight 1 on what the policy writes, less on observations
(that is
where copying names out of the context is learned first) and 0 on attempts that the demonstrator itself should not
have made.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm

from sglib import envs, formats
from sglib.envs.alfworld.demonstrators import Habits, demonstrate
from sglib.envs.alfworld.fast import FastAlfworld
from sglib.envs.alfworld.generate import generate_games
from sglib.envs.base import Demonstration
from sglib.models.policy import Policy, load_policy
from sglib.records import Trajectory, Turn, write_atomic

CARD = envs.get("alfworld")
RECIPE = {
    "seed": 0,
    "steps": 1500,  # the learning rate falls to 0 over these
    "stop": 1000,  # and training stops here: an early checkpoint, which leaves room to learn
    "transcripts_per_step": 16,
    "max_turns": 30,
    "max_receptacles": 12,
    "formats": {"act": 0.5, "guide": 0.4, "progress": 0.1},
    "with_example": 0.05,
    "observation_weight": 0.3,
    "muon_lr": 0.02,
    "adamw_lr": 2e-3,
    "warmup_steps": 100,
    "habits": {"ordered": 0.7, "noise": 0.3, "impossible": 0.12, "wrong_label": 0.3, "wrong_subgoal": 0.1},
}
BUCKET = 16  # batches drawn together, sorted by length so that a batch holds little padding


def encode_demonstration(
    policy: Policy, format: str, steps: list[Demonstration], observation_weight: float, example: str | None = None
) -> tuple[list[int], list[float]]:
    """Token ids and loss weights (same length) of a demonstrated episode, written as the policy would meet it in a
    rollout."""
    prefix = formats.PREFIX[format]
    ids = policy.prompt_ids(formats.opening(format, CARD, steps[0].observation, policy.compact, example), prefix)
    weights = [observation_weight] * len(ids)
    for t, step in enumerate(steps):
        if t:
            between = policy.between_ids(CARD.shown(step.observation), prefix)
            ids += between
            weights += [observation_weight] * len(between)
        stated = {"guidance": step.guidance, "label": step.label, "progress": step.progress}
        text = formats.format_response(format, step.action, **stated)
        answer = policy.encode(text.removeprefix(prefix)) + policy.stop_ids[:1]
        ids += answer
        weights += [float(step.imitate)] * len(answer)
    return ids, weights


def as_trajectory(steps: list[Demonstration], won: bool) -> Trajectory:
    """A demonstrated episode as a `Trajectory`, to be shown as an example."""
    turns = [Turn(s.observation, s.action, s.action, True) for s in steps]
    return Trajectory("demonstration", "", "", "act", turns, won)


def draw_transcripts(policy: Policy, recipe: dict, number: int, count: int) -> list[tuple[list[int], list[float]]]:
    """`count` fresh transcripts, a function of the recipe's seed and of `number` alone. No game is drawn twice in a
    run."""
    rng = random.Random(f"pretraining {recipe['seed']} {number}")
    # seeds from 10^6 on belong to pre-training: no panel and no training run draws from them
    games = generate_games(
        count, seed=1_000_000 + recipe["seed"], max_receptacles=recipe["max_receptacles"], start=number * count * 2
    )
    habits, env, out, example = Habits(**recipe["habits"]), FastAlfworld(), [], None
    for game in games:
        steps, won = demonstrate(env, game, rng, habits, recipe["max_turns"])
        format = rng.choices(list(recipe["formats"]), list(recipe["formats"].values()))[0]
        shown = example if rng.random() < recipe["with_example"] else None
        out.append(encode_demonstration(policy, format, steps, recipe["observation_weight"], shown))
        if won and len(steps) <= 15:
            trajectory = as_trajectory(steps, won)
            trajectory.final_observation = "Outcome: success"
            example = formats.example_message(trajectory, [s.progress for s in steps[1:]] + [100.0])
    return out


def batches(policy: Policy, recipe: dict, start: int):
    """Endless (ids, weights, attention) batches from step `start` on, bucketed by length."""
    pad = policy.tokenizer.pad_token_id
    size = recipe["transcripts_per_step"]
    bucket = start // BUCKET
    while True:
        drawn = sorted(draw_transcripts(policy, recipe, bucket, size * BUCKET), key=lambda pair: len(pair[0]))
        chunks = [drawn[i * size : (i + 1) * size] for i in range(BUCKET)]
        random.Random(f"order {recipe['seed']} {bucket}").shuffle(chunks)
        for chunk in chunks[start % BUCKET :]:
            longest = max(len(ids) for ids, _ in chunk)
            ids = torch.tensor([i + [pad] * (longest - len(i)) for i, _ in chunk])
            weights = torch.tensor([w + [0.0] * (longest - len(w)) for _, w in chunk])
            yield ids, weights
        bucket, start = bucket + 1, 0


def loss_of(model, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted mean next-token loss. ids, weights (B, T)."""
    logits = model(input_ids=ids).logits[:, :-1]  # padding is on the right, so causal attention needs no mask
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    w = weights[:, 1:].flatten()
    return (loss * w).sum() / w.sum()


def optimizers_of(model, recipe: dict) -> list[torch.optim.Optimizer]:
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(matrices, lr=recipe["muon_lr"], momentum=0.95, weight_decay=0.0),
        torch.optim.AdamW(rest, lr=recipe["adamw_lr"], betas=(0.9, 0.95), weight_decay=0.0),
    ]


def _save(path: Path, recipe: dict, model, optimizers, step: int, curve: list, seconds: float):
    """Model and optimizer state without pickle: tensors in safetensors, numbers in JSON; the JSON last, so it is the
    commit."""
    tensors = {f"model.{n}": p.detach().contiguous() for n, p in model.named_parameters()}
    for i, optimizer in enumerate(optimizers):
        for j, entry in optimizer.state_dict()["state"].items():
            tensors |= {f"opt{i}.{j}.{k}": torch.as_tensor(v).contiguous() for k, v in entry.items()}
    file = path / f"step{step}.safetensors"
    path.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file)
    write_atomic(path / "state.json", json.dumps({"recipe": recipe, "step": step, "curve": curve, "seconds": seconds}))
    for old in path.glob("step*.safetensors"):
        if old != file:
            old.unlink()


def _load(path: Path, recipe: dict, model, optimizers) -> tuple[int, list, float]:
    if not (path / "state.json").exists():
        return 0, [], 0.0
    state = json.loads((path / "state.json").read_text())
    for name in recipe:  # a run may stop later than planned, but nothing else may change under it
        if name != "stop" and recipe[name] != state["recipe"].get(name):
            found = state["recipe"].get(name)
            raise ValueError(f"{name}={recipe[name]!r}: {path} holds a run with {found!r}; use another folder")
    if state["step"] > recipe["stop"]:
        raise ValueError(f"stop={recipe['stop']}: {path} is at step {state['step']} already; use another folder")
    tensors = load_file(path / f"step{state['step']}.safetensors")
    model.load_state_dict(
        {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}, strict=False
    )
    for i, optimizer in enumerate(optimizers):
        content = optimizer.state_dict()
        content["state"] = {}
        for name, tensor in tensors.items():
            if name.startswith(f"opt{i}."):
                _, j, key = name.split(".")
                content["state"].setdefault(int(j), {})[key] = tensor
        optimizer.load_state_dict(content)
    return state["step"], state["curve"], state["seconds"]


def pretrain(
    recipe: dict, out: Path, work: Path, evaluate=None, evaluate_every: int = 500, save_every: int = 250
) -> Policy:
    """Train the base model; interrupted, it goes on from its last checkpoint in `work` to the same result.

    Args:
        recipe: see `RECIPE`.
        out: folder for the finished model, tokenizer and `card.json`.
        work: folder for checkpoints.
        evaluate: `evaluate(policy) -> dict` of numbers for the curve, or None.
        evaluate_every, save_every: in steps.
    """
    policy = load_policy("new")
    policy.name = "base"
    model, optimizers = policy.model.train(), optimizers_of(policy.model, recipe)
    base_lrs = [o.param_groups[0]["lr"] for o in optimizers]
    step, curve, before = _load(work, recipe, model, optimizers)
    began, stream, tokens = time.perf_counter(), batches(policy, recipe, step), 0
    bar = tqdm(total=recipe["stop"], initial=step, desc="pre-training", mininterval=5)
    recent: list[float] = []
    while step < recipe["stop"]:
        ids, weights = next(stream)
        scale = min(1.0, (step + 1) / recipe["warmup_steps"]) * (1 - step / recipe["steps"])
        for optimizer, lr in zip(optimizers, base_lrs):
            optimizer.param_groups[0]["lr"] = lr * scale
        loss = loss_of(model, ids, weights)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if not math.isfinite(float(loss.detach())):
            raise FloatingPointError(f"step {step}: loss is {float(loss.detach())}")
        recent.append(float(loss.detach()))
        tokens += int((weights > 0).sum())
        step += 1
        bar.update()
        if step % evaluate_every == 0 or step == recipe["stop"]:
            seconds = before + time.perf_counter() - began
            row = {"step": step, "loss": sum(recent) / len(recent), "seconds": round(seconds, 1)}
            recent = []
            if evaluate is not None:
                model.eval()
                row |= evaluate(policy)
                model.train()
            curve.append(row)
            bar.write(json.dumps(row))
        if step % save_every == 0:
            _save(work, recipe, model, optimizers, step, curve, before + time.perf_counter() - began)
    bar.close()
    model.eval()
    policy.save(out)
    card = {
        "what": "Qwen3 architecture, word-level tokenizer, pre-trained on transcripts of generated ALFWorld games",
        "command": "make base",
        "parameters": sum(p.numel() for p in model.parameters()),
        "recipe": recipe,
        "curve": curve,
        "wall_seconds": round(before + time.perf_counter() - began, 1),
        "threads": torch.get_num_threads(),
        "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
        "versions": {"torch": torch.__version__.split("+")[0], "python": platform.python_version()},
    }
    write_atomic(out / "card.json", json.dumps(card, indent=1))
    return policy


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "envs" / "alfworld" / "models" / "base")
    parser.add_argument("--work", type=Path, default=Path("outputs/base"))
    parser.add_argument("--stop", type=int, default=RECIPE["stop"], help="1500 makes base_strong")
    parser.add_argument("--seed", type=int, default=RECIPE["seed"])
    parser.add_argument("--no-evaluation", action="store_true")
    arguments = parser.parse_args()
    recipe = RECIPE | {"stop": arguments.stop, "seed": arguments.seed}

    def evaluate(policy):
        from sglib.measure.evaluate import evaluate as measure

        games = generate_games(128, seed=31, split="valid_seen")  # a panel for looking at the curve; no result uses it
        return {
            f: round(measure(policy, games, format=f, temperature=0.4, seed=0).success, 4) for f in ("act", "guide")
        }

    pretrain(recipe, arguments.out, arguments.work, None if arguments.no_evaluation else evaluate)


if __name__ == "__main__":
    main()
