"""The assay: nothing is said where the truth cannot be told from success alone; where it can, rewards are placed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sglib.experiments import assay, claims, evidence, params, verdicts
from sglib.experiments.files import ParameterError
from sglib.experiments.recipe import load_recipe
from sglib.measure.intervals import Comparison
from sglib.view import card as pages

RECIPES = ("grpo", "grpo_again", "gigpo", "truth", "truth_shuffled", "noise", "truth_noisy_70", "truth_noisy_90",
           "igpo")  # fmt: skip
TEXT = f"""
env: alfworld
seed: 1
grpo: {{iterations: 2, games_per_iteration: 2, group_size: 2, eval_games: 4, eval_every: 1, max_turns: 3}}
grid: {{headline: [{", ".join(RECIPES)}], headline_seeds: 5}}
assay: {{measure: training}}
"""
# success at the end; the controls as they should be
RATES = {"grpo": 0.3, "grpo_again": 0.3, "gigpo": 0.31, "truth": 0.6, "truth_shuffled": 0.3, "noise": 0.3,
         "truth_noisy_70": 0.42, "truth_noisy_90": 0.54, "igpo": 0.45}  # fmt: skip
AUROC = {"truth": 1.0, "truth_shuffled": 0.5, "noise": 0.5, "truth_noisy_70": 0.7, "truth_noisy_90": 0.9, "igpo": 0.75}
RULE = params.Assay(measure="training", noisy=["truth_noisy_70", "truth_noisy_90"])


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "mini.yaml"
    path.write_text(TEXT)
    return evidence.plan(path)


def content(cell, rate, rng, auroc=None, games=300, rise=0.0):
    during = [(rng.random(games) < x).astype(int) for x in (0.05, (0.05 + rate) / 2, rate)]
    bits = ["".join(map(str, row)) for row in during]
    n = 30
    batches = {"iteration": list(range(n)), "success": [rate] * n}
    if auroc:
        batches |= {"calibration/internal/auroc": [auroc] * n, "treatment/correlation": [0.8] * n}
        batches |= {"treatment/share": [0.0] * 10 + [0.5] * 20}
        batches |= {"probe/internal": [1 + rise * i + 0.01 * rng.random() for i in range(n)]}
    return {
        "recipe": cell.recipe, "seed": cell.seed, "key": cell.key, "panel": "p", "params": {"eval_games": games},
        "card": {"source": "s", "configuration": "c", "episodes": {}, "versions": {}, "machine": {},
                 "cpu_seconds": 100.0, "policy_tokens": 1000},
        "before": bits[0], "start": "", "after": bits[-1], "during": bits, "batches": batches,
        "curve": [{"iteration": i, "success": float(x.mean())} for i, x in zip((0, 15, 30), during)],
    }  # fmt: skip


def found(plan, folder, rates=RATES, rise=0.0):
    rng, folder = np.random.default_rng(3), folder / "cells"
    folder.mkdir()
    for cell in plan:
        made = content(cell, rates[cell.recipe], rng, AUROC.get(cell.recipe), rise=rise)
        (folder / f"{cell.name}.json").write_text(json.dumps(made))
    return evidence.read_evidence(plan, [folder])


def test_the_area_under_the_curve_leaves_out_what_was_before_training(plan, tmp_path):
    it = found(plan, tmp_path)
    cell = it.cells["truth-seed1"]
    expected = [(int(a) + int(b)) / 2 for a, b in zip(*cell["during"][1:])]
    assert it.outcomes("truth", "training")[1].tolist() == expected
    assert it.outcomes("truth", "training", slice(10))[1].tolist() == expected[:10]


def test_a_regime_is_sensitive_if_the_truth_beats_success_alone_and_its_own_shuffle(plan, tmp_path):
    it = assay.sensitivity(found(plan, tmp_path), RULE)
    assert it.sensitive and it.plain == "gigpo" and it.gain.estimate >= 0.05 and it.gain.low > it.band
    assert "gigpo" in it.why and "shuffle" in it.why


@pytest.mark.parametrize(
    "change",
    [{"truth": 0.33}, {"truth_shuffled": 0.6}, {"gigpo": 0.6}, {"grpo": 0.58}],
    ids=["no gain", "return alone does it", "GiGPO has it", "GRPO has it"],
)
def test_it_is_not_where_one_of_them_fails(plan, tmp_path, change):
    assert not assay.sensitivity(found(plan, tmp_path, RATES | change), RULE).sensitive


CLAIM = claims.Claim(paper="IGPO", text="beats GiGPO", a="igpo", b="gigpo")


def test_without_the_positive_control_every_verdict_turns(plan, tmp_path):
    whole = found(plan, tmp_path)
    every = [CLAIM, *claims.CLAIMS]
    assert {row["verdict"] for row in verdicts.judge(whole, RULE, every)} & {"helps", "hurts"}
    for control in ("truth", "truth_shuffled", "grpo_again"):
        kept = {name: cell for name, cell in whole.cells.items() if cell["recipe"] != control}
        rows = verdicts.judge(evidence.Found(kept), RULE, every)
        assert rows and {row["verdict"] for row in rows} == {assay.CANNOT}
        assert all(row["p_holm"] is None and not row["provisional"] for row in rows)


def test_the_committed_regimes_say_nothing_without_their_positive_control():
    for name, (rule, cells) in verdicts.committed().items():
        kept = {key: cell for key, cell in cells.cells.items() if cell["recipe"] != rule.truth}
        rows = verdicts.judge(evidence.Found(kept), rule)
        assert {row["verdict"] for row in rows} <= {assay.CANNOT}, name


def test_verdicts_by_hand():
    def it(low, high, seeds=5):
        return Comparison((low + high) / 2, low, high, 0.01, seeds, 512, 0.02, 4)

    assert assay.verdict(it(0.05, 0.09), 0.02, True) == "helps"
    assert assay.verdict(it(-0.09, -0.05), 0.02, True) == "hurts"
    assert assay.verdict(it(-0.01, 0.015), 0.02, True) == "no difference beyond the band"
    assert assay.verdict(it(-0.01, 0.05), 0.02, True) == "inconclusive"
    assert assay.verdict(it(0.001, 0.025), 0.02, True) == "inconclusive"  # estimate in the band
    assert assay.verdict(it(0.05, 0.09), 0.02, False) == assay.CANNOT == assay.verdict(it(0.05, 0.09), None, True)
    assert assay.verdict(it(0.05, 0.09, 2), 0.02, True) == assay.FEW == assay.verdict(None, 0.02, True)


def test_verdicts_of_claims_have_the_direction_of_the_difference_and_holm(plan, tmp_path):
    it = found(plan, tmp_path)
    contrary = claims.Claim(paper="x", text="igpo is below gigpo", a="igpo", b="gigpo", sign=-1)
    one, two = verdicts.judge(it, RULE, [CLAIM, contrary])
    assert one["verdict"] == two["verdict"] == "helps" and (one["claimed"], two["claimed"]) == ("helps", "hurts")
    assert one["p_holm"] == min(1.0, 2 * one["p"]) and one["knows"] == "the hidden state"
    assert two in [row for of in verdicts.unsupported([one, two]).values() for row in of]
    half = verdicts.judge(it, RULE, [CLAIM], slice(100, None))
    assert half[0]["games"] == 200
    unplanned = claims.Claim(paper="x", text="y", a="repro", b="gigpo")
    assert verdicts.judge(it, RULE, [unplanned]) == []


def test_the_share_of_the_truth_is_between_success_alone_and_the_truth(plan, tmp_path):
    it = found(plan, tmp_path)
    share, low, high = assay.share_of_truth(it, "igpo", "gigpo", RULE)
    assert 0.3 < low < share < high < 0.7
    assert assay.share_of_truth(it, "truth", "gigpo", RULE)[0] == pytest.approx(1)
    none, low, high = assay.share_of_truth(it, "grpo", "gigpo", RULE)
    assert low < 0 < high or abs(none) < 0.1
    assert assay.share_of_truth(it, "igpo", "truth", RULE) is None  # the truth is not above itself


def test_shares_cover_the_true_one():
    """Fieller's interval over seeds and games: of 200 simulated tables about 95 % hold the true share."""
    rng, held, draws = np.random.default_rng(0), 0, 200
    for _ in range(draws):
        base = rng.normal(0.3, 0.03, (5, 1))

        def of(mean, base=base):
            return dict(enumerate((rng.random((5, 100)) < base + mean + rng.normal(0, 0.02, (5, 1))).astype(int)))

        tables = {"grpo": of(0.0), "truth": of(0.3), "mine": of(0.15)}

        class Cells:
            def outcomes(self, name, measure, tables=tables):
                return tables[name]

        _, low, high = assay.share_of_truth(Cells(), "mine", "grpo", RULE)
        held += low <= 0.5 <= high
    assert held >= 0.9 * draws


