"""`TrainJob`: one training as a value, and how it is written for a launched process.

Only what can be written as JSON is in it; the encoded rows are `train.data.TrainingData`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from holdfast.config import Sampling, TaskSpec, TrainSpec
from holdfast.data.batching import Budget
from holdfast.errors import UsageError
from holdfast.memory.memory_plan import MemoryPlan, plan_from_json
from holdfast.runs import store
from holdfast.train.served import Served
from holdfast.types import ModelRef

FOLDER = "launch"
SUMMARY, EVENTS, HISTORY = "summary.json", "memory.jsonl", "log.jsonl"
"""In the run's folder: what `fit.fit` returned, what became of running out of memory, and what the
trainer logs, as it comes."""
OOM, ERROR, PROGRESS, LOG = "oom.json", "error.json", "progress.jsonl", "output.log"
"""In its launch folder: why a process ended, how far it is, and all that it printed."""


@dataclass(frozen=True, slots=True)
class Graded:
    """The targets that are learned, for methods that ask their graders while they train.

    Attributes:
        specs: their sections by name, with paths that hold anywhere.
        sampling: how they are asked.
    """

    specs: Mapping[str, TaskSpec]
    sampling: Sampling

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """What `written` wrote."""
        specs = {name: TaskSpec(**spec) for name, spec in value["specs"].items()}
        return cls(specs, Sampling(**value["sampling"]))

    def written(self) -> dict[str, object]:
        """As JSON."""
        specs = {name: spec.model_dump(mode="json") for name, spec in self.specs.items()}
        return {"specs": specs, "sampling": self.sampling.model_dump(mode="json")}


@dataclass(frozen=True, slots=True)
class TrainJob:
    """One training of one model with one seed: what is learned, for how long, and where.

    Attributes:
        model: the base.
        train: every setting of the training.
        budget: steps, micro-batches and tokens.
        seed: of adapters, dropout and, unless `train.data_seed` is given, of the order.
        save_at: steps after which a checkpoint is kept.
        folder: gets ``checkpoint-*``, the log and the summary; what is there is continued.
        examples: jsonl of the training examples, for a process that reads them itself.
        losses: names and options of the arm's loss methods, for such a process.
        probes: jsonl of questions with the base's answers, which the meters read; None: no meters.
        validation: jsonl of examples that are held out, whose loss is read; None: none are.
        stop: limits of the meters, by name; past one, training ends.
        averages: decays of the moving averages of what is trained that are kept.
        start: checkpoint whose weights training begins with, with a new optimiser; None: fresh
            adapters, or the base's weights.
        graded: the task whose grader the arm's loss methods ask; None: they ask none.
        served: the vLLM that draws answers for them; None: there is none.
        device: `auto`, `cpu` or `cuda`.
        plan: placement, dtypes, micro-batch; has no bearing on what is learned, up to rounding.
            None: one device and the micro-batches as dealt.
        rehearsal: run the longest micro-batch before the first step; None: on a GPU.
        memory_cap: share of each GPU that torch may take, to try out running out of memory.
    """

    model: ModelRef
    train: TrainSpec
    budget: Budget
    seed: int
    save_at: tuple[int, ...]
    folder: Path
    examples: Path | None = None
    losses: tuple[tuple[str, Mapping[str, object]], ...] = ()
    probes: Path | None = None
    validation: Path | None = None
    stop: Mapping[str, float] = field(default_factory=dict)
    averages: tuple[float, ...] = ()
    graded: Graded | None = None
    start: Path | None = None
    served: Served | None = None
    device: str = "auto"
    plan: MemoryPlan | None = None
    rehearsal: bool | None = None
    memory_cap: float | None = None

    @property
    def launch_folder(self) -> Path:
        """Where the launched process and its launcher exchange files."""
        return self.folder / FOLDER

    @property
    def order_seed(self) -> int:
        """The seed of the order of the examples."""
        return self.seed if self.train.data_seed is None else self.train.data_seed


def write_job(job: TrainJob, path: Path) -> None:
    """Write what `read_job` reads."""
    train = job.train.model_dump(mode="json", exclude={"global_batch_size"})
    train["gradient_accumulation_steps"] = job.train.accumulation
    values = {name: getattr(job, name) for name in TrainJob.__slots__}
    values |= {name: path and str(path) for name, path in _paths(job).items()}
    values |= {"model": asdict(job.model), "train": train, "budget": asdict(job.budget)}
    values["plan"] = job.plan and asdict(job.plan)
    for name in ("graded", "served"):
        values[name] = values[name] and values[name].written()
    store.write_json(path, values)


PATHS = ("folder", "examples", "probes", "validation", "start")


def _paths(job: TrainJob) -> dict[str, Path | None]:
    return {one: getattr(job, one) for one in PATHS}


def read_job(path: Path) -> TrainJob:
    """Read a job back.

    Raises:
        UsageError: the file is missing or is no job.
    """
    try:
        value = store.read_json(path)
        return TrainJob(**value | {
            "model": ModelRef.from_json(value["model"]),
            "train": TrainSpec(**value["train"]),
            "budget": Budget(**value["budget"]),
            "save_at": tuple(value["save_at"]),
            "losses": tuple((name, options) for name, options in value["losses"]),
            "averages": tuple(value.get("averages", ())),
            "graded": Graded.from_json(given) if (given := value.get("graded")) else None,
            "served": Served.from_json(one) if (one := value.get("served")) else None,
            "plan": plan_from_json(value["plan"]) if value["plan"] else None,
            **{name: given and Path(given) for name in PATHS for given in [value.get(name)]},
        })  # fmt: skip
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"is not a job: {error}", where=str(path), remedy="`holdfast run` writes them"
        ) from error
