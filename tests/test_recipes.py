"""Recipes: the published ones say what the papers say; what is unknown or does nothing is an error that names it."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from sglib.advantages.estimators import GRPO, IGPO, GiGPO
from sglib.experiments import params
from sglib.experiments.recipe import load_recipe, make_recipe
from sglib.rewards import COMPONENTS, Constant, Outcome, Trapezoid
from sglib.rewards.component import KNOWS

FOLDER = params.recipe_file("grpo").parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def test_the_published_recipes_are_there():
    assert {"grpo", "gigpo", "self_guide", "repro", "igpo", "step_agent"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_loads_and_says_what_it_is(name):
    recipe = load_recipe(name)
    assert recipe.name == name and recipe.about
    assert recipe.components[0].name == "outcome" if recipe.components else recipe.start is not None
    assert load_recipe(FOLDER / f"{name}.yaml") == recipe


def test_what_the_papers_say():
    assert load_recipe("grpo").components == (Outcome(weight=10.0),)
    assert load_recipe("grpo").estimator == GRPO() and load_recipe("gigpo").estimator == GiGPO(gamma=0.95, omega=1.0)
    guide = load_recipe("self_guide").components[1]
    assert guide.schedule == Trapezoid(0.4, 0.5, 0.7, 0.8) and (guide.positive, guide.negative) == (0.1, -0.1)
    assert load_recipe("guide").components[1].schedule == Constant(0.0)
    assert load_recipe("igpo").estimator == IGPO(gamma=1.0, normalize="separate", baseline="pooled")
    assert load_recipe("repro").format == "progress"


def ratios(recipe):
    """What a recipe trains; weights as shares of the outcome's, since the group's spread divides them."""
    whole = recipe.components[0].weight if recipe.components else 1.0
    parts = [repr(replace(part, weight=round(part.weight / whole, 9))) for part in recipe.components]
    return recipe.format, tuple(parts), recipe.estimator, recipe.start, recipe.replicate


def test_no_two_planned_recipes_are_the_same_training():
    planned = params.Grid(**params.load_file(params.params_file("dense"))["grid"])
    names = [*planned.headline, *planned.others, *planned.extras]
    assert len({ratios(load_recipe(name)) for name in names}) == len(names)
    # a tenth of the labels beside a success of 1 is whole labels beside a success of 10
    assert ratios(load_recipe("remedy_small")) == ratios(load_recipe("immediate"))


def test_papers_can_be_mixed():
    text = """
    about: two papers
    format: guide
    components:
      - {name: outcome, weight: 1.0}
      - {name: self_guide, weight: 0.5, schedule: {start: 0.0, full: 0.1, fall: 0.9, end: 1.0}, credit: rated}
      - {name: oracle, weight: 0.1, schedule: 0.5}
    advantage: {kind: gigpo, gamma: 0.9, omega: 0.5, scale: none}
    """
    recipe = make_recipe(yaml.safe_load(text), "mine")
    assert [c.name for c in recipe.components] == ["outcome", "self_guide", "oracle"]
    assert recipe.estimator == GiGPO(0.9, 0.5, "none") and recipe.components[2].schedule == Constant(0.5)
    assert recipe.with_win_reward(3.0).components[0].weight == 3.0
    assert recipe.with_win_reward(None) == recipe


OUTCOME = {"name": "outcome"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"componets": [OUTCOME]}, "componets: unknown key, did you mean 'components'"),
        ({"format": "shout", "components": [OUTCOME]}, "format = 'shout': .*'act', 'progress', .* or 'repro'"),
        ({"components": []}, r"components: must list at least one"),
        ({"components": ["outcome"]}, r"components\[0\] = 'outcome': no such name"),
        ({"components": [{"name": "fame"}]}, "{'name': 'fame'}: .*no such name; allowed: outcome, self_guide"),
        ({"components": [OUTCOME, OUTCOME]}, "each name once"),
        ({"components": [{"name": "outcome", "weight": 1e300}]}, r"weight = 1e\+300: .*or equal to 10{9}"),
        ({"components": [OUTCOME, {"name": "igpo", "frozen": ""}]}, "frozen = '': .*at least 1 character"),
        ({"start": []}, r"stages = \[\]: .*at least 1 item"),
        ({"start": {"kind": "imitation", "learning_rate": 5}}, "learning_rate = 5: .*less than or equal to 1"),
        ({"start": {"kind": "warmup", "temperature": 3}}, "temperature = 3: .*less than or equal to 2"),
        ({"components": [OUTCOME, {"name": "random", "seed": 2**32}]}, "seed = 4294967296: .*less than 4294967296"),
        ({"components": [{"name": "outcome", "wieght": 1}]}, "wieght: unknown key, did you mean 'weight'"),
        ({"components": [{"name": "outcome", "weight": "ten"}]}, "weight = 'ten': Input should be a valid number"),
        ({"components": [{"name": "outcome", "schedule": "later"}]}, "schedule = 'later': allowed names"),
        ({"components": [OUTCOME], "advantage": {"kind": "ppo"}}, "advantage = .*'ppo'.*'grpo', 'gigpo', 'igpo'"),
        ({"components": [OUTCOME], "advantage": {"kind": "grpo", "gamma": 0.9}}, "gamma: unknown key"),
        ({"components": [OUTCOME], "advantage": {"kind": "igpo", "normalize": "no"}}, "'separate' or 'joint'"),
        ({"components": [OUTCOME, {"name": "self_guide"}]}, "pays for what format 'guide' writes"),
        (
            {"format": "guide", "components": [OUTCOME, {"name": "self_guide", "credit": "rated"}]},
            "credit = 'rated' does nothing with advantage kind 'grpo'",
        ),
        (
            {"format": "guide", "components": [OUTCOME, {"name": "self_guide", "hidden": True}]},
            "hidden needs an actor that writes none",
        ),
        (
            {"format": "guide", "components": [OUTCOME, {"name": "self_guide", "length_normalized": 1}]},
            "length_normalized = 1: Input should be a valid boolean",
        ),
    ],
)
def test_mistakes_are_named(content, message):
    with pytest.raises(params.ParameterError, match=message):
        make_recipe(content, "mine")


def test_a_recipe_that_is_not_there():
    with pytest.raises(params.ParameterError, match="no recipe 'ppo'; allowed: .*grpo"):
        load_recipe("ppo")
    with pytest.raises(params.ParameterError, match="no recipe '../cpu'"):
        load_recipe("../cpu")


def test_every_component_has_a_name_a_weight_and_a_schedule():
    for name, cls in COMPONENTS.items():
        component = cls()
        assert component.name == name and component.weight > 0 and 0 <= component.schedule(0.5) <= 1
        assert "object at 0x" not in repr(component)  # a run is found again by it


def test_the_recipe_of_the_how_to_page_works():
    text = (params.recipe_file("grpo").parents[2] / "docs" / "how-to" / "own-reward.md").read_text(encoding="utf-8")
    recipe = make_recipe(yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0]), "mine")
    assert [c.name for c in recipe.components] == ["outcome", "self_guide", "igpo"]


OWN = (Path(__file__).parent / "own_reward.py").read_text()


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        ("{component: own_rewards.py:Mine, bonuss: 1}", "bonuss: unknown key, did you mean 'bonus'"),
        ("{component: own_rewards:Mine, bonus: x}", "bonus = 'x': Input should be a valid number"),
        ("{component: none.py:Mine}", "no file .*none.py"),
        ("{component: own_rewards.py:NoComponent}", "has no class NoComponent that is a sglib.rewards.Component"),
        ("{component: own_rewards.py}", "allowed: file.py:Class or module:Class"),
        ("{component: broken.py:Mine}", "broken.py cannot be imported: ZeroDivisionError"),
    ],
)
def test_mistakes_in_a_reward_of_ones_own_are_named(tmp_path, spec, what):
    (tmp_path / "own_rewards.py").write_text(OWN + "\n\nclass NoComponent:\n    pass\n")
    (tmp_path / "broken.py").write_text("1 / 0")
    file = tmp_path / "recipe.yaml"
    file.write_text(f"components: [{{name: outcome}}, {spec}]\nadvantage: {{kind: gigpo}}\n")
    with pytest.raises(params.ParameterError, match=what):
        load_recipe(file)


def test_a_reward_of_ones_own_is_another_one_when_its_file_changes(tmp_path):
    from sglib.experiments.identity import canonical, digest

    file, source = tmp_path / "recipe.yaml", tmp_path / "own_rewards.py"
    file.write_text("components: [{name: outcome}, {component: own_rewards:Mine}]\nadvantage: {kind: gigpo}\n")
    keys = []
    for text in (OWN, OWN, OWN.replace("self.bonus *", "-self.bonus *")):
        source.write_text(text)
        keys.append(digest(canonical(load_recipe(file), without=("name",))))
    assert keys[0] == keys[1] != keys[2]


def test_base_in_a_recipe_is_the_model_that_is_trained():
    recipe = load_recipe("step_agent").with_base("base_v1")
    assert recipe.components[1].features == "base_v1"
    assert recipe.components[0] == load_recipe("step_agent").components[0]
    assert load_recipe("remedy_frozen").with_base("x").components[1].frozen == "x"
    assert load_recipe("igpo").with_base("x") == load_recipe("igpo")  # its own policy, as it learns


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("nothing", ["grpo", "self_guide", "noise"]),
        ("an expert's view", ["step_agent_explore"]),
        ("the true answer", ["igpo_answer", "igpo_answer_probability"]),
        ("the hidden state", ["truth", "step_agent", "repro", "igpo"]),
    ],
)
def test_what_a_recipe_knows(what, names):
    assert {load_recipe(name).knows for name in names} == {what}


def test_what_each_recipe_knows_has_a_place():
    """The report orders recipes by it."""
    assert {load_recipe(name).knows for name in FOLDER.glob("*.yaml")} <= {*KNOWS}
