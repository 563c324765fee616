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
# # Joint GRPO: does the agent's own reward help it learn?
#
# **By the end you will have shown** what one GRPO step does to a policy, number by number, and whether the agent's own
# labels help it learn: the same base model trained in up to five ways, compared on a fixed panel of held-out games.
# (New games, in rooms that are trained in: ALFWorld's `valid_seen`.) Two of the ways are controls: the *true* step
# reward, which no method knows, and the labels paid at once.
#
# | arm | acts by | reward |
# |---|---|---|
# | `grpo` | command only | success |
# | `truth` | command only | success, and each step's exact change of the distance to the goal: can a step reward be seen to help *here*? |
# | `guide` | guidance, then command | success (λ ≡ 0) |
# | `self_guide` | guidance, then command | success + λ(u) × its own labels, λ scheduled as in the paper |
# | `immediate` | guidance, then command | success + its own labels at full weight from the first step |
#
# Each way is a recipe, a YAML file of `params/recipes` that lists what is paid and how that becomes an advantage. The
# paper has all but `truth`: on ALFWorld (Qwen3-1.7B) 72.7, 81.3 (λ ≡ 0) and 89.8 %; on WebShop 32.0, 49.2, 56.3 and, at
# full weight from the start, 39.7 %.
#
# A success pays `win_reward`. `params/cpu.yaml` and `reference.yaml` set it to **1**, the plain reading of Eq 6, in
# which the labels' sum (±0.1 a turn) can outweigh success. The framework that the paper's authors used pays 10, and so
# does the evidence over seeds (`params/regimes/dense.yaml`). This is our choice, and a difference to the paper.
#
# *For whom:* readers of Self-Guide (arXiv 2604.03098), sections 3–5. *Time:* five minutes with `params/cpu.yaml` on two
# cores, half an hour with `params/reference.yaml`; an hour and a half with the exercises. *Writes:*
# `outputs/04_joint_grpo/`; checkpoints in `outputs/cache/`: interrupt it and run it again, it goes on where it was.

# %% tags=["parameters"]
seed = 0
size = "cpu"
grpo = {}

# %%
import numpy as np
import torch

import sglib
from sglib.experiments import pool
from sglib.measure.hacking import WINDOW, first_and_last
from sglib.rewards import Outcome, SelfGuide, Trapezoid
from sglib.training.grpo import GRPOSettings, train

p = sglib.params.check("04_joint_grpo", globals())
run = sglib.runs.start_run("04_joint_grpo", p)
print(p.model_dump(include={
    "seed", "size", "arms", "iterations", "games_per_iteration", "group_size", "learning_rate",
    "temperature", "win_reward", "eval_games", "eval_every", "eval_temperature",
}))  # fmt: skip

# %% [markdown]
# (All parameters are in the run's `params.json`.)
#
# ## The idea, small
#
# Four episodes of one game. Each return is $R(\tau; u) = R_{env}(\tau) + \lambda(u) \sum_t r_t$ (Eq 6): a plain sum of
# the environment's reward and of the labels' values (+0.1, 0, −0.1). The advantage is $\hat A_i = (R_i - \mu_R) /
# (\sigma_R + \varepsilon)$ (Eq 8), statistics over the group's trajectories. Built by hand, and checked against the
# library:

# %%
won = np.array([1.0, 0.0, 0.0, 1.0])
labels = [[0.1, 0.1], [0.1, 0.1, 0.1, 0.1], [-0.1, -0.1], [0.0, 0.1]]
for lam in (0.0, 1.0):
    returns = won + lam * np.array([sum(r) for r in labels])
    advantages = (returns - returns.mean()) / (returns.std(ddof=1) + 1e-4)
    assert np.allclose(advantages, sglib.advantages.group_relative(returns, [0, 0, 0, 0]))
    print(f"lambda {lam:.0f}: returns {returns.round(2)}  advantages {advantages.round(2)}")

# %% [markdown]
# Now a group in which **every episode failed**. Without the internal reward nothing is learned from it. With it, the
# labels alone decide every advantage, at full size, whatever their coefficient: the division by the group's own spread
# cancels it. That is how the internal reward makes the signal denser, and also how it gets gamed.

# %%
for weight in (1.0, 0.01):
    lost = np.array([weight * sum(r) for r in labels])
    advantages = sglib.advantages.group_relative(lost, [0, 0, 0, 0])
    print(f"all failed, labels x {weight}: advantages {advantages.round(2)}")
