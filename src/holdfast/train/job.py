"""What does a process have to know in order to train, and where are its answers?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from holdfast.data.batching import Budget
from holdfast.errors import UsageError
from holdfast.memory.memory_plan import MemoryPlan, plan_from_json
from holdfast.runs import store

FOLDER = "launch"
SUMMARY, EVENTS = "summary.json", "memory.jsonl"
"""In the run's folder: what `train.fit` returned, and what became of running out of memory."""
OOM, ERROR, PROGRESS, LOG = "oom.json", "error.json", "progress.jsonl", "output.log"


@dataclass(frozen=True, slots=True)
class Job:
    """Everything a training needs, by value or by path.

    Attributes:
        model: the fields of `models.ModelRef`.
        examples: path of the arm's ``examples.jsonl``.
        train: the fields of `spec.TrainSpec`.
        budget: steps, micro-batches and tokens.
        seed: of the run.
        save_at: steps after which a checkpoint is kept.
        folder: of the run: checkpoints, log, summary.
        device: `auto`, `cpu` or `cuda`.
        plan: how it is placed; `run` fills it in.
        cap: share of each GPU that torch may take, to emulate smaller ones.
        rehearsal: run the longest micro-batch first; None: on a GPU.
        losses: names and settings of the arm's loss methods.
        probes: path of the questions that the meters read, with the base's answers; None: none.
        stop: limits of the meters, by name.
    """

    model: Mapping[str, Any]
    examples: str
    train: Mapping[str, Any]
    budget: Budget
    seed: int
    save_at: tuple[int, ...]
    folder: str
    device: str = "auto"
    plan: MemoryPlan | None = None
    cap: float | None = None
    rehearsal: bool | None = None
    losses: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    probes: str | None = None
    stop: Mapping[str, float] = field(default_factory=dict)

    @property
    def desk(self) -> Path:
        """Where the process and its launcher exchange files."""
        return Path(self.folder) / FOLDER


def write_job(job: Job, path: Path) -> None:
    """Write what `read_job` reads."""
    store.write_json(path, asdict(job))


def read_job(path: Path) -> Job:
    """Read a job back.

    Raises:
        UsageError: the file is missing or is no job.
    """
    try:
        value = store.read_json(path)
        plan = value.pop("plan")
        budget = Budget(**value.pop("budget"))
        value["save_at"] = tuple(value["save_at"])
        value["losses"] = tuple((name, options) for name, options in value.get("losses", ()))
        return Job(**value, budget=budget, plan=plan_from_json(plan) if plan else None)
    except (OSError, KeyError, TypeError) as error:
        raise UsageError(
            f"is not a job: {error}", where=str(path), remedy="`holdfast run` writes them"
        ) from error
