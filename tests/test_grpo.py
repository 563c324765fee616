"""The trainer on a tiny random Qwen3 and synthetic rollouts: no environment, no game."""

import copy
import dataclasses
import json
import os
import shutil
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

import sglib
from sglib.experiments.experiment import run_card
from sglib.experiments.params import GRPOParams
from sglib.measure.batch import batch_metrics, cut_answers, trouble
from sglib.records import Trajectory, Turn
from sglib.rewards import Constant, InverseReward, Outcome, SelfGuide, combine
from sglib.training import forward, grpo
from sglib.training.grpo import GRPOSettings, draw_games, train
from sglib.training.trainer import by_length, micro_batch_sizes, split, spread

VOCABULARY, PAD, EOS, BEGIN, LOOK, GOOD = 16, 0, 1, 2, 3, range(4, 10)


def make_policy(seed=0):
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=128, tie_word_embeddings=True, pad_token_id=PAD,
        eos_token_id=EOS, bos_token_id=None,
    )  # fmt: skip
    core = Tokenizer(models.WordLevel({f"t{i}": i for i in range(VOCABULARY)}, unk_token="t0"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="t0", eos_token="t1", unk_token="t0")
    return SimpleNamespace(model=Qwen3ForCausalLM(config).float(), tokenizer=tokenizer, device=torch.device("cpu"))


class Game(int):
    id, env = property(str), "alfworld"


@torch.no_grad()
def bandit_rollout(policy, games, *, group, seed, temperature, turns=3, **_):
    """Each turn: the environment writes LOOK once or twice, the policy one token. Won if the last token is in GOOD.

    The label is "positive" where the token before was in GOOD, so SelfGuide rewards it too.
    """
    generator = torch.Generator().manual_seed(seed)
    trajectories = []
    for number, game in enumerate(games):
        for _ in range(group):
            ids = [BEGIN] * (1 + game % 3)
            t = Trajectory(str(game), "bandit", "goal", "act", group=number, seed=seed, prompt_ids=list(ids))
            for step in range(1 + (game + len(trajectories)) % turns):
                logits = policy.model(torch.tensor([ids])).logits[0, -1] / temperature
                token = int(torch.multinomial(logits.softmax(-1), 1, generator=generator))
                label = "positive" if t.turns and int(t.turns[-1].action) in GOOD else "negative"
                start = len(t.completion_ids)
                t.turns.append(Turn("look", str(token), str(token), True, label=label, span=(start, start + 1)))
                look = [LOOK] * (1 + step % 2)
                t.completion_ids += [token, *look]
                t.mask += [1] + [0] * len(look)
                t.logprobs += [float(logits.log_softmax(-1)[token])] + [0.0] * len(look)
                ids += [token, *look]
            t.won = int(t.turns[-1].action) in GOOD
            trajectories.append(t)
    return trajectories


def settings(**changes):
    defaults = {"iterations": 2, "games_per_iteration": 2, "group_size": 4, "max_turns": 3, "learning_rate": 1e-2}
    defaults |= {"lr_schedule": "constant", "loss_type": "dapo"}  # the plain forms, which are written out below
    return GRPOSettings(**{**defaults, "micro_batch_size": 4, **changes})


def weights(policy):
    return {name: p.detach().clone() for name, p in policy.model.named_parameters()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


OUTCOME = [Outcome()]


def run(options, components=OUTCOME, seed=0, **kwargs):
    policy = make_policy(seed)
    result = train(policy, list(map(Game, range(6))), options, components, **{"rollout_fn": bandit_rollout, **kwargs})
    return policy, result


class OneStep(grpo.Training):
    """Keeps the micro-batches and losses of its run."""

    seen = []

    def _compute_loss(self, model, inputs):
        loss = super()._compute_loss(model, inputs)
        self.seen.append((inputs, loss.detach(), self._last_logps))
        return loss


@pytest.fixture
def spied(monkeypatch):
    OneStep.seen = []
    monkeypatch.setattr(grpo, "Training", OneStep)
    return OneStep.seen


def test_learns_a_bandit():
    policy, result = run(settings(iterations=25, games_per_iteration=4, group_size=8, learning_rate=2e-2))
    success = [m["success"] for m in result.metrics]
    assert np.mean(success[:3]) < 0.6 and np.mean(success[-3:]) > 0.9, success
    assert max(m["logprob_gap"] for m in result.metrics) < 1e-5
    assert all(m["clip_ratio"] == 0 for m in result.metrics)  # one update per batch: the ratio is 1


def test_lambda_zero_is_plain_grpo_bit_for_bit():
    plain, _ = run(settings())
    with_guide, result = run(settings(), [Outcome(), SelfGuide(schedule="zero")])
    rewarded, _ = run(settings(), [Outcome(), SelfGuide(schedule="one")])
    assert same(weights(plain), weights(with_guide))
    assert not same(weights(plain), weights(rewarded))
    assert not same(weights(plain), weights(make_policy()))
    assert [m["lambda/self_guide"] for m in result.metrics] == [0, 0] and result.metrics[0]["reward/self_guide"] == 0


def test_advantages_stay_with_their_sequences(spied):
    """Every sequence of every micro-batch is found among the trajectories with exactly its own tokens' advantages."""
    played = []
    run(settings(iterations=1, games_per_iteration=4), on_iteration=lambda m, t: played.extend(t))
    expected = []
    for t in played:
        logps = [logp for logp, written in zip(t.logprobs, t.mask, strict=True) if written]
        advantages = [turn.advantage for turn in t.turns]  # one policy token per turn
        expected.append((t.prompt_ids + t.completion_ids, pytest.approx(advantages), pytest.approx(logps)))
    found = 0
    assert len(spied) == 4
    for inputs, _, _ in spied:
        for i in range(len(inputs["prompt_ids"])):
            real, policy = inputs["completion_mask"][i].bool(), inputs["tool_mask"][i].bool()
            row = (
                inputs["prompt_ids"][i].tolist() + inputs["completion_ids"][i][real].tolist(),
                inputs["advantages"][i][real & policy].tolist(),
                inputs["sampling_per_token_logps"][i][real & policy].tolist(),
            )
            assert inputs["prompt_mask"][i].all() and inputs["advantages"][i][~(real & policy)].abs().sum() == 0
            expected.remove(next(e for e in expected if all(a == b for a, b in zip(row, e, strict=True))))
            found += 1
    assert found == 16 and not expected
    assert {len({t.advantage for t in trajectory.turns}) for trajectory in played} == {1}  # Eq 8: one per trajectory
    assert len({t.turns[0].advantage for t in played}) > 2


def test_observation_tokens_do_not_enter_the_loss(spied):
    """The gradient there is exactly 0, and changing their log-probabilities and advantages does not change the loss."""
    run(settings(iterations=1))
    inputs = dict(spied[0][0], num_items_in_batch=torch.tensor(8))
    trainer = ChosenLogps(make_policy(), [], settings(iterations=1))
    observations = (inputs["tool_mask"] == 0).nonzero()
    assert len(observations)
    torch.manual_seed(0)
    logps = torch.randn(inputs["completion_ids"].shape, requires_grad=True)
    inputs["advantages"] = torch.randn(logps.shape)
    loss = trainer.loss_at(inputs, logps)
    loss.backward()
    assert all(logps.grad[i, j] == 0 for i, j in observations) and logps.grad.abs().sum() > 0
    changed = logps.detach() + 5 * (inputs["tool_mask"] == 0)
    inputs["advantages"] = inputs["advantages"] + 7 * (inputs["tool_mask"] == 0)
    assert torch.equal(trainer.loss_at(inputs, changed), loss.detach())


class ChosenLogps(grpo.Training):
    """The trainer's own loss on log-probabilities that the test chooses."""

    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        self._last_logps = self.chosen.detach()
        return self.chosen, torch.zeros_like(self.chosen), None

    def loss_at(self, inputs, logps):
        self.chosen = logps
        self.model.train()
        self.current_gradient_accumulation_steps = self.args.gradient_accumulation_steps
        return self._compute_loss(self.model, inputs)


@pytest.mark.parametrize(("loss_type", "expected"), [("dapo", -0.2), ("grpo", -0.533333)])
def test_clipped_loss_worked_by_hand(loss_type, expected):
    """Eq 9 on two sequences, epsilon 0.2: min(ratio * A, clip(ratio, 0.8, 1.2) * A) for each policy token.

    First, A = 2, ratios 1.5, 1.0 (then an observation and padding): min(3, 2.4) + 2 = 4.4.
    Second, A = -1, ratios 0.5, 1.1, 1.5 (then an observation): min(-0.5, -0.8) - 1.1 + min(-1.5, -1.2) = -3.4.
    "dapo", over the 5 tokens: -(4.4 - 3.4) / 5 = -0.2. "grpo": -(4.4 / 2 - 3.4 / 3) / 2 = -0.53333.
    """
    ratios = torch.tensor([[1.5, 1.0, 9.0, 9.0], [0.5, 1.1, 1.5, 9.0]])
    old = torch.full((2, 4), -1.0)
    inputs = {
        "prompt_ids": torch.full((2, 1), BEGIN), "prompt_mask": torch.ones(2, 1, dtype=torch.long),
        "completion_ids": torch.full((2, 4), LOOK), "completion_mask": torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]),
        "tool_mask": torch.tensor([[1, 1, 0, 1], [1, 1, 1, 0]]), "num_items_in_batch": torch.tensor(5),
        "advantages": torch.tensor([[2.0], [-1.0]]).expand(2, 4), "old_per_token_logps": old,
        "sampling_per_token_logps": old,
    }  # fmt: skip
    options = settings(iterations=1, games_per_iteration=1, group_size=2, micro_batch_size=2, loss_type=loss_type)
    loss = ChosenLogps(make_policy(), [], options).loss_at(inputs, old + ratios.log())
    assert float(loss) == pytest.approx(expected, abs=1e-6)


