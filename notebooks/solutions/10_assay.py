# Solutions of the exercises in notebooks/10_assay.py; the suite runs its checks against them.

# %% [markdown]
# ## 10.1 The right sum on the wrong turns
#
# The sum of each episode stays, so every episode has the same return. What is lost is which turn was paid. Permuting over the whole batch
# would change the returns as well, and the control would fail for two reasons at once.

# %%
import numpy as np


def misplaced(rewards, rng):
    """rewards: one array (T_i,) an episode -> the same, each permuted within its episode."""
    return [rng.permutation(r) for r in rewards]


# %% [markdown]
# ## 10.2 The verdict
#
# Two questions are asked of an effect: is it there (zero outside of the interval), and is it larger than what the same method shows against
# itself (the band)? An interval that reaches zero and leaves the band shows neither an effect nor its absence.


# %%
def verdict(estimate, low, high, band, sensitive=True):
    """One of the four verdicts above, or "cannot be told here"; numbers are fractions."""
    if not sensitive:
        return "cannot be told here"
    if abs(estimate) > band and (low > 0 or high < 0):
        return "helps" if estimate > 0 else "hurts"
    return "no difference beyond the band" if max(abs(low), abs(high)) <= band else "inconclusive"


# %% [markdown]
# ## 10.3 A reward of known truth
#
# Take a good and a bad step. With binary values AUROC is (1 + the difference of their mean values) / 2. A kept value has the difference 1, a
# drawn one 0, so the AUROC is (1 + q) / 2, and q = 2a - 1. Flipping values with a coin gives the same AUROC, but pays more steps where few
# help: then two things would differ from the truth.


# %%
def degraded(values, auroc, rng):
    """values: (steps,), `auroc` in 0.5..1 -> (steps,) values that tell good steps that well."""
    kept = rng.random(len(values)) < 2 * auroc - 1
    return np.where(kept, values, rng.choice(values, len(values)))


# %% [markdown]
# ## 10.4 An interval for a ratio
#
# For each r the difference is one table of numbers, and its interval needs no division. What seeds and games share cancels in it. Where the
# truth's own gain may be zero, no r can be left out and the interval has no end: the ratio is then not known, which is true.


# %%
def share_interval(reward, truth):
    """Both (seeds, games), differences to success alone -> (low, high) of the share."""
    import sglib

    possible = []
    for r in np.arange(-2, 3, 0.02):
        it = sglib.intervals.crossed_mean(reward - r * truth)
        if it.low <= 0 <= it.high:
            possible.append(r)
    return min(possible), max(possible)
