# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The game
#
# **By the end you will have shown** that an episode tells its player one bit, that a ruler the player never sees
# measures every step, and that the fast engine gives TextWorld's text character for character.
#
# *For whom:* anyone new to this repository. *Time:* under a minute to run, an hour with the exercises. *Writes:*
# `outputs/00_the_game/`.
#
# An agent in a household gets a task in one sentence ("put a hot mug in cabinet"). It sees only what it stands in
# front of, and acts by short commands. At the end it is told whether it succeeded, and nothing before: one bit after 10
# to 50 actions. The papers studied here let the agent make a denser signal of its own. First, the game itself.
#
# *Of all notebooks:* the next cell has the default parameters, and the line printed below it says what really ran. The
# committed outputs are those of `params/reference.yaml`.

# %% tags=["parameters"]
seed = 0
size = "cpu"
game = {}

# %%
import numpy as np

import sglib

p = sglib.params.check("00_the_game", globals())
run = sglib.runs.start_run("00_the_game", p)
print(p)

# %% [markdown]
# ## A room
#
# Games are generated out of what the `alfworld` package ships: 120 floor plans, its tables of what fits where, its goal
# library, its PDDL domain and text grammar. The same seed gives the same games on any machine.

# %%
games = sglib.envs.get("alfworld").tasks(max(p.games, 2), seed=p.seed, split="train")
room = games[0]
env = sglib.envs.make("alfworld", engine="fast")
observation = env.reset(room)
print(observation.text)

# %% [markdown]
# These commands do something now; the agent is not told them. Anything else is answered by "Nothing happens."

# %%
print("\n".join(observation.admissible))

# %% [markdown]
# ## An episode by hand
#
# The game knows a shortest solution (`walkthrough`), and the engine knows at every moment how many actions are missing
# (`distance`). Neither is shown to the agent: they are the ruler that internal rewards are measured with.

# %%
for action in room.walkthrough:
    before = env.distance()
    observation = env.step(action)
    print(f"[{before} to go]  > {action}\n{observation.text}\n")
assert observation.won

# %% [markdown]
# ## Two engines, one game
#
# The engine that grades is TextWorld's, with alfworld's own wrappers. At each step it derives every admissible command
# through a text grammar, and so it makes 10 to 50 steps a second. The fast engine reads the same file: its own domain,
# grammar and problem. Both play the same commands here, and must agree on everything (`make parity` plays hundreds of
# games, `make benchmark` times them).

# %%
import time

from sglib.envs.alfworld.world import world_of


def transcript(engine, task, actions):
    """All that an engine shows when a task is played by these actions, and the seconds it took."""
    began = time.perf_counter()
    seen = [engine.reset(task), *(engine.step(action) for action in actions)]
    seconds = time.perf_counter() - began
    return [(o.text, o.admissible, o.won) for o in seen], seconds


# %% [markdown]
# The comparison must be able to fail. So the last line is a control: two different games must *not* look alike.

# %%
reference, rows, shown = sglib.envs.make("alfworld", engine="textworld"), [], []
for number, each in enumerate(games[:2]):
    fast = sglib.envs.make("alfworld", engine="fast")
    world_of.cache_clear()  # the fast engine has to read the file again, too
    actions = ["look", "inventory", "take moon 1 from sky 1", *each.walkthrough]
    for name, engine in (("textworld", reference), ("fast", fast)):
        seen, seconds = transcript(engine, each, actions)
        rows.append({"game": number, "engine": name, "seconds": seconds, "steps": len(actions)})
        shown.append(seen)
    assert shown[-1] == shown[-2], "the engines differ"
assert shown[0] != shown[2], "control: two games, one text?"
run.write_table("engines.csv", rows)

# %%
for row in rows:
    took = f"{1000 * row['seconds']:10.2f} ms for {row['steps']} steps and the reset"
    print(f"game {row['game']}  {row['engine']:10s} {took}")
slow, quick = (
    sum(r["seconds"] for r in rows if r["engine"] == name) for name in ("textworld", "fast")
)
print(f"TextWorld took {slow / quick:,.0f} times as long (with loading each game the first time)")

# %% [markdown]
# ## What only the fast engine can do
#
# A moment can be kept and come back to (`snapshot`, `restore`), so that an episode goes on from the same state with
# another action. Experts play from any state: `optimal` knows where everything is, `explore` only what the agent has
# been told. And `info` tells how much of the goal holds already.

# %%
env = sglib.envs.make("alfworld")
for kind in ("explore", "optimal"):
    observation = env.reset(room)
    start, actions = env.snapshot(), []
    while not observation.done:
        actions.append(env.expert(kind))
        observation = env.step(actions[-1])
    print(f"{kind:8s} {len(actions):2d} actions: {'; '.join(actions)}")

observation = env.restore(start)
for action in room.walkthrough:
    observation = env.step(action)
    met = observation.info["goal_conditions"]
    print(f"{action:45s} goal conditions met: {met:.0%}")

