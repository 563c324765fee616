"""Random walks through Sokoban levels on this engine and on gym-sokoban, in lock-step.

    pip install gym-sokoban==0.0.6 "setuptools<81"   # pulls the unmaintained gym; nothing else here needs it
    python tests/parity_sokoban.py [--steps 100000] [--out outputs/reference/sokoban_parity.json]

The same level is put into gym-sokoban's arrays, its pictures are switched off. After every action the grids, rewards
and ends of the episodes must be equal. gym-sokoban counts the boxes on targets at the start as 0; here it is given the
true count, which its rewards at the first step then follow.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import random
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from sglib.envs.sokoban import ENVIRONMENT, Level, SokobanEnv
from sglib.envs.sokoban.graph import COMMANDS, read
from sglib.records import write_atomic

SIZES = ("6x6-1", "6x6-2", "7x8-2", "8x8-2", "7x7-3")
CODES = {"#": 0, "_": 1, "O": 2, "√": 3, "X": 4, "P": 5, "S": 5}  # of gym-sokoban's arrays
LIMIT = 40


def reference(rows: int, cols: int, boxes: int, max_steps: int = LIMIT, pictures: bool = False):
    """A `gym_sokoban.envs.sokoban_env.SokobanEnv` without a level."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from gym_sokoban.envs.sokoban_env import SokobanEnv as Reference
    env = Reference(dim_room=(rows, cols), max_steps=max_steps, num_boxes=boxes, reset=False)
    if not pictures:
        env.render = lambda **_: None
    return env


def load(env, board: str):
    """Put a board into the reference and start an episode."""
    cells = [list(row) for row in board.split("\n")]
    env.room_state = np.array([[CODES[symbol] for symbol in row] for row in cells])
    static = {"X": 1, "P": 1, "√": 2, "S": 2}
    env.room_fixed = np.array([[static.get(symbol, CODES[symbol]) for symbol in row] for row in cells])
    env.player_position = np.argwhere(env.room_state == 5)[0]
    env.num_env_steps, env.reward_last, env.boxes_on_target = 0, 0, board.count("√")


def grid(env) -> str:
    """The reference's board, drawn as here."""
    rows = []
    for state, fixed in zip(env.room_state.tolist(), env.room_fixed.tolist()):
        rows.append(" ".join("S" if s == 5 and f == 2 else "#_O√XP"[s] for s, f in zip(state, fixed)))
    return "\n".join(rows)


def start(level: Level, rng: random.Random) -> Level:
    """The level, or one with its map and another start, boxes on targets among them."""
    maze, player, boxes = read(level.board)
    for _ in range(rng.choice((0, 0, 30))):
        player, boxes = maze.move(rng.randrange(4), player, boxes)
    return level if boxes == maze.targets else Level(maze.view(player, boxes)[0].replace(" ", ""))


def compare(steps: int, seed: int = 0) -> dict:
    """Counts of what was played, {"steps": …, "differences": 0, …}; the first differences are printed."""
    rng, count, levels = random.Random(f"parity {seed}"), Counter(), set()
    batches = [ENVIRONMENT.tasks(40, seed=seed, size=size) for size in SIZES]
    while count["steps"] < steps:
        level = start(rng.choice(rng.choice(batches)), rng)
        rows, cols = level.board.count("\n") + 1, level.board.index("\n")
        theirs, ours = reference(rows, cols, int(level.task_type.split("-")[1])), SokobanEnv(max_steps=LIMIT)
        load(theirs, level.board)
        seen, follow = ours.reset(level), rng.random() < 0.5
        levels.add(level.board)
        count.update(episodes=1, started_with_a_box_on_target=bool(theirs.boxes_on_target))
        while not seen.done:
            plan = ours.plan() if follow and rng.random() < 0.7 else None
            command = plan[0] if plan else rng.choice(COMMANDS)
            _, reward, done, info = theirs.step(1 + COMMANDS.index(command))
            before, seen = seen, ours.step(command)
            same = (
                grid(theirs) == seen.text.partition("\n")[2]
                and reward == seen.reward
                and done == seen.done
                and info["action.moved_player"] == seen.valid == (command in before.admissible)
                and (not done or info["all_boxes_on_target"] == seen.won)
            )
            if not same and count["differences"] < 5:
                print(f"{before.text}\n{command}: {reward}, {done} != {seen.reward}, {seen.done}\n{seen.text}\n")
            count.update(
                steps=1, differences=not same, blocked=not seen.valid, pushes=info["action.moved_box"], won=seen.won,
                onto_target=not seen.won and reward > 0, off_target=reward < -1, step_limit=done and not seen.won,
            )  # fmt: skip
    return dict(count) | {"levels": len(levels)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a file for the counts")
    args = parser.parse_args()
    counts = compare(args.steps, args.seed)
    counts["packages"] = {name: importlib.metadata.version(name) for name in ("gym-sokoban", "gym", "numpy")}
    print(json.dumps(counts, indent=1))
    if args.out:
        write_atomic(args.out, json.dumps(counts, indent=1) + "\n")
    return 1 if counts["differences"] else 0


if __name__ == "__main__":
    sys.exit(main())
