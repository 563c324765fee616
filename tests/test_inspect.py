"""The trajectory inspector: what is listed and filtered, what a page says, and that nothing from outside runs."""

import re
from pathlib import Path

import numpy as np
import pytest

import sglib
from sglib.envs.base import Board, Box
from sglib.experiments.tables import escape_markdown
from sglib.records import Trajectory, Turn, write_trajectories
from sglib.view import episodes, export_html, inspect, markup, pages, turns
from sglib.view.episodes import Query
from sglib.view.turns import episode_html, story_html, turn_html

ATTACKS = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "'\"><svg onload=alert(1)>", "</pre></td>&lt;",
    "javascript:alert(1)", "' data-do='export' x='", "</style><style>*{display:none}", "]]><!--", "{{7*7}}${7*7}",
]  # fmt: skip


def made(won=False, n=3, labels=None, distances=None, game="g", actions=None, observations=None, **more):
    turns = [
        Turn(
            observations[t] if observations else f"seen {t}", f"said {t}", actions[t] if actions else f"do {t}", True,
            label=labels and labels[t], distance=distances and distances[t],
        )
        for t in range(n)
    ]  # fmt: skip
    return Trajectory(game, "task", "goal", "guide", turns, won=won, final_distance=distances and distances[-1], **more)


# The list -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def some():
    lost = made(False, 6, labels=["positive"] * 6, distances=[5, 6, 6, 6, 6, 6, 6], actions=["look"] * 6)
    won = made(True, 2, labels=["neutral", "positive"], distances=[2, 1, 0], game="h", observations=["a Fridge", "b"])
    plain = made(False, 3, game="g")
    plain.turns[1].valid = False
    return [lost, won, plain]


def test_a_row_an_episode(some):
    rows = episodes.table(some, ["a", "b", "a"])
    assert rows["won"].tolist() == [False, True, False] and rows["turns"].tolist() == [6, 2, 3]
    assert rows["looping"].tolist() == [True, False, False] and rows["invalid"].tolist() == [0, 0, 1]
    assert rows["disagreement"].tolist()[:2] == [1.0, 0.0] and np.isnan(rows["disagreement"][2])
    assert episodes.table([]).empty


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (Query(), [0, 1, 2]),
        (Query(outcome="won"), [1]),
        (Query(outcome="lost", sort="turns"), [2, 0]),
        (Query(sort="turns", descending=True), [0, 2, 1]),
        (Query(sort="disagreement"), [1, 0, 2]),
        (Query(sort="disagreement", descending=True), [0, 1, 2]),  # without a value: last either way
        (Query(run="a", shortest=4), [0]),
        (Query(longest=3), [1, 2]),
        (Query(looping=True), [0]),
        (Query(invalid=True), [2]),
        (Query(disagreeing=True), [0]),
        (Query(text="FRIDGE"), [1]),
        (Query(text="no such thing"), []),
        (Query(task="task", outcome="lost", text="do 1"), [2]),
    ],
)
def test_queries(some, query, found):
    rows = episodes.table(some, ["a", "b", "a"])
    texts = [episodes.search_text(t) for t in some]
    assert episodes.select(rows, query, lambda: texts).tolist() == found


def test_a_query_that_is_none():
    with pytest.raises(ValueError, match="outcome='draw': allowed"):
        Query(outcome="draw")
    with pytest.raises(ValueError, match="sort='colour': allowed"):
        Query(sort="colour")


# One episode --------------------------------------------------------------------------------------------------------


def test_where_a_reward_and_the_truth_are_at_odds():
    """Distances 4, 3, 3, 2, 1: actions 1, 3 and 4 helped. The labels of turns 2 to 4 rate actions 1 to 3."""
    t = made(True, 4, labels=["neutral", "positive", "positive", "negative"], distances=[4, 3, 3, 2, 1])
    for turn, value in zip(t.turns, (0.5, 0.0, -0.5, 1.0)):
        turn.rewards["<b>mine"] = value
    assert turns.at_odds(t, 0) == {} and turns.at_odds(t, 1) == {"label": 1.0}
    assert turns.at_odds(t, 2) == {"label": -1.0, "<b>mine": -0.5} and turns.at_odds(t, 3) == {}
    page = turns.placement_html(t)
    mine = re.search(r"<tr><td>&lt;b&gt;mine.*?</tr>", page)[0]  # +0.5 - 0.5 + 1 where it helped, 0 elsewhere
    assert re.findall(r"class='num'>([^<]*)<", mine) == ["+1", "+0", "0.6667"]
    assert re.findall(r"data-value='(\d)'>(\d)<", mine) == [("2", "3")]
    assert page in story_html(t) and page in pages.episode_page(t, 0, place=0, count=1, call="")
    assert "at odds with the truth" in turn_html(t, 2) and "at odds with the truth" not in turn_html(t, 0)
    assert turns.placement_html(made(labels=["positive"] * 3)) == "", "nothing is said where the truth is not known"


