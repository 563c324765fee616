# Solutions of the exercises in notebooks/03_repro_warmup.py; the suite runs its checks against them.

# %% [markdown]
# ## 03.1 From ratings to rewards
#
# With a 0 in front there are T + 1 numbers and so T gains. They telescope: whatever is said in between, their sum is
# the last rating. A policy can move the reward to other steps by what it writes, and make more of it only at the end.

# %%
import numpy as np


def progress_rewards(rated, beta=1.0):
    """(T,) ratings after each action, in percent -> (T,) beta times its gain, progress in 0..1."""
    return beta * np.diff([0.0, *rated]) / 100


# %% [markdown]
# ## 03.2 Does hindsight know before the end?
#
# The last step is left out, since its rating follows from the outcome alone. The steps of all episodes are pooled; a
# mean of the episodes' means would give the single intermediate step of a short episode the weight of a whole long one.


# %%
def discrimination(ratings, won):
    """Points, -100..100, of ratings, N lists of T_i numbers in 0..100, and won, N booleans."""
    steps = {True: [], False: []}
    for of_episode, good in zip(ratings, won):
        steps[good] += of_episode[:-1]
    return np.mean(steps[True]) - np.mean(steps[False])


# %% [markdown]
# ## 03.3 All of RePro's reward
#
# The two lists speak of different moments: what is stated comes before the action, what is rated after it. So hindsight
# about the moment before action t is the rating of action t - 1. Compared with the rating of the same index, an agent
# whose statements are all true would be fined for every action that made progress.


# %%
def repro_rewards(stated, rated, won, alpha=0.1, beta=1.0, penalty=0.1):
    """(T,) rewards of what was stated before and rated after each action, (T,) in percent."""
    p = np.array([0.0, *rated]) / 100  # before each action, and after the last one
    paid = beta * np.diff(p) - alpha * np.abs(np.array(stated) / 100 - p[:-1])
    if (p[-1] == 1) != won:
        paid[-1] -= penalty
    return paid
