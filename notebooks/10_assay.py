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
# # The assay: judge a reward, also one of your own
#
# **By the end you will have shown** whether this set-up can tell a good step reward from none, how true a reward has
# to be before it helps, and where one recipe stands between success alone and the truth: a report card of one page.
#
# *For whom:* anyone with an idea for an internal reward. *Time:* half a minute for a recipe whose cells are
# committed, about 15 minutes on two cores for one of your own (five seeds, and as many of its own shuffle); an hour
# for the exercises. *Writes:* `outputs/10_assay/`, the card also to `outputs/assay/<regime>/`.
#
#     papermill notebooks/10_assay.ipynb out.ipynb -p recipe mine.yaml        # or: python -m sglib assay mine.yaml

# %% tags=["parameters"]
seed = 0
size = "cpu"
own = {}

# %%
import numpy as np
from IPython.display import HTML, display

import sglib
from sglib.experiments import assay, evidence
from sglib.measure import truth as calibration
from sglib.view import card

p = sglib.params.check("10_assay", globals())
run = sglib.runs.start_run("10_assay", p)
print(p.model_dump(include={"seed", "size", "recipe", "regime", "seeds"}))

# %% [markdown]
# ## First the instrument
#
# A scale that shows 0 for everything says nothing of what lies on it. So before any reward is judged, the set-up
# itself is. A *regime* is *sensitive* if the **truth** helps in it. The truth is what no method has: each step's
# exact change of the distance to the goal, paid as that step's own advantage beside the outcome's,
#
# $$A_t = A^\text{GRPO}(\text{outcome}) + \alpha\,\frac{r_t - \mu}{\sigma},\qquad r_t = \frac{d_t - d_{t+1}}{d_0},$$
#
# with $\mu, \sigma$ over all turns of the batch.
#
# Built small: four episodes of one task, two of them won. `d` is the distance before each action and after the last
# one.

# %%
distances = [np.array(d) for d in ([4, 3, 2, 1, 0], [4, 4, 3, 3], [4, 3, 2, 1, 0], [4, 5, 5, 4])]
outcomes, alpha, eps = np.array([1.0, 0.0, 1.0, 0.0]), 1.0, 1e-4

rewards = [-np.diff(d) / d[0] for d in distances]  # r_t, one a turn
pool = np.concatenate(rewards)
episode = (outcomes - outcomes.mean()) / (outcomes.std(ddof=1) + eps)
by_hand = [
    a + alpha * (r - pool.mean()) / (pool.std(ddof=1) + eps)
    for a, r in zip(episode, rewards)
]  # fmt: skip
library = sglib.advantages.additive(rewards, outcomes, groups=[0, 0, 0, 0], alpha=alpha)
assert all(np.allclose(a, b) for a, b in zip(by_hand, library))
print("a lost episode, turn by turn:", np.round(by_hand[1], 2))

# %% [markdown]
# Read the last line. The episode was lost, so success alone would push all three turns down alike. With the truth
# beside it the one step that came nearer, the second, is pushed down much less.
#
# **The control that must fail.** Permute the rewards within each episode. Every episode is still paid the same sum,
# but on the wrong turns. If training on that helped as well, it would be the sum that helps and not the right step.

# %%
rng = np.random.default_rng(0)
shuffled = [rng.permutation(r) for r in rewards]
assert np.allclose([r.sum() for r in shuffled], [r.sum() for r in rewards])
print(f"AUROC of the truth {calibration.auroc(pool, pool):.2f}, ", end="")
print(f"of its shuffle {calibration.auroc(np.concatenate(shuffled), pool):.2f}")

# %% [markdown]
# (AUROC: how often a step that helped is paid above one that did not. The shuffle stays above 0.5 here, since won
# episodes have more good steps: it still knows which *episode* was good.)
#
# So the rule has two parts. The truth has to beat the better of GRPO and GiGPO, by a margin and beyond what GRPO
# against itself shows. And it has to beat its own shuffle. Where it does not, no reward can be seen to help, and
# every verdict is *cannot be told here*.

# %%
rule, planned = assay.load(p.regime)
found = evidence.read_evidence(planned)
it = assay.sensitivity(found, rule)
plain, settings = it.plain or rule.plain[0], planned[0].params
episodes = f"{settings.games_per_iteration} x {settings.group_size} episodes"
print(f"{p.regime}: {settings.env}, {settings.turns} turns, {settings.iterations} times {episodes}")
print(found)
print(f"{'SENSITIVE' if it.sensitive else 'NOT SENSITIVE'}: {it.why}")

# %% [markdown]
# ## How true must a reward be?
#
# The truth, degraded: with `auroc: 0.8` a step that helped is paid above one that did not with a probability of 0.8.
# The curve from noise (0.5) to the truth (1.0) is the scale on which a reward's own AUROC can be read. It is a scale
# for errors that fall on steps at random. A reward whose errors have a system, which can be learned and exploited,
# may do worse than its AUROC says.

