"""ALFWorld's published game files: read, played, and gathered in panels. The files themselves are not part of the
repository: `SGLIB_ALFWORLD_DATA` names a copy (the folder of `valid_seen`, or the one above it), or
`SGLIB_ALFWORLD_ARCHIVE` a `.tar.xz` of one. What needs none of them plays games rewritten as those files are."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import parity
import pytest
from test_engine_parity import agree, follow, reference  # noqa: F401

from sglib.envs.alfworld import (
    TASK_TYPES,
    UNSEEN_SCENES,
    FastAlfworld,
    Game,
    UnsupportedGame,
    generate_games,
    load_games,
    official_panel,
)
from sglib.envs.alfworld import official as alfworld_official
from sglib.envs.alfworld.card import Alfworld
from sglib.envs.base import task_hash
from sglib.envs.panels import manifest, panel, panel_hash, write_manifest
from sglib.experiments import params as parameters


def rewrite(folder: Path, **changes) -> Path:
    """Change keys of a game's file; None takes a key away."""
    file = folder / "game.tw-pddl"
    data = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in data.items() if value is not None}))
    return file


def declared(problem: str, type_: str) -> str:
    return problem.replace("(:objects", f"(:objects SinkType - {type_}", 1)


@pytest.fixture(scope="module")
def cleaning() -> Game:
    games = generate_games(9, seed=3, tasks=("pick_clean_then_place_in_recep",), max_receptacles=7)
    return next(game for game in games if "(receptacleType Bathtub" in game.problem or "CounterTop" in game.problem)


# -- the published domain ----------------------------------------------------------------------------------------------


def test_a_file_as_published_plays_alike_on_both_engines(tmp_path, cleaning, reference):  # noqa: F811
    """A live SinkType line in the domain, SinkType declared among the objects' types, no walkthrough."""
    folder = cleaning.save(tmp_path)
    problem = declared(cleaning.problem, "otype")
    rewrite(folder, pddl_domain=parity.published_domain(), pddl_problem=problem, walkthrough=None)
    (game,) = load_games(tmp_path)
    assert game.walkthrough is None and game.domain == parity.published_domain()
    env = FastAlfworld()
    env.reset(game)
    plan = env.plan()
    assert len(plan) <= len(cleaning.walkthrough)
    assert follow(reference, game, plan)[-1]["won"]
    for kind in ("random", "search"):
        agree(reference, game, random.Random(kind), 25, kind)
    assert load_games(game.save(tmp_path / "again")) == [game], "saved and read again it is the same game"


@pytest.mark.parametrize(
    ("domain", "kind", "where", "cleans"),
    [
        ("published", "rtype", "other", True),
        ("published", "otype", "other", True),  # what an action names has no type to fit
        ("published", "rtype", "sink", True),
        ("published", None, None, False),
        ("shipped", "rtype", "other", False),
    ],
)
def test_what_the_live_line_means(cleaning, reference, domain, kind, where, cleans):  # noqa: F811
    """Things are cleaned in a receptacle of SinkType, where the domain says so; whatever SinkType is declared as."""
    problem = cleaning.problem
    kinds = dict(re.findall(r"\(receptacleType (\S+) (\w+)Type\)", problem))
    sink = next(name for name, k in kinds.items() if k == "SinkBasin")
    openable = re.findall(r"\(openable (\S+)\)", problem)
    other = next(name for name, k in kinds.items() if k != "SinkBasin" and name not in openable)
    if kind:
        fact = f"(receptacleType {sink if where == 'sink' else other} SinkType)"
        problem = declared(problem, kind).replace("(:init", f"(:init {fact}", 1)
    game = replace(cleaning, problem=problem, domain=parity.published_domain() if domain == "published" else None)
    env = FastAlfworld()
    env.reset(game)
    held = next(c for c in cleaning.walkthrough if c.startswith("clean ")).split(" with ")[0]
    before = cleaning.walkthrough[: [c.startswith("clean ") for c in cleaning.walkthrough].index(True)]
    names = [env.world.names[r] for r in env.world.receptacles]
    script = [*before, *(c for name in names for c in (f"go to {name}", f"{held} with {name}"))]
    rows = follow(reference, game, script)
    able = {c.split(" with ")[1] for row in rows for c in row["admissible"] if c.startswith("clean ")}
    basins = {env.world.names[name.lower()] for name, k in kinds.items() if k == "SinkBasin"}
    assert able == basins | ({env.world.names[other.lower()]} if cleans and where == "other" else set())


