"""Plans the memory of a training: from a request to a report. Reads no weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from holdfast.config import LAB, LAB_FOLDER, TrainSpec
from holdfast.errors import UsageError
from holdfast.memory.estimate.workload import Workload
from holdfast.memory.hardware.cpu import computes_bf16
from holdfast.memory.hardware.devices import GPU
from holdfast.memory.model.catalogue import read_config
from holdfast.memory.model.shape import Shape, read_shape
from holdfast.memory.model.stored import BNB4, check, method_for
from holdfast.memory.planner import calibration
from holdfast.memory.planner.choice import make_plan
from holdfast.memory.planner.memory_report import MemoryReport, as_stated, switched_on
from holdfast.memory.planner.request import USUAL_SEQ_LEN, PlanRequest
from holdfast.memory.planner.strategies import RIGID, overheads_on_cpu
from holdfast.memory.precision import Precision, on_cpu, on_gpus, stored
from holdfast.memory.trace.estimates import Run, estimates


def plan_memory(
    model: str | PlanRequest,
    gpus: str | tuple[GPU, ...] | None = None,
    *,
    seq_len: int | None = None,
    method: str | None = None,
    strategy: str | None = None,
    batch_size: int | None = None,
    trace: bool = True,
) -> MemoryReport:
    """What fits on these GPUs, how it should be run, and what it takes; loads no weights.

    Args:
        model: hub id, folder, name of the catalogue, or `lab`; or a whole `PlanRequest`, in which
            the other arguments replace what they say.
        gpus: such as ``"2x24GiB"`` or ``"rtx4090"``, or ``"cpu"``; None: those of this machine,
            or its CPU where it has none.
        seq_len: tokens of the longest example; None: 1,024.
        method: `auto` (LoRA, on a 4-bit base where that is needed), `lora`, `qlora` or `full`.
        strategy: the only one that is allowed, such as `ddp` or `qlora+split`.
        batch_size: examples per optimiser step; None: as in a study without one.
        trace: trace the model's own code, which takes seconds and torch; False: by formula.

    Returns:
        The report: `fits`, `plan`, `candidates`, `to_json()`; it shows itself in a notebook.

    Raises:
        UsageError: an unknown model, method, strategy or GPU, no GPU at all, or a request that no
            amount of memory would help.
    """
    asked = model if isinstance(model, PlanRequest) else PlanRequest(model)
    return plan(
        replace(
            asked,
            gpus=asked.gpus if gpus is None else gpus,
            seq_len=seq_len or asked.seq_len,
            method=method or asked.method,
            strategy=strategy or asked.strategy,
            global_batch=batch_size or asked.global_batch,
            trace=trace and asked.trace,
        )
    )


def plan(request: PlanRequest) -> MemoryReport:
    """Answer a request.

    Raises:
        UsageError: see `plan_memory`.
        StudyError: adapters on a matrix or a layer that the model does not have.
    """
    if not request.model:
        raise UsageError(
            "give a study file or --model",
            remedy="holdfast plan --model Qwen/Qwen2.5-7B-Instruct --gpus 2x24GiB",
        )
    work = request.workload()
    name = str(LAB_FOLDER) if request.model == LAB else request.model
    shape, config = read_shape(name, request.revision), read_config(name, request.revision)
    work, kept = _as_stored(work, shape)
    gpus, assumed = request.devices()
    precision = _precision(request, gpus, config)
    work = request.stated.applied(work)
    work, shortened = _within_positions(replace(work, dtype=precision.dtype), shape)
    if shape.stored is not None:
        config.pop("quantization_config", None)  # it is traced as it lies in memory
    host = gpus[0].cpu
    if host:
        asked = "gradient_checkpointing" in (request.train or TrainSpec()).model_fields_set
        asked = asked or request.stated.checkpointing is not None
        work = replace(work, on_cpu=True, checkpointing=work.checkpointing if asked else None)
    alone = work.micro_batch is not None and work.global_batch <= work.micro_batch * len(gpus)
    run = Run("cpu" if host else "cuda", len(gpus) > 1, not alone)
    estimated = estimates(shape, config, work, request.trace, request.cache, run)
    overheads = overheads_on_cpu(shape) if host else calibration.overheads()
    if not host and not work.expandable:
        overheads = RIGID
    comparison = make_plan(
        shape, work, gpus, request.host_free, overheads,
        estimated.estimate, request.strategy,
    )  # fmt: skip
    said = tuple(filter(None, (shape.note, kept, assumed, shortened, estimated.note)))
    said += switched_on(shape, work) + as_stated(work)
    called = name if "/" in name else shape.name  # as the hub has it, not as somebody typed it
    return MemoryReport(comparison, called, estimated.source, said, precision=precision)


def _as_stored(work: Workload, shape: Shape) -> tuple[Workload, str]:
    """The job on a base that is published in few bits, and what to say of it.

    Raises:
        ModelError: nothing can be trained on it as it is stored.
    """
    held = shape.stored
    if held is None:
        return work, ""
    method = method_for(held, work.method)
    told = " ".join(check(held, method, shape.name, here=False))
    if held.kind == BNB4:
        return replace(work, method="qlora"), f"{shape.name} is stored in 4 bits, and counted so"
    return replace(work, quantize=False), told


def _precision(
    request: PlanRequest, gpus: Sequence[GPU], config: Mapping[str, object]
) -> Precision:
    """What is computed in."""
    allowed = request.settings.precisions
    if gpus[0].cpu:
        return on_cpu([stored(config)], allowed, has_bf16=computes_bf16())
    return on_gpus(gpus, [stored(config)], allowed)


def _within_positions(work: Workload, shape: Shape) -> tuple[Workload, str]:
    """The job, cut to what the model reads where its length was only assumed; and what to say."""
    length = work.seq_len - work.method_overhead.generated_tokens
    if length == USUAL_SEQ_LEN and shape.max_positions < work.seq_len:
        cut = replace(work, seq_len=shape.max_positions)
        return cut, f"examples of at most {shape.max_positions} tokens, the most this model reads"
    return work, ""
