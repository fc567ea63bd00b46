"""What is traced, and what comes of it: the values `TraceJob`, `Traced` and `TraceFailed`.

A trace runs stacks of a few layers. The peak of each phase is linear in the layers, and piecewise
linear in the batch, so a few traces answer for every depth and batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from holdfast.memory.estimate.method_overhead import Logits
from holdfast.memory.estimate.workload import Variant
from holdfast.memory.memory_plan import Breakdown


@dataclass(frozen=True, slots=True)
class TraceJob:
    """What is traced: one process that trains (or answers with) one model.

    Attributes:
        config: content of the model's ``config.json``.
        seq: tokens in each example, the longest; padding included.
        method: `lora`, `qlora` (NF4, double quantisation) or `full`.
        device: whose kernels and allocator are meant.
        phase: `train`, or `answer`: read `seq` tokens, then one more from the key-value cache.
        r: rank of the adapters.
        dropout: of the adapters.
        target_modules: PEFT's; a name such as `all-linear`, or names of modules.
        adapter_dtype: PEFT keeps float32 on a bfloat16 base, TRL turns a quantised base's into
            bfloat16.
        dtype: of the base weights (for `qlora`: of what is not quantised, and of the computation);
            bfloat16 stands for float16 too.
        autocast: the forward pass runs under 16-bit autocast, as in the trainer.
        checkpointing: layers are recomputed, one by one (non-reentrant).
        attention: `auto` is what transformers chooses for this model.
        fused_loss: TRL's fused head; else the model's own loss on full logits.
        kbit_upcast: PEFT's `prepare_model_for_kbit_training` made what is not quantised float32.
        padded: rows are padded: an explicit mask is built and keys and values are expanded.
        packed: several examples share a row, of whose positions the mask is made.
        accumulate: gradients of an earlier micro-batch are alive in the forward pass.
        optimizer: the trainer's name of it.
        variant: of the adapters; see `holdfast.config.LoraSpec`.
        logits: see `holdfast.memory.estimate.method_overhead.MethodOverhead`. With
            `policy+reference` two micro-batches are traced: one whose whole logits are compared
            with the base's, and a plain one.
        positions: of each row at which they are, the last ones; 0: all.
    """

    config: Mapping[str, object]
    seq: int
    method: Literal["lora", "qlora", "full"] = "lora"
    device: Literal["cuda", "cpu"] = "cuda"
    phase: Literal["train", "answer"] = "train"
    r: int = 16
    dropout: float = 0.05
    target_modules: str | tuple[str, ...] = "all-linear"
    adapter_dtype: Literal["float32", "bfloat16"] = "float32"
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    autocast: bool = True
    checkpointing: bool = True
    attention: Literal["auto", "sdpa", "eager"] = "auto"
    fused_loss: bool = True
    kbit_upcast: bool = False
    padded: bool = False
    packed: bool = False
    accumulate: bool = True
    optimizer: str = "adamw_torch_fused"
    variant: Variant = "lora"
    logits: Logits = "none"
    positions: int = 0


@dataclass(frozen=True, slots=True)
class Point:
    """One traced stack: its layers by kind, its batch, and each phase's peak by category."""

    kinds: Mapping[str, int]
    batch: int
    peaks: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Traced:
    """What was traced for one job.

    Attributes:
        job: the question.
        stack: the kind of every layer of the whole model, first to last.
        points: the traces: the smallest stack at several batches, then, at some of them, stacks
            with one more layer of one kind.
        seconds: how long they took.
        cached: read from the cache.
    """

    job: TraceJob
    stack: tuple[str, ...]
    points: tuple[Point, ...]
    seconds: float = field(default=0.0, compare=False)
    cached: bool = field(default=False, compare=False)

    def predict(self, layers: int | None = None, batch: int = 1) -> Breakdown:
        """The peak of one process: the largest of its phases' peaks.

        Args:
            layers: how many of the model's layers it holds; all of them when None.
            batch: examples per micro-batch.
        """
        return max(self.phases(layers, batch).values(), key=lambda one: one.total)

    def phases(self, layers: int | None = None, batch: int = 1) -> dict[str, Breakdown]:
        """The peak of every phase of a step: forward, loss, backward, optimiser."""
        stack = self.stack[: len(self.stack) if layers is None else layers]
        return {
            phase: Breakdown(**{name: self._bytes(phase, name, stack, batch) for name in parts})
            for phase, parts in self.points[0].peaks.items()
        }

    def _bytes(self, phase: str, name: str, stack: Sequence[str], batch: int) -> int:
        """One category's share of a phase's peak, for these layers and this batch."""

        def known(kinds: Mapping[str, int]) -> dict[int, int]:
            of_stack = [point for point in self.points if point.kinds == kinds]
            return {point.batch: point.peaks[phase][name] for point in of_stack}

        smallest = self.points[0].kinds
        base = known(smallest)
        total = _between(base, batch)
        for kind, count in smallest.items():
            larger = known({**smallest, kind: count + 1})
            adds = {size: value - base[size] for size, value in larger.items()}
            total += (stack.count(kind) - count) * _between(adds, batch)
        return max(0, round(total))


def _between(known: Mapping[int, int], batch: int) -> float:
    """The value at a batch, on the straight line through its traced neighbours."""
    pairs = list(pairwise(sorted(known)))
    low, high = next((pair for pair in pairs if batch <= pair[1]), pairs[-1])
    return known[low] + (known[high] - known[low]) / (high - low) * (batch - low)


@dataclass(frozen=True, slots=True)
class TraceFailed:
    """No trace of this job, for a reason in words: the formulas have to answer."""

    job: TraceJob
    reason: str
