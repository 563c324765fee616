"""Every notebook's parameters, checked before anything runs.

One YAML file in `params/` describes one size of the whole study: `env`, `seed` and `size` at the top, then a section
for each notebook. A notebook's parameters cell declares only `seed`, `size` and its own (empty) section; the next cell
is

    p = sglib.params.check("04_joint_grpo", globals())

Values come from, later ones winning: the defaults below, `params/<size>.yaml`, the injected section
(`papermill ... -f mine.yaml`), and single values (`papermill ... -p seed 3 -p iterations 5`).
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml
from pydantic import AfterValidator, BeforeValidator, Field

from sglib import envs, formats
from sglib.experiments.files import ParameterError, explain, params_file, read_yaml, recipe_file, sizes
from sglib.experiments.identity import canonical, digest, weights_hash
from sglib.models.policy import check_thinking
from sglib.models.small import is_compact, shipped_folder
from sglib.models.vllm_server import check_server
from sglib.rewards.fields import Count, Float, Int, Positive, Rate, Seed, Share, Text, Warmth, known_keys, unknown
from sglib.training.settings import BatchSettings

COMMON = ("env", "seed", "size", "output_dir", "run", "model")  # keys at the top of a YAML file


def _as_list(value: Any) -> Any:
    """`papermill -p arms '[igpo, grpo]'` and `-p arms igpo` hand over a text: a list in YAML, or one name."""
    if not isinstance(value, str):
        return value
    try:
        return yaml.safe_load(value) if value.lstrip().startswith("[") else [value]
    except yaml.YAMLError:
        return value


def _distinct(names: Sequence[str]) -> Sequence[str]:
    if len({Path(name).stem for name in names}) < len(names):  # of recipes' files the names count
        raise ValueError("one is named twice")
    return names


def _recipe(name: str) -> str:
    """A recipe's name, or the whole path of its file: notebooks run in another folder than commands."""
    file = recipe_file(name)
    return str(file.resolve()) if name.endswith(".yaml") else name


def _named_recipe(name: str) -> str:
    if name.endswith(".yaml"):
        raise ValueError(f"{name}: allowed: recipes of params/recipes")
    return _recipe(name)


def _grid_name(name: str) -> str:
    having = [size for size in sizes() if "grid" in load_file(params_file(size))]
    if name not in having:
        raise ValueError(f"no file of params/ has this name and a grid; allowed: {', '.join(having)}")
    return name


def _environment(name: str) -> str:
    envs.get(name)
    return name if name in envs.names() else str(Path(name).resolve())


def _model(name: str) -> str:
    return str(Path(name).resolve()) if Path(name).exists() and not shipped_folder(name) else name


RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Format = Literal["act", "progress", "guide", "react", "react_sparse", "repro", "guide_two_stage"]
Condition = Literal["basic", "online", "random", "retrospective"]
Names = Annotated[list[str], BeforeValidator(_as_list), AfterValidator(_distinct)]
Recipes = Annotated[list[Annotated[str, AfterValidator(_recipe)]], BeforeValidator(_as_list), AfterValidator(_distinct)]
NamedRecipe = Annotated[str, AfterValidator(_named_recipe)]
NamedRecipes = Annotated[list[NamedRecipe], *Recipes.__metadata__]
GridName = Annotated[RunName, AfterValidator(_grid_name)]


