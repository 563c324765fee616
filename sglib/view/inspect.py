"""The trajectory inspector: a list that sorts and filters, each turn with its exact rewards, the tokens that the
trainer saw, two episodes side by side, and what-if: playing on from a turn with another action or guidance.

The widget is one page of HTML, made in Python (`sglib.view.pages`) from plain data (`sglib.view.episodes`); the browser
only reports clicks and keys. Texts of models and environments are escaped before they become part of a page.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import anywidget
import traitlets

from sglib import envs, interop
from sglib.envs.base import HasExpert, HasPlan
from sglib.measure import counterfactual
from sglib.models.policy import Policy, load_policy
from sglib.models.small import shipped
from sglib.play.episode import Fork
from sglib.play.scoring import token_logprobs
from sglib.records import Trajectory, read_trajectories, uncollected, without_tokens, write_atomic
from sglib.view import episodes, markup, pages, turns
from sglib.view.episodes import Query

SCRIPT = Path(__file__).parent / "inspector.js"
KEPT = 200  # episodes of an export by default
SHOWN = ("view", "query", "found", "first", "game", "step", "other", "colour", "result")  # what a click may change
VIEWS = ("list", "episode", "compare", "tokens")
NO_POLICY = "it needs a policy that plays on: inspect(..., policy='base')"


class Inspector(anywidget.AnyWidget):
    """The widget that `inspect` returns. `show`, `goto` and `act` do what clicks do; `draw` updates the page. Episodes
    of files are without their tokens until they are opened."""

    _esm = SCRIPT
    page = traitlets.Unicode().tag(sync=True)

    def __init__(
        self, trajectories: list[Trajectory], runs: list[str], view: str = "list", game: int = 0, step: int = 0,
        other: int | None = None, policy: Policy | None = None, source: str = "trajectories",
        origins: Sequence[Origin | None] | None = None, games: Mapping[str, object] | None = None,
    ):  # fmt: skip
        self.trajectories, self.runs, self.policy, self.source = trajectories, runs, policy, source
        self.games, self.form, self.given = games, {}, len(trajectories)
        self.origins = list(origins or [None] * len(trajectories))
        self._fetch(game)
        self.rows = episodes.table(trajectories, runs)
        self.query, self.first = Query(), 0  # the list: what it shows, from which place on
        self.view, self.game, self.step, self.other, self.colour = view, game, step, other, "advantage"
        self.result: counterfactual.WhatIf | None = None
        self.note = ""
        self.found = episodes.select(self.rows, self.query)  # numbers of the listed episodes, in order
        super().__init__()
        self.on_msg(lambda widget, content, buffers: self.act(content.get("do"), content.get("value")))
        self.draw()

    # -- what happens -------------------------------------------------------------------------------------------------

    def act(self, do: str | None, value=None) -> None:
        """One click or key: `do` and `value` as in the page's `data-do` and `data-value`. An error changes nothing and
        is shown on the page."""
        self.note = ""
        before = {name: getattr(self, name) for name in SHOWN}
        try:
            self._do(do, value)
            self.draw()
        except Exception as error:  # the page must stay usable
            for name, old in before.items():
                setattr(self, name, old)
            self.note = f"{error}" if isinstance(error, ValueError | IndexError) else f"{type(error).__name__}: {error}"
            self.draw()

    def _do(self, do: str | None, value) -> None:
        match do:
            case "sort":
                descending = self.query.sort == value and not self.query.descending
                self._filter(sort=str(value), descending=descending)
            case "shortest" | "longest":
                self._filter(**{do: int(value) if str(value).strip().isdigit() else None})
            case "looping" | "invalid" | "disagreeing":
                self._filter(**{do: bool(value)})
            case "run" | "task" | "outcome" | "text":
                self._filter(**{do: str(value or "")})
            case "page":
                last = max(0, (len(self.found) - 1) // pages.PAGE * pages.PAGE)
                self.first = min(max(self.first + int(value) * pages.PAGE, 0), last)
            case "open":
                self.show(int(value))
            case "list":
                self.view = "list"
            case "view":
                self.view = _one_of("view", value, VIEWS)
            case "colour":
                self.colour = _one_of("colour", value, pages.COLOURINGS)
            case "turn":
                self.goto(self.step + int(value))
            case "goto":
                self.view = "episode"
                self.goto(int(value))
            case "episode":
                place = self._place()
                place = 0 if place < 0 else place + int(value)  # one that is not listed any more: the first of the list
                if 0 <= place < len(self.found):
                    self.show(int(self.found[place]))
            case "other":
                number = int(value) if str(value).strip() else None
                if number is not None:
                    _check_number("other", number, len(self.trajectories))
                self.other = number
            case "key":
                self._key(value)
            case "whatif":
                self._what_if(value if isinstance(value, Mapping) else {})
            case "examples" if self.result is not None:
                self._show_examples()
            case "export":
                self.note = f"written: {self.export()}"

    def _filter(self, **changes) -> None:
        self.query = replace(self.query, **changes)
        self._list()

    def _list(self) -> None:
        self.found, self.first = episodes.select(self.rows, self.query, lambda: self._texts), 0

    def _key(self, key) -> None:
        by = {"ArrowRight": 1, "l": 1, "ArrowLeft": -1, "h": -1}.get(key, 0)
        sideways, by = bool(by), by or {"ArrowDown": 1, "j": 1, "ArrowUp": -1, "k": -1}.get(key, 0)
        if self.view == "list":
            if by and sideways:
                self._do("page", by)
            elif by == 1 and len(self.found):
                self.show(int(self.found[self.first]))
        elif key == "Escape":
            self.view = "list" if self.view == "episode" else "episode"
        elif by:
            self._do("turn" if sideways else "episode", by)
        elif key in ("Home", "End"):
            self.goto(0 if key == "Home" else len(self.trajectory) - 1)

    def _what_if(self, form: Mapping) -> None:
        """Play on from the open turn, `k` times with another action or guidance and `k` times without."""
        if self.policy is None:
            raise ValueError(NO_POLICY)
        kind, k = str(form.get("kind", "action")), int(form.get("k") or 16)
        text, label = str(form.get("text", "")), str(form.get("label") or "")
        if not 1 <= k <= 256:
            raise ValueError(f"k = {k}: allowed: 1 to 256")
        change = {
            "action": {"action": text.strip()},
            "guidance": {"guidance": text.strip() or None, "label": label or None},
            "delete": {"delete_guidance": True},
        }.get(kind)
        if change is None or change.get("action") == "":
            raise ValueError("what if: choose an action, a guidance, or to delete it")
        self.result = counterfactual.what_if(
            self.policy, self.trajectory, self.step, k=k,
            max_turns=max(envs.of(self.trajectory).turns, len(self.trajectory)), games=self.games, **change,
        )  # fmt: skip
        self.form = {"kind": kind, "text": text, "label": label, "k": k}

    def _show_examples(self) -> None:
        """Add the last what-if's episodes to the list and compare the first with the one that it was forked from."""
        examples = self.result.examples
        self.other, self.view = len(self.trajectories), "compare"
        self.trajectories += examples
        self.origins += [None] * len(examples)
        self.runs += [f"what if {self.game}:{self.step + 1}"] * len(examples)
        self.rows = episodes.table(self.trajectories, self.runs)
        self.__dict__.pop("_texts", None)
        self._list()

    # -- what is shown ------------------------------------------------------------------------------------------------

    @property
    def trajectory(self) -> Trajectory:
        """The open episode."""
        return self.trajectories[self.game]

    def _fetch(self, game: int) -> None:
        """Read an episode's tokens from its file, where they have not been read yet."""
        if (origin := self.origins[game]) is None:
            return
        path, number = origin
        try:
            with open(path, encoding="utf-8") as file:
                written = (line for line in file if line.strip())
                found = Trajectory.from_dict(json.loads(next(itertools.islice(written, number, None), "")))
            if without_tokens(found) != self.trajectories[game]:
                raise ValueError("another episode")
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}, line {number + 1}: changed since the list was made: {error}") from error
        self.trajectories[game], self.origins[game] = found, None

    def show(self, game: int, step: int = 0) -> None:
        """Open an episode at a turn, both counted from 0."""
        _check_number("game", game, len(self.trajectories))
        self._fetch(game)
        self.game, self.result = game, None
        self.view, self.other = "episode" if self.view == "list" else self.view, None
        self.goto(step)

    def goto(self, step: int) -> None:
        """Open a turn of the open episode; numbers beyond its ends are the first or last one."""
        step = min(max(step, 0), max(len(self.trajectory) - 1, 0))
        if step != self.step:
            self.result = None
        self.step = step

    @property
    def call(self) -> str:
        """The Python call that shows the same; "" for an episode of a what-if, which no file has."""
        if max(self.game, self.other or 0) >= self.given:
            return ""
        other = "" if self.other is None or self.view != "compare" else f", other={self.other}"
        view = "" if self.view == "episode" else f", view={self.view!r}"
        return f"sglib.inspect({self.source}, game={self.game}, step={self.step}{other}{view})"

    def draw(self) -> None:
        """Update the page."""
        drawn = {"list": self._list_page, "episode": self._episode_page, "compare": self._compare_page}
        page = drawn.get(self.view, self._tokens_page)()
        note = f"<p class='sglib-view bad' role='status'>{markup.escape(self.note)}</p>" if self.note else ""
        self.page = page + note

    def _list_page(self) -> str:
        return pages.list_page(self.rows, self.query, self.found, self.first) + markup.bar(
            markup.button("export", "export as HTML", title="a file that opens without a kernel"),
            "<span class='dim'>keys: ← → pages or turns, ↑ ↓ episodes, / search, Escape back</span>",
        )

    def _episode_page(self) -> str:
        members = [t for i, t in enumerate(self.trajectories) if self._grouped(i)]
        shared = set(episodes.anchors(members)) if len(members) > 1 else set()
        return pages.episode_page(
            self.trajectory, self.step, place=self._place(), count=len(self.found), call=self.call, shared=shared,
            extra=pages.what_if_html(self.trajectory, self.step, self.result, *self._offers(), self.form),
        )  # fmt: skip

    def _compare_page(self) -> str:
        same = [i for i, t in enumerate(self.trajectories) if t.game_id == self.trajectory.game_id and i != self.game]
        choices = [(i, f"{i}: {self._name(i)}") for i in same[:200]]
        other = None if self.other is None else self.trajectories[self.other]
        names = (self._name(self.game), "" if self.other is None else self._name(self.other))
        return pages.compare_page(self.trajectory, other, choices, self.other, names)

    def _tokens_page(self) -> str:
        mine = self._wrote(self.trajectory)
        logprobs = token_logprobs(self.policy, self.trajectory) if mine and self.policy is not None else None
        colour = "advantage" if self.colour == "ratio" and logprobs is None else self.colour
        return pages.tokens_page(self.trajectory, self._decode if mine else None, colour, logprobs)

    def _name(self, number: int) -> str:
        t = self.trajectories[number]
        run = f"{self.runs[number]}, " if self.runs[number] else ""
        return f"{run}{t.format}, {'won' if t.won else 'not won'}, {len(t)} turns, seed {t.seed}"

    def _grouped(self, number: int) -> bool:
        t, mine = self.trajectories[number], self.trajectory
        same = (t.game_id, t.group, t.seed, t.format) == (mine.game_id, mine.group, mine.seed, mine.format)
        return same and self.runs[number] == self.runs[self.game]

    def _place(self) -> int:
        places = (self.found == self.game).nonzero()[0]
        return int(places[0]) if len(places) else -1

    def _offers(self) -> tuple[str, Sequence[str], dict[str, str]]:
        """Of a what-if at the open turn: why it cannot be played ("" where it can), the actions that do something, and
        the next action of each planner and expert that the environment has."""
        if self.policy is None or not len(self.trajectory):
            return NO_POLICY, (), {}
        try:
            Fork(self.trajectory, self.step)  # whether the turn has tokens
            task = envs.task_of(self.trajectory, self.games)
            card = envs.get(task.env)
            env = card.make()
            observation = env.reset(task)
            for turn in self.trajectory.turns[: self.step]:
                observation = env.step(turn.action)
        except (ValueError, RuntimeError) as error:  # RuntimeError: recorded by another revision, it is over earlier
            return str(error), (), {}
        advice = {}
        if isinstance(env, HasPlan):
            plan = env.plan()
            advice["shortest plan"] = "none: the goal is out of reach" if plan is None else plan[0] if plan else ""
        if isinstance(env, HasExpert):
            advice |= {f"expert {kind}": env.expert(kind) for kind in card.experts}
        return "", observation.admissible, advice

    @cached_property
    def _texts(self) -> list[str]:
        return [episodes.search_text(t) for t in self.trajectories]

    @cached_property
    def _reader(self) -> Policy:
        own = f"{self.trajectory.env}/base"  # a guess; `_wrote` says whether the recording has this tokenizer
        return self.policy or load_policy(own if own in shipped() else "base")

    def _decode(self, id_: int) -> str:
        return self._reader.tokenizer.convert_ids_to_tokens(id_)

    def _wrote(self, trajectory: Trajectory) -> bool:
        """Whether the tokenizer at hand is the recording's: the first answer decodes to the recorded text."""
        ids = trajectory.prompt_ids + trajectory.completion_ids
        if not ids or not 0 <= min(ids) <= max(ids) < len(self._reader.tokenizer):
            return False
        turn = next((turn for turn in trajectory.turns if turn.span[0] < turn.span[1]), None)
        written = self._reader.decode(trajectory.completion_ids[slice(*turn.span)]).strip() if turn else ""
        return turn is None or turn.response.endswith(written)

    def export(self, path: str | os.PathLike = "inspector.html", most: int = KEPT) -> Path:
        """Write the listed episodes, see `export_html`."""
        return export_html(
            [self.trajectories[i] for i in self.found], path, most=most, runs=[self.runs[i] for i in self.found],
            numbers=self.found.tolist(),
        )  # fmt: skip

    def _repr_mimebundle_(self, **kwargs):
        """The widget, and HTML without a script for stored notebooks, where nothing runs."""
        bundle = super()._repr_mimebundle_(**kwargs) or {}
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        listed = "" if len(self.trajectories) == 1 else pages.summary_html(self.rows)
        return {**data, "text/html": listed + turns.story_html(self.trajectory)}


