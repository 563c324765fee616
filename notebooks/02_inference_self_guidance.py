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
# **By the end you will have shown** what changes when the same weights write a short guidance before each action,
# without any training: success, and the three failures that Self-Guide (arXiv 2604.03098) counts, which are looping,
# wrong objects and redundant exploration. And you will have asked whether the labels are true, beside a control in
# which the same labels are dealt out at random.
#
# *For whom:* readers of Self-Guide, Table 1 and its error analysis. *Time:* under a minute to run, an hour with the
# exercises. *Writes:* `outputs/02_inference_self_guidance/`.
#
# In the paper guidance without training lifts ALFWorld success from 10.2 to 21.1 % (Qwen3-1.7B), from 20.3 to 58.6 %
# (Qwen3-4B) and from 42.2 to 55.5 % (Qwen2.5-7B), and lowers looping among failures from 90 to 38.5 %.

# %% tags=["parameters"]
seed = 0
size = "cpu"
guidance = {}

# %%
from dataclasses import replace

import numpy as np

import sglib
from sglib.measure import counterfactual
from sglib.measure import truth as calibration

p = sglib.params.check("02_inference_self_guidance", globals())
run = sglib.runs.start_run("02_inference_self_guidance", p)
print(p)
policy = sglib.load_policy(p.model, env=p.env, thinking=p.thinking)
panel = sglib.panel(p.env, n=p.games, size=p.task_size)

# %% [markdown]
# ## The idea
#
# $z_t \sim \pi_\theta(\cdot \mid h_{t-1}, o_t)$ (Eq 3), $a_t \sim \pi_\theta(\cdot \mid h_{t-1}, o_t, z_t)$ (Eq 4): the
# same weights first write a guidance $z_t$, then the action. Where this differs from the paper:
#
# | | paper | here (ours) |
# |---|---|---|
# | guidance | a reason for the rating of the last step, then its label; from a prompt of its own | the next sub-goal and the label, in one answer with the action |
# | past guidance | shown once, not fed back | stays in the context, as Eq 2 writes it |
# | first turn | nothing to rate | a label is written and not counted |
# | where judgement comes from | a pre-trained language model | demonstrations whose labels are the oracle's, three in ten of them drawn anew at random |
# | an action that is not admissible | -0.1 in the authors' framework | nothing happens, no penalty |
#
# Whatever the policy writes, it is read in some way. A label that is none of the three is not counted, and a bare
# command is still understood:

# %%
for text in (
    "Guidance: find mug Label: positive Action: go to desk 1",
    "Guidance: find mug Label: great Action: go to desk 1",
    "hello",
):
    print(sglib.formats.parse("guide", text))

# %% [markdown]
# Each format plays the same `p.games` games of the panel, with the same seed and temperature.

# %%
reports, options = {}, sglib.Options(batch_size=p.batch_size)
way = {"temperature": p.temperature, "turns": p.turns, "seed": p.seed, "options": options}
for name in sglib.progress_bar(p.formats, desc="formats"):
    reports[name] = sglib.evaluate(policy, panel, format=name, **way)
    run.write_trajectories(f"trajectories/{name}.jsonl", reports[name].trajectories)
run.write_table("formats.csv", [{"format": name, **r.numbers()} for name, r in reports.items()])
for name, r in reports.items():
    print(f"{name:6s} {100 * r.success:5.1f} % [{100 * r.low:.1f}, {100 * r.high:.1f}], n = {r.n}")

# %% [markdown]
# ## Result

# %%
sglib.view.keep_figure(run, "success", sglib.figures.bars(
    list(reports), *([getattr(r, x) for r in reports.values()] for x in ("success", "low", "high")),
    title="Same weights, without and with guidance", x_title="format", n=p.games,
))  # fmt: skip

# %% [markdown]
# What goes wrong in the episodes that are lost? A share of *episodes* has Wilson's interval. A share of *actions* must
# not be counted as if actions were independent, so for these whole episodes are drawn anew.