def test_the_timeline_has_one_axis():
    t = made(True, 2, labels=["positive", "negative"], distances=[4, 5, 0])
    t.turns[0].progress, t.turns[1].rewards = 25.0, {"repro/retrospective": 100.0}
    line = episodes.timeline(t)
    assert line.true == [0.0, 0.0, 1.0] and line.stated == [0.25, None, None]
    assert line.hindsight == [0.0, None, 1.0] and line.polarity == [1.0, -1.0, None]
    assert "stated 25 %" in turns.timeline_svg(t, 0) and turns.timeline_svg(made(n=0)) == ""


ROOM = [
    "-= Welcome =- You are in the middle of a room. Looking quickly around you, you see a cabinet 1, a fridge 1, and a "
    "desk 2.\n\nYour task is to: put a mug in desk.",
    "You arrive at fridge 1. The fridge 1 is closed.",
    "You open the fridge 1. The fridge 1 is open. In it, you see a egg 1, and a mug 1.",
    "You pick up the mug 1 from the fridge 1.",
    "You arrive at desk 2. On the desk 2, you see nothing.",
    "Nothing happens.",
]
DONE = [
    "go to fridge 1", "open fridge 1", "take mug 1 from fridge 1", "go to desk 2", "go to cabinet 1",
    "move mug 1 to desk 2",
]  # fmt: skip


def test_the_map_knows_what_was_seen_and_carried():
    t = made(True, 6, observations=ROOM, actions=DONE)
    t.final_observation = "You move the mug 1 to the desk 2."
    boards = [sglib.envs.of(t).board(t, i) for i in range(7)]
    drawn = [{box.name: box for box in board.boxes} for board in boards]
    assert list(drawn[0]) == ["cabinet 1", "fridge 1", "desk 2"] and boards[0].caption == "carries: nothing"
    assert all(box.things is None and not box.state and not box.here for box in boards[0].boxes)
    assert drawn[1]["fridge 1"] == Box("fridge 1", None, "closed", True)
    assert drawn[2]["fridge 1"] == Box("fridge 1", ["egg 1", "mug 1"], "", True)
    assert boards[4].caption == "carries: mug 1" and drawn[4]["desk 2"].here
    assert drawn[4]["fridge 1"].things == ["egg 1"]
    assert boards[6].caption == "carries: nothing" and drawn[6]["desk 2"].things == ["mug 1"]
    assert drawn[6]["desk 2"].here and not drawn[6]["cabinet 1"].here  # "Nothing happens": it did not go there
    assert "carries: <b>mug 1</b>" in inspect(t, game=0, step=4).page
    assert "no drawing for this episode" in turns.drawing_html(made(), 1)


def test_the_map_of_a_real_episode_agrees_with_the_engine():
    from sglib.envs import replay
    from sglib.envs.alfworld import generate_games

    games = generate_games(6, seed=5)
    for game in games:
        env = next(replay(game, ()))
        t = Trajectory(game.id, game.task_type, game.goal, "act")
        observation = env.observation
        for action in game.walkthrough:
            t.turns.append(Turn(observation.text, action, action, True))
            observation = env.step(action)
        t.final_observation = observation.text
        board = sglib.envs.of(t).board(t, len(t))
        things = {box.name: box.things for box in board.boxes}
        moved = [action for action in game.walkthrough if action.startswith("take ")]
        put = [action for action in game.walkthrough if action.startswith("move ")]
        carried = board.caption.removeprefix("carries: ").replace("nothing", "")
        assert len(carried.split(", ") if carried else ()) == len(moved) - len(put)
        for action in put:
            thing, place = re.fullmatch(r"move (.+) to (.+)", action).groups()
            assert thing in things[place]
        assert [box.name for box in board.boxes if box.here] == [
            [a for a in game.walkthrough if a.startswith("go to ")][-1].removeprefix("go to ")
        ]


