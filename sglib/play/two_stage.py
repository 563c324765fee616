"""Episodes in which a turn is two answers to prompts of their own (`sglib.formats.two_stage`), turn by turn together.

An answer's context is written anew at each turn, so there is no text of token ids that a trainer could learn from:
such episodes can be looked at and evaluated, by models loaded here and by endpoints.
"""

from __future__ import annotations

from sglib.formats import two_stage
from sglib.models.endpoint import EndpointPolicy, without_thought
from sglib.play.answers import generate
from sglib.play.episode import Episode, Plan
from sglib.play.local import streams_of
from sglib.play.progress_bar import progress_bar
from sglib.records import Trajectory


def play(policy, plan: Plan) -> list[Trajectory]:
    """Play all episodes of a plan, in order."""
    episodes, streams = [Episode(plan, i) for i in range(len(plan))], streams_of(plan)
    running = list(range(len(episodes)))
    for t in progress_bar(range(plan.turns), desc=policy.name, unit="turn", leave=False, delay=10):
        running, ratings = _with_room(policy, plan, episodes, running), {}
        if not running:
            break
        now = [episodes[i] for i in running]

        def ask(stage: int, prompts: list[list[dict]]) -> list[str]:
            mine = [[*streams[i], t, stage] for i in running]  # noqa: B023  (called within the turn)
            given = prompts if isinstance(policy, EndpointPolicy) else [policy.prompt_ids(p) for p in prompts]
            answers = generate(
                policy, given, max_new_tokens=plan.answer_tokens, temperature=plan.temperature, streams=mine,
                batch_size=plan.options.batch_size,
            )  # fmt: skip
            return [without_thought(answer) for answer in answers]

        if t:
            asked = [two_stage.rating_messages(plan.card, e.trajectory, e.shown()) for e in now]
            ratings = dict(zip(running, ask(0, asked)))
        guided = [two_stage.parse(ratings.get(i), "") for i in running]
        asked = [
            two_stage.actor_messages(plan.card, e.trajectory, e.shown(), g.guidance, g.label)
            for e, g in zip(now, guided)
        ]
        answers = ask(1, asked)
        running = [
            i for i, answer in zip(list(running), answers)
            if episodes[i].take(_both(ratings.get(i), answer), two_stage.parse(ratings.get(i), answer))
        ]  # fmt: skip
    return [episode.trajectory for episode in episodes]


def _both(rating: str | None, answer: str) -> str:
    return answer if rating is None else f"{rating}\n{answer}"


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
