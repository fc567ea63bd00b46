"""Which plan for memory does a model, or a study, get on these GPUs?

Brings together what the planner needs (dimensions, workload, GPUs, host memory, a trace) and what
comes of it: the explanation, the launch line, the plain script.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

from holdfast.config import Study, TrainSpec, load
from holdfast.errors import UsageError
from holdfast.memory.estimate import calibration
from holdfast.memory.estimate.source import estimates
from holdfast.memory.estimate.workload import Method, Workload, of_study
from holdfast.memory.hardware.detect import detect, host_ram_bytes
from holdfast.memory.hardware.devices import GPU, parse
from holdfast.memory.model.catalogue import read_config
from holdfast.memory.model.shape import Shape, read_shape
from holdfast.memory.planner import explanation, export
from holdfast.memory.planner.choice import Planned, make_plan
from holdfast.memory.planner.wording import WORDS, Language, say
from holdfast.models import LAB, LAB_FOLDER
from holdfast.registry import nearest
from holdfast.runs import store
from holdfast.train import demands
from holdfast.train.demands import Demand

USUAL_SEQ_LEN = 1024
DEFAULT_SEED = 1126
METHODS: tuple[str, ...] = get_args(Method)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a user asks of `holdfast plan`; None: not said."""

    study: Path | None = None
    model: str | None = None
    gpus: str | None = None
    seq_len: int | None = None
    micro_batch: int | None = None
    global_batch: int | None = None
    method: str | None = None
    strategy: str | None = None
    quantize: bool = True
    trace: bool = True
    language: str = "en"
    export: Path | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """A plan and the grounds it stands on.

    Attributes:
        planned: the table and the choice.
        model: hub id or folder, for the launch line and the script.
        source: `traced` or `formula`.
        notes: what was assumed.
        language: of the explanation.
        launch: what to type to run it.
        written: the script that was exported.
    """

    planned: Planned
    model: str
    source: str
    notes: tuple[str, ...] = ()
    language: Language = "en"
    launch: str = ""
    written: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """All of it, for programs."""
        commands = [self.launch] if self.launch else []
        found = explanation.to_json(self.planned, self.source, commands)
        return found | {"notes": list(self.notes), "script": self.written and str(self.written)}

    def show(self, every: bool = False) -> None:
        """Print it."""
        from rich.console import Console

        out, language, planned = Console(), self.language, self.planned

        def line(text: str) -> None:
            out.print(text, highlight=False, markup=False, soft_wrap=True)

        line(explanation.title(planned, language) + "\n")
        out.print(explanation.table(planned, language, every))
        if planned.chosen:
            plan = planned.chosen.plan
            out.print()
            out.print(explanation.breakdown(plan, language))
            line("\n" + say(language, "chosen", what=explanation.describe(plan, language)))
            line(say(language, "because", why=explanation.reason(planned, language)))
        if planned.chosen and planned.runner_up:
            other = planned.runner_up.plan
            share = other.tokens_per_s / planned.chosen.plan.tokens_per_s
            line(say(
                language, "runner_up", what=explanation.describe(other, language),
                gib=explanation.gib(other.fullest.total), speed=f"{share:.0%}",
            ))  # fmt: skip
        if more := explanation.extra(planned, language):
            line(more)
        for one in explanation.remedies(planned, language):
            line(one)
        line("\n" + explanation.grounds(planned, self.source, language))
        for note in self.notes:
            line(note)
        if self.launch:
            line("\n" + say(language, "launch", command=self.launch))


def answer(wishes: Wishes) -> Report:
    """Do what `holdfast plan` was asked to do.

    Raises:
        UsageError: neither a study nor a model, an unknown method or language, a script
            that exists already.
    """
    if wishes.language not in WORDS:
        raise UsageError(f"no language {wishes.language!r}", remedy="--lang en or --lang zh")
    if wishes.export and wishes.export.exists():
        raise UsageError(
            "exists already", where=str(wishes.export), remedy="name another file for --export"
        )
    if wishes.study is not None:
        other = [] if wishes.model is None else [f"model={wishes.model}"]
        study = load.load(wishes.study, other)
        report = plan_study(study, wishes=wishes)
        launch = " ".join(["holdfast run", str(wishes.study), *other])
        train, seed = study.train, study.seeds[0]
    elif wishes.model is not None:
        train, seed, launch = TrainSpec(), DEFAULT_SEED, ""
        work = _wished(of_study(train, wishes.seq_len or USUAL_SEQ_LEN), wishes, "auto")
        report = plan_model(
            wishes.model, work, wishes.gpus, trace=wishes.trace, only=wishes.strategy
        )
    else:
        raise UsageError(
            "give a study file or --model",
            remedy="holdfast plan --model Qwen/Qwen2.5-7B-Instruct --gpus 2x24GiB",
        )
    report = replace(report, language="zh" if wishes.language == "zh" else "en")
    chosen = report.planned.chosen
    if chosen is None:
        return report
    if wishes.export:
        name = wishes.export.name
        text = export.script(report.planned, report.source, report.model, train, seed, name)
        store.write_text(wishes.export, text)
        launch = export.launch_line(chosen.plan, name)
    return replace(report, launch=launch, written=wishes.export)


