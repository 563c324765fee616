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
import functools
import operator
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Discriminator, Field, InstanceOf, Tag
from pydantic.dataclasses import dataclass

from sglib.advantages.estimators import GRPO, IGPO, Additive, GiGPO
from sglib.envs.base import Environment
from sglib.experiments.files import ParameterError, explain, read_yaml, recipe_file
from sglib.experiments.starts import Start
from sglib.rewards import COMPONENTS, Component, check_environment, own
from sglib.rewards.component import KNOWS
from sglib.rewards.fields import Part, Seed

AnyEstimator = GRPO | GiGPO | IGPO | Additive
OWN = "one of the user's own"


def _tag(given: Any) -> str | None:
    """Which component is meant: by its name, or one that `sglib.rewards.own` has built."""
    own = isinstance(given, Component) and type(given) not in COMPONENTS.values()
    return OWN if own else given.get("name") if isinstance(given, dict) else getattr(given, "name", None)


_known = [Annotated[cls, Tag(name)] for name, cls in COMPONENTS.items()]
AnyComponent = Annotated[
    functools.reduce(operator.or_, [*_known, Annotated[InstanceOf[Component], Tag(OWN)]]),
    Discriminator(
        _tag, custom_error_type="component",
        custom_error_message=f"no such name; allowed: {', '.join(COMPONENTS)}, or component: my_rewards.py:MyReward",
    ),
]  # fmt: skip


@dataclass(frozen=True)
class Recipe(Part):
    """One way of training. The components have weights and schedules (Eq 6 of Self-Guide, for any of them)."""

    name: str  # of the file, without its ending
    about: str = ""  # one line for people
    format: Literal["act", "progress", "guide", "react", "react_sparse", "repro"] = "act"
    components: tuple[AnyComponent, ...] = ()
    estimator: Annotated[AnyEstimator, Field(discriminator="kind", validation_alias="advantage")] = GRPO()
    start: Start | None = None
    replicate: Seed = 0

    def __post_init__(self):
        if not self.components and not self.start:
            raise ValueError("components: must list at least one component, or leave it to start")
        if not self.components and (self.estimator, self.replicate) != (GRPO(), 0):
            raise ValueError("advantage and replicate do nothing without components")
        names = [component.name for component in self.components]
        if len(set(names)) < len(names):
            raise ValueError(f"components: {names}: each name once")
        for component in self.components:
            if reason := component.useless(self.format, self.estimator.kind):
                raise ValueError(reason)

    @property
    def knows(self) -> str:
        """What its rewards, and what is learned before, are made from: the most of `sglib.rewards.component.KNOWS`."""
        parts = [component.knows for component in self.components] + ([self.start.knows] if self.start else [])
        return max(parts, key=KNOWS.index)

    def with_base(self, model: str) -> Recipe:
        """The same recipe where "base", as the model that a reward reads or asks, is `model`: the one that is trained,
        before it is."""

        def read(component: Component) -> dict[str, str]:
            return {name: model for name in ("features", "frozen") if getattr(component, name, None) == "base"}

        return dataclasses.replace(self, components=tuple(dataclasses.replace(c, **read(c)) for c in self.components))

    def with_win_reward(self, weight: float | None) -> Recipe:
        """The same recipe with another reward for success; None changes nothing."""
        if weight is None:
            return self
        changed = [dataclasses.replace(c, weight=weight) if c.name == "outcome" else c for c in self.components]
        return dataclasses.replace(self, components=tuple(changed))


def load_recipe(name: str | Path, card: Environment | None = None) -> Recipe:
    """A recipe of `params/recipes` by name, or of any YAML file by its path, that fits the environment of `card`.

    Raises:
        ParameterError: naming the file, the key, its value and what is allowed, or what the environment lacks.
    """
    path = recipe_file(str(name))
    recipe = make_recipe(read_yaml(path), path.stem, str(path), path.parent)
    if card:
        try:
            check_environment(recipe.components, card)
        except ValueError as error:
            raise ParameterError(f"{recipe.name}: {error}") from None
    return recipe


def make_recipe(content: dict[str, Any], name: str, where: str = "recipe", folder: Path = Path()) -> Recipe:
    """Build and check a recipe from what a YAML file holds; `where` names that in errors, which are `load_recipe`'s.
    The user's own rewards (`sglib.rewards.own`) are looked for in `folder`."""
    parts = content.get("components")
    if isinstance(parts, list | tuple):
        try:
            built = [own.build(p, folder) if isinstance(p, dict) and "component" in p else p for p in parts]
        except ValueError as error:
            raise ParameterError(f"{where}: {error}") from None
        content = content | {"components": built}
    try:
        return pydantic.TypeAdapter(Recipe).validate_python(content | {"name": name})
    except pydantic.ValidationError as error:
        raise ParameterError(explain(error, f"{where}: ")) from None
