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
# # Credit assignment: who gets paid for what?
#
# **By the end you will have shown** how every method divides the same episodes: what each turn is paid, and what
# advantage the trainer would give to its tokens. One number of each method is worked out by hand. You will know how far
# each reward is from the truth, beside a control that is paid for another game, and what two well-known silent errors
# do to learning.
#
# *For whom:* anyone who wants to know what the four papers do to a token. *Time:* about two minutes to run, an hour and
# a half with the exercises. *Writes:* `outputs/05_credit_assignment/`. Trained here are StepAgent's discriminator, a
# student on expert pairs, and a toy at the end.
#
# This can tell which turn is paid, and how true that is. Whether paying it *helps* is another question, and there are
# set-ups in which not even the truth helps: [10_assay](10_assay.ipynb) asks that first.

# %% tags=["parameters"]
seed = 0
size = "cpu"
credit = {}

# %%
import numpy as np
import pandas as pd

import sglib
from sglib import rewards
from sglib.rewards import step_agent
from sglib.advantages import estimators
from sglib.training.dpo import dpo

p = sglib.params.check("05_credit_assignment", globals())
run = sglib.runs.start_run("05_credit_assignment", p)
print(p)

# %% [markdown]
# ## The episodes
#
# Groups of episodes of the same games (GRPO's groups), played by the base model with guidance, and recorded with the
# oracle's distance to the goal before every action. Every reward below is computed on these episodes. The figures show
# three groups, those whose outcomes differ most.

# %%
games = p.card.tasks(p.games, seed=20_000 + p.seed, size=p.task_size)
by_id = {game.id: game for game in games}
policy = sglib.load_policy(p.model, env=p.env, thinking=p.thinking)
way = {"turns": p.turns, "temperature": p.temperature, "seed": p.seed}
episodes = sglib.rollout(policy, games, format="guide", group=p.group_size, **way)
run.write_trajectories("trajectories.jsonl", episodes)
wins = [sum(t.won for t in episodes if t.group == g) for g in range(p.games)]
mixed = sorted(range(p.games), key=lambda g: abs(wins[g] - p.group_size / 2))[:3]
shown = [i for g in mixed for i, t in enumerate(episodes) if t.group == g]
ended = ["won" if t.won else "lost" for t in episodes]
names = [f"game {episodes[i].group} {ended[i]} #{i % p.group_size}" for i in shown]
print(f"{sum(wins)} of {len(episodes)} episodes won; the figures show {len(shown)}, one group:")
for i in shown[: p.group_size]:
    t = episodes[i]
    print(f"{t.goal}: {len(t)} turns, {ended[i]}, distance to the goal {t.distances}")

# %% [markdown]
# The next cell is only a helper: it pays the episodes by some components, makes advantages, and draws both, turn by
# turn. It also keeps what was paid for the comparison with the truth.

# %%
def credited(title, components, estimator, note="", reader=None):
    """Advantages of all episodes, (T,) each, and a figure; None where the game lacks something."""
    if missing := [lack for component in components if (lack := component.lacks(p.card))]:
        print(f"{title}: {p.env} has no {', '.join(missing)}")
        return None
    sglib.rewards.combine(episodes, components, u=0.6, policy=reader or policy, games=by_id)
    paid = [estimators.paid(t).tolist() for t in episodes]
    advantages = [a.tolist() for a in estimator(episodes)]
    key = title.split(" ")[0].lower().replace(",", "")
    table[key] = [x for row in paid for x in row]
    success = [estimators.paid(t, outcome.name).tolist() for t in episodes]
    internal = [np.subtract(a, b).tolist() for a, b in zip(paid, success)]
    panels = {"reward: success": success, "reward: internal": internal, "advantage": advantages}
    if not any(x for row in internal for x in row):
        del panels["reward: internal"]
    panels = {what: [rows[i] for i in shown] for what, rows in panels.items()}
    figure = sglib.figures.turn_panels(panels, names, title=title, note=note)
    sglib.view.keep_figure(run, key, figure)
    return advantages


