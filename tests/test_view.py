import copy
import dataclasses
import re

import plotly.graph_objects as go
import pytest
from PIL import Image

from sglib.records import Trajectory, Turn, write_trajectories
from sglib.view import bars, figures, inspect, label_panels, learning_curves, live_plot
from sglib.view.inspect import episode_html, story_html, turn_html

ROWS = [{"iteration": i, "success": 0.3 + i / 100, "low": 0.2 + i / 100, "high": 0.4 + i / 100} for i in (0, 10, 20)]
ATTACKS = ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "'\"><svg onload=alert(1)>", "</pre></td>&lt;"]


# Figures ------------------------------------------------------------------------------------------------------------


def test_learning_curves():
    figure = learning_curves({"grpo": ROWS, "guide": ROWS[:2]}, title="Success", n=256)
    band, line = figure.data[:2]
    assert list(line.x) == [0, 10, 20] and line.y[2] == pytest.approx(0.5)
    assert list(band.x) == [0, 10, 20, 20, 10, 0] and band.y[0] == 0.4 and band.y[-1] == 0.2
    assert "n = 256 games; band: 95 % interval" in figure.layout.title.text
    assert figure.layout.xaxis.title.text == "iteration" and "success rate" in figure.layout.yaxis.title.text


def test_rows_without_a_value_are_left_out():
    figure = learning_curves({"a": [*ROWS, {"iteration": 30, "success": None}]})
    assert list(figure.data[1].x) == [0, 10, 20]
    with pytest.raises(ValueError, match="arm 'a' has no row with 'iteration' and 'reward'"):
        learning_curves({"a": ROWS}, y="reward")
    no_band = learning_curves({"a": [{"iteration": 0, "success": 0.1}]})
    assert len(no_band.data) == 1 and no_band.layout.title.text is None


def test_bars():
    figure = bars(["act", "guide"], [0.3, 0.5], [0.2, 0.45], [0.45, 0.6], n=128, group="before")
    assert list(figure.data[0].error_y.array) == pytest.approx([0.15, 0.1])
    assert list(figure.data[0].error_y.arrayminus) == pytest.approx([0.1, 0.05])
    both = bars(["act", "guide"], [0.4, 0.6], group="after", onto=figure)
    assert len(both.data) == 2 and both.data[0].marker.color != both.data[1].marker.color
    with pytest.raises(ValueError, match="equally long"):
        bars(["act"], [0.3, 0.5])


def test_label_panels():
    rows = [{"iteration": i, "negative": 0.2, "neutral": 0.3, "positive": 0.5, "agreement": 0.7} for i in range(3)]
    figure = label_panels({"guide": rows, "immediate": rows})
    assert len(figure.data) == 8 and {trace.xaxis for trace in figure.data} == {"x", "x2"}
    assert sum(trace.showlegend for trace in figure.data) == 4
    with pytest.raises(ValueError, match="no arm"):
        label_panels({})


def test_the_still_image_draws_the_same_series(monkeypatch):
    """What matplotlib is asked to draw is what the plotly figure holds."""
    from matplotlib.axes import Axes

    drawn = []
    for name in ("errorbar", "fill", "bar"):
        original = getattr(Axes, name)

        def record(self, x, y, *rest, _name=name, _original=original, **options):
            drawn.append((_name, list(x), list(y)))
            return _original(self, x, y, *rest, **options)

        monkeypatch.setattr(Axes, name, record)
    curves = learning_curves({"grpo": ROWS})
    figures.static_png(curves)
    band, line = curves.data
    assert drawn[0] == ("fill", list(band.x), list(band.y))
    assert drawn[1] == ("errorbar", list(line.x), list(line.y))
    drawn.clear()
    figures.static_png(bars(["a", "b"], [0.1, 0.2], [0.0, 0.1], [0.2, 0.3]))
    assert drawn[0] == ("bar", [0, 1], [0.1, 0.2])


def test_turn_panels_have_a_scale_each_and_end_with_the_episode():
    figure = figures.turn_panels({"reward": [[0.1, -0.2], [0.0]], "advantage": [[1.0, 1.0], [-3.0]]}, ["won", "lost"])
    reward, advantage = figure.data
    assert [list(row) for row in reward.z] == [[0.1, -0.2], [0.0, None]] and list(reward.y) == ["won", "lost"]
    assert (reward.zmin, reward.zmax, advantage.zmin, advantage.zmax) == (-0.2, 0.2, -3.0, 3.0)
    assert [a.text for a in figure.layout.annotations] == ["reward (±0.2)", "advantage (±3)"]
    with pytest.raises(ValueError, match="each must have 1 episodes"):
        figures.turn_panels({"reward": [[0.1], [0.0]]}, ["won"])


