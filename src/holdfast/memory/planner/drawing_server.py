"""Places the vLLM that draws a training's answers: on a GPU of its own, or beside the training.

Training on drawn answers runs on one device. Of several GPUs the server gets the smallest other one
that holds it, all that is free there; else it lies beside the training, with as much as weights,
adapters and keys and values of `ROWS` answers at their longest take, and that is no longer free for
the training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from holdfast.memory.estimate.activations import cache_bytes
from holdfast.memory.estimate.states import states
from holdfast.memory.estimate.workload import Workload
from holdfast.memory.hardware.devices import GPU
from holdfast.memory.memory_plan import GIB
from holdfast.memory.model.shape import Shape
from holdfast.memory.planner.inference import ROOM_BYTES
from holdfast.memory.planner.ways import Reason

ROWS = 32
"""Answers that are drawn at a time beside a training."""
SLOTS = 2
"""Copies of the adapter: the one that answers, and room for the next."""
SPARE_BYTES = GIB
"""Of a GPU that the server has to itself: the driver, and what vLLM does not count."""
MOST_SHARE = 0.92


@dataclass(frozen=True, slots=True)
class Place:
    """Where the server lies, and what it may take.

    Attributes:
        gpu: as the driver numbers it; None: the CPU.
        apart: the training runs on another GPU.
        takes: bytes.
        share: of that GPU's whole memory, as vLLM is told it; 0 on a CPU.
        cache_gib: of keys and values, as vLLM is told it on a CPU; 0 on a GPU.
        tokens: of the longest question and its answer together.
        rows: answers at a time.
    """

    gpu: int | None
    apart: bool
    takes: int
    share: float
    cache_gib: int
    tokens: int
    rows: int = ROWS

    @property
    def reason(self) -> Reason:
        """For the plan's explanation."""
        where = "cpu" if self.gpu is None else "apart" if self.apart else "shared"
        values = {"gib": f"{self.takes / GIB:.1f}", "rows": self.rows}
        if self.gpu is not None:
            values |= {"gpu": self.gpu, "share": f"{self.share:.3f}"}
        return Reason(f"drawn_{where}", values)


def placed(shape: Shape, work: Workload, gpus: Sequence[GPU]) -> Place | None:
    """Where the server of a job lies; None: the job has none.

    Args:
        shape: the model.
        work: the job; the server computes in its dtype.
        gpus: with their free memory; the CPU stands alone.
    """
    if not (gpus and work.method_overhead.served):
        return None
    held = states(shape, replace(work, method="lora"), "lora")
    fixed = held.weights + SLOTS * held.adapters + ROOM_BYTES
    cache = cache_bytes(shape, work, ROWS, work.seq_len)
    if gpus[0].cpu:
        cache_gib = max(1, math.ceil(cache / GIB))
        return Place(None, False, fixed + cache_gib * GIB, 0.0, cache_gib, work.seq_len)
    first, *others = _in_order(gpus)
    takes = fixed + cache
    for one in sorted(others, key=lambda one: one.free_bytes):
        share = min(MOST_SHARE, (one.free_bytes - SPARE_BYTES) / one.total_bytes)
        if takes <= share * one.total_bytes:
            return Place(one.index, True, takes, share, 0, work.seq_len)
    share = math.ceil(1000 * takes / first.total_bytes) / 1000
    takes = round(share * first.total_bytes)
    return Place(first.index, False, takes, share, 0, work.seq_len)


def left(gpus: Sequence[GPU], place: Place | None) -> list[GPU]:
    """The GPUs for the training, the roomiest first, with what is free beside the server."""
    found = []
    for one in _in_order(gpus):
        if place is not None and place.gpu in (one.index, None):
            if place.apart:
                continue
            one = replace(one, free_bytes=max(0, one.free_bytes - place.takes))
        found.append(one)
    return found


def _in_order(gpus: Sequence[GPU]) -> list[GPU]:
    return sorted(gpus, key=lambda gpu: (-gpu.free_bytes, -gpu.flops, gpu.index))
