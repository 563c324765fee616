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
# # The assay: judge a reward, also one of your own
#
# **By the end you will have seen** whether this set-up can tell a good step reward from none, how true a reward has to be before it helps, and where one recipe
# stands between success alone and the truth: a report card of one page.
#
# *For whom:* anyone with an idea for an internal reward. *Time:* seconds for a recipe whose cells are committed; about 15 minutes on two cores for one of your
# own (five seeds, and as many of its own shuffle). *Writes:* `outputs/10_assay/`, the card also to `outputs/assay/<regime>/`.
#
#     papermill notebooks/10_assay.ipynb out.ipynb -p recipe mine.yaml        # or: python -m sglib assay mine.yaml

# %% tags=["parameters"]
seed = 0
size = "cpu"
own = {}

# %%
from IPython.display import HTML, display

import sglib
from sglib.experiments import assay, evidence
from sglib.view import card

p = sglib.params.check("10_assay", globals())
run = sglib.runs.start_run("10_assay", p)
print(p)

# %% [markdown]
# ## First the instrument
#
# A scale that shows 0 for everything says nothing of what lies on it. So before any reward is judged, the set-up itself is: a *regime* is *sensitive* if the
# **truth** helps in it. The truth is what no method has: each step's exact change of the distance to the goal, paid as that step's own advantage beside the
# outcome's,
#
# $$A_t = A^\text{GRPO}(\text{outcome}) + \alpha\,\frac{r_t - \mu}{\sigma},\qquad r_t = \frac{d_t - d_{t+1}}{d_0},$$
#
# with $\mu, \sigma$ over all turns of the batch (`sglib.advantages.additive`). It has to beat the better of GRPO and GiGPO, by a margin and beyond what GRPO
# against itself shows, and it has to beat its own values **permuted within each episode**, which pay every episode the same: else it would be the return that
# helps, not that the right steps are paid. Where the truth does not help, no reward can be seen to, and every verdict is *cannot be told here*.

# %%
rule, planned = assay.load(p.regime)
found = evidence.read_evidence(planned)
it = assay.sensitivity(found, rule)
settings = planned[0].params
print(f"regime {p.regime}: {settings.env}, {settings.turns} turns, {settings.iterations} iterations of {settings.games_per_iteration} x {settings.group_size} episodes")
print(found)
print(f"{'SENSITIVE' if it.sensitive else 'NOT SENSITIVE'}: {it.why}")

# %% [markdown]
# ## How true must a reward be?
#
# The truth, degraded: with `auroc: 0.8` a step that helped is paid above one that did not with a probability of 0.8. The curve from noise (0.5) to the truth
# (1.0) is the scale on which a reward's own AUROC can be read. It is a scale for errors that fall on steps at random; a reward whose errors have a system, which
# can be learned and exploited, may do worse than its AUROC says.

# %%
curve = assay.dose_response(found, rule, it.plain or rule.plain[0])
run.write_table("curve.csv", curve)
for row in curve:
    print(f"{row['recipe']:18s} AUROC {row['auroc']:.2f}: {sglib.intervals.points(row['estimate'], row['low'], row['high'])} points, {row['seeds']} seeds")
if not curve:
    print("no cells of the degraded truth yet")

# %% [markdown]
# ## The recipe
#
# A component of your own is a class in a Python file beside the recipe (`sglib/rewards/own.py` has the whole of it):
#
# ```python
# @dataclass(frozen=True)
# class MyReward(Component):
#     bonus: float = 1.0
#     name: Literal["my_reward"] = "my_reward"
#
#     def __call__(self, trajectories, policy=None, games=None):
#         return [[self.bonus if turn.valid else 0.0 for turn in t.turns] for t in trajectories]
# ```
#
# ```yaml
# components:
#   - {name: outcome, weight: 10.0}
#   - {component: my_rewards.py:MyReward, bonus: 2.0}
# advantage: {kind: additive, alpha: 1.0}
# ```

# %%
print(sglib.params.recipe_file(p.recipe).read_text())
judged = assay.assay(p.recipe, p.regime, p.seeds, on_update=print)

# %% [markdown]
# ## The report card
#
# *Share of the truth*: (recipe − success alone) / (truth − success alone), with Fieller's interval over seeds and games. *Placement*: the recipe against itself with
# its pay permuted within each episode. *Gamed*: an alarm of `sglib.measure.hacking` in most seeds, or more and more is collected and less is won.

# %%
display(HTML(card.fragment(judged)))
page = card.write(judged, assay.folder_of(p.regime, p.output_dir))
print("\n".join(assay.lines(judged)))

# %%
def scaled(x, of, text):
    """A point of the figure, in points."""
    return {"x": x, "y": 100 * of["estimate"], "low": 100 * of["low"], "high": 100 * of["high"], "text": text}


drawn = {"the truth, degraded": [scaled(row["auroc"], row, row["recipe"]) for row in curve]}
if judged.calibration and judged.gain:
    mean = sum(judged.calibration.values()) / len(judged.calibration)
    drawn[judged.recipe] = [scaled(mean, {name: getattr(judged.gain, name) for name in ("estimate", "low", "high")}, judged.recipe)]
sglib.view.keep_figure(run, "response", sglib.figures.points(
    drawn, joined=["the truth, degraded"], band=None if it.band is None else 100 * it.band, title="How true must a reward be?",
    x_title="AUROC of what is paid for a step (0.5 is chance, 1 the truth)", y_title=f"points against {it.plain or rule.plain[0]}, {assay.MEASURES[rule.measure]}",
    note="95 % intervals over seeds and games",
))  # fmt: skip
run.finish(recipe=judged.recipe, regime=p.regime, verdict=judged.verdict, sensitive=it.sensitive, gamed=judged.gamed)

# %% [markdown]
# **Limits.** One environment, one base model, one length of training: another regime may say another thing (`-p regime`). The controls and your recipe share
# seeds, games and evaluation; trained on another type of machine, sums round otherwise, which is noise like another seed's.
#
# **Exercises.** (1) Judge `random` and `always_positive`: does the card say why they fail? (2) Write a reward that is gamed: pay for opening things. What rings?
# (3) Degrade the truth only on the steps before a thing is taken. Does its AUROC still tell what it gains?
#
# Back to the report: [09_report](09_report.ipynb).