def test_a_drawing_of_text_keeps_its_lines_and_is_harmless():
    drawn = turns.board_html(Board("turn: <1>", "# #\n#<b>", [Box("<i>", ["<u>"], "<s>", True), Box("b", [])]))
    assert "<pre class='board'># #\n#&lt;b&gt;</pre>" in drawn and "turn: <b>&lt;1&gt;</b>" in drawn
    assert set(re.findall(r"<(\w+)", drawn)) == {"p", "b", "pre", "div", "span", "br"} and "empty" in drawn
    assert ".sglib-view pre.board{white-space:pre;" in markup.STYLE
    assert turns.board_html(Board("a caption")) == "<p>a caption</p><div></div>"


def test_another_environment_draws_its_own_board():
    board = "# # #\n# P #\n# # #"
    t = made(n=1, env="sokoban", observations=[f"You move.\n{board}"], actions=["up"])
    t.final_observation = t.turns[0].observation
    assert f"<pre class='board'>{board}</pre>" in inspect(t).page
    t.env = "no_such_game"
    assert "no drawing: env=&#x27;no_such_game&#x27;" in inspect(t).page  # the rest of the page is there
    assert "Turn 1 of 1" in inspect(t).page


def test_the_truth_of_a_turn():
    lost = made(n=3, distances=[4, 3, None, None])
    assert "4 → 3 <span class='good'>nearer" in turn_html(lost, 0)
    assert "3 → out of reach <span class='bad'>farther" in turn_html(lost, 1)
    assert "out of reach → out of reach <span class='dim'>as far" in turn_html(lost, 2)
    assert episodes.timeline(lost).true == [0.0, 0.25, 0.0, 0.0]
    scored = made(n=1, score=0.4)
    scored.turns[0].truth, scored.final_truth = 0.25, 0.5
    assert "true progress" in turn_html(scored, 0) and "25 % → 50 % <span class='good'>" in turn_html(scored, 0)
    assert episodes.timeline(scored).true == [0.25, 0.5]
    assert "not won</b> (score 0.4)" in episode_html(scored) and "score" not in episode_html(lost)


def test_rewards_with_what_they_came_from():
    turn = Turn("o", "r", "a", True, reward=1.0, rewards={
        "igpo": 0.5, "igpo/before": -2.0, "igpo/after": -1.5, "igpo/weighted": 0.05, "self_guide": 0.1,
    })  # fmt: skip
    assert episodes.turn_rewards(turn) == [
        ("environment", 1.0, {}),
        ("igpo", 0.5, {"before": -2.0, "after": -1.5, "weighted": 0.05}),
        ("self_guide", 0.1, {}),
    ]


def test_every_number_is_on_the_page(trajectory):
    page = turn_html(trajectory, 0)
    texts = ("You are in a room.", "look on the shelf", "positive", "go to shelf 1", "+0.1", "+0.5", "3 → 2", "nearer")
    for text in texts:
        assert text in page, text
    assert "invalid: nothing happened" in turn_html(trajectory, 1)
    last = turn_html(trajectory, 2)
    assert "no_action" in last and "mumble" in last and "2 → 2" in last and "as far" in last
    head = episode_html(trajectory)
    assert "3 turns" in head and "2 without effect" in head and "0.125" in head and "put a mug in desk." in head


def test_the_arithmetic_adds_up(trajectory):
    trajectory.turns[0].reward = 1.0
    numbers = [float(x) for x in re.findall(r"class='num'>([+-][\d.]+)<", turn_html(trajectory, 0))]
    assert numbers == pytest.approx([1.0, 0.1, 1.1])


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_from_outside_becomes_markup(attack):
    turn = Turn(attack, attack, attack, False, attack, attack, 50.0, attack, rewards={attack: 0.5}, advantage=1.0)
    episode = Trajectory(attack, attack, attack, attack, [turn], final_observation=attack)
    clean = Turn("x", "x", "x", False, "x", "x", 50.0, "x", rewards={"x": 0.5}, advantage=1.0)
    harmless = Trajectory("x", "x", "x", "x", [clean], final_observation="x")
    for view in (lambda t: turn_html(t, 0), episode_html, story_html):
        tags = re.findall(r"<[^>]*>", view(episode))
        assert tags == re.findall(r"<[^>]*>", view(harmless))
        assert not [tag for tag in tags if "script" in tag or re.search(r"\son\w+=", tag)]


