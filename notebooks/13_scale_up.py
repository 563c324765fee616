# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From a laptop to GPUs
#
# **By the end you will have shown** that a Qwen3 goes every way here that a pre-trained one goes on a GPU, and what
# such a training needs in memory and time: computed by formulas that you have held to a model on this machine.
#
# *For whom:* anyone who is about to pay for GPUs. *Time:* a minute for the cells, an hour for the exercises.
# *Writes:* `outputs/13_scale_up/`.
#
# Nothing here has run on a GPU. Each line of the table at the end says whether it is computed or measured.

# %% tags=["parameters"]
seed = 0
size = "cpu"
scale = {}

# %%
import dataclasses
import functools
import time

import numpy as np
import torch
import yaml
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import sglib
from sglib.experiments.files import params_dir
from sglib.experiments.recipe import load_recipe
from sglib.models.tiny import write_tiny_qwen3
from sglib.training import sizes
from sglib.training.grpo import GRPOSettings, train

p = sglib.params.check("13_scale_up", globals())
run = sglib.runs.start_run("13_scale_up", p)
print(p.model_dump(include={
    "seed", "size", "games", "group_size", "max_turns", "answer_tokens", "episodes",
    "episode_tokens", "written", "memory", "tflops", "utilisation",
}))  # fmt: skip

# %% [markdown]
# ## One YAML, two machines
#
# What a training is stands in a parameters file. The laptop's and the GPUs' have the same keys; only values differ.
# Here are two of them side by side: this study's on two cores, and Self-Guide's on its own base and games.

# %%
names = ("cpu", "qwen3-1.7b/qwen3_self_guide")
files = [yaml.safe_load((params_dir() / f"{name}.yaml").read_text()) for name in names]
print(f"{'model':24}{files[0].get('model', 'base'):>46}{files[1]['model']:>32}")
for key in sorted({key for file in files for key in file["grpo"]}):
    values = [str(file["grpo"].get(key, "(default)")) for file in files]
    print(f"{key:24}{values[0]:>46}{values[1]:>32}")

# %% [markdown]
# The command is the same, too. Here it trains in one process; with `accelerate launch` in front, in as many as there
# are GPUs:
#
#     python -m sglib train --params params/cpu.yaml --arm self_guide
#     accelerate launch --config_file params/accelerate/gpus.yaml --num_processes 8 \
#         -m sglib train --params params/qwen3-1.7b/qwen3_self_guide.yaml --arm self_guide
#
# [docs/how-to/many-gpus.md](../docs/how-to/many-gpus.md) says what is the same as in one process, and lists what has
# not run on a GPU.
#
# ## A Qwen3 that fits here
#
# A hub's Qwen3 is a folder: weights, a configuration, a tokenizer of Qwen's class, a chat template. We write such a
# folder with few and random weights, and a tokenizer of 600 entries that has learned the game's words. It is loaded by
# the code that loads `Qwen/Qwen3-1.7B`, and goes through the same checks.

# %%
folder = write_tiny_qwen3(run.path("qwen3"), p.env, seed=p.seed)
policy = sglib.load_policy(folder, env=p.env)
config = policy.model.config
games = p.card.tasks(p.games, seed=40_000 + p.seed, size=p.task_size)
brief = sglib.Options(max_new_tokens=p.answer_tokens)
how = {"turns": p.turns, "options": brief, "seed": p.seed}
(episode, *_) = sglib.rollout(policy, games[:1], format="guide", **how)
print(*(type(part).__name__ for part in (policy.model, policy.tokenizer)), len(policy.tokenizer))
print("between two answers:", repr(policy.decode(policy.between_ids("(observation)"))))
print("it writes:", repr(episode.turns[0].response))

# %% [markdown]
# It writes nonsense, and every path takes nonsense: an answer that cannot be read is an invalid action, and a turn.
#
# ## Every way that a large model goes
#
# One step of GRPO with an internal reward, in four ways: all weights; micro-batches of a bounded number of tokens, for
# memory; gradient checkpointing, for memory; an adapter (LoRA). The reward is IGPO's, the gain in the log-probability
# of the hidden facts. A policy that writes nonsense has such gains, too, so there is something to learn.

# %%
ways = {
    "all weights": {}, "micro-batches by tokens": {"tokens_per_micro_batch": 1500},
    "checkpointing": {"gradient_checkpointing": True}, "LoRA": {"lora": True},
}  # fmt: skip
recipe, rows, after = load_recipe("igpo"), [], {}


def play(*args, options, **how):
    options = dataclasses.replace(options, max_new_tokens=p.answer_tokens)
    return sglib.rollout(*args, options=options, **how)


