"""Figures: plotly for people who can move them, the same series as a still image for pages that cannot.

`show` puts both into one notebook output: JupyterLab draws the interactive figure, a code host the still image. That
is drawn with matplotlib from the figure's own traces, so that it needs no browser and is the same on every machine.
"""

from __future__ import annotations

import base64
import io
import re
import textwrap
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from PIL import Image
from plotly.subplots import make_subplots

from sglib.stats import detectable_difference

# Okabe and Ito's colours: told apart with any colour vision, on white and on black
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")
LABEL_COLOURS = {"negative": "#D55E00", "neutral": "#8C8C8C", "positive": "#0072B2"}
Rows = Sequence[Mapping[str, Any]] | pd.DataFrame


def learning_curves(
    metrics_by_arm: Mapping[str, Rows],
    x: str = "iteration",
    y: str = "success",
    low: str | None = "low",
    high: str | None = "high",
    *,
    title: str = "",
    x_title: str = "iteration",
    y_title: str = "success rate on held-out games",
    percent: bool = True,
    n: int | None = None,
    level: float | None = 0.95,
    detectable: float | None = None,
) -> go.Figure:
    """One line for each arm, with its interval as a band.

    Args:
        metrics_by_arm: rows (dicts or a DataFrame) by arm's name; rows without `y` are left out.
        x, y, low, high: names of columns; `low` and `high` None, or absent from the rows, for no band.
        x_title, y_title: what the axes show, with the unit.
        percent: values are fractions 0..1, shown in percent.
        n, level: games behind each point and confidence of the band, named below the title.
        detectable: smallest true difference (0..1) between two of them that is found with 80 % probability, named
            there, too; None takes that of two runs near one half on the same `n` games.

    Raises:
        ValueError: an arm without a row that has `x` and `y`.
    """
    figure = go.Figure()
    banded = False
    for number, (arm, rows) in enumerate(metrics_by_arm.items()):
        colour = COLOURS[number % len(COLOURS)]
        frame = pd.DataFrame(rows)
        if not {x, y} <= set(frame.columns) or frame.dropna(subset=[x, y]).empty:
            raise ValueError(f"arm {arm!r} has no row with {x!r} and {y!r}; its columns: {list(frame.columns)}")
        frame = frame.dropna(subset=[x, y]).sort_values(x)
        if low in frame and high in frame:
            banded = True
            band = frame.dropna(subset=[low, high])
            figure.add_scatter(
                x=[*band[x], *band[x][::-1]], y=[*band[high], *band[low][::-1]], fill="toself", mode="none",
                fillcolor=_translucent(colour), legendgroup=arm, showlegend=False, hoverinfo="skip", name=arm,
            )  # fmt: skip
        figure.add_scatter(
            x=list(frame[x]), y=list(frame[y]), mode="lines+markers", name=arm, legendgroup=arm,
            line={"color": colour}, marker={"color": colour, "size": 6},
        )  # fmt: skip
    note = _note(n, level if banded else None, "band", detectable)
    return _finish(figure, title, note, x_title, y_title, percent)


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
    level: float | None = 0.95,
    group: str | None = None,
    onto: go.Figure | None = None,
    detectable: float | None = None,
) -> go.Figure:
    """One bar for each name, with its interval.

    Args:
        names, values, low, high: equally long; `low <= value <= high`.
        group, onto: add a group of bars of this name to an earlier figure, beside its bars.
        Others as in `learning_curves`.

    Raises:
        ValueError: lengths that differ.
    """
    if {len(names)} != {len(x) for x in (values, low, high) if x is not None}:
        raise ValueError("names, values, low and high must be equally long")
    figure = onto if onto is not None else go.Figure()
    number = sum(trace.type == "bar" for trace in figure.data)
    errors = None
    if low is not None and high is not None:
        up, down = np.subtract(high, values), np.subtract(values, low)
        errors = {"type": "data", "symmetric": False, "array": list(up), "arrayminus": list(down), "width": 4}
    figure.add_bar(
        x=list(names), y=list(values), error_y=errors, name=group or "", showlegend=group is not None,
        marker_color=COLOURS[number % len(COLOURS)],
    )  # fmt: skip
    note = _note(n, level if errors else None, "whiskers", detectable)
    return _finish(figure, title, note, x_title, y_title, percent)


