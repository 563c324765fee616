"""One experiment: one recipe, one seed, and everything else that decides the result. It works in a folder of its own,
resumes there after an interruption, and is not run again when it is complete.

    base.json         the panel before training, outcome by task
    start.json        the panel after what the recipe's `start` taught, if it has one
    metrics.jsonl     one line an iteration; every few with the panel
    again.json        with `eval_seeds`: how often the trained policy won each panel task, over all of them
    policy/           the trained policy
    trajectories.jsonl  its first episodes on the panel
    trajectories/     the last training batch, with every reward and advantage as trained on
    killed.txt        a line for each worker that was killed and replaced
    runs/             TensorBoard's events, with `report_to: [tensorboard]`
    done.json         the run card, written last
"""

from __future__ import annotations

import contextlib
import functools
import json
import multiprocessing
import os
import platform
import resource
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sglib import envs
from sglib.envs.panels import panel
from sglib.experiments import params as parameters
from sglib.experiments.identity import canonical, digest, weights_hash
from sglib.experiments.params import GRPOParams
from sglib.experiments.recipe import Recipe, load_recipe
from sglib.experiments.runs import cache_folder, cached, output_root, source_hash, versions
from sglib.measure.batch import trouble
from sglib.measure.evaluate import Report, evaluate
from sglib.models import processes
from sglib.models.endpoint import SCHEME, check_trainable
from sglib.models.policy import Policy, load_policy
from sglib.play.episode import Options
from sglib.play.rollout import shared
from sglib.records import (
    Trajectory,
    read_checked,
    read_trajectories,
    set_aside,
    whole,
    write_atomic,
    write_checked,
    write_trajectories,
)
from sglib.training.checkpoint import locked
from sglib.training.grpo import GRPOSettings, train

ROOMS = ("formats", "models", "play", "rewards", "advantages", "measure", "training")
SHARED = (
    *(f"sglib/{room}" for room in ROOMS),
    *(f"sglib/{name}.py" for name in ("records", "envs/__init__", "envs/base", "envs/panels")),
    *(f"sglib/experiments/{name}.py" for name in ("recipe", "starts", "experiment")),
)
TRAINING_SEED = 10_000  # training tasks have the seeds from here on
REPLICATE_SEED = 1_000_003  # a replicate's seed is so far from the seeds that people choose
KILLED = "killed.txt"  # a line for each worker that was killed while it trained this one
STOP = "stop"  # a file that asks a training to end after its present iteration
SHOWN = 16  # episodes kept of the trained policy
# parameters that change no result: other recipes, names and places, memory, what is written besides
WITHOUT = (
    "arms", "run", "size", "output_dir", "env", "win_reward", "batch_size", "report_to", "checkpoint_every",
    "tokens_per_micro_batch", "gradient_checkpointing", "rollout_batch", "server",
)  # fmt: skip


def sources(env: str) -> tuple[str | Path, ...]:
    """The code that decides a result: what all environments have in common, and the one that is played."""
    return (*SHARED, *envs.get(env).sources)


@dataclass
class Result:
    """What an experiment has written so far. `before`, `start` and `after` are outcomes (0 or 1) per panel task."""

    arm: str  # its recipe
    folder: Path  # where it worked
    curve: list[dict] = field(default_factory=list)  # {arm, iteration, success, low, high, …}, 0 before training
    batches: list[dict] = field(default_factory=list)  # a row an iteration; see `sglib.measure.batch.batch_metrics`
    before: list[int] = field(default_factory=list)
    after: list[float] = field(default_factory=list)  # at the last evaluation so far; shares with `eval_seeds`
    start: list[int] = field(default_factory=list)  # after the recipe's `start`; empty where it has none
    during: list[list[int]] = field(default_factory=list)  # at each evaluation: one for each row of `curve`
    card: dict = field(default_factory=dict)  # see `run_card`; empty until it is complete

    def add(self, entry: dict) -> None:
        """Take the row of an iteration, as `train` makes it."""
        self.batches.append({"arm": self.arm, **{k: v for k, v in entry.items() if not k.startswith("eval/")}})
        if "eval/success" in entry:
            row = {k.removeprefix("eval/"): v for k, v in entry.items() if k.startswith("eval/")}
            self.after = row.pop("outcomes", [])
            self.during.append(self.after)
            self.curve.append({"arm": self.arm, "iteration": entry["iteration"] + 1, **row})

    @property
    def trajectories(self) -> list[Trajectory]:
        """Episodes of the trained policy on the first panel tasks."""
        return read_trajectories(self.folder / "trajectories.jsonl")

    @property
    def last_batch(self) -> list[Trajectory]:
        """The last training batch, with every reward and advantage as trained on; empty before it."""
        files = sorted((self.folder / "trajectories").glob("*.jsonl"))
        return read_trajectories(files[-1]) if files else []


