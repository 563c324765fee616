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
# # Pilot study: does it help to say how far one is?
#
# **By the end you will have shown** whether an agent plays better when it states its progress before each action. Three
# controls stand beside it: no statement at all, a *random* statement, and an example episode whose progress was written
# in afterwards.
#
# *For whom:* readers of RePro (arXiv 2606.14302). *Time:* about a minute to run, an hour with the exercises. *Writes:*
# `outputs/01_pilot_study/`.
#
# RePro begins with a pilot study (WebShop, prompted language models). It reports that stating progress **online** costs
# success (8.6 points on average, by secondary accounts), and that **retrospective** demonstrations help (7.9 points).
# Here the same four conditions are run on ALFWorld with the small base model. It was trained from scratch, so nothing
# guarantees that the finding carries over: we look.

# %% tags=["parameters"]
seed = 0
size = "cpu"
pilot = {}

# %%
import random

import numpy as np

import sglib

p = sglib.params.check("01_pilot_study", globals())
run = sglib.runs.start_run("01_pilot_study", p)
print(p)
policy = sglib.load_policy(p.model, env=p.env, thinking=p.thinking)
panel = sglib.panel(p.env, n=p.games, size=p.task_size)

# %% [markdown]
# ## What progress is
#
# The oracle counts how many actions are missing: $d_0$ at the start, $d_t$ before action $t$. Progress is the share of
# the way that is done, $100\,(1 - d_t / d_0)$. It cannot fall below 0, however far a detour leads, and it is 0 where
# the goal can no longer be reached.
#
# **Built small.** One episode of four actions, with a step back in it. The library's numbers must be the same:

# %%
distances = [4, 3, 5, 1, 0]  # before each action, and after the last one
by_hand = [100 * max(0.0, 1 - d / distances[0]) for d in distances]
turns = [sglib.Turn("", "", "look", True, distance=d) for d in distances[:-1]]
toy = sglib.Trajectory("toy", "", "", "act", turns, True, final_distance=distances[-1])
assert by_hand[1:] == sglib.formats.true_progress(toy)
print("progress before each action and at the end:", by_hand)

# %% [markdown]
# Read it aloud: the second action led away, so that only the floor keeps progress from being negative. The third one
# repairs that and more, from 0 to 75.
#
# ## The four conditions
#
# | condition | what the policy writes before an action |
# |---|---|
# | basic | nothing |
# | online | its own estimate of progress, 0–100 |
# | random | a random number instead of its own (negative control: the words without the content) |
# | retrospective | nothing, but it is shown one finished episode with progress written in afterwards |
#
# The example of the last condition is an episode of a training task, won by the shortest plan (by the expert that knows
# what it has seen, where no distance is known) and annotated with the true progress.
#
# The random number is put where the model's own would stand: its answer is begun for it. The answer of a model behind a
# server (`-p model endpoint:http://localhost:8000/v1#name`) cannot be begun. There the number stands in the user
# message, with the request to begin with it, and the model may write another one all the same. A line above the results
# says how often it did: the more often, the weaker the control.


# %%
def annotated_example(seed):
    """A won training episode as text, with the true progress after each step."""
    exact = p.card.offers("distance")
    env = p.card.make(max_steps=None if exact else p.turns)
    for game in p.card.tasks(50, seed=1000 + seed, size=p.task_size):
        observation, turns = env.reset(game), []
        plan = list(getattr(game, "walkthrough", None) or env.plan()) if exact else None
        while not observation.done:
            action = plan.pop(0) if exact else env.expert(p.card.experts[-1])
            ruler = {"distance": env.distance()} if exact else {"truth": env.progress()}
            turns.append(sglib.Turn(observation.text, action, action, True, **ruler))
            observation = env.step(action)
        if observation.won:
            break
    episode = sglib.Trajectory(game.id, game.task_type, observation.goal, "act", turns, env=p.env)
    episode.won, episode.final_observation = True, "Outcome: success"
    episode.final_distance, episode.final_truth = (0, None) if exact else (None, 1.0)
    progress = [10 * round(x / 10) for x in sglib.formats.true_progress(episode)]
    return sglib.formats.example_message(episode, progress)


example = annotated_example(p.seed)
print(example)

# %%
def random_prefix(episode, turn):
    """A progress statement that says nothing; the same for the same seed, episode and turn."""
    number = 10 * random.Random(f"{p.seed} {episode} {turn}").randrange(11)
    return f"Progress: {number} Action:"


