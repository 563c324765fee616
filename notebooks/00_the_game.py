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
# **By the end you will have** played an ALFWorld episode by hand, seen that the fast engine and TextWorld's give the same text
# character for character, and looked at an episode through the eyes of the small model that the study trains.
#
# *For whom:* anyone new to this repository. *Time:* under a minute. *Writes:* `outputs/00_the_game/`.
#
# An agent in a household gets a task in one sentence ("put a hot mug in cabinet"), sees only what it stands in front of, and
# acts by short commands. It is told whether it succeeded at the end, and nothing before: one bit after 10 to 50 actions. The
# papers studied here let the agent make its own denser signal. First, the game itself.
#
# *Of all notebooks:* the next cell has the default parameters, and the line printed below it what really ran. The committed outputs are those of
# `params/reference.yaml`.

# %% tags=["parameters"]
seed = 0
size = "cpu"
game = {}

# %%
import sglib

p = sglib.params.check("00_the_game", globals())
run = sglib.runs.start_run("00_the_game", p)
print(p)

# %% [markdown]
# ## A room
#
# Games are generated out of what the `alfworld` package ships: 120 floor plans, its tables of what fits where, its goal library,
# its PDDL domain and text grammar. The same seed gives the same games on any machine.

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
# The engine that grades is TextWorld's, with alfworld's own wrappers. It derives every admissible command through a text grammar
# at each step and makes 10 to 50 steps a second. The fast engine reads the same file: its own domain, grammar and problem. Both
# play the same commands here, and must agree on everything (`make parity` plays hundreds of games, `make benchmark` times them):

# %%
import time

from sglib.envs.alfworld.world import world_of

reference = sglib.envs.make("alfworld", engine="textworld")
rows = []
for number, each in enumerate(games[:2]):
    fast = sglib.envs.make("alfworld", engine="fast")
    world_of.cache_clear()  # a game that was generated here is known to the fast engine: let it read the file again
    seconds = {}
    for name, engine in (("textworld", reference), ("fast", fast)):
        began = time.perf_counter()
        seen = [engine.reset(each)]
        for action in ["look", "inventory", "take moon 1 from sky 1", *each.walkthrough]:
            seen.append(engine.step(action))
        seconds[name] = time.perf_counter() - began
        rows.append({"game": number, "engine": name, "seconds": seconds[name], "steps": len(seen) - 1})
        if name == "textworld":
            expected = seen
    assert [(o.text, o.admissible, o.won) for o in seen] == [(o.text, o.admissible, o.won) for o in expected]
run.write_table("engines.csv", rows)
for row in rows:
    print(f"game {row['game']}  {row['engine']:10s} {1000 * row['seconds']:10.2f} ms for {row['steps']} steps and the reset")
slow, quick = (sum(r["seconds"] for r in rows if r["engine"] == name) for name in ("textworld", "fast"))
print(f"TextWorld took {slow / quick:,.0f} times as long (loading each game for the first time included)")

# %% [markdown]
# ## What only the fast engine can do
#
# A moment can be kept and come back to (`snapshot`, `restore`), so that an episode goes on from the same state with another action.
# Experts play from any state: `optimal` knows where everything is, `explore` only what the agent has been told. And `info` tells how
# much of the goal holds already.

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
    print(f"{action:45s} goal conditions met: {observation.info['goal_conditions']:.0%}")

# %% [markdown]
# ## What the model reads and writes
#
# The shipped base model has a word-level tokenizer in which the engine's fixed phrases are one token each. An episode of 30
# turns is 500 to 700 tokens, so that the study fits on a laptop. Policy tokens are trained on; all others are masked out.

# %%
policy = sglib.load_policy(p.model, env="alfworld")
trajectory = sglib.rollout(policy, [room], format=p.format, turns=p.turns, temperature=p.temperature, seed=p.seed)[0]
ids, mask = trajectory.prompt_ids + trajectory.completion_ids, [0] * len(trajectory.prompt_ids) + trajectory.mask
words = policy.tokenizer.convert_ids_to_tokens(ids)
print(f"{len(ids)} tokens, {sum(mask)} written by the policy (in brackets below)\n")
print(" ".join(f"[{w}]" if m else w for w, m in zip(words[:160], mask)))

# %% [markdown]
# ## An episode of the base model
#
# In the format `guide` the model first writes a short guidance and a label that rates what it has done so far, then acts.

# %%
trajectories = sglib.rollout(policy, games[: p.games], format=p.format, turns=p.turns, temperature=p.temperature, seed=p.seed)
run.write_trajectories("trajectories.jsonl", trajectories)
sglib.inspect(trajectories)

# %%
wins = sum(t.won for t in trajectories)
run.finish(episodes=len(trajectories), wins=wins)
print(f"{wins} of {len(trajectories)} episodes won in {p.turns} turns or fewer")

# %% [markdown]
# ## Another game: Sokoban
#
# An environment is a folder with a card (`sglib.envs.get`), so the next game is asked for in the same way. In Sokoban nothing is hidden, but a box pushed
# into a corner never comes out again: a wrong push often cannot be undone. Below the first board stand the fewest moves that are left, as the environment
# knows them; the last board is where a player ended who moved at random.

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

# %%
import random

rng, observation = random.Random(p.seed), env.restore(start)
while not observation.done and env.distance() is not None and observation.steps < 200:
    observation = env.step(rng.choice(observation.admissible))
print(f"{observation.text}\nafter {observation.steps} moves at random: {'the goal is out of reach' if env.distance() is None else f'{env.distance()} moves left'}")

# %% [markdown]
# ## The papers' other homes
#
# IGPO asks questions, Self-Guide shops in WebShop and does science in ScienceWorld. Below an expert who knows only what was read plays one task of each
# (in ScienceWorld it is the simulator's own solution; it needs Java and `pip install 'sglib[scienceworld]'`). In brackets what is done after each action, as
# the environment knows it: documents of the question's way that were shown, the reward if bought now, the score. No agent is told.

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
        print(f"[{env.progress():4.0%}]  > {action}\n        {text[:width]}{' ...' * (len(text) > width)}")
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
# Both engines gave the same text, admissible commands and outcome on the games above (the tests play thousands of steps). The
# base model speaks the game's language, wins some rooms and loses many: room to learn, and no cold start.
#
# **Limits.** Rooms are limited to `task_size` receptacles (12 by default; ALFWorld's own have 21 on average), so they are easier to search.
#
# **Exercises.** (1) Play another seed. (2) Set `game: {max_turns: 50}`. (3) Find an admissible command whose effect is invisible.
#
# Next: [01_pilot_study](01_pilot_study.ipynb).
