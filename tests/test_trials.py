"""ALFRED's trials as games, and the official layout read back: what is built, what is dropped, what errors say."""

from __future__ import annotations

import gzip
import json
import logging
import os
import re
from pathlib import Path

import pytest

from sglib.envs.alfworld.fast import FastAlfworld
from sglib.envs.alfworld.games import TASK_TYPES, UNSEEN_SCENES
from sglib.envs.alfworld.generate import generate_games
from sglib.envs.alfworld.trials import from_alfred_trials, load_games

# Floor plan 301 has a bed, a desk, drawers, a dresser and shelves; receptacle ids carry their positions.
DESK, BED = (2.29, 0.1, -1.15), (-0.64, 0.1, 0.87)  # furniture has its position on the floor
TASK = "pick_and_place_simple-CellPhone-None-Bed-301"


def fact(**changes) -> dict:
    """One trial in the facts' own form: a cell phone lies on the desk and belongs on the bed."""
    params = {"object_target": "CellPhone", "parent_target": "Bed", "toggle_target": "", "mrecep_target": ""}
    params["object_sliced"] = False
    trial = {
        "split": "train",
        "task_type": "pick_and_place_simple",
        "pddl_params": {**params, **changes.pop("params", {})},
        "scene_num": 301,
        "trial": f"{TASK}/trial_T1",
        "agent": {"action": "TeleportFull", "x": -0.75, "y": 0.9, "z": -0.5, "rotation": 270, "horizon": 30},
        "objects": [["CellPhone", *DESK], ["Book", *BED], ["Boots", 0.0, 0.0, 0.0]],
        "toggles": [],
        "annotation": "Put the phone [on] the bed. ",
    }
    return {**trial, **changes}


def write(path: Path, *facts) -> Path:
    path.write_text("".join((f if isinstance(f, str) else json.dumps(f)) + "\n" for f in facts))
    return path


def tree(root: Path, name: str = "pp/ann_0.json", **changes) -> Path:
    """The same trial as ALFRED's repository keeps it."""
    f = fact()
    poses = [{"objectName": f"{o}_0a1b2c3d", "position": dict(zip("xyz", at, strict=True))} for o, *at in f["objects"]]
    data = {
        "task_id": "trial_T1",
        "task_type": f["task_type"],
        "pddl_params": f["pddl_params"],
        "scene": {"scene_num": 301, "object_poses": poses, "object_toggles": [], "init_action": f["agent"]},
        "turk_annotations": {"anns": [{"task_desc": "Put the phone [on] the bed. "}, {"task_desc": "Phone to bed"}]},
        "plan": {"low_actions": []},
        **changes,
    }
    file = root / "valid_seen" / TASK / "trial_T1" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(data))
    return file


def test_facts_become_a_game_that_its_walkthrough_wins(tmp_path):
    (game,) = from_alfred_trials(write(tmp_path / "t.jsonl", fact()))
    assert (game.id, game.split, game.scene) == (f"train/{TASK}/trial_T1", "train", 301)
    assert game.goal in ("put a cellphone in bed", "put some cellphone on bed")
    assert game.traj_data["source"] == "ALFRED-derived"
    assert game.walkthrough[-3:] == ("take cellphone 1 from desk 1", "go to bed 1", "move cellphone 1 to bed 1")
    env = FastAlfworld()
    first = env.reset(game)
    assert "boots" not in game.problem.lower(), "what stands on the floor is in no receptacle and so in no game"
    assert "middle of a room" in first.text and not first.won
    assert [env.step(action).won for action in game.walkthrough] == [False] * (len(game.walkthrough) - 1) + [True]


def test_human_sentences_lose_what_would_break_the_grammar(tmp_path):
    (game,) = from_alfred_trials(write(tmp_path / "t.jsonl", fact()), sentences="human")
    assert game.goal == "Put the phone on the bed"
    (game,) = from_alfred_trials(write(tmp_path / "t.jsonl", fact(annotation=" ")), sentences="human")
    assert "cellphone" in game.goal, "an empty sentence gives way to the template"


def test_alfred_repository_layout_gives_the_same_game(tmp_path):
    (expected,) = from_alfred_trials(write(tmp_path / "t.jsonl", fact(split="valid_seen")))
    tree(tmp_path / "data")
    tree(tmp_path / "data", "pp/ann_1.json")
    tree(tmp_path / "data", "traj_data.json")
    (game,) = from_alfred_trials(tmp_path / "data")  # one trial, however many files tell of it
    assert (game.id, game.problem, game.walkthrough, game.goal) == (
        expected.id, expected.problem, expected.walkthrough, expected.goal,
    )  # fmt: skip
    assert [a["task_desc"] for a in game.traj_data["turk_annotations"]["anns"]][1] == "Phone to bed"
    assert from_alfred_trials(tmp_path / "data", split="train") == []


