"""Coefficient schedules lambda(u) over the training fraction u in [0, 1].

Self-Guide (arXiv 2604.03098) adds its internal reward as lambda(u) * sum_t r_t (Eq 6) and switches it on late and off
again: of 100 training steps, 0 below 40, linear 0 -> 1 over 40-50, 1 over 50-70, linear 1 -> 0 over 70-80, then 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


def _check_number(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name}: got {value!r}; allowed: a finite number")


@dataclass(frozen=True, slots=True)
class Constant:
    """lambda(u) = value for every u.

    Raises:
        ValueError: if `value` is not a finite number.
    """

    value: float = 1.0
    kind = "constant"

    def __post_init__(self):
        _check_number("value", self.value)

    def __call__(self, u: float) -> float:
        return float(self.value)


@dataclass(frozen=True, slots=True)
class Trapezoid:
    """0 below `start`, linear to 1 at `full`, 1 up to and including `fall`, linear to 0 at `end`, then 0.

    All four are fractions of training, 0 <= start <= full <= fall <= end <= 1. Equal neighbours make a jump:
    `start == full == 0` is the full reward from the first step, `fall == end == 1` is "no annealing". The defaults are
    the schedule of Self-Guide (arXiv 2604.03098, section on the reward schedule).

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    start: float = 0.4
    full: float = 0.5
    fall: float = 0.7
    end: float = 0.8
    kind = "trapezoid"

    def __post_init__(self):
        lower_name, lower = "0", 0.0
        for name in ("start", "full", "fall", "end"):
            value = getattr(self, name)
            _check_number(name, value)
            if not lower <= value <= 1:
                bound = lower_name if lower_name == "0" else f"{lower_name}={lower}"
                raise ValueError(f"{name}: got {value!r}; allowed: {bound} to 1 (start <= full <= fall <= end)")
            lower_name, lower = name, value

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


Schedule = Constant | Trapezoid
NAMED = {"zero": Constant(0.0), "one": Constant(1.0), "self_guide": Trapezoid()}


def make_schedule(spec: float | str | dict | list | Schedule) -> Schedule:
    """Build a schedule from what a YAML file can hold.

    Args:
        spec: a number (constant), a name ("zero", "one", "self_guide"), a dict with the fields of `Trapezoid`
            (any of start, full, fall, end) or of `Constant` (value), a list of the four breakpoints, or a schedule,
            which is returned as it is.

    Raises:
        ValueError: naming the value and what is allowed.
    """
    if isinstance(spec, Constant | Trapezoid):
        return spec
    if isinstance(spec, str):
        if spec not in NAMED:
            raise ValueError(f"schedule: got {spec!r}; allowed names: {', '.join(NAMED)}")
        return NAMED[spec]
    if isinstance(spec, list | tuple) and len(spec) == 4:
        return Trapezoid(*spec)
    if isinstance(spec, dict):
        if set(spec) == {"value"}:
            return Constant(**spec)
        allowed = ("start", "full", "fall", "end")
        if not spec or (unknown := sorted(map(str, set(spec) - set(allowed)))):
            found = repr(unknown[0]) if spec else "an empty dict"
            raise ValueError(f"schedule: got {found}; allowed fields: value, or {', '.join(allowed)}")
        return Trapezoid(**spec)
    if isinstance(spec, int | float) and not isinstance(spec, bool):
        return Constant(float(spec))
    raise ValueError(
        f"schedule: got {spec!r}; allowed: a number, a dict, four breakpoints, or one of {', '.join(NAMED)}"
    )
