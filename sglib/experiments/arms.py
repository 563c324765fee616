"""The arms of notebook 04, trained side by side: one process an arm, one thread each where there is no GPU.

Two runs with one thread each finish more iterations an hour than one run with two. Each arm works in its own folder,
resumes there after an interruption, and is not run again when it is complete.

    base.json         the panel before training, outcome by game
    start.json        the panel after what the recipe's `start` taught, if it has one
    metrics.jsonl     one line an iteration; every few with the panel
    policy/           the trained policy
    trajectories.jsonl  its first episodes on the panel
    trajectories/     the last training batch, with every reward and advantage as trained on
    runs/             TensorBoard's events, with `report_to: [tensorboard]`
    done.json         the run card, written last
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import resource
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from sglib import envs
from sglib.envs.alfworld import generate_games
from sglib.envs.panels import panel
from sglib.experiments.identity import canonical, digest, weights_hash
from sglib.experiments.params import GRPOParams, ParameterError
from sglib.experiments.recipe import Recipe, load_recipe
from sglib.experiments.runs import cached, output_root, source_hash, versions
from sglib.measure.evaluate import evaluate
from sglib.models.endpoint import check_trainable
from sglib.models.policy import load_policy
from sglib.play.episode import Options
from sglib.records import Trajectory, read_trajectories, write_atomic, write_trajectories
from sglib.rewards import check_environment
from sglib.training.grpo import GRPOSettings, train

# The code that decides an arm's result; a change in any of it makes a new folder. Of the environments, what all share
# and the one that is played.
ROOMS = ("formats", "models", "play", "rewards", "advantages", "measure", "training")
SOURCES = (
    *(f"sglib/{room}" for room in ROOMS),
    "sglib/records.py",
    "sglib/envs/__init__.py",
    "sglib/envs/base.py",
    "sglib/envs/panels.py",
    "sglib/experiments/recipe.py",
    "sglib/experiments/starts.py",
    "sglib/experiments/arms.py",
)


def sources(env: str) -> tuple[str | Path, ...]:
    """The code that decides an arm's result; of environments what all have in common, and the one that is played."""
    return (*SOURCES, *envs.get(env).sources)


REPLICATE_SEED = 1_000_003  # a replicate's seed is so far from the seeds that people choose
STOP = "stop"  # a file that asks an arm to end behind its present iteration
SHOWN = 16  # episodes kept of the trained policy


@dataclass
class ArmResult:
    """What one arm came to.

    Attributes:
        arm: its name.
        folder: where it worked.
        curve: rows {arm, iteration, success, low, high, …} of the panel, iteration 0 before training.
        batches: rows of the training batches, one an iteration; see `sglib.measure.batch.batch_metrics`.
        before, after: outcome (0 or 1) per panel game before training and at the last evaluation so far.
        start: the same after the recipe's `start`; empty where it has none.
        card: the run card, see `run_card`; empty until it is complete.
    """

    arm: str
    folder: Path
    curve: list[dict] = field(default_factory=list)
    batches: list[dict] = field(default_factory=list)
    before: list[int] = field(default_factory=list)
    after: list[int] = field(default_factory=list)
    start: list[int] = field(default_factory=list)
    card: dict = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether it is complete."""
        return bool(self.card)

    @property
    def trajectories(self) -> list[Trajectory]:
        """Episodes of the trained policy on the first panel games."""
        return read_trajectories(self.folder / "trajectories.jsonl")

    @property
    def last_batch(self) -> list[Trajectory]:
        """The last training batch, with every reward and advantage as trained on; empty before it."""
        files = sorted((self.folder / "trajectories").glob("*.jsonl"))
        return read_trajectories(files[-1]) if files else []


def arm_recipe(arm: str, p: GRPOParams) -> Recipe:
    """How an arm acts, what it is paid for and how that becomes an advantage.

    Raises:
        ParameterError: naming what is wrong with its file.
    """
    recipe = load_recipe(arm).with_win_reward(p.win_reward)
    try:
        check_environment(recipe.components, envs.get("alfworld"))
    except ValueError as error:
        raise ParameterError(f"{arm}: {error}") from None
    return recipe


def arm_content(arm: str, p: GRPOParams) -> dict:
    """Everything that a reader could change and that decides an arm's result, as JSON data; not the code."""
    # other arms, names of runs and the like do not touch this one's result; of a recipe its content does, not its name
    without = ("arms", "run", "size", "output_dir", "win_reward", "batch_size", "report_to")
    card = envs.get("alfworld")
    recipe = canonical(arm_recipe(arm, p), without=("name",))
    environment = {"name": card.name, "revision": card.revision}
    return {"recipe": recipe, "params": canonical(p, without), "environment": environment}