batch = {"games_per_iteration": p.games, "group_size": p.group_size, "max_turns": p.turns}
for way, more in ways.items():
    policy, begin = sglib.load_policy(folder, env=p.env), time.perf_counter()
    settings = GRPOSettings(iterations=1, seed=p.seed, learning_rate=1e-3, **batch, **more)
    parts = (recipe.components, recipe.estimator)
    step = train(policy, games, settings, *parts, rollout_fn=play).metrics[0]
    row = {"way": way, "gradient": step["grad_norm"], "apart": step["logprob_gap"]}
    rows.append(row | {"seconds": time.perf_counter() - begin})
    after[way] = policy
    print(f"{way:24} gradient {row['gradient']:.4f}, log-probabilities {row['apart']:.1e} apart")
run.write_table("ways.csv", rows)

# %% [markdown]
# *Apart*: the mean difference between log-probabilities when a token was sampled and when it was trained on. The two
# come from different code, and importance ratios are right only if it is tiny. Ways that save memory must not change
# what is learned; the adapter is the control, which does learn something else:


# %%
def distance(way):
    """The largest difference of any weight from the one that the first way learned."""
    pairs = zip(after["all weights"].model.parameters(), after[way].model.parameters())
    return max(float((a - b).detach().abs().max()) for a, b in pairs if a.shape == b.shape)


for way in ("micro-batches by tokens", "checkpointing"):
    print(f"{way}: at most {distance(way):.1e} apart")
    assert distance(way) < 1e-4
assert max(row["apart"] for row in rows) < 1e-4
learned = after["LoRA"].model.num_parameters(only_trainable=True)
assert learned == sizes.lora_parameters(config, 16) < sizes.parameters(config) / 2
print(f"control, LoRA: {learned:,} weights learn, of {sizes.parameters(config):,}")

# %% [markdown]
# Last, saved, loaded and evaluated. The adapter is merged into the weights that are written.

# %%
trained = after["LoRA"]
again = sglib.load_policy(trained.save(run.path("trained")), env=p.env)
ids = torch.tensor([again.prompt_ids([{"role": "user", "content": "look"}])])
with torch.no_grad():
    assert torch.allclose(trained.model(ids).logits, again.model(ids).logits, atol=1e-4)
report = sglib.evaluate(again, games, format="act", **how)
print(f"success {report.numbers()['success']:.0%}, as expected of nonsense")

# %% [markdown]
# ## Counting weights
#
# A block of Qwen3 has queries, keys, values and their output (four matrices), a gated MLP (three), and four norms.
# Queries have more heads than keys and values. Below 8 B the output layer *is* the embedding table: the control that
# counts it twice must be wrong.


# %%
def count(c):
    h, q, k = c.hidden_size, c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    block = h * q + 2 * h * k + q * h + 3 * h * c.intermediate_size + 2 * h + 2 * c.head_dim
    tables = c.vocab_size * h * (1 if c.tie_word_embeddings else 2)
    return tables + c.num_hidden_layers * block + h


there = sum(weight.numel() for weight in again.model.parameters())
assert count(config) == sizes.parameters(config) == there
assert count(config) + config.vocab_size * config.hidden_size != there, "control: counted twice"
for name, c in sizes.QWEN3.items():
    print(f"Qwen3-{name}: {count(c):,} weights")

# %% [markdown]
# The published numbers are 0.6, 1.7, 4.0 and 8.2 billion.
#
# ## What lies in memory
#
# Training by AdamW keeps four numbers for each weight: itself, its gradient, and two averages. Then come the
# *activations*: what the forward pass keeps so that the backward pass can use it. They grow with the tokens of a
# micro-batch. We measure what torch keeps, and compare it with the formula, in float32 and in bfloat16.
#
# The control: without gradients nothing may be kept.

# %%
texts = torch.arange(256).view(2, 128) % config.vocab_size
model = again.model.train()
kept = {}


def forward(bf16):
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        model.model(inputs_embeds=model.model.embed_tokens(texts), use_cache=False)


for name, bf16 in (("float32", False), ("bfloat16", True)):
    kept[name] = sizes.kept_bytes(model, functools.partial(forward, bf16))
    computed = sizes.activation_bytes(config, texts.numel(), bf16=bf16)
    print(f"{name}: measured {kept[name]:,} bytes, computed {computed:,}")
    assert np.isclose(kept[name], computed, rtol=0.02), "within 2 %: angles and ids are left out"
with torch.no_grad():
    assert sizes.kept_bytes(model, functools.partial(forward, False)) == 0, "control"