def test_missing_measurements_are_dashes():
    page = turn_html(Trajectory("g", "t", "goal", "act", [Turn("o", "r", "a", True)]), 0)
    assert page.count("—") == 2  # advantage and distance
    assert "guidance" not in page


def test_long_episodes_are_cut_in_stored_notebooks(trajectory):
    trajectory.turns *= 50
    page = story_html(trajectory)
    assert "and 90 more turns" in page and len(page) < 120_000
    assert "more turns" not in story_html(trajectory, limit=None)


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_from_outside_becomes_markup_anywhere(attack, tmp_path):
    """The same tags, whatever the texts say: in the list, an episode, its tokens, a comparison, the exported file."""
    views = []
    for text in (attack, "x"):
        turn = Turn(text, text, text, False, text, "positive", 50.0, text, rewards={text: 0.5}, span=(0, 1))
        one = Trajectory(text, text, text, text, [turn], final_observation=text)
        one.completion_ids, one.mask, one.logprobs = [5], [1], [-1.0]
        widget = inspect({text: [one, one]})
        found = [widget.page]
        widget.act("open", 0)
        found.append(widget.page)
        widget.act("view", "compare")
        widget.act("other", "1")
        found.append(widget.page)
        found.append(pages.tokens_page(one, lambda id_, text=text: text, "advantage"))
        found.append(export_html([one], tmp_path / "x.html", runs=[text]).read_text())
        found.append(pages.what_if_html(one, 0, None, "", [text], {text: text}))
        found.append(pages.what_if_html(one, 0, None, text, [], {}))
        # what stands quoted in an attribute is text, whatever it says
        views.append([re.sub(r"(value|title)='[^'<>]*'", "", tag) for tag in re.findall(r"<[^>]*>", "".join(found))])
    assert views[0] == views[1]
    assert not [tag for tag in views[0] if "<script" in tag or re.search(r"\son\w+\s*=", tag)]


def test_characters_that_mislead_are_named():
    assert markup.escape("a\u202eb\u200bc\x07\x1b[31m") == "a\\u202eb\\u200bc\\u0007\\u001b[31m"
    assert markup.escape("two\nlines\tand é ü 漢") == "two\nlines\tand é ü 漢"


# Several ------------------------------------------------------------------------------------------------------------


def test_where_two_episodes_part():
    a, b = made(n=4), made(n=4)
    assert episodes.divergence(a, b) is None
    b.turns[2].action = "else"
    assert episodes.divergence(a, b) == 2
    assert episodes.divergence(a, made(n=2)) is None
    b.turns[1].observation = "else"
    assert episodes.divergence(a, b) == 1
    assert "they part at turn 2" in pages.compare_page(a, b, [(1, "other")], 1, ("a", "b"))


def test_anchor_states_of_a_group():
    a = made(n=3, observations=["start", "hall", "kitchen"])
    b = made(n=2, observations=["start", "kitchen"])
    assert episodes.anchors([a, b]) == {"start": [(0, 0), (1, 0)], "kitchen": [(0, 2), (1, 1)]}


def test_tokens_are_those_of_the_trainer(trajectory):
    found = episodes.tokens(trajectory, lambda id_: f"t{id_}")
    assert [token.text for token in found[:3]] == ["t1", "t2", "t3"] and len(found) == 14
    assert not found[0].trained and found[2].trained and found[2].turn == 0 and found[2].advantage == 0.5
    assert found[2 + 7].advantage == -0.25 and found[2 + 5].turn is None
    assert episodes.tokens(Trajectory("g", "t", "goal", "act"), str) == []
    page = pages.tokens_page(trajectory, lambda id_: f"t{id_}", "advantage")
    assert page.count("class='masked'") == 2 and "14 tokens, 12 of them trained on" in page


