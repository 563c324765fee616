"""Every notebook in JupyterLab in a real browser, as a person runs it: a new kernel, all cells from top to bottom, with
the smallest parameters. (`test_lab` clicks through what the widgets can do.)"""

import jupytext
import pytest
from test_lab import ROOT, page, pytestmark, run_notebook, server  # noqa: F401 fixtures, and where they are skipped

NAMES = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.py"))
SAID = {"12_a_real_language_model": "batch unread"}  # a model of random weights writes what is in no format
CELLS = """() => window.jupyterapp.shell.currentWidget.content.widgets
    .filter(cell => cell.model.type === 'code' && cell.model.sharedModel.source.trim())
    .map(cell => [cell.model.executionCount, cell.model.outputs.toJSON()])"""


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_from_top_to_bottom(server, page, name):  # noqa: F811
    address, folder = server
    text = (ROOT / "notebooks" / f"{name}.py").read_text(encoding="utf-8")
    assert text.count('\nsize = "cpu"\n') == 1
    (folder / f"{name}.py").write_text(text.replace('\nsize = "cpu"\n', '\nsize = "smoke"\n'), encoding="utf-8")
    wrong = []

    def note(error):
        wrong.append(error)

    page.on("pageerror", note)
    run_notebook(page, address, folder, name, said=SAID.get(name, ""))
    cells = page.evaluate(CELLS)
    source = [cell.source for cell in jupytext.reads(text, "py:percent").cells if cell.cell_type == "code"]
    assert [count for count, _ in cells] == list(range(1, len(source) + 1)), "every cell ran once, in order"
    assert not [each for _, outputs in cells for each in outputs if each["output_type"] == "error"]
    assert not wrong, "an error in the browser"
    page.remove_listener("pageerror", note)
    page.evaluate("window.jupyterapp.commands.execute('kernelmenu:shutdown')")
