"""Games that were not made here: ALFWorld's dataset as it lies on disk, and ALFRED's trials rebuilt as games.

`load_games` reads the official layout (`**/traj_data.json` beside `game.tw-pddl`) as it is. `from_alfred_trials` builds
games of ALFRED's real task list from the facts of its trials. ALFRED records where things lie, but not which receptacle
holds them nor where lamps stand: both are inferred, so these games are "ALFRED-derived", never official ALFWorld games.
"""

from __future__ import annotations

import functools
import gzip
import importlib.resources
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
_REQUIRED = ("object_target", "parent_target", "toggle_target", "mrecep_target")
_NAMED = 10  # broken files that a message names
_GRAMMAR_SIGNS = re.compile(r'[;<>"\\#{}\[\]|]')


# -- checked access to JSON -------------------------------------------------------------------------------------------


def _read_json(file: Path):
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # JSON and Unicode errors alike
        raise ValueError(f"{file}: not JSON: {error}") from error


def _get(where: str, data, key: str, kind: type | tuple[type, ...]):
    """Value at the dotted `key`, checked to be a `kind`; `where` names the file (and line) in the error."""
    value, seen = data, []
    for part in key.split("."):
        if not isinstance(value, dict):
            raise ValueError(
                f"{where}: field {'.'.join(seen) or '(top)'!r} must be an object, is {type(value).__name__}"
            )
        if part not in value:
            raise ValueError(f"{where}: field {'.'.join([*seen, part])!r} is missing")
        value = value[part]
        seen.append(part)
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):  # True is an int to Python
        wanted = " or ".join(k.__name__ for k in kinds)
        raise ValueError(f"{where}: field {key!r} must be {wanted}, is {type(value).__name__}")
    return value


def _check_limit(limit: int | None):
    if limit is not None and limit < 0:
        raise ValueError(f"limit={limit!r}: must be 0 or more, or None for all")


def _split_of(folder: Path, scene: int) -> str:
    """The split that the path names; without one, what the scene allows."""
    named = [part for part in folder.parts if part in SPLITS]
    return named[-1] if named else ("valid_unseen" if scene in UNSEEN_SCENES else "train")


# -- the official layout ----------------------------------------------------------------------------------------------


def load_games(path: str | Path, limit: int | None = None) -> list[Game]:
    """Read games in the official layout: every `game.tw-pddl` below `path`, with the `traj_data.json` beside it.

    As alfworld's `AlfredTWEnv` does, folders with "movable" or "Sliced" in their names, other task types and games
    marked unsolvable are passed over. A file that cannot be read is skipped, and a warning counts and names such files.
    The split is the path's ("train", "valid_seen", "valid_unseen"), else guessed from the scene. A game without a
    `walkthrough`, as in older releases, has None.

    Args:
        path: a dataset, one split of it, or a single game's folder.
        limit: at most so many games, the first in order of path; None for all.

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
        # of the path, only what belongs to the data set: the rest of it is the user's own
        names = [*file.parent.relative_to(root).parts, file.parent.parent.name]
        if any("movable" in name or "Sliced" in name for name in names):
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
    """A game that alfworld's `AlfredTWEnv` does not play either."""


