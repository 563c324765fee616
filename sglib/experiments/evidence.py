"""The evidence: every recipe of the study over many seeds, one small file (a *cell*) for each experiment.

    python -m sglib evidence --params params/regimes/tight.yaml        # fill in what is missing, on every core
    python -m sglib evidence --only grpo igpo --jobs 1                 # some recipes only
    python -m sglib evidence --scheduler tcp://10.0.0.1:8786           # on Dask's workers, which may be other machines
    python -m sglib evidence --unseen                                  # what was trained, on the further panels
    python -m sglib evidence --status                                  # what is there

Interrupted and started again, it goes on where it was; a cell that failed keeps its reason in a file next to the others
and is tried again at the next start.

Cells lie in `outputs/evidence/<name of the file>/<recipe>-seed<n>.json`; committed ones in
`outputs/reference/evidence/<name of the file>/`. A cell counts only for the settings that it was made with: one that
was made with others is listed as stale and not averaged in. The same policies' outcomes on the panel of another split
lie in a folder of its name.
"""

from __future__ import annotations

import contextlib
import functools
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydantic
import torch
from scipy import stats

from sglib.experiments import cluster
from sglib.experiments import params as parameters
from sglib.experiments.experiment import Experiment, Result
from sglib.experiments.pool import train_all
from sglib.experiments.runs import output_root, repo_root
from sglib.experiments.tables import printable
from sglib.measure.intervals import success
from sglib.measure.power import minimum_detectable_effect
from sglib.models.policy import load_policy
from sglib.records import read_checked, set_aside, write_atomic, write_checked

FEWEST = 3  # paired seeds without which nothing is concluded
# what a cell keeps of its training batches
KEPT = re.compile(
    r"iteration|u|lambda/.*|success|return_mean|turns_mean|policy_tokens_mean|invalid_actions|parse_errors|label_.*"
    r"|zero_advantage|reward/.*|treatment/.*|calibration/.*|probe/.*|entropy|grad_norm|logprob_gap"
    r"|(rollout|reward|update)_seconds"
)


def plan(params_file: str | Path) -> list[Experiment]:
    """The experiments that a parameters file asks for (its key `grid`), seed by seed, so that all recipes have the
    first seeds early.

    Raises:
        ParameterError: naming the file and what is wrong in it.
    """
    content = parameters.load_file(params_file)
    if "grid" not in content:
        allowed = "a file that has it, such as params/regimes/dense.yaml"
        raise parameters.ParameterError(f"{params_file}: grid: missing; allowed: {allowed}")
    grid = parameters.Grid(**content["grid"])
    groups = (grid.headline, grid.headline_seeds), (grid.others, grid.other_seeds), (grid.extras, grid.extra_seeds)
    seeds = {name: count for names, count in groups for name in names}
    settings = content.get("grpo", {}) | {"arms": list(seeds)}
    given = parameters.common(content) | {"size": Path(params_file).stem, "grpo": settings}
    p = parameters.check("grpo", given)
    return [
        Experiment(name, p.model_copy(update={"seed": seed, "arms": [name]}))
        for seed in range(grid.first_seed, grid.first_seed + max(seeds.values()))
        for name, count in seeds.items()
        if seed < grid.first_seed + count
    ]


def further_splits(cells: Sequence[Experiment]) -> tuple[str, ...]:
    """Splits with a panel of their own, other than the one that training looks at: what `--unseen` plays."""
    return cells[0].params.card.splits[2:] if cells else ()


# -- files ------------------------------------------------------------------------------------------------------------


