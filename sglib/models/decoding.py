"""One step of generation: new tokens of many texts in, logits out, with a key-value cache of ragged rows.

Every row of the cache has its own length and is written behind its own last token, so the cache has no holes and
positions are those of the plain text. `feed` is the step. For a small Qwen3 on a CPU it goes through `Decoder`, the
same arithmetic with a third of the operator calls and without padding; for every other model through the model's own
forward, which is also what `Decoder` is tested against.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import Qwen3ForCausalLM

# Above this many parameters a step is arithmetic, not overhead, and a fused copy of the weights costs memory.
LARGEST = 100_000_000
_HIDDEN = torch.finfo(torch.float32).min


class SlotCache:
    """A preallocated key-value cache in which each row has its own length; the interface that transformers' models
    call.

    Args:
        model: whose keys and values are kept.
        rows: B, texts side by side.
        capacity: tokens a row has room for at first; it grows when needed.
        decoder: what `feed` computes with instead of the model, see `decoder_of`.

    Attributes:
        lengths: (B,) integers, tokens already stored in each row.
    """

    is_compileable = False

    def __init__(self, model, rows: int, capacity: int, decoder: Decoder | None = None):
        config, weight = model.config, next(model.parameters())
        heads = config.num_key_value_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (rows, heads, capacity + 1, size)  # the last column takes what padding writes
        layers = range(config.num_hidden_layers)
        self.keys, self.values = ([_zeros(shape, weight) for _ in layers] for _ in range(2))
        self.lengths = np.zeros(rows, dtype=np.int64)
        self.decoder = decoder

    @property
    def capacity(self) -> int:
        return self.keys[0].shape[2] - 1

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return int(self.lengths.max())

    def reserve(self, counts: np.ndarray) -> int:
        """Make room for `counts` (B,) more tokens a row; the longest length there will be."""
        needed = int((self.lengths + counts).max())
        if needed > self.capacity:
            extra = max(needed, 2 * self.capacity) - self.capacity
            self.keys = [F.pad(k, (0, 0, 0, extra)) for k in self.keys]
            self.values = [F.pad(v, (0, 0, 0, extra)) for v in self.values]
        return needed

    def prepare(
        self, counts: np.ndarray, width: int, aside: np.ndarray, back: np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take up `counts` (B,) new tokens a row, right-aligned in a block of `width`, by the model's own forward;
        `aside` and `back` as in `feed`.

        Returns positions (B, width) and an additive attention mask (B, 1, width, new longest length).
        """
        self._upto = self.reserve(counts)
        offset = np.arange(width)[None, :] - (width - counts)[:, None]  # below 0: padding
        columns = (self.lengths[:, None] + offset).clip(min=0)
        beside, ends = offset >= (counts - aside)[:, None], self.lengths + counts - aside
        seen = np.arange(self._upto)
        hidden = seen > columns[:, :, None]  # a token sees what stands in its own column and before
        if back.any():
            between = (seen >= (ends - back)[:, None]) & (seen < ends[:, None])
            hidden |= beside[:, :, None] & between[:, None]
        device, dtype = self.keys[0].device, self.keys[0].dtype
        self._columns = torch.as_tensor(np.where(offset >= 0, columns, self.capacity), device=device)
        self._rows = torch.arange(len(counts), device=device)[:, None]
        self.lengths = ends
        mask = torch.zeros(hidden.shape, dtype=dtype, device=device)
        mask.masked_fill_(torch.as_tensor(hidden, device=device), torch.finfo(dtype).min)
        return torch.as_tensor(columns - beside * back[:, None], device=device), mask[:, None]

    def update(self, keys, values, layer_idx: int, *_, **__):
        self.keys[layer_idx][self._rows, :, self._columns] = keys.transpose(1, 2)
        self.values[layer_idx][self._rows, :, self._columns] = values.transpose(1, 2)
        return self.keys[layer_idx][:, :, : self._upto], self.values[layer_idx][:, :, : self._upto]

    def take(self, rows: Sequence[int], room: int):
        """Become the cache of these rows, in this order, with room for more tokens; a row may be taken many times."""
        rows = np.asarray(rows, dtype=np.int64)
        index, stored = torch.as_tensor(rows), int(self.lengths[rows].max(initial=0))
        for tensors in (self.keys, self.values):
            for i, old in enumerate(tensors):
                tensors[i] = _zeros((len(rows), old.shape[1], stored + room + 1, old.shape[3]), old)
                tensors[i][:, :, :stored] = old[:, :, :stored][index.to(old.device)]
        self.lengths = self.lengths[rows]

    def drop(self, rows: Sequence[int]) -> list[int]:
        """Leave these rows out. The last rows move into the holes, so little is copied.

        Returns:
            Which row now stands at each place.
        """
        gone = set(rows)
        order = list(range(len(self.lengths) - len(gone)))
        movers = [row for row in range(len(order), len(self.lengths)) if row not in gone]
        holes = [row for row in order if row in gone]
        for hole, mover in zip(holes, movers, strict=True):
            order[hole] = mover
            stored = self.lengths[mover]
            for tensor in (*self.keys, *self.values):
                tensor[hole, :, :stored] = tensor[mover, :, :stored]
        self.keys, self.values = ([t[: len(order)] for t in tensors] for tensors in (self.keys, self.values))
        self.lengths = self.lengths[order]
        return order


