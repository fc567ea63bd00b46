"""Chooses how many answers go at a time, by the speed that is measured while they do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from holdfast.memory.hardware.detect import host_ram_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

STEPS = 6
"""Passes that a number of rows is timed for; their median counts."""
WORTH = 1.05
"""How much faster a token must be with twice as many rows."""
FULL = 0.8
"""Share of the rows that must be under way for a pass to count."""
USED = 0.5
"""Share of the free memory that keys, values and logits may take."""
LOGITS = 3
"""Copies of a row's logits that there are at once, float32."""


@dataclass(slots=True)
class Pace:
    """How many rows go at a time: twice as many for as long as that pays.

    Attributes:
        rows: now.
        settled: it stays so.
        most: that memory allows; None: not known yet.
        rates: tokens a second by number of rows.
    """

    rows: int
    settled: bool = False
    most: int | None = None
    rates: dict[int, float] = field(default_factory=dict)
    _spent: list[float] = field(default_factory=list)

    def took(self, live: int, seconds: float, waiting: int) -> None:
        """Look at one pass over `live` rows, with so many more waiting."""
        if self.settled or live < FULL * self.rows:
            return
        self._spent.append(seconds / live)
        if len(self._spent) < STEPS:
            return
        rate, before = 1 / sorted(self._spent)[STEPS // 2], self.rates.get(self.rows // 2)
        self.rates[self.rows] = rate
        self._spent.clear()
        if before is not None and rate < WORTH * before:
            self.settled, self.rows = True, self.rows if rate > before else self.rows // 2
        elif waiting >= self.rows and self.rows * 2 <= (self.most or 0):
            self.rows *= 2

    def bound(self, row_bytes: int, model: PreTrainedModel) -> None:
        """Learn how many rows memory allows.

        Args:
            row_bytes: keys and values of one row, at their longest.
            model: whose vocabulary says how large its logits are, on its device.
        """
        if self.settled or self.most is not None:
            return
        wide = row_bytes + LOGITS * 4 * int(model.config.get_text_config().vocab_size)
        if model.device.type == "cuda":
            import torch

            free = torch.cuda.mem_get_info(model.device)[0]
        else:
            free = host_ram_bytes()
        self.most = self.rows + int(USED * free / wide)

    def halve(self) -> None:
        """Memory ran out."""
        self.rows, self.settled = max(1, self.rows // 2), True
