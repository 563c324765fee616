"""Figures as interactive plotly; `sglib.view.still` draws the same series as an image, for pages without scripts.

A figure of no data is drawn and says so: a small experiment in which nothing varies must not end a notebook.
"""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sglib.measure.power import detectable_difference
from sglib.play.progress_bar import in_kernel
from sglib.view.still import COLOURS, NOTHING, mimebundle

MOST_STANDING = 5  # vertical bars in a figure
AGREEMENT = "agreement with the truth"
LABEL_COLOURS = {"negative": "#D55E00", "neutral": "#8C8C8C", "positive": "#0072B2"}
Rows = Sequence[Mapping[str, Any]] | pd.DataFrame


def learning_curves(
    metrics_by_arm: Mapping[str, Rows],
    x: str = "iteration",
    y: str = "success",
    *,
    title: str = "",
    x_title: str = "iteration",
    y_title: str = "success rate on held-out games",
    percent: bool = True,
    n: int | None = None,
) -> go.Figure:
    """One line for each arm, with its 95 % interval as a band.

    Args:
        metrics_by_arm: rows (dicts or a DataFrame) by arm's name; rows without `y` are left out. Their columns `low`
            and `high` are the band.
        x, y: names of columns.
        percent: values are fractions 0..1, shown in percent.
        n: number of games of each point, named below the title with the smallest true difference between two lines
            that a test finds with 80 % probability.

    Raises:
        ValueError: an arm without a row that has `x` and `y`.
    """
    figure = go.Figure()
    banded = [
        _curve(figure, arm, rows, COLOURS[number % len(COLOURS)], x, y)
        for number, (arm, rows) in enumerate(metrics_by_arm.items())
    ]
    return _finish(figure, title, _note(n, "band" if any(banded) else ""), x_title, y_title, percent)


def _curve(
    figure: go.Figure, arm: str, rows: Rows, colour: str, x: str, y: str, *, size: int = 6, legend: bool | None = None,
    **place: int,
) -> bool:  # fmt: skip
    """Add one arm's line, and its band where the rows have one, which it returns. `place`: row and col of a panel."""
    frame = pd.DataFrame(rows)
    if not {x, y} <= set(frame.columns) or frame.dropna(subset=[x, y]).empty:
        raise ValueError(f"arm {arm!r} has no row with {x!r} and {y!r}; its columns: {list(frame.columns)}")
    frame = frame.dropna(subset=[x, y]).sort_values(x)
    banded = {"low", "high"} <= set(frame.columns) and frame[["low", "high"]].notna().all(axis=1).any()
    if banded:
        band = frame.dropna(subset=["low", "high"])
        figure.add_scatter(
            x=[*band[x], *band[x][::-1]], y=[*band["high"], *band["low"][::-1]], fill="toself", mode="none",
            fillcolor=_translucent(colour), legendgroup=arm, showlegend=False, hoverinfo="skip", name=arm, **place,
        )  # fmt: skip
    figure.add_scatter(
        x=list(frame[x]), y=list(frame[y]), mode="lines+markers", name=arm, legendgroup=arm, showlegend=legend,
        line={"color": colour}, marker={"color": colour, "size": size}, **place,
    )  # fmt: skip
    return banded


def bars(
    names: Sequence[str],
    values: Sequence[float],
    low: Sequence[float] | None = None,
    high: Sequence[float] | None = None,
    *,
    title: str = "",
    x_title: str = "",
    y_title: str = "success rate",
    percent: bool = True,
    n: int | None = None,
    group: str | None = None,
    onto: go.Figure | None = None,
    detectable: float | None = None,
    pair: str | None = None,
) -> go.Figure:
    """One bar for each name, with its 95 % interval; more than `MOST_STANDING` are horizontal, so that names can be
    read. Arguments as in `learning_curves`, and:

    Args:
        names, values, low, high: equally long; `low <= value <= high`; a value None is not drawn.
        group, onto: add a group of bars of this name to an earlier figure.
        detectable, pair: a difference (0..1) to name in place of the one from `n`, and which two bars it is between.
    """
    if {len(names)} != {len(x) for x in (values, low, high) if x is not None}:
        raise ValueError("names, values, low and high must be equally long")
    values, low, high = (None if of is None else np.array(of, float) for of in (values, low, high))
    figure = onto if onto is not None else go.Figure()
    number = sum(trace.type == "bar" for trace in figure.data)
    errors = None
    if low is not None and high is not None:
        up, down = np.subtract(high, values), np.subtract(values, low)
        errors = {"type": "data", "symmetric": False, "array": list(up), "arrayminus": list(down), "width": 4}
    look = {"name": group or "", "showlegend": group is not None, "marker_color": COLOURS[number % len(COLOURS)]}
    note = _note(n, "whiskers" if errors else "", detectable, pair)
    if len(names) <= MOST_STANDING:
        figure.add_bar(x=list(names), y=list(values), error_y=errors, **look)
        return _finish(figure, title, note, x_title, y_title, percent)
    figure.add_bar(y=list(names), x=list(values), error_x=errors, orientation="h", **look)
    _finish(figure, title, note, y_title, x_title, False)
    figure.update_xaxes(tickformat=".1~%" if percent else None, rangemode="tozero")
    figure.update_yaxes(autorange="reversed")  # as listed, from the top
    return figure.update_layout(height=140 + (12 + 14 * (number + 1)) * len(names))