def _zeros(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    if like.device.type == "cpu" and like.dtype == torch.float32:
        return torch.from_numpy(np.zeros(shape, np.float32))  # memory that is never touched costs nothing
    return torch.zeros(shape, dtype=like.dtype, device=like.device)


def feed(
    policy,
    cache: SlotCache,
    tokens: Sequence[Sequence[int]],
    keep: np.ndarray | None = None,
    aside: np.ndarray | None = None,
    back: np.ndarray | None = None,
) -> torch.Tensor:
    """Read new tokens, one list a row (empty: nothing new), and store their keys and values.

    Args:
        policy: whose model reads.
        cache: of B rows; its lengths grow.
        tokens: B lists, not all empty.
        keep: (B,) behind how many of its last tokens a row's logits are wanted, at most as many as it has; None is 1
            for each row that has any.
        aside: (B,) how many of a row's last tokens are forgotten when they have been read; None is 0.
        back: (B,) those tokens are read as if they stood in place of so many tokens before them, which they do not see;
            None is 0.

    Returns:
        Logits, float32 (sum of keep, V), row by row.
    """
    counts = np.array([len(t) for t in tokens])
    keep = counts.clip(max=1) if keep is None else keep
    none = np.zeros_like(counts)
    aside, back = none if aside is None else aside, none if back is None else back
    if cache.decoder is not None:
        return cache.decoder(cache, tokens, counts, keep, aside, back)
    width, most = int(counts.max()), max(1, int(keep.max()))
    pad = policy.tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(t)) + list(t) for t in tokens], device=policy.device)
    positions, mask = cache.prepare(counts, width, aside, back)
    out = policy.model(
        input_ids=ids,
        position_ids=positions,
        attention_mask=mask,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=most,
    )
    wanted = torch.as_tensor(np.arange(most) >= most - keep[:, None], device=policy.device)
    return out.logits[wanted].float()


def logprobs_of(logits: torch.Tensor, tokens: Sequence[int]) -> np.ndarray:
    """Log-probability of one token behind each of N logits (N, V), at temperature 1: (N,) float64."""
    chosen = torch.as_tensor(tokens, dtype=torch.long, device=logits.device)[:, None]
    return torch.log_softmax(logits, dim=-1).gather(-1, chosen)[:, 0].double().cpu().numpy()


@dataclass
class Question:
    """How likely is this text here? Its token ids, and their log-probabilities at temperature 1, (len(ids),) float64,
    once it was answered."""

    ids: Sequence[int]
    logprobs: np.ndarray | None = None


