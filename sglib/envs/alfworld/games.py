"""ALFWorld games: what one is, how it is kept on disk, and the rooms and rules that the package ships."""

from __future__ import annotations

import functools
import importlib.resources
import json
import random
from dataclasses import dataclass, field
from pathlib import Path

from sglib.records import write_atomic

TASK_TYPES = (
    "pick_and_place_simple", "look_at_obj_in_light", "pick_clean_then_place_in_recep", "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep", "pick_two_obj_and_place",
)  # fmt: skip
SPLITS = ("train", "valid_seen", "valid_unseen")
UNSEEN_SCENES = (10, 219, 308, 424)


@functools.cache
def shipped(name: str) -> str:
    """Text of a file in alfworld's `data` folder: `alfred.pddl` (the domain) or `alfred.twl2` (the grammar)."""
    return (importlib.resources.files("alfworld") / "data" / name).read_text(encoding="utf-8")


@dataclass(frozen=True)
class Game:
    """One ALFWorld task in one room.

    Attributes:
        id: where it lies in the official layout: "<split>/<task>-<object>-...-<scene>/<trial>".
        task_type: one of `TASK_TYPES`.
        goal: the task sentence, e.g. "put a mug in desk" (no full stop).
        split: one of `SPLITS`.
        scene: floor plan number, 1..430.
        problem: the PDDL problem; everything an engine plays comes from here.
        traj_data: content of `traj_data.json` (`task_type`, `pddl_params`, `scene`, `turk_annotations`).
        walkthrough: commands that win it, None where none is known.
        domain, grammar: PDDL domain and TextWorld grammar where they differ from what the alfworld package ships.
    """

    id: str
    task_type: str
    goal: str
    split: str
    scene: int
    problem: str = field(repr=False)
    traj_data: dict = field(repr=False, default_factory=dict)
    walkthrough: tuple[str, ...] | None = field(repr=False, default=None)
    domain: str | None = field(repr=False, default=None)
    grammar: str | None = field(repr=False, default=None)
    env = "alfworld"

    @property
    def origin(self) -> dict | None:
        """How a generated game is made again, None for others."""
        return self.traj_data.get("generator")

    def content(self) -> list:
        """What decides the game: id, goal, problem, and the domain and grammar if they are its own."""
        return [self.id, self.goal, self.problem, self.domain, self.grammar]

    def data(self) -> dict:
        """The content of `game.tw-pddl`, as `alfworld-generate` writes it."""
        own = self.grammar
        return {
            "pddl_domain": shipped("alfred.pddl") if self.domain is None else self.domain,
            "grammar": shipped("alfred.twl2").replace("UNKNOWN GOAL", self.goal) if own is None else own,
            "pddl_problem": self.problem,
            "solvable": True,  # games that cannot be won are neither made nor read
            "walkthrough": list(self.walkthrough) if self.walkthrough is not None else None,
        }

    def save(self, directory: str | Path) -> Path:
        """Write `directory/<id>/game.tw-pddl` and `traj_data.json`, the official layout; returns the game's folder."""
        folder = Path(directory) / self.id
        write_atomic(folder / "game.tw-pddl", json.dumps(self.data()))
        write_atomic(folder / "traj_data.json", json.dumps(self.traj_data, indent=1))
        return folder


# -- rooms: what the floor plans and tables of the alfworld package say ---------------------------------------------

ROOMS = {"Kitchen": range(1, 31), "LivingRoom": range(201, 231), "Bedroom": range(301, 331),
         "Bathroom": range(401, 431)}  # fmt: skip
SCENES = tuple(scene for room in ROOMS.values() for scene in room)

# Receptacles that stand in every floor plan's object list but have no entry in its table of receptacle positions.
UNPLACED = {"StoveBurner": 4, "CoffeeMachine": 1, "Toaster": 1, "GarbageCan": 1, "ToiletPaperHanger": 1,
            "TowelHolder": 1, "HandTowelHolder": 1, "LaundryHamper": 1, "Safe": 1}  # fmt: skip
