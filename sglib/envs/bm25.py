"""Retrieval by BM25 (`bm25s`), for environments in which an agent searches."""

from __future__ import annotations

import re
from collections.abc import Sequence

import bm25s
import numpy as np


class Index:
    """Texts that can be searched: lower case, words of letters and digits, no stop words, no stemming."""

    def __init__(self, texts: Sequence[str], k1: float = 1.5, b: float = 0.75):
        self._index = bm25s.BM25(k1=k1, b=b)
        self._index.index([_words(text) or ["-"] for text in texts], show_progress=False)

    def search(self, query: str, k: int) -> list[int]:
        """Numbers of the best `k` texts that have a word of the query; equal ones in their order."""
        words = [word for word in _words(query) if word in self._index.vocab_dict]
        if not words:
            return []
        scores = self._index.get_scores(words)
        best = np.lexsort((np.arange(len(scores)), -scores))[:k]
        return [int(i) for i in best if scores[i] > 0]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