class Params(pydantic.BaseModel):
    """What all notebooks share.

    Attributes:
        env: the environment: a name of `sglib.envs.names()`, or the path of a .py file with an ENVIRONMENT.
        seed: 0 .. 2**32 - 1; decides tasks, sampling and training order.
        size: name of the file in `params/` that the values come from.
        output_dir: where runs go, relative to the repository (the environment variable SGLIB_OUTPUT goes first).
        run: name of the run's folder; None makes it `<size>-seed<seed>`, then `-<hash>` where other values than
            those of `params/<size>.yaml` are used, so that a try does not replace the run that it varies.
        model: what `sglib.load_policy` takes: "base" (of the environment), a local path, a hub id, or (to play, not to
            train) the address of a server, "endpoint:http://...#name".
        thinking: let a model think before it answers, if its chat template knows that (Qwen3's does): an answer then
            has 1,000 tokens. Not of a shipped model or a server, whose own settings say it.
        max_turns: actions that an episode may take, 1..200; None takes the environment's own number.
        task_size: how large or hard tasks are, as the environment's `tasks` takes it; None is the environment's own.
        temperature: of sampling, in (0, 2].
        batch_size: episodes that are played side by side in evaluations; changes speed and memory only.
    """

    # strict: YAML's `no` is no integer and the text "1e-5" is no float; frozen: what was recorded is what ran
    model_config = pydantic.ConfigDict(strict=True, frozen=True, protected_namespaces=())
    _known = pydantic.model_validator(mode="before")(classmethod(known_keys))

    env: Annotated[str, AfterValidator(_environment)] = Field("", validate_default=True)
    seed: Seed = 0
    size: RunName = "cpu"
    output_dir: Text = "outputs"
    run: RunName | None = None
    model: Annotated[Text, AfterValidator(_model)] = "base"
    thinking: bool = Field(False, repr=False)  # notebooks print the others
    max_turns: Int | None = Field(None, ge=1, le=200)
    task_size: Any = None
    temperature: Warmth = 0.4
    batch_size: Count = 64

    @pydantic.model_validator(mode="after")
    def _known_size(self):
        self.card.tasks(0, size=self.task_size)
        return self

    @pydantic.model_validator(mode="after")
    def _able_to_think(self):
        if self.thinking:
            check_thinking(self.model, self.env)
        return self

    @pydantic.model_validator(mode="after")
    def _known_formats(self):
        named = [name for field in ("format", "formats", "prompts") for name in _as_list(getattr(self, field, []))]
        if (asked := [name for name in named if name in formats.LANGUAGE]) and is_compact(self.model, self.env):
            raise ValueError(f"{asked[0]}: allowed with small models: {', '.join(formats.FORMATS)}")
        return self

    @property
    def card(self) -> envs.Environment:
        return envs.get(self.env)

    @property
    def turns(self) -> int:
        """Actions that an episode may take."""
        return self.max_turns or self.card.turns

    @property
    def run_name(self) -> str:
        name = self.run or f"{self.size}-seed{self.seed}"
        if self.run or not params_file(self.size):
            return name
        section = next(section for section, (_, model) in SECTIONS.items() if model is type(self))
        plain = check(section, {"size": self.size, "seed": self.seed})
        mine, usual = (p.model_dump(exclude={"run", "output_dir"}) for p in (self, plain))
        if mine == usual:
            return name
        mine |= {"files": files} if (files := self.files) else {}
        return f"{name}-{hashlib.sha256(json.dumps(mine, sort_keys=True).encode()).hexdigest()[:6]}"

    @property
    def files(self) -> dict[str, str]:
        """A hash of each of the user's own files and folders that values name: recipes, a model, an environment."""
        from sglib.experiments.recipe import load_recipe  # loads TRL, which takes seconds
        from sglib.experiments.runs import source_hash

        values = self.model_dump(exclude={"output_dir"}).values()
        own = [x for of in values for x in (of if isinstance(of, list) else [of]) if str(x).startswith("/")]
        kinds = {".yaml": lambda x: digest(canonical(load_recipe(x), env=self.env)), ".py": source_hash}
        return {x: kinds.get(Path(x).suffix, weights_hash)(x) for x in own}


class GameParams(Params):
    """00_the_game: `games` shown, how the model acts in them."""

    games: Count = 6
    format: Format = "guide"


class PilotParams(Params):
    """01_pilot_study: `games` of the panel, the ways of acting that are compared."""

    games: Count = 128
    conditions: Annotated[list[Condition], *Names.__metadata__] = Field(
        ["basic", "online", "random", "retrospective"], min_length=1
    )


class GuidanceParams(Params):
    """02_inference_self_guidance: `games` of the panel, the formats that are compared."""

    games: Count = 128
    formats: Annotated[list[Format], *Names.__metadata__] = Field(["act", "guide"], min_length=1)


class WarmupParams(Params):
    """03_repro_warmup: `games` played at `play_temperature` for annotation, supervised training on the won ones, the
    panel before and after."""

    games: Count = 256
    play_temperature: Warmth = 1.0
    epochs: Count = 1
    learning_rate: Rate = 2.0e-4
    train_batch_size: Count = 16
    lora: bool = False
    eval_games: Count = 128


