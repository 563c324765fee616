"""One episode as HTML, by the rules of `sglib.view.pages`: turns with what they were paid, timeline, drawing."""

from __future__ import annotations

from collections.abc import Mapping

from sglib import envs
from sglib.envs.base import Board
from sglib.measure import truth
from sglib.records import LABELS, Trajectory, Turn
from sglib.rewards import COMPONENTS
from sglib.view import episodes
from sglib.view.markup import STYLE, escape, number

STATIC_TURNS = 60  # a stored notebook keeps one episode of at most this many turns


def episode_html(trajectory: Trajectory) -> str:
    """The episode's head as HTML: task, outcome, counts, return."""
    invalid = sum(not turn.valid for turn in trajectory.turns)
    facts = [
        outcome(trajectory.won, trajectory.score),
        f"{len(trajectory)} turns",
        f"{invalid} without effect",
        f"format {escape(trajectory.format)}",
        f"seed {escape(trajectory.seed)}",
        f"return {number(trajectory.total_return)}",
    ]
    return (
        f"<div class='sglib-view'><b>{escape(trajectory.goal)}</b><br>"
        f"<span class='dim'>{escape(trajectory.task_type)} · {escape(trajectory.game_id)}</span><br>"
        f"{' · '.join(facts)}</div>"
    )


def turn_html(trajectory: Trajectory, index: int) -> str:
    """One turn as HTML: observation, guidance with its label, action, rewards, advantage, true distance or progress."""
    turn = trajectory.turns[index]
    rows = [("observation", f"<pre>{escape(turn.observation)}</pre>")]
    if turn.guidance is not None or turn.label is not None:
        label = f"<b class='{tone(turn.label)}'>{escape(turn.label)}</b> " if turn.label else ""
        rows.append(("guidance", f"{label}<pre>{escape(turn.guidance or '')}</pre>"))
    if turn.progress is not None:
        rows.append(("own progress estimate", f"{number(turn.progress)} %"))
    rows.append(("action", f"<pre>{escape(turn.action)}</pre>{_validity(turn)}"))
    if turn.parse_error:
        raw = f"<details><summary>what it wrote</summary><pre>{escape(turn.response)}</pre></details>"
        rows.append(("not parsed", f"<span class='bad'>{escape(turn.parse_error)}</span>{raw}"))
    rows.append(("rewards", _rewards(turn)))
    rows.append(("advantage", number(turn.advantage, signed=True)))
    rows.append(_truth(trajectory, index))
    if odds := at_odds(trajectory, index):
        said = ", ".join(f"{escape(name)} {number(value, signed=True)}" for name, value in odds.items())
        rows.append(("at odds with the truth", f"<span class='bad'>{said}</span>"))
    cells = "".join(f"<tr><th scope='row' class='dim'>{name}</th><td>{value}</td></tr>" for name, value in rows)
    return f"<div class='sglib-view'><b>Turn {index + 1} of {len(trajectory)}</b><table>{cells}</table></div>"


def story_html(trajectory: Trajectory, limit: int | None = STATIC_TURNS) -> str:
    """The whole episode as HTML that needs no script: a line that opens for each of the first `limit` turns (None: all),
    and how many more there are."""
    shown = trajectory.turns[:limit]
    parts = [STYLE, episode_html(trajectory), "<div class='sglib-view'>", timeline_svg(trajectory), placement_html(trajectory)]
    for index, turn in enumerate(shown):
        line = (
            f"{index + 1}. <code>{escape(turn.action)}</code> {_validity(turn)} "
            f"<span class='{tone(turn.label)}'>{escape(turn.label or '')}</span> "
            f"<span class='dim'>rewards {number(paid(turn), signed=True)}</span>"
        )
        parts.append(f"<details><summary>{line}</summary>{turn_html(trajectory, index)}</details>")
    if len(shown) < len(trajectory):
        parts.append(f"<p>… and {len(trajectory) - len(shown)} more turns</p>")
    parts.append(f"<p class='dim'>at the end</p><pre>{escape(trajectory.final_observation)}</pre></div>")
    return "".join(parts)


