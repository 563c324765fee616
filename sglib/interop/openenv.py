"""An environment of ours as an OpenEnv server, for whatever speaks OpenEnv (`pip install openenv-core`).

    import uvicorn
    from sglib.interop import openenv
    uvicorn.run(openenv.create_app("sokoban"), port=8000)

A client (`openenv.GenericEnvClient(base_url="http://localhost:8000").sync()`) calls `reset(seed=7)`, which starts the
seventh task of the split, and `step({"command": "look"})`. What no agent may know, such as the distance to the goal,
is in `state()`.
"""

from __future__ import annotations

import uuid

from sglib import envs
from sglib.envs.base import HasDistance


def create_app(name: str, *, split: str = "train", size=None, turns: int | None = None, sessions: int = 64):
    """The FastAPI application.

    Args:
        name: one of `sglib.envs.names()`, or the path of a .py file with an environment of yours.
        split, size: of the tasks.
        turns: an episode ends after that many actions; None takes the environment's own number.
        sessions: clients at a time, each with an environment of its own.

    Raises:
        ImportError: `openenv-core` is not installed.
    """
    try:
        from openenv.core.env_server import Action, Environment, Observation, State, create_fastapi_app
    except ImportError as error:
        raise ImportError("an OpenEnv server needs openenv-core: pip install openenv-core") from error

    card = envs.get(name)
    card.check_split(split)
    if sessions < 1:
        raise ValueError(f"sessions={sessions!r}: must be at least 1")

    class Command(Action):
        command: str

    class Told(Observation):
        text: str
        goal: str
        admissible: list[str]
        won: bool
        score: float
        valid: bool

    class Standing(State):
        task: str = ""
        distance: int | None = None

    class Game(Environment[Command, Told, Standing]):
        SUPPORTS_CONCURRENT_SESSIONS = True

        def __init__(self):
            super().__init__()
            self._env = card.make(max_steps=turns or card.turns)
            self._state = Standing()
            self._over = True

        def reset(self, seed: int | None = None, episode_id: str | None = None, **_) -> Told:
            (task,) = card.tasks(1, split=split, size=size, start=seed or 0)
            self._state = Standing(episode_id=episode_id or str(uuid.uuid4()), task=task.id)
            return self._told(self._env.reset(task))

        def step(self, action: Command, timeout_s: float | None = None, **_) -> Told:
            if self._over:
                raise ValueError("the episode is over, or was never begun: call reset first")
            return self._told(self._env.step(action.command))

        @property
        def state(self) -> Standing:
            return self._state

        def _told(self, seen) -> Told:
            self._over, self._state.step_count = seen.done, seen.steps
            if isinstance(self._env, HasDistance):
                self._state.distance = self._env.distance()
            return Told(
                text=seen.text, goal=seen.goal, admissible=list(seen.admissible), won=seen.won, score=seen.score,
                valid=seen.valid, done=seen.done, reward=seen.reward,
            )  # fmt: skip

    return create_fastapi_app(Game, Command, Told, max_concurrent_envs=sessions)