class GRPOParams(Params, BatchSettings):
    """04_joint_grpo: the fields of `sglib.training.settings.BatchSettings`, and:

    Attributes:
        arms: recipes to compare: names of `params/recipes`, or paths of YAML files like those.
        iterations: batches that are played and trained on, of `games_per_iteration` x `group_size` episodes each.
        clip: the ratio of the loss (Eq 9) is clipped to [1 - clip, 1 + epsilon_high], None means `clip`; both act from
            two updates a batch on, and are refused with one.
        win_reward: what a success pays in every arm; None leaves it to each recipe (10 in most, as the framework of
            Self-Guide's authors pays; a plain 1 lets the labels' sum outweigh it).
        eval_games, eval_every, eval_temperature: the held-out panel, how often (iterations) and how it is played.
        eval_seeds: how often the trained policy plays it, 1..9, each time with another seed; a game's outcome is the
            mean.
        temperature: of the training rollouts.
        engine: vllm has vLLM write the answers (`sglib.models.vllm_engine`); null the model itself.
        server: address of the vLLM server that writes them (`sglib.models.vllm_server`); null has vLLM in this process.
        report_to: trackers that get every iteration's numbers too, as TRL names them: [tensorboard], [trackio]; they
            must be installed.
    """

    temperature: Warmth = 1.0
    arms: Recipes = Field(["grpo", "guide", "self_guide", "immediate"], min_length=1)
    iterations: Count = 20
    clip: Float = Field(0.2, gt=0, lt=1)
    win_reward: Positive | None = None
    eval_games: Count = 256
    eval_every: Count = 10
    eval_temperature: Warmth = 0.4
    eval_seeds: Int = Field(1, ge=1, le=9)
    engine: Literal["vllm"] | None = None
    server: str | None = None
    report_to: Names = []

    @pydantic.field_validator("report_to")
    @classmethod
    def _trackers(cls, value: list[str]) -> list[str]:
        if value:
            from sglib.training.grpo import check_trackers  # loads TRL, which takes seconds

            check_trackers(value)
        return value

    @pydantic.model_validator(mode="after")
    def _known_server(self):
        if self.server is not None:
            check_server(self.server, self.engine)
        return self

    @pydantic.model_validator(mode="after")
    def _known_options(self):
        allowed = sorted(set(inspect.signature(self.card.make).parameters) - {"max_steps", "admissible"})
        if unknown := sorted(set(self.env_options) - set(allowed)):
            raise ValueError(f"env_options: {unknown[0]!r}; allowed for {self.env}: {', '.join(allowed) or 'none'}")
        if self.env_options:
            self.card.make(**self.env_options)
        return self

    @pydantic.model_validator(mode="after")
    def _clip_acts(self):
        for name in ("clip", "epsilon_high"):
            if name in self.model_fields_set and self.updates_per_batch == 1 and getattr(self, name) is not None:
                raise ValueError(f"{name} does nothing with updates_per_batch = 1: leave it out, or set that to 2")
        return self

    @pydantic.model_validator(mode="after")
    def _fitting(self):
        return _check_recipes(self, self.arms)


class CreditParams(Params):
    """05_credit_assignment: `games`, `group_size` episodes of each, all methods' rewards and advantages on them."""

    temperature: Warmth = 1.0
    max_turns: Int | None = Field(15, ge=1, le=200)
    games: Count = 3
    group_size: Int = Field(4, ge=2)


class TruthParams(Params):
    """06_is_the_reward_true: `games` played in each format and rated by every reward; `steps` of each format played
    again, `k` times as they were and `k` times sampled again; `arms` and `remedies` trained as notebook 04 trains them,
    unless it has; `cells` as in 07_how_sure."""

    temperature: Warmth = 1.0
    games: Count = 24
    steps: Count = 16
    k: Count = 16
    arms: Recipes = ["guide", "self_guide", "immediate"]
    remedies: Recipes = []
    cells: GridName = "dense"

    @pydantic.model_validator(mode="after")
    def _compared(self):
        if "immediate" not in self.arms:
            raise ValueError("arms: must have immediate, which the others are compared with")
        return _check_recipes(self, _distinct([*self.arms, *self.remedies]))


