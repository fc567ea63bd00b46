"""Keeps keys and values where they were written, and attends over them.

Rows that began together are a cohort with memory of its own, of a size fixed when it begins: a new
token is written into its place, and nothing is copied. What all prompts begin with is read once and
attended to by all rows in one product. A cohort is as wide as its own rows need, so that one which
began late does not pay for the length of an early one.

transformers calls it like any attention (`AttentionInterface`); a model that needs more of its
attention than keys, values and a scale is told apart by what it passes (`Unsupported`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from transformers import AttentionInterface, PreTrainedModel

NAME = "holdfast_cohorts"
PASSED = frozenset(
    {"position_ids", "cache_position", "is_causal", "use_cache", "output_attentions"}
)
"""What an attention may be given and need not look at."""
Kept = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one layer, of shape (rows, heads, tokens, size)."""


class Unsupported(RuntimeError):
    """A model's attention needs what is not done here: a window, a soft cap, a sink."""


class Memory(Protocol):
    """What attends for a model."""

    def attend(self, layer: int, query: torch.Tensor, new: Kept, scale: float) -> torch.Tensor:
        """Values for each query, of shape (rows, heads, tokens, size); keeps the new ones."""


class Cohort:
    """Rows that began together, padded on the left to one width."""

    def __init__(self, lengths: Sequence[int], room: int) -> None:
        """Take the length of each row's own prompt, and how many tokens may follow the longest."""
        self.rows, self.width = len(lengths), max(lengths)
        self.room = self.width + room
        self.kept: dict[int, Kept] = {}
        self.padding = [self.width - one for one in lengths]

    def layer(self, number: int, new: Kept) -> Kept:
        """The memory of a layer; what lies before a row is zero, never what was there before."""
        if number not in self.kept:
            with torch.inference_mode():
                self.kept[number] = self._made(new)
        return self.kept[number]

    def _made(self, new: Kept) -> Kept:
        keys, values = (
            torch.empty(
                (len(self.padding), one.shape[1], self.room, one.shape[3]),
                dtype=one.dtype, device=one.device,
            )
            for one in new
        )  # fmt: skip
        for one in (keys, values):
            one[:, :, : self.width].zero_()
        return keys, values

    def drop(self, row: int) -> None:
        """Forget a row; the last one takes its place."""
        self.rows -= 1
        self.padding[row] = self.padding[-1]
        self.padding.pop()
        if row < self.rows:
            with torch.inference_mode():
                for one in (one for pair in self.kept.values() for one in pair):
                    one[row, :, : self.width] = one[self.rows, :, : self.width]

    def take(self, other: Cohort, of: Sequence[int], first: int) -> None:
        """Take what was read for another cohort's rows `of` into rows from `first` on."""
        rows, places = slice(first, first + len(of)), slice(self.width - other.width, self.width)
        with torch.inference_mode():
            for number, pair in other.kept.items():
                for into, one in zip(self.layer(number, pair), pair, strict=True):
                    into[rows, :, places] = one[list(of), :, : other.width]

    def bytes(self) -> int:
        """What a row takes, all its tokens written."""
        pairs = [one for pair in self.kept.values() for one in pair]
        return sum(one[:1].numel() * one.element_size() for one in pairs)

    def hidden(self, device: torch.device, more: int = 0) -> torch.Tensor | None:
        """What is added to scores of shape (rows, heads, queries, width); None: nothing.

        Args:
            device: where to.
            more: tokens being written.
        """
        if not any(self.padding):
            return None
        places = torch.arange(self.width + more, device=device)
        padding = torch.tensor(self.padding, device=device)[:, None]
        found = torch.zeros(self.rows, self.width + more, device=device)
        return found.masked_fill_(places < padding, -torch.inf)[:, None, None]


def joined(one: Cohort, other: Cohort) -> Cohort:
    """Two cohorts as one, as wide as the wider; its rows are the first's and the second's."""
    width = max(one.width, other.width)
    lengths = [part.width - pad for part in (one, other) for pad in part.padding]
    room = max(one.room - one.width, other.room - other.width)
    found = Cohort([width, *lengths[1:]], room)
    found.padding = [width - length for length in lengths]
    found.take(one, range(one.rows), 0)
    found.take(other, range(other.rows), one.rows)
    return found


