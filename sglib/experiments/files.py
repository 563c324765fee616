"""The files in `params/` as they lie there, and how what is wrong in one is said."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import pydantic
import yaml
from pydantic_core import ArgsKwargs

LONGEST, DEEPEST = 200_000, 50
FOLDERS = ("qwen3-1.7b", "regimes", "")  # of params/; the last goes first


def repo_root() -> Path:
    """The repository's folder, whatever the working directory (in JupyterLab it is `notebooks/`)."""
    return Path(__file__).resolve().parents[2]


class ParameterError(ValueError):
    """A parameter that does not exist or has a value that is not allowed; the message names it and what is allowed."""


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node, deep=False):
        keys = Counter(str(key.value) for key, _ in node.value)
        if twice := [key for key, count in keys.items() if count > 1]:  # YAML's reader would take the last
            raise yaml.constructor.ConstructorError(problem=f"{twice[0]}: stands twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> dict:
    """The keys and values of a YAML file.

    Raises:
        ParameterError: naming the file, which holds something else, or a key that stands twice in it.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        deepest = max(itertools.accumulate((c in "[{") - (c in "]}") for c in text), default=0)
        if len(text) > LONGEST or deepest > DEEPEST:  # YAML's reader takes quadratic time over brackets in brackets
            raise ValueError(f"at most {LONGEST:,} characters and {DEEPEST} brackets in one another are read")
        content = yaml.load(text, _Loader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # also numbers and nesting without end
        raise ParameterError(f"{path}: cannot be read as YAML: {error}") from None
    if not isinstance(content, dict):
        raise ParameterError(f"{path}: expected keys and values, found {type(content).__name__}")
    return content


def _files() -> dict[str, Path]:
    found = (path for folder in FOLDERS for path in (params_dir() / folder).glob("*.yaml"))
    return {path.stem: path for path in found if path.name != "claims.yaml"}


def sizes() -> list[str]:
    """Names of the parameters files in `FOLDERS` of `params/`."""
    return sorted(_files())


def params_file(size: object) -> Path | None:
    """The parameters file of this name; None where there is none."""
    return _files().get(size) if isinstance(size, str) else None


def recipe_file(name: str) -> Path:
    """The file of a recipe: a name of `params/recipes`, or a path that ends in .yaml.

    Raises:
        ParameterError: there is none; the message lists the names.
    """
    folder = repo_root() / "params" / "recipes"
    path = Path(name) if name.endswith(".yaml") else folder / f"{name}.yaml"
    if not path.is_file() or (path.parent != folder and not name.endswith(".yaml")):
        names = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        raise ParameterError(f"no recipe {name!r}; allowed: {names}, or the path of a .yaml file")
    return path


def params_dir() -> Path:
    """The repository's folder of parameters files."""
    return repo_root() / "params"


def explain(error: pydantic.ValidationError, where: str, alone: Collection[str] = ()) -> str:
    """What is wrong, as "<where><field> = <value>: <what is allowed>" for each field; `alone`: without `where`."""
    problems = []
    for problem in error.errors():
        reason = str(problem["ctx"]["error"]) if problem["type"] == "value_error" else problem["msg"]
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"])[1:]
        path = path if path in alone else where + path if path else where.rstrip(".: ")
        # a rule about several fields names them itself
        several = problem["type"] == "value_error" and isinstance(problem["input"], dict | ArgsKwargs)
        problems.append(f"{path}: {reason}" if several else f"{path} = {problem['input']!r}: {reason}")
    return "; ".join(dict.fromkeys(problems))