class HowSureParams(Params):
    """07_how_sure: `cells` names the file of `params/regimes/` (or `params/`) whose `grid` is looked at."""

    cells: GridName = "tight"


class LookParams(Params):
    """08_inspecting_trajectories: `games` played by `group_size` episodes in each of two formats; a what-if of `k`."""

    temperature: Warmth = 1.0
    games: Count = 6
    group_size: Int = Field(4, ge=2)
    k: Count = 16


class ReportParams(Params):
    """09_report: `reference` shows the committed results of `outputs/reference/` next to this machine's; `cells` as in
    07_how_sure."""

    reference: bool = True
    cells: GridName = "tight"


def _regime(name: str) -> str:
    having = [size for size in sizes() if "assay" in read_yaml(params_file(size))]
    if name not in having:
        raise ValueError(f"no file of params/regimes/ has this name and the key assay; allowed: {', '.join(having)}")
    return name


class AssayParams(Params):
    """10_assay: the `recipe` (a name, or the path of a YAML file) that is judged in a `regime`, with the controls'
    first `seeds` seeds."""

    recipe: Annotated[str, AfterValidator(_recipe)] = "truth"
    regime: Annotated[RunName, AfterValidator(_regime)] = "tight"
    seeds: Int = Field(5, ge=3, le=100)


class PhaseParams(Params):
    """11_when_do_step_rewards_help has none of its own: it reads every regime's cells."""


class LanguageModelParams(GRPOParams):
    """12_a_real_language_model: `games` of the panel, played as it comes and after each number of `demonstrations`
    (cumulative, each learned from once); then `arms` are trained from there, as notebook 04 trains them.

    Attributes:
        sft_learning_rate, sft_batch_size: of the supervised training.
        prompts: further formats, played as it comes.
        steered: games on which formats are compared, and episodes in which guidance is replaced.
        training_seeds: of each arm, from `seed` on.
        official_games: of each official validation list, at the end; 0 plays none.
    """

    model: Annotated[Text, AfterValidator(_model)] = "smollm2"
    prompts: Annotated[list[Format], *Names.__metadata__] = []
    training_seeds: Count = 1
    official_games: Int = Field(0, ge=0, le=134)
    games: Count = 32
    answer_tokens: Count | None = 24
    demonstrations: Annotated[list[Count], BeforeValidator(_as_list)] = Field([20, 40, 80], min_length=1)
    sft_learning_rate: Rate = 2.0e-4
    sft_batch_size: Count = 4
    steered: Count = 16
    arms: Recipes = Field(["grpo", "guide", "self_guide"], min_length=1)
    iterations: Count = 2

    @pydantic.field_validator("demonstrations")
    @classmethod
    def _ascending(cls, value: list[int]) -> list[int]:
        if value != sorted(set(value)):
            raise ValueError("must be ascending, each number once")
        return value

    def training(self, model: str | Path) -> GRPOParams:
        """The parameters of a training that begins with this model."""
        silent = {"clip", "epsilon_high"} - self.model_fields_set  # what does nothing with one update a batch
        same = self.model_dump(include=set(GRPOParams.model_fields) - silent)
        return GRPOParams(**same | {"model": str(model)})


class ScaleParams(Params):
    """13_scale_up.

    Attributes:
        games, group_size: what the random Qwen3 plays, and `answer_tokens` that its answers may have.
        episodes, episode_tokens, written: of a batch in the table, tokens of an episode and how many the policy writes.
        memory, tflops, bandwidth: of the GPU in the table: GB, 10**12 operations a second in bfloat16, TB/s.
        utilisation: share of the last two that is reached, 0..1.
    """

    temperature: Warmth = 1.0
    max_turns: Int | None = Field(3, ge=1, le=200)
    games: Count = 2
    group_size: Int = Field(3, ge=2)
    answer_tokens: Count = 12
    episodes: Count = 128
    episode_tokens: Count = 13_000
    written: Count = 3_000
    memory: Positive = 80.0
    tflops: Positive = 989.0
    bandwidth: Positive = 3.35
    utilisation: Share = 0.4


