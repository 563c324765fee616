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
# **By the end you will have** annotated the model's own won episodes with progress in hindsight, fine-tuned it on acting-with-progress and on
# retrospection at once, and measured what that did to its success and to the truth of its progress statements.
#
# *For whom:* readers of RePro (arXiv 2606.14302). *Time:* a minute or two with `params/cpu.yaml`, five with `params/reference.yaml`. *Writes:* `outputs/03_repro_warmup/`.
#
# RePro acts while stating progress, and after the episode rates every step knowing the outcome. A small supervised warmup teaches the format; the
# paper is reported (by secondary accounts) to find warmup alone 23 to 81 points below the full method, which also trains by RL. Its annotator is a large external model; ours is the
# environment's oracle, $p_t = 1 - d_t / d_0$ clipped to [0, 1] (our decision: exact, and available at this scale).

# %% tags=["parameters"]
seed = 0
size = "cpu"
warmup = {}

# %%
import numpy as np

import sglib
from sglib import rewards
from sglib.rewards import repro
from sglib.training.sft import sft

p = sglib.params.check("03_repro_warmup", globals())
run = sglib.runs.start_run("03_repro_warmup", p)
print(p)
policy = sglib.load_policy(p.model, env=p.env, lora=p.lora)
panel = sglib.panel(p.env, n=p.eval_games, size=p.task_size)

# %% [markdown]
# ## Episodes to annotate
#
# The base model plays training games; won episodes are kept. No demonstrator is involved: it learns from itself. It plays at temperature 1: won
# episodes of a colder policy are more alike, and what learns from them explores less (`-p play_temperature 0.4`, and look at the success that the warmup brings).

# %%
games = p.card.tasks(p.games, seed=3000 + p.seed, size=p.task_size)
played = sglib.rollout(policy, games, format="progress", turns=p.turns, temperature=p.play_temperature, seed=p.seed, options=sglib.Options(batch_size=p.batch_size))
won = [t for t in played if t.won]
if not won:
    raise RuntimeError(f"none of {len(played)} episodes was won: raise `games` or `max_turns`")
run.write_trajectories("annotated.jsonl", won)
print(f"{len(won)} of {len(played)} episodes won")

# %% [markdown]
# One of them, with what the model stated online before each action and what hindsight says it should have stated:

# %%
shown = min(won, key=len)
for turn, truth in zip(shown.turns, repro.annotate(shown)):
    stated = "-" if turn.progress is None else f"{turn.progress:3.0f}"
    print(f"stated {stated:>3s}   hindsight {truth:3.0f}   > {turn.action}")
print(shown.final_observation)

# %% [markdown]
# ## Before


# %%
def hindsight(policy, trajectories):
    """How well the policy rates finished episodes: share that can be read, mean error, and RePro's two measures of truth."""
    rating = rewards.RePro(terms=("progress",), answer="steps")
    gains = rating(trajectories, policy)
    rated = [(t, g) for t, g in zip(trajectories, gains) if t.turns and "repro/retrospective" in t.turns[0].rewards]
    if not rated:
        return {"readable": 0.0, "retrospect_error": float("nan"), "correlation": float("nan"), "correlation_low": float("nan"), "correlation_high": float("nan"), "discrimination": float("nan")}
    stated = [[turn.rewards["repro/retrospective"] for turn in t.turns] for t, _ in rated]
    truth = [sglib.formats.true_progress(t) for t, _ in rated]
    paid = np.concatenate([g for _, g in rated])
    true_gain = np.concatenate([np.diff([0.0, *x]) for x in truth])
    varied = paid.std() > 0 and true_gain.std() > 0
    found = rewards.discrimination([t for t, _ in rated])
    owner = np.repeat(np.arange(len(rated)), [len(g) for _, g in rated])
    interval = sglib.intervals.correlation_interval(paid, true_gain, cluster=owner, seed=p.seed)[1:] if varied and len(rated) > 2 else (float("nan"),) * 2
    return {
        "readable": len(rated) / len(trajectories),
        "readable_won": sum(t.won for t, _ in rated),
        "readable_lost": sum(not t.won for t, _ in rated),
        "correlation_low": interval[0],
        "correlation_high": interval[1],
        "retrospect_error": float(np.mean([np.mean(np.abs(np.subtract(x, y))) for x, y in zip(stated, truth)])),
        "correlation": float(np.corrcoef(paid, true_gain)[0, 1]) if varied else float("nan"),
        "discrimination": float("nan") if found is None else found,
    }


