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
# # RePro's warmup: learning to rate one's own steps
#
# **By the end you will have shown** what a small supervised warmup does to a model that acts while stating its
# progress: to its success, to the truth of what it states, and to the truth of what it says afterwards. The training
# data are the model's own won episodes, with progress written in afterwards.
#
# *For whom:* readers of RePro (arXiv 2606.14302). *Time:* a minute or two with `params/cpu.yaml`, five with
# `params/reference.yaml`; an hour with the exercises. *Writes:* `outputs/03_repro_warmup/`.
#
# In RePro an agent states its progress while it acts, and rates every step after the episode, when the outcome is
# known. A small warmup teaches the form of both. By secondary accounts the paper finds warmup alone 23 to 81 points
# below the full method, which also trains by RL. Its annotator is a large external model. Ours is the environment's
# oracle: $p_t = 1 - d_t / d_0$, clipped to [0, 1] (our decision: exact, and at hand at this scale).

# %% tags=["parameters"]
seed = 0
size = "cpu"
warmup = {}

# %%
import numpy as np

import sglib
from sglib import rewards
from sglib.measure import truth as calibration
from sglib.rewards import repro
from sglib.training.sft import sft

p = sglib.params.check("03_repro_warmup", globals())
run = sglib.runs.start_run("03_repro_warmup", p)
print(p.model_dump(include={"env", "seed", "size", "model", "max_turns", "games", "eval_games"}))
policy = sglib.load_policy(p.model, env=p.env, lora=p.lora, thinking=p.thinking)
panel = sglib.panel(p.env, n=p.eval_games, size=p.task_size)

# %% [markdown]
# (What is trained with is printed where it is trained; all parameters are in the run's `params.json`.)
#
# ## Episodes to annotate
#
# The base model plays training games, and the won episodes are kept. Nobody demonstrates: it learns from itself. It
# plays at temperature 1. The won episodes of a colder policy are more alike, and what learns from them explores less
# (`-p play_temperature 0.4`, and look at the success that the warmup brings).

# %%
games = p.card.tasks(p.games, seed=3000 + p.seed, size=p.task_size)
way = {"format": "progress", "turns": p.turns, "seed": p.seed}
way["options"] = sglib.Options(batch_size=p.batch_size)
played = sglib.rollout(policy, games, temperature=p.play_temperature, **way)
won = [t for t in played if t.won]
if not won:
    raise RuntimeError(f"none of {len(played)} episodes was won: raise `games` or `max_turns`")
run.write_trajectories("annotated.jsonl", won)
print(f"{len(won)} of {len(played)} episodes won at temperature {p.play_temperature}")

# %% [markdown]
# **Built small: the numbers of hindsight.** One of these episodes, with what the model stated before each action and
# what it should have stated. The annotation is the oracle's progress in steps of ten. RePro would pay the gain of each
# action, $r_p = p_{t+1} - p_t$:

# %%
shown = min(won, key=len)
left = shown.remaining()  # actions to the goal, before each action and after the last one
progress = [100 * max(0.0, 1 - d / max(left[0], 1)) for d in left]
by_hand = [10.0 * round(x / 10) for x in progress]
gains = np.diff(by_hand) / 100
assert by_hand == repro.annotate(shown)

for turn, truth, gain in zip(shown.turns, by_hand, gains):
    stated = "-" if turn.progress is None else f"{turn.progress:3.0f}"
    print(f"stated {stated:>3s}   hindsight {truth:3.0f}   gain {gain:+.1f}   > {turn.action}")
print(f"{shown.final_observation}\nthe gains add up to {gains.sum():.1f}")

# %% [markdown]
# Is such a rating true? We ask how the gains that it pays go together with the true gains, over all steps. First the
# ends of this scale. The ceiling is the annotation itself. The control has the same gains, dealt out at random over the
# same steps, and must come out near 0:

# %%
true_gains = np.concatenate([np.diff([0.0, *sglib.formats.true_progress(t)]) for t in won])
noted = np.concatenate([np.diff(repro.annotate(t)) for t in won])
dealt = np.random.default_rng(p.seed).permutation(noted)
for name, paid in (("the annotation", noted), ("control: dealt at random", dealt)):
    found = calibration.correlation(paid, true_gains)
    shown_as = "none" if found is None else f"{found:.2f}"
    print(f"{name}: correlation with the true gains {shown_as}, {len(paid)} steps")

# %% [markdown]
# ## Before
#
# The base model plays the panel while it states its progress, and then rates its finished episodes. `measure` returns
# both: success, and how true the numbers are.


# %%
def measure(policy):
    """Success and the truth of online and retrospective progress, on the panel."""
    report = sglib.evaluate(policy, panel, temperature=p.temperature, **way)
    rate = rewards.RePro(terms=("progress",), answer="steps")
    rate(report.trajectories, policy)
    online = sglib.progress_error(report.trajectories)
    return report, {"online_error": online, **calibration.hindsight(report.trajectories, p.seed)}


