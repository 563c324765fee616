"""The shop as a website on this machine, for a person: the pages of `ShopEnv`, and after a purchase the reward term by
term. A finished session is recorded as a trajectory, which `sglib.inspect` opens.

    python -m sglib webshop
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from pathlib import Path

import tornado.httpserver
import tornado.netutil
import tornado.web
from tornado.template import Template

from sglib.envs.webshop.catalogue import Purchase
from sglib.envs.webshop.engine import ShopEnv
from sglib.records import Trajectory, Turn, write_trajectories

# Tornado escapes every {{ }}
PAGE = Template("""<!doctype html><html lang="en"><meta charset="utf-8"><title>WebShop</title>
<style>
 body {font: 16px/1.5 sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem}
 button, input {font: inherit; margin: .1rem; padding: .2rem .6rem} .chosen {outline: 3px solid #36c}
 table {border-collapse: collapse} td, th {border: 1px solid #ccc; padding: .2rem .7rem; text-align: left}
 #instruction {background: #eef; padding: .5rem 1rem}
</style>
<p id="instruction">{{ goal }}</p>
<form method="post">
{% for kind, text, action, chosen in parts %}
 {% if kind == "search" %}<input name="words" aria-label="search" autofocus>
 <button name="action" value="search">Search</button>
 {% elif kind == "text" %}<p>{{ text }}</p>
 {% else %}<button name="action" value="{{ action }}" class="{{ kind }}{{ ' chosen' if chosen else '' }}">{{ text }}
 </button>
 {% end %}
{% end %}
</form>
{% if terms %}
<h2>Reward: <span id="reward">{{ f"{terms.total:.3f}" }}</span></h2>
<table><tr><th>term</th><th>here</th></tr>
<tr><td>right kind of thing (factor)</td><td>{{ terms.type }}</td></tr>
<tr><td>attributes</td><td>{{ terms.attributes[0] }} of {{ terms.attributes[1] }}</td></tr>
<tr><td>options</td><td>{{ terms.options[0] }} of {{ terms.options[1] }}</td></tr>
<tr><td>price within the limit</td><td>{{ int(terms.cheap) }} of 1</td></tr></table>
<p>{{ terms.type }} &times; ({{ terms.attributes[0] }} + {{ terms.options[0] }} + {{ int(terms.cheap) }}) /
({{ terms.attributes[1] }} + {{ terms.options[1] }} + 1)</p>
{% end %}
{% if saved %}<p>Recorded: <code id="saved">{{ saved }}</code></p><p><a href="/">The next purchase</a></p>{% end %}
<p><small>turn {{ steps }}</small></p></html>""")


class Session:
    """A person's episode."""

    def __init__(self, task: Purchase, folder: Path, name: str):
        self.env, self.file = ShopEnv(), folder / f"{name}.jsonl"
        self.observation = self.env.reset(task)
        self.recorded = Trajectory(task.id, task.task_type, task.goal, "act", origin=task.origin, env=task.env)

    def act(self, action: str) -> None:
        """A step, recorded; the session is written when it has ended."""
        turn = Turn(self.observation.text, f"Action: {action}", action, True, truth=self.env.progress())
        self.observation = found = self.env.step(action)
        turn.valid, turn.reward = found.valid, found.reward
        self.recorded.turns.append(turn)
        if found.done:
            end = self.recorded
            end.won, end.score, end.final_observation = found.won, found.score, found.text
            end.final_truth = self.env.progress()
            write_trajectories(self.file, [end])

    def page(self) -> str:
        return html(self.env, str(self.file) if self.env.done else "")


def html(env: ShopEnv, saved: str = "") -> str:
    """The present page of a shop as HTML; `saved` is where its session was recorded."""
    chosen = {(name, value) for name, value in env.state.options}
    parts = [
        (p.kind, p.text, f"click[{p.text}]", (p.name, p.text) in chosen)
        for p in env.parts()
        if p.text not in ("Instruction:", env.task.goal)
    ]
    now = {"terms": env.state.terms, "steps": env.state.steps}
    return PAGE.generate(goal=env.task.goal, parts=parts, saved=saved, **now).decode()


class Site(tornado.web.Application):
    """The shop's server: "/" begins with the next task, "/<session>" is its present page."""

    def __init__(self, tasks: Sequence[Purchase], folder: str | Path):
        """`folder`: where sessions are recorded, a file of JSON lines each."""
        self.tasks, self.folder, self.begun = list(tasks), Path(folder), 0
        self.sessions: dict[str, Session] = {}
        super().__init__([("/", _Begin), (r"/([0-9a-f]{16})", _Page)])

    def begin(self) -> str:
        name = secrets.token_hex(8)
        self.sessions[name] = Session(self.tasks[self.begun % len(self.tasks)], self.folder, name)
        self.begun += 1
        return name


class _Begin(tornado.web.RequestHandler):
    def get(self):
        self.redirect(f"/{self.application.begin()}")


class _Page(tornado.web.RequestHandler):
    def prepare(self):
        if self.path_args[0] not in self.application.sessions:
            raise tornado.web.HTTPError(404)
        # another site's page must not shop here, under a name of its own for this machine either
        origin, here = self.request.headers.get("Origin"), self.request.host_name in ("127.0.0.1", "localhost")
        if not here or (self.request.method == "POST" and origin not in (None, f"http://{self.request.host}")):
            raise tornado.web.HTTPError(403)

    def get(self, name: str):
        self.set_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'")
        self.finish(self.application.sessions[name].page())

    def post(self, name: str):
        session = self.application.sessions[name]
        action = self.get_argument("action", "")
        if action == "search":
            action = f"search[{self.get_argument('words', '')}]"
        if not session.env.done:
            session.act(action)
        self.redirect(f"/{name}", status=303)


async def serve(tasks: Sequence[Purchase], folder: str | Path, port: int = 0):
    """Serve on the loopback interface alone; (server, address). `port` 0 takes a free one.

    Raises:
        ValueError: the port cannot be had.
    """
    try:
        sockets = tornado.netutil.bind_sockets(port, "127.0.0.1")
    except (OSError, OverflowError) as error:
        raise ValueError(f"port={port}: {error}; allowed: a free one, 0 takes any") from error
    server = tornado.httpserver.HTTPServer(Site(tasks, folder))
    server.add_sockets(sockets)
    return server, f"http://127.0.0.1:{sockets[0].getsockname()[1]}/"


def main(port: int, data: str | None, folder: Path) -> None:
    """Serve until Ctrl-C; the purchases of the official test panel where there are official files, else drawn ones."""
    from sglib.envs.webshop.card import ENVIRONMENT

    size = {"data": data, "products": None} if data else None
    tasks = ENVIRONMENT.tasks(200, split="test" if data else "valid", size=size)

    async def forever():
        _, address = await serve(tasks, folder, port)
        print(f"WebShop is at {address} (Ctrl-C ends it); purchases are recorded in {folder}", flush=True)
        await asyncio.Event().wait()

    asyncio.run(forever())
