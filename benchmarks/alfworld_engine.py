"""How fast is the pure-Python ALFWorld engine beside the reference (TextWorld)? Both play the same games here, with the
same actions, in one process.

    python benchmarks/alfworld_engine.py                  # all of it: about two minutes
    python benchmarks/alfworld_engine.py --quick          # smoke run, under half a minute; too few games to judge by
    python benchmarks/alfworld_engine.py --out engine.json

Measured in rooms of at most 10 receptacles and in whole rooms: steps, load + reset, memory, many environments in
lock-step, the oracle, snapshots; and making games. What each line means is printed with the results.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import platform
import random
import tracemalloc
from collections import Counter
from pathlib import Path
from statistics import mean, median
from time import process_time as clock

from tqdm.auto import tqdm

from sglib import envs
from sglib.envs.alfworld import world as alfworld_world
from sglib.envs.alfworld.generate import generate_games
from sglib.envs.alfworld.world import world_of
from sglib.records import write_atomic

ROOMS = (10, None)  # max_receptacles; None: whole rooms
EPISODE, GROUP, ROUNDS = 50, 8, 40  # actions of an episode, episodes of one game (as in GRPO), rounds of a batch
DEFINITIONS = """\
All times are CPU time of this process; neither engine uses a second thread. 1 KB is 1,000 bytes. "a (b to c)" is the
median of the repetitions and their range; for the reference, too slow to repeat, all its games together and the range
over them. The median decides whether a goal is met. Before either engine is timed, gc.collect() and gc.freeze() are
called: Python then searches for garbage only among what is made while the clock runs.
Games     from generate_games, kept in memory. Imports, and the grammar and the domain that all games share, are read
          once per process, before the clock starts, for both engines.
Actions   random admissible commands (fixed seed), recorded once on the fast engine, handed to both as new strings;
          episodes of at most 50. Both derive the admissible commands at every step unless a line says "without".
Steps     "first pass": the first episode of a game just loaded, nothing about it cached; only its steps are timed, and
          the goal is judged here. "later passes": other actions in 7 further episodes of the same game, as in a GRPO
          group of 8. "same games": exactly what the reference played. "more games": for a number that is stable.
Load      all that reset(game) does. The reference keeps nothing from one game object to the next and is given a new one
          each time. Fast engine: a game never seen (caches empty, new strings), a game seen before, and the mean over 8
          episodes of one game (1 never seen, 7 seen).
Memory    Fast engine: what Python allocates (tracemalloc) for a game compiled, reset and played for 60 random steps,
          caches included, the game's text left out; then for each further environment on that game, played as long with
          other actions; the range is over games. Reference: growth of the process (resident set) per further instance
          with a game loaded; Linux only.
Batch     Environments in lock-step: 40 rounds of actions chosen beforehand, different in each. "first pass": caches
          emptied, games loaded, then the rounds timed. "second pass": the same games, other actions.