# %%
episodes_of = dict.fromkeys(("looping", "wrong_object", "deadlock"), "lost episodes")
of = episodes_of | {"redundant": "their `go to`"}  # the others are shares of their actions
words = {f: f.replace("_", " ") for f in ("looping", *p.card.failures)}
words["invalid"] = "not admissible"
named = {what: f"{text} (of {of.get(what, 'their actions')})" for what, text in words.items()}


def share_with_interval(what, lost):
    """A failure's share in lost episodes: (estimate, low, high) in 0..1."""

    def share(chosen):
        return sglib.summarize([lost[i] for i in chosen]).numbers()[what]

    value, everyone = share(range(len(lost))), np.arange(len(lost))
    if what in episodes_of:
        return value, *sglib.intervals.wilson(round(value * len(lost)), len(lost))
    resampled = sglib.intervals.cluster_interval(share, everyone, seed=p.seed, resamples=400)
    return value, *resampled


# %%
figure, rows = None, []
for name, report in reports.items():
    lost = [t for t in report.trajectories if not t.won]
    if not lost:
        continue
    found = {text: share_with_interval(what, lost) for what, text in named.items()}
    for text, (share, low, high) in found.items():
        row = {"format": name, "failure": text, "share": share, "low": low, "high": high}
        rows.append(row | {"lost": len(lost)})
        print(f"{name:6s} {text:34s} {100 * share:5.1f} % [{100 * low:.1f}, {100 * high:.1f}]")
    figure = sglib.figures.bars(
        list(found), *zip(*found.values()), group=f"{name} ({len(lost)} lost episodes)",
        onto=figure, title="What goes wrong in lost episodes", x_title="failure",
        y_title="share",
    )  # fmt: skip
if figure is not None:
    sglib.view.keep_figure(run, "failures", figure)
    run.write_table("failures.csv", rows)

# %% [markdown]
# Looping: one action five times in a row, or (in episodes of ten steps or more, our addition) in at least half of the
# steps. Wrong object: a thing was picked up that the task does not name. Redundant visits: the share of `go to` actions
# back to a receptacle that was already looked into since something was last taken or put. One episode can have several.
# The paper sees guidance lower looping among failures; compare the two intervals above before you say so of this model.
#
# ## Are the labels true?
#
# A label rates the step before it. It agrees with the oracle if it is *positive* where that step brought the goal
# nearer, and *negative* where it did not. Neutral labels, and the label of the first turn, are not counted.
#
# **Built small.** Ten lines count it; the library must find the same:

# %%
def agreement_by_hand(episode):
    """(labels that agree with the oracle, labels that count) of one episode."""
    left, agree, counted = episode.remaining(), 0, 0
    for t, turn in enumerate(episode.turns if left else []):  # without the truth nothing counts
        if t > 0 and turn.label in ("positive", "negative"):
            helped = left[t] < left[t - 1]  # the step before this label
            counted += 1
            agree += helped == (turn.label == "positive")
    return agree, counted


guided = reports["guide"].trajectories if "guide" in reports else []
agree, counted = np.sum([agreement_by_hand(t) for t in guided] or [(0, 0)], axis=0)
if guided:
    assert (agree / counted if counted else None) == reports["guide"].agreement
    print("labels:", {k: f"{100 * v:.1f} %" for k, v in reports["guide"].labels.items()})
    print("parse failures by name:", reports["guide"].parse_errors or "none")
print(f"{agree} of {counted} positive and negative labels agree with the oracle")

# %% [markdown]
# Few steps help, so one constant label agrees often. AUROC does not fall for that: it is the chance that a step that
# helped is labelled above one that did not, and 0.5 is a coin. The control has the same labels, dealt out at random
# over the same steps: it must come out at 0.5, or the measure is wrong.

