"""The report's page and what it is made from: regimes on a map, single runs, one file without code or script."""

import json
import re

import pytest
from test_assay import RATES, RULE, found, plan  # noqa: F401

from sglib.experiments import assay, evidence, files, params, phase, runs, single_runs
from sglib.view.report import Report

BATCHES = {"zero_advantage": [1.0, 0.5, 0.5, 0.5, 0.5] + [0.0] * 25}


@pytest.fixture
def regime(plan, tmp_path, monkeypatch):  # noqa: F811
    """One regime, whose cells win at the given rates; no run of a notebook is there."""

    def make(rates):
        cells = found(plan, tmp_path, rates)
        for cell in cells.cells.values():
            cell["params"] |= {"games_per_iteration": 2, "group_size": 2}
            cell["batches"] |= BATCHES
            cell["curve"] = [row | {"looping": 0.1, "invalid": 0.1} for row in cell["curve"]]

        def read(cells_of, where=None, split=None):
            return cells if split is None else evidence.Found()

        for module in (assay, phase):
            monkeypatch.setattr(module, "regimes", lambda: ["tight"])
            monkeypatch.setattr(module, "load", lambda name: (RULE, plan))
            monkeypatch.setattr(module, "read_evidence", read)
        monkeypatch.setattr(evidence, "read_evidence", read)
        monkeypatch.setattr(single_runs, "find_runs", lambda *_, **__: [])
        return cells

    return make


def begin():
    p = params.check("09_report", {"env": "alfworld"})
    return p, runs.start_run("09_report", p)


def test_the_page_is_one_file_without_code_or_script(regime):
    regime(RATES)
    p, run = begin()
    report = Report(p, run, ["a check: <script>alert(1)</script> [x](javascript:alert(1))"])
    page = report.path.read_text()
    assert report.path == run.folder / "report.html" and "<script" not in page
    assert "<pre" not in page and "import sglib" not in page and "{{" not in page
    assert not re.findall(r"(?:src|href)=[\"'](?!data:image/png;base64,|#)", page), "nothing outside of the file"
    headings = re.findall(r"^## (.*)$", (files.params_dir() / "report.md").read_text(), re.MULTILINE)
    assert len(headings) > 10 and all(f">{heading}</h2>" in page for heading in headings)
    assert "<td>&lt; 0.001</td>" in page and "&amp;lt;" not in page, "escaped once"
    for name in ("verdicts.csv", "rates.csv", "claims.csv", "facts.csv", "unseen.csv", "success.csv"):
        assert (run.folder / name).exists(), name
    assert {"claims.png", "phase.png", "recipes.png"} <= {path.name for path in (run.folder / "figures").iterdir()}
    assert page.count("data:image/png") == len(list((run.folder / "figures").glob("*.png")))
    assert report.results == {"cells": len(report.there.cells), "missing": 0, "claims": 0, "broken": [], "verdicts": {}}


@pytest.mark.parametrize("truth", [0.6, 0.33])
def test_what_cannot_be_told_is_listed(truth, regime, tmp_path):
    cells = regime(RATES | {"truth": truth})
    words = tmp_path / "words.md"
    words.write_text("# Left open\n\n{{ untold }}\n")
    report = Report(*begin(), words=words)
    lines = report.parts[1].splitlines()
    assert ("In `tight`, nothing" in lines[0]) == (truth == 0.33), "a regime that cannot tell the truth stands first"
    absent = [line for line in lines if line.startswith("- **No cells")]
    assert "guidance without its reward beats plain GRPO" in "\n".join(absent) and not cells.seeds("guide")
    still_open = {row["claim"] for row in report.judged if row["verdict"] == assay.VERDICTS[3]}
    listed = [line for line in lines if line.startswith("- **Open**")]
    assert len(listed) >= len(still_open) and all(any(claim in line for line in listed) for claim in still_open)
    assert bool(still_open) == (truth == 0.6), "where nothing can be told no claim is called open"


