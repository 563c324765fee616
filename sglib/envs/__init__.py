"""Environments behind one protocol: `make(name, **options)`, and many of them at once: `BatchEnv`."""

from sglib.envs import alfworld
from sglib.envs.base import TextEnv
from sglib.envs.batch import BatchEnv

__all__ = ["BatchEnv", "TextEnv", "alfworld", "make"]

ENGINES = ("fast", "textworld")


def make(name: str, *, engine: str = "fast", max_steps: int | None = None, admissible: bool = True) -> TextEnv:
    """An environment by name.

    Args:
        name: "alfworld".
        engine: "fast" (pure Python) or "textworld" (the reference; about 20 steps a second).
        max_steps: an episode is done after so many actions; None for no limit.
        admissible: whether observations list the admissible commands; without them the fast engine is faster still
            (the reference always derives them).

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """
    if name != "alfworld":
        raise ValueError(f"name={name!r}: unknown environment; allowed: 'alfworld'")
    if engine not in ENGINES:
        raise ValueError(f"engine={engine!r}: allowed: {', '.join(map(repr, ENGINES))}")
    if engine == "textworld":
        # imported here: TextWorld pulls in a grammar compiler and a planner that the fast engine never needs
        from sglib.envs.alfworld.textworld import TextWorldAlfworld

        return TextWorldAlfworld(max_steps=max_steps)
    return alfworld.FastAlfworld(max_steps=max_steps, admissible=admissible)
