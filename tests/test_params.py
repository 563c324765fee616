import re

import pydantic
import pytest
import yaml

from sglib.experiments import files, params
from sglib.experiments.params import ParameterError, check, load_file
from sglib.experiments.recipe import load_recipe
from sglib.rewards.fields import yaml_number


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A params/ folder with one size in it."""
    (tmp_path / "tiny.yaml").write_text("env: alfworld\nseed: 7\nsize: tiny\ngrpo:\n  iterations: 3\n  eval_games: 8\n")
    monkeypatch.setattr(files, "params_dir", lambda: tmp_path)
    return tmp_path


def test_order_of_precedence():
    assert check("04_joint_grpo", {"size": "tiny"}).iterations == 3
    found = check("grpo", {"size": "tiny", "seed": 3, "grpo": {"iterations": 4}, "eval_games": 9})
    assert (found.seed, found.iterations, found.eval_games, found.group_size) == (3, 4, 9, 8)
    assert check("grpo", {"size": "tiny"}).seed == 7
    assert found.run_name.startswith("tiny-seed3-")  # not the file's values: a folder of its own
    assert check("grpo", {"size": "tiny", "run": "mine"}).run_name == "mine"


def test_frozen():
    with pytest.raises(pydantic.ValidationError):
        check("grpo", {"size": "tiny"}).iterations = 5


@pytest.mark.parametrize(
    "values, message",
    [
        ({"lerning_rate": 1e-4}, r"grpo: lerning_rate: unknown key, did you mean 'learning_rate'\? Allowed: .*"),
        ({"grpo": {"lerning_rate": 1e-4}}, r"grpo: lerning_rate: unknown key, did you mean"),
        ({"learning_rate": "1e-5"}, r"grpo\.learning_rate = '1e-5': must be a number.*write 1\.0e-05"),
        ({"arms": ["grpo", "gpo"]}, r"grpo\.arms\[1\] = .*no recipe 'gpo'; allowed: .*grpo.*self_guide"),
        ({"arms": []}, r"grpo\.arms = \[\]: .*at least 1"),
        ({"arms": ["grpo", "grpo"]}, r"grpo\.arms = .*named twice"),
        ({"max_turns": 0}, r"grpo\.max_turns = 0: .*greater than or equal to 1"),
        ({"max_turns": 201}, r"grpo\.max_turns = 201: .*less than or equal to 200"),
        ({"temperature": 0}, r"grpo\.temperature = 0: .*greater than 0"),
        ({"iterations": False}, r"grpo\.iterations = False: .*valid integer"),
        ({"lora": "yes"}, r"grpo\.lora = 'yes': .*valid boolean"),
        ({"schedule": [0.5, 0.4, 0.7, 0.8]}, r"grpo: schedule: unknown key"),
        ({"win_reward": 0.0}, r"grpo\.win_reward = 0.0: .*greater than 0"),
        ({"seed": -1}, r"^seed = -1: "),
        ({"seed": 2**32}, r"^seed = 4294967296: .*less than 4294967296"),
        ({"seed": "3"}, r"^seed = '3': must be a number, .*write 3"),
        ({"env": "chess"}, r"^env = 'chess': .*allowed: .*alfworld"),
        ({"task_size": 3}, r"grpo: size=3: allowed for alfworld"),
        ({"env_options": {"stop": True}}, r"grpo: env_options: 'stop'; allowed for alfworld: engine"),
        ({"env_options": {"max_steps": 3}}, r"grpo: env_options: 'max_steps'; allowed for alfworld: engine"),
        ({"env_options": {"engine": "slow"}}, r"grpo: engine='slow': allowed: 'fast'"),
        ({"epsilon_high": 0.3}, "epsilon_high does nothing with updates_per_batch = 1"),
        ({"run": "../elsewhere"}, r"^run = '../elsewhere': .*A-Za-z0-9._-"),
        ({"grpo": 3}, r"grpo = 3: expected keys and values, found int"),
        ({"grpo": {3: 4}}, r"grpo: 3: unknown key"),
        ({"pilot": {"gmaes": 3}}, r"pilot: gmaes: unknown key, did you mean 'games'"),
        ({"size": "huge"}, r"size = 'huge': there is no params/huge.yaml; there are: tiny"),
        ({"size": "../tiny"}, r"size = '../tiny'"),
    ],
)
def test_wrong_values_are_named(values, message):
    with pytest.raises(ParameterError, match=message) as caught:
        check("04_joint_grpo", {"size": "tiny", **values})
    assert "pydantic" not in str(caught.value)


def test_several_errors_at_once():
    with pytest.raises(ParameterError, match=r"iterations = 0.*; grpo\.clip = 2"):
        check("grpo", {"size": "tiny", "iterations": 0, "clip": 2})


def test_unknown_notebook():
    with pytest.raises(ParameterError, match="05_no: unknown notebook.*04_joint_grpo"):
        check("05_no", {})


def test_own_size_without_a_file():
    assert check("grpo", {"env": "alfworld", "size": "mine", "grpo": {"iterations": 2}}).iterations == 2
    with pytest.raises(ParameterError, match="env = .*allowed: .*alfworld"):
        check("grpo", {"size": "mine", "grpo": {"iterations": 2}})


def test_notebook_namespace():
    """Only names assigned before the cell that checks are parameters: not imports, not what a rerun finds."""
    cells = [
        "",
        "%matplotlib inline",
        "seed = 0\nsize = 'tiny'\ngrpo = {}",
        "# Parameters\nseed = 3\n",
        "import sglib\np = sglib.params.check('04_joint_grpo', globals())",
        "later = 5",
        "p = sglib.params.check('04_joint_grpo', globals())",
    ]
    names = {"In": cells, "Out": {}, "_dh": [], "seed": 3, "size": "tiny", "grpo": {}, "later": 5}
    assert check("grpo", names).seed == 3
    names["In"] = [*cells[:3], "# Parameters\nlerning_rate = 1", *cells[4:]]
    with pytest.raises(ParameterError, match="lerning_rate"):
        check("grpo", {**names, "lerning_rate": 1})
    names["In"] = [*cells[:3], "# Parameters\narms = 'igpo'", "from x import arms", *cells[4:]]
    for thing in (params, check):
        with pytest.raises(ParameterError, match="arms: an import of this notebook replaced its value"):
            check("grpo", {**names, "arms": thing})


@pytest.mark.parametrize(
    "text, message",
    [
        ("a: [", "cannot be read as YAML"),
        ("- 1", "expected keys and values, found list"),
        ("env: alfworld\ngrpo: {iterations: 3, iterations: 4}", "iterations: stands twice"),
        ("env: alfworld\nmodel: ''", "model = '': .*at least 1 character"),
        ("env: alfworld\noutput_dir: ''", "output_dir = '': .*at least 1 character"),
        ("env: alfworld\ngrpo: {eval_games: 2000000}", "eval_games = 2000000: .*less than or equal to 1000000"),
        ("env: alfworld\nseed: 4294967296", "seed = 4294967296: .*less than 4294967296"),
        ("env: alfworld\ngrid: {headline: [grpo], first_seed: 4294967290}", "first_seed = .* or equal to 1000000"),
        ("env: alfworld\nassay: {truth: thruth}", "no recipe 'thruth'"),
        ("sed: 3", "sed: unknown key, did you mean 'seed'"),
        ("1: 3", "1: unknown key"),
        ("env: alfworld\ngrpo: 3", "grpo = 3"),
        ("env: alfworld\nwarmup: {epochs: 0}", r"warmup\.epochs = 0"),
        ("env: chess", "env = 'chess'"),
        ("env: alfworld\ngrpo: {learning_rate: 1e-5}", "write 1.0e-05"),
    ],
)
def test_files_are_checked_whole(folder, text, message):
    (folder / "bad.yaml").write_text(text)
    with pytest.raises(ParameterError, match=message) as caught:
        load_file(folder / "bad.yaml")
    assert "bad.yaml" in str(caught.value)
    with pytest.raises(ParameterError, match="cannot be read"):
        load_file(folder / "absent.yaml")


@pytest.mark.parametrize("text", ["1e-5", "2E5", "1.5e-3", "-1e-7"])
def test_the_hint_is_right(text):
    assert isinstance(yaml.safe_load(text), str | float)
    assert yaml.safe_load(yaml_number(text)) == pytest.approx(float(text))


def test_shipped_files(monkeypatch):
    monkeypatch.undo()
    for size in params.sizes():
        assert load_file(files.params_file(size)).get("size", size) == size


def test_the_papers_recipes_on_a_language_model(monkeypatch):
    """Every published recipe is an arm of one file, on ALFWorld's own games; what the papers state is what is there."""
    monkeypatch.undo()
    sections = {path.stem: load_file(path)["grpo"] for path in (files.params_dir() / "qwen3-1.7b").glob("*.yaml")}
    trained = {name: check("grpo", {"size": name}) for name in sections}
    assert all(name in params.sizes() for name in trained)
    arms = {arm for p in trained.values() for arm in p.arms}
    assert {"grpo", "gigpo", "guide", "self_guide", "repro_large", "igpo", "step_agent_large"} <= arms
    for name, p in trained.items():
        assert (p.model, p.task_size, p.turns) == ("Qwen/Qwen3-1.7B", "official", 50), name
        assert (p.learning_rate, p.lr_schedule, p.win_reward) == (1e-6, "constant", None), name
        assert p.iterations * p.games_per_iteration <= 3553, f"{name}: every game of ALFWorld's is trained on once"
        batch = (32, 16, 0.001) if name == "qwen3_igpo" else (16, 8, 0.0)
        assert (p.games_per_iteration, p.group_size, p.beta) == batch, name
    p = trained["qwen3_self_guide"]
    schedule = load_recipe("self_guide").components[1].schedule
    coefficients = [schedule(step / p.iterations) for step in (39, 45, 50, 70, 75, 80, 99)]
    assert coefficients == pytest.approx([0, 0.5, 1, 1, 0.5, 0, 0])  # the paper's 100 steps


