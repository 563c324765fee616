"""New games, made from what the alfworld package ships: a room, things in it, a task, the proof that it can be won."""

from __future__ import annotations

import dataclasses
import functools
import random

from sglib.envs.alfworld.fast import FastAlfworld
from sglib.envs.alfworld.games import (
    LAMP_HOLDERS,
    PROCESSOR,
    TASK_TYPES,
    Game,
    floor_plan,
    goal_sentence,
    object_id,
    receptacle_class,
    room_of,
    split_scenes,
    write_problem,
)

# How much a class of receptacle attracts things; measured placements in ALFRED's rooms favour open, large surfaces.
CAPACITY = {"CounterTop": 4.0, "DiningTable": 4.0, "CoffeeTable": 3.0, "Desk": 3.0, "Dresser": 2.5, "SideTable": 2.0,
            "Bed": 2.0, "Sofa": 2.0, "Fridge": 2.0, "SinkBasin": 2.0}  # fmt: skip


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
    choices = (
        [r for r in kind_of if kind_of[r] == target],
        [r for r in kind_of if kind_of[r] == PROCESSOR.get(task, (None, None))[1]],
        [r for r in kind_of if lamp and kind_of[r] in LAMP_HOLDERS],
        [r for r in kind_of if kind_of[r] != target and wanted in accepts[kind_of[r]]],
    )
    needed = [choice[rng.randrange(len(choice))] for choice in choices if choice]
    rest = [r for r in kind_of if r not in needed]
    rng.shuffle(rest)
    chosen = sorted({*needed, *rest[: max(0, limit - len(set(needed)))]})

    # things: what the floor plan lists, about two of each in a full room (as in ALFRED), fewer in less space
    density = min(1.0, len(chosen) / max(12, len(kind_of)))
    copies = {o: _copies(rng, density) for o in plan.objects if o != "DeskLamp"}
    copies[wanted] = rng.choice((1, 1, 2, 3)) if task != "pick_two_obj_and_place" else rng.choice((2, 2, 3))
    objects: dict[str, tuple[str, str]] = {}
    for kind in sorted(copies):
        places = [r for r in chosen if kind in accepts[kind_of[r]] and not (kind == wanted and kind_of[r] == target)]
        for _ in range(copies[kind] if places else 0):
            r = rng.choices(places, [CAPACITY.get(kind_of[p], 1.0) for p in places])[0]
            x, z, *_ = plan.receptacles[r]
            objects[object_id(kind, x / 4, 0.9, z / 4, rng)] = (kind, r)
    if lamp:
        r = rng.choice([r for r in chosen if kind_of[r] in LAMP_HOLDERS])
        x, z, *_ = plan.receptacles[r]
        objects[object_id("DeskLamp", x / 4, 0.9, z / 4, rng)] = ("DeskLamp", r)

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
        "generator": {"seed": seed, "number": number, "tasks": list(tasks), "max_receptacles": max_receptacles},
    }
    problem = write_problem(f"plan_{trial}", task, params, {r: plan.receptacles[r] for r in chosen}, objects, agent)
    return Game(f"{split}/{folder}/{trial}", task, sentence, split, scene, problem, traj_data)


def _copies(rng: random.Random, density: float) -> int:
    drawn = rng.choice((1, 2, 2, 3)) * density
    return int(drawn) + (rng.random() < drawn - int(drawn))


def generate_games(
    n: int, seed: int = 0, split: str = "train", tasks: tuple[str, ...] | None = None,
    max_receptacles: int | None = 12, start: int = 0,
) -> list[Game]:  # fmt: skip
    """Make `n` new games; same arguments, same games, byte for byte, on any machine.

    Every game is won by its `walkthrough`, a shortest plan with full knowledge, played on the fast engine before the
    game is handed out; a draw that has none is drawn again under the next number.

    Args:
        seed: each game has its own stream of random numbers, so a longer list begins with a shorter one's games.
        split: "train", "valid_seen" (the same rooms) or "valid_unseen" (scenes 10, 219, 308, 424).
        tasks: task types to draw from, equally often; None for all six.
        max_receptacles: most receptacles of a room, at least 4; None for the whole room (up to 54).
        start: number of the first draw, to continue a list.
    """
    if n < 0:
        raise ValueError(f"n={n!r}: must be 0 or more")
    split_scenes(split)
    tasks = TASK_TYPES if tasks is None else tuple(tasks)
    if not tasks or not set(tasks) <= set(TASK_TYPES):
        raise ValueError(f"tasks={tasks!r}: allowed: None, or at least one of {', '.join(TASK_TYPES)}")
    if max_receptacles is not None and max_receptacles < 4:
        raise ValueError(f"max_receptacles={max_receptacles!r}: must be at least 4, or None for the whole room")
    games, number, env = [], start, FastAlfworld(admissible=False)
    while len(games) < n:
        game = _draw(number, seed, split, tasks, max_receptacles)
        number += 1
        if env.reset(game).won or not (plan := env.plan()):
            continue  # trivially won (an official engine cannot load it) or impossible
        for action in plan:
            observation = env.step(action)
        if not observation.won:
            raise RuntimeError(f"{game.id}: the plan {plan} does not win; the engine and its oracle disagree")
        games.append(dataclasses.replace(game, walkthrough=tuple(plan)))
    return games


def regenerate(game_id: str, origin: dict) -> Game:
    """Make a game again from what a trajectory keeps of it: its id and `traj_data["generator"]`; `ValueError` where
    these do not fit together (from another version, or changed)."""
    try:
        game = generate_games(
            1, origin["seed"], game_id.partition("/")[0], origin["tasks"], origin["max_receptacles"], origin["number"]
        )[0]
    except (KeyError, TypeError) as error:
        raise ValueError(f"origin={origin!r}: must have seed, number, tasks and max_receptacles") from error
    if game.id != game_id:
        raise ValueError(f"origin={origin!r}: makes {game.id!r}, not {game_id!r}")
    return game
