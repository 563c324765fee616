"""The published benchmark: its lists in one panel, scores and curves from cells, and the command from nothing to an
agent, on the official files where they are at hand."""

import numpy as np
import pytest

from sglib import envs
from sglib.envs.alfworld.official import official_folder
from sglib.experiments import benchmark, evidence
from sglib.experiments.files import params_file
from sglib.measure import intervals

CARD = envs.get("alfworld")


def cell(seed: int, during: list[str]) -> dict:
    seconds = {f"{stage}_seconds": [30.0, 30.0] for stage in benchmark.STAGES}
    return {
        "recipe": "grpo", "seed": seed, "during": during, "curve": [{"iteration": 0}, {"iteration": 2}],
        "batches": seconds, "params": {"games_per_iteration": 4, "group_size": 2},
    }  # fmt: skip


def test_the_lists_lie_one_after_the_other():
    assert benchmark.parts(CARD) == {"official_valid_seen": slice(0, 140), "official_valid_unseen": slice(140, 274)}
    assert benchmark.parts(envs.get("sokoban")) == {}


def test_a_score_has_an_interval_for_seeds_and_games():
    tables = {1: [1, 1, 0, 0.5], 2: [1, 0.5, 0, 0.5]}
    both, one = benchmark.score(tables), benchmark.score({1: tables[1]})
    assert both["success"] == pytest.approx(np.mean(list(tables.values()))) and both["n"] == 2 and both["games"] == 4
    assert (both["low"], both["high"]) == pytest.approx((intervals.success(tables).low, intervals.success(tables).high))
    assert one["n"] == 1 and (one["low"], one["high"]) == intervals.wilson(2, 4)


def test_a_curve_counts_episodes_and_minutes():
    found = evidence.Found({"a": cell(1, ["0011", "0111"]), "b": cell(2, ["0000", "0101"])})
    before, after = benchmark.curve(found, "grpo", slice(1, 4), before=10)
    assert before | {"low": 0, "high": 0} == {
        "iteration": 0, "episodes": 0, "minutes": 10, "success": pytest.approx(2 / 6), "low": 0, "high": 0, "n": 2,
        "games": 3,
    }  # fmt: skip
    assert (after["episodes"], after["minutes"]) == (16, pytest.approx(13)), "2 x 3 stages x 30 s"
    assert after["success"] == pytest.approx(5 / 6)
    assert benchmark.curve(found, "gigpo", slice(0, 2)) == []


def test_without_the_files_nothing_is_trained(tmp_path, monkeypatch):
    monkeypatch.setenv("SGLIB_ALFWORLD_DATA", str(tmp_path))
    monkeypatch.setattr(benchmark, "pretrain", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(ValueError, match="SGLIB_ALFWORLD_DATA"):
        benchmark.command(params_file("official"), "grpo", None, False)


def test_a_base_that_cannot_be_pretrained_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(type(CARD), "panel", lambda *_, **__: [])
    file = tmp_path / "mine.yaml"
    file.write_text("env: alfworld\nmodel: base_strong\ngrpo: {arms: [grpo]}\n")
    allowed = "whole_rooms, small_rooms, from_nothing, or --shipped-base"
    with pytest.raises(ValueError, match=f"model = 'base_strong': allowed: {allowed}"):
        benchmark.command(file, "grpo", None, False)


def test_what_would_fail_after_pretraining_fails_before_it(tmp_path, monkeypatch):
    monkeypatch.setattr(type(CARD), "panel", lambda *_, **__: [])
    monkeypatch.setattr(benchmark, "pretrain", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(ValueError, match="seed"):
        benchmark.command(params_file("official"), "grpo", -1, False)
    (tmp_path / "valid_seen").mkdir()
    monkeypatch.setenv("SGLIB_ALFWORLD_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="0 games that can be played; 1 were asked for"):
        benchmark.command(params_file("official"), "grpo", None, False)


def test_what_a_model_goes_on_from_is_pretrained_first_where_it_has_a_recipe(tmp_path, monkeypatch):
    made = []

    def pretrain(env, recipe, folder, name):
        made.append((name, recipe.get("start")))
        folder.mkdir()
        (folder / "card.json").write_text("{}")

    monkeypatch.setattr(benchmark, "pretrain", pretrain)
    for _ in range(2):
        folder = benchmark._pretrained("alfworld", CARD.further_pretraining, "from_nothing", tmp_path)
    assert folder == tmp_path / "from_nothing"
    assert made == [("small_rooms", None), ("from_nothing", str(tmp_path / "small_rooms"))]
    benchmark._pretrained("alfworld", CARD.further_pretraining, "whole_rooms", tmp_path)
    assert made[2] == ("whole_rooms", "base_strong"), "which is shipped, and has no recipe"


def at_hand() -> bool:
    try:
        return (official_folder() / "train").is_dir()
    except ValueError:
        return False


@pytest.mark.skipif(not at_hand(), reason="ALFWorld's own files are not here (SGLIB_ALFWORLD_DATA)")
def test_from_nothing_to_an_agent_on_a_few_official_games(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SGLIB_OUTPUT", str(tmp_path / "out"))
    few = {name: CARD.panel(2, name) for name in CARD.panels}
    monkeypatch.setattr(benchmark, "parts", lambda card: {name: slice(2 * k, 2 * k + 2) for k, name in enumerate(few)})
    monkeypatch.setattr(type(CARD), "panel", lambda *_, **__: [game for games in few.values() for game in games])
    tiny = {"steps": 2, "stop": 2, "transcripts_per_step": 2, "max_turns": 4}
    recipe = CARD.further_pretraining["whole_rooms"] | tiny
    monkeypatch.setitem(type(CARD).further_pretraining, "whole_rooms", recipe)
    file = tmp_path / "official.yaml"
    file.write_text(
        "env: alfworld\nmodel: whole_rooms\nsize: official\n"
        "grpo: {arms: [grpo], task_size: official, max_turns: 3, iterations: 1, "
        "games_per_iteration: 1, group_size: 2, eval_games: 4, eval_seeds: 2}\n"
    )
    for _ in range(2):  # the second time everything is complete
        assert benchmark.command(file, "grpo", None, False) == 0
    text = capsys.readouterr().out
    assert "Pre-training whole_rooms for 2 steps" in text and "Pre-trained already" in text
    assert text.count("official_valid_unseen: 0.0 %") == 2 and "of 2 games, each played 2 times" in text
