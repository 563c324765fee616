"""What decides a result, as JSON data, and a short key of it: the same for as long as the result would be the same.

A field counts only where its value is not the default. So a new field with a default changes no key, and what was
trained before stays valid; where a default or a meaning changes, the class's `revision` says so:

    class Outcome:
        revision: ClassVar[int] = 2

Models count by their weights, wherever they lie.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pydantic
from pydantic_core import PydanticUndefined

from sglib.models.small import located

LABELS = ("name", "kind")  # what tells a class from others in the same place
MODELS = ("model", "frozen", "features")  # fields that hold what `sglib.load_policy` takes
LEFT_OUT = (*LABELS, "about")
WEIGHTS, OLDER = "*.safetensors", "*.bin"
OTHERS = (
    "config.json", "generation_config.json", "adapter_config.json", "tokenizer*", "chat_template*", "vocab*",
    "merges.txt", "added_tokens.json", "special_tokens_map.json",
)  # fmt: skip


def canonical(
    thing: Any, without: Collection[str] = (), revised: bool = True, env: str | None = None
) -> dict[str, Any]:
    """What a dataclass or pydantic model says, as JSON data: its `name` and `kind` where it has them, the `revision`
    of its class (1 where the class declares none), and each field whose value is not the field's default.

    Numbers that are equal are the same (10 and 10.0). Private fields and texts for people (`about`) do not count. A
    field of `MODELS` always counts, by `weights_hash`. Parts inside are treated alike; one that is the default counts
    nevertheless where its class was revised.

    Fields named in `without` do not count at the top; `revised` False takes every revision as 1; `env` is the
    environment whose shipped models are meant.

    Raises:
        TypeError: a value that is neither JSON data nor a dataclass or model.
        ValueError: a part without `name` and `kind`, which could be taken for one of another class.
    """
    data = {key: value for key in LABELS if key not in without and (value := getattr(thing, key, None)) is not None}
    data["revision"] = getattr(type(thing), "revision", 1) if revised else 1
    for name, value, default in sorted(_fields(thing), key=lambda field: field[0]):
        if name.startswith("_") or name in LEFT_OUT or name in without:
            continue
        if name in MODELS and isinstance(value, str):
            data[name] = weights_hash(value, env)
        elif default is dataclasses.MISSING or _text(_data(value, revised, env)) != _text(_data(default, False, env)):
            data[name] = _data(value, revised, env)
    return data


def digest(data: Any) -> str:
    """12 hex digits of JSON data, whatever the order of its keys."""
    return hashlib.sha256(_text(data).encode()).hexdigest()[:12]


def weights_hash(model: str, env: str | None = None) -> str:
    """16 hex digits of a model's weights, configuration and tokenizer, for a name that is shipped (with `env`) or a
    local folder; any other name (a hub id, an endpoint) stands for itself.

    Files are read again only when they have changed.
    """
    folder = located(model, env)
    if not folder.is_dir():
        return model
    weights = list(folder.glob(WEIGHTS)) or list(folder.glob(OLDER))
    files = {path.name: path for path in (*weights, *(path for pattern in OTHERS for path in folder.glob(pattern)))}
    content = {}
    for name, path in files.items():
        stat = path.resolve().stat()
        # times and size alone can be those of the replaced file, where an archive or a copy sets them
        seen = stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino
        content[name] = _file_hash(path.resolve(), *seen)
    return hashlib.sha256(_text(content).encode()).hexdigest()[:16]


@functools.lru_cache(1024)
def _file_hash(path: Path, *seen: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fields(thing: Any) -> Iterator[tuple[str, Any, Any]]:
    """(name, value, default) of each field; `dataclasses.MISSING` where it has no default."""
    if isinstance(thing, pydantic.BaseModel):
        for name, field in type(thing).model_fields.items():
            default = field.get_default(call_default_factory=True, validated_data={})
            yield name, getattr(thing, name), dataclasses.MISSING if default is PydanticUndefined else default
    elif dataclasses.is_dataclass(thing):
        for field in dataclasses.fields(thing):
            made = field.default_factory is not dataclasses.MISSING
            yield field.name, getattr(thing, field.name), field.default_factory() if made else field.default
    else:
        raise TypeError(f"{thing!r}: got {type(thing).__name__}; allowed: JSON data, a dataclass or a pydantic model")


def _data(value: Any, revised: bool, env: str | None) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_data(v, revised, env) for v in value]
    if isinstance(value, dict):
        return {str(k): _data(v, revised, env) for k, v in value.items()}
    data = canonical(value, revised=revised, env=env)
    if not set(LABELS) & set(data):
        raise ValueError(f"{type(value).__name__}: has neither name nor kind; allowed: a class that has one of them")
    return data


def _text(data: Any) -> str:
    return json.dumps(data, sort_keys=True)
