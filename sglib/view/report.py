"""The report that one sends to a colleague: the evidence against the papers' claims, as one page without code.

`params/report.md` has its words. A line `{{ name }}` in it is replaced by what the method of `Report` of that name
measures: tables, figures, lists. Shown in a notebook it has the figures that move; `report.html` in the run's folder
has their still images, no script and no other file, so that it can be sent.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import mistune
import pandas as pd
import plotly.graph_objects as go
from mistune.toc import add_toc_hook, render_toc_ul

from sglib.experiments import assay, claims, evidence, phase, single_runs, verdicts
from sglib.experiments.files import params_dir
from sglib.experiments.params import ReportParams
from sglib.experiments.runs import Run, check_manifest
from sglib.experiments.tables import escape, escape_markdown, markdown_table
from sglib.measure.hacking import WINDOW
from sglib.measure.intervals import points, success
from sglib.measure.power import detectable
from sglib.records import write_atomic
from sglib.view import figures
from sglib.view.still import save_figure, show

PLACE = re.compile(r"^\{\{ (\w+) \}\}$", re.MULTILINE)
PARTS = (
    "instrument", "verdicts", "phase", "fresh", "unseen", "unsupported", "facts", "elsewhere", "recipes", "curves",
    "single", "single_curves", "single_success", "untold", "provenance",
)  # fmt: skip
STYLE = """body{max-width:75em;margin:2em auto;padding:0 1em;font:15px/1.5 sans-serif;color:#222;background:#fff}
p,li,h1{max-width:52em} h2{margin-top:2em;border-bottom:1px solid #ccc} img{max-width:100%}
table{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto}
td,th{border-bottom:1px solid #ddd;padding:3px 9px;text-align:left;vertical-align:top} th{background:#f4f4f4}
nav{font-size:13px;columns:2}"""
GUIDED = ("guide", "self_guide", "immediate", "immediate_win1")
CURVES = {
    "learning": {
        "acting, and with stated progress (repro)": dict.fromkeys(("grpo", "gigpo", "igpo", "repro"), "success"),
        "with guidance, beside plain GRPO": dict.fromkeys(("grpo", "guide", "self_guide", "immediate"), "success"),
    },
    "truth": {
        "AUROC of labels, for 'this step helped'": dict.fromkeys(GUIDED, "calibration/label/auroc"),
        "AUROC of what is paid, for 'this step helped'": {
            "igpo": "calibration/igpo/auroc", "step_agent": "calibration/step_agent/auroc",
            "repro": "calibration/retrospective/auroc",
        },
        "RePro's intermediate discrimination (-100 to 100)": {"repro": "calibration/retrospective/discrimination"},
    },
}  # fmt: skip
CURVE_TITLES = {
    "learning": ("Learning", "share of training episodes won"),
    "truth": ("Is the reward true, while it is trained on?", ""),
}
UNSEEN = ("recipe", "seen", "seen_low", "seen_high", "unseen", "unseen_low", "unseen_high", "seeds", "games")


class Report:
    """The report of one run: made, with its tables and figures in the run's folder, when this is called.

    Args:
        p: which cells, and whether committed runs count.
        run: where `report.html`, the tables and the figures go.
        checks: further results in words, shown where the numbers come from.
        words: the file with the report's text.

    Raises:
        ValueError: the text names a part that does not exist, which is named.
    """

    def __init__(self, p: ReportParams, run: Run, checks: Sequence[str] = (), words: Path | None = None):
        self.p, self.run, self.checks = p, run, checks
        self.parts: list[str | tuple[go.Figure, bytes]] = []
        self.regimes = {}  # name -> its cells, and whether they tell the truth from success alone
        for name in assay.regimes():
            rule, plan = assay.load(name)
            there = evidence.read_evidence(plan)
            self.regimes[name] = there, assay.sensitivity(there, rule)
        self.rule, self.plan = assay.load(p.cells)
        self.there = self.regimes[p.cells][0]
        self.names = list(dict.fromkeys(cell.recipe for cell in self.plan))
        self.band = assay.noise_band(self.there, self.rule)
        self.same = assay.gap(self.there, self.rule.again, self.rule.plain[0], self.rule.measure)
        self.judged = verdicts.judge(self.there, self.rule)
        self.sources, self.source_lines = single_runs.sources(p.output_dir, p.reference)
        self.claims, self.broken = single_runs.claims(self.sources)
        text = (words or params_dir() / "report.md").read_text(encoding="utf-8")
        for i, part in enumerate(PLACE.split(text)):
            if i % 2 == 0:
                self.parts.append(part)
            elif part in PARTS:
                getattr(self, part)()
            else:
                raise ValueError(f"{{{{ {part} }}}}: no such part of the report; allowed: {', '.join(PARTS)}")
        self.path = write_atomic(run.path("report.html"), self.html())

    @property
    def results(self) -> dict:
        """What `run.finish` keeps."""
        counts = Counter(row["verdict"] for row in self.claims)
        numbers = {"cells": len(self.there.cells), "missing": len(self.there.missing), "claims": len(self.claims)}
        return numbers | {"broken": self.broken, "verdicts": dict(counts.most_common())}

    def show(self) -> None:
        """Show the page in a notebook."""
        from IPython.display import Markdown, display

        for part in self.parts:
            if isinstance(part, str):
                display(Markdown(part))
            else:
                show(*part)

    def html(self) -> str:
        """The page as one file: images inside, no script, texts escaped."""
        texts = []
        for part in self.parts:
            if not isinstance(part, str):
                part = f"![figure](data:image/png;base64,{base64.b64encode(part[1]).decode()})"
            texts.append(part)
        to_html = mistune.create_markdown(renderer=_Renderer(escape=True), plugins=["table"])
        add_toc_hook(to_html, min_level=2, max_level=2)
        body, state = to_html.parse("\n\n".join(texts))
        title = escape(next(line for line in texts[0].splitlines() if line.startswith("# "))[2:])
        return (
            f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{title}</title><style>{STYLE}</style>"
            f"</head><body><nav>{render_toc_ul(state.env['toc_items'])}</nav>{body}</body></html>"
        )

    def _say(self, text: str) -> None:
        self.parts.append(text)

    def _list(self, lines: Sequence[str]) -> None:
        if lines:
            self._say("\n".join(f"- {line}" for line in lines))

    def _table(self, rows: Sequence[dict], otherwise: str) -> None:
        self._say(markdown_table(rows) if rows else otherwise)

    def _figure(self, name: str, figure: go.Figure) -> None:
        self.parts.append((figure, save_figure(self.run, name, figure)))

    def _seen(self, rows: Sequence[dict]) -> dict:
        """For a figure's note: the difference that comparisons like the A/A's show with the fewest seeds of `rows`."""
        seeds = min(row["seeds"] for row in rows)
        found = None if self.same is None else detectable(self.same, beyond=self.band, seeds=seeds)
        return {"detectable": found, "pair": f"two of {seeds} seeds that differ as plain GRPO from itself"}

    # -- over seeds ---------------------------------------------------------------------------------------------------

    def instrument(self) -> None:
        """Which regimes can tell the truth from success alone, and what there is of the one that is reported."""
        lines = []
        for name, (there, it) in self.regimes.items():
            said = "**sensitive**" if it.sensitive else "**not sensitive**, nothing can be told here"
            lines.append(f"`{name}`: {escape_markdown(there)}; {said}: {escape_markdown(it.why)}")
        self._list(lines)
        self._say(f"The tables below are of the regime `{self.p.cells}`: {escape_markdown(self.there)}.")
        self._say(escape_markdown(check_manifest()) + ".")
        planned = Counter(cell.recipe for cell in self.plan)
        have = {name: len(self.there.seeds(name)) for name in self.names}
        lacking = [f"`{name}` {have[name]} of {planned[name]}" for name in self.names if have[name] < planned[name]]
        if lacking:
            self._say(f"Recipes that lack seeds: {', '.join(lacking)}.")
        if self.same is None:
            self._say("A/A: no band yet.")
        else:
            least = 100 * detectable(self.same, beyond=self.band)
            self._say(
                f"A/A: {escape_markdown(self.same)}; band {100 * self.band:.1f} points; a true difference of "
                f"{least:.1f} points would get a verdict four times of five where a pair varies as little as this one."
            )

    def verdicts(self) -> None:
        """The papers' claims, judged by the rule."""
        self.run.write_table("verdicts.csv", self.judged)
        if drawn := verdicts.drawn(verdicts.headline(self.judged)):
            games = len(next(iter(self.there.cells.values()))["after"])
            when = "over training" if self.rule.measure == "training" else "at the end"
            self._figure("claims", figures.forest(
                drawn, (*assay.VERDICTS, assay.FEW, assay.CANNOT), title="The papers' claims",
                band=None if self.band is None else 100 * self.band,
                x_title=f"difference in points of success {when}, the claimed side to the right",
                note=f"{games} games, seeds in brackets; whiskers: 95 % interval; "
                     "theirs: other models, tasks and games",
            ))  # fmt: skip
        self._table(verdicts.readable(self.judged), "There are no cells yet.")

    def phase(self) -> None:
        """The truth's gain in every regime."""
        rows = phase.phase({name: there for name, (there, _) in self.regimes.items()})
        self._figure("phase", phase_figure(rows))
        self._table(phase.readable(rows), "No regime has three seeds of the truth yet.")

    def fresh(self) -> None:
        """The verdicts on games that no choice has seen."""
        rows = verdicts.judge(self.there, self.rule, games=verdicts.FRESH) if self.p.cells == "dense" else []
        self._beside(rows, "the other 256")

    def unseen(self) -> None:
        """The verdicts on the panel of another split."""
        seen, split = self.p.card.splits[1], evidence.further_splits(self.plan)[0]
        elsewhere = evidence.read_evidence(self.plan, split=split)
        self._say(f"{len(elsewhere.cells)} of {len(self.there.cells)} cells were played there.")
        self._beside(verdicts.judge(elsewhere, self.rule), split)
        rows = []
        for name in self.names:
            inside, outside = (found.outcomes(name) for found in (self.there, elsewhere))
            common = sorted(set(inside) & set(outside))
            if len(common) >= evidence.FEWEST:
                x, y = (success({seed: of[seed] for seed in common}) for of in (inside, outside))
                row = (name, x.estimate, x.low, x.high, y.estimate, y.low, y.high, y.seeds, y.tasks)
                rows.append(dict(zip(UNSEEN, row)))
        self.run.write_table("unseen.csv", pd.DataFrame(rows, columns=UNSEEN))
        if rows:
            names = [f"{row['recipe']} ({row['seeds']})" for row in rows]
            one, two = ([[row[key] for row in rows] for key in keys] for keys in (UNSEEN[1:4], UNSEEN[4:7]))
            figure = figures.bars(names, *one, group=f"{seen} (other tasks than trained on)")
            title = "Success after training, by panel (seeds in brackets)"
            more = {"onto": figure, "title": title, "n": rows[0]["games"], **self._seen(rows)}
            self._figure("unseen", figures.bars(names, *two, group=split, **more))

    def _beside(self, others: Sequence[dict], name: str) -> None:
        """The claims that `others`, rows of `verdicts.judge` on other games, have enough seeds for, beside ours."""
        key = ("paper", "claim", "a", "b")
        mine = {tuple(row[k] for k in key): row for row in self.judged}
        enough = [row for row in others if row["seeds"] >= evidence.FEWEST and row["games"]]
        pairs = [(mine.get(tuple(row[k] for k in key)), row) for row in enough]
        ours = [
            {
                "paper": new["paper"], "claim": new["claim"],
                "all games (points)": points(old["estimate"], old["low"], old["high"]),
                f"{name} (points)": points(new["estimate"], new["low"], new["high"]),
                "seeds": new["seeds"], "verdict": old["verdict"], f"on {name}": new["verdict"],
            }
            for old, new in pairs if old
        ]  # fmt: skip
        self._table(ours, "No claim has three seeds yet.")

    def unsupported(self) -> None:
        """The claims that are judged and not as claimed, or stay open, under the reason of each."""
        self._against(self.judged)

    def _against(self, rows: Sequence[dict]) -> None:
        listed = verdicts.unsupported(rows)
        for why, of in listed.items():
            self._list([f"{row['paper']}: {row['claim']}: {row['verdict']}" for row in of])
            self._say(why)
        if not listed:
            self._say("No verdict against a claim so far.")

    def facts(self) -> None:
        """What the reasons lean on."""
        rows = verdicts.facts(self.there)
        columns = ["what", "recipe", "when", "mean", "least", "most", "seeds"]
        self.run.write_table("facts.csv", pd.DataFrame(rows, columns=columns))
        shown = [
            {
                "what": row["what"], "recipe": row["recipe"],
                "of": f"the {row['when']}" if row["when"].startswith("panel") else f"{row['when']} {WINDOW} iterations",
                "mean over seeds": f"{row['mean']:.3g}", "least to most": f"{row['least']:.3g} to {row['most']:.3g}",
                "seeds": row["seeds"],
            }
            for row in rows
        ]  # fmt: skip
        self._table(shown, "No cell has them yet.")

    def elsewhere(self) -> None:
        """Claims that the table over seeds does not judge."""
        rows = [
            {"paper": c.paper, "claim": c.text, "theirs": c.theirs or "-", "here": c.here} for c in claims.ELSEWHERE
        ]
        self._table(rows, "None.")

    def recipes(self) -> None:
        """Success of every recipe, and the paper's ablation beside ours."""
        rows = evidence.rates(self.there, self.names)
        columns = ["recipe", "success", "low", "high", "seeds", "games"]
        self.run.write_table("rates.csv", pd.DataFrame(rows, columns=columns))
        if rows:
            title = "Success after training on the held-out panel (seeds in brackets)"
            self._figure("recipes", figures.bars(*_bars(rows), title=title, n=rows[0]["games"], **self._seen(rows)))
        few = [name for name in self.names if len(self.there.seeds(name)) < evidence.FEWEST]
        self._say(f"Fewer than {evidence.FEWEST} seeds, not drawn: {', '.join(f'`{name}`' for name in few) or 'none'}.")
        table, by_name = claims.ABLATION, {row["recipe"]: row for row in rows}
        ours = [by_name[name] for name in table.success if name in by_name]
        if len(ours) > 1:
            theirs = [table.success[row["recipe"]] / 100 for row in ours]
            figure = figures.bars(_bars(ours)[0], theirs, group=table.theirs)
            more = {"group": table.ours, "onto": figure, "title": table.title, "n": ours[0]["games"]}
            self._figure("schedule", figures.bars(*_bars(ours), **more, **self._seen(ours)))

    def curves(self) -> None:
        """Learning and calibration over training."""
        for name, columns in CURVES.items():
            panels, note = evidence.panels(self.there, columns)
            title, y_title = CURVE_TITLES[name]
            if panels:
                self._figure(name, figures.small_multiples(panels, title=title, y_title=y_title, note=note))

    # -- single runs --------------------------------------------------------------------------------------------------

    def single(self) -> None:
        """The claims by single runs."""
        self._list(list(map(escape_markdown, self.source_lines)))
        self._list([f"NOT COUNTED, a file is missing or damaged: {escape_markdown(text)}" for text in self.broken])
        self.run.write_table("claims.csv", self.claims)
        shown = [{key: value for key, value in row.items() if key != "why"} for row in self.claims]
        self._table(shown, "No complete runs yet: run the other notebooks first (`make study`).")
        said = ("as claimed", "the opposite", "inconclusive")
        self._against([row | {"claimed": said[0]} for row in self.claims if row["verdict"] in said])

    def single_curves(self) -> None:
        """Learning curves of notebook 04's runs."""
        for source in self.sources:
            found = source.get("04_joint_grpo")
            if found and (found["folder"] / "curves.csv").exists():
                arms = dict(list(pd.read_csv(found["folder"] / "curves.csv").groupby("arm", sort=False)))
                title = f"Success on the held-out panel, run {found['run']}"
                figure = figures.learning_curves(arms, title=title, n=found["params"]["eval_games"])
                self._figure(f"success-{found['run']}", figure)

    def single_success(self) -> None:
        """Every success rate of single runs."""
        rows = single_runs.success(self.sources)
        self.run.write_table("success.csv", rows)
        shown = [
            {
                "run": row["run"], "notebook": row["notebook"], "what": row["what"], "games": row["n"],
                "success, %": f"{100 * row['success']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]",
            }
            for row in rows
        ]  # fmt: skip
        self._table(shown, "None yet.")

    # -- the end ------------------------------------------------------------------------------------------------------

    def untold(self) -> None:
        """What these results leave open: every regime, claim and run of which nothing can be said."""
        lines, cells = [], f"in `{self.p.cells}`"
        for name, (_, it) in self.regimes.items():
            if not it.sensitive:
                lines.append(f"**In `{name}`, nothing**: {escape_markdown(it.why)}.")
        for row in self.judged:
            what = f"{row['paper']}: {row['claim']}"
            if row["verdict"] == assay.VERDICTS[3]:
                text = f"{points(row['estimate'], row['low'], row['high'])} points"
                left = f"up to {100 * row['left']:.1f} on the claimed side are possible"
                lines.append(f"**Open** {cells}: {what}: {text}; {left}.")
            elif row["provisional"]:
                lines.append(f"**Provisional** {cells}: {what}: {row['verdict']}, but p (Holm) is {row['p_holm']:.2f}.")
            elif row["verdict"] == assay.FEW:
                lines.append(f"**Too few seeds** {cells}: {what}: {row['seeds']}.")
        judged = {(row["paper"], row["claim"], row["a"], row["b"]) for row in self.judged}
        absent = [c for c in claims.CLAIMS if (c.paper, c.text, *c.names) not in judged]
        lines += [f"**No cells** {cells}: {c.paper}: {c.text} (`{c.a}` against `{c.b}`)." for c in absent]
        ones = [row for row in self.claims if row["verdict"] == "one seed"]
        lines += [f"**One seed** in the run `{row['run']}`: {row['paper']}: {row['claim']}." for row in ones]
        self._list(lines)

    def provenance(self) -> None:
        """Which runs and versions the numbers come from."""
        lines = []
        for name, found in ((name, found) for source in self.sources for name, found in source.items()):
            named = ("python", "torch", "trl", self.p.env)
            versions = ", ".join(f"{key} {value}" for key, value in found["versions"].items() if key in named)
            lines.append(escape_markdown(f"{name}: run {found['run']}, seed {found['seed']}, {versions}"))
        info = self.run.info
        commit = (info["git"] or "none")[:12]
        lines.append(escape_markdown(f"this page: run {info['run']}, begun {info['started']}, commit {commit}"))
        self._list([*lines, *map(escape_markdown, self.checks)])


class _Renderer(mistune.HTMLRenderer):
    """Raw HTML in texts is escaped; entities, as `escape_markdown` makes them, are not escaped once more."""

    def text(self, text: str) -> str:
        return mistune.safe_entity(text)


def phase_figure(rows: Sequence[dict]) -> go.Figure:
    """The map of regimes, of rows of `sglib.experiments.phase`."""
    least = min((row["seeds"] for row in rows), default=0)
    return figures.points(
        phase.by_base(rows), title="What the true step reward adds to success alone, at the end of training",
        x_title="success of the base model, %", y_title="truth - better of GRPO and GiGPO, points",
        note=f"bars: 95 % intervals over seeds ({least} at least) and games; others: no intervals reported",
    )  # fmt: skip


def _bars(rows: Sequence[dict]) -> tuple[list, ...]:
    """Names, values and intervals for `sglib.figures.bars`."""
    names = [f"{row['recipe']} ({row['seeds']})" for row in rows]
    return (names, *([row[key] for row in rows] for key in ("success", "low", "high")))
