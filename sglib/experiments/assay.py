"""The assay: can this set-up tell a good step reward from none, and where does a reward stand between the two?

    python -m sglib assay mine.yaml                    # trains what is missing, judges it, writes one page

A *regime* is a parameters file of `params/regimes/` with the keys `grid` and `assay`: an environment, its turns, a base
model, a length of training. It is *sensitive* if, by the measure that its file fixes,

1. the truth (`truth`: each step's exact change of the distance, as its own advantage) beats the better of GRPO and
   GiGPO by at least `margin`, and the 95 % interval of that lies above the A/A band;
2. the truth beats its own values permuted within each episode (`truth_shuffled`).

Only in a sensitive regime anything is said of a reward; elsewhere every verdict is "cannot be told here". The A/A band
is the largest difference that the interval of plain GRPO against itself reaches (`grpo_again`). A difference of two
recipes, paired over seeds and games, *helps* or *hurts* if its 95 % interval leaves out zero and its estimate lies
beyond the band; there is *no difference beyond the band* if the whole interval lies in it; all else is *inconclusive*.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from scipy import optimize, stats

from sglib.experiments import params as parameters
from sglib.experiments.evidence import FEWEST, Found, fill, plan, read_evidence
from sglib.experiments.experiment import Experiment
from sglib.experiments.files import ParameterError, params_file, read_yaml, recipe_file
from sglib.experiments.recipe import load_recipe
from sglib.experiments.runs import output_root
from sglib.measure.hacking import WINDOW, alarms, alike, first_and_last
from sglib.measure.intervals import Comparison, compare, crossed_mean, paired_table
from sglib.records import write_atomic
from sglib.rewards.component import mean

VERDICTS = ("helps", "hurts", "no difference beyond the band", "inconclusive")
CANNOT, FEW = "cannot be told here", "too few seeds"
MEASURES = {"after": "success at the end", "training": "mean success over training"}
FURTHEST = 20.0  # a share of the truth beyond +-20 is not looked for


@dataclass(frozen=True)
class Sensitivity:
    """Whether a regime can tell the truth from success alone; differences are fractions, None where cells lack."""

    sensitive: bool
    why: str  # in words, with the numbers
    plain: str | None = None  # the better of success alone by GRPO and by GiGPO
    gain: Comparison | None = None  # truth - plain
    placed: Comparison | None = None  # truth - truth_shuffled
    band: float | None = None


def gap(found: Found, a: str, b: str, measure: str) -> Comparison | None:
    """a - b, paired over seeds and games, by a measure of `MEASURES`; None with fewer than `FEWEST` pairs of seeds."""
    one, two = found.outcomes(a, measure), found.outcomes(b, measure)
    return compare(one, two) if len(set(one) & set(two)) >= FEWEST else None


def noise_band(found: Found, regime: parameters.Assay) -> float | None:
    """The largest difference, 0..1, that the interval of the A/A comparison reaches; None where there is none."""
    same = gap(found, regime.again, regime.plain[0], regime.measure)
    return None if same is None else max(abs(same.low), abs(same.high))


def sensitivity(found: Found, regime: parameters.Assay) -> Sensitivity:
    """By the rule at the top of this file."""
    band = noise_band(found, regime)
    if band is None:
        pair = f"{regime.again} and {regime.plain[0]}"
        return Sensitivity(False, f"fewer than {FEWEST} paired seeds of {pair}: no A/A band")
    gaps = {name: gap(found, regime.truth, name, regime.measure) for name in regime.plain}
    if lacking := [name for name, it in gaps.items() if it is None]:
        return Sensitivity(False, f"fewer than {FEWEST} paired seeds of {regime.truth} and {lacking[0]}", band=band)
    plain, gain = min(gaps.items(), key=lambda pair: pair[1].estimate)
    placed = gap(found, regime.truth, regime.shuffled, regime.measure)
    text = f"truth - {plain}: {gain} ({MEASURES[regime.measure]}; "
    text += f"band {100 * band:.1f}, margin {100 * regime.margin:.0f})"
    text += f"; truth - its shuffle: {placed if placed else 'fewer than three paired seeds'}"
    good = gain.estimate >= regime.margin and gain.low > band and placed is not None and placed.low > 0
    return Sensitivity(good, text, plain, gain, placed, band)


def verdict(difference: Comparison | None, band: float | None, sensitive: bool) -> str:
    """One of `VERDICTS`; `CANNOT` in a regime that is not sensitive, `FEW` where there is nothing to judge in one that
    is."""
    if not sensitive or band is None:
        return CANNOT
    if difference is None or difference.seeds < FEWEST:
        return FEW
    if abs(difference.estimate) > band and (difference.low > 0 or difference.high < 0):
        return "helps" if difference.estimate > 0 else "hurts"
    return VERDICTS[2] if max(abs(difference.low), abs(difference.high)) <= band else VERDICTS[3]


def share_of_truth(
    found: Found, recipe: str, plain: str, regime: parameters.Assay
) -> tuple[float, float, float] | None:
    """(estimate, low, high) of (recipe - plain) / (truth - plain): 0 is success alone, 1 the truth.

    The interval has every share r for which the interval of (recipe - plain) - r (truth - plain) has 0 in it (Fieller's
    method, with `crossed_mean`'s interval): other seeds and other games are in it. None with fewer than `FEWEST` seeds
    of all three, or where the truth itself is not told from success alone; +-inf where no end is found.
    """
    a, b, top = (found.outcomes(name, regime.measure) for name in (recipe, plain, regime.truth))
    common = set(a) & set(b) & set(top)
    if len(common) < FEWEST:
        return None
    a, b, top = ({seed: of[seed] for seed in common} for of in (a, b, top))
    reward, truth = paired_table(a, b), paired_table(top, b)
    if crossed_mean(truth).low <= 0:
        return None
    estimate = float(reward.mean() / truth.mean())

    def outside(r: float) -> float:
        it = crossed_mean(reward - r * truth)
        return max(it.low, -it.high)

    def end(far: float) -> float:
        if outside(far) <= 0:
            return float(np.copysign(np.inf, far))
        return float(optimize.brentq(outside, estimate, far)) if outside(estimate) < 0 else estimate

    return estimate, end(-FURTHEST), end(FURTHEST)


def dose_response(found: Found, regime: parameters.Assay, plain: str) -> list[dict]:
    """The truth at several degrees of truth: rows of `recipe`, `auroc` (measured on the training batches, mean over
    seeds), and of its difference to success alone `estimate`, `low`, `high`, `seeds`; from noise to the whole truth."""
    rows = []
    for recipe in (regime.noise, *regime.noisy, regime.truth):
        difference, at = gap(found, recipe, plain, regime.measure), calibration(found, recipe)
        if difference and at:
            row = {"recipe": recipe, "auroc": mean(at.values())}
            rows.append(row | {name: getattr(difference, name) for name in ("estimate", "low", "high", "seeds")})
    return sorted(rows, key=lambda row: row["auroc"])


def expected(curve: Sequence[dict], auroc: float) -> float | None:
    """What the dose-response curve says of a reward with this AUROC, by straight lines between its points."""
    if len(curve) < 2:
        return None
    return float(np.interp(auroc, [row["auroc"] for row in curve], [row["estimate"] for row in curve]))


PHASES = ("first third", "middle", "last third")


def calibration(found: Found, recipe: str) -> dict[str, float]:
    """AUROC of what was paid for a step, for "this step brought the goal nearer", in each third of the training in
    which something was paid; mean over seeds and batches."""
    thirds: dict[str, list[float]] = {}
    for cell in found.seeds(recipe).values():
        column = cell["batches"].get("calibration/internal/auroc", [])
        for name, part in zip(PHASES, np.array_split(np.array(column, dtype=float), 3)):
            thirds.setdefault(name, []).extend(part[~np.isnan(part)])
    return {name: float(np.mean(values)) for name, values in thirds.items() if values}


def strength(found: Found, recipe: str) -> dict[str, float | None]:
    """How strong the treatment was: mean `correlation` of the advantage with and without the internal reward, and the
    share of `updates` in which it changed any; None where cells do not say."""
    correlations, acts = [], []
    for cell in found.seeds(recipe).values():
        correlations += [x for x in cell["batches"].get("treatment/correlation", []) if x is not None]
        acts += [x > 0 for x in cell["batches"].get("treatment/share", []) if x is not None]
    return {"correlation": mean(correlations), "updates": mean(acts)}


def gaming(found: Found, recipe: str, judged: str) -> list[str]:
    """Why a reward looks gamed, in words; empty where it does not. By `sglib.measure.hacking.alarms` in most seeds; or
    because the internal reward that was collected rose over training (t-test over seeds, p < 0.05) and success ended
    below success alone all the same: what is maximised is not what is wanted."""
    cells = found.seeds(recipe).values()
    rung: dict[str, int] = {}
    for cell in cells:
        rows = [dict(zip(cell["batches"], values)) for values in zip(*cell["batches"].values())]
        for alarm in {alarm["alarm"] for alarm in alarms(rows)} - {"looping"}:
            rung[alarm] = rung.get(alarm, 0) + 1
    reasons = [f"{name} in {n} of {len(cells)} seeds" for name, n in rung.items() if n > len(cells) / 2]
    if judged == "hurts" and (rise := internal_rise(found, recipe)) is not None:
        reasons.append(f"paid {rise:+.2f} more an episode at the end of training than at its begin, and wins less")
    return reasons


def internal_rise(found: Found, recipe: str) -> float | None:
    """How much more internal reward an episode collects in the last than in the first batches, mean over seeds; None
    where it does not rise clearly."""
    pairs = []
    for cell in found.seeds(recipe).values():
        rows = [{"probe/internal": x} for x in cell["batches"].get("probe/internal", [])]
        first, last = first_and_last(rows, "probe/internal", WINDOW)
        if first is not None and last is not None:
            pairs.append(last - first)
    if len(pairs) < FEWEST or alike(pairs):
        return None
    clear = stats.ttest_1samp(pairs, 0, alternative="greater").pvalue < 0.05
    return float(np.mean(pairs)) if clear else None


def price(found: Found, recipe: str, target: float | None = None) -> dict[str, float | None]:
    """What a recipe costs, means over seeds: `cpu_seconds` of a training, `tokens` that the policy writes in it; and
    `tokens_to_target`, `seconds_to_target`: up to the first evaluation at which the mean success reaches `target`."""
    cells = list(found.seeds(recipe).values())
    if not cells:
        return {}
    row = {"cpu_seconds": mean([cell["card"]["cpu_seconds"] for cell in cells]),
           "tokens": mean([cell["card"]["policy_tokens"] for cell in cells]),
           "tokens_to_target": None, "seconds_to_target": None}  # fmt: skip
    curves = [[(row["iteration"], row["success"]) for row in cell["curve"]] for cell in cells]
    if target is not None and len({len(curve) for curve in curves}) == 1:
        means = np.mean([[success for _, success in curve] for curve in curves], axis=0)
        reached = [iteration for (iteration, _), success in zip(curves[0], means) if success >= target]
        if reached:
            share = reached[0] / max(curves[0][-1][0], 1)
            row |= {"tokens_to_target": share * row["tokens"], "seconds_to_target": share * row["cpu_seconds"]}
    return row


# -- one recipe -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Card:
    """What the assay says of one recipe; differences are fractions."""

    recipe: str
    about: str
    regime: str
    measure: str
    sensitivity: Sensitivity
    verdict: str  # of the recipe against success alone
    gain: Comparison | None  # recipe - success alone
    end: Comparison | None  # the same at the end of training
    share: tuple[float, float, float] | None  # of the truth
    placement: Comparison | None  # recipe - its own shuffle
    calibration: dict[str, float]
    curve: list[dict]  # the dose-response curve
    expected: float | None  # what the curve says of this AUROC
    strength: dict[str, float | None]
    gamed: list[str]
    price: dict[str, float | None]
    plain_price: dict[str, float | None]
    names: list[str]  # what it is, in the words of `named`


def card(found: Found, regime: parameters.Assay, recipe: str, about: str, name: str, shuffle: str | None) -> Card:
    """Judge one recipe whose cells are in `found`; `name` is the regime's, `shuffle` the recipe's own shuffle."""
    it = sensitivity(found, regime)
    plain = it.plain or regime.plain[0]
    gain, at = gap(found, recipe, plain, regime.measure), calibration(found, recipe)
    judged, curve = verdict(gain, it.band, it.sensitive), dose_response(found, regime, plain)
    placed = gap(found, recipe, shuffle, regime.measure) if shuffle else None
    auroc, end = mean(at.values()), mean(x.mean() for x in found.outcomes(plain, "after").values())
    gamed = gaming(found, recipe, judged)
    return Card(
        recipe, about, name, regime.measure, it, judged, gain, gap(found, recipe, plain, "after"),
        share_of_truth(found, recipe, plain, regime), placed, at, curve,
        None if auroc is None else expected(curve, auroc), strength(found, recipe), gamed,
        price(found, recipe, end), price(found, plain), named(it, placed, auroc, gamed),
    )  # fmt: skip


def named(it: Sensitivity, placed: Comparison | None, auroc: float | None, gamed: Sequence[str]) -> list[str]:
    """What a reward is, in words; nothing where the regime is not sensitive. `placed`: it minus its own shuffle;
    `auroc` of what it pays; `gamed`: why it looks so."""
    if not it.sensitive:
        return []
    found = ["gamed"] if gamed else []
    blind = auroc is not None and abs(auroc - 0.5) < 0.05
    if blind and not (placed and placed.low > 0):
        found.append("return without placement: what it pays for a step does not say whether the step helped")
    elif placed and placed.low > 0:
        found.append("its placement counts: the same pay on other turns of the episode is worth less")
    return found


def regimes() -> list[str]:
    """Names of the parameters files that are regimes."""
    return [name for name in parameters.sizes() if "assay" in read_yaml(params_file(name))]


def load(regime: str) -> tuple[parameters.Assay, list[Experiment]]:
    """A regime of `params/regimes/` by name: its rule and its planned cells.

    Raises:
        ParameterError: there is none of this name, or it has no `assay`.
    """
    file = params_file(regime)
    content = parameters.load_file(file) if file else {}
    if "assay" not in content:
        raise ParameterError(
            f"regime = {regime!r}: no file of params/regimes/ has this name and the key assay; allowed: "
            f"{', '.join(regimes())}"
        )
    return parameters.Assay(**content["assay"]), plan(file)


def shuffled_recipe(recipe: str, folder: Path) -> str | None:
    """A recipe's own shuffle: every internal reward permuted within each episode. One of `params/recipes`, or the path
    of one written to `folder`. None where that would change nothing (GRPO's sum over turns)."""
    file, made = recipe_file(recipe), load_recipe(recipe)
    if made.estimator.kind == "grpo" or not any(c.name != "outcome" for c in made.components):
        return None
    if not recipe.endswith(".yaml") and f"{recipe}_shuffled" in {path.stem for path in file.parent.glob("*.yaml")}:
        return f"{recipe}_shuffled"  # planned, as the controls are
    content = read_yaml(file)
    for spec, component in zip(content["components"], made.components, strict=True):
        if component.name != "outcome":
            spec["shuffled"] = True
        if "component" in spec and ".py:" in spec["component"]:
            path, _, cls = spec["component"].partition(":")
            spec["component"] = f"{(file.parent / path).resolve()}:{cls}"
    target = folder / f"{file.stem}_shuffled.yaml"
    write_atomic(target, yaml.safe_dump(content, sort_keys=False))
    return str(target.resolve())


def assay(
    recipe: str, regime: str = "tight", seeds: int = 5, jobs: int | None = None,
    on_update: Callable[[str], None] = lambda line: None,
) -> Card:  # fmt: skip
    """Judge a recipe (a name of `params/recipes`, or the path of a YAML file) in a regime: train what is missing of it
    and of its own shuffle with the controls' first `seeds` seeds, and compare with the controls' cells. Interrupted and
    started again, it goes on where it was. One that the regime plans itself is judged by all of its cells, if there are
    `FEWEST`. `sglib.view.card` makes a page of what is returned.

    Raises:
        ParameterError: naming the recipe, regime or number that is wrong, before anything is trained.
        RuntimeError: a training failed, with its reason.
    """
    if jobs is not None and jobs < 1:
        raise ParameterError(f"jobs = {jobs}: must be at least 1")
    if not FEWEST <= seeds <= 100:
        raise ParameterError(f"seeds = {seeds}: allowed: {FEWEST} to 100")
    rule, planned = load(regime)
    p = planned[0].params
    made, file = load_recipe(recipe, p.card), recipe_file(recipe)
    own = str(file.resolve()) if recipe.endswith(".yaml") else recipe
    if file.stem in {cell.recipe for cell in planned} and recipe.endswith(".yaml"):
        raise ParameterError(f"{recipe}: its name {file.stem} is that of a recipe of {regime}; allowed: another name")
    shuffle = shuffled_recipe(recipe, folder_of(regime, p.output_dir))
    found = read_evidence(planned)
    if len(found.seeds(recipe)) >= FEWEST:  # one of the regime's own: its cells are there
        return card(found, rule, recipe, made.about, regime, Path(shuffle).stem if shuffle else None)
    mine = [
        Experiment(one, p.model_copy(update={"seed": seed, "arms": [one]}))
        for seed in range(planned[0].seed, planned[0].seed + seeds)
        for one in filter(None, (own, shuffle))
    ]
    _, failed = fill(mine, jobs, on_update)
    if failed:
        raise RuntimeError(next(iter(failed.values())))
    for name, cell in read_evidence(mine).cells.items():
        found.cells[name] = cell | {"recipe": Path(cell["recipe"]).stem}  # a file's cells have its path
    return card(found, rule, file.stem, made.about, regime, Path(shuffle).stem if shuffle else None)


def folder_of(regime: str, output_dir: str = "outputs") -> Path:
    """Where a regime's report cards lie: `outputs/assay/<regime>`."""
    return output_root(output_dir) / "assay" / regime


def lines(result: Card) -> list[str]:
    """A card in a few lines of text."""
    it, share = result.sensitivity, result.share
    text = [
        f"{result.recipe} in {result.regime}: {result.verdict}",
        f"  the regime is {'sensitive' if it.sensitive else 'NOT sensitive'}: {it.why}",
    ]
    if result.gain:
        text.append(f"  against success alone ({it.plain or 'grpo'}): {result.gain}")
    if share:
        text.append(f"  share of the truth: {share[0]:.2f} [{share[1]:.2f}, {share[2]:.2f}]")
    if result.placement:
        text.append(f"  placement (against its own shuffle): {result.placement}")
    if result.calibration:
        text.append("  AUROC of what it pays: " + ", ".join(f"{k} {v:.2f}" for k, v in result.calibration.items()))
    if result.expected is not None:
        text.append(f"  the truth at this AUROC would gain {100 * result.expected:+.1f} points")
    text += [f"  gamed: {reason}" for reason in result.gamed]
    return [*text, *(f"  {name}" for name in result.names if name != "gamed")]
