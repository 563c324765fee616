"""ALFWorld games: what one is, how it is kept on disk, and how new ones are made from what the package ships."""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import json
import random
from dataclasses import dataclass, field
from pathlib import Path

from sglib.records import write_atomic

TASK_TYPES = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)
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

    def data(self) -> dict:
        """The content of `game.tw-pddl`, as `alfworld-generate` writes it."""
        grammar = self.grammar
        if grammar is None:
            grammar = shipped("alfred.twl2").replace("UNKNOWN GOAL", self.goal)
        return {
            "pddl_domain": self.domain if self.domain is not None else shipped("alfred.pddl"),
            "grammar": grammar,
            "pddl_problem": self.problem,
            "solvable": self.walkthrough is not None,
            "walkthrough": list(self.walkthrough) if self.walkthrough is not None else None,
        }

    def save(self, directory: str | Path) -> Path:
        """Write `directory/<id>/game.tw-pddl` and `traj_data.json` in the official layout; returns the game's
        folder."""
        folder = Path(directory) / self.id
        write_atomic(folder / "game.tw-pddl", json.dumps(self.data()))
        write_atomic(folder / "traj_data.json", json.dumps(self.traj_data, indent=1))
        return folder

    @property
    def difficulty(self) -> int | None:
        """Length of the walkthrough: fewest actions with full knowledge for generated games."""
        return None if self.walkthrough is None else len(self.walkthrough)


# -- rooms: what the floor plans and tables of the alfworld package say ---------------------------------------------

ROOMS = {
    "Kitchen": range(1, 31),
    "LivingRoom": range(201, 231),
    "Bedroom": range(301, 331),
    "Bathroom": range(401, 431),
}
SCENES = tuple(scene for room in ROOMS.values() for scene in room)

# Receptacles that stand in every floor plan's object list but have no entry in its table of receptacle positions.
UNPLACED = {"StoveBurner": 4, "CoffeeMachine": 1, "Toaster": 1, "GarbageCan": 1, "ToiletPaperHanger": 1,
            "TowelHolder": 1, "HandTowelHolder": 1, "LaundryHamper": 1, "Safe": 1}  # fmt: skip
# How much a class of receptacle attracts things; measured placements in ALFRED's rooms favour open, large surfaces.
CAPACITY = {"CounterTop": 4.0, "DiningTable": 4.0, "CoffeeTable": 3.0, "Desk": 3.0, "Dresser": 2.5, "SideTable": 2.0,
            "Bed": 2.0, "Sofa": 2.0, "Fridge": 2.0, "SinkBasin": 2.0}  # fmt: skip
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
    """One of the 120 rooms: receptacle id -> location (x, z, rotation, horizon), and the classes of things found in
    it."""

    scene: int
    receptacles: dict[str, tuple[int, int, int, int]]
    objects: tuple[str, ...]
    floor: tuple[tuple[int, int], ...]


@functools.cache
def floor_plan(scene: int) -> FloorPlan:
    """Read a floor plan from the alfworld package. Locations are in steps of 0.25 m and degrees, as in ALFRED's
    `loc|…`."""
    import numpy as np
    from alfworld.gen import constants

    folder = importlib.resources.files("alfworld") / "gen" / "layouts"
    placed = json.loads((folder / f"FloorPlan{scene}-openable.json").read_text())
    present = json.loads((folder / f"FloorPlan{scene}-objects.json").read_text())
    with importlib.resources.as_file(folder / f"FloorPlan{scene}-layout.npy") as path:
        floor = sorted({(round(x * 4), round(z * 4)) for x, z in np.load(path, allow_pickle=False)[:, :2].tolist()})
    fixed = constants.RECEPTACLES - constants.MOVABLE_RECEPTACLES_SET
    receptacles = {}
    for id_, (x, z, rotation, horizon) in sorted(placed.items()):
        if receptacle_class(id_) in fixed:
            receptacles[id_] = (round(x * 4), round(z * 4), round(rotation), round(horizon))
    rng = random.Random(f"floor plan {scene}")
    known = {receptacle_class(id_) for id_ in receptacles}
    for kind, count in UNPLACED.items():
        if kind in present and kind not in known:
            for _ in range(count):
                x, z = floor[rng.randrange(len(floor))]
                receptacles[_identifier(kind, x / 4, 0.9, z / 4, rng)] = (x, z, 90 * rng.randrange(4), 30)
    things = set(constants.OBJECTS_SET) - constants.RECEPTACLES | constants.MOVABLE_RECEPTACLES_SET
    holds = set().union(*(constants.VAL_RECEPTACLE_OBJECTS[receptacle_class(r)] for r in receptacles))
    return FloorPlan(scene, receptacles, tuple(sorted(things & set(present) & (holds | {"DeskLamp"}))), tuple(floor))


