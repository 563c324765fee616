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
from sglib.view import bars, show
show(bars(["act", "guide"], [0.3, 0.5], [0.2, 0.4], [0.4, 0.6], title="bars of the test"))
"""
INSPECTOR = r"""# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %%
import dataclasses
import sglib
policy = sglib.load_policy("base")
games = sglib.envs.alfworld.generate_games(3, seed=3)
played = sglib.rollout(policy, games, format="guide", group=2, turns=8, temperature=1.0, seed=1)
sglib.rewards.combine(played, [sglib.rewards.Outcome(), sglib.rewards.SelfGuide(schedule=1.0)], u=0.5)
for t in played:
    for n, turn in enumerate(t.turns):
        turn.advantage = 0.5 - n / 4

# %%
HOSTILE = [
    "<script>window.hacked = 1</script>", "<img src=x onerror='window.hacked = 2'>",
    "<a href='javascript:window.hacked=3'>go</a>", "mug 1</pre></td></table><svg onload='window.hacked = 4'>",
    "abc\u202edef\x07", "' onmouseover='window.hacked = 5' x='",
]
bad = []
for text in HOSTILE:
    turn = sglib.Turn("You see a " + text + " 1.", text, text, False, text, "positive", rewards={text: 0.5})
    turns = [turn, dataclasses.replace(turn)]
    bad.append(sglib.Trajectory("game " + text, text, text, "guide", turns, final_observation=text))

# %%
widget = sglib.inspect({"base": played, "bad": bad}, policy=policy)
widget
"""
TRAINING = """# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %%
import sglib
from sglib.experiments import pool
small = {"iterations": 60, "games_per_iteration": 2, "group_size": 2, "eval_games": 4, "eval_every": 60, "max_turns": 4}
p = sglib.params.check("grpo", {"size": "smoke", "arms": ["guide"], **small})

# %%
view = sglib.view.TrainingView(p.arms, p.iterations, n=p.eval_games)
results = await view.follow(lambda: pool.train_recipes(p, on_update=view.update, paused=view.paused, poll=0.5))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """JupyterLab on a copy of the repository's layout: its address and its notebooks folder."""
    root = tmp_path_factory.mktemp("lab")
    (root / "notebooks").mkdir()
    shutil.copy(ROOT / "pyproject.toml", root)  # holds the pairing rules
    (root / "notebooks" / "view.py").write_text(NOTEBOOK)
    (root / "notebooks" / "inspector.py").write_text(INSPECTOR)
    (root / "notebooks" / "training.py").write_text(TRAINING)
    shutil.copy(ROOT / "notebooks" / "08_inspecting_trajectories.py", root / "notebooks" / "teaching.py")
    config = root / "config.py"
    config.write_text("from jupyterlab.galata import configure_jupyter_server\nconfigure_jupyter_server(c)\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", f"--config={config}", "--allow-root", "--ServerApp.ip=127.0.0.1",
               f"--ServerApp.port={port}", "--LabApp.default_url=/lab/tree/notebooks"]  # fmt: skip
    environment = {**os.environ, "JUPYTERLAB_GALATA_ROOT_DIR": str(root), "PYTHONPATH": str(ROOT)}
    environment |= {"JUPYTER_CONFIG_DIR": str(root / "jupyter"), "IPYTHONDIR": str(root / "ipython")}
    environment["SGLIB_OUTPUT"] = str(root / "outputs")
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
        page.set_default_timeout(180_000)
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


def run_notebook(page, address: str, folder: Path, name: str, wait: bool = True, said: str = ""):
    """Open a notebook of the server in JupyterLab and run all its cells, to their end unless told not to `wait`. The
    only thing that may stand on the error stream is a text with `said` in it."""
    subprocess.run([sys.executable, "-m", "jupytext", "--to", "ipynb", f"{name}.py"], cwd=folder, check=True, stdout=-3)
    page.goto(f"{address}/lab/tree/notebooks/{name}.ipynb")
    page.wait_for_function(
        """path => {
            const open = window.jupyterapp?.shell.currentWidget
            return open?.context?.path === path && open.context.isReady
                && open.sessionContext?.session?.kernel?.status === 'idle'
        }""",
        arg=f"notebooks/{name}.ipynb",
    )
    run = "window.jupyterapp.commands.execute('notebook:run-all-cells')"
    if not wait:
        page.evaluate(f"void {run}")
        return
    done = page.evaluate(run)
    problem = page.locator(".jp-Notebook:visible [data-mime-type='application/vnd.jupyter.stderr']")
    # not the inner text, which is empty where JupyterLab has not drawn the cell
    wrong = [text for text in problem.all_text_contents() if not said or said not in text]
    assert done and not wrong, wrong or "the cells did not run"


