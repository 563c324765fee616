"""The shape of the house: what an environment knows stays in its room, and there is little at the top."""

import re
from pathlib import Path

import pytest
from alfworld.gen import constants

from sglib.envs.alfworld import SPLITS, TASK_TYPES
from sglib.envs.alfworld.games import PROCESSOR, ROOMS
from sglib.envs.alfworld.official import OFFICIAL_SPLITS

SGLIB = Path(__file__).parents[1] / "sglib"
ROOM = SGLIB / "envs" / "alfworld"
# names of things that are words of the trade, too
COMMON = {"box", "fork", "laptop", "mirror", "safe", "watch", "window"}
THINGS = {name.lower() for name in (*constants.OBJECTS, *constants.RECEPTACLES)} - COMMON
ANYWHERE = ("alfworld", "alfred", "textworld", "receptacle", "pddl", "household", "floor plan", "floorplan",
            "goal_conditions", *TASK_TYPES)  # fmt: skip
WORDS = (*THINGS, *(set(SPLITS) | set(OFFICIAL_SPLITS)) - {"train"}, *(room.lower() for room in ROOMS),
         *(able.lower() for able, _ in PROCESSOR.values()), "sliceable", "toggleable", "pickupable",
         "room of", "go to", "mugs", "knives", "furniture", "walkthrough", "countertop", "fast downward")  # fmt: skip
PATTERN = re.compile(rf"{'|'.join(ANYWHERE)}|\b(?:{'|'.join(sorted(WORDS))})s?\b")


def spoken(files) -> list[str]:
    """ "file:line: word" of each line that has one of ALFWorld's words."""
    return [
        f"{file.relative_to(SGLIB)}:{number}: {found[0]!r}"
        for file in files
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if (found := PATTERN.search(line.lower()))
    ]


def test_only_alfworlds_room_speaks_of_alfworld():
    """Code, strings and docstrings: the rest of the library asks the card, and has no default environment either."""
    files = {file for kind in ("*.py", "*.js", "*.css", "*.html") for file in SGLIB.rglob(kind)}
    inside = {file for file in files if ROOM in file.parents}
    assert len(files) > 60 and not spoken(sorted(files - inside))
    assert len({line.partition(":")[0] for line in spoken(sorted(inside))}) > 15, "the words are those of the room"


@pytest.mark.parametrize("text", ["the Fridge", "two mugs", "PddlEnv", "valid_seen", "a CD", "pick_two_obj_and_place"])
def test_a_word_of_alfworld_is_found(text, tmp_path, monkeypatch):
    monkeypatch.setattr("test_house.SGLIB", tmp_path)
    (tmp_path / "x.py").write_text(f"# a line\n# {text}\n")
    assert [line.partition(": ")[0] for line in spoken([tmp_path / "x.py"])] == ["x.py:2"]


def test_twelve_rooms():
    rooms = {path.name for path in SGLIB.iterdir()} - {"__init__.py", "__main__.py", "__pycache__"}
    assert rooms == {"records.py", "envs", "formats", "models", "play", "rewards", "advantages", "training", "measure",
                     "experiments", "interop", "view"}  # fmt: skip


def test_few_lines():
    """15,048 with two environments; the assay may cost 1,200, language models of any family 650, search QA 600,
    ScienceWorld, with a Java process to look after, 800, WebShop with its site 1,250, checks of input 100, the field's
    formats of trajectories and other trainers 1,350, the report as a page (code of notebooks 09 and 11) 650, checksums
    and the handling of trouble 400, cells on other machines 330, demonstrators that know where things lie 20, several
    processes and micro-batches 510, what a training costs 130, a random Qwen3 with Qwen's tokenizer 55, vLLM 150 and
    270 as a server, a published benchmark from nothing to the agent, with pre-training that goes on after an
    interruption, 200, prompts of the papers for language models 180, one of random weights and its notebook 90, 50 for
    WebShop's and ScienceWorld's bases (small letters, transcripts drawn once, Muon in float32), pages as HTML, 20 for
    an agent whose base is made from nothing in two parts."""
    lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in SGLIB.rglob("*.py"))
    assert lines < 24_130
