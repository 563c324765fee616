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
# # Is the reward true?
#
# **By the end you will have shown** how well each internal reward tells a step that helped from one that did not,
# against two truths: the distance from the goal (the oracle), and the chance of winning (re-rolling the episode from
# that step). Then you will watch a reward that is *not* true being hacked, and see which remedies help.
#
# *For whom:* anyone who is about to train on a reward that the agent writes itself. *Time:* one to four minutes after
# notebook 04, whose trainings it reads; an hour for the exercises. *Writes:* `outputs/06_is_the_reward_true/`.
#
# A true reward need not help where success alone is enough. How true one must be to help is measured in
# [10_assay](10_assay.ipynb), with the truth degraded to a known AUROC.

# %% tags=["parameters"]
seed = 0
size = "cpu"
truth = {}

# %%
import numpy as np
import pandas as pd

import sglib
from sglib import rewards
from sglib.experiments import evidence, pool
from sglib.measure import counterfactual, hacking as probes, truth as calibration

p = sglib.params.check("06_is_the_reward_true", globals())
run = sglib.runs.start_run("06_is_the_reward_true", p)
print(p.model_dump(include={"env", "seed", "size", "model", "temperature", "games", "steps", "k",
                            "arms", "remedies", "cells"}))  # fmt: skip

# %% [markdown]
# ## Episodes, and what every reward says of their steps
#
# The base model plays the same games in each format. Four rewards speak of its steps:
#
# - Self-Guide's **label** of turn $t + 1$ rates the action of turn $t$.
# - RePro states progress before each action (**online**) and after the episode (**retrospective**).
# - **IGPO** pays the gain in the probability of the hidden facts.
# - **StepAgent** pays what looks like the expert.

# %%
policy = sglib.load_policy(p.model, env=p.env, thinking=p.thinking)
games = p.card.tasks(p.games, seed=30_000 + p.seed, size=p.task_size)
by_id = {game.id: game for game in games}
paid_for = {  # format -> what pays in it
    "guide": [rewards.SelfGuide(schedule=1.0)],
    "progress": [rewards.RePro(answer="steps")],
    "act": [rewards.InformationGain(), rewards.InverseReward(features="base", centered=True)],
}
options = {"turns": p.turns, "temperature": p.temperature, "seed": p.seed}
episodes = {}
for format, components in paid_for.items():
    played = sglib.rollout(policy, games, format=format, **options)
    able = [c for c in components if not c.lacks(p.card)]
    rewards.combine(played, able, u=0.6, policy=policy, games=by_id)
    episodes[format] = played
    won, steps = sum(t.won for t in played), sum(map(len, played))
    unread = sum(turn.parse_error is not None for t in played for turn in t.turns)
    print(f"{format:9s} {won} of {len(played)} won, {steps} steps, {unread} answers unreadable")

# %% [markdown]
# ## One number for "true": AUROC, by hand
#
# A step *helped* if it brought the goal nearer: $d_{t+1} < d_t$. Take one step that helped and one that did not, at
# random. How often is the first valued above the second? Ties count half. That is the AUROC: 1 is the truth, 0.5 is
# chance, below 0.5 is worse than saying nothing.


# %%
def auroc_by_hand(value, progress):
    """value, progress: (steps,) -> share of pairs in the right order; None without a pair."""
    good, bad = value[progress > 0], value[progress <= 0]
    if len(good) and len(bad):
        above = good[:, None] > bad
        equal = good[:, None] == bad
        return float(np.mean(above + equal / 2))


toy = np.array([1.0, 1.0, 0.0, -1.0]), np.array([1, 0, 1, -1])
print("four steps, values 1 1 0 -1, the first and third helped:", auroc_by_hand(*toy))
shown = {
    name: (format, signal)
    for format, played in episodes.items()
    for name, signal in calibration.signals(played).items()
}
for _, signal in shown.values():
    by_hand = auroc_by_hand(signal.value, signal.progress)
    library = calibration.auroc(signal.value, signal.progress)
    assert by_hand == library or np.isclose(by_hand, library)

