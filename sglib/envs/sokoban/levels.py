"""Levels: generated from a seed with a wanted number of moves to go, or read from the XSB files that people exchange.

A generated map is a cave: a random walk that opens cells until a random share of the inside is floor, with the targets
on random cells of it. The start is drawn from all states of the map that have the wanted distance and no box on a
target, so the distances of a list are uniform over the band that is asked for, whatever maps favour.

Training and validation differ by map: the hash of walls and targets decides, the same for all eight rotations and
reflections. So neither a level, nor another start on its map, nor its mirror image is in the other split.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sglib.envs.base import task_hash
from sglib.envs.sokoban.graph import FLOOR, TARGET, WALL, Maze, moves_to_go, read

GOAL = "push every box onto a target"
SPLITS = ("train", "valid")
SIDE, BOXES, DISTANCE = (4, 12), (1, 6), (1, 60)  # what a size may be: smallest, largest
BANDS = {1: (3, 10)}  # moves to go where a size names none, by number of boxes
BAND = (5, 12)  # of every other number
MIX = ("6x6-1", "6x6-2")
MAPS = 5_000  # drawn in vain before a size is refused
XSB = set("#_@+$*.")
FROM_XSB = str.maketrans("@+$*.", "PSX√O")
TO_XSB = str.maketrans("_PSX√O", " @+$*.")


@dataclass(frozen=True)
class Level:
    """A Sokoban level.

    Attributes:
        board: a line a row, a symbol of `SYMBOLS` a cell, walls all around; else a ValueError says what is wrong.
        id: unique; "" takes size, boxes and hash.
    """

    board: str
    id: str = ""
    env = "sokoban"
    goal = GOAL

    def __post_init__(self):
        read(self.board)
        if not self.id:
            object.__setattr__(self, "id", f"{self.task_type}-{task_hash(self)}")

    @property
    def task_type(self) -> str:
        """Rows, columns and boxes, as "6x6-1"."""
        rows = self.board.split("\n")
        return f"{len(rows)}x{len(rows[0])}-{self.board.count('X') + self.board.count('√')}"

    @property
    def origin(self) -> dict:
        return {"board": self.board, "id": self.id}

    def content(self) -> list:
        """The board decides a level."""
        return [self.board]


def split_of(rows: Iterable[str]) -> str:
    """The split of a map (rows of "#", "_", "O"): "valid" for a tenth of all maps, else "train"."""
    images, grid = [], tuple(rows)
    for _ in range(4):
        grid = tuple("".join(column) for column in zip(*grid[::-1]))  # a quarter turn
        images += ["\n".join(grid), "\n".join(row[::-1] for row in grid)]
    return "valid" if int(hashlib.sha256(min(images).encode()).hexdigest(), 16) % 10 == 0 else "train"


# -- generated ------------------------------------------------------------------------------------------------------


def read_size(size: Mapping | str) -> tuple[int, int, int, tuple[int, int]]:
    """(rows, columns, boxes, distance band) of a size: {"rows": 6, "cols": 6, "boxes": 1, "distance": [3, 10]}, where
    the band may be left out, or "6x6-1"."""
    if isinstance(size, str):
        if not (found := re.fullmatch(r"(\d{1,3})x(\d{1,3})-(\d{1,3})", size, re.ASCII)):
            raise ValueError(f"size={size!r}: allowed: rows, columns and boxes as in '6x6-1'")
        size = dict(zip(("rows", "cols", "boxes"), map(int, found.groups())))
    if not isinstance(size, Mapping):
        raise ValueError(f"size={size!r}: allowed: a text such as '6x6-1', a mapping, or a list of these")
    if unknown := sorted(set(size) - {"rows", "cols", "boxes", "distance"}):
        raise ValueError(f"size: unknown entry {unknown[0]!r}; allowed: rows, cols, boxes, distance")
    for name, (low, high) in (("rows", SIDE), ("cols", SIDE), ("boxes", BOXES)):
        if type(value := size.get(name)) is not int or not low <= value <= high:
            raise ValueError(f"size: {name}={value!r}; allowed: {low} to {high}")
    band = size.get("distance", BANDS.get(size["boxes"], BAND))
    whole = isinstance(band, list | tuple) and len(band) == 2 and all(type(n) is int for n in band)
    if not whole or not DISTANCE[0] <= band[0] <= band[1] <= DISTANCE[1]:
        raise ValueError(f"size: distance={band!r}; allowed: [low, high] from {DISTANCE[0]} to {DISTANCE[1]}")
    if (inside := (size["rows"] - 2) * (size["cols"] - 2)) < 2 * size["boxes"] + 1:
        raise ValueError(f"size: boxes={size['boxes']}; allowed: at most {(inside - 1) // 2} in {inside} cells")
    return size["rows"], size["cols"], size["boxes"], tuple(band)


def tasks(n: int, *, seed: int = 0, split: str = "train", size=None, start: int = 0) -> list[Level]:
    """`n` different levels; a longer list begins with a shorter one's.

    Args:
        size: see `read_size`, or a list of such sizes, which take turns; None is 6x6 with one and with two boxes.
        n, seed, split, start: see `Environment.tasks`; `ValueError` also where a size has no `n` levels.
    """
    if type(n) is not int or n < 0:
        raise ValueError(f"n={n!r}: allowed: a whole number from 0")
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: allowed: {', '.join(map(repr, SPLITS))}")
    given = size if isinstance(size, list | tuple) else MIX if size is None else (size,)
    sizes = [read_size(one) for one in given]
    if not sizes:
        raise ValueError(f"size={size!r}: allowed: at least one size")
    found: dict[str, Level] = {}
    for number in range(start, start + n):
        rng = random.Random(f"sokoban {seed} {split} {number}")  # of a text: the same in every process
        level = _draw(rng, split, *sizes[number % len(sizes)], found)
        found[level.board] = level
    return list(found.values())


def _draw(rng: random.Random, split: str, rows: int, cols: int, boxes: int, band: tuple[int, int], known) -> Level:
    """A level that is not in `known`, its distance uniform over the band."""
    distance = rng.randint(*band)
    for _ in range(MAPS):
        grid = _cave(rng, rows, cols, boxes)
        if split_of(grid) != split:
            continue
        maze = Maze(grid)
        far = moves_to_go.__wrapped__(maze)  # most maps are not played, so none is kept
        starts = [s for s, moves in far.items() if moves == distance and not s >> maze.shift & maze.targets]
        if starts:
            boxes_at, player = divmod(rng.choice(starts), 1 << maze.shift)
            board = maze.view(player, boxes_at)[0].replace(" ", "")
            if board not in known:
                return Level(board)
    wanted = f"{rows}x{cols}-{boxes} with {distance} moves to go"
    raise ValueError(f"size: no further level {wanted} in {MAPS} maps; allowed: fewer moves or levels")


def _cave(rng: random.Random, rows: int, cols: int, boxes: int) -> tuple[str, ...]:
    """Walls, floor and as many targets as boxes; every floor cell can be reached from every other."""
    inside = (rows - 2) * (cols - 2)
    floor = max(2 * boxes + 1, round(inside * rng.uniform(0.5, 0.9)))
    r, c = rng.randrange(1, rows - 1), rng.randrange(1, cols - 1)
    open_ = {(r, c): None}  # in the order of opening: a set's order could differ between processes
    while len(open_) < floor:
        dr, dc = rng.choice(((-1, 0), (1, 0), (0, -1), (0, 1)))
        if 0 < r + dr < rows - 1 and 0 < c + dc < cols - 1:
            r, c = r + dr, c + dc
            open_[r, c] = None
    targets = set(rng.sample(list(open_), boxes))
    symbols = dict.fromkeys(open_, FLOOR) | dict.fromkeys(targets, TARGET)
    return tuple("".join(symbols.get((r, c), WALL) for c in range(cols)) for r in range(rows))


# -- XSB files ------------------------------------------------------------------------------------------------------


def load_xsb(path: str | Path) -> list[Level]:
    """The levels of an XSB file: # wall, @ player, + player on a target, $ box, * box on a target, . target; blank, -
    or _ floor. Any other line (blank, a comment, a title) ends a level; ids are the file's name and a number. Rows are
    filled up to equal length, floor that the player can never reach becomes wall. A ValueError names file and line.
    """
    path, levels, rows = Path(path), [], []
    for number, line in enumerate([*path.read_text(encoding="utf-8").splitlines(), ""], 1):
        text = line.rstrip().replace(" ", "_").replace("-", "_")
        if text.lstrip("_").startswith("#") or (rows and text.strip("_") and set(text) <= XSB):
            if wrong := sorted(set(text) - XSB):
                raise ValueError(f"{path}, line {number}: {wrong[0]!r}; allowed: # @ + $ * . - _ and blanks")
            rows.append(text.translate(FROM_XSB))
        elif rows:
            try:
                levels.append(Level(_closed(rows), f"{path.stem}-{len(levels) + 1}"))
            except ValueError as error:
                raise ValueError(f"{path}, level in lines {number - len(rows)} to {number - 1}: {error}") from error
            rows = []
    if not levels:
        raise ValueError(f"{path}: no level; allowed: rows of # @ + $ * . - _ and blanks")
    return levels


def _closed(rows: list[str]) -> str:
    """A board of such rows: equally long, with walls where there is floor that the player cannot reach."""
    width = max(map(len, rows))
    cells = {(r, c): symbol for r, row in enumerate(rows) for c, symbol in enumerate(row.ljust(width, FLOOR))}
    queue = [cell for cell, symbol in cells.items() if symbol in "PS"]
    inside = set(queue)
    for r, c in queue:  # grows while it is read
        near = {(r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)} - inside
        queue += (reached := [cell for cell in near if cells.get(cell, WALL) != WALL])
        inside.update(reached)
    cells |= {cell: WALL for cell, symbol in cells.items() if symbol == FLOOR and cell not in inside}
    return "\n".join("".join(cells[r, c] for c in range(width)) for r in range(len(rows)))


def to_xsb(levels: Iterable[Level]) -> str:
    """The text of an XSB file, which `load_xsb` reads; each level's id is a comment before it."""
    return "\n".join(f"; {level.id}\n{level.board.translate(TO_XSB)}\n" for level in levels)