def label_panels(
    metrics_by_arm: Mapping[str, Rows],
    x: str = "iteration",
    *,
    agreement: str = "agreement",
    title: str = "",
    x_title: str = "iteration",
) -> go.Figure:
    """What the guidance says and how true it is: a panel per arm.

    Lines: the share of turns labelled negative, neutral, positive, and the labels' agreement with the true progress
    (dashed), all 0..1.

    Args:
        metrics_by_arm: rows by arm with columns `x`, "negative", "neutral", "positive" and `agreement`; a column that
            is absent is not drawn.

    Raises:
        ValueError: no arm.
    """
    if not metrics_by_arm:
        raise ValueError("no arm to draw")
    figure = make_subplots(1, len(metrics_by_arm), shared_yaxes=True, subplot_titles=list(metrics_by_arm))
    for column, rows in enumerate(metrics_by_arm.values(), 1):
        frame = pd.DataFrame(rows)
        for name, colour in {**LABEL_COLOURS, agreement: "#E69F00"}.items():
            if name not in frame or frame[name].isna().all():
                continue
            part = frame.dropna(subset=[name])
            shown = name if name in LABEL_COLOURS else "agreement with the truth"
            figure.add_scatter(
                x=list(part[x]), y=list(part[name]), mode="lines", name=shown, legendgroup=name,
                showlegend=not any(trace.legendgroup == name for trace in figure.data),
                line={"color": colour, "dash": "solid" if name in LABEL_COLOURS else "dash"}, row=1, col=column,
            )  # fmt: skip
        figure.update_xaxes(title_text=x_title, row=1, col=column)
    figure.update_yaxes(title_text="share of turns", col=1)
    figure.update_yaxes(range=[0, 1], tickformat=".0%")
    figure.update_layout(title=title or None, height=380, template="plotly_white")
    return figure


