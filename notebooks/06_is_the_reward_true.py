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
# **By the end you will have measured** what each internal reward says of a step beside what the step did: to the distance from the goal (the
# oracle), and to the chance of winning (re-rolling the episode from that step). Then you will watch a reward that is *not* true being hacked, and see
# which remedies help.
#
# *For whom:* anyone who is about to train on a reward that the agent writes itself. *Time:* one to four minutes after notebook 04, whose trainings it
# reads. *Writes:* `outputs/06_is_the_reward_true/`.
#
# What this can tell: whether a reward says of a step what the step did, and whether it is being hacked. A true reward need not help, where success alone is enough, and how
# true one must be to help is measured elsewhere, with the truth degraded to a known AUROC: [10_assay](10_assay.ipynb).

# %% tags=["parameters"]
seed = 0
size = "cpu"
truth = {}

# %%
import numpy as np

import sglib
from sglib import rewards
from sglib.measure import counterfactual, hacking as probes, truth as calibration
from sglib.experiments import evidence, pool

p = sglib.params.check("06_is_the_reward_true", globals())
run = sglib.runs.start_run("06_is_the_reward_true", p)
print(p)

# %% [markdown]
# ## Episodes, and what every reward says of their steps
#
# The base model plays the same games in each format. Self-Guide's label of turn $t + 1$ rates the action of turn $t$; RePro states progress before each
# action (`online`) and after the episode (`retrospective`); IGPO pays the gain in the probability of the hidden facts, StepAgent what looks expert.

# %%
policy = sglib.load_policy(p.model, env=p.env)
games = p.card.tasks(p.games, seed=30_000 + p.seed, size=p.task_size)
by_id = {game.id: game for game in games}
paid_for = {  # format -> what pays in it
    "guide": [rewards.SelfGuide(schedule=1.0)],
    "progress": [rewards.RePro(answer="steps")],
    "act": [rewards.InformationGain(), rewards.InverseReward(features="base", centered=True)],
}
episodes = {}
for format, components in paid_for.items():
    played = sglib.rollout(policy, games, format=format, turns=p.turns, temperature=p.temperature, seed=p.seed)
    rewards.combine(played, [c for c in components if not c.lacks(p.card)], u=0.6, policy=policy, games=by_id)
    episodes[format] = played
    unread = sum(turn.parse_error is not None for t in played for turn in t.turns)
    print(f"{format:9s} {sum(t.won for t in played)} of {len(played)} won, {sum(map(len, played))} steps, {unread} answers not in the format")

# %% [markdown]
# A step *helped* if it brought the goal nearer: $d_{t+1} < d_t$. For each signal: the correlation of its value with the change of distance, the
# share of its non-zero values with the right sign, and AUROC, the probability that a step that helped is valued above one that did not (0.5 is chance).
# Few steps help, so calling every step useless is right most of the time: that share stands beside *sign* as *constant*, and a signal below it may still rank
# steps well. Intervals resample whole episodes. *episodes* counts those of which the signal says anything: the base model states progress before it has been warmed up
# for it (notebook 03), and what it states afterwards can be read in few episodes only.

# %%
table, shown = [], {}
for format, played in episodes.items():
    for name, signal in calibration.signals(played).items():
        row = {"signal": name, "format": format, "episodes": len(np.unique(signal.episode)), "steps": len(signal.value), "helped": float(signal.helped.mean())}
        spoken = signal.helped[signal.value != 0]
        row["constant"] = float(max(spoken.mean(), 1 - spoken.mean())) if len(spoken) else None
        for measure in calibration.MEASURES:
            row |= dict(zip((measure, f"{measure}_low", f"{measure}_high"), calibration.with_interval(signal, measure, seed=p.seed)))
        table.append(row)
        shown[name] = signal
run.write_table("calibration.csv", table)


def interval(row, measure):
    """One cell: estimate and interval, or a dash."""
    if row[measure] is None:
        return "-"
    if row[f"{measure}_low"] is None:
        return f"{row[measure]:.2f} (too few episodes)"
    return f"{row[measure]:.2f} [{row[f'{measure}_low']:.2f}, {row[f'{measure}_high']:.2f}]"


