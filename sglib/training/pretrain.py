"""Build an environment's base model: next-token prediction on transcripts of its imperfect demonstrators.

    python -m sglib.training.pretrain --env NAME [--name whole_rooms]

Muon on the weight matrices and AdamW on the rest; a loss of weight 1 on what the policy writes, less on observations
(where copying names out of the context is learned first) and 0 on attempts that the demonstrator itself should not have
made. The recipe is the card's `pretraining`:

    seed                    of games and demonstrators
    start                   name of a shipped model from whose weights it goes on; left out: from nothing
    steps, stop             the learning rate falls to 0 over `steps`; training ends at `stop`, early where it shall
                            leave room to learn
    transcripts_per_step    in a batch
    drawn                   batches that are drawn before the same ones come again, for slow demonstrators; a multiple
                            of 16; left out: none comes again
    max_turns, size         of an episode, and of its task (as for the card's `tasks`)
    formats                 name of a format -> share of transcripts
    with_example            share of transcripts that show a won episode first
    observation_weight      of the loss on observations
    muon_lr, adamw_lr, warmup_steps    the learning rates, and steps over which they rise
    habits                  of the demonstrators, as for the card's `demonstrate`
    model                   sizes, as for `sglib.models.small.build_model`
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import platform
import random
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.overrides import TorchFunctionMode
from tqdm.auto import tqdm

from sglib import envs, formats
from sglib.envs.base import Demonstration, Environment
from sglib.envs.panels import panel
from sglib.measure.evaluate import evaluate
from sglib.models.policy import Policy, load_policy
from sglib.models.small import build_model, build_tokenizer
from sglib.records import Trajectory, Turn, write_atomic
from sglib.training import checkpoint

BUCKET = 16  # batches drawn together, sorted by length so that a batch holds little padding


def encode_demonstration(
    policy: Policy,
    card: Environment,
    format: str,
    steps: list[Demonstration],
    observation_weight: float,
    example: str | None = None,
) -> tuple[list[int], list[float]]:
    """Token ids and loss weights (same length) of a demonstrated episode, written as the policy would meet it in a
    rollout."""
    prefix = formats.PREFIX[format]
    ids = policy.prompt_ids(formats.opening(format, card, steps[0].observation, policy.compact, example), prefix)
    weights = [observation_weight] * len(ids)
    for t, step in enumerate(steps):
        if t:
            between = policy.between_ids(card.shown(step.observation), prefix)
            ids += between
            weights += [observation_weight] * len(between)
        stated = {"guidance": step.guidance, "label": step.label, "progress": step.progress}
        text = formats.format_response(format, step.action, **stated)
        answer = policy.encode(text.removeprefix(prefix)) + policy.stop_ids[:1]
        ids += answer
        weights += [float(step.imitate)] * len(answer)
    return ids, weights


def draw_transcripts(
    policy: Policy, card: Environment, recipe: Mapping, number: int, count: int
) -> list[tuple[list[int], list[float]]]:
    """`count` new transcripts, a function of the recipe's seed and of `number` alone. No task is drawn twice in a
    run. The example that a transcript may show is the last short demonstration that was won."""
    rng = random.Random(f"pretraining {recipe['seed']} {number}")
    # seeds from 10^6 on belong to pre-training: no panel and no training run draws from them
    tasks = card.tasks(count, seed=1_000_000 + recipe["seed"], size=recipe["size"], start=number * count * 2)
    env, out, example = card.make(), [], None
    for task in tasks:
        steps, won = card.demonstrate(env, task, rng, recipe["habits"], recipe["max_turns"])
        format = rng.choices(list(recipe["formats"]), list(recipe["formats"].values()))[0]
        shown = example if rng.random() < recipe["with_example"] else None
        out.append(encode_demonstration(policy, card, format, steps, recipe["observation_weight"], shown))
        if won and len(steps) <= 15:
            played = [Turn(s.observation, s.action, s.action, True) for s in steps]
            demonstration = Trajectory("demonstration", "", "", "act", played, True, env=task.env)
            demonstration.final_observation = "Outcome: success"
            example = formats.example_message(demonstration, [s.progress for s in steps[1:]] + [100.0])
    return out


def batches(
    policy: Policy, card: Environment, recipe: Mapping, bucket: int = 0
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (ids, weights) batches, (transcripts_per_step, T) each, padded on the right; from batch
    `bucket` * `BUCKET` on."""
    pad, size = policy.tokenizer.pad_token_id, recipe["transcripts_per_step"]
    again = recipe.get("drawn", 0) // BUCKET

    @functools.lru_cache(maxsize=again)
    def draw(number: int) -> list[tuple[list[int], list[float]]]:
        transcripts = draw_transcripts(policy, card, recipe, number, size * BUCKET)
        return sorted(transcripts, key=lambda pair: len(pair[0]))

    while True:
        drawn = draw(bucket % again if again else bucket)
        chunks = [drawn[i * size : (i + 1) * size] for i in range(BUCKET)]
        random.Random(f"order {recipe['seed']} {bucket}").shuffle(chunks)
        for chunk in chunks:
            longest = max(len(ids) for ids, _ in chunk)
            ids = torch.tensor([i + [pad] * (longest - len(i)) for i, _ in chunk])
            weights = torch.tensor([w + [0.0] * (longest - len(w)) for _, w in chunk])
            yield ids, weights
        bucket += 1