# %% [markdown]
# bfloat16 has half the bytes a number, but saves less than half: norms stay in float32, and each weight gets a copy.
#
# *Checkpointing* keeps the input of each block alone, and computes the rest again in the backward pass: one more
# forward pass, a third more arithmetic.
#
# ## Why weights stay in float32
#
# The papers' learning rate is 1e-6, and AdamW's first steps are about that long, whatever the gradient. bfloat16 has
# 8 bits for a number's digits: near 0.02 its neighbours are 0.0001 apart. A step of 1e-6 is rounded back.

# %%
weights = torch.cat([weight.detach().flatten() for weight in model.parameters() if weight.ndim > 1])
moved = {}
for dtype in (torch.float32, torch.bfloat16):
    before = weights.to(dtype)
    moved[dtype] = float((before - torch.tensor(1e-6, dtype=dtype) != before).float().mean())
    print(f"{dtype}: {100 * moved[dtype]:.1f} % of the weights move by a step of 1e-6")
assert moved[torch.float32] > 0.99 and moved[torch.bfloat16] < 0.1

# %% [markdown]
# A training like that runs, logs a loss, and learns next to nothing. So what is trained whole is loaded in float32
# here, on a GPU as well; `bf16` says in what its matrices are multiplied. An adapter is in float32, too, and the
# weights under it, which do not move, may be in bfloat16.
#
# ## How long a step takes
#
# A matrix product with one token costs two operations a weight. Attention adds four operations for each pair of
# tokens and each number of a query. We count what torch really multiplies, on texts of 128 tokens with logits at ten
# tokens each.

# %%
with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
    hidden = model.model(input_ids=texts, use_cache=False).last_hidden_state
    model.lm_head(hidden[:, :10])
computed = sizes.forward_flops(config, [128, 128], 20)
print(f"counted {counter.get_total_flops():,}, computed {computed:,}")
assert counter.get_total_flops() == computed

# %% [markdown]
# The backward pass has twice as many. So an update is three forward passes, with checkpointing four.
#
# Playing is another matter. To write one token, all weights and the keys and values of all earlier tokens go through
# the processor once, for little arithmetic: memory's *bandwidth* decides.
#
# ## The table
#
# One iteration of the papers' size, on one GPU with the numbers above, which are assumptions: 50 turns of about 60
# tokens that the policy writes and 200 that it reads, admissible actions listed. Of the GPU (an H100 as its maker
# describes it) 40 % is reached.