@dataclass
class Found:
    """What is there of a plan, by the names of its cells."""

    cells: dict[str, dict] = field(default_factory=dict)  # content of each complete one
    missing: list[str] = field(default_factory=list)  # without a file
    stale: list[str] = field(default_factory=list)  # made with other settings, or on another panel than most
    failed: dict[str, str] = field(default_factory=dict)  # each one's error in one line
    damaged: dict[str, str] = field(default_factory=dict)  # what is wrong with each one's file; they count as missing
    unknown: list[str] = field(default_factory=list)  # files that no planned cell has

    def __str__(self) -> str:
        planned = len(self.cells) + len(self.missing) + len(self.stale)
        text = f"{len(self.cells)} of {planned} cells"
        for name in ("missing", "stale", "failed", "damaged", "unknown"):
            if names := list(getattr(self, name)):
                shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
                text += f"; {len(names)} {name}: {shown}"
        if len(self.sources) > 1:
            text += f"; made by {len(self.sources)} versions of the code"
        return text

    @property
    def sources(self) -> set[str]:
        """Hashes of the code that made the cells."""
        return {cell["card"]["source"] for cell in self.cells.values()}

    def seeds(self, recipe: str) -> dict[int, dict]:
        """seed -> content of a recipe's cells."""
        return {cell["seed"]: cell for cell in self.cells.values() if cell["recipe"] == recipe}

    def outcomes(self, recipe: str, when: str = "after", games: slice = slice(None)) -> dict[int, np.ndarray]:
        """seed -> (games,) outcomes of a recipe, 0..1; `when`: "before", "start" or "after". With "training" each game
        has the mean over all evaluations but that before training: the area under the learning curve; without
        reinforcement the policy is the same all along. Cells that do not have it are left out."""
        if when == "training":
            cells = self.seeds(recipe).items()
            tables = {seed: _table(cell["during"][1:] or cell["during"]) for seed, cell in cells if cell["during"]}
            return {seed: table.mean(0)[games] for seed, table in tables.items()}
        return {seed: _outcomes(cell, when)[games] for seed, cell in self.seeds(recipe).items() if cell[when]}


def _most(cell: Mapping, when: str) -> int:
    """How often each of the panel's games was played."""
    return cell["params"].get("eval_seeds", 1) if when == "after" else 1


def _outcomes(cell: Mapping, when: str) -> np.ndarray:
    return _table([cell[when]])[0] / _most(cell, when)


def _table(bits: Sequence[str]) -> np.ndarray:
    """(rows, games) numbers of texts of digits."""
    return np.array([list(row) for row in bits], dtype=int)


def rates(found: Found, recipes: Iterable[str], when: str = "after") -> list[dict]:
    """Success of the recipes that have `FEWEST` seeds, with its interval over seeds and tasks: rows of `recipe`,
    `success`, `low`, `high` (0..1), `seeds`, `games`; `when` as in `Found.outcomes`."""
    rows = []
    for recipe in recipes:
        outcomes = found.outcomes(recipe, when)
        if len(outcomes) >= FEWEST:
            x = success(outcomes)
            row = {"recipe": recipe, "success": x.estimate, "low": x.low, "high": x.high}
            rows.append(row | {"seeds": x.seeds, "games": x.tasks})
    return rows


def over_seeds(found: Found, recipe: str, column: str, level: float = 0.95) -> list[dict]:
    """A column of the training batches over iterations: rows of `iteration`, `value` (mean over seeds), `n` (seeds
    that have a number there), `sd` unless that is one, `low` and `high` (t interval over seeds) from `FEWEST` on."""
    tables = [cell["batches"] for cell in found.seeds(recipe).values() if column in cell["batches"]]
    rows = []
    for i in range(len(tables[0]["iteration"]) if tables else 0):  # a recipe's cells are equally long
        values = [t[column][i] for t in tables if t[column][i] is not None]
        if not values:
            continue
        row = {"iteration": tables[0]["iteration"][i], "value": float(np.mean(values)), "n": len(values)}
        if len(values) > 1:
            row["sd"] = float(np.std(values, ddof=1))
        if len(values) >= FEWEST:
            half = stats.t.ppf((1 + level) / 2, len(values) - 1) * row["sd"] / np.sqrt(len(values))
            row |= {"low": row["value"] - float(half), "high": row["value"] + float(half)}
        rows.append(row)
    return rows


