import io

import numpy as np
import plotly.graph_objects as go
import pytest
from PIL import Image

from sglib.view import bars, figures, forest, label_panels, learning_curves, still

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


def test_many_bars_lie_so_that_their_names_can_be_read(monkeypatch):
    from matplotlib.axes import Axes

    names = [f"a_recipe_with_a_long_name_{i} (5)" for i in range(12)]
    figure = bars(names, [0.5] * 12, [0.4] * 12, [0.6] * 12, group="one", detectable=0.05, pair="two of 3 seeds", n=9)
    assert figure.layout.title.text.endswith("detectable: 5 points (two of 3 seeds)</sup>")
    bars(names, [0.1] * 12, group="two", onto=figure)
    assert [trace.orientation for trace in figure.data] == ["h", "h"] and list(figure.data[0].y) == names
    assert list(figure.data[0].x) == [0.5] * 12 and figure.data[0].error_x.array[0] == pytest.approx(0.1)
    assert figure.layout.yaxis.autorange == "reversed" and figure.layout.xaxis.title.text == "success rate"
    drawn, original = [], Axes.barh
    monkeypatch.setattr(Axes, "barh", lambda ax, *data, **look: drawn.append(data) or original(ax, *data, **look))
    still.static_png(figure)
    assert [list(lengths) for _, lengths in drawn] == [[0.5] * 12, [0.1] * 12]
    assert all(first < second for first, second in zip(*(places for places, _ in drawn)))  # beside each other


def test_label_panels():
    rows = [{"iteration": i, "negative": 0.2, "neutral": 0.3, "positive": 0.5, "agreement": 0.7} for i in range(3)]
    figure = label_panels({"guide": rows, "immediate": rows})
    assert len(figure.data) == 8 and {trace.xaxis for trace in figure.data} == {"x", "x2"}
    assert sum(trace.showlegend for trace in figure.data) == 4


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
    still.static_png(curves)
    band, line = curves.data
    assert drawn[0] == ("fill", list(band.x), list(band.y))
    assert drawn[1] == ("errorbar", list(line.x), list(line.y))
    drawn.clear()
    still.static_png(bars(["a", "b"], [0.1, 0.2], [0.0, 0.1], [0.2, 0.3]))
    assert drawn[0] == ("bar", [0, 1], [0.1, 0.2])


def test_turn_panels_have_a_scale_each_and_end_with_the_episode():
    figure = figures.turn_panels({"reward": [[0.1, -0.2], [0.0]], "advantage": [[1.0, 1.0], [-3.0]]}, ["won", "lost"])
    reward, advantage = figure.data
    assert [list(row) for row in reward.z] == [[0.1, -0.2], [0.0, None]] and list(reward.y) == ["won", "lost"]
    assert (reward.zmin, reward.zmax, advantage.zmin, advantage.zmax) == (-0.2, 0.2, -3.0, 3.0)
    assert [a.text for a in figure.layout.annotations] == ["reward (±0.2)", "advantage (±3)"]
    with pytest.raises(ValueError, match="each must have 1 episodes"):
        figures.turn_panels({"reward": [[0.1], [0.0]]}, ["won"])


def test_a_forest_has_a_line_for_each_difference():
    rows = [
        {"name": "a", "estimate": 5.0, "low": 2.0, "high": 9.0, "group": "holds", "theirs": 8.0},
        {"name": "b", "estimate": -1.0, "low": None, "high": None, "group": "open", "theirs": None},
    ]
    figure = forest(rows, ["open", "none", "holds"], band=3.0)
    noise, opened, holds, theirs = figure.data
    assert (min(noise.x), max(noise.x)) == (-3.0, 3.0) and noise.name == "noise, ±3.0"
    assert (list(holds.x), list(holds.y), list(opened.y), list(theirs.x)) == ([5.0], [0], [1], [8.0])
    assert (list(holds.error_x.array), list(holds.error_x.arrayminus)) == ([4.0], [3.0])
    assert list(opened.error_x.array) == [0.0]
    assert list(figure.layout.yaxis.ticktext) == ["a", "b"] and figure.layout.yaxis.range == (1.6, -0.6)
    assert still.static_png(figure).startswith(b"\x89PNG")


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
        image = still.static_png(figure)
        (tmp_path / "x.png").write_bytes(image)
        assert Image.open(tmp_path / "x.png").size[0] > 500
        assert still.static_png(figure) == image  # same figure, same bytes


