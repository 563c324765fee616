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
# # How sure are we?
#
# **By the end you will have shown** that 128 games and one seed make two equal methods look different in more than a
# quarter of all comparisons, that a test over seeds *and* games keeps its promise of 5 %, and what our own evidence
# can therefore tell: every cell with its interval, its games and its seeds, missing ones included.
#
# *For whom:* anyone who reads or writes a table of success rates. *Time:* half a minute, since nothing is trained
# here; an hour for the exercises. *Writes:* `outputs/07_how_sure/`.
#
# The cells come from `python -m sglib evidence --params params/regimes/tight.yaml`: one recipe, one seed, one small
# file each.

# %% tags=["parameters"]
seed = 0
size = "cpu"
sure = {}

# %%
import numpy as np
import pandas as pd
from scipy import stats

import sglib
from sglib.experiments import assay, claims, evidence
from sglib.measure import intervals, power

p = sglib.params.check("07_how_sure", globals())
run = sglib.runs.start_run("07_how_sure", p)
print(p)

# %% [markdown]
# ## One run, 128 episodes
#
# A success rate of 72.7 % on 128 episodes, as the field reports them. How far could the true rate be from it? And how
# many games does it take to show that one policy wins 5 points more often than another?

# %%
low, high = intervals.wilson(93, 128)
print(f"93 of 128 = 72.7 %: 95 % interval {100 * low:.1f} to {100 * high:.1f} %")
for correlation in (0.0, 0.5):
    games = power.how_many_tasks(0.75, 0.05, correlation=correlation)
    print(f"75 -> 80 % with 80 % power, outcomes correlated by {correlation}: {games} games")

# %% [markdown]
# The interval is 15 points wide. Policies that win much the same games (correlation 0.5) need half as many of them,
# since only a game that *one* of the two wins tells them apart.
#
# ## A method is not a run
#
# All that is about *these two policies*. A claim about a *method* must hold for another training seed, too. So there
# are two kinds of luck: which seed was trained, and which games were played. Write $x_{st}$ for the outcome of method
# a minus that of b, with seed $s$ on game $t$. Paired means that both have the same seed and the same game. Then
#
# $$x_{st} = \mu + \text{seed}_s + \text{game}_t + \text{rest}_{st},$$
#
# and the variance of the mean is $(MS_\text{seed} + MS_\text{game} - MS_\text{rest}) / (S\,T)$, where each $MS$ is a
# mean square. Built small:


# %%
def paired_interval(a, b):
    """a, b: (seeds, games) outcomes -> (estimate, low, high), for other seeds and other games."""
    x = a - b
    (S, T), seeds, games = x.shape, x.mean(1), x.mean(0)
    rest = x - seeds[:, None] - games + x.mean()
    ms = np.array([T * seeds.var(ddof=1), S * games.var(ddof=1), 0.0])
    dof = np.array([S - 1, T - 1, (S - 1) * (T - 1)])
    ms[2] = (rest**2).sum() / dof[2]
    total, least = ms[0] + ms[1] - ms[2], max(ms[0], ms[2])
    df = total**2 / (ms**2 / dof).sum()  # Satterthwaite's degrees of freedom
    if total <= least:  # few seeds can agree by chance: never below this
        total, df = least, S - 1
    half = stats.t.ppf(0.975, df) * np.sqrt(total / (S * T))
    return x.mean(), x.mean() - half, x.mean() + half


# %% [markdown]
# Does the library say the same? Try it on data whose truth is known: two methods that are *equal*. Each seed has its
# luck, some 8 points of success (assumed here, measured below); each game has its difficulty.

# %%
rng = np.random.default_rng(p.seed)


def two_equal_methods(seeds=10, games=128, spread=0.4):
    """(2, seeds, games) outcomes of two methods with the same law."""
    difficulty = rng.normal(0, 1.2, games)
    chance = 1 / (1 + np.exp(-(difficulty + rng.normal(0, spread, (2, seeds, 1)))))
    return np.array([rng.random((seeds, games)) < c for c in chance]).astype(int)


trials = 400
naive = honest = 0
for _ in range(trials):
    a, b = two_equal_methods()
    found = intervals.compare(dict(enumerate(a)), dict(enumerate(b)))
    assert np.allclose(paired_interval(a, b), (found.estimate, found.low, found.high))
    honest += found.p_value < 0.05
    naive += intervals.difference(a[0], b[0]).p_value < 0.05
for text, count in (("one seed each, over games", naive), ("ten seeds x games", honest)):
    low, high = intervals.wilson(count, trials)
    share = f"{100 * count / trials:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    print(f"{text:26s}: 'significant' in {share} of {trials} comparisons; promised: 5 %")

