"""Every benchmark runs: a smoke run of each, which checks the work that it compares but measures nothing."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize("name", sorted(path.stem for path in BENCHMARKS.glob("*.py")))
def test_smoke_run(name, tmp_path, monkeypatch, capsys):
    """In this process: what a benchmark imports takes longer than its smoke run."""
    out, threads = tmp_path / "out.json", torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", [str(BENCHMARKS / f"{name}.py"), "--quick", "--out", str(out)])
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    try:
        runpy.run_path(str(BENCHMARKS / f"{name}.py"), run_name="__main__")
    except SystemExit as end:
        assert not end.code
    finally:
        torch.set_num_threads(threads)
    told = capsys.readouterr().out
    assert " x" in told or " s" in told
    assert json.loads(out.read_text())
