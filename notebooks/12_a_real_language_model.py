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
# # A real language model
#
# **By the end you will have shown** what a pre-trained language model does in these games as it comes, what some
# demonstrations make of it, whether the guidance that it then writes steers what it does, and that the same GRPO trains
# it. The model is SmolLM2-135M-Instruct (Apache-2.0), which everybody can have without a GPU and without an account.
#
# *For whom:* readers who will bring Qwen3 or Llama and want to see the path first. *Time:* a minute on random weights,
# an hour or two with SmolLM2. What is committed here ran with SmolLM2 (`-f params/reference.yaml`) on one core without
# bfloat16. *Writes:* `outputs/12_a_real_language_model/`, and the taught models (half a gigabyte each) into
# `outputs/cache/`.
#
# `make smollm2` fetches the model once. Without it, `-p model random-lm` runs every cell on random weights in a minute:
# the path is the same, and nothing is learned. `make study` does that, since a real model takes too long for it.

# %% tags=["parameters"]
seed = 0
size = "cpu"
lm = {}

# %%
import random

import numpy as np
import torch

import sglib
from sglib.envs.panels import panel_hash
from sglib.experiments.experiment import Experiment
from sglib.experiments.identity import weights_hash
from sglib.measure import counterfactual
from sglib.records import read_trajectories, write_trajectories
from sglib.training.pretrain import encode_demonstration
from sglib.training.sft import sft

p = sglib.params.check("12_a_real_language_model", globals())
run = sglib.runs.start_run("12_a_real_language_model", p)
print(p.model_dump(include={
    "seed", "size", "model", "task_size", "max_turns", "games", "answer_tokens",
    "demonstrations", "arms", "iterations", "games_per_iteration", "group_size",
}))  # fmt: skip

# %% [markdown]
# (All parameters are in the run's `params.json`.)
#
# ## What such a model is, here
#
# The shipped small models have a tokenizer made for their environment and know a format by its name. A language model
# reads English: the rules and the format are explained to it in words, through its own chat template, and an answer ends
# where its template ends a turn.

# %%
policy = sglib.load_policy(p.model, env=p.env, thinking=p.thinking)
panel = sglib.panel(p.env, n=p.games, size=p.task_size)
lists = ("official_valid_seen", "official_valid_unseen") if p.official_games else ()
own = {split: sglib.panel(p.env, split, n=p.official_games) for split in lists}
weights = sum(x.numel() for x in policy.model.parameters())
ends = policy.tokenizer.convert_ids_to_tokens(policy.stop_ids)
print(f"{weights / 1e6:.1f} M parameters, context {policy.limit}, an answer ends with {ends}")
if p.model == "random-lm":
    print("RANDOM WEIGHTS: no number below says anything about language models")
first = p.card.make().reset(panel[0]).text
opening = sglib.formats.opening("act", p.card, first, policy.compact)
prompt = policy.prompt_ids(opening, "Action:")
print(f"the first prompt, {len(prompt)} tokens:\n\n{policy.tokenizer.decode(prompt)}")

# %% [markdown]
# The last word, `Action:`, is written for the model. It has to go on from there, so that even a model that would rather
# chat has said where the command begins.
#
# **Built small: whose probabilities are these?** Training by policy gradients stands on the recorded log-probability of
# each token that the model wrote. The rollout keeps a cache and reads each token once. By hand the whole text is read at
# once, in one forward pass. Both must agree, or everything that follows would train on wrong numbers:

# %%
how = sglib.Options(max_new_tokens=8)
(one,) = sglib.rollout(policy, panel[:1], turns=2, temperature=1.0, seed=p.seed, options=how)
ids = torch.tensor([one.prompt_ids + one.completion_ids], device=policy.device)
with torch.no_grad():
    scores = policy.model(ids).logits[0].float().log_softmax(-1).cpu()
