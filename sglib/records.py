"""The nouns that everything else speaks of: `Observation`, `Turn`, `Trajectory`, and how they are kept on disk.

An episode is tau = {(o_t, z_t, a_t)}, t = 1..T (Self-Guide, arXiv 2604.03098, section 3): an observation, an optional
self-guidance, an action. One `Turn` is one such triple together with every reward that was computed for it; one
`Trajectory` is the whole episode together with the exact tokens that the trainer sees.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import re
import tempfile
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, get_type_hints

import msgspec

LABELS = ("negative", "neutral", "positive")
CHECK = "check"  # the last key of a line or a JSON file: what it must hold to be whole
_CHECKED = re.compile(rb', "check": "([0-9]{1,9})/([0-9]{1,9}) ([0-9a-f]{8})"\}\s*$')


class Observation(NamedTuple):
    """What an environment answers to `reset` and `step`; a named tuple, since one is made at every step.

    Attributes:
        text: what the environment says, character for character.
        goal: the task sentence, without "Your task is to:".
        admissible: the commands that do something now, sorted; never shown to the policy unless a format says so.
        reward: the environment's own reward of the last action.
        won: whether the goal holds now.
        done: whether the episode is over (won, or the step limit is reached).
        steps: actions taken since `reset`.
        info: further facts for measuring, never shown to the policy.
        score: how well the task is done so far, 0..1; of a task that is won or lost, 1 when it is won.
        valid: whether the last action was one that does something there; True after `reset`.
    """

    text: str
    goal: str
    admissible: tuple[str, ...]
    reward: float
    won: bool
    done: bool
    steps: int
    info: Mapping[str, float] = MappingProxyType({})
    score: float = 0.0
    valid: bool = True


@dataclass(slots=True)
class Turn:
    """One observation, what the policy wrote, the action taken, and every reward of it.

    Attributes:
        observation: the environment's text that the policy read before writing.
        response: what the policy wrote, raw.
        action: the command sent to the environment (after parsing).
        valid: whether it was one that does something there, as the environment says.
        guidance: the reason that the policy wrote before acting (format `guide`), else None.
        label: its rating of the prefix so far, one of `LABELS` (format `guide`), else None.
        progress: its own estimate in percent, 0..100 (formats `progress`, `retrospect`), else None.
        parse_error: the name of the failure where the response did not follow the format, else None.
        reward: the environment's reward of this action.
        distance: fewest actions to the goal *before* this action, with full knowledge; None where that was not
            recorded or the goal can no longer be reached.
        rewards: per-turn internal rewards by component name, exactly the values the trainer used.
        advantage: the advantage that this turn's tokens were trained with, None where it was not trained on.
        span: [start, end) of this turn's policy tokens inside `Trajectory.completion_ids`.
        truth: true progress before this action, 0..1, of an environment that has no distance; else None.
    """

    observation: str
    response: str
    action: str
    valid: bool
    guidance: str | None = None
    label: str | None = None
    progress: float | None = None
    parse_error: str | None = None
    reward: float = 0.0
    distance: int | None = None
    rewards: dict[str, float] = field(default_factory=dict)
    advantage: float | None = None
    span: tuple[int, int] = (0, 0)
    truth: float | None = None

    def detail(self, name: str) -> float | None:
        """What a component noted with its value, as "repro/retrospective" for "retrospective"; None where none did."""
        return next((value for key, value in self.rewards.items() if key.endswith(f"/{name}")), None)


@dataclass(slots=True)
class Trajectory:
    """A whole episode.

    Attributes:
        game_id, task_type, goal: which task was played.
        format: the way of acting, a key of `sglib.formats.FORMATS`.
        turns: the episode, in order.
        won: whether the goal was reached.
        final_observation: the environment's text after the last action (no turn answers it).
        final_distance, final_truth: `Turn.distance` and `Turn.truth` after the last action.
        group: episodes with the same value belong to one GRPO group (same game, same prompt).
        seed: the seed of the `rollout` call.
        prompt_ids: token ids before the first generated token, length P.
        completion_ids: everything after it, policy and environment tokens alike, length C.
        mask: length C; 1 where the policy wrote the token, 0 elsewhere.
        logprobs: length C; log-probability of each policy token under the distribution it was sampled from
            (temperature included), 0.0 where `mask` is 0.
        total_return: the return R(tau; u) that the advantage was computed from, None before training.
        origin: JSON data from which the environment makes the task again, None where it cannot.
        env: name of the environment; "" in files from before there were several.
        score: `Observation.score` at the end, 0..1.
        no_room: whether it ended since the model's context had no room for another turn.
    """

    game_id: str
    task_type: str
    goal: str
    format: str
    turns: list[Turn] = field(default_factory=list)
    won: bool = False
    final_observation: str = ""
    final_distance: int | None = None
    group: int = 0
    seed: int = 0
    prompt_ids: list[int] = field(default_factory=list)
    completion_ids: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    total_return: float | None = None
    origin: dict | None = None
    env: str = ""
    score: float = 0.0
    final_truth: float | None = None
    no_room: bool = False

    def __len__(self) -> int:
        return len(self.turns)

    @property
    def distances(self) -> list[int | None]:
        """Distance to the goal before each action and after the last one: T + 1 values."""
        return [turn.distance for turn in self.turns] + [self.final_distance]

    def remaining(self) -> list[float] | None:
        """What is left to do before each action and after the last one, T + 1 values: actions to the goal; where it can
        no longer be reached, more than anywhere before, at least twice the first distance (ours); without distances 1 -
        progress. None where neither was recorded."""
        distances = self.distances
        if distances[0] is not None:
            lost = max(2 * distances[0], 1 + max(d for d in distances if d is not None))
            return [lost if d is None else d for d in distances]
        truths = [turn.truth for turn in self.turns] + [self.final_truth]
        return None if any(x is None for x in truths) else [1 - x for x in truths]

    def progress(self) -> list[float] | None:
        """True progress before each action and after the last one, T + 1 values in 0..1: 1 - what is left over what was
        left at first, clipped. None where nothing was recorded."""
        left = self.remaining()
        return left and [share_done(x, left[0]) for x in left]

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict) -> Trajectory:
        """Inverse of `to_dict`; `ValueError` names a field that is unknown, missing, or of another type."""
        data = dict(data)
        data.pop(CHECK, None)  # of its line in a file
        if "recipe" in data:  # the name of `origin` in earlier files
            data["origin"] = data.pop("recipe")
        data.setdefault("score", float(data.get("won") is True))
        try:
            found = msgspec.convert(data, cls)
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from error
        for kind, given in ((cls, data), *((Turn, turn) for turn in data.get("turns", ()))):
            known = {f.name for f in dataclasses.fields(kind)}
            if unknown := sorted(set(given) - known):
                names = ", ".join(sorted(known))
                raise ValueError(f"{kind.__name__}: unknown field {unknown[0]!r}; known fields: {names}")
        return found


def share_done(left: float | None, first: float) -> float:
    """Progress in 0..1 from what is left and what was left at first: 1 - left / first, clipped; 0 where the goal is out
    of reach (`left` is None)."""
    return 0.0 if left is None else min(1.0, max(0.0, 1 - left / max(first, 1)))


def write_atomic(path: str | Path, text: str | bytes) -> Path:
    """Write a file so that a reader sees the old content or the new one, never half of it, also after a power cut.

    Raises:
        OSError: it cannot be written (a full disk, no right to), naming the file, which stays as it was.
    """
    path = Path(path)
    data = text.encode() if isinstance(text, str) else text
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # or the new name could be on the disk before the content is
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            with contextlib.suppress(OSError):  # its folder may be gone
                os.unlink(temporary)
        if isinstance(error, OSError) and error.errno is not None:
            raise type(error)(error.errno, f"{error.strerror}; not written", str(path)) from error
        raise
    return path


def write_checked(path: str | Path, content: dict) -> Path:
    """Write JSON data, with a checksum as its last key, atomically. Returns the path."""
    text = json.dumps(content)
    check = f"{zlib.crc32(text.encode()):08x}"
    return write_atomic(path, json.dumps({**content, CHECK: check}))


def read_checked(path: str | Path) -> dict:
    """What `write_checked` wrote; files from before there were checksums have none and are taken as they are.

    Raises:
        ValueError: the file is damaged or was altered, naming it.
    """
    try:
        content = json.loads(Path(path).read_bytes())
        if not isinstance(content, dict):
            raise ValueError(f"expected keys and values, found {type(content).__name__}")
        check = content.pop(CHECK, None)
        if check not in (None, f"{zlib.crc32(json.dumps(content).encode()):08x}"):
            raise ValueError("its checksum does not fit: it was altered after it was written")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: damaged: {error}") from error
    return content


def whole(path: Path) -> bool:
    """Whether a file that `write_checked` wrote is there; a damaged one is set aside."""
    if not path.exists():
        return False
    try:
        read_checked(path)
    except ValueError as error:
        set_aside(path, error)
        return False
    return True


def set_aside(path: Path, reason: object) -> Path:
    """Rename a damaged file or folder to `damaged-<name>`, so that the rest can be read, and warn. Returns where it is
    now."""
    target = path.with_name(f"damaged-{path.name}")
    number = 1
    while target.exists():
        number += 1
        target = path.with_name(f"damaged{number}-{path.name}")
    path.rename(target)
    warnings.warn(f"{path}: set aside as {target.name}: {reason}", stacklevel=2)
    return target


@contextlib.contextmanager
def uncollected():
    """No garbage collection inside: among a million new objects the collector would search again and again in vain."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