def tell(report, truth):
    """Success and what is true of stated progress, for people."""
    low, high = 100 * report.low, 100 * report.high
    print(f"success {100 * report.success:.1f} % [{low:.1f}, {high:.1f}], n = {report.n}")
    online, after = truth["online_error"] or float("nan"), truth["retrospect_error"]
    print(f"progress stated while acting: {online:.1f} points of 100 from the truth")
    read = f"{truth['readable_won']} won, {truth['readable_lost']} lost"
    print(f"hindsight that can be read: {100 * truth['readable']:.0f} % of episodes ({read}), "
          f"{after:.1f} points from the truth")  # fmt: skip


before, truth_before = measure(policy)
tell(before, truth_before)

# %% [markdown]
# ## Warmup
#
# Each won episode gives two examples: the episode with the annotated progress before each action, and the finished
# episode with the progress of every step as the answer. Only what the policy writes is trained on (in brackets below).
# A model of this size cannot write a list of exactly as many numbers as there were steps. So the answer repeats the
# actions as given text, and the policy writes one number behind each (`answer="steps"`, ours).

# %%
examples = repro.warmup_examples(policy, won, answer="steps")
ids, labels = (examples[1][key][-60:] for key in ("input_ids", "labels"))
words = policy.tokenizer.convert_ids_to_tokens(ids)
print(" ".join(w if label == repro.IGNORE else f"[{w}]" for w, label in zip(words, labels)))

# %%
recipe = {"epochs": p.epochs, "learning_rate": p.learning_rate, "batch_size": p.train_batch_size}
print(recipe)
losses = sft(policy, examples, seed=p.seed, **recipe)
run.write_table("loss.csv", losses)
sglib.view.keep_figure(run, "loss", sglib.figures.learning_curves(
    {"warmup": losses}, x="step", y="loss", title=f"Warmup on {len(examples)} examples",
    x_title="optimiser step", y_title="loss (nats per trained token)", percent=False,
))  # fmt: skip

# %% [markdown]
# ## After
#
# The same games, the same seed, the warmed-up model:

# %%
after, truth_after = measure(policy)
policy.save(run.path("policy"))
tell(after, truth_after)

# %%
measured = {"before": (before, truth_before), "after": (after, truth_after)}
rows = [{"when": when, **report.numbers(), **truth} for when, (report, truth) in measured.items()]
run.write_table("summary.csv", rows)
sglib.view.keep_figure(run, "success", sglib.figures.bars(
    list(measured), *([getattr(r, x) for r in (before, after)] for x in ("success", "low", "high")),
    title="Acting with stated progress, before and after the warmup", n=before.n,
))  # fmt: skip

# %% [markdown]
# ## What was found
#
# Success is compared on the same games, so the interval is that of a paired difference. The correlation says whether
# hindsight pays the steps that really brought the goal nearer; its scale was set above. It is measured on episodes
# whose rating could be read, and these are not the same ones before and after: look at how many of them were won.
# *Intermediate discrimination* is the paper's own measure: the mean rating of won minus that of lost episodes, the last
# step left out, from -100 to 100. The paper has 6.4 to 31.6 for RePro and -1.1 to 1.9 for its baselines.

# %%
gap = sglib.intervals.difference(after.outcomes, before.outcomes)
verdict = "neither clearly raised nor clearly lowered"
verdict = "raised" if gap.low > 0 else "lowered" if gap.high < 0 else verdict
shown_as = sglib.intervals.points(gap.estimate, gap.low, gap.high, " points")
print(f"The warmup {verdict} success: {shown_as}, n = {after.n} paired games.")
for when, (_, x) in measured.items():
    online = x["online_error"] or float("nan")
    read = f"{100 * x['readable']:.0f} % read, {x['readable_won']} won, {x['readable_lost']} lost"
    interval = f"{x['correlation']:.2f} [{x['correlation_low']:.2f}, {x['correlation_high']:.2f}]"
    print(f"{when:6s} error stated online {online:.1f} points; hindsight: {read}; correlation with "
          f"true gains {interval}; discrimination {x['discrimination']:.1f}")  # fmt: skip
success = {when: report.success for when, (report, _) in measured.items()}
change = {"difference": gap.estimate, "low": gap.low, "high": gap.high}
run.finish(success=success, **change, **truth_after)

# %% [markdown]
# **Limits.** The comparison is before against after, not against the full method as in the paper. Training on one's own
# *won* episodes is also rejection sampling, which alone can raise success; the first question below separates the two.
# The oracle annotates without error, an external model would not. One training run: the interval covers other games,
# not another seed.

