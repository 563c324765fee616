"""Imperfect demonstrators on the fast engine: what the base model is pre-trained on.

They state a sub-goal with its place ("find plate in drawer 3") and a label of the last step, and then do what they
stated: the sub-goal is pursued until it is done or shown to be wrong, a negative label makes them try elsewhere. So a
model that learns from them is steered by what it writes, as the papers' models are. The sub-goal also says what must be
remembered: where a thing was seen, what comes after.

They explore without looking behind closed doors, in the listed order most of the time, make random moves, pursue wrong
sub-goals, try what is impossible ("take" what is not there), perhaps several times over, and recover from it. Their
labels are right only most of the time. All of this leaves room to learn, and shows how one gets out of a loop.
(`FastAlfworld.expert("explore")` is the one without faults.)
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass

from sglib.envs.alfworld.fast import FastAlfworld
from sglib.envs.alfworld.games import PROCESSOR, Game
from sglib.envs.alfworld.generate import CAPACITY
from sglib.envs.alfworld.world import PROCESSES
from sglib.envs.base import Demonstration, true_label
from sglib.records import LABELS

ROOM_FOR = {kind.lower(): weight for kind, weight in CAPACITY.items()}
VERB = {"SinkBasin": "clean", "Microwave": "heat", "Fridge": "cool"}


@dataclass(frozen=True)
class Habits:
    """How an episode's demonstrator behaves; every value is a probability.

    Attributes:
        ordered: receptacles are searched in the order in which the room lists them, else at random; once an episode.
        noise: upper end of the uniform share of random admissible actions (the share is drawn once an episode).
        impossible: share of attempts at something inadmissible.
        again: that such an attempt is made once more, each time.
        wrong_label: share of labels that are drawn at random; what they say is followed nevertheless.
        wrong_subgoal: share of new sub-goals that name a random place.
        likely: receptacles are searched where most things lie first: large surfaces (`ROOM_FOR`), open ones before
            closed ones of their size; once an episode, in place of `ordered`.
        noise_taught: that random actions are learned, too (drawn once an episode); else they only lead elsewhere.
    """

    ordered: float = 0.7
    noise: float = 0.3
    impossible: float = 0.1
    again: float = 0.3
    wrong_label: float = 0.3
    wrong_subgoal: float = 0.1
    likely: float = 0.0
    noise_taught: float = 1.0


@dataclass(frozen=True)
class Plan:
    """A sub-goal: `act`, the engine's action with its arguments, at a receptacle; `text` states it."""

    text: str
    receptacle: str
    act: tuple[str, ...]
    inside: bool = True  # whether the receptacle has to be open


