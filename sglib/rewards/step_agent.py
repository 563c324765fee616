"""StepAgent: at each step the policy's action is compared with the expert's (arXiv 2411.03817).

First the policy imitates the expert (`expert_examples`). Then, in cycles, *inspection* lets it answer where the expert
answered (`inspect_steps`), and *reflection* learns from the difference, in one of two ways. Implicit: the expert's
action is preferred over the policy's own (`implicit_loss`; `sglib.training.dpo` trains on it). Inverse: the
policy is paid for what a discriminator takes for the expert's (`InverseReward`).

The paper's printed equations were not at hand; these are the standard forms of what it describes. Ours, besides what
is marked so below: the experts are planners on the fast engine, "optimal" with full knowledge or "explore" with no more
than the policy can have, and since they answer in any state, inspection can also follow the policy's own episodes.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from scipy.optimize import minimize
from scipy.special import expit

from sglib import envs, formats
from sglib.envs import Environment, Task, replay, task_of
from sglib.models.decoder import unwrapped
from sglib.models.policy import Policy, load_frozen
from sglib.play.answers import generate
from sglib.play.episode import Options, answer_tokens
from sglib.play.rollout import rollout
from sglib.records import Trajectory
from sglib.rewards.component import Component
from sglib.rewards.fields import Flag, Positive, Seed, Text
from sglib.rewards.repro import IGNORE

States = Literal["expert", "own"]  # where the two are compared: see `inspect_steps`


class Pair(NamedTuple):
    """A step at which the policy did something else than the expert.

    `prompt_ids` are the token ids of the whole conversation up to where the policy writes, "Action:" included;
    `expert_ids` and `agent_ids` the two answers, the stop token included. `turn` counts from 0.
    """

    prompt_ids: list[int]
    expert_ids: list[int]
    agent_ids: list[int]
    expert_action: str
    agent_action: str
    game_id: str
    turn: int


def expert_turns(game: Task, expert: str = "optimal", max_turns: int = 30) -> list[tuple[str, str]]:
    """The expert's episode: (observation, action) at each turn until the goal is reached, at most `max_turns`."""
    _check_expert(game, expert)
    env, turns = next(replay(game, ())), []
    while not env.done and len(turns) < max_turns:
        turns.append((env.observation.text, env.expert(expert)))
        env.step(turns[-1][1])
    return turns


def expert_answers(game: Task, actions: Sequence[str], expert: str = "optimal") -> list[str]:
    """What the expert would have done in the place of each action of an episode."""
    _check_expert(game, expert)
    return [env.expert(expert) for _, env in zip(actions, replay(game, actions))]


def _check_expert(game: Task, expert: str) -> None:
    card = envs.get(game.env)
    if expert not in card.experts:
        raise ValueError(f"expert={expert!r}: allowed for {card.name}: {', '.join(map(repr, card.experts)) or 'none'}")


def _answer(policy: Policy, action: str) -> list[int]:
    text = formats.format_response("act", action).removeprefix(formats.PREFIX["act"])
    return policy.encode(text) + policy.stop_ids[:1]


