"""Recipes: what an agent is paid for and how that becomes an advantage, as a YAML file; papers can be mixed.

    # params/recipes/self_guide.yaml
    about: Self-Guide as published
    format: guide
    components:
      - {name: outcome, weight: 10.0}
      - {name: self_guide, schedule: self_guide}
    advantage: {kind: grpo}

`start` says what is learned before (`sglib.experiments.starts`); without `components` that is all. `replicate: 1` plays
the same games in another order with other random numbers: the same method once more, to see what chance alone does.

Every key is checked before anything runs: one that does not exist is an error, and so is a component that needs what
the format does not write, a discount under an estimator that has none, a credit that the estimator's sum undoes.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sglib import rewards
from sglib.advantages.estimators import ESTIMATORS, GRPO, Estimator
from sglib.experiments.params import ParameterError, recipe_file
from sglib.experiments.starts import STARTS, Stages, Start
from sglib.rewards import COMPONENTS, Component

FORMATS = ("act", "progress", "guide")


@dataclass(frozen=True)
class Recipe:
    """One way of training.

    Attributes:
        name: of the file, without its ending.
        about: one line for people.
        format: how the agent acts, one of `FORMATS`.
        components: reward components with weights and schedules (Eq 6 of Self-Guide, for any of them).
        estimator: what makes advantages of them.
        start: what is learned before, None for nothing.
        replicate: >= 0; another number is another draw of order and sampling with the same games.
    """

    name: str
    about: str = ""
    format: str = "act"
    components: tuple[Component, ...] = ()
    estimator: Estimator = GRPO()
    start: Start | None = None
    replicate: int = 0

    def with_win_reward(self, weight: float | None) -> Recipe:
        """The same recipe with another reward for success; None changes nothing."""
        if weight is None:
            return self
        changed = [dataclasses.replace(c, weight=weight) if c.name == "outcome" else c for c in self.components]
        return dataclasses.replace(self, components=tuple(changed))


def load_recipe(name: str | Path) -> Recipe:
    """A recipe of `params/recipes` by name, or of any YAML file by its path.

    Raises:
        ParameterError: naming the file, the key, its value and what is allowed.
    """
    path = recipe_file(str(name))
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ParameterError(f"{path}: cannot be read as YAML: {error}") from None
    return make_recipe(content, path.stem, str(path))


def make_recipe(content: Any, name: str, where: str = "recipe") -> Recipe:
    """Build and check a recipe from what a YAML file holds.

    Raises:
        ParameterError: as `load_recipe`; `where` names the source.
    """
    keys = {"about", "format", "components", "advantage", "start", "replicate"}
    _check_keys(content, keys, where)
    format = content.get("format", "act")
    if format not in FORMATS:
        raise ParameterError(f"{where}: format = {format!r}: allowed: {', '.join(FORMATS)}")
    start = _starts(content.get("start"), where)
    specs = content.get("components", [] if start else None)
    if not isinstance(specs, list) or not (specs or start):
        raise ParameterError(f"{where}: components = {specs!r}: must list at least one component, or leave it to start")
    if not specs and (extra := {"advantage", "replicate"} & set(content)):
        raise ParameterError(f"{where}: {min(extra)} does nothing without components")
    replicate = content.get("replicate", 0)
    if isinstance(replicate, bool) or not isinstance(replicate, int) or replicate < 0:
        raise ParameterError(f"{where}: replicate = {replicate!r}: must be a whole number of at least 0")
    components = tuple(_component(spec, f"{where}: components[{i}]") for i, spec in enumerate(specs))
    names = [component.name for component in components]
    if len(set(names)) < len(names):
        raise ParameterError(f"{where}: components: {names}: each name once")
    estimator = _estimator(content.get("advantage"), where)
    recipe = Recipe(name, str(content.get("about", "")), format, components, estimator, start, replicate)
    for component in components:
        _check_use(component, recipe, where)
    return recipe


def check_environment(recipe: Recipe, card) -> None:
    """Refuse a recipe that needs what the environment lacks.

    Raises:
        ParameterError: naming the recipe, the component and what it asks for.
    """
    try:
        rewards.check_environment(recipe.components, card)
    except ValueError as error:
        raise ParameterError(f"{recipe.name}: {error}") from None


def _check_keys(content: Any, allowed: set[str], where: str):
    if not isinstance(content, dict):
        raise ParameterError(f"{where}: expected keys and values, found {type(content).__name__}")
    for key in content:
        if key not in allowed:
            close = difflib.get_close_matches(str(key), allowed, n=1)
            hint = f", did you mean {close[0]!r}?" if close else ";"
            raise ParameterError(f"{where}: {key}: unknown key{hint} allowed: {', '.join(sorted(allowed))}")


def _component(spec: Any, where: str) -> Component:
    if not isinstance(spec, dict) or "name" not in spec:
        raise ParameterError(f"{where} = {spec!r}: must have a name; there are: {', '.join(COMPONENTS)}")
    cls = COMPONENTS.get(spec["name"])
    if cls is None:
        raise ParameterError(f"{where}: name = {spec['name']!r}: allowed: {', '.join(COMPONENTS)}")
    return _make(cls, spec, where)


def _estimator(spec: Any, where: str) -> Estimator:
    if spec is None:
        return GRPO()
    where = f"{where}: advantage"
    if not isinstance(spec, dict) or spec.get("kind") not in ESTIMATORS:
        raise ParameterError(f"{where} = {spec!r}: kind must be one of {', '.join(ESTIMATORS)}")
    return _make(ESTIMATORS[spec["kind"]], {k: v for k, v in spec.items() if k != "kind"}, where)


def _starts(spec: Any, where: str) -> Start | None:
    """One start, or a list of them."""
    if spec is None:
        return None
    if isinstance(spec, list) and len(spec) > 1:
        return Stages(tuple(_start(stage, f"{where}: start[{i}]") for i, stage in enumerate(spec)))
    return _start(spec, f"{where}: start")


def _start(spec: Any, where: str) -> Start:
    if not isinstance(spec, dict) or spec.get("kind") not in STARTS:
        raise ParameterError(f"{where} = {spec!r}: kind must be one of {', '.join(STARTS)}")
    return _make(STARTS[spec["kind"]], {k: v for k, v in spec.items() if k != "kind"}, where)


def _make(cls: type, spec: dict, where: str):
    """A component or estimator from its fields; a value of the wrong type or out of range is named."""
    fields = {field.name: field for field in dataclasses.fields(cls) if not field.name.startswith("_")}
    _check_keys(spec, set(fields), where)
    for key, value in spec.items():
        default, allowed = fields[key].default, _choices(fields[key].type)
        if allowed and value not in allowed:
            raise ParameterError(f"{where}: {key} = {value!r}: allowed: {', '.join(map(repr, allowed))}")
        number = isinstance(default, int | float) and not isinstance(default, bool)
        if number and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ParameterError(f"{where}: {key} = {value!r}: must be a number")
        if isinstance(default, bool) and not isinstance(value, bool):
            raise ParameterError(f"{where}: {key} = {value!r}: must be true or false")
    values = {k: tuple(v) if isinstance(fields[k].default, tuple) else v for k, v in spec.items()}
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"{where}: {error}") from None


def _choices(annotation: Any) -> tuple[str, ...]:
    """The values of a field that is annotated as a Literal (a text here, since annotations are not evaluated)."""
    text = str(annotation)
    if not text.startswith("Literal["):
        return ()
    return tuple(part.strip().strip("\"'") for part in text[len("Literal[") : -1].split(","))


def _check_use(component: Component, recipe: Recipe, where: str):
    """Refuse a component that could only pay nothing, and a setting that could only do nothing."""
    needs = getattr(component, "needs_format", None)  # the format that writes what it reads; None for any
    if needs is not None and recipe.format != needs:
        raise ParameterError(
            f"{where}: format = {recipe.format!r}: component {component.name!r} pays for what format {needs!r} writes"
        )
    if getattr(component, "hidden", False) and recipe.format == "guide":
        raise ParameterError(f"{where}: format = 'guide': {component.name}: hidden needs an actor that writes none")
    if getattr(component, "credit", None) == "rated" and recipe.estimator.kind == "grpo":
        raise ParameterError(
            f"{where}: {component.name}: credit = 'rated' does nothing with advantage kind 'grpo', a sum over turns"
        )
