"""The still image of a figure, and figure and image in one notebook output.

matplotlib draws the image from the figure's own traces: it needs no browser and is the same on every machine.
"""

from __future__ import annotations

import base64
import io
import os
import re
import textwrap
from typing import Any

import numpy as np
import plotly.graph_objects as go
from PIL import Image
from plotly.offline import get_plotlyjs

from sglib.experiments.runs import Run
from sglib.records import write_atomic

# Okabe and Ito's colours: distinguishable with any colour vision, on white and on black
NOTHING = "nothing to draw"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")


def static_png(figure: go.Figure) -> bytes:
    """A PNG of the figure's traces, by matplotlib: lines, markers, bands, bars, error bars, heat maps, panels, shapes.
    Kinds of trace that it cannot draw are named at its foot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    panels = sorted({_panel(t) for t in figure.data} or {("x", "y")}, key=lambda panel: int(panel[0][1:] or 1))
    # no pyplot: its global state would leak figures into whatever notebook this runs in
    wide = (figure.layout.meta or {}).get("columns", len(panels))
    tall = -(-len(panels) // wide)
    height = (figure.layout.height or 420) / 100 if tall == 1 else 1 + 2.4 * tall
    size = (figure.layout.width or max(700, 300 * wide)) / 100, height
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
            hollow = str(trace.marker.symbol or "").endswith("-open")
            marker = ("D" if hollow else "o") if "markers" in mode else None
            ax.errorbar(trace.x, trace.y, yerr=_errors(trace.error_y), xerr=_errors(trace.error_x), color=colour,
                        linestyle=style, marker=marker, markersize=4, capsize=3, label=label,
                        markerfacecolor="none" if hollow else colour)  # fmt: skip
        elif trace.type == "bar":
            group = stacks[_panel(trace)]
            lying, width = trace.orientation == "h", 0.8 / len(group)
            names = list(dict.fromkeys(str(name) for t in group for name in (t.y if lying else t.x)))
            offset = (group.index(trace) - (len(group) - 1) / 2) * width
            places = [names.index(str(name)) + offset for name in (trace.y if lying else trace.x)]
            look = {"color": colour, "capsize": 3, "label": label}
            if lying:
                ax.barh(places, trace.x, height=width, xerr=_errors(trace.error_x), **look)
                ax.set_yticks(range(len(names)), [_plain(name) for name in names])
                ax.set_ylim(max(len(names), 1) - 0.5, -0.5)
            else:
                ax.bar(places, trace.y, width=width, yerr=_errors(trace.error_y), **look)
                room = int(size[0] * 9 / wide / max(len(names), 1))  # letters in the width of a bar
                ax.set_xticks(range(len(names)), [textwrap.fill(_plain(name), max(room, 6)) for name in names])
        elif trace.type == "heatmap" and trace.colorscale and trace.y is not None:
            from matplotlib.colors import LinearSegmentedColormap

            colours = LinearSegmentedColormap.from_list("diverging", [colour for _, colour in trace.colorscale])
            values = np.array([[np.nan if v is None else v for v in row] for row in trace.z], dtype=float)
            edges = np.arange(values.shape[1] + 1) + 0.5, np.arange(values.shape[0] + 1) - 0.5
            ax.set_facecolor(figure.layout.plot_bgcolor or "white")
            ax.pcolormesh(*edges, np.ma.masked_invalid(values), cmap=colours, vmin=trace.zmin, vmax=trace.zmax,
                          edgecolors="#DDDDDD", linewidth=0.3)  # fmt: skip
            ax.set_yticks(range(len(trace.y)), [_plain(name) for name in trace.y] if number == 0 else [])
            ax.invert_yaxis()
        else:
            missing.add(trace.type)

    for note in figure.layout.annotations:
        if note.text == NOTHING:
            picture.text(0.5, 0.5, NOTHING, ha="center", color="grey")
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
        if y_axis.tickvals:
            ax.set_yticks(y_axis.tickvals, [_plain(text) for text in y_axis.ticktext])
        for direction, axis in ((ax.xaxis, x_axis), (ax.yaxis, y_axis)):
            if str(axis.tickformat or "").endswith("%"):
                direction.set_major_formatter(PercentFormatter(1.0, decimals=None))
        for shape in figure.layout.shapes:
            if shape.type == "line" and (shape.xref or "x").split()[0] == x:
                level = shape.y0 == shape.y1
                (ax.axhline if level else ax.axvline)(shape.y0 if level else shape.x0, color="grey", linewidth=1)
        ax.grid(alpha=0.3)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    handles = {label: h for ax in axes.values() for h, label in zip(*ax.get_legend_handles_labels())}
    if handles:
        # not "upper", where long lines of the title would run into it
        picture.legend(handles.values(), handles.keys(), loc="outside right center", frameon=False, fontsize=9)
    room = int(size[0] * 12)  # letters of 10 points that fit in a line
    lines = (line for line in _plain(figure.layout.title.text).split("\n"))
    picture.suptitle("\n".join(part for line in lines for part in textwrap.wrap(line, room) or [""]), fontsize=10)
    if missing:
        picture.supxlabel(f"not drawn here: {', '.join(sorted(missing))}", fontsize=8)
    file = io.BytesIO()
    picture.savefig(file, format="png", dpi=90, metadata={"Software": None})  # no version: same figure, same bytes
    return file.getvalue()


def mimebundle(figure: go.Figure, image: bytes | None = None) -> dict[str, Any]:
    """The figure as a notebook output: plotly's data for JupyterLab, a still image (from the PNG `image`, else drawn
    here) for everything else. It is a JPEG: given a PNG, plotly's extension would show that and not draw the figure."""
    still = io.BytesIO()
    Image.open(io.BytesIO(image or static_png(figure))).convert("RGB").save(still, "JPEG", quality=90, subsampling=0)
    return {
        "application/vnd.plotly.v1+json": _without_template(figure),
        "image/jpeg": base64.b64encode(still.getvalue()).decode(),
        "text/plain": f"figure: {_plain(figure.layout.title.text) or 'untitled'}",
    }


