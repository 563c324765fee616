"""What a policy learns before reinforcement, where a recipe says `start`: RePro's warmup, StepAgent's two stages.

    start: {kind: warmup, games: 512}           # RePro: supervised, on its own won episodes, annotated by the oracle
    start: {kind: imitation, games: 768}        # StepAgent's first stage: supervised, on the expert's episodes
    start: {kind: preference, games: 256}       # StepAgent-Implicit: the expert's action over its own, by DPO

A list of them is gone through in order.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from sglib.envs.base import Environment
from sglib.models import processes
from sglib.models.policy import Policy
from sglib.play.rollout import shared
from sglib.rewards import repro, step_agent
from sglib.rewards.component import KNOWS
from sglib.rewards.fields import Count, Part, Positive, Rate, Warmth
from sglib.training.dpo import dpo
from sglib.training.sft import sft

GAMES_SEED = 3000  # of the games that are played for a start; those of the reinforcement have others


@dataclass(frozen=True)
class Stage(Part):
    """What is learned before reinforcement, by `sglib.training.sft.sft` or `sglib.training.dpo.dpo`."""

    games: Count = 512  # that are played
    learning_rate: Rate = 1e-4
    batch_size: Count = 16

    @property
    def knows(self) -> str:
        """What teaches it, one of `sglib.rewards.component.KNOWS`: an expert, or the oracle that annotates."""
        return "an expert's view" if getattr(self, "expert", "optimal") == "explore" else "the hidden state"

    def __call__(self, policy: Policy, *, card: Environment, seed: int, turns: int, size: Any) -> None:
        """Train the policy in place; same seed, same weights."""
        raise NotImplementedError

    def check_processes(self) -> None:
        """`ValueError` where the processes cannot train this together (`sglib.models.processes`)."""
        if processes.in_pieces():
            raise ValueError("start: with FSDP or DeepSpeed; allowed: processes that have the whole model each")
        processes.part("start: batch_size", self.batch_size)

    def how(self, seed: int) -> dict[str, Any]:
        """Arguments of the training."""
        return {"learning_rate": self.learning_rate, "batch_size": self.batch_size, "seed": seed}


@dataclass(frozen=True)
class Warmup(Stage):
    """RePro's warmup (arXiv 2606.14302): the policy plays, and its won episodes teach it to state progress while acting
    and to rate progress afterwards. The annotator is the oracle (ours; see `sglib.rewards.repro`).

    Won episodes of a colder policy teach it to be colder still: played at 0.4 and learned for eight epochs, they halve
    the entropy of its actions (seed 0: 0.44 to 0.24), and reinforcement ends lower from there.
    """

    learning_rate: Rate = 5e-4
    epochs: Count = 2  # few, since what comes after has to explore
    temperature: Warmth = 1.0  # at which the episodes are played
    answer: Literal["list", "steps"] = "steps"  # form of the retrospection, as the reward's
    kind: Literal["warmup"] = "warmup"

    def __call__(self, policy: Policy, *, card: Environment, seed: int, turns: int, size: Any) -> None:
        games = card.tasks(self.games, seed=GAMES_SEED + seed, size=size)
        played = shared()(policy, games, format="progress", turns=turns, temperature=self.temperature, seed=seed)
        sft(policy, repro.warmup_examples(policy, played, answer=self.answer), epochs=self.epochs, **self.how(seed))


@dataclass(frozen=True)
class Imitation(Stage):
    """StepAgent's first stage (arXiv 2411.03817): supervised training on the expert's episodes; what one learns from it
    without comparing oneself with it. `expert`: see `sglib.rewards.step_agent.inspect_steps`."""

    games: Count = 768
    epochs: Count = 1
    expert: Literal["optimal", "explore"] = "optimal"
    kind: Literal["imitation"] = "imitation"

    def __call__(self, policy: Policy, *, card: Environment, seed: int, turns: int, size: Any) -> None:
        games = card.tasks(self.games, seed=GAMES_SEED + seed, size=size)
        examples = step_agent.expert_examples(policy, games, expert=self.expert, max_turns=turns)
        sft(policy, examples, epochs=self.epochs, **self.how(seed))


@dataclass(frozen=True)
class Preference(Stage):
    """StepAgent-Implicit (arXiv 2411.03817): cycles of inspection and of preferring the expert's action by DPO, one
    pass over the pairs. The reference of a cycle is the policy that enters it. `states`, `expert`: see
    `sglib.rewards.step_agent.inspect_steps`."""

    games: Count = 256  # inspected in a cycle, other ones in each
    cycles: Count = 3
    states: step_agent.States = "expert"
    expert: Literal["optimal", "explore"] = "optimal"
    beta: Positive = 0.1
    kind: Literal["preference"] = "preference"

    def check_processes(self) -> None:
        super().check_processes()
        if processes.count() > 1:
            raise ValueError(f"start: kind {self.kind!r} with {processes.count()} processes; allowed: one")

    def __call__(self, policy: Policy, *, card: Environment, seed: int, turns: int, size: Any) -> None:
        games = card.tasks(self.games * self.cycles, seed=GAMES_SEED + seed, size=size)
        for cycle in range(self.cycles):
            chosen = games[cycle * self.games : (cycle + 1) * self.games]
            pairs, _ = step_agent.inspect_steps(
                policy, chosen, states=self.states, expert=self.expert, max_turns=turns, seed=seed
            )
            dpo(policy, pairs, beta=self.beta, **self.how(seed))


OneStage = Annotated[Warmup | Imitation | Preference, Field(discriminator="kind")]


@dataclass(frozen=True)
class Stages(Part):
    """Several starts: each goes on with what the one before it has taught."""

    stages: Annotated[tuple[OneStage, ...], Field(min_length=1)]
    kind: Literal["stages"] = "stages"

    @property
    def knows(self) -> str:
        return max((stage.knows for stage in self.stages), key=KNOWS.index)

    def check_processes(self) -> None:
        for stage in self.stages:
            stage.check_processes()

    def __call__(self, policy: Policy, *, card: Environment, seed: int, turns: int, size: Any) -> None:
        for stage in self.stages:
            stage(policy, card=card, seed=seed, turns=turns, size=size)


# one start, or a list of them
Start = Annotated[
    Warmup | Imitation | Preference | Stages,
    Field(discriminator="kind"),
    BeforeValidator(lambda spec: {"kind": "stages", "stages": spec} if isinstance(spec, list) else spec),
]