Oracle    env.distance() at every step of random walks; snapshots at every tenth.
Making    generate_games with its defaults: draw, write, solve, play the solution. The value is the mean of parts of the
          list, the range is over them; the first also reads the floor plans."""
LINE = "{:<46}{:>4}  {:<28}  {:<21}{:>8}  {:>10}  {}"


@dataclasses.dataclass
class Row:
    """One line of the table. `goal` bounds the value, `ratio_goal` how many times better than the reference it is."""

    room: str
    measure: str
    unit: str
    values: list[float]  # of the repetitions
    reference: list[float] | None = None  # all its games together, then each
    goal: float | None = None
    ratio_goal: float | None = None
    center: object = median

    def __post_init__(self):
        self.value, self.ratio, self.met, bound = self.center(self.values), None, None, ""
        less, other = self.unit in ("KB", "s", "us"), self.reference  # less is better
        if other:
            self.ratio = other[0] / self.value if less else self.value / other[0]
        if self.goal:
            bound = f"{'<' if less else '>='} {self.goal:,}"
            self.met = self.value < self.goal if less else self.value >= self.goal
        elif self.ratio_goal and other:
            bound, self.met = f">= {self.ratio_goal:,}x", self.ratio >= self.ratio_goal
        cells = [spread(self.value, self.values), spread(other[0], other[1:]) if other else ""]
        cells += [f"{self.ratio:,.0f}x" if other else "", bound, {None: "", True: "met", False: "NOT met"}[self.met]]
        self.text = LINE.format(self.measure, self.unit, *cells).rstrip()

    def range(self) -> dict[str, float]:
        return {"low": min(self.values), "high": max(self.values), "repetitions": len(self.values)}


def spread(value: float, values: list[float]) -> str:
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def settle():
    """Before timing: nothing of what came before is garbage, or searched for it."""
    gc.collect()
    gc.freeze()


def fresh(game):
    """The same game as a new object with a new text: no cached hash, and held by no engine."""
    return dataclasses.replace(game, problem=game.problem.encode().decode())


def record(games, rounds: int, seed) -> list[list[str | None]]:
    """Random admissible actions, one episode a game: [round][game]; None where the episode is over."""
    rngs = [random.Random(f"{seed} {i}") for i in range(len(games))]
    playing, played = [envs.make("alfworld") for _ in games], []
    seen = [env.reset(game) for env, game in zip(playing, games)]
    for _ in range(rounds):
        played.append([None if o.done else rng.choice(o.admissible) for rng, o in zip(rngs, seen)])
        seen = [o if action is None else env.step(action) for env, action, o in zip(playing, played[-1], seen)]
    return played


def record_groups(games, steps: int, seed) -> list[list[list[str]]]:
    """[game][episode of its group] -> actions."""
    walks = zip(*record([game for game in games for _ in range(GROUP)], steps, seed))
    walks = [[action for action in walk if action is not None] for walk in walks]
    return [walks[i : i + GROUP] for i in range(0, len(walks), GROUP)]


def seconds_of(function, arguments) -> float:
    start = clock()
    for argument in arguments:
        function(argument)
    return clock() - start


# -- the measurements --------------------------------------------------------------------------------------------------


def play_fast(games, groups, repetitions: int, admissible: bool = True) -> dict[str, list[float]]:
    """Steps and loads per CPU-second of the fast engine, one number a repetition."""
    rates = {name: [] for name in ("first", "later", "new", "seen", "group")}
    for _ in range(repetitions):
        seconds, texts, copies = Counter(), json.loads(json.dumps(groups)), [fresh(game) for game in games]
        settle()
        for game, group in zip(copies, texts):
            env = envs.make("alfworld", admissible=admissible)
            world_of.cache_clear()
            for i, walk in enumerate(group):
                seconds["seen" if i else "new"] += seconds_of(env.reset, [game])
                seconds["later" if i else "first"] += seconds_of(env.step, walk)
        first, later = sum(len(g[0]) for g in texts), sum(len(w) for g in texts for w in g[1:])
        n, seconds["group"] = len(games), seconds["new"] + seconds["seen"]
        counts = {"first": first, "later": later, "new": n, "seen": n * (GROUP - 1), "group": n * GROUP}
        for name, count in counts.items():
            rates[name].append(count / seconds[name])
    return rates


def resident() -> float | None:
    """KB of memory that the process holds; None where the system does not say."""
    gc.collect()
    status = Path("/proc/self/status")
    return float(status.read_text().partition("VmRSS:")[2].split()[0]) * 1.024 if status.exists() else None


def play_reference(games, walks, instances: int) -> dict[str, list[float]]:
    """Loads and steps per CPU-second, KB per instance: [all together, each...]. Games beyond the walks are loaded."""
    warm = envs.make("alfworld", engine="textworld")
    warm.reset(fresh(games[0]))  # imports, and what its library sets up once
    engines, growth, loads, steps = [], [], [], []
    settle()
    for i, game in enumerate(tqdm(games, desc="reference", unit="game", leave=False)):
        before, copy = resident(), fresh(game)
        if i < instances:
            engines.append(envs.make("alfworld", engine="textworld"))
        env = engines[i % instances]
        loads.append(seconds_of(env.reset, [copy]))
        if i < instances and before is not None:
            growth.append(resident() - before)
        if i < len(walks):
            steps.append((len(walks[i]), seconds_of(env.step, walks[i])))
    counts, seconds = zip(*steps)
    found = {"steps": [sum(counts) / sum(seconds), *(n / s for n, s in steps)]}
    found["load"] = [len(loads) / sum(loads), *(1 / seconds for seconds in loads)]
    return found | ({"memory": [mean(growth), *growth]} if growth else {})


def memory(games, seed) -> tuple[list[float], list[float]]:
    """KB of each game with one environment, and of each further environment on it."""
    groups = record_groups(games, 60, f"memory {seed}")
    world_of.cache_clear()
    settle()
    sizes, kept = [], []
    tracemalloc.start()
    for game, group in zip(games, groups):
        for walk in group:
            before = tracemalloc.get_traced_memory()[0]
            kept.append(envs.make("alfworld"))
            kept[-1].reset(game)
            seconds_of(kept[-1].step, walk)
            gc.collect()
            sizes.append((tracemalloc.get_traced_memory()[0] - before) / 1000)
    tracemalloc.stop()
    return sizes[::GROUP], [mean(sizes[i + 1 : i + GROUP]) for i in range(0, len(sizes), GROUP)]


def batch_rates(games, passes, admissible: bool, repetitions: int) -> list[list[float]]:
    """Steps per CPU-second of environments in lock-step: for each pass, one number a repetition."""
    rates = [[] for _ in passes]
    for _ in range(repetitions):
        world_of.cache_clear()
        playing = [envs.make("alfworld", admissible=admissible) for _ in games]

        def step(actions, playing=playing):
            return [None if action is None else env.step(action) for env, action in zip(playing, actions)]

        for found, rounds in zip(rates, passes):
            for env, game in zip(playing, games):
                env.reset(game)
            texts = json.loads(json.dumps(rounds))
            settle()
            count = sum(action is not None for actions in rounds for action in actions)
            found.append(count / seconds_of(step, texts))
    return rates


def oracle_and_snapshots(games, groups) -> tuple[list[list[float]], list[float]]:
    """Microseconds of each oracle question, [game][step], and of snapshot + restore."""
    env, asked, snapshots = envs.make("alfworld", admissible=False), [], []
    settle()
    for game, (walk, *_) in zip(games, groups):
        env.reset(game)
        asked.append([])
        for i, action in enumerate(walk):
            asked[-1].append(seconds_of(lambda _: env.distance(), [0]) * 1e6)
            if i % 10 == 0:
                snapshots.append(seconds_of(lambda _: env.restore(env.snapshot()), range(20)) / 20 * 1e6)
            env.step(action)
    return asked, snapshots


def parts_of_a_load(games) -> tuple[dict[str, float], float, float]:
    """(part -> seconds, all seconds, seconds of only splitting the texts into words) of loads of games never seen."""
    goal, seconds, originals, whole = alfworld_world.Goal, Counter(), [], "all of the compiling"
    parts = [("reading the text", alfworld_world, "read_problem"), ("grouping facts", alfworld_world, "_group"),
             ("names", alfworld_world, "names_of"), ("goal", goal, "__init__"), ("goal", goal, "ground"),
             (whole, alfworld_world.World, "__init__")]  # fmt: skip

    def timed(part, function):
        def wrapper(*args):
            start = clock()
            found = function(*args)
            seconds[part] += clock() - start
            return found

        return wrapper

    copies, env, total, words = [fresh(game) for game in games], envs.make("alfworld"), 0.0, 0.0
    settle()
    try:
        for part, owner, name in parts:
            originals.append((owner, name, getattr(owner, name)))
            setattr(owner, name, timed(part, originals[-1][2]))
        for game in copies:
            world_of.cache_clear()
            total += seconds_of(env.reset, [game])
            words += seconds_of(lambda text: text.lower().split(), [game.problem])
    finally:
        for owner, name, function in originals:
            setattr(owner, name, function)
    compiling = seconds.pop(whole)
    seconds["the game's other tables"] = compiling - sum(seconds.values())
    return seconds | {"setting up the episode": total - compiling}, total, words


# -- all together ------------------------------------------------------------------------------------------------------


def measure_room(size: int | None, args, rows: list[Row], phase) -> str:
    """Every measurement for one size of room, appended to `rows`; returns what bounds it."""
    room, seed = f"at most {size} receptacles" if size else "whole rooms", f"{args.seed} {size}"
    wide, n_many, n_few, n_memory, repetitions = (32, 16, 2, 6, 2) if args.quick else (512, 200, 10, 60, 5)

    def add(*values, **more):
        rows.append(Row(room, *values, **more))

    phase(f"{room}: games and walks")
    games = generate_games(wide, seed=args.seed, max_receptacles=size)
    many, few = games[:n_many], games[:n_few]
    groups = record_groups(many, EPISODE, seed)
    played = min(n_few, max(1, round(args.reference_steps / EPISODE)))
    phase(f"{room}: reference")
    reference = {}
    if args.reference_steps:
        reference = play_reference(few, [group[0] for group in groups[:played]], min(3, n_few))
    phase(f"{room}: steps and loads")
    same = play_fast(few[:played], groups[:played], 5 * repetitions)
    loads = play_fast(few, groups[:n_few], 3 * repetitions)
    more = play_fast(many, groups, repetitions)
    without = play_fast(many, groups, repetitions, admissible=False)
    for found, label in ((same, "same games"), (more, "more games"), (without, "more games, without")):
        for key, name in (("first", "first pass"), ("later", "later passes")):
            goal = 5_000 if found is same and key == "first" else None
            add(f"steps, {name}, {label}", "1/s", found[key], reference.get("steps"), ratio_goal=goal)
    for found, label, goal in ((loads, "same games", 10_000), (more, "more games", None)):
        for key, name in (("new", "never seen"), ("seen", "seen before"), ("group", f"mean of {GROUP}")):
            add(f"load, {name}, {label}", "1/s", found[key], reference.get("load"), ratio_goal=goal)
    phase(f"{room}: memory")
    first, further = memory(games[:n_memory], seed)
    add(f"memory, {n_memory} games, one environment each", "KB", first, reference.get("memory"), goal=200)
    add("memory, each further environment on a game", "KB", further)
    for n, times in ((wide, 1), (wide // GROUP, GROUP)):
        label = f"{n} games" if times == 1 else f"{n} games x {times}"
        phase(f"{room}: batch of {label}")
        passes = [record(games[:n] * times, ROUNDS, f"{seed} batch {i}") for i in range(2)]
        for admissible, goal in ((True, 100_000), (False, 300_000)):
            found = batch_rates(games[:n] * times, passes, admissible, repetitions)
            for values, name in zip(found, ("first pass", "second pass")):
                add(f"batch, {label}, {name}{'' if admissible else ', without'}", "1/s", values, goal=goal)
    phase(f"{room}: oracle and snapshots")
    asked, snapshots = oracle_and_snapshots(many[:100], groups)
    add("oracle, mean of an episode", "us", [mean(questions) for questions in asked])
    add("oracle, one question", "us", [question for questions in asked for question in questions])
    add("snapshot + restore", "us", snapshots)
    phase(f"{room}: parts of a load")
    seconds, total, words = parts_of_a_load(many)
    shares = ", ".join(f"{part} {share / total:.0%}" for part, share in sorted(seconds.items(), key=lambda x: -x[1]))
    step, plain, later = (1e6 / median(x) for x in (more["first"], without["first"], more["later"]))
    bounds = [
        f"{room}:",
        f"A load of a game never seen takes {total / len(many) * 1e6:,.0f} us: {shares}.",
        f"Splitting the text into words, and nothing else, takes {words / len(many) * 1e6:,.0f} us.",
        f"A step of the first pass takes {step:.1f} us: {1 - plain / step:.0%} of it derive the admissible commands,",
        f"and {1 - later / step:.0%} of it (partly the same) to do what later passes find cached.",
    ]
    if reference:
        most = len(few) / parts_of_a_load(few)[2] / reference["load"][0]
        bounds.insert(3, f"So a loader that splits the text is at most {most:,.0f} times as fast as the reference.")
    return "\n    ".join(bounds)


def measure_generation(args, phase) -> Row:
    chunks, size = (2, 50) if args.quick else (10, 1000) if args.full else (4, 250)
    phase("making games")
    settle()
    seconds = [seconds_of(lambda i: generate_games(size, seed=args.seed, start=i * 10_000), [i]) for i in range(chunks)]
    values, name = [s * 10_000 / size for s in seconds], f"making 10,000 games, from {chunks * size:,}"
    return Row("at most 12 receptacles", name, "s", values, goal=60, center=mean)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run: few games, few repetitions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--full", action="store_true", help="make all 10,000 games, not only 1,000 of them")
    parser.add_argument("--reference-steps", type=int, metavar="N", help="steps of the reference per room size, in "
                        f"episodes of {EPISODE} (default 300; 0: leave the reference out)")  # fmt: skip
    parser.add_argument("--out", type=Path, help="write every number to this JSON file")
    args = parser.parse_args()
    if args.reference_steps is None:
        args.reference_steps = EPISODE if args.quick else 300
    rows = []
    with tqdm(total=1 + 8 * len(ROOMS), unit="part") as bar:

        def phase(name):
            bar.set_description(name)
            bar.update()

        rows.append(measure_generation(args, phase))
        bounds = [measure_room(size, args, rows, phase) for size in ROOMS]
    print(DEFINITIONS + "\n")
    if args.quick:
        print("--quick: too few games and repetitions to judge anything by.\n")
    for room in dict.fromkeys(row.room for row in rows):
        print(LINE.format(room, "", "fast engine", "reference", "ratio", "goal", "").rstrip())
        print("\n".join(row.text for row in rows if row.room == room), end="\n\n")
    print("What bounds it", *bounds, sep="\n")
    if args.out:
        options = {key: value for key, value in vars(args).items() if key != "out"}
        found = {"python": platform.python_version(), "options": options, "definitions": DEFINITIONS, "bounds": bounds}
        left_out = ("text", "center", "values")
        found["rows"] = [{k: v for k, v in vars(row).items() if k not in left_out} | row.range() for row in rows]
        write_atomic(args.out, json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