# %%
if counted:
    label = calibration.signals(guided)["label"]
    helped = label.helped[label.value != 0].mean()
    print(f"agreement with the oracle {100 * agree / counted:.1f} %; "
          f"always the same label would get {100 * max(helped, 1 - helped):.1f} %")  # fmt: skip
    dealt = replace(label, value=np.random.default_rng(p.seed).permutation(label.value))
    for name, signal in (("the labels", label), ("control: the same, dealt at random", dealt)):
        area, low, high = calibration.with_interval(signal, "auroc", seed=p.seed)
        shown = "none, all of these steps helped or none did" if area is None else f"{area:.2f}"
        shown += f" [{low:.2f}, {high:.2f}]" if low is not None else " (no interval)"
        print(f"AUROC of {name}: {shown}")

# %% [markdown]
# ## Does what is written steer what is done?
#
# Guidance can only help, and paying for it can only matter, if the action depends on it. So ask what would have been
# done: at one turn of each guided episode the label, the sub-goal or both are replaced (the sub-goal by another of the
# same episode), and the most likely action is compared with the one after what was written.

# %%
if guided and not isinstance(policy, sglib.Policy):
    print("not asked: a server does not go on from words that are put into its answer")
elif guided:
    steered = counterfactual.steerability(policy, guided, seed=p.seed)
    run.write_table("steerability.csv", steered)
    for row in steered:
        share, low, high = (100 * row[k] for k in ("changed", "low", "high"))
        print(f"{row['replaced']:9s} replaced: {share:3.0f} % of the actions change "
              f"[{low:.0f}, {high:.0f}], n = {row['n']} episodes")  # fmt: skip

# %% [markdown]
# ## What was found
#
# Both formats played the same games, so the difference is paired. It counts only if its interval leaves out zero.

# %%
results = {"success": {name: r.success for name, r in reports.items()}}
if {"act", "guide"} <= set(reports):
    gap = sglib.intervals.difference(reports["guide"].outcomes, reports["act"].outcomes)
    verdict = "neither clearly more nor clearly less"
    verdict = "more" if gap.low > 0 else "less" if gap.high < 0 else verdict
    shown = sglib.intervals.points(gap.estimate, gap.low, gap.high, " points")
    print(f"guide wins {verdict} than act: {shown}, n = {p.games} paired games")
    results |= {"difference": gap.estimate, "low": gap.low, "high": gap.high}
run.finish(**results)

# %% [markdown]
# **Limits.** The base model learned to write guidance from demonstrations whose labels are right four times in five and
# whose stated sub-goal is wrong one time in ten; a large language model brings its own judgement instead. One model,
# one sampling seed: the interval covers other games, not another model.

# %% [markdown]
# ## Exercises
#
# Fill in a stub, run it, then run the check below it. Checks print what is missing; nothing later needs them.
#
# ### 02.1 Caught in a loop &nbsp; ●○○ · 10 minutes
#
# The paper's rule for looping, which the table above counts by: one action at least five times *in a row*, or, in an
# episode of at least ten steps, one action in at least half of the steps.
#
# <details><summary>Hint</summary><code>itertools.groupby</code> makes runs of equal actions;
# <code>collections.Counter</code> counts.</details>
# <details><summary>Solution</summary>In
# <a href="solutions/02_inference_self_guidance.py">solutions/02_inference_self_guidance.py</a>.</details>


