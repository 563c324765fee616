# Solutions of the exercises in notebooks/11_when_do_step_rewards_help.py; the suite runs its checks against them.

# %% [markdown]
# ## 11.1 How much is silent?
#
# All win, or all lose: two events that exclude each other, so their chances add. Forgetting the first is the usual mistake. It does not show
# on hard tasks, and is most of the silence on easy ones.

# %%
import numpy as np


def silent(chance, size):
    """Probability that all `size` episodes of a group end alike; `chance` of each to win, 0..1."""
    return chance**size + (1 - chance) ** size


# %% [markdown]
# ## 11.2 A benchmark is not one coin
#
# The share is the mean of each task's own chance of silence. The chance of silence of the mean task is smaller: the function is convex, so
# the more tasks differ, the more is silent (Jensen's inequality). A benchmark's mean success alone does not tell.


# %%
def silent_benchmark(chances, size):
    """Expected share of silent groups, one group a task; `chances`: (tasks,), of each task."""
    return float(np.mean(silent(np.asarray(chances), size)))


# %% [markdown]
# ## 11.3 Which regime for which question?
#
# The two ends of the interval answer two questions. The low end says whether there is a gain; the high end says how large one is still
# possible. "No room" needs the high end. A small study has wide intervals and can say neither.


# %%
def advice(estimate, low, high, band=0.03, margin=0.05):
    """ "can tell", "no room" or "not known"; all numbers are fractions of success."""
    if estimate >= margin and low > band:
        return "can tell"
    return "no room" if high < margin else "not known"


# %% [markdown]
# ## 11.4 The better of two looks better than it is
#
# Choosing and measuring on the same seeds counts the luck twice. On other seeds the chosen recipe has average luck again. The price: each
# half chooses with fewer seeds. The assay's rule does not do this. It errs on the side of calling a regime not sensitive, which is the
# safer side.


# %%
def unbiased_gain(truth, plains):
    """truth: (seeds,) successes; plains: (recipes, seeds) -> gain over the better of `plains`."""
    gains = []
    for choose, measure in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        best = plains[:, choose].mean(axis=1).argmax()
        gains.append(truth[measure].mean() - plains[best, measure].mean())
    return float(np.mean(gains))