table, outcome = {}, rewards.Outcome(weight=1.0)

# %% [markdown]
# **Built small:** under each figure one of its numbers is worked out by hand, for one episode, and must be the
# library's.

# %%
def agree(what, by_hand, library):
    """Both numbers, which must be equal."""
    assert np.isclose(by_hand, library), f"{what}: {by_hand} by hand, {library} by the library"
    print(f"{what}: {by_hand:+.3f} by hand and by the library")


place = next(i for i in shown if len(episodes[i]) > 1)
one = episodes[place]
group = [t for t in episodes if t.group == one.group]

# %% [markdown]
# ## The truth, for comparison
#
# The oracle knows how many actions are missing before ($d_t$) and after ($d_{t+1}$) each action. Shaping by the
# potential $\Phi(s) = -d(s)/d_0$ pays $r_t = \gamma \Phi(s_{t+1}) - \Phi(s_t)$: an upper bound that no method reaches,
# since none knows $d$.

# %%
oracle = credited(
    "Oracle, an upper bound", [outcome, rewards.OraclePotential()], estimators.GiGPO(),
    "reward: success and potential; advantage: GiGPO",
)  # fmt: skip
if oracle:
    left = one.remaining()
    by_hand = (left[0] - left[1]) / max(left[0], 1)
    agree("the truth about turn 1", by_hand, one.turns[0].rewards["oracle"])

# %% [markdown]
# ## GRPO: one number for the whole episode
#
# $\hat A_i = (R_i - \mu_R) / (\sigma_R + \varepsilon)$ over the trajectories of a group (Self-Guide, Eq 8). Every turn
# of a won episode is praised, the useless ones too. A group in which all episodes end alike teaches nothing.

# %%
grpo = credited(
    "GRPO", [outcome], estimators.GRPO(),
    "reward: success; the advantage is the same on all turns of an episode",
)  # fmt: skip
ends = np.array([float(t.won) for t in group])
whole = (one.won - ends.mean()) / (ends.std(ddof=1) + 1e-4)
agree("GRPO's advantage of the episode", whole, grpo[place][0])

# %% [markdown]
# ## GiGPO: turns that met the same state
#
# $A_t = A^E_i + \omega A^S_t$. The second part compares the discounted returns $R_t = \sum_{k \ge t} \gamma^{k-t} r_k$
# of turns that read the same observation within a group: who went on better from here? All episodes of a group read the
# same first observation, so turn 1 always has company.

# %%
gigpo = credited("GiGPO", [outcome], estimators.GiGPO(gamma=0.95, omega=1.0),
                 "reward: success, discounted; anchors: equal observations")  # fmt: skip
anchor, mine = one.turns[0].observation, 0.95 ** (len(one) - 1) * one.won
same = [
    0.95 ** (len(t) - 1 - k) * t.won
    for t in group for k, turn in enumerate(t.turns) if turn.observation == anchor
]  # fmt: skip
step = (mine - np.mean(same)) / (np.std(same, ddof=1) + 1e-4)
agree(f"GiGPO's advantage of turn 1, among {len(same)} turns", whole + step, gigpo[place][0])

# %% [markdown]
# ## Self-Guide: the agent's own label
#
# $R(\tau; u) = R_{env}(\tau) + \lambda(u) \sum_t g(z_t)$ (Eq 6), with $g = \pm 0.1$. The label at turn $t$ rates what
# was done before it, so the first one rates nothing. As published the sum is spread over all tokens of the episode
# (below: what is paid for success, what for labels, and one advantage an episode):

# %%
credited("Self-Guide as published", [outcome, rewards.SelfGuide(schedule=1.0)],
         estimators.GRPO(), "Eq 6 and Eq 8, lambda = 1")  # fmt: skip
g = {"positive": 0.1, "negative": -0.1}
by_hand = one.won + sum(g.get(turn.label, 0.0) for turn in one.turns[1:])
agree("Self-Guide's return of the episode", by_hand, one.total_return)

# %% [markdown]
# Ours: the same label, paid to the turn that it rates (`credit="rated"`), and GiGPO's advantages: its turn-level part
# praises no neighbour of a good turn. (Its other part, $A^E$, is still that of the whole sum.)