class Writer:
    """One text that a policy writes into: what it reads next, its own random numbers, its present answer.

    Attributes:
        pending: token ids that are read next, at least one.
        forget: how many of the tokens read last are forgotten before that.
        answer, logprobs: the tokens of the answer so far and their log-probabilities when they were sampled.
        question: answered when `pending` is read, None: nothing is asked.
        given: how many tokens at the end of `pending` begin the answer; a question stands in their place. At least one
            token is before them.
    """

    def __init__(self, pending: list[int], rng: np.random.Generator):
        self.pending, self.rng, self.forget = pending, rng, 0
        self.answer: list[int] = []
        self.logprobs: list[float] = []
        self.question: Question | None = None
        self.given = 0

    def ended(self) -> bool:
        """Whether the answer ends here for another reason than a stop token or its length."""
        return False

    def advance(self) -> bool:
        """Called when an answer is complete. Its last token has not been read. Sets `pending` and `forget`, and
        `question` and `given` where something is asked; returns whether another answer follows."""
        return False


@torch.no_grad()  # here, too: a thread does not inherit it
def write(
    policy,
    rows: Sequence[Writer],
    *,
    temperature: float,
    max_new_tokens: int,
    room: int,
    stopped: Callable[[], bool] = lambda: False,
):
    """Let the policy write answer after answer into each row, until none wants more.

    Every step reads a token or more in each row: where an answer is complete, what follows it is read while other rows
    are in the middle of theirs. Only where the model's own forward has to be used, which pads all rows to the longest,
    do they wait for each other.

    Args:
        policy: what writes.
        rows: B texts.
        temperature: of sampling; 0 takes the most likely token.
        max_new_tokens: an answer ends with a stop token, where `Writer.ended` says so, or here.
        room: tokens a row will probably need behind its first `pending`.
        stopped: asked before each step whether to leave off.
    """
    stop, rows = set(policy.stop_ids), list(rows)
    cache = _begin(policy, rows, room)
    while not stopped():
        wait = cache.decoder is None and any(row.answer for row in rows)
        fed = [i for i, row in enumerate(rows) if row.answer or not wait]
        logits = _read(policy, cache, rows, fed)
        uniform, gone = np.array([rows[i].rng.random() for i in fed]), []
        for i, token, logprob in zip(fed, *sample(logits, temperature, uniform), strict=True):
            row = rows[i]
            row.answer.append(token)
            row.logprobs.append(logprob)
            if token not in stop and len(row.answer) < max_new_tokens and not row.ended():
                row.pending = [token]
            elif row.advance():
                cache.lengths[i] -= row.forget
                row.answer, row.logprobs = [], []
            else:
                gone.append(i)
        if len(gone) == len(rows):
            break
        if gone:
            rows = [rows[i] for i in cache.drop(gone)]


def _begin(policy, rows: Sequence[Writer], room: int) -> SlotCache:
    """A cache for B texts that begin, with room for `room` more tokens. What several begin with (a group's prompt) is
    read once; its end stays pending, since what is written behind it is each text's own."""
    heads = [tuple(row.pending[: -1 - (row.given if row.question else 0)]) for row in rows]
    place = {head: i for i, head in enumerate(dict.fromkeys(heads))}
    longest, decoder = max(len(row.pending) for row in rows), decoder_of(policy.model)
    if len(place) == len(rows) or not all(heads):
        return SlotCache(policy.model, len(rows), longest + room, decoder)
    cache = SlotCache(policy.model, len(place), longest, decoder)
    feed(policy, cache, list(place), keep=np.zeros(len(place), dtype=np.int64))
    cache.take([place[head] for head in heads], longest - min(map(len, place)) + room)
    for row, head in zip(rows, heads):
        row.pending = row.pending[len(head) :]
    return cache


def _read(policy, cache: SlotCache, rows: Sequence[Writer], fed: Sequence[int]) -> torch.Tensor:
    """Read what is pending in the rows `fed`, and answer their questions: logits (R, V) behind what was pending."""
    tokens: list[Sequence[int]] = [()] * len(rows)
    keep, aside, back = np.zeros((3, len(rows)), dtype=np.int64)
    keep[fed], asked = 1, [i for i in fed if rows[i].question is not None]
    for i in fed:
        tokens[i] = rows[i].pending
    for i in asked:
        if ids := rows[i].question.ids:  # its last token predicts nothing that is asked
            tokens[i] = [*tokens[i], *ids[:-1]]
            aside[i], back[i] = len(ids) - 1, rows[i].given
    keep += aside + back
    logits = feed(policy, cache, tokens, keep, aside, back)
    if not asked:
        return logits
    ends, places = keep.cumsum(), []
    for i in asked:  # behind the context before what is given, and behind the question's own tokens
        if rows[i].question.ids:
            places += [ends[i] - keep[i], *range(ends[i] - aside[i], ends[i])]
    found = logprobs_of(logits[places], [token for i in asked for token in rows[i].question.ids])
    for i in asked:
        n = len(rows[i].question.ids)
        rows[i].question.logprobs, found, rows[i].question = found[:n], found[n:], None
    return logits[(ends - aside - 1)[fed]]