advantages = sglib.advantages.group_relative(np.zeros(4), [0, 0, 0, 0])
print(f"all failed, no labels: advantages {advantages}")

# %% [markdown]
# ## One step, by hand
#
# What does such an advantage do to the weights? Four episodes of one game, played by the base model, and paid as above:

# %%
student = sglib.load_policy(p.model, env=p.env, thinking=p.thinking)
(game,) = p.card.tasks(1, seed=30_000 + p.seed, size=p.task_size)
way = {"format": "guide", "temperature": 1.0, "seed": p.seed}
group = sglib.rollout(student, [game], group=4, turns=6, **way)
parts = [Outcome(weight=1.0), SelfGuide(schedule=1.0)]
returns = sglib.rewards.combine(group, parts, u=0.0)
advantages = sglib.advantages.group_relative(returns, [t.group for t in group])
print(f"returns {np.round(returns, 2)}, advantages {advantages.round(2)}")

# %% [markdown]
# The loss needs the log-probability of every token that the policy wrote, now ($\log\pi_\theta$) and when it was
# sampled ($\log\pi_{old}$, which the rollout kept). Their ratio is $\rho$, and a token's objective is $\min(\rho \hat
# A, \mathrm{clip}(\rho, 1 - \varepsilon, 1 + \varepsilon) \hat A)$ (Eq 9), averaged within each episode and then over
# episodes. What the environment wrote is masked out. The rest is one call of `backward`:

# %%
def log_probabilities(model, t):
    """Of an episode's completion, each token given all before it: (C,)."""
    ids = torch.tensor([t.prompt_ids + t.completion_ids], device=model.device)
    scores = model(ids).logits[0, len(t.prompt_ids) - 1 : -1].log_softmax(-1)  # (C, V)
    return scores.gather(1, ids[0, len(t.prompt_ids) :, None])[:, 0].cpu()


def grpo_step(model, group, advantages):
    """The loss of one group, and the length of its gradient."""
    loss = 0.0
    for t, a in zip(group, advantages):
        mask = torch.tensor(t.mask)  # (C,), 1 where the policy wrote
        ratio = (log_probabilities(model, t) - torch.tensor(t.logprobs)).exp()
        surrogate = torch.min(ratio * a, ratio.clamp(0.8, 1.2) * a)
        loss = loss - (surrogate * mask).sum() / mask.sum() / len(group)
    gradient = torch.autograd.grad(loss, list(model.parameters()))
    return loss.item(), torch.cat([g.flatten() for g in gradient]).norm().item()


# %% [markdown]
# The library's trainer takes one step on the same four episodes. Its loss and its gradient must be ours. The control is
# a group without differences, all advantages 0: its gradient must be exactly 0, whatever the episodes are.

# %%
loss, norm = grpo_step(student.model, group, advantages)
nothing = grpo_step(student.model, group, np.zeros(4))
with torch.no_grad():
    old = [log_probabilities(student.model, t) for t in group]
settings = GRPOSettings(iterations=1, games_per_iteration=1, group_size=4, bf16=False, **way)
step = train(student, [game], settings, parts, rollout_fn=lambda *_, **__: group).metrics[0]
assert np.isclose(step["loss"], loss, atol=1e-4)
assert np.isclose(step["grad_norm"], norm, rtol=0.01, atol=1e-6)
assert nothing == (0.0, 0.0), "control: nothing to compare, nothing to learn"
print(f"loss {loss:.4f} by hand, {step['loss']:.4f} by the trainer")
print(f"length of the gradient {norm:.4f} by hand, {step['grad_norm']:.4f} by the trainer")

# %% [markdown]
# The loss itself says nothing: at $\rho = 1$ it is minus the mean advantage, which is 0 by construction. Its *gradient*
# is what learns. After the step, episodes with a positive advantage should have become likelier than the others:

# %%
with torch.no_grad():
    for t, a, before in zip(group, advantages, old):
        change = (log_probabilities(student.model, t) - before)[torch.tensor(t.mask) == 1].mean()
        print(f"advantage {a:+.2f}: log-probability of a token changed by {change:+.4f}")

# %% [markdown]
# ## The schedule λ(u)
#
# Off until the labels mean something, full in the middle, off again at the end: this shaping is not potential-based and
# would bias the final policy.

# %%
schedule = Trapezoid()
points = [{"u": u / 100, "value": schedule(u / 100)} for u in range(101)]
sglib.view.keep_figure(run, "schedule", sglib.figures.learning_curves(
    {"lambda(u)": points}, x="u", y="value", title="Stage schedule",
    x_title="training fraction u", y_title="λ(u)", percent=False,
))  # fmt: skip

