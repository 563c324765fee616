"""The papers' claims, as `params/claims.yaml` has them; `sglib.experiments.verdicts` judges them."""

from __future__ import annotations

from typing import Literal

import pydantic

from sglib.experiments.files import params_dir, read_yaml

When = Literal["before", "start", "after"]


class _Data(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Claim(_Data):
    """`a` ends above `b` (or below, `sign` -1); the file explains the fields."""

    paper: str
    text: str
    a: str
    b: str
    theirs: str = ""
    differs: str = ""
    a_when: When = "after"
    b_when: When = "after"
    sign: Literal[1, -1] = 1
    why: str | None = None

    @property
    def names(self) -> tuple[str, str]:
        """`a` and `b`, with when they are meant unless that is after training."""
        pairs = (self.a, self.a_when), (self.b, self.b_when)
        a, b = (recipe if when == "after" else f"{recipe} ({when})" for recipe, when in pairs)
        return a, b


class Fact(_Data):
    what: str
    recipes: tuple[str, ...]
    column: str
    part: Literal["", "first", "last", "both"] = ""
    unit: float = 1


class Elsewhere(_Data):
    paper: str
    text: str
    here: str
    theirs: str = ""


class Ablation(_Data):
    """A table of a paper that is drawn beside ours."""

    title: str
    theirs: str  # what the paper's numbers are of
    ours: str
    success: dict[str, float]  # recipe -> percent


class File(_Data):
    changes: list[dict]  # for readers of the file
    claims: tuple[Claim, ...]
    reasons: dict[str, str]
    facts: tuple[Fact, ...]
    ablation: Ablation
    elsewhere: tuple[Elsewhere, ...]

    @pydantic.model_validator(mode="after")
    def _reasons_are_there(self):
        if unknown := {claim.why for claim in self.claims} - {None, *self.reasons}:
            raise ValueError(f"why: {min(unknown)!r}; allowed: {', '.join(self.reasons)}")
        return self


FILE = File(**read_yaml(params_dir() / "claims.yaml"))
CLAIMS, REASONS, FACTS, ELSEWHERE = FILE.claims, FILE.reasons, FILE.facts, FILE.elsewhere
ABLATION = FILE.ablation
