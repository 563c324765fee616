"""How well do the shipped models play ALFWorld's own validation games?

    python benchmarks/official.py --data FOLDER                                    # FOLDER has json_2.1.1/ in it
    python benchmarks/official.py --data FOLDER --out outputs/reference/official.json
    python benchmarks/official.py --quick                                          # smoke run, on generated games

Each model plays each game of each panel once per evaluation seed. Success has the two-way interval of
`sglib.intervals.success`, for other seeds and other games.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import torch

import sglib
from sglib.envs.alfworld import official_panel
from sglib.envs.panels import panel_hash
from sglib.measure.intervals import points, success, wilson
from sglib.records import write_atomic

LINE = "{:<12} {:<22} {:>11}  {}"


def play(policy, games: list, settings: dict, seeds: list[int]) -> dict:
    """Outcomes of a model on a panel, with their interval; the wins of each seed have Wilson's, for other games."""
    outcomes, rows = {}, []
    for seed in seeds:
        report = sglib.evaluate(policy, games, seed=seed, options=sglib.Options(truth=False), **settings)
        outcomes[seed] = report.outcomes
        rows.append({"seed": seed, "wins": report.wins, "interval": wilson(report.wins, report.n),
                     "outcomes": "".join(map(str, report.outcomes))})  # fmt: skip
    found = success(outcomes)
    return {"games": len(games), "panel_hash": panel_hash(games), "success": found.estimate,
            "interval": [found.low, found.high], "seeds": rows}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="ALFWorld's data; else SGLIB_ALFWORLD_DATA or ALFWORLD_DATA")
    parser.add_argument("--models", nargs="+", default=["base_v1", "base_strong"], help="what sglib.load_policy takes")
    parser.add_argument("--format", default="act")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.4], help="0 is greedy, played with one seed")  # noqa: E501
    parser.add_argument("--max-turns", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=4, help="evaluation seeds 0, 1, ...; at least 2")
    parser.add_argument("--quick", action="store_true", help="four generated games, too few to judge by")
    parser.add_argument("--out", type=Path, help="write the results here as JSON")
    args = parser.parse_args()
    if args.quick:
        panels, args.models, args.max_turns, args.seeds = {"generated": sglib.panel("alfworld", n=4)}, ["base"], 5, 2
    else:
        panels = {f"official_{split}": official_panel(split, args.data) for split in ("valid_seen", "valid_unseen")}
    results = []
    for model in args.models:
        policy = sglib.load_policy(model)
        for temperature in args.temperatures:
            settings = {"format": args.format, "temperature": temperature, "turns": args.max_turns}
            for name, games in panels.items():
                start = time.perf_counter()
                found = play(policy, games, settings, list(range(args.seeds)))
                results.append({"model": model, "panel": name, **settings, **found})
                text = points(found["success"], *found["interval"], " %")
                print(LINE.format(model, name, f"t = {temperature:g}", text), f"{time.perf_counter() - start:.0f} s")
    if args.out:
        made_by = sglib.runs.versions() | {"python": platform.python_version(), "torch": torch.__version__}
        write_atomic(args.out, json.dumps({"made_by": made_by, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
