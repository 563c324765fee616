"""What reads text from outside, fuzzed: a target for each reader, inputs that are mutations of good ones, and how long
each takes. `tests/chaos.py` runs it; what was found once is kept in `tests/corpus/<target>/` and read by the suite.

A reader is total: whatever comes, it returns or raises the error that it promises, quickly.
"""

from __future__ import annotations

import contextlib
import functools
import json
import random
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from sglib import envs, formats
from sglib.envs.alfworld import generate_games
from sglib.envs.alfworld.grammar import UnsupportedGame, read_domain, read_grammar, shipped
from sglib.envs.alfworld.trials import PassedOver, read_game
from sglib.envs.alfworld.world import read_problem
from sglib.envs.search_qa.files import load_questions
from sglib.envs.sokoban.levels import load_xsb
from sglib.envs.webshop.catalogue import read_products
from sglib.envs.webshop.engine import parse_action
from sglib.experiments import evidence
from sglib.experiments.experiment import Experiment
from sglib.experiments.files import ParameterError, read_yaml, repo_root
from sglib.experiments.params import check, load_file
from sglib.experiments.recipe import make_recipe
from sglib.experiments.tables import escape
from sglib.formats import two_stage
from sglib.models.endpoint import EndpointError, EndpointPolicy, without_thought
from sglib.records import Trajectory, Turn, read_checked, read_trajectories, salvage, write_trajectories

CORPUS = Path(__file__).parent / "corpus"
READERS = ("sglib.formats", "sglib.records", "sglib.envs", "sglib.models.endpoint")  # modules with readers
SLOW = 2.0  # seconds of processor time for one input
PIECES = (
    "Action:", "Guidance:", "Label: positive", "Progress: 1e400", "<action>", "</think>", "**", "```", "\n", "\t",
    "{", "}", "[", "]", "(", ")", '"', "'", "\\", "0", "-1", "9" * 400, "1e999", "NaN", "Infinity", "null", "true",
    "\x00", "\x1b[31m", "\u202e", "\ud800", "\U0001f600", "<script>", "&", "!!python/object/apply:os.system", "&a [*a]",
    "../../x", "/etc/passwd", ":", ",", "- ", "? ", "| ", "#", "%", "$", ";", "é", "\u0661\u0662",
)  # fmt: skip
REPEATED = ("Action: a ", "<action>", "**Label** : ", "( a", "a\n", " \n", '{"a":', "- a\n", "[a]", "?", "a: [")
ODD = (None, True, -1, 0, 10**30, 1e308, float("nan"), "", "x" * 300, [], {}, [[]], {"a": None}, "\ud800", [None], "1")


@dataclass(frozen=True)
class Target:
    """A reader: `read(text)`, good `seeds` to begin with, and the errors that it promises."""

    read: Callable[[str], object]
    seeds: tuple[str, ...]
    errors: tuple[type[Exception], ...] = ()
    grows: bool = True  # whether inputs may be as long as anybody likes, so that its time must not be quadratic


@functools.cache
def folder() -> Path:
    """Where a target's file lies, in memory where there is a file system for that."""
    memory = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix="sglib-fuzz-", dir=memory if memory.is_dir() else None))
    return path


def from_file(name: str, read: Callable[[Path], object]) -> Callable[[str], object]:
    def target(text: str):
        path = folder() / name
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        return read(path)

    return target


