"""One list of dependencies, and the few promises that files make about each other."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def constraints() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    pins = [re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!]+)", line) for line in lines]
    assert all(pins), "every line is name==version, without a local tag such as +cpu"
    return {canonicalize_name(pin[1]): pin[2] for pin in pins}


def test_every_dependency_is_pinned_to_an_allowed_version():
    extras = PROJECT["project"]["optional-dependencies"]
    pins = constraints()
    for text in [*PROJECT["project"]["dependencies"], *(name for names in extras.values() for name in names)]:
        requirement = Requirement(text)
        assert canonicalize_name(requirement.name) in pins, requirement
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_no_pin_asks_for_a_later_patch_of_python():
    """soupsieve 4 wants 3.11.5: with Debian 12's 3.11.2 an older pip looks for a way around that pin without end."""
    first = [f"{version}.0" for version in ("3.11", "3.12")]
    pins, needs = constraints(), {}
    for found in importlib.metadata.distributions():
        if pins.get(canonicalize_name(found.metadata["Name"])) == found.version:
            needs[found.metadata["Name"]] = SpecifierSet(found.metadata.get("Requires-Python") or "")
    assert len(needs) > 50
    assert not {name: str(need) for name, need in needs.items() if not all(need.contains(v) for v in first)}


def test_conda_has_no_list_of_its_own():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert [entry.split("=")[0] for entry in conda] == ["python", "pip"]
    assert pip == {"pip": ["-c constraints.txt", "-e .[test]"]}
    version = conda[0].split("=")[1]
    assert Requirement(f"python{PROJECT['project']['requires-python']}").specifier.contains(f"{version}.0")


def test_make_checks_the_same_python_versions():
    makefile = (ROOT / "Makefile").read_text()
    assert PROJECT["project"]["requires-python"] == ">=3.11,<3.13"
    assert "(3, 11) <= v < (3, 13)" in makefile


def test_too_old_a_python_is_told_so(tmp_path):
    fake = tmp_path / "python3.9"
    pretend = "import sys; sys.version_info = (3, 9, 1); exec(sys.argv[1])"
    fake.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{pretend}" "$2"\n')
    fake.chmod(0o755)
    for name in ("pyproject.toml", "constraints.txt", "Makefile"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    run = subprocess.run(["make", "study", f"PYTHON={fake}"], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode != 0
    assert "sglib needs Python 3.11 or 3.12, and" in run.stderr and "is 3.9" in run.stderr
    assert not (tmp_path / ".venv").exists()


def test_ci_calls_make_test():
    script = (ROOT / ".ci" / "run").read_text()
    assert "make --no-print-directory test" in script and "HF_HUB_OFFLINE=1" in script


def test_no_pickles():
    """Weights and results come as safetensors, JSON and Parquet: reading them runs no code."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert not [name for name in tracked if name.endswith((".pkl", ".pickle", ".pt", ".pth", ".bin"))]


def imported(source: str) -> set[str]:
    """Modules of `sglib` that are imported, also inside of functions."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sglib"):
            folder = (ROOT / node.module.replace(".", "/")).is_dir()
            found |= {f"{node.module}.{name.name}" for name in node.names} if folder else {node.module}
    return found


def test_modules_import_only_what_the_library_s_table_lists_above_them():
    rows = re.findall(r"^\| (`sglib/.*?) \|", (ROOT / "docs" / "library.md").read_text(encoding="utf-8"), re.MULTILINE)
    listed = {}  # module or package -> its row
    for number, row in enumerate(rows):
        for name in re.findall(r"`(?:sglib/)?([^`]+?)(?:\.py|/)`", row):
            listed[f"sglib.{name.replace('/', '.')}"] = number
    assert len(listed) == 12

    def row(module: str) -> int:
        fitting = [name for name in listed if f"{module}.".startswith(f"{name}.")]
        assert fitting, f"{module} is not in the table of docs/library.md"
        return listed[max(fitting, key=len)]

    for file in sorted((ROOT / "sglib").rglob("*.py")):
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if module not in ("sglib", "sglib.__main__"):
            for other in imported(file.read_text()):
                assert row(other) <= row(module), f"{module} imports {other}, which docs/library.md has below it"
