"""How long does a whole GRPO iteration take, where does it go, and how are two cores used best?

    python benchmarks/iteration.py                        # about three minutes
    python benchmarks/iteration.py --quick                # smoke run
    python benchmarks/iteration.py --out iteration.json

What is measured is printed with the results.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import torch

import sglib
from sglib.experiments.recipe import load_recipe
from sglib.records import write_atomic
from sglib.training.grpo import GRPOSettings, train

GOAL = 5.0
DEFINITIONS = f"""\
Wall time, in seconds of perf_counter; medians over the iterations of a run, the first left out, their range behind.
Iteration 8 generated games (at most 12 receptacles) x 8 episodes of at most 30 turns, shipped base model, fast engine,
          rewards and advantages of the recipe, one optimiser step. `sglib.training.grpo.train`, no evaluation.
rollout   playing the episodes; "rewards" what the recipe computes of them, and advantages; "update" the rest of the
          iteration: TRL's batch, forward and backward passes, optimiser, metrics.
alone     one run that has both cores: two threads, each with one of torch's. "1 thread": one run with one.
by side   two runs at the same time, one thread each, as the study trains its arms; an iteration of one of them.
per hour  iterations that the machine finishes in an hour.
Goal      an iteration of "grpo" with two threads takes at most {GOAL:g} s."""
LINE = "{:<12}{:<12}{:>8}  {:<16}{:>9}{:>9}{:>8}{:>10}"
PARTS = ("rollout", "reward", "update")


def worker(recipe: str, threads: int, iterations: int, episodes: int) -> None:
    """Train, and print what each iteration took as JSON."""
    torch.set_num_threads(threads)
    made = load_recipe(recipe)
    groups = max(1, episodes // 8)
    policy, games = sglib.load_policy("base", device="cpu"), sglib.envs.alfworld.generate_games(groups * iterations, 5)
    settings = GRPOSettings(iterations=iterations, games_per_iteration=groups, format=made.format, loss_type="grpo")
    found = train(policy, games, settings, made.components, made.estimator).metrics
    print(json.dumps([{part: entry[f"{part}_seconds"] for part in PARTS} for entry in found[1:]]))


def run(recipe: str, threads: int, at_once: int, iterations: int, episodes: int) -> list[dict]:
    """The iterations of `at_once` runs that are started together, each in a process of its own."""
    command = [sys.executable, __file__, "--worker", recipe, str(threads), str(iterations), str(episodes)]
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    begun = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(at_once)
    ]
    entries = []
    for process in begun:
        out, error = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)}: {error[-2000:]}")
        entries += json.loads(out.splitlines()[-1])
    return entries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=["grpo", "self_guide", "igpo"], help="names or files")
    parser.add_argument("--iterations", type=int, default=6, help="of each run, at least 2")
    parser.add_argument("--quick", action="store_true", help="one recipe, 8 episodes, too little to judge by")
    parser.add_argument("--out", type=Path, help="write the results here as JSON")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        recipe, *numbers = options.worker
        return worker(recipe, *map(int, numbers))
    recipes, iterations, episodes = options.recipes, max(2, options.iterations), 64
    if options.quick:
        recipes, iterations, episodes = recipes[:1], 2, 8
    print(DEFINITIONS, "\n")
    print(LINE.format("recipe", "", "s", "range", "rollout", "rewards", "update", "per hour"))
    results = []
    ways = (("alone", 2, 1), ("1 thread", 1, 1), ("by side", 1, 2))
    for recipe in recipes:
        for name, threads, at_once in ways[2:] if options.quick else ways:
            entries = run(recipe, threads, at_once, iterations, episodes)
            totals = [sum(entry.values()) for entry in entries]
            middle, parts = median(totals), [median(entry[part] for entry in entries) for part in PARTS]
            results.append({"recipe": recipe, "how": name, "threads": threads, "at_once": at_once, "seconds": totals}
                           | dict(zip(PARTS, parts)))  # fmt: skip
            spread = f"({min(totals):.2f} to {max(totals):.2f})"
            numbers = [f"{value:.2f}" for value in parts] + [f"{3600 * at_once / middle:,.0f}"]
            print(LINE.format(recipe, name, f"{middle:.2f}", spread, *numbers), flush=True)
    first = median(results[0]["seconds"])
    verdict = "too small to judge" if options.quick else "met" if first <= GOAL else "NOT met"
    print(f"\nGoal: an iteration of {recipes[0]!r} with two threads in at most {GOAL:g} s: {first:.2f} s, {verdict}")
    if options.out:
        made_by = {"torch": torch.__version__, "python": platform.python_version(), "cores": os.cpu_count()}
        made_by |= {"machine": platform.machine(), "when": time.strftime("%Y-%m-%d"), "episodes": episodes}
        write_atomic(
            options.out, json.dumps({"made_by": made_by, "definitions": DEFINITIONS, "rows": results}, indent=1)
        )


if __name__ == "__main__":
    main()
