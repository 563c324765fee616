"""IGPO: a turn is worth how much likelier it made the truth (arXiv 2510.14967, ICLR 2026).

The paper's tasks are questions with a known answer a of L tokens. After each turn t the policy is asked, by teacher
forcing after the context C_t, how likely it finds that answer:

    s_t = (1/L) sum_j log pi(a_j | C_t, a_<j)        r_t = s_t - s_{t-1},  1 <= t < T

C_0 is the prompt; the gain is signed, not clipped, and a constant (no gradient runs through it). The last turn gets
none: it carries the outcome, which is a component of its own. The paper's first version took the gain in probability,
P_t = exp(s_t), r_t = P_t - P_{t-1}. Undiscounted, the gains of an episode sum to s_{T-1} - s_0.

Before the answer stands a bridge, in the paper a short thought in the assistant's own format; here it is what the
environment's card says, in place of the answer's given prefix, and its tokens are not averaged. Games have no such
answer (the task sentence is in the prompt already), so what stands for it there is ours, not the paper's; see
`InformationGain.target`. Normalising gains and outcomes, each by its own mean and spread, and discounting
afterwards, is `sglib.advantages.formulas.turn_level`, not this file.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic.dataclasses import dataclass

from sglib import envs, formats
from sglib.envs import Environment, Task, replay, task_of
from sglib.models.policy import Policy, load_frozen
from sglib.play.scoring import branch_logprobs
from sglib.records import Trajectory
from sglib.rewards.component import Component
from sglib.rewards.fields import Count, Text

Pieces = list[tuple[str, bool]]  # of a text: (words, whether their tokens count)


@dataclass(frozen=True)
class InformationGain(Component):
    """r_t = s_t - s_{t-1} (IGPO), 0 on the last turn.

    With each value are kept "<name>/before" (s_{t-1}, on every turn) and "<name>/after" (s_t, not on the last), in
    log-probability for both versions, and "<name>/unknown" where the target has words that the tokenizer lacks (how
    many tokens). A gain is 0 where one of its two states has no target (the goal cannot be reached from there).

    Attributes:
        version: "logprob" (ICLR) or "probability" (first version).
        target: "answer" is the paper's, where an environment has one; the others are ours.
            "facts": where the things lie that a shortest plan from the start takes or switches on. Fixed for the whole
            episode, as the paper's answer is; once a thing was taken, its sentence tells of the past.
            "plan": the commands of the oracle's shortest plan from the present state. This text changes, and gets
            shorter, as the state changes: a gain then says that what remains became easier, not only that the policy
            knows more. Under "sum" it is above all the number of commands left.
            "shuffled": a control, the facts of another game of the batch (the next by id, one whose text has as many
            tokens if there is one); a signal that is as good under it is not information about this game.
        answers: of several true answers "first" (the released code) or "max", the likeliest at each point (ours).
        reduce: "mean" over the target's tokens (the paper) or "sum".
        frozen: name or folder of a policy that scores in place of the one being trained; loaded once in a process. It
            must have the same tokenizer.
        batch_size: see `branch_logprobs`.
    """

    version: Literal["logprob", "probability"] = "logprob"
    target: Literal["facts", "answer", "plan", "shuffled"] = "facts"
    answers: Literal["first", "max"] = "first"
    reduce: Literal["mean", "sum"] = "mean"
    frozen: Text | None = None
    batch_size: Count = 64
    name: Literal["igpo"] = "igpo"

    @property
    def knows(self) -> str:
        return {"shuffled": "nothing", "answer": "the true answer"}.get(self.target, "the hidden state")

    @property
    def apart(self) -> bool:
        return self.target != "shuffled"  # which takes facts of the batch's other games

    def lacks(self, card: Environment) -> str | None:
        if self.target == "plan":
            return None if card.offers("plan") else "a plan (target 'plan')"
        wanted = ("facts", "answer") if self.target == "shuffled" else (self.target,)
        return None if {*wanted} & {*card.answers} else f"the answer {wanted[0]!r} (target {self.target!r})"

    def __call__(
        self, trajectories: Sequence[Trajectory], policy: Policy | None = None, games: Mapping[str, Task] | None = None
    ) -> list[list[float]]:
        """Raises ValueError: no policy; a game that is not found; a frozen policy with another tokenizer; "shuffled" in
        a batch with a single game."""
        if policy is None:
            raise ValueError(f"policy=None: component {self.name!r} asks the policy how likely it finds the target")
        scorer = policy
        if self.frozen is not None and trajectories:
            scorer = load_frozen(self.frozen, trajectories, policy)
            if scorer.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
                other = f"its tokenizer is not that of the policy {policy.name!r}; it must be"
                raise ValueError(f"frozen={self.frozen!r}: {other}")
        several = targets(self.target, trajectories, scorer, games)
        encode, scored = functools.cache(scorer.encode), []
        for texts in several if self.answers == "max" else several[:1]:
            encoded = [[_encode(encode, pieces) for pieces in of_episode] for of_episode in texts]
            branches = [[ids for ids, _ in row] for row in encoded]
            found = branch_logprobs(scorer, trajectories, branches, drop_prefix=True, batch_size=self.batch_size)
            scored.append([
                [self._score(x[counts]) for x, (_, counts) in zip(of_episode, row, strict=True)]
                for of_episode, row in zip(found, encoded, strict=True)
            ])  # fmt: skip
        values = []
        for trajectory, row, *alternatives in zip(trajectories, encoded, *scored, strict=True):
            scores = [max((x for x in at if x is not None), default=None) for at in zip(*alternatives, strict=True)]
            self._record(trajectory, scores, [ids.count(scorer.tokenizer.unk_token_id) for ids, _ in row])
            gains = [self._gain(before, after) for before, after in zip(scores, scores[1:])]
            values.append([*gains, 0.0] if scores else [])
        return values

    def _score(self, logprobs: np.ndarray) -> float | None:
        """s_t, None where there is nothing to score."""
        return float(logprobs.mean() if self.reduce == "mean" else logprobs.sum()) if len(logprobs) else None

    def _gain(self, before: float | None, after: float | None) -> float:
        if before is None or after is None:
            return 0.0
        return after - before if self.version == "logprob" else math.exp(after) - math.exp(before)

    def _record(self, trajectory: Trajectory, scores: list[float | None], unknown: list[int]):
        for turn, before, after, count in zip(trajectory.turns, scores, [*scores[1:], None], unknown):
            noted = {"before": before, "after": after, "unknown": float(count) if count else None}
            turn.rewards |= {f"{self.name}/{what}": value for what, value in noted.items() if value is not None}

    @classmethod
    def signal_values(cls, trajectory: Trajectory, turn: int) -> dict[str, float]:
        """Its own value; none of the last action, where it is 0 by definition."""
        return super().signal_values(trajectory, turn) if turn + 1 < len(trajectory) else {}

    @classmethod
    def probes(cls, trajectories: Sequence[Trajectory]) -> dict[str, float | None]:
        """unearned: of all positive gain, the share on turns whose action was inadmissible: the environment said
        nothing, so the policy's own words made the answer likelier (leakage)."""
        turns = [turn for t in trajectories for turn in t.turns if cls.name in turn.rewards]
        gained = [(max(turn.rewards[cls.name], 0.0), turn.valid) for turn in turns]
        total = sum(value for value, _ in gained)
        return {"unearned": sum(value for value, valid in gained if not valid) / total if total else None}

    @classmethod
    def reading(cls, detail: str, value: float) -> dict[str, float]:
        return {"probability a token": math.exp(value)} if detail in ("before", "after") else {}