def read_game(file: Path) -> Game:
    """The game in a `game.tw-pddl` and the `traj_data.json` beside it.

    Raises:
        PassedOver: it has another task type, or is marked unsolvable.
        ValueError: naming the file and the key that is missing or broken.
    """
    traj_file = file.with_name("traj_data.json")
    if not traj_file.exists():
        raise ValueError(f"{file}: traj_data.json is missing beside it")
    traj, data = _read_json(traj_file), _read_json(file)
    task_type = _get(str(traj_file), traj, "task_type", str)
    if task_type not in TASK_TYPES:
        raise PassedOver("of another task type")
    if not _get(str(file), data, "solvable", (bool, type(None))):
        raise PassedOver("marked unsolvable")
    scene = _get(str(traj_file), traj, "scene.scene_num", int)
    domain, grammar, problem = (_get(str(file), data, k, str) for k in ("pddl_domain", "grammar", "pddl_problem"))
    walkthrough = _get(str(file), {"walkthrough": None, **data}, "walkthrough", (list, type(None)))
    if walkthrough is not None and not all(isinstance(command, str) for command in walkthrough):
        raise ValueError(f"{file}: field 'walkthrough' must hold strings only")
    found = _TASK.search(grammar)
    if found is None:
        raise ValueError(f"{file}: field 'grammar' holds no task sentence (\"Your task is to: ...\")")
    goal, split = found.group(1), _split_of(file.parent, scene)
    return Game(
        id=f"{split}/{file.parent.parent.name}/{file.parent.name}",
        task_type=task_type,
        goal=goal,
        split=split,
        scene=scene,
        problem=problem,
        traj_data={key: value for key, value in traj.items() if key not in _HEAVY},
        walkthrough=None if walkthrough is None else tuple(walkthrough),
        domain=None if domain == shipped("alfred.pddl") else sys.intern(domain),  # one text for a whole release
        grammar=None if grammar == shipped("alfred.twl2").replace("UNKNOWN GOAL", goal) else grammar,
    )


# -- ALFRED's trials --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Trial:
    """The facts of one ALFRED trial. Positions in metres (x, y up, z); `lamp`: where the toggle target is, if known."""

    where: str
    split: str
    task_type: str
    params: dict
    scene: int
    name: str
    agent: dict
    objects: tuple[tuple[str, float, float, float], ...]
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
        limit: at most so many games, the first in the file's order (a folder's: by path); None for all.
        sentences: "template" for goals as ALFWorld words them, "human" for the trial's (first) human sentence.

    Raises:
        FileNotFoundError: `path` does not exist.
        ValueError: naming the argument, or the file, line and field that is broken.
    """
    games, dropped = convert_trials(path, split, limit, sentences)
    if dropped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
        log.info("%s: %d ALFRED-derived games; %d trials dropped: %s", path, len(games), dropped.total(), reasons)
    return games


def convert_trials(
    path: str | Path, split: str | None = None, limit: int | None = None, sentences: str = "template"
) -> tuple[list[Game], Counter]:
    """As `from_alfred_trials`, with the number of dropped trials by reason."""
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
        game, reason = _game(trial, sentences, env)
        if game is None:
            dropped[reason] += 1
        else:
            games.append(game)
    return games, dropped


def _trials_of_lines(path: Path) -> Iterator[_Trial]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        lines = enumerate(file, 1)
        while True:
            try:
                number, line = next(lines)
            except StopIteration:
                return
            except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:  # a broken archive shows while reading
                raise ValueError(f"{path}: cannot be read: {error}") from error
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                data = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{where}: not JSON: {error}") from error
            split = _get(where, data, "split", str)
            if split not in SPLITS:
                raise ValueError(f"{where}: field 'split' is {split!r}; must be one of {', '.join(SPLITS)}")
            objects = []
            for i, row in enumerate(_get(where, data, "objects", list)):
                if not (isinstance(row, list) and len(row) == 4 and isinstance(row[0], str) and _numbers(row[1:])):
                    raise ValueError(f"{where}: field 'objects[{i}]' must be [class, x, y, z], is {row!r}")
                objects.append(tuple(row))
            sentence = _get(where, data, "annotation", str)
            name = _get(where, data, "trial", str)
            yield _trial(where, split, name, data, tuple(objects), (sentence,), agent="agent", scene="scene_num")


def _trials_of_tree(root: Path) -> Iterator[_Trial]:
    """ALFRED's own files. A trial with several (`pp/ann_0.json`, `ann_1.json`, ..., `traj_data.json`) is read once."""
    files: dict[Path, Path] = {}
    for file in sorted([*root.resolve().rglob("pp/ann_*.json"), *root.resolve().rglob("traj_data.json")]):
        files.setdefault(file.parent.parent if file.parent.name == "pp" else file.parent, file)
    for folder, file in sorted(files.items()):
        where, data = str(file), _read_json(file)
        objects = []
        for i, pose in enumerate(_get(where, data, "scene.object_poses", list)):
            at = f"{where}: scene.object_poses[{i}]"
            name, position = _get(at, pose, "objectName", str), _get(at, pose, "position", dict)
            objects.append((name.partition("_")[0], *(_get(at, position, axis, (int, float)) for axis in "xyz")))
        annotations = _get(where, data, "turk_annotations.anns", list)
        texts = tuple(
            _get(f"{where}: turk_annotations.anns[{i}]", a, "task_desc", str) for i, a in enumerate(annotations)
        )
        split = _split_of(folder, _get(where, data, "scene.scene_num", int))
        name = f"{folder.parent.name}/{folder.name}"
        trial = _trial(
            where, split, name, data, tuple(objects), texts, agent="scene.init_action", scene="scene.scene_num"
        )
        yield replace(trial, lamp=_lamp_of_plan(data, trial.params["toggle_target"]))