options = {
    "basic": {"format": "act"},
    "online": {"format": "progress"},
    "random": {"format": "progress", "options": sglib.Options(answer_prefix=random_prefix)},
    "retrospective": {"format": "act", "options": sglib.Options(example=example)},
}

# %% [markdown]
# Every condition plays the same `p.games` games of the panel, with the same seed.

# %%
reports, way = {}, {"temperature": p.temperature, "turns": p.turns, "seed": p.seed}
for condition in sglib.progress_bar(p.conditions, desc="conditions"):
    report = sglib.evaluate(policy, panel, **way, **options[condition])
    run.write_trajectories(f"trajectories/{condition}.jsonl", report.trajectories)
    reports[condition] = report

# %% [markdown]
# ## Result
#
# Bars are shares of won games, with Wilson's 95 % interval. Look at *random* before you look at *online*: it shows what
# the extra words alone do, whatever they say.

# %%
sglib.view.keep_figure(run, "success", sglib.figures.bars(
    list(reports), *([getattr(r, x) for r in reports.values()] for x in ("success", "low", "high")),
    title="Success with and without stating progress", x_title="condition", n=p.games,
))  # fmt: skip

# %% [markdown]
# Bars that overlap can still differ clearly, since all conditions played the same games. The interval of a *paired*
# difference says so; notebook [07](07_how_sure.ipynb) builds it by hand.

# %%
first = "basic" if "basic" in reports else p.conditions[0]
rows = []
for name, report in reports.items():
    row = {"condition": name, **report.numbers()}
    if name != first:  # the same games, so the difference is paired
        gap = sglib.intervals.difference(report.outcomes, reports[first].outcomes)
        row |= {"minus": first, "difference": gap.estimate, "difference_low": gap.low}
        row |= {"difference_high": gap.high, "p": gap.p_value}
    rows.append(row)
run.write_table("conditions.csv", rows)
for row in rows:
    low, high = 100 * row["low"], 100 * row["high"]
    text = f"{row['condition']:14s} {100 * row['success']:5.1f} % [{low:.1f}, {high:.1f}]  "
    text += f"invalid actions {100 * row['invalid']:4.1f} %"
    if "difference" in row:
        gap = (row[k] for k in ("difference", "difference_low", "difference_high"))
        text += f"   against {first}: {sglib.intervals.points(*gap, ' points')}"
    print(text)

# %% [markdown]
# ## Is the stated progress true?
#
# The mean distance between the stated progress and the oracle's, in points of 0–100. For the policy's own numbers, and
# for the random ones, which cannot know anything. If both are alike, the model's number is just a word.


# %%
told = [c for c in reports if c in ("online", "random")]
errors = {c: sglib.progress_error(reports[c].trajectories) for c in told}
print({c: e and round(e, 1) for c, e in errors.items()})
success = {c: r.success for c, r in reports.items()}
run.finish(success=success, baseline=first, progress_error=errors)

# %% [markdown]
# ## What was found
#
# The next cell states it from the numbers of this run: a difference counts only if its 95 % interval leaves out zero.

# %%
for row in [r for r in rows if "difference" in r]:
    gap, low, high = row["difference"], row["difference_low"], row["difference_high"]
    verdict = "makes no difference that this panel could show"
    verdict = "helps" if low > 0 else "hurts" if high < 0 else verdict
    numbers = f"{100 * gap:+.1f} points, interval {100 * low:+.1f} to {100 * high:+.1f}"
    print(f"{row['condition']}: {verdict} ({numbers}, n = {p.games} games)")

# %% [markdown]
# **Limits.** One model, one example episode, one sampling seed. In its pre-training the model met the format `progress`
# in a tenth of the episodes, and annotated examples in a twentieth: differences between conditions also show how often
# it practised them. (The random condition has the same format as the online one: what sets those two apart is whose
# numbers they are.) RePro's models were prompted, not trained, for this. And the retrospective condition differs from
# the basic one in *having an example* as well as in its annotation; a condition with the bare example would tell.