def export_html(
    trajectories: Sequence[Trajectory], path: str | os.PathLike, most: int = KEPT, runs: Sequence[str] | None = None,
    numbers: Sequence[int] | None = None,
) -> Path:  # fmt: skip
    """Write episodes, `most` at most, as one HTML file that opens into every turn without a kernel or a script: its
    absolute path. `runs` and `numbers` are the name of the run and the number of each (None counts from 0)."""
    if not trajectories or most < 1:
        raise ValueError(f"trajectories: got {len(trajectories)}, most={most}: both must be at least one")
    return write_atomic(path, pages.export_page(trajectories, most, runs, numbers)).resolve()


@uncollected()
def inspect(
    trajectories: str | os.PathLike | Trajectory | Iterable | Mapping[str, object],
    game: int | None = None,
    step: int = 0,
    *,
    other: int | None = None,
    view: str | None = None,
    policy: Policy | str | None = None,
    games: Mapping[str, object] | None = None,
) -> Inspector:
    """Look at episodes: the list of them, or one turn of one of them. The page shows the call that shows the same.

    Args:
        trajectories: a file in one of the formats that `sglib.interop.load` reads, ours or others', a folder of such
            files (of ours, where there are any), an episode, several, what `sglib.interop.convert` takes, or several
            runs by name, {"before": ..., "after": ...}, each of any of these.
        game, step: episode and turn that are opened, counted from 0; without `game` the list.
        other: the episode to compare with, for view="compare".
        view: "list", "episode", "compare" or "tokens".
        policy: plays on in a what-if, and the tokens' log-probability ratio compares with it, at temperature 1; a
            policy with the recording's tokenizer or its name.
        games: tasks by id, for a what-if of tasks that their environment cannot make again.
    """
    found, runs, origins = _gather(trajectories)
    if not found:
        where = f"{trajectories}: " if isinstance(trajectories, (str, os.PathLike)) else ""
        raise ValueError(f"{where}no episode to look at: the list or file is empty")
    view = _one_of("view", view or ("episode" if game is not None or len(found) == 1 else "list"), VIEWS)
    game = game or 0
    _check_number("game", game, len(found))
    if other is not None:
        _check_number("other", other, len(found))
    if not 0 <= step < max(len(found[game]), 1):
        raise IndexError(f"step = {step}: episode {game} has {len(found[game])} turns, counted from 0")
    if isinstance(policy, str):
        env = found[game].env or None
        try:
            envs.of(found[game])
        except ValueError:
            env = None  # not ours, or a file that nobody has loaded: the name in a recording must not make it run
        policy = load_policy(policy, env=env)
    source = repr(str(trajectories)) if isinstance(trajectories, (str, os.PathLike)) else "trajectories"
    return Inspector(found, runs, view, game, step, other, policy, source, origins, games)


