"""Experiments: several at a time in processes, resumable, complete ones kept, failures named."""

import json
import multiprocessing
import os
import platform
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from test_scienceworld import plays

from sglib import envs
from sglib.experiments import evidence, experiment, params, pool
from sglib.experiments.experiment import Experiment
from sglib.experiments.recipe import load_recipe
from sglib.records import write_checked
from sglib.rewards import Constant
from sglib.training import checkpoint

SMALL = {"iterations": 2, "games_per_iteration": 2, "group_size": 2, "eval_games": 4, "eval_every": 1, "max_turns": 4}


def small(**changes):
    return params.check("grpo", {"size": "smoke", **SMALL, **changes})


def test_it_is_a_recipe_with_the_success_reward_of_the_run():
    p = small(win_reward=2.0)
    recipes = {arm: Experiment(arm, p).load() for arm in ("grpo", "guide", "self_guide", "immediate")}
    assert [r.components[0].weight for r in recipes.values()] == [2.0] * 4
    assert Experiment("grpo", small(win_reward=None)).load().components[0].weight == 10.0
    assert recipes["guide"].components[1].schedule == Constant(0.0)
    scheduled = recipes["self_guide"].components[1].schedule
    assert [scheduled(u) for u in (0.0, 0.4, 0.45, 0.6, 0.75, 0.9)] == pytest.approx([0, 0, 0.5, 1, 0.5, 0])
    assert recipes["immediate"].components[1].schedule(0.0) == 1.0
    assert [r.format for r in recipes.values()] == ["act", "guide", "guide", "guide"]


def test_a_folder_is_decided_by_what_decides_the_result():
    assert Experiment("grpo", small()).folder == Experiment("grpo", small(run="other", arms=["grpo"])).folder
    assert Experiment("grpo", small()).folder != Experiment("grpo", small(seed=1)).folder
    assert Experiment("grpo", small()).folder != Experiment("guide", small()).folder
    assert Experiment("grpo", small(win_reward=1.0)).folder != Experiment("grpo", small(win_reward=2.0)).folder


def test_a_recipe_counts_by_what_it_says(tmp_path):
    """A copy under another path is another arm of the same content; a changed key is another folder."""
    copy = tmp_path / "grpo.yaml"
    copy.write_text(params.recipe_file("grpo").read_text().replace("about: ", "about: my "))
    assert Experiment(str(copy), small(arms=[str(copy)])).folder == Experiment("grpo", small()).folder
    copy.write_text(copy.read_text().replace("advantage: {kind: grpo}", "advantage: {kind: grpo, scale: none}"))
    assert Experiment(str(copy), small()).folder != Experiment("grpo", small()).folder


def test_what_the_environment_has_by_default_is_not_said():
    assert Experiment("grpo", small(max_turns=30)).content == Experiment("grpo", small(max_turns=None)).content
    assert Experiment("grpo", small(task_size=12)).content == Experiment("grpo", small()).content
    assert Experiment("grpo", small(task_size=13)).content != Experiment("grpo", small()).content


@pytest.mark.slow
def test_recipes_train_in_processes_and_complete_ones_are_kept():
    p = small(arms=["grpo", "immediate"])
    seen = []
    results = pool.train_recipes(p, on_update=lambda r: seen.append(sorted(r)), poll=0.5)
    assert list(results) == ["grpo", "immediate"] and seen
    for arm, result in results.items():
        assert result.card and [row["iteration"] for row in result.curve] == [0, 1, 2]
        assert len(result.batches) == 2 and len(result.before) == len(result.after) == 4
        assert result.trajectories[0].format == Experiment(arm, p).load().format
        assert (result.folder / "policy" / "model.safetensors").exists()
    assert results["immediate"].batches[0]["lambda/self_guide"] == 1.0
    stamp = {arm: (r.folder / "done.json").stat().st_mtime_ns for arm, r in results.items()}
    again = pool.train_recipes(p, poll=0.1)
    assert {arm: (r.folder / "done.json").stat().st_mtime_ns for arm, r in again.items()} == stamp
    assert again["grpo"].curve == results["grpo"].curve


