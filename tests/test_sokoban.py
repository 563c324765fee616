"""Sokoban: rules, rewards and exact distances against slow references, levels, demonstrations, the card."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import random
import re
import subprocess
import sys
from collections import Counter, deque
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sglib.envs.base import task_hash
from sglib.envs.sokoban import ENVIRONMENT, Habits, Level, SokobanEnv, TooLarge, demonstrate, load_xsb, to_xsb
from sglib.envs.sokoban.demonstrators import SUBGOALS
from sglib.envs.sokoban.engine import SENTENCES
from sglib.envs.sokoban.graph import COMMANDS, moves_to_go, read
from sglib.envs.sokoban.levels import read_size, split_of
from sglib.records import LABELS, Trajectory, Turn

ONE = Level("######\n#_O__#\n#_X__#\n#_P__#\n#____#\n######")
THREE = Level("#######\n#_____#\n#_OX__#\n#P√_X_#\n#____O#\n#######")
CHANGES = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}


def drawn(board: str) -> str:
    return "\n".join(" ".join(row) for row in board.split("\n"))


# -- slow references on coordinates ---------------------------------------------------------------------------------


def parts(board: str):
    """(floor, targets, player, boxes) as coordinates."""
    cells = {(r, c): s for r, row in enumerate(board.split("\n")) for c, s in enumerate(row)}
    floor = {p for p, s in cells.items() if s != "#"}
    targets = frozenset(p for p, s in cells.items() if s in "O√S")
    player = next(p for p, s in cells.items() if s in "PS")
    return floor, targets, player, frozenset(p for p, s in cells.items() if s in "X√")


def slow_move(floor, player, boxes, command):
    dr, dc = CHANGES[command]
    to, beyond = (player[0] + dr, player[1] + dc), (player[0] + 2 * dr, player[1] + 2 * dc)
    if to not in floor or (to in boxes and (beyond not in floor or beyond in boxes)):
        return player, boxes
    return to, boxes - {to} | {beyond} if to in boxes else boxes


def slow_distance(board: str) -> int | None:
    """Plain breadth-first search forwards."""
    floor, targets, player, boxes = parts(board)
    queue, seen = deque([(player, boxes, 0)]), {(player, boxes)}
    while queue:
        player, boxes, far = queue.popleft()
        if boxes == targets:
            return far
        for command in COMMANDS:
            state = slow_move(floor, player, boxes, command)
            if state not in seen:
                seen.add(state)
                queue.append((*state, far + 1))
    return None


def random_board(rng: random.Random) -> str:
    """Any board of 4..6 rows and columns, solvable or not, its floor perhaps in pieces."""
    rows, cols, boxes = rng.randint(4, 6), rng.randint(5, 6), rng.choice((1, 1, 2))
    inside = [(r, c) for r in range(1, rows - 1) for c in range(1, cols - 1)]
    floor = rng.sample(inside, rng.randint(2 * boxes + 1, len(inside)))
    symbols = dict.fromkeys(floor, "_")
    targets = rng.sample(floor, boxes)
    symbols |= dict.fromkeys(targets, "O")
    places = rng.sample(floor, boxes + 1)
    for i, place in enumerate(places):
        plain, on = "PS" if i == 0 else "X√"
        symbols[place] = on if place in targets else plain
    return "\n".join("".join(symbols.get((r, c), "#") for c in range(cols)) for r in range(rows))


def test_distances_equal_plain_breadth_first_search():
    rng, deadlocks, env, checked = random.Random(1), 0, SokobanEnv(), 0
    while checked < 2_000:
        board = random_board(rng)
        if "X" not in board:
            continue
        env.reset(Level(board))
        expected = slow_distance(board)
        if expected is None and deadlocks == 1_000:  # most random boards are
            continue
        assert env.distance() == expected, board
        plan = env.plan()
        if expected is None:
            deadlocks += 1
            assert plan is None and env.progress() == 0.0
        else:
            assert len(plan) == expected
            for command in plan:
                observation = env.step(command)
                assert observation.valid
            assert observation.won
        checked += 1
    assert deadlocks == 1_000


def test_random_walks_follow_the_slow_rules():
    rng, env = random.Random(2), SokobanEnv()
    happened = Counter()
    for level in [*ENVIRONMENT.tasks(160, seed=5), *ENVIRONMENT.tasks(20, seed=5, size="7x8-3")]:
        observation = env.reset(level)
        floor, targets, player, boxes = parts(level.board)
        for step in range(1, 60):
            expected = sorted(c for c in COMMANDS if slow_move(floor, player, boxes, c)[0] != player)
            assert list(observation.admissible) == expected
            command, before = rng.choice(COMMANDS), boxes
            player, boxes = slow_move(floor, player, boxes, command)
            observation = env.step(command)
            change = len(boxes & targets) - len(before & targets)
            won = boxes == targets
            assert observation.reward == pytest.approx(-0.1 + change + 10 * won)
            assert (observation.won, observation.done, observation.score) == (won, won, float(won))
            assert observation.info["boxes_on_target"] == len(boxes & targets) / len(boxes)
            assert (observation.steps, observation.valid) == (step, command in expected)
            board = observation.text.partition("\n")[2].replace(" ", "")
            assert parts(board) == (floor, targets, player, boxes)
            happened.update([change, "won" if won else "", "valid" if observation.valid else "blocked"])
            if won:
                break
    assert min(happened[key] for key in (-1, 0, 1, "won", "valid", "blocked")) > 5


# -- worked examples ------------------------------------------------------------------------------------------------


def test_one_push_wins():
    """The box stands between the player and the target: one push, -0.1 + 1 + 10."""
    env = SokobanEnv()
    first = env.reset(ONE)
    assert first.text == f"Your task is to: push every box onto a target.\n{drawn(ONE.board)}"
    assert first[3:] == (0.0, False, False, 0, {"boxes_on_target": 0.0}, 0.0, True)
    assert (env.distance(), env.plan(), env.progress()) == (1, ["up"], 0.0)
    last = env.step("up")
    assert last.text == "Every box is on a target.\n" + drawn("######\n#_√__#\n#_P__#\n#____#\n#____#\n######")
    assert last.reward == pytest.approx(10.9)
    assert last.won and last.done and last.score == 1.0 and env.distance() == 0 and env.progress() == 1.0
    with pytest.raises(RuntimeError, match="reset"):
        env.step("up")


def test_rewards_of_a_longer_game():
    """A box leaves its target (-1.1), comes back (0.9), nothing moves against a wall (-0.1)."""
    env = SokobanEnv()
    assert env.reset(THREE).info["boxes_on_target"] == pytest.approx(1 / 3)
    rows = [
        ("left", "Nothing happens.", -0.1, False),  # a wall
        ("right", "You push a box off a target.", -1.1, True),
        ("up", "You move.", -0.1, True),  # onto the target
        ("right", "You push a box.", -0.1, True),
        ("right", "You push a box.", -0.1, True),
        ("right", "Nothing happens.", -0.1, False),  # the box is at the wall
        ("dance", "Nothing happens.", -0.1, False),
        (None, "Nothing happens.", -0.1, False),
    ]
    for action, sentence, reward, valid in rows:
        seen = env.step(action)
        assert (seen.text.split("\n")[0], seen.reward, seen.valid) == (sentence, pytest.approx(reward), valid)
    assert seen.text.partition("\n")[2] == drawn("#######\n#_____#\n#_O_PX#\n#_OXX_#\n#____O#\n#######")
    assert seen.admissible == ("down", "left", "up")


def test_step_limit_and_without_admissible():
    env = ENVIRONMENT.make(max_steps=2, admissible=False)
    assert env.reset(ONE).admissible == ()
    assert not env.step("left").done
    last = env.step("left")
    assert last.done and not last.won and not last.valid
    for bad in (0, -1, 1.5, "3"):
        with pytest.raises(ValueError, match="max_steps"):
            SokobanEnv(max_steps=bad)


def test_end_on_deadlock():
    """Right of the box, pushed left into the column of the wall, from which no push leads to the target."""
    board = Level("######\n#_O__#\n#_XP_#\n#____#\n#____#\n######")
    for end in (False, True):
        env = ENVIRONMENT.make(end_on_deadlock=end)
        assert not env.reset(board).done and env.distance() is not None
        seen = env.step("left")
        assert seen.done == end and not seen.won and seen.score == 0.0 and seen.reward == pytest.approx(-0.1)
        assert env.distance() is None and env.plan() is None and env.progress() == 0.0
        assert seen.text.startswith("The boxes can no longer" if end else "You push a box.")
    assert env.expert("optimal") in COMMANDS


def test_the_expert_plays_the_shortest_game():
    env = SokobanEnv()
    for level in ENVIRONMENT.tasks(20, seed=8, split="valid"):
        observation, far = env.reset(level), env.distance()
        while not observation.done:
            progress = env.progress()
            observation = env.step(env.expert("optimal"))
            assert env.progress() > progress
        assert observation.won and observation.steps == far
    with pytest.raises(ValueError, match="kind='best'.*'optimal'"):
        env.expert("best")


def test_snapshots_come_back_on_any_instance():
    rng = random.Random(4)
    for level in ENVIRONMENT.tasks(10, seed=6):
        env, other = SokobanEnv(max_steps=30), SokobanEnv(max_steps=30)
        env.reset(level)
        for _ in range(5):
            if not env.done:
                env.step(rng.choice(COMMANDS))
        kept, seen = env.snapshot(), env.observation
        actions = [rng.choice(COMMANDS) for _ in range(10)]
        runs = []
        for player in (env, other, env):
            assert player.restore(kept) == seen and player.done == seen.done
            runs.append([player.step(a) for a in actions if not player.done])
        assert runs[0] == runs[1] == runs[2]


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=20), st.none(), st.integers(), st.binary(max_size=4)))
def test_no_text_raises(text):
    env = SokobanEnv()
    first = env.reset(ONE)
    seen = env.step(text)
    known = isinstance(text, str) and text.strip().lower() in COMMANDS
    assert seen.valid == known and seen.steps == 1
    if not known:
        assert seen.text.partition("\n")[2] == first.text.partition("\n")[2] and seen.reward == -0.1


@given(st.sampled_from(COMMANDS), st.text(" \t\n", max_size=3), st.text(" \t", max_size=3), st.booleans())
def test_case_and_blanks_do_not_matter(command, before, behind, upper):
    env = SokobanEnv()
    env.reset(ONE)
    plain = env.step(command)
    env.reset(ONE)
    assert env.step(before + (command.upper() if upper else command.title()) + behind) == plain


# -- levels ---------------------------------------------------------------------------------------------------------

DIGEST = """
import hashlib
from sglib.envs.sokoban import ENVIRONMENT
sizes = ["6x6-1", "7x6-2"]
levels = [l for split in ("train", "valid") for l in ENVIRONMENT.tasks(30, seed=7, split=split, size=sizes)]
print(hashlib.sha256("".join(l.id + l.board for l in levels).encode()).hexdigest())
"""


def test_levels_are_the_same_in_every_process():
    run = subprocess.run([sys.executable, "-c", DIGEST], env=os.environ | {"PYTHONHASHSEED": "1"}, text=True,
                         capture_output=True, cwd=Path(__file__).parent.parent, check=True)  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()) as here:
        exec(DIGEST, {})  # one scope, as in a file
    assert sys.flags.hash_randomization and run.stdout == here.getvalue()
    a, b = (ENVIRONMENT.tasks(30, seed=seed) for seed in (7, 8))
    assert a == ENVIRONMENT.tasks(40, seed=7)[:30]
    assert a == ENVIRONMENT.tasks(1, seed=7) + ENVIRONMENT.tasks(29, seed=7, start=1)  # the list goes on
    assert not {level.board for level in a} & {level.board for level in b}


def images(board: str) -> set[str]:
    grid, found = board.split("\n"), set()
    for _ in range(4):
        grid = ["".join(column) for column in zip(*reversed(grid))]
        found |= {"\n".join(grid), "\n".join(row[::-1] for row in grid)}
    return found


def test_splits_share_no_map_and_no_image_of_one():
    def maps(split):
        levels = ENVIRONMENT.tasks(1_000, seed=9, split=split)
        assert len({task_hash(level) for level in levels}) == len({level.id for level in levels}) == 1_000
        return [re.sub("[PX]", "_", re.sub("[√S]", "O", level.board)) for level in levels]

    train, valid = maps("train"), maps("valid")
    assert not {image for board in valid for image in images(board)} & set(train)
    assert {split_of(board.split("\n")) for board in train} == {"train"}


@pytest.mark.parametrize("band", [(1, 1), (4, 6), (9, 12)])
def test_distances_fill_the_band(band):
    size = {"rows": 6, "cols": 7, "boxes": 1, "distance": list(band)}
    count = Counter(slow_distance(level.board) for level in ENVIRONMENT.tasks(60, seed=3, size=size))
    assert set(count) == set(range(band[0], band[1] + 1))
    assert min(count.values()) >= 5


def test_sizes_take_turns_and_default_is_a_mix():
    kinds = [level.task_type for level in ENVIRONMENT.tasks(6, seed=1)]
    assert kinds == ["6x6-1", "6x6-2"] * 3
    sizes = ["5x7-1", {"rows": 8, "cols": 6, "boxes": 2, "distance": [2, 9]}, "6x6-3"]
    levels = ENVIRONMENT.tasks(6, size=sizes)
    assert [level.task_type for level in levels] == ["5x7-1", "8x6-2", "6x6-3"] * 2
    for level in levels:
        floor, targets, _, boxes = parts(level.board)
        assert len(targets) == len(boxes) and not targets & boxes
        assert ENVIRONMENT.remake(level.id, level.origin) == level
        assert task_hash(level) == task_hash(dataclasses.replace(level, id="other"))


@pytest.mark.parametrize(
    "size, message",
    [
        ("6x6", "size='6x6'"),
        (7, "size=7"),
        ([], "at least one size"),
        ("3x6-1", "rows=3; allowed: 4 to 12"),
        ("6x6-9", "boxes=9; allowed: 1 to 6"),
        ("4x4-2", "boxes=2; allowed: at most 1"),
        ({"rows": 6, "cols": 6, "boxes": True}, "boxes=True"),
        ({"rows": 6, "cols": 6}, "boxes=None"),
        ({"rows": 6, "cols": 6, "boxes": 1, "depth": 3}, "unknown entry 'depth'"),
        ({"rows": 6, "cols": 6, "boxes": 1, "distance": [5, 2]}, r"distance=\[5, 2\]"),
        ({"rows": 6, "cols": 6, "boxes": 1, "distance": 5}, "distance=5"),
        ({"rows": 4, "cols": 4, "boxes": 1, "distance": [50, 50]}, "no further level 4x4-1 with 50 moves"),
    ],
)
def test_bad_sizes_are_named(size, message):
    with pytest.raises(ValueError, match=message):
        ENVIRONMENT.tasks(1, size=size)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="split='test'.*'train', 'valid'"):
        ENVIRONMENT.tasks(1, split="test")
    with pytest.raises(ValueError, match="n=-1"):
        ENVIRONMENT.tasks(-1)
    with pytest.raises(ValueError, match="no further level 4x4-1"):
        ENVIRONMENT.tasks(500, size={"rows": 4, "cols": 4, "boxes": 1, "distance": [1, 1]})
    assert read_size("6x6-1") == (6, 6, 1, (3, 10))


@pytest.mark.parametrize(
    "board, message",
    [
        ("", "0 players"),
        ("####\n#P_#\n####", "no box"),
        ("#####\n#P√_#\n#####", "no box is off"),
        ("#####\n#PX_#\n#####", "1 boxes and 0 targets"),
        ("#####\n#PXO\n#####", "row 2 has 4 cells"),
        ("#####\n#PXO_\n#####", "'_' in row 2, column 5; allowed at the edge"),
        ("#####\n#PXo#\n#####", "'o' in row 2, column 4"),
        ("######\n#PXOP#\n######", "2 players"),
    ],
)
def test_bad_boards_are_named(board, message):
    with pytest.raises(ValueError, match=message):
        Level(board)


def test_a_map_that_is_too_large_plays_but_has_no_distance():
    rows = ["#" * 12, *(f"#{'_' * 10}#" for _ in range(10)), "#" * 12]
    rows[3], rows[5], rows[7] = "#_X_X_X_X__#", "#_O_O_O_O__#", "#_P________#"
    level, env = Level("\n".join(rows)), SokobanEnv()
    env.reset(level)
    assert env.step("up").valid
    for ask in (env.distance, env.plan, env.progress, lambda: SokobanEnv(end_on_deadlock=True).reset(level)):
        with pytest.raises(TooLarge, match="more than 100000 states"):
            ask()


XSB = """A collection, by nobody