class OfficialParams(Params):
    """14_the_real_benchmark: `games` of each published list are played, `replayed` lost and won episodes each on the
    environment's own engine; `cells` names the file of `params/` whose grid was trained."""

    model: Annotated[Text, AfterValidator(_model)] = "official"
    max_turns: Int | None = Field(50, ge=1, le=200)
    cells: GridName = "official"
    games: Count = 24
    replayed: Int = Field(2, ge=0)


class Grid(pydantic.BaseModel):
    """The key `grid` of a parameters file: the recipes that `python -m sglib evidence` trains, as the section `grpo`
    says. `headline` ones have `headline_seeds` paired seeds each, the others theirs, from `first_seed` on. Tuning used
    seed 0."""

    model_config = pydantic.ConfigDict(strict=True, frozen=True)
    _known = pydantic.model_validator(mode="before")(classmethod(known_keys))

    headline: NamedRecipes = Field(min_length=1)
    others: NamedRecipes = []
    extras: NamedRecipes = []
    headline_seeds: Count = 10
    other_seeds: Count = 5
    extra_seeds: Count = 3
    first_seed: Count = 1

    @pydantic.model_validator(mode="after")
    def _apart(self):
        _distinct([*self.headline, *self.others, *self.extras])
        return self


class Assay(pydantic.BaseModel):
    """The key `assay` of a parameters file, which makes it a regime: the rule of `sglib.experiments.assay`, fixed
    before its cells are trained.

    Attributes:
        measure: what is compared: success "after" training, or its mean over the evaluations during "training".
        margin: the least gain of the truth over success alone, 0..1.
        plain: success alone, by each estimator.
        again, truth, shuffled, noise, noisy: the controls.
    """

    model_config = pydantic.ConfigDict(frozen=True)
    _known = pydantic.model_validator(mode="before")(classmethod(known_keys))

    measure: Literal["after", "training"] = "training"
    margin: Share = 0.05
    plain: NamedRecipes = ["grpo", "gigpo"]
    again: NamedRecipe = "grpo_again"
    truth: NamedRecipe = "truth"
    shuffled: NamedRecipe = "truth_shuffled"
    noise: NamedRecipe = "noise"
    noisy: NamedRecipes = [f"truth_noisy_{auroc}" for auroc in (60, 70, 80, 90)]


def _check_recipes(p: Params, names: Sequence[str]) -> Params:
    """The parameters as they are, if every recipe is without fault and fits the environment."""
    from sglib.experiments.recipe import load_recipe  # loads TRL, which takes seconds

    for name in names:
        load_recipe(name, p.card)
    return p


# section of the YAML file -> (notebook, its parameters), in the order of the study
SECTIONS: dict[str, tuple[str, type[Params]]] = {
    "game": ("00_the_game", GameParams),
    "pilot": ("01_pilot_study", PilotParams),
    "guidance": ("02_inference_self_guidance", GuidanceParams),
    "warmup": ("03_repro_warmup", WarmupParams),
    "grpo": ("04_joint_grpo", GRPOParams),
    "credit": ("05_credit_assignment", CreditParams),
    "truth": ("06_is_the_reward_true", TruthParams),
    "sure": ("07_how_sure", HowSureParams),
    "look": ("08_inspecting_trajectories", LookParams),
    "own": ("10_assay", AssayParams),
    "phase": ("11_when_do_step_rewards_help", PhaseParams),
    "lm": ("12_a_real_language_model", LanguageModelParams),
    "scale": ("13_scale_up", ScaleParams),
    "official": ("14_the_real_benchmark", OfficialParams),
    "report": ("09_report", ReportParams),
}


FURTHER: dict[str, type[pydantic.BaseModel]] = {"grid": Grid, "assay": Assay}  # keys that no notebook reads