def test_micro_batches_do_not_change_the_update():
    for loss_type in ("dapo", "grpo"):
        whole, _ = run(settings(iterations=1, micro_batch_size=8, loss_type=loss_type))
        parts, _ = run(settings(iterations=1, micro_batch_size=2, loss_type=loss_type))
        assert not same(weights(whole), weights(make_policy()))
        for (name, a), b in zip(weights(whole).items(), weights(parts).values(), strict=True):
            assert torch.allclose(a, b, atol=1e-4), name


@pytest.mark.parametrize("loss_type", ["dapo", "grpo"])
def test_micro_batches_by_tokens_do_not_change_the_update(spied, loss_type):
    """Of unequal numbers of sequences: both losses are normalised over the batch, not over the micro-batch."""
    few = {"iterations": 1, "loss_type": loss_type, "updates_per_batch": 2, "beta": 0.1, "learning_rate": 1e-3}
    whole, expected = run(settings(micro_batch_size=8, **few))
    assert len(spied) == 2 and len(spied[0][0]["advantages"]) == 8
    parts, found = run(settings(tokens_per_micro_batch=20, **few))
    read = [inputs for inputs, _, _ in spied[2:]]
    sizes = [len(inputs["advantages"]) for inputs in read]
    assert len(set(sizes)) > 1 and sum(sizes) == 16 and max(sizes) < 8
    widths = [inputs["prompt_ids"].shape[1] + inputs["completion_ids"].shape[1] for inputs in read]
    assert all(n == 1 or n * width <= 20 for n, width in zip(sizes, widths, strict=True))
    for name in ("loss", "grad_norm", "entropy", "kl", "clip_ratio"):
        assert found.metrics[0][name] == pytest.approx(expected.metrics[0][name], rel=1e-4, abs=1e-6), name
    for (name, a), b in zip(weights(whole).items(), weights(parts).values(), strict=True):
        assert torch.allclose(a, b, atol=1e-5), name


