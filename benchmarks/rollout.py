"""How fast does `sglib.rollout` play episodes beside TRL's own multi-turn generation, and beside `generate` per turn?

    python benchmarks/rollout.py --out rollout.json        # every cell is written when it is measured: started again
                                                           # after an interruption, it goes on where it was
    python benchmarks/rollout.py --list                    # the names of the cells
    python benchmarks/rollout.py --only "c *" "? base 64*" # the cells whose names match
    python benchmarks/rollout.py --growth                  # and how the time of `sglib.rollout` grows
    python benchmarks/rollout.py --quick                   # smoke run, under two minutes; too small to judge by

Method (a) is TRL's code from end to end: `GRPOTrainer` with an `environment_factory`, its `_generate` and its tool loop
on transformers' `generate`. The small policies write no JSON, so TRL is given a tokenizer that speaks their language:

- The chat template shows what a tool returns as the user messages that the policies were trained on, and writes
  "Action:", the given beginning of every answer, wherever TRL asks for one: the tokens are those of (b) and (c).
- TRL asks the tokenizer's `parse_response` what an answer says. Ours takes the command that `sglib.formats.parse` finds
  and makes it a call of `step`, the environment's one tool. transformers' own would decode the whole conversation for
  every answer; ours does not, which is in TRL's favour.
- TRL's loop ends an episode when an answer calls no tool, and asks for an answer to the last observation too: a tool
  cannot say that the game is over. Ours ends its last observation with the stop token, and an answer to that is read as
  no call. So each episode has one answer more, on which nothing acts: part of the time of (a), not of its tokens.
- `max_completion_length` is TRL's limit for all that follows the prompt, and its default for a single answer, which
  `generation_kwargs` sets to ours. Behind an answer that was cut off there TRL writes no end of turn; (b) and (c) do.

What is measured, and with which models, is printed with the results.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import fnmatch
import gc
import importlib.metadata
import json
import math
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
from tqdm.auto import tqdm
from transformers import GenerationConfig, PreTrainedTokenizerFast

import sglib
from sglib import envs, formats
from sglib.models.policy import SPECIAL, Policy, build_model
from sglib.play.episode import answer_tokens
from sglib.records import write_atomic

CARD = envs.get("alfworld")
ANSWER = answer_tokens(CARD, "act", True)  # tokens that an answer may have
METHODS = {"a": "TRL's tool loop", "b": "generate per turn", "c": "sglib.rollout"}
# name -> hidden size, layers, heads; None: as shipped
MODELS = {"0.6M": (128, 3, 4), "base": None, "2M": (192, 5, 6), "10M": (384, 6, 12)}
GOAL_TRL, GOAL_BOUND = 8, 3
TRL = importlib.metadata.version("trl")
DEFINITIONS = f"""\
Wall time, in seconds of perf_counter, all of torch's threads, OMP_WAIT_POLICY=PASSIVE, fp32. Every cell runs in a
process of its own; before the clock starts it plays one group for at most 2 turns with the same method. (a) and (b)
are played once; of (c) "s" is the median of the repetitions (the same seed: the same episodes), their range behind it.
Episodes  the same generated games (at most 12 receptacles, groups of 8 unless said) on the fast engine, at most 30
          turns, format "act", temperature 1, at most {ANSWER} tokens an answer; (a) and (b) play the episodes of a cell
          in one batch. An episode ends when its game is won. No oracle. The clock covers engine, tokenizing, parsing.
a         TRL {TRL}: from the call of GRPOTrainer._generate_and_score_completions, which resets the environments,
          until its _generate has played the batch; scoring and everything after that are not run. fp32, no gradient
          checkpointing, no vLLM. The whole conversation is read again at every turn.
b         every turn the whole conversations of the episodes still running, left-padded, go through the model's
          `generate` (whose cache lives for one answer); conversations, parsing and engine are (c)'s.