def check(notebook: str, values: dict[str, Any]) -> Params:
    """The validated parameters of one notebook.

    Args:
        notebook: "04_joint_grpo", or the section's name, "grpo".
        values: what papermill or the parameters cell set: common keys, sections, and single fields of this notebook's
            section. A notebook passes `globals()`; of these only the names assigned before this call's cell count.

    Raises:
        ParameterError: naming each wrong key or value and what is allowed there.
    """
    section, values = _section(notebook), _notebook_values(values)
    size = values.get("size", Params.model_fields["size"].default)
    known = params_file(size)
    stored = load_file(known) if known else {}
    if not known and not any(values.get(name) for name in SECTIONS):  # with -f, a file's sections are all there
        raise ParameterError(f"size = {size!r}: there is no params/{size}.yaml; there are: {', '.join(sizes())}")
    base, single = common(stored), {k: v for k, v in values.items() if k not in SECTIONS and k not in FURTHER}
    for other in (*SECTIONS, *FURTHER):
        if other in values and other != section:  # a file passed with -f brings all sections: check them all, now
            _build(other, values[other], base | common(values))
    return _build(section, values.get(section), base | stored.get(section, {}), single)


def common(content: dict[str, Any]) -> dict[str, Any]:
    """What is said for all notebooks."""
    return {k: v for k, v in content.items() if k in COMMON}


def sibling(section: str, values: dict[str, Any], **own: Any) -> Params:
    """The parameters that another notebook ("grpo") has under the same sections and shared fields, as 06 trains what 04
    trains. `values` as for `check`, of single fields those of `Params`; `own` are fixed here."""
    values = _notebook_values(values)
    return check(section, {k: v for k, v in values.items() if k in Params.model_fields or k in SECTIONS} | own)


def load_file(path: str | Path) -> dict[str, Any]:
    """The content of a parameters file, every section checked: common keys (`size` is the file's name, unless it says
    another), and a mapping per section.

    Raises:
        ParameterError: naming the file, and each wrong key or value in it.
    """
    content = {"size": Path(path).stem} | read_yaml(path)
    try:
        if odd := [str(k) for k in content if k not in (*COMMON, *SECTIONS, *FURTHER)]:
            raise ParameterError(unknown(odd[0], [*COMMON, *SECTIONS, *FURTHER]))
        for section in (*SECTIONS, *(name for name in FURTHER if name in content)):
            _build(section, content.get(section), common(content))
    except ParameterError as error:
        raise ParameterError(f"{path}: {error}") from None
    return {k: v if k in COMMON else v or {} for k, v in content.items()}


def _section(notebook: str) -> str:
    for section, (name, _) in SECTIONS.items():
        if notebook in (section, name):
            return section
    raise ParameterError(unknown(notebook, [name for name, _ in SECTIONS.values()], "notebook"))


def _notebook_values(values: dict[str, Any]) -> dict[str, Any]:
    """Of a notebook's `globals()`, the names assigned before the cell that calls `check`; any other dict as it is."""
    cells = values.get("In")
    if not isinstance(cells, list):
        return dict(values)
    # A misspelt `-p lerning_rate 1` is a plain assignment in papermill's cell: only the source tells it from the rest.
    names, imported = set(), set()
    for cell in cells:
        try:
            statements = ast.parse(cell).body
        except SyntaxError:  # a cell with magics sets no parameter
            continue
        imports = [a for s in statements if isinstance(s, ast.Import | ast.ImportFrom) for a in s.names]
        imported |= {(a.asname or a.name).partition(".")[0] for a in imports}
        if re.search(r"\bcheck\(", cell):
            break
        assigned = [target for s in statements if isinstance(s, ast.Assign) for target in s.targets]
        names.update(target.id for target in assigned if isinstance(target, ast.Name))
    for name in sorted(names & imported):
        raise ParameterError(f"{name}: an import of this notebook replaced its value: import under another name")
    return {name: values[name] for name in names if name in values}


def _build(section: str, content: Any, before: dict[str, Any], after: Mapping[str, Any] = {}) -> pydantic.BaseModel:
    """A section's model, or the grid's, of what the section holds; a section has the values `before` it, too, unless it
    says others, and those `after` it, whatever it says."""
    if not isinstance(content, dict | None):  # None: `grpo:` with nothing below it
        raise ParameterError(f"{section} = {content!r}: expected keys and values, found {type(content).__name__}")
    try:
        if section in FURTHER:
            return FURTHER[section].model_validate(content or {})
        return SECTIONS[section][1].model_validate({**before, **(content or {}), **after})
    except pydantic.ValidationError as error:
        raise ParameterError(explain(error, f"{section}.", COMMON)) from None