# -- what stands for the answer ---------------------------------------------------------------------------------------


def targets(
    target: str, trajectories: Sequence[Trajectory], policy: Policy, games: Mapping[str, Task] | None = None
) -> list[list[list[Pieces]]]:
    """For each context point of each episode the text to score, in pieces, [] where there is none; once for the first
    true answer, and again for each further one that some episode has (others repeat their last)."""
    played = {t.game_id: task_of(t, games) for t in {t.game_id: t for t in trajectories}.values()}
    if target == "plan":
        states = [replay(played[t.game_id], [turn.action for turn in t.turns[:-1]]) for t in trajectories]
        return [[[_commands(env.plan()) for env in walk][: len(t)] for t, walk in zip(trajectories, states)]]
    if not trajectories:
        return [[]]
    card = envs.of(trajectories[0])
    name = target if target in card.answers else next(n for n in ("facts", "answer") if n in card.answers)
    truths = {id_: next(replay(game, ())).answer(name) for id_, game in played.items()}
    if target == "shuffled":
        truths = _shuffled(truths, policy)
    truths = {id_: text.split("\n") if name == "answer" else [text] for id_, text in truths.items()}
    found = []
    for k in range(max(map(len, truths.values()))):
        chosen = {id_: texts[min(k, len(texts) - 1)] for id_, texts in truths.items()}
        fixed = {id_: [(card.bridge, False), (f" {text}", True)] if text else [] for id_, text in chosen.items()}
        found.append([[fixed[t.game_id]] * len(t) for t in trajectories])
    return found


def _commands(plan: list[str] | None) -> Pieces:
    """A plan as the policy writes actions, without the observations between them; the commands count."""
    return [piece for c in plan or () for piece in ((formats.PREFIX["act"], False), (f" {c}", True), ("\n", False))]


def _shuffled(facts: dict[str, str], policy: Policy) -> dict[str, str]:
    order, size = sorted(facts), {id_: len(policy.encode(text)) for id_, text in facts.items()}
    chosen = {}
    for i, id_ in enumerate(order):
        others = [other for other in order[i + 1 :] + order[:i] if facts[other] not in ("", facts[id_])]
        if not others:
            raise ValueError(f"target='shuffled': no other game's facts for {id_!r}; needs two games in a batch")
        chosen[id_] = facts[next((other for other in others if size[other] == size[id_]), others[0])]
    return chosen


def _encode(encode: Callable[[str], list[int]], pieces: Pieces) -> tuple[list[int], np.ndarray]:
    """Token ids, and which of them count."""
    parts = [(encode(words), counts) for words, counts in pieces]
    mask = np.array([counts for ids, counts in parts for _ in ids], dtype=bool)
    return [token for ids, _ in parts for token in ids], mask
