"""What every test starts from: no network, one thread, outputs in a temporary folder."""

import os
import signal

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run in two processes

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in what a shell starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

from sglib.records import Trajectory, Turn


@pytest.fixture(autouse=True)
def outputs(tmp_path_factory, monkeypatch):
    """Nothing that a test runs writes into the repository's outputs/."""
    folder = tmp_path_factory.mktemp("outputs")
    monkeypatch.setenv("SGLIB_OUTPUT", str(folder))
    return folder


@pytest.fixture
def trajectory() -> Trajectory:
    """Three turns with everything in them: guidance, rewards, an inadmissible action, a parse failure."""
    turns = [
        Turn("You are in a room.", "raw 1", "go to shelf 1", True, guidance="look on the shelf", label="positive",
             distance=3, rewards={"self_guide": 0.1}, advantage=0.5, span=(0, 4)),
        Turn("On the shelf 1, you see a mug 1.", "raw 2", "take cup 9 from shelf 1", False, guidance="take it",
             label="negative", distance=2, rewards={"self_guide": -0.1}, advantage=-0.25, span=(6, 9)),
        Turn("Nothing happens.", "mumble", "", False, parse_error="no_action", distance=2, reward=0.0, span=(11, 12)),
    ]  # fmt: skip
    return Trajectory(
        "game-1", "pick_and_place_simple", "put a mug in desk.", "guide", turns, final_observation="The end.",
        final_distance=2, prompt_ids=[1, 2], completion_ids=[3] * 12, mask=[1] * 12, logprobs=[-0.5] * 12,
        total_return=0.125,
    )  # fmt: skip