LAMP_HOLDERS = ("Desk", "SideTable", "Dresser", "CoffeeTable", "DiningTable", "Shelf")
PROCESSOR = {
    "pick_clean_then_place_in_recep": ("Cleanable", "SinkBasin"),
    "pick_heat_then_place_in_recep": ("Heatable", "Microwave"),
    "pick_cool_then_place_in_recep": ("Coolable", "Fridge"),
}


def split_scenes(split: str) -> tuple[int, ...]:
    """Floor plans of a split, as in ALFWorld: `valid_unseen` has scenes 10, 219, 308 and 424, the others the rest."""
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: must be one of {', '.join(SPLITS)}")
    return UNSEEN_SCENES if split == "valid_unseen" else tuple(s for s in SCENES if s not in UNSEEN_SCENES)


def room_of(scene: int) -> str:
    return next(name for name, scenes in ROOMS.items() if scene in scenes)


def receptacle_class(id_: str) -> str:
    """ "Sink|-01.99|+01.14|-00.98|SinkBasin" -> "SinkBasin", "Drawer|+00.65|..." -> "Drawer"."""
    head, *_, tail = id_.split("|")
    return tail if tail.endswith("Basin") else head


@dataclass(frozen=True)
class FloorPlan:
    """One of the 120 rooms: receptacle id -> location (x, z, rotation, horizon), those of them whose id is a true
    position, the classes of things found in it, and its floor's cells."""

    receptacles: dict[str, tuple[int, int, int, int]]
    placed: tuple[str, ...]
    objects: tuple[str, ...]
    floor: tuple[tuple[int, int], ...]


@functools.cache
def floor_plan(scene: int) -> FloorPlan:
    """Read a floor plan from alfworld. Locations are in steps of 0.25 m and degrees, as in ALFRED's `loc|…`."""
    import numpy as np
    from alfworld.gen import constants

    folder = importlib.resources.files("alfworld") / "gen" / "layouts"
    positions = json.loads((folder / f"FloorPlan{scene}-openable.json").read_text())
    present = json.loads((folder / f"FloorPlan{scene}-objects.json").read_text())
    with importlib.resources.as_file(folder / f"FloorPlan{scene}-layout.npy") as path:
        floor = sorted({(round(x * 4), round(z * 4)) for x, z in np.load(path, allow_pickle=False)[:, :2].tolist()})
    fixed = constants.RECEPTACLES - constants.MOVABLE_RECEPTACLES_SET
    receptacles = {}
    for id_, (x, z, rotation, horizon) in sorted(positions.items()):
        if receptacle_class(id_) in fixed:
            receptacles[id_] = (round(x * 4), round(z * 4), round(rotation), round(horizon))
    rng = random.Random(f"floor plan {scene}")
    placed, known = tuple(receptacles), {receptacle_class(id_) for id_ in receptacles}
    for kind, count in UNPLACED.items():
        if kind in present and kind not in known:
            for _ in range(count):
                x, z = floor[rng.randrange(len(floor))]
                receptacles[object_id(kind, x / 4, 0.9, z / 4, rng)] = (x, z, 90 * rng.randrange(4), 30)
    things = set(constants.OBJECTS_SET) - constants.RECEPTACLES | constants.MOVABLE_RECEPTACLES_SET
    holds = set().union(*(constants.VAL_RECEPTACLE_OBJECTS[receptacle_class(r)] for r in receptacles))
    objects = tuple(sorted(things & set(present) & (holds | {"DeskLamp"})))
    return FloorPlan(receptacles, placed, objects, tuple(floor))


def object_id(kind: str, x: float, y: float, z: float, rng: random.Random) -> str:
    """An id as ALFRED writes them, at most 0.6 m from a position: "Mug|-01.22|+00.95|+01.80"."""
    jitter = [v + rng.randrange(-60, 61) / 100 for v in (x, y, z)]
    return "|".join([kind, *(f"{'-' if v < 0 else '+'}{abs(v):05.2f}" for v in jitter)])


def pddl_name(id_: str) -> str:
    """ALFRED's ids in PDDL's alphabet: "Mug|-01.22|+00.95|+01.80" -> "Mug_bar__minus_01_dot_22_bar__plus_00…"."""
    for sign, word in (("|", "_bar_"), ("-", "_minus_"), ("+", "_plus_"), (".", "_dot_"), (",", "_comma_")):
        id_ = id_.replace(sign, word)
    return id_


