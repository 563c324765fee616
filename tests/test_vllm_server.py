"""vLLM as a server: a stand-in with its interface on this machine always, vLLM itself where it is installed, here or in
an environment of its own whose Python the variable SGLIB_VLLM_PYTHON names."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from test_vllm import GAMES, REAL, TOLERANCE, WAY, StandIn, check_same_episodes, step

import sglib
from sglib.experiments.experiment import Experiment
from sglib.experiments.params import GRPOParams
from sglib.models import vllm_server
from sglib.models.tiny import write_tiny_qwen3
from sglib.models.vllm_server import EngineError, VLLMServer, check_server

PYTHON = os.environ.get("SGLIB_VLLM_PYTHON") or (sys.executable if REAL else None)
MODES = {"logprobs_mode": "processed_logprobs", "dtype": "torch.float32", "max_model_len": 2048}


class Server:
    """What is used of a vLLM server in development mode, by the model's own forward. `instead` of what it would answer
    to a path: (status, bytes)."""

    def __init__(self, folder):
        self.stand_in, self.lock, self.instead, self.asked = StandIn(folder), threading.Lock(), {}, []
        self.keeps = "no such name"  # a part of the names of weights that it does not load
        self.info = {
            "model_config": dict(MODES), "device_config": {"device": "cpu"},
            "scheduler_config": {"enable_chunked_prefill": False},
        }  # fmt: skip
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.do_POST()

            def do_POST(self):
                path = self.path.partition("?")[0]
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
                with outer.lock:
                    outer.asked.append((path, body))
                    status, data = outer.instead.get(path) or (200, json.dumps(outer.answer(path, body)).encode())
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        self.address = f"http://127.0.0.1:{self.http.server_port}"

    def answer(self, path, body):
        model = self.stand_in.model
        if path == "/v1/models":
            return {"data": [{"id": "tiny"}]}
        if path == "/server_info":
            return {"vllm_config": self.info}
        if path == "/collective_rpc":
            assert body["method"] == "reload_weights"
            weights = load_file(Path(body["kwargs"]["weights_path"]) / "model.safetensors")
            assert "lm_head.weight" in weights, "a tied head, too: on a CPU vLLM keeps a copy of its own"
            kept = {name: weight for name, weight in weights.items() if self.keeps not in name}
            model.load_state_dict(kept, strict=False)
            return {"results": [None]}
        if path == "/reset_prefix_cache":
            return {"success": True}
        if path == "/weight_checker":  # on a CPU vLLM packs what is no norm, and says the hash of nothing
            parts = {n: p.detach().numpy().tobytes() if "norm" in n else b"" for n, p in model.named_parameters()}
            return {"checksums": {f"dp0:tp0:{n}": hashlib.sha256(part).hexdigest() for n, part in parts.items()}}
        assert path == "/v1/completions" and body["model"] == "tiny" and body["return_token_ids"]
        how = SimpleNamespace(**body)
        ((answer,),) = (f.outputs for f in self.stand_in.generate([{"prompt_token_ids": body["prompt"]}], [how], False))
        logprobs = [each[token].logprob for token, each in zip(answer.token_ids, answer.logprobs, strict=True)]
        return {"choices": [{"token_ids": answer.token_ids, "logprobs": {"token_logprobs": logprobs}}]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_qwen3(tmp_path_factory.mktemp("qwen3"), "alfworld")


@pytest.fixture
def server(folder, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    made = Server(folder)
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.fixture(scope="module")
def real(folder, tmp_path_factory):
    """The address of a vLLM server, which takes a minute to start."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [
        PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--host", "127.0.0.1",
        "--port", str(port), "--dtype", "float32", "--enforce-eager", "--logprobs-mode", "processed_logprobs",
        "--no-enable-chunked-prefill", "--max-num-batched-tokens", "4096",
    ]  # fmt: skip
    more = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    log = tmp_path_factory.mktemp("vllm") / "log"
    with log.open("w") as out:
        process = subprocess.Popen(command, env=kept | more, stdout=out, stderr=subprocess.STDOUT, cwd=log.parent)
    try:
        for _ in range(600):
            assert process.poll() is None, log.read_text()[-3000:]
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(params=["stand-in", pytest.param("vllm", marks=pytest.mark.skipif(not PYTHON, reason="no vLLM here"))])
def address(request):
    return request.getfixturevalue("server").address if request.param == "stand-in" else request.getfixturevalue("real")


def test_the_same_episodes_and_log_probabilities_before_and_after_a_step(folder, address):
    check_same_episodes(sglib.load_policy(folder, env="alfworld", engine="vllm", server=address))


