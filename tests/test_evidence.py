"""The evidence: planned cells, what is missing, stale or failed is told; claims are judged by the written rule."""

import itertools
import json

import numpy as np
import pydantic
import pytest
import torch

from sglib.experiments import assay, claims, evidence, params, verdicts
from sglib.experiments.evidence import fill, play_further
from sglib.experiments.params import ParameterError
from sglib.experiments.runs import repo_root
from sglib.measure.power import minimum_detectable_effect
from sglib.records import write_checked

UNSEEN = "valid_unseen"
TEXT = """
env: alfworld
size: mini
seed: 1
grpo: {iterations: 1, games_per_iteration: 2, group_size: 2, eval_games: 4, eval_every: 1, max_turns: 3}
grid: {headline: [grpo, grpo_again], others: [guide], headline_seeds: 3, other_seeds: 2}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mini.yaml"
    path.write_text(TEXT)
    return path


def test_a_plan_has_every_cell_seed_by_seed(file):
    names = [cell.name for cell in evidence.plan(file)]
    assert names == [
        "grpo-seed1", "grpo_again-seed1", "guide-seed1", "grpo-seed2", "grpo_again-seed2", "guide-seed2", "grpo-seed3",
        "grpo_again-seed3",
    ]  # fmt: skip
    file.write_text(TEXT.replace("grid: {", "grid: {extras: [igpo], extra_seeds: 1, "))
    assert [cell.name for cell in evidence.plan(file)] == [*names[:3], "igpo-seed1", *names[3:]]


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("headline: [grpo, grpo_again]", "headline: [grpo, grpoo]", "grid.headline.*no recipe 'grpoo'"),
        ("headline: [grpo, grpo_again]", "headline: [grpo, guide]", "grid.*named twice"),
        ("headline_seeds: 3", "headline_seeds: 0", "grid.headline_seeds = 0"),
        ("headline_seeds: 3", "head_seeds: 3", "grid: head_seeds: unknown key"),
        ("grid:", "grit:", "grit: unknown key, did you mean 'grid'"),
        ("grid: {", "#", "grid: missing; allowed: a file that has it"),
    ],
)
def test_a_bad_plan_is_named(file, old, new, what):
    file.write_text(TEXT.replace(old, new))
    with pytest.raises(ParameterError, match=what):
        evidence.plan(file)


def test_a_cells_key_is_of_what_decides_it(file):
    cells = {cell.name: cell for cell in evidence.plan(file)}
    assert len({cell.key for cell in cells.values()}) == len(cells)
    file.write_text(TEXT.replace("iterations: 1", "iterations: 2"))
    assert evidence.plan(file)[0].key != cells["grpo-seed1"].key
    file.write_text(TEXT.replace("size: mini", "size: other"))
    assert evidence.plan(file)[0].key == cells["grpo-seed1"].key


def claim_of(a, b, text="", **more):
    return claims.Claim(paper="x", text=text, a=a, b=b, **more)


def made(cell, rate, rng, games=400):
    outcomes = (rng.random(games) < rate).astype(int)
    return {
        "recipe": cell.recipe, "seed": cell.seed, "key": cell.key, "panel": "p",
        "params": {"eval_games": games, "games_per_iteration": 8, "group_size": 8},
        "card": {"source": "s", "configuration": "c", "episodes": {}, "versions": {}, "machine": {}},
        "before": "0" * games, "start": "", "after": "".join(map(str, outcomes)),
        "curve": [{"looping": 0.1 * cell.seed}, {"looping": 0.2 * cell.seed}],
        "batches": {"iteration": [0, 1], "success": [0.1 * cell.seed, None]},
    }  # fmt: skip


def written(cells, folder, rates, seed=0):
    rng = np.random.default_rng(seed)
    for cell in cells:
        folder.mkdir(exist_ok=True, parents=True)
        (folder / f"{cell.name}.json").write_text(json.dumps(made(cell, rates[cell.recipe], rng)))


def test_what_is_missing_stale_failed_or_unknown_is_told(file, tmp_path):
    cells, folder = evidence.plan(file), tmp_path / "cells"
    written(cells, folder, dict.fromkeys(("grpo", "grpo_again", "guide"), 0.5))
    found = evidence.read_evidence(cells, [folder])
    assert str(found) == "8 of 8 cells" and sorted(found.seeds("grpo")) == [1, 2, 3]
    (folder / "grpo-seed2.json").unlink()
    (folder / "grpo-seed2.failed.txt").write_text("Traceback\nValueError: it broke")
    other = json.loads((folder / "guide-seed1.json").read_text())
    (folder / "guide-seed1.json").write_text(json.dumps(other | {"key": "another"}))
    (folder / "mine-seed9.json").write_text(json.dumps(other))
    found = evidence.read_evidence(cells, [folder])
    assert str(found) == (
        "6 of 8 cells; 1 missing: grpo-seed2; 1 stale: guide-seed1; 1 failed: grpo-seed2; 1 unknown: mine-seed9"
    )
    assert found.failed == {"grpo-seed2": "ValueError: it broke"}
    assert sorted(found.outcomes("grpo")) == [1, 3] and sorted(found.outcomes("guide")) == [2]


def test_several_evaluation_seeds_are_one_outcome_a_game(file, tmp_path):
    file.write_text(TEXT.replace("eval_games: 4", "eval_games: 4, eval_seeds: 4"))
    cells, folder = evidence.plan(file), tmp_path / "cells"
    written(cells, folder, dict.fromkeys(("grpo", "grpo_again", "guide"), 0.5))
    path = folder / "grpo-seed1.json"
    content = json.loads(path.read_text())
    content["params"] |= {"eval_seeds": 4, "eval_games": 4}
    path.write_text(json.dumps(content | {"before": "0101", "after": "0134"}))
    assert evidence.read_evidence(cells, [folder]).outcomes("grpo")[1].tolist() == [0, 0.25, 0.75, 1]
    path.write_text(json.dumps(content | {"before": "0101", "after": "0135"}))
    with pytest.warns(UserWarning, match="after: not one outcome of 0 to 4"):
        evidence.read_evidence(cells, [folder])


def test_every_deleted_file_changes_the_counts(file, tmp_path):
    cells, folder = evidence.plan(file), tmp_path / "cells"
    written(cells, folder, dict.fromkeys(("grpo", "grpo_again", "guide"), 0.5))
    for cell in cells:
        path = folder / f"{cell.name}.json"
        content = path.read_text()
        path.unlink()
        found = evidence.read_evidence(cells, [folder])
        assert found.missing == [cell.name] and "7 of 8 cells" in str(found)
        rows = {row["claim"]: row for row in verdicts.judge(found, params.Assay(measure="after"))}
        assert rows["guidance without its reward beats plain GRPO"]["seeds"] == (
            1 if (cell.recipe, cell.seed) in {("guide", 1), ("guide", 2), ("grpo", 1), ("grpo", 2)} else 2
        )
        path.write_text(content)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"after": "01"}, "after: not one outcome"),
        ({"after": "2" * 400}, "after: not one outcome"),
        ({"params": {}}, "eval_games"),
        ({"recipe": "guide"}, "it holds 'guide' with seed 1"),
        ({"seed": 7}, "it holds 'grpo' with seed 7"),
        ({"key": None}, "key"),
        ({"card": {}}, "source"),
        ({"start": "012"}, "start: not one outcome"),
        ({"batches": {"iteration": [0, 1], "success": [0.1]}}, "different lengths"),
    ],
)
def test_a_damaged_file_is_named(file, tmp_path, change, what):
    cells, folder = evidence.plan(file), tmp_path / "cells"
    written(cells[:1], folder, {"grpo": 0.5})
    path = folder / "grpo-seed1.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.warns(UserWarning, match=f"grpo-seed1.json: not a cell of the evidence: [^§]*{what}"):
        evidence.read_evidence(cells, [folder])
    path.write_text("{")
    with pytest.warns(UserWarning, match=r"grpo-seed1\.json: not a cell"):
        evidence.read_evidence(cells, [folder])


def test_a_damaged_file_hides_no_other_and_is_made_again(file, tmp_path, monkeypatch):
    cells = evidence.plan(file)
    folder = evidence.folders(cells[0].params)[0]
    written(cells, folder, dict.fromkeys(("grpo", "grpo_again", "guide"), 0.5))
    path = write_checked(folder / "grpo-seed1.json", json.loads((folder / "grpo-seed1.json").read_text()))
    assert evidence.read_evidence(cells).cells.keys() == {cell.name for cell in cells}
    path.write_text(path.read_text().replace('"after": "1', '"after": "0').replace('"after": "01', '"after": "00'))
    with pytest.warns(UserWarning, match=r"grpo-seed1\.json[^§]*checksum"):
        found = evidence.read_evidence(cells)
    assert found.missing == ["grpo-seed1"] and len(found.cells) == 7 and "1 damaged: grpo-seed1" in str(found)
    asked = []
    monkeypatch.setattr(evidence, "train_all", lambda waiting, *_, **__: asked.extend(waiting))
    with pytest.warns(UserWarning, match=r"set aside as damaged-grpo-seed1\.json"):
        evidence.fill(cells)
    assert [cell.name for cell in asked] == ["grpo-seed1"] and (folder / "damaged-grpo-seed1.json").exists()
    assert evidence.read_evidence(cells).unknown == []


def test_means_over_seeds_say_how_many(file, tmp_path):
    cells, folder = evidence.plan(file), tmp_path / "cells"
    written(cells, folder, dict.fromkeys(("grpo", "grpo_again", "guide"), 0.5))
    (row,) = evidence.over_seeds(evidence.read_evidence(cells, [folder]), "grpo", "success")
    assert row["value"] == pytest.approx(0.2) and row["n"] == 3 and row["iteration"] == 0
    assert row["high"] - row["value"] == pytest.approx(4.3027 * 0.1 / np.sqrt(3), rel=1e-3)  # t with 2 degrees
    found = evidence.read_evidence(cells, [folder])
    panels, note = evidence.panels(found, {"won": {"grpo": "success", "guide": "success"}, "none": {"grpo": "entropy"}})
    assert {title: list(of) for title, of in panels.items()} == {"won": ["grpo (3)", "guide (2)"]}
    (two,) = panels["won"]["guide (2)"]
    assert two["n"] == 2 and "low" not in two  # two seeds say nothing of a third
    assert "64 episodes a batch" in note and "won: two seeds are too few to show any" in note
    _, note = evidence.panels(found, {"won": {"grpo": "success", "grpo_again": "success"}})
    assert f"won: {minimum_detectable_effect(0.02**0.5, 3):.2g}" in note  # of a difference


def test_another_panel_or_code_is_told(file, tmp_path):
    cells, folder = evidence.plan(file), tmp_path / "cells"
    written(cells, folder, dict.fromkeys(("grpo", "grpo_again", "guide"), 0.5))
    path = folder / "guide-seed2.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"panel": "other games"}))
    found = evidence.read_evidence(cells, [folder])
    assert found.stale == ["guide-seed2"] and "7 of 8 cells; 1 stale" in str(found)
    path.write_text(json.dumps(content | {"card": content["card"] | {"source": "newer"}}))
    assert str(evidence.read_evidence(cells, [folder])) == "8 of 8 cells; made by 2 versions of the code"


def test_other_rooms_are_read_beside_the_cells_of_the_same_training(file, tmp_path):
    cells, folder = evidence.plan(file), tmp_path / "cells"
    written(cells, folder, dict.fromkeys(("grpo", "grpo_again", "guide"), 0.5))
    played = {"recipe": "grpo", "seed": 1, "start": "", "panel": "p", "before": "0" * 400, "after": "1" * 400}
    made = json.loads((folder / "grpo-seed1.json").read_text())["card"]["configuration"]
    (folder / "valid_unseen").mkdir()
    path = folder / "valid_unseen" / "grpo-seed1.json"
    path.write_text(json.dumps(played | {"configuration": made}))
    seen, unseen = (evidence.read_evidence(cells, [folder], split) for split in (None, UNSEEN))
    assert not seen.missing and list(unseen.cells) == ["grpo-seed1"] and len(unseen.missing) == len(cells) - 1
    assert unseen.outcomes("grpo")[1].mean() == 1 and unseen.outcomes("grpo", "before")[1].mean() == 0
    assert unseen.cells["grpo-seed1"]["card"] == seen.cells["grpo-seed1"]["card"]
    path.write_text(json.dumps(played | {"configuration": "of another training"}))
    assert "grpo-seed1" in evidence.read_evidence(cells, [folder], UNSEEN).missing
    path.write_text(json.dumps(played | {"configuration": made, "after": "1"}))
    with pytest.warns(UserWarning, match="valid_unseen[^§]*after: not one outcome"):
        evidence.read_evidence(cells, [folder], UNSEEN)


def test_every_claim_that_is_not_as_claimed_is_listed_with_or_without_a_reason():
    rows = [{"claim": str(i), "claimed": "helps", "verdict": v, "why": w} for i, (v, w) in enumerate(itertools.product(
        ("helps", "hurts", "inconclusive", assay.FEW, assay.CANNOT), ("", "a reason")))]  # fmt: skip
    listed = verdicts.unsupported(rows)
    assert {row["claim"] for of in listed.values() for row in of} == {"2", "3", "4", "5"}
    assert [row["claim"] for row in listed["a reason"]] == ["3", "5"]
    assert [row["claim"] for row in listed[verdicts.UNEXAMINED]] == ["2"]
    assert [row["claim"] for row in listed[verdicts.OPEN]] == ["4"]


def test_the_results_page_says_what_the_committed_cells_say():
    text = (repo_root() / "docs" / "results.md").read_text(encoding="utf-8")
    start, end = verdicts.MARKS
    said = text[text.index(start) + len(start) : text.index(end)].strip()
    expected = verdicts.summary(verdicts.committed())
    assert said == expected.strip(), "run: python -m sglib verdicts"
    assert verdicts.summary({}) == "", "of other cells than those given nothing is said"


def test_verdicts_are_written_between_the_marks_only(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(verdicts, "repo_root", lambda: tmp_path)
    monkeypatch.setattr(verdicts, "committed", lambda: {})
    monkeypatch.setattr(verdicts, "summary", lambda evidence: "new")
    start, end = verdicts.MARKS
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "results.md").write_text(f"before\n{start}\nold\n{end}\nafter\n")
    assert verdicts.write_results() == 0
    assert (tmp_path / "docs" / "results.md").read_text() == f"before\n{start}\nnew\n{end}\nafter\n"
    (tmp_path / "docs" / "results.md").write_text("nothing of the kind\n")
    assert verdicts.write_results() == 1 and "lacks" in capsys.readouterr().out
    assert (tmp_path / "docs" / "results.md").read_text() == "nothing of the kind\n"


def test_below_three_seeds_no_interval_is_shown():
    row = dict.fromkeys(("theirs", "detectable", "left", "p", "p_holm", "differs", "knows", "claimed", "provisional"))
    row |= {"paper": "x", "claim": "y", "a": "a", "b": "b", "games": 4, "verdict": assay.FEW}
    row |= {"estimate": 0.1, "low": -1.0, "high": 1.0}
    shown = {n: verdicts.readable([row | {"seeds": n}])[0]["ours (points)"] for n in (2, 3)}
    assert shown == {2: "+10.0", 3: "+10.0 [-100.0, +100.0]"}


def test_claims_are_drawn_with_the_claimed_side_to_the_right():
    claim = claim_of("a", "b", text="less", theirs="-9.5 (WebShop, 1.7B)", sign=-1)
    row = {"paper": claim.paper, "claim": claim.text, "theirs": claim.theirs, "sign": claim.sign, "verdict": "hurts"}
    row |= {"estimate": -0.1, "low": -0.12, "high": -0.07, "seeds": 3}
    drawn = verdicts.drawn([row, row | {"seeds": 2, "theirs": "-23 to -81 (s)"}, row | {"estimate": None}])
    assert [d["estimate"] for d in drawn] == [pytest.approx(10)] * 2 and drawn[0]["name"] == "x: less (3)"
    assert (drawn[0]["low"], drawn[0]["high"], drawn[0]["theirs"]) == (pytest.approx(7), pytest.approx(12), 9.5)
    assert (drawn[1]["low"], drawn[1]["high"], drawn[1]["theirs"]) == (None, None, None)
    assert {d["group"] for d in drawn} <= set(assay.VERDICTS)


def test_what_reasons_lean_on_is_measured(file, tmp_path):
    cells, folder = evidence.plan(file), tmp_path / "cells"
    written(cells, folder, dict.fromkeys(("grpo", "grpo_again", "guide"), 0.5))
    for seed, values in ((1, [1.0, 3.0]), (2, [3.0, None])):
        path = folder / f"guide-seed{seed}.json"
        content = json.loads(path.read_text())
        content["batches"] = {"iteration": [0, 1], "label_positive": values}
        path.write_text(json.dumps(content))
    rows = verdicts.facts(evidence.read_evidence(cells, [folder]))
    row = next(r for r in rows if r["what"] == "positive labels, %" and r["when"] == "last")
    assert (row["recipe"], row["mean"], row["least"], row["most"], row["seeds"]) == ("guide", 250, 200, 300, 2)
    before = next(r for r in rows if r["what"] == "success before training, %" and r["recipe"] == "grpo")
    assert before["seeds"] == 3 and before["when"] == "panel"
    loops = [(r["when"], round(r["mean"], 3)) for r in rows if "repeat" in r["what"] and r["recipe"] == "grpo"]
    assert loops == [("panel, before", 20), ("panel, after", 40)]


def test_every_reason_belongs_to_a_claim():
    assert set(claims.REASONS) == {claim.why for claim in claims.CLAIMS} - {None}
    data = claims.FILE.model_dump()
    data["claims"][0]["why"] = "nothing"
    with pytest.raises(pydantic.ValidationError, match="why: 'nothing'; allowed: slow"):
        claims.File(**data)
    counts = [change["cells"] for change in claims.FILE.changes]
    assert counts == sorted(counts)


def test_every_claim_is_about_planned_recipes():
    files = [params.load_file(params.params_file(name)) for name in assay.regimes()]
    grids = [params.Grid(**file["grid"]) for file in files]
    known = [{*planned.headline, *planned.others, *planned.extras} for planned in grids]
    for claim in claims.CLAIMS:
        assert any({claim.a, claim.b} <= names for names in known), claim
    grids = [params.Grid(**params.load_file(params.params_file(name))["grid"]) for name in ("tight", "dense")]
    planned = grids[0]
    assert {"truth", "truth_shuffled", "grpo_again"} <= set(planned.headline)
    assert {"grpo", "gigpo", "guide", "self_guide", "immediate", "repro", "igpo"} <= set(planned.headline)
    assert all(g.headline_seeds >= 10 and g.other_seeds >= 5 and g.extra_seeds >= evidence.FEWEST for g in grids)


@pytest.mark.slow
def test_cells_are_trained_once_and_go_on_where_they_were(file, outputs, monkeypatch):
    file.write_text(TEXT.replace("grpo_again]", "grpo_again]").replace("headline_seeds: 3", "headline_seeds: 2"))
    cells = [cell for cell in evidence.plan(file) if cell.seed == 1 and cell.recipe != "guide"]
    said = []
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 2)  # whatever this machine has
        assert fill(cells, jobs=1, on_update=said.append) == (2, {})
    assert len(said) == 2 and said[-1].endswith("0 to go")
    found = evidence.read_evidence(cells)
    assert not found.missing and found.cells["grpo-seed1"]["before"] == found.cells["grpo_again-seed1"]["before"]
    card = found.cells["grpo-seed1"]["card"]
    assert card["checkpoint"] == "last"
    assert card["episodes"] == {"started": 4, "finished": 4, "without_advantage": 4, "no_room": 0}
    assert card["trouble"] == {"without_advantage": 1}
    assert card["env_steps"] == 12 and card["policy_tokens"] > 12
    assert card["threads"] == 1  # a cell is the same for any number of processes
    assert card["cpu_seconds"] > 0 and card["peak_memory_mb"] > 0
    assert play_further(cells, UNSEEN, said.append) == (2, []) and said[-1].endswith("on valid_unseen")
    unseen = evidence.read_evidence(cells, split=UNSEEN)
    assert not unseen.missing and {c["panel"] for c in unseen.cells.values()} != {found.cells["grpo-seed1"]["panel"]}
    assert play_further(cells, UNSEEN) == (0, [])
    assert fill(cells) == (0, {})
    (evidence.folders(cells[0].params)[0] / "grpo-seed1.json").unlink()
    assert fill(cells) == (1, {})  # from the arm that is complete, without training
    assert evidence.read_evidence(cells).cells["grpo-seed1"] == found.cells["grpo-seed1"]


@pytest.mark.slow
def test_a_cell_that_fails_does_not_stop_the_others(file, outputs):
    file.write_text(TEXT.replace("grpo: {", "model: base-none\ngrpo: {"))
    cells = evidence.plan(file)[:2]
    done, failed = fill(cells)
    assert done == 0 and set(failed) == {"grpo-seed1", "grpo_again-seed1"}
    assert "base-none" in str(evidence.read_evidence(cells).failed["grpo-seed1"])
