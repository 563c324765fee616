"""Games that were not made here: ALFWorld's dataset as it lies on disk, and ALFRED's trials rebuilt as games.

`load_games` reads the official layout (`game.tw-pddl` and `traj_data.json` in a folder) as it is. `from_alfred_trials`
builds games of ALFRED's real task list from the facts of its trials. ALFRED records where things lie, but not which
receptacle holds them nor where lamps stand: both are inferred, so these games are "ALFRED-derived", never official.
"""

from __future__ import annotations

import gzip
import json
import logging
import math
import re
import sys
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from sglib.envs.alfworld.fast import FastAlfworld
from sglib.envs.alfworld.games import (
    LAMP_HOLDERS,
    SCENES,
    SPLITS,
    TASK_TYPES,
    UNSEEN_SCENES,
    Game,
    floor_plan,
    goal_sentence,
    receptacle_class,
    shipped,
    write_problem,
)

log = logging.getLogger(__name__)

_STEP = 0.25  # metres; ALFRED's locations count these
_TASK = re.compile(r'"rhs":\s*"Your task is to: (.*)\."')
_HEAVY = ("images", "plan")  # of ALFRED's JSON: 95 % of its bytes, and nothing that a text game needs
_TASKS = tuple(f"{kind}-" for kind in (*TASK_TYPES, "pick_and_place_with_movable_recep"))  # how their folders begin
_NAMED = 10  # broken files that a message names
_GRAMMAR_SIGNS = re.compile(r'[;<>"\\#{}\[\]|]')


# -- the fields that files must have ----------------------------------------------------------------------------------


def _fields(**types) -> type:
    return msgspec.defstruct("Fields", list(types.items()))


_PARAMS = _fields(object_target=str, parent_target=str, toggle_target=str, mrecep_target=str, object_sliced=bool)
_AGENT = _fields(x=float, z=float, rotation=float, horizon=float)
_FACTS = _fields(  # a line of trial facts; `trial` is "<task>/<trial>" and becomes part of a path
    split=Literal[SPLITS], task_type=str, pddl_params=_PARAMS, scene_num=Literal[SCENES], agent=_AGENT,
    trial=Annotated[str, msgspec.Meta(pattern=r"^(?!.*\.\.)[^/]+/[^/]+$")],
    objects=list[tuple[str, float, float, float]], annotation=str,
)  # fmt: skip
_POSE = _fields(objectName=str, position=_fields(x=float, y=float, z=float))
_RECORDING = _fields(  # ALFRED's own files
    task_type=str, pddl_params=_PARAMS, turk_annotations=_fields(anns=list[_fields(task_desc=str)]),
    scene=_fields(scene_num=Literal[SCENES], object_poses=list[_POSE], init_action=_AGENT),
)  # fmt: skip
_TRAJ_DATA = _fields(task_type=str, scene=_fields(scene_num=int))
_GAME = msgspec.defstruct("Fields", [
    ("pddl_domain", str), ("grammar", str), ("pddl_problem", str), ("solvable", bool | None),
    ("walkthrough", list[str] | None, None),
])  # fmt: skip


def _read(where: Path | str, text: bytes, kind: type) -> dict:
    """JSON that has the fields of a kind. `ValueError` names the file (and line) and what is missing or wrong."""
    try:
        data = msgspec.json.decode(text)
        msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"{where}: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{where}: not JSON: {error}") from error
    return data


def left_out(*names: str) -> bool:
    """Whether ALFWorld passes over a game by the names of its folders."""
    return any("movable" in name or "Sliced" in name for name in names)


def _check_limit(limit: int | None):
    if limit is not None and limit < 0:
        raise ValueError(f"limit={limit!r}: must be 0 or more, or None for all")


def _split_of(folder: Path, scene: int) -> str:
    """The split that the path names; without one, what the scene allows."""
    named = [part for part in folder.parts if part in SPLITS]
    return named[-1] if named else ("valid_unseen" if scene in UNSEEN_SCENES else "train")


# -- the official layout ----------------------------------------------------------------------------------------------