# %% [markdown]
# In the toy the four pairs are (1, 1), (1, −1), (0, 1), (0, −1): a tie, right, wrong, right, so 2.5 of 4. The library
# agrees on every signal.
#
# Two more numbers stand beside AUROC. *correlation* is that of the value with the change of distance. *sign* is the
# share of non-zero values with the right sign. Few steps help, so calling every step useless is right most of the
# time; that share is *constant*. A signal whose *sign* is below it may still rank steps well, which is why AUROC is
# the number to read.
#
# Intervals resample whole episodes. *episodes* counts those of which the signal says anything: the base model was not
# warmed up for stating progress (notebook 03), and what it states afterwards can be read in few episodes only.

# %%
table = []
for name, (format, signal) in shown.items():
    spoken = signal.helped[signal.value != 0]
    row = {"signal": name, "format": format, "episodes": len(np.unique(signal.episode))}
    row |= {"steps": len(signal.value), "helped": float(signal.helped.mean())}
    row["constant"] = float(max(spoken.mean(), 1 - spoken.mean())) if len(spoken) else None
    for measure in calibration.MEASURES:
        names = (measure, f"{measure}_low", f"{measure}_high")
        row |= dict(zip(names, calibration.with_interval(signal, measure, seed=p.seed)))
    table.append(row)
run.write_table("calibration.csv", table)
print(pd.DataFrame(table).set_index("signal").T.to_string(na_rep="-", float_format="{:.2f}".format))
found = rewards.discrimination(episodes["progress"])
said = "nothing to compare" if found is None else f"{found:.1f} of -100 to 100"
print("\nintermediate discrimination of retrospective progress:", said)

# %% [markdown]
# (Intermediate discrimination is RePro's own measure: mean rating of won minus of lost episodes, last step left out.)
#
# **The control that must fail.** Give each value to another step, at random. Nothing is left that could know a step,
# so the interval of its AUROC should reach 0.5. If it does not, the measure is broken and not the reward good.

# %%
rng = np.random.default_rng(p.seed)
for name, (_, signal) in shown.items():
    mixed = calibration.Signal(rng.permutation(signal.value), signal.progress, signal.episode)
    estimate, low, high = calibration.with_interval(mixed, "auroc", seed=p.seed)
    if low is not None:
        verdict = "reaches 0.5" if low <= 0.5 <= high else "LEAVES OUT 0.5, as one in twenty does"
        print(f"{name}, shuffled: AUROC {estimate:.2f} [{low:.2f}, {high:.2f}], {verdict}")

# %% [markdown]
# ## Reliability: of the steps that were praised this much, how many helped?

# %%
varied = {name: signal for name, (_, signal) in shown.items() if np.ptp(signal.value) > 0}
curves = {name: calibration.reliability(signal, seed=p.seed) for name, signal in varied.items()}
rows = [{"signal": name, **row} for name, of in curves.items() for row in of]
run.write_table("reliability.csv", rows)
counts = [row["n"] for row in rows]
sglib.view.keep_figure(run, "reliability", sglib.figures.small_multiples(
    {name: {"steps": of} for name, of in curves.items()},
    x="value", y="helped", x_title="what was said", y_title="share of steps",
    title="Share of steps that helped, by what was said of them",
    note=f"{p.games} games, {min(counts)} to {max(counts)} steps a point; "
         "bands: 95 %, episodes resampled<br>label: -1, 0, 1; online, retrospective: rise, "
         "1 is the whole way; igpo: nats; step_agent: as paid",
))  # fmt: skip

# %% [markdown]
# ## Counterfactual truth: what was the step worth to *this* policy?
#
# The oracle measures distance under perfect play. What matters to learning is the advantage under the policy itself.
# From a snapshot before turn $t$ the episode is played on $k$ times with the recorded step kept, and $k$ times with
# the policy choosing again: $A_t = P(\text{win} \mid s_t, a_t) - P(\text{win} \mid s_t)$.