def _identifier(kind: str, x: float, y: float, z: float, rng: random.Random) -> str:
    jitter = [v + rng.randrange(-60, 61) / 100 for v in (x, y, z)]
    return "|".join([kind, *(f"{'-' if v < 0 else '+'}{abs(v):05.2f}" for v in jitter)])


def pddl_name(id_: str) -> str:
    """ALFRED's ids in PDDL's alphabet: "Mug|-01.22|+00.95|+01.80" -> "Mug_bar__minus_01_dot_22_bar__plus_00…"."""
    for sign, word in (("|", "_bar_"), ("-", "_minus_"), ("+", "_plus_"), (".", "_dot_"), (",", "_comma_")):
        id_ = id_.replace(sign, word)
    return id_


def goal_pddl(task_type: str, params: dict) -> str:
    """The `(:goal …)` of a task from alfworld's goal library, filled in with ALFRED's `pddl_params`."""
    from alfworld.gen import goal_library

    text = goal_library.gdict[task_type]["pddl"].format(
        obj=params["object_target"], recep=params["parent_target"], toggle=params["toggle_target"], mrecep=""
    )
    text = text.replace("#", "-").strip()
    return text[: text.rindex(")")].rstrip()  # the library's text also closes the problem


def goal_sentence(task_type: str, params: dict, template: int) -> str:
    """The task sentence from the goal library's template number `template` (there are two)."""
    from alfworld.gen import goal_library

    templates = goal_library.gdict[task_type]["templates"]
    return templates[template % len(templates)].format(
        obj=params["object_target"].lower(),
        recep=params["parent_target"].lower(),
        toggle=params["toggle_target"].lower(),
    )


def write_problem(
    name: str,
    task_type: str,
    params: dict,
    receptacles: dict[str, tuple[int, int, int, int]],
    objects: dict[str, tuple[str, str]],
    agent: tuple[int, int, int, int],
) -> str:
    """The PDDL problem of a room, with the predicates that ALFRED's planner writes (distances, which nothing reads,
    left out).

    Args:
        name: of the problem.
        task_type, params: the task and ALFRED's `pddl_params`.
        receptacles: id -> location (x, z, rotation, horizon).
        objects: id -> (class, id of the receptacle that holds it).
        agent: where the agent starts.
    """
    from alfworld.gen import constants

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
        if kind in action["Toggleable"]:
            facts.append(f"toggleable {o}")
        else:
            facts.append(f"pickupable {o}")
        facts += [
            f"{verb.lower()} {o}" for verb in ("Cleanable", "Heatable", "Coolable", "Sliceable") if kind in action[verb]
        ]
        if kind in constants.MOVABLE_RECEPTACLES_SET:
            facts.append(f"isReceptacleObject {o}")
    spaced = "\n        "
    names = [pddl_name(d[: d.rindex(" - ")]) + d[d.rindex(" - ") :] for d in declared]
    return (
        f"(define (problem {name})\n    (:domain alfred)\n"
        f"    (:objects\n        {spaced.join(names)}\n    )\n"
        f"    (:init\n        (= (total-cost) 0)\n        {spaced.join(f'({pddl_name(f)})' for f in facts)}\n    )\n"
        f"    {goal_pddl(task_type, params)}\n    (:metric minimize (total-cost))\n)\n"
    )