def click(locator):
    """Click what may lie outside the window: JupyterLab leaves such cells undrawn, and Playwright waits for them."""
    locator.evaluate("element => element.scrollIntoView({block: 'center'})")
    locator.click()


def shot(page, name: str):
    """Keep a picture for people, where SGLIB_SCREENSHOTS says."""
    if shots := os.environ.get("SGLIB_SCREENSHOTS"):
        page.add_style_tag(content=".Toastify{display:none}")
        page.locator(".sglib-inspector").screenshot(path=f"{shots}/{name}.png")


def test_a_figure_in_the_browser(server, page):
    run_notebook(page, *server, "view")
    # the interactive figure, not its still image
    page.wait_for_selector(".jp-OutputArea .js-plotly-plot .barlayer .point")
    assert page.locator(".jp-OutputArea-output img:visible").count() == 0


def test_the_inspector_clicked_through(server, page):
    """List, filter, an episode, its turns by button and key, what-if, comparison, tokens, export."""
    run_notebook(page, *server, "inspector")
    root = page.locator(".sglib-inspector")
    root.wait_for()
    rows = root.locator("tbody tr")
    page.wait_for_selector("text=1 to 12 of 12 episodes")
    assert rows.count() == 12

    # filter: by run, by text as it is typed, and clear again
    root.locator("#sglib-run").select_option("base")
    page.wait_for_selector("text=1 to 6 of 6")
    root.locator("#sglib-text").fill("no such words")
    page.wait_for_selector("text=no episode fits")
    root.locator("#sglib-text").fill("")
    page.wait_for_selector("text=1 to 6 of 6")
    root.locator("th[data-value=turns]").click()
    page.wait_for_selector("th:has-text('turns ▴')")

    # an episode; its turns by button, key and click on the timeline
    rows.first.click()
    page.wait_for_selector("text=Turn 1 of")
    root.locator("button[title^='next turn']").click()
    page.wait_for_selector("text=Turn 2 of")
    root.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("text=Turn 3 of")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("text=Turn 2 of")
    goal = root.locator(".sglib-view b").first.inner_text()
    page.keyboard.press("ArrowDown")
    page.wait_for_selector("text=Turn 1 of")
    root.locator(".line").nth(1).click()
    page.wait_for_selector("text=Turn 2 of")
    assert root.locator(".place").count() > 3 and goal
    assert root.locator("svg polyline").count() == 1

    # what if: another action, played on
    root.locator("#sglib-what").fill("look")
    root.locator("#sglib-k").fill("3")
    root.locator("button[data-do=whatif]").click()
    page.wait_for_selector("#sglib-result:has-text('3 episodes each')")
    root.locator("button[data-do=examples]").click()
    page.wait_for_selector("text=they part at turn 2")
    page.keyboard.press("Escape")
    page.wait_for_selector("text=Turn 2 of")

    # the tokens that the trainer saw
    root.locator("button[data-value=tokens]").click()
    page.wait_for_selector("text=of them trained on")
    coloured = root.locator(".tokens span[style*='rgba(0,114,178']")
    assert coloured.count() > 0 and root.locator(".tokens .masked").count() > 10
    coloured.first.click()
    page.wait_for_selector("text=Turn 1 of")

    # back, and exported: the file opens without a kernel
    page.keyboard.press("Escape")
    page.wait_for_selector("button[data-do=export]")
    root.locator("button[data-do=export]").click()
    page.wait_for_selector("text=written:")
    assert (server[1] / "inspector.html").exists()


def test_hostile_texts_are_shown_and_run_nothing(server, page):
    """In the widget, everywhere that texts come to, and in the exported file."""
    root = page.locator(".sglib-inspector")
    root.locator("#sglib-run").select_option("bad")
    # their list has come: the one before it has six episodes, too
    root.locator("tbody tr", has_text="window.hacked = 1").first.wait_for()
    page.wait_for_selector("text=1 to 6 of 6")
    for number in range(6):
        root.locator("tbody tr").nth(number).click()
        page.wait_for_selector("text=Turn 1 of 2")
        for view in ("compare", "tokens"):
            root.locator(f"button[data-value={view}]").click()
            page.wait_for_selector("button[data-value=episode]")
            root.locator("button[data-value=episode]").click()
            page.wait_for_selector("text=Turn 1 of 2")
        page.keyboard.press("Escape")
        page.wait_for_selector("text=1 to 6 of 6")
    root.locator("tbody tr").first.click()
    page.wait_for_selector("text=Turn 1 of 2")
    assert root.locator("pre", has_text="<script>window.hacked = 1</script>").count() >= 1
    page.keyboard.press("Escape")
    page.wait_for_selector("button[data-do=export]")
    root.locator("button[data-do=export]").click()
    page.wait_for_selector("text=written:")
    assert page.evaluate("window.hacked") is None
    assert root.locator("script, img, a[href^=javascript]").count() == 0

    exported = page.context.browser.new_page()
    exported.goto((server[1] / "inspector.html").as_uri())
    exported.wait_for_selector("text=6 episodes")
    for summary in exported.locator("summary").all():
        summary.click()
    assert exported.locator("pre:visible", has_text="<script>window.hacked = 1</script>").count() >= 1
    assert exported.locator("pre:visible", has_text="abc\\u202edef\\u0007").count() >= 1
    assert exported.evaluate("window.hacked") is None
    assert exported.locator("script, img, a[href^=javascript]").count() == 0
    exported.close()