@pytest.mark.parametrize(
    ("old", "new", "supported"),
    [
        ("(receptacleType ?r SinkType)", ";; nothing", True),
        ("(cleanable ?o)", "(and (cleanable ?o) (and (cleanable ?o)))", True),
        ("(receptacleType ?r SinkType)", "(receptacleType ?r BathtubBasinType)", False),
        ("(or\n                (receptacleType ?r SinkType)", "(and\n                (receptacleType ?r SinkType)", False),  # noqa: E501
        ("(cleanable ?o)", "", False),
        ("(receptacleType ?r MicrowaveType)", "(or (receptacleType ?r MicrowaveType) (receptacleType ?r SinkType))", False),  # noqa: E501
    ],
)
def test_domains_are_compared_by_meaning(cleaning, old, new, supported):
    text = parity.published_domain()
    clean = text.index("CleanObject")
    assert old in text[clean:]
    game = replace(cleaning, domain=text[:clean] + text[clean:].replace(old, new, 1))
    if supported:
        assert FastAlfworld().reset(game) == FastAlfworld().reset(cleaning)
    else:
        with pytest.raises(UnsupportedGame, match="action '(cleanobject|heatobject)' differs"):
            FastAlfworld().reset(game)


def test_the_order_of_conditions_does_not_matter(cleaning):
    text = parity.published_domain()
    clean = text.index("CleanObject")
    turned = text[clean:].replace("(cleanable ?o)", "(holds ?a ?o)", 1).replace("(holds ?a ?o)\n            )", "(cleanable ?o) )", 1)  # noqa: E501
    assert turned != text[clean:]
    assert FastAlfworld().reset(replace(cleaning, domain=text[:clean] + turned)) == FastAlfworld().reset(cleaning)


# -- folders -----------------------------------------------------------------------------------------------------------


def test_a_broken_file_is_skipped_and_named(tmp_path):
    games = generate_games(5, seed=8, max_receptacles=6)
    folders = [game.save(tmp_path) for game in games]
    (folders[0] / "game.tw-pddl").write_text("{")
    rewrite(folders[1], pddl_problem=7)
    (folders[2] / "traj_data.json").unlink()
    with pytest.warns(UserWarning, match="3 game files were skipped, 2 read") as caught:
        loaded = load_games(tmp_path)
    assert {game.id for game in loaded} == {game.id for game in games[3:]}
    (text,) = [str(warning.message) for warning in caught]
    assert all(str(folder / "game.tw-pddl") in text for folder in folders[:3]) and "pddl_problem" in text
    for folder in folders[3:]:
        rewrite(folder, solvable=False)
    with pytest.raises(ValueError, match=r"no game that can be played: 2 marked unsolvable; 3 broken: .*not JSON"):
        load_games(tmp_path)


