"""Log-probabilities and entropies of a policy's own tokens, for training a small Qwen3 on a CPU.

The same function as `transformers`' Qwen3 and a log-softmax over its logits, with the same gradient, in less time:

- The loss wants the log-probabilities of the policy's own tokens, about a quarter of an episode, so queries, MLP and
  logits of the last layer are computed for these alone.
- Attention in blocks of queries keeps its probabilities for the backward pass. Torch's fused kernel computes them
  again, which saves memory in long texts and costs time in episodes of some hundred tokens.
- Each thread reads some sequences by itself; torch's own threads would share every single operation.

Embedding, norms, linear layers and MLP are called as modules, so adapters on them take part.
"""

from __future__ import annotations

import torch
from peft import PeftModel
from transformers import Qwen3ForCausalLM
from transformers.models.qwen3.modeling_qwen3 import rotate_half

from sglib.models.decoder import unwrapped
from sglib.models.threads import thread_map

ROWS = 4  # sequences per forward pass at most: more would not stay in the processor's cache, fewer are overhead
BLOCK = 64  # queries per attention product


def readable(model) -> bool:
    """Whether `policy_logps` computes what this model, PEFT-wrapped or not, would: a plain Qwen3, float32, on a CPU."""
    adapters, inner = model.peft_config.values() if isinstance(model, PeftModel) else (), unwrapped(model)
    return (
        type(inner) is Qwen3ForCausalLM
        and set(inner.config.layer_types) == {"full_attention"}
        and not inner.config.attention_dropout
        and not any(adapter.is_prompt_learning for adapter in adapters)
        and all(p.device.type == "cpu" and p.dtype == torch.float32 for p in inner.parameters())
    )


