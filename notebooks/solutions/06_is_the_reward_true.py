# Solutions of the exercises in notebooks/06_is_the_reward_true.py; the suite runs its checks against them.

# %% [markdown]
# ## 06.1 Which step does a label rate?
#
# The label of turn t + 1 rates the action of turn t, so values move one turn to the front and the last action has none. Off by one, a signal that is
# perfectly true looks like noise, or like a small correlation, since neighbouring steps resemble each other. The first label rates nothing.

# %%
import numpy as np

import sglib


def values_of_actions(labels):
    """labels: T texts (None where none was read), as written -> (T,) what is said of each action."""
    worth = {"positive": 1.0, "neutral": 0.0, "negative": -1.0, None: np.nan}
    return np.array([worth[label] for label in [*labels[1:], None]])


# %% [markdown]
# ## 06.2 Steps of one episode are not strangers
#
# Drawing steps would give a width of 0.14, as if there were 200 independent pieces of luck; drawing episodes gives 0.4. Episodes are not
# equally long, so a draw needs its own number of steps in the denominator.


# %%
def episode_interval(values, episode, rng, resamples=1000):
    """values: (steps,); episode: (steps,) which one each belongs to -> (low, high) of the mean."""
    names = np.unique(episode)
    sums = np.array([values[episode == name].sum() for name in names])
    counts = np.array([(episode == name).sum() for name in names])
    draws = rng.integers(len(names), size=(resamples, len(names)))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


# %% [markdown]
# ## 06.3 A reward that cannot take success back
#
# A small coefficient is no repair: where outcomes do not differ the spread is that of the labels, and dividing by it makes them large again. So the gate
# asks for the outcomes' spread. The bound is on the group's range, since only differences within a group count. This is the `gate: outcome` of the
# estimators with a bound added; whether it helps learning is another question, which notebook 10 asks.


# %%
def safe_advantages(outcomes, internal, most=0.5):
    """outcomes: (n,) 0 or 1; internal: (n,) sums of labels -> (n,) advantages of one group."""
    if np.ptp(outcomes) == 0:
        return np.zeros(len(outcomes))
    spread = np.ptp(internal)
    factor = min(1.0, most / spread) if spread else 0.0
    return sglib.advantages.group_relative(outcomes + factor * internal, [0] * len(outcomes))