def forest(
    rows: Rows,
    groups: Sequence[str],
    *,
    title: str = "",
    x_title: str = "difference in points",
    band: float | None = None,
    note: str = "",
) -> go.Figure:
    """Differences with their intervals, one below the other, and what papers reported.

    Args:
        rows: `name`; `estimate`, `low`, `high` in points, `low` and `high` None where there is no interval; `group`;
            `theirs` in points, None where nothing was reported.
        groups: what `group` can be; each has a colour.
        band: differences below this, in points, are noise; shaded.
    """
    frame = pd.DataFrame(rows)
    if frame.empty:
        return _finish(go.Figure(), title, note, x_title, "", False)
    figure, last = go.Figure(), len(frame) - 1
    if band is not None:
        figure.add_scatter(
            x=[-band, band, band, -band], y=[-0.6, -0.6, last + 0.6, last + 0.6], fill="toself", mode="lines",
            line={"width": 0, "color": "#8C8C8C"}, fillcolor=_translucent("#8C8C8C"), hoverinfo="skip",
            name=f"noise, ±{band:.1f}",
        )  # fmt: skip
    numbers = frame[["estimate", "low", "high"]].astype(float)
    whiskers = {"array": numbers["high"] - numbers["estimate"], "arrayminus": numbers["estimate"] - numbers["low"]}
    for group, colour in zip(groups, COLOURS):
        part = frame[frame["group"] == group]
        if part.empty:
            continue
        errors = {side: length[part.index].fillna(0).tolist() for side, length in whiskers.items()}
        errors |= {"type": "data", "symmetric": False}
        figure.add_scatter(
            x=part["estimate"].tolist(), y=part.index.tolist(), error_x=errors, mode="markers", name=f"ours: {group}",
            marker={"color": colour, "size": 8}, text=part["name"].tolist(), hovertemplate="%{text}: %{x:+.1f}",
        )  # fmt: skip
    reported = frame.dropna(subset=["theirs"])
    if len(reported):
        figure.add_scatter(
            x=reported["theirs"].tolist(), y=reported.index.tolist(), mode="markers", name="theirs",
            marker={"color": "#7f7f7f", "size": 9, "symbol": "diamond-open"}, text=reported["name"].tolist(),
            hovertemplate="%{text}: %{x:+.1f}",
        )  # fmt: skip
    figure.add_vline(x=0, line_color="grey", line_width=1)
    _finish(figure, title, note, x_title, "", False)
    figure.update_yaxes(tickvals=list(frame.index), ticktext=frame["name"].tolist(), range=[last + 0.6, -0.6])
    return figure.update_layout(height=160 + 24 * len(frame), width=1000)