def show(figure: go.Figure, image: bytes | None = None) -> None:
    """Show a figure in a notebook, interactive and still (`image`: its PNG, if there is one)."""
    from IPython.display import display

    display(mimebundle(figure, image), raw=True)


def keep_figure(run: Run, name: str, figure: go.Figure) -> None:
    """Keep a figure in a run's folder as figures/<name>.html and .png, and show it."""
    show(figure, save_figure(run, name, figure))


def save_figure(run: Run, name: str, figure: go.Figure) -> bytes:
    """Keep a figure in a run's folder as figures/<name>.html and .png; returns the PNG."""
    script = run.folder.parent.parent / "plotly.min.js"  # 5 MB, once for all runs; works without a network
    if not script.exists():
        write_atomic(script, get_plotlyjs())
    page = figure.to_html(include_plotlyjs=os.path.relpath(script, run.folder / "figures"))
    write_atomic(run.path(f"figures/{name}.html"), page)
    image = static_png(figure)
    write_atomic(run.path(f"figures/{name}.png"), image)
    return image


def _without_template(figure: go.Figure) -> dict[str, Any]:
    """The figure's JSON without its template (plotly_white has 7 kB), and the few settings that replace it."""
    data = figure.to_plotly_json()
    layout = {k: v for k, v in data["layout"].items() if k != "template"}
    grid = {"gridcolor": "rgba(128,128,128,0.25)", "zerolinecolor": "rgba(128,128,128,0.4)", "automargin": True}
    for name in {"xaxis", "yaxis", *(k for k in layout if re.fullmatch(r"[xy]axis\d*", k))}:
        layout[name] = {**grid, **layout.get(name, {})}
    # transparent, grey text: readable on JupyterLab's light and dark page
    layout |= {"paper_bgcolor": "rgba(0,0,0,0)", "font": {"color": "#7f7f7f"}}
    layout.setdefault("plot_bgcolor", "rgba(0,0,0,0)")  # a heat map's says what is empty
    return go.Figure({"data": data["data"], "layout": {**layout, "template": None}}).to_plotly_json() | {
        "config": {"displaylogo": False}
    }


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
