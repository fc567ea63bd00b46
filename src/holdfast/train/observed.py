"""Feeds what a training took, and how fast it was, to the planner: the next plan rests on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version

from holdfast.memory.hardware.devices import GPU
from holdfast.memory.memory_plan import MemoryPlan
from holdfast.memory.planner import calibration, pace
from holdfast.memory.planner.calibration import Observation
from holdfast.memory.planner.memory_report import MemoryReport
from holdfast.runs import store
from holdfast.train.job import HISTORY, TrainJob


def memory(
    plan: MemoryPlan, measured: Sequence[Mapping[str, int]] | None, gpus: Sequence[GPU]
) -> None:
    """Feed the calibration; other programs' memory on the GPU is not the plan's."""
    names = {gpu.index: gpu for gpu in gpus}
    for index, part, found in zip(plan.gpus, plan.predicted, measured or (), strict=False):
        gpu = names[index]
        others = max(0, gpu.total_bytes - gpu.free_bytes)
        calibration.observe(Observation(
            version("torch"), gpu.name, plan.world_size > 1, part.allocated,
            found["allocated_bytes"], found["reserved_bytes"],
            max(0, found["context_bytes"] - others),
        ))  # fmt: skip


def speed(report: MemoryReport, plan: MemoryPlan, job: TrainJob, disturbed: bool) -> None:
    """Record how fast a training was beside what the model of speed says of it."""
    found, history = report.comparison, job.folder / HISTORY
    alike = [
        one.plan
        for one in report.candidates
        if one.plan.strategy == plan.strategy and one.plan.checkpointing == plan.checkpointing
    ]
    rows = store.read_lines(history) if history.is_file() else []
    if disturbed or not alike or not (tokens_per_s := pace.logged(rows)):
        return
    nearest = min(alike, key=lambda one: abs(one.micro_batch - plan.micro_batch))
    several, used = plan.world_size > 1, [one for one in found.gpus if one.index in plan.gpus]
    pace.record(pace.Pace(
        pace.device_of(used or found.gpus), several, found.shape.parameters,
        plan.micro_batch * found.work.seq_len,
        nearest.tokens_per_s / pace.factor(found.paces, several), tokens_per_s,
    ))  # fmt: skip