def points(
    series: Mapping[str, Rows], *, joined: Sequence[str] = (), band: float | None = None, title: str = "",
    x_title: str = "", y_title: str = "", note: str = "",
) -> go.Figure:  # fmt: skip
    """Points with error bars.

    Args:
        series: name -> rows of `x`, `y`, and perhaps `low`, `high` (else None) and `text`.
        joined: series whose points a line joins, in their order.
        band: values of y within +-band are noise; shaded.
    """
    figure = go.Figure()
    rows = [row for of in series.values() for row in pd.DataFrame(of).to_dict("records")]
    if band is not None and rows:
        edge = [min(row["x"] for row in rows), max(row["x"] for row in rows)]
        figure.add_scatter(
            x=[*edge, *edge[::-1]], y=[-band, -band, band, band], fill="toself", mode="lines", hoverinfo="skip",
            line={"width": 0, "color": "#8C8C8C"}, fillcolor=_translucent("#8C8C8C"), name=f"noise, ±{band:.1f}",
        )  # fmt: skip
    for number, (name, of) in enumerate(series.items()):
        frame = pd.DataFrame(of, columns=["x", "y", "low", "high", "text"])
        errors = {"array": frame["high"] - frame["y"], "arrayminus": frame["y"] - frame["low"]}
        errors = {side: pd.to_numeric(length).fillna(0).tolist() for side, length in errors.items()}
        figure.add_scatter(
            x=frame["x"], y=frame["y"], mode="lines+markers" if name in joined else "markers", name=name,
            text=frame["text"].fillna(""), hovertemplate="%{text} %{y:+.1f}", marker={"size": 9},
            line={"color": COLOURS[number % len(COLOURS)]}, error_y={"type": "data", "symmetric": False, **errors},
        )  # fmt: skip
    return _finish(figure, title, note, x_title, y_title, False)


def label_panels(metrics_by_arm: Mapping[str, Rows], *, title: str = "") -> go.Figure:
    """What the guidance says and how often it is right: a panel for each arm.

    Rows by arm have "iteration" and, 0..1, what is drawn where it is there: "negative", "neutral" and "positive", the
    shares of turns labelled so, and (dashed) "agreement" of the labels with true progress.
    """
    panels = {}
    for arm, rows in metrics_by_arm.items():
        frame = pd.DataFrame(rows).rename(columns={"agreement": AGREEMENT})
        shown = [name for name in (*LABEL_COLOURS, AGREEMENT) if name in frame]
        columns = {name: frame[["iteration", name]].dropna() for name in shown}
        panels[arm] = {name: column.rename(columns={name: "value"}) for name, column in columns.items()}
    figure = small_multiples(panels, title=title, y_title="share of turns")
    for trace in figure.data:
        dash = "dash" if trace.name == AGREEMENT else "solid"
        trace.update(mode="lines", line={"color": LABEL_COLOURS.get(trace.name, "#E69F00"), "dash": dash})
    return figure.update_yaxes(range=[0, 1], tickformat=".1~%")


