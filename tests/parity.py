"""Recordings of the reference engine, and their comparison with any other engine.

The reference plays some 20 steps a second, so it plays once: `python tests/parity.py` builds a list of games, walks
through each of them on the reference and keeps every observation under `outputs/parity`. A recording that exists is not
played again. `compare_with` then replays the commands on another engine and describes the first difference.

    python tests/parity.py                   record what is missing, then compare everything
    python tests/parity.py --compare-only    only compare: seconds
    python tests/parity.py --out FILE        keep the counts, as outputs/reference/parity.json has them
    python tests/parity.py --official FOLDER the same with games of ALFWorld's own data set, and all of its walkthroughs
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import importlib.metadata
import itertools
import json
import multiprocessing
import os
import random
import re
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from sglib.envs.alfworld import SPLITS, Game, generate_games, load_games
from sglib.envs.alfworld.games import pddl_name, receptacle_class, room_of, shipped
from sglib.envs.alfworld.official import official_folder
from sglib.experiments.runs import source_hash
from sglib.records import Observation, write_atomic

FOLDER = Path(__file__).resolve().parent.parent / "outputs" / "parity"
OFFICIAL = FOLDER.with_name("parity_official")
KINDS = ("random", "plan", "search")
FIELDS = ("text", "goal", "admissible", "reward", "won", "done")
LIMIT = 120  # seconds of CPU time for one game: the reference translates a few games for minutes
_limit = LIMIT  # of this process
MEMORY = 6 << 30  # bytes of address space for one worker: it translates a few games into gigabytes
MALFORMED = (
    "", " ", "\t\n", "go", "go to", "go to ", "take", "take from", "xyzzy", "GO TO DESK 1", "go to desk 99", "look ",
    "  inventory", "look around", "examine", "open  drawer 1", "é\u202e\U0001f600", "\ud800", "a" * 5000, "{r.name}",
    "#look.feedback#", "use", "help me", "inventory\n", "slice with", "go to location 1", "examine agent1",
    "examine agent1 ", "go  to desk 1", "heat with", "move to", "None", "0",
)  # fmt: skip
Transcript = dict  # what `walk` returns


def explore(rng: random.Random, observation, names: list[str], recent: list[str]) -> str:
    """A command: mostly admissible, each kind equally likely (else `go to` drowns the rest); some that are not."""
    draw = rng.random()
    if draw < 0.08:
        return rng.choice(MALFORMED)
    if draw < 0.20:  # well formed, rarely admissible: all kinds about things that may be elsewhere
        a, b = rng.choice(names), rng.choice(names)
        forms = ("take {a} from {b}", "move {a} to {b}", "open {a}", "close {a}", "use {a}", "examine {a}",
                 "heat {a} with {b}", "cool {a} with {b}", "clean {a} with {b}", "slice {a} with {b}", "go to {a}",
                 "put {a} in/on {b}")  # fmt: skip
        return rng.choice(forms).format(a=a, b=b)
    if draw < 0.25 and recent:
        return rng.choice(recent)
    kinds: dict[str, list[str]] = {}
    for command in observation.admissible:
        kinds.setdefault(command.split()[0], []).append(command)
    # things happen where things are held: prefer what changes the world over looking at it
    acting = ("take", "move", "put", "slice", "heat", "cool", "clean", "use", "open")
    weights = [3.0 if kind in acting else 1.0 for kind in kinds]
    return rng.choice(kinds[rng.choices(list(kinds), weights)[0]])


# -- variants of games ------------------------------------------------------------------------------------------------

FIXTURES = ("Window", "Chair", "LightSwitch", "StoveKnob", "Mirror", "Blinds", "Television", "Painting", "HousePlant")
ORDER = ("receptacleType", "objectType", "canContain", "pickupable", "isReceptacleObject", "openable", "atLocation",
         "cleanable", "heatable", "coolable", "toggleable", "sliceable", "inReceptacle", "receptacleAtLocation",
         "objectAtLocation")  # fmt: skip


def _parts(problem: str) -> tuple[dict[str, str], dict[str, list[tuple[str, ...]]], str]:
    """Objects with their types, facts by predicate, and the text of the goal; of a problem that was written here."""
    objects, init, goal = (problem.index(section) for section in ("(:objects", "(:init", "(:goal"))
    facts = defaultdict(list)
    for fact in re.findall(r"\(([^()=:]+)\)", problem[init:goal]):
        predicate, *arguments = fact.split()
        if arguments:  # "(total-cost)" has none
            facts[predicate].append(tuple(arguments))
    text = problem[goal:].partition("(:metric")[0].rstrip()
    return dict(re.findall(r"(\S+) - (\w+)", problem[objects:init])), facts, text


def official_style(game: Game, rng: random.Random) -> Game:
    """A variant with traits of the official files that games made here lack, each with a probability of its own.

    It need not be solvable, and a few variants cannot be loaded or are won at the start: draw again.
    """
    from alfworld.gen import constants

    objects, facts, goal = _parts(game.problem)
    receptacles = [name for name, kind in objects.items() if kind == "receptacle"]
    locations = [name for name, kind in objects.items() if kind == "location"]
    things = [row[0] for row in facts["pickupable"]]
    lamps = [row[0] for row in facts["toggleable"]]
    place = dict(facts["receptacleAtLocation"])

    def some(pool: list, most: int, chance: float) -> list:
        return rng.sample(pool, min(len(pool), rng.randint(1, most))) if rng.random() < chance else []

    def drop(predicate: str, subject: str):
        facts[predicate] = [row for row in facts[predicate] if row[0] != subject]

    # things that no command reaches: some with a type or a place only, some without any fact
    for kind in some(list(FIXTURES), 5, 0.9):
        for _ in range(rng.randint(1, 3)):
            position = [rng.uniform(-3, 3) for _ in range(3)]
            name = pddl_name("|".join([kind, *(f"{'-' if v < 0 else '+'}{abs(v):05.2f}" for v in position)]))
            objects[name] = "object"
            facts["objectType"] += some([(name, f"{kind}Type")], 1, 0.85)
            facts["objectAtLocation"] += some([(name, rng.choice(locations))], 1, 0.7)
    for basin in [r for r in receptacles if r.endswith("Basin")]:  # the sink itself beside its basin
        name = basin.rpartition("_bar_")[0]
        objects[name] = "object"
        facts["objectType"].append((name, f"{name.partition('_')[0]}Type"))
        facts["objectAtLocation"] += some([(name, place[basin])], 1, 0.8)
    # where things are
    for thing in some(things, 3, 0.4):  # in two receptacles at once
        facts["inReceptacle"].append((thing, rng.choice(receptacles)))
    for thing in some(things, 4, 0.4):  # nowhere, elsewhere, at two places
        if rng.random() < 0.7:
            drop("objectAtLocation", thing)
        facts["objectAtLocation"] += some([(thing, rng.choice(locations))], 1, 0.7)
    for thing in some(things, 3, 0.5):  # on the floor
        drop("inReceptacle", thing)
        if rng.random() < 0.4:
            drop("objectAtLocation", thing)
            facts["objectAtLocation"].append((thing, rng.choice(locations)))
    for (holder,) in some(facts["isReceptacleObject"], 2, 0.4):
        for thing in some([t for t in things if t != holder], 2, 1.0):
            facts["inReceptacleObject"].append((thing, holder))
            if rng.random() < 0.5:
                drop("inReceptacle", thing)
        facts["isReceptacleObjectFull"] += some([(holder,)], 1, 0.2)
    for subject in some([*receptacles, *things], 3, 0.4):  # arguments of the wrong type
        other = rng.choice(receptacles if subject in receptacles else things)
        facts[rng.choice(("inReceptacle", "inReceptacle", "inReceptacleObject"))].append((subject, other))
    for thing in some(things, 2, 0.3):
        drop("objectType", thing)
    # receptacles
    for receptacle in some(receptacles, 1, 0.3):
        drop("receptacleAtLocation", receptacle)
    for (receptacle,) in some(facts["openable"], 2, 0.25):
        drop("openable", receptacle)
    for receptacle in some(receptacles, 1, 0.2):  # to the published domain a place to clean things
        facts["receptacleType"].append((receptacle, "SinkType"))
    # the start: rare
    facts["opened"] += [(r,) for r in some([row[0] for row in facts["openable"]], 2, 0.15)]
    for predicate in ("isHot", "isCool", "isClean", "isSliced"):
        facts[predicate] += [(thing,) for thing in some(things, 2, 0.1)]
    facts["isOn"] += [(lamp,) for lamp in some(lamps, 1, 0.2)]
    facts["isToggled"] += [(lamp,) for lamp in some(lamps, 1, 0.1)]
    facts["wasInReceptacle"] += [(thing, rng.choice(receptacles)) for thing in some(things, 2, 0.1)]
    facts["atLocation"] = [("agent1", where) for where in some(list(place.values()), 1, 0.2)][:1] or facts["atLocation"]
    for thing in some(things, 1, 0.15):
        drop("inReceptacle", thing)
        if rng.random() < 0.8:
            drop("objectAtLocation", thing)
        facts["holds"], facts["holdsAny"] = [("agent1", thing)], [("agent1",)]
    distances = []
    if rng.random() < 0.15:
        objects["loc_bar_99_bar_99_bar_0_bar_30"] = "location"  # no other fact names it
        pairs = itertools.product([*locations, "loc_bar_99_bar_99_bar_0_bar_30"], repeat=2)
        distances = [f"(= (distance {a} {b}) {rng.randint(0, 9)})" for a, b in some(list(pairs), 20, 1.0)]
    # written as official files are: every class is an object too; what fits is repeated for each receptacle
    movable = set(constants.MOVABLE_RECEPTACLES_SET)
    classes = sorted(set(constants.OBJECTS) - (set(constants.RECEPTACLES) - movable))
    declared = {"agent1": "agent", **dict.fromkeys(classes, "object")}
    declared |= {f"{kind}Type": "otype" for kind in classes}
    declared |= {f"{kind}Type": "rtype" for kind in sorted(set(constants.RECEPTACLES) - movable)} | objects
    facts["canContain"] = [
        (f"{kind}Type", f"{other}Type")
        for kind in [receptacle_class(r.replace("_bar_", "|")) for r in receptacles]
        for other in sorted(constants.VAL_RECEPTACLE_OBJECTS[kind])
        if declared.get(f"{other}Type") == "otype"
    ]
    order = [*ORDER, *sorted(set(facts) - set(ORDER))]
    lines = [f"({' '.join((predicate, *row))})" for predicate in order for row in facts[predicate]]
    spaced = "\n        "
    problem = (
        f"\n(define (problem plan_{game.id.rpartition('/')[2]})\n(:domain alfred)\n(:objects\n"
        f"{spaced.join(f'{name} - {kind}' for name, kind in declared.items())}\n        )\n\n\n(:init\n\n\n        "
        f"{spaced.join(lines + distances)}\n        )\n\n\n                {goal}\n            )\n            \n    "
    )
    return replace(game, id=f"{game.id}-official{rng.randrange(10**6):06d}", problem=problem)


def published_domain() -> str:
    """The domain as in all data releases of ALFWorld: a line of CleanObject is live, a comment in the package."""
    line = ";(receptacleType ?r SinkType)"
    assert shipped("alfred.pddl").count(line) == 1
    return shipped("alfred.pddl").replace(line, line[1:])


def other_grammar(game: Game, version: str) -> Game:
    """The game as it lies in a data release of ALFWorld: "2.1.1" (`put ... in/on ...`, no `help`) or "2.1.2"."""
    grammar = shipped("alfred.twl2").replace("UNKNOWN GOAL", game.goal)
    text = re.search(r'"help\.feedback".*?"rhs": "(.*?)"\s*\n', grammar, re.S).group(1)  # "\n" is two characters here
    grammar = re.sub(r"\naction help \{.*?\n\}\n", "", grammar, flags=re.S)
    domain, plan = published_domain(), game.walkthrough
    if version == "2.1.1":
        for old, new in (
            ("You arrive at {r.name}.", "You arrive at {lend.name}."),
            ("move {o} to {r}", "put {o} in/on {r}"),
            ("You move the {o.name} to the {r.name}.", "You put the {o.name} in/on the {r.name}."),
        ):
            assert old in grammar, old
            grammar = grammar.replace(old, new)
        domain = re.sub(r"\(:action help\b.*", ")\n", domain, flags=re.S)
        plan = plan and tuple(re.sub(r"^move (.*) to (.*)$", r"put \1 in/on \2", command) for command in plan)
    else:
        grammar += f'\naction help {{\n    template :: "help";\n    feedback :: "{text}";\n}}\n'
    return replace(game, id=f"{game.id}-{version}", grammar=grammar, domain=domain, walkthrough=plan)


def sliced(game: Game) -> Game | None:
    """The same task with a sliced target, as in alfworld's "..._slice" goals; None where it makes no sense."""
    cut = game.problem.index("(:goal")
    facts, goal = game.problem[:cut], game.problem[cut:]
    target = re.search(r"\(objectType \?o1? (\w+)\)", goal)
    if target is None or game.task_type == "look_at_obj_in_light" or room_of(game.scene) != "Kitchen":
        return None
    able = set(re.findall(r"\(sliceable (\S+)\)", facts))
    if not able & set(re.findall(rf"\(objectType (\S+) {target.group(1)}\)", facts)):
        return None
    goal = re.sub(r"\(objectType (\?o\d?) \w+\)", r"(sliceable \1)\n(isSliced \1)\n\g<0>", goal)
    return replace(game, id=f"{game.id}-sliced", problem=facts + goal, walkthrough=None)


