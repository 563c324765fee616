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
# # Looking at episodes
#
# **By the end you will have shown** where two episodes of one game part, and whether another action there would have
# changed the chance of winning, beside a change that changes nothing. On the way you find the episodes that matter
# among many, see what each turn was paid and which tokens got the credit, and hand the lot to a colleague as one
# file.
#
# *For whom:* anyone who has numbers and wonders why. *Time:* under two minutes, an hour with the exercises. *Writes:*
# `outputs/08_inspecting_trajectories/`.
#
# A success rate says that half of the episodes fail. Three episodes say how.

# %% tags=["parameters"]
seed = 0
size = "cpu"
look = {}

# %%
import numpy as np

import sglib
from sglib import rewards
from sglib.advantages import estimators
from sglib.measure import counterfactual
from sglib.view import episodes

p = sglib.params.check("08_inspecting_trajectories", globals())
run = sglib.runs.start_run("08_inspecting_trajectories", p)
print(p.model_dump(include={"env", "seed", "size", "model", "max_turns", "temperature",
                            "games", "group_size", "k"}))  # fmt: skip

# %% [markdown]
# ## Two runs to look at
#
# The base model plays the same games with guidance and without, in groups as GRPO samples them. Rewards and
# advantages are those of a training batch. What follows works the same on the last batches that notebook 04 keeps
# (`outputs/04_joint_grpo/<run>/batches/`), or on any file of `write_trajectories`.

# %%
policy = sglib.load_policy(p.model, env=p.env, thinking=p.thinking)
games = p.card.tasks(p.games, seed=40_000 + p.seed, size=p.task_size)
by_id = {game.id: game for game in games}
paid_for = {"guide": rewards.SelfGuide(schedule=1.0), "act": rewards.InformationGain()}
runs = {}
for format, internal in paid_for.items():
    played = sglib.rollout(policy, games, format=format, group=p.group_size, turns=p.turns,
                           temperature=p.temperature, seed=p.seed)  # fmt: skip
    components = [rewards.Outcome()] + ([] if internal.lacks(p.card) else [internal])
    rewards.combine(played, components, u=0.6, policy=policy, games=by_id)
    estimators.set_advantages(played, estimators.GiGPO())
    run.write_trajectories(f"{format}.jsonl", played)
    runs[format] = played
    print(f"{format}: {sum(t.won for t in played)} of {len(played)} won")

# %% [markdown]
# ## The inspector
#
# The next cell is a widget in JupyterLab; elsewhere you see the pictures below and a still summary. Try this:
#
# 1. **The list.** Click a column's head to sort. Filter by outcome, task, length, loops, inadmissible actions, or by
#    labels that contradict the oracle. The search field (key `/`) finds what was seen, said or done anywhere.
# 2. **An episode** (click a row). Left the turns, in the middle the open one, right what the agent knows of the room.
#    On top, on one axis: how near the goal really was, and what the guidance said of it. Keys: ← → turns, ↑ ↓
#    episodes, Escape back.
# 3. **Tokens.** The exact sequence that the trainer saw. Faint text was only read. Blue was encouraged, orange
#    discouraged. *log-probability ratio* compares with the policy given below.
# 4. **Compare** with another episode of the same game. Observations that several members of the group met are dotted:
#    these are GiGPO's anchor states.
# 5. **What if?** Choose another action or guidance at the open turn, and let the policy play on with the change and
#    without.

# %%
sglib.inspect(runs, policy=policy)

# %% [markdown]
# ![The list of episodes, filtered](images/inspector-list.png)
#
# ![An episode: turns, rewards, timeline and map](images/inspector-episode.png)
#
# ![Tokens coloured by advantage](images/inspector-tokens.png)
#
# ![Two episodes side by side, at the turn where they part](images/inspector-compare.png)

# %% [markdown]
# ## The same in Python
#
# Below the widget is plain data. The list is a table, and a filter is a query on it:

# %%
everything = [t for played in runs.values() for t in played]
table = episodes.table(everything, [name for name, played in runs.items() for _ in played])
run.write_table("episodes.csv", table)
query = episodes.Query(run="guide", outcome="lost", sort="turns", descending=True)
lost = episodes.select(table, query)
columns = ["number", "task", "turns", "invalid", "looping", "disagreement", "internal"]
print(table.loc[lost[:5], columns].to_string(index=False))

# %% [markdown]
# ## Where do two episodes part?
#
# The members of a group play the same game from the same start. The turn at which two of them first do, or see,
# something else is where to look: before it nothing can explain why one won. Built small, and compared with the
# library on every pair:


