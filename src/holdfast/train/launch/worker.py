"""What runs in a launched process: ``python -m holdfast.train.launch.worker JOB.json``.

Whatever happens is written down in files beside the job, because torchrun keeps exit codes to
itself: `oom.json`, `error.json`, and the progress. A crash is left to Python's own traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast import methods
from holdfast.config import TrainSpec
from holdfast.errors import HoldfastError, OutOfMemory
from holdfast.models import ModelRef
from holdfast.models.placement import Seat
from holdfast.progress import Progress, Silent
from holdfast.runs import store
from holdfast.train import fit
from holdfast.train.data import encode_all
from holdfast.train.job import ERROR, OOM, PROGRESS, Job, read_job
from holdfast.train.launch.process import Told, end_with
from holdfast.train.launch.torchrun import OUT_OF_MEMORY, PARENT
from holdfast.train.meters import Meters
from holdfast.train.method_trainer import train_with
from holdfast.types import Example

AS_ASKED = {"max_length": None, "completion_only_loss": True, "cut_template_header": False}
"""What meters look at: the answer, after the prompt as the model is asked it."""


def train(job: Job, progress: Progress) -> Mapping[str, Any]:
    """Train a job in this process; see `train.fit`."""
    ref, spec = ModelRef(**job.model), TrainSpec(**job.train)
    examples = store.read_jsonl(Path(job.examples), Example)
    losses = losses_of(job)
    method = next((method for method in losses if method.own_trainer), None)
    if method is not None:
        return train_with(
            method, ref, examples, job.budget, spec, job.seed, job.save_at, Path(job.folder),
            progress, job.device, job.plan, _meters(job, ref, spec),
        )  # fmt: skip
    rows, examples, _ = encode_all(ref, examples, spec)
    kinds = [str(one.meta.get("kind", methods.TASK)) for one in examples]
    own = [place for place, kind in enumerate(kinds) if kind != methods.PROBE]
    probes = [row for row, kind in zip(rows, kinds, strict=True) if kind == methods.PROBE]
    return fit(
        ref, [rows[i] for i in own], [kinds[i] for i in own], job.budget, spec, job.seed,
        job.save_at, Path(job.folder), progress, job.device, job.plan, job.rehearsal,
        [term for one in losses if (term := one.term())], probes, _meters(job, ref, spec),
    )  # fmt: skip


def losses_of(job: Job) -> list[Any]:
    """The loss methods of a job, built."""
    return [methods.build(name, options, job.examples, "loss") for name, options in job.losses]


def _meters(job: Job, ref: ModelRef, spec: TrainSpec) -> Meters | None:
    if job.probes is None:
        return None
    examples = store.read_jsonl(Path(job.probes), Example)
    plain = spec.model_copy(update=AS_ASKED)
    return Meters(encode_all(ref, examples, plain)[0], job.stop, Path(job.folder))


def main(path: Path) -> int:
    """Train the job of a file as one of its processes; returns the exit code."""
    if parent := os.environ.get(PARENT):
        end_with(int(parent))
    job = read_job(path)
    first = Seat.taken().rank == 0
    _cap(job)
    try:
        train(job, Told(job.desk / PROGRESS) if first else Silent())
        _leave()
    except OutOfMemory as error:
        store.write_json(job.desk / OOM, _told(error) | {"phase": error.phase} | _peak())
        return OUT_OF_MEMORY
    except HoldfastError as error:
        store.write_json(job.desk / ERROR, _told(error))
        return error.exit_code
    return 0


def _told(error: HoldfastError) -> dict[str, Any]:
    about = {"message": error.message, "where": error.where, "remedy": error.remedy}
    return {"type": type(error).__name__, **about}


def _cap(job: Job) -> None:
    if job.cap is not None:
        import torch

        gpus = range(torch.cuda.device_count())
        for gpu in [Seat.taken().local_rank] if Seat.taken().world_size > 1 else gpus:
            torch.cuda.memory.set_per_process_memory_fraction(job.cap, gpu)


def _peak() -> dict[str, int | None]:
    """The most that torch handed out, and took, on one GPU of this process, bytes."""
    import torch

    if not torch.cuda.is_available():
        return {"allocated_bytes": None, "reserved_bytes": None}
    gpus = range(torch.cuda.device_count())
    return {
        "allocated_bytes": max(torch.cuda.max_memory_allocated(gpu) for gpu in gpus),
        "reserved_bytes": max(torch.cuda.max_memory_reserved(gpu) for gpu in gpus),
    }


def _leave() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
