"""How an answer is scored: exact match and F1 as SQuAD's evaluation defines them (Rajpurkar et al., 2016), and the word
F1 of IGPO's outcome reward (arXiv 2510.14967)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence


def normalized(text: str) -> str:
    """Lower case, without punctuation and the articles a, an, the; white space folded (SQuAD)."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(answer: str, gold: Sequence[str]) -> bool:
    """Whether an answer is one of the gold ones, normalised."""
    return normalized(answer) in set(map(normalized, gold))


def f1(answer: str, gold: Sequence[str]) -> float:
    """Best F1 of words over the gold answers, 0..1 (SQuAD: normalised words, as a multiset)."""
    return max((_f1(normalized(answer).split(), normalized(g).split()) for g in gold), default=0.0)


def igpo_f1(answer: str, gold: Sequence[str]) -> float:
    """IGPO's: lower case, punctuation becomes a space, articles stay; the best over the gold answers."""

    def words(text: str) -> list[str]:
        return re.sub(f"[{re.escape(string.punctuation)}]", " ", text.lower()).split()

    return max((_f1(words(answer), words(g)) for g in gold), default=0.0)


def _f1(said: list[str], gold: list[str]) -> float:
    if not said or not gold:
        return float(said == gold)
    common = sum((Counter(said) & Counter(gold)).values())
    return 2 * common / (len(said) + len(gold))