# %%
def parting(one, two):
    """The first turn (from 0) that differs; None where one episode begins the other."""
    for t, (a, b) in enumerate(zip(one.turns, two.turns)):
        if a.observation != b.observation or a.action != b.action:
            return t


group = [t for t in runs["guide"] if t.group == 0]
assert all(parting(a, b) == episodes.divergence(a, b) for a in group for b in group)
for number, other in enumerate(group[1:], 1):
    t = parting(group[0], other)
    if t is not None:
        actions = f"{group[0].turns[t].action!r}, {other.turns[t].action!r}"
        print(f"member 0 and {number} part at turn {t + 1}: {actions}")
shared = episodes.anchors(group)
most = max(map(len, shared.values()), default=0)
print(f"{len(shared)} observations were met by several members; most often: {most} times")

# %% [markdown]
# What the room looks like to the agent, read from the texts alone:

# %%
longest = max(runs["guide"], key=len)
board = sglib.envs.of(longest).board(longest, len(longest) - 1)
seen = [box for box in board.boxes if box.things is not None]
print(f"{longest.goal}: {len(seen)} of {len(board.boxes)} places seen, {board.caption}")
for box in seen[:5]:
    print(f"  {box.name}: {', '.join(box.things) or 'empty'}{' (here)' if box.here else ''}")

# %% [markdown]
# ## What would have happened?
#
# A story about the turn that decided is easily told. To test it, play the episode on from that turn `k` times as it
# was and `k` times with one change. Here: what would an expert's first action have been worth?
#
# **The control that must fail:** "change" the action to itself. Whatever difference that shows is luck, and its
# interval should reach zero.

# %%
episode = next((t for t in runs["act"] if not t.won), runs["act"][0])
expert = next(sglib.envs.replay(by_id[episode.game_id], ())).plan()[0]
mine = episode.turns[0].action
options = {"k": p.k, "max_turns": p.turns, "temperature": p.temperature, "seed": p.seed}
result = counterfactual.what_if(policy, episode, 0, action=expert, **options)
control = counterfactual.what_if(policy, episode, 0, action=mine, **options)
print(f"{episode.goal}: {mine!r}")
print(f"the expert's {expert!r}: {result}")
print(f"control, the same action:  {control}")
failed = control.low <= 0 <= control.high
print("its interval", "reaches zero" if failed else "LEAVES OUT ZERO, as one in twenty does")

# %% [markdown]
# Read the interval, not the difference. With 16 episodes each, a change has to move the chance by 30 to 40 points
# before it shows.
#
# ## Hand it over
#
# One HTML file with every turn of every listed episode. It opens without Python, without a network, and holds no
# script. Texts of models and environments are shown as text, whatever they contain.

# %%
path = sglib.view.export_html(everything, run.folder / "episodes.html", runs=list(table["run"]))
print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, {len(everything)} episodes")
success = {name: sum(t.won for t in played) / len(played) for name, played in runs.items()}
run.finish(success=success, what_if=result.delta)

# %% [markdown]
# ## While it trains
#
# Notebook 04 shows every training as it runs: success with its interval, both rewards, λ(u), labels, calibration,
# entropy, lengths, the time left, alarms of `sglib.measure.hacking`, episodes of each arm that open in this
# inspector, **stop** and **continue**. In a training of your own:
#
# ```python
# view = sglib.view.TrainingView(["mine"], settings.iterations)
# result = await view.follow(lambda: train(
#     policy, games, settings, components, run_dir="outputs/mine",
#     on_iteration=view.on_iteration("mine"), stop=view.paused))
# ```
#
# (**stop** ends this call behind a checkpoint; run the cell again, and it goes on from there.)
#
# ![The view of a running training](images/training-view.png)

# %% [markdown]
# **Limits.**
#
# - Three episodes say how an agent can fail, not how often. Count with the table before you believe them.
# - The map knows ALFWorld's wording only.
# - What-if needs recorded tokens, so not episodes of an endpoint; games that were not generated here are handed over
#   with `games=`.
# - The log-probability ratio is taken at temperature 1.

# %% [markdown]
# ## Exercises
#
# Fill in a stub, run it and the check below it. Checks print what is missing; nothing later in the notebook needs
# them.
#
# ### 08.1 Going in circles &nbsp; ●○○ · 10 minutes
#
# An agent that does the same thing in the same place again has learned nothing from the first time. Compute the share
# of turns that repeat an earlier turn of the episode: the same action after the same observation.
#
# <details><summary>Hint</summary>Keep a set of the pairs that were met so far.</details>
# <details><summary>Solution</summary>In <a href="solutions/08_inspecting_trajectories.py">solutions</a>.</details>


