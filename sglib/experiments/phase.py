"""What the true step reward adds to success alone, regime by regime: where any internal reward could help at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sglib.experiments.assay import gap, load, regimes, sensitivity
from sglib.experiments.evidence import Found, read_evidence
from sglib.experiments.params import Assay
from sglib.measure.intervals import Comparison, points

FIRST = 5  # batches at the beginning of training
# what others report of a true, solver-made step reward: base success in %, its gain over the outcome alone in points
LITERATURE = (
    ("CAST, Sokoban 6x6 with 2 boxes, Qwen3-4B (2607.25308)", 44.3, 77.0 - 71.3),
    ("CAST, Minesweeper (2607.25308)", 4.5, 44.7 - 13.7),
    ("CAST, Rush Hour (2607.25308)", 1.1, 64.7 - 53.8),
)


def truth_gain(found: Found, rule: Assay, measure: str) -> tuple[str | None, Comparison | None]:
    """The truth minus the better of success alone by a measure of `assay.MEASURES`, and which that was; (None, None)
    with fewer than three pairs of seeds."""
    gaps = {name: gap(found, rule.truth, name, measure) for name in rule.plain}
    gaps = {name: it for name, it in gaps.items() if it is not None}
    return min(gaps.items(), key=lambda pair: pair[1].estimate) if gaps else (None, None)


def measured(name: str, found: Found | None = None) -> dict | None:
    """A regime's row, of its `found` or all its cells; None with fewer than three pairs of seeds. Shares are fractions.

    Returns:
        `regime`, `env`, `turns`, `group` (episodes), `iterations`, `reversible` (whether what was done can be undone);
        `base`, success before training; `silent`, share of episodes in groups whose outcomes are all alike, first
        batches; `against` (the better of success alone), `seeds`, `games`; the truth's gain at the end (`end`,
        `end_low`, `end_high`) and, where cells have it, over training (`training` and the same); `sensitive`.
    """
    rule, planned = load(name)
    found, settings = read_evidence(planned) if found is None else found, planned[0].params
    plain, end = truth_gain(found, rule, "after")
    if end is None:
        return None
    batches = [cell["batches"] for cell in found.seeds("grpo" if found.seeds("grpo") else plain).values()]
    row = {
        "regime": name, "env": settings.env, "turns": settings.turns, "group": settings.group_size,
        "iterations": settings.iterations,
        "reversible": settings.env != "sokoban",
        "base": float(np.mean([x.mean() for x in found.outcomes(plain, "before").values()])),
        "silent": float(np.mean([columns["zero_advantage"][:FIRST] for columns in batches])),
        "against": plain, "seeds": end.seeds, "games": end.tasks,
        "end": end.estimate, "end_low": end.low, "end_high": end.high,
        "sensitive": sensitivity(found, rule).sensitive,
    }  # fmt: skip
    _, training = truth_gain(found, rule, "training")
    if training:
        row |= {"training": training.estimate, "training_low": training.low, "training_high": training.high}
    return row


def phase(found: Mapping[str, Found] | None = None) -> list[dict]:
    """The rows of `measured` of every regime that has enough cells; `found` has them by the regime's name."""
    found = dict.fromkeys(regimes()) if found is None else found
    return [row for name, cells in found.items() if (row := measured(name, cells)) is not None]


def readable(rows: Sequence[dict]) -> list[dict]:
    """The rows for a table, shortest episodes first; intervals in points."""
    return [
        {
            "regime": row["regime"], "environment": row["env"], "turns": row["turns"], "group": row["group"],
            "iterations": row["iterations"],
            "base, %": f"{100 * row['base']:.1f}", "silent, %": f"{100 * row['silent']:.0f}",
            **{f"truth - success alone, {when}": points(*(row[f"{key}{end}"] for end in ("", "_low", "_high")))
               if key in row else "-" for when, key in (("over training", "training"), ("at the end", "end"))},
            "seeds x games": f"{row['seeds']} x {row['games']}", "sensitive": "yes" if row["sensitive"] else "no",
        }
        for row in sorted(rows, key=lambda row: (row["env"], row["turns"], row["group"]))
    ]  # fmt: skip


def by_base(rows: Sequence[dict]) -> dict[str, list[dict]]:
    """The map, for `sglib.figures.points`: gain at the end over success of the base model, in percent and points, and
    what others report."""
    series: dict[str, list[dict]] = {}
    for row in rows:
        kind = f"{row['env']}, {'' if row['reversible'] else 'not '}reversible, groups of {row['group']}"
        text = f"{row['regime']} ({row['turns']} turns)"
        series.setdefault(kind, []).append(_point(row, "base", "end", text))
    others = [{"x": base, "y": gain, "low": None, "high": None, "text": text} for text, base, gain in LITERATURE]
    return series | {"reported by others": others}


def by_silence(rows: Sequence[dict]) -> dict[str, list[dict]]:
    """Gain over training by the share of episodes from which success alone learns nothing at first."""
    series: dict[str, list[dict]] = {}
    for row in (row for row in rows if "training" in row):
        kind = f"{row['env']}, groups of {row['group']}"
        series.setdefault(kind, []).append(_point(row, "silent", "training", row["regime"]))
    return series


def _point(row: dict, x: str, y: str, text: str) -> dict:
    ends = {"y": row[y], "low": row[f"{y}_low"], "high": row[f"{y}_high"]}
    return {"x": 100 * row[x], **{name: 100 * value for name, value in ends.items()}, "text": text}