# %%
curve = assay.dose_response(found, rule, plain)
run.write_table("curve.csv", curve)
for row in curve:
    gain = sglib.intervals.points(row["estimate"], row["low"], row["high"])
    print(f"{row['recipe']:18s} AUROC {row['auroc']:.2f}: {gain} points, {row['seeds']} seeds")
if not curve:
    print("no cells of the degraded truth yet")

# %% [markdown]
# ## The recipe
#
# A component of your own is a class in a Python file beside the recipe (`sglib/rewards/own.py` has the whole of it):
#
# ```python
# @dataclass(frozen=True)
# class MyReward(Component):
#     bonus: float = 1.0
#     name: Literal["my_reward"] = "my_reward"
#
#     def __call__(self, trajectories, policy=None, games=None):
#         return [[self.bonus if turn.valid else 0.0 for turn in t.turns] for t in trajectories]
# ```
#
# ```yaml
# components:
#   - {name: outcome, weight: 10.0}
#   - {component: my_rewards.py:MyReward, bonus: 2.0}
# advantage: {kind: additive, alpha: 1.0}
# ```
#
# The recipe that is judged in this run:

# %%
print(sglib.params.recipe_file(p.recipe).read_text())
judged = assay.assay(p.recipe, p.regime, p.seeds, on_update=print)

# %% [markdown]
# ## The report card
#
# - *Share of the truth*: (recipe − success alone) / (truth − success alone), with an interval over seeds and games.
# - *Placement*: the recipe against itself with its pay permuted within each episode, the control from above.
# - *Gamed*: an alarm of `sglib.measure.hacking` in most seeds, or more and more is collected and less is won.

# %%
display(HTML(card.fragment(judged)))
card.write(judged, assay.folder_of(p.regime, p.output_dir))
print("\n".join(assay.lines(judged)))

# %% [markdown]
# The same on the scale. A recipe on the curve helps as much as its AUROC lets expect. One below it pays for something
# else, too.


# %%
def point(x, estimate, low, high, text):
    """A point of the figure, in points of success."""
    return {"x": x, "y": 100 * estimate, "low": 100 * low, "high": 100 * high, "text": text}


drawn = {"the truth, degraded": [
    point(row["auroc"], row["estimate"], row["low"], row["high"], row["recipe"]) for row in curve
]}  # fmt: skip
if judged.calibration and judged.gain:
    mean, gain = np.mean(list(judged.calibration.values())), judged.gain
    drawn[judged.recipe] = [point(mean, gain.estimate, gain.low, gain.high, judged.recipe)]
sglib.view.keep_figure(run, "response", sglib.figures.points(
    drawn, joined=["the truth, degraded"], title="How true must a reward be?",
    band=None if it.band is None else 100 * it.band,
    x_title="AUROC of what is paid for a step (0.5 is chance, 1 the truth)",
    y_title=f"points against {plain}, {assay.MEASURES[rule.measure]}",
    note="95 % intervals over seeds and games",
))  # fmt: skip
run.finish(recipe=judged.recipe, regime=p.regime, verdict=judged.verdict,
           sensitive=it.sensitive, gamed=judged.gamed)  # fmt: skip

# %% [markdown]
# **Limits.**
#
# - One environment, one base model, one length of training: another regime may say another thing (`-p regime`).
# - The controls and your recipe share seeds, games and evaluation. Trained on another type of machine, sums round
#   otherwise, which is noise like another seed's.
# - The curve is for random errors. It does not say what a systematic error costs.

# %% [markdown]
# ## Exercises
#
# Fill in a stub, run it and the check below it. Checks print what is missing; nothing later in the notebook needs
# them.
#
# ### 10.1 The right sum on the wrong turns &nbsp; ●○○ · 10 minutes
#
# Write the control: permute each episode's rewards among its own turns. Which quantity must stay the same, and for
# what?
#
# <details><summary>Hint</summary><code>rng.permutation</code> returns a new array; <code>rng.shuffle</code> changes
# the one that it is given.</details>
# <details><summary>Solution</summary>In <a href="solutions/10_assay.py">solutions/10_assay.py</a>.</details>