@dataclass(frozen=True)
class Experiment:
    """One recipe with one seed. The same seed means the same training tasks in the same order and the same evaluation,
    whatever the recipe."""

    recipe: str  # its name in `params/recipes`, or the path of its file
    params: GRPOParams  # how it is trained, and its seed

    @property
    def seed(self) -> int:
        return self.params.seed

    @property
    def name(self) -> str:
        return f"{Path(self.recipe).stem}-seed{self.seed}"

    def load(self) -> Recipe:
        """The recipe as it is trained here; errors as of `load_recipe`."""
        p = self.params
        return load_recipe(self.recipe, p.card).with_base(p.model).with_win_reward(p.win_reward)

    @property
    def content(self) -> dict:
        """Everything that a reader could change and that decides the result, as JSON data; not the code."""
        p, card = self.params, self.params.card
        usual = {"max_turns": card.turns, "task_size": card.size}
        usual = [name for name, value in usual.items() if getattr(p, name) == value]
        return {
            "recipe": canonical(self.load(), without=("name",), env=p.env),  # its content counts, not its name
            "params": canonical(p, without=(*WITHOUT, *usual), env=p.env),
            "environment": {"name": card.name, "revision": card.revision},
        }

    @property
    def key(self) -> str:
        """12 hex digits of `content`."""
        return digest(self.content)

    @functools.cached_property  # a training stays in its folder when the code is edited meanwhile
    def folder(self) -> Path:
        return self.folder_of(digest([self.content, source_hash(*sources(self.params.env))]))

    def folder_of(self, configuration: str) -> Path:
        """The folder by the `configuration` of a run card, whatever code is here now."""
        return output_root(self.params.output_dir) / "cache" / f"grpo-{Path(self.recipe).stem}-{configuration}"

    @property
    def done(self) -> bool:
        """Whether it is complete. What was damaged since is set aside, and training goes on from what is whole."""
        return whole(self.folder / "done.json")

    @property
    def replaced(self) -> int:
        """How many of its workers were killed, and replaced."""
        file = self.folder / KILLED
        return len(file.read_text(encoding="utf-8").splitlines()) if file.exists() else 0

    def how(self, again: int = 0) -> dict:
        """How the panel is played (for the `again`-th time after the first): arguments of `evaluate`."""
        p = self.params
        seed = (p.seed + REPLICATE_SEED * again) % 2**32
        return {"format": self.load().format, "temperature": p.eval_temperature, "turns": p.turns, "seed": seed}

    def base(self, name: str, make) -> dict:
        """The JSON data about the policy before training that `make` returns, made once for all experiments that begin
        with it alike; `name` is of the folder in the cache."""
        p = self.params
        key = [weights_hash(p.model, p.env), p.env, p.lora, p.lora_rank, p.eval_games, p.task_size, self.how()]
        key += [p.show_actions, p.max_tokens, p.answer_tokens, p.thinking, p.engine, p.env_options]
        key += [source_hash(*sources(p.env))]
        folder = cache_folder(name, key, p.output_dir)

        def look() -> dict | None:
            try:
                return read_checked(folder / "base.json")
            except (ValueError, FileNotFoundError) as error:
                if folder.exists():
                    set_aside(folder, error)

        found = processes.told(look)
        if found is None:
            found = make()
            if processes.first():
                cached(name, key, lambda f: write_checked(f / "base.json", found), p.output_dir)
        return found

    def evaluate(self, policy: Policy, split: str | None = None, truth: bool = False, again: int = 0) -> Report:
        """A policy on the panel of a split; None takes the one that is reported by default."""
        p = self.params
        tasks = panel(p.env, split, p.eval_games, p.task_size)
        options = Options(
            batch_size=p.batch_size, truth=truth, show_actions=p.show_actions, max_tokens=p.max_tokens,
            max_new_tokens=p.answer_tokens, make=p.env_options,
        )  # fmt: skip
        return evaluate(policy, tasks, **self.how(again), options=options, play=shared())

    def train(self, on_iteration: Callable[[dict, list[Trajectory]], None] | None = None) -> None:
        """Train, going on from what is there, to the end or until a file `stop` lies in the folder. `on_iteration` as
        for `sglib.training.grpo.train`. Several processes (`sglib.models.processes`) work together: what is written is
        what one would write.

        Raises:
            RuntimeError: another training has the folder.
            ValueError: a number of processes that does not divide a batch, or with which a start cannot be trained.
        """
        processes.part("games_per_iteration", self.params.games_per_iteration)
        if start := self.load().start:
            start.check_processes()
        processes.join()
        if processes.told(lambda: self.done):
            return
        # also what comes before and after reinforcement
        with locked(self.folder, ".training") if processes.first() else contextlib.nullcontext():
            self._train(on_iteration)
            processes.told(lambda: None)  # nobody leaves before all is written

    def _train(self, on_iteration) -> None:
        p, folder, recipe, first = self.params, self.folder, self.load(), processes.first()
        began = time.perf_counter(), time.process_time()
        lora = p.lora and {"r": p.lora_rank, "lora_alpha": 2 * p.lora_rank}
        # float32, also on a GPU: a step of 1e-6 on a weight in bfloat16 is rounded away; `bf16` is for the arithmetic
        dtype = None if p.lora or p.model.startswith(SCHEME) else "float32"
        how = {"thinking": p.thinking, "engine": p.engine, "server": p.server}
        policy = load_policy(p.model, env=p.env, lora=lora, dtype=dtype, **how)
        check_trainable(policy)  # before the base is evaluated
        count = p.iterations * p.games_per_iteration  # every task is trained on once
        tasks = p.card.tasks(count, seed=TRAINING_SEED + p.seed, size=p.task_size)

        def measure(policy: Policy) -> dict:
            report = self.evaluate(policy, truth=recipe.format != "act")
            if first:
                write_trajectories(folder / "trajectories.jsonl", report.trajectories[:SHOWN])
            return report.numbers() | {"outcomes": report.outcomes}

        def write_once(name: str, make: Callable[[], dict]) -> None:
            if not processes.told(lambda: whole(folder / name)):
                made = make()
                if first:
                    write_checked(folder / name, made)

        write_once("base.json", lambda: self.base("base", lambda: measure(policy)))
        if recipe.start is not None:  # again after an interruption: same seed, same weights
            recipe.start(policy, card=p.card, seed=p.seed, turns=p.turns, size=p.task_size)
            write_once("start.json", lambda: measure(policy))
        metrics = []
        if recipe.components:
            result = train(
                policy, tasks, self.settings(recipe), recipe.components, recipe.estimator, evaluate_fn=measure,
                on_iteration=on_iteration, run_dir=folder, stop=lambda: _asked_to_stop(folder),
            )  # fmt: skip
            if result.stopped:
                return
            metrics = result.metrics
        if p.eval_seeds > 1:
            wins = [processes.told(lambda: self.read().during[-1])]
            wins += [self.evaluate(policy, again=k).outcomes for k in range(1, p.eval_seeds)]
            if first:
                write_atomic(folder / "again.json", json.dumps([sum(each) for each in zip(*wins, strict=True)]))
        if not first:
            return
        policy.save(folder / "policy")
        card = run_card(metrics, source_hash(*sources(p.env))) | {
            "recipe": self.recipe,
            "configuration": folder.name.rpartition("-")[2],
            "seed": p.seed,
            "seconds": round(time.perf_counter() - began[0], 1),
            "cpu_seconds": round(time.process_time() - began[1], 1),
            "threads": torch.get_num_threads(),
            "processes": processes.count(),
            "replaced": self.replaced,
        }
        write_checked(folder / "done.json", card)

    def settings(self, recipe: Recipe) -> GRPOSettings:
        """The trainer's settings: parameters of the same name as they are."""
        p = self.params
        same = {name: getattr(p, name) for name in GRPOSettings.model_fields if name in type(p).model_fields}
        own = {
            "max_turns": p.turns,
            "epsilon": p.clip,
            "format": recipe.format,
            "save_trajectories_every": p.iterations,
            "seed": (p.seed + REPLICATE_SEED * recipe.replicate) % 2**32,
            "report_to": tuple(p.report_to),
        }
        return GRPOSettings(**same | own)

    def read(self) -> Result:
        """What it has written so far."""
        result = Result(self.recipe, self.folder)
        names = [name for name in ("base", "start", "done") if (self.folder / f"{name}.json").exists()]
        files = {name: read_checked(self.folder / f"{name}.json") for name in names}
        result.card = files.get("done", {})
        if "base" in files:
            row = files["base"]
            result.before = result.after = row.pop("outcomes")
            if "start" in files:
                row = files["start"]
                result.start = result.after = row.pop("outcomes")
            result.during.append(result.after)
            result.curve.append({"arm": self.recipe, "iteration": 0, **row})
        metrics = self.folder / "metrics.jsonl"
        text = metrics.read_text() if metrics.exists() else ""
        for line in text.split("\n")[:-1]:  # a line without its end is still being written
            result.add(json.loads(line))
        if (again := self.folder / "again.json").exists():
            result.after = [wins / self.params.eval_seeds for wins in json.loads(again.read_text())]
        return result


