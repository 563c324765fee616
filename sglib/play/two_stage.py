"""Episodes in which a turn is two answers to prompts of their own (`sglib.formats.two_stage`), turn by turn together.

An answer's context is written anew at each turn, so there is no text of token ids that a trainer could learn from:
such episodes can be looked at and evaluated, by models loaded here and by endpoints.
"""

from __future__ import annotations

from sglib.formats import two_stage
from sglib.models.endpoint import EndpointPolicy, without_thought
from sglib.play.answers import generate
from sglib.play.episode import Episode, Plan
from sglib.play.local import streams_of, tell_full
from sglib.play.progress_bar import progress_bar
from sglib.records import Trajectory


def play(policy, plan: Plan) -> list[Trajectory]:
    """Play all episodes of a plan, in order."""
    episodes, streams = [Episode(plan, i) for i in range(len(plan))], streams_of(plan)
    running = list(range(len(episodes)))
    for t in progress_bar(range(plan.turns), desc=policy.name, unit="turn", leave=False, delay=10):
        running = _with_room(policy, plan, episodes, running)
        if not running:
            break
        now, seeds = [episodes[i] for i in running], [[*streams[i], t] for i in running]
        ratings = [None] * len(now)
        if t:
            asked = [two_stage.rating_messages(plan.card, e.trajectory, e.shown()) for e in now]
            ratings = _ask(policy, plan, asked, [[*seed, 0] for seed in seeds])
        rated = [two_stage.parse(rating, "") for rating in ratings]
        asked = [
            two_stage.actor_messages(plan.card, e.trajectory, e.shown(), r.guidance, r.label)
            for e, r in zip(now, rated)
        ]
        answers = _ask(policy, plan, asked, [[*seed, 1] for seed in seeds])
        running = [
            i for i, rating, answer in zip(running, ratings, answers)
            if episodes[i].take(answer if rating is None else f"{rating}\n{answer}", two_stage.parse(rating, answer))
        ]  # fmt: skip
    return tell_full(policy, [episode.trajectory for episode in episodes])


def _ask(policy, plan: Plan, prompts: list[list[dict]], streams: list[list[int]]) -> list[str]:
    """An answer to each prompt, without thoughts."""
    given = prompts if isinstance(policy, EndpointPolicy) else [policy.prompt_ids(prompt) for prompt in prompts]
    answers = generate(
        policy, given, max_new_tokens=plan.answer_tokens, temperature=plan.temperature, streams=streams,
        batch_size=plan.options.batch_size,
    )  # fmt: skip
    return [without_thought(answer) for answer in answers]


def _with_room(policy, plan: Plan, episodes: list[Episode], running: list[int]) -> list[int]:
    """Those of the running episodes whose next prompts the model's context has room for. An endpoint says so itself."""
    if isinstance(policy, EndpointPolicy):
        return running
    kept = []
    for i in running:
        episode = episodes[i]
        prompt = two_stage.actor_messages(plan.card, episode.trajectory, episode.shown(), "x" * 400, "neutral")
        episode.trajectory.no_room = len(policy.prompt_ids(prompt)) + plan.answer_tokens > policy.limit
        kept += [] if episode.trajectory.no_room else [i]
    return kept