def small_multiples(
    panels: Mapping[str, Mapping[str, Rows]],
    x: str = "iteration",
    y: str = "value",
    low: str | None = "low",
    high: str | None = "high",
    *,
    title: str = "",
    x_title: str = "iteration",
    y_title: str = "",
    note: str = "",
    columns: int | None = None,
) -> go.Figure:
    """The same arms in several quantities side by side, each with a scale of its own.

    Args:
        panels: quantity (with its unit) -> arm -> rows, as in `learning_curves`; an arm keeps its colour, and one
            without rows in a panel is not drawn there. A panel's quantity is its title.
        y_title: of the vertical axes, where all panels show one quantity and their titles say something else.
        note: below the title.
        columns: panels in a row; None puts all into one.

    Raises:
        ValueError: no panel.
    """
    if not panels:
        raise ValueError("panels: none to draw")
    wide = min(columns or len(panels), len(panels))
    tall = -(-len(panels) // wide)
    figure = make_subplots(tall, wide, subplot_titles=list(panels), vertical_spacing=0.35 / tall if tall > 1 else None)
    arms = list(dict.fromkeys(arm for of in panels.values() for arm in of))
    for number, of in enumerate(panels.values()):
        row, column = number // wide + 1, number % wide + 1
        for arm in (arm for arm in arms if len(of.get(arm, ()))):
            part = learning_curves({arm: of[arm]}, x, y, low, high, percent=False)
            colour = COLOURS[arms.index(arm) % len(COLOURS)]
            for trace in part.data:
                if trace.mode == "none":
                    trace.fillcolor = _translucent(colour)
                else:
                    trace.line.color = trace.marker.color = colour
                    trace.marker.size = 3
                    trace.showlegend = not any(t.name == arm and t.showlegend for t in figure.data)
                figure.add_trace(trace, row=row, col=column)
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
    """Values of every turn of a few episodes, side by side: a panel a quantity, a row an episode, a column a turn.

    Blue is positive, orange negative, white zero; each panel has a scale of its own, its largest magnitude written
    into its title. Turns behind an episode's end are empty.

    Args:
        panels: quantity -> one list of values per episode.
        rows: names of the episodes, drawn from the top.
        title, note: above the figure.

    Raises:
        ValueError: no panel, or another number of episodes than of names.
    """
    if not panels or any(len(values) != len(rows) for values in panels.values()):
        raise ValueError(f"panels: got {({k: len(v) for k, v in panels.items()})}; each must have {len(rows)} episodes")
    limits = {name: max((abs(x) for row in values for x in row), default=0.0) for name, values in panels.items()}
    titles = [f"{name} (±{limit:.2g})" for name, limit in limits.items()]
    figure = make_subplots(1, len(panels), shared_yaxes=True, subplot_titles=titles)
    width = max((len(row) for values in panels.values() for row in values), default=1)
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
    _finish(figure, title, note, "turn", "", False)
    return figure.update_layout(height=160 + 28 * len(rows))


def static_png(figure: go.Figure, dpi: int = 90) -> bytes:
    """Draw the figure's traces with matplotlib: lines, markers, bands, bars, error bars, heat maps, panels, shapes.

    Returns:
        A PNG. Kinds of trace that it cannot draw are named at its foot.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    panels = sorted({(trace.xaxis or "x", trace.yaxis or "y") for trace in figure.data} or {("x", "y")}, key=_order)
    # no pyplot: its global state would leak figures into whatever notebook this runs in
    wide = (figure.layout.meta or {}).get("columns", len(panels))
    tall = -(-len(panels) // wide)
    size = (figure.layout.width or max(700, 300 * wide)) / 100, 4.2 if tall == 1 else 1 + 2.4 * tall
    picture = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(picture)
    places = picture.subplots(tall, wide, squeeze=False).ravel()
    axes = dict(zip(panels, places))
    for unused in places[len(panels) :]:
        unused.set_visible(False)
    titles = [_plain(a.text) for a in figure.layout.annotations if a.xref == "paper"] if len(panels) > 1 else []
    missing = set()
    stacks = {panel: [t for t in figure.data if _panel(t) == panel and t.type == "bar"] for panel in panels}

    for number, trace in enumerate(figure.data):
        ax = axes[_panel(trace)]
        colour = (trace.line.color if trace.type == "scatter" else None) or trace.marker.color if trace.type in (
            "scatter", "bar") else None  # fmt: skip
        colour = colour if isinstance(colour, str) else COLOURS[number % len(COLOURS)]
        label = _plain(trace.name) if trace.name and trace.showlegend is not False else None
        if trace.type == "scatter" and trace.fill == "toself":
            ax.fill(trace.x, trace.y, facecolor=_rgba(trace.fillcolor) or colour, linewidth=0, label=label)
        elif trace.type == "scatter":
            mode = trace.mode or "lines"
            style = {"dash": "--", "dot": ":", "dashdot": "-."}.get(trace.line.dash, "-") if "lines" in mode else "none"
            marker = "o" if "markers" in mode else None
            errors = _errors(trace.error_y)
            ax.errorbar(trace.x, trace.y, yerr=errors, color=colour, linestyle=style, marker=marker, markersize=4,
                        capsize=3, label=label)  # fmt: skip
        elif trace.type == "bar":
            group = stacks[_panel(trace)]
            width = 0.8 / len(group)
            names = list(dict.fromkeys(str(x) for t in group for x in t.x))
            offset = (group.index(trace) - (len(group) - 1) / 2) * width
            places = [names.index(str(x)) + offset for x in trace.x]
            ax.bar(places, trace.y, width=width, color=colour, yerr=_errors(trace.error_y), capsize=3, label=label)
            ax.set_xticks(range(len(names)), [_plain(name) for name in names],
                          rotation=20 if len(names) > 5 else 0, ha="right" if len(names) > 5 else "center")  # fmt: skip
        elif trace.type == "heatmap" and trace.colorscale and trace.y is not None:
            from matplotlib.colors import LinearSegmentedColormap

            colours = LinearSegmentedColormap.from_list("diverging", [colour for _, colour in trace.colorscale])
            values = np.array([[np.nan if v is None else v for v in row] for row in trace.z], dtype=float)
            edges = np.arange(values.shape[1] + 1) + 0.5, np.arange(values.shape[0] + 1) - 0.5
            ax.pcolormesh(*edges, np.ma.masked_invalid(values), cmap=colours, vmin=trace.zmin, vmax=trace.zmax,
                          edgecolors="#DDDDDD", linewidth=0.3)  # fmt: skip
            ax.set_yticks(range(len(trace.y)), [_plain(name) for name in trace.y] if number == 0 else [])
            ax.invert_yaxis()
        else:
            missing.add(trace.type)

    for number, ((x, y), ax) in enumerate(axes.items()):
        x_axis, y_axis = figure.layout[_axis(x)], figure.layout[_axis(y)]
        ax.set_xlabel(_plain(x_axis.title.text))
        ax.set_ylabel(_plain(y_axis.title.text))
        if number < len(titles):
            ax.set_title(titles[number], fontsize=10)
        if y_axis.range:
            ax.set_ylim(*y_axis.range)
        elif y_axis.rangemode == "tozero":
            ax.set_ylim(bottom=min(0, ax.get_ylim()[0]) if ax.dataLim.y0 < 0 else 0)
        if str(y_axis.tickformat or "").endswith("%"):
            ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        for shape in figure.layout.shapes:
            if shape.type == "line" and (shape.xref or "x").split()[0] == x:
                level = shape.y0 == shape.y1
                (ax.axhline if level else ax.axvline)(shape.y0 if level else shape.x0, color="grey", linewidth=1)
        ax.grid(alpha=0.3)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    handles = {label: h for ax in axes.values() for h, label in zip(*ax.get_legend_handles_labels())}
    if handles:
        # not "upper", which would lie beside the title, on top of its longer lines
        picture.legend(handles.values(), handles.keys(), loc="outside right center", frameon=False, fontsize=9)
    room = int(size[0] * 12)  # letters of 10 points that fit in a line
    lines = (line for line in _plain(figure.layout.title.text).split("\n"))
    picture.suptitle("\n".join(part for line in lines for part in textwrap.wrap(line, room) or [""]), fontsize=10)
    if missing:
        picture.supxlabel(f"not drawn here: {', '.join(sorted(missing))}", fontsize=8)
    file = io.BytesIO()
    picture.savefig(file, format="png", dpi=dpi, metadata={"Software": None})  # no version: same figure, same bytes
    return file.getvalue()


def mimebundle(figure: go.Figure, image: bytes | None = None) -> dict[str, Any]:
    """The figure as a notebook output: plotly's data for JupyterLab, a still image for everything else.

    The image is a JPEG: given a PNG in the same output, plotly's extension shows that instead of drawing the figure.

    Args:
        image: a PNG drawn elsewhere; None draws it here.
    """
    image = static_png(figure) if image is None else image
    still = io.BytesIO()
    Image.open(io.BytesIO(image)).convert("RGB").save(still, "JPEG", quality=90, subsampling=0)
    return {
        "application/vnd.plotly.v1+json": _without_template(figure),
        "image/jpeg": base64.b64encode(still.getvalue()).decode(),
        "text/plain": f"figure: {_plain(figure.layout.title.text) or 'untitled'}",
    }


def show(figure: go.Figure, image: bytes | None = None) -> None:
    """Display the figure in a notebook, interactive and still; elsewhere, print its title."""
    from IPython.display import display

    display(mimebundle(figure, image), raw=True)


class LivePlot:
    """A figure in a notebook that is redrawn while training runs.

    At most one redraw every `every` seconds; only the last one is stored in the notebook. Outside a notebook nothing
    is shown.

        live = live_plot()
        for ...:
            live.update(lambda: learning_curves(metrics))
        live.close()
    """

    def __init__(self, every: float = 5.0):
        self.every, self.last, self.pending, self.handle = every, -np.inf, None, None

    def update(self, draw) -> None:
        """Redraw if it is time. `draw` takes nothing and returns a figure; it is called only when one is drawn."""
        self.pending = draw
        if time.monotonic() - self.last >= self.every:
            self._redraw()

    def close(self) -> None:
        """Draw what the last `update` held back."""
        if self.pending is not None:
            self._redraw()

    @staticmethod
    def possible() -> bool:
        """Whether there is a notebook to show anything in."""
        from IPython import get_ipython

        return hasattr(get_ipython(), "kernel")

    def _redraw(self) -> None:
        from IPython.display import display

        draw, self.pending = self.pending, None
        if not self.possible():
            return
        bundle = mimebundle(draw())
        if self.handle is None:
            self.handle = display(bundle, raw=True, display_id=True)
        else:
            self.handle.update(bundle, raw=True)
        self.last = time.monotonic()  # after drawing: a slow figure does not eat the training's time


def live_plot(every: float = 5.0) -> LivePlot:
    """A figure to be updated during training, at most once in `every` seconds."""
    return LivePlot(every)


def _finish(figure: go.Figure, title: str, note: str, x_title: str, y_title: str, percent: bool) -> go.Figure:
    text = title + (f"<br><sup>{note}</sup>" if note else "")
    figure.update_layout(
        title=text or None, xaxis_title=x_title or None, yaxis_title=y_title, template="plotly_white", height=420,
        hovermode="x unified" if any(t.type == "scatter" for t in figure.data) else "closest",
    )  # fmt: skip
    if percent:
        figure.update_yaxes(tickformat=".0%", rangemode="tozero")
    return figure


def _note(n: int | None, level: float | None, what: str, detectable: float | None = None) -> str:
    unpaired = ""
    if n and detectable is None:
        detectable, unpaired = detectable_difference(n), " (two runs near 50 %, unpaired)"
    known = detectable is not None and np.isfinite(detectable)
    parts = [
        f"n = {n} games" if n else "",
        f"{what}: {100 * level:g} % interval" if level else "",
        f"detectable: {100 * detectable:.0f} points{unpaired}" if known else "",
    ]
    return "; ".join(part for part in parts if part)


def _without_template(figure: go.Figure) -> dict[str, Any]:
    """The figure's JSON with its template by what differs from none: plotly_white alone is 7 kB in every output."""
    data = figure.to_plotly_json()
    layout = {k: v for k, v in data["layout"].items() if k != "template"}
    grid = {"gridcolor": "rgba(128,128,128,0.25)", "zerolinecolor": "rgba(128,128,128,0.4)", "automargin": True}
    for name in {"xaxis", "yaxis", *(k for k in layout if re.fullmatch(r"[xy]axis\d*", k))}:
        layout[name] = {**grid, **layout.get(name, {})}
    # transparent, grey text: readable on JupyterLab's light and dark page
    layout |= {"paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "font": {"color": "#7f7f7f"}}
    return go.Figure({"data": data["data"], "layout": {**layout, "template": None}}).to_plotly_json() | {
        "config": {"displaylogo": False}
    }


def _translucent(colour: str, alpha: float = 0.18) -> str:
    return "rgba({},{},{},{})".format(*(int(colour[i : i + 2], 16) for i in (1, 3, 5)), alpha)


def _rgba(colour: str | None) -> tuple[float, ...] | str | None:
    """plotly's "rgba(r,g,b,a)" as matplotlib's tuple; other notations are the same in both."""
    if colour and (match := re.fullmatch(r"rgba?\(([^)]*)\)", colour)):
        r, g, b, *a = (float(part) for part in match[1].split(","))
        return (r / 255, g / 255, b / 255, *a)
    return colour


def _errors(bar) -> list | None:
    if bar is None or bar.array is None:
        return None
    down = bar.arrayminus if bar.arrayminus is not None else bar.array
    return [np.maximum(down, 0), np.maximum(bar.array, 0)]


def _plain(text: str | None) -> str:
    """plotly's little HTML as text; matplotlib's $ is not mathematics here."""
    text = re.sub(r"<br\s*/?>", "\n", text or "")
    return re.sub(r"<[^>]+>", "", text).replace("$", r"\$")


def _panel(trace) -> tuple[str, str]:
    return (trace.xaxis or "x", trace.yaxis or "y")


def _axis(short: str) -> str:
    return f"{short[0]}axis{short[1:]}"


def _order(panel: tuple[str, str]) -> int:
    return int(panel[0][1:] or 1)
