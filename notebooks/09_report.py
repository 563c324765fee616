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
# # Report
#
# **What this shows:** everything that `outputs/` holds, gathered into tables that set the papers' numbers beside ours, with intervals and a
# verdict by a rule written down beforehand. *Time:* seconds. *Writes:* `outputs/09_report/`.
#
# **The rule.** A claim *holds* here if the 95 % interval of our paired difference lies on the claimed side of zero, *does not hold* if it lies on
# the other side, and is *inconclusive* otherwise. The sizes are not compared: the papers train models of 1.5 to 7 B parameters on the official
# tasks, we train 0.8 M parameters on generated rooms.

# %% tags=["parameters"]
seed = 0
size = "cpu"
report = {}

# %%
import json

import pandas as pd
from IPython.display import Markdown, display

import sglib

p = sglib.params.check("09_report", globals())
run = sglib.runs.start_run("09_report", p)
print(p)

# %% [markdown]
# Two sources: the latest complete run of each notebook on this machine, and the committed results in `outputs/reference/`.

# %%
NOTEBOOKS = ("01_pilot_study", "02_inference_self_guidance", "03_repro_warmup", "04_joint_grpo")
here = {name: sglib.runs.find_runs(name, p.output_dir) for name in NOTEBOOKS}
kept = {name: sglib.runs.find_runs(name, reference=True) if p.reference else [] for name in NOTEBOOKS}
for name in NOTEBOOKS:
    local = f"{len(here[name])} complete run(s) here" + (f", latest {here[name][-1]['run']}" if here[name] else "; none in the tables below")
    print(f"{name}: {local}; {len(kept[name])} committed")
latest = {name: found[-1] for name, found in here.items() if found}
sources = [latest]
committed = {name: found[-1] for name, found in kept.items() if found}
if any(latest.get(name, {}).get("run") != run_info["run"] for name, run_info in committed.items()):
    sources.append(committed)

# %% [markdown]
# ## Paper versus ours

# %%
def row(source, text, theirs, gap, n, found, positive=True, comparable=True):
    """One row of the table; the verdict follows the rule above. `gap`: (estimate, low, high) as fractions."""
    estimate, low, high = gap
    claimed, opposite = (low > 0, high < 0) if positive else (high < 0, low > 0)
    verdict = "holds" if claimed else "does not hold" if opposite else "inconclusive"
    verdict = verdict if comparable else "not comparable"
    return {"paper": source, "claim": text, "theirs (points)": theirs, "ours (points)": f"{100 * estimate:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]",
            "n games": int(n), "verdict here": verdict, "run": found["run"]}  # fmt: skip


def pilot_claims(found):
    """RePro's pilot study."""
    table = sglib.runs.read_table(found["folder"] / "conditions.csv").set_index("condition")
    for name, text, theirs, positive in (
        ("online", "stating progress online hurts", "-8.6 (WebShop) (s)", False),
        ("retrospective", "an example annotated in hindsight helps", "+7.9 (WebShop) (s)", True),
    ):
        if name in table.index and found["results"].get("baseline") == "basic" and "basic" in table.index:
            x = table.loc[name]
            yield row("RePro, pilot", text, theirs, (x["difference"], x["difference_low"], x["difference_high"]), x["n"], found, positive)


def inference_claims(found):
    """Self-Guide without training."""
    x = found["results"]
    if "difference" in x:
        yield row("Self-Guide, inference", "guidance helps without training", "+10.9 (1.7B), +38.3 (4B), +13.3 (7B)", (x["difference"], x["low"], x["high"]), found["params"]["games"], found)


def warmup_claims(found):
    """RePro's warmup alone."""
    x = found["results"]
    yield row("RePro, ablation", "warmup alone changes success (ours: after minus before; theirs: against the full method)", "-23 to -81 (s)", (x["difference"], x["low"], x["high"]), found["params"]["eval_games"], found, False, comparable=False)