def test_large_models_are_warmed_up_gently():
    """The rates of the small models' starts would ruin a pre-trained one."""
    for name, plain in (("repro_large", "repro"), ("step_agent_large", "step_agent")):
        large, small = load_recipe(name), load_recipe(plain)
        assert (large.components, large.estimator) == (small.components, small.estimator)
        assert large.start.learning_rate == 1e-5


def test_clip_is_refused_where_it_would_do_nothing():
    with pytest.raises(params.ParameterError, match="clip does nothing with updates_per_batch = 1"):
        params.check("grpo", {"size": "tiny", "clip": 0.3})
    assert params.check("grpo", {"size": "tiny", "clip": 0.3, "updates_per_batch": 2}).clip == 0.3


def test_a_try_with_other_values_gets_a_folder_of_its_own():
    plain = check("grpo", {"size": "tiny"})
    assert plain.run_name == "tiny-seed7" and check("grpo", {"size": "tiny", "seed": 3}).run_name == "tiny-seed3"
    tried = check("grpo", {"size": "tiny", "games_per_iteration": 3})
    assert re.fullmatch(r"tiny-seed7-[0-9a-f]{6}", tried.run_name)
    assert check("grpo", {"size": "tiny", "games_per_iteration": 3, "run": "mine"}).run_name == "mine"


