"""Looking: figures with a still image beside them, the live training view, the trajectory inspector."""

from sglib.experiments.tables import escape_markdown, markdown_table
from sglib.view.figures import bars, forest, label_panels, learning_curves, live_plot
from sglib.view.inspect import export_html, inspect
from sglib.view.still import show
from sglib.view.training import TrainingView, training_panels

__all__ = [
    "TrainingView",
    "bars",
    "escape_markdown",
    "export_html",
    "forest",
    "inspect",
    "label_panels",
    "learning_curves",
    "live_plot",
    "markdown_table",
    "show",
    "training_panels",
]
