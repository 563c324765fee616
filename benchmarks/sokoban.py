"""How fast is the Sokoban engine beside gym-sokoban? Both play the same levels here, with the same actions.

    python benchmarks/sokoban.py                 # under a minute
    python benchmarks/sokoban.py --quick         # smoke run; too little to judge by
    python benchmarks/sokoban.py --out FILE      # keep the numbers

CPU time of this process, one thread; median of the repetitions. gym-sokoban is timed with its pictures (as it is) and
without them (rules alone, no text either); where it cannot be imported, its lines are left out.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import sys
from pathlib import Path
from statistics import median
from time import process_time as clock

from sglib.envs.sokoban import ENVIRONMENT, SokobanEnv
from sglib.envs.sokoban.graph import COMMANDS, Maze, moves_to_go, read
from sglib.records import write_atomic

sys.path.append(str(Path(__file__).parents[1] / "tests"))
SIZES = ("6x6-1", "6x6-2", "8x8-2", "8x8-3", "10x10-2")


def steps_per_second(games: list, reset, step, actions: list, repeats: int) -> float:
    """`reset(i)` starts game i, `step(action)` says whether it is over; the starts are not timed."""
    rates = []
    for _ in range(repeats):
        steps, spent = 0, 0.0
        for i in range(len(games)):
            reset(i)
            start = clock()
            for action in actions:
                steps += 1
                if step(action):
                    break
            spent += clock() - start
        rates.append(steps / spent)
    return median(rates)


def engine_rates(levels: list, words: list[str], repeats: int) -> dict[str, float]:
    env = SokobanEnv(max_steps=len(words))

    def first(i):  # nothing about the map is kept
        env.reset(levels[i])
        env.maze.views.clear()

    return {
        "sglib, first episode on a map": steps_per_second(levels, first, lambda a: env.step(a).done, words, repeats),
        "sglib, later episodes": steps_per_second(
            levels, lambda i: env.reset(levels[i]), lambda a: env.step(a).done, words, repeats
        ),
    }


def reference_rates(levels: list, words: list[str], repeats: int) -> dict[str, float]:
    """{} where gym-sokoban cannot be imported."""
    import parity_sokoban

    rates, numbers = {}, [1 + COMMANDS.index(word) for word in words]
    for name, pictures, share in (("gym-sokoban, no pictures", False, 1), ("gym-sokoban, as it is", True, 16)):
        games = levels[: max(1, len(levels) // share)]
        try:
            env = parity_sokoban.reference(6, 6, 1, max_steps=len(words), pictures=pictures)
        except ImportError as error:
            print(f"gym-sokoban is left out: {error}")
            return {}

        def reset(i, env=env, games=games):
            env.num_boxes = read(games[i].board)[2].bit_count()
            parity_sokoban.load(env, games[i].board)

        rates[name] = steps_per_second(games, reset, lambda a, env=env: env.step(a)[2], numbers, repeats)
    return rates


def milliseconds(work, count: int) -> list[float]:
    """Of `work(0)`, `work(1)`, ..."""
    found = []
    for i in range(count):
        start = clock()
        work(i)
        found.append(1e3 * (clock() - start))
    return found


def search_times(size: str, count: int) -> dict[str, float]:
    """Milliseconds of the search of a map and of making a level; the maps are those of `count` levels."""
    mazes = [Maze(read(level.board)[0].rows) for level in ENVIRONMENT.tasks(count, seed=78, size=size)]
    states = sorted(len(moves_to_go.__wrapped__(maze)) for maze in mazes)
    graph = milliseconds(lambda i: moves_to_go.__wrapped__(mazes[i]), count)
    making = milliseconds(lambda i: ENVIRONMENT.tasks(1, seed=i, size=size), count)
    return {
        "graph": median(graph), "graph_most": max(graph), "states": median(states), "states_most": states[-1],
        "level": sum(making) / count,
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    n, repeats, rng = (8, 1, random.Random(0)) if args.quick else (128, 5, random.Random(0))
    levels, words = ENVIRONMENT.tasks(n, seed=77), [rng.choice(COMMANDS) for _ in range(50)]
    ours, theirs = engine_rates(levels, words, repeats), reference_rates(levels, words, repeats)
    result = {"steps_per_second": ours | theirs, "milliseconds": {}, "python": platform.python_version()}
    for name, rate in (ours | theirs).items():
        print(f"{name:<32}{rate:>12,.0f} steps / s")
    for name, rate in theirs.items():
        print(f"sglib, first episode, over {name:<27}{ours['sglib, first episode on a map'] / rate:>6.1f} x")
    for size in SIZES[:2] if args.quick else SIZES:
        found = result["milliseconds"][size] = search_times(size, 8 if args.quick else 40)
        print(
            f"{size:<8} all distances of a map {found['graph']:7.2f} ms (most {found['graph_most']:.1f}), "
            f"{found['states']:.0f} states (most {found['states_most']}); making a level {found['level']:.1f} ms"
        )
    if args.out:
        write_atomic(args.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
