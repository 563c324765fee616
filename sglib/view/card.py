"""The assay's report card as one page: where a reward stands between success alone and the truth."""

from __future__ import annotations

from pathlib import Path

from sglib.experiments.assay import MEASURES, Card
from sglib.experiments.tables import escape
from sglib.measure.intervals import Comparison
from sglib.records import write_atomic
from sglib.view.markup import STYLE

WIDTH, LEFT, RIGHT = 640, 150, 20  # of the scale, pixels


def page(card: Card) -> str:
    """A whole HTML page without a script; texts from recipes are escaped."""
    title = f"{escape(card.recipe)} in {escape(card.regime)}"
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{title}</title>"
        f"<body style='max-width:52em;margin:2em auto;font-family:sans-serif'>{fragment(card)}</body></html>"
    )


def write(card: Card, folder: Path) -> Path:
    """The page as a file, `<folder>/<recipe>.html`."""
    return write_atomic(folder / f"{card.recipe}.html", page(card))


def fragment(card: Card) -> str:
    """The card without the page around it, for a notebook."""
    it, plain = card.sensitivity, card.sensitivity.plain or "success alone"
    instrument = (
        f"<p><b>Can this be told here?</b> {'Yes' if it.sensitive else 'No: nothing is said of the reward'}. "
        f"<span class='dim'>{escape(it.why)}.</span></p>"
    )
    words = "".join(f"<li>{escape(text)}</li>" for text in [*(f"gamed: {r}" for r in card.gamed), *card.names])
    rows = [
        (f"against success alone ({plain}), {MEASURES[card.measure]}", _points(card.gain)),
        ("the same at the end of training", _points(card.end)),
        ("share of the truth (0: success alone, 1: the truth)", _share(card.share)),
        ("placement: against its own pay permuted within each episode", _points(card.placement)),
        ("AUROC of what it pays for a step, for “the step helped” (0.5 is chance)",
         ", ".join(f"{name} {value:.2f}" for name, value in card.calibration.items()) or "nothing internal is paid"),
        ("what the truth would gain at this AUROC (dose-response curve)", _plain_points(card.expected)),
        ("correlation of the advantage with and without the reward (1: a treatment that does nothing)",
         _number(card.strength["correlation"], ".3f")),
        ("updates in which it changes any advantage", _number(card.strength["updates"], ".0%")),
        *_price(card),
    ]  # fmt: skip
    table = "".join(f"<tr><td>{escape(name)}</td><td class='num'>{escape(value)}</td></tr>" for name, value in rows)
    return (
        f"{STYLE}<div class='sglib-view'><h2>{escape(card.recipe)}: {escape(card.verdict)}</h2>"
        f"<p class='dim'>{escape(card.about)} · regime {escape(card.regime)}</p>{instrument}{scale(card)}"
        f"{f'<ul>{words}</ul>' if words else ''}<table>{table}</table></div>"
    )


def scale(card: Card) -> str:
    """Success alone, the dose-response curve's recipes, the truth and this recipe on one axis (SVG), in points; nothing
    where there is no comparison."""
    marks = [(row["recipe"], row, "#888") for row in card.curve]
    for name, found, colour in ((card.recipe, card.gain, "#D55E00"),):
        if found:
            marks.append((name, {"estimate": found.estimate, "low": found.low, "high": found.high}, colour))
    if not marks:
        return ""
    ends = [100 * row[key] for _, row, _ in marks for key in ("low", "high")] + [0.0]
    low, high = min(ends), max(ends)

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low or 1)

    parts, height = [], 22 * len(marks) + 46
    band = 100 * (card.sensitivity.band or 0)
    parts.append(f"<rect x='{x(max(-band, low)):.1f}' y='4' width='{x(min(band, high)) - x(max(-band, low)):.1f}' "
                 f"height='{height - 40}' fill='#888' opacity='.18'/>")  # fmt: skip
    parts.append(f"<line x1='{x(0):.1f}' x2='{x(0):.1f}' y1='4' y2='{height - 36}' stroke='#888'/>")
    for i, (name, row, colour) in enumerate(marks):
        y = 18 + 22 * i
        parts.append(f"<text x='4' y='{y + 4}' font-size='12' fill='currentColor'>{escape(name)}</text>")
        parts.append(f"<line x1='{x(100 * row['low']):.1f}' x2='{x(100 * row['high']):.1f}' y1='{y}' y2='{y}' "
                     f"stroke='{colour}' stroke-width='3'/>")  # fmt: skip
        parts.append(f"<circle cx='{x(100 * row['estimate']):.1f}' cy='{y}' r='5' fill='{colour}'/>")
    for value in (low, 0.0, high):
        parts.append(f"<text x='{x(value):.1f}' y='{height - 20}' font-size='11' text-anchor='middle' "
                     f"fill='currentColor'>{value:+.0f}</text>")  # fmt: skip
    seeds, games = (card.gain.seeds, card.gain.tasks) if card.gain else (0, 0)
    note = f"points against success alone, 95 % intervals over {seeds} seeds and {games} games; grey: the A/A band"
    parts.append(f"<text x='4' y='{height - 4}' font-size='11' fill='currentColor'>{note}</text>")
    size = f"width='{WIDTH}' height='{height}'"
    return f"<svg {size} role='img' aria-label='where the reward stands'>{''.join(parts)}</svg>"


def _points(found: Comparison | None) -> str:
    if found is None:
        return "—"
    text = f"{100 * found.estimate:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}] points"
    return f"{text}, {found.seeds} seeds × {found.tasks} games"


def _plain_points(value: float | None) -> str:
    return "—" if value is None else f"{100 * value:+.1f} points"


def _share(share: tuple[float, float, float] | None) -> str:
    return "—" if share is None else f"{share[0]:.2f} [{share[1]:.2f}, {share[2]:.2f}]"


def _number(value: float | None, form: str) -> str:
    return "—" if value is None else f"{value:{form}}"


def _price(card: Card) -> list[tuple[str, str]]:
    mine, plain = card.price, card.plain_price
    if not mine or not plain:
        return []
    rows = [
        ("CPU seconds of a training (success alone)", f"{mine['cpu_seconds']:.0f} ({plain['cpu_seconds']:.0f})"),
        ("tokens written in a training (success alone)", f"{mine['tokens']:,.0f} ({plain['tokens']:,.0f})"),
        ("tokens, CPU seconds until the end success of success alone",
         "not reached" if mine["tokens_to_target"] is None else
         f"{mine['tokens_to_target']:,.0f}, {mine['seconds_to_target']:.0f}"),
    ]  # fmt: skip
    if card.gain and card.gain.estimate > 0:
        more = (mine["cpu_seconds"] - plain["cpu_seconds"]) / (100 * card.gain.estimate)
        rows.append(("CPU seconds that one more point cost", f"{more:+.1f}"))
    return rows
