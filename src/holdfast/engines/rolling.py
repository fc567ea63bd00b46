"""Whole texts as rows whose ends are scored, and their losses put together again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.data.chat import IGNORED, Encoded
from holdfast.data.windows import fitted, strided, text_ids
from holdfast.engines import TextLoss

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHARE = 4
"""Into how many the batch is cut, as for all that is scored: logits are needed for every token."""
LOGITS = 1 << 27
"""That are computed at once, at most: half a gigabyte of float32."""


@dataclass(frozen=True, slots=True)
class Read:
    """Texts ready to be scored.

    Attributes:
        rows: windows of all texts; the tokens with labels are the last of each.
        counts: rows of each text.
        unknown: of each text, see `TextLoss`.
    """

    rows: Sequence[Encoded]
    counts: Sequence[int]
    unknown: Sequence[int]

    def told(self, losses: Sequence[Sequence[float]]) -> list[TextLoss]:
        """The loss of each text, of those of its rows, nats per scored token."""
        found, at = [], 0
        for count, unknown in zip(self.counts, self.unknown, strict=True):
            mine = losses[at : at + count]
            at += count
            nats = math.fsum(value for row in mine for value in row)
            found.append(TextLoss(nats, sum(map(len, mine)), unknown))
        return found


def read(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    window: int | None,
    stride: int | None,
    positions: int | None,
) -> Read:
    """Texts as rows of at most `window` tokens; see `windows`.

    Raises:
        StudyError: see `windows.fitted`.
        ModelError: see `windows.text_ids`.
    """
    window, stride = fitted(window, stride, positions)
    rows, counts, unknown = [], [], []
    for text in texts:
        whole = text_ids(tokenizer, text)
        places = strided(len(whole.ids), window, stride)
        for one in places:
            ids = whole.ids[one.start : one.end]
            silent = one.first - one.start
            rows.append(Encoded(ids, (IGNORED,) * silent + ids[silent:], silent))
        counts.append(len(places))
        unknown.append(whole.unknown)
    return Read(rows, counts, unknown)


def rows_at_once(rows: Sequence[Encoded], vocabulary: int, batch: int) -> int:
    """How many rows go together: a part of the batch, and no more logits than `LOGITS`."""
    widest = max((row.cost.supervised for row in rows), default=1) + 1
    return max(1, min(batch // SHARE, LOGITS // (widest * vocabulary)))