# %% [markdown]
# ## Training
#
# The panel is never trained on; it is played at temperature 0.4, as the paper validates. Training games come from other
# seeds, and each is played once, `group_size` times. One optimiser step an iteration. Arms run side by side, one thread
# each without a GPU.
#
# In JupyterLab the view below has a line for each arm, its latest episodes, and **stop** and **continue**. Interrupting
# the kernel stops it, too, and running the cell again goes on. `-p report_to tensorboard` sends every number to
# TensorBoard as well.

# %%
view = sglib.view.TrainingView(p.arms, p.iterations, n=p.eval_games)
results = await view.follow(
    lambda: pool.train_recipes(p, on_update=view.update, paused=view.paused)
)

# %% [markdown]
# ## Result: success on the panel

# %%
run.write_table("curves.csv", [row for r in results.values() for row in r.curve])
run.write_table("batches.parquet", [row for r in results.values() for row in r.batches])
outcomes = {arm: {"before": r.before, "after": r.after} for arm, r in results.items()}
run.write_json("outcomes.json", outcomes)
for arm, r in results.items():
    run.write_trajectories(f"trajectories/{arm}.jsonl", r.trajectories)
    run.write_trajectories(f"batches/{arm}.jsonl", r.last_batch)
begun = {arm: r.curve for arm, r in results.items() if r.curve}
sglib.view.keep_figure(run, "success", sglib.figures.learning_curves(
    begun, title="Success on the held-out panel", n=p.eval_games
))  # fmt: skip

# %%
summary = []
for arm, r in results.items():
    gap = sglib.intervals.difference(r.after, r.before)
    row = {"arm": arm, "n": gap.n, "before": np.mean(r.before), "after": np.mean(r.after)}
    row |= {"rise": gap.estimate, "rise_low": gap.low, "rise_high": gap.high, "p": gap.p_value}
    for name, key in (("positive", "label_positive"), ("auroc", "calibration/label/auroc")):
        row |= dict(zip((f"{name}_first", f"{name}_last"), first_and_last(r.batches, key)))
    summary.append(row)
run.write_table("summary.csv", summary)
for x in summary:
    rise = sglib.intervals.points(x["rise"], x["rise_low"], x["rise_high"], " points")
    print(f"{x['arm']:10s} {100 * x['before']:5.1f} % -> {100 * x['after']:5.1f} %   rise {rise}")

# %% [markdown]
# ## What happened to the labels
#
# Shares of the labels in the training batches, and how often positive and negative ones agree with the oracle (dashed).
# A label that pays is a label that is worth saying: watch the share of *positive* where λ is on. Agreement falls by
# arithmetic where positives rise, since few steps help. AUROC, printed below, says whether labels still tell helpful
# steps from others (0.5 is chance).

# %%
def label_rows(result):
    """Label mix and agreement with the oracle, a row for each training batch."""
    names = (*sglib.LABELS, "agreement")
    rows = result.batches
    return [{"iteration": b["iteration"], **{k: b[f"label_{k}"] for k in names}} for b in rows]


writing = {arm: r for arm, r in results.items() if r.batches}
guided = {
    arm: label_rows(r) for arm, r in writing.items() if r.batches[0]["label_positive"] is not None
}
if guided:
    what = f"training batches of {p.games_per_iteration * p.group_size} episodes, one seed"
    sglib.view.keep_figure(run, "labels", sglib.figures.label_panels(
        guided, title=f"Label mix and agreement with the truth, {what}"
    ))  # fmt: skip

# %% [markdown]
# ## What was found
#
# Stated from the numbers of this run. A difference counts only if its 95 % interval, paired over the panel's games,
# leaves out zero. **One training seed an arm**: the interval covers the panel's games, not what another seed would
# give. `truth` comes first: where even the truth does not end above success alone, "not shown" says nothing about a
# reward.

# %%
claims = {}
if "grpo" in results:
    learns = results["grpo"]
    claims["plain GRPO learns"] = sglib.intervals.difference(learns.after, learns.before)
for a, b in (
    ("truth", "grpo"), ("guide", "grpo"), ("self_guide", "guide"), ("self_guide", "immediate"),
    ("guide", "immediate"),
):  # fmt: skip
    if a in results and b in results:
        gap = sglib.intervals.difference(results[a].after, results[b].after)
        claims[f"{a} ends above {b}"] = gap