def panels(found: Found, columns: Mapping[str, Mapping[str, str]]) -> tuple[dict[str, dict[str, list[dict]]], str]:
    """Curves over seeds for `sglib.figures.small_multiples`, and what has to be said below them.

    Args:
        columns: panel -> recipe -> column of the training batches.

    Returns:
        panel -> "recipe (seeds)" -> rows as by `over_seeds`, without what has none; and a note: seeds, episodes a
        batch, what the bands are, and for each panel the difference between two curves at one iteration that so few
        seeds would show (80 % power, from the pooled spread over seeds).
    """
    drawn: dict[str, dict[str, list[dict]]] = {}
    seen = []
    for title, of in columns.items():
        spreads, fewest = [], math.inf
        for recipe, column in of.items():
            if rows := over_seeds(found, recipe, column):
                counts = sorted({row["n"] for row in rows})
                n = str(counts[0]) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"
                drawn.setdefault(title, {})[f"{recipe} ({n})"] = rows
                several = [row["sd"] for row in rows if "sd" in row]
                spreads += [sd**2 for sd in several]
                fewest = min(fewest, *(row["n"] for row in rows if "sd" in row)) if several else fewest
        if spreads and fewest < FEWEST:
            seen.append(f"{title}: two seeds are too few to show any")
        elif spreads:
            effect = minimum_detectable_effect(math.sqrt(2 * np.mean(spreads)), int(fewest))
            seen.append(f"{title}: {effect:.2g}")
    sizes = {c["params"]["games_per_iteration"] * c["params"]["group_size"] for c in found.cells.values()}
    size = ", ".join(map(str, sorted(sizes)))
    note = f"mean over seeds (in brackets), {size} episodes a batch; bands: 95 % t interval, from {FEWEST} seeds on"
    return drawn, note + (f"<br>detectable with 80 % power, in the axis's units: {'; '.join(seen)}" if seen else "")


def folders(p: parameters.GRPOParams) -> list[Path]:
    """Where a plan's cells are looked for: this machine's, then the committed ones."""
    return [root / "evidence" / p.size for root in (output_root(p.output_dir), repo_root() / "outputs/reference")]


def read_evidence(cells: Sequence[Experiment], where: Sequence[Path] | None = None, split: str | None = None) -> Found:
    """Read what is there of a plan.

    Args:
        where: folders with cells, the first that has one counts; None takes `folders`.
        split: None reads the panel that training looks at. Of one of `further_splits` a cell's `before`, `after` and
            `panel` are those of `play_further`; a cell that was not played there is missing.

    A damaged file is named in `Found.damaged` and in a warning, and the rest is read.
    """
    where = folders(cells[0].params) if where is None else where
    found, wanted = Found(), {cell.name: cell for cell in cells}
    for name, cell in wanted.items():
        contents = []
        for folder in (folder for folder in where if (folder / f"{name}.json").exists()):
            try:
                contents.append(_read_cell(folder, cell, split))
            except ValueError as error:
                found.damaged[name] = str(error)
                warnings.warn(f"left out: {error}", stacklevel=2)
        contents = [content for content in contents if content is not None]
        if fitting := [content for content in contents if content["key"] == cell.key]:
            found.cells[name] = fitting[0]
            continue
        (found.stale if contents else found.missing).append(name)
        for folder in where:
            if (error := folder / f"{name}.failed.txt").exists():
                found.failed[name] = reason(error.read_text(encoding="utf-8"))
    panels = Counter(cell["panel"] for cell in found.cells.values())
    if len(panels) > 1:
        most = panels.most_common(1)[0][0]
        found.stale += [name for name, cell in found.cells.items() if cell["panel"] != most]
        found.cells = {name: cell for name, cell in found.cells.items() if cell["panel"] == most}
    there = {path.stem for folder in where for path in folder.glob("[!.]*.json")}
    there = {name for name in there if not re.match(r"damaged\d*-", name)}
    found.unknown = sorted(there - set(wanted))
    return found


def reason(error: str) -> str:
    """The line of a traceback that names the exception, which the last one need not be."""
    lines = error.strip().splitlines()
    named = (line for line in reversed(lines) if re.match(r"[A-Za-z_.]+(Error|Exception|Interrupt)\b", line))
    return next(named, lines[-1])


def _read_cell(folder: Path, cell: Experiment, split: str | None) -> dict | None:
    """A cell's content, on another split's panel if one is asked for; None where it was not played there."""
    content = _checked(folder / f"{cell.name}.json", cell)
    path = folder / (split or "") / f"{cell.name}.json"
    if split is None or not path.exists():
        return content if split is None else None
    played = _checked(path, cell, content)
    return played if played["configuration"] == content["card"]["configuration"] else None  # the same training


_CARD = pydantic.create_model("Card", source=str, configuration=str, episodes=dict, versions=dict, machine=dict)
_CELL = pydantic.create_model(
    "Cell", recipe=str, seed=int, key=str, panel=str, card=_CARD, params=dict, batches=dict[str, list], before=str,
    start=str, after=str,
)  # fmt: skip


