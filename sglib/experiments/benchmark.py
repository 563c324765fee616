"""A published benchmark: a regime whose panel is an environment's published lists (`Environment.panels`), one after the
other, as `params/official.yaml` has it. How well each list is played, after how many episodes and minutes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from sglib.envs.base import Environment
from sglib.envs.panels import manifest
from sglib.experiments.evidence import Found
from sglib.measure import intervals
from sglib.models.small import located

STAGES = ("rollout", "reward", "update")  # of an iteration, as `batches` times them


def parts(card: Environment) -> dict[str, slice]:
    """Where each published list lies in the panel, by its name."""
    found, start = {}, 0
    for name in card.panels:
        stop = start + len(manifest(card.name, name))
        found[name], start = slice(start, stop), stop
    return found


def score(outcomes: Mapping[int, Sequence[float]]) -> dict:
    """`success`, `low`, `high` (0..1), `n` (seeds) and `games`, of seed -> each game's outcome or share of wins. From
    two seeds on the interval is for other seeds and games (`intervals.success`); of one, Wilson's, for other games."""
    n, games = len(outcomes), len(next(iter(outcomes.values())))
    if n > 1:
        x = intervals.success(outcomes)
        return {"success": x.estimate, "low": x.low, "high": x.high, "n": n, "games": games}
    mean = float(np.mean(list(outcomes.values())))
    low, high = intervals.wilson(round(mean * games), games)
    return {"success": mean, "low": low, "high": high, "n": n, "games": games}


def curve(found: Found, recipe: str, part: slice, before: float = 0.0) -> list[dict]:
    """`score` at each evaluation in training, with `iteration`, `episodes` (played until then) and `minutes`: `before`
    (what pre-training took) and the iterations until then, the mean over seeds; evaluations are not counted."""
    cells, rows = found.seeds(recipe), []
    if not cells:
        return rows
    first = next(iter(cells.values()))
    batch = first["params"]["games_per_iteration"] * first["params"]["group_size"]
    for number, point in enumerate(first["curve"]):
        done = point["iteration"]
        played = {seed: np.array(list(cell["during"][number][part]), float) for seed, cell in cells.items()}
        spent = [sum(sum(cell["batches"][f"{stage}_seconds"][:done]) for stage in STAGES) for cell in cells.values()]
        when = {"iteration": done, "episodes": done * batch, "minutes": before + float(np.mean(spent)) / 60}
        rows.append(when | score(played))
    return rows


def pretraining_minutes(model: str, env: str) -> float:
    """What pre-training a shipped model took, as its card says."""
    card = json.loads((located(model, env) / "card.json").read_text(encoding="utf-8"))
    return card["wall_seconds"] / 60
