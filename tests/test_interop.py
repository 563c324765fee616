"""Trajectories in and out: ours come back whole from every format, others' open in the inspector, and what is broken,
hostile or of another version is said clearly. Samples: tests/interop/README.md."""

import dataclasses
import io
import json
import random
import re
import shutil
import zipfile
from pathlib import Path

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from sglib import interop
from sglib.interop import atif, chat, convention, dataset, inspect_log, traces, verifiers
from sglib.records import Trajectory, Turn
from sglib.view.inspect import inspect

SAMPLES = Path(__file__).parent / "interop"
FILES = sorted(path.name for path in SAMPLES.iterdir() if path.suffix in interop.LOOKED_AT)
CALL = 'look({"place": "the hall"})'
NAMES = {
    "atif": "atif.json", "inspect": "log.eval", "traces": "trace.jsonl", "dataset": "data.parquet",
    "verifiers": "traces.jsonl", "verifiers_results": "results.jsonl", "own": "own.jsonl",
}  # fmt: skip
WRITERS = {  # as text, without a file, for many examples
    "atif": lambda t: atif.write([t])[0], "inspect": lambda t: inspect_log.write([t]),
    "traces": lambda t: traces.write([t])[0], "verifiers": lambda t: verifiers.write([t]),
    "verifiers_results": lambda t: verifiers.write([t], results=True),
}  # fmt: skip


@pytest.fixture
def full(trajectory) -> Trajectory:
    """An episode with a value in every field."""
    trajectory.turns[0].rewards |= {"self_guide/weighted": 0.05, 'a b/c"<': -2.0}
    trajectory.turns[0].progress, trajectory.turns[1].truth, trajectory.turns[1].reward = 40.0, 0.25, 0.5
    trajectory.mask[2] = 0
    return dataclasses.replace(
        trajectory, env="sokoban", origin={"seed": [1, {"a": None}]}, group=3, seed=5, score=0.5, won=True,
        final_truth=0.75, no_room=True,
    )  # fmt: skip


@pytest.mark.parametrize("format", interop.FORMATS)
def test_ours_come_back_whole(format, full, tmp_path):
    """Also an episode without a turn, without a last observation, and two of one task."""
    assert all(getattr(full, field.name) not in (None, "", 0, False, []) for field in dataclasses.fields(full))
    silent, empty = dataclasses.replace(full, final_observation="", env=""), Trajectory("../g", "t", "", "act")
    given = [full, dataclasses.replace(empty, final_observation="seen"), silent, empty]
    path = tmp_path / ("folder" if format in interop.EACH else NAMES[format])
    assert interop.export(given, path, format) == path
    assert interop.load(path) == given
    one = interop.export(full, tmp_path / NAMES[format], format) if format in interop.EACH else path
    page = inspect(one, game=0).page
    assert interop.load(one)[0] == full and all(text in page for text in ("look on the shelf", "3 → 2", "+0.05", "won"))


def test_the_default_is_atif_and_json_is_a_log(full, tmp_path):
    assert json.loads(interop.export(full, tmp_path / "a.json").read_text())["schema_version"] == "ATIF-v1.7"
    log = interop.export([full], tmp_path / "log.json", "inspect")
    assert json.loads(log.read_text())["version"] == 2 and interop.load(log) == [full]


ODD = ["<script>", "\x00\x1b[31m", "\u2028a\r\nb\x85", "attachment://a", "[", '{"a":1}']
texts = st.text(max_size=30) | st.sampled_from(ODD)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(texts, texts, texts), max_size=3), texts)
def test_any_text_survives(said, last):
    turns = [Turn(seen, wrote, did, True, guidance=wrote, rewards={did: 1.0}) for seen, wrote, did in said]
    original = Trajectory(last, last, last, last, turns, final_observation=last, env=last)
    for format, write in WRITERS.items():
        written = write(original)
        rows = [json.loads(line) for line in written.split("\n") if line]
        assert interop.convert(rows) == [original], format
    assert interop.convert(inspect_log.unpack(inspect_log.write([original], archive=True))) == [original]


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=3), texts)
def test_any_text_survives_in_a_dataset(said, last):
    original = Trajectory("g", "t", last, "act", [Turn(a, b, a, False) for a, b in said], final_observation=last)
    assert interop.convert(dataset.dataset([original, original])) == [original, original]


