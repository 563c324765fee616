"""A language model of SmolLM2's size on this machine: reading, writing and one GRPO update in fp32 and in bf16, side by
side; and the library's rollout beside TRL's own and `generate` at every turn, its update beside a bare PyTorch step.

    python benchmarks/language_model.py                  # SmolLM2 where it was fetched, else random weights
    python benchmarks/language_model.py --random         # random weights of its shape
    python benchmarks/language_model.py --quick          # smoke run: a tiny random model, too small to judge by
    python benchmarks/language_model.py --out language_model.json

Nothing is claimed: where the processor multiplies bf16 (AMX, AVX512-BF16, a GPU) it is many times faster, elsewhere it
may be slower than fp32. What is measured is printed with the results.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import time
from pathlib import Path
from statistics import median

import numpy as np
import rollout
import torch
from transformers import TrainerCallback

import sglib
from sglib.models import random_lm, smollm2
from sglib.models.own_cache import new_cache
from sglib.models.policy import Policy
from sglib.models.slots import feed
from sglib.records import write_atomic
from sglib.training import grpo

# of SmolLM2-135M
SHAPE = {
    "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
    "num_key_value_heads": 3, "vocab_size": 49_152,
}  # fmt: skip
FLAGS = ("amx_bf16", "avx512_bf16")
DEFINITIONS = """\
Wall time in seconds of perf_counter, medians of the repetitions and their range; fp32 and bf16 take turns, in one
process, the first of each is the warm-up and left out. The same texts, the same tokens on both sides.
read      the first prompts of as many generated games, side by side, into an empty cache (`sglib.models.slots.feed`).
write     then as many steps of one token a row, each with its logits; which tokens is given, so that both do the same.
update    one GRPO update of the library's trainer on recorded episodes, every turn with an advantage: forward,
          backward, AdamW. Weights are fp32; "bf16" is autocast (`bf16: true`). In the others the weights are bf16.
tokens/s  of all rows; in "update" of all tokens of the episodes.
apart     how far the log-probabilities of the given tokens are from each other, mean in nats.

Ours beside others, in fp32, ratio = theirs / ours; episodes of the same games by the most likely tokens:
TRL       its own multi-turn path, the tool loop of `GRPOTrainer` (method (a) of rollout.py, which has the definitions).
generate  transformers' `generate` at every turn on the text so far (method (b)), beside the library's rollout.
update    beside a bare step: forward with all logits, the same loss, backward, clipping, AdamW; two rows at a time."""
LINE = "{:<8}{:>8}  {:<26}{:<26}{:>10}{:>10}{:>12}"


def models(args) -> dict[str, Policy]:
    """The same model in both precisions."""
    name = random_lm.NAME if args.quick or args.random or not isinstance(smollm2.source("smollm2"), Path) else "smollm2"
    policy = sglib.load_policy(name, env="alfworld", device="cpu")
    if name == random_lm.NAME and not args.quick:
        tokenizer, model = random_lm.build("alfworld", **SHAPE)
        policy = Policy(model.eval(), tokenizer, False, "random weights of SmolLM2's shape")
    other = copy.copy(policy)
    other.model = copy.deepcopy(policy.model).to(torch.bfloat16)
    return {"fp32": policy, "bf16": other}


@torch.no_grad()
def read_and_write(policy: Policy, prompts: list[list[int]], given: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Seconds of reading the prompts, of writing `given` (steps, rows); log-probabilities (steps, rows) of these."""
    begin = time.perf_counter()
    cache = new_cache(policy.model, len(prompts), max(map(len, prompts)) + len(given))
    logits = feed(policy, cache, prompts)
    middle, found = time.perf_counter(), []
    for tokens in given:
        scores = logits.reshape(len(prompts), -1).float().log_softmax(-1)
        found.append(scores.gather(1, torch.tensor(tokens)[:, None])[:, 0].numpy())
        logits = feed(policy, cache, [[int(token)] for token in tokens])
    return middle - begin, time.perf_counter() - middle, np.array(found)


