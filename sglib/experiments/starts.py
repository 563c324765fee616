"""What a policy learns before reinforcement, where a recipe says `start`: RePro's warmup, StepAgent's two stages.

    start: {kind: warmup, games: 512}           # RePro: supervised, on its own won episodes, annotated by the oracle
    start: {kind: imitation, games: 768}        # StepAgent's first stage: supervised, on the expert's episodes
    start: {kind: preference, games: 256}       # StepAgent-Implicit: the expert's action over its own, by DPO

A list of them is gone through in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from sglib.envs.base import Environment
from sglib.models.policy import Policy
from sglib.play.rollout import rollout
from sglib.rewards import repro, step_agent
from sglib.training.dpo import dpo
from sglib.training.sft import sft

GAMES_SEED = 3000  # of the games that are played for a start; those of the reinforcement have others


class Start(Protocol):
    kind: str

    def __call__(self, policy: Policy, *, card: Environment, seed: int, turns: int, size: Any) -> None:
        """Train the policy in place; same seed, same weights."""
        ...


@dataclass(frozen=True)
class Warmup:
    """RePro's warmup (arXiv 2606.14302): the policy plays, and its won episodes teach it to state progress while acting
    and to rate progress afterwards. The annotator is the oracle (ours; see `sglib.rewards.repro`).

    Attributes:
        games: episodes to choose the won ones from.
        epochs, learning_rate, batch_size: of `sglib.training.sft.sft`. Few: what comes after has to explore.
        temperature: at which the episodes are played. Won episodes of a colder policy teach it to be colder still:
            played at 0.4 and learned for eight epochs, they halve the entropy of its actions (seed 0: 0.44 to 0.24),
            and reinforcement ends lower from there.
        answer: form of the retrospection, as the reward's.
    """

    games: int = 512
    epochs: int = 2
    learning_rate: float = 5e-4
    batch_size: int = 16
    temperature: float = 1.0
    answer: Literal["list", "steps"] = "steps"
    kind = "warmup"

    def __post_init__(self):
        _check(self)

    def __call__(self, policy: Policy, *, card: Environment, seed: int, turns: int, size: Any) -> None:
        games = card.tasks(self.games, seed=GAMES_SEED + seed, size=size)
        played = rollout(policy, games, format="progress", turns=turns, temperature=self.temperature, seed=seed)
        examples = repro.warmup_examples(policy, played, answer=self.answer)
        sft(
            policy, examples, epochs=self.epochs, learning_rate=self.learning_rate, batch_size=self.batch_size,
            seed=seed,
        )  # fmt: skip


@dataclass(frozen=True)
class Imitation:
    """StepAgent's first stage (arXiv 2411.03817): supervised training on the expert's episodes; what one learns from it
    without comparing oneself with it.

    Attributes:
        games: that the expert plays.
        epochs, learning_rate, batch_size: of `sglib.training.sft.sft`.
        expert: see `sglib.rewards.step_agent.inspect_steps`.
    """

    games: int = 768
    epochs: int = 1
    learning_rate: float = 1e-4
    batch_size: int = 16
    expert: Literal["optimal", "explore"] = "optimal"
    kind = "imitation"

    def __post_init__(self):
        _check(self)

    def __call__(self, policy: Policy, *, card: Environment, seed: int, turns: int, size: Any) -> None:
        games = card.tasks(self.games, seed=GAMES_SEED + seed, size=size)
        examples = step_agent.expert_examples(policy, games, expert=self.expert, max_turns=turns)
        sft(
            policy, examples, epochs=self.epochs, learning_rate=self.learning_rate, batch_size=self.batch_size,
            seed=seed,
        )  # fmt: skip


@dataclass(frozen=True)
class Preference:
    """StepAgent-Implicit (arXiv 2411.03817): cycles of inspection and of preferring the expert's action by DPO. The
    reference of a cycle is the policy that enters it.

    Attributes:
        games: inspected in a cycle, other ones in each.
        cycles: inspection and reflection, that often.
        prefix, expert: see `sglib.rewards.step_agent.inspect_steps`.
        beta, learning_rate, batch_size: of `sglib.training.dpo.dpo`, one pass over a cycle's pairs.
    """

    games: int = 256
    cycles: int = 3
    prefix: Literal["expert", "own"] = "expert"
    expert: Literal["optimal", "explore"] = "optimal"
    beta: float = 0.1
    learning_rate: float = 1e-4
    batch_size: int = 16
    kind = "preference"

    def __post_init__(self):
        _check(self)

    def __call__(self, policy: Policy, *, card: Environment, seed: int, turns: int, size: Any) -> None:
        games = card.tasks(self.games * self.cycles, seed=GAMES_SEED + seed, size=size)
        for cycle in range(self.cycles):
            chosen = games[cycle * self.games : (cycle + 1) * self.games]
            pairs, _ = step_agent.inspect_steps(
                policy, chosen, prefix=self.prefix, expert=self.expert, max_turns=turns, seed=seed
            )
            dpo(
                policy, pairs, beta=self.beta, learning_rate=self.learning_rate, batch_size=self.batch_size, seed=seed
            )


@dataclass(frozen=True)
class Stages:
    """Several starts, one after the other.

    Attributes:
        stages: at least two; each goes on with what the one before it has taught.
    """

    stages: tuple[Start, ...]
    kind = "stages"

    def __call__(self, policy: Policy, *, card: Environment, seed: int, turns: int, size: Any) -> None:
        for stage in self.stages:
            stage(policy, card=card, seed=seed, turns=turns, size=size)


def _check(start) -> None:
    for name in ("games", "epochs", "cycles", "batch_size"):
        value = getattr(start, name, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: got {value!r}; allowed: a whole number of at least 1")
    for name in ("learning_rate", "beta", "temperature"):
        if not getattr(start, name, 1.0) > 0:
            raise ValueError(f"{name}: got {getattr(start, name)!r}; allowed: more than 0")


STARTS: dict[str, type] = {cls.kind: cls for cls in (Warmup, Imitation, Preference)}
