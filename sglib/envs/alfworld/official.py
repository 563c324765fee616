"""ALFWorld's own validation games as panels: the lists that published numbers are of.

The games are read from the user's copy of the data set; the manifests (`sglib.envs.panels`) hold ids and hashes only,
sorted by hash, so that any first part of a panel is like the whole. They were written by
`write_manifest("alfworld", f"official_{split}", sorted(load_games(official_folder() / split), key=task_hash))`.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

from sglib.envs.alfworld.games import Game
from sglib.envs.alfworld.trials import PassedOver, left_out, read_game
from sglib.envs.panels import manifest, verified

OFFICIAL_SPLITS = ("valid_seen", "valid_unseen")
_LAYOUT = "json_2.1.1"
_NAMED = 5  # games that an error names


def official_folder(data: str | Path | None = None) -> Path:
    """The folder that holds `valid_seen/` and the other splits, or `ValueError` naming where it was looked for.

    `data` is that folder, or the one with `json_2.1.1/` in it. None: the environment variable `SGLIB_ALFWORLD_DATA`,
    else `ALFWORLD_DATA`, else where `alfworld-download` puts the data.
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
        data: where the data set is, see `official_folder`.

    Raises:
        ValueError: another split, no data set, or games that are missing or broken: counted, and the first five named.
        RuntimeError: a game differs from the manifest's.
    """
    return verified("alfworld", f"official_{split}", read_official(split, data))


def read_official(split: str, data: str | Path | None = None, n: int | None = None) -> list[Game]:
    """The first `n` (None: all) games of `official_panel`, not compared with the manifest."""
    if split not in OFFICIAL_SPLITS:
        raise ValueError(f"split={split!r}: must be one of {', '.join(OFFICIAL_SPLITS)}")
    folder, games, wrong = official_folder(data), [], []
    rows = manifest("alfworld", f"official_{split}")[:n]
    for row in rows:
        file = folder / row["id"] / "game.tw-pddl"
        if not file.exists():
            wrong.append(f"{row['id']} is missing")
            continue
        try:
            games.append(read_game(file))
        except (ValueError, PassedOver) as error:
            wrong.append(f"{row['id']} is broken ({error})")
    if wrong:
        named = "; ".join(wrong[:_NAMED]) + ("; ..." if len(wrong) > _NAMED else "")
        raise ValueError(f"{folder}: {len(wrong)} of the {len(rows)} games of official_{split} are not there: {named}")
    return games


def official_training(n: int, seed: int = 0, start: int = 0, data: str | Path | None = None) -> list[Game]:
    """`n` of ALFWorld's own training games (3,553 in release json_2.1.1), in an order that `seed` draws, from place
    `start` of it on; all differ. Files that ALFWorld passes over are not counted.

    Raises:
        ValueError: no data set, or fewer games than asked for.
    """
    folder = official_folder(data) / "train"
    files = sorted(file for file in folder.rglob("game.tw-pddl") if not left_out(*file.relative_to(folder).parts))
    random.Random(seed).shuffle(files)
    games = []
    for file in files:
        if len(games) == start + n:
            break
        try:
            games.append(read_game(file))
        except PassedOver:
            continue
    if len(games) < start + n:
        raise ValueError(f"{folder}: {len(games)} games that can be played; {start + n} were asked for")
    return games[start:]
