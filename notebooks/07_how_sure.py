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
# **By the end you will have seen** what 128 episodes and one seed can show (little), what the same method run twice looks like, and every cell of our
# evidence with its interval, its games and its seeds, missing ones included.
#
# *For whom:* anyone who reads or writes a table of success rates. *Time:* seconds; nothing is trained here. *Writes:* `outputs/07_how_sure/`.
#
# The cells come from `python -m sglib evidence --params params/regimes/tight.yaml`: one recipe, one seed, one small file each.

# %% tags=["parameters"]
seed = 0
size = "cpu"
sure = {}

# %%
import numpy as np
import pandas as pd

import sglib
from sglib.experiments import assay, claims
from sglib.measure import intervals, power
from sglib.experiments import evidence

p = sglib.params.check("07_how_sure", globals())
run = sglib.runs.start_run("07_how_sure", p)
print(p)

# %% [markdown]
# ## One run, 128 episodes
#
# A success rate of 72.7 % on 128 episodes, as the field reports them:

# %%
low, high = intervals.wilson(93, 128)
print(f"93 of 128 = 72.7 %: 95 % interval {100 * low:.1f} to {100 * high:.1f} %")
print(f"games that show 75 -> 80 % with 80 % power, no correlation between the two policies: {power.how_many_tasks(0.75, 0.05)}")
print(f"the same if the policies win much the same games (correlation 0.5): {power.how_many_tasks(0.75, 0.05, correlation=0.5)}")

# %% [markdown]
# And that is for *these two policies*. A claim about a *method* must hold for another training seed, too. The interval for that treats seeds and games
# as drawn at random, both (`sglib.intervals.compare`). What it promises, tried on data where the truth is known: two methods that are equal, ten seeds, 128
# games, seeds whose luck differs by some 8 points (assumed; measured below).

# %%
rng = np.random.default_rng(p.seed)


def two_equal_methods(seeds=10, games=128, spread=0.4):
    """Outcomes of two methods with the same law: each seed has its luck, each game its difficulty."""
    difficulty = rng.normal(0, 1.2, games)
    chance = 1 / (1 + np.exp(-(difficulty + rng.normal(0, spread, (2, seeds, 1)))))
    return [dict(enumerate((rng.random((seeds, games)) < c).astype(int))) for c in chance]


trials = 400
naive = honest = 0
for _ in range(trials):
    a, b = two_equal_methods()
    honest += intervals.compare(a, b).p_value < 0.05
    naive += intervals.difference(a[0], b[0]).p_value < 0.05
for text, count in (("one seed each, McNemar over games", naive), ("ten seeds x games", honest)):
    low, high = intervals.wilson(count, trials)
    print(f"{text:34s}: 'significant' in {100 * count / trials:4.1f} % of {trials} comparisons of equal methods [{100 * low:.1f}, {100 * high:.1f}]; promised: 5 %")

# %% [markdown]
# Where seeds differ that much, a test over games alone, with one seed each, finds differences between equal methods far too often: what it finds is the luck of a
# seed. How much ours differ is below (*sd*, and plain GRPO twice); the less, the less this matters.
#
# ## What we have

# %%
rule, plan = assay.load(p.cells)
found = evidence.read_evidence(plan)
print(found)
panels = {cell["panel"] for cell in found.cells.values()}
print(f"panel: {', '.join(panels) or 'none'}; versions of the code: {len(found.sources)} (README says how it was tried that they train the same); checkpoint: always the last")
recipes = list(dict.fromkeys(cell.recipe for cell in plan))

# %% [markdown]
# ## The same method twice
#
# Plain GRPO (`grpo`) and plain GRPO once more with the same games in another order and other random numbers (`grpo_again`). Whatever differs between them is
# noise, and no gain below that band is claimed anywhere. The size of the test over seeds is measured on these outcomes, too: dealing the two names anew to
# each seed makes tables in which the truth is no difference, spread like the real ones. It should not be above 5 %, and may be well below: a few seeds can lie
# close together by chance, closer than the luck of their games allows, and then the interval is kept as wide as that luck. So the test errs on the side of
# seeing nothing. With $S$ seeds there are only $2^{S-1}$ different ways to deal the names, and the interval of this rate is that of the simulation alone: other
# seeds are not in it.

