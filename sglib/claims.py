"""The papers' claims, what they reported, and the rule by which ours are judged; written down before the runs.

Each claim is a paired difference of two recipes over seeds and games (`sglib.stats.compare`). The verdict:

- **holds**: the 95 % interval lies on the claimed side of zero, and the estimate is beyond the A/A band;
- **does not hold**: the interval lies on the other side of zero, and the estimate is beyond the band;
- **inconclusive**: anything else. The interval says how large an effect it leaves possible.

The A/A band is the largest difference that the interval of plain GRPO against itself reaches (`grpo_again`: the same
games in another order, other random numbers). Sizes are not compared: the papers train models of 1.5 to 7 B parameters
on the official tasks, here 0.8 M parameters play generated rooms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sglib.stats import Comparison, compare
from sglib.training.evidence import Found

METHOD = "grpo"
AGAIN = "grpo_again"


@dataclass(frozen=True)
class Claim:
    """`a` ends above `b` (or below, `sign` -1).

    Attributes:
        paper: who says so; "ours" for our own questions.
        text: what is said.
        theirs: the papers' number in points and where, "" where none is at hand; "(s)" for secondary accounts.
        a, b: recipes; `a_when`, `b_when`: "before", "start" or "after" training.
        sign: 1 or -1.
    """

    paper: str
    text: str
    theirs: str
    a: str
    b: str
    a_when: str = "after"
    b_when: str = "after"
    sign: int = 1


SELF_GUIDE, REPRO, IGPO, STEP, GIGPO = "Self-Guide", "RePro", "IGPO", "StepAgent", "GiGPO"
CLAIMS = (
    Claim(SELF_GUIDE, "plain GRPO learns", "+62.5 (ALFWorld, 1.7B)", "grpo", "grpo", b_when="before"),
    Claim(SELF_GUIDE, "guidance without its reward beats plain GRPO", "+8.6 (ALFWorld, 1.7B)", "guide", "grpo"),
    Claim(SELF_GUIDE, "the scheduled reward adds to guidance", "+8.5 (ALFWorld, 1.7B)", "self_guide", "guide"),
    Claim(SELF_GUIDE, "the whole method beats plain GRPO", "+17.1 (ALFWorld, 1.7B)", "self_guide", "grpo"),
    Claim(SELF_GUIDE, "the schedule beats the full reward at once", "+16.6 (WebShop, 1.7B)", "self_guide", "immediate"),
    Claim(SELF_GUIDE, "the full reward at once is below none", "-9.5 (WebShop, 1.7B)", "immediate", "guide", sign=-1),
    Claim(SELF_GUIDE, "annealing helps", "+3.1 (WebShop, 1.7B)", "self_guide", "self_guide_no_annealing"),
    Claim(SELF_GUIDE, "late entry beats early entry", "+6.9 (WebShop, 1.7B)", "self_guide", "self_guide_early"),
    Claim(REPRO, "beats the prompt alone (Meta Prompt)", "+17.5 (ALFWorld, 1.5B) (s)", "repro", "repro_meta"),
    Claim(REPRO, "beats the format penalty (L1)", "", "repro", "repro_l1"),
    Claim(REPRO, "beats stated progress as reward (L2)", "", "repro", "repro_l2"),
    Claim(REPRO, "warmup alone is below the whole method", "-23 to -81 (s)", "repro_warmup", "repro", sign=-1),
    Claim(REPRO, "the reward from retrospection helps", "", "repro", "repro_no_retrospection"),
    Claim("ours", "RePro beats plain GRPO", "", "repro", "grpo"),
    Claim("ours", "RePro beats plain GiGPO", "", "repro", "gigpo"),
    Claim(IGPO, "beats plain GRPO", "+8.3 (F1, seven search tasks, 7B)", "igpo", "grpo"),
    Claim(IGPO, "beats GiGPO", "+13.0 (F1, seven search tasks, 7B)", "igpo", "gigpo"),
    Claim("ours", "IGPO normalised jointly beats plain GRPO", "", "igpo_joint", "grpo"),
    Claim(STEP, "its inverse reward beats success alone", "", "step_agent", "grpo"),
    Claim(STEP, "its implicit reward helps", "", "step_agent_implicit", "step_agent_implicit", b_when="before"),
    Claim(GIGPO, "step advantages beat plain GRPO", "+13.9 (ALFWorld, 1.5B)", "gigpo", "grpo"),
    Claim("ours", "control: knowing the truth beats GiGPO", "", "oracle", "gigpo"),
    Claim("ours", "control: noise beats GiGPO", "", "random", "gigpo"),
    Claim("ours", "success pays 1: the full reward at once is below none", "", "immediate_win1", "guide", sign=-1),
    Claim("ours", "success pays 1: the schedule beats the full reward", "", "self_guide_win1", "immediate_win1"),
    Claim("ours", "success pays 1: length normalisation saves it", "", "remedy_length", "immediate_win1"),
    Claim("ours", "success pays 1: a frozen rater saves it", "", "remedy_frozen", "immediate_win1"),
    Claim("ours", "success pays 1: step-level advantages save it", "", "remedy_steps", "immediate_win1"),
    Claim("ours", "success pays 1: a tenth of the coefficient saves it", "", "remedy_small", "immediate_win1"),
)  # fmt: skip


def aa(found: Found) -> Comparison | None:
    """Plain GRPO against itself, None with fewer than two pairs of seeds."""
    return _compared(found, Claim("", "", "", AGAIN, METHOD))


def noise_band(found: Found) -> float | None:
    """The largest difference, 0..1, that the interval of the A/A comparison reaches; None where there is none."""
    same = aa(found)
    return None if same is None else max(abs(same.low), abs(same.high))


def _compared(found: Found, claim: Claim) -> Comparison | None:
    a, b = found.outcomes(claim.a, claim.a_when), found.outcomes(claim.b, claim.b_when)
    return compare(a, b) if len(set(a) & set(b)) >= 2 else None


def verdict(claim: Claim, gap: Comparison | None, band: float | None) -> str:
    """By the rule at the top of this file; "no data" and "no A/A band" where that is missing."""
    if gap is None:
        return "no data"
    if band is None:
        return "no A/A band"
    if abs(gap.estimate) > band:
        if min(claim.sign * gap.low, claim.sign * gap.high) > 0:
            return "holds"
        if max(claim.sign * gap.low, claim.sign * gap.high) < 0:
            return "does not hold"
    return "inconclusive"


def judge(found: Found, claims: Sequence[Claim] = CLAIMS) -> list[dict]:
    """One row a claim: paper, claim, theirs, ours (estimate, low, high, p), seeds, games, sd over seeds, verdict."""
    band, rows = noise_band(found), []
    for claim in claims:
        gap = _compared(found, claim)
        a, b = found.seeds(claim.a), found.seeds(claim.b)
        rows.append(
            {
                "paper": claim.paper,
                "claim": claim.text,
                "a": claim.a + ("" if claim.a_when == "after" else f" ({claim.a_when})"),
                "b": claim.b + ("" if claim.b_when == "after" else f" ({claim.b_when})"),
                "theirs": claim.theirs,
                "estimate": gap and gap.estimate,
                "low": gap and gap.low,
                "high": gap and gap.high,
                "p": gap and gap.p_value,
                "sd": gap and gap.sd,
                "seeds": len(set(a) & set(b)),
                "games": gap.tasks if gap else 0,
                "verdict": verdict(claim, gap, band),
            }
        )
    return rows
