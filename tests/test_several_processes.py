"""Training in two processes on the CPU, as `accelerate launch` starts them, against one process."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from accelerate import DeepSpeedPlugin, FullyShardedDataParallelPlugin
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils.deepspeed import HfDeepSpeedConfig
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from safetensors.torch import load_file
from test_grpo import run, settings
from together import CONFIGS, RECIPES, SMALL, arguments, experiment, supervised

from sglib.__main__ import main
from sglib.experiments import starts
from sglib.models import processes
from sglib.records import read_trajectories
from sglib.training import forward

ROOT = Path(__file__).parents[1]

TOLERANCE = {"atol": 1e-4, "rtol": 0}  # of weights, whose steps are 8e-4 and 1e-2 long: sums in another order


def launch(outputs: Path, *command) -> subprocess.Popen:
    """Two processes, on one thread each."""
    here = {"SGLIB_OUTPUT": str(outputs), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    start = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", CONFIGS / "cpu.yaml"]
    return subprocess.Popen(
        [*map(str, (*start, *command))], env=os.environ | here, cwd=ROOT, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def finish(process: subprocess.Popen, seconds: float = 300) -> str:
    """What it has written; killed with all that it has started where that takes too long."""
    try:
        return process.communicate(timeout=seconds)[0]
    finally:
        kill(process)


def kill(process: subprocess.Popen) -> None:
    """SIGKILL to the launcher and to what it has started."""
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        member.kill()
    psutil.wait_procs(family, timeout=10)


def metrics(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: x for name, x in row.items() if not name.endswith("seconds")} for row in rows]


def policy_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "policy" / "model.safetensors")


def assert_close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert torch.allclose(tensor, b[name], **TOLERANCE), (name, float((tensor - b[name]).abs().max()))


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """Where two processes have done `together.main`."""
    outputs = tmp_path_factory.mktemp("two")
    process = launch(outputs, Path(__file__).with_name("together.py"))
    text = finish(process)
    assert process.returncode == 0, text
    return outputs


@pytest.mark.parametrize("recipe", RECIPES)
def test_two_processes_train_as_one_does(two, recipe):
    """The same episodes, rewards and advantages, the same loss, the same weights; every file once."""
    mine = experiment(recipe)
    mine.train()
    theirs = two / "cache" / mine.folder.name
    names = {path.relative_to(mine.folder) for path in mine.folder.rglob("*")}
    assert {path.relative_to(theirs) for path in theirs.rglob("*")} == names
    assert json.loads((theirs / "done.json").read_text())["processes"] == 2
    for file in ("trajectories.jsonl", f"trajectories/{mine.params.iterations - 1:06d}.jsonl"):
        for a, b in zip(*(read_trajectories(folder / file) for folder in (mine.folder, theirs)), strict=True):
            for field in ("game_id", "group", "seed", "completion_ids", "mask", "won", "total_return"):
                assert getattr(a, field) == getattr(b, field)
            assert [(t.action, t.rewards) for t in a.turns] == [(t.action, t.rewards) for t in b.turns]
            trained = [[0.0 if t.advantage is None else t.advantage for t in x.turns] for x in (a, b)]
            assert trained[0] == pytest.approx(trained[1], abs=1e-12)
    found = metrics(theirs)
    for row, other in zip(metrics(mine.folder), found, strict=True):
        assert row.keys() == other.keys()
        for name, value in row.items():
            if name == "logprob_gap":  # nothing but rounding
                assert max(value, other[name]) < 1e-5
            elif isinstance(value, float):
                assert other[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
            else:
                assert other[name] == value, name
    assert found[0]["advantage_abs"] > 0 and found[0]["grad_norm"] > 0, "something was learned from"
    assert_close(policy_of(mine.folder), policy_of(theirs))


def test_weights_in_pieces_train_as_whole_ones_do(two, monkeypatch):
    """FSDP2, each process with half of every weight, as `fsdp.yaml` says, but over CPUs. One process with the same
    forward pass, the model's own."""
    monkeypatch.setattr(forward, "readable", lambda model: False)
    mine = experiment("gigpo")
    mine.train()
    theirs = two / "fsdp" / "cache" / mine.folder.name
    assert_close(policy_of(mine.folder), policy_of(theirs))
    kept = [load_file(folder / "checkpoint-000002" / "optimizer.safetensors") for folder in (mine.folder, theirs)]
    assert_close(*kept)
    assert max(float(tensor.abs().max()) for name, tensor in kept[0].items() if "exp_avg|" in name) > 1e-3


def test_supervised_steps_have_the_same_examples(two):
    """21 examples are no multiple of what two processes read at a time: the last step is short in both."""
    weights = supervised()
    for rank in (0, 1):
        assert_close(weights, load_file(two / f"supervised{rank}.safetensors"))


