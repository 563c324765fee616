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
# **By the end you will have seen** whether an agent plays better when it states its progress before each action, against three
# controls: no statement at all, a *random* statement, and an example episode whose progress was annotated in hindsight.
#
# *For whom:* readers of RePro (arXiv 2606.14302). *Time:* about a minute. *Writes:* `outputs/01_pilot_study/`.
#
# RePro's pilot study (WebShop, prompted language models) reports that stating progress **online** costs success (8.6 points on
# average, by secondary accounts) and that **retrospective** demonstrations help (7.9 points). Here the same four conditions are run on ALFWorld with the small base
# model. It was trained from scratch, so nothing guarantees that the finding carries over: we look.

# %% tags=["parameters"]
seed = 0
size = "cpu"
pilot = {}

# %%
import random

import sglib

p = sglib.params.check("01_pilot_study", globals())
run = sglib.runs.start_run("01_pilot_study", p)
print(p)
policy = sglib.load_policy(p.model, env=p.env)
panel = sglib.panel(p.env, n=p.games, size=p.task_size)

# %% [markdown]
# ## The four conditions
#
# | condition | what the policy writes before an action |
# |---|---|
# | basic | nothing |
# | online | its own estimate of progress, 0–100 |
# | random | a random number instead of its own (negative control: the words without the content) |
# | retrospective | nothing, but it is shown one finished episode with progress annotated in hindsight |
#
# The example of the last condition is an episode of a training room, won by the shortest plan and annotated with the true progress.
#
# The random number is put where the model's own would stand: its answer is begun for it. The answer of a model behind an endpoint
# (`-p model endpoint:http://localhost:8000/v1#name`) cannot be begun; there the number stands in the user message, with the request to begin with it. The
# model then *reads* the number as an instruction, and may write another one: a line above the results says how often it did; the more often, the weaker the control.


# %%
def annotated_example(seed):
    """A won training episode as text, with the progress after each step: 100 (1 - d_t / d_0)."""
    game = p.card.tasks(1, seed=1000 + seed, size=p.task_size)[0]
    env = p.card.make()
    observation, turns = env.reset(game), []
    for action in getattr(game, "walkthrough", None) or env.plan():
        turns.append(sglib.Turn(observation.text, action, action, True, distance=env.distance()))
        observation = env.step(action)
    episode = sglib.Trajectory(game.id, game.task_type, observation.goal, "act", turns, True, "Outcome: success", 0, env=p.env)
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

# %%
reports = {}
for condition in sglib.progress_bar(p.conditions, desc="conditions"):
    reports[condition] = sglib.evaluate(policy, panel, temperature=p.temperature, turns=p.turns, seed=p.seed, **options[condition])
    run.write_trajectories(f"trajectories/{condition}.jsonl", reports[condition].trajectories)

# %% [markdown]
# ## Result

# %%
sglib.view.keep_figure(run, "success", sglib.figures.bars(
    list(reports), [r.success for r in reports.values()], [r.low for r in reports.values()], [r.high for r in reports.values()],
    title="Success with and without stating progress", x_title="condition", n=p.games,
))  # fmt: skip

# %%
first = "basic" if "basic" in reports else p.conditions[0]
rows = []
for name, report in reports.items():
    row = {"condition": name, **report.numbers()}
    if name != first:  # the same games, so the difference is paired
        gap = sglib.intervals.difference(report.outcomes, reports[first].outcomes)
        row |= {"minus": first, "difference": gap.estimate, "difference_low": gap.low, "difference_high": gap.high, "p": gap.p_value}
    rows.append(row)
run.write_table("conditions.csv", rows)
for row in rows:
    text = f"{row['condition']:14s} {100 * row['success']:5.1f} % [{100 * row['low']:.1f}, {100 * row['high']:.1f}]  "
    text += f"invalid actions {100 * row['invalid']:4.1f} %"
    if "difference" in row:
        text += f"   against {first}: {100 * row['difference']:+5.1f} points [{100 * row['difference_low']:+.1f}, {100 * row['difference_high']:+.1f}]"
    print(text)

# %% [markdown]
# ## Is the stated progress true?
#
# Mean error of the stated progress against the oracle, in points of 0–100, for the policy's own numbers and for the random ones.


# %%
errors = {c: sglib.progress_error(reports[c].trajectories) for c in reports if c in ("online", "random")}
print({c: e and round(e, 1) for c, e in errors.items()})
run.finish(success={c: r.success for c, r in reports.items()}, baseline=first, progress_error=errors)

# %% [markdown]
# ## What was found
#
# The next cell states it from the numbers of this run: a difference counts only if its 95 % interval leaves out zero.

# %%
for row in [r for r in rows if "difference" in r]:
    low, high = row["difference_low"], row["difference_high"]
    verdict = "helps" if low > 0 else "hurts" if high < 0 else "makes no difference that this panel could show"
    print(f"{row['condition']}: {verdict} ({100 * row['difference']:+.1f} points, interval {100 * low:+.1f} to {100 * high:+.1f}, n = {p.games} games)")

# %% [markdown]
# **Limits.** One model, one example episode, one sampling seed; the model has met the format `progress` in a tenth of its
# pre-training and annotated examples in a twentieth, so differences between conditions also reflect how often it practised them (the random condition has
# the same format as the online one: what sets those two apart is whose numbers they are).
# RePro's models were prompted, not trained, for this. The retrospective condition differs from the basic one in *having an example* as well as
# in its annotation; a condition with the bare example would separate the two (exercise 2).
#
# **Exercises.** (1) `-p seed 1` draws another example: how much does the last bar move? (2) Add a condition with the example without
# its progress numbers (`example_message(episode)`), and one with wrong numbers.
#
# Next: [02_inference_self_guidance](02_inference_self_guidance.ipynb).