class Update(TrainerCallback):
    """The trainer on recorded episodes: seconds of each update, from the end of `sample` to the optimiser's log."""

    def __init__(self, policy: Policy, trajectories: list, bf16: bool, count: int):
        self.policy, self.trajectories, self.seconds, self.begin = copy.copy(policy), trajectories, [], 0.0
        self.policy.model = copy.deepcopy(policy.model)
        settings = grpo.GRPOSettings(
            iterations=count, games_per_iteration=1, group_size=len(trajectories), bf16=bf16, micro_batch_size=2,
            learning_rate=1e-6,
        )  # fmt: skip
        self.trainer = grpo.Training(self.policy, [], settings, callbacks=[self])
        self.trainer.sample = self.sample

    def sample(self, iteration: int) -> list:
        self.begin = time.perf_counter()
        return self.trajectories

    def on_log(self, args, state, control, logs, **_):
        if "grad_norm" in logs:
            self.seconds.append(time.perf_counter() - self.begin)


def bare_steps(policy: Policy, played: list, count: int) -> list[float]:
    """Seconds of each of `count` plain policy gradient steps on recorded episodes."""
    model, seconds = copy.deepcopy(policy.model).train(), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, weight_decay=0.0)
    for _ in range(count):
        begin = time.perf_counter()
        for start in range(0, len(played), 2):
            rows = played[start : start + 2]
            length = max(len(t.prompt_ids) + len(t.completion_ids) for t in rows)
            ids, weight = torch.zeros(len(rows), length, dtype=torch.long), torch.zeros(len(rows), length)
            seen = torch.zeros_like(ids)
            for i, t in enumerate(rows):
                text, at = t.prompt_ids + t.completion_ids, len(t.prompt_ids)
                ids[i, : len(text)], seen[i, : len(text)] = torch.tensor(text), 1
                for turn in t.turns:
                    weight[i, at + turn.span[0] : at + turn.span[1]] = turn.advantage
                weight[i] /= max(sum(t.mask), 1) * len(played)
            logits = model(input_ids=ids, attention_mask=seen).logits[:, :-1].float()
            chosen = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
            (-(chosen * weight[:, 1:]).sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - begin)
    return seconds


def beside(name: str, ours: list[float], plain: list[float]) -> dict:
    """A printed line, and what is kept of it."""
    ratio = median(plain) / median(ours)
    print(f"{name:<8}  ours {median(ours):7.2f} s   theirs {median(plain):7.2f} s   ratio {ratio:.2f}", flush=True)
    return {"what": name, "ours": ours, "theirs": plain, "theirs_over_ours": ratio}