def _trial(where, split, name, data, objects, sentences, *, agent: str, scene: str) -> _Trial:
    params = dict(_get(where, data, "pddl_params", dict))
    for key in _REQUIRED:
        _get(where, data, f"pddl_params.{key}", str)
    _get(where, data, "pddl_params.object_sliced", bool)
    number = _get(where, data, scene, int)
    if number not in SCENES:
        raise ValueError(f"{where}: field {scene!r} is {number}; there is no such floor plan")
    for key in ("x", "z", "rotation", "horizon"):
        _get(where, data, f"{agent}.{key}", (int, float))
    if name.count("/") != 1 or not all(name.split("/")) or ".." in name:
        raise ValueError(f"{where}: field 'trial' is {name!r}; must be '<task>/<trial>'")
    task_type = _get(where, data, "task_type", str)
    pose = _get(where, data, agent, dict)
    return _Trial(where, split, task_type, params, number, name, pose, objects, sentences)


def _numbers(values) -> bool:
    return all(isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in values)


def _lamp_of_plan(data: dict, lamp: str) -> tuple[float, float, float] | None:
    """Where the lamp stands, from the id that the expert switched on: "DeskLamp|-01.32|+01.24|-00.99"."""
    if not lamp or not isinstance(data.get("plan"), dict):
        return None
    found = re.search(rf'"{lamp}\|([+-][\d.]+)\|([+-][\d.]+)\|([+-][\d.]+)"', json.dumps(data["plan"]))
    return tuple(map(float, found.groups())) if found else None


@functools.cache
def _positions(scene: int) -> dict[str, tuple[float, float, float]]:
    """Receptacles of a floor plan that alfworld gives a position (in the id), in metres."""
    folder = importlib.resources.files("alfworld") / "gen" / "layouts"
    known = json.loads((folder / f"FloorPlan{scene}-openable.json").read_text(encoding="utf-8"))
    return {r: tuple(map(float, r.split("|")[1:4])) for r in floor_plan(scene).receptacles if r in known}


def _holder(kind: str, at: tuple[float, float, float], scene: int) -> str | None:
    """The nearest receptacle that can hold such a thing; None where the room has none."""
    from alfworld.gen import constants

    def fits(receptacle: str) -> bool:
        holder = receptacle_class(receptacle)
        if kind in constants.VAL_ACTION_OBJECTS["Toggleable"]:
            return holder in LAMP_HOLDERS
        return kind in constants.VAL_RECEPTACLE_OBJECTS[holder]

    able = [(math.dist(at, position), r) for r, position in _positions(scene).items() if fits(r)]
    return min(able)[1] if able else None