class Explorer:
    """A scripted agent that knows only what it has seen."""

    def __init__(self, env: FastAlfworld, game: Game, rng: random.Random, ordered: bool, likely: bool = False):
        self.env, self.world, self.rng = env, env.world, rng
        params = game.traj_data["pddl_params"]
        self.wanted, self.target = params["object_target"].lower(), params["parent_target"].lower()
        self.lamp = params["toggle_target"].lower()
        self.processor = PROCESSOR.get(game.task_type, (None, None))[1]
        self.both = game.task_type == "pick_two_obj_and_place"
        self.known: dict[str, str] = {}  # thing -> receptacle where it was last seen
        self.visited: set[str] = set()
        self.placed: set[str] = set()
        self.treated: set[str] = set()
        self.home: str | None = None
        self.plan: Plan | None = None
        self.order = list(self.world.receptacles)
        if not ordered:
            rng.shuffle(self.order)
        if likely:
            shut = self.world.openable
            self.order.sort(key=lambda r: (r in shut) / 2 - ROOM_FOR.get(self.kind(r), 1.0))

    def kind(self, id_: str) -> str:
        return self.world.names[id_].split()[0]

    def places(self, kind: str) -> list[str]:
        """Receptacles of this kind by their names, else by their class: a bathtub's basin may be a sink's."""
        return [r for r in self.order if self.kind(r) == kind] or [r for r in self.order if r.endswith(kind)]

    def see(self):
        """Take in what can be seen from here."""
        for r in self.world.at.get(self.env.location, ()):
            if self.env._accessible(r):
                self.visited.add(r)
                self.known = {o: where for o, where in self.known.items() if where != r}
                self.known.update(dict.fromkeys(self.env.inside[r], r))

    def seen(self, kind: str) -> list[tuple[str, str]]:
        """(thing, receptacle) of this kind that are known and not where they belong."""
        return [(o, r) for o, r in self.known.items() if self.kind(o) == kind and o not in self.placed]

    def find(self, kind: str, avoid: Collection[str] = ()) -> Plan:
        """Look for a kind of thing in the next receptacle not yet looked into."""
        left = [r for r in self.order if r not in self.visited]
        if not left:  # it must have been overlooked: go round again
            self.visited.clear()
            left = list(self.order)
        r = next((r for r in left if r not in avoid), left[0])
        return self.looking(kind, r)

    def looking(self, kind: str, receptacle: str) -> Plan:
        return Plan(f"find {kind} in {self.world.names[receptacle]}", receptacle, ("openobject", receptacle))

    def choose(self, avoid: Collection[str] = ()) -> Plan:
        """The next sub-goal from what has been seen so far, elsewhere than at the places in `avoid` if it can be."""
        env, names, held = self.env, self.world.names, self.env.held
        if held is not None and self.kind(held) != self.wanted:
            fitting = [r for r in self.world.receptacles if held in self.world.accepts[r]]
            for r in sorted(fitting, key=lambda r: (r in avoid, self.world.place[r] != env.location)):
                return Plan(f"put {names[held]} in {names[r]}", r, ("putobject", held, r))
        if held is None:
            things = self.seen(self.wanted)
            for o, r in (pair for pair in things if pair[1] not in avoid):
                after = self.seen(self.lamp)[:1] if self.lamp else ()
                return Plan(f"take {names[o]} from {names[r]}{self.then(after)}", r, ("pickupobject", o, r))
            return self.find(self.wanted, avoid)
        if self.processor is not None and held not in self.treated:
            fitting = self.places(self.processor.lower())
            r, verb = next((r for r in fitting if r not in avoid), fitting[0]), VERB[self.processor]
            return Plan(f"{verb} {names[held]} with {names[r]}", r, (f"{verb}object", held, r), inside=False)
        if self.lamp:
            for o, r in self.seen(self.lamp):
                return Plan(f"use {names[o]} in {names[r]}", r, ("toggleobject", o), inside=False)
            return self.find(self.lamp, avoid)
        fitting = self.places(self.target)
        if self.home is None or (self.home in avoid and not self.placed):
            self.home = next((r for r in fitting if r not in avoid), self.home or fitting[0])
        after = [pair for pair in self.seen(self.wanted) if pair[1] != self.home][: self.both]
        text = f"put {names[held]} in {names[self.home]}{self.then(after)}"
        return Plan(text, self.home, ("putobject", held, self.home))

    def then(self, things: Collection[tuple[str, str]]) -> str:
        """What the sub-goal says of a thing that will be needed later."""
        return "".join(f" then {self.world.names[o]} in {self.world.names[r]}" for o, r in things)

    def over(self, plan: Plan) -> bool:
        """Whether a sub-goal is done, or what was seen shows that it leads nowhere."""
        verb, held = plan.act[0], self.env.held
        if verb == "openobject":  # looking for something
            wanted = self.wanted if held is None else self.lamp
            return plan.receptacle in self.visited or bool(self.seen(wanted))
        if verb == "pickupobject":
            return held is not None or self.known.get(plan.act[1]) != plan.receptacle
        return verb != "toggleobject" and (held != plan.act[1] or held in self.treated and "with" in plan.text)

    def think(self, label: str, wrong: float) -> Plan:
        """The sub-goal of this turn, given the label of the last one: a negative one is reason to try elsewhere."""
        self.see()
        plan = self.plan
        if plan is None or self.over(plan):
            self.plan = self.choose()
            if self.rng.random() < wrong:
                kind = self.wanted if self.env.held is None or not self.lamp else self.lamp
                self.plan = self.looking(kind, self.rng.choice(self.order))
                self.visited.discard(self.plan.receptacle)
        elif label == "negative":
            self.plan = self.choose(avoid={plan.receptacle})
        return self.plan

    def act(self, plan: Plan) -> str:
        """The next command towards a sub-goal: go there, open it, do it."""
        name = self.world.names[plan.receptacle]
        if self.world.place[plan.receptacle] != self.env.location:
            return f"go to {name}"
        if plan.inside and not self.env._accessible(plan.receptacle):
            return f"open {name}"
        return self.world.command(*plan.act)

    def stated(self, action: str) -> str | None:
        """How a command would be stated by one who means it, None for one that no sub-goal has."""
        verb, _, rest = action.partition(" ")
        if verb in ("go", "open"):
            return f"find {self.wanted} in {rest.removeprefix('to ')}"
        return action if verb == "take" else f"put {rest.replace(' to ', ' in ')}" if verb == "move" else None

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
    likely = habits.likely > 0 and rng.random() < habits.likely  # no draw where it is off: older recipes stay the same
    explorer = Explorer(env, game, rng, ordered=likely or rng.random() < habits.ordered, likely=likely)
    taught = habits.noise_taught == 1 or rng.random() < habits.noise_taught
    noise = rng.random() * habits.noise
    first = distance = env.distance()
    label, valid, steps, repeated = "neutral", True, [], None
    while not observation.done and len(steps) < max_turns:
        # what comes out of a failed attempt (the last action was not valid) is shown as it should be
        stated = rng.choice(LABELS) if steps and valid and rng.random() < habits.wrong_label else label
        imitate = True
        if repeated is not None and rng.random() < habits.again:
            action, goal = repeated
        else:
            plan, repeated = explorer.think(stated, habits.wrong_subgoal), None
            action, goal = explorer.act(plan), plan.text
            if valid and rng.random() < habits.impossible:
                action = explorer.impossible()
                action, goal = repeated = action, explorer.stated(action)
            elif rng.random() < noise:
                action = rng.choice([a for a in observation.admissible if a not in ("help", "inventory", "look")])
                goal, imitate = explorer.stated(action) or goal, taught
        valid = action in observation.admissible
        repeated = None if valid else repeated
        progress = 10 * round(10 * max(0.0, 1 - distance / max(first, 1)))
        steps.append(Demonstration(observation.text, action, goal, stated, progress, valid and imitate))
        observation = env.step(action)
        if valid:
            explorer.note(action)
        after = env.distance()
        label, distance = true_label(distance, after, valid), after
    return steps, observation.won