# %%
credited("Self-Guide-rated (ours)", [outcome, rewards.SelfGuide(schedule=1.0, credit="rated")],
         estimators.GiGPO(), "labels on the turns they rate, GiGPO")  # fmt: skip
by_hand = g.get(one.turns[1].label, 0.0)
agree("turn 1 is paid for the label of turn 2", by_hand, one.turns[0].rewards["self_guide"])

# %% [markdown]
# ## RePro: what the policy thinks afterwards
#
# After the episode, knowing how it ended, the policy rates every step: $p_1 \dots p_T$. Paid is the rise, $r_p = \beta
# (p_{t+1} - p_t)$. (The alignment term $-\alpha |\tilde p_t - p_t|$ needs an estimate stated while acting, which these
# episodes, played with guidance, do not have.) Rating has to be learned first. Where notebook 03 has run with the same
# size and seed, its policy rates, warmed up on the oracle's annotations; where no rating can be read, nothing is paid.

# %%
warm = [
    found["folder"] / "policy"
    for found in sglib.runs.find_runs("03_repro_warmup", p.output_dir)
    if (found["params"]["size"], found["seed"]) == (p.size, p.seed)
    and (found["folder"] / "policy").exists()
]
rater = sglib.load_policy(str(warm[-1]), thinking=p.thinking) if warm else policy
who = "the policy of notebook 03" if warm else "the base model"
repro = rewards.RePro(terms=("progress",), answer="steps")
credited("RePro, its progress term", [outcome, repro], estimators.GiGPO(),
         f"retrospective progress rated by {who}, GiGPO", reader=rater)  # fmt: skip
readable = [t for t in episodes if t.turns and "repro/retrospective" in t.turns[0].rewards]
print(f"{len(readable)} of {len(episodes)} episodes got a rating that could be read")
for t in readable[:1]:
    rated = [0.0, *(turn.rewards["repro/retrospective"] for turn in t.turns)]
    by_hand = (rated[-1] - rated[-2]) / 100
    agree("RePro's reward of a last turn", by_hand, t.turns[-1].rewards["repro/progress"])

# %% [markdown]
# ## IGPO: did this turn make the truth more probable?
#
# $r_t = s_t - s_{t-1}$ with $s_t = \frac{1}{L} \sum_j \log \pi_\theta(a_j \mid C_t, a_{<j})$, the mean log-probability
# of the ground truth $a$ after turn $t$. ALFWorld has no answer, so the target is ours, and two are compared: the
# hidden facts that the goal needs, in the engine's own words ("On the desk 1, you see a mug 1."), and the oracle's
# remaining plan. Gains and outcomes are normalised separately within the group, then discounted. The last turn gets the
# outcome alone.

# %%
facts = credited("IGPO", [outcome, rewards.InformationGain(target="facts")], estimators.IGPO(),
                 "gain in log-probability of the hidden facts")  # fmt: skip
if facts:
    first = one.turns[0].rewards
    if "igpo/after" in first and "igpo/before" in first:
        gain = first["igpo/after"] - first["igpo/before"]
        agree("IGPO's gain of turn 1, s_1 - s_0", gain, first["igpo"])
    by_hand = (one.won - ends.mean()) / (ends.std() + 1e-6)
    agree("IGPO's advantage of the last turn", by_hand, facts[place][-1])

# %%
plan = credited("IGPO-plan", [outcome, rewards.InformationGain(target="plan")], estimators.IGPO(),
                "gain in log-probability of the oracle's remaining plan")  # fmt: skip

# %% [markdown]
# The control is paid for the facts of *another* game. What it earns is no information about this one, so the true facts
# are worth something only by what they earn beyond it.

# %%
control = rewards.InformationGain(target="shuffled")
control = credited("IGPO-shuffled, a control", [outcome, control], estimators.IGPO(),
                   "facts of another game")  # fmt: skip