# %% [markdown]
# ## What the model reads and writes
#
# The shipped base model has a word-level tokenizer in which the engine's fixed phrases are one token each. An episode
# of 30 turns is 500 to 700 tokens, so that the study fits on a laptop. Policy tokens are trained on; all others are
# masked out.

# %%
policy = sglib.load_policy(p.model, env="alfworld", thinking=p.thinking)
way = {"format": p.format, "turns": p.turns, "temperature": p.temperature, "seed": p.seed}
trajectory = sglib.rollout(policy, [room], **way)[0]
ids = trajectory.prompt_ids + trajectory.completion_ids
mask = [0] * len(trajectory.prompt_ids) + trajectory.mask
words = policy.tokenizer.convert_ids_to_tokens(ids)
print(f"{len(ids)} tokens, {sum(mask)} written by the policy (in brackets below)\n")
print(" ".join(f"[{w}]" if m else w for w, m in zip(words[:160], mask)))

# %% [markdown]
# ## An episode of the base model
#
# In the format `guide` the model first writes a short guidance and a label that rates what it has done so far, then
# acts.

# %%
trajectories = sglib.rollout(policy, games[: p.games], **way)
run.write_trajectories("trajectories.jsonl", trajectories)
sglib.inspect(trajectories)

# %%
wins = sum(t.won for t in trajectories)
run.finish(episodes=len(trajectories), wins=wins)
print(f"{wins} of {len(trajectories)} episodes won in {p.turns} turns or fewer")

# %% [markdown]
# ## Another game: Sokoban
#
# An environment is a folder with a card (`sglib.envs.get`), so the next game is asked for in the same way. In Sokoban
# nothing is hidden, but a box pushed into a corner never comes out again: a wrong push often cannot be undone. Below
# the first board (P is the player, X a box, O a target) stand the fewest moves left, as the environment knows them.

# %%
sokoban = sglib.envs.get("sokoban")
level = sokoban.tasks(1, seed=p.seed, size="6x6-1")[0]
env = sokoban.make()
observation = env.reset(level)
start = env.snapshot()
print(f"{observation.text}\n{env.distance()} moves left: {', '.join(env.plan())}\n")
while not observation.done:
    observation = env.step(env.expert("optimal"))
print(f"{observation.text}\nwon: {observation.won}\n")

# %% [markdown]
# **Built small: the ruler.** Where does such a distance come from? From a search. The board is the whole state here, so
# ten lines are enough: try every action in every state, nearest states first, until one is won. (In a household the
# text hides most of the state, and there the engine searches in its own facts.)

# %%
def fewest_actions(env):
    """Actions from where `env` is to the goal, by breadth-first search; None if there is no way."""
    queue, seen = [(env.snapshot(), 0)], set()
    for here, taken in queue:  # the list grows while it is read
        observation = env.restore(here)
        if observation.won:
            return taken
        for action in observation.admissible:
            env.restore(here)
            if (text := env.step(action).text) not in seen:
                seen.add(text)
                queue.append((env.snapshot(), taken + 1))


env.restore(start)
found = fewest_actions(env)
env.restore(start)
assert found == env.distance(), "the library's ruler says something else"
print(f"{found} moves by our search, {env.distance()} by the environment's")

# %% [markdown]
# A ruler is worth nothing if everything is near on it. The control is a player who moves at random:

# %%
import random

rng, observation = random.Random(p.seed), env.restore(start)
while not observation.done and env.distance() is not None and observation.steps < 200:
    observation = env.step(rng.choice(observation.admissible))
left = "the goal is out of reach" if env.distance() is None else f"{env.distance()} moves left"
print(f"{observation.text}\nafter {observation.steps} moves at random: {left}")

# %% [markdown]
# ## The papers' other homes
#
# IGPO asks questions; Self-Guide shops in WebShop and does science in ScienceWorld. Below, an expert who knows only
# what was read plays one task of each. (In ScienceWorld it is the simulator's own solution; it needs Java and
# `pip install 'sglib[scienceworld]'`.) In brackets stands what is done after each action, as the environment knows it:
# the share of the question's documents that were shown, the reward if one bought now, the score. No agent is told.

# %%
def watch(name, kind, width=110):
    """An expert's episode, one line an action."""
    card = sglib.envs.get(name)
    env, task = card.make(max_steps=card.turns), card.tasks(1, seed=p.seed)[0]
    observation = env.reset(task)
    print(f"{name}: {observation.goal}")
    while not observation.done:
        action = env.expert(kind)
        observation = env.step(action)
        text = " ".join(card.shown(observation.text).split())
        text = text[:width] + " ..." * (len(text) > width)
        print(f"[{env.progress():4.0%}]  > {action}\n        {text}")
    print(f"won: {observation.won}\n")


watch("search_qa", "explore")
watch("webshop", "explore")

# %%
try:
    watch("scienceworld", "gold")
except RuntimeError as error:
    print(error)

