"""TRL's DPO on pairs of token ids, on the shipped base model."""

import copy
import math

import numpy as np
import pytest
import torch

import sglib
from sglib.envs.alfworld import generate_games
from sglib.rewards.step_agent import Pair, implicit_loss, inspect_steps
from sglib.training.dpo import dpo


@pytest.fixture(scope="module")
def base():
    return sglib.load_policy("base", device="cpu")


@pytest.fixture(scope="module")
def pairs(base):
    found, _ = inspect_steps(base, generate_games(4, seed=3, max_receptacles=6), seed=0)
    return found[:10]


@torch.no_grad()
def logps(policy, pairs):
    """(2, N): log-probabilities of the expert's and of the policy's answers, one plain forward pass each."""
    rows = []
    for name in ("expert_ids", "agent_ids"):
        rows.append([])
        for pair in pairs:
            answer = getattr(pair, name)
            logits = policy.model(torch.tensor([pair.prompt_ids + answer])).logits[0, len(pair.prompt_ids) - 1 : -1]
            rows[-1].append(logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum().item())
    return np.array(rows)


@pytest.mark.parametrize(("lora", "micro"), [(None, 8), (None, 2), ({"r": 4, "lora_dropout": 0.1}, 8)])
def test_trl_minimises_the_implicit_loss(base, pairs, lora, micro):
    """All pairs in one step. Before it the loss is log 2, after it what `implicit_loss` makes of the log-probabilities
    under the trained policy and the one before; a wrong reference, mask or pairing would show in the second step."""
    pairs = pairs[:8]
    if lora:
        base = sglib.load_policy("base", lora=lora, device="cpu")
        base.model.eval()
    policy, again = copy.deepcopy(base), copy.deepcopy(base)
    before = logps(policy, pairs)
    dpo(policy, pairs, beta=0.5, learning_rate=2e-4, batch_size=8, micro_batch_size=micro)
    after = logps(policy, pairs)
    history = dpo(again, pairs, beta=0.5, epochs=2, learning_rate=2e-4, batch_size=8, micro_batch_size=micro)
    assert [h["step"] for h in history] == [1, 2]
    assert history[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    expected = implicit_loss(*after, *before, beta=0.5)
    assert history[1]["loss"] == pytest.approx(expected, abs=1e-4) and expected < math.log(2) - 0.001
    margins = 0.5 * ((after - before)[0] - (after - before)[1])
    assert history[1]["margin"] == pytest.approx(margins.mean(), abs=1e-4)
    assert history[1]["accuracy"] == pytest.approx((margins > 0).mean())
    assert history[1]["logp_expert"] == pytest.approx(after[0].mean(), abs=1e-3)
    assert history[1]["logp_agent"] == pytest.approx(after[1].mean(), abs=1e-3)


def test_the_expert_becomes_likelier_than_the_own_answer(base, pairs):
    policy = copy.deepcopy(base)
    before = logps(policy, pairs)
    history = dpo(policy, pairs, epochs=4, batch_size=5)
    gain = logps(policy, pairs) - before
    assert len(history) == 8 and history[-1]["loss"] < history[0]["loss"]
    assert (gain[0] > gain[1]).all() and gain[0].mean() > 0.1 and gain[1].mean() < -0.1
    assert "forward" not in policy.model.__dict__ and not policy.model.training


def test_same_seed_same_weights_and_lora_leaves_the_base(base, pairs):
    def trained(seed):
        torch.manual_seed(0)
        policy = sglib.load_policy("base", lora={"r": 2, "lora_dropout": 0.1}, device="cpu")
        before = {n: p.detach().clone() for n, p in policy.model.named_parameters()}
        dpo(policy, pairs[:4], seed=seed, batch_size=2, learning_rate=1e-3)
        after = dict(policy.model.named_parameters())
        assert set(after) == set(before) and list(policy.model.peft_config) == ["default"]
        assert all(torch.equal(before[n], after[n]) for n in after if "lora_" not in n)
        assert all(after[n].requires_grad == ("lora_" in n) for n in after)
        assert any(getattr(m, "p", 0) == 0.1 for m in policy.model.modules())  # dropout is as it was
        return torch.cat([p.flatten() for n, p in after.items() if "lora_" in n])

    assert torch.equal(trained(0), trained(0)) and not torch.equal(trained(0), trained(1))


PAIR = Pair([2, 3], [4, 1], [5, 1], "a", "b", "game", 0)


@pytest.mark.parametrize(
    ("pairs", "options", "message"),
    [
        ([], {}, "pairs: got none"),
        ([PAIR, PAIR._replace(expert_ids=[])], {}, r"pairs\[1\]: expert_ids is empty"),
        ([PAIR._replace(prompt_ids=[])], {}, r"pairs\[0\]: prompt_ids is empty"),
        ([PAIR._replace(agent_ids=[4, 1])], {}, r"pairs\[0\]: both answers are the same"),
        ([PAIR], {"epochs": 0}, "epochs: got 0"),
        ([PAIR], {"batch_size": 0}, "batch_size: got 0"),
        ([PAIR], {"beta": 0.0}, "beta: got 0.0"),
    ],
)
def test_errors(base, pairs, options, message):
    with pytest.raises(ValueError, match=message):
        dpo(base, pairs, **options)
