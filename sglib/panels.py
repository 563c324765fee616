"""Task panels: fixed lists of games that results are reported on, each with the hash of its content.

A panel is a manifest in `sglib/assets/panels/<split>.csv`: number, id and content hash of each game. The games are made
again from their seed and compared with it, so a result that carries the panel's hash was measured on these games, on
whatever machine. Training and pre-training draw from other seeds; of tuning, `params/full.yaml` says what it has seen.

    python -m sglib.panels      # write the manifests (only ever after a deliberate change of the games)
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sglib.envs.alfworld import SPLITS, Game, generate_games
from sglib.envs.alfworld_games import game_hash, split_scenes
from sglib.records import write_atomic

PANEL_SEED = 424_242
MAX_RECEPTACLES = 12
SIZES = {"small": 128, "full": 512}
FOLDER = Path(__file__).resolve().parent / "assets" / "panels"


def panel_hash(games: Sequence[Game]) -> str:
    """12 hex digits of a set of games, whatever their order.

    Raises:
        ValueError: a game is in it twice.
    """
    if repeated := [id_ for id_, count in Counter(game.id for game in games).items() if count > 1]:
        raise ValueError(f"games: {repeated[0]!r} is there more than once; allowed: each game once")
    return _combined([game_hash(game) for game in games])


def _combined(hashes: Sequence[str]) -> str:
    return hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest()[:12]


def manifest(split: str = "valid_seen") -> list[dict[str, str]]:
    """The rows of a split's manifest: `number`, `id`, `hash` of each of its 512 games, in order."""
    split_scenes(split)
    return [dict(row) for row in _manifest(split)]


@functools.cache
def _manifest(split: str) -> tuple[dict[str, str], ...]:
    return tuple(csv.DictReader(io.StringIO((FOLDER / f"{split}.csv").read_text(encoding="utf-8"))))


def panel(
    n: int | str = "full", split: str = "valid_seen", max_receptacles: int | None = MAX_RECEPTACLES
) -> list[Game]:
    """The games of a panel; a longer one begins with a shorter one's games.

    Args:
        n: "small" (128), "full" (512), or how many.
        split: "train" (rooms that are trained in, games that are not), "valid_seen" (the same rooms) or "valid_unseen".
        max_receptacles: of the rooms; with another than 12, and beyond 512 games, there is no manifest to compare with.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
        RuntimeError: a game made here is not the one of the manifest.
    """
    if isinstance(n, str) and n not in SIZES:
        raise ValueError(f"n={n!r}: allowed: {', '.join(SIZES)}, or a number")
    games = generate_games(SIZES.get(n, n), seed=PANEL_SEED, split=split, max_receptacles=max_receptacles)
    if max_receptacles == MAX_RECEPTACLES:
        for row, game in zip(_manifest(split), games):
            if row["hash"] != game_hash(game):
                raise RuntimeError(
                    f"panel {split}, game {row['number']}: {game.id} has the hash {game_hash(game)}, the manifest says "
                    f"{row['id']}, {row['hash']}; this version of alfworld or Python makes other games"
                )
    return games


def write_manifests() -> None:
    """Write the manifests of all splits."""
    for split in SPLITS:
        games = generate_games(SIZES["full"], seed=PANEL_SEED, split=split, max_receptacles=MAX_RECEPTACLES)
        rows = [f"{number},{game.id},{game_hash(game)}" for number, game in enumerate(games)]
        write_atomic(FOLDER / f"{split}.csv", "\n".join(["number,id,hash", *rows]) + "\n")
        print(f"{split}: small {panel_hash(games[:SIZES['small']])}, full {panel_hash(games)}")


if __name__ == "__main__":
    write_manifests()