def _checked(path: Path, cell: Experiment, rest: dict | None = None) -> dict:
    """A file's content, checked; `rest`: what it leaves to the cell's own file."""
    try:
        return _valid((rest or {}) | read_checked(path), cell)
    except ValueError as error:
        raise ValueError(f"{path}: not a cell of the evidence: {error}") from error


def _valid(content: dict, cell: Experiment) -> dict:
    """A cell's content, checked; `ValueError`: it is none, or another cell's."""
    try:
        found = _CELL.model_validate(content)
        if (found.recipe, found.seed) != (cell.recipe, cell.seed):
            raise ValueError(f"it holds {found.recipe!r} with seed {found.seed}")
        for when in ("before", "start", "after"):
            outcomes, wanted, most = content[when], found.params["eval_games"], _most(content, when)
            allowed = set("0123456789"[: most + 1])
            if set(outcomes) - allowed or len(outcomes) not in ((0, wanted) if when == "start" else (wanted,)):
                raise ValueError(f"{when}: not one outcome of 0 to {most} for each of the panel's games")
        content.setdefault("during", [])  # cells from before it was kept
        if content["during"] and {len(row) for row in content["during"]} != {found.params["eval_games"]}:
            raise ValueError("during: not one outcome for each of the panel's games at each evaluation")
        if len({len(column) for column in found.batches.values()}) > 1:
            raise ValueError("batches: columns of different lengths")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(str(error)) from error
    return content


# -- making -----------------------------------------------------------------------------------------------------------


def cell_content(cell: Experiment, result: Result) -> dict:
    """What is kept of a complete experiment: outcomes task by task as text of digits (wins), numbers to five digits."""
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
        "about": cell.load().about,
        "card": result.card,
        "before": _bits(result.before),
        "start": _bits(result.start),
        "after": _bits(round(share * cell.params.eval_seeds) for share in result.after),
        "during": [_bits(outcomes) for outcomes in result.during],
        "curve": [{k: _short(v) for k, v in row.items() if k != "arm"} for row in result.curve],
        "batches": columns,
    }


def _bits(outcomes: Iterable[int]) -> str:
    return "".join(map(str, outcomes))


def _short(value):
    return float(f"{value:.5g}") if isinstance(value, float) else value


def made(cell: Experiment) -> dict:
    """What is kept of a complete experiment that lies on this machine."""
    return cell_content(cell, cell.read())


def fill(
    cells: Sequence[Experiment],
    jobs: int | None = None,
    on_update: Callable[[str], None] = lambda line: None,
    scheduler: str | None = None,
) -> tuple[int, dict[str, str]]:
    """Train the cells of a plan that have no file yet, in order, and write each when it is complete: how many were
    trained, and the traceback of each that failed. A damaged file of this machine is set aside and made again. `jobs`
    as for `train_all`; with `scheduler` Dask's workers train (`sglib.experiments.cluster`), and their cells are checked
    and written here. `on_update` is called with a line for people when a cell ends."""
    found = read_evidence(cells)
    waiting = [cell for cell in cells if cell.name not in found.cells]
    target, failed, ended = folders(cells[0].params)[0], {}, []
    for cell in (cell for cell in waiting if cell.name in found.damaged):
        with contextlib.suppress(FileNotFoundError):  # it is a committed one, which stays for its owner to see
            set_aside(target / f"{cell.name}.json", found.damaged[cell.name])

    def end(number: int, error: str | None, content: dict | None = None):
        cell = waiting[number]
        note = target / f"{cell.name}.failed.txt"
        if error is None:
            try:
                content = _valid(made(cell) if content is None else content, cell)
                if content["key"] != cell.key:
                    raise ValueError(f"key: {content['key']}, asked for {cell.key}")
            except ValueError as wrong:
                error = f"ValueError: not a cell of the evidence: {wrong}"
        if error is not None:
            failed[cell.name] = error
            write_atomic(note, error)
            on_update(f"{cell.name}: FAILED: {printable(reason(error))}")
            return
        write_checked(target / f"{cell.name}.json", content)
        note.unlink(missing_ok=True)
        ended.append(cell.name)
        rates = " -> ".join(f"{100 * np.mean(_outcomes(content, when)):.1f}" for when in ("before", "after"))
        left = len(waiting) - len(ended) - len(failed)
        on_update(f"{cell.name}: {rates} %, {content['card']['seconds']:.0f} s; {left} to go")

    if scheduler is not None and waiting:
        cluster.train_all(scheduler, waiting, made, end, jobs, on_update)
    else:
        # One thread each, however many processes: sums over more round differently, and a cell must not depend on jobs.
        train_all(waiting, end, jobs, threads=None if torch.cuda.is_available() else 1)
    return len(ended), failed


