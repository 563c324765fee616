"""Sokoban as an environment of this library."""

from __future__ import annotations

from collections.abc import Sequence

from sglib.envs import base
from sglib.envs.base import Board, Environment, mean_of
from sglib.envs.sokoban import demonstrators, levels
from sglib.envs.sokoban.engine import EXPERTS, SENTENCES, SokobanEnv
from sglib.envs.sokoban.graph import COMMANDS, SYMBOLS, TooLarge, distance, read
from sglib.records import Trajectory

PRETRAINING = base.PRETRAINING | {
    "steps": 1500, "stop": 290, "transcripts_per_step": 8, "max_turns": 15, "size": None,
    "observation_weight": 0.3,
    "habits": {"skill": 0.95, "noise": 0.3, "impossible": 0.04, "wrong_label": 0.3, "wrong_subgoal": 0.1},
}  # fmt: skip
# Demonstrators that make most moves at random among the harmless ones: a model of them has to read the shortest plan
# from the board, but follows it carelessly, so that reinforcement has something to sharpen.
CARELESS = PRETRAINING | {
    "steps": 800, "stop": 800, "size": "6x6-1",
    "habits": {"skill": 0.4, "noise": 0.4, "impossible": 0.04, "wrong_label": 0.3, "wrong_subgoal": 0.1},
}  # fmt: skip


def boards(trajectory: Trajectory) -> list[str] | None:
    """T + 1 boards, before each action and after the last one, as observations draw them; None where one does not."""
    texts = [*(turn.observation for turn in trajectory.turns), trajectory.final_observation]
    drawn = [text.partition("\n")[2] for text in texts]
    return drawn if all(board and set(board) <= {*SYMBOLS, " ", "\n"} for board in drawn) else None


def deadlock(trajectory: Trajectory) -> bool:
    """Whether the episode ended where the goal could not be reached any more (it was reached in one, then, as no move
    leads out); no where the map is too large to know."""
    drawn = boards(trajectory)
    if trajectory.won or trajectory.final_distance is not None or drawn is None:
        return False
    try:
        return distance(*read(drawn[-1].replace(" ", ""))) is None
    except TooLarge:
        return False


def into_wall(trajectory: Trajectory) -> float:
    """Share of turns in which nothing happened: into a wall, into a box that cannot move, or no command."""
    return sum(not turn.valid for turn in trajectory.turns) / max(len(trajectory), 1)


def back_and_forth(trajectory: Trajectory) -> float:
    """Share of turns that undo the one before: the board is what it was two turns ago, and was another between."""
    drawn = boards(trajectory) or []
    undone = sum(a == c != b for a, b, c in zip(drawn, drawn[1:], drawn[2:]))
    return undone / max(len(trajectory), 1)


class Sokoban(Environment):
    """The card; see `Environment`."""

    name = "sokoban"
    splits = levels.SPLITS
    turns = 15
    answer_tokens = 2  # the command, the end
    rules = (
        "You play Sokoban. The board has one symbol a cell: # wall, _ floor, O target, X box, √ box on a target, P "
        "you, S you on a target. A command moves you one cell; moving into a box pushes it one cell further, unless a "
        "wall or another box is there. Boxes cannot be pulled. Commands: up | down | left | right."
    )
    failures = {m.__name__: mean_of(m) for m in (deadlock, into_wall, back_and_forth)}
    experts = EXPERTS
    pretraining = PRETRAINING
    further_pretraining = {"careless": CARELESS}

    def tasks(self, n: int, *, seed: int = 0, split: str = "train", size=None, start: int = 0) -> list[levels.Level]:
        """See `levels.tasks`."""
        return levels.tasks(n, seed=seed, split=split, size=size, start=start)

    def make(
        self, *, max_steps: int | None = None, admissible: bool = True, end_on_deadlock: bool = False
    ) -> SokobanEnv:
        """See `SokobanEnv`."""
        return SokobanEnv(max_steps, admissible, end_on_deadlock)

    def remake(self, id: str, origin: dict) -> levels.Level:
        return levels.Level(**origin)

    def board(self, trajectory: Trajectory, turn: int) -> Board | None:
        drawn = boards(trajectory)
        return drawn and Board(text=drawn[turn])

    def vocabulary(self) -> tuple[Sequence[str], Sequence[str]]:
        """A cell is a token, but for the walls at both ends of a line break, which are one with it: a board of R rows
        and C columns is R (C - 1) + 1 tokens (6x6: 31), and the cell below is always C - 1 tokens further on."""
        words = " ".join((*SYMBOLS, *COMMANDS, *demonstrators.SUBGOALS)).split()
        return (*SENTENCES, "#\n#"), tuple(dict.fromkeys(words))

    def demonstrate(self, env, task, rng, habits, max_turns):
        """See `demonstrators.demonstrate`."""
        return demonstrators.demonstrate(env, task, rng, demonstrators.Habits(**habits), max_turns)


ENVIRONMENT = Sokoban()
