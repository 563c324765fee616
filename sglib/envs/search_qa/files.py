"""Questions from the field's files: HotpotQA and 2WikiMultihopQA (JSON), MuSiQue and plain question-answer pairs (JSON
lines), and corpora of JSON lines ({"id", "contents": "\\"Title\\"\\ntext"})."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from sglib.envs.search_qa.worlds import Corpus, Document, Question


def load_questions(path: str | Path, corpus: str | Path | None = None) -> list[Question]:
    """The questions of a file, each over its own paragraphs, or all over the documents of `corpus`.

    Raises:
        ValueError: names file, entry and what is wrong with it.
    """
    shared = None if corpus is None else load_corpus(corpus)
    found = []
    for number, entry in _entries(Path(path)):
        where = f"{path}, entry {number}"
        try:
            found.append(_question(entry, f"{Path(path).stem}-{number}", shared))
        except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
            reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{where}: {reason}; allowed: HotpotQA, 2Wiki, MuSiQue, question and answers") from error
    return found


def load_corpus(path: str | Path) -> Corpus:
    """The documents of a corpus file; `ValueError` names the line that cannot be read."""
    documents = []
    for number, entry in _entries(Path(path)):
        contents = entry.get("contents") if isinstance(entry, Mapping) else None
        if not isinstance(contents, str) or not contents.strip():
            raise ValueError(f"{path}, entry {number}: no contents; allowed: {{'id', 'contents': '\"Title\"\\ntext'}}")
        title, _, text = contents.partition("\n")
        documents.append(Document(title.strip().strip('"'), text.strip()))
    return Corpus(documents)


def _entries(path: Path) -> Iterator[tuple[int, dict]]:
    text = path.read_text(encoding="utf-8")
    try:
        if text.lstrip().startswith("["):
            yield from enumerate(json.loads(text), 1)
            return
        number = 0
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield number, json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: no JSON, nor a JSON object a line: {error}") from error


def _question(entry: dict, id_: str, shared: Corpus | None) -> Question:
    gold: list[str] = []
    documents: list[Document] = []
    if "paragraphs" in entry:  # MuSiQue
        documents = [Document(p["title"], p["paragraph_text"]) for p in entry["paragraphs"]]
        gold = [p["title"] for p in entry["paragraphs"] if p.get("is_supporting")]
        answers = [entry["answer"], *entry.get("answer_aliases", [])] if entry.get("answerable", True) else ["unknown"]
    elif "context" in entry:  # HotpotQA, 2Wiki
        documents = [Document(title, " ".join(s.strip() for s in lines)) for title, lines in entry["context"]]
        gold = list(dict.fromkeys(title for title, _ in entry["supporting_facts"]))
        answers = [entry["answer"]]
    else:
        answers = entry["golden_answers"] if "golden_answers" in entry else [entry["answer"]]
    answers = [str(answer) for answer in answers if str(answer).strip()]
    if not answers:
        raise ValueError("no answer")
    if shared is None and not documents:
        raise ValueError("no paragraphs, and no corpus was given")
    kind = f"{len(gold)} step{'s' * (len(gold) != 1)}" if gold else "question"
    name = str(entry.get("id") or entry.get("_id") or id_)
    return Question(name, str(entry["question"]), tuple(answers), tuple(gold), kind, None, shared or Corpus(documents))
