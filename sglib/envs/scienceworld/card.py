"""ScienceWorld as an environment of this library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sglib.envs import base
from sglib.envs.base import Board, Environment, mean_of
from sglib.envs.scienceworld import demonstrators, engine, variations
from sglib.envs.scienceworld.engine import ScienceWorldEnv
from sglib.envs.scienceworld.simulator import room_of
from sglib.envs.scienceworld.variations import Variation
from sglib.records import Trajectory

PRETRAINING = base.PRETRAINING | {
    "steps": 2400, "stop": 1400, "transcripts_per_step": 8, "drawn": 192, "max_turns": 30, "size": None,
    "adamw_lr": 3e-3, "warmup_steps": 50, "observation_weight": 0.05,
    "habits": {"noise": 0.1, "again": 0.03, "unknown": 0.02, "wrong_label": 0.3},
}  # fmt: skip


def wrong_focus(trajectory: Trajectory) -> bool:
    """Whether the episode ended on the simulator's -100 points, which it gives for a focus on a wrong thing."""
    return bool(trajectory.turns) and trajectory.turns[-1].reward <= -1


def not_understood(trajectory: Trajectory) -> float:
    """Share of turns whose action the simulator did not understand."""
    return sum(not turn.valid for turn in trajectory.turns) / max(len(trajectory), 1)


def asked_back(trajectory: Trajectory) -> float:
    """Share of turns whose action had several readings, so that the simulator asked which."""
    answers = [*(turn.observation for turn in trajectory.turns[1:]), trajectory.final_observation]
    return sum(text.startswith(engine.ASKS) for text in answers) / max(len(trajectory), 1)


class ScienceWorld(Environment):
    """The card; see `Environment`. `size`: see `variations.tasks`. The splits are the simulator's own. It needs the
    extra `sglib[scienceworld]` and Java, both only when something is played."""

    name = "scienceworld"
    splits = variations.SPLITS
    size = variations.SIZE
    turns = 30
    answer_tokens = 16
    turn_tokens = 80
    rules = (
        "You do a science task in a building with several rooms and an outside. OBJ is a thing that you can see. Focus "
        "only on what the task asks you to focus on: a wrong focus ends the episode, lost. Where an action can mean "
        "several things you are given a numbered list: answer with a number alone. Commands: look around | inventory | "
        "task | look at OBJ | look in OBJ | open OBJ | close OBJ | activate OBJ | deactivate OBJ | go OBJ | teleport "
        "to OBJ | pick up OBJ | put down OBJ | move OBJ to OBJ | pour OBJ into OBJ | dunk OBJ into OBJ | mix OBJ | "
        "connect OBJ to OBJ | disconnect OBJ | use OBJ on OBJ | read OBJ | eat OBJ | flush OBJ | focus on OBJ | wait | "
        "wait1."
    )
    failures = {m.__name__: mean_of(m) for m in (wrong_focus, not_understood, asked_back)}
    experts = engine.EXPERTS
    pretraining = PRETRAINING

    def tasks(
        self, n: int, *, seed: int = 0, split: str = "train", size: Any = None, start: int = 0
    ) -> list[Variation]:
        """See `variations.tasks`."""
        return variations.tasks(n, seed=seed, split=self.check_split(split), size=size, start=start)

    def panel(self, n: int, split: str, size: Any = None) -> list[Variation]:
        """As for every environment, and no longer than there are different tasks in the split."""
        return super().panel(min(n, variations.available(self.check_split(split), size)), split, size)

    def make(self, *, max_steps: int | None = None, admissible: bool = True) -> ScienceWorldEnv:
        """See `ScienceWorldEnv`."""
        return ScienceWorldEnv(max_steps, admissible)

    def remake(self, id: str, origin: dict) -> Variation:
        return Variation(**origin)

    def board(self, trajectory: Trajectory, turn: int) -> Board | None:
        """The room as it was last looked at, and what was carried when that was last asked."""
        texts = [*(t.observation for t in trajectory.turns), trajectory.final_observation][: turn + 1]
        room = next((text[text.index("This ") :] for text in reversed(texts) if room_of(text)), "")
        carried = next((text for text in reversed(texts) if text.startswith("In your inventory")), "")
        return Board(caption=trajectory.goal, text="\n\n".join(filter(None, (room, carried))))

    def vocabulary(self) -> tuple[Sequence[str], Sequence[str]]:
        """The words of what the simulator says, in `words.txt`."""
        return (), tuple((self.folder / "words.txt").read_text(encoding="utf-8").split())

    def demonstrate(self, env, task, rng, habits, max_turns):
        """See `demonstrators.demonstrate`."""
        return demonstrators.demonstrate(env, task, rng, demonstrators.Habits(**habits), max_turns)


ENVIRONMENT = ScienceWorld()
