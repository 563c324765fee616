"""Progress bars that are right in JupyterLab, in a notebook run by papermill, and in a terminal."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable

from tqdm import tqdm

from sglib.records import write_atomic


class _KernelBar(tqdm):
    """A tqdm bar that is one display, updated in place.

    tqdm.auto's widget stays where it first was in a stored notebook, plain tqdm leaves a line for every refresh; one
    updated display moves in JupyterLab and leaves its last state in a notebook executed by papermill.
    """

    def __init__(self, *args, **kwargs):
        self.handle = None
        super().__init__(*args, file=io.StringIO(), **kwargs)

    def display(self, msg=None, pos=None):  # what tqdm calls to draw, at most every `mininterval` seconds
        line = msg if msg is not None else str(self)
        if line:
            self._show(line)
        if path := os.environ.get("SGLIB_PROGRESS"):
            write_atomic(path, line)

    def close(self):
        if self.disable:
            return
        if self.leave:
            self.refresh()  # the last state, which stays
        elif self.handle is not None:
            self._show("")
        self.disable = True

    def _show(self, line: str) -> None:
        from IPython.display import display

        if self.handle is None:
            self.handle = display({"text/plain": line}, raw=True, display_id=True)
        else:
            self.handle.update({"text/plain": line}, raw=True)


def progress_bar(iterable: Iterable | None = None, desc: str = "", total: int | None = None, **options) -> tqdm:
    """A tqdm bar: iterate over it, or move it by hand with `.update(n)` in a `with`. `options` are tqdm's."""
    desc = desc if len(desc) <= 30 else f"...{desc[-27:]}"  # a model's path would leave no room for the bar
    options = {"mininterval": 0.5, "ncols": 100, "dynamic_ncols": False} | options
    return (_KernelBar if in_kernel() else tqdm)(iterable, desc=desc, total=total, **options)


def in_kernel() -> bool:
    """Whether this runs in a notebook."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell is not None and "IPKernelApp" in shell.config
