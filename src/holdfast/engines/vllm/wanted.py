"""What is known of the asking before a server is started: how long, of which rank, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.config import Study
from holdfast.config.sweeps import expand
from holdfast.engines.vllm.servable import rank_of
from holdfast.memory.hardware.devices import GPU
from holdfast.memory.planner.drawing_server import Place
from holdfast.models import ModelRef


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is known of the asking before anything is asked.

    Attributes:
        program: see `hardware.vllm`.
        new_tokens: of the longest answer.
        rank: of the largest adapter; 0: none will be asked.
        gpus: that may be used.
        may_change: whether the local engine may answer where vLLM has no room: nothing that this
            is compared with was answered by vLLM.
        instead: why the local engine answers from the beginning; "": it does not.
        place: of a server beside a training, which merges no adapter; None: all that is free.
        visible: the GPUs that it sees; see `Settings`.
    """

    program: str | None = None
    new_tokens: int = 512
    rank: int = 0
    gpus: tuple[GPU, ...] = field(default=(), hash=False)
    may_change: bool = True
    instead: str = ""
    place: Place | None = None
    visible: str = ""


def wanted_of(study: Study, under_test: Sequence[ModelRef], gpus: Sequence[GPU]) -> Wanted:
    """What a study will ask of its models under test."""
    ranks = [one.train.lora.r for one in expand(study).values() if one.train.method != "full"]
    ranks = [one * max(1, len(study.stages)) for one in ranks]  # `orthogonal` adds to each
    ranks += [rank_of(Path(ref.adapter)) for ref in under_test if ref.adapter is not None]
    new = [study.answer.sampling.max_new_tokens]
    for task in study.tasks.values():
        more = task.sampling.get("max_new_tokens", task.sampling.get("max_tokens"))
        new += [more] if isinstance(more, int) else []
    return Wanted(study.hardware.vllm, max(new), max(ranks, default=0), tuple(gpus))