def goal_sentence(task_type: str, params: dict, template: int) -> str:
    """The task sentence from the goal library's template number `template` (there are two)."""
    from alfworld.gen import goal_library

    templates = goal_library.gdict[task_type]["templates"]
    obj, recep, toggle = (params[f"{name}_target"].lower() for name in ("object", "parent", "toggle"))
    return templates[template % len(templates)].format(obj=obj, recep=recep, toggle=toggle)


def write_problem(
    name: str, task_type: str, params: dict, receptacles: dict[str, tuple[int, int, int, int]],
    objects: dict[str, tuple[str, str]], agent: tuple[int, int, int, int],
) -> str:  # fmt: skip
    """The PDDL problem of a room, with the predicates that ALFRED's planner writes (distances, which nothing reads,
    left out).

    Args:
        params: ALFRED's `pddl_params`.
        receptacles: id -> location (x, z, rotation, horizon).
        objects: id -> (class, id of the receptacle that holds it).
        agent: location where the agent starts.
    """
    from alfworld.gen import constants, goal_library

    action = constants.VAL_ACTION_OBJECTS
    location = {r: "loc|{}|{}|{}|{}".format(*at) for r, at in receptacles.items()}
    start = "loc|{}|{}|{}|{}".format(*agent)
    kinds = {r: receptacle_class(r) for r in receptacles}
    otypes = sorted({kind for kind, _ in objects.values()} | {"Knife", "ButterKnife"})
    rtypes = sorted(set(kinds.values()) | {"SinkBasin", "Microwave", "Fridge"})
    if params["object_target"] not in otypes:
        raise ValueError(f"object_target={params['object_target']!r}: no such object in the room")
    declared = ["agent1 - agent"]
    declared += [f"{o}Type - otype" for o in otypes] + [f"{r}Type - rtype" for r in rtypes]
    declared += [f"{o} - object" for o in sorted(objects)] + [f"{r} - receptacle" for r in sorted(receptacles)]
    declared += [f"{at} - location" for at in sorted({start, *location.values()})]
    facts = [f"atLocation agent1 {start}"]
    for r in sorted(receptacles):
        facts += [f"receptacleType {r} {kinds[r]}Type", f"receptacleAtLocation {r} {location[r]}"]
        if kinds[r] in constants.OPENABLE_CLASS_SET:
            facts.append(f"openable {r}")
    for kind in sorted(set(kinds.values())):
        accepts = constants.VAL_RECEPTACLE_OBJECTS[kind]
        facts += [f"canContain {kind}Type {o}Type" for o in otypes if o in accepts]
    for o, (kind, r) in sorted(objects.items()):
        facts += [f"objectType {o} {kind}Type", f"inReceptacle {o} {r}", f"objectAtLocation {o} {location[r]}"]
        facts.append(f"{'toggleable' if kind in action['Toggleable'] else 'pickupable'} {o}")
        facts += [f"{v.lower()} {o}" for v in ("Cleanable", "Heatable", "Coolable", "Sliceable") if kind in action[v]]
        if kind in constants.MOVABLE_RECEPTACLES_SET:
            facts.append(f"isReceptacleObject {o}")
    goal = goal_library.gdict[task_type]["pddl"].format(
        obj=params["object_target"], recep=params["parent_target"], toggle=params["toggle_target"], mrecep=""
    )
    goal = goal.replace("#", "-").strip()
    goal = goal[: goal.rindex(")")].rstrip()  # the library's text also closes the problem
    spaced = "\n        "
    names = [pddl_name(d[: d.rindex(" - ")]) + d[d.rindex(" - ") :] for d in declared]
    return (
        f"(define (problem {name})\n    (:domain alfred)\n"
        f"    (:objects\n        {spaced.join(names)}\n    )\n"
        f"    (:init\n        (= (total-cost) 0)\n        {spaced.join(f'({pddl_name(f)})' for f in facts)}\n    )\n"
        f"    {goal}\n    (:metric minimize (total-cost))\n)\n"
    )