def _lamp_holder(scene: int) -> str | None:
    """Where a desk lamp of unknown position is put: the first, in the order of `LAMP_HOLDERS`, that the room has."""
    ranked = sorted((LAMP_HOLDERS.index(k), r) for r in _positions(scene) if (k := receptacle_class(r)) in LAMP_HOLDERS)
    return ranked[0][1] if ranked else None


def _object_id(kind: str, at: tuple[float, float, float], taken: dict) -> str:
    id_ = "|".join([kind, *(f"{'-' if v < 0 else '+'}{abs(v):05.2f}" for v in at)])
    return id_ if id_ not in taken else f"{id_}|{len(taken)}"


def _place(trial: _Trial) -> dict[str, tuple[str, str]]:
    """Object id -> (class, receptacle). Things that no receptacle of the room can hold are left out of the game."""
    objects: dict[str, tuple[str, str]] = {}
    for kind, *at in trial.objects:
        receptacle = _holder(kind, tuple(at), trial.scene)
        if receptacle is not None:
            objects[_object_id(kind, at, objects)] = (kind, receptacle)
    # A floor lamp stands on the floor, which is no receptacle: its games cannot be won in ALFWorld's domain.
    if trial.params["toggle_target"] == "DeskLamp":
        r = _holder("DeskLamp", trial.lamp, trial.scene) if trial.lamp else _lamp_holder(trial.scene)
        if r is not None:
            at = trial.lamp or tuple(map(float, r.split("|")[1:4]))
            objects[_object_id("DeskLamp", at, objects)] = ("DeskLamp", r)
    return objects


def _sentence(trial: _Trial, sentences: str) -> str:
    if sentences == "human" and trial.sentences:
        # the sentence becomes part of a grammar inside JSON: what has a meaning there cannot stay
        text = " ".join(_GRAMMAR_SIGNS.sub(" ", trial.sentences[0]).split()).rstrip(". ")
        if text:
            return text
    return goal_sentence(trial.task_type, trial.params, zlib.crc32(trial.name.encode()))


def _game(trial: _Trial, sentences: str, env: FastAlfworld) -> tuple[Game | None, str]:
    if trial.task_type not in TASK_TYPES:
        return None, "of another task type"
    if trial.params["object_sliced"] or trial.params["mrecep_target"]:
        return None, "with sliced things or a movable receptacle"
    objects = _place(trial)
    wanted = {trial.params["object_target"], *filter(None, [trial.params["toggle_target"]])}
    if wanted - {kind for kind, _ in objects.values()}:
        return None, "whose target lies in no receptacle"
    a = trial.agent
    agent = (round(a["x"] / _STEP), round(a["z"] / _STEP), round(a["rotation"]) % 360, round(a["horizon"]))
    receptacles = floor_plan(trial.scene).receptacles
    target = trial.params["parent_target"]
    if target and target not in map(receptacle_class, receptacles):
        return None, "without a solution"
    name = f"plan_{trial.name.rpartition('/')[2]}"
    traj_data = {
        "task_id": trial.name.rpartition("/")[2],
        "task_type": trial.task_type,
        "pddl_params": trial.params,
        "scene": {"floor_plan": f"FloorPlan{trial.scene}", "scene_num": trial.scene, "init_action": trial.agent},
        "turk_annotations": {"anns": [{"task_desc": text} for text in trial.sentences]},
        "source": "ALFRED-derived",
    }
    game = Game(
        id=f"{trial.split}/{trial.name}",
        task_type=trial.task_type,
        goal=_sentence(trial, sentences),
        split=trial.split,
        scene=trial.scene,
        problem=write_problem(name, trial.task_type, trial.params, receptacles, objects, agent),
        traj_data=traj_data,
    )
    if env.reset(game).won:
        return None, "already won at the start"
    plan = env.plan()
    if not plan:
        return None, "without a solution"
    return replace(game, walkthrough=tuple(plan)), ""