# %% tags=["exercise"]
def is_looping(actions):
    """Whether an episode with these actions, T texts, loops."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("02.1"):
    walk = [f"go {n}" for n in range(12)]
    assert not is_looping([]) and not is_looping(walk), "nothing is done twice here"
    assert is_looping([*walk[:3], *["wait"] * 5]), "five in a row, in a short episode"
    mixed = [x for n in range(5) for x in ("wait", f"go {2 * n}", f"go {2 * n + 1}")]
    assert not is_looping(mixed), "five times, but neither in a row nor in half of the steps"
    assert is_looping([x for n in range(6) for x in ("wait", f"go {n}")]), "in half of 12 steps"
    assert not is_looping(["wait", "go 1"] * 3), "half of only six steps does not count"

# %% [markdown]
# ### 02.2 How often does a liar agree? &nbsp; ●●○ · 15 minutes
#
# "The labels agree with the oracle in 70 % of the cases" sounds good. Compute what the *same* labels would reach if
# they were dealt out at random over the same steps: that is the zero point of the scale. Neutral labels are not
# counted.
#
# <details><summary>Hint</summary>A positive label lands on a step that helped with probability $h$, the share of such
# steps; a negative one agrees with probability $1 - h$.</details>
# <details><summary>Solution</summary>In
# <a href="solutions/02_inference_self_guidance.py">solutions/02_inference_self_guidance.py</a>.</details>


# %% tags=["exercise"]
def agreement_by_chance(labels, helped):
    """Expected agreement, 0..1, of labels that are dealt at random over all n steps.

    labels: (n,) of -1, 0, 1. helped: (n,) booleans.
    """
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("02.2"):
    labels = np.array([-1, -1, -1, -1, -1, -1, -1, -1, 0, 1])
    helped = np.array([False] * 8 + [True] * 2)
    got = agreement_by_chance(labels, helped)
    assert not np.isclose(got, 0.5), "no coin: most labels are negative, and most steps do not help"
    assert not np.isclose(got, (0.1 * 0.2 + 0.8 * 0.8)), "of the labels that count: divide by nine"
    rng = np.random.default_rng(0)
    dealt = [rng.permutation(labels) for _ in range(4000)]
    tried = np.mean([np.mean((x > 0)[x != 0] == helped[x != 0]) for x in dealt])
    assert abs(got - tried) < 0.02, f"dealt out 4,000 times they agree in {tried:.2f} of the cases"

# %% [markdown]
# ### 02.3 Decoration or steering? &nbsp; ●●● · 20 minutes
#
# Guidance may be written and never read. Here a policy is a table: for each guidance, the probabilities of the actions.
# At each turn of an episode replace what was written by the guidance of the *next* turn (the last turn takes the
# first's), and count how often the most likely action changes. A replacement that says the same replaces nothing.
#
# <details><summary>Hint</summary>Compare the most likely actions, not sampled ones: a sample changes by itself.
# </details>
# <details><summary>Solution</summary>In
# <a href="solutions/02_inference_self_guidance.py">solutions/02_inference_self_guidance.py</a>.</details>


# %% tags=["exercise"]
def steered(probabilities, written):
    """Share of the turns with another guidance whose likeliest action changes; 0 if there is none.

    probabilities: (T, G, A), of A actions at turn t after guidance g. written: (T,) of 0..G-1.
    """
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("02.3"):
    rng, written = np.random.default_rng(0), np.array([0, 1, 1, 2])
    deaf = np.repeat(rng.dirichlet(np.ones(5), size=(4, 1)), 3, axis=1)
    assert steered(deaf, written) == 0, "whatever is written, the same action is likeliest"
    follows = np.tile(0.1 + 0.8 * np.eye(3), (4, 1, 1))
    got = steered(follows, written)
    assert got != 0.75, "at turn 1 the next guidance is the same: this turn replaces nothing"
    assert got == 1, "this policy does what is written: at turns 0, 2 and 3 the action changes"
    follows[3] = deaf[3, 0, :3]  # at the last turn nobody listens
    assert np.isclose(steered(follows, written), 2 / 3), "use each turn's own table"
    assert steered(follows, np.array([1, 1, 1, 1])) == 0, "nothing was replaced"

# %% [markdown]
# ## Try it yourself
#
# - Look at lost episodes below: which sentence starts a loop?
# - Repeat with `temperature: 1.0`. Which of the failures does a warmer policy have less of?

# %%
sglib.inspect([t for r in reports.values() for t in r.trajectories[:4]])

# %% [markdown]
# Next: [03_repro_warmup](03_repro_warmup.ipynb).
