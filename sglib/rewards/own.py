"""A reward from a user's own Python file, as a recipe names it:

    components:
      - {name: outcome, weight: 10.0}
      - {component: my_rewards.py:MyReward, weight: 0.5}      # a file beside the recipe; or my_module:MyReward

and what such a file holds:

    from typing import Literal
    from pydantic.dataclasses import dataclass
    from sglib.rewards import Component

    @dataclass(frozen=True)
    class MyReward(Component):
        bonus: float = 1.0  # can be set in the recipe
        name: Literal["my_reward"] = "my_reward"

        def __call__(self, trajectories, policy=None, games=None):
            # one list for each episode, one number for each of its turns
            return [[self.bonus if turn.valid else 0.0 for turn in t.turns] for t in trajectories]

The code is run, with all that it may do: only name files that you trust.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pydantic

from sglib.rewards.component import Component


def load_class(spec: str, folder: Path) -> type[Component]:
    """The class that "module:Class" or "file.py:Class" names; a file, also one of a module's name, is looked for in
    `folder` first. Its `revision` is a hash of the file, so that another version of it is another reward.

    Raises:
        ValueError: naming what is missing or wrong.
    """
    where, colon, name = spec.partition(":")
    if not (where and colon and name.isidentifier()):
        raise ValueError(f"component: {spec!r}; allowed: file.py:Class or module:Class")
    module = _module(where, folder)
    cls = getattr(module, name, None)
    if not (isinstance(cls, type) and issubclass(cls, Component)):
        text = f"{module.__file__} has no class {name} that is a sglib.rewards.Component"
        raise ValueError(f"component: {spec!r}: {text}")
    if "__call__" not in vars(cls) or not isinstance(getattr(cls, "name", None), str):
        raise ValueError(f'component: {spec!r}: {name} needs `name: Literal["..."] = "..."` and `__call__`')
    cls.revision = hashlib.sha256(Path(module.__file__).read_bytes()).hexdigest()[:12]
    return cls


def _module(where: str, folder: Path) -> ModuleType:
    path = Path(where) if where.endswith(".py") else Path(f"{where.replace('.', '/')}.py")
    path = path if path.is_absolute() else folder / path
    if not path.is_file():
        found = None if where.endswith(".py") else importlib.util.find_spec(where)
        if found is None or not found.origin:
            raise ValueError(f"component: {where}: no file {path}, and no installed module of this name")
        path = Path(found.origin)
    name = f"sglib_own_{hashlib.sha256(str(path.resolve()).encode() + path.read_bytes()).hexdigest()[:12]}"
    if name not in sys.modules:
        loaded = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(loaded)
        sys.modules[name] = module  # dataclasses look their module up there
        try:
            loaded.loader.exec_module(module)
        except Exception as error:
            del sys.modules[name]
            raise ValueError(f"component: {path} cannot be imported: {type(error).__name__}: {error}") from error
    return sys.modules[name]


def build(spec: dict[str, Any], folder: Path) -> Component:
    """The component of an entry with the key `component`; errors as of `load_class`, and of a field that is wrong."""
    fields = {key: value for key, value in spec.items() if key != "component"}
    cls = load_class(str(spec["component"]), folder)
    try:
        return pydantic.TypeAdapter(cls).validate_python(fields)
    except pydantic.ValidationError as error:
        problems = [f"{name} = {p['input']!r}: {p['msg']}" if (name := '.'.join(map(str, p["loc"]))) else
                    p["msg"].removeprefix("Value error, ") for p in error.errors()]  # fmt: skip
        raise ValueError(f"component {spec['component']}: {'; '.join(problems)}") from None