class Reading:
    """Reads prompts of some rows of a cohort, after what all rows begin with."""

    def __init__(
        self, cohort: Cohort, rows: slice, width: int, before: dict[int, Kept] | None = None
    ) -> None:
        """Take the rows, and the width that they are padded to here."""
        self.cohort, self.rows, self.width, self.before = cohort, rows, width, before or {}
        self.mask: torch.Tensor | None = None
        self.built = False

    def attend(self, layer: int, query: torch.Tensor, new: Kept, scale: float) -> torch.Tensor:
        """See `Memory`."""
        count, width = query.shape[0], self.cohort.width
        for into, one in zip(self.cohort.layer(layer, new), new, strict=True):
            into[self.rows, :, width - self.width : width] = one
        if shared := self.before.get(layer):
            new = (
                torch.cat([shared[0].expand(count, -1, -1, -1), new[0]], 2),
                torch.cat([shared[1].expand(count, -1, -1, -1), new[1]], 2),
            )
        groups = query.shape[1] // new[0].shape[1]
        keys, values = (one.repeat_interleave(groups, 1) if groups > 1 else one for one in new)
        if not self.built:
            self.mask, self.built = self._mask(query, keys.shape[2] - self.width), True
        mask = None if self.mask is None else self.mask.to(query.device)
        found = torch.nn.functional.scaled_dot_product_attention(
            query, keys, values, attn_mask=mask, is_causal=mask is None, scale=scale
        )
        return found

    def _mask(self, query: torch.Tensor, before: int) -> torch.Tensor | None:
        """What each token may look at; None: all up to itself."""
        padding = [pad - self.cohort.width + self.width for pad in self.cohort.padding[self.rows]]
        if not any(padding) and not before:
            return None
        places = torch.arange(self.width, device=query.device)
        real = places >= torch.tensor(padding, device=query.device)[:, None]
        own = (places[None] <= places[:, None]) & real[:, None, None]
        own |= places[None] == places[:, None]  # padding looks at itself: a number, not NaN
        return torch.nn.functional.pad(own, (before, 0), value=True)


class Writing:
    """Writes one token for each row of several cohorts, in their order."""

    def __init__(self, cohorts: Sequence[Cohort], before: dict[int, Kept] | None = None) -> None:
        """Take the cohorts, and what all rows begin with."""
        self.cohorts, self.before = cohorts, before or {}
        self.hidden: list[torch.Tensor | None] | None = None

    def attend(self, layer: int, query: torch.Tensor, new: Kept, scale: float) -> torch.Tensor:
        """See `Memory`; the query has one token."""
        count, heads = new[0].shape[:2]
        asked = query.reshape(count, heads, -1, query.shape[-1]) * scale
        if self.hidden is None:
            self.hidden = [one.hidden(query.device, 1) for one in self.cohorts]
        shared = self.before.get(layer)
        if shared:
            flat = asked.transpose(0, 1).reshape(heads, -1, query.shape[-1])
            common = (flat @ shared[0][0].transpose(1, 2)).unflatten(1, (count, -1))
            seen = torch.empty_like(common)
        found, first = [], 0
        for cohort, hidden in zip(self.cohorts, self.hidden, strict=True):
            rows, end = slice(first, first + cohort.rows), cohort.width + 1
            for into, one in zip(cohort.layer(layer, new), new, strict=True):
                into[: cohort.rows, :, cohort.width] = one[rows, :, 0]
            keys, values = (one[: cohort.rows, :, :end] for one in cohort.kept[layer])
            scores = asked[rows] @ keys.transpose(2, 3)
            if hidden is not None:
                scores = scores + hidden.to(query.device)
            if shared:
                scores = torch.cat([common[:, rows].transpose(0, 1), scores], 3)
            parts = scores.softmax(3, dtype=torch.float32).to(query.dtype)
            if shared:
                length = common.shape[-1]
                seen[:, rows] = parts[..., :length].transpose(0, 1)
                parts = parts[..., length:]
            found.append(parts @ values)
            first = rows.stop
        out = torch.cat(found)
        if shared:
            out = out + (seen.flatten(1, 2) @ shared[1][0]).unflatten(1, (count, -1)).transpose(
                0, 1
            )
        return out.reshape(count, -1, 1, out.shape[-1])


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    memory: Memory | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    odd = [name for name in more if more[name] is not None and name not in PASSED]
    if "dropout" in odd and not more["dropout"]:
        odd.remove("dropout")
    layer = getattr(module, "layer_idx", None)
    if memory is None or odd or attention_mask is not None or layer is None:
        raise Unsupported(f"its attention is given {', '.join(odd) or 'no memory'}")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    found = memory.attend(layer, query, (key, value), scale)
    return found.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, _attend)


def through(
    model: PreTrainedModel, memory: Memory, ids: torch.Tensor, places: torch.Tensor
) -> torch.Tensor:
    """Logits of the last token of each row, float32.

    Args:
        model: a causal language model, PEFT's wrapping taken off.
        memory: what attends for it.
        ids: of shape (rows, tokens).
        places: their positions.
    """
    with torch.inference_mode(), _attending(model):
        out = model(
            input_ids=ids, position_ids=places, use_cache=False, logits_to_keep=1, memory=memory
        )
        return out.logits[:, -1].float()


@contextmanager
def _attending(model: PreTrainedModel) -> Iterator[None]:
    config = model.config
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before
