"""ScienceWorld as text: actions in words, observations in sentences, a score for every sub-goal.

Texts, scores and ends are the simulator's own, and so is its first move, `look around`. Different from the package's
`ScienceWorldEnv`: the first observation begins with the task's description; the list of all valid actions, which takes
most of the time there, is never made; the forms of actions and the objects at hand are listed in its place; `reset
task`, which would set back what must be done in order, is not understood; rewards are in hundredths of points.

An action of which several readings are possible is answered by a numbered list, which the next action chooses from. As
the simulator does it, any other action then drops the question, and time passes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from sglib.envs.scienceworld.simulator import FAILED, Gold, Reply, World, again, gold, room_of
from sglib.envs.scienceworld.variations import Variation
from sglib.records import Observation

EXPERTS = ("gold",)
LONGEST = 300  # characters of an action; the longest of a solution has 85
UNKNOWN = ("No known action matches", "Unknown action.")
ASKS = "Ambiguous request"
FREE = ("look around", "inventory", "task", "help", "objects")  # take no time
T = TypeVar("T")
_CHOICE = re.compile(r"^(\d+):\t", re.M)


class Snapshot(NamedTuple):
    """A state: the task, the actions that lead there, and what was observed."""

    task: Variation
    actions: tuple[str, ...]
    replies: tuple[str, ...]
    points: int
    observation: Observation


def plain(action: str) -> str:
    """An action as the simulator gets it: "" for what it shall not understand, "?" for what is no character."""
    if not isinstance(action, str) or len(action) > LONGEST or "reset" in action.lower():
        return ""
    return action.strip().encode(errors="replace").decode()


class ScienceWorldEnv:
    """The `TextEnv` of ScienceWorld. Java starts at the first `reset`, which raises `RuntimeError` where it cannot;
    where it dies later, it is started again and the episode's actions repeated.

    Args:
        max_steps: after that many actions an episode is done even if it is not won; None for no limit.
        admissible: whether observations list the forms of actions and the objects at hand ("OBJ = air", ...), or the
            numbers to choose from.

    `Observation.score` is the simulator's, 0..1, and 1 where the task is won; a wrong focus ends the episode with 0 and
    a reward of -1 or less. `valid` says whether the simulator understood the action; what it understood may still fail.
    """

    def __init__(self, max_steps: int | None = None, admissible: bool = True):
        if max_steps is not None and (type(max_steps) is not int or max_steps < 1):
            raise ValueError(f"max_steps={max_steps!r}: must be a positive number or None")
        self.max_steps, self.with_admissible = max_steps, admissible
        self.world: World | None = None
        self.done = True

    def reset(self, task: Variation) -> Observation:
        self.done, self.task, self.actions, self.replies, self.points = True, task, [], [], 0
        reply = again(self._begin)
        self.points = reply.points
        return self._observe(f"{self.description}\n\n{reply.text}", 0.0, True, reply.over)

    def _begin(self) -> Reply:
        if self.world is None or not self.world.alive:
            self.world = World()
        self.description = self.world.load(self.task)
        return self.world.step("look around")

    def _replay(self, actions: Iterable[str]) -> None:
        """Bring the world to where these actions lead from the start."""
        self._begin()
        for action in actions:
            self.world.step(action)

    def _ask(self, question: Callable[[World], T]) -> T:
        """What the world answers; where Java has died, in a new world after the same actions."""

        def asked() -> T:
            if not self.world.alive:
                self._replay(self.actions)
            return question(self.world)

        return again(asked)

    def step(self, action: str) -> Observation:
        """Take one action, in any case."""
        if self.done:
            raise RuntimeError("the episode is over: call reset(task) before step")
        action = plain(action)
        reply = self._ask(lambda world: world.step(action))
        self.actions.append(action)
        self.replies.append(reply.text)
        before, self.points = self.points, reply.points
        valid = not reply.text.startswith((*UNKNOWN, FAILED))
        return self._observe(reply.text, (reply.points - before) / 100, valid, reply.over)

    def _observe(self, text: str, reward: float, valid: bool, over: bool) -> Observation:
        steps, points, won = len(self.actions), self.points, self.points == 100
        self.done = over or won or points < 0 or (self.max_steps is not None and steps >= self.max_steps)
        listed = self.admissible(text) if self.with_admissible and not self.done else ()
        goal = self.description.removeprefix("Your task is to ")
        self.observation = Observation(
            text, goal, listed, reward, won, self.done, steps, {"points": points}, max(0, points) / 100, valid
        )
        return self.observation

    def admissible(self, text: str) -> tuple[str, ...]:
        """What can be done after this observation."""
        if text.startswith(ASKS):
            return tuple(_CHOICE.findall(text))
        forms = sorted(form for form in self._ask(World.commands) if form != "reset task")
        return (*forms, *(f"OBJ = {name}" for name in self.objects()))

    def objects(self) -> list[str]:
        """The names of what an action can be about now, sorted."""
        return sorted(self._ask(World.objects))

    # -- what is known of the state ------------------------------------------------------------------------------

    def progress(self) -> float:
        """The score, 0..1: the simulator's weighted share of sub-goals that were reached; 0 after a wrong focus."""
        return max(0, self.points) / 100

    def subgoal(self) -> str:
        """The first of the task's sub-goals, in order, that is not reached; "" where all are."""
        return self._ask(World.subgoal)

    def _gold(self) -> tuple[tuple[Gold, ...], int, bool]:
        """The solution, how many of its steps were taken, in order, and whether all else that was done changed nothing.
        A step counts as taken where the answer to it begins as in the solution: another one says that it failed."""
        steps, taken, pure = gold(self.task), 0, True
        for action, reply in zip(self.actions, self.replies):
            if taken < len(steps) and action == steps[taken].action and _alike(reply, steps[taken].reply):
                taken += 1
            else:
                pure &= action in FREE or reply.startswith(UNKNOWN[0])
        return steps, taken, pure

    def plan(self) -> list[str] | None:
        """What is left of the simulator's solution, if nothing was done but that solution and what changes nothing;
        None otherwise: whether another way leads from there is not known. It wins, but need not be the shortest."""
        if self.done:
            return [] if self.points == 100 else None
        steps, taken, pure = self._gold()
        return [step.action for step in steps[taken:]] if pure else None

    def expert(self, kind: str) -> str:
        """ "gold": the next action of the simulator's solution, which was made for its start. After anything else was
        done it is a guess: the next action of that solution that was not taken yet, where need be after a teleport to
        its room (if the simplifications allow one), "look around" where none is left."""
        if kind not in EXPERTS:
            raise ValueError(f"kind={kind!r}: allowed: {', '.join(map(repr, EXPERTS))}")
        steps, taken, pure = self._gold()
        if taken == len(steps):
            return "look around"
        allowed = self.task.simplifications == "easy" or "teleportAction" in self.task.simplifications
        if not pure and allowed:
            here = room_of(self._ask(World.look))
            if here != steps[taken].room:
                return f"teleport to {steps[taken].room}"
        return steps[taken].action

    def snapshot(self) -> Snapshot:
        return Snapshot(self.task, tuple(self.actions), tuple(self.replies), self.points, self.observation)

    def restore(self, snapshot: Snapshot) -> Observation:
        """Go back by repeating the actions from the start: the cost of a reset and of as many steps."""
        self.task, actions, replies, self.points, self.observation = snapshot
        self.actions, self.replies, self.done = list(actions), list(replies), self.observation.done
        again(lambda: self._replay(actions))
        return self.observation


def _alike(reply: str, other: str) -> bool:
    return reply.split()[:2] == other.split()[:2]
