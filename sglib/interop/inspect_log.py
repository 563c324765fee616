"""Evaluation logs of Inspect AI, version 2: JSON, or the `.eval` archive of the same
(https://inspect.aisi.org.uk/eval-logs.html; read and written by `inspect_ai.log.read_eval_log`)."""

from __future__ import annotations

import io
import re
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from sglib.interop import chat, convention
from sglib.records import Trajectory

ABOUT = "Inspect AI eval logs (version 1 or 2, .json or .eval)"
VERSION = 2
MEMBERS, MEMBER, TOTAL = 100_000, 256 * 2**20, 2 * 2**30  # of an archive: files, bytes of one, bytes of all
ZSTD = 93  # the method's number in a ZIP archive
GRADES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}  # letters that Inspect's scorers give
ATTACHMENT = "attachment://"  # and a hash: a text that the log keeps apart


class Sample(msgspec.Struct):
    id: int | str
    epoch: int = 1
    messages: list[dict] = []
    scores: dict[str, dict] | None = None
    metadata: dict = {}
    attachments: dict[str, str] = {}


class Log(msgspec.Struct):
    eval: dict
    version: Any = 2
    samples: list[Sample] | None = None


def found(rows: Sequence[Mapping]) -> bool:
    return isinstance(rows[0].get("eval"), Mapping) and "model" in rows[0]["eval"]


def log(trajectories: Sequence[Trajectory]) -> dict:
    """The log: one sample an episode, the episodes of one task are its epochs."""
    played: Counter[str] = Counter()
    samples = []
    for trajectory in trajectories:
        name = re.sub(r"[^\w.-]", "_", trajectory.game_id) or "_"  # it becomes a file's name in the archive
        played[name] += 1
        spoken = chat.messages(trajectory)
        turns = iter(trajectory.turns)
        for message in spoken:
            if message["role"] == "assistant":
                message["metadata"] = {convention.KEY: convention.step(next(turns))}
        samples.append({
            "id": name, "epoch": played[name], "input": spoken[0]["content"], "target": "", "messages": spoken,
            "scores": {"score": {"value": trajectory.score}},
            "metadata": {convention.KEY: convention.episode(trajectory, steps=False)},
        })  # fmt: skip
    mean = sum(t.score for t in trajectories) / len(trajectories)
    metrics = {"mean": {"name": "mean", "value": mean}}
    return {
        "version": VERSION, "status": "success",
        "eval": {
            "created": datetime.now(UTC).isoformat(), "task": trajectories[0].env or "sglib", "model": "unknown",
            "dataset": {"samples": len(played), "sample_ids": list(played)}, "config": {"epochs": max(played.values())},
        },
        "results": {
            "total_samples": len(samples), "completed_samples": len(samples),
            "scores": [{"name": "score", "scorer": "score", "metrics": metrics}],
        },
        "samples": samples,
    }  # fmt: skip


def write(trajectories: Sequence[Trajectory], archive: bool = False) -> str | bytes:
    """One file for all episodes; `archive` makes it an `.eval`."""
    made = log(trajectories)
    if not archive:
        return chat.dump(made, "episodes")
    samples, packed = made.pop("samples"), io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        start = {key: made[key] for key in ("version", "eval")} | {"plan": {}}
        file.writestr("_journal/start.json", chat.dump(start, "header"))
        for number, sample in enumerate(samples):
            text = chat.dump(sample, f"episode {number}")
            file.writestr(f"samples/{sample['id']}_epoch_{sample['epoch']}.json", text)
        short = [{key: s[key] for key in ("id", "epoch", "input", "target", "scores")} for s in samples]
        file.writestr("summaries.json", chat.dump(short, "summaries"))
        file.writestr("header.json", chat.dump(made, "header"))
    return packed.getvalue()


def unpack(data: bytes) -> dict:
    """An `.eval` archive as the log that it is. Nothing is written to disk, and names in the archive are no paths; one
    with more than `MEMBERS` files, or more than `MEMBER` bytes in one or `TOTAL` in all, is refused, whatever its head
    says. `ValueError` where it is no whole archive of a log."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            names = dict.fromkeys(file.namelist())
            head = "header.json" if "header.json" in names else "_journal/start.json"  # of a run that was cut off
            if head not in names or len(names) > MEMBERS:
                raise ValueError(f"a ZIP archive of {len(names)} files: a log has header.json, and at most {MEMBERS}")
            total, read = 0, {}
            for name in (head, *(n for n in names if re.fullmatch(r"samples/[^/\\]+\.json", n))):
                with _opened(file, name, data) as member:
                    read[name] = member.read(MEMBER + 1)
                total += len(read[name])
                if len(read[name]) > MEMBER or total > TOTAL:
                    raise ValueError(f"{name}: over {MEMBER} bytes, or with those before it over {TOTAL}")
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, zipfile.zlib.error) as error:
        raise ValueError(f"no whole ZIP archive: {error}") from error
    header = chat.parse(read.pop(head), head)
    if not isinstance(header, dict):
        raise ValueError(f"{head}: an object was expected")
    return {**header, "samples": [chat.parse(text, name) for name, text in read.items()]}


def _opened(file: zipfile.ZipFile, name: str, data: bytes):
    """A member for reading. Inspect packs with zstd, which `zipfile` reads from Python 3.14 on, and Arrow now."""
    info = file.getinfo(name)
    if info.compress_type != ZSTD:
        return file.open(info)
    import pyarrow  # imported here: takes a moment

    lengths = data[info.header_offset + 26 : info.header_offset + 30]  # of the name and extra field in the local header
    start = info.header_offset + 30 + sum(int.from_bytes(lengths[i : i + 2], "little") for i in (0, 2))
    return pyarrow.CompressedInputStream(pyarrow.BufferReader(data[start : start + info.compress_size]), "zstd")


def read(rows: Sequence[Mapping]) -> list[Trajectory]:
    """One episode a sample."""
    episodes = []
    for row in rows:
        chat.check_version("version of the eval log", row.get("version", VERSION), 1, VERSION)
        it = msgspec.convert(row, Log)
        for sample in it.samples or []:
            spoken = [
                chat.said(_whole(message, sample.attachments), chat.own(message.get("metadata")))
                for message in sample.messages
            ]
            episodes.append(chat.read(
                spoken, "Inspect AI", own=chat.own(sample.metadata), task=str(sample.id), reward=_reward(sample.scores),
            ))  # fmt: skip
    return episodes


def _whole(value: Any, attachments: Mapping[str, str]) -> Any:
    """The message with its long texts, which a log keeps apart as attachments."""
    if isinstance(value, str):
        return attachments.get(value.removeprefix(ATTACHMENT), value) if value.startswith(ATTACHMENT) else value
    if isinstance(value, list):
        return [_whole(item, attachments) for item in value]
    return {key: _whole(item, attachments) for key, item in value.items()} if isinstance(value, dict) else value


def _reward(scores: Mapping[str, Mapping] | None) -> float | None:
    """The first score that is a number or a grade."""
    for score in (scores or {}).values():
        value = score.get("value")
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, str) and value in GRADES:
            return GRADES[value]
    return None
