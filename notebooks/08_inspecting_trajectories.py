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
# **By the end you will be able to** find the episodes that matter among thousands, see what each turn was paid and which tokens got the credit, lay two
# episodes side by side where they part, ask what would have happened otherwise, and hand the lot to a colleague as one file.
#
# *For whom:* anyone who has numbers and wonders why. *Time:* under a minute. *Writes:* `outputs/08_inspecting_trajectories/`.
#
# People look rather than read. A success rate says that half of the episodes fail; three episodes say how.

# %% tags=["parameters"]
seed = 0
size = "cpu"
look = {}

# %%
import sglib
from sglib import rewards
from sglib.advantages import estimators
from sglib.view import episodes

p = sglib.params.check("08_inspecting_trajectories", globals())
run = sglib.runs.start_run("08_inspecting_trajectories", p)
print(p)

# %% [markdown]
# ## Two runs to look at
#
# The base model plays the same games with guidance and without, in groups as GRPO samples them. Rewards and advantages are those of a training batch: what
# follows works the same on the last training batches that notebook 04 keeps (`outputs/04_joint_grpo/<run>/batches/`), or on any file of `write_trajectories`.

# %%
policy = sglib.load_policy(p.model, env=p.env)
games = p.card.tasks(p.games, seed=40_000 + p.seed, size=p.task_size)
runs = {}
for format, internal in (("guide", [rewards.SelfGuide(schedule=1.0)]), ("act", [rewards.InformationGain()])):
    played = sglib.rollout(policy, games, format=format, group=p.group_size, turns=p.turns, temperature=p.temperature, seed=p.seed)
    rewards.combine(played, [rewards.Outcome(), *(c for c in internal if not c.lacks(p.card))], u=0.6, policy=policy, games={game.id: game for game in games})
    estimators.set_advantages(played, estimators.GiGPO())
    run.write_trajectories(f"{format}.jsonl", played)
    runs[format] = played
    print(f"{format}: {sum(t.won for t in played)} of {len(played)} won")

# %% [markdown]
# ## The inspector
#
# The next cell is a widget in JupyterLab; elsewhere you see the pictures below and a still summary. Try this:
#
# 1. **The list.** Sort by a click on a column's head, filter by outcome, task, length, loops, inadmissible actions, or by labels that contradict the oracle;
#    type into the search field (key `/`) to find what was seen, said or done anywhere.
# 2. **An episode** (click a row). Left the turns, in the middle everything about the open one, right what the agent knows of the room. On top, on one
#    axis: how near the goal really was, and what the guidance said of it. Keys: ← → turns, ↑ ↓ episodes, Escape back.
# 3. **Tokens.** The exact sequence that the trainer saw. Faint text was only read; coloured by advantage, blue was encouraged and orange discouraged.
#    *log-probability ratio* compares with the policy given below.
# 4. **Compare** with another episode of the same game: the turn where they part is marked. Observations that several members of the group met are
#    dotted: these are GiGPO's anchor states.
# 5. **What if?** Choose another action or guidance at the open turn, and let the policy play on from there with the change and without.

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
# ## The same by hand
#
# Below the widget is plain Python on plain data (`sglib.view.episodes`). The list is a table, and a filter is a query on it:

# %%
everything = [t for played in runs.values() for t in played]
table = episodes.table(everything, [name for name, played in runs.items() for _ in played])
run.write_table("episodes.csv", table)
lost = episodes.select(table, episodes.Query(run="guide", outcome="lost", sort="turns", descending=True))
print(table.loc[lost[:5], ["number", "task", "turns", "invalid", "looping", "disagreement", "internal"]].to_string(index=False))

# %% [markdown]
# Where do the members of a group part, and which states do they share?

# %%
group = [t for t in runs["guide"] if t.group == 0]
for number, other in enumerate(group[1:], 1):
    turn = episodes.divergence(group[0], other)
    print(f"member 0 and {number}: " + ("never part" if turn is None else f"part at turn {turn + 1}: {group[0].turns[turn].action!r}, {other.turns[turn].action!r}"))
shared = episodes.anchors(group)
print(f"{len(shared)} observations were met more than once in this group; most often: {max(map(len, shared.values()), default=0)} times")

# %% [markdown]
# What the room looks like to the agent, read from the texts alone:

# %%
longest = max(runs["guide"], key=len)
board = sglib.envs.of(longest).board(longest, len(longest) - 1)
seen = [box for box in board.boxes if box.things is not None]
print(f"{longest.goal}: {len(seen)} of {len(board.boxes)} receptacles seen, {board.caption.replace(':', '')}")
for box in seen[:5]:
    print(f"  {box.name}: {', '.join(box.things) or 'empty'}{' (here)' if box.here else ''}")

# %% [markdown]
# ## What would have happened?
#
# The episode is played on from a turn `k` times as it was and `k` times with one change (`sglib.measure.counterfactual.what_if`, notebook 06). What would an
# expert's first action have been worth here?

# %%
from sglib.measure import counterfactual

episode = next((t for t in runs["act"] if not t.won), runs["act"][0])
game = next(game for game in games if game.id == episode.game_id)
expert = next(sglib.envs.replay(game, ())).plan()[0]
print(f"{episode.goal}: {episode.turns[0].action!r} or the expert's {expert!r}?")
result = counterfactual.what_if(policy, episode, 0, action=expert, k=p.k, max_turns=p.turns, temperature=p.temperature, seed=p.seed)
print(result)

# %% [markdown]
# ## Hand it over
#
# One HTML file with every turn of every listed episode: it opens without Python, without a network, and holds no script. Texts of models and environments
# are shown as text, whatever they contain.

# %%
path = sglib.view.export_html(everything, run.folder / "episodes.html", runs=list(table["run"]))
print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, {len(everything)} episodes")
run.finish(success={name: sum(t.won for t in played) / len(played) for name, played in runs.items()}, what_if=result.delta)

# %% [markdown]
# ## While it trains
#
# Notebook 04 shows every training as it runs: success with its interval, both rewards, λ(u), labels, calibration, entropy, lengths, the time left, alarms
# of `sglib.measure.hacking`, episodes of each arm that open in this inspector, **stop** and **continue**. In a training of your own:
#
# ```python
# view = sglib.view.TrainingView(["mine"], settings.iterations)
# result = await view.follow(lambda: train(
#     policy, games, settings, components, run_dir="outputs/mine", on_iteration=view.on_iteration("mine"), stop=view.paused))
# ```
#
# (**stop** ends this call behind a checkpoint; run the cell again, and it goes on from there.)
#
# ![The view of a running training](images/training-view.png)
#
# **Limits.** The map knows ALFWorld's wording only. What-if needs recorded tokens, so not episodes of an endpoint; games that were not generated here are
# handed over with `games=`. The ratio is taken at temperature 1.
#
# **Exercises.** (1) Find an episode in which a positive label was written right after a useless step: which filter helps? (2) In one group, compare a won and a
# lost episode: was the turn where they part the one that decided? Ask *what if*. (3) `sglib.inspect("outputs/04_joint_grpo/<run>/batches")` after notebook 04: what
# does `immediate` say that `guide` does not, and what is it paid for?
#
# Next: [09_report](09_report.ipynb).
