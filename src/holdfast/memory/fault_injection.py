"""Injects out-of-memory errors at named phases, so that recovery can be tested without a full GPU.

`HOLDFAST_FAULTS` names phases and when they fail::

    HOLDFAST_FAULTS=backward:3              the third time that a backward pass is half done
    HOLDFAST_FAULTS="forward>512"           whenever more than 512 padded tokens go in at once
    HOLDFAST_FAULTS="answer>2000,save:1"     several, comma-separated

Trainer, engine and loader call `FaultInjector.at`; without the variable that does nothing. The
error is torch's own, so that what handles it cannot tell. On a real GPU, `capped` makes memory
scarce.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast, get_args

from holdfast.errors import Phase, UsageError

if TYPE_CHECKING:
    import torch

VARIABLE = "HOLDFAST_FAULTS"


@dataclass(frozen=True, slots=True)
class Fault:
    """One phase that fails: the `nth` time, or whenever more than `above` tokens are under way."""

    phase: Phase
    nth: int | None = None
    above: int | None = None


@dataclass(slots=True)
class FaultInjector:
    """Counts how often each phase was entered and fails where it was told to.

    Attributes:
        faults: where and when.
        passed: how often each phase was entered so far.
    """

    faults: Sequence[Fault] = ()
    passed: dict[Phase, int] = field(default_factory=dict)

    @classmethod
    def from_environment(cls) -> FaultInjector:
        """The faults that `HOLDFAST_FAULTS` asks for; none without it.

        Raises:
            UsageError: the variable cannot be read.
        """
        return cls([_fault(one) for one in os.environ.get(VARIABLE, "").split(",") if one.strip()])

    def at(self, phase: Phase, tokens: int = 0) -> None:
        """Enter a phase with so many padded tokens (rows times width) at once.

        Raises:
            torch.OutOfMemoryError: when a fault is due.
        """
        self.passed[phase] = count = self.passed.get(phase, 0) + 1
        for fault in self.faults:
            too_many = fault.above is not None and tokens > fault.above
            if fault.phase == phase and (too_many or fault.nth == count):
                import torch

                raise torch.OutOfMemoryError(
                    f"CUDA out of memory. Tried to allocate 20.00 MiB. (injected fault: {phase}, "
                    f"time {count}, {tokens} tokens)"
                )

    def halfway_backward(self, model: torch.nn.Module, tokens: Callable[[], int]) -> None:
        """Enter ``backward`` when the gradient of the middle trained weight arrives.

        By then the layers after it have their gradients: what a real failure leaves behind.

        Args:
            model: whose weights are trained.
            tokens: called for the padded tokens under way.
        """
        if not any(fault.phase == "backward" for fault in self.faults):
            return
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        trained[len(trained) // 2].register_hook(lambda _: self.at("backward", tokens()))


def _fault(text: str) -> Fault:
    found = re.fullmatch(r"\s*(\w+)([:>])(\d+)\s*", text)
    if found is None or found[1] not in get_args(Phase):
        raise UsageError(
            f"{text!r} is not a fault",
            where=VARIABLE,
            remedy=f"write PHASE:N or PHASE>TOKENS, PHASE one of {', '.join(get_args(Phase))}",
        )
    phase, number = cast(Phase, found[1]), int(found[3])
    return Fault(phase, nth=number) if found[2] == ":" else Fault(phase, above=number)


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