# %%
same = assay.gap(found, rule.again, rule.plain[0], rule.measure)
if same is None:
    print(f"fewer than {evidence.FEWEST} pairs of seeds: no band yet, and no claim")
else:
    band = assay.noise_band(found, rule)
    one, two = (found.outcomes(name, rule.measure) for name in (rule.plain[0], rule.again))
    ends = [found.outcomes(name) for name in (rule.plain[0], rule.again)]  # won or lost, where the measure is a mean over training
    for s in sorted(set(one) & set(two)):
        print(f"seed {s}: {100 * one[s].mean():.1f} and {100 * two[s].mean():.1f} %; at the end, over games alone: {intervals.difference(ends[1][s], ends[0][s])}")
    print(f"\nover seeds and games: {same}\nA/A band: {100 * band:.1f} points")
    draws = 2000
    rate = power.rejection_rate(two, one, draws=draws, seed=p.seed)
    low, high = intervals.wilson(round(rate * draws), draws)
    print(f"with the two names dealt anew to each seed: 'significant' in {100 * rate:.1f} % of {draws} tables [{100 * low:.1f}, {100 * high:.1f}]; promised: at most 5 %")
    tables = [np.stack([of[s] for s in sorted(set(one) & set(two))]) for of in (one, two)]
    luck = np.sqrt(sum(x.var(0, ddof=1).mean() for x in tables) / tables[0].shape[1])
    print(f"(seeds' differences spread by {100 * same.sd:.1f} points; the luck of the games' draws alone would spread them by about {100 * luck:.1f})")
    alone = [intervals.difference(ends[1][s], ends[0][s]).p_value < 0.05 for s in sorted(set(one) & set(two))]
    print(f"by games alone, one seed each: 'significant' in {sum(alone)} of {len(alone)} pairs of runs of the same method")

# %% [markdown]
# ## Every cell
#
# Success on the full panel, mean over seeds; the interval covers other seeds and other games (from three seeds on). `iqm`: interquartile mean over seeds and
# the six task types with its bootstrap interval, which draws whole seeds (a dash below five of them, where it would be far too narrow; with five to ten it
# covers 86 to 91 times of 100). `sd`: what another seed changes. `seeds`: complete of planned; a cell that is missing is counted as missing, never averaged over.

# %%
def by_task_type(outcomes):
    """(seeds, task types) success rates, for the panel's rows."""
    kinds = np.array([game["id"].split("/")[1].split("-")[0] for game in sglib.envs.panels.manifest(p.env, p.card.splits[1])])
    if any(len(x) > len(kinds) for x in outcomes.values()):
        return np.array([[x.mean()] for x in outcomes.values()])  # beyond the manifest: one kind
    return np.array([[x[kinds[: len(x)] == kind].mean() for kind in dict.fromkeys(kinds[: len(x)])] for x in outcomes.values()])


planned = pd.Series([cell.recipe for cell in plan]).value_counts()
table = []
for recipe in recipes:
    outcomes = found.outcomes(recipe)
    row = {"recipe": recipe, "seeds": len(outcomes), "planned": int(planned[recipe]), "games": len(next(iter(outcomes.values()))) if outcomes else 0}
    if len(outcomes) >= evidence.FEWEST:
        s = intervals.success(outcomes)
        row |= {"success": s.estimate, "low": s.low, "high": s.high, "sd": s.sd}
    if len(outcomes) >= 5:
        row |= dict(zip(("iqm", "iqm_low", "iqm_high"), intervals.iqm(by_task_type(outcomes), seed=p.seed)))
    table.append(row)
run.write_table("cells.csv", table)
print(f"{'recipe':26s} {'success [95 %]':22s} {'iqm [95 %]':22s} {'sd':>5s}  seeds")
for row in table:
    if "success" in row:
        text = f"{100 * row['success']:5.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
        middle = f"{100 * row['iqm']:5.1f} [{100 * row['iqm_low']:.1f}, {100 * row['iqm_high']:.1f}]" if "iqm" in row else "    -"
        print(f"{row['recipe']:26s} {text:22s} {middle:22s} {100 * row['sd']:5.1f}  {row['seeds']} of {row['planned']}, {row['games']} games")
    else:
        print(f"{row['recipe']:26s} {'too few seeds':22s} {'':22s} {'':5s}  {row['seeds']} of {row['planned']}")

