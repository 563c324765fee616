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
# # When do step rewards help?
#
# **By the end you will have seen** in which set-ups even the *true* step reward helps, and in which it adds nothing, so that no internal reward could.
#
# *For whom:* anyone who chooses a benchmark for a new reward. *Time:* seconds; the cells are committed (`python -m sglib evidence --params params/regimes/<name>.yaml`
# trains them). *Writes:* `outputs/11_when_do_step_rewards_help/`.

# %% tags=["parameters"]
seed = 0
size = "cpu"
phase = {}

# %%
import numpy as np

import sglib
from sglib.experiments import assay, evidence

p = sglib.params.check("11_when_do_step_rewards_help", globals())
run = sglib.runs.start_run("11_when_do_step_rewards_help", p)

# %% [markdown]
# ## The truth's gain in every regime
#
# A row is a regime of `params/regimes/`: an environment, its turns, groups of so many episodes, a base model. *Silent*: episodes of the first five batches in groups
# whose outcomes are all alike, from which success alone learns nothing. *Gain*: the truth against the better of GRPO and GiGPO (of those that were trained there), at
# the end and as the mean over training, which still sees a gain that success alone catches up with.

# %%
def measured(found, rule, measure):
    """The truth minus the better of success alone by a measure; (None, None) with fewer than three pairs of seeds."""
    gaps = {name: assay.gap(found, rule.truth, name, measure) for name in rule.plain}
    gaps = {name: it for name, it in gaps.items() if it is not None}
    return min(gaps.items(), key=lambda pair: pair[1].estimate) if gaps else (None, None)


rows = []
for name in assay.regimes():
    rule, planned = assay.load(name)
    found, settings = evidence.read_evidence(planned), planned[0].params
    plain, training = measured(found, rule, "training")
    end_plain, end = measured(found, rule, "after")
    if end is None:
        print(f"{name}: fewer than three pairs of seeds yet")
        continue
    of = found.seeds(end_plain)
    row = {"regime": name, "env": settings.env, "turns": settings.turns, "group": settings.group_size, "reversible": settings.env != "sokoban",
           "base": float(np.mean([x.mean() for x in found.outcomes(end_plain, "before").values()])),
           "silent": float(np.mean([cell["batches"]["zero_advantage"][:5] for cell in found.seeds("grpo" if found.seeds("grpo") else end_plain).values()])),
           "against": end_plain, "seeds": end.seeds, "games": end.tasks, "end": end.estimate, "end_low": end.low, "end_high": end.high,
           "sensitive": assay.sensitivity(found, rule).sensitive}  # fmt: skip
    if training:
        row |= {"training": training.estimate, "training_low": training.low, "training_high": training.high}
    rows.append(row)
run.write_table("phase.csv", rows)
for r in rows:
    text = sglib.intervals.points(r["end"], r["end_low"], r["end_high"])
    over = sglib.intervals.points(r["training"], r["training_low"], r["training_high"]) if "training" in r else "-"
    print(f"{r['regime']:16s} {r['turns']:3d} turns, groups of {r['group']}, base {100 * r['base']:4.1f} %, silent {100 * r['silent']:3.0f} %: at the end {text}, over training {over} ({r['seeds']} seeds)")

# %% [markdown]
# ## The map
#
# What others report, on the same axes: a true, solver-made step reward against the outcome alone. Other models, tasks and estimators; points without bars come
# without intervals.

# %%
LITERATURE = [
    ("CAST, Sokoban 6x6 with 2 boxes, Qwen3-4B (2607.25308)", 44.3, 77.0 - 71.3), ("CAST, Minesweeper (2607.25308)", 4.5, 44.7 - 13.7),
    ("CAST, Rush Hour (2607.25308)", 1.1, 64.7 - 53.8),
]  # fmt: skip
series = {}
for r in rows:
    kind = f"{r['env']}, {'' if r['reversible'] else 'not '}reversible, groups of {r['group']}"
    series.setdefault(kind, []).append({"x": 100 * r["base"], "y": 100 * r["end"], "low": 100 * r["end_low"], "high": 100 * r["end_high"], "text": f"{r['regime']} ({r['turns']} turns)"})
series["reported by others"] = [{"x": base, "y": gain, "low": None, "high": None, "text": text} for text, base, gain in LITERATURE]
sglib.view.keep_figure(run, "phase", sglib.figures.points(
    series, title="What the true step reward adds to success alone, at the end of training", x_title="success of the base model, %",
    y_title="truth - better of GRPO and GiGPO, points", note=f"bars: 95 % intervals over seeds ({min((r['seeds'] for r in rows), default=0)} at least) and games; others: no intervals reported",
))  # fmt: skip

# %%
series = {}
for r in (r for r in rows if "training" in r):
    kind = f"{r['env']}, groups of {r['group']}"
    series.setdefault(kind, []).append({"x": 100 * r["silent"], "y": 100 * r["training"], "low": 100 * r["training_low"], "high": 100 * r["training_high"], "text": r["regime"]})
sglib.view.keep_figure(run, "silent", sglib.figures.points(
    series, title="The same over training, by how much is silent at first", x_title="episodes in groups without a signal, first five batches, %",
    y_title="truth - better of GRPO and GiGPO, points", note="95 % intervals over seeds and games",
))  # fmt: skip
run.finish(regimes=len(rows), sensitive=[r["regime"] for r in rows if r["sensitive"]])

# %% [markdown]
# **Limits.** One learning rate an environment, 20 or 40 iterations: a longer training may close the gap at the end and not the one over training.
#
# **Exercises.** (1) Which regime would you choose to try a new reward in, and which one to claim that it does not work? (2) Copy a regime's file, change its
# group size, and train three seeds of `gigpo` and `truth`: does your point lie where the map says?
