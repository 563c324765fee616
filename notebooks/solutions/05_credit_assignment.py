# Solutions of the exercises in notebooks/05_credit_assignment.py; the suite runs its checks against them.

# %% [markdown]
# ## 05.1 What comes after a turn
#
# Backwards, each return is its own reward and gamma times the return of the next turn. The copy matters: a list of
# rewards that was overwritten by returns would be discounted a second time by whoever reads it next.

# %%
import collections

import numpy as np


def discounted(rewards, gamma):
    """(T,) rewards -> (T,) returns."""
    returns = np.array(rewards, dtype=float)
    for t in reversed(range(len(returns) - 1)):
        returns[t] += gamma * returns[t + 1]
    return returns


# %% [markdown]
# ## 05.2 Who went on better from here?
#
# The state decides who is compared, not the number of the turn: whoever comes back to the hall stands there again. So a
# state that one episode meets twice counts twice, and the second visit is compared with the first.


# %%
def step_advantages(returns, states):
    """N lists of T_i returns and N lists of T_i states (hashable) -> N arrays (T_i,)."""
    places = collections.defaultdict(list)
    for i, of_episode in enumerate(states):
        for t, state in enumerate(of_episode):
            places[state].append((i, t))
    advantages = [np.zeros(len(x)) for x in returns]
    for met in places.values():
        values = np.array([returns[i][t] for i, t in met])
        if np.ptp(values) > 0:
            for (i, t), value in zip(met, values):
                advantages[i][t] = (value - values.mean()) / (values.std(ddof=1) + 1e-4)
    return advantages


# %% [markdown]
# ## 05.3 A reward that cannot be farmed
#
# The sum telescopes: everything between the first and the last state cancels. So the way there does not matter, and the
# best policy stays the best (Ng, Harada and Russell, 1999). With gamma below 1 the potential of the state that is
# *reached* is discounted, since it is one turn later.


# %%
def shaping(distances, gamma=1.0):
    """T + 1 distances, before each action and after the last one -> (T,) rewards."""
    potential = -np.array(distances) / distances[0]
    return gamma * potential[1:] - potential[:-1]


# %% [markdown]
# ## 05.4 IGPO, in the right order
#
# Two kinds of numbers, two scales: gains in log-probability, and outcomes. Normalised together, whichever is spread
# more would drown the other. The last turn has no gain, and a 0 in its place would pull the mean of the gains towards
# 0. Discounted last, a normalised success of +1 is still positive at the first turn.


# %%
def igpo_advantages(gains, outcomes, gamma=1.0):
    """N arrays (T_i,), of a group's gains, N lists (T_i,) that end with 0, and outcomes (N,)."""
    pool, outcomes = np.concatenate([g[:-1] for g in gains]), np.array(outcomes)
    ends = (outcomes - outcomes.mean()) / (outcomes.std() + 1e-6)
    advantages = []
    for of_episode, end in zip(gains, ends):
        normalised = (np.array(of_episode[:-1]) - pool.mean()) / (pool.std() + 1e-6)
        advantages.append(discounted([*normalised, end], gamma))
    return advantages
