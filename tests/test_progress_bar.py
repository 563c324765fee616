"""Progress bars: what stays in a terminal and in a stored notebook."""

import nbformat
import pytest
from nbclient import NotebookClient

from sglib.play.progress_bar import progress_bar


def test_in_a_terminal(capsys):
    assert list(progress_bar(range(3), desc="steps")) == [0, 1, 2]
    assert "steps: 100%" in capsys.readouterr().err


def test_a_long_name_leaves_room_for_the_bar(capsys):
    list(progress_bar(range(3), desc="/a/folder" * 20 + "/policy"))
    assert "/policy: 100%|###" in capsys.readouterr().err.replace("█", "#")


@pytest.fixture(scope="module")
def outputs():
    """Texts of the displays that a notebook is stored with, a list a cell."""
    cells = [
        "from threading import Thread\nfrom sglib.play.progress_bar import progress_bar",
        "for _ in progress_bar(range(3), desc='stays'): pass",
        "with progress_bar(desc='goes', total=3, leave=False) as bar:\n    bar.update(3)",
        "with progress_bar(desc='soon done', total=3, leave=False, delay=60) as bar:\n    bar.update(3)",
        "with progress_bar(desc='moved by a thread', total=2) as bar:\n"
        "    thread = Thread(target=bar.update, args=(2,))\n    thread.start()\n    thread.join()",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, kernel_name="python3").execute()
    return [[output.data["text/plain"] for output in cell.outputs] for cell in notebook.cells]


def test_a_bar_that_stays_is_stored_at_its_end(outputs):
    (line,) = outputs[1]
    assert line.startswith("stays: 100%") and "3/3" in line


def test_a_bar_that_goes_leaves_nothing_to_read(outputs):
    assert outputs[2] == [""]


def test_a_bar_that_was_never_due_is_not_there(outputs):
    assert outputs[3] == []


def test_a_thread_may_move_it(outputs):
    assert "2/2" in outputs[4][-1]
