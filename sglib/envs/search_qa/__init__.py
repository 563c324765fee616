"""Search QA: find an answer over several searches. `ENVIRONMENT` is its card; worlds are drawn or read from files."""

from sglib.envs.search_qa.card import ENVIRONMENT, SearchQA
from sglib.envs.search_qa.engine import SearchEnv
from sglib.envs.search_qa.files import load_questions
from sglib.envs.search_qa.scores import exact_match, f1
from sglib.envs.search_qa.worlds import Corpus, Document, Question, World

__all__ = ["Corpus", "Document", "ENVIRONMENT", "Question", "SearchEnv", "SearchQA", "World", "exact_match", "f1",
           "load_questions"]  # fmt: skip
