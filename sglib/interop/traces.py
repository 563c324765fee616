"""Session traces that the Hugging Face Hub displays: JSON lines, a file a session. Written in its Session Trace Simple
Format (https://huggingface.co/docs/hub/session-traces-format); read are that and the sessions of Pi, Claude Code and
Codex, which the Hub shows as they are (https://huggingface.co/docs/hub/agent-traces)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sglib.interop import chat, convention
from sglib.interop.chat import Said
from sglib.records import Trajectory

ABOUT = "session traces of the Hugging Face Hub (STS-Format; Pi's to version 3, Claude Code's, Codex's)"
OBSERVED = {"toolResult": "tool", "custom": "user", "branchSummary": "user", "compactionSummary": "user"}


def kind(rows: Sequence[Mapping]) -> str:
    """Which of the four shapes these lines have, "" for none."""
    if rows[0].get("type") == "session" and "id" in rows[0]:
        return "STS" if "version" not in rows[0] else "Pi"
    if any(row.get("type") == "session_meta" and isinstance(row.get("payload"), Mapping) for row in rows):
        return "Codex"
    spoken = (row for row in rows if row.get("type") in ("user", "assistant") and "sessionId" in row)
    return "Claude Code" if any(isinstance(row.get("message"), Mapping) for row in spoken) else ""


def found(rows: Sequence[Mapping]) -> bool:
    return bool(kind(rows))


def lines(trajectory: Trajectory) -> list[dict]:
    """The header, whose extra metadata the Hub ignores, and the messages."""
    head = {"type": "session", "harness": "sglib", "id": chat.identity(trajectory), "name": trajectory.goal}
    head[convention.KEY] = convention.episode(trajectory)
    return [head, *({"type": "message", "message": message} for message in chat.messages(trajectory))]


def write(trajectories: Sequence[Trajectory]) -> list[str]:
    """One file an episode."""
    return [
        "".join(chat.dump(line, f"episode {number}") + "\n" for line in lines(t))
        for number, t in enumerate(trajectories)
    ]


def read(rows: Sequence[Mapping]) -> list[Trajectory]:
    """One episode: the lines of one session."""
    shape = kind(rows)
    spoken = {"Codex": _codex, "Claude Code": _claude}.get(shape, _session)(rows)
    metas = (row["payload"] for row in rows if row.get("type") == "session_meta")
    names = [row.get("sessionId") or row.get("id") for row in (metas if shape == "Codex" else rows)]
    return [chat.read(spoken, shape, own=chat.own(rows[0]), task=str(next(filter(None, names), "")))]


def _session(rows: Sequence[Mapping]) -> Iterator[Said]:
    """The Hub's own format and Pi's, which is a tree: from the root to its last entry."""
    chat.check_version("version of the Pi session", rows[0].get("version", 1), 1, 3)
    entries = rows[1:]
    if any(row.get("parentId") is not None for row in entries):
        by_id, path = {row.get("id"): row for row in entries}, []
        at = entries[-1].get("id")
        while at in by_id:  # each entry once, so that a loop ends
            path.append(by_id.pop(at))
            at = path[-1].get("parentId")
        entries = path[::-1]
    for row in entries:
        if row.get("type") == "custom_message":
            yield Said("user", chat.text_of(row.get("content")))
        if row.get("type") != "message":
            continue
        message = row.get("message")
        role = message.get("role") if isinstance(message, Mapping) else None
        if role == "bashExecution":
            yield Said("user", f"$ {message.get('command', '')}\n{message.get('output', '')}")
        elif role in ("branchSummary", "compactionSummary"):
            yield Said("user", chat.text_of(message.get("summary")))
        else:
            yield chat.said(message)._replace(role=OBSERVED.get(role, role)) if role else chat.said(message)


def _claude(rows: Sequence[Mapping]) -> Iterator[Said]:
    """Claude Code's: the blocks of one answer stand on several lines with one id; side chains are other agents'."""
    last: tuple[Any, list[Said]] = (None, [])
    for row in rows:
        if row.get("type") not in ("user", "assistant") or row.get("isSidechain") or row.get("isMeta"):
            continue
        message = chat.said(row.get("message"))
        answer = row["message"].get("id") if message.role == "assistant" else None
        if last[1] and answer is not None and answer == last[0]:
            last[1].append(message)
            continue
        yield from _joined(last[1])
        last = (answer, [message])
    yield from _joined(last[1])


def _codex(rows: Sequence[Mapping]) -> Iterator[Said]:
    """Codex's: reasoning, messages and calls up to the next thing that is observed are one answer."""
    answer: list[Said] = []
    for row in rows:
        item = row.get("payload")
        if row.get("type") != "response_item" or not isinstance(item, Mapping):
            continue
        what = str(item.get("type"))
        if what == "message" and item.get("role") != "assistant":
            heard = chat.said(item)
        elif what.endswith("_output"):
            heard = Said("tool", chat.text_of(item.get("output")))
        else:
            heard = None
        if heard is not None:
            yield from _joined(answer)
            yield heard
            answer = []
        elif what == "message":
            answer.append(chat.said(item))
        elif what == "reasoning":
            answer.append(Said("assistant", "", chat.text_of(item.get("summary"))))
        elif what.endswith("_call"):
            call = item if "name" in item else {"name": what.removesuffix("_call"), "input": item.get("action", {})}
            answer.append(Said("assistant", chat.call_text(call)))
    yield from _joined(answer)


def _joined(parts: Sequence[Said]) -> list[Said]:
    """The parts of one answer as one."""
    if len(parts) < 2:
        return list(parts)
    text, thoughts = ("\n".join(filter(None, of)) for of in zip(*((p.text, p.reasoning) for p in parts), strict=True))
    return [Said("assistant", text, thoughts)]