# -- walks ------------------------------------------------------------------------------------------------------------


class _Searcher:
    """Goes everywhere, takes what the task sentence names, tries what can be done with it. Knows only texts."""

    def __init__(self, rng: random.Random, first: Observation):
        self.rng, self.held, self.visited, self.tried = rng, "", set(), Counter()
        self.goal = re.sub(r"[^a-z]", "", first.goal.lower())  # "salt shaker" names a saltshaker

    def named(self, thing: str) -> bool:
        return thing.split()[0] in self.goal

    def see(self, command: str, observation: Observation):
        taken = re.match(r"You pick up the (.*) from the ", observation.text)
        if taken:
            self.held = taken.group(1)
        elif command.startswith(("move ", "put ")) and observation.text.startswith("You "):
            self.held = ""

    def choose(self, observation: Observation) -> str | None:
        """The next command; None where only a random one is left."""
        options = defaultdict(list)
        for command in observation.admissible:
            verb, _, rest = command.partition(" ")
            options[verb].append((command, rest))
        wanted = [c for v in ("clean", "heat", "cool", "use", "slice") for c, _ in options[v]]
        wanted += [c for v in ("move", "put") for c, rest in options[v]
                   if self.named(re.split(r" to | in/on ", rest)[1]) or self.rng.random() < 0.2]  # fmt: skip
        wanted += [c for c, _ in options["open"]]
        wanted += [c for c, rest in options["take"] if self.named(rest) or self.rng.random() < 0.03]
        wanted = [c for c in wanted if self.tried[c] < 2]
        if not wanted:
            places = [c[6:] for c, _ in options["go"] if c[6:] not in self.visited]
            if not places:
                self.visited.clear()
                return None
            useful = [p for p in places if self.named(p) or p.split()[0] in ("sinkbasin", "microwave", "fridge")]
            place = self.rng.choice(useful if useful and self.held else places)
            self.visited.add(place)
            return f"go to {place}"
        self.tried[wanted[0]] += 1
        return wanted[0]