# %% [markdown]
# ## What was found
#
# Both engines gave the same text, admissible commands and outcome on the games above (the tests play thousands of
# steps). The base model speaks the game's language, wins some rooms and loses many: room to learn, and no cold start.
#
# **Limits.** Rooms have at most `task_size` receptacles (12 by default; ALFWorld's own have 21 on average), so they are
# easier to search. Two games are no proof that two engines agree, and one level none that two rulers do.

# %% [markdown]
# ## Exercises
#
# Fill in a stub, run it, then run the check below it. Checks print what is missing; nothing later needs them.
#
# ### 00.1 Which actions helped? &nbsp; ●○○ · 5 minutes
#
# The oracle's distance is read before every action and once after the last one. Turn it into a verdict on each action:
# did it bring the goal nearer? The distance is `None` where the goal can no longer be reached.
#
# <details><summary>Hint</summary>Walk over the pairs <code>zip(distances, distances[1:])</code>.</details>
# <details><summary>Solution</summary>In <a href="solutions/00_the_game.py">solutions/00_the_game.py</a>.</details>


# %% tags=["exercise"]
def helped(distances):
    """T + 1 distances (int, or None: out of reach) -> T booleans, one for each action."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("00.1"):
    got = list(helped([3, 2, 2, 3, 2, 1]))
    assert len(got) == 5, "an action lies between two distances: T + 1 distances, T actions"
    assert not got[1], "an action that changes nothing did not help"
    assert got == [True, False, False, True, True], "helped: fewer actions are missing after it"
    assert list(helped([2, None, None])) == [False, False], "None is further away than any number"

# %% [markdown]
# ### 00.2 A floor and a ceiling &nbsp; ●●○ · 15 minutes
#
# Every measurement needs a player who cannot do worse and one who cannot do better. Write the loop that plays a task
# with any way of choosing, and keeps what the ruler says. Then a random player and one who asks the expert are a line
# each. When must the distance be read so that there is one more of them than actions?
#
# <details><summary>Hint</summary>Begin with <code>env.reset(task)</code> and the first distance; go on until
# <code>observation.done</code>.</details>
# <details><summary>Solution</summary>In <a href="solutions/00_the_game.py">solutions/00_the_game.py</a>.</details>


# %% tags=["exercise"]
def episode(env, task, choose):
    """Play a task to its end; `choose(env, observation)` names each action.

    Returns (actions, distances): T commands, and T + 1 distances (int or None).
    """
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("00.2"):
    card, rng = sglib.envs.get("sokoban"), np.random.default_rng(0)
    task, env = card.tasks(1, seed=0, size="6x6-1")[0], card.make(max_steps=30)
    actions, ceiling = episode(env, task, lambda env, seen: env.expert("optimal"))
    assert len(ceiling) == len(actions) + 1, "a distance before each action, one after the last"
    assert ceiling[-1] == 0, "play on until the episode is over: the expert wins"
    assert ceiling == [*range(len(actions), -1, -1)], "each action of the expert is one nearer"
    actions, floor = episode(env, task, lambda env, seen: rng.choice(seen.admissible))
    assert floor[0] == ceiling[0], "both players begin at the same place: reset the environment"
    assert len(actions) == 30 and floor[-1] != 0, "this player is out of luck until the limit"

# %% [markdown]
# ### 00.3 What would each action have done? &nbsp; ●●● · 20 minutes
#
# One episode shows the consequence of one action a turn. With `snapshot` and `restore` one can see them all, and that
# is how notebook [06](06_is_the_reward_true.ipynb) asks whether a reward is true. Say for each admissible action how
# the distance would change, and leave the environment as you found it.
#
# <details><summary>Hint</summary>Restore before every single try, and once at the end.</details>
# <details><summary>Solution</summary>In <a href="solutions/00_the_game.py">solutions/00_the_game.py</a>.</details>


# %% tags=["exercise"]
def consequences(env, admissible):
    """{action: change of the distance} for each of these actions, tried from where `env` is now.

    -1 is one nearer; `np.inf` where the goal gets out of reach. `env` is afterwards where it was.
    """
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("00.3"):
    card = sglib.envs.get("sokoban")
    env = card.make()
    seen = env.reset(card.tasks(5, seed=0, size="6x6-1")[4])  # on its left a box, then a corner
    before, got = env.distance(), consequences(env, seen.admissible)
    assert env.distance() == before, "put the environment back where it was"
    assert set(got) == set(seen.admissible), "one number for each admissible action"
    assert got["left"] == np.inf, "a box in a corner never comes out: the distance is None there"
    assert got["down"] == -1, "compare with the distance before, and start each try afresh"

# %% [markdown]
# ## Try it yourself
#
# - Play another seed, or set `game: {max_turns: 50}`: how many more episodes are won?
# - Find an admissible command of a household whose effect is invisible to the agent.
#
# Next: [01_pilot_study](01_pilot_study.ipynb).
