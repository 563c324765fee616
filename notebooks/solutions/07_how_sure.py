# Solutions of the exercises in notebooks/07_how_sure.py; the suite runs its checks against them.

# %% [markdown]
# ## 07.1 An interval for 0 of 10
#
# The textbook interval measures the spread at the rate that was seen, and at 0 of 10 that spread is zero. Wilson's measures it at each rate
# that is tried. Its centre is drawn towards one half, as if some four more games had been played, half of them won.

# %%
import itertools
import math

import numpy as np


def wilson(wins, n):
    """(low, high), 0..1, of a success rate: `wins` of `n` games."""
    rate, z = wins / n, 1.959964
    centre = rate + z**2 / (2 * n)
    half = z * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    scale = 1 + z**2 / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


# %% [markdown]
# ## 07.2 Only games that one of them won
#
# 30 of 100 against 20 of 100 looks like nothing to an unpaired test (p is about 0.1). Paired, 10 games went one way and none the other, which
# fair coins do twice in 1024 times. Pairing by games is free, if both policies play the same panel.


# %%
def mcnemar(a, b):
    """p-value of two arrays (games,) of 0 and 1, in the same order."""
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    n = only_a + only_b
    tail = sum(math.comb(n, k) for k in range(min(only_a, only_b) + 1)) / 2**n
    return min(1.0, 2 * tail)


# %% [markdown]
# ## 07.3 What three seeds can show
#
# With S seeds the smallest p-value is 2 / 2^S: 0.25 for three, 0.002 for ten. Three seeds can never be significant in this test, however clear
# they look. The t interval of this notebook can be, since it assumes that seeds are spread normally; that is what it buys. Swapping games instead of seeds
# would ask another question, whether these two *runs* differ.


# %%
def sign_flip(a, b):
    """p-value of outcomes (seeds, games) of two methods, swapped seed by seed."""
    seeds = (a - b).mean(axis=1)
    ways = np.array(list(itertools.product((1, -1), repeat=len(seeds))))
    means = np.abs(ways @ seeds) / len(seeds)
    return float(np.mean(means >= abs(seeds.mean()) - 1e-12))