def test_sizes_of_micro_batches():
    """Lengths 9 8 3 3 3 | 7 2 (the last two learn nothing): at most 16 tokens with padding, a longer one alone."""
    lengths = [9, 8, 3, 3, 3, 7, 2]
    assert micro_batch_sizes(lengths, 99, 16) == [1, 2, 2, 2] and micro_batch_sizes(lengths, 1, 5) == [1] * 7
    assert micro_batch_sizes(lengths, 99, 999) == [7] and micro_batch_sizes([5] * 6, 4, None) == [3, 3]
    assert spread([1, 4, 2], 5) == [1, 1, 1, 2, 2] and spread([2, 2], 2) == [2, 2]


@pytest.mark.parametrize("lora", [False, True])
def test_gradient_checkpointing_computes_layers_again_and_the_same(monkeypatch, lora):
    monkeypatch.setattr(forward, "readable", lambda model: False)
    plain, _ = run(settings(iterations=1, lora=lora))
    counts, part = [], type(make_policy().model.model.layers[0].mlp)
    original = part.forward

    def counted(self, x):
        counts.append(self.training)
        return original(self, x)

    monkeypatch.setattr(part, "forward", counted)
    run(settings(iterations=1, lora=lora))
    once, counts[:] = sum(counts), []
    policy, _ = run(settings(iterations=1, lora=lora, gradient_checkpointing=True))
    assert sum(counts) == 2 * once > 0
    base = policy.model.get_base_model() if lora else policy.model
    assert not base.is_activation_checkpointing and not getattr(base, "_require_grads_hooks", None)
    assert not lora or any(tensor.any() for name, tensor in weights(policy).items() if "lora_B" in name)
    for (name, a), b in zip(weights(plain).items(), weights(policy).values(), strict=True):
        assert torch.allclose(a, b, atol=1e-6), name


def test_answers_without_their_end_are_counted():
    t = Trajectory("g", "pick", "goal", "act", completion_ids=[5, 1, 9, 5, 6], mask=[1, 1, 0, 1, 1])
    t.turns = [Turn("o", "r", "a", True, span=(0, 2)), Turn("o", "r", "a", True, span=(3, 5))]
    assert cut_answers([t], [1, 2]) == 0.5 and cut_answers([t], [1, 6]) == 0
    assert cut_answers([Trajectory("g", "pick", "goal", "act", turns=[Turn("o", "r", "a", True)])], [1]) is None