def loss_of(model, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted mean next-token loss. ids, weights (B, T)."""
    logits = model(input_ids=ids).logits[:, :-1]  # padding is on the right, so causal attention needs no mask
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    w = weights[:, 1:].flatten()
    return (loss * w).sum() / w.sum()


class _Float32(TorchFunctionMode):
    """Muon's own products are in bfloat16, which took half of a step where a processor has no such products (AVX2:
    0.62 s of 1.15 s): inside of this they are in float32, 0.1 s, the same on every machine."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return args[0].clone() if func is torch.Tensor.bfloat16 else func(*args, **(kwargs or {}))


def optimizers_of(model, recipe: Mapping) -> list[torch.optim.Optimizer]:
    """Muon for the weight matrices, AdamW for embeddings and norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(matrices, lr=recipe["muon_lr"], momentum=0.95, weight_decay=0.0),
        torch.optim.AdamW(rest, lr=recipe["adamw_lr"], betas=(0.9, 0.95), weight_decay=0.0),
    ]


def _optimizer_tensors(optimizers: list[torch.optim.Optimizer]) -> dict[str, torch.Tensor]:
    """The optimizers' states as flat tensors, named "<optimizer>|<parameter>|<slot>"."""
    states = [(k, optimizer.state_dict()["state"]) for k, optimizer in enumerate(optimizers)]
    return {
        f"{k}|{i}|{slot}": torch.as_tensor(value).contiguous()
        for k, state in states for i, slots in state.items() for slot, value in slots.items()
    }  # fmt: skip


def _go_on(model, optimizers: list[torch.optim.Optimizer], found: Path) -> None:
    """Weights and optimizers' states of a checkpoint."""
    checkpoint.load_weights(model, found)
    states: list[dict] = [{} for _ in optimizers]
    for name, tensor in load_file(found / "optimizer.safetensors").items():
        k, i, slot = name.split("|")
        states[int(k)].setdefault(int(i), {})[slot] = tensor
    for optimizer, state in zip(optimizers, states):
        optimizer.load_state_dict(optimizer.state_dict() | {"state": state})


def pretrain(env: str, recipe: Mapping, out: Path, *, points: int = 4, games: int = 128, name: str = "base") -> Policy:
    """Train the base model of an environment (a name, or a Python file with its card) and write it to the folder `out`:
    weights, tokenizer, and a `card.json` with recipe, curve and machine. The curve has `points`, evenly spaced up to
    the last step, each measured on as many `games` of the panel (0: nothing is measured). About ten
    times on the way a checkpoint is written into `<out>.part`, from which the same call goes on after an interruption,
    to the same weights.

    Raises:
        FloatingPointError: the loss is not finite.
        InUse: another process trains into `out`.
    """
    part = out.with_name(f"{out.name}.part")
    with checkpoint.locked(part):
        return _pretrain(env, recipe, out, part, points, games, name)