@pytest.mark.skipif("SGLIB_LONG" not in os.environ, reason="takes a minute; SGLIB_LONG=1 runs it")
def test_killed_and_started_again_ends_the_same(two, tmp_path):
    """SIGKILL of the launcher and of both processes after the first checkpoint; then one process can go on, too."""
    mine = experiment("grpo")
    file = tmp_path / "small.yaml"
    file.write_text(yaml.dump({"env": "sokoban", "grpo": SMALL | RECIPES["grpo"]}))
    command = ["-m", "sglib", "train", "--params", file, "--arm", "grpo"]
    folder = tmp_path / "cache" / mine.folder.name
    process, until = launch(tmp_path, *command), time.monotonic() + 120
    while not (folder / "checkpoint-000001").exists():
        assert process.poll() is None and time.monotonic() < until, finish(process)
        time.sleep(0.01)
    kill(process)
    assert not (folder / "done.json").exists(), "killed too late for this test to say anything"
    shutil.copytree(folder, mine.folder, dirs_exist_ok=True)

    process = launch(tmp_path, *command)
    text = finish(process)
    assert process.returncode == 0, text
    assert text.count("processes: 2") == 1 and "3 of 3: " in text and "1 of 3: " not in text
    uninterrupted = two / "cache" / folder.name
    assert metrics(folder) == metrics(uninterrupted)
    for name in ("policy/model.safetensors", "trajectories.jsonl", "trajectories/000002.jsonl"):
        assert (folder / name).read_bytes() == (uninterrupted / name).read_bytes(), name
    assert not [path for path in folder.rglob("*") if path.suffix in (".pt", ".bin", ".pth", ".pkl")]

    mine.train()
    assert_close(policy_of(mine.folder), policy_of(folder))


def test_a_batch_that_is_no_multiple_is_refused_before_anything(outputs, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "1")
    file = tmp_path / "small.yaml"
    file.write_text(yaml.dump({"env": "sokoban", "grpo": SMALL}))
    assert main(["train", "--params", str(file), "--arm", "grpo"]) == 1
    said = "Process 1: games_per_iteration: got 4; allowed with 3 processes: a multiple of 3"
    assert said in capsys.readouterr().err and not list(outputs.iterdir())
    assert main(["evidence", "--status"]) == 1
    assert "evidence: started in 3 processes; allowed: one, or train" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="kind 'preference' with 2 processes; allowed: one"):
        starts.Preference().check_processes()
    with pytest.raises(ValueError, match="batch_size: got 7; allowed with 2 processes: a multiple of 2"):
        starts.Stages((starts.Warmup(), starts.Imitation(batch_size=7))).check_processes()


def test_an_interrupt_of_another_process_ends_this_one_too(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "everyone", lambda x: [x, [True, False]] if x == [False, False] else [x])
    with pytest.raises(KeyboardInterrupt, match="1 of 2 iterations are kept"):
        run(settings(games_per_iteration=1), run_dir=tmp_path)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-000001"]


@pytest.mark.parametrize("config", sorted(path.name for path in CONFIGS.iterdir()))
def test_accelerate_reads_its_configurations(config, monkeypatch):
    """By its own classes, which refuse unknown keys, as far as it goes without a GPU and without DeepSpeed."""
    found, given = load_config_from_file(str(CONFIGS / config)), arguments(config)
    assert found.num_processes == given.num_processes == 2
    assert (given.multi_gpu, given.use_fsdp, given.use_deepspeed) == {
        "cpu.yaml": (True, False, False), "gpus.yaml": (True, False, False), "fsdp.yaml": (False, True, False),
        "deepspeed.yaml": (False, False, True),
    }[config]  # fmt: skip
    assert found.use_cpu == (config == "cpu.yaml")
    if given.use_deepspeed:
        given.deepspeed_fields_from_accelerate_config = ",".join(found.deepspeed_config)
        for name, value in prepare_deepspeed_cmd_env(given)[1].items():
            if name.startswith("ACCELERATE_"):
                monkeypatch.setenv(name, value)
        plugin = DeepSpeedPlugin()
        assert plugin.zero_stage == 2 and plugin.deepspeed_config["gradient_clipping"] == "auto"
        assert HfDeepSpeedConfig(plugin.deepspeed_config).is_zero2()
    elif given.use_fsdp:
        for name, value in prepare_multi_gpu_env(given).items():
            if "FSDP" in name:
                monkeypatch.setenv(name, value)
        plugin = FullyShardedDataParallelPlugin()
        assert plugin.fsdp_version == 2 and plugin.reshard_after_forward and not plugin.cpu_ram_efficient_loading
    assert processes.in_pieces() == (given.use_deepspeed or given.use_fsdp)


def test_pieces_without_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="accelerate: got FSDP or DeepSpeed, but NO here; allowed: on GPUs"):
        run(settings())
