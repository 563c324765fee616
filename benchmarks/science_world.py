"""How fast is ScienceWorld here beside the package's own `ScienceWorldEnv`? Both play the same episodes in one run.

    python benchmarks/science_world.py                 # a few minutes
    python benchmarks/science_world.py --quick         # smoke run; too little to judge by
    python benchmarks/science_world.py --out FILE      # keep the numbers

Wall time, since the work is done in Java processes; medians over tasks. The actions are those of the simulator's
solutions; how many episodes both sides answer alike is printed, since hashes, and with them the order of the package's
lists, differ from run to run. Its step also lists every valid action, and its reset, used as its manual says, loads
twice; both are timed as they are. Needs the package `scienceworld` and Java; where one is missing that is said. (A
script of the package's own name would be taken for it.)
"""

from __future__ import annotations

import argparse
import json
import platform
import re
from pathlib import Path
from statistics import median
from time import perf_counter as clock

from sglib.envs.scienceworld import ENVIRONMENT, ScienceWorldEnv, simulator
from sglib.records import write_atomic

WORLDS = 64  # side by side, for the memory of one


def play(reset, step, tasks: list, repeats: int) -> tuple[float, float, list]:
    """(resets/s, steps/s, texts); `reset(task)` starts a task, `step(action)` returns a text."""
    resets, steps, texts = [], [], []
    for task in tasks:
        for _ in range(repeats):
            start = clock()
            reset(task)
            resets.append(1 / (clock() - start))
            actions = [gold.action for gold in simulator.gold(task)]
            start = clock()
            texts.append([step(action) for action in actions])
            steps.append(len(actions) / (clock() - start))
    return median(resets), median(steps), texts


def memory(process) -> float | None:
    """Resident MiB of a process; None where the system does not say."""
    status = Path(f"/proc/{process.pid}/status")
    found = re.search(r"VmRSS:\s+(\d+)", status.read_text()) if status.is_file() else None
    return int(found[1]) / 1024 if found else None


def heap() -> float:
    """MiB that are in use in Java."""
    lang = simulator.running().jvm.java.lang
    lang.System.gc()
    runtime = lang.Runtime.getRuntime()
    return (runtime.totalMemory() - runtime.freeMemory()) / 2**20


def measured(tasks: list, repeats: int, side_by_side: int = WORLDS) -> dict:
    from scienceworld import ScienceWorldEnv as Theirs

    for task in tasks:
        simulator.gold(task)  # made once, before anything is timed
    rates, texts = {}, {}
    for name, admissible in (("ours", False), ("ours, with what can be done", True)):
        env = ScienceWorldEnv(admissible=admissible)
        *rates[name], texts[name] = play(env.reset, lambda action, env=env: env.step(action).text, tasks, repeats)
    theirs = Theirs(envStepLimit=10_000)

    def reset(task):
        theirs.load(task.name, task.number, task.simplifications)
        theirs.reset()

    *rates["package"], texts["package"] = play(reset, lambda action: theirs.step(action)[0], tasks, repeats)
    assert texts["ours"] == texts["ours, with what can be done"], "listing what can be done changes the answers"
    same = sum(a == b for a, b in zip(texts["ours"], texts["package"]))
    few = heap()
    worlds = [simulator.World() for _ in range(side_by_side)]
    for number, world in enumerate(worlds):
        world.load(tasks[number % len(tasks)])
    result = {
        "resets_per_second": {name: rate[0] for name, rate in rates.items()},
        "steps_per_second": {name: rate[1] for name, rate in rates.items()},
        "episodes_alike": f"{same} of {len(texts['ours'])}",
        "mib": {
            "a world": (heap() - few) / side_by_side,
            "Java, ours": memory(simulator.running().process),
            "Java, package": memory(theirs._gateway.java_process),
        },
    }
    theirs.close()
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    result = {"python": platform.python_version()}
    try:
        simulator.running()
    except RuntimeError as error:
        print(f"nothing is measured (0 s): {error}")
        result["missing"] = str(error)
    else:
        size = {"tasks": "find-non-living-thing"}
        result |= measured(ENVIRONMENT.tasks(1, seed=77, size=size), 1, 2) if args.quick else measured(
            ENVIRONMENT.tasks(20, seed=77), 3
        )
        for kind in ("steps_per_second", "resets_per_second"):
            for name, rate in result[kind].items():
                ratio = rate / result[kind]["package"]
                print(f"{name:<32}{rate:>9.1f} {kind.partition('_')[0]} / s{ratio:>8.2f} x the package")
        print(f"episodes answered alike: {result['episodes_alike']}")
        for name, mib in result["mib"].items():
            print(f"{name:<32}{'?' if mib is None else f'{mib:,.1f}':>9} MiB")
    if args.out:
        write_atomic(args.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