@pytest.mark.parametrize("lean", [True, False])
@pytest.mark.parametrize("updates", [1, 2])
def test_update_equals_one_written_in_plain_pytorch(monkeypatch, lean, updates):
    """The whole path (rollout, Eq 6, Eq 8, Eq 9, AdamW) against plain PyTorch on the same episodes, sequence by
    sequence without padding; every episode of the first game is won, so half the micro-batches have no advantage."""
    if not lean:
        monkeypatch.setattr(forward, "readable", lambda model: False)
    options, played = settings(
        iterations=1, max_grad_norm=0.0, learning_rate=1e-3, temperature=0.7, updates_per_batch=updates, epsilon=1e-3,
        micro_batch_size=2,
    ), []  # fmt: skip
    policy, result = run(options, on_iteration=lambda m, t: played.extend(t), rollout_fn=first_game_won)
    bare, old = make_policy().model, {}
    optimizer = torch.optim.AdamW(bare.parameters(), lr=1e-3, weight_decay=0.0)
    returns = np.array([10.0 * t.won for t in played]).reshape(2, 4)
    assert (returns.std(1) > 0).tolist() == [False, True]
    advantages = (returns - returns.mean(1, keepdims=True)) / (returns.std(1, ddof=1, keepdims=True) + 1e-4)
    total = sum(sum(t.mask) for t in played)
    for _ in range(updates):
        loss, entropy = 0.0, 0.0
        for t, advantage in zip(played, advantages.flatten().tolist(), strict=True):
            ids = torch.tensor([t.prompt_ids + t.completion_ids])
            every = (bare(ids).logits[0, len(t.prompt_ids) - 1 : -1] / 0.7).log_softmax(-1)
            logps = every.gather(1, ids[0, len(t.prompt_ids) :, None])[:, 0]
            ratio = (logps - old.setdefault(id(t), logps.detach())).exp()
            surrogate = torch.min(ratio * advantage, ratio.clamp(0.999, 1.001) * advantage)
            loss = loss - (surrogate * torch.tensor(t.mask)).sum() / total
            entropy -= float(((every.exp() * every).sum(1) * torch.tensor(t.mask)).sum().detach()) / total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for (name, a), b in zip(weights(policy).items(), bare.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-4), name
    assert (result.metrics[0]["clip_ratio"] > 0) == (updates > 1)
    if updates == 1:
        assert result.metrics[0]["entropy"] == pytest.approx(entropy, rel=1e-4)


def first_game_won(policy, games, *, group, **kwargs):
    trajectories = bandit_rollout(policy, games, group=group, **kwargs)
    for t in trajectories[:group]:
        t.won = True
    return trajectories


@pytest.mark.parametrize(
    ("changes", "gradients"),
    [
        ({}, [True, False]),
        ({"updates_per_batch": 2}, [True, False] * 2),
        ({"beta": 0.1}, [False, True] * 2),
        ({"beta": 0.1, "updates_per_batch": 2}, [False, True] * 2 + [True] * 2),
        ({"beta": 0.1, "updates_per_batch": 2, "lora": True}, [False, True] * 2 + [True] * 2),
    ],
)
def test_each_micro_batch_is_read_once_a_step(monkeypatch, changes, gradients):
    """And once more, at its first step, for the KL term. Without that the second micro-batch (the game that is always
    won) needs no gradient. Read by the model's own forward and TRL, the weights become the same."""
    options, calls, read = settings(iterations=1, learning_rate=1e-3, **changes), [], forward.policy_logps

    def counted(*args):
        calls.append(torch.is_grad_enabled())
        return read(*args)

    monkeypatch.setattr(forward, "policy_logps", counted)
    lean, _ = run(options, rollout_fn=first_game_won)
    assert calls == gradients
    monkeypatch.setattr(forward, "readable", lambda model: False)
    own, _ = run(options, rollout_fn=first_game_won)
    assert calls == gradients
    for (name, a), b in zip(weights(lean).items(), weights(own).values(), strict=True):
        assert torch.allclose(a, b, atol=2e-5), name


