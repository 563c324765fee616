# Solutions of the exercises in notebooks/08_inspecting_trajectories.py; the suite runs its checks against them.

# %% [markdown]
# ## 08.1 Going in circles
#
# The pair counts, not the action: "open it" in another place is another action. Comparing with the turn before only finds standing still, not
# going back and forth, which is what lost agents mostly do. `sglib.measure.hacking.probe` keeps this number of every training batch.

# %%
from collections import defaultdict

import sglib


def repeated(turns):
    """turns: list of (observation, action) -> share of turns that were there before, 0..1."""
    met, again = set(), 0
    for pair in turns:
        again += pair in met
        met.add(pair)
    return again / len(turns) if turns else 0.0


# %% [markdown]
# ## 08.2 Anchor states
#
# The members are counted, not the visits. A state that one member met twice says how that member went on from it, but not whether another way was better.
# Once a state is an anchor, every visit takes part in the comparison.


# %%
def anchors(group):
    """group: one list of observations a member -> {observation: [(member, turn), ...]}."""
    places = defaultdict(list)
    for member, observations in enumerate(group):
        for turn, text in enumerate(observations):
            places[text].append((member, turn))
    return {text: at for text, at in places.items() if len({member for member, _ in at}) > 1}


# %% [markdown]
# ## 08.3 How sure is a what-if?
#
# Each end takes the side of both intervals that matters for it. None of 8 twice is no proof of equality: both chances may be up to 32 %. Half the
# difference takes four times as many episodes. So what-if is for large effects; for small ones take many games and seeds (notebook 07).


# %%
def gap(a, b, k):
    """(low, high) of the difference of two shares: `a` and `b` of `k` episodes each were won."""
    (low_a, high_a), (low_b, high_b) = (sglib.intervals.wilson(wins, k) for wins in (a, b))
    a, b = a / k, b / k
    below = ((a - low_a) ** 2 + (high_b - b) ** 2) ** 0.5
    above = ((high_a - a) ** 2 + (b - low_b) ** 2) ** 0.5
    return a - b - below, a - b + above


def episodes_needed(share_a, share_b):
    """The smallest k = 8, 16, 32, ... at which shares like these leave out zero."""
    k = 8
    while True:
        low, high = gap(round(share_a * k), round(share_b * k), k)
        if low > 0 or high < 0:
            return k
        k *= 2