def play_further(
    cells: Sequence[Experiment], split: str, on_update: Callable[[str], None] = lambda line: None
) -> tuple[int, list[str]]:
    """Let the policies of complete cells, before and after training, play the panel of another split, unless they have:
    as many tasks, in the same way. How many cells were played now, and those whose policy is not on this machine."""
    target = folders(cells[0].params)[0]
    found, known = read_evidence(cells, [target]), read_evidence(cells, [target], split)
    played, absent = 0, []
    for cell in (cell for cell in cells if cell.name in found.cells and cell.name not in known.cells):
        made = found.cells[cell.name]["card"]["configuration"]
        trained = cell.folder_of(made) / "policy"
        if not trained.exists():
            absent.append(cell.name)
            continue

        def play(policy: str, cell: Experiment = cell) -> dict[str, str]:
            report = cell.evaluate(load_policy(policy, env=cell.params.env, thinking=cell.params.thinking), split)
            return {"panel": report.panel, "outcomes": _bits(report.outcomes)}

        before, after = cell.base(split, lambda: play(cell.params.model)), play(str(trained))  # noqa: B023 called at once
        named = {"recipe": cell.recipe, "seed": cell.seed, "configuration": made, "start": ""}
        result = named | {"panel": after["panel"], "before": before["outcomes"], "after": after["outcomes"]}
        write_checked(target / split / f"{cell.name}.json", result)
        played += 1
        rates = " -> ".join(f"{100 * result[when].count('1') / len(result[when]):.1f}" for when in ("before", "after"))
        on_update(f"{cell.name}: {rates} % on {split}")
    return played, absent


def store(cells: Sequence[Experiment], on_update: Callable[[str], None] = print) -> None:
    """Copy this machine's complete cells, on all panels, to the committed ones."""
    mine, reference = folders(cells[0].params)
    for split in (None, *further_splits(cells)):
        found = read_evidence(cells, [mine], split)
        for name in found.cells:
            file = Path(split or "", f"{name}.json")
            write_atomic(reference / file, (mine / file).read_bytes())
        where = split or cells[0].params.card.splits[1]
        on_update(f"{where}: {len(found.cells)} cells stored; committed: {read_evidence(cells, [reference], split)}")


def command(
    file: str | Path, only: Sequence[str] | None, jobs: int | None, unseen: bool, status: bool, keep: bool,
    scheduler: str | None = None,
) -> int:
    """The command `python -m sglib evidence`; returns its exit status.

    Raises:
        ParameterError: naming the option or parameter that is wrong.
    """
    cells = plan(file)
    if unknown := sorted(set(only or ()) - {cell.recipe for cell in cells}):
        names = ", ".join(dict.fromkeys(cell.recipe for cell in cells))
        raise parameters.ParameterError(f"--only {unknown[0]}: no such recipe in {file}; there are: {names}")
    if jobs is not None and jobs < 1:
        raise parameters.ParameterError(f"--jobs {jobs}: must be at least 1")
    if scheduler is not None and (unseen or status or keep):
        raise parameters.ParameterError(f"--scheduler {scheduler}: only to train, not with --unseen, --status, --store")
    if scheduler not in (None, "local") and jobs is not None:
        raise parameters.ParameterError(f"--jobs {jobs}: not with --scheduler {scheduler}, whose workers decide that")
    cells = [cell for cell in cells if not only or cell.recipe in only]

    say = functools.partial(print, flush=True)
    if keep:
        store(cells, say)
        return 0
    if unseen:
        for split in further_splits(cells):
            played, absent = play_further(cells, split, say)
            say(f"{split}: {played} cells played" + (f"; trained elsewhere: {', '.join(absent)}" if absent else ""))
        return 0
    _, failed = (0, {}) if status else fill(cells, jobs, say, scheduler)
    found = read_evidence(cells)
    if only:
        found.unknown = []
    print(printable(found))
    return 1 if failed else 0