# %%
again = {"k": p.k, "max_turns": p.turns, "temperature": p.temperature, "seed": p.seed}


def against_truth(format, count):
    """Counterfactual advantage of sampled steps beside what each signal said of them."""
    played, rows = episodes[format], []
    steps = counterfactual.sample_steps(played, count, seed=p.seed)
    for x in counterfactual.step_values(policy, played, steps, games=by_id, **again):
        left = played[x.episode].remaining()
        row = {"format": format, "episode": x.episode, "turn": x.turn, "advantage": x.advantage,
               "low": x.low, "high": x.high, "kept": x.kept, "redrawn": x.redrawn,
               "oracle": float(left[x.turn] - left[x.turn + 1])}  # fmt: skip
        rows.append(row | calibration.signal_values(played[x.episode], x.turn))
    return rows


values = [row for format in episodes for row in against_truth(format, p.steps)]
run.write_table("counterfactual.csv", values)

# %% [markdown]
# How does what was said go with what the step was worth?

# %%
for signal in ("oracle", "label", "online", "retrospective", "igpo", "step_agent"):
    rows = [row for row in values if row.get(signal) is not None]
    said, worth = (np.array([row[key] for row in rows]) for key in (signal, "advantage"))
    origin = np.array([f"{row['format']}-{row['episode']}" for row in rows])
    varies = len(rows) > 0 and np.ptp(said) > 0 and np.ptp(worth) > 0
    if len(set(origin)) >= calibration.FEWEST and varies:
        r, low, high = sglib.intervals.correlation_interval(said, worth, origin, seed=p.seed)
        least = sglib.power.detectable_correlation(len(rows))
        of = f"{len(rows)} steps of {len(set(origin))} episodes, k = {p.k}, detectable {least:.2f}"
        print(f"{signal:13s} r = {r:+.2f} [{low:+.2f}, {high:+.2f}], {of}")
    else:
        print(f"{signal:13s} too few episodes say anything of these steps, or always the same")
clear = sum(row["low"] > 0 or row["high"] < 0 for row in values)
chance = f"{0.05 * len(values):.0f} would by chance if no step mattered"
print(f"{clear} of {len(values)} steps have an interval that leaves out zero; up to {chance}")

# %% [markdown]
# Read the numbers of steps first. A correlation below its *detectable* size is not shown to be there, nor to be
# absent: most single steps change the chance of winning by less than $2k$ episodes can tell, and that noise shrinks
# every correlation here. Two truths need not agree either: a signal can follow the oracle and not this policy's
# chances.
#
# The same for one guidance, of an episode that was won: delete it, or say the opposite, and look at what the policy
# makes of it.

# %%
places = [
    (episode, t)
    for episode in episodes["guide"] if episode.won
    for t, turn in enumerate(episode.turns) if t and turn.label == "negative" and turn.guidance
]  # fmt: skip
if places:
    episode, turn = places[0]
    print(f"{episode.goal}; turn {turn + 1}: {episode.turns[turn].response}")
    for change in ({"delete_guidance": True}, {"label": "positive"}):
        result = counterfactual.what_if(policy, episode, turn, games=by_id, **again, **change)
        print(change, result)
else:
    print("no turn of a won episode is called negative")

# %% [markdown]
# ## A reward that is hacked
#
# The trainings of notebook 04, in which a label pays ±0.1 (what a success pays is below the figure): guidance that is
# not paid (`guide`), paid on a schedule (`self_guide`), paid in full at once (`immediate`). The mechanism has two
# parts.
#
# 1. *The sum of labels rivals success.* Saying *positive* is always possible. A lost episode goes on to the last turn
#    and collects more labels than a won one. So in a group with both, the internal reward takes back what success
#    pays: up to 0.1 a turn, 3 in thirty turns, beside 1. `internal gap` is the internal reward of won minus lost
#    episodes, `internal length` its correlation with the episode's length.
# 2. *In a group whose episodes all end alike* labels alone decide every advantage. The division by the group's own
#    spread blows them up to unit size, whatever their coefficient. `end alike` is the share of episodes in such
#    groups of the unpaid arm; only there they are without an advantage.
#
# Part 2 is the same whatever a success pays. Part 1 nearly goes away where it pays 10 (`immediate` over seeds,
# below).