def test_the_trainers_advantages_are_on_the_tokens_that_got_them():
    policy = sglib.load_policy("base")
    (t,) = sglib.rollout(policy, sglib.panel("alfworld", n=1), turns=3)
    for number, turn in enumerate(t.turns):
        turn.advantage = float(number + 1)
    decode = policy.tokenizer.convert_ids_to_tokens
    for token in episodes.tokens(t, decode):
        assert (token.advantage is not None) == token.trained
        if token.trained:
            assert token.advantage == token.turn + 1
    written = [[x.text for x in episodes.tokens(t, decode) if x.turn == i and x.trained] for i in range(3)]
    assert all(turn.action.split()[0] in " ".join(words) for turn, words in zip(t.turns, written, strict=True))


# The widget ---------------------------------------------------------------------------------------------------------


def test_from_the_list_into_a_turn_and_back(some):
    widget = inspect({"a": some[:2], "b": some[2:]})
    assert widget.view == "list" and "3 episodes" in widget.page.replace("1 to 3 of ", "")
    widget.act("outcome", "lost")
    widget.act("sort", "turns")
    assert widget.found.tolist() == [2, 0] and "1 to 2 of 2 (of 3 episodes)" in widget.page
    widget.act("open", "0")
    assert (widget.view, widget.game, widget.step) == ("episode", 0, 0) and "Turn 1 of 6" in widget.page
    widget.act("key", "ArrowRight")
    widget.act("turn", 1)
    assert widget.step == 2 and "Turn 3 of 6" in widget.page
    widget.act("key", "End")
    assert widget.step == 5
    widget.act("key", "ArrowUp")  # the episode before in the list's order
    assert (widget.game, widget.step) == (2, 0)
    widget.act("key", "ArrowUp")
    assert widget.game == 2
    widget.act("key", "Escape")
    assert widget.view == "list" and widget.query.outcome == "lost"


def test_the_call_on_the_page_shows_the_same(some, tmp_path):
    path = write_trajectories(tmp_path / "t.jsonl", some)
    widget = inspect(path)
    for do, value in (("open", 2), ("turn", 1), ("view", "compare"), ("other", 0)):
        widget.act(do, value)
    again = eval(widget.call, {"sglib": sglib})  # the text is ours: paths and numbers
    assert (again.view, again.game, again.step, again.other) == ("compare", 2, 1, 0)
    assert again.page == widget.page


def test_what_makes_no_sense_changes_nothing_and_is_said(some):
    widget = inspect(some, game=0, step=1)
    for do, value in (
        ("open", 9), ("open", "x"), ("view", "secret"), ("other", 99), ("turn", None), (None, 1), ("draw", 1),
        ("__class__", 1), ("whatif", {"kind": "action", "text": "look"}), ("sort", "colour"),
    ):  # fmt: skip
        widget.act(do, value)
        assert (widget.view, widget.game, widget.step, widget.other) == ("episode", 0, 1, None), do
        assert bool(widget.note) == (do in ("open", "view", "other", "turn", "whatif", "sort")), do
        assert widget.note == "" or markup.escape(widget.note) in widget.page
    widget.act("view", "compare")
    widget.act("other", -1)
    assert (widget.view, widget.other) == ("compare", None) and "other = -1" in widget.page
    widget.act("view", "episode")
    some[0].mask = [1]  # damaged: ids and mask of different lengths
    widget.act("view", "tokens")
    assert widget.view == "episode" and "ValueError" not in widget.note and widget.note
    widget.act("whatif", {})
    assert "needs a policy" in widget.page


def test_what_if_in_the_widget():
    policy = sglib.load_policy("base")
    played = sglib.rollout(policy, sglib.panel("alfworld", n=2), format="guide", turns=5)
    widget = inspect(played, game=1, step=2, policy=policy)
    assert "value='look'" in widget.page and "shortest plan: <code>" in widget.page
    assert "expert explore: <code>" in widget.page
    widget.act("whatif", {"kind": "action", "text": "look", "k": "3"})
    assert widget.result.k == 3 and "3 episodes each" in widget.page
    assert all(t.turns[2].action == "look" for t in widget.result.examples)
    widget.act("whatif", {"kind": "guidance", "text": "go to shelf 1", "label": "positive", "k": "2"})
    assert widget.result.examples[0].turns[2].guidance == "go to shelf 1"
    widget.act("whatif", {"kind": "delete", "k": "2"})
    assert widget.result.examples[0].turns[2].guidance is None
    widget.act("examples")
    assert widget.view == "compare" and widget.other == 2 and len(widget.trajectories) == 4
    widget.act("view", "episode")
    widget.act("turn", 1)
    assert widget.result is None
    for kind, text, k in (("action", " ", "2"), ("magic", "", "2"), ("delete", "", "9999"), ("delete", "", "x")):
        widget.act("whatif", {"kind": kind, "text": text, "k": k})
        assert widget.result is None and widget.note