def test_two_iterations_on_weights_that_the_server_was_given(folder, address):
    policy = sglib.load_policy(folder, env="alfworld", engine="vllm", server=address)
    for _ in range(2):
        row, batch = step(policy, temperature=0.7)
        assert row["logprob_gap"] < TOLERANCE and row["grad_norm"] > 0
        assert len({tuple(t.completion_ids) for t in batch}) == 4, "every episode has a seed of its own"
    again = sglib.rollout(policy, GAMES, format="act", temperature=1.0, **WAY)
    assert [t.completion_ids for t in sglib.rollout(policy, GAMES, format="act", temperature=1.0, **WAY)] == [
        t.completion_ids for t in again
    ], "the same seeds, the same answers"


def test_an_adapter_is_merged_in_what_the_server_loads(folder, server):
    policy = sglib.load_policy(folder, env="alfworld", lora=True, engine="vllm", server=server.address)
    row, _ = step(policy)
    policy.engine.take_weights(policy)
    ids = torch.tensor([policy.prompt_ids([{"role": "user", "content": "look"}])])
    told = server.stand_in.model(ids).logits
    assert torch.allclose(told, policy.model(ids).logits, atol=1e-5) and row["grad_norm"] > 0
    assert not torch.allclose(told, sglib.load_policy(folder, env="alfworld").model(ids).logits, atol=1e-5)


def test_a_text_has_at_most_what_the_server_reads_and_files_are_taken_away(folder, server):
    policy = sglib.load_policy(folder, env="alfworld", engine="vllm", server=f"{server.address}/")
    assert policy.limit == 2048 < sglib.load_policy(folder, env="alfworld").limit
    policy.engine.take_weights(policy)
    written = Path(policy.engine._folder)
    assert (written / "model.safetensors").exists()
    policy.engine = None
    assert not written.exists()


@pytest.mark.parametrize(
    ("server", "engine", "message"),
    [
        ("127.0.0.1:8000", "vllm", r"server='127.0.0.1:8000': allowed: http://HOST:PORT of a vLLM server, or None"),
        ("ftp://host", "vllm", "server='ftp://host': allowed: http"),
        ("http://", "vllm", "server='http://': allowed: http"),
        ("http://host:x", "vllm", "server='http://host:x': allowed: http"),
        ("http://host/?key=1", "vllm", "allowed: http"),
        ("http://ho\nst", "vllm", "allowed: http"),
        ("http://host", None, "server='http://host': engine is None; allowed: with engine='vllm'"),
    ],
)
def test_an_address_is_checked_before_anything_is_loaded(server, engine, message):
    with pytest.raises(ValueError, match=message):
        sglib.load_policy("no such model", engine=engine, server=server)
    with pytest.raises(ValueError, match=message):
        GRPOParams(env="alfworld", engine=engine, server=server)


def test_an_address_may_hold_a_secret_which_is_not_shown():
    with pytest.raises(ValueError, match="allowed") as found:
        check_server("http://me:secret@host")
    assert "secret" not in str(found.value)
    with pytest.raises(ValueError, match="an endpoint has no weights: allowed without .*server"):
        sglib.load_policy("endpoint:http://localhost:1/v1#x", server="http://localhost:1")


def test_several_processes_are_refused(folder, monkeypatch):
    policy = sglib.load_policy(folder, env="alfworld")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="engine='vllm' with 2 processes; allowed: one"):
        VLLMServer(policy, "http://127.0.0.1:1")


def one_line(error) -> str:
    text = str(error.value)
    assert text.startswith("engine='vllm', server='http://127.0.0.1:") and len(text) < 700
    assert text.isprintable(), "one line, and nothing in it moves a terminal's cursor"
    return text


def test_no_server(folder):
    with pytest.raises(EngineError) as error:
        sglib.load_policy(folder, env="alfworld", engine="vllm", server="http://127.0.0.1:9")
    assert "/v1/models: no answer: [Errno 111] Connection refused" in one_line(error)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("model_config", "logprobs_mode", "raw_logprobs"), "logprobs_mode='raw_logprobs'; allowed: --logprobs-mode"),
        (("model_config", "dtype", "torch.int8"), "dtype='torch.int8'; allowed: torch.float32"),
        (("scheduler_config", "enable_chunked_prefill", True), "allowed: --no-enable-chunked-prefill .*tokens 2048"),
        (("model_config", "max_model_len", None), "does not describe itself as vLLM 0.32"),
        (("model_config", "max_model_len", "\x1b[2J\n" * 999), "does not describe itself as vLLM 0.32"),
    ],
)
def test_a_server_with_other_options(folder, server, change, message):
    part, name, value = change
    server.info[part][name] = value
    with pytest.raises(EngineError, match=message) as error:
        sglib.load_policy(folder, env="alfworld", engine="vllm", server=server.address)
    one_line(error)


def test_a_server_that_is_not_in_development_mode(folder, server):
    server.instead["/server_info"] = 404, b'{"detail":"Not Found"}'
    with pytest.raises(EngineError, match="HTTP 404.*VLLM_SERVER_DEV_MODE=1") as error:
        sglib.load_policy(folder, env="alfworld", engine="vllm", server=server.address)
    one_line(error)


