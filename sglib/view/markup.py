"""The pieces that the widgets' pages are made of: one style, texts as harmless HTML, controls that tell Python."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sglib.experiments.tables import escape

# JupyterLab's colours where they exist, so that dark pages stay dark; `inherit` keeps any other page's own
STYLE = """<style>
.sglib-view{font-family:var(--jp-content-font-family,sans-serif);color:var(--jp-content-font-color1,inherit);
 font-size:13px;line-height:1.45}
.sglib-view pre{white-space:pre-wrap;overflow-wrap:anywhere;word-break:normal;margin:0;padding:4px 8px;font-size:12px;
 background:var(--jp-cell-editor-background,rgba(128,128,128,.1));color:inherit;
 border-left:3px solid var(--jp-border-color1,#888);unicode-bidi:plaintext}
.sglib-view table{border-collapse:collapse;margin:4px 0}
.sglib-view td,.sglib-view th{padding:2px 10px 2px 0;text-align:left;vertical-align:top;
 border:0;background:none;color:inherit}
.sglib-view .list{overflow-x:auto} .sglib-view .list td{max-width:24em;overflow-wrap:break-word}
.sglib-view .num{text-align:right;font-variant-numeric:tabular-nums}
.sglib-view .good{color:var(--jp-success-color0,#2e9b4f)} .sglib-view .bad{color:var(--jp-error-color1,#d9534f)}
.sglib-view .dim{opacity:.75} .sglib-view summary,.sglib-view [data-do]{cursor:pointer}
.sglib-view .row,.sglib-view.row{display:flex;flex-wrap:wrap;gap:8px 14px;align-items:center;margin:4px 0}
.sglib-view .columns{display:flex;flex-wrap:wrap;gap:16px;align-items:flex-start}
.sglib-view .columns>div{flex:1 1 22em;min-width:0;max-width:60em}
.sglib-view button,.sglib-view input,.sglib-view select{font:inherit;color:inherit;padding:1px 6px;border-radius:3px;
 background:var(--jp-layout-color1,transparent);border:1px solid var(--jp-border-color1,#888)}
.sglib-view button[disabled]{opacity:.4;cursor:default} .sglib-view option{color:#000;background:#fff}
.sglib-view .on{background:rgba(0,114,178,.28)}
.sglib-view tr[data-do]:hover,.sglib-view .line:hover{background:var(--jp-layout-color2,rgba(128,128,128,.15))}
.sglib-view .sglib-scroll{max-height:34em;overflow:auto} .sglib-view .line{padding:1px 6px;border-left:3px solid transparent}
.sglib-view .line.on{border-color:var(--jp-brand-color1,#0072B2)} .sglib-view .anchor{border-bottom:2px dotted #E69F00}
.sglib-view .tokens span{white-space:pre-wrap;border-radius:2px;unicode-bidi:isolate}
.sglib-view .tokens .masked{opacity:.65}
.sglib-view .place{border:1px solid var(--jp-border-color1,#888);border-radius:4px;padding:2px 6px;margin:2px;
 display:inline-block;vertical-align:top;max-width:16em} .sglib-view .place.here{outline:2px solid #0072B2}
.sglib-view .place.unseen{border-style:dashed;opacity:.7}
.sglib-inspector{padding:4px} .sglib-inspector:focus{outline:1px solid var(--jp-brand-color1,#0072B2);outline-offset:3px}
</style>"""


def number(value: float | None, signed: bool = False) -> str:
    """Up to 4 significant digits; — for what was not measured."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "—"
    return f"{value:{'+' if signed else ''}.4g}"


def button(do: str, text: str, value: object = "", disabled: bool = False, title: str = "", on: bool = False) -> str:
    """A button that tells Python `do` and `value`."""
    attributes = f" title='{escape(title)}'" if title else ""
    attributes += " disabled" if disabled else ""
    return (
        f"<button type='button' data-do='{escape(do)}' data-value='{escape(str(value))}'"
        f"{' class=on' if on else ''}{attributes}>{escape(text)}</button>"
    )


def select(do: str, options: Sequence[tuple[str, str]], chosen: str, title: str, name: str = "") -> str:
    """A choice that tells Python `do` and the chosen value, or with `name` a field of a form."""
    items = "".join(
        f"<option value='{escape(value)}'{' selected' if value == chosen else ''}>{escape(text)}</option>"
        for value, text in options
    )
    bound = f"data-do='{do}'" if do else f"name='{name}'"
    return f"<select {bound} id='sglib-{escape(do or name)}' title='{escape(title)}'>{items}</select>"


def bar(*parts: str) -> str:
    """A row of controls."""
    return f"<div class='sglib-view row'>{''.join(parts)}</div>"


def view(inside: str) -> str:
    """A page: its style and what is on it."""
    return f"{STYLE}<div class='sglib-view'>{inside}</div>"
