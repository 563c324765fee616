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
# # When do step rewards help?
#
# **By the end you will have shown** in which set-ups even the *true* step reward helps, and in which it adds nothing
# that can be told, so that no internal reward could be seen to; and that the same numbers on the wrong turns do not
# help.
#
# *For whom:* anyone who chooses a benchmark for a new reward. *Time:* half a minute for the cells, an hour for the
# exercises. *Writes:* `outputs/11_when_do_step_rewards_help/`.
#
# Nothing is trained here. The cells are committed; `python -m sglib evidence --params params/regimes/<name>.yaml`
# trains more.

# %% tags=["parameters"]
seed = 0
size = "cpu"
phase = {}

# %%
import numpy as np

import sglib
from sglib.experiments import assay, evidence, phase as regimes
from sglib.view.report import phase_figure

p = sglib.params.check("11_when_do_step_rewards_help", globals())
run = sglib.runs.start_run("11_when_do_step_rewards_help", p)
print(p)

# %% [markdown]
# ## What success alone leaves silent
#
# GRPO compares the episodes of a group, which play the same task. If all of them fail, or all win, every advantage is
# zero and nothing is learned: the group is *silent*. A step reward could speak there. So the first thing to know of a
# set-up is how much of it is silent.
#
# Built small: mark each group as silent by hand, and compare with the advantages that the library computes.


# %%
def silent_share(outcomes):
    """outcomes: (groups, size of a group) of 0 and 1 -> share of episodes in silent groups."""
    return float(np.mean(outcomes.min(axis=1) == outcomes.max(axis=1)))


rng = np.random.default_rng(p.seed)
for chance in (0.05, 0.3, 0.5):
    outcomes = (rng.random((500, 4)) < chance).astype(float)
    advantages = sglib.advantages.group_relative(outcomes.ravel(), np.repeat(np.arange(500), 4))
    assert silent_share(outcomes) == np.mean(advantages == 0)
    print(f"chance {chance:.2f}, groups of 4: {100 * silent_share(outcomes):.0f} % silent")

# %% [markdown]
# With a chance of 5 % four groups of five are silent; at 50 % one in eight is. Hard tasks and small groups leave room
# for a step reward, easy tasks and large groups do not.
#
# ## The truth's gain in every regime
#
# A *regime* is an environment, its turns, the size of a group and a base model. In each, the best step reward there
# can be was trained: the *truth*, every step's exact change of the distance to the goal. Its *gain* is its success
# minus the better of GRPO and GiGPO, which are paid for success alone. It is taken twice: at the end of training, and
# as the mean over training, which still sees a gain that success alone catches up with. *base* is success before
# training; *silent* is measured on the first five batches.

# %%
rows = regimes.phase()
run.write_table("phase.csv", rows)
for row in rows:
    end = sglib.intervals.points(row["end"], row["end_low"], row["end_high"])
    print(f"{row['regime']}: {row['turns']} turns, groups of {row['group']}, {row['seeds']} seeds")
    print(f"  base {100 * row['base']:.1f} %, silent {100 * row['silent']:.0f} %, at the end {end}")
    if "training" in row:
        gain = (row["training"], row["training_low"], row["training_high"])
        print(f"  over training {sglib.intervals.points(*gain)} points")
lacking = sorted(set(assay.regimes()) - {row["regime"] for row in rows})
print("fewer than three pairs of seeds of the truth:", ", ".join(lacking) or "none")

# %% [markdown]
# Check one of these numbers by hand. Take the mean difference over seeds and games, against each of the two, and keep
# the smaller.

# %%
for row in rows[:1]:
    rule, planned = assay.load(row["regime"])
    found = evidence.read_evidence(planned)
    truth, by_hand = found.outcomes(rule.truth), {}
    for plain in rule.plain:
        alone = found.outcomes(plain)
        both = sorted(set(truth) & set(alone))
        by_hand[plain] = np.mean([truth[s].mean() - alone[s].mean() for s in both])
    assert np.isclose(min(by_hand.values()), row["end"])
    print(row["regime"], {plain: f"{100 * gap:+.1f} points" for plain, gap in by_hand.items()})

