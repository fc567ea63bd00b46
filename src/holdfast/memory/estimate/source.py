"""Are activations known by a trace of the model's own code, or by formula?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.memory.estimate.activations import Activations, Aside, Moment, activations, asides
from holdfast.memory.estimate.workload import Workload
from holdfast.memory.model.shape import Shape
from holdfast.memory.model.targets import PRESETS, names_of
from holdfast.memory.planner.options import Estimate
from holdfast.memory.trace.traced import Traced, TraceJob, measure

LOSS = "loss"


@dataclass(frozen=True, slots=True)
class TracedActivations:
    """What a micro-batch takes, by trace; of what learns nothing, by formula."""

    traced: Traced
    micro_batch: int
    asides: tuple[Aside, ...] = ()

    def moments(self, layers: int, head: bool) -> Sequence[Moment]:
        """See `Activations.moments`: the peaks of the phases that such a process goes through."""
        phases = self.traced.phases(layers, self.micro_batch)
        found = [
            Moment(one.activations, one.logits if head else 0, one.workspace)
            for name, one in phases.items()
            if head or name != LOSS
        ]
        return found + [one.moment(layers, head) for one in self.asides]


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
    shape: Shape, config: Mapping[str, Any], work: Workload, trace: bool, cache: Path | None = None
) -> Estimates:
    """Trace what a plan of this job needs, or fall back to the formulas and say why.

    Args:
        shape: the model.
        config: content of its ``config.json``.
        work: the job.
        trace: whether to try at all; needs torch, transformers, PEFT and TRL, no weights.
        cache: see `holdfast.memory.trace.traced.measure`.
    """
    if not trace:
        return Estimates(activations, "formula")
    wanted = (True, False) if work.checkpointing is None else (work.checkpointing,)
    keys = [(method, recompute) for method in work.methods for recompute in wanted]
    results = measure([_job(shape, config, work, *key) for key in keys], cache)
    failed = [one for one in results if not isinstance(one, Traced)]
    if failed:
        return Estimates(activations, "formula", f"no trace: {failed[0].reason}")
    found: dict[tuple[str, bool], Traced] = {
        key: one for key, one in zip(keys, results, strict=True) if isinstance(one, Traced)
    }

    def estimate(
        shape: Shape, asked: Workload, method: str, micro_batch: int, checkpointing: bool
    ) -> Activations:
        traced = found.get((method, checkpointing))
        if traced is None or asked.seq_len != work.seq_len:  # a change that is being tried
            return activations(shape, asked, method, micro_batch, checkpointing)
        return TracedActivations(traced, micro_batch, asides(shape, asked, micro_batch))

    aside = "answering in the training loop and reading the meters: by formula"
    return Estimates(estimate, "traced", aside if asides(shape, work, 1) else "")


def _job(
    shape: Shape, config: Mapping[str, Any], work: Workload, method: str, checkpointing: bool
) -> TraceJob:
    """What is traced for a workload; adapters on some layers are traced as if on all."""
    full = method == "full"
    targets = work.target_modules
    if targets in PRESETS:
        targets = tuple(sorted(names_of(shape, targets) or ()))
    return TraceJob(
        config=config,
        seq=work.seq_len,
        method=method,  # type: ignore[arg-type]
        r=work.rank,
        dropout=work.dropout,
        target_modules=targets,
        adapter_dtype=work.adapters(method == "qlora"),  # type: ignore[arg-type]
        dtype="float32" if full or not work.bf16 else "bfloat16",
        autocast=work.bf16,
        checkpointing=checkpointing,
        attention="eager" if work.attention == "eager" else "auto",
        fused_loss=work.fused_loss,
        padded=work.padded and work.global_batch > 1 and work.micro_batch != 1,
        optimizer=work.optim,
        variant="lora" if full else work.variant,
        logits=work.extra.logits,
        positions=min(work.positions, work.seq_len) if work.extra.reference else 0,
    )