def test_what_is_in_a_file_of_ones_own_counts(tmp_path):
    """Another recipe under the same name is another run, and replaces no result."""
    file, names = tmp_path / "mine.yaml", []
    for weight in (1.0, 2.0, 1.0):
        file.write_text(f"components: [{{name: outcome, weight: {weight}}}]")
        p = check("grpo", {"size": "tiny", "arms": [str(file)]})
        assert list(p.files) == [str(file)]
        names.append(p.run_name)
    assert names[0] == names[2] != names[1]
    assert check("grpo", {"size": "tiny"}).files == {}


@pytest.mark.parametrize("text", ["[igpo, grpo]", "['igpo', grpo]"])
def test_papermills_command_line_hands_over_lists_as_text(text):
    """`-p arms '[igpo]'` and `-p arms igpo`: papermill's -p knows numbers and texts only."""
    assert check("grpo", {"size": "tiny", "arms": text}).arms == ["igpo", "grpo"]
    assert check("grpo", {"size": "tiny", "arms": "igpo"}).arms == ["igpo"]
    with pytest.raises(ParameterError, match="grpo.arms.*no recipe 'igpoo'"):
        check("grpo", {"size": "tiny", "arms": "[igpoo]"})
    with pytest.raises(ParameterError, match="grpo.arms"):
        check("grpo", {"size": "tiny", "arms": "[igpo"})


