"""Maps, and the exact number of moves to go from every state of a map.

A state is where the player stands and where the boxes are. One search backwards from all solved states answers for all
states of a map; a state that it does not find is a deadlock. A map with more than `STATES` states is played like any
other, but asking for a distance raises `TooLarge`.
"""

from __future__ import annotations

import functools

WALL, FLOOR, TARGET, SOLVED, BOX, PLAYER, ON_TARGET = SYMBOLS = "#_O√XPS"  # as RAGEN and verl-agent draw them
MOVES = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
COMMANDS = tuple(MOVES)  # direction d ^ 1 is the opposite of direction d
STATES = 100_000  # most states of a map whose distances are searched
VIEWS = 500  # most drawings kept for a map


class TooLarge(ValueError):
    """A map with more than `STATES` states."""


class Maze:
    """What does not change on a board: walls and targets. A floor cell is a number 0..size - 1, row by row; a set of
    cells is an int with one bit a cell; a state is boxes << shift | player.

    Args:
        rows: equally long strings of "#", "_" and "O", walls all around.
    """

    def __init__(self, rows: tuple[str, ...]):
        cells = [(r, c) for r, row in enumerate(rows) for c, symbol in enumerate(row) if symbol != WALL]
        index, width = {cell: i for i, cell in enumerate(cells)}, len(rows[0])
        self.rows, self.size, self.shift = rows, len(cells), len(cells).bit_length()
        # steps[d][cell]: the next cell in direction d, -1 for a wall
        self.steps = tuple(tuple(index.get((r + dr, c + dc), -1) for r, c in cells) for dr, dc in MOVES.values())
        self.targets = sum(1 << i for i, (r, c) in enumerate(cells) if rows[r][c] == TARGET)
        self.empty = list("\n".join(" ".join(row) for row in rows))  # the drawing, one character an entry
        self.place = tuple(2 * (r * width + c) for r, c in cells)  # where in it a cell is drawn
        self.views: dict[int, tuple[str, tuple[str, ...]]] = {}

    def view(self, player: int, boxes: int) -> tuple[str, tuple[str, ...]]:
        """A state's drawing (one symbol a cell, blanks between them, a line a row) and the commands that do something
        in it, sorted; kept, since episodes on a map meet the same states again and again."""
        state = boxes << self.shift | player
        if (found := self.views.get(state)) is None:
            text = self.empty.copy()
            for cell in range(self.size):
                if boxes >> cell & 1:
                    text[self.place[cell]] = SOLVED if self.targets >> cell & 1 else BOX
            text[self.place[player]] = ON_TARGET if self.targets >> player & 1 else PLAYER
            moves = [c for direction, c in enumerate(COMMANDS) if self.move(direction, player, boxes)[0] != player]
            if len(self.views) >= VIEWS:
                self.views.clear()
            found = self.views[state] = "".join(text), tuple(sorted(moves))
        return found

    def move(self, direction: int, player: int, boxes: int) -> tuple[int, int]:
        """(player, boxes) after a move; the same two where a wall or a second box is in the way."""
        step = self.steps[direction]
        cell = step[player]
        if cell < 0:
            return player, boxes
        if boxes >> cell & 1:
            beyond = step[cell]
            if beyond < 0 or boxes >> beyond & 1:
                return player, boxes
            boxes ^= 1 << cell | 1 << beyond
        return cell, boxes


maze_of = functools.lru_cache(maxsize=512)(Maze)


@functools.lru_cache(maxsize=512)
def read(board: str) -> tuple[Maze, int, int]:
    """(maze, player, boxes) of a board: a line a row, a symbol of `SYMBOLS` a cell. A ValueError names what is wrong,
    with row and column counted from 1."""
    rows = board.split("\n")
    for r, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise ValueError(f"board: row {r} has {len(row)} cells, row 1 has {len(rows[0])}; allowed: equally many")
        for c, symbol in enumerate(row, 1):
            if symbol not in SYMBOLS:
                raise ValueError(f"board: {symbol!r} in row {r}, column {c}; allowed: {' '.join(SYMBOLS)}")
            if symbol != WALL and (r in (1, len(rows)) or c in (1, len(row))):
                raise ValueError(f"board: {symbol!r} in row {r}, column {c}; allowed at the edge: {WALL!r}")
    count = {symbol: board.count(symbol) for symbol in SYMBOLS}
    if (players := count[PLAYER] + count[ON_TARGET]) != 1:
        raise ValueError(f"board: {players} players; allowed: 1")
    if (boxes := count[BOX] + count[SOLVED]) != (targets := count[TARGET] + count[SOLVED] + count[ON_TARGET]):
        raise ValueError(f"board: {boxes} boxes and {targets} targets; allowed: equally many")
    if not count[BOX]:
        raise ValueError("board: no box is off its target; allowed: at least 1")
    static = str.maketrans({BOX: FLOOR, PLAYER: FLOOR, SOLVED: TARGET, ON_TARGET: TARGET})
    maze = maze_of(tuple(row.translate(static) for row in rows))
    symbols = [symbol for row in rows for symbol in row if symbol != WALL]
    player = next(i for i, symbol in enumerate(symbols) if symbol in (PLAYER, ON_TARGET))
    return maze, player, sum(1 << i for i, symbol in enumerate(symbols) if symbol in (BOX, SOLVED))


@functools.lru_cache(maxsize=512)  # about 100 bytes a state
def moves_to_go(maze: Maze) -> dict[int, int]:
    """state -> fewest moves to the goal, for as many boxes as targets; a state that is absent is a deadlock. Raises
    `TooLarge` on a map with more than `STATES` states.

    Breadth first from the solved states, every move undone: walk back, or walk back and drag the box along.
    """
    shift, low, far = maze.shift, (1 << maze.shift) - 1, 0
    back = [[] for _ in range(maze.size)]  # of each cell: (bit that must not be set, walk, bit of a box, its drag)
    for direction, step in enumerate(maze.steps):
        for cell, ahead in enumerate(step):
            before = maze.steps[direction ^ 1][cell]
            if before >= 0:
                box = 1 << ahead + shift if ahead >= 0 else 0
                back[cell].append((1 << before + shift, before ^ cell, box, box | 1 << cell + shift))
    frontier = [maze.targets << shift | cell for cell in range(maze.size) if not maze.targets >> cell & 1]
    table = dict.fromkeys(frontier, 0)
    while frontier:
        if len(table) > STATES:
            raise TooLarge(f"distance: the map has more than {STATES} states; allowed: fewer cells or boxes")
        far, found = far + 1, []
        for state in frontier:
            for occupied, walk, box, drag in back[state & low]:
                if not state & occupied:
                    before = state ^ walk
                    if before not in table:
                        table[before] = far
                        found.append(before)
                    if state & box and (before := before ^ drag) not in table:
                        table[before] = far
                        found.append(before)
        frontier = found
    return table


def distance(maze: Maze, player: int, boxes: int) -> int | None:
    """Fewest moves to the goal; None: it cannot be reached. Raises as `moves_to_go`."""
    return moves_to_go(maze).get(boxes << maze.shift | player)


def plan(maze: Maze, player: int, boxes: int) -> list[str] | None:
    """The commands of a shortest plan, of several the first in the order of `COMMANDS`; None as `distance`."""
    left, found = distance(maze, player, boxes), []
    if left is None:
        return None
    while left:
        left -= 1
        after = (maze.move(direction, player, boxes) for direction in range(4))
        direction, (player, boxes) = next(pair for pair in enumerate(after) if distance(maze, *pair[1]) == left)
        found.append(COMMANDS[direction])
    return found
