"""Plans the memory of a study: for the arm that takes most.

Arms differ in their adapters and in what their loss methods keep, so each of them is a request of
its own, and the plan must hold for all. On a CPU there is no plan: whether activations are
recomputed is decided when a training begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from holdfast import judges, methods
from holdfast.config import Study, TrainSpec
from holdfast.config.successive import grown
from holdfast.config.sweeps import Variant, expand
from holdfast.config.yaml_text import read_yaml
from holdfast.errors import DoesNotFit, HoldfastError
from holdfast.memory.estimate.activations import activations
from holdfast.memory.estimate.method_overhead import NOTHING, MethodOverhead, combined
from holdfast.memory.estimate.states import states
from holdfast.memory.estimate.workload import Workload, from_training
from holdfast.memory.hardware.cpu import cpu
from holdfast.memory.hardware.detect import detect
from holdfast.memory.hardware.host import host_ram_bytes
from holdfast.memory.memory_plan import GIB, MemoryPlan
from holdfast.memory.model.reading import read_shape
from holdfast.memory.planner import explanation, pace
from holdfast.memory.planner.choice import Comparison
from holdfast.memory.planner.drawing_server import placed
from holdfast.memory.planner.inference import answering_bytes
from holdfast.memory.planner.inference import longest as longest_prompt
from holdfast.memory.planner.memory_report import MemoryReport
from holdfast.memory.planner.planner import plan
from holdfast.memory.planner.request import CPU, USUAL_SEQ_LEN, PlanRequest
from holdfast.memory.planner.ways import Reason
from holdfast.memory.precision import Dtype
from holdfast.runs import store
from holdfast.train.job import HISTORY, TrainJob
from holdfast.types import ModelRef

NOTHING_SAID = PlanRequest(trace=False)
HOST_SHARE = 0.5
"""Of the memory that is free: what a training on a CPU may take before it recomputes. The formula
is a GPU's, other processes want memory too, and running out of it usually ends a process unasked.
"""


class HasOverhead(Protocol):
    """A method, as far as memory cares."""

    def overhead(self) -> MethodOverhead:
        """What it takes beyond plain training."""


def plan_study(
    study: Study,
    asked: PlanRequest = NOTHING_SAID,
    *,
    arms: Mapping[str, PlanRequest] | None = None,
    longest: int | None = None,
    answer_tokens: int | None = None,
) -> MemoryReport:
    """Plan the training of a study: for the arm that takes most.

    Args:
        study: model, training and hardware.
        asked: what the command line says, which wins over the study.
        arms: training and overhead of each arm; None: of all that the study trains.
        longest: tokens of its longest training example; None: `train.max_length`, or assumed.
        answer_tokens: of the longest answer, where logits are of answers alone: whole ones that are
            kept, and all on a CPU; None: as long as all.

    Raises:
        UsageError: see `holdfast.memory.planner.planner.plan_memory`.
        StudyError: an arm that cannot be.
    """
    requests, known = _requests(study, asked, arms, longest, answer_tokens)
    name, request = _hardest(requests)
    notes = [Reason("arm", {"arm": name})] * (len(requests) > 1)
    report = plan(request)
    shortened = any(isinstance(one, Reason) and one.key == "shortened" for one in report.said)
    if not known and not shortened:
        notes.append(Reason("length_assumed", {"tokens": f"{USUAL_SEQ_LEN:,}"}))
    return replace(report, said=(*report.said, *notes))


def fitting(report: MemoryReport) -> MemoryPlan:
    """The plan of a report.

    Raises:
        DoesNotFit: there is none; naming the changes after which there would be.
    """
    if report.plan is None:
        compared = report.comparison
        lines = explanation.changes(compared, "en")
        names = ", ".join(sorted({gpu.name for gpu in compared.gpus}))
        raise DoesNotFit(
            f"training {compared.shape.name} does not fit on {names}"
            if compared.server is None
            else f"training {compared.shape.name} does not fit on {names} beside the vLLM that "
            f"draws its answers ({compared.server.takes / GIB:.1f} GiB)",
            remedy="\n    ".join([*lines, "`holdfast plan` shows the whole table"]),
        )
    return report.plan


def hardest_request(study: Study, asked: PlanRequest = NOTHING_SAID) -> PlanRequest:
    """What is asked for a study's arm that takes most; see `plan_study`."""
    return _hardest(_requests(study, asked, None, None, None)[0])[1]