print(f"{'signal':14s} {'episodes':>8s} {'steps':>5s} {'helped':>6s}   " + "   ".join(f"{m:20s}" for m in calibration.MEASURES) + "   constant")
for row in table:
    print(f"{row['signal']:14s} {row['episodes']:8d} {row['steps']:5d} {100 * row['helped']:5.0f}%   " + "   ".join(f"{interval(row, m):20s}" for m in calibration.MEASURES) + f"   {row['constant'] or 0:.2f}")
found = rewards.discrimination(episodes["progress"])
print("intermediate discrimination of retrospective progress (RePro: mean rating of won minus of lost episodes, last step left out):", "nothing to compare" if found is None else f"{found:.1f} of -100 to 100")

# %% [markdown]
# ## Reliability: of the steps that were praised this much, how many helped?

# %%
curves = {name: calibration.reliability(signal, seed=p.seed) for name, signal in shown.items() if np.ptp(signal.value) > 0}
run.write_table("reliability.csv", [{"signal": name, **row} for name, rows in curves.items() for row in rows])
sizes = [row["n"] for rows in curves.values() for row in rows]
sglib.view.keep_figure(run, "reliability", sglib.figures.small_multiples(
    {name: {"steps": rows} for name, rows in curves.items()}, x="value", y="helped", x_title="what was said", y_title="share of steps",
    title="Share of steps that helped, by what was said of them",
    note=f"{p.games} games, {min(sizes)} to {max(sizes)} steps a point; bands: 95 %, episodes resampled<br>label: -1, 0, 1; online, retrospective: rise, 1 is the whole way; igpo: nats; step_agent: as paid",
))  # fmt: skip

# %% [markdown]
# ## Counterfactual truth: what was the step worth to *this* policy?
#
# The oracle measures distance under perfect play. What matters to learning is the advantage under the policy itself. From a snapshot before turn $t$
# the episode is played on $k$ times with the recorded step kept, and $k$ times with the policy choosing again:
# $A_t = P(\text{win} \mid s_t, a_t) - P(\text{win} \mid s_t)$.


# %%
def against_truth(format, count):
    """Counterfactual advantage of sampled steps beside what each signal said of them."""
    played = episodes[format]
    steps = counterfactual.sample_steps(played, count, seed=p.seed)
    values = counterfactual.step_values(policy, played, steps, k=p.k, max_turns=p.turns, temperature=p.temperature, seed=p.seed, games=by_id)
    rows = []
    for value in values:
        episode = played[value.episode]
        row = {"format": format, "episode": value.episode, "turn": value.turn, "advantage": value.advantage, "low": value.low, "high": value.high,
               "kept": value.kept, "redrawn": value.redrawn, "oracle": float(episode.remaining()[value.turn] - episode.remaining()[value.turn + 1])}  # fmt: skip
        rows.append(row | calibration.signal_values(episode, value.turn))
    return rows


values = [row for format in episodes for row in against_truth(format, p.steps)]
run.write_table("counterfactual.csv", values)
for signal in ("oracle", "label", "online", "retrospective", "igpo", "step_agent"):
    pairs = np.array([(row[signal], row["advantage"]) for row in values if row.get(signal) is not None])
    origin = np.array([f"{row['format']}-{row['episode']}" for row in values if row.get(signal) is not None])
    if len(set(origin)) >= calibration.FEWEST and np.ptp(pairs[:, 0]) > 0 and np.ptp(pairs[:, 1]) > 0:
        estimate, low, high = sglib.intervals.correlation_interval(*pairs.T, origin, seed=p.seed)
        print(f"{signal:13s} with the counterfactual advantage: r = {estimate:+.2f} [{low:+.2f}, {high:+.2f}], {len(pairs)} steps of {len(set(origin))} episodes, k = {p.k}; detectable |r| {sglib.power.detectable_correlation(len(pairs)):.2f}")
    else:
        print(f"{signal:13s} too few episodes say anything of these steps, or always the same")
clear = sum(row["low"] > 0 or row["high"] < 0 for row in values)
print(f"{clear} of {len(values)} steps have an advantage whose own interval leaves out zero; if no step mattered, up to {0.05 * len(values):.0f} would by chance")