# %% [markdown]
# ## Exercises
#
# Fill in a stub, run it, then run the check below it. Checks print what is missing; nothing later needs them.
#
# ### 03.1 From ratings to rewards &nbsp; ●○○ · 10 minutes
#
# After the episode the policy wrote $P_1 \dots P_T$, its progress *after* each action, in percent. RePro pays each
# action its gain. There is one rating for each action and one reward for each action; where does the first gain begin?
#
# <details><summary>Hint</summary>Before anything was done progress was 0: put it in front and use
# <code>np.diff</code>.</details>
# <details><summary>Solution</summary>In <a href="solutions/03_repro_warmup.py">solutions/03_repro_warmup.py</a>.</details>


# %% tags=["exercise"]
def progress_rewards(rated, beta=1.0):
    """(T,) ratings after each action, in percent -> (T,) beta times its gain, progress in 0..1."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("03.1"):
    got = np.asarray(progress_rewards([50, 50, 40, 100]))
    assert got.shape == (4,), "four actions, four rewards: the first one has a gain, too"
    assert np.isclose(got.sum(), 1), "the gains add up to the last rating, 100 % or 1"
    assert np.allclose(got, [0.5, 0, -0.1, 0.6]), "the gain of action t: P_t less P before it"
    assert np.allclose(progress_rewards([50, 100], beta=0.2), [0.1, 0.1]), "beta times the gain"

# %% [markdown]
# ### 03.2 Does hindsight know before the end? &nbsp; ●●○ · 15 minutes
#
# Whoever knows the outcome can rate the last step right without having understood anything. So the paper looks at the
# steps before: the mean rating of intermediate steps of won episodes, minus that of lost ones (*intermediate
# discrimination*). All steps but the last are intermediate, and each step counts the same.
#
# <details><summary>Hint</summary>Collect the steps of all won episodes in one list, and those of all lost ones in
# another.</details>
# <details><summary>Solution</summary>In <a href="solutions/03_repro_warmup.py">solutions/03_repro_warmup.py</a>.</details>


# %% tags=["exercise"]
def discrimination(ratings, won):
    """Points, -100..100, of ratings, N lists of T_i numbers in 0..100, and won, N booleans."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("03.2"):
    ratings, won_ones = [[20, 30, 40, 100], [60, 100], [20, 20, 0]], [True, True, False]
    got = discrimination(ratings, won_ones)
    knows_the_end_only = discrimination([[10, 10, 100], [10, 10, 0]], [True, False])
    assert knows_the_end_only == 0, "alike but for the end: leave the last step out"
    assert not np.isclose(got, 42.5 - 20), "each step counts the same, not each episode"
    assert np.isclose(got, (20 + 30 + 40 + 60) / 4 - 20), "won minus lost, over all their steps"

# %% [markdown]
# ### 03.3 All of RePro's reward &nbsp; ●●● · 25 minutes
#
# Besides the gain, RePro pays for *alignment*: what was stated before action $t$ should be what hindsight says of that
# moment, $r_{align} = -\alpha\,|\tilde p_t - p_t|$. And an answer whose last rating contradicts the outcome is fined
# once, on the last turn: 100 after a failure, or less than 100 after a success. Mind what each number speaks of:
# $\tilde p_t$ is stated before action $t$, the rating $P_t$ is of the state after it.
#
# <details><summary>Hint</summary>Before action t hindsight says P with index t - 1, and 0 before the first.</details>
# <details><summary>Solution</summary>In <a href="solutions/03_repro_warmup.py">solutions/03_repro_warmup.py</a>.</details>


# %% tags=["exercise"]
def repro_rewards(stated, rated, won, alpha=0.1, beta=1.0, penalty=0.1):
    """(T,) rewards of what was stated before and rated after each action, (T,) in percent."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("03.3"):
    only = {"beta": 0.0, "penalty": 0.0}
    got = repro_rewards([0, 50, 75], [50, 75, 100], True, **only)
    assert np.allclose(got, 0), "said and rated alike: what is stated before action t is P at t - 1"
    got = repro_rewards([20, 50, 50], [50, 75, 100], True, **only)
    assert np.allclose(got, [-0.02, 0, -0.025]), "alpha times the distance, in 0..1, never a bonus"
    got = repro_rewards([0, 50], [50, 100], False, alpha=0.0)
    assert np.allclose(got, [0.5, 0.4]), "100 after a failure: fined once, on the last turn"
    won_at_90, lost_at_90 = (repro_rewards([0, 50], [50, 90], x, alpha=0.0) for x in (True, False))
    assert np.allclose(won_at_90, [0.5, 0.3]), "90 after a success is a fault, too"
    assert np.allclose(lost_at_90, [0.5, 0.4]), "90 after a failure is none"

# %% [markdown]
# ## Try it yourself
#
# - Train on the same episodes with the progress that the model stated itself: how much of the change in success is left?
#   That part is rejection sampling.
# - `games: 64`: how few won episodes are enough for the form, and how few for the truth?
#
# Next: [04_joint_grpo](04_joint_grpo.ipynb).
