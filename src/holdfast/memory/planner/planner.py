"""Plans the memory of a training: from a request to a report. Reads no weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from holdfast.config import LAB, LAB_FOLDER, TrainSpec
from holdfast.errors import UsageError
from holdfast.memory.estimate.workload import Workload
from holdfast.memory.hardware.cpu import computes_bf16
from holdfast.memory.hardware.devices import GPU
from holdfast.memory.model.catalogue import locate
from holdfast.memory.model.shape import Shape
from holdfast.memory.model.stored import BNB4, PACKAGES, check, method_for
from holdfast.memory.planner import calibration
from holdfast.memory.planner.choice import solved
from holdfast.memory.planner.counting import counted
from holdfast.memory.planner.evidence import margin, pace_said
from holdfast.memory.planner.ignored import ignored
from holdfast.memory.planner.inference import left_beside
from holdfast.memory.planner.memory_report import MemoryReport, as_stated, switched_on
from holdfast.memory.planner.pace import corrections
from holdfast.memory.planner.request import USUAL_SEQ_LEN, PlanRequest
from holdfast.memory.planner.strategies import RIGID, overheads_on_cpu
from holdfast.memory.planner.ways import Problem, Reason
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


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request as the comparison takes it.

    Attributes:
        problem: model, job and GPUs, with how their memory is estimated.
        source: `traced` or `formula`.
        precision: what is computed in.
        notes: what was assumed.
        called: the model, for the launch line and the script.
    """

    problem: Problem
    source: str
    precision: Precision
    notes: tuple[str | Reason, ...]
    called: str


def plan(request: PlanRequest) -> MemoryReport:
    """Answer a request.

    Raises:
        UsageError: see `plan_memory`.
        StudyError: adapters on a matrix or a layer that the model does not have.
    """
    found = prepare(request)
    one = found.problem
    comparison = solved(one, request.strategy)
    said = found.notes + switched_on(one.shape, one.work) + as_stated(one.work)
    said += ignored(request, one.work, one.gpus) + pace_said(one.paces)
    said += (comparison.server.reason,) if comparison.server else ()
    if not one.gpus[0].cpu:
        world = comparison.chosen.plan.world_size if comparison.chosen else 1
        said += margin(one.overheads, one.work, world)
    return MemoryReport(
        comparison,
        found.called,
        found.source,
        said,
        precision=found.precision,
        steps=request.steps(one.work.global_batch),
    )


def prepare(request: PlanRequest) -> Prepared:
    """What a request asks to be compared; traces the model's code where that is asked for.

    Raises:
        UsageError: see `plan_memory`.
        StudyError: adapters on a matrix or a layer that the model does not have.
    """
    if not request.model.strip():
        raise UsageError(
            "give a study file or --model",
            remedy="holdfast plan --model Qwen/Qwen2.5-7B-Instruct --gpus 2x24GiB",
        )
    work = request.workload()
    name = str(LAB_FOLDER) if request.named == LAB else request.named
    found = locate(name, request.revision)
    shape, told = counted(found, request.revision, request.trust, ask=request.trace)
    config = dict(found.config)
    shape = replace(shape, name=LAB) if request.named == LAB else shape
    work, kept = _as_stored(work, shape)
    gpus, assumed = request.devices()
    gpus, others = left_beside(gpus, request.beside)
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
    paces = corrections(gpus, shape.parameters, work.seq_len)
    problem = Problem(shape, work, gpus, request.host_free, overheads, estimated.estimate, paces)
    said = (shape.note, told, kept, *assumed, shortened, estimated.note, *others)
    called = name if "/" in name else shape.name  # as the hub has it, not as somebody typed it
    notes = tuple(one for one in said if one)
    return Prepared(problem, estimated.source, precision, notes, called)


def _as_stored(work: Workload, shape: Shape) -> tuple[Workload, Reason | None]:
    """The job on a base that is published in few bits, and what to say of it.

    Raises:
        ModelError: nothing can be trained on it as it is stored.
    """
    held = shape.stored
    if held is None:
        return work, None
    method = method_for(held, work.method)
    check(held, method, shape.name, here=False)
    if held.kind == BNB4:
        return replace(work, method="qlora"), Reason("four_bits", {"model": shape.name})
    values = {"model": shape.name, "kind": held.kind}
    if not held.expands:
        values |= {"bits": str(held.bits), "needs": " + ".join(PACKAGES[held.kind])}
    said = Reason("stored_wide" if held.expands else "stored_bits", values)
    return replace(work, quantize=False), said


def _precision(
    request: PlanRequest, gpus: Sequence[GPU], config: Mapping[str, object]
) -> Precision:
    """What is computed in."""
    allowed = request.settings.precisions
    if gpus[0].cpu:
        return on_cpu([stored(config)], allowed, has_bf16=computes_bf16())
    return on_gpus(gpus, [stored(config)], allowed)


def _within_positions(work: Workload, shape: Shape) -> tuple[Workload, Reason | None]:
    """The job, cut to what the model reads where its length was only assumed; and what to say."""
    length = work.seq_len - work.method_overhead.generated_tokens
    if length == USUAL_SEQ_LEN and shape.max_positions < work.seq_len:
        cut = replace(work, seq_len=shape.max_positions)
        return cut, Reason("shortened", {"tokens": f"{shape.max_positions:,}"})
    return work, None