c         sglib.rollout(policy, games, group=8, format="act"), without the truth.
Models    "base" is the shipped one. "2M" and "10M" are the base model widened and deepened so that they compute the
          same function with more arithmetic (new channels carry zeros, new layers and heads write nothing). Untrained
          models of that size would hardly ever end an answer or act validly; these play the base model's episodes.
          "0.6M" is the base model without its last layer; it plays worse (see "won"), equally so for every method.
tokens    policy tokens of answers that were acted on. tokens/s counts these alone.
read      tokens fed to the model that it did not just write, padding not counted, per policy token. (a), (b): the
          conversation before each answer, for each answer, with (a) also for the one on which nothing acts. (c),
          counted from the recorded episodes: each observation once, and the prompt once for each group.
peak MB   ru_maxrss of the cell's process (1e6 bytes), nothing subtracted: with Python, torch and transformers, and for
          (a) TRL; "before" is the same after the warm-up.
turns, tokens an episode, won: that the methods do the same work. They sample with other random numbers, so these agree
          only as far as chance lets them. Without chance: "Greedy" plays episodes with all three methods, taking the
          most likely token, and counts those whose actions are the same from beginning to end.
Bound     what must be computed: every token of the recorded episodes once (a group's prompt once, the last token of an
          episode never), 2 x the parameters of the layers, attention 4 x heads x head size x context a layer. Only
          where a token is sampled: the output layer, and all of the last layer but keys and values. Divided by the
          rate of a 2048 x 2048 x 2048 fp32 matrix product (best of 5), and by that of the layers' own products, one row
          an episode (a step of the whole batch; all threads together or each for itself on a share of the rows, the
          better, best of 5); both measured in the cell's process right after the episodes. Nothing is granted for
          norms, softmax, sampling, memory, the engine.