# %% [markdown]
# ## StepAgent: would the expert have done this?
#
# A discriminator $D$ tells the agent's steps from an expert's, and pays $-\log D(s, a)$ (inverse reinforcement
# learning). Here it is a linear head on the frozen model's last hidden state (ours). It is trained on these very
# episodes against those of an expert with full knowledge on the same games: what it pays them is in part what it has
# learned from them.

# %%
inverse = rewards.InverseReward(centered=True)
credited("StepAgent-Inverse", [outcome, inverse], estimators.GiGPO(),
         "-log D(s, a) - log 2: what D cannot place is worth 0 (ours), GiGPO")  # fmt: skip
if inverse.last_accuracy is not None:
    placed = 100 * inverse.last_accuracy
    print(f"D, fitted to half of the games, places {placed:.0f} % of the other half's steps "
          "(mean over the agent's and the expert's; 50 is chance)")  # fmt: skip
if "step_agent/D" in (first := one.turns[0].rewards):
    by_hand = min(-np.log(first["step_agent/D"]), inverse.clip) - np.log(2)
    agree("StepAgent's reward of turn 1", by_hand, first["step_agent"])

# %% [markdown]
# The implicit form needs no reward. Along an expert's episodes the policy answers each next step, and where the two
# differ the expert's action is preferred (step-level DPO, by TRL's `DPOTrainer`; the reference is the policy before):
# $L = -\log \sigma\left(\beta \log \frac{\pi_\theta(a^e|s)}{\pi_{ref}(a^e|s)} - \beta \log
# \frac{\pi_\theta(a^\pi|s)}{\pi_{ref}(a^\pi|s)}\right)$. Before the first step policy and reference are the same, both
# fractions are 1, and the loss is $-\log \sigma(0) = \log 2$, whatever the pairs are. Trained on a few games here:

# %%
student = sglib.load_policy(p.model, env=p.env, thinking=p.thinking)
before, after = (
    p.card.tasks(8 * p.games, seed=21_000 + i + p.seed, size=p.task_size) for i in (0, 500)
)
ask = {"max_turns": p.turns, "seed": p.seed}
pairs, inspected = step_agent.inspect_steps(student, before, **ask)
losses = dpo(student, pairs, seed=p.seed)
print(f"{inspected['compared']} steps compared, {inspected['identical']} the same as the expert's; "
      f"{len(pairs)} pairs, loss {losses[0]['loss']:.3f} -> {losses[-1]['loss']:.3f}")  # fmt: skip
assert np.isclose(losses[0]["loss"], np.log(2), atol=1e-3), "the first loss prefers neither"

# %% [markdown]
# And inspected again, on other games:

# %%
states = [
    (game.id, turn) for game in after
    for turn in range(len(step_agent.expert_turns(game, "optimal", p.turns)))
]  # fmt: skip
game_of, alike = [game for game, _ in states], {}
for name, who in (("before", policy), ("after", student)):
    apart, _ = step_agent.inspect_steps(who, after, **ask)
    differ = {(pair.game_id, pair.turn) for pair in apart}
    alike[name] = np.array([state not in differ for state in states], dtype=float)
alike["gain"] = alike["after"] - alike["before"]  # both answer in the same states
for name, values in alike.items():
    share, low, high = (100 * x for x in sglib.intervals.cluster_mean(values, game_of, seed=p.seed))
    print(f"{name:6s} on {len(after)} other games: {share:.0f} % of {len(states)} steps as the "
          f"expert [{low:.0f}, {high:.0f}], whole games resampled")  # fmt: skip

# %% [markdown]
# ## How true are they?
#
# Over all turns: the correlation of what each internal reward pays (success left out) with the truth, the actions by
# which the goal came nearer. One draw of episodes, an untrained policy: an illustration, with a bootstrap interval over
# episodes, and no ranking of papers. Two of the rewards had an oracle's help: RePro's rater was warmed up on its
# annotations (notebook 03), and StepAgent's discriminator was fitted on these games beside an expert that knows them.