def arm_folder(arm: str, p: GRPOParams) -> Path:
    """The folder of an arm, by everything that decides its result."""
    return configured_folder(arm, digest([arm_content(arm, p), source_hash(*sources("alfworld"))]), p.output_dir)


def configured_folder(arm: str, configuration: str, output_dir: str) -> Path:
    """The folder of an arm by the `configuration` of its run card, whatever code is here now."""
    return output_root(output_dir) / "cache" / f"grpo-{Path(arm).stem}-{configuration}"


def train_arm(arm: str, p: GRPOParams, folder: Path) -> None:
    """Train one arm in `folder`, going on from what is there, to the end or until a file `stop` lies there."""
    if (folder / "done.json").exists():
        return
    began = time.perf_counter(), time.process_time()
    recipe = arm_recipe(arm, p)
    policy = load_policy(p.model, lora=p.lora)
    check_trainable(policy)  # before the base is evaluated
    games = panel("alfworld", n=p.eval_games, size=p.max_receptacles)
    # every game is trained on once; the seeds from 10,000 on belong to this notebook
    training_games = generate_games(
        p.iterations * p.games_per_iteration, seed=10_000 + p.seed, max_receptacles=p.max_receptacles
    )
    options = {
        "format": recipe.format,
        "temperature": p.eval_temperature,
        "turns": p.max_turns,
        "seed": p.seed,
    }

    rare = Options(batch_size=p.batch_size, truth=recipe.format != "act")

    def measure(policy) -> dict:
        report = evaluate(policy, games, **options, options=rare)
        write_trajectories(folder / "trajectories.jsonl", report.trajectories[:SHOWN])
        return report.numbers() | {"outcomes": report.outcomes}

    if not (folder / "base.json").exists():  # the same for all arms that act in one format
        code = source_hash(*sources("alfworld"))
        key = [weights_hash(p.model), p.lora, p.eval_games, p.max_receptacles, options, code]
        base = cached("base", key, lambda f: write_atomic(f / "base.json", json.dumps(measure(policy))), p.output_dir)
        write_atomic(folder / "base.json", (base / "base.json").read_bytes())
    if recipe.start is not None:  # again after an interruption: same seed, same weights
        recipe.start(policy, seed=p.seed, max_turns=p.max_turns, max_receptacles=p.max_receptacles)
        if not (folder / "start.json").exists():
            write_atomic(folder / "start.json", json.dumps(measure(policy)))
    metrics = []
    if recipe.components:
        settings = GRPOSettings(
            iterations=p.iterations,
            games_per_iteration=p.games_per_iteration,
            group_size=p.group_size,
            learning_rate=p.learning_rate,
            updates_per_batch=p.updates_per_batch,
            epsilon=p.clip,
            loss_type=p.loss_type,
            lr_schedule=p.lr_schedule,
            beta=p.beta,
            temperature=p.temperature,
            max_turns=p.max_turns,
            format=recipe.format,
            seed=p.seed + REPLICATE_SEED * recipe.replicate,
            eval_every=p.eval_every,
            save_trajectories_every=p.iterations,
            report_to=tuple(p.report_to),
        )
        result = train(
            policy, training_games, settings, recipe.components, recipe.estimator, evaluate_fn=measure, run_dir=folder,
            stop=lambda: _asked_to_stop(folder),
        )  # fmt: skip
        if result.stopped:
            return
        metrics = result.metrics
    policy.save(folder / "policy")
    card = run_card(metrics) | {
        "recipe": arm,
        "configuration": folder.name.rpartition("-")[2],
        "seed": p.seed,
        "seconds": round(time.perf_counter() - began[0], 1),
        "cpu_seconds": round(time.process_time() - began[1], 1),
        "threads": torch.get_num_threads(),
    }
    write_atomic(folder / "done.json", json.dumps(card))


