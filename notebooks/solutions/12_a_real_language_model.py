# Solutions of the exercises in notebooks/12_a_real_language_model.py; the suite runs its checks against them.

# %% [markdown]
# ## 12.1 Which tokens are learned?
#
# Everything that the environment wrote stays at -100, and so does an answer that did nothing: imitation has no way to say "not this".


# %%
def labels_of(ids, spans, valid):
    """n labels for n token ids; spans: [start, end) of each answer; valid: whether it is taught."""
    labels = [-100] * len(ids)
    for (start, end), taught in zip(spans, valid):
        if taught:
            labels[start:end] = ids[start:end]
    return labels


# %% [markdown]
# ## 12.2 None of sixteen
#
# (1 - s)^n = 0.05, so s = 1 - 0.05^(1/n); for large n that is -ln(0.05) / n, about 3 / n. None of 16 games leaves room for 17 %, and a
# success below one percent takes about 300 games.


# %%
def largest_success(n):
    """The success, 0..1, with which n games are all lost with probability 0.05."""
    return 1 - 0.05 ** (1 / n)


# %% [markdown]
# ## 12.3 What a kept cache saves
#
# With T turns the conversation's length grows like T, and so does the number of times that it is read: the sum grows like its square.


# %%
def tokens_read(prompt, answers, observations):
    """(kept, again) for a prompt's length and the lengths of T answers and T - 1 observations."""
    so_far, again = prompt, 0
    for answer, observation in zip(answers, [*observations, 0]):
        again += so_far + answer
        so_far += answer + observation
    return prompt + sum(answers) + sum(observations), again
