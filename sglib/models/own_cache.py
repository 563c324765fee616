"""A model's own cache and masks, as transformers makes them: right for every architecture that it runs (windows,
recurrent and convolutional layers, learned positions), at the price of reading texts again.

All rows stand side by side, padded on the left. While each writes a token, the model's cache grows by one column. As
soon as they differ (an observation is read, tokens are forgotten, a row went on alone) the texts are read from their
beginnings, as for a fresh batch of prompts.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import numpy as np
import torch

from sglib.models.decoder import decoder_of, unwrapped
from sglib.models.slots import SlotCache

# Plain causal attention with rotary positions in every layer; each is held to its own forward by a test.
SLOTTED = {"Qwen3", "Qwen2", "Llama", "Mistral", "Phi3", "Olmo", "Olmo2"}


def has_slots(model) -> bool:
    """Whether a `SlotCache` is proven for this model, PEFT-wrapped or not: one of `SLOTTED`, all of whose layers see
    the whole text by attention that takes a mask."""
    inner = unwrapped(model)
    config = inner.config
    windows = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    return (
        type(inner).__name__.removesuffix("ForCausalLM") in SLOTTED
        and set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
        and (not windows or hasattr(config, "layer_types"))
        and config._attn_implementation in ("sdpa", "eager")
        and config.rope_parameters["rope_type"] in ("default", "linear", "llama3", "yarn")
    )


def new_cache(model, rows: int, capacity: int) -> SlotCache | OwnCache:
    """An empty cache for B `rows` of the kind that is right for the model, with room for `capacity` tokens a row."""
    return SlotCache(model, rows, capacity, decoder_of(model)) if has_slots(model) else OwnCache(model, rows)


class OwnCache:
    """The texts of B rows and what the model remembers of them; the same interface as `SlotCache`.

    `lengths` (B,) may be lowered from outside: what lies behind is forgotten.
    """

    decoder = None

    def __init__(self, model, rows: int):
        self._takes = inspect.signature(unwrapped(model).forward).parameters
        self.texts: list[list[int]] = [[] for _ in range(rows)]
        self.lengths = np.zeros(rows, dtype=np.int64)
        self._forget()

    def _forget(self) -> None:
        self._past = self._mask = None
        self._stale = np.zeros(len(self.texts), dtype=bool)  # rows of which the model remembers something else
        self._place = np.arange(len(self.texts))  # of each row in the model's batch, where rows that left stay

    def take(self, rows: Sequence[int], room: int) -> None:
        """Become the cache of these rows, in this order; a row may be taken many times."""
        self.texts = [self.texts[row][: self.lengths[row]] for row in rows]
        self.lengths = self.lengths[list(rows)]
        self._forget()

    def drop(self, rows: Sequence[int]) -> list[int]:
        """Leave these rows out; returns which row now stands at each place."""
        order = [row for row in range(len(self.texts)) if row not in set(rows)]
        self.texts = [self.texts[row] for row in order]
        self.lengths, self._stale, self._place = (x[order] for x in (self.lengths, self._stale, self._place))
        return order

    def read(
        self, policy, tokens: Sequence[Sequence[int]], counts: np.ndarray, keep: np.ndarray, aside: np.ndarray
    ) -> torch.Tensor:
        """As `sglib.models.slots.feed`."""
        texts = [[*text[:n], *new] for text, n, new in zip(self.texts, self.lengths, tokens)]
        cut = np.array([len(text) > n for text, n in zip(self.texts, self.lengths)])
        if self._past is None or counts.max() > 1 or keep.max() > 1 or ((self._stale | cut) & (counts > 0)).any():
            self._forget()
            ids, width = texts, max(map(len, texts))
        else:  # a row that reads nothing now gets a token that is not its own, and is read again when it goes on
            ids, width = [list(new) or [0] for new in tokens], 1
            self._stale |= cut | (counts == 0)
        self.texts, lengths = texts, np.array([len(text) for text in texts])
        self.lengths = lengths - aside
        self._stale |= aside > 0
        device, sizes = policy.device, np.array([len(row) for row in ids])
        pad = policy.tokenizer.pad_token_id
        padded = torch.tensor([[pad] * (width - len(row)) + row for row in ids], device=device)
        # the last column is never hidden: a row of nothing but padding would be a softmax over nothing
        shown = torch.as_tensor(np.arange(width) >= width - sizes.clip(min=1)[:, None], device=device).long()
        positions = torch.as_tensor((np.arange(width) - width + lengths[:, None]).clip(min=0), device=device)
        place = torch.as_tensor(self._place, device=device)
        if self._mask is not None:
            padded, shown, positions = (
                x.new_zeros(len(self._mask), width).index_copy(0, place, x) for x in (padded, shown, positions)
            )
        self._mask = shown if self._mask is None else torch.cat([self._mask, shown], dim=1)
        most = max(1, int(keep.max()))
        given = {"attention_mask": self._mask, "use_cache": True}
        given |= {"position_ids": positions} if "position_ids" in self._takes else {}
        given |= {"logits_to_keep": most} if "logits_to_keep" in self._takes else {}
        out = policy.model(input_ids=padded, past_key_values=self._past, **given)
        self._past = out.past_key_values
        wanted = torch.as_tensor(np.arange(most) >= most - keep[:, None], device=device)
        return out.logits[place, -most:][wanted].float()
