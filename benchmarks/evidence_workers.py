"""How many of the evidence's cells does an hour hold, with one and two workers, by the pool and by Dask?

    python benchmarks/evidence_workers.py                       # about five minutes on two cores
    python benchmarks/evidence_workers.py --quick               # smoke run
    python benchmarks/evidence_workers.py --out evidence_workers.json

What is measured is printed with the results. Needs Dask: pip install -c constraints.txt -e '.[cluster]'
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sglib.experiments import evidence
from sglib.records import write_atomic

DEFINITIONS = """\
Wall time. A cell here is the smallest there is, so that what surrounds a training weighs most: `self_guide`, one
          iteration of 2 x 2 episodes of at most 3 turns, 4 games before and after.
pool      `python -m sglib evidence --jobs N`: a process for each cell, forked from one that has imported everything.
dask      `--scheduler local --jobs N`: Dask's scheduler here, N processes that train one cell after the other.
start     seconds until the first cell is written: processes, imports, one cell. The pool's second measurement finds
          the process that has imported everything still there.
cells/h   of those after the first N, which begin with a start: 3600 x their number / (last end - N-th end).
Same work every way makes the same cells, to the last digit; times and memory apart."""
PLAN = """
env: alfworld
size: mini
seed: 1
grpo: {{iterations: 1, games_per_iteration: 2, group_size: 2, eval_games: 4, eval_every: 1, max_turns: 3}}
grid: {{headline: [self_guide], headline_seeds: {cells}}}
"""
LINE = "{:<8}{:>8}{:>8}{:>10}{:>10}{:>12}{:>14}"
TIMED = ("seconds", "cpu_seconds", "peak_memory_mb", "env_steps_per_second", "policy_tokens_per_second")


@contextmanager
def outputs() -> Iterator[Path]:
    """A new folder into which everything is written."""
    before = os.environ.get("SGLIB_OUTPUT")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SGLIB_OUTPUT"] = folder
        try:
            yield Path(folder)
        finally:
            os.environ.pop("SGLIB_OUTPUT")
            if before is not None:
                os.environ["SGLIB_OUTPUT"] = before


def measured(way: str, workers: int, cells: int) -> tuple[dict, dict]:
    """What a way took, and the content of its cells without times and memory."""
    ends = []
    with outputs() as folder:
        (folder / "mini.yaml").write_text(PLAN.format(cells=cells))
        planned = evidence.plan(folder / "mini.yaml")

        def say(line: str):
            if line.startswith("self_guide"):
                ends.append(time.perf_counter() - began)

        began, load = time.perf_counter(), os.getloadavg()[0]
        done, failed = evidence.fill(planned, workers, say, "local" if way == "dask" else None)
        if failed or done != cells:
            raise RuntimeError(f"{way}, {workers} workers: {failed}")
        found = evidence.read_evidence(planned, [folder / "evidence" / "mini"]).cells
    for cell in found.values():
        cell["card"] = {key: value for key, value in cell["card"].items() if key not in TIMED}
        cell["batches"] = {name: column for name, column in cell["batches"].items() if not name.endswith("_seconds")}
    per_hour = 3600 * (cells - workers) / (ends[-1] - ends[workers - 1])
    row = {"way": way, "workers": workers, "start": ends[0], "all": ends[-1], "per_hour": per_hour, "ends": ends}
    return row | {"load_before": load}, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=24, help="of each measurement, at least 3 (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="two cells by one worker, too little to judge by")
    parser.add_argument("--out", type=Path, help="write the results here as JSON")
    options = parser.parse_args()
    cells = 2 if options.quick else max(3, options.cells)
    print(DEFINITIONS, "\n")
    print(LINE.format("", "workers", "cells", "start, s", "all, s", "cells/h", "x pool with"))
    print(LINE.format("", "", "", "", "", "", "as many"))
    rows, first = [], None
    for workers in (1,) if options.quick else (1, 2):
        for way in ("pool", "dask"):
            row, found = measured(way, workers, cells)
            first = first or found
            if found != first:
                differing = [name for name in first if found.get(name) != first[name]]
                raise SystemExit(f"not the same cells by {way} with {workers} workers: {', '.join(differing)}")
            pool = next(other for other in [*rows, row] if other["workers"] == workers)
            rows.append(row | {"to_pool": row["per_hour"] / pool["per_hour"]})
            numbers = [f"{row[name]:,.{digits}f}" for name, digits in (("start", 1), ("all", 1), ("per_hour", 0))]
            print(LINE.format(way, workers, cells, *numbers, f"{rows[-1]['to_pool']:.2f} x"), flush=True)
    print("\nSame work: every way made the same cells, to the last digit")
    for way in ("pool", "dask") if not options.quick else ():
        one, two = (row["per_hour"] for row in rows if row["way"] == way)
        print(f"{way}: two workers make {two / one:.2f} x the cells of one")
    if options.quick:
        print("--quick: too few to judge anything by")
    if options.out:
        made_by = {name: importlib.metadata.version(name) for name in ("torch", "distributed")}
        made_by |= {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
        found = {"made_by": made_by, "when": time.strftime("%Y-%m-%d"), "cells": cells, "definitions": DEFINITIONS}
        write_atomic(options.out, json.dumps(found | {"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