def timeline_svg(trajectory: Trajectory, turn: int | None = None) -> str:
    """Over turns: true progress (line), stated progress (circles), hindsight (squares), labels of the guidance (triangles
    at the foot). The open turn is marked; a click opens another."""
    line = episodes.timeline(trajectory)
    points, width, height = len(line.true), 640, 96
    if points < 2:
        return ""
    step = (width - 60) / (points - 1)

    def at(i: int, value: float) -> tuple[float, float]:
        return 40 + i * step, 8 + (1 - value) * (height - 34)

    def mark(i: int, shape: str, colour: str, title: str) -> str:
        goto = f"data-do='goto' data-value='{min(i, points - 2)}'"
        return f"<{shape} {goto} fill='{colour}'><title>{title}</title></{shape.split()[0]}>"

    parts = []
    if turn is not None:
        box = f"x='{at(turn, 0)[0] - step / 2:.1f}' y='4' width='{step:.1f}' height='{height - 8}'"
        parts.append(f"<rect {box} fill='#0072B2' opacity='.18'/>")
    for value, text in ((0, "0"), (1, "100 %")):
        _, y = at(0, value)
        parts.append(f"<line x1='40' x2='{width - 20}' y1='{y:.1f}' y2='{y:.1f}' stroke='currentColor' opacity='.2'/>")
        parts.append(f"<text x='36' y='{y + 4:.1f}' text-anchor='end' font-size='10' fill='currentColor'>{text}</text>")
    for i in range(points - 1):  # below the marks, whose own titles would else not be reached
        box = f"rect x='{at(i, 0)[0] - step / 2:.1f}' y='0' width='{step:.1f}' height='{height}'"
        parts.append(mark(i, box, "transparent", f"turn {i + 1}"))
    path = " ".join("{:.1f},{:.1f}".format(*at(i, value)) for i, value in enumerate(line.true) if value is not None)
    if path:
        look = "fill='none' stroke='#009E73' stroke-width='2' pointer-events='none'"
        parts.append(f"<polyline points='{path}' {look}></polyline>")
    for i in range(points):
        if (value := line.stated[i]) is not None:
            x, y = at(i, value)
            parts.append(mark(i, f"circle cx='{x:.1f}' cy='{y:.1f}' r='3'", "#D55E00", f"stated {100 * value:.0f} %"))
        if (value := line.hindsight[i]) is not None:
            x, y = at(i, value)
            square = f"rect x='{x - 2.5:.1f}' y='{y - 2.5:.1f}' width='5' height='5'"
            parts.append(mark(i, square, "#CC79A7", f"hindsight {100 * value:.0f} %"))
        if (value := line.polarity[i]) is not None:
            x, y, up = at(i, 0)[0], height - 14, int(value)
            triangle = f"polygon points='{x - 4},{y + 3 * up} {x + 4},{y + 3 * up} {x},{y - 5 * up}'"
            shape = triangle if up else f"rect x='{x - 3:.1f}' y='{y - 2}' width='6' height='3'"
            parts.append(mark(i, shape, ("#8C8C8C", "#0072B2", "#D55E00")[up], LABELS[up + 1]))
    legend = "".join(
        f"<span style='color:{colour}'>{sign}</span> {name} &nbsp; "
        for sign, name, colour, values in (
            ("—", "true progress", "#009E73", line.true),
            ("●", "stated", "#D55E00", line.stated),
            ("■", "hindsight", "#CC79A7", line.hindsight),
            ("▲▼", "guidance's label", "#0072B2", line.polarity),
        )
        if any(value is not None for value in values)
    )
    return (
        f"<svg viewBox='0 0 {width} {height}' role='img' aria-label='progress over turns' "
        f"style='width:100%;max-width:52em'>{''.join(parts)}</svg><div>{legend}</div>"
    )


def at_odds(trajectory: Trajectory, turn: int) -> dict[str, float]:
    """Signal -> what it says of an action, where the truth says otherwise: well of one that did not bring the goal nearer,
    or ill of one that did. Empty where the truth was not recorded."""
    left = trajectory.remaining()
    if left is None:
        return {}
    helped = left[turn + 1] < left[turn]
    said = truth.signal_values(trajectory, turn)
    return {name: value for name, value in said.items() if value and (value > 0) != helped}


def placement_html(trajectory: Trajectory) -> str:
    """Each signal against the truth in this episode: what it says in all of the actions that brought the goal nearer
    and of the others, AUROC, and the turns at which the two are at odds, to open by a click."""
    if trajectory.remaining() is None or not (found := truth.signals([trajectory])):
        return ""
    odds = [at_odds(trajectory, t) for t in range(len(trajectory))]
    rows = []
    for name, signal in found.items():
        area = truth.auroc(signal.value, signal.progress)
        links = " ".join(
            f"<span class='bad' tabindex='0' data-do='goto' data-value='{t}'>{t + 1}</span>"
            for t, signs in enumerate(odds) if name in signs
        )  # fmt: skip
        nearer, other = (number(signal.value[of].sum(), signed=True) for of in (signal.helped, ~signal.helped))
        cells = f"<td class='num'>{nearer}</td><td class='num'>{other}</td><td class='num'>{number(area)}</td>"
        rows.append(f"<tr><td>{escape(name)}</td>{cells}<td>{links or '—'}</td></tr>")
    heads = ("signal", "of actions that helped", "of others", "AUROC", "at odds with the truth at turns")
    head = "".join(f"<th scope='col'>{text}</th>" for text in heads)
    return f"<details open><summary>rewards against the truth</summary><table><tr>{head}</tr>{''.join(rows)}</table></details>"