# %%
left = [t.remaining() for t in episodes]
truth = [a - b for x in left for a, b in zip(x, x[1:])]
episode = np.repeat(np.arange(len(episodes)), [len(t) for t in episodes])
won = np.array([float(x) for t in episodes for x in [0] * (len(t) - 1) + [t.won]])
rows = []
for name, values in table.items():
    internal = np.array(values) - won
    if np.ptp(internal) == 0 or np.ptp(truth) == 0 or len(episodes) < 3:
        continue  # grpo and gigpo pay nothing but success
    found = sglib.intervals.correlation_interval(internal, truth, cluster=episode, seed=p.seed)
    numbers = dict(zip(("correlation", "low", "high"), found))
    rows.append({"reward": name, **numbers, "turns": len(truth)})
run.write_table("truth.csv", rows)
columns = [[row[k] for row in rows] for k in ("reward", "correlation", "low", "high")]
sglib.view.keep_figure(run, "truth", sglib.figures.bars(
    *columns, x_title="reward", y_title="Pearson correlation", percent=False, n=None,
    title=f"Correlation with true progress, {len(truth)} turns of {len(episodes)} episodes",
))  # fmt: skip
pd.DataFrame(rows)

# %% [markdown]
# ## Two silent errors, and what they do to learning
#
# A toy that learns in a second: a chain of three choices, won only if all are right. Each is a softmax over *right*,
# *wrong* and *boast* (wrong, and it earns a small internal reward). GRPO on groups of eight, our estimators against two
# errors that are found in the wild. Mean and 95 % interval over 20 seeds.
#
# 1. **Credit on the last turn only**: the advantage is right, but only the last turn's tokens get it. The other choices
#    are never learned.
# 2. **The internal reward alone decides in groups that all failed**: divided by its own spread, even +0.02 becomes as
#    large as a success, and the policy learns to boast; the coefficient cancels. Divided by the spread of success alone
#    (`scale="outcome"`) the coefficient counts: a small one does no harm, a large one still does.


# %%
def advantages_of(kind, actions, boast, groups):
    """(N, T) advantages of N episodes of T choices, under one way of giving credit."""
    won = (actions == 0).all(1).astype(float)
    returns = won + boast * (actions == 2).sum(1)
    scale = "outcome" if kind == "scale by outcome" else "group"
    whole = sglib.advantages.group_relative(returns, groups, scale=scale, outcomes=won)
    given = np.repeat(whole[:, None], actions.shape[1], axis=1)
    if kind == "last turn only":
        given[:, :-1] = 0.0
    return given


def learn(kind, seed, iterations=200, turns=3, groups=8, size=8, rate=0.5, boast=0.0):
    """Success per iteration of a tabular softmax policy."""
    rng, logits, curve = np.random.default_rng(seed), np.zeros((turns, 3)), []
    ids = np.repeat(np.arange(groups), size)
    for _ in range(iterations):
        chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        actions = np.stack([rng.choice(3, groups * size, p=row) for row in chances], axis=1)
        given = advantages_of(kind, actions, boast, ids)
        for t in range(turns):
            chosen = np.eye(3)[actions[:, t]]
            logits[t] += rate * (given[:, t, None] * (chosen - chances[t])).mean(0)
        curve.append(np.prod(chances[:, 0]))
    return curve


# %%
def over_seeds(kind, **options):
    """Mean and interval of the success per iteration over seeds."""
    curves = np.array([learn(kind, s, **options) for s in range(20)])
    half = 1.96 * curves.std(0, ddof=1) / np.sqrt(len(curves))
    points = enumerate(zip(curves.mean(0), half))
    return [{"iteration": i, "success": m, "low": m - h, "high": m + h} for i, (m, h) in points]


kinds = {"credit on all turns": "all turns", "on the last turn only": "last turn only"}
sglib.view.keep_figure(run, "last_turn_only", sglib.figures.learning_curves(
    {name: over_seeds(kind) for name, kind in kinds.items()},
    title="Where the advantage goes (20 seeds)", y_title="chance of success"))  # fmt: skip