def walk(reference, game: Game, rng: random.Random, steps: int, kind: str) -> Transcript:
    """Play a game on the reference and keep all of it.

    Args:
        reference: an engine.
        game: to play.
        rng: of the choices.
        steps: actions at most; the episode ends earlier when it is won.
        kind: "random" (`explore`), "plan" (the walkthrough, a quarter of the commands replaced; half of these walks
            stay away from its last command and wander on) or "search" (`_Searcher`, a tenth replaced).
    """
    seen = reference.reset(game)
    rows = [_row(None, seen)]
    names = [command.removeprefix("go to ") for command in seen.admissible if command.startswith("go to ")] or ["desk"]
    script = list(game.walkthrough or ())
    if rng.random() < 0.5:
        script = script[:-1]
    searcher, played = _Searcher(rng, seen), []
    while len(played) < steps and not seen.done:
        command = None
        if rng.random() < 0.03:
            command = rng.choice(MALFORMED)
        elif kind == "plan" and script and rng.random() < 0.75:
            command = script.pop(0)
        elif kind == "search" and rng.random() < 0.9:
            command = searcher.choose(seen)
        if command is None:
            command = explore(rng, seen, names, played)
        things = [c.removeprefix("take ").split(" from ")[0] for c in seen.admissible if c.startswith("take ")]
        names += [name for name in things if name not in names]
        played.append(command)
        seen = reference.step(command)
        searcher.see(command, seen)
        rows.append(_row(command, seen))
    about = {name: getattr(game, name) for name in ("id", "task_type", "goal", "split", "scene", "problem", "domain",
                                                    "grammar")}  # fmt: skip
    return {"game": about, "kind": kind, "steps": rows}


