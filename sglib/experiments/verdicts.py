"""The claims of `params/claims.yaml`, judged on the evidence of each regime, and the tables of that.

    python -m sglib verdicts           # writes docs/results.md's part on the evidence from the committed cells

Each claim is a paired difference of two recipes over seeds and games, a - b, by the measure that the regime's file
fixes. `sglib.experiments.assay` has the rule: first whether the regime can tell the truth from success alone; if not,
every verdict is "cannot be told here"; if it can, the difference *helps*, *hurts*, makes *no difference beyond the
band* or is *inconclusive*. What the paper claims stands beside it.

The rule judges each claim alone; `p_holm` is its p-value adjusted for all claims that are judged in the regime, and a
verdict with one above 0.05 is marked provisional. Sizes are not compared: the papers train models of 1.5 to 7 B
parameters on the official tasks, here 0.8 M parameters play generated rooms.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from sglib.experiments import phase
from sglib.experiments.assay import CANNOT, FEW, VERDICTS, load, regimes, sensitivity, verdict
from sglib.experiments.claims import CLAIMS, FACTS, REASONS, Claim
from sglib.experiments.evidence import FEWEST, Found, folders, read_evidence
from sglib.experiments.params import Assay
from sglib.experiments.recipe import load_recipe
from sglib.experiments.runs import repo_root
from sglib.experiments.tables import markdown_table
from sglib.measure.hacking import first_and_last
from sglib.measure.intervals import Comparison, compare, holm, points
from sglib.measure.power import detectable
from sglib.records import write_atomic

ALL = slice(None)
FRESH = slice(256, None)  # games of the dense panel that no run of the tuning has played, see outputs/reference/tuning.csv
MARKS = "<!-- verdicts: written by `python -m sglib verdicts` -->", "<!-- /verdicts -->"  # in docs/results.md
UNEXAMINED = "No reason has been examined yet; nothing else was tried."
OPEN = "Not examined: the interval reaches zero or the estimate lies inside the band; *left possible* says how much that leaves open."


def compared(found: Found, claim: Claim, measure: str = "after", games: slice = ALL) -> Comparison | None:
    """a - b of a claim; None with fewer than two pairs of seeds. A claim about the policy before training, or after what
    its `start` taught, is about the end of training, whatever the measure."""
    whens = claim.a_when, claim.b_when
    a, b = (
        found.outcomes(recipe, measure if set(whens) == {"after"} else when, games)
        for recipe, when in zip((claim.a, claim.b), whens)
    )
    return compare(a, b) if len(set(a) & set(b)) >= 2 else None


def judge(found: Found, regime: Assay, claims: Sequence[Claim] = CLAIMS, games: slice = ALL) -> list[dict]:
    """One row for each claim of whose recipes there is a cell.

    Args:
        games: which of the panel's games count; band and sensitivity are those of all of them.

    Returns:
        Rows of `paper`, `claim`, `differs`, `theirs`, `a`, `b`, `knows`, `claimed` ("helps" or "hurts": a against b), ours
        (`estimate`, `low`, `high`, `p`, `p_holm`), `seeds`, `games`; `sd` over seeds; `detectable`, the smallest true
        difference that would be found beyond the band with 80 % power; `left`, the largest difference on the claimed
        side that the interval leaves possible, 0 for none; `verdict`; `provisional`, whether it says helps or hurts and
        `p_holm` is above 0.05; `why` (its reason in `params/claims.yaml`), where it is judged and not as claimed.
        Differences are fractions, -1..1.
    """
    it, rows = sensitivity(found, regime), []
    for claim in (c for c in claims if found.seeds(c.a) and found.seeds(c.b)):
        difference = compared(found, claim, regime.measure, games)
        judged = verdict(difference, it.band, it.sensitive)
        numbers = dict.fromkeys(("estimate", "low", "high", "p", "sd", "detectable", "left"))
        if difference:
            numbers = {name: getattr(difference, name) for name in ("estimate", "low", "high", "sd")}
            numbers |= {"p": difference.p_value, "detectable": detectable(difference, beyond=it.band or 0.0)}
            numbers["left"] = max(claim.sign * difference.low, claim.sign * difference.high, 0.0)
        row = {"paper": claim.paper, "claim": claim.text, "differs": claim.differs, "a": claim.names[0]}
        row |= {"b": claim.names[1], "knows": load_recipe(claim.a).knows, "theirs": claim.theirs, "sign": claim.sign}
        row |= {"claimed": "helps" if claim.sign > 0 else "hurts", **numbers, "verdict": judged}
        row["seeds"] = len(set(found.seeds(claim.a)) & set(found.seeds(claim.b)))
        row["games"] = difference.tasks if difference else 0
        row["why"] = REASONS[claim.why] if claim.why and judged in VERDICTS and judged != row["claimed"] else ""
        rows.append(row)
    adjusted = holm([row["p"] if row["verdict"] in VERDICTS else None for row in rows])
    for row, p in zip(rows, adjusted, strict=True):
        row |= {"p_holm": p, "provisional": row["verdict"] in VERDICTS[:2] and p > 0.05}
    return rows


def headline(rows: Sequence[dict]) -> list[dict]:
    """Of the rows of `judge`: the papers' claims and the controls."""
    return [row for row in rows if row["paper"] != "ours" or row["claim"].startswith("control")]