TOKENS = ("prompt_ids", "completion_ids", "mask", "logprobs")  # the fields with one entry a token
_DECODER = msgspec.json.Decoder(Trajectory)
_WITHOUT_TOKENS = msgspec.json.Decoder(
    msgspec.defstruct("WithoutTokens", [(k, v) for k, v in get_type_hints(Trajectory).items() if k not in TOKENS])
)


def write_trajectories(path: str | Path, trajectories: Iterable[Trajectory]) -> Path:
    """Write trajectories as JSON lines, atomically. Returns the path.

    The last key of a line says which of how many it is, and has a checksum: `"check": "3/16 1a2b3c4d"`.
    """
    lines = [json.dumps(t.to_dict()) for t in trajectories]
    return write_atomic(path, "".join(_signed(line, f"{n}/{len(lines)}") for n, line in enumerate(lines, 1)))


def _signed(line: str, place: str) -> str:
    body = line[:-1]
    return f'{body}, "{CHECK}": "{place} {zlib.crc32((body + place).encode()):08x}"}}\n'


def _check(line: bytes, number: int) -> int | None:
    """How many lines the file of a line should have, None where the line does not say; `ValueError`: it is not as it
    was written, or not in its place."""
    found = _CHECKED.search(line, max(0, len(line) - 60))
    if not found:
        return None
    place, total = b"%b/%b" % found.group(1, 2), int(found[2])
    if zlib.crc32(place, zlib.crc32(memoryview(line)[: found.start()])) != int(found[3], 16):
        raise ValueError("its checksum does not fit: it was altered after it was written")
    if int(found[1]) != number:
        raise ValueError(f"it was line {int(found[1])}: lines before it are missing, or there are more")
    return total


