"""How long does a person wait for the inspector: to open thousands of episodes, and at each filter, sort and search?

    python benchmarks/inspector.py                 # 5,000 episodes of up to 30 turns: under two minutes
    python benchmarks/inspector.py --quick         # smoke run: 60 episodes
    python benchmarks/inspector.py --out inspector.json   # every number

The episodes are real ones of the base model, repeated under other names. What is measured is printed with the results.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import sglib
from sglib.records import Trajectory, iter_trajectories, without_tokens, write_atomic, write_trajectories

DEFINITIONS = """\
Wall time in seconds of perf_counter until the page is made, which the browser then draws (some 40 rows); median of the
repetitions and their range. Files are in the operating system's cache.
open      sglib.inspect(path): read the file (tokens wait until an episode is opened), make the table, make the page.
plain     list(iter_trajectories(path)): the same file read by the json module alone, the reader's reference.
others    what a click or a key does in the open widget."""
ACTIONS = (
    ("filter: lost", "outcome", "lost"), ("filter: loops", "looping", True), ("filter: 10 turns up", "shortest", "10"),
    ("text, first search", "text", "drawer 1"), ("text, next letter", "text", "drawer 10"), ("clear text", "text", ""),
    ("sort by internal", "sort", "internal"), ("next page", "page", "1"), ("open an episode", "open", "1"),
    ("next turn", "turn", "1"), ("tokens", "view", "tokens"),
)  # fmt: skip


def episodes(count: int, turns: int, seed: int) -> list[Trajectory]:
    policy = sglib.load_policy("base", device="cpu")
    tasks = sglib.envs.get("alfworld").tasks(min(count, 250), seed=seed)
    played = sglib.rollout(policy, tasks, format="guide", turns=turns, temperature=1.0, seed=seed)
    sglib.rewards.combine(played, [sglib.rewards.Outcome(), sglib.rewards.SelfGuide(schedule=1.0)], u=0.5)
    return [replace(played[i % len(played)], game_id=f"{played[i % len(played)].game_id}-{i}") for i in range(count)]


def timed(action) -> tuple[float, object]:
    begin = time.perf_counter()
    found = action()
    return time.perf_counter() - begin, found


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run: few and short episodes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, help="(default 5; --quick: 2)")
    parser.add_argument("--out", type=Path, help="write every number to this JSON file")
    args = parser.parse_args()
    repeats = args.repeats or (2 if args.quick else 5)
    count, turns = (60, 6) if args.quick else (5000, 30)
    made = episodes(count, turns, args.seed)
    bare = list(map(without_tokens, made))
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = write_trajectories(Path(folder) / "t.jsonl", made)
        size = path.stat().st_size
        for _ in range(repeats):
            seconds, found = timed(lambda: list(iter_trajectories(path)))
            times.setdefault("plain", []).append(seconds)
            same = found == made
            del found  # each reading finds the memory as the other did
            seconds, widget = timed(lambda: sglib.inspect(path))
            times.setdefault("open", []).append(seconds)
            if not same or list(map(without_tokens, widget.trajectories)) != bare:
                raise SystemExit("what was read is not what was written")
            for text, do, value in ACTIONS:
                times.setdefault(text, []).append(timed(partial(widget.act, do, value))[0])
            widget.close()  # or ipywidgets would keep it, and all its episodes
            del widget
    print(DEFINITIONS + "\n")
    if args.quick:
        print("--quick: too few episodes to judge anything by.\n")
    print(f"{count:,} episodes, {sum(map(len, made)):,} turns, {size / 1e6:.0f} MB\n")
    for text, values in times.items():
        ratio = f"   plain takes {median(times['plain']) / median(values):.1f} x" if text == "open" else ""
        print(f"{text:28s} {median(values):7.3f} s ({min(values):.3f} to {max(values):.3f}){ratio}")
    if args.out:
        made_by = {name: importlib.metadata.version(name) for name in ("msgspec", "pandas", "anywidget")}
        made_by |= {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
        found = {"made_by": made_by, "definitions": DEFINITIONS, "episodes": count, "turns": sum(map(len, made))}
        write_atomic(args.out, json.dumps(found | {"bytes": size, "seconds": times}, indent=1))


if __name__ == "__main__":
    main()
