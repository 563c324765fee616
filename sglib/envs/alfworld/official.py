"""ALFWorld's own validation games as panels: the lists that published numbers are of, each game with its content hash.

The games are read from the user's copy of the data set; `panels/official_<split>.csv` holds ids and hashes
only. Sorted by hash, so that any first part of a panel is like the whole.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

from sglib.envs.alfworld.games import Game
from sglib.envs.alfworld.trials import PassedOver, load_games, read_game
from sglib.envs.base import task_hash
from sglib.records import write_atomic

OFFICIAL_SPLITS = ("valid_seen", "valid_unseen")
FOLDER = Path(__file__).resolve().parent / "panels"
_LAYOUT = "json_2.1.1"
_NAMED = 5  # games that an error names


def official_folder(data: str | Path | None = None) -> Path:
    """The folder that holds `valid_seen/` and the other splits.

    Args:
        data: that folder, or the one with `json_2.1.1/` in it. None: the environment variable `SGLIB_ALFWORLD_DATA`,
            else `ALFWORLD_DATA`, else where `alfworld-download` puts the data.

    Raises:
        ValueError: there is no such folder; says where it was looked for.
    """
    named = data or os.environ.get("SGLIB_ALFWORLD_DATA") or os.environ.get("ALFWORLD_DATA") or "~/.cache/alfworld"
    folder = Path(named).expanduser()
    folder = folder / _LAYOUT if (folder / _LAYOUT).is_dir() else folder
    if not any((folder / split).is_dir() for split in OFFICIAL_SPLITS):
        raise ValueError(
            f"data={str(named)!r}: no folder with {' or '.join(OFFICIAL_SPLITS)} in it (nor in its {_LAYOUT}/); give "
            "`data` or set SGLIB_ALFWORLD_DATA or ALFWORLD_DATA to where `alfworld-download` put ALFWorld's games"
        )
    return folder


def official_panel(split: str, data: str | Path | None = None) -> list[Game]:
    """The games of ALFWorld's "valid_seen" (140) or "valid_unseen" (134), each once, in the manifest's order.

    Args:
        split: "valid_seen" or "valid_unseen".
        data: where the data set is, see `official_folder`.

    Raises:
        ValueError: another split, no data set, or games that are missing or differ from the manifest's: counted, and
            the first five named.
    """
    if split not in OFFICIAL_SPLITS:
        raise ValueError(f"split={split!r}: must be one of {', '.join(OFFICIAL_SPLITS)}")
    folder, games, wrong = official_folder(data), [], []
    rows = official_manifest(split)
    for row in rows:
        file = folder / row["id"] / "game.tw-pddl"
        try:
            game = read_game(file) if file.exists() else None
        except (ValueError, PassedOver) as error:
            wrong.append(f"{row['id']} is broken ({error})")
            continue
        if game is None:
            wrong.append(f"{row['id']} is missing")
        elif task_hash(game) != row["hash"]:
            wrong.append(f"{row['id']} differs: hash {task_hash(game)}, not {row['hash']}")
        else:
            games.append(game)
    if wrong:
        named = "; ".join(wrong[:_NAMED]) + ("; ..." if len(wrong) > _NAMED else "")
        raise ValueError(f"{folder}: {len(wrong)} of the {len(rows)} games of official_{split} are not there: {named}")
    return games


def official_manifest(split: str) -> list[dict[str, str]]:
    """The rows of a panel's manifest: `number`, `id` and `hash` of each game, in order."""
    with open(FOLDER / f"official_{split}.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_manifests(data: str | Path | None = None) -> None:
    """Write both manifests from a copy of the data set; only ever for another release of it."""
    for split in OFFICIAL_SPLITS:
        games = sorted(load_games(official_folder(data) / split), key=task_hash)
        rows = [f"{number},{game.id},{task_hash(game)}" for number, game in enumerate(games)]
        write_atomic(FOLDER / f"official_{split}.csv", "\n".join(["number,id,hash", *rows]) + "\n")
