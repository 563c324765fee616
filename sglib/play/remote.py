"""The back end for models that answer over HTTP: an episode is a conversation of messages, without token ids."""

from __future__ import annotations

import itertools
import logging
import os
import tempfile
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from sglib import formats
from sglib.models.endpoint import EndpointError, EndpointPolicy, alternating, request_seed, without_thought
from sglib.play.episode import Episode, Plan
from sglib.play.progress_bar import progress_bar
from sglib.records import Trajectory, write_trajectories

log = logging.getLogger(__name__)


def play(policy: EndpointPolicy, plan: Plan) -> list[Trajectory]:
    """Play all episodes of a plan, in order; requests run side by side.

    An episode whose conversation has become too long for the model ends there, lost, as with a model that is loaded
    here. When a request fails, no further episode begins, those under way are played to their end, and the
    `EndpointError` holds all that were finished; it names a file that holds them too.
    """
    total = len(plan)
    workers = max(1, min(policy.concurrency, plan.options.batch_size, total))
    queue = iter(range(total))
    running: dict[Future, _Conversation] = {}
    finished: dict[int, Trajectory] = {}
    failures: list[EndpointError] = []
    count: Counter = Counter()
    pool = ThreadPoolExecutor(workers)

    def request(talk: _Conversation) -> None:
        messages, seed = talk.request(), request_seed(plan.seed, talk.episode.index, len(talk.episode.trajectory))
        future = pool.submit(
            policy.ask, messages, temperature=plan.temperature, max_new_tokens=plan.answer_tokens, seed=seed
        )
        running[future] = talk

    # Only requests run in threads. Environments are stepped here, one after the other: not all engines are safe in
    # threads, and Python would run them one at a time anyway.
    try:
        with progress_bar(desc=policy.model_name, total=total, unit="episode", leave=False) as bar:
            for index in itertools.islice(queue, workers):
                request(_Conversation(Episode(plan, index)))
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    talk = running.pop(future)
                    try:
                        text, cut = future.result()
                    except EndpointError as error:
                        if not (error.too_long and talk.episode.trajectory.turns):
                            failures.append(error)
                            continue
                        count["long"] += 1
                        talk.episode.trajectory.no_room = True
                    else:
                        count["answers"] += 1
                        count["cut"] += cut
                        count["disobeyed"] += not talk.take(text)
                        if not talk.episode.observation.done:
                            request(talk)
                            continue
                    finished[talk.episode.index] = talk.episode.trajectory
                    bar.update()
                    if not failures and (index := next(queue, None)) is not None:
                        request(_Conversation(Episode(plan, index)))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    _tell(policy, count, total, plan.answer_tokens)
    trajectories = [finished[index] for index in sorted(finished)]
    if failures:
        raise _with_finished(failures[0], trajectories, total)
    return trajectories


class _Conversation:
    """An episode as messages. `prefix` is what the next answer is asked to begin with."""

    def __init__(self, episode: Episode):
        self.episode, self.messages, self.prefix = episode, alternating(episode.opening()), ""

    def request(self) -> list[dict]:
        """The messages of the next request. What it asks the answer to begin with is not in later ones: the answers in
        the conversation begin so."""
        self.prefix = self.episode.plan.prefix(self.episode.index, len(self.episode.trajectory), "")
        if not self.prefix:
            return self.messages
        *before, last = self.messages
        request = f"Begin your answer with exactly this text, and continue it:\n{self.prefix}"
        return [*before, {**last, "content": f"{last['content']}\n\n{request}"}]

    def take(self, text: str) -> bool:
        """Hand an answer to the episode; whether it began as it was asked to."""
        episode = self.episode
        said, obeyed = begun(self.prefix, without_thought(text), episode.plan.format)
        episode.take(text.strip() if said == without_thought(text) else said, read=said)
        self.messages = [
            *self.messages,
            {"role": "assistant", "content": said or "(no answer)"},  # some servers refuse an empty message
            {"role": "user", "content": episode.shown()},
        ]
        return obeyed


def _tell(policy: EndpointPolicy, count: Counter, total: int, max_new_tokens: int) -> None:
    """Log what a reader of the results should know."""
    answers = count["answers"]
    for number, of, what in (
        (count["cut"], answers, f"answers were cut at {max_new_tokens} tokens"),
        (count["disobeyed"], answers, "answers did not begin as they were asked to"),
        (count["long"], total, "episodes ended early, the conversation being too long for the model"),
    ):
        if number:
            log.warning("%s: %d of %d %s", policy.name, number, of, what)


def begun(prefix: str, answer: str, format: str) -> tuple[str, bool]:
    """(the answer as it is read, whether it keeps to the text it was asked to begin with).

    An answer that begins with the prefix stays as it is. One that has no "Action:" of its own is taken for what
    follows the prefix. Any other stays as it is, too: what the model wrote instead is what counts.
    """
    if " ".join(answer.split()).lower().startswith(" ".join(prefix.split()).lower()):
        return answer, True
    if answer and formats.parse(format, answer).error == "missing_action":
        return f"{prefix} {answer}", True
    return answer, False


def _with_finished(failure: EndpointError, trajectories: list[Trajectory], total: int) -> EndpointError:
    """The failure with all episodes that were finished, which are also written to a file: the caller's process may end
    with the error, as papermill's does."""
    kept = f"{len(trajectories)} of {total} episodes were finished"
    if trajectories:
        handle, path = tempfile.mkstemp(prefix="sglib-episodes-", suffix=".jsonl")
        os.close(handle)
        kept += f" and are kept in {write_trajectories(Path(path), trajectories)}"
    return EndpointError(f"{failure}\n{kept}.", failure.status, trajectories)