before = len(one.prompt_ids) - 1
by_hand = [scores[before + i, token].item() for i, token in enumerate(one.completion_ids)]
written = np.array(one.mask) == 1
apart = np.abs(np.array(by_hand) - one.logprobs)[written].max()
assert apart < (1e-3 if ids.device.type == "cpu" else 0.1)
print(f"{written.sum()} of {len(written)} tokens are the model's; at most {apart:.1e} nats apart")


# %% [markdown]
# ## As it comes
#
# The model plays the panel in two formats, `act` (the command alone) and `guide` (a self-guidance first). An answer may
# have `answer_tokens` tokens: as it comes the model seldom knows when to stop. Two more numbers say what kind of
# failure it is: the share of actions that were not admissible, and the share of answers that did not follow the format.
#
# The control knows no language at all. It draws one of the admissible commands at random, from the list that no policy
# here is shown. A model below it has not understood what it may do.

# %%
def play(policy, format, tasks=panel, turns=p.turns):
    """Tasks, played in a format. What was played is kept, so that an interrupted run goes on."""
    limits = {"batch_size": p.batch_size, "max_new_tokens": p.answer_tokens}
    options = sglib.Options(show_actions=p.show_actions, **limits)
    way = {"format": format, "temperature": p.eval_temperature, "turns": turns, "seed": p.seed}
    def make(folder):
        report = sglib.evaluate(policy, tasks, options=options, **way)
        write_trajectories(folder / "played.jsonl", report.trajectories)
    key = [policy.name, p.env, p.card.revision, panel_hash(tasks), way, p.answer_tokens]
    key += [p.show_actions, sglib.runs.source_hash("sglib/play", "sglib/formats", "sglib/models")]
    folder = sglib.runs.cached("played", key, make, p.output_dir)
    return sglib.summarize(read_trajectories(folder / "played.jsonl"))


def tell(name, report):
    interval = f"[{100 * report.low:.1f}, {100 * report.high:.1f}], n = {report.n}"
    wrong = sum(report.parse_errors.values()) / sum(len(t) for t in report.trajectories)
    print(f"{name:22s} {100 * report.success:5.1f} % {interval}; not admissible "
          f"{100 * report.invalid:.0f} %, not in the format {100 * wrong:.0f} %")  # fmt: skip


zero = {format: play(policy, format) for format in ("act", "guide")}
for format, report in zero.items():
    run.write_trajectories(f"trajectories/zero-{format}.jsonl", report.trajectories)
    tell(f"as it comes, {format}", report)


# %%
def random_player(number, task):
    """Whether a random admissible command a turn wins."""
    env, rng = p.card.make(max_steps=p.turns), np.random.default_rng([p.seed, number])
    observation = env.reset(task)
    while not observation.done:
        observation = env.step(str(rng.choice(observation.admissible)))
    return observation.won


wins = sum(random_player(*each) for each in enumerate(panel))
low, high = sglib.intervals.wilson(wins, len(panel))
print(f"control, random: {100 * wins / len(panel):.1f} % [{100 * low:.1f}, {100 * high:.1f}]")
for turn in zero["act"].trajectories[0].turns[:3]:
    print(f"> {turn.response!r}\n  read as {turn.action!r}, {'done' if turn.valid else 'refused'}")


# %% [markdown]
# ## The papers' prompts
#
# `guide` and `act` are this library's: one answer to one prompt. The papers ask in other ways. `react` wants a thought
# before each command. `repro` is RePro's: a thought, the progress in percent, the command. `guide_two_stage` is
# Self-Guide as published: one prompt asks for a rating of the trajectory so far, a second one shows the score with its
# reason and asks for the action. What a paper leaves open is labelled in the format's file in `sglib/formats/`.
#
# All play the first `steered` games: the two prompts of `guide_two_stage` read everything again at every turn, which is
# ten times the work. A weak model wins next to none in any of them, so success cannot tell the prompts apart. Two
# other shares can: how many answers are in the format, and how many commands could be done. Turns of an episode are not
# independent, so for their intervals whole episodes are drawn anew.


