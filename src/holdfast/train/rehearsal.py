"""Runs the longest micro-batch before the first step, so that one that does not fit is seen then.

Memory peaks on the longest batch, which may come last. It is run forward and backward twice before
the first step, with stand-ins for the optimiser's moments, and nothing of it is kept: gradients are
thrown away, random states and metrics put back.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from holdfast.train.trainer import Trainer

PASSES = 2
"""In the second one, gradients of the first are there, as in every later step."""


def rehearse(trainer: Trainer, inputs: Mapping[str, torch.Tensor]) -> None:
    """Run one micro-batch as in training and leave no trace but, maybe, a smaller split.

    Args:
        trainer: about to train: model and optimiser are prepared.
        inputs: one collated micro-batch, the longest; the same on every rank.

    Raises:
        OutOfMemory: it does not fit.
    """
    import numpy
    import torch

    on_gpu = torch.cuda.is_available()
    kept = (random.getstate(), numpy.random.get_state(), torch.get_rng_state())
    kept_on_gpus = torch.cuda.get_rng_state_all() if on_gpu else []
    metrics = {key: list(values) for key, values in trainer._metrics["train"].items()}
    tokens = trainer._total_train_tokens
    trainer.current_gradient_accumulation_steps = 1
    moments = _moments(trainer)
    items = (inputs["labels"][:, 1:] != -100).sum().clamp(min=1).to(trainer.args.device)
    try:
        for _ in range(PASSES):
            trainer.training_step(trainer.model_wrapped, dict(inputs), items)
    finally:
        del moments
        trainer.model_wrapped.zero_grad(set_to_none=True)
        trainer._metrics["train"].clear()
        trainer._metrics["train"].update(metrics)
        trainer._total_train_tokens = tokens
        random.setstate(kept[0])
        numpy.random.set_state(kept[1])
        torch.set_rng_state(kept[2])
        if on_gpu:
            torch.cuda.set_rng_state_all(kept_on_gpus)


def _moments(trainer: Trainer) -> list[torch.Tensor]:
    """What Adam will hold from the first update on; nothing where it can be paged out."""
    import torch

    name = str(getattr(trainer.args.optim, "value", trainer.args.optim))
    if "adam" not in name or "paged" in name or trainer.optimizer.state:
        return []
    size = torch.uint8 if "8bit" in name else None
    trained = [one for one in trainer.model.parameters() if one.requires_grad]
    return [torch.zeros_like(one, dtype=size or one.dtype) for one in trained for _ in range(2)]


def measured() -> list[dict[str, int]] | None:
    """What training took of each GPU, over all processes, in bytes; None without a GPU.

    Returns:
        For each GPU `allocated_bytes` and `reserved_bytes` at their peaks, and `context_bytes`:
        what is in use outside of torch's allocator, other programs' memory included.
    """
    import torch
    import torch.distributed as dist

    if not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    together = dist.is_initialized() and dist.get_world_size() > 1
    gpus = [torch.cuda.current_device()] if together else range(torch.cuda.device_count())
    found = []
    for gpu in gpus:
        free, total = torch.cuda.mem_get_info(gpu)
        found.append({
            "allocated_bytes": torch.cuda.max_memory_allocated(gpu),
            "reserved_bytes": torch.cuda.max_memory_reserved(gpu),
            "context_bytes": total - free - torch.cuda.memory_reserved(gpu),
        })  # fmt: skip
    if not together:
        return found
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, found)
    return [one for part in parts for one in part]