def small_multiples(
    panels: Mapping[str, Mapping[str, Rows]],
    x: str = "iteration",
    y: str = "value",
    *,
    title: str = "",
    x_title: str = "iteration",
    y_title: str = "",
    note: str = "",
    columns: int | None = None,
) -> go.Figure:
    """Several quantities of the same arms, one panel and one scale each, `columns` in a row (None: all).

    `panels`: title (quantity with its unit) -> arm -> rows, as in `learning_curves`; an arm keeps its colour in all
    panels, and is left out of those where it has no rows. `y_title` where all show one quantity.
    """
    if not panels:
        return _finish(go.Figure(), title, note, x_title, y_title, False)
    wide = min(columns or len(panels), len(panels))
    tall = -(-len(panels) // wide)
    titles = ["<br>".join(textwrap.wrap(name, max(72 // wide, 30))) for name in panels]  # not over one another
    figure = make_subplots(tall, wide, subplot_titles=titles, vertical_spacing=0.35 / tall if tall > 1 else None)
    arms = list(dict.fromkeys(arm for of in panels.values() for arm in of))
    for number, of in enumerate(panels.values()):
        row, column = number // wide + 1, number % wide + 1
        for arm in (arm for arm in arms if len(of.get(arm, ()))):
            new = not any(trace.name == arm and trace.showlegend for trace in figure.data)
            colour = COLOURS[arms.index(arm) % len(COLOURS)]
            _curve(figure, arm, of[arm], colour, x, y, size=3, legend=new, row=row, col=column)
        if number >= len(panels) - wide:
            figure.update_xaxes(title_text=x_title, row=row, col=column)
        if y_title and column == 1:
            figure.update_yaxes(title_text=y_title, row=row, col=column)
    text = title + (f"<br><sup>{note}</sup>" if note else "")
    height = 130 + 250 * tall if tall > 1 else 380
    figure.update_layout(title=text or None, height=height, template="plotly_white", meta={"columns": wide})
    return figure


def turn_panels(
    panels: Mapping[str, Sequence[Sequence[float]]], rows: Sequence[str], *, title: str = "", note: str = ""
) -> go.Figure:
    """Values of every turn of a few episodes: a panel for each quantity, a row an episode, a column a turn.

    `panels`: quantity -> one list of values per episode; each has its own scale, whose end is in its title. `rows` are
    names of the episodes, drawn from the top.
    """
    if not (panels and rows):
        return _finish(go.Figure(), title, note, "turn", "", False)
    if any(len(values) != len(rows) for values in panels.values()):
        raise ValueError(f"panels: got {({k: len(v) for k, v in panels.items()})}; each must have {len(rows)} episodes")
    limits = {name: max((abs(x) for row in values for x in row), default=0.0) for name, values in panels.items()}
    titles = [f"{name} (±{limit:.2g})" for name, limit in limits.items()]
    figure = make_subplots(1, len(panels), shared_yaxes=True, subplot_titles=titles)
    width = max((len(row) for values in panels.values() for row in values), default=0) or 1
    for column, (name, values) in enumerate(panels.items(), 1):
        z = [[*row, *[None] * (width - len(row))] for row in values]
        limit = limits[name] or 1.0
        figure.add_heatmap(
            z=z, x=list(range(1, width + 1)), y=list(rows), zmin=-limit, zmax=limit, showscale=False, xgap=1, ygap=1,
            colorscale=[[0, COLOURS[1]], [0.5, "#FFFFFF"], [1, COLOURS[0]]], name=name, row=1, col=column,
            hovertemplate="%{y}, turn %{x}: %{z:.3f}<extra>" + name + "</extra>",
        )  # fmt: skip
        figure.update_xaxes(title_text="turn", row=1, col=column)
    figure.update_yaxes(autorange="reversed")
    colours = "blue: above 0, orange: below, white: 0, grey: the episode is over"
    _finish(figure, title, f"{note}<br>{colours}" if note else colours, "turn", "", False)
    return figure.update_layout(height=180 + 28 * len(rows), plot_bgcolor="#D9D9D9")


class LivePlot:
    """A figure in a notebook that is redrawn while training runs, at most once in `every` seconds; the notebook keeps
    only the last one. Outside a notebook nothing is drawn."""

    def __init__(self, every: float = 5.0):
        self.every, self.last, self.pending, self.handle = every, -np.inf, None, None

    def update(self, draw: Callable[[], go.Figure]) -> None:
        """Redraw if it is time; `draw` is called only then."""
        self.pending = draw
        if time.monotonic() - self.last >= self.every:
            self.close()

    def close(self) -> None:
        """Draw the last update, if it was not drawn."""
        from IPython.display import display

        draw, self.pending = self.pending, None
        if draw is None or not in_kernel():
            return
        bundle = mimebundle(draw())
        if self.handle is None:
            self.handle = display(bundle, raw=True, display_id=True)
        else:
            self.handle.update(bundle, raw=True)
        self.last = time.monotonic()  # after drawing: a slow figure must not take all of the training's time


def _finish(figure: go.Figure, title: str, note: str, x_title: str, y_title: str, percent: bool) -> go.Figure:
    text = title + (f"<br><sup>{note}</sup>" if note else "")
    figure.update_layout(
        title=text or None, xaxis_title=x_title or None, yaxis_title=y_title, template="plotly_white", height=420,
        hovermode="x unified" if any(t.type == "scatter" for t in figure.data) else "closest",
    )  # fmt: skip
    if percent:
        figure.update_yaxes(tickformat=".1~%", rangemode="tozero")
    figure.layout.annotations = [note for note in figure.layout.annotations if note.text != NOTHING]
    if not any(map(_drawn, figure.data)):
        figure.add_annotation(text=NOTHING, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False)
    return figure


def _note(n: int | None, interval: str, detectable: float | None = None, pair: str | None = None) -> str:
    """The line below a title; `interval` is how intervals are drawn, "" where there are none."""
    if n and detectable is None:
        detectable, pair = detectable_difference(n), "two runs near 50 %, unpaired"
    known = detectable is not None and np.isfinite(detectable)
    parts = [
        f"n = {n} games" if n else "",
        f"{interval}: 95 % interval" if interval else "",
        f"detectable: {100 * detectable:.0f} points" + (f" ({pair})" if pair else "") if known else "",
    ]
    return "; ".join(part for part in parts if part)


def _translucent(colour: str) -> str:
    return "rgba({},{},{},0.18)".format(*(int(colour[i : i + 2], 16) for i in (1, 3, 5)))


def _drawn(trace) -> bool:
    """Whether a trace has a number."""
    if trace.type == "heatmap":
        return any(value is not None for row in trace.z for value in row)
    values = trace.x if trace.orientation == "h" else trace.y
    return values is not None and not pd.isna(list(values)).all()
