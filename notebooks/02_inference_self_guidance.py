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
# # Self-guidance at inference
#
# **By the end you will have measured** what changes when the same weights write a short guidance before each action, without any
# training: success, and the three failures that Self-Guide (arXiv 2604.03098) counts: looping, wrong objects, redundant exploration.
#
# *For whom:* readers of Self-Guide, Table 1 and its error analysis. *Time:* under a minute. *Writes:* `outputs/02_inference_self_guidance/`.
#
# In the paper guidance without training lifts ALFWorld success from 10.2 to 21.1 % (Qwen3-1.7B), from 20.3 to 58.6 % (Qwen3-4B) and from
# 42.2 to 55.5 % (Qwen2.5-7B), and lowers looping among failures from 90 to 38.5 %.

# %% tags=["parameters"]
seed = 0
size = "cpu"
guidance = {}

# %%
import numpy as np

import sglib
from sglib.measure import counterfactual
from sglib.measure import truth as calibration

p = sglib.params.check("02_inference_self_guidance", globals())
run = sglib.runs.start_run("02_inference_self_guidance", p)
print(p)
policy = sglib.load_policy(p.model, env=p.env)
panel = sglib.panel(p.env, n=p.games, size=p.task_size)

# %% [markdown]
# ## The idea
#
# $z_t \sim \pi_\theta(\cdot \mid h_{t-1}, o_t)$ (Eq 3), $a_t \sim \pi_\theta(\cdot \mid h_{t-1}, o_t, z_t)$ (Eq 4): the same weights first
# write a guidance $z_t$, then the action. Where this differs from the paper:
#
# | | paper | here (ours) |
# |---|---|---|
# | guidance | a reason for the rating of the last step, then its label; from a prompt of its own | the next sub-goal and the label, in one answer with the action |
# | past guidance | shown once, not fed back | stays in the context, as Eq 2 writes it |
# | first turn | nothing to rate | a label is written and not counted |
# | where judgement comes from | a pre-trained language model | demonstrations whose labels are the oracle's, three in ten of them drawn anew at random |
# | an action that is not admissible | -0.1 in the authors' framework | nothing happens, no penalty |
#
# Reading it back is a total function:

# %%
for text in ("Guidance: find mug Label: positive Action: go to desk 1", "Guidance: find mug Label: great Action: go to desk 1", "hello"):
    print(sglib.formats.parse("guide", text))

# %%
reports = {}
for name in sglib.progress_bar(p.formats, desc="formats"):
    reports[name] = sglib.evaluate(policy, panel, format=name, temperature=p.temperature, turns=p.turns, seed=p.seed, options=sglib.Options(batch_size=p.batch_size))
    run.write_trajectories(f"trajectories/{name}.jsonl", reports[name].trajectories)
run.write_table("formats.csv", [{"format": name, **r.numbers()} for name, r in reports.items()])
for name, r in reports.items():
    print(f"{name:6s} {100 * r.success:5.1f} % [{100 * r.low:.1f}, {100 * r.high:.1f}], n = {r.n}")

# %% [markdown]
# ## Result

# %%
sglib.view.keep_figure(run, "success", sglib.figures.bars(
    list(reports), [r.success for r in reports.values()], [r.low for r in reports.values()], [r.high for r in reports.values()],
    title="Same weights, without and with guidance", x_title="format", n=p.games,
))  # fmt: skip

# %%
def share_with_interval(what, lost):
    """A share of the lost episodes (Wilson), or of their actions (whole episodes resampled), with its interval."""
    value = sglib.summarize(lost).numbers()[what]
    if of.get(what) == "lost episodes":
        return value, *sglib.intervals.wilson(round(value * len(lost)), len(lost))
    return value, *sglib.intervals.cluster_interval(lambda i: sglib.summarize([lost[j] for j in i]).numbers()[what], np.arange(len(lost)), seed=p.seed, resamples=400)