# %%
def shares(report):
    """Of all turns: not admissible, and not in the format, each (estimate, low, high) in 0..1."""
    wrong = [[not turn.valid for turn in t.turns] for t in report.trajectories]
    errors = [[turn.parse_error is not None for turn in t.turns] for t in report.trajectories]
    episode = np.repeat(range(len(wrong)), [len(row) for row in wrong])
    return [sglib.intervals.cluster_mean(np.concatenate(x), episode) for x in (wrong, errors)]


prompted = {f: sglib.summarize(r.trajectories[: p.steered]) for f, r in zero.items()}
for format in sglib.progress_bar(p.prompts, desc="prompts"):
    prompted[format] = play(policy, format, panel[: p.steered])
    run.write_trajectories(f"trajectories/zero-{format}.jsonl", prompted[format].trajectories)
rows = []
for format, report in prompted.items():
    wrong, errors = shares(report)
    told = [f"{100 * m:3.0f} % [{100 * a:.0f}, {100 * b:.0f}]" for m, a, b in (wrong, errors)]
    print(f"{format:16s} won {report.wins} of {report.n}; not admissible {told[0]}; "
          f"not in the format {told[1]}")  # fmt: skip
    names = ("invalid", "invalid_low", "invalid_high"), ("errors", "errors_low", "errors_high")
    rows.append({"format": format, "n": report.n, "wins": report.wins})
    rows[-1] |= dict(zip(names[0], wrong)) | dict(zip(names[1], errors))
run.write_table("prompts.csv", rows)

# %% [markdown]
# ## What demonstrations teach
#
# The environment's demonstrators play training games, imperfectly; what they won is kept. Every second episode is
# written in the format `guide`, with the sub-goal and the label that the demonstrator states, so that one training
# teaches both formats. Only what the policy writes is learned (the other tokens have no label), and of that only what
# was worth imitating.

# %%
def demonstrations(count):
    """Won episodes of demonstrators, the same for the same seed; of ten training games each."""
    games = p.card.tasks(10 * count, seed=700_000 + p.seed, size=p.task_size)
    habits, turns, found = p.card.pretraining["habits"], max(p.turns, 12), []
    for k, task in enumerate(games):
        drawn = random.Random(f"{p.seed} {k}")
        steps, won = p.card.demonstrate(p.card.make(), task, drawn, habits, turns)
        found += [steps] if won else []
    if len(found) < count:
        raise RuntimeError(f"only {len(found)} of {len(games)} were won: raise `max_turns`")
    return found[:count]


examples = []
for k, steps in enumerate(demonstrations(max(p.demonstrations))):
    ids, worth = encode_demonstration(policy, p.card, ("act", "guide")[k % 2], steps, 0.0)
    examples.append({"input_ids": ids, "labels": [i if w else -100 for i, w in zip(ids, worth)]})
learned = sum(label != -100 for x in examples for label in x["labels"])
tokens = sum(len(x["input_ids"]) for x in examples)
print(f"{len(examples)} demonstrations, {tokens} tokens, {learned} of them are learned")


# %% [markdown]
# One pass over the first $N$ of them, then the panel, then on to the next $N$: each point of the curve has seen every
# demonstration once. Each taught model is kept in the cache, so an interrupted run goes on from the last one.

# %%
def taught(policy, number):
    """The policy after the demonstrations up to the `number`-th count, and where it is kept."""
    part = examples[slice(*[0, *p.demonstrations][number : number + 2])]
    how = {"learning_rate": p.sft_learning_rate, "batch_size": p.sft_batch_size, "seed": p.seed}

    def make(folder):
        losses = sft(policy, part, micro_batch_size=2, **how)
        run.write_table(f"loss-{p.demonstrations[number]}.csv", losses)
        policy.save(folder)

    key = [weights_hash(p.model, p.env), p.env, p.seed, p.task_size, p.turns, how]
    key += [p.demonstrations[: number + 1]]
    key += [sglib.runs.source_hash("sglib/training", "sglib/formats")]
    folder = sglib.runs.cached("taught", key, make, p.output_dir)
    return sglib.load_policy(str(folder), env=p.env), folder