def load_games(path: str | Path, limit: int | None = None) -> list[Game]:
    """Read games in the official layout: every `game.tw-pddl` below `path` (a dataset, one split of it, or a single
    game's folder), with the `traj_data.json` of its folder; at most `limit`, the first in order of path.

    As alfworld's `AlfredTWEnv` does, folders with "movable" or "Sliced" in their names, other task types and games
    marked unsolvable are passed over. A file that cannot be read is skipped, and a warning counts and names such files.
    The split is the path's ("train", "valid_seen", "valid_unseen"), else guessed from the scene. A game without a
    `walkthrough`, as in older releases, has None.

    Raises:
        FileNotFoundError: `path` does not exist.
        ValueError: `path` is no folder, or holds no game that can be played; says what was found there and, for
            broken files, the key that is missing or wrong.
    """
    _check_limit(limit)
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such folder")
    root = Path(path).resolve()
    if not root.is_dir():
        raise ValueError(f"{path}: is a file; expected a folder with */game.tw-pddl below it")
    games, broken, passed = [], [], Counter()
    for file in sorted(root.rglob("game.tw-pddl")):
        if limit is not None and len(games) >= limit:
            break
        # of the path, only what belongs to the data set: the rest of it is the user's own, but for a task's folder
        task = [name for name in (root.name, root.parent.name) if name.startswith(_TASKS)]
        if left_out(*file.parent.relative_to(root).parts, *task):
            passed["with movable receptacles or sliced things"] += 1
            continue
        try:
            games.append(read_game(file))
        except PassedOver as reason:
            passed[str(reason)] += 1
        except (ValueError, OSError) as error:
            broken.append(str(error))
    named = "; ".join(broken[:_NAMED]) + ("; ..." if len(broken) > _NAMED else "")
    if not games and limit != 0:
        found = [f"{count} {reason}" for reason, count in passed.items()]
        found += [f"{len(broken)} broken: {named}"] if broken else []
        raise ValueError(f"{path}: no game that can be played: {'; '.join(found) or 'no game.tw-pddl below it'}")
    if broken:
        warnings.warn(f"{path}: {len(broken)} game files were skipped, {len(games)} read: {named}", stacklevel=2)
    return games


class PassedOver(Exception):
    """A game that alfworld's `AlfredTWEnv` does not play either, or a trial of which no game can be made."""


def read_game(file: Path) -> Game:
    """The game in a `game.tw-pddl` and the `traj_data.json` of its folder; `PassedOver`, or `ValueError` naming the
    file and what is missing or broken."""
    traj_file = file.with_name("traj_data.json")
    if not traj_file.exists():
        raise ValueError(f"{file}: traj_data.json is missing in its folder")
    traj, data = _read(traj_file, traj_file.read_bytes(), _TRAJ_DATA), _read(file, file.read_bytes(), _GAME)
    if traj["task_type"] not in TASK_TYPES:
        raise PassedOver("of another task type")
    if not data["solvable"]:
        raise PassedOver("marked unsolvable")
    grammar, domain, scene = data["grammar"], data["pddl_domain"], traj["scene"]["scene_num"]
    walkthrough, split = data.get("walkthrough"), _split_of(file.parent, scene)
    if not (found := _TASK.search(grammar)):
        raise ValueError(f"{file}: field 'grammar' holds no task sentence (\"Your task is to: ...\")")
    goal = found[1]
    return Game(
        id=f"{split}/{file.parent.parent.name}/{file.parent.name}",
        task_type=traj["task_type"],
        goal=goal,
        split=split,
        scene=scene,
        problem=data["pddl_problem"],
        traj_data={key: value for key, value in traj.items() if key not in _HEAVY},
        walkthrough=None if walkthrough is None else tuple(walkthrough),
        domain=None if domain == shipped("alfred.pddl") else sys.intern(domain),  # one text for a whole release
        grammar=None if grammar == shipped("alfred.twl2").replace("UNKNOWN GOAL", goal) else grammar,
    )


# -- ALFRED's trials --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Trial:
    """The facts of one ALFRED trial. Positions in metres (x, y up, z); `lamp`: where the toggle target is, if known."""

    split: str
    task_type: str
    params: dict
    scene: int
    name: str
    agent: dict
    objects: list[tuple[str, float, float, float]]
    sentences: tuple[str, ...]
    lamp: tuple[float, float, float] | None = None