def test_a_server_of_another_model_is_not_told_to_load(folder, server):
    with pytest.raises(EngineError, match="it serves 'tiny', whose 9 weights .* are not the 17 of 'base'; allowed"):
        sglib.load_policy("base", env="alfworld", engine="vllm", server=server.address)
    assert "/collective_rpc" not in [path for path, _ in server.asked]


@pytest.mark.parametrize(
    ("path", "instead", "message"),
    [
        ("/collective_rpc", (500, b'{"error":{"message":"size mismatch\x1b[2J"}}'), "does not load .*size mismatch"),
        ("/collective_rpc", (200, b'{"results":[null]}'), "9 of the 9 weights that were compared are others"),
        ("/reset_prefix_cache", (200, b'{"success":false}'), "keeps its cache of prefixes"),
        ("/weight_checker", (200, b'{"checksums":[1]}'), "whose 0 weights"),
        ("/weight_checker", (404, b""), "HTTP 404.*vLLM 0.32 or newer"),
    ],
)
def test_weights_that_a_server_does_not_take(folder, server, path, instead, message):
    policy = sglib.load_policy(folder, env="alfworld", engine="vllm", server=server.address)
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight += 0.01
    server.instead[path] = instead
    with pytest.raises(EngineError, match=message) as error:
        sglib.rollout(policy, GAMES, **WAY)
    one_line(error)


def test_a_server_that_loads_a_part(folder, server):
    """The norms are right, the rest is that of before."""
    policy = sglib.load_policy(folder, env="alfworld", engine="vllm", server=server.address)
    step(policy)
    sglib.rollout(policy, GAMES, **WAY)
    server.keeps = "mlp"
    step(policy)
    with pytest.raises(EngineError, match=r"its log-probabilities are [0-9.]+ from the model's; allowed: 0.001"):
        sglib.rollout(policy, GAMES, **WAY)


def completion(tokens, logprobs) -> bytes:
    return json.dumps({"choices": [{"token_ids": tokens, "logprobs": {"token_logprobs": logprobs}}]}).encode()


HOSTILE = [
    b"", b"null", b"[]", b"7", b'"\x1b[2J"', b"{}", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000,
    b'{"choices":[]}', b'{"choices":{"a":1}}', b'{"choices":[7]}', b'{"choices":[{"token_ids":null}]}',
    b'{"choices":[{"token_ids":{"a":1},"logprobs":{"token_logprobs":{"a":1}}}]}',
    completion([], []), completion([5] * 6, [-1.0] * 5), completion([5] * 7, [-1.0] * 7), completion([5], [-1.0]),
    completion(["5"] * 6, [-1.0] * 6), completion([True] * 6, [-1.0] * 6), completion([-1] * 6, [-1.0] * 6),
    completion([10**9] * 6, [-1.0] * 6), completion([5] * 6, [None] * 6), completion([5] * 6, ["x"] * 6),
    completion([5] * 6, [float("nan")] * 6), completion([5] * 6, [float("-inf")] * 6), completion([5] * 6, [1.0] * 6),
    completion([5] * 6, [-(10**400)] * 6), completion("555555", "555555"),
]  # fmt: skip


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("path", ["/v1/models", "/server_info", "/weight_checker", "/v1/completions"])
def test_whatever_a_server_answers_ends_in_one_line(folder, server, path, body):
    server.instead[path] = 200, body
    with pytest.raises(EngineError) as error:
        policy = sglib.load_policy(folder, env="alfworld", engine="vllm", server=server.address)
        sglib.rollout(policy, GAMES, **WAY)
    one_line(error)


def test_a_stop_token_in_the_middle_is_no_answer(folder, server):
    policy = sglib.load_policy(folder, env="alfworld", engine="vllm", server=server.address)
    server.instead["/v1/completions"] = 200, completion([policy.stop_ids[0]] * 6, [-1.0] * 6)
    with pytest.raises(EngineError, match="answers otherwise than asked"):
        sglib.rollout(policy, GAMES, **WAY)


def test_an_answer_without_an_end_is_not_read_to_it(folder, server, monkeypatch):
    policy = sglib.load_policy(folder, env="alfworld", engine="vllm", server=server.address)
    monkeypatch.setattr(vllm_server, "MOST", 100)
    server.instead["/v1/completions"] = 200, b'{"choices":"' + b"a" * 10_000 + b'"}'
    with pytest.raises(EngineError, match="no JSON object") as error:
        sglib.rollout(policy, GAMES, **WAY)
    one_line(error)


def test_where_the_server_is_does_not_decide_a_result():
    here, there, neither = {"engine": "vllm"}, {"engine": "vllm", "server": "http://127.0.0.1:8000"}, {}
    keys = [Experiment("grpo", GRPOParams(env="alfworld", **more)).key for more in (here, there, neither)]
    assert keys[0] == keys[1] != keys[2]