curve = [{"demonstrations": 0, **zero["act"].numbers()}]
for number, count in enumerate(sglib.progress_bar(p.demonstrations, desc="demonstrations")):
    policy, folder = taught(policy, number)
    report = play(policy, "act")
    curve.append({"demonstrations": count, **report.numbers()})
    tell(f"{count} demonstrations", report)

# %%
assert [row["demonstrations"] for row in curve] == [0, *p.demonstrations]
run.write_table("curve.csv", curve)
sglib.view.keep_figure(run, "demonstrations", sglib.figures.learning_curves(
    {"act": curve}, x="demonstrations", title="What demonstrations teach", n=p.games,
    x_title="demonstrations, each seen once",
))  # fmt: skip

# %% [markdown]
# Look at the three numbers in order. What is not in the format falls first, after a handful of episodes. What is not
# admissible falls next: the model learns to copy names out of what it read. Success comes last, if it comes: it needs
# a plan. So a flat success curve does not mean that nothing was learned.
#
# ## Guidance at inference
#
# The taught model writes both formats. Does guidance help it, does it change how it fails, and does what it writes
# steer what it does? As in [notebook 02](02_inference_self_guidance.ipynb) the difference is paired.

# %%
reports = {"act": report, "guide": play(policy, "guide")}
for format, report in reports.items():
    run.write_trajectories(f"trajectories/taught-{format}.jsonl", report.trajectories)
    tell(f"taught, {format}", report)
gap = sglib.intervals.difference(reports["guide"].outcomes, reports["act"].outcomes)
shown = sglib.intervals.points(gap.estimate, gap.low, gap.high, " points")
print(f"guide minus act: {shown}, {gap.n} paired games; labels {reports['guide'].labels}")
kinds = ("looping", *p.card.failures)
for format, report in reports.items():
    lost = [t for t in report.trajectories if not t.won]
    found = sglib.summarize(lost).numbers() if lost else {}
    shares = {kind: round(found.get(kind) or 0, 2) for kind in kinds}
    print(f"{format:6s} {len(lost)} lost:", shares)

# %% [markdown]
# Steering: at one turn of some episodes the label, the sub-goal or both are replaced, and the likeliest action is
# compared with the one after what was written. If none changes, guidance is decoration, whatever it says.

# %%
guided = reports["guide"].trajectories[: p.steered]
steered = counterfactual.steerability(policy, guided, seed=p.seed)
run.write_table("steerability.csv", steered)
for row in steered:
    share, low, high = (100 * row[k] for k in ("changed", "low", "high"))
    print(f"{row['replaced']:9s} replaced: {share:3.0f} % of the actions change "
          f"[{low:.0f}, {high:.0f}], n = {row['n']} episodes")  # fmt: skip

# %% [markdown]
# ## GRPO
#
# The same trainer, the same recipes, the same YAML as for the small models: success alone (`grpo`), with guidance
# (`guide`), with the label's reward on its schedule (`self_guide`). All begin with the taught model, and each is trained
# with `training_seeds` seeds: other games, other draws. Interrupting the kernel stops a training; running the cell again
# goes on from its last checkpoint, and what is complete is kept.

# %%
settings, results = p.training(folder), {}
formats = {arm: Experiment(arm, settings).load().format for arm in p.arms}
seeds = range(p.seed, p.seed + p.training_seeds)
for seed_of, arm in sglib.progress_bar([(s, a) for s in seeds for a in p.arms], desc="trainings"):
    experiment = Experiment(arm, settings.model_copy(update={"seed": seed_of}))
    experiment.train()
    results[arm, seed_of] = experiment.read()
