"""An environment of ours in TRL's trainer, `GRPOTrainer(environment_factory=...)`: a model acts by tool calls.

    dataset = trl_tools.prompts("sokoban", n=64)
    trainer = GRPOTrainer(..., train_dataset=dataset, environment_factory=environment_factory("sokoban", n=64))

TRL pays one number an episode. `TurnGRPOTrainer` is the same trainer with an advantage for each turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from datasets import Dataset
from trl import GRPOTrainer

from sglib import envs
from sglib.advantages.formulas import to_tokens
from sglib.envs.base import Environment, Task
from sglib.formats import Parsed
from sglib.play.episode import Episode, Options, Plan
from sglib.records import Trajectory


class Game:
    """One running episode as TRL wants it: `reset`, the tool `act`, and `get_reward`."""

    def __init__(self, card: Environment, tasks: Sequence[Task], turns: int):
        self._plan = Plan(
            card, tasks, format="act", turns=turns, temperature=1.0, seed=0, group=1, options=Options(), compact=False,
            answer_tokens=0,
        )  # fmt: skip
        self._episode: Episode | None = None

    @property
    def trajectory(self) -> Trajectory:
        """The episode so far, with the true distance where the environment has it."""
        return self._episode.trajectory

    def reset(self, task: int = 0, **_) -> str:
        self._episode = Episode(self._plan, task)
        return self._episode.shown()

    def act(self, command: str) -> str:
        """Do one thing in the game and read what happens.

        Args:
            command: The command, in the words that the game understands.
        """
        episode = self._episode
        if episode.observation.done:
            return "The game is over."
        episode.take(command, Parsed(command))
        return episode.shown()

    def get_reward(self) -> float:
        return self.trajectory.score


def _tasks(name: str, n: int, seed: int, split: str, size) -> list[Task]:
    if n < 1:
        raise ValueError(f"n={n!r}: must be at least 1")
    card = envs.get(name)
    return card.tasks(n, seed=seed, split=card.check_split(split), size=size)


def prompts(name: str, n: int, *, size=None, split: str = "train", seed: int = 0) -> Dataset:
    """`n` tasks as rows for `train_dataset`: `prompt`, the rules as one user message, to which `reset` adds the first
    observation, and `task`, its number. Make the factory with the same arguments."""
    rules = f"{envs.get(name).rules} Use the tool `act` once in each answer, with one command.\n\n"
    tasks = _tasks(name, n, seed, split, size)
    return Dataset.from_dict({"prompt": [[{"role": "user", "content": rules}]] * len(tasks), "task": list(range(n))})


def environment_factory(
    name: str, n: int, *, turns: int | None = None, size=None, split: str = "train", seed: int = 0
) -> Callable[[], Game]:
    """What `GRPOTrainer(environment_factory=...)` takes: each call makes one `Game` over the `n` tasks of `prompts`.

    Args:
        name: one of `sglib.envs.names()`, or the path of a .py file with an environment of yours.
        turns: an episode ends after that many actions; None takes the environment's own number. TRL ends it, too,
            after `max_tool_calling_iterations`.
    """
    card, tasks = envs.get(name), _tasks(name, n, seed, split, size)
    return lambda: Game(card, tasks, turns or card.turns)


class TurnGRPOTrainer(GRPOTrainer):
    """TRL's `GRPOTrainer` with `environment_factory`, and an advantage for each turn in place of one for the episode.

    Args:
        advantages: from the batch's episodes (`Trajectory.group` says which were played on the same task) one list for
            each, with a number for each of its turns. Tokens that follow the last action have that action's; an episode
            in which nothing was done keeps TRL's own.
    """

    def __init__(self, *args, advantages: Callable[[Sequence[Trajectory]], Sequence[Sequence[float]]], **kwargs):
        super().__init__(*args, **kwargs)
        self._advantages_of = advantages

    def _generate_and_score_completions(self, inputs):
        batch = super()._generate_and_score_completions(inputs)
        episodes = [game.trajectory for game in self.environments]
        for number, episode in enumerate(episodes):
            episode.group = number // self.num_generations
        acted = [number for number, episode in enumerate(episodes) if len(episode)]
        values = self._advantages_of([episodes[number] for number in acted])
        whole = batch["advantages"]
        batch["advantages"] = whole[:, None].repeat(1, batch["completion_ids"].shape[1])
        masks = (batch["completion_mask"] * batch["tool_mask"]).tolist()
        for number, turns in zip(acted, values):
            spans = runs(masks[number])
            padded = [*turns, *[turns[-1]] * len(spans)][: len(spans)]
            row = to_tokens(padded, spans, masks[number])
            batch["advantages"][number] = torch.as_tensor(row, dtype=whole.dtype, device=whole.device)
        return batch


def runs(mask: Sequence[int]) -> list[tuple[int, int]]:
    """[start, end) of each unbroken stretch of ones: of a completion's mask, the model's answers."""
    edges = [i for i, (a, b) in enumerate(zip([0, *mask], [*mask, 0])) if a != b]
    return list(zip(edges[::2], edges[1::2]))