# %%
kinds = {"divided by its own spread": "all turns", "by the spread of success": "scale by outcome"}
boasting = {
    f"a boast pays {boast:g}": {name: over_seeds(kind, boast=boast) for name, kind in kinds.items()}
    for boast in (0.0, 0.02, 0.1)
}
sglib.view.keep_figure(run, "own_spread", sglib.figures.small_multiples(
    boasting, y="success", title="Boasting", y_title="chance of success",
    note="20 seeds; bands: 95 % interval; a line that is not seen lies under the other",
))  # fmt: skip

# %% [markdown]
# ## What was found
#
# Read the pictures: GRPO paints whole rows, turn-level methods paint cells. How close each internal reward comes to the
# oracle's truth is in the table above, with its interval; compare IGPO's with its control, the facts of another game,
# and remember who had an oracle's help. The toy shows why it matters where an advantage lands and what it is divided by
# (`tests/papers/test_silent_bugs.py` has the other errors).

# %%
run.finish(episodes=len(episodes), truth={row["reward"]: row["correlation"] for row in rows})

# %% [markdown]
# **Limits.** One draw of episodes by an untrained policy. Rewards that learn with it (RePro's hindsight in training, a
# discriminator over cycles) are shown in their first state. A true reward need not help, and an untrue one may do no
# harm: nothing here was trained on these advantages, the toy apart.

# %% [markdown]
# ## Exercises
#
# Fill in a stub, run it, then run the check below it. Checks print what is missing; nothing later needs them.
#
# ### 05.1 What comes after a turn &nbsp; ●○○ · 10 minutes
#
# The discounted return of each turn, $R_t = \sum_{k \ge t} \gamma^{k-t} r_k$. It is what GiGPO compares, and IGPO's
# last step.
#
# <details><summary>Hint</summary>Go backwards: each return is its own reward plus gamma times the next
# return.</details>
# <details><summary>Solution</summary>In
# <a href="solutions/05_credit_assignment.py">solutions/05_credit_assignment.py</a>.</details>


# %% tags=["exercise"]
def discounted(rewards, gamma):
    """(T,) rewards -> (T,) returns."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("05.1"):
    paid = np.array([0.0, 0.0, 8.0])
    got = np.asarray(discounted(paid, 0.5))
    assert paid.tolist() == [0, 0, 8], "the rewards were overwritten: work on a copy"
    assert got[-1] == 8, "after the last reward nothing comes: its return is itself, undiscounted"
    assert np.allclose(got, [2, 4, 8]), "the nearer the reward, the less it is discounted"
    assert np.allclose(discounted([1.0, 1.0, 1.0], 1.0), [3, 2, 1]), "only what comes after a turn"

# %% [markdown]
# ### 05.2 Who went on better from here? &nbsp; ●●○ · 20 minutes
#
# GiGPO's $A^S$, for one group of episodes. Turns that were taken in the same state are compared with each other,
# wherever in their episode they stand: $(R_t - \mu) / (\sigma + 10^{-4})$ with the sample's standard deviation. A turn
# that is alone in its state, or among equals, has 0.
#
# <details><summary>Hint</summary>First collect, for each state, the places (episode, turn) where it was met.</details>
# <details><summary>Solution</summary>In
# <a href="solutions/05_credit_assignment.py">solutions/05_credit_assignment.py</a>.</details>


# %% tags=["exercise"]
def step_advantages(returns, states):
    """N lists of T_i returns and N lists of T_i states (hashable) -> N arrays (T_i,)."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("05.2"):
    states = [["hall", "attic", "cellar"], ["hall", "hall", "cellar", "roof"]]
    returns = [[4.0, 5.0, 6.0], [0.0, 1.0, 2.0, 3.0]]
    got = [np.asarray(x) for x in step_advantages(returns, states)]
    assert [len(x) for x in got] == [3, 4], "one number a turn"
    assert got[0][1] == 0 and got[1][3] == 0, "alone in the attic, alone on the roof: 0, never NaN"
    assert got[1][1] != 0, "the hall was met three times, once on a second turn"
    assert np.isclose(got[0][2], 0.7071, atol=1e-3), "the sample's deviation (ddof=1): sqrt(8) here"
    assert np.isclose(got[1][2], -0.7071, atol=1e-3), "turn 3 of both is in the cellar: 6 against 2"
    both = (sglib.advantages.gigpo(returns, [0, 0], states, gamma=0, omega=w) for w in (1, 0))
    library = [a - b for a, b in zip(*both)]
    assert all(np.allclose(a, b) for a, b in zip(got, library)), "not what the library finds"

