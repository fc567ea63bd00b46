"""Recognises that memory ran out, and records what was allocated at that moment.

torch raises an exception of its own; libraries below torch say it in words. Both are told from
other failures here, for training, answering and loading (`holdfast.memory.loading`).
"""

from __future__ import annotations

import ctypes
import errno
import gc
import sys
from contextlib import suppress
from dataclasses import dataclass

from holdfast.errors import HoldfastError, OutOfMemory, Phase

MESSAGES = (
    "CUDA error: out of memory",  # the driver, outside torch's allocator (pinned memory, kernels)
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",  # cuDNN 9's name for the same
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "CUSPARSE_STATUS_ALLOC_FAILED",
    "Error out of memory at line",  # bitsandbytes
    "Cuda failure 2 'out of memory'",  # NCCL
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "std::bad_alloc",
    "Cannot allocate memory",  # the system's own words: mapping a file, starting a thread
)
"""How libraries below torch say that memory ran out."""

RAISED = (RuntimeError, MemoryError, OSError, SystemError, ImportError)
"""What may say so: torch and its libraries, Python and numpy, the system, a library that cannot be
mapped."""

REMEDIES: dict[Phase, str] = {
    "load": "train or measure in 4 bits (method: qlora), or let `holdfast plan` spread the model",
    "forward": "let `holdfast plan` choose what fits: checkpointing, 4 bits, or more GPUs",
    "backward": "let `holdfast plan` choose what fits: checkpointing, 4 bits, or more GPUs",
    "step": "start again from the last checkpoint with train.optim: paged_adamw_8bit or a smaller "
    "plan; a half-done update cannot be replayed",
    "save": "start again from the last complete checkpoint with a smaller plan",
    "answer": "lower max_new_tokens, set answer.quantize: nf4, or use a GPU with more memory",
}
"""What to do when it runs out and nothing can be made smaller."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What is kept of the exception: not itself, whose traceback holds on to tensors.

    Attributes:
        message: its first line.
        allocated_bytes: what torch had handed out on the fullest GPU; None without a GPU.
        reserved_bytes: what torch had taken from the driver there.
    """

    message: str
    allocated_bytes: int | None
    reserved_bytes: int | None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: torch's or Python's exception, the system's, or one of `MESSAGES`."""
    if isinstance(error, HoldfastError):
        return False
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    says = isinstance(error, RAISED) or type(error).__name__ == "SafetensorError"
    return says and any(words in str(error) for words in MESSAGES)


def failure_of(error: BaseException) -> Failure:
    """Look at the memory; call it while the exception is handled, before anything is freed."""
    allocated = reserved = None
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        gpus = range(torch.cuda.device_count())
        allocated, reserved = max(
            (torch.cuda.memory_allocated(gpu), torch.cuda.memory_reserved(gpu)) for gpu in gpus
        )
    return Failure((str(error).strip() or "out of memory").splitlines()[0], allocated, reserved)


def free() -> None:
    """Collect what no name holds any more; give cached memory back to the driver and the system."""
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library than glibc has no such function
        ctypes.CDLL(None).malloc_trim(0)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def event(
    phase: Phase, step: int | None, size: int | None, new: int | None, failure: Failure
) -> dict[str, object]:
    """The record of one failure, for the run folder and the calibration.

    Args:
        phase: what was being done.
        step: the optimiser step under way, from 1; None outside training.
        size: examples (rows) that did not fit at once; None where that is not what failed.
        new: examples at a time from now on; None: it was given up.
        failure: what was seen.
    """
    return {
        "phase": phase,
        "step": step,
        "from_micro_batch": size,
        "to_micro_batch": new,
        "allocated_bytes": failure.allocated_bytes,
        "reserved_bytes": failure.reserved_bytes,
        "message": failure.message,
    }


def unrecoverable(phase: Phase, why: str, failure: Failure) -> OutOfMemory:
    """The error of a failure that nothing in this process can mend."""
    return OutOfMemory(f"{why} ({failure.message})", phase=phase, remedy=REMEDIES[phase])