# %% [markdown]
# ## The control that must fail
#
# The truth's own values, permuted within each episode: each episode is paid the same sum, on the wrong turns. If this
# helped as well, it would be the sum that helps and not the right step. Read the two intervals of a regime side by
# side. The shuffle's must not lie above zero.

# %%
for row in rows:
    rule, planned = assay.load(row["regime"])
    found = evidence.read_evidence(planned)
    shuffled = assay.gap(found, rule.shuffled, row["against"], "after")
    print(f"{row['regime']}, against {row['against']}:")
    print(f"  truth   {sglib.intervals.points(row['end'], row['end_low'], row['end_high'])}")
    print(f"  shuffle {shuffled or 'fewer than three pairs of seeds'}")

# %% [markdown]
# ## The map
#
# Each point is a regime. What others report stands on the same axes: a true, solver-made step reward against the
# outcome alone, with other models, tasks and estimators. Those points come without intervals.

# %%
sglib.view.keep_figure(run, "phase", phase_figure(rows))

# %% [markdown]
# The same gain over training, against the share of episodes that was silent at first. If silence is what a step
# reward fills, points should rise to the right. In ALFWorld with groups of 4 they do, but look at the bars: most have
# three seeds, so this is a pattern to test, not a law. In Sokoban the truth pays for caution, and its points lie low.

# %%
sglib.view.keep_figure(run, "silent", sglib.figures.points(
    regimes.by_silence(rows),
    title="The same over training, by how much is silent at first",
    x_title="episodes in groups without a signal, first five batches, %",
    y_title="truth - better of GRPO and GiGPO, points",
    note="95 % intervals over seeds and games",
))  # fmt: skip
run.finish(regimes=len(rows), sensitive=[row["regime"] for row in rows if row["sensitive"]])

# %% [markdown]
# **Limits.**
#
# - One learning rate an environment, 20 or 40 iterations: a longer training may close the gap at the end and not the
#   one over training.
# - A regime without cells is no point on the map, so the map shows what was trained, not what there is.
# - The truth is the best *step* reward by its definition here, the change of an exact distance. Another reward could
#   still teach something else, such as a format.

# %% [markdown]
# ## Exercises
#
# Fill in a stub, run it and the check below it. Checks print what is missing; nothing later in the notebook needs
# them.
#
# ### 11.1 How much is silent? &nbsp; ●○○ · 10 minutes
#
# All episodes of a group win with the same chance, independently. How likely is it that the group is silent?
#
# <details><summary>Hint</summary>There are two ways to end alike. Which chance has each?</details>
# <details><summary>Solution</summary>In <a href="solutions/11_when_do_step_rewards_help.py">solutions</a>.</details>


# %% tags=["exercise"]
def silent(chance, size):
    """Probability that all `size` episodes of a group end alike; `chance` of each to win, 0..1."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("11.1"):
    assert silent(0.0, 4) == 1, "a task that is never won teaches success alone nothing"
    assert silent(1.0, 4) == 1, "a group in which all win is silent, too"
    assert np.isclose(silent(0.5, 2), 0.5), "two coins fall alike half of the time"
    assert silent(0.1, 16) < silent(0.1, 4), "a larger group is silent less often"

# %% [markdown]
# ### 11.2 A benchmark is not one coin &nbsp; ●●○ · 15 minutes
#
# Tasks differ: some are nearly always won, some never. Two benchmarks with the same mean success can leave very
# different shares silent. Compute the share from the chances of the tasks.
#
# <details><summary>Hint</summary>Average what you need, not what goes into it.</details>
# <details><summary>Solution</summary>In <a href="solutions/11_when_do_step_rewards_help.py">solutions</a>.</details>


# %% tags=["exercise"]
def silent_benchmark(chances, size):
    """Expected share of silent groups, one group a task; `chances`: (tasks,), of each task."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("11.2"):
    half = silent_benchmark(np.array([0.5, 0.5]), 4)
    split = silent_benchmark(np.array([0.0, 1.0]), 4)
    assert np.isclose(half, 0.125), "two tasks of chance 0.5: 1/16 + 1/16 each"
    assert split == 1, "one task always won, one never: silent, with the same mean chance"
    rng = np.random.default_rng(0)
    chances = rng.beta(0.3, 3, size=20_000)
    wins = rng.binomial(4, chances)
    seen = np.mean((wins == 0) | (wins == 4))
    assert abs(silent_benchmark(chances, 4) - seen) < 0.01, f"simulated: {seen:.3f}"