def test_the_dose_response_curve_goes_from_noise_to_the_truth(plan, tmp_path):
    curve = assay.dose_response(found(plan, tmp_path), RULE, "gigpo")
    assert [row["recipe"] for row in curve] == ["noise", "truth_noisy_70", "truth_noisy_90", "truth"]
    assert assay.expected(curve, 0.8) == pytest.approx((curve[1]["estimate"] + curve[2]["estimate"]) / 2)
    assert assay.expected(curve[:1], 0.8) is None


def test_a_card_places_a_reward(plan, tmp_path):
    it = found(plan, tmp_path)
    result = assay.card(it, RULE, "igpo", "gain <b>in</b> belief", "mini", "truth_shuffled")
    assert result.verdict == "helps" and result.placement.low > 0 and any("placement counts" in n for n in result.names)
    assert result.strength == {"correlation": pytest.approx(0.8), "updates": pytest.approx(2 / 3)}
    assert abs(result.expected - result.gain.estimate) < 0.05  # an AUROC of 0.75 lands where the curve says
    assert result.price["tokens_to_target"] == 1000  # at its last evaluation
    assert assay.price(it, "truth", 0.31)["tokens_to_target"] == 500
    assert assay.price(it, "grpo", 0.9)["tokens_to_target"] is None
    page = pages.page(result)
    assert "<b>in</b>" not in page and "gain &lt;b&gt;" in page and "<script" not in page
    assert "helps" in page and "<svg" in page and "share of the truth" in page
    assert "\n".join(assay.lines(result)).startswith("igpo in mini: helps")


