"""Many environments stepped together in one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sglib.envs.base import TextEnv
from sglib.records import Observation


class BatchEnv:
    """N environments behind one `reset` and one `step`; lists go in, lists come out, in the same order.

    Args:
        make_env: makes one environment, e.g. `functools.partial(sglib.envs.make, "sokoban", max_steps=15)`.

    Environments are kept from one `reset` to the next. `batch.envs[i]` is the i-th (for its oracle, snapshot, expert).
    """

    def __init__(self, make_env: Callable[[], TextEnv]):
        self.make_env = make_env
        self.envs: list[TextEnv] = []
        self.observations: list[Observation] = []

    def __len__(self) -> int:
        return len(self.observations)

    def reset(self, games: Sequence) -> list[Observation]:
        """Start one episode a game; the number of games may differ from one call to the next."""
        while len(self.envs) < len(games):
            self.envs.append(self.make_env())
        del self.envs[len(games) :]
        self.observations = [env.reset(game) for env, game in zip(self.envs, games)]
        return list(self.observations)

    def step(self, actions: Sequence[str | None]) -> list[Observation]:
        """One action each. Episodes that are done, and those whose action is None, stay as they are: their last
        observation is handed back once more.

        Raises:
            ValueError: another number of actions than of episodes; nothing was stepped.
        """
        if len(actions) != len(self.observations):
            raise ValueError(f"actions: {len(actions)} were given for {len(self.observations)} episodes")
        self.observations = [
            last if action is None or last.done else env.step(action)
            for env, action, last in zip(self.envs, actions, self.observations)
        ]
        return list(self.observations)

    @property
    def done(self) -> bool:
        """Whether every episode is over."""
        return all(observation.done for observation in self.observations)