# %% [markdown]
# ### 11.3 Which regime for which question? &nbsp; ●●○ · 15 minutes
#
# You have the truth's gain with its interval. Say what the regime is good for:
#
# - `"can tell"`: the gain is at least the margin, and the interval lies above the A/A band. Try new rewards here.
# - `"no room"`: the whole interval lies below the margin. Even the truth adds less, so a reward that adds nothing
#   proves nothing.
# - `"not known"`: anything else.
#
# <details><summary>Hint</summary>A wide interval around zero does not show that there is no room.</details>
# <details><summary>Solution</summary>In <a href="solutions/11_when_do_step_rewards_help.py">solutions</a>.</details>


# %% tags=["exercise"]
def advice(estimate, low, high, band=0.03, margin=0.05):
    """ "can tell", "no room" or "not known"; all numbers are fractions of success."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("11.3"):
    assert advice(0.10, 0.066, 0.135) == "can tell", "ten points, clear of the band"
    assert advice(0.01, -0.01, 0.03) == "no room", "the interval ends below the margin of 5 points"
    assert advice(0.05, -0.02, 0.125) == "not known", "not significant is not the same as no room"
    assert advice(0.06, 0.01, 0.11) == "not known", "above zero, but inside the A/A band"
    assert advice(0.04, 0.035, 0.045) == "no room", "a sure gain, smaller than the margin"

# %% [markdown]
# ### 11.4 The better of two looks better than it is &nbsp; ●●● · 25 minutes
#
# The gain is taken against the *better* of GRPO and GiGPO. If the two are equal, luck decides which one looks better,
# and the truth is compared with a lucky number: its gain is biased downwards. Remove the bias. Choose the better one
# on half of the seeds, measure on the other half, swap the halves, and take the mean.
#
# <details><summary>Hint</summary>Seeds with even and with odd places are two halves: <code>truth[::2]</code>,
# <code>truth[1::2]</code>.</details>
# <details><summary>Solution</summary>In <a href="solutions/11_when_do_step_rewards_help.py">solutions</a>.</details>


# %% tags=["exercise"]
def unbiased_gain(truth, plains):
    """truth: (seeds,) successes; plains: (recipes, seeds) -> gain over the better of `plains`."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("11.4"):
    clear = unbiased_gain(np.full(4, 0.5), np.array([[0.2] * 4, [0.3] * 4]))
    assert np.isclose(clear, 0.2), "where one is clearly better, it counts"
    rng = np.random.default_rng(1)
    tables = rng.normal(0.3, 0.05, size=(4000, 3, 10))  # three recipes that are equal
    lucky = np.mean([(t[0].mean() - t[1:].mean(1)).min() for t in tables])
    yours = np.mean([unbiased_gain(t[0], t[1:]) for t in tables])
    assert abs(yours) < abs(lucky) / 4, f"of equal recipes it should be 0, yours is {yours:+.4f}"

# %% [markdown]
# ## Try it yourself
#
# Copy a regime's file, change its group size, and train three seeds of `gigpo` and `truth`. Does your point lie where
# the map says?
#
# Back to the report: [09_report](09_report.ipynb).