Goals     base, 64 episodes: (c) plays at least {GOAL_TRL} x as many episodes/s as (a); it takes at most {GOAL_BOUND} x
          the bound at the rate of 2048 x 2048 x 2048."""
GROWTH = """\
Growth    (c) alone, base model, 64 episodes of at most 30 turns in groups of 8 but for what the line varies. The
          exponent is the slope of log time over log of what varies (least squares, its standard error behind it), time
          being the median of the repetitions. Episodes that are won end early: more turns allowed are not as many more
          played. Of the models, 0.6M plays other episodes than the rest."""
LINE = "{:<14}{:>9}{:>9}  {:<22}{:>8}{:>8}{:>7}{:>9}{:>9}  {:>6}{:>7}{:>10}{:>8}{:>8}"
HEAD = ("", "episodes", "s", "range", "ep/s", "tok/s", "read", "peak MB", "before", "turns", "tokens", "won", "/ (a)",
        "/ (b)")  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """What is measured in one process."""

    method: str
    model: str
    episodes: int
    turns: int = 30
    group: int = 8

    @property
    def name(self) -> str:
        return f"{self.method} {self.model} {self.episodes} turns {self.turns} group {self.group}"


@dataclass
class Played:
    """A batch of episodes, and what playing it took. `read` and `tokens` as in the definitions."""

    seconds: float
    cpu: float
    actions: list[list[str]]
    won: list[bool]
    tokens: int
    read: int
    unused: int = 0  # tokens of answers that nothing acted on
    trajectories: list | None = None


# -- the models --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def policy_of(name: str) -> Policy:
    """A policy of another size that computes what the base model does (or, with fewer layers, what is left of it)."""
    base = sglib.load_policy("base", device="cpu")
    if MODELS[name] is None:
        return base
    hidden, layers, heads = MODELS[name]
    model = build_model(base.tokenizer, hidden=hidden, layers=layers, heads=heads, kv_heads=heads // 2).eval()
    old, narrow = base.model.state_dict(), base.model.config.hidden_size
    for key, weight in model.state_dict().items():
        if key.rpartition(".weight")[0].endswith(("embed_tokens", "lm_head", "o_proj", "down_proj")):
            weight.zero_()  # what would write into new channels, or for new heads, units and layers
        if key in old:
            weight[tuple(slice(size) for size in old[key].shape)] = old[key]
            if weight.shape == (hidden,):  # a norm divides by the root of the mean over all channels, empty ones too
                weight *= math.sqrt(narrow / hidden)
    model.config.rms_norm_eps *= narrow / hidden
    for module in model.modules():
        if hasattr(module, "variance_epsilon"):
            module.variance_epsilon = model.config.rms_norm_eps
    return Policy(model, base.tokenizer, base.compact, name)


# -- (a) TRL -----------------------------------------------------------------------------------------------------------

# BEFORE role BEHIND text, then END behind an answer, or behind every message (EACH)
TEMPLATE = (
    "{% for m in messages %}BEFORE{{ 'user' if m['role'] == 'tool' else m['role'] }}BEHIND"
    "{% if m['role'] == 'assistant' %}Action:{% endif %}{{ m['content'] }}"
    "{% for call in m['tool_calls'] or [] %}{{ call.function.name }}{{ call.function.arguments }}{% endfor %}"
    "{% if EACH or m['role'] == 'assistant' %}END{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}BEFOREassistantBEHINDAction:{% endif %}"
)


class ToolTokenizer(PreTrainedTokenizerFast):
    """A policy's tokenizer as TRL's tool loop needs it. Set `policy`, and `over`, the end of a conversation that waits
    for the answer on which nothing acts."""

    def is_over(self, ids: list[int]) -> bool:
        return ids[-len(self.over) :] == self.over

    def parse_response(self, response, schema=None, *, prefix=None, tools=None) -> dict:
        text = self.policy.decode(response)
        message = {"role": "assistant", "content": text}
        if not self.is_over(prefix):
            command = formats.parse("act", f"{formats.PREFIX['act']} {text}".strip()).action
            call = {"type": "function", "function": {"name": "step", "arguments": {"command": command}}}
            message |= {"content": "", "tool_calls": [call]}
        return message


def tool_tokenizer(policy: Policy) -> ToolTokenizer:
    """Of a small policy, or of a model that has a token before the role and one behind every message."""
    if policy.compact:
        how = {"pad_token": SPECIAL[0], "unk_token": SPECIAL[1], "eos_token": SPECIAL[2]}
        how["additional_special_tokens"] = list(SPECIAL[3:])
        before, behind, end, each = "<|", "|>", SPECIAL[2], ""
    else:
        own = policy.tokenizer
        asked = own.apply_chat_template([{"role": "user", "content": ""}], tokenize=False, add_generation_prompt=True)
        before = asked.rpartition("assistant")[0].rpartition("\n")[2]
        how = {"pad_token": own.pad_token, "eos_token": own.decode(policy.stop_ids[0])}
        how["additional_special_tokens"] = [before]
        behind, end, each = "\n", how["eos_token"] + "\n", "not "
    parts = {"BEFORE": before, "BEHIND": behind, "END": end, "EACH": each + "false"}
    template = re.sub("|".join(parts), lambda found: parts[found[0]], TEMPLATE)
    tokenizer = ToolTokenizer(
        tokenizer_object=policy.tokenizer.backend_tokenizer, chat_template=template, padding_side="left",
        clean_up_tokenization_spaces=False, model_max_length=8192, **how,
    )  # fmt: skip
    tokenizer.policy = policy
    tokenizer.over = tokenizer.encode(f"{how['eos_token']}{end if each else ''}{before}assistant{behind}Action:")
    tokenizer.response_template = {}  # not None: TRL calls `parse_response`
    return tokenizer


class House:
    """A game as TRL's environments are: `reset`, `get_reward`, and every other public method is a tool."""

    def __init__(self, games, turns: int, end: str):
        self._games, self._turns, self._end = games, turns, end

    def reset(self, game: int, **_) -> str:
        self._env, self._actions = envs.make("alfworld", max_steps=self._turns), []
        return self._text(self._env.reset(self._games[game]))

    def step(self, command: str) -> str:
        """
        Act in the household.

        Args:
            command: What to do.

        Returns:
            What is seen then.
        """
        self._actions.append(command)
        return self._text(self._env.step(command))

    def get_reward(self) -> float:
        return float(self._seen.won)

    def _text(self, observation) -> str:
        self._seen = observation
        return CARD.shown(observation.text) + (self._end if observation.done else "")


