# Solutions of the exercises in notebooks/04_joint_grpo.py; the suite runs its checks against them.

# %% [markdown]
# ## 04.1 The clipped surrogate
#
# The minimum keeps the smaller of the two gains: clipping can only take away. So an action with a positive advantage is paid up to 1 + ε, and one
# with a negative advantage is punished down to 1 - ε; where the policy moved in the *wrong* direction nothing is clipped.

# %%
import numpy as np


def surrogate(logprobs, old_logprobs, advantages, epsilon=0.2):
    """Objective of each token: three arrays of shape (tokens,) -> an array of shape (tokens,)."""
    ratio = np.exp(logprobs - old_logprobs)
    return np.minimum(ratio * advantages, np.clip(ratio, 1 - epsilon, 1 + epsilon) * advantages)
