"""Imperfect demonstrators on the fast engine: what the base model is pre-trained on.

They explore without looking behind closed doors, in the listed order most of the time, make random moves, try what is
impossible ("take" what is not there) and recover from it. Their guidance is right only most of the time. All of this
leaves room to learn, and shows the model how one gets out of a failed attempt.
(`FastAlfworld.expert("explore")` is the one without faults.)
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from sglib.envs.alfworld.fast import FastAlfworld
from sglib.envs.alfworld.games import PROCESSOR, Game
from sglib.envs.alfworld.world import PROCESSES
from sglib.envs.base import Demonstration, true_label
from sglib.records import LABELS

VERB = {"SinkBasin": "clean", "Microwave": "heat", "Fridge": "cool"}


@dataclass(frozen=True)
class Habits:
    """How an episode's demonstrator behaves; every value is a probability.

    Attributes:
        ordered: receptacles are searched in the order in which the room lists them, else at random; once an episode.
        noise: upper end of the uniform share of random admissible actions (the share is drawn once an episode).
        impossible: share of attempts at something inadmissible.
        wrong_label, wrong_subgoal: share of guidance labels, and of stated sub-goals, that are drawn at random.
    """

    ordered: float = 0.7
    noise: float = 0.3
    impossible: float = 0.12
    wrong_label: float = 0.3
    wrong_subgoal: float = 0.1


class Explorer:
    """A scripted agent that knows only what it has seen."""

    def __init__(self, env: FastAlfworld, game: Game, rng: random.Random, ordered: bool):
        self.env, self.world, self.rng = env, env.world, rng
        params = game.traj_data["pddl_params"]
        self.wanted, self.target = params["object_target"].lower(), params["parent_target"].lower()
        self.lamp = params["toggle_target"].lower()
        self.processor = PROCESSOR.get(game.task_type, (None, None))[1]
        self.known: dict[str, str] = {}  # thing -> receptacle where it was last seen
        self.visited: set[str] = set()
        self.placed: set[str] = set()
        self.treated: set[str] = set()
        self.home: str | None = None
        self.order = list(self.world.receptacles)
        if not ordered:
            rng.shuffle(self.order)

    def kind(self, id_: str) -> str:
        return self.world.names[id_].split()[0]

    def see(self):
        """Take in what can be seen from here."""
        for r in self.world.at.get(self.env.location, ()):
            if self.env._accessible(r):
                self.visited.add(r)
                self.known = {o: where for o, where in self.known.items() if where != r}
                self.known.update(dict.fromkeys(self.env.inside[r], r))

    def reach(self, receptacle: str, goal: str, act: tuple[str, ...], inside: bool = True):
        """The next command towards doing `act` at a receptacle: go there, open it, do it."""
        env, name = self.env, self.world.names[receptacle]
        if self.world.place[receptacle] != env.location:
            return f"go to {name}", goal
        if inside and not env._accessible(receptacle):
            return f"open {name}", goal
        return self.world.command(*act), goal

    def find(self, kind: str):
        """Look for a kind of thing in the next receptacle not yet looked into."""
        for r in self.order:
            if r not in self.visited:
                return self.reach(r, f"find {kind}", ("openobject", r), inside=False)
        return self.rng.choice(self.env.admissible()), f"find {kind}"

    def act(self) -> tuple[str, str]:
        """(command, sub-goal) from what has been seen so far."""
        env, names = self.env, self.world.names
        self.see()
        held = env.held
        if held is not None and self.kind(held) != self.wanted:
            for r in sorted(self.world.receptacles, key=lambda r: self.world.place[r] != env.location):
                if held in self.world.accepts[r]:
                    return self.reach(r, f"put {names[held]}", ("putobject", held, r))
        if held is None:
            for o, r in self.known.items():
                if self.kind(o) == self.wanted and o not in self.placed:
                    return self.reach(r, f"take {names[o]}", ("pickupobject", o, r))
            return self.find(self.wanted)
        if self.processor is not None and held not in self.treated:
            r = next(r for r in self.order if self.kind(r) == self.processor.lower())
            verb = VERB[self.processor]
            return self.reach(r, f"{verb} {names[held]}", (f"{verb}object", held, r), inside=False)
        if self.lamp:
            for o, r in self.known.items():
                if self.kind(o) == self.lamp:
                    return self.reach(r, f"use {names[o]}", ("toggleobject", o), inside=False)
            return self.find(self.lamp)
        self.home = self.home or next(r for r in self.order if self.kind(r) == self.target)
        return self.reach(self.home, f"put {names[held]} in {names[self.home]}", ("putobject", held, self.home))

    def note(self, action: str):
        """Remember what an action did."""
        if self.processor:
            self.treated |= {o for prop, o in self.env.props if prop in PROCESSES}
        if action.startswith("move ") and self.home is not None:
            self.placed |= {o for o in self.env.inside[self.home] if self.kind(o) == self.wanted}

    def impossible(self) -> str:
        """Something that looks sensible and does not work here: taking what is elsewhere, or opening what is far."""
        here = self.world.at.get(self.env.location) or [self.rng.choice(self.order)]
        r = self.world.names[self.rng.choice(here)]
        if self.rng.random() < 0.7:
            return f"take {self.wanted} {self.rng.randrange(1, 4)} from {r}"
        return f"open {self.world.names[self.rng.choice(self.order)]}"


def demonstrate(
    env: FastAlfworld, game: Game, rng: random.Random, habits: Habits, max_turns: int
) -> tuple[list[Demonstration], bool]:
    """Play one game; returns the steps and whether it was won."""
    observation = env.reset(game)
    explorer = Explorer(env, game, rng, ordered=rng.random() < habits.ordered)
    noise = rng.random() * habits.noise
    first = distance = env.distance()
    label, steps = "neutral", []
    while not observation.done and len(steps) < max_turns:
        (action, goal), imitate = explorer.act(), True
        if rng.random() < habits.impossible:
            action = explorer.impossible()
            imitate = action in observation.admissible
        elif rng.random() < noise:
            action = rng.choice([a for a in observation.admissible if a not in ("help", "inventory", "look")])
        stated = rng.choice(LABELS) if rng.random() < habits.wrong_label and steps else label
        if rng.random() < habits.wrong_subgoal:
            goal = f"find {explorer.kind(rng.choice(explorer.order))}"
        progress = 10 * round(10 * max(0.0, 1 - distance / max(first, 1)))
        steps.append(Demonstration(observation.text, action, goal, stated, progress, imitate))
        valid = action in observation.admissible
        observation = env.step(action)
        if valid:
            explorer.note(action)
        after = env.distance()
        label, distance = true_label(distance, after, valid), after
    return steps, observation.won
