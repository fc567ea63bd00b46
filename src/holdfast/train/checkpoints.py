"""Completes, finds and tidies checkpoints, such that any plan goes on from any other plan's.

On disk there is one form: adapter (or model) as safetensors, ``optimizer.pt`` as torch numbers it,
scheduler, trainer state, random states, and a mark that is written last. One process, data-parallel
processes and a split model read and write it by themselves; of shards see `holdfast.train.shards`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.errors import Damaged
from holdfast.runs import sealed, store, temporary

if TYPE_CHECKING:
    from transformers import Trainer

COMPLETE = "complete"
"""The mark: sizes of all files, and digests of the small ones."""
DIGESTED_BYTES = 1 << 26
"""Larger files are known by their size while training goes on: adding up tens of gigabytes at every
checkpoint would cost minutes. When the stage is finished, all are digested."""
RUNNING = "running-{}.json"
"""Sums that the next line of the log rests on, of each process."""
OPTIMIZER, KEPT = "optimizer.pt", "kept.pt"
FOR_SHARDS = ("pytorch_model_fsdp.bin", "optimizer.bin")
STATE_FILES = (
    OPTIMIZER, "scheduler.pt", "rng_state*.pth", "training_args.bin", "README.md", "split.json",
    RUNNING.format("*"), KEPT, *FOR_SHARDS,
)  # fmt: skip


def step_of(checkpoint: Path) -> int:
    """The optimiser steps behind a checkpoint."""
    return int(checkpoint.name.rpartition("-")[2])


def tidy(folder: Path, say: Callable[[str], None] = lambda line: None) -> None:
    """Remove what a killed process left: half-written checkpoints, files made for shards.

    Args:
        folder: of the training.
        say: is told of a checkpoint that was complete and is not as it was written any more.
    """
    for path in folder.glob("checkpoint-*"):
        wrong = _wrong_with(path)
        if wrong is not None:
            if wrong:
                say(f"{path.name} is damaged ({wrong}): training goes on without it")
            temporary.remove_tree(path)
            continue
        for name in FOR_SHARDS:
            (path / name).unlink(missing_ok=True)


def _wrong_with(checkpoint: Path) -> str | None:
    """Why a checkpoint cannot be used; "": it was never complete; None: it can."""
    mark = checkpoint / COMPLETE
    if not mark.is_file():
        return ""
    if not mark.stat().st_size:
        return None  # of an older version
    try:
        files = sealed.read(mark, "").get("files", {})
        newest = (checkpoint / OPTIMIZER).is_file()  # of older ones only the weights are kept
        for name, (size, digest) in files.items():
            path = checkpoint / name
            if not path.is_file():
                if (newest and name not in (*FOR_SHARDS, "split.json")) or not _is_state(path):
                    return f"{name} is missing"
            elif path.stat().st_size != size:
                return f"{name} has another size"
            elif digest and sealed.digest_of_file(path) != digest:
                return f"{name} was changed"
    except (Damaged, AttributeError, TypeError, ValueError):
        return f"{COMPLETE} is torn"
    return None


def _is_state(path: Path) -> bool:
    return any(path.match(pattern) for pattern in STATE_FILES)


def last_complete(folder: Path) -> Path | None:
    """The newest checkpoint that can be gone on from."""
    found = [one for one in folder.glob("checkpoint-*") if (one / COMPLETE).is_file()]
    usable = [one for one in found if (one / OPTIMIZER).is_file()]
    return max(usable, key=step_of, default=None)


def mark_complete(checkpoint: Path) -> None:
    """Everything is written; of older checkpoints only the weights are kept from now on."""
    files = {}
    for path in sorted(one for one in checkpoint.rglob("*") if one.is_file()):
        size = path.stat().st_size
        digest = sealed.digest_of_file(path) if size <= DIGESTED_BYTES else ""
        files[path.relative_to(checkpoint).as_posix()] = (size, digest)
    files.pop(COMPLETE, None)
    store.write_sealed(checkpoint / COMPLETE, {"files": files})
    for other in checkpoint.parent.glob("checkpoint-*"):
        if other != checkpoint:  # only the newest is ever resumed
            (other / OPTIMIZER).unlink(missing_ok=True)
            (other / KEPT).unlink(missing_ok=True)


def keep_weights_only(folder: Path, save_at: Collection[int]) -> None:
    """Remove what only served to go on: states, and checkpoints of other steps than `save_at`."""
    for path in folder.glob("checkpoint-*"):
        if step_of(path) not in save_at:
            temporary.remove_tree(path)
    for pattern in STATE_FILES:
        for path in folder.glob(f"checkpoint-*/{pattern}"):
            path.unlink()


def keep_running(trainer: Trainer, checkpoint: Path) -> None:
    """Keep what the next line of the log rests on: transformers forgets it, and so does TRL."""
    metrics: dict[str, Any] = getattr(trainer, "_metrics", {}).get("train", {})
    store.write_json(checkpoint / RUNNING.format(trainer.args.process_index), {
        "world": trainer.args.world_size,
        "loss": float(trainer._tr_loss),
        "logged": trainer._globalstep_last_logged,
        "metrics": {name: list(values) for name, values in metrics.items()},
        "tokens": getattr(trainer, "_total_train_tokens", 0),
    })  # fmt: skip


def take_up_running(trainer: Trainer, checkpoint: Path) -> None:
    """Go on with what `keep_running` kept, which was compared with its mark by now."""
    path = checkpoint / RUNNING.format(trainer.args.process_index)
    kept: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if kept.get("world") != trainer.args.world_size:
        return
    trainer._tr_loss += kept["loss"]
    trainer._globalstep_last_logged = kept["logged"]
    if hasattr(trainer, "_total_train_tokens"):
        trainer._total_train_tokens = kept["tokens"]
        trainer._metrics["train"] = defaultdict(list, kept["metrics"])


def meet() -> None:
    """Wait until every process that trains is here."""
    import torch.distributed as dist

    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.barrier()