def policy_logps(
    model, ids: torch.Tensor, wanted: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability and entropy of the wanted tokens, each given the tokens before it in its row.

    Args:
        ids: (B, L) token ids; padding only on the right.
        wanted: (B, L) booleans, false in column 0.
        temperature: the logits are divided by it.

    Returns:
        Two tensors (B, L) in nats, 0 where not wanted; only the first has a gradient, and only if gradients are on.
    """
    inner = unwrapped(model)
    rows = min(ROWS, -(-len(ids) // torch.get_num_threads()))
    parts = list(zip(ids.split(rows), wanted.split(rows), strict=True))

    def read(part):
        return _read(inner, *part, temperature)

    if torch.is_grad_enabled():
        found = _Parts.apply(read, parts, *(p for p in inner.parameters() if p.requires_grad))
    else:
        found = map(torch.cat, zip(*thread_map(torch.no_grad()(read), parts), strict=True))
    logps, entropies = (x.new_zeros(wanted.shape).masked_scatter(wanted, x) for x in found)
    return logps, entropies


class _Parts(torch.autograd.Function):
    """Results of several parts of a batch, one after the other; both passes run a part in a thread of its own."""

    @staticmethod
    def forward(ctx, read, parts, *parameters):
        results = thread_map(torch.enable_grad()(read), parts)
        ctx.logps, ctx.parameters = [logps for logps, _ in results], parameters
        logps, entropies = (torch.cat([x.detach() for x in column]) for column in zip(*results, strict=True))
        ctx.mark_non_differentiable(entropies)
        return logps, entropies

    @staticmethod
    def backward(ctx, gradient, _):
        def differentiate(part):
            return torch.autograd.grad(part[0], ctx.parameters, part[1], allow_unused=True)

        parts = list(zip(ctx.logps, gradient.split([len(x) for x in ctx.logps]), strict=True))
        found = zip(*thread_map(differentiate, parts), strict=True)
        return None, None, *(None if column[0] is None else torch.stack(column).sum(0) for column in found)


def _read(model, ids: torch.Tensor, wanted: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities and entropies (N,) of the N wanted tokens of these rows, row by row."""
    chosen, wanted, ids = ids[wanted], wanted[:, 1:], ids[:, :-1]  # a token is predicted where the one before it is
    core, last = model.model, model.model.layers[-1]
    x = core.embed_tokens(ids)
    (rows, length), size = ids.shape, last.self_attn.head_dim
    positions = torch.arange(length).expand(rows, -1)
    cos, sin = (t.expand(rows, -1, -1) for t in core.rotary_emb(x, positions[:1]))

    def heads(linear, norm, h, cos, sin):  # (B, H, length of h, D)
        h = norm(linear(h).view(*h.shape[:2], -1, size))
        return (h * cos[:, :, None] + rotate_half(h) * sin[:, :, None]).transpose(1, 2)

    for layer in core.layers:
        attention, h = layer.self_attn, layer.input_layernorm(x)
        k = heads(attention.k_proj, attention.k_norm, h, cos, sin)
        v = attention.v_proj(h).view(rows, length, -1, size).transpose(1, 2)
        if layer is last:  # from here on only what is wanted, padded to the row with the most of it
            counts = wanted.sum(1)
            present = torch.arange(max(1, int(counts.max()))) < counts[:, None]
            positions = torch.full(present.shape, length - 1).masked_scatter_(present, wanted.nonzero()[:, 1])
            h, cos, sin = (t.gather(1, positions[:, :, None].expand(-1, -1, t.shape[2])) for t in (h, cos, sin))
            x = x[wanted]
        q = heads(attention.q_proj, attention.q_norm, h, cos, sin)
        mixed = _Attention.apply(q, k, v, positions, attention.scaling).transpose(1, 2).flatten(2)
        x = x + attention.o_proj(mixed[present] if layer is last else mixed)
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    logps = (model.lm_head(core.norm(x)) / temperature).log_softmax(-1)
    with torch.no_grad():
        entropies = -(logps.exp() * logps).sum(-1)
    return logps.gather(1, chosen[:, None])[:, 0], entropies


class _Attention(torch.autograd.Function):
    """Causal attention of queries (B, H, N, D) at `positions` (B, N) to keys and values (B, K, L, D); K divides H.

    The queries that share a key-value head are rows of one product. A block of queries meets the keys up to the last
    that one of them sees, and a mask only from the first that one of them does not see.
    """

    @staticmethod
    def forward(ctx, q, k, v, positions, scaling):
        ctx.shapes, ctx.scaling = (q.shape, k.shape, v.shape), scaling
        (batch, heads, count, size), (shared, length) = q.shape, k.shape[1:3]
        q = (q * scaling).reshape(batch * shared, heads // shared, count, size)
        k, v = (t.reshape(batch * shared, length, size) for t in (k, v))
        out, kept, columns = torch.empty_like(q), [], torch.arange(length)
        for start in range(0, count, BLOCK):
            block, seen = slice(start, start + BLOCK), positions[:, start : start + BLOCK, None]
            first, end = int(seen.min()) + 1, int(seen.max()) + 1
            scores = torch.bmm(q[:, :, block].flatten(1, 2), k[:, :end].transpose(1, 2))
            by_head = scores.view(batch, heads, -1, end)
            by_head[..., first:].masked_fill_((columns[first:end] > seen)[:, None], -torch.inf)
            kept.append(scores.softmax(-1))
            out[:, :, block] = torch.bmm(kept[-1], v[:, :end]).view_as(q[:, :, block])
        ctx.save_for_backward(q, k, v, out, *kept)
        return out.view(batch, heads, count, size)

    @staticmethod
    def backward(ctx, gradient):
        q, k, v, out, *kept = ctx.saved_tensors
        gradient = gradient.reshape(q.shape)
        of_q, of_k, of_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        along = torch.linalg.vecdot(gradient, out)
        for start, weights in zip(range(0, q.shape[2], BLOCK), kept, strict=True):
            block, end = slice(start, start + BLOCK), weights.shape[2]
            g, queries = gradient[:, :, block].flatten(1, 2), q[:, :, block].flatten(1, 2)
            of_v[:, :end] += torch.bmm(weights.transpose(1, 2), g)
            of_scores = torch.bmm(g, v[:, :end].transpose(1, 2))
            of_scores.sub_(along[:, :, block].flatten(1, 2)[:, :, None]).mul_(weights)
            of_q[:, :, block] = torch.bmm(of_scores, k[:, :end]).view_as(q[:, :, block])
            of_k[:, :end] += torch.bmm(of_scores.transpose(1, 2), queries)
        found = (of_q.mul_(ctx.scaling), of_k, of_v)
        return *(t.view(shape) for t, shape in zip(found, ctx.shapes, strict=True)), None, None