def test_still_images_of_all_kinds(tmp_path):
    curves = learning_curves({"a $x$": ROWS}, title="a $ sign")
    curves.add_hline(y=0.3)
    curves.add_vline(x=5)
    odd = go.Figure(go.Heatmap(z=[[1, 2]]))
    dotted = go.Figure(go.Scatter(x=["p", "q"], y=[1, 2], mode="markers", error_y={"array": [0.1, 0.1]}))
    grouped = bars(["act", "b", "c", "d", "e", "f"], [0.1] * 6, group="one")
    bars(["act", "b", "c", "d", "e", "f"], [0.2] * 6, group="two", onto=grouped)
    panels = label_panels({"a": [{"iteration": 0, "positive": 1.0}]})
    turns = figures.turn_panels({"reward": [[0.1, -0.2], [0.0]], "advantage": [[1.0, 1.0], [-1.0]]}, ["won", "lost"])
    for figure in (curves, odd, dotted, grouped, panels, turns, go.Figure()):
        image = figures.static_png(figure)
        (tmp_path / "x.png").write_bytes(image)
        assert Image.open(tmp_path / "x.png").size[0] > 500
        assert figures.static_png(figure) == image  # same figure, same bytes


def test_one_output_for_every_reader():
    bundle = figures.mimebundle(learning_curves({"grpo": ROWS}, title="Success"))
    assert set(bundle) == {"application/vnd.plotly.v1+json", "image/jpeg", "text/plain"}
    assert bundle["text/plain"] == "figure: Success\nband: 95 % interval"
    assert len(str(bundle)) < 150_000  # the script is in JupyterLab, not in every notebook


def test_live_plot_redraws_seldom_and_ends_with_the_last(monkeypatch):
    shown = []

    class Handle:
        def update(self, bundle, raw):
            shown.append(bundle)

    def display(bundle, raw, display_id):
        shown.append(bundle)
        return Handle()

    monkeypatch.setattr("IPython.get_ipython", lambda: type("Shell", (), {"kernel": 1})())
    monkeypatch.setattr("IPython.display.display", display)
    live = live_plot(every=1000)
    for last in range(1, 4):
        live.update(lambda last=last: learning_curves({"a": ROWS[:last]}))
    assert len(shown) == 1
    live.close()
    live.close()
    assert len(shown) == 2
    assert len(shown[-1]["application/vnd.plotly.v1+json"]["data"][1]["x"]) == 3


def test_live_plot_outside_a_notebook_draws_nothing():
    live = live_plot()
    live.update(lambda: pytest.fail("drawn"))
    live.close()


# Inspector ----------------------------------------------------------------------------------------------------------


def test_every_number_is_on_the_page(trajectory):
    page = turn_html(trajectory, 0)
    texts = ("You are in a room.", "look on the shelf", "positive", "go to shelf 1", "+0.1", "+0.5", "3 → 2", "nearer")
    for text in texts:
        assert text in page, text
    assert "not admissible" in turn_html(trajectory, 1)
    last = turn_html(trajectory, -1)
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
    assert page.count("—") == 2  # advantage and oracle distance
    assert "guidance" not in page


def test_index_errors(trajectory):
    for index in (3, -4):
        with pytest.raises(IndexError, match="episode of 3 turns"):
            turn_html(trajectory, index)


def test_long_episodes_are_cut_in_stored_notebooks(trajectory):
    trajectory.turns *= 50
    page = story_html(trajectory)
    assert "and 90 more turns" in page and len(page) < 120_000
    assert "more turns" not in story_html(trajectory, limit=None)


def test_widget(trajectory):
    other = dataclasses.replace(copy.deepcopy(trajectory), won=True, turns=trajectory.turns[:1])
    widget = inspect([trajectory, other], game=0, step=1)
    assert "Turn 2 of 3" in widget._body.value
    widget._on.click()
    assert widget.step == 2 and widget._on.disabled and "Turn 3 of 3" in widget._body.value
    widget._back.click()
    assert widget.step == 1
    widget.game = 1  # a shorter episode: back to its first turn
    assert widget.step == 0 and "Turn 1 of 1" in widget._body.value and "won" in widget._head.value
    assert widget._back.disabled and widget._on.disabled


def test_stored_fallback(trajectory):
    bundle = inspect(trajectory)._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "go to shelf 1" in bundle["text/html"] and "<script" not in bundle["text/html"]


def test_what_inspect_takes(trajectory, tmp_path):
    path = write_trajectories(tmp_path / "t.jsonl", [trajectory])
    for given in (path, str(path), trajectory, [trajectory], iter([trajectory])):
        assert inspect(given).trajectory == trajectory
    assert "without a turn" in inspect(Trajectory("g", "t", "goal", "act"))._body.value
    with pytest.raises(TypeError, match="expected a path or trajectories, got int"):
        inspect(3)
    with pytest.raises(TypeError, match="item 0 is no Trajectory but dict"):
        inspect([{}])
    with pytest.raises(ValueError, match="no episode"):
        inspect([])
    with pytest.raises(IndexError, match="game = 1: there are 1 episodes"):
        inspect(trajectory, game=1)
    with pytest.raises(IndexError, match="step = 3: episode 0 has 3 turns"):
        inspect(trajectory, step=3)
    with pytest.raises(FileNotFoundError):
        inspect(tmp_path / "absent.jsonl")
