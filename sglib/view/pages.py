"""The inspector's pages as HTML, from the data of `sglib.view.episodes`; everything from outside is escaped.

No page has a script or an event handler of its own: what can be clicked carries `data-do` and `data-value`, which
`inspector.js` hands to Python.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence

import numpy as np
import pandas as pd

from sglib.measure.counterfactual import WhatIf
from sglib.records import LABELS, Trajectory
from sglib.view import episodes, turns
from sglib.view.markup import STYLE, button, escape, number, select, view

PAGE = 40  # rows of the list

# -- the list ---------------------------------------------------------------------------------------------------------


def list_page(rows: pd.DataFrame, query: episodes.Query, found: np.ndarray, first: int) -> str:
    """The list of episodes: filters, heads that sort, `PAGE` rows from `first` on."""
    runs, tasks = sorted(set(rows["run"]) - {""}), sorted(set(rows["task"]))
    parts = [
        f"<input type='search' id='sglib-text' data-do='text' value='{escape(query.text)}' "
        "placeholder='search texts ( / )'>",
        select("outcome", [("", "won and lost"), ("won", "won"), ("lost", "lost")], query.outcome, "outcome"),
    ]
    if len(runs) > 1:
        parts.append(select("run", [("", "all runs"), *((run, run) for run in runs)], query.run, "run"))
    parts.append(select("task", [("", "all task types"), *((task, task) for task in tasks)], query.task, "task type"))
    for do, text, value in (("shortest", "turns from", query.shortest), ("longest", "to", query.longest)):
        shown = f"type='number' min='0' value='{'' if value is None else value}' style='width:4em'"
        parts.append(f"<label>{text} <input id='sglib-{do}' data-do='{do}' {shown}></label>")
    for do, text, ticked in (
        ("looping", "loops", query.looping),
        ("invalid", "invalid actions", query.invalid),
        ("disagreeing", "labels contradict the truth", query.disagreeing),
    ):
        shown = f"type='checkbox'{' checked' if ticked else ''}"
        parts.append(f"<label><input id='sglib-{do}' data-do='{do}' {shown}> {text}</label>")
    columns = [c for c in episodes.COLUMNS if c != "run" or len(runs) > 1]
    table = _table(rows.iloc[found[first : first + PAGE]], columns, query)
    last = min(first + PAGE, len(found))
    where = f"{first + 1} to {last} of {len(found):,}" if len(found) else "no episode fits"
    of = f" (of {len(rows):,} episodes)" if len(found) != len(rows) else " episodes"
    return view(
        f"<div class='row'>{''.join(parts)}</div><div class='list'>{table}</div>"
        f"<div class='row'>{button('page', '‹', -1, first == 0, 'page before')}<span>{where}{of}</span>"
        f"{button('page', '›', 1, last >= len(found), 'next page')}</div>"
    )


def _table(rows: pd.DataFrame, columns: Sequence[str], query: episodes.Query | None = None, links: bool = False) -> str:
    """Rows of `episodes.table`: with a query heads sort and rows open by a click, with links they lead to anchors."""
    heads, lines = [f"<th>{escape(episodes.COLUMNS[c])}</th>" for c in columns], []
    if query is not None:
        arrow = {query.sort: "▾" if query.descending else "▴"}
        heads = [
            f"<th tabindex='0' data-do='sort' data-value='{c}' title='sort'>{escape(episodes.COLUMNS[c])} "
            f"{arrow.get(c, '')}</th>"
            for c in columns
        ]
    for row in rows.to_dict("records"):
        cells = {name: escape(value) for name, value in row.items()} | {
            "won": turns.outcome(row["won"], row["score"]),
            "looping": "yes" if row["looping"] else "",
            "disagreement": "" if np.isnan(row["disagreement"]) else f"{100 * row['disagreement']:.0f} %",
            "internal": number(row["internal"], signed=True),
            "total": number(row["total"], signed=True),
        }
        for name in ("number", "goal") if links else ():
            cells[name] = f"<a href='#episode-{row['number']}'>{cells[name]}</a>"
        click = "" if query is None else f" tabindex='0' data-do='open' data-value='{row['number']}'"
        lines.append(f"<tr{click}>{''.join(f'<td>{cells[c]}</td>' for c in columns)}</tr>")
    return f"<table><thead><tr>{''.join(heads)}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


# -- an episode -------------------------------------------------------------------------------------------------------


def episode_page(
    trajectory: Trajectory, turn: int, *, place: int, count: int, call: str, extra: str = "",
    shared: Container[str] = frozenset(),
) -> str:  # fmt: skip
    """An episode with one turn open (from 0), the `place`-th (from 0) of `count` that are listed. `call` shows the same
    in Python; `extra` is HTML below the turn; `shared` are anchor states, which others of its group met too."""
    last = len(trajectory) - 1
    bar = [
        button("list", "list", title="back to the list (Escape)"),
        button("episode", "‹ episode", -1, place <= 0, "episode before (↑)"),
        button("episode", "episode ›", 1, place >= count - 1, "next episode (↓)"),
        button("turn", "‹", -1, turn <= 0, "turn before (←)"),
        f"<span>turn {turn + 1 if last >= 0 else 0} of {last + 1}</span>",
        button("turn", "›", 1, turn >= last, "next turn (→)"),
        button("view", "compare", "compare"),
        button("view", "tokens", "tokens"),
        f"<code class='dim'>{escape(call)}</code>" if call else "",
    ]
    lines = "".join(
        _line(trajectory, t, t == turn, turn_.observation in shared) for t, turn_ in enumerate(trajectory.turns)
    )
    end = "" if turn < last else f"<p class='dim'>at the end</p><pre>{escape(trajectory.final_observation)}</pre>"
    body = turns.turn_html(trajectory, turn) + end if last >= 0 else "<i>an episode without a turn</i>"
    return view(
        f"<div class='row'>{''.join(bar)}</div>{turns.episode_html(trajectory)}{turns.timeline_svg(trajectory, turn)}"
        f"{turns.placement_html(trajectory)}"
        f"<div class='columns'><div class='sglib-scroll'>{lines}</div><div>{body}{extra}</div>"
        f"<div>{turns.drawing_html(trajectory, turn)}</div></div>"
    )


def _line(trajectory: Trajectory, t: int, on: bool, shared: bool) -> str:
    turn = trajectory.turns[t]
    mark = f"<span class='{turns.tone(turn.label)}'>{escape((turn.label or '')[:3])}</span>" if turn.label else ""
    progress = f"<span class='dim'>{number(turn.progress)} %</span>" if turn.progress is not None else ""
    return (
        f"<div tabindex='0' class='line{' on' if on else ''}' data-do='goto' data-value='{t}'{' data-scroll' if on else ''}>"
        f"<span class='dim'>{t + 1}</span> <span class='{'' if turn.valid else 'bad'}{' anchor' if shared else ''}'>"
        f"{escape(turn.action) or '(no action)'}</span> {mark} {progress} "
        f"<span class='dim'>{number(turns.paid(turn), signed=True) if turns.paid(turn) else ''}</span></div>"
    )


# -- tokens and comparison --------------------------------------------------------------------------------------------


COLOURINGS = {"advantage": "advantage", "logprob": "log-probability", "ratio": "log-probability ratio"}


def tokens_page(
    trajectory: Trajectory, decode: Callable[[int], str] | None, by: str, logprobs: Sequence[float] | None = None
) -> str:
    """The exact sequence that the trainer saw, coloured by one of `COLOURINGS`; tokens not trained on are grey. `decode`
    None shows ids, where the recording's tokenizer is not at hand; `logprobs` as for `episodes.tokens`."""
    found = episodes.tokens(trajectory, decode or str, logprobs)
    shown = {value: text for value, text in COLOURINGS.items() if value != "ratio" or logprobs is not None}
    bar = button("view", "‹ episode", "episode")
    bar += "".join(button("colour", text, value, on=by == value) for value, text in shown.items())
    if not found:
        return view(f"<div class='row'>{bar}</div><p>This recording has no tokens (it came from an endpoint).</p>")
    values = [getattr(token, by) for token in found]
    values = [None if value is None or not np.isfinite(value) else value for value in values]
    scale = max((abs(value) for value in values if value is not None), default=0.0) or 1.0
    spans = []
    for token, value in zip(found, values, strict=True):
        text = escape(token.text) + " "
        if not token.trained:
            spans.append(f"<span class='masked'>{text}</span>")
            continue
        colour = ""
        if value:
            rgb = "128,128,128" if by == "logprob" else "0,114,178" if value > 0 else "213,94,0"
            colour = f" style='background:rgba({rgb},{0.12 + 0.7 * abs(value) / scale:.2f})'"
        title = f"turn {(token.turn or 0) + 1}, advantage {number(token.advantage, True)}, log-probability {number(token.logprob)}"
        if token.ratio is not None:
            title += f", {np.exp(token.ratio):.3g} times as likely under the policy at temperature 1"
        spans.append(f"<span{colour} title='{title}' data-do='goto' data-value='{token.turn or 0}'>{text}</span>")
    other = "" if decode else "Numbers, not texts: the recording's tokenizer is not this policy's; inspect(..., policy=) takes it. "
    trained = sum(token.trained for token in found)
    meaning = {
        "advantage": "Blue was encouraged, orange discouraged." if any(values) else "No token has an advantage.",
        "logprob": "Dark: what the policy thought unlikely when it wrote it.",
        "ratio": "Blue: likelier under the policy, at temperature 1, than when it was sampled; what was sampled at another"
        " temperature differs by that alone.",
    }[by]
    note = f"{other}{len(found)} tokens, {trained} of them trained on; grey: read only. Full colour is {number(scale)}. {meaning}"
    return view(
        f"<div class='row'>{bar}<span class='dim'>{note}</span></div><div class='tokens'>{''.join(spans)}</div>"
    )