def _row(command: str | None, seen: Observation) -> dict:
    return {"command": command, **{name: _plain(getattr(seen, name)) for name in FIELDS}}


def _plain(value):
    return list(value) if isinstance(value, tuple) else value  # as JSON gives it back


def compare_with(engine_factory: Callable[[], object], transcript: Transcript) -> str | None:
    """The first difference between a recording and another engine that is given the same commands; None for none."""
    game, commands = Game(**transcript["game"]), []
    engine = None
    for row in transcript["steps"]:
        try:
            if engine is None:
                engine = engine_factory()
                seen = engine.reset(game)
            else:
                commands.append(row["command"])
                seen = engine.step(row["command"])
        except Exception as error:  # whatever it is, the reference did not raise it
            return f"{game.id}: {error!r}\nafter {commands}"
        for name in FIELDS:
            a, b = row[name], _plain(getattr(seen, name))
            if name == "admissible":
                if a != b and set(a) == set(b):
                    return f"{game.id}: admissible commands in another order or number\nafter {commands}"
                a, b = sorted(set(a) - set(b)), sorted(set(b) - set(a))  # only what one of them has
            if a != b:
                return f"{game.id}: {name} differs\nreference: {a!r}\nengine:    {b!r}\nafter {commands}"
    return None


# -- recording --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """One walk to record. `base` and `version`: what to draw another variant from where `game` cannot be played."""

    game: Game
    kind: str
    steps: int
    seed: int
    base: Game | None = None
    version: str | None = None
    folder: Path = FOLDER

    def path(self) -> Path:
        game = self.game
        versions = [importlib.metadata.version(name) for name in ("alfworld", "textworld")]
        plan = game.walkthrough if self.kind == "plan" else None
        content = [game.id, game.problem, game.goal, game.domain, game.grammar, plan, self.kind, self.steps, self.seed]
        return self.folder / f"{hashlib.sha256(json.dumps([*content, *versions]).encode()).hexdigest()[:24]}.json.gz"

    def candidates(self) -> Iterator[Game]:
        yield self.game
        for attempt in range(1, 5 if self.base else 1):
            yield _official(self.base, self.version, f"{self.seed} {attempt}")