for text, gap in claims.items():
    word = "yes" if gap.low > 0 else "the opposite" if gap.high < 0 else "not shown"
    shown = sglib.intervals.points(gap.estimate, gap.low, gap.high, " points")
    print(f"{text}: {word} ({shown}, n = {p.eval_games} games)")

# %%
def change(batches, key):
    """A share's mean over the first and over the last batches, as text."""
    shares = first_and_last(batches, key)
    return " -> ".join("none counted" if x is None else f"{100 * x:.0f} %" for x in shares)


print(f"Means of the first and of the last {WINDOW} batches:")
for arm in guided:
    batches = results[arm].batches
    print(f"{arm}: positive labels {change(batches, 'label_positive')}, "
          f"agreement with the truth {change(batches, 'label_agreement')}", end="")  # fmt: skip
    area = first_and_last(batches, "calibration/label/auroc")
    print("" if None in area else f", AUROC {area[0]:.2f} -> {area[1]:.2f}")
for arm, r in results.items():
    minutes = f"{r.card['cpu_seconds'] / 60:.1f} CPU minutes" if r.card else "no run card"
    print(f"{arm}: {minutes} of training and evaluation, here or when its checkpoint was made")
success = {arm: float(np.mean(r.after)) for arm, r in results.items()}
run.finish(success=success, claims={k: g.estimate for k, g in claims.items()})

# %% [markdown]
# **Limits.** One seed an arm, a 0.8 M-parameter model, rooms of 12 receptacles, a reward of 1 for success (see above).
# With a handful of iterations the schedule spends only some of them at λ > 0. The loss averages within each episode
# first (`loss_type: grpo`), and the learning rate falls to 0. Verdicts over seeds are in [10_assay](10_assay.ipynb).

# %% [markdown]
# ## Exercises
#
# Fill in a stub, run it, then run the check below it. Checks print what is missing; nothing later needs them.
#
# ### 04.1 The clipped surrogate &nbsp; ●○○ · 10 minutes
#
# PPO's and GRPO's objective for one token is $\min(\rho A, \mathrm{clip}(\rho, 1 - \varepsilon, 1 + \varepsilon) A)$
# with $\rho = \exp(\log\pi - \log\pi_{old})$. Which of the two terms stops an update that has gone far enough?
#
# <details><summary>Hint</summary>Work on whole arrays: <code>np.exp</code>, <code>np.clip</code>, <code>np.minimum</code>.</details>
# <details><summary>Solution</summary>In <a href="solutions/04_joint_grpo.py">solutions/04_joint_grpo.py</a>.</details>


# %% tags=["exercise"]
def surrogate(logprobs, old_logprobs, advantages, epsilon=0.2):
    """Objective of each token: three arrays of shape (tokens,) -> an array of shape (tokens,)."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("04.1"):
    ratios = np.log([1.0, 1.5, 1.5, 0.5, 0.5])
    got = surrogate(ratios, np.zeros(5), np.array([1.0, 1.0, -1.0, 1.0, -1.0]))
    assert got.shape == (5,), "one number a token"
    assert np.isclose(got[0], 1.0), "at a ratio of 1 it is the advantage"
    assert np.isclose(got[1], 1.2), "a good action, likelier by half already: no more than 1 + ε"
    assert np.isclose(got[2], -1.5), "a bad action that became likelier is punished in full"
    assert np.allclose(got[3:], [0.5, -0.8]), "below 1 - ε it is the other way round"

# %% [markdown]
# ### 04.2 Who is compared with whom? &nbsp; ●●○ · 15 minutes
#
# A batch holds several games, in any order. Make the returns of Eq 6 and the advantages of Eq 8 for all of it. Hard
# games must not be compared with easy ones, and a group whose returns are all equal teaches exactly nothing.
#
# <details><summary>Hint</summary>Loop over <code>np.unique(games)</code>. The library uses the sample's standard
# deviation (<code>ddof=1</code>) plus 1e-4.</details>
# <details><summary>Solution</summary>In <a href="solutions/04_joint_grpo.py">solutions/04_joint_grpo.py</a>.</details>


# %% tags=["exercise"]
def advantages_of(won, labels, games, lam):
    """(N,) advantages. won (0 or 1), labels (sums of values), games (ids): (N,) each; lam: λ(u)."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("04.2"):
    won, games = np.array([1.0, 1.0, 0.0, 1.0, 0.0, 0.0]), np.array([7, 3, 7, 3, 5, 5])
    labels = np.array([0.1, 0.0, 0.3, 0.0, 0.2, 0.0])
    got = advantages_of(won, labels, games, 0.0)
    assert got.shape == (6,) and np.isfinite(got).all(), "one finite number an episode"
    assert got[1] == got[3] == 0, "both episodes of game 3 were won: nothing to compare there"
    assert not np.isclose(got[0], 1, atol=1e-3), "np.std divides by n; take ddof=1"
    assert np.allclose(got, [0.707, 0, -0.707, 0, 0, 0], atol=1e-3), "compare within each game"
    got = advantages_of(won, labels, games, 1.0)
    assert got[4] > 0.7, "all failed in game 5: there the labels decide, at full size"
    assert np.allclose(got, sglib.advantages.group_relative(won + labels, games)), "Eq 6, then Eq 8"