def drawing_html(trajectory: Trajectory, turn: int) -> str:
    """The state before `turn` (T for the end) as its environment draws it."""
    try:
        return board_html(envs.of(trajectory).board(trajectory, turn))
    except ValueError as error:  # an environment that is not installed here
        return f"<p class='dim'>no drawing: {escape(error)}</p>"


def board_html(board: Board | None) -> str:
    """A drawing: its caption (what follows a colon is bold), its text in a fixed-width font, its boxes."""
    if board is None:
        return "<p class='dim'>no drawing for this episode</p>"
    head, colon, rest = board.caption.partition(": ")
    caption = f"{escape(head + colon)}<b>{escape(rest)}</b>" if colon else escape(head)
    boxes = []
    for box in board.boxes:
        unseen = box.things is None
        state = box.state or ("not seen" if unseen else "")
        things = "" if unseen else "<br>".join(map(escape, box.things)) or "empty"
        style = f"place{' here' if box.here else ''}{' unseen' if unseen else ''}"
        boxes.append(
            f"<div class='{style}'><b>{escape(box.name)}</b> <span class='dim'>{escape(state)}</span><br>{things}</div>"
        )
    return (
        (f"<p>{caption}</p>" if caption else "")
        + (f"<pre class='board'>{escape(board.text)}</pre>" if board.text else "")
        + f"<div>{''.join(boxes)}</div>"
    )


# -- pieces -----------------------------------------------------------------------------------------------------------


def outcome(won: bool, score: float = 0.0) -> str:
    """Won or not, with the score (0..1) where it says more."""
    text = "<b class='good'>won</b>" if won else "<b class='bad'>not won</b>"
    return text if score in (0, 1) else f"{text} (score {number(score)})"


def tone(label: str | None) -> str:
    """The CSS class of a label."""
    return {"positive": "good", "negative": "bad"}.get(label or "", "dim")


def _validity(turn: Turn) -> str:
    return "" if turn.valid else " <span class='bad'>invalid: nothing happened</span>"


def paid(turn: Turn) -> float:
    """What entered the return at a turn: the weighted components where `combine` was applied, else the environment's
    reward and the components. Details of a component ("repro/retrospective") are no rewards."""
    weighted = [value for name, value in turn.rewards.items() if name.endswith("/weighted")]
    if weighted:
        return sum(weighted)
    return turn.reward + sum(value for name, value in turn.rewards.items() if "/" not in name)


def _rewards(turn: Turn) -> str:
    """Every component with what it came from, and what was paid in all."""
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td class='num'>{number(value, signed=True)}</td>"
        f"<td class='dim'>{_details(name, details)}</td></tr>"
        for name, value, details in episodes.turn_rewards(turn)
    )
    total = f"<tr><td class='dim'>paid</td><td class='num'>{number(paid(turn), signed=True)}</td><td></td></tr>"
    return f"<table>{rows}{total if turn.rewards else ''}</table>"


def _details(component: str, details: Mapping[str, float]) -> str:
    """What a component came from, and its own other reading of that."""
    texts, cls = [], COMPONENTS.get(component)
    for name, value in details.items():
        texts.append(f"{'paid' if name == 'weighted' else escape(name)} {number(value, signed=True)}")
        readings = cls.reading(name, value) if cls else {}
        texts[-1] += "".join(f" ({what} {number(other)})" for what, other in readings.items())
    return ", ".join(texts)


def _truth(trajectory: Trajectory, index: int) -> tuple[str, str]:
    """The true distance to the goal, else the true progress, before and after a turn: name and value of its row."""
    progress = trajectory.progress()
    if progress is None:
        return "distance to the goal", "—"
    known = trajectory.distances[0] is not None
    now, then = trajectory.remaining()[index : index + 2]
    kind, word = ("good", "nearer") if then < now else ("bad", "farther") if then > now else ("dim", "as far")
    if known:
        texts = ["out of reach" if d is None else escape(d) for d in trajectory.distances[index : index + 2]]
    else:
        texts = [f"{number(100 * x)} %" for x in progress[index : index + 2]]
    name = "distance to the goal" if known else "true progress"
    return name, f"{' → '.join(texts)} <span class='{kind}'>{word}</span>"