def _wished(work: Workload, wishes: Wishes, method: Method) -> Workload:
    """The workload with what the command line says; `method` where it says nothing."""
    wanted = wishes.method or method
    if wanted not in METHODS:
        raise UsageError(
            f"unknown method {wanted!r}{nearest(wanted, METHODS)}",
            remedy=f"--method {', '.join(METHODS[:-1])} or {METHODS[-1]}",
        )
    if wanted == "qlora" and not wishes.quantize:
        raise UsageError(
            "QLoRA without quantisation", remedy="leave out --no-quantize, or give --method lora"
        )
    return replace(
        work,
        method=cast(Method, wanted),
        quantize=wishes.quantize,
        micro_batch=wishes.micro_batch or work.micro_batch,
        global_batch=wishes.global_batch or work.global_batch,
    )


def plan_model(
    model: str,
    work: Workload,
    gpus: str | None = None,
    revision: str | None = None,
    trace: bool = False,
    only: str | None = None,
    cache: Path | None = None,
    find: Callable[[], tuple[GPU, ...]] = detect,
) -> Report:
    """Plan one job; reads no weights.

    Args:
        model: hub id, folder, name of the catalogue, or `lab`.
        work: the job.
        gpus: as the user says (`2x24GiB`); None: those that are there.
        revision: of the hub model.
        trace: run the model's own code under fake tensors, which takes seconds and torch.
        only: the strategy that the user insists on.
        cache: folder of earlier traces.
        find: finds the GPUs that are there.

    Raises:
        UsageError: an unknown model or GPU, none at all, too long examples.
    """
    name = str(LAB_FOLDER) if model == LAB else model
    shape = read_shape(name, revision)
    there = parse(gpus) if gpus else find()
    notes = [shape.note] if shape.note else []
    if gpus and not all(one.known for one in there):
        like = sorted({one.like for one in there if one.like})
        notes.append(f"speed assumed as of: {', '.join(like)}")
    work, said = _length(work, shape)
    estimated = estimates(shape, read_config(name, revision), work, trace, cache)
    notes += [said, estimated.note]
    planned = make_plan(
        shape, work, there, host_ram_bytes(), calibration.overheads(), estimated.estimate, only
    )
    return Report(planned, name, estimated.source, tuple(note for note in notes if note))


def plan_study(
    study: Study,
    longest: int | None = None,
    wishes: Wishes | None = None,
    find: Callable[[], tuple[GPU, ...]] = detect,
    each: Sequence[Demand] | None = None,
    answer_tokens: int | None = None,
) -> Report:
    """Plan the training of a study: for the arm that takes most.

    Args:
        study: model, training and hardware.
        longest: tokens of its longest training example; None: `train.max_length`, or assumed.
        wishes: what the command line says, which wins over the study.
        find: finds the GPUs that are there.
        each: what the arms ask for; None: all that the study trains.
        answer_tokens: of the longest answer, where whole logits are kept; None: as long as all.

    Raises:
        UsageError: see `plan_model`.
        StudyError: an arm that cannot be.
    """
    wishes = wishes or Wishes(trace=False)
    known = wishes.seq_len or longest or study.train.max_length
    hardware, there = study.hardware, functools.cache(find)
    works: dict[Workload, str] = {}
    for one in demands.of_study(study) if each is None else each:
        compared = answer_tokens if one.extra.reference else None
        work = of_study(one.train, known or USUAL_SEQ_LEN, compared, one.extra)
        works.setdefault(_wished(work, wishes, study.train.method), one.arm)

    def plan(work: Workload, trace: bool) -> Report:
        return plan_model(
            study.model.id, work, wishes.gpus or hardware.gpus, study.model.revision, trace,
            wishes.strategy or hardware.strategy, find=there,
        )  # fmt: skip

    hardest = next(iter(works), None) or _wished(
        of_study(study.train, known or USUAL_SEQ_LEN), wishes, study.train.method
    )
    notes = []
    if len(works) > 1:
        hardest = max(works, key=lambda work: _shortage(plan(work, False).planned))
        notes.append(f"planned for the arm {works[hardest]}, which takes most")
    report = plan(hardest, wishes.trace)
    if not known:
        length = hardest.seq_len - hardest.extra.generated_tokens
        notes.append(f"examples of at most {length:,} tokens assumed (set train.max_length)")
    return replace(report, notes=(*report.notes, *notes))


def _shortage(planned: Planned) -> tuple[bool, int]:
    """How badly a job fits: whether at all, then what its roomiest way lacks, bytes."""
    lacks = (one.short_bytes for one in planned.candidates if not one.refused)
    return planned.chosen is None, min(lacks, default=0)


def _length(work: Workload, shape: Shape) -> tuple[Workload, str]:
    """An assumed length is not held against a model that reads less."""
    length = work.seq_len - work.extra.generated_tokens
    if length == USUAL_SEQ_LEN and shape.max_positions < work.seq_len:
        cut = replace(work, seq_len=shape.max_positions)
        return cut, f"examples of at most {shape.max_positions} tokens, the most this model reads"
    return work, ""
