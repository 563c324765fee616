"""How well a policy plays: success on a fixed list of games, with an interval, and what goes wrong."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from sglib import envs, formats
from sglib.envs.alfworld import Game
from sglib.envs.panels import panel_hash
from sglib.measure.stats import wilson
from sglib.models.policy import Policy
from sglib.play.progress_bar import progress_bar
from sglib.play.rollout import rollout
from sglib.records import LABELS, Trajectory


@dataclass
class Report:
    """What `evaluate` found. Rates are shares in 0..1.

    Attributes:
        n, wins, success: games, games won, share won.
        low, high: 95 % Wilson interval of `success`.
        by_task: task type -> (wins, games).
        turns: mean actions an episode.
        invalid: share of actions that were not admissible.
        looping: share of episodes with one action at least 5 times in a row or in at least half of at least 10 steps.
        wrong_object: share of episodes that picked up a thing of a kind that the task does not name.
        redundant: share of `go to` actions that return to a receptacle already seen open with nothing taken or put in
            between.
        failures: name of the parse failure -> count.
        labels: label -> share of turns, empty without guidance.
        agreement: share of positive and negative labels that agree with the oracle (see `label_agreement`), None
            without guidance.
        outcomes: 1 or 0 per game, in order, for paired comparison.
        trajectories: the episodes.
        panel: hash of the games (`sglib.envs.panels.panel_hash`); "" where the games were not at hand.
    """

    n: int
    wins: int
    success: float
    low: float
    high: float
    by_task: dict[str, tuple[int, int]]
    turns: float
    invalid: float
    looping: float
    wrong_object: float
    redundant: float
    failures: dict[str, int]
    labels: dict[str, float]
    agreement: float | None
    outcomes: list[int] = field(repr=False)
    trajectories: list[Trajectory] = field(repr=False)
    panel: str = ""

    def numbers(self) -> dict:
        """The scalar fields, for a metrics file."""
        names = "panel n wins success low high turns invalid looping wrong_object redundant agreement".split()  # noqa: SIM905
        return {name: getattr(self, name) for name in names} | {f"label_{k}": v for k, v in self.labels.items()}


def is_looping(trajectory: Trajectory) -> bool:
    """One action at least five times in a row, or in at least half of the steps (Self-Guide's definition; of ten
    steps or more)."""
    actions = [turn.action for turn in trajectory.turns]
    run = longest = 1
    for last, now in zip(actions, actions[1:]):
        run = run + 1 if now == last else 1
        longest = max(longest, run)
    return longest >= 5 or (len(actions) >= 10 and max(Counter(actions).values()) >= len(actions) / 2)


def took_wrong_object(trajectory: Trajectory) -> bool:
    """Whether a thing of a kind that the task sentence does not name was picked up; slicing needs a knife."""
    named = set(trajectory.goal.split())
    named |= {"knife", "butterknife"} if named & {"slice", "sliced"} else set()
    return any(t.valid and t.action.startswith("take ") and t.action.split()[1] not in named for t in trajectory.turns)


def redundant_visits(trajectory: Trajectory) -> tuple[int, int]:
    """(`go to` actions back to a receptacle already looked into since the last take, move or put (official games say
    "put"), all valid `go to` actions)."""
    seen: set[str] = set()
    again = total = 0
    texts = [turn.observation for turn in trajectory.turns[1:]] + [trajectory.final_observation]
    for turn, answer in zip(trajectory.turns, texts):
        verb, _, rest = turn.action.partition(" ")
        if not turn.valid:
            continue
        if verb in ("take", "move", "put"):
            seen = set()
        elif verb == "go":
            total += 1
            again += rest[3:] in seen
            if not answer.endswith("is closed."):
                seen.add(rest[3:])
        elif verb == "open":
            seen.add(rest)
    return again, total


def label_agreement(trajectories: Sequence[Trajectory]) -> tuple[int, int]:
    """(labels that agree with the oracle, labels counted). The label of turn t rates the step before it: positive
    agrees where
    the distance to the goal fell, negative where it did not fall; neutral labels and first turns are not counted."""
    agree = counted = 0
    for trajectory in trajectories:
        for last, now in zip(trajectory.turns, trajectory.turns[1:]):
            if now.label in ("positive", "negative") and last.distance is not None and now.distance is not None:
                counted += 1
                agree += (now.label == "positive") == (now.distance < last.distance)
    return agree, counted


def summarize(trajectories: Sequence[Trajectory]) -> Report:
    """The numbers of `Report` from recorded episodes.

    Raises:
        ValueError: there are none.
    """
    if not trajectories:
        raise ValueError("trajectories: none to summarize")
    turns = [turn for trajectory in trajectories for turn in trajectory.turns]
    outcomes = [int(t.won) for t in trajectories]
    low, high = wilson(sum(outcomes), len(outcomes))
    by_task: dict[str, list[int]] = defaultdict(list)
    for trajectory in trajectories:
        by_task[trajectory.task_type].append(int(trajectory.won))
    visits = [redundant_visits(t) for t in trajectories]
    labelled = [turn.label for turn in turns if turn.label is not None]
    agree, counted = label_agreement(trajectories)
    n = len(trajectories)
    return Report(
        n=n,
        wins=sum(outcomes),
        success=sum(outcomes) / n,
        low=low,
        high=high,
        by_task={task: (sum(w), len(w)) for task, w in sorted(by_task.items())},
        turns=len(turns) / n,
        invalid=sum(not turn.valid for turn in turns) / max(1, len(turns)),
        looping=sum(map(is_looping, trajectories)) / n,
        wrong_object=sum(map(took_wrong_object, trajectories)) / n,
        redundant=sum(a for a, _ in visits) / max(1, sum(b for _, b in visits)),
        failures=dict(Counter(turn.parse_error for turn in turns if turn.parse_error)),
        labels={label: labelled.count(label) / len(labelled) for label in LABELS} if labelled else {},
        agreement=agree / counted if counted else None,
        outcomes=outcomes,
        trajectories=list(trajectories),
    )


def evaluate(
    policy: Policy,
    games: Sequence,
    *,
    format: str = "act",
    temperature: float = 0.4,
    max_turns: int = 30,
    seed: int = 0,
    **options,
) -> Report:
    """Play each game exactly once and sum up; the result does not depend on the order of the games. Further options go
    to `sglib.rollout`.

    Args:
        policy, games, format, temperature, max_turns, seed: see `sglib.rollout`.

    Raises:
        ValueError: a bad argument, no games, or a game that is there twice.
    """
    if not games:
        raise ValueError("games: none to evaluate on")
    if "group_size" in options:
        raise ValueError(f"group_size={options['group_size']!r}: each game is played once")
    known = panel_hash(games)
    report = summarize(
        rollout(policy, games, format=format, temperature=temperature, max_turns=max_turns, seed=seed, **options)
    )
    report.panel = known
    return report


def progress_error(trajectories: Sequence[Trajectory]) -> float | None:
    """Mean |stated - true| progress in points of 0..100, over turns that state a number; None where none does.

    True progress before an action is 100 (1 - d_t / d_0), clipped to 0..100, by the oracle.

    Raises:
        ValueError: a trajectory was recorded without oracle distances.
    """
    errors = []
    for trajectory in trajectories:
        truth = [0.0, *formats.true_progress(trajectory)]
        errors += [abs(turn.progress - x) for turn, x in zip(trajectory.turns, truth) if turn.progress is not None]
    return sum(errors) / len(errors) if errors else None


def replay_on_reference(trajectories: Sequence[Trajectory], games: Sequence[Game] = ()) -> list[str]:
    """Replay recorded episodes action by action on TextWorld: every observation, which actions were admissible, and the
    outcome must be the same.

    Args:
        trajectories: recorded on any engine.
        games: the games that they were played on; those that were generated here are made again and need not be given.

    Returns:
        One line for each episode that differs, saying where it first does; empty if none does.

    Raises:
        ValueError: a trajectory's game is neither among `games` nor one that was generated here.
    """
    given = {game.id: game for game in games}
    by_id = {t.game_id: envs.alfworld.game_of(t, given) for t in trajectories}
    reference = envs.make("alfworld", engine="textworld")
    replayed = progress_bar(trajectories, desc="replay", leave=False)
    found = [_first_difference(reference, by_id[t.game_id], t) for t in replayed]
    return [difference for difference in found if difference]


def _first_difference(reference: envs.TextEnv, game: Game, trajectory: Trajectory) -> str | None:
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
