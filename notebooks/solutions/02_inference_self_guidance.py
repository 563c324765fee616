# Solutions of the exercises in notebooks/02_inference_self_guidance.py; the suite runs its checks against them.

# %% [markdown]
# ## 02.1 Caught in a loop
#
# Two ways to be stuck: the same action again and again, and a few actions in turn. The second one needs an episode of
# some length, since in a short one half of the steps is no more than two or three.

# %%
import collections
import itertools

import numpy as np


def is_looping(actions):
    """Whether an episode with these actions, T texts, loops."""
    longest = max((len(list(run)) for _, run in itertools.groupby(actions)), default=0)
    most = max(collections.Counter(actions).values(), default=0)
    return longest >= 5 or (len(actions) >= 10 and most >= len(actions) / 2)


# %% [markdown]
# ## 02.2 How often does a liar agree?
#
# Labels and steps are independent when the labels are dealt at random, so the two shares multiply: a positive label
# agrees on the share h of steps that helped, a negative one on the others. With nine of ten steps useless, labels that
# are nearly all negative agree most of the time and know nothing.


# %%
def agreement_by_chance(labels, helped):
    """Expected agreement, 0..1, of labels that are dealt at random over all n steps.

    labels: (n,) of -1, 0, 1. helped: (n,) booleans.
    """
    positive, h = np.mean(labels[labels != 0] > 0), np.mean(helped)
    return positive * h + (1 - positive) * (1 - h)


# %% [markdown]
# ## 02.3 Decoration or steering?
#
# A counterfactual at the same turn: its own table of probabilities, another guidance. The most likely action is
# compared, since two samples from one distribution differ, too, and that would count as steering. Turns whose
# replacement says the same are left out of the share: they cannot change anything.


# %%
def steered(probabilities, written):
    """Share of the turns with another guidance whose likeliest action changes; 0 if there is none.

    probabilities: (T, G, A), of A actions at turn t after guidance g. written: (T,) of 0..G-1.
    """
    turns, other = np.arange(len(written)), np.roll(written, -1)
    likeliest = probabilities.argmax(-1)  # (T, G)
    changed = likeliest[turns, written] != likeliest[turns, other]
    replaced = written != other
    return changed[replaced].mean() if replaced.any() else 0.0
