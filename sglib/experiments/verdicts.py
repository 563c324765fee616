"""The rule by which the claims of `params/claims.yaml` are judged on the evidence, and its tables.

    python -m sglib verdicts           # writes README.md's part on the evidence from the committed cells

Each claim is a paired difference of two recipes over seeds and games (`sglib.measure.intervals.compare`). The verdict:

- **holds**: the 95 % interval lies on the claimed side of zero, and the estimate is beyond the A/A band;
- **does not hold**: the interval lies on the other side of zero, and the estimate is beyond the band;
- **inconclusive**: anything else. The interval says how large an effect it leaves possible.

The A/A band is the largest difference that the interval of plain GRPO against itself reaches (`grpo_again`: the same
games in another order, other random numbers). Both need `FEWEST` seeds. The rule judges each claim alone; `p_holm` is
its p-value adjusted for all claims that are judged. Sizes are not compared: the papers train models of 1.5 to 7 B
parameters on the official tasks, here 0.8 M parameters play generated rooms.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from sglib.experiments.claims import CLAIMS, FACTS, REASONS, Claim
from sglib.experiments.evidence import FEWEST, Found, folders, further_splits, plan, read_evidence
from sglib.experiments.runs import repo_root
from sglib.experiments.tables import markdown_table
from sglib.measure.hacking import first_and_last
from sglib.measure.intervals import Comparison, compare, holm, points
from sglib.measure.power import detectable
from sglib.records import write_atomic

METHOD = "grpo"
AGAIN = "grpo_again"
ALL = slice(None)
FRESH = slice(256, None)  # games of the panel that no run of the tuning has played, see outputs/reference/tuning.csv
UNSUPPORTED = ("does not hold", "inconclusive")
JUDGED = ("holds", *UNSUPPORTED)
VERDICTS = (*JUDGED, "too few seeds", "no A/A band")
MARKS = "<!-- verdicts: written by `python -m sglib verdicts` -->", "<!-- /verdicts -->"  # in README.md
UNEXAMINED = "No reason has been examined yet; nothing else was tried."
OPEN = "Not examined: the interval reaches zero or the estimate lies inside the band; *left possible* says how much that leaves open."


def same_method_twice(found: Found) -> Comparison | None:
    """Plain GRPO against itself (A/A), None with fewer than `FEWEST` pairs of seeds."""
    same = _compared(found, Claim(paper="", text="", a=AGAIN, b=METHOD))
    return same if same is not None and same.seeds >= FEWEST else None


def noise_band(found: Found) -> float | None:
    """The largest difference, 0..1, that the interval of the A/A comparison reaches; None where there is none."""
    same = same_method_twice(found)
    return None if same is None else max(abs(same.low), abs(same.high))


def _compared(found: Found, claim: Claim, games: slice = ALL) -> Comparison | None:
    a, b = found.outcomes(claim.a, claim.a_when, games), found.outcomes(claim.b, claim.b_when, games)
    return compare(a, b) if len(set(a) & set(b)) >= 2 else None


def verdict(claim: Claim, gap: Comparison | None, band: float | None) -> str:
    """By the rule at the top of this file; "too few seeds" and "no A/A band" where that is missing."""
    if gap is None or gap.seeds < FEWEST:
        return "too few seeds"
    if band is None:
        return "no A/A band"
    if abs(gap.estimate) > band:
        if min(claim.sign * gap.low, claim.sign * gap.high) > 0:
            return "holds"
        if max(claim.sign * gap.low, claim.sign * gap.high) < 0:
            return "does not hold"
    return "inconclusive"


def judge(found: Found, claims: Sequence[Claim] = CLAIMS, games: slice = ALL) -> list[dict]:
    """One row a claim.

    Args:
        games: which of the panel's games count; the band is that of all of them.

    Returns:
        Rows of `paper`, `claim`, `theirs`, `sign`, ours (`estimate`, `low`, `high`, `p`, `p_holm`), `seeds`, `games`; `sd` over
        seeds; `detectable`, the smallest true difference that would be found beyond the band with 80 % power; `left`,
        the largest difference on the claimed side that the interval leaves possible, 0 for none; `verdict`; `why`
        (its reason in `params/claims.yaml`), where it does not hold or stays open. Differences are fractions, -1..1.
    """
    band, rows = noise_band(found), []
    for claim in claims:
        gap = _compared(found, claim, games)
        judged = verdict(claim, gap, band)
        numbers = dict.fromkeys(("estimate", "low", "high", "p", "sd", "detectable", "left"))
        if gap:
            numbers = {name: getattr(gap, name) for name in ("estimate", "low", "high", "sd")}
            numbers |= {"p": gap.p_value, "detectable": detectable(gap, beyond=band or 0.0)}
            numbers["left"] = max(claim.sign * gap.low, claim.sign * gap.high, 0.0)
        row = {"paper": claim.paper, "claim": claim.text, "a": claim.names[0], "b": claim.names[1]}
        row |= {"theirs": claim.theirs, "sign": claim.sign, **numbers, "verdict": judged}
        row["seeds"] = len(set(found.seeds(claim.a)) & set(found.seeds(claim.b)))
        row["games"] = gap.tasks if gap else 0
        row["why"] = REASONS[claim.why] if claim.why and judged in UNSUPPORTED else ""
        rows.append(row)
    adjusted = holm([row["p"] if row["verdict"] in JUDGED else None for row in rows])
    for row, p in zip(rows, adjusted, strict=True):
        row["p_holm"] = p
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
            "claim": row["claim"],
            "theirs (points)": row["theirs"] or "-",
            "ours (points)": points(row["estimate"], row["low"], row["high"])
            if row["estimate"] is not None and row["seeds"] >= FEWEST
            else text(row, "estimate", "+.1f", 100),
            "seeds x games": f"{row['seeds']} x {row['games']}",
            "detectable": text(row, "detectable", ".1f", 100, FEWEST),
            "left possible": text(row, "left", ".1f", 100, FEWEST),
            "p": _small(row["p"]),
            "p (Holm)": _small(row["p_holm"]),
            "verdict": row["verdict"],
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


def summary(found: Found, unseen: Found) -> str:
    """What README.md says of the evidence, as Markdown: how much there is, the band, the papers' claims and the
    controls with their verdicts, and how many of these are the same on games that tuning had not seen, and in `unseen`,
    the cells in rooms never trained in."""
    same, planned = same_method_twice(found), len(found.cells) + len(found.missing) + len(found.stale)
    rows = headline(judge(found))

    def repeated(where: str, others: Sequence[dict]) -> str:
        both = [(a, b) for a, b in zip(rows, others) if a["verdict"] in JUDGED and b["verdict"] in JUDGED]
        changed = [(a, b) for a, b in both if a["verdict"] != b["verdict"]]
        different = [f"{a['paper']}, {a['claim']} ({a['verdict']} above, {b['verdict']} there)" for a, b in changed]
        text = f"{len(both) - len(different)} of {len(both)} verdicts are the same" if both else "no claim is judged yet"
        return f"{where} {text}" + (f"; these differ: {'; '.join(different)}." if different else ".")

    there = repeated(
        "On the 256 of the 512 games that no run had played when the set-up was settled", headline(judge(found, games=FRESH))
    )
    rooms = f"In rooms never trained in ({len(unseen.cells)} cells, as many games)"
    there += "\n\n" + repeated(rooms, headline(judge(unseen)))
    kept = ("paper", "claim", "theirs (points)", "ours (points)", "seeds x games", "p (Holm)", "verdict")
    table = markdown_table([{name: row[name] for name in kept} for row in readable(rows)])
    noise = "no A/A band yet" if same is None else f"plain GRPO against itself: {same}; band {100 * noise_band(found):.1f} points"
    return f"{len(found.cells)} of {planned} cells; {noise}.\n\n{table}\n\n{there}"


def unsupported(rows: Sequence[dict]) -> dict[str, list[dict]]:
    """reason -> the rows (of `judge`, or like them) that do not hold or stay open: every one of them, a reason known or
    not."""
    found: dict[str, list[dict]] = {}
    for row in rows:
        if row["verdict"] in UNSUPPORTED:
            unknown = UNEXAMINED if row["verdict"] == "does not hold" else OPEN
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


def write_readme() -> int:
    """The command `python -m sglib verdicts`: write README.md's part on the evidence from the committed cells."""
    file = repo_root() / "README.md"
    text = file.read_text(encoding="utf-8")
    before, start, rest = text.partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not (start and end):
        print(f"{file}: lacks {MARKS[0]} or, after it, {MARKS[1]}")
        return 1
    write_atomic(file, f"{before}{start}\n{summary(*committed())}\n{end}{after}")
    return 0


def committed() -> tuple[Found, Found]:
    """The committed cells of `params/full.yaml`, on the panel that training looks at and on that of the next split."""
    cells = plan(repo_root() / "params" / "full.yaml")
    reference = folders(cells[0].params)[1:]
    return read_evidence(cells, reference), read_evidence(cells, reference, further_splits(cells)[0])
