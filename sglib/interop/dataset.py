"""A `datasets` dataset of conversations: the column `messages` as TRL reads it, and a column for each key of the
step-reward convention. A file of it is Parquet, which `load_dataset("parquet", data_files=...)` and the Hub read."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sglib.interop import chat, convention
from sglib.records import TOKENS, Trajectory

if TYPE_CHECKING:
    import datasets

ABOUT = "datasets of conversations (rows with a column `messages`; Parquet, save_to_disk or JSON)"
PARTS = ("prompt", "completion")  # TRL's other way to hold a conversation


def found(rows: Sequence[Mapping]) -> bool:
    columns = [rows[0].get("messages")] if "messages" in rows[0] else [rows[0].get(name) for name in PARTS]
    return all(isinstance(column, list) and isinstance(column[0] if column else {}, Mapping) for column in columns)


def row(trajectory: Trajectory) -> dict:
    """One row: `messages`, `episode_<key>` and `step_<key>`, a list with one entry a step. Rewards by component are
    lists of names and values, and an origin is JSON, since a column has one type."""
    told = convention.episode(trajectory)
    steps, tokens = told.pop("steps"), told.pop("tokens", {})
    made = {"messages": chat.messages(trajectory), "episode_version": told["version"]}
    made |= {f"episode_{key}": told.get(key) for key in convention.EPISODE}
    made["episode_origin"] = json.dumps(trajectory.origin) if trajectory.origin is not None else None
    made |= {f"episode_{name}": tokens.get(name, []) for name in TOKENS}
    made |= {f"step_{key}": [step.get(key) for step in steps] for key in (*convention.STEP, "anchor")}
    made["step_rewards"] = [[{"name": k, "value": v} for k, v in turn.rewards.items()] for turn in trajectory.turns]
    return made


def dataset(trajectories: Sequence[Trajectory]) -> datasets.Dataset:
    """Episodes as a dataset, for `push_to_hub` or a trainer."""
    from datasets import Dataset, Features, List, Value  # imported here: takes a second

    text = Value("string")
    kinds = {"messages": List({"role": text, "content": text}), "episode_version": text}
    whole = dict.fromkeys(("group", "seed", "final_distance"), "int64") | dict.fromkeys(("won", "no_room"), "bool")
    whole |= dict.fromkeys(("score", "return", "final_progress"), "float64")
    kinds |= {f"episode_{key}": Value(whole.get(key, "string")) for key in convention.EPISODE}
    kinds |= {f"episode_{name}": List(Value("float64" if name == "logprobs" else "int64")) for name in TOKENS}
    each = {"admissible": Value("bool"), "distance": Value("int64"), "span": List(Value("int64"))}
    each |= dict.fromkeys(("reward", "advantage", "progress", "stated_progress"), Value("float64"))
    each["rewards"] = List({"name": text, "value": Value("float64")})
    kinds |= {f"step_{key}": List(each.get(key, text)) for key in (*convention.STEP, "anchor")}
    return Dataset.from_list([row(t) for t in trajectories], features=Features(kinds))


def write(trajectories: Sequence[Trajectory]) -> bytes:
    """One Parquet file for all episodes."""
    import pyarrow.parquet  # `to_parquet` would show a progress bar

    file = io.BytesIO()
    pyarrow.parquet.write_table(dataset(trajectories).with_format("arrow")[:], file)
    return file.getvalue()


def read(rows: Sequence[Mapping]) -> list[Trajectory]:
    """One episode a row."""
    episodes = []
    for number, given in enumerate(rows):
        columns = ["messages"] if "messages" in given else PARTS
        spoken = [chat.said(message) for column in columns for message in given[column] or []]
        episodes.append(chat.read(spoken, "dataset", own=_own(given), task=str(given.get("id", number))))
    return episodes


def _own(given: Mapping) -> dict | None:
    """The convention's object of our columns, None where there are none."""
    if given.get("episode_version") is None:
        return None
    told = {key: given[f"episode_{key}"] for key in convention.EPISODE if given.get(f"episode_{key}") is not None}
    if "origin" in told:
        told["origin"] = json.loads(told["origin"])
    columns = {key: given[f"step_{key}"] for key in convention.STEP if given.get(f"step_{key}") is not None}
    steps = [
        {key: value for key, value in zip(columns, values, strict=True) if value is not None}
        for values in zip(*columns.values(), strict=True)
    ]
    for step in steps:
        step["rewards"] = {pair["name"]: pair["value"] for pair in step.get("rewards", [])}
    tokens = {name: given[f"episode_{name}"] for name in TOKENS if given.get(f"episode_{name}")}
    return {"version": given["episode_version"], **told, "tokens": tokens, "steps": steps}