def _salvage(path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = salvage(path)
    assert read_trajectories(path) == kept or any(t != t for t in kept) or "nan" in repr(kept)
    for other in path.parent.glob("damaged*"):
        other.unlink()


def _answer(text: str):
    """An endpoint's answer: a client that makes objects of whatever JSON came, as OpenAI's does."""
    try:
        body = json.loads(text, object_hook=lambda d: SimpleNamespace(**{str(k): v for k, v in d.items()}))
    except (ValueError, RecursionError):
        body = text
    policy = _endpoint()
    create = SimpleNamespace(create=lambda **_: body)
    policy._client = SimpleNamespace(chat=SimpleNamespace(completions=create))
    found, cut = policy.ask([], temperature=1.0, max_new_tokens=5, seed=0)
    assert isinstance(found, str) and isinstance(cut, bool)
    found.encode()


@functools.cache
def _endpoint() -> EndpointPolicy:
    return EndpointPolicy("endpoint:http://127.0.0.1:9/v1#m")


def _cell() -> tuple[Experiment, str]:
    p = check("grpo", {"env": "alfworld", "size": "smoke", "eval_games": 4})
    cell = Experiment("grpo", p)
    content = {
        "recipe": "grpo", "seed": 0, "key": "k", "panel": "p", "params": {"eval_games": 4, "eval_seeds": 2},
        "card": {"source": "s", "configuration": "c", "episodes": {}, "versions": {}, "machine": {}},
        "before": "0101", "start": "", "after": "0210", "during": ["0101"],
        "batches": {"iteration": [0, 1], "success": [0.1, None]},
    }  # fmt: skip
    return cell, json.dumps(content)


def _hostile(text: str):
    shown = escape(text)
    assert not set("<>\x1b\x07\x00\u202e") & set(shown) and "'" not in shown and '"' not in shown


@functools.cache
def targets() -> dict[str, Target]:
    turn = Turn("You see a mug.", "Action: look", "look", True, "g", "positive", rewards={"a": 0.1}, span=(0, 2))
    trajectory = Trajectory("g", "t", "goal", "act", [turn, turn], prompt_ids=[1], completion_ids=[2, 3], mask=[1, 1])
    records = write_trajectories(folder() / "seed.jsonl", [trajectory] * 3).read_text()
    game = generate_games(1, seed=0, max_receptacles=6)[0]
    game.save(folder() / "game")
    file = next((folder() / "game").rglob("game.tw-pddl"))
    (folder() / "traj_data.json").write_bytes((file.parent / "traj_data.json").read_bytes())
    cell, content = _cell()
    recipes = tuple(path.read_text() for path in sorted((repo_root() / "params" / "recipes").glob("*.yaml"))[::6])
    params = ((repo_root() / "params" / "smoke.yaml").read_text(),)
    answers = (
        "Guidance: find a mug\nLabel: positive\nAction: go to desk 1", "**Progress:** 40 %\n**Action:** `look`",
        '{"action": "look", "label": "neutral", "guidance": "x"}', "<think>hm</think><action>go north</action>",
        "1. Action: take mug 1 from desk 1 (now).", "Progress: 10, 20.5, 100",
    )  # fmt: skip
    levels = ("#####\n#@$.#\n#####\n", "; a title\n######\n#+ $ #\n#  * #\n######\n\n####\n#@*#\n####\n")
    product = {
        "asin": "B1", "pricing": "$1.00$2.00", "name": "n", "query": "q", "category": "c", "small_description": [],
        "product_category": "p", "full_description": "d", "customization_options": {"color": [{"value": "red"}]},
    }  # fmt: skip
    context = {"supporting_facts": [["T", 0]], "context": [["T", ["s."]]]}
    hotpot = {"_id": "1", "question": "Who?", "answer": "x", **context}
    paragraphs = [{"title": "T", "paragraph_text": "p", "is_supporting": True}]
    musique = {"id": "2", "question": "Who?", "answer": "x", "answer_aliases": ["y"], "paragraphs": paragraphs}
    plain = {"question": "Who?", "golden_answers": ["x"], "answer": "x", **context}
    reply = {"choices": [{"message": {"content": "Action: look"}, "finish_reason": "stop"}], "error": None}
    running = {name: envs.make(name) for name in ("alfworld", "sokoban", "search_qa", "webshop")}
    for name, env in running.items():
        env.reset(envs.get(name).tasks(1)[0])

    def step(name: str) -> Callable[[str], object]:
        env, task = running[name], envs.get(name).tasks(1)[0]

        def act(text: str):
            seen = env.step(text)
            assert isinstance(seen.text, str) and isinstance(seen.valid, bool)
            if seen.done:
                env.reset(task)

        return act

    found = {name: Target(functools.partial(formats.parse, name), answers) for name in sorted(formats.FORMATS)}
    found = {f"format {name}": target for name, target in found.items()}
    found |= {
        "format retrospect": Target(lambda text: formats.retrospect.parse_retrospect(text, 3), answers),
        "format two_stage": Target(lambda text: two_stage.parse(text, text), answers),
        "thoughts": Target(without_thought, answers),
        "webshop action": Target(parse_action, ("search[red mug]", "click[buy now]")),
        "hostile text": Target(_hostile, ("<img src=x onerror='a'>", *answers)),
        "endpoint answer": Target(_answer, (json.dumps(reply), '{"error": {"message": "x"}}'), (EndpointError,)),
        "records": Target(from_file("t.jsonl", read_trajectories), (records,), (ValueError,)),
        "records salvaged": Target(from_file("s.jsonl", _salvage), (records,)),
        "checked file": Target(from_file("c.json", read_checked), ('{"a": 1, "check": "x"}',), (ValueError,)),
        "cell": Target(from_file("x.json", lambda path: evidence._checked(path, cell)), (content,), (ValueError,)),
        "game file": Target(from_file("game.tw-pddl", read_game), (file.read_text(),), (ValueError, PassedOver)),
        "game problem": Target(read_problem, (game.problem,), (UnsupportedGame,)),
        "game domain": Target(read_domain, (shipped("alfred.pddl"),), (UnsupportedGame,), grows=False),
        "game grammar": Target(lambda text: read_grammar(text, "g"), (shipped("alfred.twl2"),), (UnsupportedGame,)),
        "sokoban levels": Target(from_file("l.xsb", load_xsb), levels, (ValueError,)),
        "questions": Target(
            from_file("q.json", load_questions),
            (json.dumps([hotpot]), json.dumps(musique), json.dumps(plain)), (ValueError,),
        ),
        "products": Target(
            lambda text: read_products(_json_list(text), {}, random.Random(0)), (json.dumps([product]),), (ValueError,)
        ),
        "recipe file": Target(
            from_file("r.yaml", lambda path: make_recipe(read_yaml(path), "r")), recipes, (ParameterError,), grows=False
        ),
        "parameters file": Target(from_file("p.yaml", load_file), params, (ParameterError,), grows=False),
    }  # fmt: skip
    commands = ("look", "go to desk 1", "search[red mug]", "up")
    with contextlib.suppress(EndpointError):
        _answer("null")  # loads the client's library, which takes seconds
    found |= {f"command {name}": Target(step(name), commands) for name in running}
    return found


def _json_list(text: str) -> list:
    """What the catalogue's reader has checked before."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return found if isinstance(found, list) else [found]


def tidy() -> None:
    shutil.rmtree(folder(), ignore_errors=True)


# -- inputs -----------------------------------------------------------------------------------------------------------


def mutated(rng: random.Random, seeds: tuple[str, ...]) -> str:
    """One of the seeds with one to four changes; of JSON every other time within its values."""
    text = rng.choice(seeds)
    if text[:1] in "[{" and rng.random() < 0.5:
        try:
            return json.dumps(_odd(rng, json.loads(text)))
        except ValueError:
            pass
    for _ in range(rng.randint(1, 4)):
        i, j = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
        j = min(j, i + 60)
        match rng.randrange(6):
            case 0:
                text = text[:i] + text[j:]
            case 1:
                text = text[:i] + text[i:j] * rng.randint(2, 5) + text[j:]
            case 2:
                text = text[:i] + rng.choice(PIECES) + text[i:]
            case 3:
                text = text[:i] + rng.choice(PIECES) + text[j:]
            case 4:
                other = rng.choice(seeds)
                text = text[:i] + other[rng.randint(0, len(other)) :][:200] + text[j:]
            case 5:
                text = text[:i] + chr(rng.randrange(0xD7FF)) + text[i + 1 :]
    return text


def _odd(rng: random.Random, value):
    """JSON data in which something is replaced, left out, or added."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        if rng.random() < 0.15:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: _odd(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.8:
        i = rng.randrange(len(value))
        return [*value[:i], _odd(rng, value[i]), *value[i + 1 :]]
    return rng.choice(ODD)


def tried(target: Target, text: str) -> str | None:
    """What is wrong with a reader, by one input: a crash, or too long a time. None for nothing."""
    began = time.process_time()
    try:
        target.read(text)
    except target.errors:
        pass
    except (Exception, RecursionError) as error:
        return f"{type(error).__name__}: {error}"[:300]
    took = time.process_time() - began
    return f"{took:.1f} s for {len(text)} characters" if took > SLOW else None


def fuzz(name: str, count: int, seconds: float, seed: int, known: dict[str, str] | None = None) -> tuple[int, dict]:
    """(inputs tried, what is wrong -> an input) of at most `count` inputs and `seconds` of processor time
    (or twice that, where others have the processor)."""
    target, rng, wrong = targets()[name], random.Random(f"{name} {seed}"), known if known is not None else {}
    short = [text for text in corpus(name) if len(text) < 1000]  # others are about how long they are
    seeds, until, number = (*target.seeds, *short), time.process_time() + seconds, 0
    latest = time.monotonic() + 2 * seconds
    while number < count and (number % 16 or (time.process_time() < until and time.monotonic() < latest)):
        text = mutated(rng, seeds)
        number += 1
        if (found := tried(target, text)) and len(wrong) < 20:
            kind = found.partition(":")[0]
            if kind not in wrong or len(text) < len(wrong[kind][1]):
                wrong[kind] = (found, text)
    return number, wrong


def growth(name: str, small: int = 8_000, times: int = 4) -> str | None:
    """What is wrong with how a reader's time grows: inputs of a repeated piece, `times` as long, may not take more than
    twice that much longer (below 50 ms nothing is said)."""
    target = targets()[name]
    for piece in (*PIECES, *REPEATED):
        text = piece * (small // len(piece))
        took = []
        for given in (text, text * times):
            began = time.process_time()
            tried(target, given)
            took.append(time.process_time() - began)
        if took[1] > 0.05 and took[1] > 2 * times * took[0]:
            began = time.process_time()  # again: a collection of garbage may have come in between
            tried(target, text * times)
            if time.process_time() - began > 2 * times * took[0]:
                return f"{piece!r} x {len(text * times) // len(piece)}: {took[0]:.3f} s, then {took[1]:.3f} s"
    return None


def corpus(name: str) -> tuple[str, ...]:
    """Inputs that were found once."""
    files = sorted((CORPUS / name.replace(" ", "_")).glob("*.txt"))
    return tuple(file.read_bytes().decode("utf-8", "surrogatepass") for file in files)