def test_a_batch_without_advantages_is_a_step_with_gradients_of_zero():
    """Not one without gradients, which would leave AdamW's weight decay and moments out."""
    policy, _ = run(
        settings(iterations=1, games_per_iteration=1, weight_decay=0.1, learning_rate=0.1), rollout_fn=first_game_won
    )
    for (name, a), b in zip(weights(policy).items(), weights(make_policy()).values(), strict=True):
        assert torch.allclose(a, 0.99 * b) or "norm" in name, name
        assert not torch.equal(a, b) or "norm" in name


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
def test_policy_logps_equal_the_models_own(lora, threads):
    """Values, entropies and gradients, on rows longer than a block of attention, with padding, observations, a row
    that wants one token and one that wants none."""
    model, before = make_policy().model, torch.get_num_threads()
    if lora:
        model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    torch.manual_seed(0)
    lengths = torch.tensor([100, 90, 70, 70, 3, 2, 2])
    ids = torch.randint(1, VOCABULARY, (7, 100)) * (torch.arange(100) < lengths[:, None])
    wanted = (torch.rand(7, 100) < 0.3) & (ids > 0)
    wanted[:, 0], wanted[4, 1:], wanted[5, 1] = False, False, True
    every = (model(ids).logits[:, :-1] / 0.7).log_softmax(-1)
    expected = [every.gather(2, ids[:, 1:, None])[:, :, 0], -(every.exp() * every).sum(2)]
    expected = [torch.nn.functional.pad(x, (1, 0)) * wanted for x in expected]
    weight = torch.randn(7, 100)
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad((expected[0] * weight).sum(), parameters)
    torch.set_num_threads(threads)
    try:
        assert forward.readable(model)
        logps, entropies = forward.policy_logps(model, ids, wanted, 0.7)
        found = torch.autograd.grad((logps * weight).sum(), parameters)
        assert torch.get_num_threads() == threads and not entropies.requires_grad
        with torch.no_grad():
            assert torch.equal(forward.policy_logps(model, ids, wanted, 0.7)[0], logps)
    finally:
        torch.set_num_threads(before)
    assert torch.allclose(logps, expected[0], atol=1e-5) and torch.allclose(entropies, expected[1], atol=1e-5)
    for a, b in zip(found, gradients, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))


def test_other_models_are_read_by_their_own_forward():
    model = make_policy().model
    assert forward.readable(model) and not forward.readable(copy.deepcopy(model).bfloat16())
    model.config.layer_types = ["full_attention", "sliding_attention"]
    assert not forward.readable(model)


LINEAR = {"lr_schedule": "linear", "updates_per_batch": 2}


CHANGES = [{}, {"updates_per_batch": 2}, LINEAR, {"beta": 0.1}, {"lora": True, "lora_rank": 2}]