def test_what_an_environment_lacks_is_not_offered(tmp_path):
    policy, (task,) = sglib.load_policy("base"), sglib.envs.get(str(Path(__file__).parent / "corridor.py")).tasks(1)
    (t,) = sglib.rollout(policy, [task], turns=2)
    page = inspect(t, policy=policy).page
    assert "shortest plan: <code>go to east</code>" in page and "expert" not in page.split("</style>")[1]
    assert "value='go to west'" in page and "&lt;place 0&gt;" in page
    widget = inspect(t, policy=policy)
    widget.act("whatif", {"kind": "action", "text": "go to east", "k": "2"})
    assert widget.result.k == 2 and not widget.note
    t.origin = None
    assert "no what-if: tasks: " in inspect(t, policy=policy).page
    t.origin, t.turns[0].span = task.origin, (0, 0)
    assert "has no tokens" in inspect(t, policy=policy).page
    bare = pages.what_if_html(t, 0, None, "", (), {})
    assert "no planner and no expert" in bare and "actions are free text" in bare


def test_export_opens_without_anything(some, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    widget = inspect(some)
    widget.act("outcome", "lost")
    widget.act("export")
    text = (tmp_path / "inspector.html").read_text()
    assert "<script" not in text and "src=" not in text and "http://" not in text and "https://" not in text
    assert text.count("<section") == 2 and "do 2" in text and "written:" in widget.page
    cut = export_html(some, tmp_path / "cut.html", most=1).read_text()
    assert cut.count("<section") == 1 and "2 more episodes are left out" in cut
    with pytest.raises(ValueError, match="at least one"):
        export_html([], tmp_path / "none.html")


def test_stored_fallback(trajectory, some):
    bundle = inspect(trajectory)._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "go to shelf 1" in bundle["text/html"] and "<script" not in bundle["text/html"]
    assert "3 episodes, 1 won" in inspect(some)._repr_mimebundle_()["text/html"]


def test_what_inspect_takes(trajectory, tmp_path):
    path = write_trajectories(tmp_path / "runs" / "t.jsonl", [trajectory])
    for given in (path, str(path), trajectory, [trajectory], iter([trajectory]), path.parent, {"a": path}):
        assert inspect(given).trajectory == trajectory
    assert inspect(path.parent).runs == ["t"]
    assert "without a turn" in inspect(Trajectory("g", "t", "goal", "act")).page
    with pytest.raises(TypeError, match="expected a path or trajectories, got int"):
        inspect(3)
    with pytest.raises(TypeError, match="item 0 is no Trajectory but dict"):
        inspect([{}])
    with pytest.raises(ValueError, match="no episode"):
        inspect([])
    with pytest.raises(ValueError, match="no file of trajectories"):
        inspect(_empty(tmp_path))
    with pytest.raises(ValueError, match="view='map': allowed"):
        inspect(trajectory, view="map")
    with pytest.raises(IndexError, match="game = 1: there are 1 episodes"):
        inspect(trajectory, game=1)
    with pytest.raises(IndexError, match="other = 4: there are 1 episodes"):
        inspect(trajectory, other=4)
    with pytest.raises(IndexError, match="step = 3: episode 0 has 3 turns"):
        inspect(trajectory, step=3)
    with pytest.raises(FileNotFoundError):
        inspect(tmp_path / "absent.jsonl")
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"game_id": 1}\n')
    with pytest.raises(ValueError, match="broken.jsonl, line 1: not a trajectory"):
        inspect(broken)


def _empty(folder):
    (folder / "empty").mkdir()
    return folder / "empty"


def test_text_in_a_markdown_table_is_text():
    text = escape_markdown("a|b\n<b>[x](javascript:1)</b> *y* $z$ `c` \u202e")
    assert "\n" not in text and "<" not in text and "\u202e" not in text
    assert not re.search(r"(?<!\\)[|*`$\[\]]", text)