def test_only_the_data_sets_own_folders_are_filtered(tmp_path):
    (game,) = generate_games(1, seed=8, max_receptacles=6)
    for name in ("removable", "Sliced-things"):
        folder = game.save(tmp_path / name / "alfworld")
        for root in (tmp_path / name / "alfworld", folder.parent, folder):
            assert load_games(root) == [game]
        shutil.copytree(folder, tmp_path / name / "game")
        shutil.rmtree(tmp_path / name / "alfworld")
        for root in (tmp_path / name / "game", tmp_path / name):
            assert [found.goal for found in load_games(root)] == [game.goal]
    folder = tmp_path / "removable" / "game"
    for task in ("pick_and_place_with_movable_recep-A-B-C-1", "pick_and_place_simple-AppleSliced-None-Bed-301"):
        aside = tmp_path / "aside" / "train" / task / "trial"
        shutil.copytree(folder, aside)
        for root in (tmp_path / "aside", aside.parent, aside):
            with pytest.raises(ValueError, match="1 with movable receptacles or sliced things"):
                load_games(root)
        shutil.rmtree(tmp_path / "aside")


def test_nothing_to_load_is_an_error_that_names_the_path(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=f"{tmp_path}/empty: no game that can be played: no game.tw-pddl below it"):
        load_games(tmp_path / "empty")
    with pytest.raises(ValueError, match=f"{tmp_path}/file: is a file"):
        load_games(tmp_path / "file")
    assert load_games(tmp_path / "empty", limit=0) == []


# -- panels ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "count"), [("valid_seen", 140), ("valid_unseen", 134)])
def test_the_manifests_list_alfworlds_validation_games(split, count):
    rows = manifest("alfworld", f"official_{split}")
    assert [int(row["number"]) for row in rows] == list(range(count))
    assert len({row["id"] for row in rows}) == len({row["hash"] for row in rows}) == count
    for row in rows:
        place, task, trial = row["id"].split("/")
        assert place == split and task.split("-")[0] in TASK_TYPES and re.fullmatch(r"trial_T\d{8}_\d{6}_\d{6}", trial)
        assert (int(task.rpartition("-")[2]) in UNSEEN_SCENES) == (split == "valid_unseen")
    assert {row["id"].split("/")[1].split("-")[0] for row in rows[:40]} == set(TASK_TYPES)


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    """A data set of three games in each split, with manifests of its own."""
    monkeypatch.setattr(Alfworld, "folder", tmp_path)
    for split in alfworld_official.OFFICIAL_SPLITS:
        games = generate_games(3, seed=9, split=split, max_receptacles=6)
        for game in games:
            game.save(tmp_path / "data" / "json_2.1.1")
        write_manifest("alfworld", f"official_{split}", sorted(games, key=task_hash))
    return tmp_path / "data"


def test_a_panel_has_each_game_once_in_the_manifests_order(small, monkeypatch):
    for name in ("SGLIB_ALFWORLD_DATA", "ALFWORLD_DATA"):
        monkeypatch.delenv(name, raising=False)
    games = official_panel("valid_seen", small)
    assert [game.id for game in games] == [row["id"] for row in manifest("alfworld", "official_valid_seen")]
    assert official_panel("valid_seen", small / "json_2.1.1") == games
    for name in ("ALFWORLD_DATA", "SGLIB_ALFWORLD_DATA"):
        monkeypatch.setenv(name, str(small))
        assert official_panel("valid_seen") == panel("alfworld", "official_valid_seen") == games
        assert panel("alfworld", "official_valid_seen", 2) == games[:2]
        monkeypatch.setenv("ALFWORLD_DATA", "/nowhere")


def test_the_size_official_trains_on_their_games_and_reports_on_both_panels(small, monkeypatch):
    monkeypatch.setenv("SGLIB_ALFWORLD_DATA", str(small))
    root = small / "json_2.1.1"
    for game in generate_games(5, seed=3, max_receptacles=6):
        game.save(root)
    aside = root / "train" / "pick_and_place_with_movable_recep-A-B-C-1"
    shutil.copytree(next((root / "train").iterdir()), aside)
    card = Alfworld()
    first = [game.id for game in card.tasks(5, seed=1, size="official")]
    assert len(set(first)) == 5 and all(name.startswith("train/") and "movable" not in name for name in first)
    assert [game.id for game in card.tasks(2, seed=1, size="official", start=3)] == first[3:]
    assert any([game.id for game in card.tasks(5, seed=k, size="official")] != first for k in range(2, 6))
    with pytest.raises(ValueError, match="train: 5 games that can be played; 6 were asked for"):
        card.tasks(6, size="official")
    with pytest.raises(ValueError, match="split='valid_seen': allowed with size='official': train"):
        card.tasks(1, split="valid_seen", size="official")
    both = [row["id"] for split in ("valid_seen", "valid_unseen") for row in manifest("alfworld", f"official_{split}")]
    assert [game.id for game in panel("alfworld", None, 6, "official")] == both
    assert parameters.check("grpo", {"task_size": "official"}).task_size == "official"