def training_claims(found):
    """Self-Guide, trained."""
    outcomes = json.loads((found["folder"] / "outcomes.json").read_text())
    for a, b, text, theirs in (
        ("grpo", None, "plain GRPO learns", "+62.5 (1.7B)"),
        ("guide", "grpo", "guidance without its reward beats plain GRPO", "+8.6 (1.7B)"),
        ("self_guide", "guide", "the scheduled reward adds to guidance", "+8.5 (1.7B)"),
        ("self_guide", "immediate", "the schedule beats the full reward at once", "+16.6 (WebShop, 1.7B)"),
    ):
        if a in outcomes and (b is None or b in outcomes):
            other = outcomes[a]["before"] if b is None else outcomes[b]["after"]
            gap = sglib.stats.difference(outcomes[a]["after"], other)
            yield row("Self-Guide, trained", text, theirs, (gap.estimate, gap.low, gap.high), gap.n, found)


# %%
readers = dict(zip(NOTEBOOKS, (pilot_claims, inference_claims, warmup_claims, training_claims)))
claims = [claim for source in sources for name, found in source.items() for claim in readers[name](found)]

# %%
table = pd.DataFrame(claims)
run.write_table("claims.csv", table)
if table.empty:
    print("no complete runs yet: run the other notebooks first (make study)")
else:
    cells = table.astype(str)
    rows = ["| " + " | ".join(r) + " |" for r in [list(cells.columns), ["---"] * len(cells.columns), *cells.values.tolist()]]
    display(Markdown("\n".join(rows)))

# %% [markdown]
# (s): reported by secondary accounts of the paper. One training seed an arm: intervals of training rows cover the panel's games, not the spread over seeds, so
# no ordering of the trained arms is claimed. A success pays `win_reward` here (1 in the committed runs; 10 in the paper's framework).
#
# ## Learning curves

# %%
for source in sources:
    if "04_joint_grpo" in source:
        found = source["04_joint_grpo"]
        curves = sglib.runs.read_table(found["folder"] / "curves.csv")
        run.figure(f"success-{found['run']}", sglib.figures.learning_curves(
            dict(list(curves.groupby("arm", sort=False))), title=f"Success on the held-out panel, run {found['run']}", n=found["params"]["eval_games"],
        ))  # fmt: skip

# %% [markdown]
# ## All success rates

# %%
rows = []
for source in sources:
    for name, found in source.items():
        success = found["results"].get("success")
        for key, value in success.items() if isinstance(success, dict) else []:
            n = found["params"].get("eval_games") or found["params"]["games"]  # the panel
            low, high = sglib.stats.wilson(round(value * n), n)
            rows.append({"run": found["run"], "notebook": name, "what": key, "success": value, "low": low, "high": high, "n": n})
run.write_table("success.csv", rows)
for x in rows:
    print(f"{x['run']:18s} {x['notebook']:28s} {x['what']:14s} {100 * x['success']:5.1f} % [{100 * x['low']:.1f}, {100 * x['high']:.1f}]  n = {x['n']}")

# %% [markdown]
# ## Where the numbers come from

# %%
for name, found in ((name, found) for source in sources for name, found in source.items()):
    versions = ", ".join(f"{k} {v}" for k, v in found["versions"].items() if k in ("python", "torch", "trl", "alfworld"))
    print(f"{name}: run {found['run']}, seed {found['seed']}, {found['elapsed']:.0f} s, {versions}")

# %%
# The official engine has the last word: recorded episodes, replayed action by action on TextWorld, must read the same.
if "04_joint_grpo" in latest:
    files = sorted((latest["04_joint_grpo"]["folder"] / "trajectories").glob("*.jsonl"))
    games = sglib.panel(1, max_receptacles=latest["04_joint_grpo"]["params"]["max_receptacles"])
    episodes = [next(sglib.records.iter_trajectories(f)) for f in files]  # the first panel game, once an arm
    differences = sglib.replay_on_reference(episodes, games)
    print(f"{len(episodes)} episodes replayed on TextWorld: {len(differences)} differ")
    assert not differences, differences[0]
run.finish(claims=len(claims), verdicts={str(k): int(v) for k, v in table["verdict here"].value_counts().items()} if claims else {})
