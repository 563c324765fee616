# Solutions of the exercises in notebooks/00_the_game.py; the suite runs its checks against them.

# %% [markdown]
# ## 00.1 Which actions helped?
#
# An action is judged by the distance before it and the one after it. Out of reach counts as infinitely far, so the
# action that spoils a task did not help, and neither does any after it: infinity is not less than infinity.

# %%
import numpy as np


def helped(distances):
    """T + 1 distances (int, or None: out of reach) -> T booleans, one for each action."""
    far = [np.inf if distance is None else distance for distance in distances]
    return [after < before for before, after in zip(far, far[1:])]


# %% [markdown]
# ## 00.2 A floor and a ceiling
#
# The first distance is read after `reset`, before anything was done; then one after each action. So the distance
# *before* action t has index t, and the one after it t + 1. Forgetting the last one loses the verdict on the last
# action, which is the one that wins.


# %%
def episode(env, task, choose):
    """Play a task to its end; `choose(env, observation)` names each action.

    Returns (actions, distances): T commands, and T + 1 distances (int or None).
    """
    observation = env.reset(task)
    actions, distances = [], [env.distance()]
    while not observation.done:
        actions.append(choose(env, observation))
        observation = env.step(actions[-1])
        distances.append(env.distance())
    return actions, distances


# %% [markdown]
# ## 00.3 What would each action have done?
#
# Every try must start from the same state, so the environment is restored before each. Without that the second action
# is judged where the first one led, and the answers depend on the order of the list.


# %%
def consequences(env, admissible):
    """{action: change of the distance} for each of these actions, tried from where `env` is now.

    -1 is one nearer; `np.inf` where the goal gets out of reach. `env` is afterwards where it was.
    """
    here, before, changes = env.snapshot(), env.distance(), {}
    for action in admissible:
        env.restore(here)
        env.step(action)
        after = env.distance()
        changes[action] = np.inf if after is None else after - before
    env.restore(here)
    return changes