# %%
settings = sglib.params.sibling("grpo", globals(), arms=[*p.arms, *p.remedies])
trained, batch = pool.train_recipes(settings), settings.games_per_iteration * settings.group_size
quantities = {
    "success, training batches": "success", "positive labels": "label_positive",
    "AUROC of labels": "calibration/label/auroc", "internal reward an episode": "probe/internal",
}  # fmt: skip


def series(arm, key):
    """A number of an arm's training batches, where they have it."""
    batches = [b for b in trained[arm].batches if b.get(key) is not None]
    return [{"iteration": b["iteration"], "value": b[key]} for b in batches]


panels = {title: {arm: series(arm, key) for arm in p.arms} for title, key in quantities.items()}
pays = settings.win_reward or "as each recipe says"
sglib.view.keep_figure(run, "alarm", sglib.figures.small_multiples(
    panels, title="Internal reward against the environment's",
    note="one seed (no ordering of arms is claimed), "
         f"{batch} episodes a point, success pays {pays}",
))  # fmt: skip

# %% [markdown]
# The two parts in numbers: means of the first and of the last five batches. *internal gap* and *internal length* are
# of those in which labels are paid (never in `guide`).

# %%
probed = []
for arm in p.arms:
    of = trained[arm].batches
    paid = [b for b in of if b["probe/internal"]]  # a schedule pays in the middle only
    row = {"arm": arm}
    for what, batches, key in (
        ("internal gap", paid, "probe/internal_gap"),
        ("internal length", paid, "probe/internal_length"),
        ("end alike", [] if paid else of, "zero_advantage"),
        ("agreement", of, "label_agreement"),
    ):
        first, last = probes.first_and_last(batches, key)
        row[what] = "-" if None in (first, last) else f"{first:+.2f} -> {last:+.2f}"
    probed.append(row)
print(pd.DataFrame(probed).to_string(index=False))

# %% [markdown]
# *agreement*, the share of labels with the right sign, falls by arithmetic wherever positive labels rise, since few
# steps help. AUROC, in the figure, says whether the labels still tell steps apart. `sglib.measure.hacking` watches
# every training for all this; the rule that raises an alarm is written there. The unpaid arm is the control: no alarm
# should ring in it.

# %%
rows = []
for arm, result in trained.items():
    rings = probes.alarms(result.batches)
    before, after, n = np.mean(result.before), np.mean(result.after), len(result.after)
    names = "; ".join(ring["alarm"] for ring in rings)
    rows.append({"arm": arm, "before": before, "after": after, "n": n, "alarms": names})
    print(f"{arm}: {100 * before:.1f} -> {100 * after:.1f} % of {n} held-out games")
    for ring in rings:
        change = f"{ring['before']:.2f} -> {ring['after']:.2f}"
        print(f"  ALARM {ring['alarm']}: {ring['what']} {change}")
_ = run.write_table("farmed.csv", rows)

# %% [markdown]
# ## Remedies
#
# One seed shows a mechanism, not how often it happens. The evidence (`python -m sglib evidence`, notebook 07) has
# several seeds of each:
#
# - not paid (`guide`), and paid in full at once (`immediate_win1`);
# - the schedule (`self_guide_win1`), length normalisation (`remedy_length`), a rater that does not learn
#   (`remedy_frozen`);
# - GiGPO with each label paid to the step that it rates (`remedy_steps`; its episode part still has the whole sum);
# - a tenth of the coefficient. That is `immediate`, where labels pay the same and a success 10, since the advantage
#   is divided by the group's own spread. Where all episodes of a group fail, a smaller coefficient changes nothing
#   for the same reason.