# %% [markdown]
# The two agree on all 400 tables. Now read the two lines. A test over games alone, with one seed each, finds
# differences between equal methods far too often: what it finds is the luck of a seed. The test over seeds and games
# keeps its promise. How much our own seeds differ is below; the less they do, the less this matters.
#
# ## What we have

# %%
rule, plan = assay.load(p.cells)
found = evidence.read_evidence(plan)
recipes = list(dict.fromkeys(cell.recipe for cell in plan))
print(found)
panels = {cell["panel"] for cell in found.cells.values()}
print(f"panel: {', '.join(panels) or 'none'}; versions of the code: {len(found.sources)}")
print("how it was tried that they train the same: docs/how-to/run.md; checkpoint: always the last")

# %% [markdown]
# ## The control that must fail: the same method twice
#
# Plain GRPO (`grpo`), and plain GRPO once more with the same games in another order and other random numbers
# (`grpo_again`). Whatever differs between them is noise. The largest difference that their interval reaches is the
# *band*, and no gain below it is claimed anywhere.

# %%
same = assay.gap(found, rule.again, rule.plain[0], rule.measure)
band = assay.noise_band(found, rule)
pair = (rule.plain[0], rule.again)
whens = (rule.measure, "after")
(one, two), ends = ([found.outcomes(name, when) for name in pair] for when in whens)
both = sorted(set(one) & set(two))
alone = [intervals.difference(ends[1][s], ends[0][s]) for s in both]
for s, gap in zip(both, alone):
    print(f"seed {s}: {100 * one[s].mean():.1f} and {100 * two[s].mean():.1f} %", end="; ")
    print(f"at the end, over games alone: {gap}")
fooled = sum(gap.p_value < 0.05 for gap in alone)
print(f"\n'significant' by games alone: {fooled} of {len(alone)} pairs of runs of one method")
if same is None:
    print(f"fewer than {evidence.FEWEST} pairs of seeds: no band yet, and no claim")
else:
    print(f"over seeds and games: {same}\nA/A band: {100 * band:.1f} points")

# %% [markdown]
# Does the test keep its promise on *these* outcomes, too? Deal the two names anew to each seed. That makes tables in
# which the truth is no difference, spread like the real ones. The share that is called significant should not be
# above 5 %, and may be below: a few seeds can lie closer together than the luck of their games allows, and then the
# interval is kept as wide as that luck. With $S$ seeds there are only $2^{S-1}$ ways to deal the names, and other
# seeds are not in it.

# %%
if same is not None:
    draws = 2000
    rate = power.rejection_rate(two, one, draws=draws, seed=p.seed)
    low, high = intervals.wilson(round(rate * draws), draws)
    print(f"names dealt anew: 'significant' in {100 * rate:.1f} % of {draws} tables", end=" ")
    print(f"[{100 * low:.1f}, {100 * high:.1f}]; promised: at most 5 %")
    tables = [np.stack([of[s] for s in both]) for of in (one, two)]
    luck = np.sqrt(sum(x.var(0, ddof=1).mean() for x in tables) / tables[0].shape[1])
    print(f"seeds' differences spread by {100 * same.sd:.1f} points", end="; ")
    print(f"the luck of the games' draws alone would spread them by about {100 * luck:.1f}")

# %% [markdown]
# ## Every cell
#
# Success on the full panel, mean over seeds; the interval covers other seeds and other games (from three seeds on).
#
# - `iqm`: interquartile mean over seeds and the task types, which leaves out the lowest and the highest quarter. Its
#   bootstrap interval draws whole seeds. It is missing below five of them, where it would be far too narrow; with
#   five to ten it covers the truth 86 to 91 times of 100.
# - `sd`: what another seed changes.
# - `seeds`: complete, of `planned`. A cell that is missing is counted as missing, never averaged over.


# %%
def by_task_type(outcomes):
    """(seeds, task types) success rates, for the panel's rows."""
    manifest = sglib.envs.panels.manifest(p.env, p.card.splits[1])
    kinds = np.array([game["id"].split("/")[1].split("-")[0] for game in manifest])
    if any(len(x) > len(kinds) for x in outcomes.values()):
        return np.array([[x.mean()] for x in outcomes.values()])  # beyond the manifest: one kind
    names = list(dict.fromkeys(kinds))
    return np.array([[x[kinds[: len(x)] == k].mean() for k in names] for x in outcomes.values()])


table = []
for recipe in recipes:
    outcomes = found.outcomes(recipe)
    games = len(next(iter(outcomes.values()), []))
    planned = sum(cell.recipe == recipe for cell in plan)
    row = {"recipe": recipe, "seeds": len(outcomes), "planned": planned, "games": games}
    if len(outcomes) >= evidence.FEWEST:
        s = intervals.success(outcomes)
        row |= {"success": s.estimate, "low": s.low, "high": s.high, "sd": s.sd}
    if len(outcomes) >= 5:
        middle = intervals.iqm(by_task_type(outcomes), seed=p.seed)
        row |= dict(zip(("iqm", "iqm_low", "iqm_high"), middle))
    table.append(row)