def test_a_training_is_watched_stopped_and_continued(server, page):
    """While its cell is running: numbers, a stop after an iteration, episodes in the inspector, and on to the end."""
    run_notebook(page, *server, "training", wait=False)
    root = page.locator(".sglib-inspector")
    status = root.locator("[role=status]").first
    page.wait_for_function(
        "Number(document.querySelector('.sglib-inspector [role=status]')?.innerText.match(/^(\\d+) of 60/)?.[1]) >= 3"
    )
    root.locator("button[data-do=stop]").click()
    page.wait_for_selector("button[data-do=continue]")
    assert "stopped" in status.inner_text()
    arm = next((server[1].parent / "outputs" / "cache").glob("grpo-guide-*"))
    for _ in range(240):  # until its process has written its checkpoint
        done = [int(path.name.split("-")[1]) for path in arm.glob("checkpoint-*")]
        if done and done[0] == len((arm / "metrics.jsonl").read_text().splitlines()):
            break
        time.sleep(0.5)
    time.sleep(3)
    assert not (arm / "done.json").exists() and done[0] < 60
    assert len((arm / "metrics.jsonl").read_text().splitlines()) == done[0]  # at rest
    root.locator("button[data-do=episodes]").click()
    page.wait_for_selector("text=1 to 4 of 4 episodes")
    root.locator("tbody tr[data-do=open]").first.click()
    page.wait_for_selector("text=Turn 1 of")
    shot(page, "training-view")
    root.locator("button[data-do=leave]").click()
    root.locator("button[data-do=continue]").click()
    page.wait_for_selector("text=60 of 60 iterations; ended")
    page.wait_for_selector(".jp-OutputArea .js-plotly-plot .scatterlayer")  # the curves stay
    assert (arm / "done.json").exists()


CONTRAST = """element => {
    const numbers = colour => colour.match(/[\\d.]+/g).map(Number)
    const layers = []
    for (let e = element; e; e = e.parentElement) {
        const [r, g, b, a = 1] = numbers(getComputedStyle(e).backgroundColor)
        layers.push([r, g, b, a])
        if (a === 1) break
    }
    const over = (under, [r, g, b, a]) => [r, g, b].map((c, i) => a * c + (1 - a) * under[i])
    const behind = layers.reverse().reduce(over, [255, 255, 255])
    const light = rgb => {
        const [r, g, b] = rgb.map(c => c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b
    }
    const both = [light(numbers(getComputedStyle(element).color).slice(0, 3)), light(behind)]
    return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05)
}"""  # of WCAG 2; 4.5 is what it asks of text


def test_the_notebook_that_teaches_it_in_light_and_dark(server, page):
    """Notebook 08 as a person runs it; what stands on the page can be read in both of JupyterLab's themes."""
    run_notebook(page, *server, "teaching")
    root = page.locator(".sglib-inspector")
    root.locator("#sglib-run").select_option("guide")
    root.locator("#sglib-disagreeing").check()
    page.wait_for_selector("text=/\\(of \\d+ episodes\\)/")  # how many: params/cpu.yaml
    shot(page, "inspector-list")
    click(root.locator("tbody tr").first)
    page.wait_for_selector("text=Turn 1 of")
    click(root.locator(".line").nth(8))
    page.wait_for_selector("text=Turn 9 of")
    shot(page, "inspector-episode")
    click(root.locator("button[data-value=tokens]"))
    page.wait_for_selector("text=of them trained on")
    shot(page, "inspector-tokens")
    click(root.locator("button[data-value=episode]"))
    click(root.locator("button[data-value=compare]"))
    root.locator("#sglib-other").select_option(index=1)
    page.wait_for_selector("text=they part at turn")
    shot(page, "inspector-compare")
    click(root.locator("button[data-value=episode]"))
    page.wait_for_selector("text=Turn 9 of")
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
        page.wait_for_function("theme => document.body.dataset.jpThemeName === theme", arg=theme)
        time.sleep(1)
        shot(page, "notebook-" + theme.split()[1].lower())
        for part in ("b", "pre", "button:not([disabled])", "select", ".line.on", ".line:not(.on)", "th", "input"):
            assert root.locator(part).first.evaluate(CONTRAST) >= 4.5, (theme, part)
