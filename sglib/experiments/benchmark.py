"""A published benchmark: a regime whose panel is an environment's published lists (`Environment.panels`), one after the
other, as `params/official.yaml` has it. How well each list is played, after how many episodes and minutes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sglib.envs.base import Environment
from sglib.envs.panels import manifest
from sglib.experiments import params as parameters
from sglib.experiments.evidence import Found
from sglib.experiments.experiment import one, train_shown
from sglib.experiments.runs import output_root
from sglib.measure import intervals
from sglib.models.small import located
from sglib.training.pretrain import pretrain

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
        mean, low, high = x.estimate, x.low, x.high
    else:
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
    """What pre-training a shipped model took, as its card says, and the one that it goes on from."""
    card = json.loads((located(model, env) / "card.json").read_text(encoding="utf-8"))
    before = pretraining_minutes(card["recipe"]["start"], env) if "start" in card["recipe"] else 0
    return before + card["wall_seconds"] / 60


def _pretrained(env: str, recipes: Mapping[str, Mapping], name: str, root: Path) -> Path:
    """The folder of a model, pre-trained unless complete; before it what it goes on from, where that has a recipe."""
    recipe, folder = recipes[name], root / name
    if (folder / "card.json").exists():
        print(f"Pre-trained already: {folder}")
        return folder
    if recipe.get("start") in recipes:
        recipe = {**recipe, "start": str(_pretrained(env, recipes, recipe["start"], root))}
    print(f"Pre-training {name} for {recipe['stop']} steps, into {folder}", flush=True)
    pretrain(env, recipe, folder, name=name)
    return folder


def command(file: str | Path, arm: str, seed: int | None, shipped: bool) -> int:
    """The command `python -m sglib official`; returns its exit status. Pre-trains the file's base model into the
    outputs (unless complete; or takes the `shipped` one), trains `arm` from it, prints how each list is played.

    Raises:
        ParameterError: naming the parameter that is wrong, before anything is trained.
        ValueError: the benchmark's own files are not at hand; it says where they were looked for.
    """
    experiment = one(file, arm, seed)
    p, lists = experiment.params, parts(experiment.params.card)
    for name in lists:
        p.card.panel(None, name)
    p.card.tasks(1, size=p.task_size)  # to train on: better missed now than after pre-training
    recipe = p.card.further_pretraining.get(p.model)
    if not shipped and recipe is None:
        allowed = ", ".join(p.card.further_pretraining)
        raise parameters.ParameterError(f"{file}: model = {p.model!r}: allowed: {allowed}, or --shipped-base")
    if not shipped:
        folder = _pretrained(p.env, p.card.further_pretraining, p.model, output_root(p.output_dir) / Path(file).stem)
        experiment = one(file, arm, seed, model=str(folder))
    result = train_shown(experiment)
    for name, games in lists.items() if result else ():
        x = score({experiment.seed: result.after[games]})
        rate = f"{100 * x['success']:.1f} % [{100 * x['low']:.1f}, {100 * x['high']:.1f}]"
        print(f"{name}: {rate} of {x['games']} games, each played {p.eval_seeds} times")
    return 0
