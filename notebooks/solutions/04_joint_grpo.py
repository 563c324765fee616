# Solutions of the exercises in notebooks/04_joint_grpo.py; the suite runs its checks against them.

# %% [markdown]
# ## 04.1 The clipped surrogate
#
# The minimum keeps the smaller of the two gains: clipping can only take away. So an action with a positive advantage is
# paid up to 1 + ε, and one with a negative advantage is punished down to 1 - ε; where the policy moved in the *wrong*
# direction nothing is clipped.

# %%
import numpy as np


def surrogate(logprobs, old_logprobs, advantages, epsilon=0.2):
    """Objective of each token: three arrays of shape (tokens,) -> an array of shape (tokens,)."""
    ratio = np.exp(logprobs - old_logprobs)
    return np.minimum(ratio * advantages, np.clip(ratio, 1 - epsilon, 1 + epsilon) * advantages)


# %% [markdown]
# ## 04.2 Who is compared with whom?
#
# Only the ids say what belongs together. Statistics over the whole batch would praise every episode of an easy game and
# blame every one of a hard game, which the policy cannot help. A group of equals gets 0 by itself here, since its
# returns are their own mean; the small number below the line keeps 0 / 0 away.


# %%
def advantages_of(won, labels, games, lam):
    """(N,) advantages. won (0 or 1), labels (sums of values), games (ids): (N,) each; lam: λ(u)."""
    returns = won + lam * labels
    advantages = np.zeros(len(returns))
    for game in np.unique(games):
        group = returns[games == game]
        advantages[games == game] = (group - group.mean()) / (group.std(ddof=1) + 1e-4)
    return advantages


# %% [markdown]
# ## 04.3 Which mean?
#
# The same sum, divided in two ways. With "grpo" a token of a short episode counts more than one of a long episode; with
# "dapo" a long episode counts more than a short one. Neither is wrong. Dividing by the padded width is: it makes an
# episode's weight depend on the longest other one in the batch.


# %%
def mean_loss(losses, mask, kind):
    """One number. losses, mask: (N, C), mask 1 where the policy wrote. kind: "grpo" or "dapo"."""
    counted = losses * mask
    if kind == "dapo":
        return counted.sum() / mask.sum()
    return np.mean(counted.sum(1) / mask.sum(1))


# %% [markdown]
# ## 04.4 The gradient on paper
#
# log π(a) = ℓ_a - log Σ exp ℓ. Its derivative is 1 at a, less π everywhere. An action that was never sampled moves too:
# a good advantage elsewhere takes probability from it. With all advantages 1 the mean gradient is the sampled
# frequencies less π, which is 0 in expectation: praise for everything teaches nothing but noise. (With advantages that
# add up to 0, as a group's do, the π term cancels: a wrong formula without it passes for right there.)


# %%
def policy_gradient(logits, actions, advantages):
    """(V,) gradient for logits (V,), actions (N,) of 0..V-1 and their advantages A (N,)."""
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    chosen = np.eye(len(logits))[actions]  # (N, V)
    return np.mean(np.asarray(advantages)[:, None] * (chosen - probabilities), axis=0)
