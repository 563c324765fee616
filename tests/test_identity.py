"""What decides a result decides its key, and nothing else does: new defaults, paths and other numbers' types do not."""

import dataclasses
import json
import shutil

import pydantic
import pytest
import safetensors.torch

from sglib.advantages.estimators import GRPO, IGPO, GiGPO
from sglib.envs.alfworld.card import Alfworld
from sglib.experiments import evidence, params
from sglib.experiments.experiment import Experiment, sources
from sglib.experiments.files import params_file
from sglib.experiments.identity import canonical, digest, weights_hash
from sglib.experiments.recipe import make_recipe
from sglib.experiments.runs import repo_root
from sglib.experiments.starts import Imitation, Preference, Stages
from sglib.models.small import shipped_folder
from sglib.rewards import COMPONENTS, Constant, Outcome, SelfGuide, Trapezoid

MIXED = {
    "components": [{"name": "outcome"}, {"name": "self_guide", "schedule": 0.5, "frozen": "base"}],
    "format": "guide",
    "advantage": {"kind": "gigpo", "gamma": 0.9},
    "start": [{"kind": "imitation", "games": 8}, {"kind": "preference"}],
}


def wider(cls, value=3, revision=None):
    """The class with one more field, at its default, and perhaps with a revision."""
    more = {} if revision is None else {"revision": revision}
    return dataclasses.make_dataclass(cls.__name__, [("added", int, value)], bases=(cls,), namespace=more, frozen=True)


def key(thing):
    return digest(canonical(thing))


@pytest.fixture(scope="module")
def cell():
    return next(cell for cell in evidence.plan(params_file("dense")) if cell.name == "self_guide-seed1")


def test_only_what_is_not_the_default_is_said():
    assert canonical(make_recipe(MIXED, "mine"), without=("name",)) == {
        "revision": 1,
        "format": "guide",
        "components": [
            {"name": "outcome", "revision": 1},
            {
                "name": "self_guide",
                "revision": 1,
                "frozen": weights_hash("base"),
                "schedule": {"kind": "constant", "revision": 1, "value": 0.5},
            },
        ],
        "estimator": {"kind": "gigpo", "revision": 1, "gamma": 0.9},
        "start": {
            "kind": "stages",
            "revision": 1,
            "stages": [{"kind": "imitation", "revision": 1, "games": 8}, {"kind": "preference", "revision": 1}],
        },
    }
    p = params.check("grpo", {"size": "smoke", "seed": 3})
    assert canonical(p, without=("size", *type(p).model_fields.keys() - {"seed", "model", "clip"})) == {
        "revision": 1, "seed": 3, "model": weights_hash("base"),
    }  # fmt: skip


@pytest.mark.parametrize("cls", [*COMPONENTS.values(), GRPO, GiGPO, IGPO, Imitation, Preference])
def test_a_new_field_with_a_default_changes_no_key(cls):
    assert key(wider(cls)()) == key(cls())
    assert key(wider(cls)(added=4)) != key(cls())
    assert key(wider(cls, revision=2)()) != key(cls())


def test_new_fields_leave_a_cells_key_as_it_was(cell, monkeypatch):
    before, folder = cell.key, cell.folder
    recipe = cell.load()

    def widen(**revision):
        guide = recipe.components[1]
        values = {field.name: getattr(guide, field.name) for field in dataclasses.fields(guide)}
        parts = recipe.components[0], wider(SelfGuide, **revision)(**values)
        wide = dataclasses.replace(recipe, components=parts, estimator=wider(GRPO)())
        assert wide.components[1] is parts[1]
        monkeypatch.setattr(Experiment, "load", lambda self: wide)

    widen()
    more = pydantic.create_model("GRPOParams", __base__=params.GRPOParams, added=(int, 3))
    wide = dataclasses.replace(cell, params=more(**cell.params.model_dump(exclude={"clip"})))
    assert wide.key == before and wide.folder == folder
    assert dataclasses.replace(wide, params=wide.params.model_copy(update={"added": 4})).key != before
    widen(revision=2)
    assert cell.key != before


