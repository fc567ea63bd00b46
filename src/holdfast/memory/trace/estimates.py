"""Estimates activations by tracing the model's own code, or by formula where that cannot be done.

The trace runs in a process of its own under fake tensors, see `holdfast.memory.trace.measuring`.
When a trace is not possible the estimate says why and falls back to the formulas. This side needs
no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from holdfast.memory.estimate.activations import (
    IN_PLACE,
    PER_LOGIT,
    Activations,
    Aside,
    Estimate,
    Moment,
    activations,
    asides,
)
from holdfast.memory.estimate.kept import gradients_per_token, spared_by_kernels
from holdfast.memory.estimate.workload import Workload, as_sharded
from holdfast.memory.model.shape import Shape
from holdfast.memory.model.targets import names_of
from holdfast.memory.model.words import PRESETS, is_pattern
from holdfast.memory.trace.measuring import measure
from holdfast.memory.trace.trace_job import Traced, TraceJob

LOSS, STEP, BACKWARD = "loss", "step", "backward"


@dataclass(frozen=True, slots=True)
class TracedActivations:
    """What a micro-batch takes, by trace; of what learns nothing, by formula.

    Attributes:
        traced: the trace.
        micro_batch: examples.
        asides: when the model runs without learning.
        logits: what of the traced whole logits is there.
        spared: bytes that one layer keeps less than traced.
        again: bytes that a layer computes again, by formula, for a trace sees the peak alone.
        spared_back: bytes that one layer's gradients take less than traced.
    """

    traced: Traced
    micro_batch: int
    asides: tuple[Aside, ...] = ()
    logits: float = 1.0
    spared: int = 0
    again: int = 0
    spared_back: int = 0

    def moments(self, layers: int, head: bool) -> Sequence[Moment]:
        """See `Activations.moments`: the peaks of the phases that such a process goes through."""
        phases = self.traced.phases(layers, self.micro_batch)
        every = max(1, phases[STEP].gradients) if STEP in phases else 1
        again = self.traced.job.checkpointing
        kept, work = (0, self.spared) if again else (layers * self.spared, 0)
        work += self.spared_back
        found = [
            Moment(
                max(0, one.activations - kept),
                round(self.logits * one.logits) if head else 0,
                max(0, one.workspace - work * name.startswith(BACKWARD)),
                one.gradients / every,
                name.startswith(BACKWARD),
                min(self.again, one.workspace) * name.startswith(BACKWARD),
            )
            for name, one in phases.items()
            if name != STEP and (head or name != LOSS)  # the step is exact arithmetic
        ]
        return found + [one.moment(layers, head) for one in self.asides]


@dataclass(frozen=True, slots=True)
class Run:
    """How a job will be run, as far as the trace of it depends on that.

    Attributes:
        device: whose kernels run it.
        sharded: it may be sharded, under which it is computed otherwise (see `as_sharded`).
        accumulates: a step has several micro-batches.
    """

    device: Literal["cuda", "cpu"] = "cuda"
    sharded: bool = False
    accumulates: bool = True


ON_GPU = Run()


@dataclass(frozen=True, slots=True)
class Estimates:
    """How activations are estimated for one plan.

    Attributes:
        estimate: for `make_plan`.
        source: `traced` or `formula`.
        note: why there is no trace although one was asked for, or what it does not cover; empty
            otherwise.
    """

    estimate: Estimate
    source: str
    note: str = ""


def estimates(
    shape: Shape,
    config: Mapping[str, object],
    work: Workload,
    trace: bool,
    cache: Path | None = None,
    run: Run = ON_GPU,
) -> Estimates:
    """Trace what a plan of this job needs, or fall back to the formulas and say why.

    Args:
        shape: the model.
        config: content of its ``config.json``.
        work: the job.
        trace: whether to try at all; needs torch, transformers, PEFT and TRL, no weights.
        cache: see `holdfast.memory.trace.measuring.measure`.
        run: where and how it will be run.
    """
    if not trace:
        return Estimates(activations, "formula")
    if work.whole or work.tokens or (isinstance(work.target_modules, str)
                                     and is_pattern(work.target_modules)):  # fmt: skip
        why = "modules trained whole, or targets by a pattern, are not traced"
        return Estimates(activations, "formula", f"no trace: {why}")
    if work.script == "litgpt" or work.keeps_inputs:
        why = "LitGPT's layers and an older bitsandbytes are not traced"
        return Estimates(activations, "formula", f"no trace: {why}")
    wanted = (True, False) if work.checkpointing is None else (work.checkpointing,)
    works = [(work, method) for method in work.methods]
    works += [
        (one, method)
        for method in work.methods * run.sharded
        if (one := as_sharded(work, method)[1]) != work
    ]
    keys = [(_computed(one), method, again) for one, method in works for again in wanted]
    jobs = [
        _job(shape, config, one, method, again, run) for one, method in works for again in wanted
    ]
    results = measure(jobs, cache)
    failed = [one for one in results if not isinstance(one, Traced)]
    if failed:
        return Estimates(activations, "formula", f"no trace: {failed[0].reason}")
    found: dict[tuple[tuple[bool, bool], str, bool], Traced] = {
        key: one for key, one in zip(keys, results, strict=True) if isinstance(one, Traced)
    }

    def estimate(
        shape: Shape, asked: Workload, method: str, micro_batch: int, checkpointing: bool
    ) -> Activations:
        traced = found.get((_computed(asked), method, checkpointing))
        if traced is None or asked.seq_len != work.seq_len:  # a change that is being tried
            return activations(shape, asked, method, micro_batch, checkpointing)
        micro_batch *= asked.method_overhead.rows
        kept = IN_PLACE / PER_LOGIT if asked.loss == "in_place" else 1.0
        aside = asides(shape, asked, micro_batch)
        tokens = micro_batch * asked.seq_len
        spared = round(spared_by_kernels(shape, asked, method) * tokens)
        plain = replace(asked, kernels="")
        back = gradients_per_token(shape, plain, method)
        back -= gradients_per_token(shape, asked, method)
        again = activations(shape, asked, method, micro_batch, checkpointing).again
        return TracedActivations(
            traced, micro_batch, aside, kept, spared, again, round(back * tokens)
        )

    told = []
    if asides(shape, work, 1):
        told.append("answering in the training loop and reading the meters: by formula")
    if work.kernels or work.compiled:
        without = "Liger's kernels" if work.kernels else "torch.compile"
        told.append(f"traced without {without}; what is kept less with it: by formula")
    return Estimates(estimate, "traced", "; ".join(told))


def _computed(work: Workload) -> tuple[bool, bool]:
    """What differs between a job and the same one sharded."""
    return work.narrow, work.autocasts


def _job(
    shape: Shape,
    config: Mapping[str, object],
    work: Workload,
    method: str,
    checkpointing: bool,
    run: Run,
) -> TraceJob:
    """What is traced for a workload; adapters on some layers are traced as if on all.

    A base that is stored in few bits takes like one in NF4, whose layers write a matrix out too.
    """
    full = method == "full"
    if method == "lora" and shape.stored is not None and not shape.stored.expands:
        method = "qlora"
    upcast = method == "qlora" and work.kbit_upcast
    masked = work.attention != "flash"  # which builds no mask, neither of padding nor of blocks
    targets = work.target_modules
    if targets in PRESETS:
        targets = tuple(sorted(names_of(shape, targets) or ()))
    return TraceJob(
        config=config,
        seq=work.seq_len,
        method=method,  # type: ignore[arg-type]
        device=run.device,
        r=work.rank,
        dropout=work.dropout,
        target_modules=targets,
        adapter_dtype=work.adapters(method == "qlora"),
        # float16 takes what bfloat16 takes, and loss scaling two numbers more
        dtype="bfloat16" if upcast or work.weight_bytes(method) == 2 else "float32",
        autocast=work.autocast,
        checkpointing=checkpointing,
        attention="eager" if work.attention == "eager" else "auto",
        fused_loss=work.fused_loss,
        kbit_upcast=upcast,
        padded=masked
        and not work.packed
        and work.padded
        and work.global_batch > 1
        and work.micro_batch != 1,
        packed=work.packed and masked,
        accumulate=run.accumulates,
        optimizer=work.optim,
        variant="lora" if full else work.variant,
        logits=work.method_overhead.logits,
        positions=min(work.positions, work.seq_len) if work.method_overhead.reference else 0,
    )