# %%
complete = [row for row in table if "success" in row]
if complete:
    fewest = min(row["seeds"] for row in complete)
    sglib.view.keep_figure(run, "success", sglib.figures.bars(
        [f"{row['recipe']} ({row['seeds']})" for row in complete], [row["success"] for row in complete], [row["low"] for row in complete],
        [row["high"] for row in complete], title="Success after training (seeds in brackets)", n=complete[0]["games"],
        detectable=None if same is None else power.detectable(same, seeds=fewest), pair=f"two of {fewest} seeds that differ as plain GRPO from itself",
    ))  # fmt: skip

# %% [markdown]
# ## What could we have seen?
#
# The smallest true difference that `compare` finds with 80 % probability, from the spread of seeds and games that was found (of three seeds a rough number),
# and how many seeds 3 points would take to be told from zero. More seeds do not help against too few games: where those alone leave more than 3 points open, no
# number does. A *verdict* asks for more, an estimate beyond the A/A band: the report's *detectable* counts that in and is the larger.

# %%
gaps = []
for claim in claims.CLAIMS:
    a, b = found.outcomes(claim.a, claim.a_when), found.outcomes(claim.b, claim.b_when)
    if len(set(a) & set(b)) >= evidence.FEWEST:
        gap = intervals.compare(a, b)
        gaps.append(dict(zip("ab", claim.names)) | {"seeds": gap.seeds, "sd": gap.sd, "error": gap.error, "mde": power.detectable(gap), "seeds_for_3_points": power.how_many_seeds(gap, 0.03)})
        need = gaps[-1]["seeds_for_3_points"]
        print(f"{claim.names[0]:24s} against {claim.names[1]:28s}: {gap.seeds} seeds, standard error {100 * gap.error:.1f} points, detectable {100 * gaps[-1]['mde']:.1f} points; 3 points take {need or 'more games, not only more'} seeds")
if not gaps:
    print("fewer than three pairs of seeds anywhere")
_ = run.write_table("power.csv", pd.DataFrame(gaps, columns=["a", "b", "seeds", "sd", "error", "mde", "seeds_for_3_points"]))

# %% [markdown]
# ## What it cost
#
# From the run cards, one a cell:

# %%
cards = [cell["card"] for cell in found.cells.values()]
if cards:
    hours = sum(card["cpu_seconds"] for card in cards) / 3600
    trained = [card for card in cards if card["env_steps"]]
    print(f"{len(cards)} cells complete, {len(found.failed)} failed, {len(found.missing)} missing, {len(found.stale)} with other settings (not counted)")
    print(f"{hours:.1f} CPU hours; {sum(c['episodes']['finished'] for c in trained):,} training episodes, {sum(c['env_steps'] for c in trained):,} environment steps, {sum(c['policy_tokens'] for c in trained):,} tokens written")
    print(f"in a rollout {np.median([c['env_steps_per_second'] for c in trained]):.0f} environment steps/s and {np.median([c['policy_tokens_per_second'] for c in trained]):,.0f} tokens/s (median over cells, one thread); memory at most {max(c['peak_memory_mb'] for c in cards):,} MB")
    print(f"machine: {cards[0]['machine']['system']}, {cards[0]['machine']['cores']} cores; torch {cards[0]['versions']['torch']}, trl {cards[0]['versions']['trl']}")
run.finish(cells=len(found.cells), missing=len(found.missing), false_positives={"one_seed": naive / trials, "ten_seeds": honest / trials})

# %% [markdown]
# **Limits.** The panel's games are drawn by one generator from rooms that are trained in (`valid_seen`); intervals cover other draws of such games, not
# other kinds (the report has the same policies in rooms never trained in). Seeds share the base model.
#
# **Exercises.** (1) Delete one file of `outputs/reference/evidence/tight/` and run this again: what changes? (2) How many seeds would it take to tell
# `self_guide` from `guide` if the truth were the paper's +8.5 points? (3) Simulate a method that helps half of the seeds by 10 points and hurts the
# others by 10.
#
# Next: [08_inspecting_trajectories](08_inspecting_trajectories.ipynb).