def test_the_convention_is_what_its_page_says(full):
    page = (Path(__file__).parents[1] / "docs" / "step-reward-convention.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE))
    told = convention.episode(full)
    assert set(told) | {key for step in told["steps"] for key in step} == rows
    example = json.loads(re.search(r"```json\n(.+?)```", page, re.DOTALL)[1])
    (read,) = interop.convert(example)
    assert read.turns[0].rewards and read.turns[0].label and read.distances == [3, 2]
    assert example["steps"][1]["extra"][convention.KEY]["anchor"] == convention.anchor(read.turns[0].observation)


# Others' ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_others_files_open_in_the_inspector(name):
    first = interop.load(SAMPLES / name)[0]
    look, take = first.turns
    assert look.observation.endswith("Find the key.") and first.goal == "Find the key."
    assert look.action == f"I look.\n{CALL}"
    assert take.observation.startswith("<script>alert(1)</script> There is a key.")
    assert "attachment://" not in take.observation
    thought = take.guidance if name.startswith("inspect") else look.guidance
    assert thought in ("It may be near.", "It was seen.")
    known = name.startswith(("inspect", "results", "traces"))
    assert first.task_type.endswith("no outcome recorded") != known
    page = inspect(SAMPLES / name, game=0, step=1).page
    assert "&lt;script&gt;alert(1)" in page and "<script" not in page and "There is a key." in page
    assert "Turn 2 of 2" in page and "no drawing: env=" in page


def test_what_others_files_say_of_rewards(tmp_path):
    won, lost = interop.load(SAMPLES / "inspect.eval")  # scores "C" and "I"
    assert (won.won, won.score, won.total_return, won.turns[-1].reward) == (True, 1.0, 1.0, 1.0)
    assert (lost.won, lost.score, lost.game_id) == (False, 0.0, "b")
    (row,) = interop.load(SAMPLES / "results.jsonl")
    assert [(t.reward, t.advantage) for t in row.turns] == [(0.25, 0.5), (0.5, -0.5)]
    assert (row.total_return, row.won, row.score) == (0.75, False, 0.75)
    path, branch = interop.load(SAMPLES / "traces.jsonl")  # 1 x 0.5 + 1 x 0.25, and advantages of two tokens
    assert path.total_return == 0.75 and path.turns[0].advantage == 0.375 and path.turns[1].advantage is None
    assert [turn.action for turn in branch.turns] == ["I give up."]


def test_shapes_of_sessions(tmp_path):
    (pi,), (claude,), (codex,) = (interop.load(SAMPLES / f"{n}.jsonl") for n in ("pi", "claude_code", "codex"))
    assert "branch that was left" not in str(pi) and pi.turns[1].observation.endswith("[image]\n\n$ ls\nhall")
    assert "caveat" not in str(claude) and "another agent" not in str(claude) and claude.game_id == "cc1"
    assert codex.turns[0].observation == "[system]\nBe short.\n\nFind the key." and codex.game_id == "cx1"
    outer, inner = interop.load(SAMPLES / "atif.json")  # with a subagent's
    assert (outer.game_id, inner.game_id, inner.turns[0].action) == ("outer", "inner", "Done.")


def test_objects_and_folders(full, tmp_path):
    messages = [{"role": "user", "content": "<b>"}, {"role": "assistant", "content": "yes", "tool_calls": ["x()"]}]
    rows = Dataset.from_list([{"messages": messages[:1] + [{"role": "assistant", "content": "yes"}]}] * 2)
    assert [t.turns[0].action for t in inspect(rows).trajectories] == ["yes", "yes"]
    for value in ({"messages": messages}, [{"prompt": messages[:1], "completion": messages[1:]}]):
        assert inspect(value).trajectory.turns[0].action == "yes\nx()"

    class Foreign:  # as Pydantic's models
        def model_dump(self, mode):
            return atif.document(full)

    assert inspect(Foreign()).trajectory == inspect([Foreign()]).trajectory == full
    rows.save_to_disk(tmp_path / "saved")
    assert len(inspect(tmp_path / "saved").trajectories) == len(interop.load(tmp_path / "saved")) == 2
    shutil.copytree(SAMPLES, tmp_path / "all")  # make.py and README.md are none of them
    (tmp_path / "all" / "broken.json").write_text("{")
    widget = inspect({"theirs": tmp_path / "all", "ours": full})
    assert {run.split("/")[0] for run in widget.runs} == {"theirs", "ours"} and len(widget.trajectories) == 13
    assert "theirs/inspect.eval" in widget.runs and len(interop.load(tmp_path / "all")) == 12


def test_a_foreign_environment_stops_nothing():
    """Neither a policy nor the other views; a name that is a file's is not run."""
    turn = Turn("o", "r", "a", True)
    for env in ("ATIF", str(SAMPLES / "make.py")):
        widget = inspect(Trajectory("g", "t", "goal", "act", [turn], env=env), policy="base")
        for do, value in (("view", "tokens"), ("view", "compare"), ("view", "episode"), ("list", None), ("open", 0)):
            widget.act(do, value)
            assert not widget.note
        widget.act("whatif", {"kind": "action", "text": "x", "k": "2"})
        assert "env=" in widget.note and "what-if" in widget.page


# What is broken -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut_off_is_named(name, tmp_path):
    data = (SAMPLES / name).read_bytes()
    for end in (1, len(data) // 2, len(data) - 3):
        (tmp_path / name).write_bytes(data[:end])
        with pytest.raises(ValueError, match=rf"{re.escape(name)}: .*(cut off|no whole|nested)"):
            interop.load(tmp_path / name)
        with pytest.raises(ValueError, match=re.escape(name)):
            inspect(tmp_path / name)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_read_or_refused(name, tmp_path):
    """Never another exception than ValueError, whatever three bytes are."""
    drawn, data = random.Random(0), (SAMPLES / name).read_bytes()
    refused = 0
    for _ in range(20):
        damaged = bytearray(data)
        for _ in range(3):
            damaged[drawn.randrange(len(data))] = drawn.randrange(256)
        (tmp_path / name).write_bytes(bytes(damaged))
        try:
            assert all(isinstance(t, Trajectory) for t in interop.load(tmp_path / name))
        except ValueError as error:
            refused += name in str(error)
    assert refused > 5


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('{"colour": 1}', "found an object with 'colour'. Understood: sglib's .*ATIF.*Inspect AI.*Hub.*verif"),
        ("[1, 2]", "found 1. Understood"),
        ('{"schema_version": "ATIF-v1.7", "agent": {}}', "missing required field `steps`"),
        ('{"schema_version": "ATIF-v1.7", "agent": {}, "steps": [{"source": "b", "message": 1}]}', r"steps\[0\]"),
        ('{"schema_version": "ATIF-v1.9", "agent": {}, "steps": []}', "schema_version='ATIF-v1.9': understood are "),
        ('{"schema_version": "ATIF-v1.3", "agent": {}, "steps": []}', "schema_version='ATIF-v1.3'"),
        ('{"version": 3, "eval": {"model": "m"}}', "version of the eval log=3: understood are 1 to 2"),
        ('{"version": "2", "eval": {"model": "m"}}', "version of the eval log='2'"),
        ('{"eval": {"model": "m"}, "samples": [{"id": 1, "messages": [{"content": "x"}]}]}', "a message with a role"),
        ('{"type": "session", "version": 4, "id": "x"}\n', "version of the Pi session=4: understood are 1 to 3"),
        ('{"type": "session", "id": "x"}\n{"type": "message", "message": 3}', "with a role was expected, got 3"),
        ('{"traces": [{"version": 2, "id": "x", "nodes": []}]}', "version of the trace=2: understood are 1 to 1"),
        ('{"traces": [{"id": "x", "nodes": [{"message": {}, "parent": 5}]}]}', "parent 5 is no earlier node"),
        ('{"traces": [{"id": "x", "nodes": [{"message": {}}, {"message": {}, "parent": -1}]}]}', "with a role"),
        ('{"prompt": 1, "completion": [], "reward": 0}', r"Expected .* at `\$.prompt`"),
        ('{"messages": [{"content": "x"}]}', "a message with a role was expected"),
        ('{"game_id": 1, "turns": []}', "Expected `str`, got `int`"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": 1}\n{"a": \n', "line 2: no JSON, or cut off"),
        ("\xff\xfe", "no JSON, or cut off"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said(written, said, tmp_path):
    path = tmp_path / "given.json"
    path.write_bytes(written.encode("latin-1"))
    with pytest.raises(ValueError, match=f"given.json: .*{said}"):
        interop.load(path)


def test_a_convention_that_does_not_fit_is_said(full):
    for change, said in (
        ({"version": "2.0"}, "step_rewards.version='2.0': understood is 1.x"),
        ({"version": None}, "step_rewards.version=None"),
        ({"steps": []}, "step_rewards.steps: 3 actions were taken"),
        ({"steps": 7}, "step_rewards.steps"),
        ({"steps": [{}, 3, {}]}, "step 1 has no object"),
        ({"won": "yes"}, "Expected `bool`, got `str`"),
        ({"goal": None}, "Expected `str`, got `null`"),
    ):
        head, *rest = traces.lines(full)
        head[convention.KEY] |= change
        with pytest.raises(ValueError, match=re.escape(said)):
            interop.convert([head, *rest])
    head[convention.KEY] |= {**convention.episode(full), "version": "1.7", "later": 1}  # a later one of the same kind
    assert interop.convert([head, *rest]) == [full]


def packed(members: dict, **options) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return file.getvalue()


def test_an_archive_is_read_safely(tmp_path, monkeypatch):
    head = '{"eval": {"model": "m"}}'
    monkeypatch.chdir(tmp_path)
    sample = '{"id": 1, "messages": []}'
    out = packed({"header.json": head, "../../evil.json": "x", "samples/../../evil.json": "x", "/etc/evil": "x",
                  "samples/a.json": sample})  # fmt: skip
    (tmp_path / "x.eval").write_bytes(out)
    assert len(interop.load(tmp_path / "x.eval")) == 1 and list(tmp_path.rglob("*")) == [tmp_path / "x.eval"]
    for members, said in (
        ({"a.json": "x"}, "a log has header.json"),
        ({"header.json": "[]"}, "header.json: an object was expected"),
        ({"header.json": head, "samples/a.json": "{"}, "samples/a.json: no JSON"),
        ({"header.json": head, "samples/a.json": " " * 3000}, r"samples/a.json: over 1000 bytes"),
        ({"header.json": head, **{f"samples/{i}.json": sample + " " * 700 for i in range(3)}}, "over 2000"),
        ({"header.json": head, **{f"samples/{i}.json": sample for i in range(30)}}, "a ZIP archive of 31 files"),
    ):
        monkeypatch.setattr(inspect_log, "MEMBER", 1000)
        monkeypatch.setattr(inspect_log, "TOTAL", 2000)
        monkeypatch.setattr(inspect_log, "MEMBERS", 20)
        (tmp_path / "x.eval").write_bytes(packed(members))
        with pytest.raises(ValueError, match=f"x.eval: .*{said}"):
            interop.load(tmp_path / "x.eval")
    monkeypatch.setattr(inspect_log, "MEMBER", 3)  # also of members that are packed with zstd
    with pytest.raises(ValueError, match="header.json: over 3 bytes"):
        interop.load(SAMPLES / "inspect.eval")


def test_what_cannot_be_written_is_said(full, tmp_path):
    for arguments, said in (
        (([full], "x.json", "xml"), "format='xml': allowed: atif, inspect"),
        (([], "x.json", "atif"), "at least one episode"),
        (([full, full], "x.json", "atif"), "one episode a file, got 2: name a folder"),
        (([full], "x.txt", "verifiers"), r"written to a file \*.jsonl"),
        (([full], "x", "inspect"), r"written to a file \*.json or .eval"),
        (([dataclasses.replace(full, score=float("nan"))], "x.jsonl", "own"), "episode 0: a number that is not finite"),
    ):
        given, name, format = arguments
        with pytest.raises(ValueError, match=said):
            interop.export(given, tmp_path / name, format)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    with pytest.raises(ValueError, match="a new or empty folder"):
        interop.export([full, full], tmp_path / "full", "traces")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_a_session_whose_parents_go_round_ends():
    rows = [{"type": "session", "id": "x", "version": 3}]
    said = {i: {"role": "user", "content": i} for i in "ab"}
    rows += [{"type": "message", "id": i, "parentId": p, "message": said[i]} for i, p in ("ab", "ba")]
    assert interop.convert(rows)[0].final_observation == "a\n\nb"


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, ""), ("a", "a"), (3, "3"), ({"k": "é"}, '{"k": "é"}'),
     ([{"type": "text", "text": "a"}, "b", {"type": "image"}, {}], "a\nb\n[image]\n[part]"),
     ([{"type": "tool_result", "content": [{"type": "text", "text": "c"}]}], "c")],
)  # fmt: skip
def test_texts_of_contents(content, text):
    assert chat.text_of(content) == text


# Their own readers, where they are installed ------------------------------------------------------------------------


def test_inspect_ai_reads_ours(full, tmp_path):
    log = pytest.importorskip("inspect_ai.log")
    for name in ("log.json", "log.eval"):
        path = interop.export([full, full], tmp_path / name, "inspect")
        read = log.read_eval_log(str(path))
        assert (read.version, read.status, [s.epoch for s in read.samples]) == (2, "success", [1, 2])
        sample = log.read_eval_log_sample(str(path), id="game-1", epoch=2)
        assert sample.scores["score"].value == 0.5 and sample.messages[1].text == "raw 1"
        assert interop.convert(read) == [full, full]


def test_harbor_reads_ours(full):
    models = pytest.importorskip("harbor.models.trajectories")
    read = models.Trajectory.model_validate(json.loads(atif.write([full])[0]))
    assert read.schema_version == "ATIF-v1.7" and len(read.steps) == 4
    assert read.steps[1].metrics.completion_token_ids == full.completion_ids[:4] and interop.convert(read) == [full]


def test_verifiers_reads_ours(full, tmp_path):
    store = pytest.importorskip("verifiers.v1.utils.trace_store")
    from verifiers.v1.configs.agent import WireAgentConfig
    from verifiers.v1.state import State
    from verifiers.v1.task import WireTaskData
    from verifiers.v1.trace import Trace

    interop.export([full], tmp_path / "traces.jsonl", "verifiers")
    (read,) = store.read_episodes(tmp_path, Trace[WireTaskData, State, WireAgentConfig])
    (branch,) = read.traces[0].branches
    assert branch.token_ids == full.prompt_ids + full.completion_ids and read.traces[0].reward == 0.5
    assert interop.convert([read.to_record()]) == [full]


def test_trl_reads_ours(full):
    from trl import is_conversational

    row = dataset.dataset([full])[0]
    assert is_conversational(row) and [m["role"] for m in row["messages"]] == ["user", "assistant"] * 3 + ["user"]
