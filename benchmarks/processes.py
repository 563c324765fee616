"""How many tokens a second do one and two processes play and learn, together, and one with vLLM's answers?

    python benchmarks/processes.py                       # some minutes on two idle cores
    python benchmarks/processes.py --vllm PYTHON         # and with vLLM, by the interpreter of its environment
    python benchmarks/processes.py --quick               # smoke run: one process, one iteration
    python benchmarks/processes.py --out processes.json

What is measured is printed with the results. Two processes need two free cores: see the load that is printed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

import sglib
from sglib.experiments.recipe import load_recipe
from sglib.models import processes
from sglib.records import write_atomic
from sglib.training.grpo import GRPOSettings, train

ROOT = Path(__file__).resolve().parents[1]
DEFINITIONS = """\
Wall time of the first process, which waits for the others, fp32, one thread a process; the median of the iterations
          after the first. All train the shipped base model by `self_guide` on the same batches.
processes started by `accelerate launch --config_file params/accelerate/cpu.yaml`; one without a launcher.
play      tokens a second that the policy writes, all processes together.
learn     tokens a second that are trained on (prompts and observations included): rewards, advantages, update.
load      of the machine before the start (1 minute): what others take, these processes cannot have.
vLLM      one process, in which vLLM writes the answers (its own draws, so other episodes of the same games).
Same work every number of processes has the same tokens, and the first iteration's loss and gradient within 1e-3."""
LINE = "{:<12}{:>10}{:>10}{:>12}{:>12}{:>12}{:>12}{:>8}"


def work(options) -> None:
    """One training, in each of its processes; the first writes what it took."""
    torch.set_num_threads(1)
    processes.join()
    rows = []

    def note(row: dict, batch: list) -> None:
        numbers = {name: row[name] for name in ("loss", "grad_norm", "rollout_seconds", "update_seconds")}
        numbers["learn_seconds"] = row["reward_seconds"] + numbers.pop("update_seconds")
        written = [sum(t.mask) for t in batch]
        read = [len(t.prompt_ids) + len(t.completion_ids) for t in batch]
        rows.append(numbers | {"written": int(np.sum(written)), "read": int(np.sum(read))})

    policy = sglib.load_policy("base", env="alfworld", engine="vllm" if options.vllm else None)
    recipe = load_recipe("self_guide")
    settings = GRPOSettings(
        iterations=options.repeats + 1, games_per_iteration=options.games, group_size=options.group, format="guide",
        max_turns=options.turns, learning_rate=1e-4, lr_schedule="constant",
    )  # fmt: skip
    games = sglib.envs.get("alfworld").tasks(settings.iterations * options.games, seed=30_000)
    train(policy, games, settings, recipe.components, recipe.estimator, on_iteration=note)
    if processes.first():
        write_atomic(options.work, json.dumps(rows))


def measured(count: int, options, folder: Path, vllm: str | None = None) -> dict:
    """What `count` processes took, or one with the vLLM of this interpreter, iteration by iteration."""
    out = folder / f"{'vllm' if vllm else count}.json"
    start = [vllm or sys.executable]
    if count > 1:
        start += ["-m", "accelerate.commands.launch", "--config_file", str(ROOT / "params/accelerate/cpu.yaml")]
        start += ["--num_processes", str(count)]
    sizes = [f"--{name}={getattr(options, name)}" for name in ("repeats", "games", "group", "turns")]
    sizes += [f"--vllm={vllm}"] if vllm else []
    way = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    load, begin = os.getloadavg()[0], time.perf_counter()
    done = subprocess.run(
        [*start, __file__, "--work", str(out), *sizes], env=os.environ | way, text=True, capture_output=True
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{out.stem} processes: exit status {done.returncode}\n{done.stderr[-2000:]}")
    rows = json.loads(out.read_text())
    later = rows[1:] or rows
    return {
        "processes": count,
        "answers": "vllm" if vllm else "the model",
        "play": median(row["written"] / row["rollout_seconds"] for row in later),
        "learn": median(row["read"] / row["learn_seconds"] for row in later),
        "all": time.perf_counter() - begin,
        "load_before": load,
        "iterations": rows,
    }


def check_same(one: dict, other: dict) -> None:
    """The first batch is the same to the token, and what it teaches within rounding."""
    a, b = one["iterations"][0], other["iterations"][0]
    same = a["written"] == b["written"] and a["read"] == b["read"]
    if not (same and all(np.isclose(a[name], b[name], rtol=1e-3, atol=1e-4) for name in ("loss", "grad_norm"))):
        raise SystemExit(f"not the same work by {other['processes']} processes: {a} and {b}")


def show(row: dict, first: dict, name: str) -> None:
    ratios = [f"{row[which] / first[which]:.2f} x" for which in ("play", "learn")]
    shown = [f"{row['play']:,.0f}", f"{row['learn']:,.0f}", *ratios, f"{row['iterations'][0]['read']:,}"]
    print(LINE.format(name, *shown, f"{row['all']:.1f}", f"{row['load_before']:.1f}"), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="the first is compared with")
    parser.add_argument("--repeats", type=int, default=5, help="iterations that are measured (default: %(default)s)")
    parser.add_argument("--games", type=int, default=8, help="of an iteration, a multiple of every number of processes")
    parser.add_argument("--group", type=int, default=8, help="episodes of a game (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=30, help="of an episode (default: %(default)s)")
    parser.add_argument("--vllm", help="a Python in whose environment vLLM is installed, for a row of its own")
    parser.add_argument("--quick", action="store_true", help="one process, too little to judge by")
    parser.add_argument("--out", type=Path, help="write the results here as JSON")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return work(options)
    if options.quick:
        options.processes, options.repeats, options.games, options.group, options.turns = [1], 1, 2, 2, 4
    print(DEFINITIONS, "\n")
    print(LINE.format("", "play", "learn", "play, x", "learn, x", "tokens", "all, s", "load"))
    print(
        LINE.format(
            "processes", "tok/s", "tok/s", f"of {options.processes[0]}", f"of {options.processes[0]}", *[""] * 3
        )
    )
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in options.processes:
            rows.append(row := measured(count, options, Path(folder)))
            check_same(rows[0], row)
            show(row, rows[0], str(count))
        if options.vllm:
            rows.append(row := measured(1, options, Path(folder), options.vllm))
            show(row, rows[0], "1, vLLM")
    print("\nSame work: the first batch has the same tokens, loss and gradient")
    if options.quick:
        print("--quick: one process, nothing to compare")
    if options.out:
        made_by = {name: importlib.metadata.version(name) for name in ("torch", "trl", "accelerate")}
        made_by |= {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
        found = {"made_by": made_by, "when": time.strftime("%Y-%m-%d"), "definitions": DEFINITIONS, "rows": rows}
        write_atomic(options.out, json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