run.write_table("cells.csv", table)

# %% [markdown]
# In percent; a dash where there are too few seeds to say anything:

# %%
shown = pd.DataFrame(table).set_index("recipe")
rates = [c for c in shown if c not in ("seeds", "planned", "games")]
shown[rates] = (100 * shown[rates]).round(1)
print(shown.to_string(na_rep="-"))
complete = [row for row in table if "success" in row]
if complete:
    fewest = min(row["seeds"] for row in complete)
    sglib.view.keep_figure(run, "success", sglib.figures.bars(
        [f"{row['recipe']} ({row['seeds']})" for row in complete],
        *([row[key] for row in complete] for key in ("success", "low", "high")),
        title="Success after training (seeds in brackets)",
        n=complete[0]["games"],
        detectable=None if same is None else power.detectable(same, seeds=fewest),
        pair=f"two of {fewest} seeds that differ as plain GRPO from itself",
    ))  # fmt: skip

# %% [markdown]
# ## What could we have seen?
#
# The smallest true difference that `compare` finds with 80 % probability (`mde`), from the spread of seeds and games
# that was found; of three seeds a rough number. And how many seeds 3 points would take to be told from zero. More
# seeds do not help against too few games: where those alone leave more than 3 points open, no number does (0 in the
# table). A *verdict* asks for more, an estimate beyond the A/A band: the report's *detectable* counts that in and is
# the larger.

# %%
gaps = []
for claim in claims.CLAIMS:
    a, b = found.outcomes(claim.a, claim.a_when), found.outcomes(claim.b, claim.b_when)
    if len(set(a) & set(b)) >= evidence.FEWEST:
        gap = intervals.compare(a, b)
        row = {"seeds": gap.seeds, "sd": gap.sd, "error": gap.error, "mde": power.detectable(gap)}
        row["seeds_for_3_points"] = power.how_many_seeds(gap, 0.03)
        gaps.append(dict(zip("ab", claim.names)) | row)
columns = ["a", "b", "seeds", "sd", "error", "mde", "seeds_for_3_points"]
gaps = pd.DataFrame(gaps, columns=columns)
run.write_table("power.csv", gaps)
numbers = ["sd", "error", "mde"]
shown = gaps.assign(seeds_for_3_points=gaps["seeds_for_3_points"].fillna(0).astype(int))
shown[numbers] = (100 * shown[numbers].astype(float)).round(1)  # points
print(shown.to_string(index=False) if len(gaps) else "fewer than three pairs of seeds anywhere")

# %% [markdown]
# ## What it cost
#
# From the run cards, one a cell:

# %%
cards = [cell["card"] for cell in found.cells.values()]
trained = [card for card in cards if card["env_steps"]]
if trained:
    steps, tokens = (sum(c[k] for c in trained) for k in ("env_steps", "policy_tokens"))
    episodes = sum(c["episodes"]["finished"] for c in trained)
    kinds = ("env_steps_per_second", "policy_tokens_per_second")
    speeds = [np.median([c[k] for c in trained]) for k in kinds]
    print(f"{sum(c['cpu_seconds'] for c in cards) / 3600:.1f} CPU hours for {len(cards)} cells")
    print(f"{episodes:,} training episodes, {steps:,} environment steps, {tokens:,} tokens written")
    print(f"in a rollout {speeds[0]:.0f} steps/s, {speeds[1]:,.0f} tokens/s (median, one thread)")
    print(f"memory at most {max(c['peak_memory_mb'] for c in cards):,} MB")
    machine, used = cards[0]["machine"], cards[0]["versions"]
    print(f"{machine['system']}, {machine['cores']} cores", end="; ")
    print(f"torch {used['torch']}, trl {used['trl']}")
run.finish(cells=len(found.cells), missing=len(found.missing),
           false_positives={"one_seed": naive / trials, "ten_seeds": honest / trials})  # fmt: skip

# %% [markdown]
# **Limits.**
#
# - The panel's games are drawn by one generator from rooms that are trained in (`valid_seen`). Intervals cover other
#   draws of such games, not other kinds; the report has the same policies in rooms never trained in.
# - All seeds share one base model.
# - An interval covers luck. It does not cover a mistake in the code or an unfair set-up.