def test_an_interrupted_one_goes_on_to_the_same_result(monkeypatch):
    p = small(arms=["guide"])
    Experiment("guide", p).train()
    one = Experiment("guide", p).read()
    kept = shutil.move(one.folder, one.folder.with_name("whole"))
    real = experiment.train

    def interrupted(*args, on_iteration=None, **kwargs):
        def stop(entry, trajectories):
            if entry["iteration"] == 0:
                raise KeyboardInterrupt

        return real(*args, on_iteration=stop, **kwargs)

    monkeypatch.setattr(experiment, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Experiment("guide", p).train()
    monkeypatch.setattr(experiment, "train", real)
    Experiment("guide", p).train()
    two = Experiment("guide", p).read()
    assert one.curve == two.curve and one.after == two.after
    weights = [(Path(folder) / "policy" / "model.safetensors").read_bytes() for folder in (kept, two.folder)]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_a_failing_one_says_why():
    with pytest.raises(RuntimeError, match="arm 'grpo' failed[^§]*neither 'new'"):
        pool.train_recipes(small(arms=["grpo"], model="base-none"), poll=0.2)


def forked(monkeypatch, train):
    """Workers that do `train` in place of a training, without the seconds that a new process takes."""
    monkeypatch.setattr(Experiment, "_train", train)
    monkeypatch.setattr(pool, "_context", lambda: multiprocessing.get_context("fork"))


def test_a_killed_worker_is_replaced_and_counted(monkeypatch):
    def dies_twice(self, *_):
        if self.replaced < 2:
            os.kill(os.getpid(), signal.SIGKILL)
        write_checked(self.folder / "done.json", {"replaced": self.replaced})

    forked(monkeypatch, dies_twice)
    one, ended = Experiment("grpo", small()), []
    pool.train_all([one], lambda *end: ended.append(end), jobs=2, poll=0.01)
    assert ended == [(0, None)] and one.done and one.replaced == 2
    assert (one.folder / "killed.txt").read_text() == "Killed\nKilled\n"

    forked(monkeypatch, lambda self, *_: os.kill(os.getpid(), signal.SIGKILL))
    other, ended = Experiment("grpo", small(seed=1)), []
    pool.train_all([other], lambda *end: ended.append(end), jobs=2, poll=0.01)
    assert ended == [(0, "exit code -9")] and other.replaced == pool.REPLACED


def test_interrupted_the_workers_end_at_the_next_safe_point(monkeypatch):
    def until_asked(self, *_):
        (self.folder / "began").touch()
        while not (self.folder / experiment.STOP).exists():
            os.kill(os.getpid(), signal.SIGINT)  # as a terminal does: it is the parent's to answer
            time.sleep(0.01)
        write_checked(self.folder / "saved.json", {})

    forked(monkeypatch, until_asked)
    one = Experiment("grpo", small())

    def stop():
        if (one.folder / "began").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pool.train_all([one], lambda *_: None, jobs=2, on_poll=stop, poll=0.01)
    assert (one.folder / "saved.json").exists() and not (one.folder / "error.txt").exists()


def test_the_worker_of_a_killed_process_is_waited_for(tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    here = platform.node()
    for parent, host, orphan in ((gone.pid, here, True), (os.getpid(), here, False), (gone.pid, "elsewhere", False)):
        assert checkpoint.InUse(tmp_path, f"process 5 for process {parent} on {host}, since x").orphan == orphan
    assert not checkpoint.InUse(tmp_path, f"process {gone.pid} on {here}, since x").orphan


def test_what_is_damaged_is_made_again(caplog):
    one = Experiment("grpo", small(iterations=1))
    one.train()
    whole = one.read()
    for name in ("done.json", "base.json"):
        file = one.folder / name
        file.write_text(file.read_text().replace("0", "1", 1))
    with pytest.raises(ValueError, match=r"(base|done)\.json: damaged"):
        one.read()
    with pytest.warns(UserWarning, match=r"set aside as damaged-(done|base)\.json"):
        one.train()
    assert one.read().curve == whole.curve and one.done
    assert {path.name for path in one.folder.glob("damaged-*")} == {"damaged-done.json", "damaged-base.json"}


def test_thinking_is_passed_on_and_counts_only_where_it_is_on(monkeypatch):
    """A cell that was trained before there was such a parameter keeps its key."""
    asked = []

    def load(name, **options):
        asked.append(options)
        raise InterruptedError

    monkeypatch.setattr(experiment, "load_policy", load)
    cells = [Experiment("grpo", small(model="someone/some-model", **more)) for more in ({}, {"thinking": True})]
    for cell in cells:
        with pytest.raises(InterruptedError):
            cell.train()
    assert [options["thinking"] for options in asked] == [False, True]
    plain, thinking = (cell.content["params"] for cell in cells)
    assert "thinking" not in plain and thinking == plain | {"thinking": True}
    made = [cell.base("base", lambda key=cell.key: {"of": key}) for cell in cells]
    assert [made[0]["of"], made[1]["of"]] == [cell.key for cell in cells], "nor do they share what came before training"


def test_one_process_at_a_time(monkeypatch):
    """Refused before anything is played or written."""
    one = Experiment("grpo", small())
    monkeypatch.setattr(experiment, "load_policy", None)
    with checkpoint.locked(one.folder, ".training"), pytest.raises(RuntimeError, match="in use by another run"):
        one.train()
    assert [path.name for path in one.folder.iterdir()] == [".training"]


def test_what_is_read_is_what_was_written():
    one = Experiment("grpo", small())
    one.folder.mkdir(parents=True)
    (one.folder / "base.json").write_text(json.dumps({"success": 0.5, "low": 0.1, "high": 0.9, "outcomes": [0, 1]}))
    entry = {"iteration": 4, "success": 0.25, "eval/success": 1.0, "eval/outcomes": [1, 1]}
    (one.folder / "metrics.jsonl").write_text(json.dumps(entry) + "\n")
    result = one.read()
    assert (result.before, result.after, result.card) == ([0, 1], [1, 1], {})
    assert [(row["iteration"], row["success"]) for row in result.curve] == [(0, 0.5), (5, 1.0)]
    assert result.batches == [{"arm": "grpo", "iteration": 4, "success": 0.25}]


@pytest.mark.slow
def test_several_evaluation_seeds_count_the_first_once_also_when_it_goes_on():
    one = Experiment("grpo", small(iterations=1, eval_seeds=3))
    one.train()
    whole = one.read()
    wins = json.loads((one.folder / "again.json").read_text())
    assert whole.after == [count / 3 for count in wins] and set(whole.during[-1]) <= {0, 1}
    assert all(first <= count <= first + 2 for first, count in zip(whole.during[-1], wins, strict=True))
    (one.folder / "done.json").unlink()  # killed between the last evaluation and the end
    one.train()
    assert one.read().after == whole.after and json.loads((one.folder / "again.json").read_text()) == wins


@pytest.mark.slow
def test_stopped_and_continued_it_comes_to_the_same():
    """A person stops an arm while it runs; it ends behind an iteration, rests, and goes on to the same result."""
    p = small(iterations=8, eval_every=8, arms=["guide"])
    one = Experiment("guide", p)
    one.train()
    whole = one.read()
    shutil.rmtree(one.folder)
    done, rests = [0], []

    def paused():
        if 0 < done[-1] < 8 and len(rests) < 8:
            rests.append(done[-1])
        return 0 < len(rests) < 8

    look = lambda: done.append(len(one.read().batches))  # noqa: E731
    pool.train_all([one], lambda number, error: None, 1, look, 0.3, paused)  # fmt: skip
    result = one.read()
    assert len(rests) == 8 and rests[-1] < 8, "it was over before it could be stopped"
    assert result.card and (result.before, result.after, result.curve) == (whole.before, whole.after, whole.curve)
    assert [b["success"] for b in result.batches] == [b["success"] for b in whole.batches]


CORRIDOR = str(Path(__file__).with_name("corridor.py"))


def test_an_environment_of_ones_own_is_trained_in_and_is_a_cell(tmp_path):
    """Named by its file, in one key; its own turns and panel; what it lacks is refused by name."""
    p = small(env=CORRIDOR, model="alfworld/base", arms=["grpo"], max_turns=None)
    one = Experiment("grpo", p)
    assert one.content["environment"] == {"name": "corridor", "revision": 1} and p.turns == 6
    one.train()
    result = one.read()
    assert result.card and {t.env for t in result.trajectories} == {CORRIDOR}
    cell = evidence.cell_content(one, result)
    (tmp_path / f"{one.name}.json").write_text(json.dumps(cell))
    assert str(evidence.read_evidence([one], [tmp_path])) == "1 of 1 cells" and evidence.further_splits([one]) == ()
    with pytest.raises(params.ParameterError, match="igpo: component 'igpo' asks for .*'corridor'"):
        small(env=CORRIDOR, arms=["grpo", "igpo"])


RECIPES = [path.stem for path in sorted((params.recipe_file("grpo").parent).glob("*.yaml"))]
PLAIN = [name for name in RECIPES if load_recipe(name).start is None]  # the others are in tests/test_starts.py


@pytest.mark.parametrize("name", PLAIN)
def test_every_recipe_trains(name, outputs):
    """Two iterations; every component's values and every turn's advantage are in the records."""
    asks = name.startswith("igpo_answer")  # for an answer; ALFWorld has no question
    elsewhere = {"env": "search_qa", "model": "new"} if asks else {}
    p = small(arms=[name], eval_games=2, eval_every=2, **elsewhere)
    one = Experiment(name, p)
    one.train()
    trained = one.read().last_batch
    for component in load_recipe(name).components:
        recorded = [turn.rewards for t in trained for turn in t.turns]
        assert all({component.name, f"{component.name}/weighted"} <= rewards.keys() for rewards in recorded), name
    assert trained and all(turn.advantage is not None for t in trained for turn in t.turns)


@pytest.mark.parametrize("env", ["sokoban", "search_qa", "webshop", pytest.param("scienceworld", marks=plays)])
def test_every_kind_of_recipe_trains_elsewhere(env, outputs):
    """One recipe of each kind (its components, how they become advantages) that an environment can have."""
    kinds = {}
    for name in PLAIN:
        try:
            recipe = load_recipe(name, envs.get(env))
        except params.ParameterError:  # it lacks what a component needs
            continue
        kinds.setdefault((*(component.name for component in recipe.components), recipe.estimator.kind), name)
    assert len(kinds) > 10
    settings = {"iterations": 1, "games_per_iteration": 2, "group_size": 2}
    settings |= {"eval_games": 1, "eval_every": 1, "max_turns": 3}
    for name in kinds.values():
        one = Experiment(name, small(env=env, model="new", arms=[name], **settings))
        one.train()
        trained = one.read().last_batch
        assert len(trained) == 4 and all(turn.advantage is not None for t in trained for turn in t.turns), name


def test_answers_of_a_training_are_as_long_as_they_may_be(outputs):
    """A language model's episodes in training and on the panel; a cell without the parameter keeps its key."""
    tokens = {"model": "random-lm", "answer_tokens": 3, "task_size": 4, "iterations": 1, "eval_games": 1}
    one, usual = Experiment("grpo", small(**tokens)), Experiment("grpo", small(**tokens | {"answer_tokens": None}))
    assert "answer_tokens" not in usual.content["params"] and one.key != usual.key
    one.train()
    played = [*one.read().last_batch, *one.read().trajectories]
    assert {turn.span[1] - turn.span[0] for t in played for turn in t.turns} <= {1, 2, 3} and played


def test_options_of_the_environment_hold_in_training_and_on_the_panel(outputs):
    """With `end_on_deadlock` an episode of Sokoban has a deadlock behind its last turn at most, and another key."""
    sokoban = {"env": "sokoban", "model": "new", "iterations": 1, "games_per_iteration": 4, "eval_games": 16}
    sokoban |= {"max_turns": 15}
    usual, one = (Experiment("grpo", small(**sokoban, env_options=o)) for o in ({}, {"end_on_deadlock": True}))
    assert "env_options" not in usual.content["params"] and one.key != usual.key
    deadlock, cut = one.params.card.failures["deadlock"], {}
    for it in (usual, one):
        it.train()
        played = [*it.read().last_batch, *it.read().trajectories]
        early = [t for t in played if not t.won and len(t) < 15]
        cut[it.key] = len(early)
        assert not early or deadlock(early) == 1.0
    assert cut[usual.key] == 0 < cut[one.key]
