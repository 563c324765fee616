"""Every benchmark runs: a smoke run of each, which checks the work that it compares but measures nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize("name", sorted(path.stem for path in BENCHMARKS.glob("*.py")))
def test_smoke_run(name, tmp_path):
    out = tmp_path / "out.json"
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--quick", "--out", str(out)]
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, cwd=tmp_path)
    assert run.returncode == 0, run.stderr[-3000:]
    assert " x" in run.stdout or " s" in run.stdout
    assert json.loads(out.read_text())
