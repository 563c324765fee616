"""The small model's decoder: Qwen3's forward pass on few operators, for generation on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel, Qwen3ForCausalLM

from sglib.models.slots import SlotCache

# Above this many parameters a step is arithmetic, not overhead, and a fused copy of the weights costs memory.
LARGEST = 100_000_000
_HIDDEN = torch.finfo(torch.float32).min


def unwrapped(model) -> PreTrainedModel:
    """The model inside PEFT's wrapper, which has the adapters' layers; a plain model is itself."""
    return model if isinstance(model, PreTrainedModel) else model.get_base_model()


def is_small(model) -> bool:
    """Whether a step of this model on a CPU is worth a `Decoder`, and a thread a core: a Qwen3 in float32 of at most
    100 M parameters, PEFT-wrapped or not."""
    inner = unwrapped(model)
    config = inner.config
    return (
        type(inner) is Qwen3ForCausalLM
        and config.hidden_act == "silu"
        and not config.attention_bias
        and set(config.layer_types) == {"full_attention"}
        and config.rope_parameters["rope_type"] == "default"
        and all(p.device.type == "cpu" and p.dtype == torch.float32 for p in inner.parameters())
        and sum(p.numel() for p in inner.parameters()) <= LARGEST
        and type(inner.model.embed_tokens) is nn.Embedding
    )


def decoder_of(model) -> Decoder | None:
    """A `Decoder` with the model's present weights, LoRA merged; None where the model's own forward has to do: it is
    not small (`is_small`), or has other adapters than plain LoRA."""
    if not is_small(model):
        return None
    try:
        return Decoder(unwrapped(model))
    except _Unknown:
        return None


class _Unknown(Exception):
    """A layer that is neither linear nor plain LoRA."""


def _weight(layer) -> torch.Tensor:
    """The matrix (out, in) that a linear layer multiplies with."""
    if type(layer) is nn.Linear and layer.bias is None:
        return layer.weight.detach()
    from peft.tuners.lora import Linear

    if type(layer) is not Linear or layer.lora_variant or layer.fan_in_fan_out or any(layer.lora_bias.values()):
        raise _Unknown
    weight = _weight(layer.base_layer)
    if layer.disable_adapters or layer.merged:
        return weight
    return sum((layer.get_delta_weight(name) for name in layer.active_adapters if name in layer.lora_A), weight)


class Decoder:
    """Qwen3's forward pass on fewer and larger operators, for texts that grow in a `SlotCache`.

    Same function as `transformers`' Qwen3, with: one projection for queries, keys and values and one for gate and up;
    the weights of the norms before them folded in; the pairs that the rotary embedding turns side by side, so that it
    is one complex product (keys in the cache are therefore stored in this order of dimensions); queries of one
    key-value head as rows of one attention call; no padded token outside attention; and in the last layer keys
    and values alone for tokens whose logits are not wanted.

    The weights are copies: after a training step a new one is needed, which takes less than one step of generation.
    """

    @torch.no_grad()
    def __init__(self, model: Qwen3ForCausalLM):
        config = model.config
        self.heads, self.kv_heads, self.size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        self.eps, self.hidden = config.rms_norm_eps, config.hidden_size
        half = torch.arange(self.size).view(2, -1).T.reshape(-1)  # 0, D/2, 1, D/2 + 1, …
        self.layers = []
        for layer in model.model.layers:
            attention, mlp = layer.self_attn, layer.mlp
            query, key = (
                _weight(p).view(-1, self.size, self.hidden)[:, half].reshape(-1, self.hidden)
                for p in (attention.q_proj, attention.k_proj)
            )
            qkv = torch.cat([query, key, _weight(attention.v_proj)]) * layer.input_layernorm.weight
            norms = torch.cat(
                [
                    attention.q_norm.weight[half].expand(self.heads, -1),
                    attention.k_norm.weight[half].expand(self.kv_heads, -1),
                ]
            )
            gate_up = torch.cat([_weight(mlp.gate_proj), _weight(mlp.up_proj)]) * layer.post_attention_layernorm.weight
            out, down = _weight(attention.o_proj).T.contiguous(), _weight(mlp.down_proj).T.contiguous()
            self.layers.append((qkv, norms, out, gate_up, down))
        self.embedding = model.model.embed_tokens.weight.detach()
        self.lm_head = _weight(model.lm_head) * model.model.norm.weight
        self._rotary, self._angles = model.model.rotary_emb, torch.zeros(0, self.size // 2, dtype=torch.complex64)

    def _turns(self, upto: int) -> torch.Tensor:
        """cos + i sin for positions 0 to at least upto - 1: (>= upto, D / 2)."""
        if len(self._angles) < upto:
            cos, sin = self._rotary(self.embedding, torch.arange(2 * upto)[None])
            half = self.size // 2
            self._angles = torch.complex(cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous())
        return self._angles

    @torch.no_grad()
    def __call__(
        self, cache: SlotCache, tokens: Sequence[Sequence[int]], counts: np.ndarray, keep: np.ndarray, aside: np.ndarray
    ) -> torch.Tensor:
        """As `feed`. The tokens of all rows follow one another, N of them; only attention sees blocks."""
        before, upto = cache.lengths, cache.reserve(counts)
        attend = _Attention(counts, before, upto)
        row = np.repeat(np.arange(len(counts)), counts)
        left = np.repeat(counts.cumsum(), counts) - np.arange(len(row))  # in the row, this token included
        column = (before + counts)[row] - left
        wanted = torch.from_numpy(np.flatnonzero(left <= keep[row]))
        cache.lengths = before + counts - aside
        rows, columns = torch.from_numpy(row), torch.from_numpy(column)
        turns = self._turns(upto)[columns][:, None]

        x = F.embedding(torch.tensor([token for t in tokens for token in t]), self.embedding)
        size, heads, both = self.size, self.heads, self.heads + self.kv_heads
        for i, (qkv, norms, out, gate_up, down) in enumerate(self.layers):
            h = F.linear(self._normed(x), qkv)
            turned = F.rms_norm(h[:, : both * size].view(-1, both, size), (size,), None, self.eps).mul_(norms)
            torch.view_as_complex(turned.view(-1, both, size // 2, 2)).mul_(turns)
            cache.keys[i][rows, :, columns] = turned[:, heads:]
            cache.values[i][rows, :, columns] = h[:, both * size :].view(-1, self.kv_heads, size)
            queries = turned[:, :heads]
            if i == len(self.layers) - 1 and len(wanted) < len(x):
                queries, x = queries[wanted], x[wanted]
                attend = _Attention(keep, before + counts - keep, upto)
            x = torch.addmm(x, attend(queries, cache.keys[i], cache.values[i]), out)
            h = F.linear(self._normed(x), gate_up)
            middle = h.shape[1] // 2
            x = torch.addmm(x, F.silu(h[:, :middle]).mul_(h[:, middle:]), down)
        return F.linear(self._normed(x), self.lm_head)

    def _normed(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, (self.hidden,), None, self.eps)


class _Attention:
    """Attention for tokens that follow one another, `counts[b]` (B,) of row b after `before[b]` stored ones.

    Rows with one token, as most have while answers are written, are one call, padded to the longest. A row with more,
    as where an observation is read, is a call of its own, on exactly what it sees.
    """

    def __init__(self, counts: np.ndarray, before: np.ndarray, upto: int):
        ends, single = counts.cumsum(), counts == 1
        # A call costs as much as two rows of a batch.
        self.together = 2 * single.sum() > len(counts)
        self.all = self.together and single.all()
        self.upto, self.calls = upto, []
        if self.together:
            seen = torch.arange(upto) <= torch.from_numpy(before)[:, None]
            self.mask = torch.where(seen, 0.0, _HIDDEN)[:, None, None]
            self.place = torch.from_numpy((ends - 1).clip(min=0))  # of rows without a single token: something
            self.single = torch.from_numpy(np.flatnonzero(single))
        if not self.all:
            alone = np.flatnonzero(counts * ~single if self.together else counts)
            widest, longest = int(counts[alone].max(initial=0)), int(before[alone].max(initial=0))
            # Row i of the strip sees all up to column longest + i: cut at the left it is the mask of any row.
            strip = torch.full((widest, longest + widest), _HIDDEN).triu_(longest + 1)
            for b in alone.tolist():
                n, start, end = (int(x[b]) for x in (counts, before, ends))
                self.calls.append((b, end - n, end, start + n, strip[:n, longest - start : longest + n]))

    def __call__(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Queries (N, heads, D), the cache's keys and values (B, kv heads, capacity, D) -> (N, heads * D)."""
        n, heads, size = queries.shape
        found = None if self.all else torch.empty_like(queries)
        if self.together:  # the queries that share a key-value head are rows of one product
            q = (queries if self.all else queries[self.place]).view(len(keys), keys.shape[1], -1, size)
            k, v = keys[:, :, : self.upto], values[:, :, : self.upto]
            one = F.scaled_dot_product_attention(q, k, v, self.mask).reshape(-1, heads, size)
            if self.all:
                found = one
            else:
                found[self.place[self.single]] = one[self.single]
        if self.calls:
            q = queries.transpose(0, 1)[None]
            for b, start, end, upto, mask in self.calls:
                k, v = keys[b : b + 1, :, :upto], values[b : b + 1, :, :upto]
                one = F.scaled_dot_product_attention(q[:, :, start:end], k, v, mask, enable_gqa=True)
                found[start:end] = one[0].transpose(0, 1)
        return found.reshape(n, heads * size)