def from_alfred_trials(
    path: str | Path, split: str | None = None, limit: int | None = None, sentences: str = "template"
) -> list[Game]:
    """Build ALFRED-derived games from the facts of ALFRED's trials; what cannot be played is dropped and logged.

    Args:
        path: a `.jsonl` or `.jsonl.gz` of trial facts (one object a line: split, task_type, pddl_params, scene_num,
            trial, agent {x, z, rotation, horizon}, objects [[class, x, y, z]], annotation), or a folder of ALFRED's
            own JSON (`**/pp/ann_*.json` or `**/traj_data.json`).
        split: "train", "valid_seen" or "valid_unseen"; None for all.
        limit: at most that many games, the first in the file's order (a folder's: by path); None for all.
        sentences: "template" for goals as ALFWorld words them, "human" for the trial's (first) human sentence.

    A `path` that does not exist is a FileNotFoundError; a ValueError names a wrong argument, or the file, line and
    field that is broken.
    """
    _check_limit(limit)
    if split is not None and split not in SPLITS:
        raise ValueError(f"split={split!r}: must be one of {', '.join(SPLITS)}, or None for all")
    if sentences not in ("template", "human"):
        raise ValueError(f"sentences={sentences!r}: must be 'template' or 'human'")
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    games, dropped, env = [], Counter(), FastAlfworld(admissible=False)
    for trial in _trials_of_tree(path) if path.is_dir() else _trials_of_lines(path):
        if limit is not None and len(games) >= limit:
            break
        if split is not None and trial.split != split:
            continue
        try:
            games.append(_game(trial, sentences, env))
        except PassedOver as reason:
            dropped[str(reason)] += 1
    if dropped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
        log.info("%s: %d ALFRED-derived games; %d trials dropped: %s", path, len(games), dropped.total(), reasons)
    return games


def _trials_of_lines(path: Path) -> Iterator[_Trial]:
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    f = _read(f"{path}, line {number}", line, _FACTS)
                    yield _Trial(f["split"], f["task_type"], f["pddl_params"], f["scene_num"], f["trial"], f["agent"],
                                 f["objects"], (f["annotation"],))  # fmt: skip
    except (OSError, EOFError, zlib.error) as error:  # a broken archive shows while it is read
        raise ValueError(f"{path}: cannot be read: {error}") from error


def _trials_of_tree(root: Path) -> Iterator[_Trial]:
    """ALFRED's own files. A trial with several (`pp/ann_0.json`, `ann_1.json`, ..., `traj_data.json`) is read once."""
    files: dict[Path, Path] = {}
    for file in sorted([*root.resolve().rglob("pp/ann_*.json"), *root.resolve().rglob("traj_data.json")]):
        files.setdefault(file.parent.parent if file.parent.name == "pp" else file.parent, file)
    for folder, file in sorted(files.items()):
        f = _read(file, file.read_bytes(), _RECORDING)
        scene, params = f["scene"], f["pddl_params"]
        poses = [(pose["objectName"].partition("_")[0], pose["position"]) for pose in scene["object_poses"]]
        texts = tuple(annotation["task_desc"] for annotation in f["turk_annotations"]["anns"])
        split, name = _split_of(folder, scene["scene_num"]), f"{folder.parent.name}/{folder.name}"
        yield _Trial(split, f["task_type"], params, scene["scene_num"], name, scene["init_action"],
                     [(kind, *(at[x] for x in "xyz")) for kind, at in poses], texts,
                     _lamp_of_plan(f, params["toggle_target"]))  # fmt: skip


def _lamp_of_plan(data: dict, lamp: str) -> tuple[float, float, float] | None:
    """Where the lamp stands, from the id that the expert switched on: "DeskLamp|-01.32|+01.24|-00.99"."""
    if not lamp or not isinstance(data.get("plan"), dict):
        return None
    found = re.search(rf'"{lamp}\|([+-][\d.]+)\|([+-][\d.]+)\|([+-][\d.]+)"', json.dumps(data["plan"]))
    return tuple(map(float, found.groups())) if found else None


def _position(receptacle: str) -> tuple[float, ...]:
    return tuple(map(float, receptacle.split("|")[1:4]))


