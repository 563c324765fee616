"""Types of fields that a YAML file can fill: an unknown name or a wrong value is an error that names it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from typing import Annotated, Any

import pydantic
from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass


def _no_text(value: Any) -> Any:
    """YAML reads 1e-5 as a text: say how it is written."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", value.strip(), re.IGNORECASE):
        raise ValueError(f"must be a number, and YAML reads {value} as text: write {yaml_number(value)}")
    return value


def yaml_number(text: str) -> str:
    """A number as YAML reads it: a power of ten needs a point and a sign."""
    if "e" not in text.lower():
        return text.strip()
    number = repr(float(text))
    return number if "." in number else number.replace("e", ".0e")


Int = Annotated[int, BeforeValidator(_no_text), Field(strict=True)]
# far from where sums of squares overflow
Float = Annotated[float, BeforeValidator(_no_text), Field(strict=True, allow_inf_nan=False, ge=-1e9, le=1e9)]
Flag = Annotated[bool, Field(strict=True)]
Count = Annotated[Int, Field(ge=1, le=1_000_000)]
Seed = Annotated[Int, Field(ge=0, lt=2**32)]  # numpy's limit
Text = Annotated[str, Field(min_length=1)]
Positive = Annotated[Float, Field(gt=0)]
Coefficient = Annotated[Float, Field(ge=0)]
Share = Annotated[Float, Field(ge=0, le=1)]
Temperature = Annotated[Float, Field(ge=0, le=10)]
Warmth = Annotated[Float, Field(gt=0, le=2)]  # a temperature that samples
Rate = Annotated[Float, Field(gt=0, le=1)]  # of learning


def unknown(name: str, allowed: Collection[str], what: str = "key") -> str:
    """What to say of a name that does not exist."""
    close = difflib.get_close_matches(name, allowed, n=1)
    hint = f", did you mean {close[0]!r}?" if close else ";"
    return f"{name}: unknown {what}{hint} Allowed: {', '.join(allowed)}"


def known_keys(cls: type, given: Any) -> Any:
    """What a pydantic class is made from, if it has a field for each key."""
    names = [field.validation_alias or name for name, field in cls.__pydantic_fields__.items()]
    for key in given if isinstance(given, dict) else ():
        if key not in names:
            raise ValueError(unknown(str(key), names))
    return given


@dataclass(frozen=True, config=pydantic.ConfigDict(extra="forbid", validate_by_name=True))
class Part:
    """A part of a recipe: a pydantic dataclass that refuses unknown keys. Its `name` or `kind` is a Literal, by which
    the part is recognised in a YAML file."""

    _known = pydantic.model_validator(mode="before")(classmethod(known_keys))
