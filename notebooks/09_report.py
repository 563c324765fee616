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
# What the papers claim, what was measured, and how sure that is: a page for a colleague, without code. *Time:* half a minute.
# *Writes:* `outputs/09_report/<run>/report.html`, one file that opens anywhere, and its tables and figures beside it.
#
# `sglib/view/report.py` makes the page, `params/report.md` has its words. This is no lesson: notebook 07 teaches how such a table is
# read, 10 how a reward is judged, 11 where one can help.

# %% tags=["parameters"]
seed = 0
size = "cpu"
report = {}

# %% tags=["hide-input"]
import sglib
from sglib.view.report import Report

p = sglib.params.check("09_report", globals())
run = sglib.runs.start_run("09_report", p)
print(p)

# %% tags=["hide-input"]
# The official engine has the last word: recorded episodes, replayed action by action on TextWorld, must read the same.
from sglib.envs.alfworld.reference import replay_on_reference

checks = ["not replayed on TextWorld: notebook 04 has no complete run on this machine"]
if trained := sglib.runs.find_runs("04_joint_grpo", p.output_dir):
    games = sglib.panel(p.env, n=1, size=trained[-1]["params"].get("task_size"))
    files = sorted((trained[-1]["folder"] / "trajectories").glob("*.jsonl"))
    episodes = [next(sglib.records.iter_trajectories(file)) for file in files]  # the first panel game, once an arm
    differences = replay_on_reference(episodes, games)
    assert not differences, differences[0]
    checks = [f"{len(episodes)} episodes replayed on TextWorld: 0 differ"]

# %% tags=["hide-input"]
page = Report(p, run, checks)
page.show()
run.finish(**page.results)
