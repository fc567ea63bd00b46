"""Says whether a training on a CPU that nobody planned recomputes activations.

It is decided when a training begins, by the formula, and has no bearing on what is learned.
"""

from __future__ import annotations

from dataclasses import replace

from holdfast.config import TrainSpec
from holdfast.errors import HoldfastError
from holdfast.memory.estimate.activations import activations
from holdfast.memory.estimate.method_overhead import NOTHING, MethodOverhead
from holdfast.memory.estimate.states import states
from holdfast.memory.estimate.workload import from_training
from holdfast.memory.hardware.host import host_ram_bytes
from holdfast.memory.model.shape import read_shape
from holdfast.memory.precision import Dtype
from holdfast.types import ModelRef

HOST_SHARE = 0.5
"""Of the memory that is free: what a training on a CPU may take before it recomputes. Other
processes want memory too, and running out of it usually ends a process unasked.
"""


def settled_on_cpu(
    spec: TrainSpec,
    model: ModelRef,
    dtype: Dtype,
    rows: int,
    longest: int,
    overhead: MethodOverhead = NOTHING,
) -> TrainSpec:
    """The settings of a training on a CPU: without recomputation where memory suffices for that.

    What is learned is the same. A model whose shape is not known is left as it is.

    Args:
        spec: as asked; where `gradient_checkpointing` is false, it stays so.
        model: the base.
        dtype: of the computation.
        rows: examples of the largest forward pass.
        longest: tokens of its longest example.
        overhead: what the arm's methods take.
    """
    if not spec.gradient_checkpointing:
        return spec
    method = "lora" if spec.method == "auto" else spec.method
    work = from_training(spec, longest, None, overhead)
    work = replace(work, dtype=dtype, method=method, on_cpu=True)
    try:
        shape = read_shape(model.base, model.revision)
        held = states(shape, work, method)
        formula = activations(shape, work, method, rows, checkpointing=False)
    except HoldfastError:
        return spec
    moments = formula.moments(shape.layers, head=True)
    peak = max(one.activations + one.logits + one.workspace for one in moments)
    needed = held.weights + held.adapters + held.gradients + held.optimiser + peak
    suffices = needed <= HOST_SHARE * host_ram_bytes()
    return spec.model_copy(update={"gradient_checkpointing": not suffices})