def test_missing_and_different_games_are_named(small, monkeypatch):
    first, second, third = (row["id"] for row in manifest("alfworld", "official_valid_unseen"))
    root = small / "json_2.1.1"
    rewrite(root / second, pddl_problem=json.loads((root / second / "game.tw-pddl").read_text())["pddl_problem"] + " ")
    with pytest.raises(RuntimeError, match=f"panel official_valid_unseen, task 1: {second} has the hash"):
        official_panel("valid_unseen", small)
    shutil.rmtree(root / first)
    (root / third / "traj_data.json").unlink()
    with pytest.raises(ValueError, match="2 of the 3 games of official_valid_unseen") as caught:
        official_panel("valid_unseen", small)
    for text in (f"{first} is missing", f"{third} is broken"):
        assert text in str(caught.value)
    assert len(official_panel("valid_seen", small)) == 3
    with pytest.raises(ValueError, match="split='train': must be one of valid_seen, valid_unseen"):
        official_panel("train", small)
    monkeypatch.setenv("SGLIB_ALFWORLD_DATA", "/nowhere")
    with pytest.raises(ValueError, match=r"data='/nowhere': no folder with .* set SGLIB_ALFWORLD_DATA or ALFWORLD_DATA"):  # noqa: E501
        official_panel("valid_seen")


# -- the published files, where they are at hand -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    folder, archive = os.environ.get("SGLIB_ALFWORLD_DATA"), os.environ.get("SGLIB_ALFWORLD_ARCHIVE")
    if folder:
        return alfworld_official.official_folder(folder)
    if not archive:
        pytest.skip("neither SGLIB_ALFWORLD_DATA nor SGLIB_ALFWORLD_ARCHIVE names a copy of ALFWorld's games")
    folder = tmp_path_factory.mktemp("published")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    return alfworld_official.official_folder(folder)


def test_published_walkthroughs_win(published):
    """Of both validation splits, and of 200 games of the others."""
    env, others = FastAlfworld(), [f for f in sorted(published.iterdir()) if f.name not in alfworld_official.OFFICIAL_SPLITS]  # noqa: E501
    games = [game for folder in others for game in load_games(folder, limit=100)]
    for split in alfworld_official.OFFICIAL_SPLITS:
        games += official_panel(split, published)
    for game in games:
        assert not env.reset(game).won
        script = game.walkthrough or env.plan()
        won = [env.step(command).won for command in script]
        assert won == [False] * (len(script) - 1) + [True], game.id
    for split, count in (("valid_seen", 140), ("valid_unseen", 134)):
        panel = [game for game in games if game.split == split]
        assert len(panel) == count and panel_hash(panel) == panel_hash(panel[::-1])


def test_published_games_play_alike_on_both_engines(published, reference):  # noqa: F811
    """One game of each of three tasks, in a walk of a kind of its own; `make parity` plays hundreds."""
    rng = random.Random(os.environ.get("SGLIB_PARITY_SEED"))
    games = official_panel("valid_unseen", published)
    for task, kind in zip(rng.sample(TASK_TYPES[:5], 3), parity.KINDS):
        agree(reference, rng.choice([game for game in games if game.task_type == task]), rng, 20, kind)