# -- making new games -----------------------------------------------------------------------------------------------


@functools.cache
def _tasks_of(scene: int) -> tuple[tuple[str, str, str], ...]:
    """(task type, object class, target receptacle class) of every task that a floor plan allows."""
    from alfworld.gen import constants

    plan, room = floor_plan(scene), room_of(scene)
    kinds = sorted({receptacle_class(r) for r in plan.receptacles})
    accepts = constants.VAL_RECEPTACLE_OBJECTS
    found = []
    for task in TASK_TYPES:
        if room not in constants.GOALS_VALID[task]:
            continue
        if task == "look_at_obj_in_light":
            if "DeskLamp" in plan.objects and any(k in LAMP_HOLDERS for k in kinds):
                found += [(task, o, "") for o in plan.objects if o != "DeskLamp"]
            continue
        able, processor = PROCESSOR.get(task, (None, None))
        if processor is not None and processor not in kinds:
            continue
        for o in plan.objects:
            if o == "DeskLamp" or (able is not None and o not in constants.VAL_ACTION_OBJECTS[able]):
                continue
            for target in kinds:
                elsewhere = any(o in accepts[k] for k in kinds if k != target)
                if o in accepts[target] and elsewhere and target != processor:
                    found.append((task, o, target))
    return tuple(found)


def _draw(number: int, seed: int, split: str, tasks: tuple[str, ...], max_receptacles: int | None) -> Game:
    from alfworld.gen import constants

    rng = random.Random(f"sglib games {seed} {split} {number}")
    scenes = split_scenes(split)
    task = tasks[rng.randrange(len(tasks))]
    while True:
        scene = scenes[rng.randrange(len(scenes))]
        options = [t for t in _tasks_of(scene) if t[0] == task]
        if options:
            break
    _, wanted, target = options[rng.randrange(len(options))]
    plan = floor_plan(scene)
    accepts = constants.VAL_RECEPTACLE_OBJECTS
    kind_of = {r: receptacle_class(r) for r in plan.receptacles}

    # the receptacles that the task needs, then others up to the limit
    lamp = task == "look_at_obj_in_light"
    limit = len(kind_of) if max_receptacles is None else min(max_receptacles, len(kind_of))
    needed = []
    for choice in (
        [r for r in kind_of if kind_of[r] == target],
        [r for r in kind_of if kind_of[r] == PROCESSOR.get(task, (None, None))[1]],
        [r for r in kind_of if lamp and kind_of[r] in LAMP_HOLDERS],
        [r for r in kind_of if kind_of[r] != target and wanted in accepts[kind_of[r]]],
    ):
        if choice:
            needed.append(choice[rng.randrange(len(choice))])
    rest = [r for r in kind_of if r not in needed]
    rng.shuffle(rest)
    chosen = sorted({*needed, *rest[: max(0, limit - len(set(needed)))]})

    # things: what the floor plan lists, about two of each in a full room (as in ALFRED), fewer where there is less
    # space
    density = min(1.0, len(chosen) / max(12, len(kind_of)))
    copies = {o: _copies(rng, density) for o in plan.objects if o != "DeskLamp"}
    copies[wanted] = rng.choice((1, 1, 2, 3)) if task != "pick_two_obj_and_place" else rng.choice((2, 2, 3))
    objects: dict[str, tuple[str, str]] = {}
    for kind in sorted(copies):
        places = [r for r in chosen if kind in accepts[kind_of[r]] and not (kind == wanted and kind_of[r] == target)]
        for _ in range(copies[kind] if places else 0):
            r = rng.choices(places, [CAPACITY.get(kind_of[p], 1.0) for p in places])[0]
            x, z, *_ = plan.receptacles[r]
            objects[_identifier(kind, x / 4, 0.9, z / 4, rng)] = (kind, r)
    if lamp:
        r = rng.choice([r for r in chosen if kind_of[r] in LAMP_HOLDERS])
        x, z, *_ = plan.receptacles[r]
        objects[_identifier("DeskLamp", x / 4, 0.9, z / 4, rng)] = ("DeskLamp", r)

    taken = {at[:2] for at in plan.receptacles.values()}
    free = [at for at in plan.floor if at not in taken] or list(plan.floor)
    agent = (*free[rng.randrange(len(free))], 90 * rng.randrange(4), 30)
    params = {"object_target": wanted, "parent_target": target, "toggle_target": "DeskLamp" if lamp else "",
              "mrecep_target": "", "object_sliced": False}  # fmt: skip
    sentence = goal_sentence(task, params, rng.randrange(2))
    folder = f"{task}-{wanted}-None-{target or 'DeskLamp'}-{scene}"
    trial = f"trial_G{seed:04d}_{number:06d}"
    traj_data = {
        "task_id": trial,
        "task_type": task,
        "pddl_params": params,
        "scene": {"floor_plan": f"FloorPlan{scene}", "scene_num": scene, "random_seed": seed},
        "turk_annotations": {"anns": [{"task_desc": sentence, "high_descs": []}]},
        "generator": {"seed": seed, "number": number, "max_receptacles": max_receptacles},
    }
    problem = write_problem(f"plan_{trial}", task, params, {r: plan.receptacles[r] for r in chosen}, objects, agent)
    return Game(f"{split}/{folder}/{trial}", task, sentence, split, scene, problem, traj_data)