def conversation(
    policy: Policy, card: Environment, turns: Sequence[tuple[str, str]]
) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids of an episode in format `act`, and the [start, end) of each answer, its stop token included."""
    prefix, ids, spans = formats.PREFIX["act"], [], []
    for observation, action in turns:
        if ids:
            ids += policy.between_ids(card.shown(observation), prefix)
        else:
            ids = policy.prompt_ids(formats.opening("act", card, observation, policy.compact), prefix)
        start, ids = len(ids), ids + _answer(policy, action)
        spans.append((start, len(ids)))
    return ids, spans


def expert_examples(
    policy: Policy, games: Sequence[Task], expert: str = "optimal", max_turns: int = 30
) -> list[dict[str, list[int]]]:
    """The first stage, L = -E sum_t log pi(a^e_t | s_t): the expert's episodes for `sglib.training.sft.sft`.

    In the format `act`: the experts give no reasons and no estimates, which other formats would learn with the action.
    Returns one {"input_ids": (n,), "labels": (n,)} a game; labels are -100 on all but the expert's answers.
    """
    examples = []
    for game in games:
        ids, spans = conversation(policy, envs.get(game.env), expert_turns(game, expert, max_turns))
        labels = [IGNORE] * len(ids)
        for start, end in spans:
            labels[start:end] = ids[start:end]
        examples.append({"input_ids": ids, "labels": labels})
    return examples


def inspect_steps(
    policy: Policy, games: Sequence[Task], *, states: States = "expert", expert: str = "optimal", max_turns: int = 30,
    temperature: float = 1.0, seed: int = 0,
) -> tuple[list[Pair], dict[str, int]]:  # fmt: skip
    """Inspection: the expert's and the policy's action in the same states, one episode a game.

    Args:
        states: "expert" (as published): the first n steps of the expert's episode are given and the policy answers
            the next one, for every n. "own" (ours, as in DAgger): the policy plays, and the expert is asked in each
            state that it comes to.
        expert: "optimal" or "explore".
        max_turns: of an episode, at least 1.
        temperature, seed: of the policy's answers; same seed, same pairs.

    Returns:
        The pairs whose actions differ, game by game and turn by turn, and the number of steps `compared`, of which
        `identical` were dropped.
    """
    assert states in get_args(States) and max_turns >= 1
    steps: list[tuple] = []  # prompt, the expert's action, game, turn
    if states == "expert":
        for game in games:
            turns = expert_turns(game, expert, max_turns)
            ids, spans = conversation(policy, envs.get(game.env), turns)
            steps += [(ids[:start], turns[i][1], game.id, i) for i, (start, _) in enumerate(spans)]
        prompts = [ids for ids, *_ in steps]
        limit = max((answer_tokens(envs.get(game.env), "act", policy.compact) for game in games), default=1)
        answers = generate(policy, prompts, max_new_tokens=limit, temperature=temperature, seed=seed)
        actions = [formats.parse("act", f"{formats.PREFIX['act']} {text}").action for text in answers]
    else:
        episodes = rollout(
            policy, games, turns=max_turns, temperature=temperature, seed=seed, options=Options(truth=False)
        )
        actions = [turn.action for t in episodes for turn in t.turns]
        for game, t in zip(games, episodes, strict=True):
            for i, action in enumerate(expert_answers(game, [turn.action for turn in t.turns], expert)):
                steps.append((t.prompt_ids + t.completion_ids[: t.turns[i].span[0]], action, game.id, i))
    pairs = [
        Pair(ids, _answer(policy, wanted), _answer(policy, action), wanted, action, game, turn)
        for (ids, wanted, game, turn), action in zip(steps, actions, strict=True)
        if wanted != action
    ]
    return pairs, {"compared": len(steps), "identical": len(steps) - len(pairs)}


def implicit_loss(logp_expert, logp_agent, ref_expert, ref_agent, beta: float = 0.1) -> float:
    """L = -E log sigma(beta log pi(a^e|s) / pi_ref(a^e|s) - beta log pi(a^pi|s) / pi_ref(a^pi|s)).

    All (N,): log-probabilities of whole answers, the expert's and the policy's, under the policy and the reference.
    """
    ratio_expert, ratio_agent = np.subtract(logp_expert, ref_expert), np.subtract(logp_agent, ref_agent)
    return float(np.logaddexp(0.0, -beta * (ratio_expert - ratio_agent)).mean())  # -log sigma(x) = log(1 + e^-x)


def fit_discriminator(agent: np.ndarray, expert: np.ndarray, l2: float) -> tuple[np.ndarray, float]:
    """(w, b) of D(x) = sigmoid(w . x + b) that maximises E_pi[log D(x)] + E_e[log(1 - D(x))] - l2 / 2 |w * spread|^2 on
    the features of the policy's (N, d) and the expert's (M, d) steps, N and M at least 1.

    The penalty, on standardised features, is ours: with it there is one best D, wherever the search begins.
    """
    x = np.concatenate([agent, expert]).astype(np.float64)
    mean, spread = x.mean(0), np.where(x.std(0) > 1e-6, x.std(0), 1.0)
    x, counts = (x - mean) / spread, [len(agent), len(expert)]
    sign, share = np.repeat([1.0, -1.0], counts), np.repeat(np.divide(1.0, counts), counts)

    def loss(theta):
        z, w = sign * (x @ theta[:-1] + theta[-1]), theta[:-1]
        slope = -share * sign * expit(-z)
        return share @ np.logaddexp(0.0, -z) + l2 / 2 * w @ w, np.append(slope @ x + l2 * w, slope.sum())

    start, options = np.zeros(x.shape[1] + 1), {"maxiter": 2000, "ftol": 1e-14, "gtol": 1e-9}
    theta = minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x
    w = theta[:-1] / spread
    return w, float(theta[-1] - w @ mean)


@torch.no_grad()
def step_features(
    reader: Policy, card: Environment, turns: Sequence[tuple[str, str]], others: Sequence[str] = ()
) -> np.ndarray:
    """The last hidden state at the last token of each action, given all that was before; adapters are switched off.

    Returns (T, d) for T turns of (observation, action), then (T, d) for `others`, T further actions that are each read
    in the place of the one of their turn, in the same forward pass.
    """
    adapted = (inner := unwrapped(reader.model)) is not reader.model
    if not turns:
        return np.empty((0, inner.config.hidden_size), np.float32)
    ids, spans = conversation(reader, card, turns)
    answers = [_answer(reader, action) for action in others]
    positions, ends = [*range(len(ids))], [end for _, end in spans]
    visible = torch.ones([len(ids) + sum(map(len, answers))] * 2, dtype=torch.bool).tril()
    for (start, _), answer in zip(spans, answers):
        visible[len(ids) : len(ids) + len(answer), start : len(ids)] = False  # sees the past of its turn, and itself
        ids, positions = ids + answer, [*positions, *range(start, start + len(answer))]
        ends.append(len(ids))
    mask = torch.zeros(visible.shape, dtype=inner.dtype).masked_fill(~visible, torch.finfo(inner.dtype).min)
    ids, positions = torch.tensor([[ids], [positions]], device=reader.device)
    with reader.model.disable_adapter() if adapted else contextlib.nullcontext():
        hidden = inner.base_model(
            input_ids=ids, position_ids=positions, attention_mask=mask[None, None].to(reader.device), use_cache=False
        ).last_hidden_state[0]
    return hidden[[end - 2 for end in ends]].float().cpu().numpy()  # after the action comes the stop token


@dataclass(frozen=True)
class InverseReward(Component):
    """r = -log D(s, a), D being fitted to max_D E_pi[log D(s, a)] + E_e[log(1 - D(s, a))]: high where it looks expert.

    Ours: D is a logistic regression on a frozen model's `step_features`, which read observations and actions alone
    (format `act`), so that guidance gives nobody away. Each call fits it from scratch on the steps of half of the games
    (all, if there is one), and then rates every step; so a call depends on its episodes and the frozen weights alone.

    r >= 0 pays for long episodes, lost ones among them; `centered` takes that away. With `states="expert"`, D goes much
    by the state (the expert is never stuck); with "own", the states are the same, and only the action can tell.

    Attributes:
        states: the expert's steps are "expert" (as published), its episodes of the same games, or "own" (ours), its
            answers in the states of the policy's episodes.
        expert: "optimal" or "explore".
        features: the model that is read, of the episodes' environment, or a folder. None copies the policy's weights
            at the first call (with LoRA it is the policy, adapter off): one object for one run then, and none that is
            resumed.
        l2: see `fit_discriminator`, > 0.
        clip: r is clipped to [0, clip], > 0.
        centered: ours: log 2 less, so that a step that D cannot place (D = 1/2) is worth 0.
        seed: of the halves.

    `last_accuracy` is D's accuracy at the last call on the other half of the games, the mean of its shares of right
    answers on the policy's and on the expert's steps (chance 0.5); None before, and where there was one game.
    `turn.rewards["step_agent/D"]` is D of each step.
    """

    states: States = "expert"
    expert: str = "optimal"
    features: Text | None = None
    l2: Positive = 0.3
    clip: Positive = 5.0
    centered: Flag = False
    seed: Seed = 0
    name: Literal["step_agent"] = "step_agent"

    @property
    def knows(self) -> str:
        return "the hidden state" if self.expert == "optimal" else "an expert's view"

    def __post_init__(self):
        object.__setattr__(self, "_state", {"accuracy": None, "expert": {}})  # not a field: neither shown nor compared

    def lacks(self, card: Environment) -> str | None:
        there = ", ".join(map(repr, card.experts)) or "none"
        return None if self.expert in card.experts else f"expert={self.expert!r} (allowed: {there})"

    @property
    def last_accuracy(self) -> float | None:
        return self._state["accuracy"]

    def _reader(self, trajectories: Sequence[Trajectory], policy: Policy | None) -> Policy:
        if self.features is not None:
            return load_frozen(self.features, trajectories, policy)
        if policy is None:
            raise ValueError("policy: got None; allowed: a policy, or a component with `features`")
        if unwrapped(policy.model) is not policy.model:  # its adapters can be switched off
            return policy
        if "reader" not in self._state:
            self._state["reader"] = replace(policy, model=copy.deepcopy(policy.model.base_model).eval())
        return self._state["reader"]

    def _read(self, reader: Policy, t: Trajectory, games) -> tuple[np.ndarray, np.ndarray]:
        """Features of an episode's steps and of the expert's steps that belong to it."""
        card, known = envs.of(t), self._state["expert"]
        turns = [(turn.observation, turn.action) for turn in t.turns]
        if self.states == "own":
            others = expert_answers(task_of(t, games), [action for _, action in turns], self.expert)
            return tuple(np.split(step_features(reader, card, turns, others), 2))
        if t.game_id not in known:
            known[t.game_id] = step_features(reader, card, expert_turns(task_of(t, games), self.expert))
        return step_features(reader, card, turns), known[t.game_id]

    def __call__(self, trajectories: Sequence[Trajectory], policy=None, games=None) -> list[list[float]]:
        ids = sorted({t.game_id for t in trajectories if t.turns})
        if not ids:
            return [[] for _ in trajectories]
        reader = self._reader(trajectories, policy)
        steps = [self._read(reader, t, games) for t in trajectories]
        ids = np.random.default_rng(self.seed).permutation(ids).tolist()
        fitted, held_out = ids[: (len(ids) + 1) // 2], ids[(len(ids) + 1) // 2 :]

        def of(half: list[str]) -> list[np.ndarray]:
            chosen = [both for t, both in zip(trajectories, steps, strict=True) if t.game_id in half]
            return [np.concatenate(rows) for rows in zip(*chosen, strict=True)]

        w, b = fit_discriminator(*of(fitted), self.l2)
        self._state["accuracy"] = None
        if held_out:
            mine, experts = of(held_out)
            self._state["accuracy"] = float(((mine @ w + b >= 0).mean() + (experts @ w + b < 0).mean()) / 2)
        values = []
        for t, (mine, _) in zip(trajectories, steps, strict=True):
            logits = mine @ w + b
            for turn, d in zip(t.turns, expit(logits), strict=True):
                turn.rewards[f"{self.name}/D"] = float(d)
            rewards = np.clip(np.logaddexp(0.0, -logits), 0.0, self.clip)  # -log sigma(x) = log(1 + e^-x)
            values.append((rewards - (math.log(2) if self.centered else 0.0)).tolist())
        return values