def row(name: str, count: int, tokens: int, seconds: dict[str, list[float]], apart: float | None = None) -> dict:
    middle = {kind: median(values) for kind, values in seconds.items()}
    shown = [f"{middle[k]:.2f} s ({min(seconds[k]):.2f} to {max(seconds[k]):.2f})" for k in ("fp32", "bf16")]
    ratio = middle["fp32"] / middle["bf16"]
    print(LINE.format(name, count, *shown, f"{tokens / middle['fp32']:,.0f}", f"{ratio:.2f} x",
                      "" if apart is None else f"{apart:.1e}"), flush=True)  # fmt: skip
    return {"what": name, "rows": count, "tokens": tokens, "seconds": seconds, "fp32_over_bf16": ratio, "apart": apart}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4, help="texts side by side")
    parser.add_argument("--steps", type=int, default=16, help="tokens written")
    parser.add_argument("--repeat", type=int, default=2, help="of each, after the warm-up")
    parser.add_argument("--random", action="store_true", help="random weights, also where SmolLM2 is there")
    parser.add_argument("--quick", action="store_true", help="a tiny random model, once")
    parser.add_argument("--out", type=Path, help="write the results here as JSON")
    args = parser.parse_args()
    if args.quick:
        args.rows, args.steps, args.repeat = 2, 4, 1
    policies = models(args)
    policy, kinds = policies["fp32"], ("fp32", "bf16")
    cpuinfo = Path("/proc/cpuinfo")
    flags = [flag for flag in FLAGS if cpuinfo.exists() and flag in cpuinfo.read_text()]
    print(DEFINITIONS, "\n")
    print(f"{policy.name}; bf16 in this processor: {', '.join(flags) or 'none'}; threads: {torch.get_num_threads()}; "
          f"load {os.getloadavg()[0]:.1f}\n")  # fmt: skip
    print(LINE.format("", "rows", "fp32", "bf16", "tokens/s", "fp32/bf16", "apart"))

    card = sglib.envs.get("alfworld")
    tasks = card.tasks(args.rows, seed=1)
    openings = [sglib.formats.opening("act", card, card.make().reset(task).text, False) for task in tasks]
    prompts = [policy.prompt_ids(opening, "Action:") for opening in openings]
    given = np.random.default_rng(0).integers(3, 1000, (args.steps, args.rows))
    seconds = {part: {kind: [] for kind in kinds} for part in ("read", "write", "update")}
    found = {}
    for _ in range(args.repeat + 1):
        for kind in kinds:
            read, write, found[kind] = read_and_write(policies[kind], prompts, given)
            seconds["read"][kind].append(read)
            seconds["write"][kind].append(write)
    apart = float(np.abs(found["fp32"] - found["bf16"]).mean())
    if not apart < 0.5:
        raise SystemExit(f"fp32 and bf16 are {apart:.2g} nats apart: not the same work")

    options = sglib.Options(max_new_tokens=8)
    turns, group = 2 if args.quick else 4, max(2, args.rows // 2)
    played = sglib.rollout(policy, tasks[:1], turns=turns, group=group, options=options)
    noise = np.random.default_rng(0)
    for t in played:
        t.total_return = 0.0
        for turn in t.turns:
            turn.advantage = float(noise.normal())
    updates = {kind: Update(policy, played, kind == "bf16", args.repeat + 1) for kind in kinds}
    for kind in kinds:
        updates[kind].trainer.train()
        seconds["update"][kind] = updates[kind].seconds
    plain = bare_steps(policy, played, args.repeat + 1)
    # TRL first: what it warms up it warms up for the others
    times = {method: [] for method in "abc"}
    for _ in range(args.repeat):
        done = {m: rollout.PLAY[m](policy, tasks, 2, turns, 0, True, options.max_new_tokens) for m in "abc"}
        for method, batch in done.items():
            times[method].append(batch.seconds)
    same = {m: sum(x == y for x, y in zip(done[m].actions, done["c"].actions)) for m in "ab"}
    kept = {part: {kind: values[1:] for kind, values in by.items()} for part, by in seconds.items()}
    results = [
        row("read", args.rows, sum(map(len, prompts)), kept["read"], apart),
        row("write", args.rows, given.size, kept["write"], apart),
        row("update", len(played), sum(len(t.prompt_ids) + len(t.completion_ids) for t in played), kept["update"]),
    ]
    print()
    others = [beside(name, times["c"], times[m]) for m, name in (("a", "TRL"), ("b", "generate"))]
    others.append(beside("update", kept["update"]["fp32"], plain[1:]))
    print(f"the same actions as ours: TRL {same['a']}, generate {same['b']} of {2 * len(tasks)} episodes")
    if args.out:
        made_by = {"torch": torch.__version__, "python": platform.python_version(), "cores": os.cpu_count()}
        made_by |= {"when": time.strftime("%Y-%m-%d"), "flags": flags, "threads": torch.get_num_threads()}
        made_by |= {"load": os.getloadavg()[0], "model": policy.name}
        whole = {"made_by": made_by, "definitions": DEFINITIONS, "rows": results, "beside": others, "same": same}
        write_atomic(args.out, json.dumps(whole, indent=1))


if __name__ == "__main__":
    main()
