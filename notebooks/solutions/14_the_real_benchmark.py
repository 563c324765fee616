# Solutions of the exercises in notebooks/14_the_real_benchmark.py; the suite runs its checks against them.

# %% [markdown]
# ## 14.1 Two lists, one number
#
# The mean over games, not over lists: each list weighs as many games as it has.

# %%
import numpy as np

import sglib


def pooled(successes, games):
    """successes: of each list, 0..1; games: how many each has -> success over all games."""
    return float(np.average(successes, weights=games))


# %% [markdown]
# ## 14.2 How many games tell 90 from 95?
#
# 127 (wins are rounded, so a few longer lists would not do): a list of 134 games just suffices. This is for one policy: another training seed
# moves the number, too, and only more seeds help against that.


# %%
def games_needed(success, floor):
    """The fewest games with which a success (0..1) is told from a lower `floor`."""
    n = 1
    while sglib.intervals.wilson(round(success * n), n)[0] <= floor:
        n += 1
    return n


# %% [markdown]
# ## 14.3 The best checkpoint is a lucky one
#
# The largest of ten equally good evaluations lies some one and a half standard deviations above their mean, and one standard deviation of 134
# games at 80 % is three and a half points. So the checkpoint must be chosen by a rule that does not look at the panel, such as "the last".


# %%
def luck_of_the_best(p, n, k, rng, times=4000):
    """Mean of the best of k evaluations of n games minus p, over `times` simulated trainings."""
    return float((rng.binomial(n, p, size=(times, k)) / n).max(axis=1).mean() - p)