def test_lamp_position_is_read_from_the_expert_plan(tmp_path):
    action = {"action": "ToggleObjectOn", "objectId": "DeskLamp|-01.32|+01.24|-00.99"}
    toggled = {"low_actions": [{"api_action": action}]}
    params = {**fact()["pddl_params"], "parent_target": "", "toggle_target": "DeskLamp"}
    tree(tmp_path, task_type="look_at_obj_in_light", pddl_params=params, plan=toggled)
    (game,) = from_alfred_trials(tmp_path)
    assert game.walkthrough[-2:] == ("go to dresser 1", "use desklamp 1")  # the dresser is at (-1.33, 0.00, -0.75)


def test_dropped_trials_are_counted_by_reason(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = write(
        tmp_path / "t.jsonl",
        fact(),
        fact(task_type="pick_and_place_with_movable_recep"),
        fact(params={"object_sliced": True}),
        fact(objects=[["Book", *BED]]),
        fact(objects=[["CellPhone", *BED]]),
        fact(params={"parent_target": "Fridge"}),
        fact(params={"parent_target": "", "toggle_target": "FloorLamp"}, task_type="look_at_obj_in_light"),
    )
    assert len(from_alfred_trials(path)) == 1
    assert caplog.messages == [
        f"{path}: 1 ALFRED-derived games; 6 trials dropped: 1 already won at the start, 1 of another task type, "
        "2 whose target lies in no receptacle, 1 with sliced things or a movable receptacle, 1 without a solution"
    ]


def test_limit_split_and_gzip(tmp_path):
    facts = [fact(trial=f"{TASK}/trial_T{i}", split="train" if i % 2 else "valid_seen") for i in range(6)]
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, facts)).encode()))
    assert [g.id[-1] for g in from_alfred_trials(path)] == list("012345")
    assert [g.id[-1] for g in from_alfred_trials(path, split="train", limit=2)] == ["1", "3"]
    assert from_alfred_trials(path, limit=0) == []


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[]", "line 2: Expected `object`, got `array`"),
        (fact(split="test"), r"line 2: Invalid enum value 'test' - at `\$.split`"),
        (fact(scene_num=99), r"line 2: Invalid enum value 99 - at `\$.scene_num`"),
        (fact(scene_num="301"), r"line 2: Expected `int`, got `str` - at `\$.scene_num`"),
        (fact(objects=[["Mug", 1, 2]]), r"line 2: Expected `array` of length 4, got 3 - at `\$.objects\[0\]`"),
        (fact(objects=[["Mug", 1, 2, float("nan")]]), "line 2: not JSON"),
        (fact(agent={"x": 1.0, "z": 1.0, "rotation": 0}), r"line 2: .* field `horizon` - at `\$.agent`"),
        (fact(params={"object_target": None}), r"line 2: .* got `null` - at `\$.pddl_params.object_target`"),
        (fact(trial="../../etc/passwd"), r"line 2: Expected `str` matching regex .* - at `\$.trial`"),
        ({k: v for k, v in fact().items() if k != "annotation"}, "line 2: .* missing required field `annotation`"),
    ],
)
def test_errors_name_file_line_and_field(tmp_path, bad, message):
    path = write(tmp_path / "facts.jsonl", fact(), bad)
    with pytest.raises(ValueError, match=f"facts.jsonl, {message}"):
        from_alfred_trials(path)


def test_errors_of_arguments_and_archives(tmp_path):
    path = write(tmp_path / "t.jsonl", fact())
    for name, value in (("split", "dev"), ("limit", -1), ("sentences", "x")):
        with pytest.raises(ValueError, match=f"{name}={value!r}"):
            from_alfred_trials(path, **{name: value})
    with pytest.raises(FileNotFoundError):
        from_alfred_trials(tmp_path / "absent.jsonl")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(json.dumps(fact()).encode())[:-9])
    (tmp_path / "no.jsonl.gz").write_bytes(b"plain text")
    for name in ("cut.jsonl.gz", "no.jsonl.gz"):
        with pytest.raises(ValueError, match=f"{name}: cannot be read"):
            from_alfred_trials(tmp_path / name)
    file = tree(tmp_path / "data", scene={"scene_num": 301, "object_poses": [{"objectName": "Mug_1"}]})
    with pytest.raises(ValueError, match=rf"{file.name}: .* field `position` - at `\$.scene.object_poses\[0\]`"):
        from_alfred_trials(tmp_path / "data")


# -- the official layout ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(folder, games) of two splits in the official layout."""
    folder = tmp_path_factory.mktemp("json_2.1.1")
    games = generate_games(4, seed=5, max_receptacles=6)
    games += generate_games(2, seed=5, split="valid_unseen", max_receptacles=6)
    for game in games:
        game.save(folder)
    return folder, sorted(games, key=lambda g: g.id)


def test_load_games_gives_back_what_was_saved(saved):
    folder, games = saved
    assert load_games(folder) == games
    assert load_games(folder, limit=3) == games[:3]
    assert load_games(folder / "valid_unseen") == [g for g in games if g.split == "valid_unseen"]
    assert load_games(folder / games[0].id) == games[:1]
    assert load_games(folder, limit=0) == []


