"""Trains in 16 bits: frozen weights are stored in them, and what is trained is float32.

The trainer computes under autocast, alike on GPUs and on CPUs; adapters on a 4-bit base are
bfloat16, as TRL has them. In float16 the loss is scaled, and a step whose gradients overflow is
skipped and the scale halved: the first few usually are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.errors import TrainingError
from holdfast.memory.memory_plan import MemoryPlan
from holdfast.memory.precision import Dtype
from holdfast.models import placement
from holdfast.models.precision import decide
from holdfast.train.job import TrainJob

if TYPE_CHECKING:
    import torch
    from transformers import Trainer

SEARCHING = 16
"""Steps that may be skipped while the scale is looked for: it is halved from 2^16 on."""


def computed_in(job: TrainJob, device: str) -> Dtype:
    """What a training computes in: what its plan says; without one by the rule of all plans.

    Args:
        job: the training.
        device: `cpu` or `cuda`, decided.

    Raises:
        UsageError: float16 on a CPU.
    """
    if job.plan is not None:
        return job.plan.dtype
    return decide(device, [job.model], job.train.precisions).dtype


def cast_adapters(model: torch.nn.Module, job: TrainJob, dtype: Dtype) -> None:
    """Give adapters what they are to be trained in, whatever PEFT and TRL made of them.

    Without a plan only float16 needs that: TRL makes adapters on 4-bit weights bfloat16, whose
    gradients a loss scaler does not take.
    """
    if job.plan is not None:
        placement.cast_adapters(model, job.plan)
    elif dtype == "float16":
        placement.cast_adapters(model, MemoryPlan("single", dtype=dtype))


def skipped_steps(trainer: Trainer) -> dict[str, int]:
    """How many steps the loss scaler skipped, over interruptions too; empty without one.

    The schedule does not advance in a skipped step, and checkpoints hold it.

    Raises:
        TrainingError: too many for the result to mean anything.
    """
    scheduler = getattr(trainer.lr_scheduler, "scheduler", trainer.lr_scheduler)
    if trainer.accelerator.scaler is None or scheduler is None:
        return {}
    steps = trainer.state.global_step
    skipped = max(0, steps - scheduler.last_epoch)
    if skipped == steps or skipped > max(SEARCHING, steps // 4):
        raise TrainingError(
            f"float16 overflowed in {skipped} of {steps} steps, which were skipped",
            remedy="set train.fp16: false, which computes in float32 on this GPU",
        )
    return {"skipped_steps": skipped}
