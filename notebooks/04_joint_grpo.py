# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
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
# **By the end you will have trained** the same base model in up to four ways and compared them on a fixed panel of held-out games:
#
# | arm | acts by | reward |
# |---|---|---|
# | `grpo` | command only | success |
# | `guide` | guidance, then command | success (λ ≡ 0) |
# | `scheduled` | guidance, then command | success + λ(u) × its own labels, λ scheduled as in the paper |
# | `immediate` | guidance, then command | success + its own labels at full weight from the first step (must fail: the control) |
#
# *For whom:* readers of Self-Guide (arXiv 2604.03098), sections 3–5. *Time:* a quarter of an hour with `params/cpu.yaml` on two cores.
# *Writes:* `outputs/04_joint_grpo/`; checkpoints in `outputs/cache/`: interrupt it and run it again, it goes on where it was.

# %% tags=["parameters"]
seed = 0
size = "cpu"
grpo = {}

# %%
import numpy as np

import sglib
from sglib.rewards import Outcome, SelfGuide, Trapezoid
from sglib.training import grpo as training

p = sglib.params.check("04_joint_grpo", globals())
run = sglib.runs.start_run("04_joint_grpo", p)

# %% [markdown]
# ## The idea, small
#
# Four episodes of one game. Each return is $R(\tau; u) = R_{env}(\tau) + \lambda(u) \sum_t r_t$ (Eq 6): a plain sum of the environment's
# reward and of the labels' values (+0.1, 0, −0.1). The advantage is $\hat A_i = (R_i - \mu_R) / (\sigma_R + \varepsilon)$ (Eq 8),
# statistics over the group's trajectories. Built by hand, and checked against the library:

# %%
won = np.array([1.0, 0.0, 0.0, 1.0])
labels = [[0.1, 0.1], [0.1, 0.1, 0.1, 0.1], [-0.1, -0.1], [0.0, 0.1]]
for lam in (0.0, 1.0):
    returns = won + lam * np.array([sum(r) for r in labels])
    advantages = (returns - returns.mean()) / (returns.std(ddof=1) + 1e-4)
    assert np.allclose(advantages, sglib.advantages.group_relative(returns, [0, 0, 0, 0]))
    print(f"lambda {lam:.0f}: returns {returns.round(2)}  advantages {advantages.round(2)}")

# %% [markdown]
# Now a group in which **every episode failed**. Without the internal reward nothing is learned from it; with it, the labels alone decide
# every advantage, at full size, whatever their coefficient: the division by the group's own spread cancels it. That is how the internal
# reward makes the signal denser, and also how it gets gamed.

# %%
for weight in (1.0, 0.01):
    lost = np.array([weight * sum(r) for r in labels])
    print(f"all failed, labels x {weight}: advantages {sglib.advantages.group_relative(lost, [0, 0, 0, 0]).round(2)}")
print("all failed, no labels:     advantages", sglib.advantages.group_relative(np.zeros(4), [0, 0, 0, 0]))

# %% [markdown]
# ## The schedule λ(u)
#
# Off until the labels mean something, full in the middle, off again at the end, since this shaping is not potential-based and would bias
# the final policy.

# %%
schedule = Trapezoid(*p.schedule)
run.figure("schedule", sglib.figures.learning_curves(
    {"lambda(u)": [{"u": u / 100, "value": schedule(u / 100)} for u in range(101)]}, x="u", y="value",
    title="Stage schedule", x_title="training fraction u", y_title="λ(u)", percent=False,
))  # fmt: skip

# %% [markdown]
# ## Training
#
# The panel is never trained on; it is played at temperature {eval_temperature} as in the paper's validation (0.4). Training games come from other
# seeds. One optimiser step an iteration, on `games_per_iteration × group_size` fresh episodes.

# %%
panel = sglib.panel(p.eval_games, max_receptacles=p.max_receptacles)
train_games = sglib.envs.alfworld.generate_games(p.train_games, seed=10_000 + p.seed, max_receptacles=p.max_receptacles)
own_labels = {"grpo": None, "guide": 0.0, "scheduled": schedule, "immediate": 1.0}
outcomes, base_outcomes, curves, batches = {}, {}, {}, {}


def arm_format(arm):
    return "act" if arm == "grpo" else "guide"


def measure(policy, arm, keep):
    """Numbers on the panel; outcomes per game are kept for the paired comparison."""
    report = sglib.evaluate(
        policy, panel, format=arm_format(arm), temperature=p.eval_temperature, max_turns=p.max_turns, seed=p.seed, batch_size=p.batch_size
    )
    keep[arm] = report.outcomes
    return report.numbers() | {"outcomes": report.outcomes}


# %%
live = sglib.figures.live_plot()
for arm in p.arms:
    policy = sglib.load_policy(p.model, lora=p.lora)
    components = [Outcome(weight=p.win_reward)]
    if own_labels[arm] is not None:
        g = p.guide_weight
        components.append(SelfGuide(schedule=own_labels[arm], positive=g, negative=-g))
    settings = training.GRPOSettings(
        iterations=p.iterations, games_per_iteration=p.games_per_iteration, group_size=p.group_size, learning_rate=p.learning_rate,
        epsilon=p.clip, beta=p.beta, temperature=p.temperature, max_turns=p.max_turns, format=arm_format(arm), seed=p.seed,
        eval_every=p.eval_every,
    )  # fmt: skip
    folder = sglib.runs.work_folder(f"grpo-{arm}", [p.model_dump(), arm], p.output_dir)
    curves[arm], batches[arm] = [], []
    bar = sglib.runs.progress(desc=arm, total=p.iterations)

    def note(entry, trajectories=None, arm=arm, bar=bar):
        """Follow the training: the panel's curve, the batch's figures, the progress bar."""
        batches[arm].append({"arm": arm, **{k: v for k, v in entry.items() if not k.startswith("eval/")}})
        if "eval/success" in entry:
            row = {k.removeprefix("eval/"): v for k, v in entry.items() if k.startswith("eval/")}
            outcomes[arm] = row.pop("outcomes")
            curves[arm].append({"arm": arm, "iteration": entry["iteration"] + 1, **row})
        bar.update(len(batches[arm]) - bar.n)
        bar.set_postfix_str(f"batch success {100 * entry['success']:.0f} %, panel {100 * curves[arm][-1]['success']:.1f} %")
        live.update(lambda: sglib.figures.learning_curves(curves, title="Success on the held-out panel", n=p.eval_games))

    start = sglib.runs.remember(folder / "base.json", lambda arm=arm, policy=policy: measure(policy, arm, {}))
    base_outcomes[arm] = start.pop("outcomes")
    curves[arm].append({"arm": arm, "iteration": 0, **start})
    live.update(lambda: sglib.figures.learning_curves(curves, title="Success on the held-out panel", n=p.eval_games))
    result = training.train(
        policy, train_games, settings, components, evaluate_fn=lambda q, arm=arm: measure(q, arm, {}), on_iteration=note, run_dir=folder
    )
    for entry in result.metrics[len(batches[arm]) :] if result.resumed_from == 0 else []:
        note(entry)
    if result.resumed_from:  # what was trained before the interruption joins the curves
        curves[arm], batches[arm] = curves[arm][:1], []
        for entry in result.metrics:
            note(entry)
    bar.close()
    run.write_table("curves.csv", [row for rows in curves.values() for row in rows])
    run.write_table("batches.parquet", [row for rows in batches.values() for row in rows])
live.close()