def _copies(rng: random.Random, density: float) -> int:
    drawn = rng.choice((1, 2, 2, 3)) * density
    return int(drawn) + (rng.random() < drawn - int(drawn))


def generate_games(
    n: int,
    seed: int = 0,
    split: str = "train",
    tasks: tuple[str, ...] | None = None,
    max_receptacles: int | None = 12,
    start: int = 0,
) -> list[Game]:
    """Make `n` new games; same arguments, same games, byte for byte, on any machine.

    Every game is won by its `walkthrough`, a shortest plan with full knowledge, played on the fast engine before the
    game
    is handed out; a draw that has none is drawn again under the next number.

    Args:
        n: how many, at least 0.
        seed: of the random numbers; each game has its own stream, so the first games of a longer list are the same.
        split: "train", "valid_seen" (the same rooms) or "valid_unseen" (scenes 10, 219, 308, 424).
        tasks: task types to draw from, equally often; None for all six.
        max_receptacles: at most so many receptacles a room (at least 4); None for the whole room (up to 54).
        start: number of the first draw, to continue a list.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """
    from sglib.envs.alfworld_fast import FastAlfworld

    if n < 0:
        raise ValueError(f"n={n!r}: must be 0 or more")
    split_scenes(split)
    tasks = TASK_TYPES if tasks is None else tuple(tasks)
    for task in tasks:
        if task not in TASK_TYPES:
            raise ValueError(f"tasks: {task!r} is not a task type; allowed: {', '.join(TASK_TYPES)}")
    if not tasks:
        raise ValueError("tasks=(): must name at least one task type, or be None for all")
    if max_receptacles is not None and max_receptacles < 4:
        raise ValueError(f"max_receptacles={max_receptacles!r}: must be at least 4, or None for the whole room")
    games, number, env = [], start, FastAlfworld(admissible=False)
    while len(games) < n:
        game = _draw(number, seed, split, tasks, max_receptacles)
        number += 1
        won = env.reset(game).won
        plan = None if won else env.plan()
        if not plan:
            continue  # trivially won (an official engine cannot load it) or impossible
        for action in plan:
            observation = env.step(action)
        if not observation.won:
            raise RuntimeError(f"{game.id}: the plan {plan} does not win; the engine and its oracle disagree")
        games.append(dataclasses.replace(game, walkthrough=tuple(plan)))
    return games
