"""The short form of `make chaos`; the long one is run by hand."""

import json
import subprocess
import sys
from pathlib import Path

import fuzzing
import pytest


@pytest.mark.slow
def test_nothing_is_lost(tmp_path):
    command = [sys.executable, str(Path(__file__).with_name("chaos.py")), "--short", "--out", str(tmp_path / "x.json")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["trials"] == found["survived"] > 1000 and found["records_lost"] == 0
    assert {row["part"] for row in found["rows"]} == {"kills", "disk", "two at once", "fuzz", "soak"}


@pytest.mark.parametrize("name", sorted(path.name for path in (Path(__file__).parent / "corpus").iterdir()))
def test_what_was_found_once_is_read_or_refused_by_name(name):
    name = name.replace("_", " ")
    found = {text: fuzzing.tried(fuzzing.targets()[name], text) for text in fuzzing.corpus(name)}
    assert found and not any(found.values()), found