# %% tags=["exercise"]
def repeated(turns):
    """turns: list of (observation, action) -> share of turns that were there before, 0..1."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("08.1"):
    assert repeated([("a", "x"), ("b", "x")]) == 0, "the same action elsewhere is no circle"
    assert repeated([("a", "x"), ("a", "y")]) == 0, "another action in the same place is a new try"
    circle = [("a", "left"), ("b", "right")] * 3
    assert np.isclose(repeated(circle), 4 / 6), "a circle of two: look further back than one turn"
    assert repeated([]) == 0, "an episode without turns repeats nothing"

# %% [markdown]
# ### 08.2 Anchor states &nbsp; ●●○ · 20 minutes
#
# GiGPO compares turns that were taken in the same state by *different* episodes of a group. Find these states: every
# observation that at least two members met, with all places where it was met.
#
# <details><summary>Hint</summary>Collect all places first, then keep the texts whose places belong to two members or
# more.</details>
# <details><summary>Solution</summary>In <a href="solutions/08_inspecting_trajectories.py">solutions</a>.</details>


# %% tags=["exercise"]
def anchors(group):
    """group: one list of observations a member -> {observation: [(member, turn), ...]}."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("08.2"):
    one, two = ["start", "hall", "hall", "shed"], ["start", "yard", "hall"]
    got = anchors([one, two, ["start", "loft", "loft"]])
    assert got["start"] == [(0, 0), (1, 0), (2, 0)], "all members start in the same state"
    assert "loft" not in got, "one member was there twice: there is nobody to compare it with"
    assert got["hall"] == [(0, 1), (0, 2), (1, 2)], "every visit counts, also two of one member"
    assert set(got) == {"start", "hall"}, "one visit is no anchor"

# %% [markdown]
# ### 08.3 How sure is a what-if? &nbsp; ●●● · 25 minutes
#
# Of `k` episodes with the change `a` were won, of `k` without it `b`. Compute the 95 % interval of the difference
# from the two Wilson intervals $[l_a, u_a]$ and $[l_b, u_b]$ of the shares $\hat a$ and $\hat b$ (Newcombe):
# $$\hat a - \hat b - \sqrt{(\hat a - l_a)^2 + (u_b - \hat b)^2}, \qquad
#   \hat a - \hat b + \sqrt{(u_a - \hat a)^2 + (\hat b - l_b)^2}.$$
# Then find out how many episodes it takes.
#
# <details><summary>Hint</summary><code>sglib.intervals.wilson(wins, n)</code> gives (low, high). For the second
# function try k = 8, 16, 32, ... with the shares as given.</details>
# <details><summary>Solution</summary>In <a href="solutions/08_inspecting_trajectories.py">solutions</a>.</details>


# %% tags=["exercise"]
def gap(a, b, k):
    """(low, high) of the difference of two shares: `a` and `b` of `k` episodes each were won."""
    raise NotImplementedError


def episodes_needed(share_a, share_b):
    """The smallest k = 8, 16, 32, ... at which shares like these leave out zero."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("08.3"):
    low, high = gap(0, 0, 8)
    assert low < -0.2 and high > 0.2, "none of 8 twice leaves 30 points possible"
    assert np.allclose(gap(12, 4, 16), (0.154, 0.710), atol=1e-3), "12 and 4 of 16"
    assert np.allclose(gap(4, 12, 16), (-0.710, -0.154), atol=1e-3), "the other way round, mirrored"
    assert episodes_needed(0.75, 0.25) == 8, "50 points: 8 episodes each show it, just so"
    assert episodes_needed(0.5, 0.25) == 32, "half of that takes four times as many"
    assert episodes_needed(0.375, 0.25) == 128, "and half of that four times as many again"

# %% [markdown]
# ## Try it yourself
#
# 1. Find an episode in which a positive label was written right after a useless step. Which filter helps?
# 2. In one group, compare a won and a lost episode. Was the turn where they part the one that decided? Ask *what if*.
# 3. `sglib.inspect("outputs/04_joint_grpo/<run>/batches")` after notebook 04: what does `immediate` say that `guide`
#    does not, and what is it paid for?
#
# Next: [09_report](09_report.ipynb).
