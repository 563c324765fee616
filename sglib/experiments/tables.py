"""Texts from outside as harmless HTML and Markdown, and rows as a Markdown table."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from html import escape as _escape

# What nobody sees, or what changes how the rest is read: controls, marks of direction, halves of a character,
# characters without a meaning, separators, and letters without a shape.
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_SHAPELESS = {
    *"\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0",
    *map(chr, range(0xFE00, 0xFE10)), *map(chr, range(0xE0100, 0xE01F0)),
}  # fmt: skip
LONGEST = 20_000  # characters of one text on a page


def escape(text: object) -> str:
    """Text as HTML that shows it and does nothing: markup escaped, invisible and direction-changing characters named,
    and what is longer than `LONGEST` cut, which is said."""
    text = str(text)
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]} … and {len(text) - LONGEST:,} more characters"
    return _escape("".join(map(_visible, text)) if not text.isascii() or not text.isprintable() else text, quote=True)


def printable(text: object) -> str:
    """Text for a terminal or a log: what would move its cursor, change its colours or hide something is named."""
    return "".join(map(_visible, str(text)))


def _visible(character: str) -> str:
    if character in "\n\t" or not (unicodedata.category(character) in _UNSEEN or character in _SHAPELESS):
        return character
    return f"\\u{ord(character):04x}"


def escape_markdown(text: str) -> str:
    """Text for a Markdown cell or table that shows it and does nothing; lines become one."""
    return escape(re.sub(r"([\\`*_{}\[\]#|~!$])", r"\\\1", " ".join(str(text).split())))


def markdown_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as a Markdown table, which code hosts show too; texts are escaped.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("rows: got none; allowed: at least one")
    head, *body = (map(escape_markdown, line) for line in [list(rows[0]), *([row[k] for k in rows[0]] for row in rows)])
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(rows[0]), *body))
