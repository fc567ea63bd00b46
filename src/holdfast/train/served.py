"""The vLLM that draws a training's answers: as a value of the job, and started for the student."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from holdfast import models
from holdfast.config import LoraSpec
from holdfast.engines.vllm.beside import Beside
from holdfast.engines.vllm.wanted import Wanted
from holdfast.errors import TrainingError
from holdfast.memory.memory_plan import MemoryPlan
from holdfast.memory.planner.drawing_server import Place
from holdfast.memory.precision import Dtype
from holdfast.methods import LossMethod
from holdfast.types import ModelRef

if TYPE_CHECKING:
    from peft import PeftModel

UNKNOWN_GIB = 1
"""Of keys and values on a CPU, for a model whose sizes are not known."""


@dataclass(frozen=True, slots=True)
class Served:
    """How answers are drawn by a server, for methods that ask for one.

    Attributes:
        program: see `hardware.vllm`.
        place: where it lies and what it may take; None: on the CPU, as little as it can.
        visible: its GPU, as `CUDA_VISIBLE_DEVICES` names it.
    """

    program: str | None = None
    place: Place | None = None
    visible: str = ""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """What `written` wrote."""
        place = Place(**value["place"]) if value["place"] else None
        return cls(value["program"], place, value["visible"])

    def written(self) -> dict[str, object]:
        """As JSON."""
        return asdict(self)


def of(losses: Iterable[LossMethod], program: str | None) -> Served | None:
    """What an arm's loss methods ask for; None: no server."""
    return Served(program) if any(one.overhead().served for one in losses) else None


def at(
    served: Served | None,
    place: Place | None,
    variables: Callable[..., Mapping[str, str]],
) -> Served | None:
    """The same at the place that a plan found.

    Args:
        served: without one; None: there is no server.
        place: as planned.
        variables: the environment of a plan's processes, see `torchrun.environment`.
    """
    if served is None or place is None:
        return served
    if place.gpu is None:
        return replace(served, place=place)
    seen = variables(MemoryPlan("single", gpus=(place.gpu,)), os.environ)
    return replace(served, place=place, visible=seen["CUDA_VISIBLE_DEVICES"])


def starting(
    served: Served, student: PeftModel, of: tuple[ModelRef, Dtype, LoraSpec],
    closing: ExitStack, say: Callable[[str], None],
) -> Callable[[int], Beside]:  # fmt: skip
    """See `Lesson.served`.

    Args:
        served: the server.
        student: what is trained, on its device.
        of: the base, the dtype of the computation, and the adapters.
        closing: ends the server.
        say: is told what becomes of it.

    Raises:
        TrainingError: (of what is returned) on a GPU, where no place was planned.
    """
    ref, dtype, lora = of

    def start(new_tokens: int) -> Beside:
        place = served.place
        if place is None and student.device.type != "cpu":
            raise TrainingError(
                "no place was planned for the vLLM that draws the answers",
                remedy="set TrainJob.served with a place: of which GPU it may take how much",
            )
        usual = Place(None, False, 0, 0.0, UNKNOWN_GIB, new_tokens)
        rank = max(lora.r, *lora.rank_pattern.values()) if lora.rank_pattern else lora.r
        wanted = Wanted(
            served.program, new_tokens, rank, place=place or usual, visible=served.visible
        )
        tokenizer = models.load_tokenizer(ref)
        found = Beside(student, tokenizer, ref, dtype, wanted, say)
        closing.callback(found.close)
        return found

    return start