# %%
found = evidence.read_evidence(evidence.plan(sglib.params.params_file(p.cells)))
print(found)
tried = ["guide", "immediate_win1", "self_guide_win1", "remedy_length", "remedy_frozen",
         "remedy_steps", "immediate"]  # fmt: skip
for row in evidence.rates(found, tried):
    rate = f"{100 * row['success']:.1f} % [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
    print(f"{row['recipe']:18s} {rate} of {row['games']} held-out games, {row['seeds']} seeds")
columns = {title: dict.fromkeys(tried, key) for title, key in quantities.items()}
over, note = evidence.panels(found, columns)
if over:
    figure = sglib.figures.small_multiples(over, title="Remedies over seeds", note=note)
    sglib.view.keep_figure(run, "remedies", figure)
for arm in p.remedies:  # -p remedies '[remedy_length]' trains one here, beside the arms above
    gap = sglib.intervals.difference(trained[arm].after, trained["immediate"].after)
    print(f"{arm} ends above immediate:", gap)

# %% [markdown]
# ## Calibration over training
#
# How true the labels, the information gain and the hindsight stay while the policy learns, over the seeds of the
# evidence:

# %%
guided = ("guide", "self_guide", "immediate", "immediate_win1")
paid = {"igpo": "igpo", "step_agent": "step_agent", "repro": "retrospective"}
truths, note = evidence.panels(found, {
    "AUROC of labels": dict.fromkeys(guided, "calibration/label/auroc"),
    "AUROC of what is paid": {r: f"calibration/{s}/auroc" for r, s in paid.items()},
})  # fmt: skip
if truths:
    figure = sglib.figures.small_multiples(truths, title="Calibration over training", note=note)
    sglib.view.keep_figure(run, "calibration_over_training", figure)
else:
    print(f"no cells yet: {found}")
run.finish(calibration={row["signal"]: row["correlation"] for row in table}, clear_steps=clear,
           farmed={row["arm"]: float(row["after"]) for row in rows})  # fmt: skip

# %% [markdown]
# **Limits.**
#
# - The oracle's progress and the counterfactual advantage are two truths. Information that a step brings is worth
#   something to the policy and may not change the distance.
# - A correlation with single-step advantages is weakened by their noise ($2k$ episodes each).
# - One draw of games, one policy; trainings in the section on hacking are one seed each.

# %% [markdown]
# ## Exercises
#
# Fill in a stub, run it and the check below it. Checks print what is missing; nothing later in the notebook needs
# them.
#
# ### 06.1 Which step does a label rate? &nbsp; ●○○ · 10 minutes
#
# A label is written *before* the action of its turn and rates what was done until then. Give each action the value of
# the label that rates it: +1 for positive, −1 for negative, 0 for neutral, NaN where no label does.
#
# <details><summary>Hint</summary>Write down three turns on paper. Who rates the last action?</details>
# <details><summary>Solution</summary>In <a href="solutions/06_is_the_reward_true.py">solutions</a>.</details>


