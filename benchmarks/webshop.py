"""How fast is WebShop here beside its released code? Both play the same random actions on the same files in one run.

    python benchmarks/webshop.py                       # ours alone, half a minute
    python benchmarks/webshop.py --checkout WebShop    # beside a clone of the released code (and flask)
    python benchmarks/webshop.py --quick               # smoke run; too little to judge by
    python benchmarks/webshop.py --out FILE            # keep the numbers

CPU time of this process, one thread. The search is ours on both sides (the released code's needs Lucene's index), so
its time is in both; the released code draws HTML and reads it again at every step, as it is.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import resource
import sys
import tempfile
from pathlib import Path
from time import process_time as clock

from sglib.envs.webshop import ENVIRONMENT, Shop, ShopEnv, catalogue
from sglib.records import write_atomic

sys.path.append(str(Path(__file__).parents[1] / "tests"))
TURNS = 15


def ours(tasks: list, admissible: bool) -> dict[str, float]:
    """Resets and steps a second."""
    env, rng, resets, steps, count = ShopEnv(TURNS, admissible), random.Random(0), 0.0, 0.0, 0
    for task in tasks:
        start = clock()
        found = env.reset(task)
        resets += clock() - start
        while not found.done:
            buttons = [f"click[{p.text}]" for p in env.parts() if p.kind in ("button", "product", "option")]
            action = rng.choice(buttons) if buttons else f"search[{task.query}]"
            start = clock()
            found = env.step(action)
            steps, count = steps + clock() - start, count + 1
    return {"resets": len(tasks) / resets, "steps": count / steps}


def theirs(checkout: Path, count: int) -> dict[str, float]:
    """The same of the released code, on files of the official form."""
    import parity_webshop

    with tempfile.TemporaryDirectory() as folder:
        parity_webshop.write_files(Path(folder), random.Random(0))
        env, shop, _ = parity_webshop.released(checkout, Path(folder), True, 0)
        found = {"ours, same files": ours(shop.goals[:count], False)}
        rng, resets, steps, taken = random.Random(0), 0.0, 0.0, 0
        for number in range(count):
            start = clock()
            env.session_prefix = f"{number}-"
            env.reset(session=number)
            resets, done = resets + clock() - start, False
            for _ in range(TURNS):
                can = [c for c in env.get_available_actions()["clickables"] if c != "search"]
                action = f"click[{rng.choice(can)}]" if can else f"search[{shop.goals[number].query}]"
                start = clock()
                _, _, done, _ = env.step(action)
                steps, taken = steps + clock() - start, taken + 1
                if done:
                    break
    return found | {"released code": {"resets": count / resets, "steps": taken / steps}}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkout", type=Path, help="a clone of WebShop")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    start = clock()
    shop = catalogue(Shop())
    rows, loading = {}, clock() - start
    tasks = ENVIRONMENT.tasks(4 if args.quick else 400, seed=77)
    rows["ours, first time"] = ours(tasks, False)  # titles and attributes compared for the first time
    rows["ours"], rows["ours, with what can be clicked"] = ours(tasks, False), ours(tasks, True)
    if args.checkout:
        rows |= theirs(args.checkout, 4 if args.quick else 30)
    for name, row in rows.items():
        print(f"{name:<32}{row['steps']:>10,.0f} steps / s{row['resets']:>12,.0f} resets / s")
    if args.checkout:
        for kind in ("steps", "resets"):
            print(f"{kind}: {rows['ours, same files'][kind] / rows['released code'][kind]:,.0f} x the released code")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{len(shop.products)} products: made in {loading:.1f} s; the process has {memory:,.0f} MiB at most")
    if args.out:
        result = {"per_second": rows, "loading_seconds": loading, "peak_mib": memory}
        write_atomic(args.out, json.dumps(result | {"python": platform.python_version()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
