"""JupyterLab as a person meets it: a real server, a real browser, a real kernel."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: `make browser` installs it on Debian, as root"),
]

NOTEBOOK = """# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %%
from sglib.records import Trajectory, Turn
from sglib.view import bars, inspect, show
show(bars(["act", "guide"], [0.3, 0.5], [0.2, 0.4], [0.4, 0.6], title="bars of the test"))

# %%
turns = [Turn("a room", "r", "go to shelf 1", True), Turn("<script>window.hacked = 1</script>", "r", "look", True)]
inspect(Trajectory("g", "t", "put a mug in desk.", "act", turns))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """JupyterLab on a copy of the repository's layout: its address and its notebooks folder."""
    root = tmp_path_factory.mktemp("lab")
    (root / "notebooks").mkdir()
    shutil.copy(ROOT / "pyproject.toml", root)  # holds the pairing rules
    (root / "notebooks" / "view.py").write_text(NOTEBOOK)
    config = root / "config.py"
    config.write_text("from jupyterlab.galata import configure_jupyter_server\nconfigure_jupyter_server(c)\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", f"--config={config}", "--allow-root", "--ServerApp.ip=127.0.0.1",
               f"--ServerApp.port={port}", "--LabApp.default_url=/lab/tree/notebooks"]  # fmt: skip
    environment = {**os.environ, "JUPYTERLAB_GALATA_ROOT_DIR": str(root), "PYTHONPATH": str(ROOT)}
    environment |= {"JUPYTER_CONFIG_DIR": str(root / "jupyter"), "IPYTHONDIR": str(root / "ipython")}
    with open(root / "log", "w") as log:
        process = subprocess.Popen(command, env=environment, cwd=root, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/api", timeout=5)
                break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None, (root / "log").read_text()
                time.sleep(0.5)
        yield address, root / "notebooks"
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def page(server):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1600})
        page.set_default_timeout(90_000)
        yield page
        browser.close()


def test_pairing_needs_no_further_step(server):
    """Saving a notebook through the server writes its text half, with the project's header."""
    address, folder = server
    cell = {"cell_type": "code", "metadata": {}, "source": "1 + 1", "outputs": [], "execution_count": None}
    spec = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    content = {"cells": [cell], "metadata": spec, "nbformat": 4, "nbformat_minor": 4}
    body = json.dumps({"type": "notebook", "format": "json", "content": content}).encode()
    request = urllib.request.Request(f"{address}/api/contents/notebooks/new.ipynb", body, method="PUT")
    assert urllib.request.urlopen(request).status in (200, 201)
    text = (folder / "new.py").read_text()
    assert "format_name: percent" in text and "# %%\n1 + 1" in text and "jupytext_version" not in text
    assert (folder / "new.ipynb").exists()


def test_figure_and_inspector_in_the_browser(server, page):
    address, folder = server
    subprocess.run([sys.executable, "-m", "jupytext", "--to", "ipynb", "view.py"], cwd=folder, check=True, stdout=-3)
    page.goto(f"{address}/lab/tree/notebooks/view.ipynb")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    page.wait_for_function("window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'")
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    # the interactive figure, not its still image
    page.wait_for_selector(".jp-OutputArea .js-plotly-plot .barlayer .point")
    assert page.locator(".jp-OutputArea-output img:visible").count() == 0
    # the inspector answers to its buttons, and shows markup from outside as text
    page.wait_for_selector("text=Turn 1 of 2")
    page.locator("button[title='next turn']").click()
    page.wait_for_selector("text=Turn 2 of 2")
    assert page.locator("text=window.hacked = 1").count() >= 1
    assert page.evaluate("window.hacked") is None
    if shots := os.environ.get("SGLIB_SCREENSHOTS"):
        page.screenshot(path=f"{shots}/lab.png")