# %% [markdown]
# Read the numbers of steps first. A correlation below its *detectable* size is not shown to be there, nor to be absent: most single steps change the chance
# of winning by less than $2k$ episodes can tell, and that noise shrinks every correlation here. Two truths need not agree either: a signal can follow the oracle
# and not this policy's chances.
#
# The same for one guidance, of an episode that was won: delete it, or say the opposite, and look at what the policy makes of it.

# %%
place = next(((episode, t) for episode in episodes["guide"] for t, turn in enumerate(episode.turns) if episode.won and t and turn.label == "negative" and turn.guidance), None)
if place is None:
    print("no turn of a won episode is called negative")
else:
    episode, turn = place
    options = {"k": p.k, "max_turns": p.turns, "temperature": p.temperature, "seed": p.seed, "games": by_id}
    print(f"{episode.goal}; turn {turn + 1}: {episode.turns[turn].response}")
    print("without it:      ", counterfactual.what_if(policy, episode, turn, delete_guidance=True, **options))
    print("called positive: ", counterfactual.what_if(policy, episode, turn, label="positive", **options))

# %% [markdown]
# ## A reward that is hacked
#
# The trainings of notebook 04, in which a label pays ±0.1 (what a success pays is below the figure): guidance that is not paid (`guide`), paid on a schedule
# (`self_guide`), paid in full at once (`immediate`). **The mechanism** has two parts, and the probes below measure both.
#
# 1. *The sum of labels rivals success.* Saying *positive* is always possible. A lost episode goes on to the last turn and collects more labels than a won one,
#    so in a group with both the internal reward takes back what success pays: up to 0.1 a turn, 3 in thirty turns, beside 1. `internal gap` is the internal
#    reward of won minus lost episodes, `internal length` its correlation with the episode's length.
# 2. *In a group whose episodes all end alike* labels alone decide every advantage, blown up to unit size by the division by the group's own spread, whatever
#    their coefficient. `end alike` is the share of episodes in such groups of the unpaid arm: only they are without an advantage there.
#
# Part 2 is the same whatever a success pays; part 1 nearly goes away where it pays 10 (`immediate` over seeds, below).

# %%
settings = sglib.params.sibling("grpo", globals(), arms=[*p.arms, *p.remedies])
trained, batch = pool.train_recipes(settings), settings.games_per_iteration * settings.group_size
quantities = {"success, training batches": "success", "positive labels": "label_positive", "AUROC of labels": "calibration/label/auroc",
              "internal reward an episode": "probe/internal"}  # fmt: skip


def panels(names):
    """The four quantities of some arms, training batch by training batch."""
    return {title: {arm: [{"iteration": b["iteration"], "value": b[key]} for b in trained[arm].batches if b.get(key) is not None] for arm in names}
            for title, key in quantities.items()}  # fmt: skip


sglib.view.keep_figure(run, "alarm", sglib.figures.small_multiples(panels(p.arms), title="Internal reward against the environment's", note=f"one seed (no ordering of arms is claimed), {batch} episodes a point, success pays {settings.win_reward or 'as each recipe says'}"))


print(f"{'arm':16s} {'internal gap':>16s} {'internal length':>16s} {'end alike':>16s} {'agreement':>16s}")
for arm in p.arms:
    of = trained[arm].batches
    paid = [b for b in of if b["probe/internal"]]  # a schedule pays in the middle of a training only
    keys = ((paid, "probe/internal_gap"), (paid, "probe/internal_length"), ([] if paid else of, "zero_advantage"), (of, "label_agreement"))
    pairs = [probes.first_and_last(batches, key) for batches, key in keys]
    print(f"{arm:16s}", *(f"{'-' if None in end else f'{end[0]:+.2f} -> {end[1]:+.2f}':>16s}" for end in pairs))

# %% [markdown]
# Means of the first and of the last five batches; of *internal gap* and *internal length*, of those in which labels are paid (never in `guide`).
# *agreement*, the share of labels with the right sign, falls by arithmetic wherever positive labels rise, since few steps help; AUROC, in the figure, says
# whether the labels still tell steps apart. `sglib.measure.hacking` watches every training for all this; the rule that raises an alarm is written there.

