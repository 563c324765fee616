"""One episode: an environment, a way of acting, a record. What writes the answers is a back end's business (`local`,
`remote`): it turns the context of an episode into the next answer and hands it to `Episode.take`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sglib import formats
from sglib.envs.base import Environment, HasDistance, HasProgress, Task
from sglib.records import Observation, Trajectory, Turn

LARGE_MODEL_TOKENS = 200  # an answer's limit for models to which formats are explained in words
THINKING_TOKENS = 1000  # where it thinks before it answers


@dataclass(frozen=True)
class Fork:
    """A recorded episode up to one of its turns, from where it is played on. What was recorded before that stays."""

    trajectory: Trajectory  # with its token ids (not of an endpoint)
    turn: int  # 0..T-1, written in this episode (one that is itself a fork begins with turns that were not)
    response: str | None = None  # this turn's answer, word for word, its prefix included; None: the policy writes it
    # How this turn's answer begins, for the policy to go on; None is the format's own, "" nothing. A guidance is edited
    # with "Guidance: ... Label: positive Action:" and deleted with "Action:".
    prefix: str | None = None

    def __post_init__(self):
        if not 0 <= self.turn < len(self.trajectory):
            raise ValueError(f"turn={self.turn!r}: must be in 0..{len(self.trajectory) - 1}, of the recorded turns")
        start, end = self.trajectory.turns[self.turn].span
        if start == end:  # an endpoint's, or a turn that this episode took over as its own prompt
            raise ValueError(f"turn={self.turn!r}: this turn was not written in this episode and has no tokens in it")
        if self.response is not None and self.prefix is not None:
            raise ValueError("prefix: has no effect where a response is given; allowed: one of the two")


@dataclass(frozen=True)
class Options:
    """The rarely needed settings of a rollout."""

    batch_size: int = 256  # episodes side by side in a thread, at most; changes speed and memory, not results
    truth: bool = True  # record the true distance to the goal, or the true progress, where the environment has it
    # Tokens that an answer may have; None takes what the format and the environment need (200 for models to which
    # formats are explained in words).
    max_new_tokens: int | None = None
    # Tokens that an episode may have, prompt included; None is the model's context. An episode that has no room for
    # another whole answer ends before it (`Trajectory.no_room`).
    max_tokens: int | None = None
    example: str | None = None  # a worked example shown before each episode (`sglib.formats.example_message`)
    # (episode index, turn number) -> how the answer begins, in place of the format's own prefix
    answer_prefix: Callable[[int, int], str] | None = None
    # One for each task; its episodes begin with the fork's recorded turns. All that was written before is their prompt;
    # the spans of recorded turns are (0, 0).
    forks: Sequence[Fork] | None = None
    # List what can be done now after each observation, as the papers' prompts do; not for the shipped small models,
    # which have never read such a list. `Turn.observation` stays the environment's own text.
    show_actions: bool = False
    make: Mapping[str, Any] = field(default_factory=dict)  # further options for the environment's `make`


@dataclass(frozen=True)
class Plan:
    """What all episodes of one rollout have in common: its arguments, checked."""

    card: Environment
    tasks: Sequence[Task]
    format: str
    turns: int
    temperature: float
    seed: int
    group: int
    options: Options
    compact: bool
    answer_tokens: int

    def __len__(self) -> int:
        return len(self.tasks) * self.group

    def prefix(self, index: int, turn: int, default: str) -> str:
        """The part of an answer that is given."""
        given = self.options.answer_prefix
        return given(index, turn) if given else default


def answer_tokens(card: Environment, format: str, compact: bool) -> int:
    """Tokens that an answer needs: of the small model the action's and the format's own, of another one 200."""
    return card.answer_tokens + formats.FORMATS[format].TOKENS if compact else LARGE_MODEL_TOKENS


class Episode:
    """One running episode: the environment, the last `observation`, the `trajectory` so far."""

    def __init__(self, plan: Plan, index: int):
        task, group = plan.tasks[index // plan.group], index // plan.group
        self.plan, self.index = plan, index
        self.env = plan.card.make(max_steps=plan.turns, **plan.options.make)
        self.observation = self.env.reset(task)
        self.trajectory = Trajectory(
            task.id, task.task_type, self.observation.goal, plan.format, group=group, seed=plan.seed,
            origin=task.origin, env=task.env, final_observation=self.observation.text,
        )  # fmt: skip
        truth = plan.options.truth
        self._has_distance = truth and isinstance(self.env, HasDistance)  # asked once: it is needed at every step
        self._has_progress = truth and isinstance(self.env, HasProgress)
        self._look()

    def _look(self) -> None:
        """Note how the task stands now."""
        trajectory, observation = self.trajectory, self.observation
        trajectory.won, trajectory.score = observation.won, observation.score
        trajectory.final_observation = observation.text
        if self._has_distance:
            trajectory.final_distance = self.env.distance()
        elif self._has_progress:
            trajectory.final_truth = self.env.progress()

    def opening(self) -> list[dict]:
        """The messages before the first answer."""
        plan = self.plan
        return formats.opening(plan.format, plan.card, self._told(), plan.compact, plan.options.example)

    def shown(self) -> str:
        """The present observation as the policy reads it."""
        return self.plan.card.shown(self._told())

    def _told(self) -> str:
        text, actions = self.observation.text, self.observation.admissible
        return f"{text}\nAdmissible actions: {', '.join(actions)}" if self.plan.options.show_actions else text

    def take(self, response: str, read: str | formats.Parsed | None = None, span: tuple[int, int] = (0, 0)) -> bool:
        """Parse an answer, act on it, record the turn; whether the episode goes on. `read` is the text that is parsed,
        where that is not the recorded one, or what was read; `span` is [start, end) of the answer's tokens in the
        trajectory."""
        trajectory, before = self.trajectory, self.observation
        parsed = read
        if not isinstance(read, formats.Parsed):
            parsed = formats.parse(trajectory.format, response if read is None else read)
        self.observation = now = self._step(parsed.action)
        trajectory.turns.append(
            Turn(
                before.text, response, parsed.action, now.valid, parsed.guidance, parsed.label, parsed.progress,
                parsed.error, now.reward, trajectory.final_distance, span=span, truth=trajectory.final_truth,
            )
        )  # fmt: skip
        self._look()
        return not now.done

    def follow(self, turns: Sequence[Turn]) -> None:
        """Take the actions of recorded turns, which become this episode's own, without their rewards and tokens."""
        for turn in turns:
            self.trajectory.turns.append(replace(turn, rewards={}, advantage=None, span=(0, 0)))
            self.observation = self._step(turn.action)
        self._look()

    def _step(self, action: str) -> Observation:
        """What the environment answers; to a thought that takes an action's place (`react_sparse`) what the format
        does. The environment counts it as a turn, in which nothing happens."""
        observation, instead = self.env.step(action), formats.shown_instead(self.plan.format, action)
        return observation if instead is None else observation._replace(text=instead, valid=True)
