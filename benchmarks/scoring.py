"""How long does information gain (`sglib.rewards.igpo`) take to score a text at each turn of 64 episodes: by re-reading
the history each time, or by reading each episode once?

    python benchmarks/scoring.py                  # all of it: about five minutes
    python benchmarks/scoring.py --quick          # smoke run, under half a minute; episodes too few to judge by
    python benchmarks/scoring.py --threads 1 2    # with one and with two of torch's threads
    python benchmarks/scoring.py --out scoring.json

Both give the same log-probabilities, which is checked. What is measured is printed with the results.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import os
import platform
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np
import torch
from tqdm.auto import tqdm

import sglib
from sglib import formats
from sglib.envs.alfworld import generate_games
from sglib.play import scoring
from sglib.play.scoring import branch_logprobs, given_tokens
from sglib.records import write_atomic
from sglib.rewards.igpo import _encode, targets

TARGETS = ("facts", "plan")
TOLERANCE = 1e-4
ROWS = 16  # texts in one forward pass of (1)
DEFINITIONS = f"""\
Wall time in seconds of perf_counter, base model, fp32, one process. "a (b to c)" is the median of the repetitions and
their range. In a repetition each way is timed once, one after the other; a warm-up of each comes before, on two games.
Episodes  generated games (at most 12 receptacles), one episode each, format "act", temperature 1, seeded: the same in
          every repetition. A text is scored at each context point (the prompt, then behind every observation).
Target    "facts": where the things lie that are needed, fixed for the episode. "plan": what remains to be done.
(1)       the plain way: at each context point one forward pass of transformers' Qwen3 over the whole context and the
          target; {ROWS} texts a pass, those of similar length together, padded on the right.
(2)       branch_logprobs on the recorded episodes: each is read once, with a key-value cache of its own.
Read      tokens that the model reads for scoring (padding left out), over target tokens. A target's last token
          predicts nothing, so the least is somewhat below 1.