def readable(rows: Sequence[dict]) -> list[dict]:
    """The rows of `judge` as texts for people; "-" where nothing can be said."""

    def text(row: dict, name: str, form: str, unit: float = 1, fewest: int = 0) -> str:
        return "-" if row[name] is None or row["seeds"] < fewest else f"{unit * row[name]:{form}}"

    return [
        {
            "paper": row["paper"],
            "claim": row["claim"] + (f" ({row['differs']})" if row["differs"] else ""),
            "claimed": row["claimed"],
            "theirs (points)": row["theirs"] or "-",
            "ours (points)": points(row["estimate"], row["low"], row["high"])
            if row["estimate"] is not None and row["seeds"] >= FEWEST
            else text(row, "estimate", "+.1f", 100),
            "seeds x games": f"{row['seeds']} x {row['games']}",
            "knows": row["knows"],
            "detectable": text(row, "detectable", ".1f", 100, FEWEST),
            "left possible": text(row, "left", ".1f", 100, FEWEST),
            "p": _small(row["p"]),
            "p (Holm)": _small(row["p_holm"]),
            "verdict": row["verdict"] + (" (provisional)" if row["provisional"] else ""),
            "compared": f"{row['a']} - {row['b']}",
        }
        for row in rows
    ]


def _small(p: float | None) -> str:
    return "-" if p is None else f"{p:.2g}" if p >= 0.001 else "< 0.001"


def drawn(rows: Sequence[dict]) -> list[dict]:
    """The rows of `judge` for `sglib.view.forest`: claims that have an estimate, in points, the claimed side to the
    right; an interval from `FEWEST` seeds on."""
    found = []
    for row in rows:
        if row["estimate"] is None:
            continue
        ends = sorted(100 * row["sign"] * row[name] for name in ("low", "high"))
        low, high = ends if row["seeds"] >= FEWEST else (None, None)
        reported = re.match(r"[+-][\d.]+(?= \()", row["theirs"])  # one number, no range
        found.append({
            "name": f"{row['paper']}: {row['claim']} ({row['seeds']})",
            "estimate": 100 * row["sign"] * row["estimate"], "low": low, "high": high, "group": row["verdict"],
            "theirs": row["sign"] * float(reported[0]) if reported else None,
        })  # fmt: skip
    return found