# %% [markdown]
# ### 04.3 Which mean? &nbsp; ●●○ · 10 minutes
#
# The paper does not say how token losses are averaged, and it matters. Episodes are rows that are padded to the same
# length. `"grpo"` takes the mean within each episode and then over episodes; `"dapo"` lets every token of the batch
# count the same, so that long episodes (the lost ones, mostly) weigh more. Only tokens that the policy wrote count.
#
# <details><summary>Hint</summary>Sum what counts, and divide by how much counts.</details>
# <details><summary>Solution</summary>In <a href="solutions/04_joint_grpo.py">solutions/04_joint_grpo.py</a>.</details>


# %% tags=["exercise"]
def mean_loss(losses, mask, kind):
    """One number. losses, mask: (N, C), mask 1 where the policy wrote. kind: "grpo" or "dapo"."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("04.3"):
    losses = np.array([[1.0, 1.0, 9.0, 9.0], [0.0, 0.0, 0.0, 0.0]])
    mask = np.array([[1, 1, 0, 0], [1, 1, 1, 1]])
    got = {kind: mean_loss(losses, mask, kind) for kind in ("grpo", "dapo")}
    assert max(got.values()) <= 1, "the environment's tokens and the padding take part"
    assert not np.isclose(got["grpo"], 0.25), "divide by the tokens that count, not by the width"
    assert np.isclose(got["grpo"], 0.5), "the mean of 1 and 0: both episodes count the same"
    assert np.isclose(got["dapo"], 1 / 3), "two of six tokens have a loss of 1"

# %% [markdown]
# ### 04.4 The gradient on paper &nbsp; ●●● · 20 minutes
#
# A policy of one choice: logits $\ell$, probabilities $\pi = \mathrm{softmax}(\ell)$. Its objective is the mean of
# $\hat A_i \log \pi(a_i)$ over sampled actions. Derive its gradient with respect to the logits, without autograd. What
# happens to an action that was never sampled? And what if all advantages are 1?
#
# <details><summary>Hint</summary>The derivative of log π(a) with respect to ℓ is 1 at a, less π everywhere.</details>
# <details><summary>Solution</summary>In <a href="solutions/04_joint_grpo.py">solutions/04_joint_grpo.py</a>.</details>


# %% tags=["exercise"]
def policy_gradient(logits, actions, advantages):
    """(V,) gradient for logits (V,), actions (N,) of 0..V-1 and their advantages A (N,)."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("04.4"):
    logits, a = np.array([0.5, -1.0, 2.0, 0.0]), np.array([1.5, -0.5, 0.5])
    actions, moves = np.array([0, 2, 2]), 1e-5 * np.eye(4)
    higher, lower = (
        np.mean(a * (x - np.log(np.exp(x).sum(1, keepdims=True)))[:, actions], axis=1)
        for x in (logits + moves, logits - moves)
    )
    slope = (higher - lower) / 2e-5  # of the objective, logit by logit
    got = np.asarray(policy_gradient(logits, actions, a))
    assert got.shape == (4,), "one number a logit"
    assert np.isclose(got.sum(), 0), "probabilities add up to 1: what one logit gains others lose"
    assert not np.allclose(got, 3 * slope), "the mean over the samples, not the sum"
    assert np.allclose(got, slope, atol=1e-6), f"measured by small steps it is {slope.round(3)}"

# %% [markdown]
# ## Try it yourself
#
# - Add a recipe of your own to `arms`, with two rewards at once, or with `advantage: gigpo`.
# - In the last batches below, look for an episode that was lost and still has a high return. What did it say of itself?

# %%
sglib.inspect({arm: r.last_batch for arm, r in results.items()}, view="list")

# %% [markdown]
# Next: [05_credit_assignment](05_credit_assignment.ipynb).