# %% [markdown]
# ## Exercises
#
# Fill in a stub, run it and the check below it. Checks print what is missing; nothing later in the notebook needs
# them.
#
# ### 07.1 An interval for 0 of 10 &nbsp; ●○○ · 10 minutes
#
# The textbook interval $\hat p \pm 1.96 \sqrt{\hat p (1 - \hat p) / n}$ says that a policy which won 0 of 10 games is
# certain never to win. Wilson's asks instead for every $p$ that the data do not speak against:
# $$\frac{\hat p + z^2 / 2n \pm z \sqrt{\hat p (1 - \hat p) / n + z^2 / 4n^2}}{1 + z^2 / n}, \qquad z = 1.96.$$
#
# <details><summary>Hint</summary>Compute centre and half width apart; clip to 0..1.</details>
# <details><summary>Solution</summary>In <a href="solutions/07_how_sure.py">solutions/07_how_sure.py</a>.</details>


# %% tags=["exercise"]
def wilson(wins, n):
    """(low, high), 0..1, of a success rate: `wins` of `n` games."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("07.1"):
    low, high = wilson(0, 10)
    assert high > 0.2, "0 of 10: a rate of 20 % would do that one time in ten"
    assert 0 <= low < 0.001, "a rate is never below 0"
    for wins, n in ((93, 128), (10, 10), (1, 3)):
        expected = sglib.intervals.wilson(wins, n)
        assert np.allclose(wilson(wins, n), expected, atol=1e-4), f"{wins} of {n}: {expected}"

# %% [markdown]
# ### 07.2 Only games that one of them won &nbsp; ●●○ · 15 minutes
#
# Two policies play the same games. Games that both win, or both lose, say nothing of which is better. If the two are
# equal, each game that only one of them won is a fair coin. Compute the exact two-sided p-value (McNemar's test).
#
# <details><summary>Hint</summary>Count the games that only a and only b won. With <code>math.comb</code> add up the
# chances of the smaller count and of all below it; twice that, at most 1.</details>
# <details><summary>Solution</summary>In <a href="solutions/07_how_sure.py">solutions/07_how_sure.py</a>.</details>


# %% tags=["exercise"]
def mcnemar(a, b):
    """p-value of two arrays (games,) of 0 and 1, in the same order."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("07.2"):
    a, b = np.repeat([1, 0], [30, 70]), np.repeat([1, 0], [20, 80])
    assert np.isclose(mcnemar(a, b), 2 / 2**10), "10 games that only a won: 10 heads in a row"
    assert mcnemar(a, a) == 1, "no game tells them apart: p is 1"
    assert mcnemar(a, np.roll(a, 30)) == 1, "30 and 30: p is at most 1"
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 200)) < 0.4
    assert np.isclose(mcnemar(a, b), sglib.intervals.difference(a, b).p_value), "both sides count"

# %% [markdown]
# ### 07.3 What three seeds can show &nbsp; ●●● · 25 minutes
#
# A test without any assumption on distributions: if two methods are equal, their names could be swapped for each
# seed. Compute the mean difference for all $2^S$ ways to do that. The p-value is the share that lies at least as far
# from 0 as what was found. First guess: how small can it be with three seeds?
#
# <details><summary>Hint</summary><code>itertools.product((1, -1), repeat=S)</code> gives all ways. What is swapped is
# a whole seed, with all of its games.</details>
# <details><summary>Solution</summary>In <a href="solutions/07_how_sure.py">solutions/07_how_sure.py</a>.</details>


# %% tags=["exercise"]
def sign_flip(a, b):
    """p-value of outcomes (seeds, games) of two methods, swapped seed by seed."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("07.3"):
    a, b = np.ones((3, 50)), np.zeros((3, 50))
    assert np.isclose(sign_flip(a, b), 0.25), "three seeds: 2 of 8 ways. A seed is one coin, not 50"
    assert np.isclose(sign_flip(b, a), 0.25), "two-sided: as far from 0 on either side"
    assert sign_flip(a, a) == 1, "no difference: every way is as far from 0"
    rng = np.random.default_rng(1)
    luck = rng.random((200, 2, 6, 1))  # two equal methods, six seeds that differ
    tables = rng.random((200, 2, 6, 20)) < luck
    rate = np.mean([sign_flip(*t.astype(float)) < 0.05 for t in tables])
    assert rate < 0.1, f"equal methods are called different in {100 * rate:.0f} % of tables"

# %% [markdown]
# ## Try it yourself
#
# 1. Delete one file of `outputs/reference/evidence/tight/` and run this again: what changes?
# 2. How many seeds would it take to tell `self_guide` from `guide` if the truth were the paper's +8.5 points?
# 3. Simulate a method that helps half of the seeds by 10 points and hurts the others by 10. What does each test say?
#
# Next: [08_inspecting_trajectories](08_inspecting_trajectories.ipynb).