def test_a_shuffled_truth_is_return_without_placement(plan, tmp_path):
    result = assay.card(found(plan, tmp_path), RULE, "truth_shuffled", "", "mini", "noise")
    assert any("return without placement" in name for name in result.names)


def test_a_reward_that_rises_while_success_falls_is_gamed(plan, tmp_path):
    it = found(plan, tmp_path, RATES | {"igpo": 0.1}, rise=0.1)
    result = assay.card(it, RULE, "igpo", "", "mini", None)
    assert result.verdict == "hurts" and result.gamed and "gamed" in result.names


def test_nothing_is_said_of_a_reward_where_nothing_can_be(plan, tmp_path):
    it = found(plan, tmp_path, RATES | {"truth": 0.3})
    result = assay.card(it, RULE, "igpo", "", "mini", "truth_shuffled")
    assert result.verdict == assay.CANNOT and not result.names
    assert "No: nothing is said" in pages.page(result)


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ParameterError, match="regime = 'cpu'.*allowed: .*tight"):
        assay.load("cpu")
    with pytest.raises(ParameterError, match="seeds = 2: allowed: 3 to 100"):
        assay.assay("grpo", seeds=2)
    with pytest.raises(ParameterError, match="jobs = 0"):
        assay.assay("grpo", jobs=0)
    with pytest.raises(ParameterError, match="no recipe 'nothing'"):
        assay.assay("nothing")
    mine = tmp_path / "truth.yaml"
    mine.write_text("components: [{name: outcome}]\n")
    with pytest.raises(ParameterError, match="its name truth is that of a recipe of tight"):
        assay.assay(str(mine))


@pytest.fixture
def own(tmp_path):
    shutil.copy(Path(__file__).parent / "own_reward.py", tmp_path / "rewards.py")
    recipe = tmp_path / "my_recipe.yaml"
    recipe.write_text(
        "about: of a file\ncomponents:\n  - {name: outcome, weight: 10.0}\n"
        "  - {component: rewards.py:Mine, bonus: 2.0}\nadvantage: {kind: additive, alpha: 0.5}\n"
    )
    return recipe


def test_the_shuffle_of_a_users_own_recipe_is_written(own, tmp_path):
    path = assay.shuffled_recipe(str(own), tmp_path / "out")
    made, original = load_recipe(path), load_recipe(str(own))
    assert made.name == "my_recipe_shuffled" and [c.shuffled for c in made.components] == [False, True]
    assert made.components[1].bonus == 2.0 and made.estimator == original.estimator
    assert made.components[1].revision == original.components[1].revision
    own.write_text(own.read_text().replace("{kind: additive, alpha: 0.5}", "{kind: grpo}"))
    assert assay.shuffled_recipe(str(own), tmp_path / "out") is None  # a sum over turns
    assert assay.shuffled_recipe("grpo", tmp_path) is None
    assert assay.shuffled_recipe("truth", tmp_path) == "truth_shuffled"


@pytest.mark.slow
def test_a_reward_of_a_users_own_file_is_assayed(own, outputs, monkeypatch, tmp_path):
    own.write_text(own.read_text().replace("{kind: additive, alpha: 0.5}", "{kind: grpo}"))  # without its shuffle
    path = tmp_path / "mini.yaml"
    text = TEXT.replace("[" + ", ".join(RECIPES) + "]", "[grpo, grpo_again, gigpo]")
    path.write_text(text.replace("seeds: 5", "seeds: 3"))
    monkeypatch.setattr(assay, "params_file", lambda name: path)
    said = []
    result = assay.assay(str(own), "mini", seeds=3, on_update=said.append)
    assert len(said) == 3 and result.recipe == "my_recipe"
    assert result.verdict == assay.CANNOT and "fewer than 3 paired seeds" in result.sensitivity.why
    assert result.price["tokens"] > 0 and result.calibration  # its cells were found
    made = json.loads((evidence.folders(assay.load("mini")[1][0].params)[0] / "my_recipe-seed1.json").read_text())
    assert made["batches"]["reward/mine"][0] > 0 and len(made["during"]) == 3
    again = assay.assay(str(own), "mini", seeds=3, on_update=said.append)
    assert again == result and len(said) == 3  # what is there is not trained again