def _official(game: Game, version: str | None, seed: str) -> Game:
    variant = official_style(game, random.Random(f"{game.id} {seed}"))
    return other_grammar(variant, version) if version else variant


class _TooLong(Exception):
    """A game took longer than it may."""


def _start_worker(limit: float):
    global _limit, _reference
    import resource  # here: systems without it can still compare

    from sglib.envs.alfworld.textworld import TextWorldAlfworld

    def stop(*_):
        raise _TooLong(f"more than {limit:g} s of CPU time")

    _limit = limit
    signal.signal(signal.SIGPROF, stop)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    _reference = TextWorldAlfworld()


def _record(job: Job) -> str | None:
    """Play and write one recording; returns why there is none."""
    reason = ""
    for game in job.candidates():
        signal.setitimer(signal.ITIMER_PROF, _limit)
        try:
            transcript = walk(_reference, game, random.Random(f"{job.seed} {game.id}"), job.steps, job.kind)
        except (ValueError, MemoryError, _TooLong) as error:
            reason = str(error) or type(error).__name__
            if isinstance(error, _TooLong) or _TooLong.__name__ in reason:
                break
            continue
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        if transcript["steps"][0]["won"]:
            reason = "won at the start"
            continue
        write_atomic(job.path(), gzip.compress(json.dumps(transcript).encode(), 5, mtime=0))
        return None
    return f"{job.game.id}: {reason}"


