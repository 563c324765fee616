"""The live view of a training: its line, its figure, its buttons, without a browser (tests/test_lab.py has one)."""

import asyncio
import threading
import time

import pytest

import sglib
from sglib.experiments.experiment import Result
from sglib.records import write_trajectories
from sglib.view import TrainingView, still, training_panels


def batch(iteration, **more):
    return {
        "iteration": iteration, "u": iteration / 10, "episodes": 16, "lambda/outcome": 1.0, "lambda/self_guide": 0.5,
        "success": 0.25, "reward/outcome": 2.5, "probe/internal": 0.1 * iteration, "label_positive": 0.4,
        "label_neutral": 0.5, "label_negative": 0.1,
        "entropy": 0.5, "invalid_actions": 0.25, "turns_mean": 12.0, "calibration/label/auroc": 0.7, **more,
    }  # fmt: skip


def result(tmp_path, arm="guide", batches=3):
    curve = [{"arm": arm, "iteration": 0, "success": 0.3, "low": 0.2, "high": 0.4}]
    return Result(arm, tmp_path, curve, [batch(i) for i in range(batches)])


def test_everything_that_is_measured_is_drawn(tmp_path):
    figure = training_panels({"guide": result(tmp_path)}, 64)
    titles = [note.text for note in figure.layout.annotations]
    assert titles == [
        "success on 64 games", "environment reward / episode", "internal reward / episode", "positive labels",
        "neutral labels", "negative labels", "entropy (nats / token)", "invalid actions", "turns / episode",
        "λ(u) of the internal reward", "AUROC: said to help / helped",
    ]  # fmt: skip
    drawn = {trace.yaxis: list(trace.y) for trace in figure.data if trace.mode != "none"}
    assert drawn["y3"] == pytest.approx([0.0, 0.1, 0.2]) and drawn["y10"] == [0.5] * 3 and drawn["y11"] == [0.7] * 3
    assert "16 episodes a training batch" in figure.layout.title.text
    assert still.static_png(figure).startswith(b"\x89PNG")  # in rows, still


def test_what_no_arm_measures_is_left_out(tmp_path):
    plain = Result("grpo", tmp_path, [], [{"iteration": 0, "episodes": 4, "entropy": 0.5, "lambda/outcome": 1.0}])
    assert [note.text for note in training_panels({"grpo": plain}).layout.annotations] == ["entropy (nats / token)"]
    assert training_panels({}) is None and training_panels({"grpo": Result("grpo", tmp_path)}) is None


def test_the_line_says_where_it_is(tmp_path):
    view = TrainingView(["guide", "<b>"], 10, n=64)
    assert view.status.startswith("0 of 20 iterations; evaluating")
    view.update({"guide": result(tmp_path, batches=1)})
    view.update({"guide": result(tmp_path, batches=3)})
    assert view.status == "3 of 20 iterations; running" and view._bar.n == 3 and view._bar.initial == 1
    assert "30 % [20, 40] at 0" in view.page and "25 %" in view.page and "3 of 10" in view.page
    assert "&lt;b&gt;" in view.page and "<b>" not in view.page.replace("<b class", "")
    view.close()
    assert view.status == "3 of 20 iterations; ended"


def test_stop_and_continue():
    view = TrainingView(["guide"], 10)
    assert not view.paused()
    view.act("stop")
    assert view.paused() and "data-do='continue'" in view.page and "stopped" in view.status
    view.act("continue")
    assert not view.paused() and "data-do='stop'" in view.page


def test_episodes_open_in_the_inspector(tmp_path):
    view = TrainingView(["guide"], 10)
    view.act("episodes", "guide")
    assert "no episode yet" in view.page and view.inspector is None
    view.act("episodes", "nonsense")  # a message from outside changes nothing
    assert "no episode yet" in view.page
    policy, games = sglib.load_policy("base"), sglib.envs.alfworld.generate_games(2, seed=1)
    write_trajectories(tmp_path / "trajectories.jsonl", sglib.rollout(policy, games, turns=3))
    view.update({"guide": result(tmp_path)})
    view.act("episodes", "guide")
    assert "1 to 2 of 2 episodes" in view.below
    view.act("open", "1")
    assert "Turn 1 of 3" in view.below and view.inspector.game == 1
    view.act("key", "ArrowRight")
    opened = view.below
    assert "Turn 2 of 3" in opened
    view.update({"guide": result(tmp_path, batches=4)})
    assert view.below == opened  # news of the training leave what is being read alone
    view.act("leave")
    assert view.below == ""
    (tmp_path / "trajectories.jsonl").write_text("{")
    view.act("episodes", "guide")
    assert "line 1: not a trajectory" in view.page and view.inspector is None


def test_a_training_in_this_process():
    view = TrainingView(["mine"], 2)
    follow = view.on_iteration("mine")
    played = sglib.rollout(sglib.load_policy("base"), sglib.envs.alfworld.generate_games(1, seed=1), turns=2)
    follow(batch(0) | {"eval/success": 0.5, "eval/low": 0.25, "eval/high": 0.75}, played)
    assert "50 % [25, 75] at 1" in view.page
    view.act("episodes", "mine")
    assert "Turn 1 of 2" in view.below or "1 to 1 of 1" in view.below
    follow(batch(1) | {"eval/success": 0.25}, [])  # an evaluation of one's own has no interval
    assert "25 % at 2" in view.page and "not drawn" not in view.page
    view.act("leave")
    view.act("episodes", "mine")
    assert "no episode yet" in view.page


def test_a_resumed_run_counts_from_where_it_was():
    view = TrainingView(["mine"], 40)
    follow = view.on_iteration("mine")
    follow(batch(20), [])
    follow(batch(21), [])
    assert view.status.startswith("22 of 40 iterations") and "22 of 40" in view.page


def test_what_cannot_be_drawn_does_not_end_the_training(tmp_path):
    view = TrainingView(["guide"], 10)
    broken = result(tmp_path)
    broken.curve[0]["success"] = "half"
    view.update({"guide": broken})
    assert "not drawn: ValueError" in view.page
    view.close()


def test_the_loop_stays_free_and_an_interruption_ends_the_training():
    view, ended = TrainingView(["guide"], 10), threading.Event()

    def train():
        try:
            while True:
                view.update({})
                time.sleep(0.01)
        finally:
            ended.set()

    async def cell():
        task = asyncio.create_task(view.follow(train))
        await asyncio.sleep(0.1)
        assert not ended.is_set()  # this runs beside it
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cell())
    assert ended.wait(5)
    assert asyncio.run(TrainingView(["guide"], 1).follow(lambda: "result")) == "result"