def test_another_notebooks_parameters_under_the_same_values():
    """06 trains what 04 trains: with the same file, sections and shared fields; its own fields do not count."""
    values = {"size": "tiny", "seed": 3, "max_turns": 9, "k": 4, "grpo": {"eval_games": 5}, "truth": {"steps": 2}}
    assert params.sibling("grpo", values, arms=["igpo"]) == check(
        "grpo", {"size": "tiny", "seed": 3, "max_turns": 9, "grpo": {"eval_games": 5}, "arms": ["igpo"]}
    )


def test_a_file_of_ones_own_need_not_have_every_section(folder):
    """papermill -f mine.yaml hands over its sections; a notebook without one of its own there has its defaults."""
    assert check("game", {"env": "alfworld", "size": "mine", "grpo": {"iterations": 2}, "game": {}}).games == 6
    with pytest.raises(ParameterError, match="there is no params/mine.yaml"):
        check("game", {"size": "mine", "game": {}})


def test_every_setting_of_the_trainer_can_be_set():
    """By a parameter of its name, with the same default; a few are made of others."""
    from sglib.experiments.experiment import Experiment
    from sglib.training.grpo import GRPOSettings

    made = {"epsilon", "format", "seed", "max_turns", "save_trajectories_every", "report_to"}
    made |= {"iterations", "eval_every"}  # with defaults of their own
    for name, field in GRPOSettings.model_fields.items():
        if name not in made:
            assert params.GRPOParams.model_fields[name].default == field.default, name
    p = check("grpo", {"size": "tiny", "bf16": True, "micro_batch_size": 3, "lora_rank": 4, "updates_per_batch": 2,
                       "clip": 0.1, "epsilon_high": 0.3, "max_turns": 7, "report_to": []})  # fmt: skip
    experiment = Experiment("grpo_again", p)
    settings = experiment.settings(experiment.load())
    assert (settings.bf16, settings.micro_batch_size, settings.lora_rank, settings.max_turns) == (True, 3, 4, 7)
    assert (settings.epsilon, settings.epsilon_high, settings.iterations) == (0.1, 0.3, 3) and settings.seed > p.seed


def test_paths_are_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(params.recipe_file("grpo").read_text())
    assert check("grpo", {"size": "tiny", "arms": ["mine.yaml"]}).arms == [str(tmp_path / "mine.yaml")]
    (tmp_path / "mine.yaml").write_text("components: [{name: outcome, wieght: 1}]")
    with pytest.raises(ParameterError, match="wieght"):  # before a run begins, which empties its folder
        check("grpo", {"size": "tiny", "arms": ["mine.yaml"]})


def test_turns_are_the_environments_unless_said():
    assert check("grpo", {"size": "tiny"}).turns == params.envs.get("alfworld").turns
    assert check("grpo", {"size": "tiny", "max_turns": 9}).turns == 9


def test_thinking_is_for_models_that_can():
    for name in ("base", "new", "alfworld/base_strong"):
        with pytest.raises(ParameterError, match=f"thinking=True: '{name}' is a small model"):
            check("grpo", {"size": "tiny", "thinking": True, "model": name})
    with pytest.raises(ParameterError, match="thinking=True: 'endpoint:http://localhost:1/v1#m' is a server"):
        check("pilot", {"size": "tiny", "thinking": True, "model": "endpoint:http://localhost:1/v1#m"})
    assert check("grpo", {"size": "tiny", "thinking": True, "model": "someone/some-model"}).thinking


def test_prompts_for_language_models_are_not_for_small_ones():
    with pytest.raises(ParameterError, match="react: allowed with small models: act, progress, guide"):
        check("guidance", {"size": "tiny", "formats": ["act", "react"]})
    asked = {"size": "tiny", "formats": ["react", "guide_two_stage"], "model": "someone/some-model"}
    assert check("guidance", asked).formats == ["react", "guide_two_stage"]