def _asked_to_stop(folder: Path) -> bool:
    """Whether a file says so, or nobody waits for this process any more (its kernel was restarted or killed)."""
    parent = multiprocessing.parent_process()
    return (folder / STOP).exists() or (parent is not None and not parent.is_alive())


def run_card(metrics: Sequence[dict]) -> dict:
    """What a training run was made of and cost, from the rows of its batches.

    Returns:
        `checkpoint`: which policy is reported, always the last; `versions`, `machine`, `source` (hash of the code);
        `episodes`: started, finished, and those without an advantage, which taught nothing; `env_steps` and
        `policy_tokens` of training, and both per second of rollout; `peak_memory_mb` of the process. Evaluations and
        what `start` played are not counted in these; they are in the arm's `seconds` and `cpu_seconds`, which are of
        the last attempt where a run was interrupted.
    """
    total = {name: sum(row["episodes"] * row[f"{name}_mean"] for row in metrics) for name in ("turns", "policy_tokens")}
    played = sum(row["rollout_seconds"] for row in metrics)
    episodes = sum(row["episodes"] for row in metrics)
    silent = sum(row["episodes"] * row["zero_advantage"] for row in metrics)
    return {
        "checkpoint": "last",
        "versions": {"python": platform.python_version(), **versions()},
        "machine": {"system": platform.platform(), "cores": os.cpu_count(), "cuda": torch.cuda.is_available()},
        "source": source_hash(*sources("alfworld")),
        "episodes": {"started": episodes, "finished": episodes, "without_advantage": round(silent)},
        "iterations": len(metrics),
        "env_steps": round(total["turns"]),
        "policy_tokens": round(total["policy_tokens"]),
        "env_steps_per_second": round(total["turns"] / played, 1) if played else None,
        "policy_tokens_per_second": round(total["policy_tokens"] / played, 1) if played else None,
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def read_arm(arm: str, folder: Path) -> ArmResult:
    """What an arm has written so far."""
    result = ArmResult(arm, folder)
    if (folder / "done.json").exists():
        result.card = json.loads((folder / "done.json").read_text())
    if (folder / "base.json").exists():
        row = json.loads((folder / "base.json").read_text())
        result.before = result.after = row.pop("outcomes")
        if (folder / "start.json").exists():
            row = json.loads((folder / "start.json").read_text())
            result.start = result.after = row.pop("outcomes")
        result.curve.append({"arm": arm, "iteration": 0, **row})
    text = (folder / "metrics.jsonl").read_text() if (folder / "metrics.jsonl").exists() else ""
    for line in text.split("\n")[:-1]:  # a line without its end is still being written
        entry = json.loads(line)
        result.batches.append({"arm": arm, **{k: v for k, v in entry.items() if not k.startswith("eval/")}})
        if "eval/success" in entry:
            row = {k.removeprefix("eval/"): v for k, v in entry.items() if k.startswith("eval/")}
            result.after = row.pop("outcomes")
            result.curve.append({"arm": arm, "iteration": entry["iteration"] + 1, **row})
    return result


def _work(arm: str, p: GRPOParams, folder: str, threads: int) -> None:
    torch.set_num_threads(threads)
    try:
        train_arm(arm, p, Path(folder))
    except Exception:
        write_atomic(Path(folder) / "error.txt", traceback.format_exc())
        raise


def train_all(
    tasks: Sequence[tuple[str, GRPOParams]],
    on_end: Callable[[int, str | None], None],
    jobs: int | None = None,
    on_poll: Callable[[], None] | None = None,
    poll: float = 2.0,
    paused: Callable[[], bool] | None = None,
    threads: int | None = None,
) -> None:
    """Train arms, several at a time, one process each; those that are complete are not run again.

    Args:
        tasks: (arm, parameters).
        on_end: called with each task's number when it is complete (None) or failed (its traceback); what it raises
            stops the others.
        jobs: processes at a time; None takes one a core without a GPU and one with.
        on_poll: called every `poll` seconds.
        paused: asked as often; while it says True, those that run end behind their present iteration and a checkpoint,
            and none is started; then they go on from there.
        threads: of each process, which also decide the last bits of its sums; None takes one, or all of torch's for a
            process alone.
    """
    jobs = jobs or (1 if torch.cuda.is_available() else os.cpu_count() or 1)
    threads = threads or (torch.get_num_threads() if jobs == 1 else 1)
    waiting = list(enumerate(tasks))
    running: dict[int, tuple[multiprocessing.process.BaseProcess, Path]] = {}
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads can hang
    try:
        while waiting or running:
            resting = paused is not None and paused()
            for _, folder in running.values() if resting else ():
                (folder / STOP).touch()
            while waiting and len(running) < jobs and not resting:
                number, (arm, p) = waiting.pop(0)
                folder = arm_folder(arm, p)
                if (folder / "done.json").exists():
                    on_end(number, None)
                    continue
                folder.mkdir(parents=True, exist_ok=True)
                for left in ("error.txt", STOP):
                    (folder / left).unlink(missing_ok=True)
                process = context.Process(target=_work, args=(arm, p, str(folder), threads))
                process.start()
                running[number] = process, folder
            if running or resting:
                time.sleep(poll)
            for number in [n for n, (process, _) in running.items() if not process.is_alive()]:
                process, folder = running.pop(number)
                if not process.exitcode and not (folder / "done.json").exists():  # it was asked to stop
                    waiting.insert(0, (number, tasks[number]))
                    continue
                error = folder / "error.txt"
                reason = error.read_text() if error.exists() else f"exit code {process.exitcode}"
                on_end(number, reason if process.exitcode else None)
            if on_poll:
                on_poll()
    finally:
        for process, _ in running.values():
            process.terminate()
            process.join()


def train_arms(
    p: GRPOParams,
    on_update: Callable[[dict[str, ArmResult]], None] | None = None,
    jobs: int | None = None,
    poll: float = 2.0,
    paused: Callable[[], bool] | None = None,
) -> dict[str, ArmResult]:
    """Train `p.arms`, several at a time; interrupted and called again, it goes on where it was.

    Args:
        p: see `sglib.experiments.params.GRPOParams`.
        on_update: called every `poll` seconds with what every begun arm has written.
        jobs, poll, paused: see `train_all`.

    Returns:
        arm -> result, in the order of `p.arms`.

    Raises:
        RuntimeError: an arm failed, with its traceback; the others' results stay.
    """
    for arm in p.arms:
        arm_recipe(arm, p)  # a broken recipe is told before any of them trains
    folders = {arm: arm_folder(arm, p) for arm in p.arms}
    done = [arm for arm, folder in folders.items() if (folder / "done.json").exists()]
    if p.report_to and done:
        warnings.warn(
            f"{', '.join(done)}: trained before, so nothing goes to {', '.join(p.report_to)}; remove "
            f"{folders[done[0]].parent}/grpo-* to train anew",
            stacklevel=2,
        )

    def end(number: int, error: str | None):
        if error is not None:
            raise RuntimeError(f"arm {p.arms[number]!r} failed:\n{error}")

    def look():
        if on_update:
            on_update({arm: read_arm(arm, folder) for arm, folder in folders.items() if folder.exists()})

    train_all([(arm, p) for arm in p.arms], end, jobs, look, poll, paused)
    return {arm: read_arm(arm, folder) for arm, folder in folders.items()}
