"""The values of a search for a plan: the problem, a way of running it, what came of trying it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.memory.estimate.activations import Estimate
from holdfast.memory.estimate.workload import Workload
from holdfast.memory.hardware.devices import GPU
from holdfast.memory.memory_plan import MemoryPlan, Placement
from holdfast.memory.model.shape import Shape
from holdfast.memory.planner.pace import Correction
from holdfast.memory.planner.strategies import RuntimeOverheads
from holdfast.memory.planner.translations import Language, say


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something is chosen or is not: a sentence of `holdfast.memory.planner.translations`.

    Attributes:
        key: of the sentence.
        values: that it names; `other` is a strategy, `part` a part of the memory.
    """

    key: str
    values: Mapping[str, object]

    @property
    def code(self) -> str:
        """The same for programs: the key without what says where it stands."""
        return self.key.removeprefix("r_").removeprefix("why_").removeprefix("not_")

    def words(self, language: Language) -> str:
        """The sentence."""
        said = dict(self.values)
        if "other" in said:
            said["other"] = say(language, f"s_{said['other']}")
        if "part" in said:
            said["part"] = say(language, str(said["part"]))
        return say(language, self.key, **said)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run the job.

    Attributes:
        plan: the way, with its predicted peaks and speed.
        short_bytes: by how much the GPU that lacks most lacks memory; 0 or less: it fits.
        refused: why it cannot be run at all, whatever the memory; None: it can.
    """

    plan: MemoryPlan
    short_bytes: int
    refused: Reason | None = None

    @property
    def fits(self) -> bool:
        """Whether it can be run on these GPUs."""
        return not self.refused and self.short_bytes <= 0


@dataclass(frozen=True, slots=True)
class Problem:
    """What a plan is looked for.

    Attributes:
        shape: the model.
        work: the job.
        gpus: with their free memory.
        host_bytes: free host memory, for weights that lie there; None: not known.
        overheads: measured on this machine, or the assumed ones.
        estimate: of activations; by formula unless a trace is at hand.
        paces: what this machine's own trainings say of the speed.
    """

    shape: Shape
    work: Workload
    gpus: tuple[GPU, ...]
    host_bytes: int | None
    overheads: RuntimeOverheads
    estimate: Estimate
    paces: tuple[Correction, ...] = ()


@dataclass(frozen=True, slots=True)
class Setup:
    """One way to run a job, before its memory and speed are known.

    Attributes:
        placement: see `MemoryPlan`.
        method: `lora`, `qlora` or `full`.
        gpus: those used.
        checkpointing: activations are recomputed.
        micro_batch: examples per forward pass and process.
    """

    placement: Placement
    method: str
    gpus: tuple[GPU, ...]
    checkpointing: bool = True
    micro_batch: int = 1

    @property
    def world(self) -> int:
        """Processes that train together."""
        return len(self.gpus) if self.placement in {"ddp", "fsdp2"} else 1
