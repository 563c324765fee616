# Solutions of the exercises in notebooks/13_scale_up.py; the suite runs its checks against them.

# %% [markdown]
# ## 13.1 Keys and values
#
# Two numbers, a key and a value, for each place of each head, in each layer, at each token. Queries do not appear: they are used once and
# forgotten. That is why fewer heads of keys and values make a cheaper rollout with as many heads of queries.

# %%
import math


def cache(layers, kv_heads, head_dim, tokens, episodes, width=2):
    """Bytes; `tokens` of each episode, `width` bytes a number."""
    return 2 * layers * kv_heads * head_dim * tokens * episodes * width


# %% [markdown]
# ## 13.2 The largest micro-batch
#
# Subtract what is taken, divide, round down. `max` keeps a state that is too large from giving a negative number, which a trainer might
# read as "no limit".


# %%
def most_tokens(memory, state, fixed, per_token, free=0.1):
    """Whole tokens, 0 if not even one fits; all in bytes but `free`, a share of `memory`."""
    return max(0, math.floor((memory * (1 - free) - state - fixed) / per_token))


# %% [markdown]
# ## 13.3 How many GPUs?
#
# The copy that plays and the activations are on every GPU, whatever their number. What they leave must hold an n-th of the 16 bytes a weight.
# If they leave nothing, more GPUs do not help; a rollout engine on GPUs of its own, or a copy in bfloat16, would.


# %%
def gpus(weights, activations, memory):
    """The least number of GPUs; None where no number is enough. Bytes, but `weights` is how many there are."""
    left = memory - 4 * weights - activations
    return math.ceil(16 * weights / left) if left > 0 else None