def measure(policy):
    """Success and the truth of online and retrospective progress, on the panel."""
    report = sglib.evaluate(policy, panel, format="progress", temperature=p.temperature, turns=p.turns, seed=p.seed, options=sglib.Options(batch_size=p.batch_size))
    return report, {"online_error": sglib.progress_error(report.trajectories), **hindsight(policy, report.trajectories)}


def tell(report, truth):
    """Success and what is true of stated progress, for people."""
    print(f"success {100 * report.success:.1f} % [{100 * report.low:.1f}, {100 * report.high:.1f}], n = {report.n}")
    print(f"progress stated while acting: {truth['online_error'] or float('nan'):.1f} points of 100 from the truth")
    print(f"hindsight that can be read: {100 * truth['readable']:.0f} % of episodes ({truth.get('readable_won', 0)} won, {truth.get('readable_lost', 0)} lost), {truth['retrospect_error']:.1f} points from the truth")


before, truth_before = measure(policy)
tell(before, truth_before)

# %% [markdown]
# ## Warmup
#
# Each won episode gives two examples: the episode with annotated progress before each action, and the finished episode with the progress of every
# step as the answer. Only what the policy writes is trained on. A model of this size cannot write a list of exactly as many numbers as there were
# steps, so the answer repeats the actions as given text and the policy writes one number behind each (`answer="steps"`, ours).

# %%
examples = repro.warmup_examples(policy, won, answer="steps")
words = policy.tokenizer.convert_ids_to_tokens(examples[1]["input_ids"])
print(" ".join(w if label == repro.IGNORE else f"[{w}]" for w, label in zip(words[-60:], examples[1]["labels"][-60:])))

# %%
losses = sft(policy, examples, epochs=p.epochs, learning_rate=p.learning_rate, batch_size=p.train_batch_size, seed=p.seed)
run.write_table("loss.csv", losses)
sglib.view.keep_figure(run, "loss", sglib.figures.learning_curves(
    {"warmup": losses}, x="step", y="loss", title=f"Warmup on {len(examples)} examples", x_title="optimiser step",
    y_title="loss (nats per trained token)", percent=False,
))  # fmt: skip

# %% [markdown]
# ## After

# %%
after, truth_after = measure(policy)
policy.save(run.path("policy"))
tell(after, truth_after)

# %%
run.write_table("summary.csv", [{"when": "before", **before.numbers(), **truth_before}, {"when": "after", **after.numbers(), **truth_after}])
sglib.view.keep_figure(run, "success", sglib.figures.bars(
    ["before", "after"], [before.success, after.success], [before.low, after.low], [before.high, after.high],
    title="Acting with stated progress, before and after the warmup", n=before.n,
))  # fmt: skip

# %% [markdown]
# ## What was found

# %%
gap = sglib.intervals.difference(after.outcomes, before.outcomes)
verdict = "raised" if gap.low > 0 else "lowered" if gap.high < 0 else "neither clearly raised nor clearly lowered"
print(f"The warmup {verdict} success: {100 * gap.estimate:+.1f} points [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}], n = {after.n} paired games.")
print(f"Error of the progress stated online: {truth_before['online_error']:.1f} -> {truth_after['online_error']:.1f} points of 0-100.")
print(f"Retrospections that could be read: {100 * truth_before['readable']:.0f} -> {100 * truth_after['readable']:.0f} %.")
for name, x in (("before", truth_before), ("after", truth_after)):
    print(f"Correlation of the progress that hindsight pays with the true progress, {name}: {x['correlation']:.2f} [{x['correlation_low']:.2f}, {x['correlation_high']:.2f}], "
          f"readable episodes only: {x.get('readable_won', 0)} won and {x.get('readable_lost', 0)} lost.")  # fmt: skip
print(f"Intermediate discrimination (mean rating of won minus of lost episodes, last step left out; -100 to 100): {truth_before['discrimination']:.1f} -> "
      f"{truth_after['discrimination']:.1f}, of the readable episodes above (the paper: 6.4 to 31.6 for RePro, -1.1 to 1.9 for its baselines).")  # fmt: skip
run.finish(success={"before": before.success, "after": after.success}, difference=gap.estimate, low=gap.low, high=gap.high, **truth_after)

# %% [markdown]
# **Limits.** The comparison is before against after, not against the full method as in the paper. Training on one's own *won* episodes is also
# rejection sampling, which alone can raise success; the exercise separates the two. The oracle annotates without error, an external model would not.
#
# **Exercises.** (1) Train on the same episodes with the progress the model stated itself: how much of the change is left? (2) `games: 64`.
#
# Next: [04_joint_grpo](04_joint_grpo.ipynb).