named = {f"{arm}, seed {s}": r for (arm, s), r in results.items()}
run.write_table("arms.csv", [{"seed": s, **x} for (_, s), r in results.items() for x in r.curve])


def rise(arm):
    """After minus before, in points: over games, and over seeds where there are several."""
    after, before = ([getattr(results[arm, s], x) for s in seeds] for x in ("after", "before"))
    one, several = sglib.intervals.difference, sglib.intervals.crossed_mean
    gap = one(after[0], before[0]) if len(seeds) == 1 else several(np.subtract(after, before))
    return sglib.intervals.points(gap.estimate, gap.low, gap.high, " points")

for name, r in named.items():
    card = r.card
    print(f"{name:20s} {100 * np.mean(r.before):5.1f} -> {100 * np.mean(r.after):5.1f} %; "
          f"{card['episodes']['without_advantage']} of {card['episodes']['started']} episodes "
          f"taught nothing; {card['seconds']:.0f} s")  # fmt: skip
for arm in p.arms:
    print(f"{arm:10s} {rise(arm)}, {len(seeds)} seeds x {p.eval_games} games")

# %% [markdown]
# Read the episodes that taught nothing before the success. Where every episode of a group is lost, all returns are alike
# and no advantage is left; that is what a weak model gives GRPO, and why the demonstrations come first. With guidance
# the label's reward can tell lost episodes apart, which is a signal, and may be a false one
# ([notebook 06](06_is_the_reward_true.ipynb)).
#
# ## ALFWorld's own games
#
# At last the benchmark itself, where its files are at hand (`alfworld-download`, or `SGLIB_ALFWORLD_DATA`): the first
# `official_games` of both validation lists, 50 turns, by the taught model and by the last policy of each arm's first
# seed. These are whole rooms, five times as long as anything that the model was taught with.


# %%
players, rows = {"taught": (folder, "act")}, []
for (arm, s), r in results.items():
    if s == seeds[0]:
        players[arm] = (r.folder / "policy", formats[arm])
for name, (weights_of, format) in players.items() if own else ():
    player = sglib.load_policy(str(weights_of), env=p.env)
    for split, games in own.items():
        report = play(player, format, games, turns=50)
        rows.append({"player": name, "list": split, "format": format, **report.numbers()})
        tell(f"{name}, {split.removeprefix('official_')}", report)
if own:
    run.write_table("official.csv", rows)
else:
    print("not played (official_games is 0)")

# %% [markdown]
# ## What was found

# %%
success = {f"zero {k}": r.success for k, r in zero.items()}
success |= {f"{row['demonstrations']} demonstrations": row["success"] for row in curve[1:]}
success |= {name: float(np.mean(r.after)) for name, r in named.items()}
last = curve[-1]
verdict = "clearly more" if last["low"] > curve[0]["high"] else "not clearly more"
print(f"{p.model}: {last['demonstrations']} demonstrations win {verdict} than none "
      f"({100 * curve[0]['success']:.1f} -> {100 * last['success']:.1f} %, "
      f"n = {p.games})")  # fmt: skip
print(f"not admissible: {100 * curve[0]['invalid']:.0f} -> {100 * last['invalid']:.0f} %")
run.finish(success=success, random=wins / len(panel))

# %% [markdown]
# **Limits.** One model of 135 M parameters whose weights were quantised to four bits on the way, one taught model, a
# panel of generated rooms that are smaller than those of the other notebooks, few turns, few demonstrations and a handful
# of updates at rates that were not tuned. Nothing here compares rewards: that takes the seeds and the games of
# [notebook 07](07_how_sure.ipynb). A larger model may need no demonstrations at all, and then the middle of this notebook
# is superfluous.

