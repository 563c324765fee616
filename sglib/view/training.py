"""Watch a training from the notebook while it runs: numbers, curves, episodes, stop and continue."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import anywidget
import plotly.graph_objects as go
import traitlets

from sglib.measure import hacking as probes
from sglib.play.progress_bar import in_kernel, progress_bar
from sglib.records import Trajectory
from sglib.view import markup
from sglib.view.figures import LivePlot, small_multiples
from sglib.view.inspect import SCRIPT, Inspector

if TYPE_CHECKING:  # it imports TRL
    from sglib.experiments.experiment import Result

COLUMNS = 4  # panels in a row
CALIBRATED = ("retrospective", "igpo", "step_agent", "rater", "label", "online")  # the first that there is is drawn
QUANTITIES = {  # panel -> column of the training batches
    "environment reward / episode": "reward/outcome",
    "internal reward / episode": "probe/internal",
    "positive labels": "label_positive",
    "neutral labels": "label_neutral",
    "negative labels": "label_negative",
    "entropy (nats / token)": "entropy",
    "invalid actions": "invalid_actions",
    "turns / episode": "turns_mean",
}


def training_panels(results: Mapping[str, Result], n: int | None = None) -> go.Figure | None:
    """Curves of every arm's results so far: success on the panel of `n` games with its interval, both rewards, λ,
    labels, calibration, entropy, invalid actions, length. None before the first number; quantities that no arm has are
    left out."""
    of_panel = f"success on {n} games" if n else "success on the panel"
    readers = {title: (lambda batch, column=column: batch.get(column)) for title, column in QUANTITIES.items()}
    readers |= {"λ(u) of the internal reward": _weight, "AUROC: said to help / helped": _calibration}
    panels = {of_panel: {arm: [row | {"value": row["success"]} for row in r.curve] for arm, r in results.items()}}
    for title, read in readers.items():
        panels[title] = {arm: _series(r, read) for arm, r in results.items()}
    panels = {title: {arm: rows for arm, rows in of.items() if rows} for title, of in panels.items()}
    panels = {title: of for title, of in panels.items() if of}
    if not panels:
        return None
    episodes = {batch["episodes"] for r in results.values() for batch in r.batches}
    note = f"{', '.join(map(str, sorted(episodes)))} episodes a training batch; " if episodes else ""
    note += "band: 95 % interval over the panel's games"
    return small_multiples(panels, columns=COLUMNS, title="Training", note=note)


def _series(result: Result, read: Callable[[Mapping], float | None]) -> list[dict]:
    found = ((batch["iteration"], read(batch)) for batch in result.batches)
    return [{"iteration": iteration, "value": value} for iteration, value in found if value is not None]


def _weight(batch: Mapping) -> float | None:
    weights = [v for k, v in batch.items() if k.startswith("lambda/") and k != "lambda/outcome"]
    return max(weights) if weights else None


def _calibration(batch: Mapping) -> float | None:
    values = (batch.get(f"calibration/{signal}/auroc") for signal in CALIBRATED)
    return next((value for value in values if value is not None), None)


class TrainingView(anywidget.AnyWidget):
    """A training in the notebook: a line for each arm, the figure of `training_panels` below, episodes that open in the
    inspector, and buttons that stop it (after the present iteration) and let it go on.

        view = TrainingView(p.arms, p.iterations, n=p.eval_games)
        results = await view.follow(lambda: train_recipes(p, on_update=view.update, paused=view.paused))

    A kernel reads clicks while a cell awaits, and not while it computes, hence the `await`. `iterations` are each
    arm's, `n` the panel's games.
    """

    _esm = SCRIPT
    page = traitlets.Unicode().tag(sync=True)
    below = traitlets.Unicode().tag(sync=True)  # the open inspector, drawn when something in it changes

    def __init__(self, arms: Sequence[str], iterations: int, n: int | None = None):
        self.arms, self.iterations, self.n = list(arms), iterations, n
        self.results: dict[str, Result] = {}
        self.inspector: Inspector | None = None
        self.samples: dict[str, list[Trajectory]] = {}
        self._pause, self._interrupted, self._lock = threading.Event(), threading.Event(), threading.RLock()
        self._open, self._note = "", ""
        self._figure, self._bar, self._ended = LivePlot(), None, False
        self._due = 0.0  # when the figure is drawn next, time.monotonic()
        super().__init__()
        self.on_msg(lambda widget, content, buffers: self.act(content.get("do"), content.get("value")))
        self.draw()

    # -- for the training ---------------------------------------------------------------------------------------------

    async def follow(self, train: Callable[[], Any]) -> Any:
        """Show the view, call `train` in a thread, and return its result.

        Interrupted, the training ends at its next update, with what it has written so far, and then this does.
        """
        self._interrupted.clear()
        self._ended, self._bar, self._figure, self._due = False, None, LivePlot(), 0.0
        if in_kernel():
            from IPython.display import display

            display(self)
        running = asyncio.ensure_future(asyncio.to_thread(train))
        try:
            return await asyncio.shield(running)
        except (asyncio.CancelledError, KeyboardInterrupt):
            self._interrupted.set()
            self._note = "interrupted: what is trained so far is kept; run this cell again to go on from there"
            await asyncio.wait([running])  # two trainings in one folder would overwrite each other's files
            raise
        finally:
            self.close()

    def update(self, results: Mapping[str, Result]) -> None:
        """Take new numbers; an `on_update` of `sglib.experiments.pool.train_recipes`.

        Raises:
            InterruptedError: `follow` was interrupted; it ends the training.
        """
        if self._interrupted.is_set():
            raise InterruptedError("the cell was interrupted")
        with self._lock:
            self.results = dict(results)
            self._guard(self._follow)
            self.draw()

    def _guard(self, drawing: Callable[[], None]) -> None:
        """An error while drawing is noted on the page: it must not end the training."""
        try:
            drawing()
        except Exception as error:
            self._note = f"not drawn: {type(error).__name__}: {error}"

    def _follow(self) -> None:
        done = self._done()
        if self._bar is None:  # iterations of an earlier call do not count for its speed
            total = self.iterations * len(self.arms)
            self._bar = progress_bar(desc="iterations of all arms", total=total, initial=done)
        self._bar.update(done - self._bar.n)
        success = {arm: 100 * r.curve[-1]["success"] for arm, r in self.results.items() if r.curve}
        self._bar.set_postfix_str(", ".join(f"{arm} {value:.0f} %" for arm, value in success.items()))
        ended = done == self.iterations * len(self.arms)
        if any(r.curve or r.batches for r in self.results.values()) and (ended or time.monotonic() >= self._due):
            began = time.monotonic()
            self._figure.update(lambda: training_panels(self.results, self.n))
            self._due = time.monotonic() + 9 * (time.monotonic() - began)  # training needs the rest

    def on_iteration(self, arm: str) -> Callable[[dict, list[Trajectory]], None]:
        """An `on_iteration` of `sglib.training.grpo.train`, for a training in this process.

        With `paused` as its `stop` and a `run_dir`, the button ends the call after a checkpoint; called again, it goes
        on from there.
        """
        from sglib.experiments.experiment import Result

        result = self.results[arm] = Result(arm, None)

        def follow(metrics: dict, trajectories: list[Trajectory]) -> None:
            result.add(metrics)
            self.samples[arm] = trajectories
            self.update(self.results)

        return follow

    def paused(self) -> bool:
        """Whether the stop button was pressed."""
        return self._pause.is_set()

    def close(self) -> None:
        """Draw for the last time; the figure stays in the notebook."""
        with self._lock:
            self._ended = True
            self._guard(self._figure.close)
            if self._bar is not None:
                self._bar.close()
            self.draw()

    # -- for the person -----------------------------------------------------------------------------------------------

    def act(self, do: str | None, value=None) -> None:
        """One click or key, as in `Inspector.act`; what this view does not know goes to the open inspector."""
        with self._lock:
            self._note = ""
            before = self.inspector, self._open
            try:
                match do:
                    case "stop":
                        self._pause.set()
                    case "continue":
                        self._pause.clear()
                    case "episodes":
                        self._look(str(value))
                    case "leave":
                        self.inspector, self._open = None, ""
                    case _ if self.inspector is not None:
                        self.inspector.act(do, value)
            except Exception as error:
                self.inspector, self._open = before
                self._note = f"{type(error).__name__}: {error}"
            self.draw()

    def _look(self, arm: str) -> None:
        if not self._some(arm):
            self._note = f"{arm}: no episode yet; the first come with the first evaluation"
            return
        trajectories = self.samples.get(arm) or self.results[arm].trajectories
        self.inspector, self._open = Inspector(trajectories, [arm] * len(trajectories)), arm

    # -- what is shown ------------------------------------------------------------------------------------------------

    @property
    def status(self) -> str:
        """How far the training is, in a line; the progress bar below says how long it will take."""
        done = self._done()
        total = self.iterations * len(self.arms)
        text = f"{done} of {total} iterations"
        if self._ended:
            return f"{text}; ended"
        if done >= total:
            return f"{text}; writing what was learned"
        if self.paused():
            return f"{text}; stopped: each arm pauses after its present iteration"
        return f"{text}; running" if done else f"{text}; evaluating or starting"

    def draw(self) -> None:
        """Update the page. An error while drawing is shown there: it must not end the training."""
        with self._lock:
            try:
                self.page = markup.STYLE + self._page()
            except Exception as error:
                self.page = f"{markup.STYLE}<p class='sglib-view bad'>not drawn: {markup.escape(repr(error))}</p>"
            shut = markup.bar(f"<b>{markup.escape(self._open)}</b>", markup.button("leave", "close"))
            self.below = f"<hr>{shut}{self.inspector.page}" if self.inspector is not None else ""

    def _page(self) -> str:
        button = (
            markup.button("continue", "continue", disabled=self._ended)
            if self.paused()
            else markup.button("stop", "stop", disabled=self._ended, title="after the present iteration")
        )
        head = "".join(f"<th>{name}</th>" for name in ("arm", "iteration", "done (u)", "success on the panel", "λ(u)",
                       "internal / episode", "invalid", "alarms", ""))  # fmt: skip
        rows = "".join(self._line(arm) for arm in self.arms)
        note = f"<p class='bad'>{markup.escape(self._note)}</p>" if self._note else ""
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        status = f"<span role='status'>{self.status}</span>"
        return f"{markup.bar(button, status)}<div class='sglib-view'>{table}{note}</div>"

    def _line(self, arm: str) -> str:
        result = self.results.get(arm)
        last = result.batches[-1] if result and result.batches else {}
        success = "not evaluated yet"
        if result and result.curve:
            row = result.curve[-1]
            low, high = row.get("low"), row.get("high")
            interval = "" if low is None or high is None else f" [{100 * low:.0f}, {100 * high:.0f}]"
            success = f"{100 * row['success']:.0f} %{interval} at {row['iteration']}"
        rings = ", ".join(ring["alarm"] for ring in probes.alarms(result.batches)) if result else ""
        invalid = last.get("invalid_actions")
        cells = [
            markup.escape(arm), f"{_iteration(result)} of {self.iterations}",
            markup.number(last.get("u")), success, markup.number(_weight(last)),
            markup.number(last.get("probe/internal")),
            "—" if invalid is None else f"{100 * invalid:.0f} %", f"<span class='bad'>{markup.escape(rings)}</span>",
            markup.button("episodes", "episodes", arm, disabled=not self._some(arm)),
        ]  # fmt: skip
        return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"

    def _some(self, arm: str) -> bool:
        result = self.results.get(arm)
        folder = result.folder if result is not None else None
        return bool(self.samples.get(arm)) or (folder is not None and (folder / "trajectories.jsonl").exists())

    def _done(self) -> int:
        return sum(map(_iteration, self.results.values()))

    def _repr_mimebundle_(self, **kwargs):
        """The widget; in a stored notebook a line in its place: the figure below it is kept."""
        bundle = super()._repr_mimebundle_(**kwargs) or {}
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        still = f"Training of {', '.join(self.arms)}: the table, the episodes and the buttons are in JupyterLab."
        return {**data, "text/plain": still, "text/html": f"<i>{markup.escape(still)}</i>"}


def _iteration(result: Result | None) -> int:
    """Iterations done, those before an interruption included."""
    return result.batches[-1]["iteration"] + 1 if result is not None and result.batches else 0