def compare_page(
    a: Trajectory, b: Trajectory | None, choices: Sequence[tuple[int, str]], chosen: int | None, names: tuple[str, str]
) -> str:
    """Two episodes side by side, the turn marked where they part."""
    options = [("", "choose an episode"), *((str(i), text) for i, text in choices)]
    chosen = "" if chosen is None else str(chosen)
    bar = button("view", "‹ episode", "episode") + select("other", options, chosen, "compare with")
    if b is None:
        note = "" if choices else " There is no other episode of this task."
        return view(f"<div class='row'>{bar}{note}</div>{turns.episode_html(a)}")
    parted = episodes.divergence(a, b) if a.game_id == b.game_id else 0
    met = {turn.observation for turn in a.turns} & {turn.observation for turn in b.turns}
    rows = [
        f"<tr{' data-scroll' if t == parted else ''}><td class='dim'>{t + 1}</td>"
        f"{_side(a, t, parted, met)}{_side(b, t, parted, met)}</tr>"
        for t in range(max(len(a), len(b)))
    ]
    if a.game_id != b.game_id:
        where = "another task"
    elif parted is None:
        where = "they never part" if len(a) == len(b) else "one is the beginning of the other"
    else:
        where = f"they part at turn {parted + 1}"
    head = "".join(
        f"<th>{escape(name)}<br>{turns.outcome(e.won, e.score)}, {len(e)} turns, return {number(e.total_return)}</th>"
        for name, e in zip(names, (a, b))
    )
    same = f"{len(met)} observations were met by both (dotted)" if met else "no state was met by both"
    return view(
        f"<div class='row'>{bar}<b>{where}</b><span class='dim'>{same}</span></div>"
        f"<b>{escape(a.goal)}</b><div class='sglib-scroll'><table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _side(episode: Trajectory, t: int, parted: int | None, met: set[str]) -> str:
    if t >= len(episode):
        return "<td></td>"
    turn = episode.turns[t]
    label = f" <span class='{turns.tone(turn.label)}'>{escape(turn.label)}</span>" if turn.label else ""
    seen = turn.observation if len(turn.observation) < 160 else turn.observation[:157] + "…"
    return (
        f"<td class='{'on' if t == parted else ''}'><span class='dim{' anchor' if turn.observation in met else ''}'>{escape(seen)}</span><br>"
        f"<code class='{'' if turn.valid else 'bad'}'>{escape(turn.action)}</code>{label} "
        f"<span class='dim'>paid {number(turns.paid(turn), signed=True)}, advantage {number(turn.advantage, signed=True)}</span></td>"
    )


# -- what if, and pages that stand alone ---------------------------------------------------------------------------------


def what_if_html(
    trajectory: Trajectory, turn: int, result: WhatIf | None, refusal: str, actions: Sequence[str],
    advice: Mapping[str, str], form: Mapping[str, object] | None = None,
) -> str:  # fmt: skip
    """The form of a what-if below a turn, as filled in last, and its last result. `refusal` says why nothing can be
    played on from here ("" where it can), `actions` do something here, `advice` has the action of each planner and
    expert."""
    form = {"kind": "action", "text": "", "label": "", "k": 16, **(form or {})}
    if not len(trajectory):
        return ""
    if refusal:
        return f"<p class='dim'>no what-if: {escape(refusal)}</p>"
    kinds = [("action", "another action")]
    labels = ""
    if trajectory.format == "guide":
        kinds += [("guidance", "another guidance"), ("delete", "no guidance")]
        labels = select("", [("", "its label"), *((label, label) for label in LABELS)], str(form["label"]), "label", name="label")
    listed = "".join(f"<option value='{escape(action)}'></option>" for action in actions)
    chosen = select("", kinds, str(form["kind"]), "what is changed", name="kind")
    text, k = escape(form["text"]), escape(form["k"])
    advised = " · ".join(f"{escape(who)}: <code>{escape(action)}</code>" for who, action in advice.items())
    advised = advised or "no suggestion: this environment has no planner and no expert"
    advised += "" if actions else " · actions are free text: it lists none"
    shown = ""
    if result is not None:
        kind = "good" if result.low > 0 else "bad" if result.high < 0 else "dim"
        said = {"action": f"{form['text']!r}", "guidance": f"guidance {form['text']!r} {form['label']}", "delete": "no guidance"}
        shown = f"<p id='sglib-result'>turn {turn + 1}, as it was → {escape(said[str(form['kind'])])}: <b class='{kind}'>{escape(str(result))}</b> {button('examples', 'compare with one of them')}</p>"
    return (
        "<div data-form='whatif' style='margin-top:8px'><b>What if?</b> <div class='row'>"
        f"{chosen}"
        f"<input type='text' name='text' id='sglib-what' list='sglib-actions' value='{text}' placeholder='action or guidance' style='width:20em'>"
        f"<datalist id='sglib-actions'>{listed}</datalist>{labels}"
        f"<label>episodes <input type='number' name='k' id='sglib-k' value='{k}' min='1' max='256' style='width:4em'></label>"
        f"{button('whatif', 'play on', title='from this turn, that often with the change and without')}</div>"
        f"<p class='dim'>{advised}</p></div>{shown}"
    )


def summary_html(rows: pd.DataFrame, most: int = 12) -> str:
    """The first episodes of a list, for stored notebooks, where nothing runs."""
    table = _table(rows.iloc[:most], ["number", "won", "task", "goal", "turns", "invalid"])
    more = f"<p class='dim'>and {len(rows) - most:,} more</p>" if len(rows) > most else ""
    return view(f"<b>{len(rows):,} episodes, {int(rows['won'].sum()):,} won</b>{table}{more}")


def export_page(
    trajectories: Sequence[Trajectory], most: int, runs: Sequence[str] | None, numbers: Sequence[int] | None = None
) -> str:
    """A whole HTML document: the list, and below it every episode; only links and `details`, no script."""
    shown = trajectories[:most]
    rows = episodes.table(shown, runs[:most] if runs else None)
    if numbers is not None:
        rows["number"] = list(numbers[:most])
    bodies = [
        f"<section id='episode-{n}'><p><a href='#top'>list</a></p>{turns.story_html(t, None).removeprefix(STYLE)}"
        f"<div class='sglib-view'>{turns.drawing_html(t, len(t))}</div></section><hr>"
        for n, t in zip(rows["number"], shown, strict=True)
    ]
    missing = len(trajectories) - len(shown)
    left = f"<p>{missing:,} more episodes are left out.</p>" if missing else ""
    columns = ["number", "run", "won", "task", "goal", "turns", "invalid", "internal", "total"]
    table = _table(rows, [c for c in columns if c != "run" or any(runs or ())], links=True)
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>trajectories</title>"
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        "<meta name='viewport' content='width=device-width'><style>body{color-scheme:light dark;margin:1em;"
        "background:Canvas;color:CanvasText}a{color:LinkText}</style>"
        f"{STYLE}</head><body id='top'><div class='sglib-view'><h1>{len(trajectories):,} episodes</h1>{left}"
        f"{table}</div>{''.join(bodies)}</body></html>"
    )