figure, rows = None, []
of = dict.fromkeys(("looping", "wrong_object", "deadlock"), "lost episodes") | {"redundant": "their `go to`"}  # else of their actions
words = {"looping": "looping"} | {f: f.replace("_", " ") for f in p.card.failures} | {"invalid": "not admissible"}
named = {what: f"{text} (of {of.get(what, 'their actions')})" for what, text in words.items()}
failures = {name: [t for t in r.trajectories if not t.won] for name, r in reports.items()}
for name, lost in failures.items():
    if lost:
        found = {text: share_with_interval(what, lost) for what, text in named.items()}
        for text, (share, low, high) in found.items():
            rows.append({"format": name, "failure": text, "share": share, "low": low, "high": high, "lost": len(lost)})
            print(f"{name:6s} {text:34s} {100 * share:5.1f} % [{100 * low:.1f}, {100 * high:.1f}]")
        figure = sglib.figures.bars(
            list(found), *zip(*found.values()), group=f"{name} ({len(lost)} lost episodes)", onto=figure,
            title="What goes wrong in lost episodes", x_title="failure", y_title="share",
        )  # fmt: skip
if figure is not None:
    sglib.view.keep_figure(run, "failures", figure)
    run.write_table("failures.csv", rows)

# %% [markdown]
# Looping: one action five times in a row, or (in episodes of ten steps or more, our addition) in at least half of the steps. Wrong object: a thing was picked up that the task
# does not name. Redundant visits: share of `go to` actions back to a receptacle already looked into since something was last taken or put. One episode can have several. The paper sees guidance lower
# looping among failures; compare the two intervals above before you say so of this model.
#
# ## Are the labels true?
#
# A label rates the step before it. It agrees with the oracle if it is *positive* where that step brought the goal nearer and
# *negative* where it did not; neutral labels are not counted. Few steps help, so one constant label agrees often: AUROC says whether labels tell steps apart.

# %%
if "guide" in reports:
    guided = reports["guide"]
    print("labels:", {k: f"{100 * v:.1f} %" for k, v in guided.labels.items()})
    if guided.agreement is None:
        print("agreement of positive and negative labels with the oracle: none counted")
    else:
        label = calibration.signals(guided.trajectories)["label"]
        helped = label.helped[label.value != 0].mean()
        area, low, high = calibration.with_interval(label, "auroc", seed=p.seed)
        shown = "none, all of these steps helped or none did" if area is None else f"{area:.2f}" + (" (too few episodes for an interval)" if low is None else f" [{low:.2f}, {high:.2f}]")
        print(f"agreement of positive and negative labels with the oracle: {100 * guided.agreement:.1f} %; always the same label would get {100 * max(helped, 1 - helped):.1f} %")
        print(f"AUROC (how often a step that helped is labelled above one that did not; 0.5 is chance): {shown}")
    print("parse failures by name:", guided.parse_errors or "none")

# %% [markdown]
# ## Does what is written steer what is done?
#
# Guidance can only help, and paying for it can only matter, if the action depends on it. Counterfactual: at one turn of each guided episode the label, the sub-goal or both
# are replaced (the sub-goal by another of the same episode), and the most likely action is compared with the one after what was written.

# %%
if "guide" in reports and not isinstance(policy, sglib.Policy):
    print("not asked: a server does not go on from words that are put into its answer")
elif "guide" in reports:
    steered = counterfactual.steerability(policy, reports["guide"].trajectories, seed=p.seed)
    run.write_table("steerability.csv", steered)
    for row in steered:
        print(f"{row['replaced']:9s} replaced: {100 * row['changed']:3.0f} % of the actions change [{100 * row['low']:.0f}, {100 * row['high']:.0f}], n = {row['n']} episodes")

# %% [markdown]
# ## What was found

# %%
results = {"success": {name: r.success for name, r in reports.items()}}
if {"act", "guide"} <= set(reports):
    gap = sglib.intervals.difference(reports["guide"].outcomes, reports["act"].outcomes)
    verdict = "more" if gap.low > 0 else "less" if gap.high < 0 else "neither clearly more nor clearly less"
    print(f"guide wins {verdict} than act: {100 * gap.estimate:+.1f} points [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}], n = {p.games} paired games")
    results |= {"difference": gap.estimate, "low": gap.low, "high": gap.high}
run.finish(**results)

# %% [markdown]
# **Limits.** The base model learned to write guidance from demonstrations whose labels are right four times in five and whose
# stated sub-goal is wrong one time in ten; a large language model brings its own judgement instead.
#
# **Exercises.** (1) Look at lost episodes: which sentence starts a loop? (2) Repeat with `temperature: 1.0`.

# %%
sglib.inspect([t for r in reports.values() for t in r.trajectories[:4]])

# %% [markdown]
# Next: [03_repro_warmup](03_repro_warmup.ipynb).