def _hardest(requests: Sequence[tuple[str, PlanRequest]]) -> tuple[str, PlanRequest]:
    """The arm that takes most, by formula."""
    if len(requests) == 1:
        return requests[0]
    return max(requests, key=lambda one: _shortage(_by_formula(one[1])))


def _requests(
    study: Study,
    asked: PlanRequest,
    arms: Mapping[str, PlanRequest] | None,
    longest: int | None,
    answer_tokens: int | None,
) -> tuple[list[tuple[str, PlanRequest]], int | None]:
    """What is asked for each arm that differs, with its name; and the length, where it is known."""
    hardware = study.hardware
    known = asked.seq_len or study.train.row_tokens(longest)
    common = replace(
        asked,
        model=study.model.id,
        revision=study.model.revision,
        gpus=asked.gpus or (CPU if hardware.device == "cpu" else hardware.gpus or detect()),
        seq_len=known,
        method=asked.method or study.train.method,
        strategy=asked.strategy or hardware.strategy,
        train=study.train,
        attention=study.model.attn_implementation,
        trust=asked.trust or study.model.trust_remote_code,
        beside=asked.beside or hardware.beside,
    )
    host = common.gpus in (CPU, ())
    requests: dict[tuple[Workload, Sequence[str]], tuple[str, PlanRequest]] = {}
    for name, arm in (arms_of(study) if arms is None else arms).items():
        train = arm.train or study.train
        request = replace(
            common, train=arm.train, overhead=arm.overhead,
            seq_len=asked.seq_len or train.row_tokens(longest),
            supervised_tokens=answer_tokens if arm.overhead.reference or host else None,
        )  # fmt: skip
        requests.setdefault((request.workload(), train.precisions), (name, request))
    if not requests:
        requests[common.workload(), ()] = (study.name, common)
    return list(requests.values()), known


def after_training(study: Study) -> list[str]:
    """What answering and each local judge take for one prompt, in sentences; asks the hub.

    They are no part of the training's peak: each has the GPUs to itself while it runs. What is not
    known is left out.
    """
    quantized = study.answer.quantize == "nf4" or (
        study.answer.quantize == "auto" and study.train.method == "qlora"
    )
    sizes: dict[str, int] = {}
    with suppress(HoldfastError):
        shape = read_shape(study.model.id, study.model.revision)
        tokens = longest_prompt(shape, study.answer.sampling.max_new_tokens)
        sizes["answering"] = answering_bytes(shape, quantized, tokens)
    with suppress(HoldfastError):  # a judge that is none is refused where it is asked
        for one in _judges(study):
            if one.guard is not None:
                sizes[one.title] = one.guard.takes()
    if not sizes:
        return []
    said = ", ".join(f"{name} {size / GIB:.1f} GiB" for name, size in sizes.items())
    told = f"after it, each with the GPUs to itself, for one prompt: {said}"
    if study.answer.engine == "vllm":
        told += "; vLLM takes what more is free for its cache, and ends before training begins"
    return [told]


def record_pace(report: MemoryReport, plan: MemoryPlan, job: TrainJob, disturbed: bool) -> None:
    """Record how fast a training was beside what the model of speed says of it."""
    found, history = report.comparison, job.folder / HISTORY
    alike = [
        one.plan
        for one in report.candidates
        if one.plan.strategy == plan.strategy and one.plan.checkpointing == plan.checkpointing
    ]
    rows = store.read_lines(history) if history.is_file() else []
    disturbed = disturbed or found.work.method_overhead.generated_tokens > 0  # it answers meanwhile
    if disturbed or not alike or not (tokens_per_s := pace.logged(rows)):
        return
    nearest = min(alike, key=lambda one: abs(one.micro_batch - plan.micro_batch))
    several, used = plan.world_size > 1, [one for one in found.gpus if one.index in plan.gpus]
    pace.record(pace.Pace(
        pace.device_of(used or found.gpus), several, found.shape.parameters,
        plan.micro_batch * found.work.seq_len,
        nearest.tokens_per_s / pace.factor(found.paces, several), tokens_per_s,
    ))  # fmt: skip


