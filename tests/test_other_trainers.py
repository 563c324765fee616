"""Environments of ours in TRL's own trainer, by tool calls, and as an OpenEnv server."""

import threading

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from trl import GRPOConfig
from trl.chat_template_utils import qwen3_chat_template

import sglib
from sglib.interop import openenv, trl_tools

MOVES = ("up", "down", "left", "right")
CALLS = [f'<tool_call>\n{{"name": "act", "arguments": {{"command": "{move}"}}}}\n</tool_call>' for move in MOVES]


@pytest.fixture(scope="module")
def policy():
    """A random Qwen3 with Qwen's template, of bytes, to which each of the four tool calls is one token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken(call, normalized=False) for call in CALLS])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=qwen3_chat_template
    )
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(fast), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=8192, eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id, bos_token_id=None, tie_word_embeddings=True,
    )  # fmt: skip
    return Qwen3ForCausalLM(config), fast


def settings(tmp_path, tokenizer) -> GRPOConfig:
    """One step of two games by four episodes, in which nothing but tool calls and the end of an answer is sampled."""
    wanted = {tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(CALLS)}
    return GRPOConfig(
        output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=8, num_generations=4, seed=3, use_cpu=True,
        max_completion_length=1500, max_tool_calling_iterations=4, learning_rate=1e-3, report_to="none", bf16=False,
        generation_kwargs={"suppress_tokens": [i for i in range(len(tokenizer)) if i not in wanted]},
        disable_tqdm=True, logging_strategy="no", save_strategy="no", gradient_checkpointing=False,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_trl_s_trainer_plays_and_trains_with_an_advantage_for_each_turn(policy, tmp_path):
    model, tokenizer = policy
    seen = []

    def advantages(trajectories):
        """A number that names each turn, so that it is found again at the tokens."""
        seen.extend(trajectories)
        return [[100 * i + t + 1.0 for t in range(len(x))] for i, x in enumerate(trajectories)]

    class Kept(trl_tools.TurnGRPOTrainer):
        def _generate_and_score_completions(self, inputs):
            self.batch = super()._generate_and_score_completions(inputs)
            return self.batch

    before = model.state_dict()["model.embed_tokens.weight"].clone()
    trainer = Kept(
        model=model, args=settings(tmp_path, tokenizer), processing_class=tokenizer, advantages=advantages,
        train_dataset=trl_tools.prompts("sokoban", 2, size="6x6-1"),
        environment_factory=trl_tools.environment_factory("sokoban", 2, size="6x6-1", turns=3),
    )  # fmt: skip
    trainer.train()
    assert not torch.equal(before, model.state_dict()["model.embed_tokens.weight"])
    episodes = [game.trajectory for game in trainer.environments]
    assert seen == [x for x in episodes if len(x)] and len(seen) >= 4
    assert {x.group for x in seen} == {0, 1} and len({x.game_id for x in seen if x.group == 0}) == 1
    assert all(turn.action in MOVES and turn.distance is not None for x in seen for turn in x.turns)
    assert max(len(x) for x in seen) <= 3, "an episode ends after so many actions"
    # each answer's tokens have its own action's number, tool results none of it
    mask = (trainer.batch["completion_mask"] * trainer.batch["tool_mask"]).bool()
    for number, episode in enumerate(episodes):
        got = trainer.batch["advantages"][number][mask[number]].tolist()
        if len(episode):
            first = 100 * seen.index(episode) + 1.0
            assert got[0] == first and got == sorted(got) and set(got) <= {first + t for t in range(len(episode))}
        else:
            assert len(set(got)) == 1, "nothing was done: TRL's own advantage of the episode"


def test_a_game_is_played_by_its_tool():
    tasks = trl_tools.prompts("sokoban", 3, size="6x6-1", seed=5)
    game = trl_tools.environment_factory("sokoban", 3, size="6x6-1", seed=5)()
    assert tasks["task"] == [0, 1, 2] and "act" in tasks[0]["prompt"][0]["content"]
    told = game.reset(**tasks[2])
    env = sglib.envs.make("sokoban")
    (task,) = sglib.envs.get("sokoban").tasks(1, size="6x6-1", seed=5, start=2)
    assert env.reset(task).text.strip() in told
    for action in env.plan():
        assert game.act(action)
    assert game.get_reward() == 1.0 and game.trajectory.won
    assert game.act("up") == "The game is over." and len(game.trajectory) == len(env.plan())


def test_our_advantages_fit(policy):
    """The example of docs/how-to/other-trainers.md: GiGPO's advantage of the true step changes."""
    game = trl_tools.environment_factory("sokoban", 1, size="6x6-1")()
    episodes = []
    for actions in (["up", "down"], ["left", "right", "up"]):
        game.reset(0)
        for action in actions:
            game.act(action)
        episodes.append(game.trajectory)
    rewards = [[a.distance - (b or a.distance) for a, b in zip(x.turns, [t.distance for t in x.turns[1:]] + [None])]
               for x in episodes]  # fmt: skip
    anchors = [[turn.observation for turn in x.turns] for x in episodes]
    got = sglib.advantages.gigpo(rewards, [0, 0], anchors)
    assert [len(x) for x in got] == [2, 3] and np.isfinite(np.concatenate(got)).all()


def test_runs_of_a_mask():
    assert trl_tools.runs([1, 1, 0, 0, 1, 0]) == [(0, 2), (4, 5)]
    assert trl_tools.runs([0, 0]) == [] and trl_tools.runs([1]) == [(0, 1)]


@pytest.mark.parametrize(("call", "what"), [
    (lambda: trl_tools.prompts("sokoban", 0), "n=0"),
    (lambda: trl_tools.environment_factory("sokoban", 1, split="nowhere"), "split='nowhere'"),
    (lambda: trl_tools.environment_factory("chess", 1), "env='chess'"),
])  # fmt: skip
def test_mistakes_are_named(call, what):
    with pytest.raises(ValueError, match=what):
        call()


def test_openenv_s_own_client_plays():
    uvicorn = pytest.importorskip("uvicorn")
    client = pytest.importorskip("openenv", reason="pip install openenv-core").GenericEnvClient
    config = uvicorn.Config(openenv.create_app("sokoban", size="6x6-1"), port=0, log_level="critical")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.05)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    with client(base_url=url).sync() as one, client(base_url=url).sync() as two:
        first, same = one.reset(seed=3), two.reset(seed=3)
        assert first.observation == same.observation and "distance" not in str(first.observation)
        env = sglib.envs.make("sokoban")
        (task,) = sglib.envs.get("sokoban").tasks(1, size="6x6-1", start=3)
        env.reset(task)
        for action in env.plan():
            result = one.step({"command": action})
        assert result.done and result.observation["won"] and one.state()["distance"] == 0
        assert two.state()["step_count"] == 0, "another session is another episode"
        with pytest.raises(RuntimeError, match="call reset first"):
            one.step({"command": "up"})
    server.should_exit = True
    thread.join(5)


def test_without_openenv_one_line_says_so(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openenv.core.env_server", None)
    with pytest.raises(ImportError, match="pip install openenv-core"):
        openenv.create_app("sokoban")