# %% tags=["exercise"]
def values_of_actions(labels):
    """labels: T texts as written (None: none was read) -> (T,) what is said of each action."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("06.1"):
    got = values_of_actions(["neutral", "positive", "negative", "positive"])
    assert len(got) == 4, "one value an action"
    assert got[0] == 1, "the second label rates the first action: labels come one turn later"
    assert list(got[:3]) == [1, -1, 1], "positive +1, negative -1"
    assert np.isnan(got[3]), "no label follows the last action: NaN, not 0, which is neutral"
    unread = values_of_actions(["neutral", None, "positive"])
    assert np.isnan(unread[0]), "a label that was not read says nothing"

# %% [markdown]
# ### 06.2 Steps of one episode are not strangers &nbsp; ●●○ · 20 minutes
#
# Ten steps of one stuck episode are one piece of bad luck, not ten. Compute a 95 % bootstrap interval of a mean that
# draws whole episodes: as many as there are, with replacement, and then the mean of all their steps.
#
# <details><summary>Hint</summary>Get each episode's sum and number of steps first. A draw is then a sum of sums over
# a sum of numbers.</details>
# <details><summary>Solution</summary>In <a href="solutions/06_is_the_reward_true.py">solutions</a>.</details>


# %% tags=["exercise"]
def episode_interval(values, episode, rng, resamples=1000):
    """values: (steps,); episode: (steps,) which one each belongs to -> (low, high) of the mean."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("06.2"):
    lucky = (np.arange(20) < 8).astype(float)  # 8 of 20 episodes went well
    values, episode = np.repeat(lucky, 10), np.repeat(np.arange(20), 10)  # all ten steps alike
    low, high = episode_interval(values, episode, np.random.default_rng(0))
    assert low < 0.4 < high, "the mean itself lies inside"
    assert high - low > 0.35, f"width {high - low:.2f}: luck drew 20 episodes, not 200 steps"
    _, *known = sglib.intervals.cluster_mean(values, episode, seed=1)
    assert np.allclose((low, high), known, atol=0.06), f"the library has {known}"
    counts = np.array([10] * 15 + [1] * 15)  # fifteen long episodes, and fifteen of one step
    values, episode = np.repeat(counts > 1, counts) * 1.0, np.repeat(np.arange(30), counts)
    low, high = episode_interval(values, episode, np.random.default_rng(0))
    assert high > 0.91, "150 of 165 steps: a long episode counts with all of its steps"

# %% [markdown]
# ### 06.3 A reward that cannot take success back &nbsp; ●●● · 30 minutes
#
# Repair both parts of the mechanism for one group. If all episodes end alike, no internal reward may decide:
# advantages are 0. Else shrink the internal sums, if need be, so that they differ by at most `most` within the group,
# less than a success pays. Then add the outcomes and let GRPO normalise the sum.
#
# <details><summary>Hint</summary><code>np.ptp</code> is the range of an array; shrink by a factor, never enlarge.
# <code>sglib.advantages.group_relative(returns, groups)</code> normalises.</details>
# <details><summary>Solution</summary>In <a href="solutions/06_is_the_reward_true.py">solutions</a>.</details>


# %% tags=["exercise"]
def safe_advantages(outcomes, internal, most=0.5):
    """outcomes: (n,) 0 or 1; internal: (n,) sums of labels -> (n,) advantages of one group."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("06.3"):
    lost, labels = np.zeros(4), np.array([0.3, 0.2, 0.0, 0.1])
    tiny = sglib.advantages.group_relative(lost + 0.001 * labels, [0] * 4)
    assert abs(tiny).max() > 0.5, "(a thousandth of the labels still decides: dividing undoes it)"
    assert not np.any(safe_advantages(lost, labels)), "all failed alike: labels must not decide"
    won, praised = np.array([1.0, 0.0, 0.0, 0.0]), np.array([0.0, 3.0, 2.9, 0.0])
    got = safe_advantages(won, praised)
    assert got.argmax() == 0, "thirty labels of 0.1 must not outweigh a success of 1"
    assert got[1] > got[2] > got[3], "among lost episodes labels still rank"
    as_they_are = sglib.advantages.group_relative(won + labels, [0] * 4)
    assert np.allclose(safe_advantages(won, labels), as_they_are), "small sums are not enlarged"

# %% [markdown]
# ## Try it yourself
#
# 1. `-p k 64`: how much does the correlation with the counterfactual advantage grow, and why?
# 2. Which probe rings first in `immediate`?
# 3. Write a recipe that pays labels and is not hacked; `sglib.measure.hacking` will tell you.
#
# Next: [07_how_sure](07_how_sure.ipynb).