def _one_of(name: str, value, allowed: Iterable[str]) -> str:
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: allowed: {', '.join(allowed)}")
    return value


def _check_number(name: str, number: int, count: int) -> None:
    if not 0 <= number < count:
        raise IndexError(f"{name} = {number}: there are {count} episodes, counted from 0")


Origin = tuple[Path, int]  # file, and which of its lines with something in them (from 0) has an episode's tokens


def _holds_trajectories(file: Path) -> bool:
    """Whether the first line looks like one: a training's folder has other lines, too (metrics.jsonl)."""
    with open(file, encoding="utf-8", errors="replace") as lines:
        return '"game_id"' in next((line for line in lines if line.strip()), "")[:200]


def _gather(given, run: str = "") -> tuple[list[Trajectory], list[str], list[Origin | None]]:
    """Episodes, the run and the origin of each."""
    if isinstance(given, Mapping) and not interop.recognise(given):
        parts = [_gather(of, str(name)) for name, of in given.items()]
        return tuple([item for part in parts for item in part[kind]] for kind in range(3))
    if isinstance(given, (str, os.PathLike)):
        path = Path(given)
        if path.is_dir():
            files = list(filter(_holds_trajectories, sorted(path.rglob("*.jsonl")))) or interop.inside(path)
            if not files:
                found = interop.load(path)  # a dataset, else an error that says what is understood
                return found, [run] * len(found), [None] * len(found)
            names = (str(file.relative_to(path)).removesuffix(".jsonl") for file in files)
            return _gather({f"{run}/{name}" if run else name: file for name, file in zip(names, files, strict=True)})
        if not _holds_trajectories(path):
            found = interop.load(path)
            return found, [run] * len(found), [None] * len(found)
        found = read_trajectories(path, tokens=False)
        return found, [run] * len(found), [(path, number) for number in range(len(found))]
    single = isinstance(given, Trajectory | Mapping) or hasattr(given, "model_dump")
    if not single and not isinstance(given, Iterable):
        raise TypeError(f"expected a path or trajectories, got {type(given).__name__}")
    found = [given] if single else list(given)
    if not any(isinstance(item, Trajectory) for item in found) and interop.recognise(found):
        found = interop.convert(found)
    for number, trajectory in enumerate(found):
        if not isinstance(trajectory, Trajectory):
            raise TypeError(f"item {number} is no Trajectory but {type(trajectory).__name__}")
    return found, [run] * len(found), [None] * len(found)