# %%
E, T, W, GB = p.episodes, p.episode_tokens, p.written, 1e9
table = []
for name, c in sizes.QWEN3.items():
    cache = sizes.cache_bytes(c, T)
    state = sum(sizes.state_bytes(c).values())
    side = max(1, int((p.memory * GB - state) // cache))  # episodes that are played side by side
    update = 4 * E * sizes.forward_flops(c, [T], W) / (p.tflops * 1e12 * p.utilisation)
    # bytes that are read for a token, with half of an episode behind it
    read = sizes.state_bytes(c)["weights"] / side + cache / 2
    playing = E * W * read / (p.bandwidth * 1e12 * p.utilisation)
    fits = p.memory * GB > state + cache
    lines = {
        "weights, gradients, AdamW, GB": state / GB,
        "the same with LoRA of rank 16, GB": sum(sizes.state_bytes(c, 16).values()) / GB,
        "activations of one episode, GB": sizes.activation_bytes(c, T) / GB,
        "the same, checkpointing, GB": sizes.activation_bytes(c, T, checkpointing=True) / GB,
        "its logits, GB": sizes.logits_bytes(c, W) / GB,
        "its keys and values, float32, GB": cache / GB,
        "episodes that fit side by side": side if fits else 0,
        "update, checkpointing, minutes": update / 60,
        "playing, at least, minutes": playing / 60 if fits else float("nan"),
    }
    for what, value in lines.items():
        table.append({"model": name, "what": what, "value": value, "how": "computed"})

# %%
print(f"{'':36}{''.join(f'{name:>9}' for name in sizes.QWEN3)}")
for what in dict.fromkeys(row["what"] for row in table):
    values = [row["value"] for row in table if row["what"] == what]
    print(f"{what:36}{''.join(f'{value:9,.1f}' for value in values)}   computed")
here = {
    "weights": there,
    "activations of 256 tokens, float32, bytes": kept["float32"],
    "activations of 256 tokens, bfloat16, bytes": kept["bfloat16"],
    "operations of a forward pass": counter.get_total_flops(),
    "seconds of a step and its episodes": round(rows[0]["seconds"], 1),
}
for what, value in here.items():
    table.append({"model": "random", "what": what, "value": value, "how": "measured (CPU)"})
    print(f"{'the random one: ' + what:58}{value:14,}   measured (CPU)")
run.write_table("scale.csv", table)
run.finish(models=list(sizes.QWEN3))

# %% [markdown]
# Read it by columns. 1.7 B fits on one GPU, with room for 17 episodes side by side; 8 B does not fit with all of its
# weights trained (`nan`), so it needs an adapter, or its state in pieces on several GPUs. Without checkpointing not even
# one episode of 1.7 B fits beside the state.
#
# And read the last two lines together: playing takes several times as long as learning. That is why there are engines
# for it. With `-p engine vllm` one writes the answers here, in the process that trains; its weights and keys take half
# the bytes in bfloat16, and what it samples with is corrected for in the loss.
#
# **Limits.**
#
# - No line of the table was measured on a GPU. Allocators keep more than is asked for, and kernels need room to work.
# - The utilisation is one number for everything. Real ones differ between matrix products, attention and playing.
# - The time to play is a lower bound: what environments, sampling and Python take comes on top.
# - Formulas hold for Qwen3's dense models, with torch's attention, which keeps no matrix of all pairs of tokens.

# %% [markdown]
# ## Exercises
#
# Fill in a stub, run it and the check below it. Checks print what is missing; nothing later in the notebook needs
# them.
#
# ### 13.1 Keys and values &nbsp; ●○○ · 10 minutes
#
# How many bytes do the keys and values of some episodes take, which are played side by side?
#
# <details><summary>Hint</summary>Each layer has both, for each head of keys and values, at each token.</details>
# <details><summary>Solution</summary>In <a href="solutions/13_scale_up.py">solutions</a>.</details>


# %% tags=["exercise"]
def cache(layers, kv_heads, head_dim, tokens, episodes, width=2):
    """Bytes; `tokens` of each episode, `width` bytes a number."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("13.1"):
    assert cache(1, 1, 1, 1, 1) == 4, "one key and one value of two bytes"
    assert cache(28, 8, 128, 1, 1) == 114_688, "Qwen3-1.7B in bfloat16: a token"
    assert cache(28, 8, 128, 100, 3, width=4) == 600 * 114_688, "300 tokens, twice the bytes"

# %% [markdown]
# ### 13.2 The largest micro-batch &nbsp; ●●○ · 15 minutes
#
# `tokens_per_micro_batch` should be as large as memory allows. Some of it is taken: by the state, and by what does not
# grow with tokens. The rest is divided by what a token keeps. Leave a share of the memory free, for what formulas do
# not know.
#
# <details><summary>Hint</summary>The free share is of all memory, not of the rest.</details>
# <details><summary>Solution</summary>In <a href="solutions/13_scale_up.py">solutions</a>.</details>


# %% tags=["exercise"]
def most_tokens(memory, state, fixed, per_token, free=0.1):
    """Whole tokens, 0 if not even one fits; all in bytes but `free`, a share of `memory`."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("13.2"):
    assert most_tokens(1000, 400, 100, 4, free=0.1) == 100, "400 bytes are left: 100 tokens of 4"
    assert most_tokens(1000, 400, 100, 7, free=0.1) == 57, "no part of a token"
    assert most_tokens(1000, 950, 0, 1, free=0.1) == 0, "nothing fits, and no less than nothing"

# %% [markdown]
# ### 13.3 How many GPUs? &nbsp; ●●● · 20 minutes
#
# With FSDP each of `n` GPUs holds a piece of weights, gradients and AdamW's averages (16 bytes a weight in all, divided
# by `n`), and here also the whole model in float32, to play with it. Something for activations comes on top. What is
# the smallest `n` that fits? Sometimes no number does.
#
# <details><summary>Hint</summary>What is left of one GPU once the parts that are not divided are in it?</details>
# <details><summary>Solution</summary>In <a href="solutions/13_scale_up.py">solutions</a>.</details>


# %% tags=["exercise"]
def gpus(weights, activations, memory):
    """The least number of GPUs, None where none is enough; bytes, `weights` is a number."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("13.3"):
    assert gpus(1, 0, 20) == 1, "16 + 4 bytes just fit"
    assert gpus(8.2e9, 10e9, 80e9) == 4, "8 B: 32.8 GB play, 10 GB go to activations"
    assert gpus(8.2e9, 50e9, 80e9) is None, "what is not divided is too much already"

# %% [markdown]
# ## Try it yourself
#
# Set `memory`, `tflops` and `bandwidth` to those of the GPU that you have: `-p memory 24`. Which of the four models can
# you train, and how?
#
# Back to the report: [09_report](09_report.ipynb).
