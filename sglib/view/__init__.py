"""Figures (interactive, with a still image), the live training view, the trajectory inspector."""

from sglib.experiments.tables import markdown_table
from sglib.view.figures import bars, forest, label_panels, learning_curves
from sglib.view.inspect import export_html, inspect
from sglib.view.still import keep_figure, show
from sglib.view.training import TrainingView, training_panels

__all__ = [
    "TrainingView", "bars", "export_html", "forest", "inspect", "keep_figure", "label_panels", "learning_curves",
    "markdown_table", "show", "training_panels",
]  # fmt: skip