def _holder(kind: str, at: tuple[float, float, float], scene: int) -> str | None:
    """The nearest receptacle that can hold such a thing; None where the room has none."""
    from alfworld.gen import constants

    def fits(receptacle: str) -> bool:
        holder = receptacle_class(receptacle)
        if kind in constants.VAL_ACTION_OBJECTS["Toggleable"]:
            return holder in LAMP_HOLDERS
        return kind in constants.VAL_RECEPTACLE_OBJECTS[holder]

    able = [(math.dist(at, _position(r)), r) for r in floor_plan(scene).placed if fits(r)]
    return min(able)[1] if able else None


def _lamp_holder(scene: int) -> str | None:
    """Where a desk lamp of unknown position is put: the first, in the order of `LAMP_HOLDERS`, that the room has."""
    placed = [(k, r) for r in floor_plan(scene).placed if (k := receptacle_class(r)) in LAMP_HOLDERS]
    return min((LAMP_HOLDERS.index(k), r) for k, r in placed)[1] if placed else None


def _object_id(kind: str, at: tuple[float, float, float], taken: dict) -> str:
    id_ = "|".join([kind, *(f"{'-' if v < 0 else '+'}{abs(v):05.2f}" for v in at)])
    return id_ if id_ not in taken else f"{id_}|{len(taken)}"


def _place(trial: _Trial) -> dict[str, tuple[str, str]]:
    """Object id -> (class, receptacle). Things that no receptacle of the room can hold are left out of the game."""
    found = [(kind, tuple(at), _holder(kind, at, trial.scene)) for kind, *at in trial.objects]
    # A floor lamp stands on the floor, which is no receptacle: its games cannot be won in ALFWorld's domain.
    if trial.params["toggle_target"] == "DeskLamp":
        r = _holder("DeskLamp", trial.lamp, trial.scene) if trial.lamp else _lamp_holder(trial.scene)
        found.append(("DeskLamp", trial.lamp or (r and _position(r)), r))
    objects: dict[str, tuple[str, str]] = {}
    for kind, at, r in found:
        if r is not None:
            objects[_object_id(kind, at, objects)] = (kind, r)
    return objects


def _sentence(trial: _Trial, sentences: str) -> str:
    # a human sentence becomes part of a grammar inside JSON: what has a meaning there cannot stay
    human = " ".join(_GRAMMAR_SIGNS.sub(" ", "".join(trial.sentences[:1])).split()).rstrip(". ")
    template = goal_sentence(trial.task_type, trial.params, zlib.crc32(trial.name.encode()))
    return human if human and sentences == "human" else template


def _game(trial: _Trial, sentences: str, env: FastAlfworld) -> Game:
    if trial.task_type not in TASK_TYPES:
        raise PassedOver("of another task type")
    if trial.params["object_sliced"] or trial.params["mrecep_target"]:
        raise PassedOver("with sliced things or a movable receptacle")
    objects, a = _place(trial), trial.agent
    wanted = {trial.params["object_target"], *filter(None, [trial.params["toggle_target"]])}
    if wanted - {kind for kind, _ in objects.values()}:
        raise PassedOver("whose target lies in no receptacle")
    agent = (round(a["x"] / _STEP), round(a["z"] / _STEP), round(a["rotation"]) % 360, round(a["horizon"]))
    receptacles = floor_plan(trial.scene).receptacles
    target, name = trial.params["parent_target"], trial.name.rpartition("/")[2]
    if target and target not in map(receptacle_class, receptacles):
        raise PassedOver("without a solution")
    traj_data = {
        "task_id": name,
        "task_type": trial.task_type,
        "pddl_params": trial.params,
        "scene": {"floor_plan": f"FloorPlan{trial.scene}", "scene_num": trial.scene, "init_action": trial.agent},
        "turk_annotations": {"anns": [{"task_desc": text} for text in trial.sentences]},
        "source": "ALFRED-derived",
    }
    problem = write_problem(f"plan_{name}", trial.task_type, trial.params, receptacles, objects, agent)
    game = Game(
        f"{trial.split}/{trial.name}", trial.task_type, _sentence(trial, sentences), trial.split, trial.scene, problem,
        traj_data,
    )  # fmt: skip
    if env.reset(game).won:
        raise PassedOver("already won at the start")
    if not (plan := env.plan()):
        raise PassedOver("without a solution")
    return replace(game, walkthrough=tuple(plan))