# %% [markdown]
# ### 05.3 A reward that cannot be farmed &nbsp; ●●○ · 15 minutes
#
# Potential-based shaping with $\Phi(s) = -d(s)/d_0$ pays $r_t = \gamma \Phi(s_{t+1}) - \Phi(s_t)$. An agent that goes
# back and forth earns nothing by it, unlike one that is paid for every step nearer and never charged for a step back.
#
# <details><summary>Hint</summary>Make Φ of all T + 1 distances first.</details>
# <details><summary>Solution</summary>In
# <a href="solutions/05_credit_assignment.py">solutions/05_credit_assignment.py</a>.</details>


# %% tags=["exercise"]
def shaping(distances, gamma=1.0):
    """T + 1 distances, before each action and after the last one -> (T,) rewards."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("05.3"):
    got = np.asarray(shaping([4, 3, 2]))
    assert got.shape == (2,) and (got > 0).all(), "nearer is better: the potential is minus d"
    assert np.allclose(got, 0.25), "one of four steps is a quarter of the way"
    assert np.isclose(np.sum(shaping([4, 3, 4, 3, 4])), 0), "back and forth must earn nothing"
    assert np.allclose(shaping([2, 2], gamma=0.5), 0.5), "gamma stands before the state reached"

# %% [markdown]
# ### 05.4 IGPO, in the right order &nbsp; ●●● · 25 minutes
#
# All of IGPO for one group. The gains of all turns but the last are normalised together, and the outcomes by themselves
# (population standard deviation, plus $10^{-6}$). The outcome goes on the last turn. *Then* it is discounted. The other
# order punishes the first turns of a won episode for being early, and raises no error.
#
# <details><summary>Hint</summary><code>np.concatenate</code> pools the gains of turns t &lt; T; use what you wrote in
# 05.1 at the end.</details>
# <details><summary>Solution</summary>In
# <a href="solutions/05_credit_assignment.py">solutions/05_credit_assignment.py</a>.</details>


# %% tags=["exercise"]
def igpo_advantages(gains, outcomes, gamma=1.0):
    """N arrays (T_i,), of a group's gains, N lists (T_i,) that end with 0, and outcomes (N,)."""
    raise NotImplementedError


# %% tags=["check"]
with sglib.exercise("05.4"):
    early = igpo_advantages([[0.1, -0.1, 0.0], [0.1, -0.1, 0.0]], [1.0, 0.0], gamma=0.5)
    assert np.isclose(early[0][-1], 1, atol=1e-3), "the last turn has the outcome, normalised alone"
    assert early[0][0] > 0, "a won episode's first turn is punished: normalise, then discount"
    gains, outcomes = [[0.3, 0.1, 0.0], [0.2, -0.4, 0.1, 0.0], [0.0]], [1.0, 0.0, 0.0]
    got = igpo_advantages(gains, outcomes, 0.9)
    assert [len(x) for x in got] == [3, 4, 1], "an episode of one turn has its outcome only"
    library = sglib.advantages.turn_level(gains, outcomes, [0, 0, 0], gamma=0.9)
    assert np.isclose(got[0][1], library[0][1]), "last turns are no gains of 0: leave them out"
    assert all(np.allclose(a, b) for a, b in zip(got, library)), "not what the library finds"

# %% [markdown]
# ## Try it yourself
#
# - `-p temperature 1.0`: which rewards change most?
# - Mix two papers in a YAML file like those of `params/recipes` and train it in notebook 04.
# - Give the toy a penalty on every wrong choice instead of a boast: which estimator is fooled?
#
# Next: [06_is_the_reward_true](06_is_the_reward_true.ipynb).
