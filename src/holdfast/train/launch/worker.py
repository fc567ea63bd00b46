"""Trains a written job as a launched process: ``python -m holdfast.train.launch.worker JOB.json``.

What happens is in files beside the job, because torchrun keeps exit codes to itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast import methods, tasks
from holdfast.data.batching import checkpoint_steps
from holdfast.errors import HoldfastError, OutOfMemory, UsageError
from holdfast.methods import Target
from holdfast.models.rank import Rank
from holdfast.progress import Progress, Silent
from holdfast.progress.stopping import exit_with_parent
from holdfast.runs import store
from holdfast.tasks._targets import as_one
from holdfast.train.data import encode_all, training_data
from holdfast.train.fit import fit
from holdfast.train.job import ERROR, OOM, PROGRESS, TrainJob, read_job
from holdfast.train.launch.process import FiledStop, ProgressFile
from holdfast.train.launch.torchrun import OUT_OF_MEMORY, PARENT
from holdfast.train.meters import Meters
from holdfast.train.method_trainer import train_with
from holdfast.train.validation import Validation
from holdfast.types import Example

AS_ASKED = {
    "max_length": None, "completion_only_loss": True, "cut_template_header": False,
    "train_on": "last",
}  # fmt: skip
"""What meters look at: the answer, after the prompt as the model is asked it."""


def train(job: TrainJob, progress: Progress) -> Mapping[str, Any]:
    """Train a job in this process, its data read and its loss methods built; see `fit.fit`."""
    examples, losses = store.read_jsonl(_written(job), Example), losses_of(job)
    meters, validation = _meters(job), _validation(job)
    own = next((method for method in losses if method.own_trainer), None)
    if own is not None:
        return train_with(own, job, examples, meters, progress, validation, _target(job))
    data = training_data(job.model, examples, job.train)
    terms = [term for method in losses if (term := method.term())]
    return fit(job, data, terms=terms, meters=meters, validation=validation, progress=progress)


def losses_of(job: TrainJob) -> list[Any]:
    """The loss methods of a job, built."""
    return [methods.build(*one, str(job.examples), "loss") for one in job.losses]


def _target(job: TrainJob) -> Target | None:
    """The targets whose graders the loss methods ask, built."""
    if job.graded is None:
        return None
    made = {one: tasks.build(one, spec, str(job.folder)) for one, spec in job.graded.specs.items()}
    return Target(as_one(made), job.graded.sampling)


def _written(job: TrainJob) -> Path:
    if job.examples is None:
        raise UsageError(
            "names no file of examples", where=str(job.folder), remedy="set TrainJob.examples"
        )
    return job.examples


def _meters(job: TrainJob) -> Meters | None:
    if job.probes is None:
        return None
    plain = job.train.model_copy(update=AS_ASKED)
    rows, _, _ = encode_all(job.model, store.read_jsonl(job.probes, Example), plain)
    return Meters(rows, job.stop, job.folder)


def _validation(job: TrainJob) -> Validation | None:
    if job.validation is None:
        return None
    spec, steps = job.train, job.budget.steps
    rows, _, _ = encode_all(job.model, store.read_jsonl(job.validation, Example), spec)
    also = () if spec.eval_steps is None else checkpoint_steps(steps, None, spec.eval_steps)
    stopping = (spec.early_stopping_patience, spec.early_stopping_threshold)
    return Validation(rows, job.folder, job.save_at, also, *stopping)


def main(path: Path) -> int:
    """Train the job of a file as one of its processes; returns the exit code."""
    if parent := os.environ.get(PARENT):
        exit_with_parent(int(parent))
    job = read_job(path)
    folder = job.launch_folder
    _cap(job)
    progress: Progress = ProgressFile(folder / PROGRESS)
    if not Rank.current().is_first:
        progress = Silent()
        progress.stop = FiledStop(folder)
    try:
        train(job, progress)
        _leave()
    except KeyboardInterrupt:  # asked for, at a safe point
        return progress.stop.code
    except OutOfMemory as error:
        store.write_json(folder / OOM, _described(error) | {"phase": error.phase} | _peak())
        return OUT_OF_MEMORY
    except HoldfastError as error:
        store.write_json(folder / ERROR, _described(error))
        return error.exit_code
    return 0


def _described(error: HoldfastError) -> dict[str, object]:
    about = {"message": error.message, "where": error.where, "remedy": error.remedy}
    return {"type": type(error).__name__, **about}


def _cap(job: TrainJob) -> None:
    if job.memory_cap is not None:
        import torch

        gpus = range(torch.cuda.device_count())
        for gpu in [Rank.current().local_rank] if Rank.current().world_size > 1 else gpus:
            torch.cuda.memory.set_per_process_memory_fraction(job.memory_cap, gpu)


def _peak() -> dict[str, int | None]:
    """The most that torch handed out, and took, on one GPU of this process, bytes."""
    import torch

    if not torch.cuda.is_available():
        return {"allocated_bytes": None, "reserved_bytes": None}
    gpus = range(torch.cuda.device_count())
    handed, took = torch.cuda.max_memory_allocated, torch.cuda.max_memory_reserved
    return {"allocated_bytes": max(map(handed, gpus)), "reserved_bytes": max(map(took, gpus))}


def _leave() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