def test_a_part_that_does_not_exist_is_named(regime, tmp_path):
    regime(RATES)
    words = tmp_path / "words.md"
    words.write_text("# Report\n\n{{ verdict }}\n")
    with pytest.raises(ValueError, match=r"\{\{ verdict \}\}: no such part of the report; allowed: instrument"):
        Report(*begin(), words=words)


def test_a_regime_on_the_map(regime):
    cells = regime(RATES)
    row = phase.measured("tight")
    end = assay.gap(cells, "truth", "gigpo", "after")  # the better of success alone
    assert (row["against"], row["end"], row["end_low"]) == ("gigpo", end.estimate, end.low)
    assert row["silent"] == 0.6 and row["sensitive"] and row["training"] > 0  # mean of the first five batches
    before = [x.mean() for x in cells.outcomes("gigpo", "before").values()]
    assert row["base"] == pytest.approx(sum(before) / len(before))
    (kind, (point,)), (other, reported) = phase.by_base([row]).items()
    assert kind == "alfworld, reversible, groups of 2" and point["x"] == 100 * row["base"]
    assert other == "reported by others" and all(x["low"] is None for x in reported)
    assert phase.by_silence([row])["alfworld, groups of 2"][0]["x"] == 60
    longer = row | {"regime": "later", "turns": row["turns"] + 1}
    longer.pop("training")
    told, after = phase.readable([longer, row])  # the shortest episodes first
    gain = told["truth - success alone, over training"]
    assert (told["regime"], told["silent, %"], told["sensitive"]) == ("tight", "60", "yes") and gain.startswith("+")
    assert after["truth - success alone, over training"] == "-"
    cells.cells = {name: cell for name, cell in cells.cells.items() if cell["recipe"] != "truth"}
    assert phase.measured("tight") is None and phase.phase() == []


def test_rates_of_recipes_need_three_seeds(plan, tmp_path):  # noqa: F811
    cells = found(plan, tmp_path)
    few = {name: cell for name, cell in cells.cells.items() if cell["recipe"] != "igpo" or cell["seed"] < 3}
    (row,) = evidence.rates(evidence.Found(few), ["igpo", "truth"])
    table = list(cells.outcomes("truth").values())
    assert row["recipe"] == "truth" and row["success"] == pytest.approx(sum(x.mean() for x in table) / len(table))
    assert row["low"] < row["success"] < row["high"] and (row["seeds"], row["games"]) == (5, 300)


def test_claims_of_single_runs_and_what_is_damaged(tmp_path):
    def run_of(name, results):
        return {"run": name, "folder": tmp_path, "results": results, "params": {"games": 100, "eval_games": 4}}

    rates = {"difference": -0.1, "low": -0.2, "high": -0.01, "success": {"act": 0.5}}
    where = [{"02_inference_self_guidance": run_of("mine", rates), "04_joint_grpo": run_of("broken", {})}]
    rows, broken = single_runs.claims(where)
    assert [(row["verdict"], row["run"], row["n games"]) for row in rows] == [("the opposite", "mine", 100)]
    assert len(broken) == 1 and "04_joint_grpo, run broken: FileNotFoundError" in broken[0]
    (rate,) = single_runs.success(where)
    assert (rate["what"], rate["n"]) == ("act", 4) and rate["low"] < 0.5 < rate["high"]
    ends = {"grpo": [1, 1, 0, 0], "guide": [0, 0, 0, 0]}
    outcomes = {arm: {"before": [0, 0, 0, 0], "after": after} for arm, after in ends.items()}
    (tmp_path / "outcomes.json").write_text(json.dumps(outcomes))
    rows, broken = single_runs.claims(where)
    assert not broken and [row["claim"] for row in rows if row["verdict"] == "one seed"] == [
        "plain GRPO learns", "guidance without its reward beats plain GRPO"]  # fmt: skip
    assert rows[1]["ours (points)"].startswith("+50.0") and rows[2]["ours (points)"].startswith("-50.0")