def _judges(study: Study) -> Iterator[judges.Judge]:
    """Who judges answers, and the training set for loss methods."""
    named = [judges.build(task.judge, f"tasks.{name}.judge")
             for name, task in study.tasks.items() if task.judge]  # fmt: skip
    for variant in expand(study, study.name).values():
        named += [one.judge for one in _built(variant, "loss", study.name) if one.judge is not None]
    for made in named:
        yield from judges.members_of(made)


def settled_on_cpu(
    spec: TrainSpec,
    model: ModelRef,
    dtype: Dtype,
    rows: int,
    longest: int,
    overhead: MethodOverhead = NOTHING,
    answer_tokens: int | None = None,
) -> TrainSpec:
    """The settings of a training on a CPU: without recomputation where memory suffices for that.

    What is learned is the same. A model whose shape is not known is left as it is.

    Args:
        spec: as asked; where `gradient_checkpointing` is false, it stays so.
        model: the base.
        dtype: of the computation.
        rows: examples of the largest forward pass.
        longest: tokens of its longest example.
        overhead: what the arm's methods take; a server that draws answers takes its part first.
        answer_tokens: of the longest answer, which alone has logits; None: as long as all.
    """
    if not spec.gradient_checkpointing:
        return spec
    method = "lora" if spec.method == "auto" else spec.method
    work = replace(
        from_training(spec, longest, answer_tokens, overhead),
        dtype=dtype,
        method=method,
        on_cpu=True,
    )
    try:
        shape = read_shape(model.base, model.revision)
        held = states(shape, work, method)
        formula = activations(shape, work, method, rows, checkpointing=False)
        server = placed(shape, work, [cpu()])
    except HoldfastError:
        return spec
    moments = formula.moments(shape.layers, head=True)
    peak = max(one.activations + one.logits + one.workspace for one in moments)
    needed = held.weights + held.adapters + held.gradients + held.optimiser + peak
    suffices = needed <= HOST_SHARE * (host_ram_bytes() - (server.takes if server else 0))
    return spec.model_copy(update={"gradient_checkpointing": not suffices})


def arms_of(study: Study) -> dict[str, PlanRequest]:
    """Training settings and overhead of all arms that are trained, in the study's order.

    Raises:
        StudyError: see `holdfast.config.sweeps.expand` and `holdfast.methods.build`.
    """
    found, variants = {}, expand(study, study.name)
    averages: dict[str, set[float]] = {}
    for variant in variants.values():
        for method in _built(variant, "weights", study.name):
            averages.setdefault(variant.source, set()).update(method.averages)
    for variant in variants.values():
        if variant.trains:
            loss = _built(variant, "loss", study.name)
            overhead = overhead_of(loss, len(averages.get(variant.name, ())))
            stages = len(study.stages) if any(one.grows for one in loss) else 1
            train = grown(variant.train, max(1, stages))  # the last stage's, the widest
            found[variant.name] = PlanRequest(train=train, overhead=overhead)
    return found


def _built(variant: Variant, entry: str, source: str) -> list[Any]:
    """The methods of one of an arm's lists."""
    return [
        methods.build(name, options, source, f"arms.{variant.family}.{entry}")
        for step in getattr(variant.spec, entry)
        for name, options in step.items()
    ]


def overhead_of(loss: Iterable[HasOverhead], averages: int = 0) -> MethodOverhead:
    """What an arm's loss methods take together, and so many moving averages of what is trained."""
    kept = MethodOverhead(("ema",), kept=averages)
    return combined([*(method.overhead() for method in loss), kept])


def overhead_of_named(remedies: Iterable[str]) -> MethodOverhead:
    """What loss methods take together that are named as in an arm: `kl`, or `kl: {weight: 0.2}`.

    Raises:
        StudyError: no such method, or settings that it does not take.
    """
    built = []
    for text in remedies:
        value, _ = read_yaml(text, f"--remedy {text[:60]}", "write kl, or 'kl: {weight: 0.2}'")
        named = value if isinstance(value, dict) else {str(value): None}
        for name, options in named.items():
            built.append(methods.build(name, options, "--remedy", "loss"))
    return overhead_of(built)


def _by_formula(request: PlanRequest) -> Comparison:
    return plan(replace(request, trace=False)).comparison


def _shortage(comparison: Comparison) -> tuple[bool, int]:
    """How badly a job fits: whether at all, then what its roomiest way lacks, bytes."""
    lacks = (one.short_bytes for one in comparison.candidates if not one.refused)
    return comparison.chosen is None, min(lacks, default=0)