Agree     largest difference of a log-probability from (2), allowed {TOLERANCE}."""
LINE = "{:<10}{:<30}{:<26}{:>9}{:>12}{:>12}{:>10}"
HEAD = ("", "", "seconds", "of (2)", "read", "read/target", "agree")


@contextmanager
def counted():
    """Counts the tokens that `feed` reads in branch_logprobs."""
    found, original = [0], scoring.feed

    def spy(policy, cache, tokens, *args, **kwargs):
        found[0] += sum(map(len, tokens))
        return original(policy, cache, tokens, *args, **kwargs)

    try:
        scoring.feed = spy
        yield found
    finally:
        scoring.feed = original


@torch.no_grad()
def plain(policy, trajectories, branches) -> list[list[np.ndarray]]:
    """(1): as branch_logprobs with `drop_prefix`."""
    texts, found = [], [[np.zeros(0)] * len(row) for row in branches]
    for i, (t, row) in enumerate(zip(trajectories, branches)):
        ids = t.prompt_ids + t.completion_ids
        for j, (turn, branch) in enumerate(zip(t.turns, row)):
            context = ids[: len(t.prompt_ids) + turn.span[0]]
            context = context[: -given_tokens(policy, context, formats.PREFIX[t.format], t.game_id)]
            if branch:
                texts.append((context + branch[:-1], branch, i, j))
    texts.sort(key=lambda text: len(text[0]))
    plain.read = sum(len(ids) for ids, *_ in texts)
    for first in range(0, len(texts), ROWS):
        part = texts[first : first + ROWS]
        width = len(part[-1][0])
        block = torch.tensor([ids + [0] * (width - len(ids)) for ids, *_ in part])
        logits = policy.model(block, use_cache=False).logits
        for row, (ids, branch, i, j) in zip(logits, part):
            logprobs = torch.log_softmax(row[len(ids) - len(branch) : len(ids)], -1)
            found[i][j] = logprobs.gather(-1, torch.tensor(branch)[:, None])[:, 0].double().numpy()
    return found


def distance(one, two) -> float:
    return max(np.abs(a - b).max(initial=0) for x, y in zip(one, two, strict=True) for a, b in zip(x, y, strict=True))


class Work:
    """The episodes of some games and what is asked about them."""

    def __init__(self, policy, games, max_turns: int, seed: int):
        self.policy, self.games = policy, games
        rare = sglib.Options(truth=False)
        self.trajectories = sglib.rollout(policy, games, turns=max_turns, seed=seed, options=rare)
        self.branches = {name: self.encode(name) for name in TARGETS}

    def encode(self, name: str) -> list[list[list[int]]]:
        texts = targets(name, self.trajectories, self.policy, {game.id: game for game in self.games})[0]
        return [[_encode(self.policy.encode, pieces)[0] for pieces in row] for row in texts]

    def ways(self, name: str) -> dict:
        """What is timed, in this order."""
        branches = self.branches[name]
        return {
            "targets": lambda: self.encode(name),
            "plain": lambda: plain(self.policy, self.trajectories, branches),
            "branch": lambda: branch_logprobs(self.policy, self.trajectories, branches, drop_prefix=True),
        }


def compare(name: str, work: Work, small: Work, threads: int, args, bar) -> dict:
    """One target: seconds of each way, tokens read, and how far the answers are apart."""
    torch.set_num_threads(threads)
    seconds, answers, read = {}, {}, {}
    for repeat in range(args.repeats + 1):
        gc.collect()
        for way, function in (work if repeat else small).ways(name).items():
            bar.set_description(f"{name}, {threads} threads, {way}")
            begin = time.perf_counter()
            answers[way] = function()
            if repeat:
                seconds.setdefault(way, []).append(time.perf_counter() - begin)
            bar.update()
    read["plain"] = plain.read
    with counted() as found:
        work.ways(name)["branch"]()
    read["branch"] = found[0]
    distances = {"plain": distance(answers["branch"], answers["plain"])}
    found = {"target": name, "threads": threads, "seconds": seconds, "read": read, "distance": distances}
    found["tokens"] = sum(len(ids) for row in work.branches[name] for ids in row)
    once = median(seconds["branch"])
    found["ratio_to_branch"] = {way: median(seconds[way]) / once for way in ("plain",)}
    return found


def text_of(row: dict) -> str:
    def line(label, way, agree=None):
        seconds, read = row["seconds"][way], row["read"].get(way)
        times = f"{median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
        scores = way in ("plain", "branch")
        ratio = f"{median(seconds) / median(row['seconds']['branch']):.2f}x" if scores else ""
        counts = (f"{read:,}", f"{read / row['tokens']:.2f}" if scores else "") if read is not None else ("", "")
        return LINE.format(
            row["target"], label, times, ratio, *counts, "" if agree is None else f"{agree:.0e}"
        ).rstrip()

    return "\n".join(
        [
            line("(1) re-reading", "plain", row["distance"]["plain"]),
            line("(2) branch_logprobs", "branch"),
            line("    making the targets", "targets"),
        ]
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run: few and short episodes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="of torch (default 1)")
    parser.add_argument("--repeats", type=int, help="(default 5; --quick: 2)")
    parser.add_argument("--out", type=Path, help="write every number to this JSON file")
    args = parser.parse_args()
    args.repeats = args.repeats or (2 if args.quick else 5)
    count, turns = (6, 6) if args.quick else (64, 30)
    policy = sglib.load_policy("base", device="cpu")
    games = generate_games(count, seed=args.seed, max_receptacles=12)
    work, small = Work(policy, games, turns, args.seed), Work(policy, games[:2], turns, args.seed)
    with tqdm(total=3 * (args.repeats + 1) * len(TARGETS) * len(args.threads), unit="run") as bar:
        rows = [compare(name, work, small, threads, args, bar) for threads in args.threads for name in TARGETS]
    print(DEFINITIONS + "\n")
    if args.quick:
        print("--quick: episodes too few and too short to judge anything by.\n")
    points = sum(map(len, work.trajectories))
    tokens = sum(len(t.prompt_ids) + len(t.completion_ids) for t in work.trajectories)
    print(f"{count} episodes, {points:,} context points, {tokens:,} tokens in the episodes")
    for threads in args.threads:
        mine = [row for row in rows if row["threads"] == threads]
        asked = ", ".join(f"{row['tokens']:,} in all targets {row['target']!r}" for row in mine)
        print(f"\n{threads} of torch's threads; tokens: {asked}", LINE.format(*HEAD), *map(text_of, mine), sep="\n")
    if args.out:
        options = {key: value for key, value in vars(args).items() if key != "out"}
        made_by = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
        made_by |= {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
        found = {"made_by": made_by, "options": options, "definitions": DEFINITIONS, "episodes": count}
        found |= {"context_points": points, "episode_tokens": tokens, "rows": rows}
        write_atomic(args.out, json.dumps(found, indent=1))
    if wrong := [row["target"] for row in rows if not max(row["distance"].values()) <= TOLERANCE]:
        raise SystemExit(f"not the same work: log-probabilities of {', '.join(wrong)} differ by more than {TOLERANCE}")


if __name__ == "__main__":
    main()
