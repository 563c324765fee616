"""A running shop: actions in, pages out, as text. Its pages, what can be clicked on them and what a click does are
those of WebShop's released code; what differs is said at `ShopEnv`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sglib.envs.webshop.catalogue import Product, Purchase, catalogue
from sglib.envs.webshop.scores import Terms, terms
from sglib.records import Observation

PAGE = 10  # products of a results page
BACK, NEXT, PREV, BUY = "Back to Search", "Next >", "< Prev", "Buy Now"
SUBPAGES = ("Description", "Features", "Reviews")
HEAD = "Instruction: "
SEP = " [SEP] "
THANKS = "Thank you for shopping with us!"
SCORE = "Your score (min 0.0, max 1.0)"
EXPERTS = ("optimal", "explore")


class State(NamedTuple):
    """Where a customer is: what a snapshot is. `page` is "index", "results", "item", "sub" or "done"."""

    steps: int = 0
    page: str = "index"
    keywords: str = ""
    number: int = 1  # of the results page
    asin: str | None = None
    sub: str = ""
    options: tuple[tuple[str, str], ...] = ()  # (kind, value), in the order in which the kinds were first chosen
    seen: frozenset[str] = frozenset()  # products that were opened
    read: frozenset[tuple[str, str]] = frozenset()  # (product, sub-page) that were opened
    done: bool = False
    terms: Terms | None = None  # of the purchase


class Part(NamedTuple):
    """A piece of a page: `kind` is "text", "button", "product", "option" (`name`: its kind) or "search"."""

    kind: str
    text: str
    name: str = ""


def parse_action(action: str) -> tuple[str, str]:
    """(name, argument) of `name[argument]`, in lower case; ("", "") of anything else. As in the original the last "["
    and the last "]" of the first line count, and what follows is ignored."""
    line = action.partition("\n")[0] if isinstance(action, str) else ""
    end = line.rfind("]")
    start = line.rfind("[", 1, max(end - 1, 0))
    return (line[:start].strip().lower(), line[start + 1 : end].lower()) if start > 0 else ("", "")


def squeezed(text: str) -> str:
    """A text as clicks are compared: in lower case, without spaces."""
    return "".join(text.lower().split())


class ShopEnv:
    """One purchase at a time. `search[words]` works on every page, `click[text]` on what is there; anything else
    changes nothing. `score` and the reward are the purchase's, 0..1; won at 1.

    Against the released code: the page after a purchase says the score and nothing else; spaces around and within
    brackets do not count; the search's words <r>, <a>, <c> and <q> are ordinary; product pages have no reviews there
    either (the data have none). Ranked by `bm25s` without stemming, where Lucene stems: see `Catalogue.engine`.
    """

    def __init__(self, max_steps: int | None = None, admissible: bool = True, mode: str = "text"):
        """`mode`: "text", strings joined by " [SEP] ", "text_rich", one a line with buttons marked, or "html", the page
        that `python -m sglib webshop` serves."""
        if mode not in ("text", "text_rich", "html"):
            raise ValueError(f"mode={mode!r}: allowed: 'text', 'text_rich', 'html'")
        self.max_steps, self.admissible, self.mode = max_steps, admissible, mode

    def reset(self, task: Purchase) -> Observation:
        self.state = State()
        self._enter(task)
        return self._observe(True, 0.0)

    def _enter(self, task: Purchase) -> None:
        self.task, self.shop = task, catalogue(task.shop)
        self._found: tuple[str, tuple[Product, ...]] | None = None  # the last search's words and hits

    @property
    def done(self) -> bool:
        return self.state.done

    @property
    def product(self) -> Product | None:
        """What is being looked at."""
        return self.shop.products[self.state.asin] if self.state.page in ("item", "sub") else None

    def step(self, action: str) -> Observation:
        if self.state.done:
            raise RuntimeError("the episode is over: call reset(purchase) before step")
        steps, (name, argument), reward = self.state.steps + 1, parse_action(action), 0.0
        valid = name == "search" and bool(argument.strip())
        if valid:
            self.state = self._results(argument.strip(), 1)
        elif name == "click" and (part := self._clickable(argument)):
            valid = True
            self.state = self._clicked(part)
            reward = self.state.terms.total if self.state.terms else 0.0
        self.state = self.state._replace(steps=steps, done=self.state.page == "done" or steps == self.max_steps)
        return self._observe(valid, reward)

    # -- pages ---------------------------------------------------------------------------------------------------------

    def hits(self) -> tuple[Product, ...]:
        """All that the present search finds."""
        if self._found is None or self._found[0] != self.state.keywords:
            self._found = self.state.keywords, self.shop.search(self.state.keywords)
        return self._found[1]

    def listed(self) -> tuple[Product, ...]:
        """The products of the present results page."""
        first = (self.state.number - 1) * PAGE
        return self.hits()[first : first + PAGE] if self.state.page == "results" else ()

    def parts(self) -> Iterator[Part]:
        """The present page, from top to bottom."""
        s = self.state
        if s.page == "done":
            yield from (Part("text", text) for text in (THANKS, SCORE, str(s.terms.total)))
            return
        if s.page == "index":
            yield Part("text", "WebShop")
        yield from (Part("text", text) for text in (HEAD.strip(), self.task.goal))
        if s.page == "index":
            yield Part("search", "Search")
            return
        yield Part("button", BACK)
        if s.page == "results":
            yield Part("text", f"Page {s.number} (Total results: {len(self.hits())})")
            yield from (Part("button", text) for text in ((PREV, NEXT) if s.number > 1 else (NEXT,)))
            for product in self.listed():
                yield Part("product", product.asin)
                yield Part("text", product.title)
                yield Part("text", product.tag)
            return
        yield Part("button", PREV)
        if s.page == "sub":
            told = {"description": (self.product.description,), "features": self.product.bullets}.get(s.sub, ())
            space = " " if s.sub == "features" else ""  # of the original's template
            yield from (Part("text", space + text) for text in told)
            return
        for name, values in self.product.options.items():
            yield Part("text", name)
            yield from (Part("option", value, name) for value in values)
        yield from (Part("text", x) for x in (self.product.title, f"Price: {self.product.tag}", "Rating: N.A."))
        yield from (Part("button", text) for text in (*SUBPAGES, BUY))

    def _clickable(self, argument: str) -> Part | None:
        """What a click means; of parts of one text the last, and options before buttons and products."""
        wanted = squeezed(argument)
        found = [p for p in self.parts() if p.kind in ("button", "product", "option")]
        found.sort(key=lambda part: part.kind == "option")
        return next((p for p in reversed(found) if squeezed(p.text) == wanted), None)

    def _results(self, keywords: str, number: int) -> State:
        return self.state._replace(page="results", keywords=keywords, number=number, asin=None, sub="", options=())

    def _clicked(self, part: Part) -> State:
        s, text = self.state, part.text.lower()
        if text == BUY.lower():
            return s._replace(page="done", terms=self.if_bought())
        if text == BACK.lower():
            return State()
        if s.page == "results" and text in (NEXT.lower(), PREV.lower()):
            return self._results(s.keywords, s.number + (1 if text == NEXT.lower() else -1))
        if text == PREV.lower():
            return s._replace(page="item", sub="") if s.page == "sub" else self._results(s.keywords, s.number)
        if text in (name.lower() for name in SUBPAGES):
            return s._replace(page="sub", sub=text, read=s.read | {(s.asin, text)})
        if part.kind == "product":
            return s._replace(page="item", asin=part.text, seen=s.seen | {part.text})
        return s._replace(options=tuple((dict(s.options) | {part.name: part.text}).items()))

    def if_bought(self) -> Terms | None:
        """The reward of buying what is looked at, as it is chosen now; None where nothing is."""
        return self.product and terms(self.product, [value for _, value in self.state.options], self.task)

    def _observe(self, valid: bool, reward: float) -> Observation:
        s, parts = self.state, list(self.parts())
        text = {"text": self._plain, "text_rich": self._rich, "html": self._html}[self.mode](parts)
        can = [f"click[{p.text.lower()}]" for p in parts if p.kind in ("button", "product", "option")]
        admissible = tuple(sorted({*can, "search[<words>]"})) if self.admissible and not s.done else ()
        won = s.terms is not None and s.terms.total == 1.0
        score = s.terms.total if s.terms else 0.0
        self.observation = Observation(text, self.task.goal, admissible, reward, won, s.done, s.steps, {}, score, valid)
        return self.observation

    def _plain(self, parts: list[Part]) -> str:
        return SEP.join(p.text.strip() for p in parts)

    def _html(self, parts: list[Part]) -> str:
        from sglib.envs.webshop.site import html

        return html(self)

    def _rich(self, parts: list[Part]) -> str:
        chosen, text = dict(self.state.options), ""
        for p in parts:
            marked = p.text in ({*chosen, *chosen.values()} if p.kind == "option" else self.state.seen)
            button = "[clicked button] {} [clicked button_]" if marked else "[button] {} [button_]"
            if p.kind == "option" and marked:
                text = f"You have clicked {p.text}.\n{text}"
            space = {"option": "  ", "product": "\n"}.get(p.kind, "")
            text += (space + button.format(p.text) if p.kind != "text" else p.text) + "\n"
        return text

    # -- what measures and experts know --------------------------------------------------------------------------------

    def progress(self) -> float:
        """The reward if the customer bought now what is looked at; 0 on pages without a product."""
        bought = self.state.terms or self.if_bought()
        return bought.total if bought else 0.0

    def plan(self) -> list[str] | None:
        """The actions from here to buying what the task was written for, with its title as the search's words; None
        after a purchase, or where such a search does not find it."""
        target, s = self.shop.products[self.task.asin], self.state
        if s.done:
            return [] if s.terms and s.terms.total == 1.0 else None
        ways, on = [], self.product is not None and self.product.asin == target.asin
        if not on:
            found = [p.asin for p in self.shop.search(target.title)]
            if s.page == "results" and target.asin in (ids := [p.asin for p in self.hits()]):
                turn = ids.index(target.asin) // PAGE + 1 - s.number
                ways.append([f"click[{(NEXT if turn > 0 else PREV).lower()}]"] * abs(turn))
            if target.asin in found:
                flip = [f"click[{NEXT.lower()}]"] * (found.index(target.asin) // PAGE)
                ways.append([f"search[{target.title.lower()}]", *flip])
            if not ways:
                return None
            ways = [[*min(ways, key=len), f"click[{target.asin.lower()}]"]]
        back = [f"click[{PREV.lower()}]"] if on and s.page == "sub" else []
        have = set(dict(s.options).values()) if on else set()
        values = self.task.values()
        choose = [f"click[{value}]" for value in values if value not in have]
        return [*(ways[0] if ways else back), *choose, f"click[{BUY.lower()}]"]

    def expert(self, kind: str) -> str:
        """The next action: of "optimal" the plan's first, of "explore" that of a careful customer who knows the pages
        that were read; see `demonstrators.explore`."""
        from sglib.envs.webshop.demonstrators import explore

        if kind not in EXPERTS:
            raise ValueError(f"kind={kind!r}: allowed: {', '.join(map(repr, EXPERTS))}")
        plan = self.plan() if kind == "optimal" else None
        return plan[0] if plan else explore(self)

    def answer(self, name: str) -> str:
        """ "answer": title and options of what the task was written for."""
        return ", ".join((self.shop.products[self.task.asin].title, *self.task.values())).lower()

    def snapshot(self) -> tuple[Purchase, State, Observation]:
        return self.task, self.state, self.observation

    def restore(self, snapshot: tuple[Purchase, State, Observation]) -> Observation:
        task, self.state, self.observation = snapshot
        self._enter(task)
        return self.observation
