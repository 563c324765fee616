"""The evidence: every recipe of the study over many seeds, one small file a cell. Planning and reading; `cells` trains.

A cell is one recipe with one seed: the arm that `papermill notebooks/04_joint_grpo.ipynb ... -p arms '[igpo]' -p seed
3` with the same file trains. Seeds are paired: the same seed means the same training games in the same order and the
same evaluation, whatever the recipe.

Cells lie in `outputs/evidence/cells/<recipe>-seed<n>.json`; the committed ones in `outputs/reference/evidence/`. A cell
counts only for the settings that it was made with: what is read with other ones is not averaged in, but told. The same
policies' outcomes in rooms never trained in lie in a folder `valid_unseen` beside the cells.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from sglib.experiments import params as parameters
from sglib.experiments.arms import arm_content
from sglib.experiments.identity import digest
from sglib.experiments.params import GRPOParams
from sglib.experiments.runs import output_root, repo_root
from sglib.measure.stats import minimum_detectable_effect

FOLDER = "evidence/cells"
REFERENCE = "reference/evidence"
SEEN, UNSEEN = "valid_seen", "valid_unseen"  # panels: rooms that are trained in (other games of them), and others
FEWEST = 3  # paired seeds without which nothing is concluded


@dataclass(frozen=True)
class Cell:
    """One recipe with one seed.

    Attributes:
        recipe: its name.
        seed: >= 0.
        params: of the arm.
    """

    recipe: str
    seed: int
    params: GRPOParams

    @property
    def name(self) -> str:
        return f"{self.recipe}-seed{self.seed}"

    @property
    def key(self) -> str:
        """12 hex digits of everything that a reader could change and that decides the result: not the code, whose hash
        each cell keeps beside it."""
        return digest(arm_content(self.recipe, self.params))


def plan(params_file: str | Path) -> list[Cell]:
    """The cells that a parameters file asks for (its key `grid`), seed by seed, so that all recipes
    have the first seeds early.

    Raises:
        ParameterError: naming the file and what is wrong in it.
    """
    content = parameters.load_file(params_file)
    content.setdefault("size", Path(params_file).stem)
    common = {k: v for k, v in content.items() if k in parameters.COMMON}
    wanted = parameters.load_grid(params_file)
    settings = {k: v for k, v in content.get("grpo", {}).items() if k != "seed"}
    seeds = dict.fromkeys(wanted.headline, wanted.headline_seeds)
    seeds |= dict.fromkeys(wanted.others, wanted.other_seeds)
    seeds |= dict.fromkeys(wanted.extras, wanted.extra_seeds)
    return [
        Cell(name, seed, parameters.check("grpo", common | {"seed": seed, "grpo": settings | {"arms": [name]}}))
        for seed in range(wanted.first_seed, wanted.first_seed + max(seeds.values()))
        for name, count in seeds.items()
        if seed < wanted.first_seed + count
    ]


# -- files ------------------------------------------------------------------------------------------------------------


@dataclass
class Found:
    """What is there of a plan.

    Attributes:
        cells: name -> content of each complete cell of the plan.
        missing: names of planned cells without a file.
        stale: names of planned cells whose file was made with other settings, or evaluated on another panel than most
            cells; not in `cells`.
        failed: name -> its error in one line.
        unknown: files that no planned cell has.
    """

    cells: dict[str, dict]
    missing: list[str]
    stale: list[str]
    failed: dict[str, str]
    unknown: list[str]

    def __str__(self) -> str:
        planned = len(self.cells) + len(self.missing) + len(self.stale)
        text = f"{len(self.cells)} of {planned} cells"
        for name in ("missing", "stale", "failed", "unknown"):
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
        """seed -> (games,) 0 or 1 of a recipe; `when`: "before", "start" or "after"."""
        cells = self.seeds(recipe).items()
        return {seed: np.array(list(cell[when])[games], dtype=int) for seed, cell in cells if cell[when]}


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


def folders(output_dir: str | Path = "outputs") -> list[Path]:
    """Where cells are looked for: this machine's, then the committed ones."""
    return [output_root(output_dir) / FOLDER, repo_root() / "outputs" / REFERENCE]


def read_evidence(cells: Sequence[Cell], where: Sequence[Path] | None = None, split: str = SEEN) -> Found:
    """Read what is there of a plan.

    Args:
        where: folders with cells, the first that has one counts; None takes `folders`.
        split: of the panel. With "valid_unseen" a cell's `before`, `after` and `panel` are those of `play_unseen`; a
            cell that was not played there is missing.

    Raises:
        ValueError: a file is damaged, naming it.
    """
    where = folders(cells[0].params.output_dir if cells else "outputs") if where is None else where
    found, wanted = Found({}, [], [], {}, []), {cell.name: cell for cell in cells}
    for name, cell in wanted.items():
        contents = [_read(folder, cell, split) for folder in where if (folder / f"{name}.json").exists()]
        contents = [content for content in contents if content is not None]
        fitting = [content for content in contents if content["key"] == cell.key]
        if fitting:
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
    there = {path.stem for folder in where for path in folder.glob("*.json")}
    found.unknown = sorted(there - set(wanted))
    return found


def reason(error: str) -> str:
    """The line of a traceback that names the exception, which the last one need not be."""
    lines = error.strip().splitlines()
    named = (line for line in reversed(lines) if re.match(r"[A-Za-z_.]+(Error|Exception|Interrupt)\b", line))
    return next(named, lines[-1])


def _read(folder: Path, cell: Cell, split: str) -> dict | None:
    """A cell's content; None where it was not played on another split than the one that it was made with."""
    content = _read_file(folder / f"{cell.name}.json", cell)
    if split == SEEN:
        return content
    path = folder / split / f"{cell.name}.json"
    if not path.exists():
        return None
    played = _read_file(path, cell, content)
    return played if played["configuration"] == content["card"]["configuration"] else None  # the same training


def _read_file(path: Path, cell: Cell, rest: dict | None = None) -> dict:
    """A file's content, checked; `rest`: what it leaves to the cell's own file."""
    try:
        content = (rest or {}) | json.loads(path.read_text(encoding="utf-8"))
        if (content["recipe"], content["seed"]) != (cell.recipe, cell.seed):
            raise ValueError(f"it holds {content['recipe']!r} with seed {content['seed']!r}")
        for name, kind in (("key", str), ("panel", str), ("card", dict), ("batches", dict), ("start", str)):
            if not isinstance(content[name], kind):
                raise ValueError(f"{name}: {content[name]!r}")
        kinds = {"source": str, "configuration": str, "episodes": dict, "versions": dict, "machine": dict}
        for name, kind in kinds.items():
            if not isinstance(content["card"][name], kind):
                raise ValueError(f"card.{name}: {content['card'][name]!r}")
        for when in ("before", "start", "after"):
            if when == "start" and not content[when]:
                continue
            if set(content[when]) - {"0", "1"} or len(content[when]) != content["params"]["eval_games"]:
                raise ValueError(f"{when}: not one outcome of 0 or 1 for each of the panel's games")
        if len({len(column) for column in content["batches"].values()}) > 1:
            raise ValueError("batches: columns of different lengths")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a cell of the evidence: {error!r}") from error
    return content