; first
  ####
###  ####
#     $ #
# #  #$ #
# . .#@ #
#########

#######
#*@-$.#
#######
Title: second
"""


def test_xsb_files_load_and_are_written_again(tmp_path):
    file = tmp_path / "two.xsb"
    file.write_text(XSB)
    levels = load_xsb(file)
    assert [(level.id, level.task_type) for level in levels] == [("two-1", "6x9-2"), ("two-2", "3x7-2")]
    assert levels[0].board.split("\n") == [
        "#########", "###__####", "#_____X_#", "#_#__#X_#", "#_O_O#P_#", "#########",
    ]  # fmt: skip
    assert levels[1].board.split("\n")[1] == "#√P_XO#"
    env = SokobanEnv()
    assert env.reset(levels[0]) and env.distance() == slow_distance(levels[0].board) > 20
    again = tmp_path / "again.xsb"
    generated = ENVIRONMENT.tasks(5, seed=2)
    again.write_text(to_xsb([*levels, *generated]))
    assert [level.board for level in load_xsb(again)] == [level.board for level in [*levels, *generated]]


@pytest.mark.parametrize(
    "text, message",
    [
        ("only words\n", "no level"),
        ("#####\n#@$.#\n#####\n\n#####\n#@q.#\n#####\n", "line 6: 'q'"),
        ("\n#####\n#@$.#\n", "lines 2 to 3: board: .*at the edge"),
        ("#####\n#@$_#\n#####", "lines 1 to 3: board: 1 boxes and 0 targets"),
        ("#####\n @$.#\n#####", "lines 1 to 3: board: '_' in row 2, column 1"),
    ],
)
def test_bad_xsb_files_are_named(tmp_path, text, message):
    file = tmp_path / "bad.xsb"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_xsb(file)


# -- demonstrations and the card ------------------------------------------------------------------------------------


def test_demonstrations_are_true_where_nothing_is_wrong():
    """Without faults: the shortest game, the labels of its steps, the next push as guidance."""
    sure = Habits(skill=1.0, noise=0.0, impossible=0.0, wrong_label=0.0, wrong_subgoal=0.0)
    env = SokobanEnv()
    for level in ENVIRONMENT.tasks(30, seed=11):
        steps, won = demonstrate(env, level, random.Random(0), sure, 60)
        assert won and len(steps) == slow_distance(level.board) and all(step.imitate for step in steps)
        assert [step.label for step in steps] == ["neutral", *["positive"] * (len(steps) - 1)]
        progress = [step.progress for step in steps]
        assert progress == sorted(progress) and progress[0] == 0 and all(p % 10 == 0 for p in progress)
        assert steps[-1].guidance == f"push box {steps[-1].action} onto target"
    steps, _ = demonstrate(env, ONE, random.Random(0), sure, 9)
    assert [(s.action, s.guidance) for s in steps] == [("up", "push box up onto target")]


def test_demonstrations_with_faults():
    env, rng, won, stuck, counts = SokobanEnv(), random.Random(12), 0, 0, Counter()
    for level in ENVIRONMENT.tasks(150, seed=12):
        steps, success = demonstrate(env, level, rng, Habits(), 15)
        won += success
        assert len(steps) <= 15
        replayed, dead = SokobanEnv(), False
        observation = replayed.reset(level)
        for step in steps:
            assert step.observation == observation.text and step.guidance in SUBGOALS and step.label in LABELS
            assert 0 <= step.progress <= 100
            observation = replayed.step(step.action)
            dead = dead or replayed.distance() is None
            assert step.imitate == (observation.valid and not dead)
            counts[observation.valid] += 1
        assert observation.won == success
        stuck += dead
    assert 60 < won < 135 and stuck > 10 and counts[False] > 50

    def wins(**habits):
        return sum(demonstrate(env, t, random.Random(1), Habits(**habits), 15)[1] for t in levels)

    levels = ENVIRONMENT.tasks(80, seed=13)
    assert wins(skill=0.2) < wins(skill=0.9) and wins(noise=1.0) < wins(noise=0.1)
    once, twice = (demonstrate(env, THREE, random.Random(3), Habits(), 15) for _ in range(2))
    assert once == twice


def played(level: Level, actions) -> Trajectory:
    env = SokobanEnv()
    observation, turns = env.reset(level), []
    for action in actions:
        after = env.step(action)
        turns.append(Turn(observation.text, action, action, after.valid))
        observation = after
    return Trajectory(level.id, level.task_type, level.goal, "act", turns, observation.won, observation.text)


def test_failures_and_boards():
    fork = Level("######\n#_O__#\n#_XP_#\n#____#\n#____#\n######")
    failures = ENVIRONMENT.failures
    episode = played(fork, ["right", "left", "right", "right", "jump", "left", "left"])
    boards = [ENVIRONMENT.board(episode, turn).text for turn in range(len(episode) + 1)]
    assert boards[0] == boards[2] == drawn(fork.board)
    assert failures["back_and_forth"]([episode]) == pytest.approx(3 / 7 - 1 / 7)  # not the left after a wall
    assert failures["into_wall"]([episode]) == pytest.approx(2 / 7)
    assert failures["deadlock"]([episode]) == 1.0
    assert failures["deadlock"]([dataclasses.replace(episode, final_distance=4)]) == 0.0
    fine = played(ONE, ["left", "right", "up"])
    assert fine.won and {name: f([fine]) for name, f in failures.items()} == {
        "deadlock": 0.0, "into_wall": 0.0, "back_and_forth": pytest.approx(1 / 3)
    }  # fmt: skip
    assert ENVIRONMENT.board(Trajectory("g", "t", "g", "act", [Turn("You are in a room.", "", "", True)]), 0) is None
    assert failures["deadlock"]([Trajectory("g", "t", "g", "act")]) == 0.0


def test_a_turn_is_few_tokens():
    """In the small model's tokenizer, built as `sglib.models.small` does it: no unknown word, 31 tokens a 6x6 board."""
    from tokenizers import Regex, pre_tokenizers

    phrases, words = ENVIRONMENT.vocabulary()
    fixed = "|".join(re.escape(p) for p in sorted(phrases, key=len, reverse=True))
    split = pre_tokenizers.Split(Regex(rf"{fixed}|\d+|[A-Za-z']+|[^\sA-Za-z\d']"), behavior="removed", invert=True)

    def tokens(text):
        return [token for token, _ in split.pre_tokenize_str(text)]

    known, longest = {*phrases, *words}, 0
    env, rng = SokobanEnv(), random.Random(5)
    for level in ENVIRONMENT.tasks(40, seed=14):
        for step in demonstrate(env, level, rng, Habits(impossible=0), 15)[0]:
            text = tokens(step.observation)
            answer = tokens(f"{step.guidance} {step.action}")
            assert {*text, *answer} <= known
            assert len(text) == 32 and len(tokens(step.action)) == 1 < ENVIRONMENT.answer_tokens
            longest = max(longest, len(text) + len(answer))
    assert longest < 45
    assert all(tokens(sentence) == [sentence] for sentence in SENTENCES)


def test_the_graph_of_an_open_room_is_complete():
    """4 x 4 cells, the target at the upper wall: the box may be on the four inner cells or on the two middle ones of
    that wall, the player on any of the 15 other cells."""
    maze = read(ONE.board)[0]
    states = [divmod(state, 1 << maze.shift) for state in moves_to_go(maze)]
    assert len(states) == len(set(states)) == 6 * 15
    assert {boxes.bit_length() - 1 for boxes, _ in states} == {5, 6, 9, 10, 1, 2}