def _pretrain(env: str, recipe: Mapping, out: Path, part: Path, points: int, games: int, name: str) -> Policy:
    card, tokenizer, start = envs.get(env), build_tokenizer(env), recipe.get("start")
    policy = load_policy(start, env=env, device="cpu") if start else Policy(
        build_model(tokenizer, seed=recipe["seed"], **recipe["model"]), tokenizer, True, "base"
    )  # fmt: skip
    model, optimizers = policy.model.train(), optimizers_of(policy.model, recipe)
    tasks = panel(env, n=games, size=recipe["size"]) if games else []
    fingerprint = {"recipe": dict(recipe), "points": points, "games": games}
    curve, recent, first, began = [], [], 0, time.perf_counter()
    if found := checkpoint.find(part, fingerprint):
        state = checkpoint.read_state(found)
        _go_on(model, optimizers, found)
        curve, recent, first = state["curve"], state["recent"], state["iteration"]
        began -= state["seconds"]
    stream, every = batches(policy, card, recipe, first // BUCKET), math.ceil(recipe["stop"] / 10 / BUCKET) * BUCKET
    for step in tqdm(range(first, recipe["stop"]), "pre-training", recipe["stop"], initial=first, mininterval=5):
        if step > first and step % every == 0:
            now = {"iteration": step, "fingerprint": fingerprint, "curve": curve, "recent": recent}
            now |= {"seconds": time.perf_counter() - began}
            checkpoint.write(part, now, model, _optimizer_tensors(optimizers))
        ids, weights = next(stream)
        scale = min(1.0, (step + 1) / recipe["warmup_steps"]) * (1 - step / recipe["steps"])
        for optimizer, lr in zip(optimizers, ("muon_lr", "adamw_lr"), strict=True):
            optimizer.param_groups[0]["lr"] = recipe[lr] * scale
        loss = loss_of(model, ids, weights)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        with _Float32():
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
        recent.append(float(loss.detach()))
        if not math.isfinite(recent[-1]):
            raise FloatingPointError(f"step {step}: loss is {recent[-1]}")
        if step + 1 == recipe["stop"] or (step + 1) % math.ceil(recipe["stop"] / points) == 0:
            seconds = round(time.perf_counter() - began, 1)
            row = {"step": step + 1, "loss": sum(recent) / len(recent), "seconds": seconds}
            if games:
                reports = {f: evaluate(policy, tasks, format=f, turns=recipe["max_turns"]) for f in recipe["formats"]}
                row["success"] = {f: round(report.success, 4) for f, report in reports.items()}  # at temperature 0.4
            curve.append(row)
            recent = []
            tqdm.write(json.dumps(row))
    model.eval()
    policy.save(out)
    made = {
        "what": f"Qwen3 architecture, word-level tokenizer, pre-trained on transcripts of generated {card.name} tasks",
        "command": f"make base ENV={card.name}" + (f" ARGS='--name {name}'" if name != "base" else ""),
        "parameters": sum(p.numel() for p in model.parameters()),
        "recipe": dict(recipe),
        "curve": curve,
        "panel": {"split": card.splits[1], "games": games, "temperature": 0.4, "seed": 0},
        "wall_seconds": round(time.perf_counter() - began, 1),
        "threads": torch.get_num_threads(),
        "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
        "versions": {"torch": torch.__version__.split("+")[0], "python": platform.python_version()},
    }
    write_atomic(out / "card.json", json.dumps(made, indent=1))
    shutil.rmtree(part)
    return policy


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", required=True, help="name of an environment, or a Python file with its card")
    parser.add_argument("--name", default="base", help="a key of the card's further_pretraining (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="(default: models/<name> in the environment's folder)")
    parser.add_argument("--stop", type=int, help="steps, in place of the recipe's")
    parser.add_argument("--seed", type=int, help="in place of the recipe's")
    parser.add_argument("--games", type=int, default=128, help="of the panel, for the curve; 0: no evaluation")
    options = parser.parse_args()
    card = envs.get(options.env)
    recipes = {"base": card.pretraining, **card.further_pretraining}
    if not recipes.get(options.name):
        having = ", ".join(name for name, recipe in recipes.items() if recipe) or "none: its card has no recipe"
        parser.error(f"--env {options.env} --name {options.name}: allowed: {having}")
    changes = {name: value for name in ("stop", "seed") if (value := getattr(options, name)) is not None}
    out = options.out or card.folder / "models" / options.name
    try:
        pretrain(options.env, {**recipes[options.name], **changes}, out, games=options.games, name=options.name)
    except checkpoint.InUse as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
