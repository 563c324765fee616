"""A newcomer's path, timed: from a fresh clone to the first result of one's own, by the README's own commands and code.

    make onboarding                 # clone, install, first notebook, a reward of one's own judged: at most 45 minutes
    make onboarding ARGS=--smoke    # the same with this environment and the shortest training; the notebook is left out

Prints a table of minutes and writes it with --out. Exit status 1 if a step fails, or if all took over 45 minutes.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT = 45  # minutes
SHORTEST = {"iterations": 2, "games_per_iteration": 2, "group_size": 2, "eval_games": 4, "eval_every": 1}


def own_files(folder: Path) -> Path:
    """Write the reward and the recipe that the README shows into a folder: the recipe's path."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = text[text.index("## Judge a reward of your own") :]
    (folder / "rewards.py").write_text(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], encoding="utf-8")
    recipe = folder / "mine.yaml"
    recipe.write_text(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1], encoding="utf-8")
    return recipe


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="no installation, no notebook, the shortest training")
    parser.add_argument("--out", help="a JSON file for the minutes")
    o = parser.parse_args(arguments)
    minutes = {}
    with tempfile.TemporaryDirectory() as name:
        work, clone = Path(name), Path(name) / "clone"
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "SGLIB_OUTPUT": str(work / "outputs")}

        def step(what: str, *command, cwd=work):
            print(f"{what} ...", flush=True)
            start = time.perf_counter()
            subprocess.run([str(x) for x in command], cwd=cwd, env=env, check=True)
            minutes[what] = round((time.perf_counter() - start) / 60, 1)

        step("clone", "git", "clone", "--quiet", ROOT, clone)
        short = ()
        if o.smoke:
            python, env["PYTHONPATH"] = sys.executable, str(clone)
            regime = (clone / "params" / "regimes" / "tight.yaml").read_text(encoding="utf-8")
            for key, value in SHORTEST.items():
                regime = re.sub(rf"^  {key}: .*$", f"  {key}: {value}", regime, flags=re.MULTILINE)
            (clone / "params" / "regimes" / "onboarding.yaml").write_text(regime, encoding="utf-8")
            short = ("--regime", "onboarding", "--seeds", 3)
        else:
            step("install", "make", "--no-print-directory", ".venv/installed", cwd=clone)
            python = clone / ".venv" / "bin" / "python"
            notebook, params = clone / "notebooks" / "00_the_game.ipynb", clone / "params" / "cpu.yaml"
            step("first notebook", python, "-m", "papermill", "-f", params, notebook, work / "00.ipynb", cwd=clone)
        recipe = own_files(work)
        step("a reward of one's own, judged", python, "-m", "sglib", "assay", recipe, *short)
        (page,) = (work / "outputs").rglob("mine.html")
        assert "mine" in page.read_text(encoding="utf-8")
    minutes["all"] = round(sum(minutes.values()), 1)
    print("\n".join(f"{value:6.1f} min  {what}" for what, value in minutes.items()))
    if o.out:
        Path(o.out).write_text(json.dumps(minutes, indent=1) + "\n", encoding="utf-8")
    return int(minutes["all"] > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
