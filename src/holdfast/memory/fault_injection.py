"""How is it practised that memory runs out, without filling a GPU?

Recovery that was never exercised does not work. `HOLDFAST_DRILL` names places and when they fail::

    HOLDFAST_DRILL=backward:3               the third time that a backward pass is half done
    HOLDFAST_DRILL="forward>512"            whenever more than 512 padded tokens go in at once
    HOLDFAST_DRILL="answer>2000,save:1"     several, comma-separated

Trainer, engine and loader pass their places; without the variable that does nothing. The error is
torch's own, so that what handles it cannot tell. On a real GPU, `capped` makes memory scarce.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, get_args

from holdfast.errors import Phase, UsageError

VARIABLE = "HOLDFAST_DRILL"


@dataclass(frozen=True, slots=True)
class Fault:
    """One place that fails: at its `nth` passing, or whenever more than `above` tokens pass."""

    place: Phase
    nth: int | None = None
    above: int | None = None


@dataclass(slots=True)
class Drill:
    """Counts how often each place was passed and fails where it was told to.

    Attributes:
        faults: where and when.
        passed: how often each place was passed so far.
    """

    faults: Sequence[Fault] = ()
    passed: dict[Phase, int] = field(default_factory=dict)

    @classmethod
    def from_environment(cls) -> Drill:
        """The drill that `HOLDFAST_DRILL` asks for; an idle one without it.

        Raises:
            UsageError: the variable cannot be read.
        """
        return cls([_fault(one) for one in os.environ.get(VARIABLE, "").split(",") if one.strip()])

    def at(self, place: Phase, tokens: int = 0) -> None:
        """Pass a place with so many padded tokens (rows times width) at once.

        Raises:
            torch.OutOfMemoryError: when a fault is due.
        """
        self.passed[place] = count = self.passed.get(place, 0) + 1
        for fault in self.faults:
            too_many = fault.above is not None and tokens > fault.above
            if fault.place == place and (too_many or fault.nth == count):
                import torch

                raise torch.OutOfMemoryError(
                    f"CUDA out of memory. Tried to allocate 20.00 MiB. (drill: {place}, pass "
                    f"{count}, {tokens} tokens)"
                )

    def half_way_back(self, model: Any, tokens: Any) -> None:
        """Pass ``backward`` when the gradient of the middle trained weight arrives.

        By then the layers after it have their gradients: what a real failure leaves behind.

        Args:
            model: whose weights are trained.
            tokens: called for the padded tokens under way.
        """
        if not any(fault.place == "backward" for fault in self.faults):
            return
        trained = [one for one in model.parameters() if one.requires_grad]
        trained[len(trained) // 2].register_hook(lambda _: self.at("backward", tokens()))


def _fault(text: str) -> Fault:
    found = re.fullmatch(r"\s*(\w+)([:>])(\d+)\s*", text)
    if found is None or found[1] not in get_args(Phase):
        raise UsageError(
            f"{text!r} is not a drill",
            where=VARIABLE,
            remedy=f"write PLACE:N or PLACE>TOKENS, PLACE one of {', '.join(get_args(Phase))}",
        )
    place: Any = found[1]
    number = int(found[3])
    return Fault(place, nth=number) if found[2] == ":" else Fault(place, above=number)


@contextmanager
def capped(cap_bytes: int, gpu: int = 0) -> Iterator[None]:
    """Let torch's allocator take no more than `cap_bytes` of one GPU, as if it were smaller.

    Caps what torch reserves. The CUDA context, communication buffers and managed memory (paged
    optimisers) are outside of it: subtract the context from the size of the card to be emulated.

    Args:
        cap_bytes: above what is reserved already.
        gpu: its index among the visible ones.

    Raises:
        UsageError: the cap is not between what is reserved and what the GPU has.
    """
    import torch

    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(gpu).total_memory
    reserved = torch.cuda.memory_reserved(gpu)
    if not reserved < cap_bytes <= total:
        raise UsageError(
            f"a cap of {cap_bytes} bytes is outside ({reserved}, {total}]",
            where=f"GPU {gpu}",
            remedy="cap before the model is loaded, and at no more than the GPU has",
        )
    torch.cuda.memory.set_per_process_memory_fraction(cap_bytes / total, gpu)
    try:
        yield
    finally:
        torch.cuda.memory.set_per_process_memory_fraction(1.0, gpu)
