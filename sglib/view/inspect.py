"""Look at episodes turn by turn: what was seen, thought, done, and exactly what each turn was rewarded with.

The widget's controls are ipywidgets; everything that it shows is an HTML string made by the pure functions below. Texts
of models and environments are escaped before they become part of a page.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from html import escape
from pathlib import Path

import ipywidgets

from sglib.records import Trajectory, Turn, read_trajectories

STATIC_TURNS = 60  # a stored notebook keeps one episode of at most this many turns

# JupyterLab's colours where they exist, so that dark pages stay dark; `inherit` keeps any other page's own
STYLE = """<style>
.sglib-view{font-family:var(--jp-content-font-family,sans-serif);color:var(--jp-content-font-color1,inherit);
 font-size:13px;line-height:1.45;max-width:62em}
.sglib-view pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:0;padding:4px 8px;font-size:12px;
 background:var(--jp-cell-editor-background,rgba(128,128,128,.1));color:inherit;
 border-left:3px solid var(--jp-border-color1,#888)}
.sglib-view table{border-collapse:collapse;margin:4px 0}
.sglib-view td,.sglib-view th{padding:2px 10px 2px 0;text-align:left;vertical-align:top;
 border:0;background:none;color:inherit}
.sglib-view .num{text-align:right;font-variant-numeric:tabular-nums}
.sglib-view .good{color:var(--jp-success-color0,#2e9b4f)} .sglib-view .bad{color:var(--jp-error-color1,#d9534f)}
.sglib-view .dim{opacity:.7} .sglib-view summary{cursor:pointer}
</style>"""


def _number(value: float | None, signed: bool = False) -> str:
    """Up to 4 significant digits; — for what was not measured."""
    if value is None:
        return "—"
    return f"{value:{'+' if signed else ''}.4g}"


def turn_html(trajectory: Trajectory, index: int) -> str:
    """One turn as HTML: observation, guidance with its label, action, rewards, advantage, oracle distance.

    Args:
        index: 0..len(trajectory) - 1, negative values from the end.

    Raises:
        IndexError: naming the number of turns.
    """
    if not -len(trajectory) <= index < len(trajectory):
        raise IndexError(f"turn {index} of an episode of {len(trajectory)} turns")
    index %= len(trajectory)
    turn = trajectory.turns[index]
    rows = [("observation", f"<pre>{escape(turn.observation)}</pre>")]
    if turn.guidance is not None or turn.label is not None:
        label = f"<b class='{_class(turn.label)}'>{escape(turn.label)}</b> " if turn.label else ""
        rows.append(("guidance", f"{label}<pre>{escape(turn.guidance or '')}</pre>"))
    if turn.progress is not None:
        rows.append(("own progress estimate", f"{_number(turn.progress)} %"))
    rows.append(("action", f"<pre>{escape(turn.action)}</pre>{_validity(turn)}"))
    if turn.parse_error:
        raw = f"<details><summary>what it wrote</summary><pre>{escape(turn.response)}</pre></details>"
        rows.append(("not parsed", f"<span class='bad'>{escape(turn.parse_error)}</span>{raw}"))
    rows.append(("rewards", _rewards(turn)))
    rows.append(("advantage", _number(turn.advantage, signed=True)))
    rows.append(("oracle distance", _distance(trajectory, index)))
    cells = "".join(f"<tr><th scope='row' class='dim'>{name}</th><td>{value}</td></tr>" for name, value in rows)
    return f"<div class='sglib-view'><b>Turn {index + 1} of {len(trajectory)}</b><table>{cells}</table></div>"


def episode_html(trajectory: Trajectory) -> str:
    """The episode's head as HTML: task, outcome, counts, return."""
    invalid = sum(not turn.valid for turn in trajectory.turns)
    outcome = "<b class='good'>won</b>" if trajectory.won else "<b class='bad'>not won</b>"
    facts = [
        outcome,
        f"{len(trajectory)} turns",
        f"{invalid} without effect",
        f"format {escape(trajectory.format)}",
        f"seed {trajectory.seed}",
        f"return {_number(trajectory.total_return)}",
    ]
    return (
        f"<div class='sglib-view'><b>{escape(trajectory.goal)}</b><br>"
        f"<span class='dim'>{escape(trajectory.task_type)} · {escape(trajectory.game_id)}</span><br>"
        f"{' · '.join(facts)}</div>"
    )


def story_html(trajectory: Trajectory, limit: int | None = STATIC_TURNS) -> str:
    """The whole episode as HTML that needs no script: a line per turn, which opens to everything about it.

    Args:
        limit: turns shown, None for all; how many are left out is said.
    """
    shown = trajectory.turns[:limit]
    parts = [STYLE, episode_html(trajectory), "<div class='sglib-view'>"]
    for index, turn in enumerate(shown):
        reward = paid(turn)
        line = (
            f"{index + 1}. <code>{escape(turn.action)}</code> {_validity(turn)} "
            f"<span class='{_class(turn.label)}'>{escape(turn.label or '')}</span> "
            f"<span class='dim'>rewards {_number(reward, signed=True)}</span>"
        )
        parts.append(f"<details><summary>{line}</summary>{turn_html(trajectory, index)}</details>")
    if len(shown) < len(trajectory):
        parts.append(f"<p>… and {len(trajectory) - len(shown)} more turns</p>")
    parts.append(f"<p class='dim'>at the end</p><pre>{escape(trajectory.final_observation)}</pre></div>")
    return "".join(parts)


def _class(label: str | None) -> str:
    return {"positive": "good", "negative": "bad"}.get(label or "", "dim")


def _validity(turn: Turn) -> str:
    return "" if turn.valid else " <span class='bad'>not admissible: nothing happened</span>"


def paid(turn: Turn) -> float:
    """What entered the return at a turn: the weighted components where `combine` was applied, else the environment's
    reward and the components. Details beside a component ("repro/retrospective") are no rewards."""
    weighted = [value for name, value in turn.rewards.items() if name.endswith("/weighted")]
    if weighted:
        return sum(weighted)
    return turn.reward + sum(value for name, value in turn.rewards.items() if "/" not in name)


def _rewards(turn: Turn) -> str:
    """Every component with what it came from, and what was paid in all."""
    components = {"environment": turn.reward, **turn.rewards}
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td class='num'>{_number(value, signed=True)}</td></tr>"
        for name, value in components.items()
    )
    total = f"<tr><td class='dim'>paid</td><td class='num'>{_number(paid(turn), signed=True)}</td></tr>"
    return f"<table>{rows}{total if len(components) > 1 else ''}</table>"


def _distance(trajectory: Trajectory, index: int) -> str:
    before, after = trajectory.distances[index : index + 2]
    if before is None:
        return "—"
    if after is None:
        return f"{before}"
    kind, word = ("good", "nearer") if after < before else ("bad", "farther") if after > before else ("dim", "as far")
    return f"{before} → {after} <span class='{kind}'>{word}</span>"


class Inspector(ipywidgets.VBox):
    """The widget that `inspect` returns. `game` and `step` say what it shows and can be set."""

    def __init__(self, trajectories: list[Trajectory], game: int = 0, step: int = 0):
        self.trajectories = trajectories
        names = [
            (f"{i}: {'won' if t.won else 'not won'}, {len(t)} turns: {t.goal}"[:110], i)
            for i, t in enumerate(trajectories)
        ]
        wide = ipywidgets.Layout(width="60em", max_width="100%")
        self._games = ipywidgets.Dropdown(options=names, value=game, description="episode", layout=wide)
        self._steps = ipywidgets.IntSlider(description="turn", continuous_update=True, min=1, max=1)
        self._back = ipywidgets.Button(icon="arrow-left", tooltip="turn before", layout={"width": "3em"})
        self._on = ipywidgets.Button(icon="arrow-right", tooltip="next turn", layout={"width": "3em"})
        self._head, self._body = ipywidgets.HTML(), ipywidgets.HTML()
        super().__init__(
            [self._games, ipywidgets.HBox([self._back, self._steps, self._on]), self._head, self._body],
        )
        self._games.observe(lambda change: self._select(), "value")
        self._steps.observe(lambda change: self._draw(), "value")
        self._back.on_click(lambda button: self._move(-1))
        self._on.on_click(lambda button: self._move(+1))
        self._select()
        self.step = step

    @property
    def game(self) -> int:
        """Number of the episode shown, from 0."""
        return self._games.value

    @game.setter
    def game(self, value: int) -> None:
        self._games.value = value

    @property
    def step(self) -> int:
        """Number of the turn shown, from 0."""
        return self._steps.value - 1

    @step.setter
    def step(self, value: int) -> None:
        self._steps.value = value + 1

    @property
    def trajectory(self) -> Trajectory:
        return self.trajectories[self.game]

    def _select(self) -> None:
        turns = len(self.trajectory)
        self._steps.disabled = turns == 0
        self._steps.value = 1
        self._steps.max = max(turns, 1)
        self._head.value = STYLE + episode_html(self.trajectory)
        self._draw()

    def _move(self, by: int) -> None:
        self._steps.value = min(max(self._steps.value + by, 1), self._steps.max)

    def _draw(self) -> None:
        turns = len(self.trajectory)
        self._body.value = turn_html(self.trajectory, self.step) if turns else "<i>an episode without a turn</i>"
        self._back.disabled, self._on.disabled = self.step <= 0, self.step >= turns - 1

    def _repr_mimebundle_(self, **kwargs):
        """The widget, and beside it HTML without a script: what a stored notebook shows where nothing runs."""
        bundle = super()._repr_mimebundle_(**kwargs)
        return {**(bundle or {}), "text/html": story_html(self.trajectory)}


def inspect(
    trajectories: str | os.PathLike | Trajectory | Iterable[Trajectory], game: int = 0, step: int = 0
) -> Inspector:
    """Look at episodes turn by turn.

    Args:
        trajectories: a file that `write_trajectories` wrote, an episode, or several.
        game, step: what is shown first, counted from 0: copy the call to show somebody else the same turn.

    Raises:
        TypeError: something that is no trajectory.
        ValueError: no episode at all.
        IndexError: a game or step that does not exist.
        FileNotFoundError: no such file.
    """
    if isinstance(trajectories, (str, os.PathLike)):
        trajectories = read_trajectories(Path(trajectories))
    elif isinstance(trajectories, Trajectory):
        trajectories = [trajectories]
    elif not isinstance(trajectories, Iterable):
        raise TypeError(f"expected a path or trajectories, got {type(trajectories).__name__}")
    trajectories = list(trajectories)
    for number, trajectory in enumerate(trajectories):
        if not isinstance(trajectory, Trajectory):
            raise TypeError(f"item {number} is no Trajectory but {type(trajectory).__name__}")
    if not trajectories:
        raise ValueError("no episode to look at: the list or file is empty")
    if not 0 <= game < len(trajectories):
        raise IndexError(f"game = {game}: there are {len(trajectories)} episodes, counted from 0")
    if not 0 <= step < max(len(trajectories[game]), 1):
        raise IndexError(f"step = {step}: episode {game} has {len(trajectories[game])} turns, counted from 0")
    return Inspector(trajectories, game, step)