def test_load_games_keeps_an_older_grammar(tmp_path):
    """Official games from before alfworld 0.4 say "put X in/on Y"; their own grammar must come back with them."""
    (game,) = generate_games(1, seed=6, max_receptacles=6)
    file = game.save(tmp_path) / "game.tw-pddl"
    data = json.loads(file.read_text())
    data["grammar"] = data["grammar"].replace("move {o} to {r}", "put {o} in/on {r}")
    data["pddl_domain"] += "\n; a comment"
    file.write_text(json.dumps(data))
    (loaded,) = load_games(tmp_path)
    assert loaded.grammar == data["grammar"] and loaded.domain == data["pddl_domain"] and loaded.goal == game.goal
    assert loaded.data() == data


def test_load_games_passes_over_what_alfworld_passes_over(tmp_path):
    (game,) = generate_games(1, seed=6, max_receptacles=6)
    folder = game.save(tmp_path / "ok")
    traj, data = (json.loads((folder / n).read_text()) for n in ("traj_data.json", "game.tw-pddl"))
    variants = {
        "train/pick_and_place_with_movable_recep-A-B-C-1/t": (traj, data),
        "train/pick_and_place_simple-AppleSliced-None-Bed-1/t": (traj, data),
        "train/other/t": ({**traj, "task_type": "stack"}, data),
        "train/unsolvable/t": (traj, {**data, "solvable": False}),
    }
    for name, (t, d) in variants.items():
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "traj_data.json").write_text(json.dumps(t))
        (tmp_path / name / "game.tw-pddl").write_text(json.dumps(d))
    assert [g.goal for g in load_games(tmp_path)] == [game.goal]


@pytest.mark.parametrize(
    ("file", "key", "value", "message"),
    [
        ("game.tw-pddl", "pddl_problem", None, "Object missing required field `pddl_problem`"),
        ("game.tw-pddl", "walkthrough", "look", r"Expected `array | null`, got `str` - at `\$.walkthrough`"),
        ("game.tw-pddl", "walkthrough", [1], r"Expected `str`, got `int` - at `\$.walkthrough\[0\]`"),
        ("game.tw-pddl", "grammar", "nothing", "field 'grammar' holds no task sentence"),
        ("game.tw-pddl", "solvable", None, "Object missing required field `solvable`"),
        ("traj_data.json", "task_type", 3, r"Expected `str`, got `int` - at `\$.task_type`"),
        ("traj_data.json", "scene", {}, r"Object missing required field `scene_num` - at `\$.scene`"),
        ("traj_data.json", "scene", [], r"Expected `object`, got `array` - at `\$.scene`"),
    ],
)
def test_load_games_names_the_file_and_the_broken_key(tmp_path, file, key, value, message):
    path = generate_games(1, seed=6, max_receptacles=6)[0].save(tmp_path) / file
    data = json.loads(path.read_text())
    data = {k: v for k, v in data.items() if k != key} if value is None else {**data, key: value}
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=f"{file}: {message}"):
        load_games(tmp_path)


def test_load_games_of_broken_folders(tmp_path):
    folder = generate_games(1, seed=6, max_receptacles=6)[0].save(tmp_path)
    (folder / "game.tw-pddl").write_text('{"pddl_domain": ')
    with pytest.raises(ValueError, match="game.tw-pddl: not JSON"):
        load_games(tmp_path)
    (folder / "traj_data.json").unlink()
    with pytest.raises(ValueError, match="game.tw-pddl: traj_data.json is missing"):
        load_games(tmp_path)
    with pytest.raises(FileNotFoundError):
        load_games(tmp_path / "absent")
    with pytest.raises(ValueError, match="limit=-1"):
        load_games(tmp_path, limit=-1)


# -- the real task list, where it is at hand --------------------------------------------------------------------------


def test_real_trials(caplog):
    """Nine in ten validation trials of seen rooms and three in four of unseen ones become games that can be won."""
    path = os.environ.get("SGLIB_ALFRED_TRIALS")
    if not path:
        pytest.skip("SGLIB_ALFRED_TRIALS does not name a file of ALFRED trial facts")
    caplog.set_level(logging.INFO)
    env = FastAlfworld(admissible=False)
    for split, least in (("valid_seen", 0.85), ("valid_unseen", 0.75)):
        games = from_alfred_trials(path, split)
        dropped = int(re.search(r"(\d+) trials dropped", caplog.messages[-1])[1])
        assert len(games) / (len(games) + dropped) >= least, caplog.messages[-1]
        assert {g.task_type for g in games} == set(TASK_TYPES)
        assert len({g.id for g in games}) == len(games)
        assert {g.scene in UNSEEN_SCENES for g in games} == {split == "valid_unseen"}
        for game in games:
            assert not env.reset(game).won
            observations = [env.step(action) for action in game.walkthrough]
            assert observations[-1].won, f"{game.id}: not won by its walkthrough"
            assert not any(o.won for o in observations[:-1])