@pytest.mark.parametrize(
    "draw",
    [
        lambda: bars([], [], [], []),
        lambda: bars([], [], group="two", onto=bars([], [], group="one")),
        lambda: bars(["a", "b"], [None, None], [None, None], [None, None]),
        lambda: bars(list("abcdef"), [None] * 6),
        lambda: learning_curves({}),
        lambda: label_panels({}),
        lambda: forest([], ["open"]),
        lambda: figures.small_multiples({}),
        lambda: figures.turn_panels({}, []),
        lambda: figures.turn_panels({"reward": []}, []),
        lambda: figures.turn_panels({"reward": [[], []]}, ["won", "lost"]),
    ],
)
def test_a_figure_of_nothing_says_so_in_both_pictures(draw, monkeypatch):
    from matplotlib.figure import Figure

    said, original = [], Figure.text
    monkeypatch.setattr(Figure, "text", lambda self, x, y, s, **look: said.append(s) or original(self, x, y, s, **look))
    figure = draw()
    assert "nothing to draw" in [note.text for note in figure.layout.annotations]
    assert still.mimebundle(figure)["image/jpeg"] and "nothing to draw" in said


def test_a_second_group_takes_the_note_away():
    assert not bars(["a"], [0.5], onto=bars([], [])).layout.annotations


@pytest.mark.parametrize(
    "draw",
    [
        lambda: bars(["a", "b"], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]),
        lambda: bars(["a", "b"], [0.5, None], [0.4, None], [0.6, None]),
        lambda: learning_curves({"a": [{"iteration": 0, "success": 0.0, "low": 0.0, "high": 0.0}] * 2}),
        lambda: label_panels({"a": [{"iteration": 0, "negative": None, "positive": 1.0}], "b": []}),
        lambda: forest([{"name": "a", "estimate": 0, "low": 0, "high": 0, "group": "open", "theirs": None}], ["open"]),
        lambda: figures.small_multiples({"x": {"a": [{"iteration": 1, "value": 0.0}] * 3}, "y": {"a": []}}),
        lambda: figures.turn_panels({"reward": [[0.0, 0.0], [0.0]], "advantage": [[], []]}, ["won", "lost"]),
    ],
)
def test_constant_values_are_drawn(draw):
    figure = draw()
    assert "nothing to draw" not in [note.text for note in figure.layout.annotations]
    assert still.mimebundle(figure)["image/jpeg"]


def test_long_titles_stay_within_the_still_image():
    curves = learning_curves(dict.fromkeys(("grpo", "self_guide_no_annealing"), ROWS), title="Success " * 20, n=256)
    image = np.array(Image.open(io.BytesIO(still.static_png(curves))).convert("L"))
    assert (image[:, [0, -1]] == 255).all() and (image[[0, -1]] == 255).all()  # nothing is cut off at the edges


def test_what_lies_behind_an_episode_is_grey_in_both_pictures():
    figure = figures.turn_panels({"reward": [[0.0] * 9, [0.0]]}, ["won", "lost"], note="of two")
    assert "grey: the episode is over" in figure.layout.title.text
    assert still.mimebundle(figure)["application/vnd.plotly.v1+json"]["layout"]["plot_bgcolor"] == "#D9D9D9"
    image = np.array(Image.open(io.BytesIO(still.static_png(figure))).convert("L"))
    assert (image == 0xD9).mean() > 0.1


def test_one_output_for_every_reader():
    bundle = still.mimebundle(learning_curves({"grpo": ROWS}, title="Success"))
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

    monkeypatch.setattr("IPython.get_ipython", lambda: type("Shell", (), {"config": {"IPKernelApp": {}}})())
    monkeypatch.setattr("IPython.display.display", display)
    live = figures.LivePlot(every=1000)
    for last in range(1, 4):
        live.update(lambda last=last: learning_curves({"a": ROWS[:last]}))
    assert len(shown) == 1
    live.close()
    live.close()
    assert len(shown) == 2
    assert len(shown[-1]["application/vnd.plotly.v1+json"]["data"][1]["x"]) == 3


def test_live_plot_outside_a_notebook_draws_nothing():
    live = figures.LivePlot()
    live.update(lambda: pytest.fail("drawn"))
    live.close()