def jobs(generated: int, derived: int, steps: int, seed: int) -> list[Job]:
    """The walks to record, mixed, so that any first part of the list is like the whole."""
    rng = random.Random(f"parity {seed}")
    found: list[tuple[Game, Game | None, str | None]] = []  # game, base, version
    groups = list(itertools.product(("train", "valid_unseen"), (8, 14, None)))
    extra = 0 if os.environ.get("SGLIB_ALFRED_TRIALS") else derived
    made = []
    for i, (split, size) in enumerate(groups):
        count = len(range(i, generated + extra, len(groups)))
        made.append(generate_games(count, seed=700 + seed, split=split, max_receptacles=size, start=10_000 * i))
    games = [game for row in itertools.zip_longest(*made) for game in row if game is not None]
    tenth, made = generated // 10, games[:generated]
    slices = [game for game in map(sliced, made) if game is not None][:tenth]
    cut = {game.id.removesuffix("-sliced") for game in slices}
    plain = [game for game in made if game.id not in cut]
    rng.shuffle(plain)
    plain[:tenth] = [other_grammar(game, "2.1.1") for game in plain[:tenth]]
    plain[tenth : 2 * tenth] = [other_grammar(game, "2.1.2") for game in plain[tenth : 2 * tenth]]
    found += [(game, None, None) for game in slices + plain]
    if extra:
        print("SGLIB_ALFRED_TRIALS names no file of ALFRED trial facts: generated games take the place of derived ones")
    bases = games[generated:] if extra else _trials(derived, rng)
    for i, game in enumerate(bases):
        if extra or i % 2:
            version = (None, None, "2.1.1", None, None, "2.1.2")[i // 2 % 6]
            found.append((_official(game, version, str(seed)), game, version))
        else:
            found.append((game, None, None))
    rng.shuffle(found)
    return [Job(g, KINDS[i % len(KINDS)], steps, seed, base, v) for i, (g, base, v) in enumerate(found)]


def _trials(n: int, rng: random.Random) -> list[Game]:
    """ALFRED-derived games, spread evenly over splits, task types and rooms; a third with human sentences."""
    from sglib.envs.alfworld.trials import from_alfred_trials

    worded = {}
    for sentences in ("template", "human"):
        for split in SPLITS:
            for game in from_alfred_trials(os.environ["SGLIB_ALFRED_TRIALS"], split=split, sentences=sentences):
                worded[game.id, sentences] = game
    groups = defaultdict(list)
    for (id_, sentences), game in worded.items():
        if sentences == "template":
            groups[game.split, game.task_type, room_of(game.scene)].append(id_)
    for ids in groups.values():
        rng.shuffle(ids)
    rows = itertools.zip_longest(*(groups[key] for key in sorted(groups)))
    ids = [id_ for row in rows for id_ in row if id_ is not None][:n]
    rng.shuffle(ids)
    return [worded[id_, "human" if i % 3 == 1 else "template"] for i, id_ in enumerate(ids)]


# -- official games ---------------------------------------------------------------------------------------------------


def official_games(root: Path) -> dict[str, list[Game]]:
    """The data set's games by folder (train, valid_seen, ...)."""
    return {folder.name: load_games(folder) for folder in sorted(root.iterdir()) if folder.is_dir()}


def official_jobs(splits: dict[str, list[Game]], n: int, steps: int, seed: int) -> list[Job]:
    """`n` walks through official games, spread evenly over splits, task types and kinds of rooms; mixed."""
    rng = random.Random(f"official parity {seed}")
    groups = defaultdict(list)
    for split, games in splits.items():
        for game in games:
            groups[split, game.task_type, room_of(game.scene)].append(game)
    for games in groups.values():
        rng.shuffle(games)
    rows = itertools.zip_longest(*(groups[key] for key in sorted(groups)))
    chosen = [game for row in rows for game in row if game is not None][:n]
    rng.shuffle(chosen)
    return [Job(game, KINDS[i % len(KINDS)], steps, seed, folder=OFFICIAL) for i, game in enumerate(chosen)]


def record(todo: list[Job], workers: int, limit: float = LIMIT) -> list[str]:
    """Record what is missing. What the reference cannot play in `limit` CPU-seconds and `MEMORY` is skipped with a
    message; returns those messages."""
    missing = [job for job in todo if not job.path().exists()]
    print(f"{len(todo)} walks, {len(todo) - len(missing)} of them recorded before", flush=True)
    skipped, spawn = [], multiprocessing.get_context("spawn")  # TextWorld's library must not be shared
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start_worker, initargs=(limit,)) as pool:
        futures = [pool.submit(_record, job) for job in missing]
        for future in tqdm(as_completed(futures), total=len(futures), unit="game", mininterval=5):
            if reason := future.result():
                skipped.append(reason)
                tqdm.write(f"skipped {reason}", file=sys.stderr)
    return sorted(skipped)


