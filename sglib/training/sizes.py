"""What training a Qwen3 costs in memory and arithmetic, computed from its architecture; nothing is loaded.

The model here is Qwen3's block: root-mean-square norms, attention with grouped keys and values and norms on queries and
keys, a gated MLP. Tests hold each formula to a model: parameters and operations exactly, activations within 2 %.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from transformers import Qwen3Config

# Published configurations (Qwen3 technical report, arXiv 2505.09388, table 1, and the models' config.json).
QWEN3 = {
    name: Qwen3Config(
        hidden_size=hidden, intermediate_size=mlp, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=8, head_dim=128, vocab_size=151_936, tie_word_embeddings=tied,
    )
    for name, hidden, mlp, layers, heads, tied in (
        ("0.6B", 1024, 3072, 28, 16, True), ("1.7B", 2048, 6144, 28, 16, True),
        ("4B", 2560, 9728, 36, 32, True), ("8B", 4096, 12_288, 36, 32, False),
    )
}  # fmt: skip


def _widths(config: Qwen3Config) -> tuple[int, int, int, int]:
    """(hidden, all queries, all keys, MLP), in numbers a token."""
    heads, keys = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    return config.hidden_size, heads, keys, config.intermediate_size


def _matrices(config: Qwen3Config) -> int:
    """Weights of the linear layers of all blocks."""
    h, q, k, m = _widths(config)
    return config.num_hidden_layers * h * (2 * q + 2 * k + 3 * m)


def parameters(config: Qwen3Config) -> int:
    """Weights, embeddings included."""
    h, norms = config.hidden_size, 2 * config.hidden_size + 2 * config.head_dim
    tables = config.vocab_size * h * (1 if config.tie_word_embeddings else 2)
    return tables + _matrices(config) + config.num_hidden_layers * norms + h


def lora_parameters(config: Qwen3Config, rank: int) -> int:
    """Weights of an adapter on all linear layers of the blocks."""
    h, q, k, m = _widths(config)
    return config.num_hidden_layers * rank * (2 * (h + q) + 2 * (h + k) + 3 * (h + m))


def state_bytes(config: Qwen3Config, rank: int | None = None) -> dict[str, int]:
    """Bytes of what lies in memory all through training by AdamW: in float32 where all weights are trained; with an
    adapter of a `rank`, bfloat16 weights that are not."""
    trained = parameters(config) if rank is None else lora_parameters(config, rank)
    frozen = 0 if rank is None else 2 * parameters(config)
    return {"weights": 4 * trained + frozen, "gradients": 4 * trained, "AdamW": 8 * trained}


def block_bytes(config: Qwen3Config, tokens: int, bf16: bool = True) -> int:
    """Bytes that one block keeps for the backward pass over so many `tokens`; `bf16`: under autocast."""
    h, q, k, m = _widths(config)
    scales = 4 * (2 + 2 * config.num_attention_heads + config.num_key_value_heads)  # of the norms, attention's sums
    if not bf16:
        return tokens * (scales + 4 * (6 * h + 4 * q + 4 * k + 4 * m))
    # float32: inputs and results of the norms (16 h + 4 q + 4 k); bfloat16: what each matrix product reads, copied for
    # each (10 h + 2 q + 2 m), what attention reads (2 q + 4 k) and the norms' results (2 q + 2 k), the MLP's (6 m)
    copies = 2 * _matrices(config) // config.num_hidden_layers  # autocast's, of the weights
    return tokens * (scales + 26 * h + 10 * q + 10 * k + 8 * m) + copies


def activation_bytes(config: Qwen3Config, tokens: int, *, bf16: bool = True, checkpointing: bool = False) -> int:
    """Bytes that all blocks keep for the backward pass of a micro-batch of so many `tokens`, padding included. With
    `checkpointing`: the inputs of all blocks, and all that one of them keeps, when it is computed again. What the
    output layer keeps comes on top (`logits_bytes`)."""
    block, h = block_bytes(config, tokens, bf16), config.hidden_size
    blocks = tokens * config.num_hidden_layers * 4 * h + block if checkpointing else config.num_hidden_layers * block
    return blocks + tokens * (8 * h + 4)  # the last norm


def logits_bytes(config: Qwen3Config, predicted: int) -> int:
    """Bytes of the float32 logits of so many `predicted` tokens; there are two or three such tensors at a time."""
    return 4 * predicted * config.vocab_size


def cache_bytes(config: Qwen3Config, tokens: int, width: int = 4) -> int:
    """Bytes of keys and values of so many `tokens`, over all episodes that are played side by side; `width`: bytes a
    number, 4 in float32."""
    return 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * tokens * width


def forward_flops(config: Qwen3Config, lengths: Sequence[int], predicted: int) -> int:
    """Floating-point operations of one forward pass over texts of these `lengths`, logits at `predicted` tokens alone;
    a multiply-add is two. The backward pass has twice as many; checkpointing adds one forward pass."""
    q = _widths(config)[1]
    attention = sum(4 * config.num_hidden_layers * q * n * n for n in lengths)  # the causal half is not skipped
    return 2 * (_matrices(config) * sum(lengths) + config.vocab_size * config.hidden_size * predicted) + attention


def kept_bytes(model: torch.nn.Module, forward: Callable[[], object]) -> int:
    """Measured: bytes that `forward` keeps for the backward pass, the model's own weights left out."""
    own, kept = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held: another must not get its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(size for size, _ in kept.values())