def sample(logits: torch.Tensor, temperature: float, uniform: np.ndarray) -> tuple[list[int], list[float]]:
    """One token a row by inverting the cumulative distribution at `uniform` (B,); its log-probability under that
    distribution. Temperature 0: the most likely token, and its log-probability at temperature 1."""
    logprobs = torch.log_softmax(logits / temperature if temperature > 0 else logits, dim=-1)
    if temperature > 0:
        cumulative = logprobs.double().exp().cumsum(-1)
        points = torch.as_tensor(uniform, device=logits.device)[:, None] * cumulative[:, -1:]
        tokens = torch.searchsorted(cumulative, points, right=True).clamp(max=logits.shape[-1] - 1)
    else:
        tokens = logprobs.argmax(-1, keepdim=True)
    return tokens[:, 0].tolist(), logprobs.gather(-1, tokens)[:, 0].tolist()


def is_small(model) -> bool:
    """Whether a step of this model on a CPU is worth a `Decoder`, and a thread a core: a Qwen3 in float32 of at most
    100 M parameters, PEFT-wrapped or not."""
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
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
        return Decoder(model.get_base_model() if hasattr(model, "peft_config") else model)
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
        self,
        cache: SlotCache,
        tokens: Sequence[Sequence[int]],
        counts: np.ndarray,
        keep: np.ndarray,
        aside: np.ndarray,
        back: np.ndarray,
    ) -> torch.Tensor:
        """As `feed`. The tokens of all rows lie one behind the other, N of them; only attention sees blocks."""
        before, upto = cache.lengths, cache.reserve(counts)
        attend = _Attention(counts, before, upto, aside, back)
        row = np.repeat(np.arange(len(counts)), counts)
        left = np.repeat(counts.cumsum(), counts) - np.arange(len(row))  # in the row, this token included
        column = (before + counts)[row] - left
        position = column - np.where(left <= aside[row], back[row], 0)
        wanted = torch.from_numpy(np.flatnonzero(left <= keep[row]))
        cache.lengths = before + counts - aside
        rows, columns = torch.from_numpy(row), torch.from_numpy(column)
        turns = self._turns(upto)[torch.from_numpy(position)][:, None]

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
                attend = _Attention(keep, before + counts - keep, upto, aside, back)
            x = torch.addmm(x, attend(queries, cache.keys[i], cache.values[i]), out)
            h = F.linear(self._normed(x), gate_up)
            middle = h.shape[1] // 2
            x = torch.addmm(x, F.silu(h[:, :middle]).mul_(h[:, middle:]), down)
        return F.linear(self._normed(x), self.lm_head)

    def _normed(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, (self.hidden,), None, self.eps)


class _Attention:
    """Attention for tokens that lie one behind the other, `counts[b]` (B,) of row b behind `before[b]` stored ones.

    Rows with one token, as most have while answers are written, are one call, padded to the longest. A row with more,
    as where an observation is read, is a call of its own, on exactly what it sees. `aside` and `back` (B,) are those of
    `feed`.
    """

    def __init__(self, counts: np.ndarray, before: np.ndarray, upto: int, aside: np.ndarray, back: np.ndarray):
        ends, single = counts.cumsum(), (counts == 1) & (aside == 0)
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
                n, start, end, beside = (int(x[b]) for x in (counts, before, ends, aside))
                mask = strip[:n, longest - start : longest + n]
                if beside and back[b]:
                    first, mask = start + n - beside, mask.clone()  # the column of the first token aside
                    mask[max(n - beside, 0) :, first - int(back[b]) : first] = _HIDDEN
                self.calls.append((b, end - n, end, start + n, mask))

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