class _Stop(Exception):
    """The batch is played: TRL is not asked to score it."""


def play_trl(policy, games, group: int, turns: int, seed: int, greedy: bool = False, limit: int = ANSWER) -> Played:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from sglib.training.shared import restore_after_training

    class Trainer(GRPOTrainer):
        """TRL's, stopped when it has played, and with a count of the tokens."""

        def _generate(self, prompts):
            super()._generate(prompts)
            raise _Stop

        def _generate_single_turn(self, prompt_ids, *args, **kwargs):
            answers, logprobs = super()._generate_single_turn(prompt_ids, *args, **kwargs)
            over = [self.processing_class.is_over(ids) for ids in prompt_ids]
            self.read += sum(map(len, prompt_ids))
            self.acted += sum(len(ids) for ids, late in zip(answers, over) if not late)
            self.unused += sum(len(ids) for ids, late in zip(answers, over) if late)
            return answers, logprobs

    episodes = len(games) * group
    prompt = formats.opening("act", CARD, "", policy.compact)
    rows = [{"prompt": prompt, "game": i // group} for i in range(episodes)]
    with tempfile.TemporaryDirectory() as folder, restore_after_training(policy.model):
        config = GRPOConfig(
            output_dir=folder, save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True, bf16=False,
            seed=seed, gradient_checkpointing=False, use_vllm=False, dataloader_pin_memory=False,
            per_device_train_batch_size=episodes, num_generations=group, max_completion_length=4096,
            temperature=1.0, top_p=1.0, top_k=1 if greedy else 0,
            generation_kwargs={"max_new_tokens": limit}, max_tool_calling_iterations=turns,
        )  # fmt: skip
        tokenizer = tool_tokenizer(policy)
        trainer = Trainer(
            model=policy.model, args=config, processing_class=tokenizer, train_dataset=Dataset.from_list(rows),
            environment_factory=lambda: House(games, turns, tokenizer.eos_token),
        )  # fmt: skip
        trainer.read = trainer.acted = trainer.unused = 0
        torch.manual_seed(seed)
        gc.collect()
        start, cpu = time.perf_counter(), time.process_time()
        with contextlib.suppress(_Stop):
            trainer._generate_and_score_completions(copy.deepcopy(rows))
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    houses = trainer.environments
    actions, won = [house._actions for house in houses], [house._seen.won for house in houses]
    return Played(seconds, cpu, actions, won, trainer.acted, trainer.read, trainer.unused)


# -- (b) generate per turn, (c) ours -----------------------------------------------------------------------------------


class _Conversation:
    """An episode of (b)."""

    def __init__(self, policy, game, turns: int):
        self.env = envs.make("alfworld", max_steps=turns)
        self.seen, self.actions = self.env.reset(game), []
        opening = formats.opening("act", CARD, self.seen.text, policy.compact)
        self.ids = policy.prompt_ids(opening, formats.PREFIX["act"])

    def act(self, policy, answer: list[int]):
        text = f"{formats.PREFIX['act']} {policy.decode(answer)}".strip()
        self.actions.append(formats.parse("act", text).action)
        self.seen = self.env.step(self.actions[-1])
        stopped, text = answer[-1] in policy.stop_ids, CARD.shown(self.seen.text)
        self.ids += answer + policy.between_ids(text, formats.PREFIX["act"], stopped)


@torch.no_grad()
def play_generate(
    policy, games, group: int, turns: int, seed: int, greedy: bool = False, limit: int = ANSWER
) -> Played:
    pad, stop = policy.tokenizer.pad_token_id, policy.stop_ids[0]
    config = GenerationConfig(
        max_new_tokens=limit, do_sample=not greedy, temperature=None if greedy else 1.0, top_p=None if greedy else 1.0,
        top_k=None if greedy else 0, pad_token_id=pad, eos_token_id=stop, use_cache=True,
    )  # fmt: skip
    torch.manual_seed(seed)
    gc.collect()
    start, cpu, tokens, read = time.perf_counter(), time.process_time(), 0, 0
    every = [_Conversation(policy, game, turns) for game in games for _ in range(group)]
    while running := [talk for talk in every if not talk.seen.done]:
        width = max(len(talk.ids) for talk in running)
        ids = torch.tensor([[pad] * (width - len(talk.ids)) + talk.ids for talk in running])
        mask = torch.tensor([[0] * (width - len(talk.ids)) + [1] * len(talk.ids) for talk in running])
        out = policy.model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
        for talk, answer in zip(running, out[:, width:].tolist()):
            answer = answer[: answer.index(stop) + 1] if stop in answer else answer
            read, tokens = read + len(talk.ids), tokens + len(answer)
            talk.act(policy, answer)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return Played(seconds, cpu, [talk.actions for talk in every], [talk.seen.won for talk in every], tokens, read)


def play_sglib(policy, games, group: int, turns: int, seed: int, greedy: bool = False, limit: int = ANSWER) -> Played:
    gc.collect()
    start, cpu = time.perf_counter(), time.process_time()
    found = sglib.rollout(
        policy, games, group=group, format="act", turns=turns, temperature=0.0 if greedy else 1.0, seed=seed,
        options=sglib.Options(max_new_tokens=limit, truth=False)
    )  # fmt: skip
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    tokens = sum(sum(t.mask) for t in found)
    read = sum(len(t.prompt_ids) for t in found[::group]) + sum(t.mask.count(0) for t in found)
    actions = [[turn.action for turn in t.turns] for t in found]
    return Played(seconds, cpu, actions, [t.won for t in found], tokens, read, trajectories=found)


PLAY = {"a": play_trl, "b": play_generate, "c": play_sglib}


# -- the bound ---------------------------------------------------------------------------------------------------------


def arithmetic(policy, trajectories, group: int) -> dict[str, int]:
    """FLOPs that the recorded episodes cannot do without, and the tokens they belong to."""
    config, found = policy.model.config, {"tokens": 0, "layers": 0, "attention": 0, "output": 0}
    layer = policy.model.model.layers[-1]
    whole = sum(weight.numel() for weight in layer.parameters() if weight.ndim == 2)
    stored = layer.self_attn.k_proj.weight.numel() + layer.self_attn.v_proj.weight.numel()
    context, below = 4 * config.num_attention_heads * config.head_dim, config.num_hidden_layers - 1
    for i, t in enumerate(trajectories):
        prompt = len(t.prompt_ids)
        first, last = prompt if i % group else 0, prompt + len(t.completion_ids) - 1
        sampled = [prompt + j - 1 for j, by_policy in enumerate(t.mask) if by_policy]
        deep = [position for position in sampled if position >= first]  # what passes all of the last layer
        found["tokens"] += last - first
        found["layers"] += 2 * ((whole * below + stored) * (last - first) + (whole - stored) * len(deep))
        found["attention"] += context * below * (last * (last + 1) - first * (first + 1)) // 2
        found["attention"] += context * sum(position + 1 for position in deep)
        found["output"] += 2 * config.vocab_size * config.hidden_size * len(deep)
    return found


@torch.no_grad()
def rates(policy, rows: int, threads: int) -> dict[str, float]:
    """FLOP/s of a large matrix product, and of the products that one layer does for `rows` tokens."""

    def multiply(products, times: int):
        for _ in range(times):
            for x, weight in products:
                torch.nn.functional.linear(x, weight)

    def best(work, flops: int) -> float:
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
        return flops / min(seconds)

    weights = [weight for weight in policy.model.model.layers[0].parameters() if weight.ndim == 2]
    parts = [len(part) for part in torch.arange(rows).tensor_split(threads)]
    whole, *shares = ([(torch.randn(n, w.shape[1]), w) for w in weights] for n in (rows, *parts))
    large = [(torch.randn(2048, 2048), torch.randn(2048, 2048))]
    torch.set_num_threads(threads)
    found = {"2048": best(lambda: multiply(large, 2), 4 * 2048**3)}
    flops = 50 * 2 * rows * sum(weight.numel() for weight in weights)
    together = best(lambda: multiply(whole, 50), flops)
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        apart = best(lambda: list(pool.map(multiply, shares, [50] * threads)), flops)
    torch.set_num_threads(threads)
    return found | {"own": max(together, apart)}


# -- one cell, in its own process --------------------------------------------------------------------------------------


def peak() -> float:
    """MB (1e6 bytes) of memory that this process has held at most."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1e6 if sys.platform == "darwin" else most * 1024 / 1e6


def games_of(cell: Cell, seed: int):
    return envs.alfworld.generate_games(cell.episodes // cell.group, seed=seed, split="train", max_receptacles=12)


def measure(cell: Cell, seed: int, repeats: int) -> dict:
    policy, games = policy_of(cell.model), games_of(cell, seed)
    if cell.method == "same":
        actions = {m: PLAY[m](policy, games, cell.group, cell.turns, seed, greedy=True).actions for m in PLAY}
        return {m: sum(x == y for x, y in zip(actions[m], actions["c"])) for m in "ab"} | {"of": cell.episodes}
    play, threads, load = PLAY[cell.method], torch.get_num_threads(), os.getloadavg()[0]
    play(policy, games[:1], cell.group, min(2, cell.turns), seed)
    before = peak()
    runs = [play(policy, games, cell.group, cell.turns, seed) for _ in range(repeats if cell.method == "c" else 1)]
    last = runs[-1]
    found = {
        "parameters": sum(weight.numel() for weight in policy.model.parameters()),
        "threads": threads,
        "load_average": load,
        "seconds": [run.seconds for run in runs],
        "cpu_seconds": [run.cpu for run in runs],
        "turns": sum(map(len, last.actions)),
        "won": sum(last.won),
        "tokens": last.tokens,
        "unused_tokens": last.unused,
        "read": last.read,
        "peak_mb": peak(),
        "before_mb": before,
    }
    if cell.method == "c":
        flops = arithmetic(policy, last.trajectories, cell.group)
        found |= {"flops": flops, "rates": rates(policy, cell.episodes, threads)}
        work = flops["layers"] + flops["attention"] + flops["output"]
        found["bound_seconds"] = {name: work / rate for name, rate in found["rates"].items()}
        found["times_the_bound"] = {name: median(found["seconds"]) / s for name, s in found["bound_seconds"].items()}
    return found


def run(cell: Cell, seed: int, repeats: int) -> dict:
    """`measure` in a fresh process."""
    command = [sys.executable, __file__, "--cell", json.dumps([asdict(cell), seed, repeats])]
    env = {"OMP_WAIT_POLICY": "PASSIVE", "TRL_EXPERIMENTAL_SILENCE": "1"} | os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{cell.name}: exit status {done.returncode}\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


# -- all together ------------------------------------------------------------------------------------------------------


def compared(quick: bool) -> list[Cell]:
    if quick:
        return [Cell("same", "base", 4, 3, 2), *(Cell(m, "base", 8, 4) for m in PLAY), Cell("c", "2M", 8, 4)]
    cells = [Cell("same", "base", 16, group=2)]
    cells += [Cell("c", model, n) for model in MODELS for n in (16, 64, 256)]
    slow = [Cell(m, model, n) for n in (16, 64) for model in ("base", *MODELS) for m in "ab"]
    return [*cells, *dict.fromkeys(slow), *(Cell(m, "base", 256) for m in "ab")]


def growing(quick: bool) -> dict[str, list[tuple[float, Cell]]]:
    """What varies -> its values and their cells; model sizes are filled in later."""
    if quick:
        return {"episodes": [(n, Cell("c", "base", n, 4)) for n in (8, 16)]}
    return {
        "episodes": [(n, Cell("c", "base", n)) for n in (16, 32, 64, 128, 256)],
        "turns": [(n, Cell("c", "base", 64, turns=n)) for n in (8, 15, 30, 60)],
        "parameters": [(0, Cell("c", model, 64)) for model in MODELS],
        "group size": [(n, Cell("c", "base", 64, group=n)) for n in (1, 4, 16)],
    }


def exponent(points: list[tuple[float, float]]) -> tuple[float, float | None]:
    """Slope of log y over log x by least squares, and its standard error (None for two points)."""
    xs, ys = ([math.log(value) for value in values] for values in zip(*points))
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((a - x) ** 2 for a in xs)
    slope = sum((a - x) * (b - y) for a, b in zip(xs, ys)) / spread
    rest = sum((b - y - slope * (a - x)) ** 2 for a, b in zip(xs, ys))
    return slope, math.sqrt(rest / (len(xs) - 2) / spread) if len(xs) > 2 else None


def speed(cell: Cell, results: dict[Cell, dict]) -> float | None:
    return cell.episodes / median(results[cell]["seconds"]) if cell in results else None


def text_of(cell: Cell, results: dict[Cell, dict]) -> str:
    found, n = results[cell], cell.episodes
    seconds = median(found["seconds"])
    several = len(found["seconds"]) > 1
    ratios = []
    for other in "ab":
        slower = speed(Cell(other, cell.model, n, cell.turns, cell.group), results)
        ratios.append(f"{n / seconds / slower:.2f}x" if slower and other != cell.method else "")
    return LINE.format(
        f"({cell.method}) {cell.model}", n, f"{seconds:.2f}",
        f"({min(found['seconds']):.2f} to {max(found['seconds']):.2f})" if several else "once",
        f"{n / seconds:.2f}", f"{found['tokens'] / seconds:,.0f}", f"{found['read'] / found['tokens']:.2f}",
        f"{found['peak_mb']:,.0f}", f"{found['before_mb']:,.0f}", f"{found['turns'] / n:.1f}",
        f"{found['tokens'] / n:.1f}", f"{found['won']} of {n}", *ratios,
    ).rstrip()  # fmt: skip


def bound_of(cell: Cell, found: dict) -> str:
    flops, bound, times = found["flops"], found["bound_seconds"], found["times_the_bound"]
    work = sum(value for key, value in flops.items() if key != "tokens")
    shares = ", ".join(f"{key} {flops[key] / work:.0%}" for key in ("layers", "attention", "output"))
    lines = [f"{cell.model}, {cell.episodes} episodes: {flops['tokens']:,} tokens, {work / 1e9:,.1f} GFLOP ({shares})"]
    for key, name in (("2048", "2048 x 2048 x 2048"), ("own", "the layers' own products")):
        rate = found["rates"][key] / 1e9
        lines.append(f"    {bound[key]:.3f} s at the {rate:,.0f} GFLOP/s of {name}: (c) takes {times[key]:.1f} x that")
    return "\n".join(lines)


def goals(results: dict[Cell, dict]) -> dict[str, dict]:
    found, ours, trl = {}, Cell("c", "base", 64), Cell("a", "base", 64)
    if ours in results and trl in results:
        ratio = speed(ours, results) / speed(trl, results)
        found["episodes/s of (c) over (a)"] = {"value": ratio, "goal": f">= {GOAL_TRL}", "met": ratio >= GOAL_TRL}
    if ours in results:
        times = results[ours]["times_the_bound"]["2048"]
        found["time of (c) over the bound"] = {"value": times, "goal": f"<= {GOAL_BOUND}", "met": times <= GOAL_BOUND}
    return found


def fits(growth, results: dict[Cell, dict]) -> dict[str, dict]:
    found = {}
    for name, cells in growth.items():
        cells = [(x or results[cell]["parameters"], cell) for x, cell in cells if cell in results]
        points = [(x, median(results[cell]["seconds"])) for x, cell in cells]
        if len(points) > 1:
            slope, error = exponent(points)
            found[name] = {"exponent": slope, "standard_error": error, "points": points}
            found[name]["turns"] = [results[cell]["turns"] for _, cell in cells]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run: a few short episodes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=3, help="of (c); (a) and (b) are played once")
    parser.add_argument("--growth", action="store_true", help="measure how the time of (c) grows, too")
    parser.add_argument(
        "--only", nargs="+", metavar="PATTERN", help="run only cells whose names match one, as in the shell"
    )
    parser.add_argument("--list", action="store_true", help="print the names of the cells and stop")
    parser.add_argument("--out", type=Path, help="write every number to this JSON file, cell by cell; what it "
                        "holds already is not measured again")  # fmt: skip
    parser.add_argument(
        "--again", action="store_true", help="measure again what the file holds (after a change to sglib; with --only)"
    )
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cell:
        cell, *rest = json.loads(args.cell)
        print(json.dumps(measure(Cell(**cell), *rest)))
        return
    growth = growing(args.quick) if args.growth else {}
    cells = list(dict.fromkeys([*compared(args.quick), *(cell for line in growth.values() for _, cell in line)]))
    chosen = [cell for cell in cells if any(fnmatch.fnmatchcase(cell.name, p) for p in args.only or ["*"])]
    if args.list:
        print("\n".join(cell.name for cell in chosen))
        return
    # what must be the same for a number to be kept
    made_by = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "trl")}
    made_by |= {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
    made_by |= {"seed": args.seed, "repeats": args.repeats}
    stored = json.loads(args.out.read_text()) if args.out and args.out.exists() else {"made_by": made_by, "cells": []}
    if stored["made_by"] != made_by:
        raise SystemExit(f"{args.out} was made by {stored['made_by']}, this would be {made_by}: choose another file")
    results = {Cell(**entry["cell"]): entry["result"] for entry in stored["cells"]}

    def write():
        if args.out:
            entries = [{"cell": asdict(cell), "name": cell.name, "result": found} for cell, found in results.items()]
            found = {"made_by": made_by, "definitions": f"{DEFINITIONS}\n{GROWTH}", "goals": goals(results)}
            write_atomic(args.out, json.dumps(found | {"growth": fits(growth, results), "cells": entries}, indent=1))

    bar = tqdm(chosen, unit="cell")
    for cell in bar:
        bar.set_description(cell.name)
        if args.again or cell not in results:
            # a smoke run starts a process for its first cell alone: imports are most of what a cell takes there
            played = measure if args.quick and results else run
            results[cell] = played(cell, args.seed, args.repeats)
            write()
    write()
    shown = {cell: results[cell] for cell in cells if cell in results}
    report(shown, growth, args)


def report(results: dict[Cell, dict], growth, args):
    print(DEFINITIONS + (f"\n{GROWTH}" if growth else "") + "\n")
    if args.quick:
        print("--quick: episodes too few and too short to judge anything by.\n")
    usual = [cell for cell in compared(args.quick) if cell in results and cell.method != "same"]
    for model in MODELS:
        if rows := [cell for cell in usual if cell.model == model]:
            parameters = results[rows[0]]["parameters"]
            print(f"{model}: {parameters / 1e6:.2f} M parameters, {results[rows[0]]['threads']} threads")
            print(LINE.format(*HEAD).rstrip())
            for cell in sorted(rows, key=lambda cell: (cell.episodes, cell.method)):
                print(text_of(cell, results))
            print()
    for cell, found in results.items():
        if cell.method == "same":
            equal = " and ".join(f"those of ({m}) in {found[m]} of {found['of']} episodes" for m in "ab")
            print(f"Greedy: the actions of (c) are {equal}.\n")
    print("Bound", *(bound_of(cell, results[cell]) for cell in usual if cell.method == "c"), sep="\n")
    for name, fit in fits(growth, results).items():
        error = "" if fit["standard_error"] is None else f" +- {fit['standard_error']:.2f}"
        points = ", ".join(f"{x:,.0f}: {y:.2f} s ({n:,} turns)" for (x, y), n in zip(fit["points"], fit["turns"]))
        print(f"\nGrowth with {name}: exponent {fit['exponent']:.2f}{error}\n    {points}")
    for name, goal in goals(results).items():
        print(f"\nGoal: {name} {goal['goal']}: {goal['value']:.1f}, {'met' if goal['met'] else 'NOT met'}")


if __name__ == "__main__":
    main()
