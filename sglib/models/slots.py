"""One step of generation: new tokens of many texts in, logits out, with a key-value cache of ragged rows.

Every row of the cache has its own length and grows at its own end, so the cache has no holes and positions are those of
the plain text. `feed` is the step. For a small Qwen3 on a CPU it goes through `sglib.models.decoder.Decoder`, the same
arithmetic with a third of the operator calls and without padding; for the other families for which slots are proven
through the model's own forward, which is also what `Decoder` is tested against. Every other model has its own cache
(`sglib.models.own_cache`), in whose place `feed` does not see a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F


class SlotCache:
    """A preallocated key-value cache in which each row has its own length; the interface that transformers' models
    call.

    Of B `rows` (texts side by side), each has room for `capacity` tokens at first, which grows when needed, and has
    `lengths` (B,) tokens stored. With a `decoder` (`sglib.models.decoder.decoder_of`) `feed` computes with that in
    place of the model.
    """

    is_compileable = False

    def __init__(self, model, rows: int, capacity: int, decoder: Callable[..., torch.Tensor] | None = None):
        config, weight = model.config, next(model.parameters())
        heads = config.num_key_value_heads
        # configurations leave it out where it follows from the others
        size = config.to_dict().get("head_dim") or config.hidden_size // config.num_attention_heads
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

    def prepare(self, counts: np.ndarray, width: int, aside: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Take up `counts` (B,) new tokens a row, right-aligned in a block of `width`, by the model's own forward;
        `aside` as in `feed`. Returns positions (B, width) and an additive attention mask (B, 1, width, new longest)."""
        self._upto = self.reserve(counts)
        offset = np.arange(width)[None, :] - (width - counts)[:, None]  # below 0: padding
        columns = (self.lengths[:, None] + offset).clip(min=0)
        hidden = np.arange(self._upto) > columns[:, :, None]  # a token sees what stands in its own column and before
        device, dtype = self.keys[0].device, self.keys[0].dtype
        self._columns = torch.as_tensor(np.where(offset >= 0, columns, self.capacity), device=device)
        self._rows = torch.arange(len(counts), device=device)[:, None]
        self.lengths = self.lengths + counts - aside
        mask = torch.zeros(hidden.shape, dtype=dtype, device=device)
        mask.masked_fill_(torch.as_tensor(hidden, device=device), torch.finfo(dtype).min)
        return torch.as_tensor(columns, device=device), mask[:, None]

    def read(
        self, policy, tokens: Sequence[Sequence[int]], counts: np.ndarray, keep: np.ndarray, aside: np.ndarray
    ) -> torch.Tensor:
        """As `feed`."""
        if self.decoder is not None:
            return self.decoder(self, tokens, counts, keep, aside)
        width, most = int(counts.max()), max(1, int(keep.max()))
        pad = policy.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (width - len(t)) + list(t) for t in tokens], device=policy.device)
        positions, mask = self.prepare(counts, width, aside)
        out = policy.model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=self,
            use_cache=True,
            logits_to_keep=most,
        )
        wanted = torch.as_tensor(np.arange(most) >= most - keep[:, None], device=policy.device)
        return out.logits[wanted].float()

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
        """Leave these rows out. The last rows move into the holes, so little is copied. Returns which row now stands at
        each place."""
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
    cache,
    tokens: Sequence[Sequence[int]],
    keep: np.ndarray | None = None,
    aside: np.ndarray | None = None,
) -> torch.Tensor:
    """Read new tokens, one list a row (empty: nothing new), and store their keys and values.

    Args:
        cache: a `SlotCache` or an `OwnCache` of B rows; its lengths grow.
        tokens: B lists, not all empty.
        keep: (B,) after how many of its last tokens a row's logits are wanted, at most as many as it has; None is 1
            for each row that has any.
        aside: (B,) how many of a row's last tokens are forgotten when they have been read; None is 0.

    Returns:
        Logits, float32 (sum of keep, V), row by row.
    """
    counts = np.array([len(t) for t in tokens])
    keep = counts.clip(max=1) if keep is None else keep
    aside = np.zeros_like(counts) if aside is None else aside
    return cache.read(policy, tokens, counts, keep, aside)


def logprobs_of(logits: torch.Tensor, tokens: Sequence[int]) -> np.ndarray:
    """Log-probability of one token after each of N logits (N, V), at temperature 1: (N,) float64."""
    chosen = torch.as_tensor(tokens, dtype=torch.long, device=logits.device)[:, None]
    return torch.log_softmax(logits, dim=-1).gather(-1, chosen)[:, 0].double().cpu().numpy()
