"""Looking: figures with a still image beside them, the live training view, the trajectory inspector."""

from sglib.view.figures import bars, label_panels, learning_curves, live_plot, show
from sglib.view.inspect import inspect

__all__ = ["bars", "inspect", "label_panels", "learning_curves", "live_plot", "show"]
