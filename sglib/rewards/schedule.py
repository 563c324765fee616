"""Coefficient schedules lambda(u) over the training fraction u in [0, 1].

Self-Guide (arXiv 2604.03098) adds its internal reward as lambda(u) * sum_t r_t (Eq 6) and switches it on late and off
again: of 100 training steps, 0 below 40, linear 0 -> 1 over 40-50, 1 over 50-70, linear 1 -> 0 over 70-80, then 0.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic
from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from sglib.rewards.fields import Float, Part


@dataclass(frozen=True)
class Constant(Part):
    """lambda(u) = value for every u."""

    value: Float = 1.0
    kind: Literal["constant"] = "constant"

    def __call__(self, u: float) -> float:
        return float(self.value)


@dataclass(frozen=True)
class Trapezoid(Part):
    """0 below `start`, linear to 1 at `full`, 1 up to and including `fall`, linear to 0 at `end`, then 0.

    All four are fractions of training, 0 <= start <= full <= fall <= end <= 1. Equal neighbours make a jump:
    `start == full == 0` is the full reward from the first step, `fall == end == 1` is "no annealing". The defaults are
    the schedule of Self-Guide (arXiv 2604.03098, section on the reward schedule).
    """

    start: Float = 0.4
    full: Float = 0.5
    fall: Float = 0.7
    end: Float = 0.8
    kind: Literal["trapezoid"] = "trapezoid"

    def __post_init__(self):
        if not 0 <= self.start <= self.full <= self.fall <= self.end <= 1:
            got = f"start={self.start}, full={self.full}, fall={self.fall}, end={self.end}"
            raise ValueError(f"{got}; allowed: 0 <= start <= full <= fall <= end <= 1")

    def __call__(self, u: float) -> float:
        """lambda at training fraction `u`, in [0, 1]."""
        if u < self.start:
            return 0.0
        if u < self.full:
            return (u - self.start) / (self.full - self.start)
        if u <= self.fall:
            return 1.0
        if u < self.end:
            return (self.end - u) / (self.end - self.fall)
        return 0.0


NAMED = {"zero": Constant(0.0), "one": Constant(1.0), "self_guide": Trapezoid()}


def _in_full(spec: Any) -> Any:
    """The short forms of `Schedule`, as a mapping with its `kind`."""
    if isinstance(spec, str):
        if spec not in NAMED:
            raise ValueError(f"allowed names: {', '.join(NAMED)}")
        return NAMED[spec]
    if isinstance(spec, list | tuple) and len(spec) == 4:
        return {"kind": "trapezoid"} | dict(zip(("start", "full", "fall", "end"), spec))
    if isinstance(spec, int | float):
        return {"kind": "constant", "value": spec}
    if isinstance(spec, dict) and spec:
        return {"kind": "constant" if "value" in spec else "trapezoid"} | spec
    return spec


# a number (constant), a name of `NAMED`, the four breakpoints, or the fields of `Constant` or of `Trapezoid`
Schedule = Annotated[Constant | Trapezoid, Field(discriminator="kind"), BeforeValidator(_in_full)]
make_schedule = pydantic.TypeAdapter(Schedule).validate_python
