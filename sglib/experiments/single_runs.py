"""What the notebooks' own runs say of the papers' claims: one seed each, on this machine and as committed."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pandas as pd

from sglib.experiments.runs import find_runs
from sglib.measure.intervals import difference, points, wilson

NOTEBOOKS = ("01_pilot_study", "02_inference_self_guidance", "03_repro_warmup", "04_joint_grpo")
UNREAD = (
    "The example is another game's text before one's own; of the base model's pre-training, 5 % had one (its card). "
    "Tried: nothing else."
)
NO_PLAN = (
    "A guidance of the base model is two or three words that name a subgoal, learned from rule-based demonstrations: "
    "it adds no plan that acting alone lacks. Tried: nothing else."
)


def sources(output_dir: str, reference: bool) -> tuple[list[dict[str, dict]], list[str]]:
    """Where single runs come from: notebook -> `run.json` of its latest complete run here, and (with `reference`, where
    they differ from those) of the committed ones. And a line a notebook that says what there is."""
    here = {name: find_runs(name, output_dir) for name in NOTEBOOKS}
    kept = {name: find_runs(name, reference=True) if reference else [] for name in NOTEBOOKS}
    lines = []
    for name, found in here.items():
        latest = f", latest {found[-1]['run']}" if found else "; none in the tables below"
        lines.append(f"{name}: {len(found)} complete run(s) here{latest}; {len(kept[name])} committed")
    latest, committed = ({name: found[-1] for name, found in of.items() if found} for of in (here, kept))
    differ = any(latest.get(name, {}).get("run") != info["run"] for name, info in committed.items())
    return [latest, committed] if differ else [latest], lines


def claims(where: list[dict[str, dict]]) -> tuple[list[dict], list[str]]:
    """Rows of `paper`, `claim`, `theirs (points)`, `ours (points)`, `n games`, `verdict`, `run`, `why` (the likely
    reason, should it not hold); and the runs of which a file is missing or damaged, each with its error."""
    rows, broken = [], []
    for source in where:
        for name, found in source.items():
            try:
                rows += list(READERS[name](found))
            except (OSError, KeyError, ValueError) as error:
                broken.append(f"{name}, run {found['run']}: {error!r}")
    return rows, broken


def success(where: list[dict[str, dict]]) -> list[dict]:
    """Every success rate that the runs kept, with Wilson's interval over games: rows of `run`, `notebook`, `what`,
    `success`, `low`, `high` (0..1), `n`."""
    rows = []
    for name, found in ((name, found) for source in where for name, found in source.items()):
        rates = found["results"].get("success")
        for key, value in rates.items() if isinstance(rates, dict) else []:
            n = found["params"].get("eval_games") or found["params"]["games"]  # the panel
            low, high = wilson(round(value * n), n)
            row = {"run": found["run"], "notebook": name, "what": key, "success": value, "low": low, "high": high}
            rows.append(row | {"n": n})
    return rows


def _row(
    found: dict, paper: str, text: str, theirs: str, gap: tuple[float, float, float], n: int, positive: bool = True,
    verdict: str = "", why: str = "",
) -> dict:  # fmt: skip
    """`gap`: (estimate, low, high) as fractions; without a `verdict` of its own the interval decides."""
    estimate, low, high = gap
    claimed, opposite = (low > 0, high < 0) if positive else (high < 0, low > 0)
    verdict = verdict or ("as claimed" if claimed else "the opposite" if opposite else "inconclusive")
    return {
        "paper": paper, "claim": text, "theirs (points)": theirs, "ours (points)": points(estimate, low, high),
        "n games": int(n), "verdict": verdict, "run": found["run"], "why": why,
    }  # fmt: skip


def _pilot(found: dict) -> Iterator[dict]:
    """RePro's pilot study."""
    table = pd.read_csv(found["folder"] / "conditions.csv").set_index("condition")
    example = "an example annotated in hindsight helps (one example, whose draw no interval covers)"
    for name, text, theirs, positive, why in (
        ("online", "stating progress online hurts", "-8.6 (WebShop) (s)", False, ""),
        ("retrospective", example, "+7.9 (WebShop) (s)", True, UNREAD),
    ):
        if name in table.index and found["results"].get("baseline") == "basic" and "basic" in table.index:
            x = table.loc[name]
            gap = x["difference"], x["difference_low"], x["difference_high"]
            yield _row(found, "RePro, pilot", text, theirs, gap, x["n"], positive, why=why)


def _inference(found: dict) -> Iterator[dict]:
    """Self-Guide without training."""
    x, theirs = found["results"], "+10.9 (1.7B), +38.3 (4B), +13.3 (7B)"
    if "difference" in x:
        gap, text = (x["difference"], x["low"], x["high"]), "guidance helps without training"
        yield _row(found, "Self-Guide, inference", text, theirs, gap, found["params"]["games"], why=NO_PLAN)


def _warmup(found: dict) -> Iterator[dict]:
    """RePro's warmup alone."""
    text = "warmup alone changes success (ours: after minus before; theirs: against the full method)"
    x = found["results"]
    gap, n = (x["difference"], x["low"], x["high"]), found["params"]["eval_games"]
    yield _row(found, "RePro, ablation", text, "-23 to -81 (s)", gap, n, False, verdict="not comparable")


def _training(found: dict) -> Iterator[dict]:
    """Self-Guide, trained."""
    outcomes = json.loads((found["folder"] / "outcomes.json").read_text(encoding="utf-8"))
    for a, b, text, theirs in (
        ("grpo", None, "plain GRPO learns", "+62.5 (1.7B)"),
        ("guide", "grpo", "guidance without its reward beats plain GRPO", "+8.6 (1.7B)"),
        ("self_guide", "guide", "the scheduled reward adds to guidance", "+8.5 (1.7B)"),
        ("self_guide", "immediate", "the schedule beats the full reward at once", "+16.6 (WebShop, 1.7B)"),
    ):
        if a in outcomes and (b is None or b in outcomes):
            other = outcomes[a]["before"] if b is None else outcomes[b]["after"]
            x = difference(outcomes[a]["after"], other)
            gap = x.estimate, x.low, x.high
            yield _row(found, "Self-Guide, trained", text, theirs, gap, x.n, verdict="one seed")


READERS = dict(zip(NOTEBOOKS, (_pilot, _inference, _warmup, _training)))
