import dataclasses
import gc
import json
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglib.records import (
    Trajectory,
    Turn,
    iter_trajectories,
    read_checked,
    read_trajectories,
    salvage,
    whole,
    write_atomic,
    write_checked,
    write_trajectories,
)


def test_round_trip(tmp_path, trajectory):
    path = write_trajectories(tmp_path / "new" / "t.jsonl", [trajectory, trajectory])
    assert read_trajectories(path) == [trajectory, trajectory]
    assert isinstance(read_trajectories(path)[0].turns[0].span, tuple)


texts = st.text(max_size=20)
turns = st.builds(
    Turn, observation=texts, response=texts, action=texts, valid=st.booleans(), guidance=st.none() | texts,
    reward=st.floats(allow_nan=False), rewards=st.dictionaries(texts, st.floats(allow_nan=False), max_size=3),
)  # fmt: skip


@given(st.lists(turns, max_size=3), texts)
def test_any_text_survives(tmp_path_factory, turns, goal):
    original = Trajectory("g", "t", goal, "act", turns)
    path = write_trajectories(tmp_path_factory.mktemp("records") / "t.jsonl", [original])
    assert read_trajectories(path) == [original]


def test_distances_has_one_more_than_turns(trajectory):
    assert trajectory.distances == [3, 2, 2, 2]
    assert len(trajectory) == 3


def test_bad_line_is_named(tmp_path, trajectory):
    good = json.dumps(trajectory.to_dict())
    path = tmp_path / "t.jsonl"
    for bad in ("{", "[]", "3", '{"game_id": "g"}'):
        path.write_text(f"{good}\n{bad}\n")
        with pytest.raises(ValueError, match="line 2: not a trajectory"):
            read_trajectories(path)
    path.write_text(json.dumps({**trajectory.to_dict(), "colour": 1}) + f"\n{good}\n")
    with pytest.raises(ValueError, match="line 1: not a trajectory: Trajectory: unknown field 'colour'"):
        read_trajectories(path)


def test_the_fast_reader_reads_what_the_plain_one_does(tmp_path, trajectory):
    """Also numbers that are not finite, which JSON proper does not have, and an empty file."""
    odd = dataclasses.replace(trajectory, logprobs=[float("-inf")] * len(trajectory.logprobs), origin={"a": [1, 2]})
    for number, of in enumerate(([trajectory] * 3, [trajectory, odd], [])):
        path = write_trajectories(tmp_path / f"{number}.jsonl", of)
        assert read_trajectories(path) == list(iter_trajectories(path)) == of
        bare = read_trajectories(path, tokens=False)
        assert bare == [dataclasses.replace(t, prompt_ids=[], completion_ids=[], mask=[], logprobs=[]) for t in of]
    assert gc.isenabled()


def test_unknown_and_missing_fields_are_named(trajectory):
    with pytest.raises(ValueError, match="unknown field 'colour'; known fields: .*goal"):
        Trajectory.from_dict({**trajectory.to_dict(), "colour": 1})
    turn = dataclasses.asdict(trajectory.turns[0])
    del turn["action"]
    with pytest.raises(ValueError, match=r"missing required field `action` - at `\$\.turns\[0\]`"):
        Trajectory.from_dict({**trajectory.to_dict(), "turns": [turn]})


@pytest.mark.parametrize("change", [{"seed": "<img src=x>"}, {"won": "yes"}, {"total_return": "x"}, {"goal": None}])
def test_values_of_another_type_are_named(tmp_path, trajectory, change):
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({**trajectory.to_dict(), **change}) + "\n")
    with pytest.raises(ValueError, match=rf"line 1: not a trajectory: Expected .* at `\$\.{next(iter(change))}`"):
        read_trajectories(path)
    turn = {**dataclasses.asdict(trajectory.turns[0]), "distance": "<img src=x>"}
    with pytest.raises(ValueError, match=r"Expected `int \| null`, got `str` - at `\$\.turns\[0\]\.distance`"):
        Trajectory.from_dict({**trajectory.to_dict(), "turns": [turn]})


def test_write_atomic_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = write_atomic(tmp_path / "x", "old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]  # no temporary file stays


def damage(text: str) -> dict[str, str]:
    lines = text.splitlines(keepends=True)
    return {
        "checksum does not fit": text.replace("put a mug", "put a jug", 1),
        "not a trajectory": text[:-40],
        "ends after line 2 of 3": "".join(lines[:2]),
        "it was line 3": "".join([lines[0], lines[2]]),
        "has no checksum": "".join([lines[0], lines[1].rpartition(', "check"')[0] + "}\n", lines[2]]),
    }


@pytest.mark.parametrize("what", damage("\n\n\n"))
def test_a_damaged_file_is_named_set_aside_and_the_rest_read(tmp_path, trajectory, what):
    three = [dataclasses.replace(trajectory, seed=seed) for seed in range(3)]
    path = write_trajectories(tmp_path / "t.jsonl", three)
    text = path.read_text()
    assert salvage(path) == three and list(tmp_path.iterdir()) == [path]
    path.write_text(hurt := damage(text)[what])
    for tokens in (True, False):
        with pytest.raises(ValueError, match=rf"t\.jsonl.*{what}"):
            read_trajectories(path, tokens)
    with pytest.warns(UserWarning, match=r"t\.jsonl: set aside as damaged-t\.jsonl: "):
        rest = salvage(path)
    assert len(rest) == 2 and all(t in three for t in rest) and read_trajectories(path) == rest
    assert (tmp_path / "damaged-t.jsonl").read_text() == hurt


def test_files_without_checksums_and_with_empty_lines_are_read(tmp_path, trajectory):
    (tmp_path / "old.jsonl").write_text(f"\n{json.dumps(trajectory.to_dict())}\n" * 2)
    assert read_trajectories(tmp_path / "old.jsonl") == [trajectory] * 2
    path = write_trajectories(tmp_path / "new.jsonl", [trajectory] * 2)
    path.write_text(path.read_text().replace("\n", "\n\n"))
    assert read_trajectories(path) == list(iter_trajectories(path)) == [trajectory] * 2


@given(st.dictionaries(texts, st.none() | st.booleans() | st.integers() | st.floats() | texts, max_size=4), st.data())
def test_a_changed_byte_of_a_checked_file_is_seen(tmp_path_factory, content, data):
    content.pop("check", None)
    path = write_checked(tmp_path_factory.mktemp("records") / "x.json", content)
    assert json.dumps(read_checked(path)) == json.dumps(content)
    raw = bytearray(path.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 6))
    path.write_bytes(raw)
    try:
        left = list(read_checked(path).items())[: len(content)]  # the checksum's own name may be what has changed
        assert json.dumps(dict(left)) == json.dumps(content)
    except ValueError as error:
        assert "x.json: damaged" in str(error)
        with pytest.warns(UserWarning, match="set aside"):
            assert not whole(path) and not path.exists()


def test_write_atomic_says_what_went_wrong(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="not written: '.*/file/x'"):
        write_atomic(tmp_path / "file" / "x", "1")


def test_write_atomic_is_readable_by_others(tmp_path):
    assert stat.S_IMODE(write_atomic(tmp_path / "x", b"1").stat().st_mode) == 0o644


def test_out_of_reach_is_further_than_anywhere_before():
    turns = [Turn("", "a", "a", True, distance=d) for d in (3, 7, None)]
    assert Trajectory("g", "t", "", "act", turns).remaining() == [3, 7, 8, 8]
    turns = [Turn("", "a", "a", True, distance=d) for d in (3, 4, None)]
    assert Trajectory("g", "t", "", "act", turns).remaining() == [3, 4, 6, 6]