@pytest.mark.parametrize("changed", ["environment", params.GRPOParams, Trapezoid, GRPO])
def test_a_revision_changes_a_cells_key(cell, monkeypatch, changed):
    """Also of a part that is the default of what it is in, as Trapezoid is of the guidance reward."""
    before = cell.key
    if changed == "environment":
        monkeypatch.setattr(Alfworld, "revision", 2)
    else:
        monkeypatch.setattr(changed, "revision", 2, raising=False)
    assert cell.key != before


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Outcome(weight=5), Outcome(weight=6)),
        (Outcome(), Outcome(schedule=0.5)),
        (Constant(), Trapezoid()),
        (GRPO(), GiGPO()),
        (GiGPO(), GiGPO(gamma=0.9)),
        (Stages((Imitation(), Preference())), Stages((Preference(), Imitation()))),
    ],
)
def test_what_differs_has_another_key(one, other):
    assert key(one) != key(other)


def test_equal_numbers_are_the_same():
    assert key(Outcome(weight=5)) == key(Outcome(weight=5.0)) and key(Outcome(weight=10)) == key(Outcome())
    assert key(SelfGuide(schedule=1)) == key(SelfGuide(schedule=Constant(1)))


def test_a_class_without_a_label_is_refused():
    nameless = dataclasses.make_dataclass("Nameless", [("value", int, 1)])
    holder = dataclasses.make_dataclass("Holder", [("value", object)])
    with pytest.raises(ValueError, match="Nameless: has neither name nor kind"):
        canonical(holder(nameless()))
    with pytest.raises(TypeError, match="got set; allowed: JSON data"):
        canonical(holder({1}))


@pytest.fixture
def model(tmp_path):
    return shutil.copytree(shipped_folder("base"), tmp_path / "model")


def test_a_model_is_its_content(model, tmp_path):
    assert weights_hash(str(model)) == weights_hash("base") != weights_hash("base_strong")
    assert weights_hash("someone/some-model") == "someone/some-model"
    (model / "notes.txt").write_text("of no effect")
    assert weights_hash(str(model)) == weights_hash("base")
    for name in ("config.json", "tokenizer.json", "chat_template.jinja"):
        before = weights_hash(str(model))
        (model / name).write_text((model / name).read_text() + "\n")
        assert weights_hash(str(model)) != before, name
    before = weights_hash(str(model))
    (model / "pytorch_model.bin").write_bytes(b"not read where there are safetensors")
    assert weights_hash(str(model)) == before


def test_replaced_weights_are_another_arm_and_moved_ones_are_not(model, tmp_path):
    def folder(where):
        return Experiment("grpo", params.check("grpo", {"size": "smoke", "model": str(where)})).folder

    first = folder(model)
    assert folder(shutil.copytree(model, tmp_path / "elsewhere")) == first
    file, times = model / "model.safetensors", (model / "model.safetensors").stat()
    weights = safetensors.torch.load_file(file)
    name = min(weights)
    weights[name] = weights[name] + 1
    safetensors.torch.save_file(weights, tmp_path / "new", metadata={"format": "pt"})
    shutil.copystat(file, tmp_path / "new")
    (tmp_path / "new").replace(file)  # of the same size, with the time of the old file
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    assert folder(model) != first


def test_no_committed_cell_is_stale():
    cells = evidence.plan(params_file("dense"))
    reference = evidence.folders(cells[0].params)[1]
    found = evidence.read_evidence(cells, [reference])
    assert len(found.cells) == len(cells) == 163
    assert not (found.stale or found.missing or found.unknown or found.damaged)
    assert {json.loads(path.read_text())["key"] for path in reference.glob("*.json")} == {cell.key for cell in cells}


def test_of_the_environments_only_the_played_one_is_part_of_the_code():
    files = [repo_root() / path for path in sources("alfworld")]
    of = {path.relative_to(repo_root() / "sglib" / "envs") for path in files if "envs" in path.parts}
    played = {path for path in of if path.parts[0] == "alfworld"}
    assert played == {p.relative_to(p.parents[1]) for p in (repo_root() / "sglib/envs/alfworld").glob("*.py")}
    assert {str(path) for path in of - played} == {"__init__.py", "base.py", "panels.py"} and len(played) > 5
