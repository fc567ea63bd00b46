"""Completes, finds and tidies checkpoints, such that any plan goes on from any other plan's.

On disk there is one form: adapter (or model) as safetensors, ``optimizer.pt`` as torch numbers it,
scheduler, trainer state, random states, and a mark that is written last. One process, data-parallel
processes and a split model read and write it by themselves; of shards see `holdfast.train.shards`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from holdfast.runs import store

COMPLETE = "complete"
OPTIMIZER = "optimizer.pt"
FOR_SHARDS = ("pytorch_model_fsdp.bin", "optimizer.bin")
STATE_FILES = (
    OPTIMIZER, "scheduler.pt", "rng_state*.pth", "training_args.bin", "README.md", "split.json",
    *FOR_SHARDS,
)  # fmt: skip


def step_of(checkpoint: Path) -> int:
    """The optimiser steps behind a checkpoint."""
    return int(checkpoint.name.rpartition("-")[2])


def tidy(folder: Path) -> None:
    """Remove what a killed process left: half-written checkpoints, files made for shards."""
    for path in folder.glob("checkpoint-*"):
        if not (path / COMPLETE).is_file():
            shutil.rmtree(path)
        for name in FOR_SHARDS:
            (path / name).unlink(missing_ok=True)


def last_complete(folder: Path) -> Path | None:
    """The newest checkpoint that can be gone on from."""
    found = [one for one in folder.glob("checkpoint-*") if (one / COMPLETE).is_file()]
    usable = [one for one in found if (one / OPTIMIZER).is_file()]
    return max(usable, key=step_of, default=None)


def mark_complete(checkpoint: Path) -> None:
    """Everything is written; of older checkpoints only the weights are kept from now on."""
    store.write_text(checkpoint / COMPLETE, "")
    for other in checkpoint.parent.glob("checkpoint-*"):
        if other != checkpoint:  # only the newest is ever resumed
            (other / OPTIMIZER).unlink(missing_ok=True)


def keep_weights_only(folder: Path) -> None:
    """Remove what only served to go on."""
    for pattern in STATE_FILES:
        for path in folder.glob(f"checkpoint-*/{pattern}"):
            path.unlink()


def meet() -> None:
    """Wait until every process that trains is here."""
    import torch.distributed as dist

    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.barrier()