def _asked_to_stop(folder: Path) -> bool:
    """Whether a file says so, or nobody waits for this process any more (its kernel or launcher was killed)."""
    parent = multiprocessing.parent_process()
    return (folder / STOP).exists() or processes.orphaned() or (parent is not None and not parent.is_alive())


def run_card(metrics: Sequence[dict], source: str) -> dict:
    """What a training run was made of and cost, from the rows of its batches.

    Returns:
        `checkpoint`: which policy is reported, always the last; `versions`, `machine`, `source` (hash of the code);
        `episodes`: started, finished, those without an advantage, which taught nothing, and those that ended since the
        model's context was full; `trouble`: how many batches suffered from what (`sglib.measure.batch.trouble`);
        `env_steps` and `policy_tokens` of training, and both per second of rollout; `peak_memory_mb` of the process.
        Evaluations and what `start` played are not counted in these; they are in `seconds` and `cpu_seconds`, which are
        of the last attempt where a run was interrupted.
    """
    total = {name: sum(row["episodes"] * row[f"{name}_mean"] for row in metrics) for name in ("turns", "policy_tokens")}
    played = sum(row["rollout_seconds"] for row in metrics)
    episodes = sum(row["episodes"] for row in metrics)
    silent = sum(row["episodes"] * row["zero_advantage"] for row in metrics)
    full = sum(row["episodes"] * row.get("no_room", 0) for row in metrics)  # rows from before it was counted have none
    return {
        "checkpoint": "last",
        "versions": {"python": platform.python_version(), **versions()},
        "machine": {"system": platform.platform(), "cores": os.cpu_count(), "cuda": torch.cuda.is_available()},
        "source": source,
        "episodes": {"started": episodes, "finished": episodes, "without_advantage": round(silent),
                     "no_room": round(full)},
        "trouble": dict(Counter(name for row in metrics for name in trouble(row))),
        "iterations": len(metrics),
        "env_steps": round(total["turns"]),
        "policy_tokens": round(total["policy_tokens"]),
        "env_steps_per_second": round(total["turns"] / played, 1) if played else None,
        "policy_tokens_per_second": round(total["policy_tokens"] / played, 1) if played else None,
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def command(file: str | Path, arm: str, seed: int | None) -> int:
    """The command `python -m sglib train`: one recipe of a parameters file, in the folder and in the way in which
    notebook 04 trains it. Returns its exit status.

    Raises:
        ParameterError: naming the parameter that is wrong.
    """
    train_shown(one(file, arm, seed))
    return 0


def one(file: str | Path, arm: str, seed: int | None, **values: Any) -> Experiment:
    """One recipe of a parameters file, with these in place of the file's (None: its seed); errors as of
    `params.check`."""
    content = parameters.load_file(file)
    given = parameters.common(content) | {"grpo": content.get("grpo", {}) | {"arms": [arm]}}
    p = parameters.check("grpo", given | ({} if seed is None else {"seed": seed}) | values)
    return Experiment(p.arms[0], p)


def train_shown(experiment: Experiment) -> Result | None:
    """Train with a printed line an iteration; None where it was asked to stop before its end."""
    p = experiment.params

    def say(text: str) -> None:
        if processes.first():
            print(text, flush=True)

    def tell(row: dict, _) -> None:
        seconds = sum(row[f"{what}_seconds"] for what in ("rollout", "reward", "update"))
        held_out = f", held out {100 * row['eval/success']:.1f} %" if "eval/success" in row else ""
        done = f"{row['iteration'] + 1} of {p.iterations}"
        say(f"{done}: {100 * row['success']:.1f} % of the batch won{held_out}, {seconds:.1f} s")

    if processes.first():
        (experiment.folder / STOP).unlink(missing_ok=True)
    say(f"{experiment.name}, processes: {processes.count()}, in {experiment.folder}")
    experiment.train(tell)
    result = experiment.read()
    if not result.card:
        say("Stopped, as it was asked to; the same command goes on from the last checkpoint")
        return None
    before, after = (100 * sum(x) / len(x) for x in (result.before, result.after))
    say(f"{before:.1f} -> {after:.1f} % of {len(result.after)} held-out games, {result.card['seconds']:.0f} s")
    return result