def test_tokens_of_a_file_are_read_when_an_episode_is_opened(tmp_path):
    played = sglib.rollout(sglib.load_policy("base"), sglib.envs.alfworld.generate_games(2, seed=1), turns=2)
    path = write_trajectories(tmp_path / "t.jsonl", played)
    widget = inspect(path)
    assert widget.trajectories[0] == played[0] and widget.trajectories[1].prompt_ids == []  # the first one is open
    widget.act("open", "1")
    assert widget.trajectory == played[1]
    widget.act("view", "tokens")
    assert "of them trained on" in widget.page
    for change in (lambda: write_trajectories(path, played[::-1]), path.unlink):
        widget = inspect(write_trajectories(path, played))
        change()
        widget.act("open", "1")
        assert "line 2: changed since the list was made" in widget.page and widget.view == "list"


def test_runs_of_folders_keep_their_names_and_other_files_are_left_out(some, tmp_path):
    for run in ("before", "after"):
        write_trajectories(tmp_path / run / "t.jsonl", some)
        (tmp_path / run / "metrics.jsonl").write_text('{"iteration": 0, "success": 0.5}\n')
    widget = inspect({run: tmp_path / run for run in ("before", "after")})
    assert set(widget.runs) == {"before/t", "after/t"} and len(widget.trajectories) == 2 * len(some)
    assert set(inspect(tmp_path).runs) == {"before/t", "after/t"}
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"empty\.jsonl: no episode to look at"):
        inspect(tmp_path / "empty.jsonl")


def test_empty_lines_do_not_shift_what_is_opened(tmp_path):
    played = sglib.rollout(sglib.load_policy("base"), sglib.envs.alfworld.generate_games(2, seed=1), turns=2)
    path = write_trajectories(tmp_path / "t.jsonl", played)
    path.write_text(path.read_text().replace("\n", "\n\n"))
    widget = inspect(path)
    widget.act("open", "1")
    assert widget.trajectory == played[1]


def test_another_tokenizers_tokens_are_not_read_as_this_ones():
    (played,) = sglib.rollout(sglib.load_policy("base"), sglib.envs.alfworld.generate_games(1, seed=1), turns=2)
    played.turns[0].response = "Action: say something in other words"
    page = inspect(played, view="tokens", policy="base").page
    assert "Numbers, not texts" in page and "ratio" not in page


def test_colours_say_what_they_say():
    (played,) = sglib.rollout(sglib.load_policy("base"), sglib.envs.alfworld.generate_games(1, seed=1), turns=2)
    for turn in played.turns:
        turn.advantage = 0.0
    widget = inspect(played, view="tokens")
    assert "No token has an advantage" in widget.page and "background:rgba(213" not in widget.page.split("</style>")[1]
    widget.act("colour", "logprob")
    assert "background:rgba(128" in widget.page and "background:rgba(213" not in widget.page.split("</style>")[1]


def test_members_of_one_group_are_of_one_run():
    a, b = made(), made()
    one = inspect({"x": [a, b]}, game=0).page
    two = inspect({"x": [a], "y": [b]}, game=0).page
    assert "anchor'" in one.split("</style>")[1] and "anchor'" not in two.split("</style>")[1]


def test_a_filtered_export_keeps_the_numbers(some, tmp_path):
    widget = inspect(some)
    widget.act("sort", "turns")
    widget.act("outcome", "won")
    text = widget.export(tmp_path / "x.html").read_text()
    assert all(f"id='episode-{n}'" in text for n in widget.found) and text.count("<section") == len(widget.found)


def test_hostile_texts_take_no_time_and_no_room():
    turn = Turn("You take the x from the " * 50_000, "r", "a", True)
    t = Trajectory("g", "t", "goal", "act", [turn] * 3)
    page = inspect(t).page
    assert "more characters" in page and len(page) < 200_000


UNSEEN = ["\ud800", "\u00ad", "\u202e", "\u2066", "\ufe0f", "\U000e0041", "\u3164", "\x1b"]


@pytest.mark.parametrize("character", UNSEEN)
def test_what_nobody_sees_is_named(character):
    assert markup.escape(f"a{character}b") == f"a\\u{ord(character):04x}b"
    markup.escape(f"a{character}b").encode()