# %% tags=["exercise"]
def misplaced(rewards, rng):
    """rewards: one array (T_i,) an episode -> the same, each permuted within its episode."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("10.1"):
    paid = [np.arange(8.0), np.full(5, -1.0), np.array([0.0, 2.0])]
    before = [r.copy() for r in paid]
    mixed = misplaced(paid, np.random.default_rng(0))
    assert [len(r) for r in mixed] == [8, 5, 2], "episodes keep their lengths"
    sums = np.allclose([np.sum(r) for r in mixed], [28, -5, 2])
    assert sums, "each episode keeps its sum: permute within episodes, not over the batch"
    assert sorted(mixed[0]) == list(range(8)), "values are moved, not changed"
    assert list(mixed[0]) != list(range(8)), "nothing was moved"
    assert all((a == b).all() for a, b in zip(paid, before)), "the rewards themselves were changed"

# %% [markdown]
# ### 10.2 The verdict &nbsp; ●●○ · 15 minutes
#
# Judge a difference by the rule of the assay: *helps* or *hurts* if the interval leaves out zero **and** the estimate
# lies beyond the A/A band; *no difference beyond the band* if the whole interval lies inside it; else *inconclusive*.
# Nothing can be told in a regime that is not sensitive.
#
# <details><summary>Hint</summary>Ask for sensitivity first. The band is symmetric: ±band.</details>
# <details><summary>Solution</summary>In <a href="solutions/10_assay.py">solutions/10_assay.py</a>.</details>


# %% tags=["exercise"]
def verdict(estimate, low, high, band, sensitive=True):
    """One of the four verdicts above, or "cannot be told here"; numbers are fractions."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("10.2"):
    same = "no difference beyond the band"
    assert verdict(0.07, 0.05, 0.09, 0.02) == "helps", "clear of zero and beyond the band"
    assert verdict(-0.07, -0.09, -0.05, 0.02) == "hurts", "the same downwards"
    blind = verdict(0.07, 0.05, 0.09, 0.02, sensitive=False)
    assert blind == "cannot be told here", "the instrument goes first"
    assert verdict(0.013, 0.001, 0.025, 0.02) == "inconclusive", "clear of zero, inside the band"
    assert verdict(0.02, -0.01, 0.05, 0.02) == "inconclusive", "p > 0.05 does not show equality"
    assert verdict(0.0, -0.01, 0.015, 0.02) == same, "the whole interval is inside the band"
    assert verdict(0.005, 0.001, 0.009, 0.02) == same, "sure, and too small to matter"

# %% [markdown]
# ### 10.3 A reward of known truth &nbsp; ●●○ · 20 minutes
#
# Degrade a reward so that its AUROC is what you ask for, and its values keep their distribution. Let each value stay
# with some probability $q$, and else replace it by a value drawn from all of them. A kept pair has AUROC 1. What has
# any other pair, and which $q$ gives the AUROC $a$ if one value of the pair is kept with probability $q$?
#
# <details><summary>Hint</summary>One value of a pair is kept, the other drawn from all: solve <code>a = q + (1 - q) /
# 2</code>.</details>
# <details><summary>Solution</summary>In <a href="solutions/10_assay.py">solutions/10_assay.py</a>.</details>


# %% tags=["exercise"]
def degraded(values, auroc, rng):
    """values: (steps,), `auroc` in 0.5..1 -> (steps,) values that tell good steps that well."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("10.3"):
    from sglib.measure.truth import auroc

    helped = (np.arange(20_000) % 5 == 0).astype(float)  # a fifth of the steps helped
    for wanted in (0.5, 0.7, 0.9, 1.0):
        got = degraded(helped, wanted, np.random.default_rng(1))
        a, rate = auroc(got, helped), np.mean(got)
        assert abs(a - wanted) < 0.02, f"asked for {wanted}, got {a:.2f}: at 0.5 nothing is kept"
        assert abs(rate - 0.2) < 0.02, f"a fifth was paid, now {rate:.2f}: draw from the values"

# %% [markdown]
# ### 10.4 An interval for a ratio &nbsp; ●●● · 30 minutes
#
# The share of the truth is a ratio of two uncertain numbers. Dividing the ends of the one interval by the estimate of
# the other forgets that the truth's gain is uncertain, too, and that both were measured on the same seeds. Fieller's
# way: a share $r$ is possible if the interval of *reward* $- r \cdot$ *truth* has zero in it. Collect all such $r$ on
# a grid.
#
# <details><summary>Hint</summary>For each r of <code>np.arange(-2, 3, 0.02)</code>:
# <code>sglib.intervals.crossed_mean(reward - r * truth)</code> has <code>low</code> and <code>high</code>.</details>
# <details><summary>Solution</summary>In <a href="solutions/10_assay.py">solutions/10_assay.py</a>.</details>


# %% tags=["exercise"]
def share_interval(reward, truth):
    """Both (seeds, games), differences to success alone -> (low, high) of the share."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("10.4"):
    rng = np.random.default_rng(2)
    luck = rng.normal(0, 0.1, (6, 1))  # of a seed: it moves the truth's gain
    gain = 0.2 + luck + rng.normal(0, 0.1, (6, 40))
    low, high = share_interval(gain / 2 + rng.normal(0, 0.03, (6, 40)), gain)
    assert low <= 0.5 <= high, "the reward gains half of what the truth does"
    assert high - low < 0.15, "and so in every seed: what the seeds share must cancel"
    low, high = share_interval(0.1 + rng.normal(0, 0.1, (6, 40)), gain)
    assert high > 0.6, "a truth that may gain less than it seems leaves larger shares possible"

# %% [markdown]
# ## Try it yourself
#
# 1. Judge `random` and `always_positive`: does the card say why they fail?
# 2. Write a reward that is gamed: pay for opening things. What rings?
# 3. Degrade the truth only on the steps before a thing is taken. Does its AUROC still tell what it gains?
#
# Back to the report: [09_report](09_report.ipynb).