def walkthroughs(engine, splits: dict[str, list[Game]]) -> dict:
    """Play every game's own solution on an engine: games and wins by folder, and the games that are not won."""
    found = {"games": {name: len(games) for name, games in splits.items()}, "won": Counter(), "not_won": []}
    for name, games in splits.items():
        for game in tqdm(games, desc=name, unit="game", mininterval=5):
            seen = engine.reset(game)
            for command in game.walkthrough or ():
                seen = engine.step(command) if not seen.done else seen
            found["won"][name] += seen.won
            if not seen.won:
                found["not_won"].append(game.id)
    print(f"walkthroughs: {sum(found['won'].values())} of {sum(found['games'].values())} games are won")
    return found


def compare(
    engine_factory: Callable[[], object], out: Path | None = None, files: Sequence[Path] | None = None, **more
) -> list[str]:
    """Compare recordings (None: all of `FOLDER`) with an engine; prints what was compared, writes the counts and
    `more` to `out`, and returns the differences."""
    start, differences, steps = time.perf_counter(), [], 0
    rooms, tasks, verbs = Counter(), Counter(), {kind: Counter() for kind in KINDS}
    files = sorted(FOLDER.glob("*.json.gz")) if files is None else files
    for file in tqdm(files, unit="game"):
        transcript = json.loads(gzip.decompress(file.read_bytes()))
        if difference := compare_with(engine_factory, transcript):
            differences.append(difference)
        rows, game = transcript["steps"], transcript["game"]
        steps += len(rows) - 1
        rooms[room_of(game["scene"])] += 1
        tasks[game["task_type"]] += 1
        for before, after in itertools.pairwise(rows):
            if after["command"] in before["admissible"]:
                verbs[transcript["kind"]][after["command"].split()[0]] += 1
    for difference in differences[:20]:
        print(difference[:5000], end="\n\n")  # one malformed command is that long
    for kind in KINDS:
        print(f"{kind}:", ", ".join(f"{verb} {count}" for verb, count in verbs[kind].most_common()))
    for counted in (rooms, tasks):
        print(", ".join(f"{name} {count}" for name, count in counted.most_common()))
    print(f"{len(files)} games, {steps} steps, {len(differences)} games differ, {time.perf_counter() - start:.0f} s")
    if out:
        counts = {"games": len(files), "steps": steps, "games_that_differ": len(differences)}
        counts |= {"rooms": rooms, "tasks": tasks, "admissible_commands": verbs}
        packages = {name: importlib.metadata.version(name) for name in ("alfworld", "textworld")}
        content = counts | {"engine": source_hash("sglib/envs"), "packages": packages} | more
        write_atomic(out, json.dumps(content, indent=1) + "\n")
    return differences


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--generated", type=int, default=320, help="walks through generated games")
    parser.add_argument("--derived", type=int, default=320, help="walks through ALFRED-derived games and variants")
    parser.add_argument("--official", type=Path, metavar="FOLDER", help="ALFWorld's own data: its walkthroughs, and walks")  # noqa: E501
    parser.add_argument("--games", type=int, default=240, help="walks through official games")
    parser.add_argument("--steps", type=int, default=130, help="actions a walk, at most")
    parser.add_argument("--limit", type=float, default=LIMIT, help="CPU seconds for one game")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--record-only", action="store_true")
    either.add_argument("--compare-only", action="store_true")
    parser.add_argument("--out", type=Path, help="a file for the counts")
    args = parser.parse_args()
    from sglib import envs

    def engine():
        return envs.make("alfworld", engine="fast")

    files, more, lost = None, {}, []
    if args.official:
        splits = official_games(official_folder(args.official))
        more = {"walkthroughs": walkthroughs(engine(), splits)}
        lost = more["walkthroughs"]["not_won"]
        todo = official_jobs(splits, args.games, args.steps, args.seed)
        files = [job.path() for job in todo]
    else:
        todo = jobs(args.generated, args.derived, args.steps, args.seed)
    if not args.compare_only:
        record(todo, args.workers, args.limit)
    if args.record_only:
        return 0
    return 1 if compare(engine, args.out, files and [file for file in files if file.exists()], **more) or lost else 0


if __name__ == "__main__":
    sys.exit(main())