# %%
rows = []
for arm, result in trained.items():
    rings = probes.alarms(result.batches)
    rows.append({"arm": arm, "before": np.mean(result.before), "after": np.mean(result.after), "n": len(result.after), "alarms": "; ".join(r["alarm"] for r in rings)})
    print(f"{arm:16s} {100 * np.mean(result.before):5.1f} -> {100 * np.mean(result.after):5.1f} % of {len(result.after)} held-out games;", end=" ")
    print("no alarm" if not rings else "; ".join(f"ALARM {r['alarm']}: {r['what']} {r['before']:.2f} -> {r['after']:.2f}" for r in rings))
_ = run.write_table("farmed.csv", rows)

# %% [markdown]
# ## Remedies
#
# One seed shows a mechanism, not how often it happens. The evidence (`python -m sglib evidence`, notebook 07) has several seeds of each: not paid (`guide`),
# paid in full at once (`immediate_win1`), and the remedies: the schedule (`self_guide_win1`), length normalisation (`remedy_length`), a rater that does
# not learn (`remedy_frozen`), GiGPO with each label paid to the step that it rates (`remedy_steps`; its episode part still has the whole sum), and a tenth of
# the coefficient: that is `immediate`, where labels pay the same and a success 10, since the advantage is divided by the group's own spread. Where all episodes of
# a group fail, a smaller coefficient changes nothing for the same reason.

# %%
found = evidence.read_evidence(evidence.plan(sglib.params.params_file(p.cells)))
print(found)
tried = ["guide", "immediate_win1", "self_guide_win1", "remedy_length", "remedy_frozen", "remedy_steps", "immediate"]
over, note = evidence.panels(found, {title: dict.fromkeys(tried, key) for title, key in quantities.items()})
for recipe in tried:
    outcomes = found.outcomes(recipe)
    if len(outcomes) >= evidence.FEWEST:
        x = sglib.intervals.success(outcomes)
        print(f"{recipe:18s} {100 * x.estimate:5.1f} % [{100 * x.low:.1f}, {100 * x.high:.1f}] of {x.tasks} held-out games, {x.seeds} seeds")
    else:
        print(f"{recipe:18s} {len(outcomes)} seeds so far")
if over:
    sglib.view.keep_figure(run, "remedies", sglib.figures.small_multiples(over, title="Remedies over seeds", note=note))

# %%
for arm in p.remedies:  # -p remedies '[remedy_length]' trains one here, beside the arms above
    print(f"{arm} ends above immediate:", sglib.intervals.difference(trained[arm].after, trained["immediate"].after))

# %% [markdown]
# ## Calibration over training
#
# How true the labels, the information gain and the hindsight stay while the policy learns, over the seeds of the evidence:

# %%
truths, note = evidence.panels(found, {
    "AUROC of labels": dict.fromkeys(("guide", "self_guide", "immediate", "immediate_win1"), "calibration/label/auroc"),
    "AUROC of what is paid": {r: f"calibration/{s}/auroc" for r, s in (("igpo", "igpo"), ("step_agent", "step_agent"), ("repro", "retrospective"))},
})  # fmt: skip
if truths:
    sglib.view.keep_figure(run, "calibration_over_training", sglib.figures.small_multiples(truths, title="Calibration over training", note=note))
else:
    print(f"no cells yet: {found}")
run.finish(calibration={row["signal"]: row["correlation"] for row in table}, clear_steps=clear, farmed={row["arm"]: float(row["after"]) for row in rows})

# %% [markdown]
# **Limits.** The oracle's progress and the counterfactual advantage are two truths: information that a step brings is worth something to the policy and may
# not change the distance. A correlation with single-step advantages is weakened by their noise ($2k$ episodes each). One draw of games, one policy.
#
# **Exercises.** (1) `-p k 64`: how much does the correlation with the counterfactual advantage grow, and why? (2) Which probe rings first in `immediate`? (3)
# Write a recipe that pays labels and is not hacked; `sglib.measure.hacking` will tell you.
#
# Next: [07_how_sure](07_how_sure.ipynb).
