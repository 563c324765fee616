"""Watch a training from the notebook while it runs: numbers, curves, episodes, stop and continue."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import anywidget
import plotly.graph_objects as go
import traitlets

from sglib import probes, runs
from sglib.records import Trajectory
from sglib.view import pages
from sglib.view.figures import LivePlot, small_multiples
from sglib.view.inspect import SCRIPT, Inspector

if TYPE_CHECKING:  # it imports TRL
    from sglib.training.arms import ArmResult

Result = TypeVar("Result")
CALIBRATED = ("retrospective", "igpo", "step_agent", "rater", "label", "online")  # the first that there is is drawn
QUANTITIES = {  # panel -> column of the training batches
    "environment reward / episode": "reward/outcome",
    "internal reward / episode": "probe/internal",
    "positive labels": "label_positive",
    "entropy (nats / token)": "entropy",
    "inadmissible actions": "invalid_actions",
    "turns / episode": "turns_mean",
}


def training_panels(results: Mapping[str, ArmResult], n: int | None = None) -> go.Figure | None:
    """What is going on in every arm: success on the panel with its interval, both rewards, λ, labels, calibration,
    entropy, inadmissible actions, length. None before the first number; quantities that no arm has are left out.

    Args:
        results: arm -> what it has written so far.
        n: games of the panel.
    """
    of_panel = f"success on {n} games" if n else "success on the panel"
    panels = {of_panel: {arm: [_point(row, "success", "low", "high") for row in r.curve] for arm, r in results.items()}}
    for title, column in QUANTITIES.items():
        panels[title] = {arm: _rows(r, lambda batch, c=column: batch.get(c)) for arm, r in results.items()}
    panels["λ(u) of what is internal"] = {arm: _rows(r, _weight) for arm, r in results.items()}
    panels["AUROC of what is said: it helped"] = {arm: _rows(r, _calibration) for arm, r in results.items()}
    panels = {title: {arm: rows for arm, rows in of.items() if rows} for title, of in panels.items()}
    panels = {title: of for title, of in panels.items() if of}
    if not panels:
        return None
    episodes = {batch["episodes"] for r in results.values() for batch in r.batches}
    note = f"{', '.join(map(str, sorted(episodes)))} episodes a training batch; " if episodes else ""
    note += "band: 95 % interval over the panel's games"
    return small_multiples(panels, columns=3, title="Training", note=note)


def _point(row: Mapping, value: str, *others: str) -> dict:
    return {"iteration": row["iteration"], "value": row[value], **{key: row[key] for key in others}}


def _rows(result: ArmResult, read: Callable[[Mapping], float | None]) -> list[dict]:
    found = [(batch["iteration"], read(batch)) for batch in result.batches]
    return [{"iteration": iteration, "value": value} for iteration, value in found if value is not None]


def _weight(batch: Mapping) -> float | None:
    weights = [v for k, v in batch.items() if k.startswith("lambda/") and k != "lambda/outcome"]
    return max(weights) if weights else None


def _calibration(batch: Mapping) -> float | None:
    values = (batch.get(f"calibration/{signal}/auroc") for signal in CALIBRATED)
    return next((value for value in values if value is not None), None)


class TrainingView(anywidget.AnyWidget):
    """A training in the notebook: a line for each arm, the figure of `training_panels` below, episodes that open in the
    inspector, and buttons that stop it (behind the present iteration) and let it go on.

        view = TrainingView(p.arms, p.iterations, n=p.eval_games)
        results = await view.follow(lambda: train_arms(p, on_update=view.update, paused=view.paused))

    A kernel reads clicks while a cell awaits, and not while it computes, hence the `await`. Where nothing is clicked,
    as under papermill, the progress bar and the figure are all there is.

    Args:
        arms: their names.
        iterations: of each arm.
        n: games of the panel.
        every: seconds between two drawings of the figure, at least.
    """

    _esm = SCRIPT
    page = traitlets.Unicode().tag(sync=True)

    def __init__(self, arms: Sequence[str], iterations: int, n: int | None = None, every: float = 5.0):
        self.arms, self.iterations, self.n = list(arms), iterations, n
        self.results: dict[str, ArmResult] = {}
        self.inspector: Inspector | None = None
        self.samples: dict[str, list[Trajectory]] = {}
        self._pause, self._interrupted, self._lock = threading.Event(), threading.Event(), threading.RLock()
        self._open, self._note = "", ""
        self._began, self._figure, self._bar, self._ended = None, LivePlot(every), None, False
        super().__init__()
        self.on_msg(lambda widget, content, buffers: self.act(content.get("do"), content.get("value")))
        self.draw()

    # -- for the training ---------------------------------------------------------------------------------------------

    async def follow(self, train: Callable[[], Result]) -> Result:
        """Show the view, call `train` in a thread beside it, and return what that returns.

        Interrupted, the training ends at its next update, with what it has written so far.
        """
        if LivePlot.possible():
            from IPython.display import display

            display(self)
        try:
            return await asyncio.to_thread(train)
        except (asyncio.CancelledError, KeyboardInterrupt):
            self._interrupted.set()
            raise
        finally:
            self.close()

    def update(self, results: Mapping[str, ArmResult]) -> None:
        """New numbers: what `train_arms` hands to its `on_update`.

        Raises:
            InterruptedError: `follow` was interrupted; it ends the training.
        """
        if self._interrupted.is_set():
            raise InterruptedError("the cell was interrupted")
        with self._lock:
            self.results = dict(results)
            done = sum(len(r.batches) for r in self.results.values())
            if self._began is None:
                self._began = time.monotonic(), done  # what was trained before is not this call's speed
            if self._bar is None:
                self._bar = runs.progress(desc="iterations of all arms", total=self.iterations * len(self.arms))
            self._bar.update(done - self._bar.n)
            success = {arm: 100 * r.curve[-1]["success"] for arm, r in self.results.items() if r.curve}
            self._bar.set_postfix_str(", ".join(f"{arm} {value:.0f} %" for arm, value in success.items()))
            if any(r.curve or r.batches for r in self.results.values()):
                self._figure.update(lambda: training_panels(self.results, self.n))
            self.draw()

    def on_iteration(self, arm: str) -> Callable[[dict, list[Trajectory]], None]:
        """What `sglib.training.grpo.train` takes as `on_iteration`, for a training in this process; `paused` is its
        `stop`."""
        from sglib.training.arms import ArmResult

        result = self.results[arm] = ArmResult(arm, None)

        def follow(metrics: dict, trajectories: list[Trajectory]) -> None:
            result.batches.append(metrics)
            if "eval/success" in metrics:
                row = {k.removeprefix("eval/"): v for k, v in metrics.items() if k.startswith("eval/")}
                result.curve.append({"arm": arm, "iteration": metrics["iteration"] + 1, **row})
            self.samples[arm] = trajectories
            self.update(self.results)

        return follow

    def paused(self) -> bool:
        """Whether a person has asked to stop."""
        return self._pause.is_set()

    def close(self) -> None:
        """The last drawing; the figure stays in the notebook."""
        with self._lock:
            self._ended = True
            self._figure.close()
            if self._bar is not None:
                self._bar.close()
            self.draw()

    # -- for the person -----------------------------------------------------------------------------------------------

    def act(self, do: str | None, value=None) -> None:
        """One thing that a person did, as in `Inspector.act`; what is not of this view goes to the open inspector."""
        with self._lock:
            self._note = ""
            if do == "stop":
                self._pause.set()
            elif do == "continue":
                self._pause.clear()
                self._began = None  # the time in between is nobody's
            elif do == "episodes":
                self._look(str(value))
            elif do == "leave":
                self.inspector, self._open = None, ""
            elif self.inspector is not None:
                self.inspector.act(do, value)
            self.draw()

    def _look(self, arm: str) -> None:
        if not self._some(arm):
            self._note = f"{arm}: no episode yet; the first come with the first evaluation"
            return
        trajectories = self.samples[arm] if arm in self.samples else self.results[arm].trajectories
        self.inspector, self._open = Inspector(trajectories, [arm] * len(trajectories)), arm

    # -- what is shown ------------------------------------------------------------------------------------------------

    @property
    def status(self) -> str:
        """Where it is, in a line."""
        done = sum(len(r.batches) for r in self.results.values())
        total = self.iterations * len(self.arms)
        text = f"{done} of {total} iterations"
        if self._ended:
            return f"{text}; ended"
        if done >= total:
            return f"{text}; writing what was learned"
        if self.paused():
            return f"{text}; stopped, or about to stop behind the present iteration"
        if self._began is None or done == self._began[1]:
            return f"{text}; evaluating or starting"
        each = (time.monotonic() - self._began[0]) / (done - self._began[1])
        left = each * (total - done)
        shown = f"about {left / 60:.0f} min" if left > 90 else f"{left:.0f} s"
        return f"{text}; {each:.1f} s each, {shown} left"

    def draw(self) -> None:
        """Make the page anew."""
        with self._lock:
            button = (
                pages.button("continue", "continue", disabled=self._ended)
                if self.paused()
                else pages.button("stop", "stop", disabled=self._ended, title="behind the present iteration")
            )
            head = "".join(f"<th>{name}</th>" for name in ("arm", "iteration", "u", "success on the panel", "λ",
                           "internal / episode", "inadmissible", "alarms", ""))  # fmt: skip
            rows = "".join(self._line(arm) for arm in self.arms)
            note = f"<p class='bad'>{pages.escape(self._note)}</p>" if self._note else ""
            page = pages.bar(button, f"<span role='status'>{self.status}</span>")
            table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
            page += f"<div class='sglib-view'>{table}{note}</div>"
            if self.inspector is not None:
                shut = pages.button("leave", "close")
                page += f"<hr>{pages.bar(f'<b>{pages.escape(self._open)}</b>', shut)}{self.inspector.page}"
            self.page = pages.STYLE + page

    def _line(self, arm: str) -> str:
        result = self.results.get(arm)
        last = result.batches[-1] if result and result.batches else {}
        success = "not evaluated yet"
        if result and result.curve:
            row = result.curve[-1]
            success = f"{100 * row['success']:.0f} % [{100 * row['low']:.0f}, {100 * row['high']:.0f}]"
            success += f" at {row['iteration']}"
        rings = ", ".join(ring["alarm"] for ring in probes.alarms(result.batches)) if result else ""
        invalid = last.get("invalid_actions")
        cells = [
            pages.escape(arm), f"{len(result.batches) if result else 0} of {self.iterations}",
            pages.number(last.get("u")), success, pages.number(_weight(last)), pages.number(last.get("probe/internal")),
            "—" if invalid is None else f"{100 * invalid:.0f} %", f"<span class='bad'>{pages.escape(rings)}</span>",
            pages.button("episodes", "episodes", arm, disabled=not self._some(arm)),
        ]  # fmt: skip
        return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"

    def _some(self, arm: str) -> bool:
        result = self.results.get(arm)
        folder = result.folder if result is not None else None
        return arm in self.samples or (folder is not None and (folder / "trajectories.jsonl").exists())
