"""Filling in the evidence: training the cells that are missing, playing them in other rooms, keeping them for a commit.

    python -m sglib evidence --params params/full.yaml                 # fill in what is missing, on every core
    python -m sglib evidence --only grpo igpo --jobs 1                 # some recipes only
    python -m sglib evidence --unseen                                  # what was trained, in rooms never trained in
    python -m sglib evidence --status                                  # what is there

Interrupted and started again, it goes on where it was; a cell that failed keeps its reason beside the others and is
tried again at the next start.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from sglib.envs.panels import panel
from sglib.experiments.arms import ArmResult, arm_folder, arm_recipe, configured_folder, read_arm, sources, train_all
from sglib.experiments.evidence import SEEN, UNSEEN, Cell, folders, plan, read_evidence, reason
from sglib.experiments.identity import weights_hash
from sglib.experiments.params import ParameterError
from sglib.experiments.runs import cached, repo_root, source_hash
from sglib.measure.evaluate import evaluate
from sglib.models.policy import load_policy
from sglib.play.episode import Options
from sglib.records import write_atomic

# what a cell keeps of its training batches
KEPT = re.compile(
    r"iteration|u|lambda/.*|success|return_mean|turns_mean|policy_tokens_mean|invalid_actions|parse_errors|label_.*"
    r"|zero_advantage|reward/.*|calibration/.*|probe/.*|entropy|grad_norm|logprob_gap"
)


def cell_content(cell: Cell, result: ArmResult) -> dict:
    """What is kept of a complete arm: outcomes game by game as text of 0 and 1, numbers to five digits."""
    columns = {
        name: [_short(row.get(name)) for row in result.batches]
        for name in sorted({k for row in result.batches for k in row if KEPT.fullmatch(k)})
    }
    return {
        "recipe": cell.recipe,
        "seed": cell.seed,
        "key": cell.key,
        "panel": result.curve[0]["panel"],
        "params": cell.params.model_dump(exclude={"arms", "run", "output_dir"}),
        "about": arm_recipe(cell.recipe, cell.params).about,
        "card": result.card,
        "before": _bits(result.before),
        "start": _bits(result.start),
        "after": _bits(result.after),
        "curve": [{k: _short(v) for k, v in row.items() if k != "arm"} for row in result.curve],
        "batches": columns,
    }


def _bits(outcomes: Sequence[int]) -> str:
    return "".join(map(str, outcomes))


def _short(value):
    return float(f"{value:.5g}") if isinstance(value, float) else value


# -- rooms never trained in -------------------------------------------------------------------------------------------


def play_unseen(cells: Sequence[Cell], on_update: Callable[[str], None] | None = None) -> tuple[int, list[str]]:
    """Let the policies of complete cells, before and after training, play the panel `valid_unseen`: as many games, in
    the same way, in rooms that nothing was trained in. What has been played is not played again.

    Returns:
        How many cells were played now, and the names of those whose policy is not on this machine.
    """
    say = on_update or (lambda line: None)
    target = folders(cells[0].params.output_dir if cells else "outputs")[0]
    found, known = read_evidence(cells, [target]), read_evidence(cells, [target], UNSEEN)
    played, absent = 0, []
    for cell in (cell for cell in cells if cell.name in found.cells and cell.name not in known.cells):
        made = found.cells[cell.name]["card"]["configuration"]
        trained = configured_folder(cell.recipe, made, cell.params.output_dir) / "policy"
        if not trained.exists():
            absent.append(cell.name)
            continue
        before, after = _play_unseen(cell, None), _play_unseen(cell, trained)
        named = {"recipe": cell.recipe, "seed": cell.seed, "configuration": made, "start": ""}
        result = named | {"panel": after["panel"], "before": before["outcomes"], "after": after["outcomes"]}
        write_atomic(target / UNSEEN / f"{cell.name}.json", json.dumps(result))
        played += 1
        rates = [100 * np.mean([int(x) for x in result[when]]) for when in ("before", "after")]
        say(f"{cell.name}: {rates[0]:.1f} -> {rates[1]:.1f} % in rooms never trained in")
    return played, absent


def _play_unseen(cell: Cell, trained: Path | None) -> dict[str, str]:
    """`panel` and `outcomes` of a trained policy, or of the model that cells begin with: played once for all alike."""
    p = cell.params
    options = {
        "format": arm_recipe(cell.recipe, p).format, "temperature": p.eval_temperature, "turns": p.max_turns,
        "seed": p.seed,
    }  # fmt: skip

    def play(policy: str) -> dict[str, str]:
        games = panel("alfworld", UNSEEN, p.eval_games, p.max_receptacles)
        report = evaluate(
            load_policy(policy), games, **options, options=Options(batch_size=p.batch_size, truth=False)
        )
        return {"panel": report.panel, "outcomes": _bits(report.outcomes)}

    if trained is not None:
        return play(str(trained))
    key = [weights_hash(p.model), p.eval_games, p.max_receptacles, options, source_hash(*sources("alfworld"))]
    base = cached("unseen", key, lambda f: write_atomic(f / "base.json", json.dumps(play(p.model))), p.output_dir)
    return json.loads((base / "base.json").read_text(encoding="utf-8"))


# -- running ----------------------------------------------------------------------------------------------------------


def fill(
    cells: Sequence[Cell], jobs: int | None = None, on_update: Callable[[str], None] | None = None
) -> tuple[int, dict[str, str]]:
    """Train the cells that have no file yet, in order, and write each when it is complete.

    Args:
        cells: of one plan.
        jobs: processes at a time, of one thread each without a GPU; None takes one a core without a GPU and one with.
        on_update: called with a line for people when a cell ends.

    Returns:
        How many were trained, and the reason of each that failed.
    """
    say = on_update or (lambda line: None)
    found = read_evidence(cells)
    waiting = [cell for cell in cells if cell.name not in found.cells]
    target, failed, ended = folders(cells[0].params.output_dir if cells else "outputs")[0], {}, []

    def end(number: int, error: str | None):
        cell = waiting[number]
        note = target / f"{cell.name}.failed.txt"
        if error is not None:
            failed[cell.name] = error
            write_atomic(note, error)
            say(f"{cell.name}: FAILED: {reason(error)}")
            return
        result = read_arm(cell.recipe, arm_folder(cell.recipe, cell.params))
        write_atomic(target / f"{cell.name}.json", json.dumps(cell_content(cell, result)))
        note.unlink(missing_ok=True)
        ended.append(cell.name)
        before, after = (100 * float(np.mean(x)) for x in (result.before, result.after))
        say(
            f"{cell.name}: {before:.1f} -> {after:.1f} %, {result.card['seconds']:.0f} s; "
            f"{len(waiting) - len(ended) - len(failed)} to go"
        )

    # One thread each, however many processes: sums over more round differently, and a cell should not depend on `jobs`.
    threads = None if torch.cuda.is_available() else 1
    train_all([(cell.recipe, cell.params) for cell in waiting], end, jobs, threads=threads)
    return len(ended), failed


def main(arguments: list[str] | None = None) -> int:
    """The command `python -m sglib evidence`."""
    about = "The evidence: every recipe of the study over many seeds, one small file a cell."
    parser = argparse.ArgumentParser(prog="python -m sglib evidence", description=about)
    file = str(repo_root() / "params" / "full.yaml")
    parser.add_argument("--params", default=file, help="default: %(default)s")
    parser.add_argument("--only", nargs="+", metavar="RECIPE", help="only these recipes")
    parser.add_argument("--jobs", type=int, help="processes at a time (default: one a core)")
    parser.add_argument("--unseen", action="store_true", help="let what was trained play in other rooms, and stop")
    parser.add_argument("--status", action="store_true", help="print what is there and stop")
    parser.add_argument("--store", action="store_true", help="copy complete cells to outputs/reference/ and stop")
    options = parser.parse_args(arguments)
    try:
        cells = plan(options.params)
        if unknown := sorted(set(options.only or ()) - {cell.recipe for cell in cells}):
            names = ", ".join(dict.fromkeys(cell.recipe for cell in cells))
            raise ParameterError(f"--only {unknown[0]}: no such recipe in {options.params}; there are: {names}")
        if options.jobs is not None and options.jobs < 1:
            raise ParameterError(f"--jobs {options.jobs}: must be at least 1")
        cells = [cell for cell in cells if not options.only or cell.recipe in options.only]
        if options.store:
            return _store(cells)
        if options.unseen:
            played, absent = play_unseen(cells, lambda line: print(line, flush=True))
            print(f"{played} cells played" + (f"; not trained on this machine: {', '.join(absent)}" if absent else ""))
            return 0
        failed = {}
        if not options.status:
            _, failed = fill(cells, options.jobs, lambda line: print(line, flush=True))
        found = read_evidence(cells)
        if options.only:
            found.unknown = []
        print(found)
        return 1 if failed else 0
    except (ParameterError, ValueError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1


def _store(cells: Sequence[Cell]) -> int:
    mine, reference = folders(cells[0].params.output_dir)
    for split in (SEEN, UNSEEN):
        found = read_evidence(cells, [mine], split)
        of = Path() if split == SEEN else Path(split)
        for name in found.cells:
            file = of / f"{name}.json"
            write_atomic(reference / file, (mine / file).read_bytes())
        print(f"{split}: {len(found.cells)} cells stored; committed: {read_evidence(cells, [reference], split)}")
    return 0