def summary(evidence: Mapping[str, tuple[Assay, Found]]) -> str:
    """What docs/results.md says of the evidence, as Markdown: for each regime first whether it can tell the truth from success
    alone, then the papers' claims and the controls. Sensitive regimes come first; where only the controls were trained,
    and they tell nothing, no table follows. Last the map: what the truth adds in each regime that has three seeds of it."""
    parts = []
    kept = ("paper", "claim", "claimed", "theirs (points)", "ours (points)", "seeds x games", "knows", "p (Holm)", "verdict")
    judged = [(name, *pair, sensitivity(pair[1], pair[0])) for name, pair in evidence.items()]
    for name, regime, found, it in sorted(judged, key=lambda row: (not row[3].sensitive, -len(row[2].cells))):
        controls = {*regime.plain, regime.again, regime.truth, regime.shuffled}
        bare = not it.sensitive and {cell["recipe"] for cell in found.cells.values()} <= controls
        planned = len(found.cells) + len(found.missing) + len(found.stale)
        said = "**sensitive**" if it.sensitive else "**not sensitive**: no verdict can be given here"
        parts.append(f"**Regime `{name}`** ({len(found.cells)} of {planned} cells): {said}. {it.why}.")
        rows = [] if bare else headline(judge(found, regime))
        if rows:
            parts.append(markdown_table([{key: row[key] for key in kept} for row in readable(rows)]))
    if points_of_map := phase.readable(phase.phase({name: found for name, (_, found) in evidence.items()})):
        parts += ["**The map**: what the truth adds to the better of GRPO and GiGPO, in points.", markdown_table(points_of_map)]
    return "\n\n".join(parts)


def unsupported(rows: Sequence[dict]) -> dict[str, list[dict]]:
    """reason -> the rows (of `judge`, or like them) that are judged and not as claimed, or stay open: every one of them,
    a reason known or not."""
    found: dict[str, list[dict]] = {}
    for row in rows:
        if row["verdict"] not in (row["claimed"], CANNOT, FEW):
            unknown = OPEN if row["verdict"] == VERDICTS[3] else UNEXAMINED
            found.setdefault(row.get("why") or unknown, []).append(row)
    return found


def facts(found: Found) -> list[dict]:
    """What the reasons lean on, measured in the cells: rows of `what`, `recipe`, `when` ("panel"; "panel, before" and
    ", after" training; "first", "last": `sglib.measure.hacking.WINDOW`), `mean`, `least`, `most` over seeds, `seeds`."""
    rows = []
    for fact in FACTS:
        column, part, unit = fact.column, fact.part, fact.unit
        for recipe in fact.recipes:
            if column in ("before", "start"):
                values = {"panel": [x.mean() for x in found.outcomes(recipe, column).values()]}
            elif column in ("looping", "invalid"):
                curves = [cell["curve"] for cell in found.seeds(recipe).values()]
                values = {f"panel, {when}": [x[i][column] for x in curves] for when, i in (("before", 0), ("after", -1))}
            else:
                series = [cell["batches"].get(column, []) for cell in found.seeds(recipe).values()]
                pairs = (first_and_last([{column: x} for x in of], column) for of in series)
                both = zip(("first", "last"), zip(*pairs))
                values = {when: [x for x in of if x is not None] for when, of in both if part in (when, "both")}
            for when, of in values.items():
                if of:
                    scaled = unit * np.array(of)
                    numbers = {"mean": scaled.mean(), "least": scaled.min(), "most": scaled.max()}
                    numbers = {name: float(x) for name, x in numbers.items()}
                    rows.append({"what": fact.what, "recipe": recipe, "when": when, **numbers, "seeds": len(of)})
    return rows


def write_results() -> int:
    """The command `python -m sglib verdicts`: write docs/results.md's part on the evidence from the committed cells."""
    file = repo_root() / "docs" / "results.md"
    text = file.read_text(encoding="utf-8")
    before, start, rest = text.partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not (start and end):
        print(f"{file}: lacks {MARKS[0]} or, after it, {MARKS[1]}")
        return 1
    write_atomic(file, f"{before}{start}\n{summary(committed())}\n{end}{after}")
    return 0


def committed() -> dict[str, tuple[Assay, Found]]:
    """The committed cells of every regime that has any, and its rule, by the regime's name."""
    found = {}
    for name in regimes():
        rule, cells = load(name)
        read = read_evidence(cells, folders(cells[0].params)[1:])
        if read.cells:
            found[name] = rule, read
    return found