def _lines(data: bytes) -> list[bytes]:
    return [line for line in data.split(b"\n") if line and not line.isspace()]


def _check_end(totals: list[int | None]) -> None:
    """`ValueError`: lines are missing after those whose `_check` is given, or one has lost its checksum."""
    said = {total for total in totals if total is not None}
    if said and None in totals:
        raise ValueError(f"episode {totals.index(None) + 1} has no checksum, but others have")
    if said and said != {len(totals)}:
        raise ValueError(f"the file ends after line {len(totals)} of {max(said)}")


def iter_trajectories(path: str | Path) -> Iterator[Trajectory]:
    """Yield the trajectories of a JSON-lines file one by one; `ValueError` names a line that is none, or that is not
    as it was written, and, at its end, a file that ends too early (`salvage` reads the rest)."""
    totals = []
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if line.isspace():
                continue
            try:
                totals.append(_check(line, len(totals) + 1))
                yield Trajectory.from_dict(json.loads(line))
            except (ValueError, TypeError, AttributeError, RecursionError) as error:
                raise ValueError(f"{path}, line {number}: not a trajectory: {error}") from error
    try:
        _check_end(totals)
    except ValueError as error:
        raise ValueError(f"{path}: damaged: {error}") from None


def read_trajectories(path: str | Path, tokens: bool = True) -> list[Trajectory]:
    """Read a JSON-lines file written by `write_trajectories`: what `iter_trajectories` yields, several times as fast.
    `tokens=False` leaves token ids, mask and log-probabilities empty; faster still, and half the memory.

    Only the first line is searched for fields that do not exist, since the lines of a file come from one writer.
    """
    with uncollected():
        try:
            decoder = _DECODER if tokens else _WITHOUT_TOKENS
            data = Path(path).read_bytes()
            found = decoder.decode_lines(data)
            found = found if tokens else [Trajectory(**msgspec.structs.asdict(row)) for row in found]
            _check_end([_check(line, place) for place, line in enumerate(_lines(data), 1)])
            first = next(iter_trajectories(path), None)
            if found and (first if tokens else without_tokens(first)) == found[0]:
                return found
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
            pass  # numbers that are not finite, which JSON proper does not have; or something that is named below
        return [t if tokens else without_tokens(t) for t in iter_trajectories(path)]


def salvage(path: str | Path) -> list[Trajectory]:
    """What can be read of a damaged file of trajectories. The file is set aside (`set_aside`), and what is whole is
    written in its place; a file that is whole stays as it is."""
    path, kept, wrong = Path(path), [], []
    lines = _lines(path.read_bytes())
    said = next((found for line in lines if (found := _CHECKED.search(line))), None)
    for number, line in enumerate(lines, 1):
        try:
            place = _CHECKED.search(line)
            if said and not place:
                raise ValueError("it has no checksum, but others have")
            _check(line, int(place[1]) if place else number)
            kept.append(Trajectory.from_dict(json.loads(line)))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            wrong.append(f"line {number}: {error}")
    missing = int(said[2]) - len(lines) if said else 0
    if missing:
        wrong.append(f"{missing} lines are missing")
    if wrong:
        set_aside(path, "; ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""))
        write_trajectories(path, kept)
    return kept


def without_tokens(trajectory: Trajectory) -> Trajectory:
    """The episode without token ids, mask and log-probabilities."""
    return dataclasses.replace(trajectory, **{name: [] for name in TOKENS})