# %% [markdown]
# ## Exercises
#
# Fill in a stub, run it, then run the check below it. Checks print what is missing; nothing later needs them.
#
# ### 12.1 Which tokens are learned? &nbsp; ●○○ · 10 minutes
#
# An episode is one text: prompt, answer, observation, answer, and so on. Supervised training takes labels: the token's
# own id where the policy wrote it, and -100 where nothing is to be learned. An answer that did nothing should not be
# taught. Make the labels from the spans of the answers.
#
# <details><summary>Hint</summary>Begin with a list of -100, then copy slices.</details>
# <details><summary>Solution</summary>In
# <a href="solutions/12_a_real_language_model.py">solutions/12_a_real_language_model.py</a>.</details>


# %% tags=["exercise"]
def labels_of(ids, spans, valid):
    """n labels for n token ids; spans: [start, end) of each answer; valid: whether it is taught."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("12.1"):
    got = labels_of([5, 6, 7, 8, 9], [(1, 2), (3, 5)], [True, True])
    assert len(got) == 5, "as many labels as tokens"
    assert got == [-100, 6, -100, 8, 9], "the answers' own ids, their ends left out"
    assert labels_of([5, 6, 7], [(1, 3)], [False]) == [-100] * 3, "what did nothing is not taught"

# %% [markdown]
# ### 12.2 None of sixteen &nbsp; ●●○ · 15 minutes
#
# A model that won none of $n$ games has not shown that it wins none. How high can its true success be, so that no win at
# all would still happen once in twenty times? The answer for large $n$ is known as the rule of three. How many games
# does it take to tell a success below one percent?
#
# <details><summary>Hint</summary>No win in n games has the probability (1 - s) to the power of n.</details>
# <details><summary>Solution</summary>In
# <a href="solutions/12_a_real_language_model.py">solutions/12_a_real_language_model.py</a>.</details>


# %% tags=["exercise"]
def largest_success(n):
    """The success, 0..1, with which n games are all lost with probability 0.05."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("12.2"):
    assert np.isclose(largest_success(1), 0.95), "one game says next to nothing"
    assert np.isclose((1 - largest_success(16)) ** 16, 0.05), "all 16 lost, once in twenty"
    assert abs(300 * largest_success(300) - 3) < 0.03, "the rule of three: about 3 / n"

# %% [markdown]
# ### 12.3 What a kept cache saves &nbsp; ●●● · 20 minutes
#
# An endpoint gets the whole conversation again at every turn. A model that is loaded here keeps what it has read: each
# token is read once. Count the tokens that are read in both ways, for an episode with a prompt, and at each turn an
# answer and (but for the last one) an observation. Written tokens count as read once in either way; a cache lets the
# endpoint's way read all of the earlier ones again.
#
# <details><summary>Hint</summary>Before answer t everything before it is read again: a running sum.</details>
# <details><summary>Solution</summary>In
# <a href="solutions/12_a_real_language_model.py">solutions/12_a_real_language_model.py</a>.</details>


# %% tags=["exercise"]
def tokens_read(prompt, answers, observations):
    """(kept, again) for a prompt's length and the lengths of T answers and T - 1 observations."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("12.3"):
    kept, again = tokens_read(100, [10], [])
    assert (kept, again) == (110, 110), "one turn: nothing is there to be read again"
    assert tokens_read(100, [10, 10], [20])[0] == 140, "each token once"
    assert tokens_read(100, [10, 10], [20])[1] == 250, "110, then the 130 before the second answer"
    kept, again = tokens_read(200, [10] * 30, [20] * 29)
    assert 10 < again / kept < 20, "thirty turns: more than ten times as much"

# %% [markdown]
# ## Try it yourself
#
# - `-p show_actions True` lists the admissible actions after each observation, as the papers' prompts do. Which of the
#   three numbers does it move, and is the model still below the control?
# - Which prompt follows the rules best once the model was taught? `play(policy, "react")` after the demonstrations.
#
# Next: [09_report](09_report.ipynb), the page of everything that was measured.
