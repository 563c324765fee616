"""Recorded episodes replayed on TextWorld, the reference engine."""

from __future__ import annotations

from collections.abc import Sequence

from sglib.envs import task_of
from sglib.envs.alfworld.games import Game
from sglib.envs.alfworld.textworld import TextWorldAlfworld
from sglib.records import Trajectory


def replay_on_reference(trajectories: Sequence[Trajectory], games: Sequence[Game] = ()) -> list[str]:
    """Replay recorded episodes action by action on TextWorld: every observation, which actions were admissible, and the
    outcome must be the same.

    `trajectories` were recorded on any engine. `games` are those that they were played on; one that was generated here
    is made again and need not be given, any other that is missing is a ValueError.

    Returns one line for each episode that differs, saying where it first does.
    """
    given = {game.id: game for game in games}
    by_id = {t.game_id: task_of(t, given) for t in trajectories}
    reference = TextWorldAlfworld()
    found = [_first_difference(reference, by_id[t.game_id], t) for t in trajectories]
    return [difference for difference in found if difference]


def _first_difference(reference: TextWorldAlfworld, game: Game, trajectory: Trajectory) -> str | None:
    observation = reference.reset(game)
    texts = [turn.observation for turn in trajectory.turns] + [trajectory.final_observation]
    for t, text in enumerate(texts):
        where = f"{trajectory.game_id}, turn {t}"
        if observation.text != text:
            return f"{where}: {text!r} was recorded, the reference says {observation.text!r}"
        if t < len(trajectory.turns):
            turn = trajectory.turns[t]
            if turn.valid != (turn.action in observation.admissible):
                return f"{where}: {turn.action!r} was recorded as valid={turn.valid}, not so on the reference"
            observation = reference.step(turn.action)
    if observation.won != trajectory.won:
        return f"{trajectory.game_id}: won={trajectory.won} was recorded, the reference says {observation.won}"
    return None