@pytest.mark.parametrize("changes", CHANGES)
def test_interrupted_equals_uninterrupted(tmp_path, changes):
    options = settings(iterations=4, checkpoint_every=1, **changes)
    components = [Outcome(), SelfGuide(schedule={"start": 0, "full": 0.5, "fall": 0.5, "end": 1})]
    straight, whole = run(options, components)

    def interrupt(metrics, trajectories):
        if metrics["iteration"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(options, components, run_dir=tmp_path, on_iteration=interrupt)
    resumed, rest = run(options, components, run_dir=tmp_path)
    assert rest.resumed_from == 2
    assert same(weights(straight), weights(resumed))
    untimed = [{k: v for k, v in m.items() if not k.endswith("seconds")} for m in whole.metrics]
    assert [{k: v for k, v in m.items() if not k.endswith("seconds")} for m in rest.metrics] == untimed
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == rest.metrics
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == ["checkpoint-000004"]
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".pt", ".bin", ".pth", ".pkl")]
    finished, again = run(options, components, run_dir=tmp_path, rollout_fn=None)  # nothing left to play
    assert again.resumed_from == 4 and same(weights(finished), weights(straight))


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    run(settings(), run_dir=tmp_path)
    with pytest.raises(ValueError, match="learning_rate: got 0.5"):
        run(settings(learning_rate=0.5), run_dir=tmp_path)
    with pytest.raises(ValueError, match="components"):
        run(settings(), [Outcome(weight=1.0)], run_dir=tmp_path)
    _, result = run(settings(learning_rate=0.5), run_dir=tmp_path, resume=False)
    assert result.resumed_from == 0 and len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_field_that_is_added_with_a_default_does_not_break_a_resume(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Wider(Outcome):
        added: float = 0.0

    Wider.__name__ = "Outcome"
    run(settings(), run_dir=tmp_path)
    _, result = run(settings(), [Wider()], run_dir=tmp_path)
    assert result.resumed_from == 2
    with pytest.raises(ValueError, match="components: got .*'added': '1.0'"):
        run(settings(), [Wider(added=1.0)], run_dir=tmp_path)


def test_two_runs_of_one_folder_at_once_are_refused(tmp_path):
    def second(metrics, trajectories):
        with pytest.raises(RuntimeError, match="in use by another run"):
            run(settings(), run_dir=tmp_path)

    run(settings(), run_dir=tmp_path, on_iteration=second)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
    run(settings(), run_dir=tmp_path)  # the first has ended


def test_a_gradient_that_is_not_finite_stops_before_the_checkpoint(tmp_path):
    def broken(policy, games, **kwargs):
        with torch.no_grad():
            trajectories = bandit_rollout(policy, games, **kwargs)
            policy.model.model.norm.weight.fill_(float("nan"))
        return trajectories

    with pytest.raises(FloatingPointError, match="iteration 0"):
        run(settings(checkpoint_every=1), run_dir=tmp_path, rollout_fn=broken)
    assert not list(tmp_path.glob("checkpoint-*"))


@pytest.fixture
def interruptible():
    """SIGINT as a terminal's processes have it: one that a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_after_an_iteration_with_a_checkpoint(tmp_path, capsys, interruptible):
    few = settings(iterations=4, games_per_iteration=1, checkpoint_every=0)

    def press(row, _):
        if row["iteration"] == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="3 of 4 iterations are kept in .*; the same call goes on from there"):
        run(few, run_dir=tmp_path, on_iteration=press)
    assert "with a checkpoint; again: at once" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    policy, result = run(few, run_dir=tmp_path)
    assert result.resumed_from == 3 and same(weights(policy), weights(run(few)[0]))
    with pytest.raises(KeyboardInterrupt):  # nowhere to keep anything
        run(few, on_iteration=press)


def test_what_a_batch_suffers_from_is_named_once_and_counted(caplog):
    """No spread in any group, no answer that could be read, no randomness left, no room: training goes on."""

    def hopeless(policy, games, **kwargs):
        trajectories = bandit_rollout(policy, games, **kwargs)
        for t in trajectories:
            t.won, t.no_room = False, True
            for turn in t.turns:
                turn.parse_error = "missing_action"
        return trajectories

    with caplog.at_level("INFO", "sglib.training.grpo"):
        policy, result = run(settings(iterations=3), rollout_fn=hopeless)
    told = [(r.args[1], r.levelname) for r in caplog.records if r.name == "sglib.training.grpo"]  # once, not thrice
    assert told == [("without_advantage", "INFO"), ("unread", "WARNING"), ("no_room", "INFO")]
    assert same(weights(policy), weights(make_policy()))  # nothing was learned from it
    rows = [*result.metrics, result.metrics[0] | {"entropy": 1e-4, "zero_advantage": 0.5, "parse_errors": 0.9}]
    assert run_card(rows, "")["trouble"] == {"without_advantage": 3, "unread": 3, "no_room": 4, "collapsed": 1}
    assert run_card(result.metrics, "")["episodes"]["without_advantage"] == 24
    assert trouble({"zero_advantage": 0.0, "parse_errors": 0.0}) == []


def test_a_damaged_checkpoint_is_set_aside_and_the_result_is_the_same(tmp_path):
    """Altered, cut off, or without a file: the run starts over, or from the checkpoint before."""
    few = settings(games_per_iteration=1, checkpoint_every=1)
    whole, _ = run(few)
    run(few, run_dir=tmp_path / "half", stop=lambda: True)
    for name, cut in (("weights.safetensors", None), ("optimizer.safetensors", -1), ("state.json", -1)):
        folder = shutil.copytree(tmp_path / "half", tmp_path / name)
        file = folder / "checkpoint-000001" / name
        data = bytearray(file.read_bytes())
        data[-20] ^= 1
        file.write_bytes(data[:cut])
        (folder / ".checkpoint-killed").mkdir()
        with pytest.warns(UserWarning, match=r"checkpoint-000001: set aside as damaged-checkpoint-000001: .*damaged"):
            policy, result = run(few, run_dir=folder)
        assert result.resumed_from == 0 and same(weights(policy), weights(whole))
        assert not (folder / ".checkpoint-killed").exists()


def test_more_updates_per_batch_clip(spied):
    _, result = run(settings(updates_per_batch=3, learning_rate=0.05, epsilon=0.01))
    assert len(result.metrics) == 2 and len(spied) == 2 * 2 * 3
    assert result.metrics[0]["clip_ratio"] > 0


def test_kl_term_pulls_back():
    free, _ = run(settings(iterations=4))
    tied, result = run(settings(iterations=4, beta=10.0))
    start = weights(make_policy())
    moved = [sum(float((w[n] - start[n]).pow(2).sum()) for n in start) for w in (weights(free), weights(tied))]
    assert moved[1] < moved[0] and result.metrics[0]["kl"] == 0 and result.metrics[-1]["kl"] > 0


def test_rollouts_are_not_under_autocast():
    def rollout(policy, games, **kwargs):
        assert "forward" not in policy.model.__dict__ and not policy.model.training
        return bandit_rollout(policy, games, **kwargs)

    _, result = run(settings(bf16=True), rollout_fn=rollout)
    assert 1e-5 < result.metrics[0]["logprob_gap"] < 0.1  # the loss is


def test_the_model_is_left_as_it_was_found():
    policy, _ = run(settings(iterations=1))
    clone = copy.deepcopy(policy.model)
    with torch.no_grad():
        clone.model.norm.weight.zero_()
        assert policy.model(torch.tensor([[BEGIN]])).logits.abs().sum() > 0
    assert "forward" not in policy.model.__dict__ and all(p.grad is None for p in policy.model.parameters())


def test_evaluation_and_hooks(tmp_path):
    calls = []

    def evaluate(policy):
        assert not policy.model.training
        calls.append(1)
        return {"success": 0.5}

    _, result = run(
        settings(iterations=3, eval_every=2, save_trajectories_every=3), evaluate_fn=evaluate, run_dir=tmp_path
    )
    assert [m.get("eval/success") for m in result.metrics] == [None, 0.5, 0.5] and len(calls) == 2
    assert [p.name for p in (tmp_path / "trajectories").iterdir()] == ["000002.jsonl"]


def test_how_well_a_discriminator_tells_is_kept():
    class Discriminating(InverseReward):
        last_accuracy = None

        def __call__(self, trajectories, policy=None, games=None):
            type(self).last_accuracy = len(trajectories) / 10
            return Outcome()(trajectories, policy, games)

    _, result = run(settings(iterations=1), components=(Discriminating(),))
    assert result.metrics[0]["reward/step_agent/accuracy"] == 0.8
    _, result = run(settings(iterations=1))
    assert not [name for name in result.metrics[0] if "accuracy" in name]


def test_rollouts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="returned 7 trajectories; expected 8"):
        run(settings(), rollout_fn=lambda *a, **k: bandit_rollout(*a, **k)[:-1])

    def empty(*args, **kwargs):
        trajectories = bandit_rollout(*args, **kwargs)
        trajectories[3].completion_ids = []
        return trajectories

    with pytest.raises(ValueError, match="different lengths"):
        run(settings(), rollout_fn=empty)


def test_settings_errors_name_the_field():
    with pytest.raises(ValueError, match="group_size"):
        settings(group_size=1)
    with pytest.raises(ValueError, match="learning_rates"):
        settings(learning_rates=1)
    for name, value in {"temperature": float("inf"), "seed": 2**32, "format": "sing", "epsilon": True}.items():
        with pytest.raises(ValueError, match=name):
            settings(**{name: value})
    with pytest.raises(ValueError, match="allowed: at least games_per_iteration=7"):
        run(settings(games_per_iteration=7))


def test_games_are_drawn_without_replacement():
    drawn = [draw_games(10, 3, seed=1, iteration=i) for i in range(6)]
    assert len({g for batch in drawn[:3] for g in batch}) == 9 and len({g for batch in drawn[3:] for g in batch}) == 9
    assert drawn == [draw_games(10, 3, seed=1, iteration=i) for i in range(6)] and drawn[:3] != drawn[3:]
    assert draw_games(10, 3, seed=2, iteration=0) != drawn[0]


def test_split_moves_rows_left_and_keeps_every_token():
    """Prompts [7], [7 8], [9], [7 8] and completions of 3, 9, 1, 5 tokens numbered by their row."""
    lengths = torch.tensor([3, 9, 1, 5])
    mask = (torch.arange(9) < lengths[:, None]).long()
    batch = {
        "prompt_ids": torch.tensor([[0, 7], [7, 8], [0, 9], [7, 8]]),
        "prompt_mask": torch.tensor([[0, 1], [1, 1], [0, 1], [1, 1]]),
        "completion_ids": torch.arange(10, 14)[:, None] * mask, "completion_mask": mask, "tool_mask": mask,
        "advantages": torch.arange(36.0).reshape(4, 9), "num_items_in_batch": torch.tensor(18),
    }  # fmt: skip
    first, second = split(batch, by_length(batch).chunk(2))
    assert first["prompt_ids"].tolist() == [[7, 8], [7, 8]] and second["prompt_ids"].tolist() == [[7], [9]]
    assert first["completion_ids"].tolist() == [[11] * 9, [13] * 5 + [0] * 4]
    assert second["completion_ids"].tolist() == [[10, 10, 10], [12, 0, 0]]
    assert second["advantages"].tolist() == [[0, 1, 2], [18, 19, 20]] and second["num_items_in_batch"] == 18
    # rows 1, 3, 0, 2: the prompts' second token joins the completion, untrained
    mixed = split(batch, [by_length(batch)])[0]
    assert mixed["prompt_ids"].tolist() == [[7], [7], [7], [9]] and mixed["prompt_mask"].all()
    assert mixed["completion_ids"][:2, :2].tolist() == [[8, 11], [8, 13]]
    assert mixed["tool_mask"].sum(1).tolist() == [9, 5, 3, 1]
    assert mixed["tool_mask"][:, 0].tolist() == [0, 0, 1, 1] and mixed["completion_mask"][:, 0].all()
    assert mixed["advantages"][:, 0].tolist() == [0, 0, 0, 18] and mixed["advantages"][0, 1:].tolist() == [
        *range(9, 18)
    ]


def test_batch_metrics_label_agreement():
    """Distances 5 4 4 6 3; labels of turns 2..5: positive (5 -> 4, right), positive (4 -> 4, wrong), negative
    (4 -> 6, right), neutral (left out): agreement 2/3; shares 2/4, 1/4, 1/4."""
    labels, distances = ["positive", "positive", "positive", "negative", "neutral"], [5, 4, 4, 6, 3]
    turns = [Turn("o", "r", "a", i > 0, label=x, distance=d) for i, (x, d) in enumerate(zip(labels, distances))]
    t = Trajectory("g", "pick", "goal", "guide", turns=turns, won=True)
    combine([t], [Outcome(), SelfGuide(schedule=Constant(1.0))], u=0.0)
    for turn in turns:
        turn.advantage = -0.5
    metrics = batch_metrics([t])
    assert metrics["label_agreement"] == pytest.approx(2 / 3)
    assert [metrics[f"label_{x}"] for x in ("positive", "neutral", "negative")] == [0.5, 0.25, 0.25]
    assert metrics["invalid_actions"] == 0.2 and metrics["success"] == 1 and metrics["advantage_abs"] == 0.5
    assert metrics["reward/outcome"] == 10 and metrics["reward/self_guide"] == pytest.approx(0.1)
    bare = Trajectory("g", "pick", "goal", "act", turns=[Turn("o", "r", "a", True, advantage=0.0)], total_return=0.0)
    assert batch_metrics([bare])["label_agreement"] is None and batch_metrics([bare])["zero_advantage"] == 1


def test_linear_rate_falls_to_zero_over_the_run():
    """Four iterations of two updates from 0.01: eight steps, 1/8 less each; logged within one step of its own rate."""
    _, result = run(settings(iterations=4, lr_schedule="linear", updates_per_batch=2))
    falling = [0.01 * (1 - k / 8) for k in (2, 4, 6, 8)]
    assert [m["learning_rate"] for m in result.metrics] == pytest.approx(falling, abs=2e-3)
    _, constant = run(settings(iterations=2))
    assert [m["learning_rate"] for m in constant.metrics] == [0.01, 0.01]


def test_stopped_after_an_iteration_and_continued_equals_uninterrupted(tmp_path):
    straight, _ = run(settings(iterations=4))
    asked = []
    stopped, first = run(settings(iterations=4), run_dir=tmp_path, stop=lambda: asked.append(1) or len(asked) == 2)
    assert first.stopped and len(first.metrics) == 2 and not same(weights(stopped), weights(straight))
    resumed, rest = run(settings(iterations=4), run_dir=tmp_path, stop=lambda: False)
    assert not rest.stopped and rest.resumed_from == 2 and same(weights(resumed), weights(straight))


def test_trackers_get_every_iterations_numbers(tmp_path):
    """TRL's `report_to`: TensorBoard's events hold ours, counted in optimiser steps of the whole run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = {"iterations": 4, "updates_per_batch": 2, "eval_every": 2, "report_to": ("tensorboard",)}
    asked = []
    run(settings(**options), run_dir=tmp_path, stop=lambda: asked.append(1) or len(asked) == 2)
    _, result = run(settings(**options), run_dir=tmp_path, evaluate_fn=lambda policy: {"success": 0.25, "note": "text"})
    found = {}
    for folder in sorted((tmp_path / "runs").iterdir()):
        events = EventAccumulator(str(folder))
        events.Reload()
        for name in events.Tags()["scalars"]:
            found.setdefault(name, []).extend((event.step, event.value) for event in events.Scalars(name))
    metrics = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    expected = [(2 * (m["iteration"] + 1), pytest.approx(m["success"])) for m in metrics]
    assert sorted(found["train/success"]) == expected and len(expected) == 4
    assert found["eval/success"] == [(8, 0.25)] and "train/u" in found
    assert [step for step, _ in sorted(found["train/entropy"])] == list(range(1, 9))  # TRL's own, at every step


def test_what_writes_needs_a_folder():
    for changes, more in (({}, {"stop": lambda: False}), ({"report_to": ("tensorboard",)}, {})):
        with pytest.raises(ValueError, match="run_dir: got None; allowed with (stop|report_to): a folder"):
            run(settings(**changes), **more)


def test_an_unknown_tracker_is_named():
    with pytest.raises(ValueError, match="'tensorbord' is unknown or not installed; installed: .*tensorboard"):
        settings(report_to=("tensorbord",))


def test_a_training_by_hand_has_the_study_s_defaults():
    mine, study = GRPOSettings.model_fields, GRPOParams.model_fields
    shared = set(mine) & set(study) - {"iterations", "eval_every", "report_to", "max_turns"}
    # the study's turns are the environment's, where nothing else is asked for
    assert study["max_turns"].default is None and mine["max_turns"].default == sglib.envs.get("alfworld").turns
    assert {"loss_type", "lr_schedule", "learning_rate"} <= shared
    assert {name: mine[name].default for name in shared} == {name: study[name].default for name in shared}
