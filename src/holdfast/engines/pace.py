"""Chooses how many rows go at a time: by the speed that is measured, and by what memory holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from holdfast.memory import out_of_memory
from holdfast.memory.hardware.host import host_ram_bytes
from holdfast.memory.out_of_memory import RAISED, Failure, is_out_of_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

One = TypeVar("One")
Some = TypeVar("Some")
Say = Callable[[str], None]
ROWS = {"cpu": 64, "gpu": 32}
"""That are begun with where no `batch_size` is given; `Pace` takes more where it pays."""
STEPS = 6
"""Passes that a number of rows is timed for; their median counts."""
WORTH = 1.05
"""How much faster a token must be with twice as many rows."""
FULL = 0.8
"""Share of the rows that must be under way for a pass to count."""
FIRST = 8
"""Rows that begin before it is known what a row takes."""
USED = 0.5
"""Share of the free memory that keys, values and logits may take."""
LOGITS = 3
"""Copies of a row's logits that there are at once, float32."""
SHORTER, LONGER = 0.5, 1.5
"""What memory allows of rows is learned anew for rows that are shorter or longer than by these."""


@dataclass(slots=True)
class Pace:
    """How many rows go at a time: twice as many for as long as that pays.

    Attributes:
        rows: now.
        settled: it stays so; from the beginning: it was asked for, and memory is not looked at.
        most: that memory allows; None: not known yet.
        rates: tokens a second by number of rows.
    """

    rows: int
    settled: bool = False
    most: int | None = None
    rates: dict[int, float] = field(default_factory=dict)
    _spent: list[float] = field(default_factory=list)
    _given: bool = field(init=False)
    _tokens: int = 0

    def __post_init__(self) -> None:
        """Note whether the number was asked for."""
        self._given = self.settled

    @property
    def next(self) -> int:
        """How many may begin at once: few before it is known what they take."""
        return self.rows if self._given or self.most is not None else min(self.rows, FIRST)

    def begin(self, tokens: int) -> None:
        """Rows of so many tokens at most come next; `most` may be known of shorter ones only."""
        if not SHORTER * self._tokens <= tokens <= LONGER * self._tokens:
            self._tokens, self.most = tokens, None

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
        if self._given or self.most is not None:
            return
        wide = row_bytes + LOGITS * 4 * int(model.config.get_text_config().vocab_size)
        if model.device.type == "cuda":
            import torch

            room = torch.cuda.mem_get_info(model.device)[0]
            room += torch.cuda.memory_reserved(model.device)  # what torch keeps for its next use
            room -= torch.cuda.memory_allocated(model.device)
        else:
            room = host_ram_bytes()
        self.most = max(1, int(USED * room / wide))
        self.rows = min(self.rows, self.most)


class Fitting:
    """Makes less of it where memory runs out, and keeps what happened.

    Attributes:
        events: one mapping per failure (`memory.out_of_memory.event`).
    """

    def __init__(self) -> None:
        """Begin with no failure."""
        self.events: list[dict[str, object]] = []
        self._most: dict[str, int] = {}  # rows at a time since the last failure, by kind of work

    def halved(self, size: int, failure: Failure, say: Say) -> None:
        """Tell that half as many go at a time from now on.

        Raises:
            OutOfMemory: it was one.
        """
        half = size // 2 or None
        self.events.append(out_of_memory.event("answer", None, size, half, failure))
        if half is None:
            raise out_of_memory.unrecoverable("answer", "one prompt does not fit", failure)
        say(f"out of memory with {size} prompts at a time; going on with {half}")

    def batches(
        self,
        kind: str,
        rows: Sequence[Some],
        size: int,
        work: Callable[[Sequence[Some]], list[One]],
        say: Say,
    ) -> Iterator[list[One]]:
        """What `work` makes of the rows, at most `size` at a time, in order.

        A batch that does not fit is done again in halves, and so are those to come; what is done
        stays done.

        Raises:
            OutOfMemory: one row does not fit.
        """
        start = 0
        while start < len(rows):
            batch = rows[start : start + min(size, self._most.get(kind, size))]
            try:
                done, failure = work(batch), None
            except RAISED as error:
                if not is_out_of_memory(error):
                    raise
                done, failure = [], out_of_memory.failure_of(error)
            if failure is None:
                yield done
                start += len(batch)
                continue
            out_of_memory.free()  # outside the except block: the traceback pins tensors
            self.halved(len(batch), failure, say)
            self._most[kind] = len(batch) // 2