# %% [markdown]
# ## Exercises
#
# Fill in a stub, run it, then run the check below it. Checks print what is missing; nothing later needs them.
#
# ### 01.1 How wrong is a statement? &nbsp; ●○○ · 10 minutes
#
# The error that was printed above, by hand. A statement at turn $t$ is written *before* action $t$, about the state
# that the agent is in then. With which of the $T + 1$ distances must it be compared?
#
# <details><summary>Hint</summary>Zip the statements with the progress made of the distances; zip stops at the
# shorter one. Leave out turns that state nothing.</details>
# <details><summary>Solution</summary>In <a href="solutions/01_pilot_study.py">solutions/01_pilot_study.py</a>.</details>


# %% tags=["exercise"]
def statement_error(stated, distances):
    """Mean |stated - true progress| in points of 0..100.

    stated: T numbers 0..100, None where a turn states none. distances: T + 1 integers.
    """
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("01.1"):
    assert np.isclose(statement_error([0, 25, 50, 75], [4, 3, 2, 1, 0]), 0), (
        "all of these are true: compare with the state before the action, not after it"
    )
    assert np.isclose(statement_error([0, None, 90, 75], [4, 3, 2, 1, 0]), 40 / 3), (
        "a turn without a statement is left out; it is not a statement of 0"
    )
    assert np.isclose(statement_error([0, 0], [2, 4, 3]), 0), "progress is never below 0"

# %% [markdown]
# ### 01.2 What would a constant get? &nbsp; ●●○ · 10 minutes
#
# An error of 30 points is a number without a scale. So give it a floor that knows nothing: an agent that always states
# the *same* progress, chosen in hindsight so that its mean error is as small as it can be. A model with a larger error
# knows less about its progress than a stopped clock about the time. Which constant is the best?
#
# <details><summary>Hint</summary>The mean minimises squared errors. What minimises absolute ones?</details>
# <details><summary>Solution</summary>In <a href="solutions/01_pilot_study.py">solutions/01_pilot_study.py</a>.</details>


# %% tags=["exercise"]
def best_constant(truth):
    """(constant, its mean absolute error) for true progress of shape (n,), 0..100."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("01.2"):
    truth = np.array([0.0, 0.0, 0.0, 10.0, 90.0])
    constant, error = best_constant(truth)
    assert np.isclose(error, np.abs(truth - constant).mean()), "the error of this constant"
    tried = min(np.abs(truth - c).mean() for c in range(101))
    assert error <= tried + 1e-9, f"some constant has {tried:.0f}: one far value pulls a mean along"

# %% [markdown]
# ### 01.3 A control that says nothing &nbsp; ●●● · 20 minutes
#
# Write the random condition's number yourself. It must be a multiple of ten from 0 to 100, and it must not depend on
# how many numbers were drawn before: episodes are played side by side, and the same run must come out the same in any
# order. Yet two turns, or two episodes, must not share their numbers, or the control would say something after all.
#
# <details><summary>Hint</summary><code>np.random.default_rng([seed, episode, turn])</code> is a generator of its own
# for each triple.</details>
# <details><summary>Solution</summary>In <a href="solutions/01_pilot_study.py">solutions/01_pilot_study.py</a>.</details>


# %% tags=["exercise"]
def random_statement(seed, episode, turn):
    """One of 0, 10, .. 100 (int), decided by the three integers alone."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("01.3"):
    table = {(e, t): random_statement(0, e, t) for e in range(60) for t in range(60)}
    grid = np.array([[table[e, t] for t in range(60)] for e in range(60)])
    assert set(grid.ravel()) == set(range(0, 101, 10)), "every multiple of ten, 0 and 100 too"
    again = {key: random_statement(0, *key) for key in reversed(table)}
    assert again == table, "in another order the numbers are others: make a generator a call"
    assert len(set(grid[0])) > 5, "all turns of an episode state the same"
    assert len(set(grid[:, 0])) > 5, "all episodes state the same at the same turn"
    assert np.mean(grid == grid.T) < 0.2, "episode 3, turn 5 and episode 5, turn 3 share a number"
    assert np.mean(grid[1:, :-1] == grid[:-1, 1:]) < 0.2, "the sum of the two decides"
    other = np.array([[random_statement(1, e, t) for t in range(60)] for e in range(60)])
    assert np.mean(other == grid) < 0.2, "another seed states the same"

# %% [markdown]
# ## Try it yourself
#
# - `-p seed 1` draws another example: how much does the last bar move?
# - Add a condition with the example but without its progress numbers (`example_message(episode)`), and one with wrong
#   numbers. Which part of the retrospective effect is the annotation's?
#
# Next: [02_inference_self_guidance](02_inference_self_guidance.ipynb).
