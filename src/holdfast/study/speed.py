"""How fast this device works on a model: measured on the model itself, or by formula.

What was measured is kept by model, device, versions and settings beside the planner's traces. The
formula takes a matrix product's rate, measured here in a moment, or a GPU's data sheet.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

from holdfast import environment
from holdfast.endpoint import is_endpoint
from holdfast.engines import FROM_FILES
from holdfast.engines.pace import ROWS
from holdfast.errors import HoldfastError
from holdfast.memory.hardware.cpu import BF16_RATE, computes_bf16, cores
from holdfast.memory.model.reading import read_shape
from holdfast.memory.model.shape import Shape
from holdfast.memory.trace.measuring import cache_folder
from holdfast.runs import store
from holdfast.study.session import Session

How = Literal["measured", "by formula", "assumed"]
BUSY = {"cpu": 0.6, "gpu": 0.4}
"""Share of a matrix product's rate that a whole model comes to."""
LAUNCH_S = {"cpu": 5e-5, "gpu": 3e-4}
"""Of every layer of every pass, whatever its size."""
DISK_BYTES_S = 5e8
START_S = 4.0
SERVER_START_S = 60.0
"""Of a vLLM that is started here."""
SERVER_S = 5e-4
"""A token of a server's, many requests at a time."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds of everything that a study does with its model.

    Attributes:
        how: where the figures are from.
        open_s: to load the model.
        start_s: of a training, before its first step and after its last.
        train_s: of a trained token.
        read_s: of a token of a prompt, or of a scored answer.
        round_s: of a token of all answers at a time, however many they are.
        write_s: of a token of each of them.
        cached_s: of each token that such a token looks back at.
        context: tokens looked back at when `write_s` was measured.
        rows: answers at a time.
        usual: by task, tokens of an answer that nothing cuts off, where they were looked at.
    """

    how: How
    open_s: float
    start_s: float
    train_s: float
    read_s: float
    round_s: float
    write_s: float
    cached_s: float = 0.0
    context: float = 0.0
    rows: int = 64
    usual: Mapping[str, float] = field(default_factory=dict)


def known(session: Session) -> Speed:
    """What was measured here of this model before, or else the formula's; takes a moment."""
    return measured_before(session) or by_formula(session)


def by_formula(session: Session) -> Speed:
    """From the parameters of the model, and the rate of matrix products of the device."""
    engine = session.study.answer.engine
    if engine not in FROM_FILES or is_endpoint(session.plan.model.base):
        each = SERVER_S if engine != "scripted" else 0.0
        return Speed("assumed", 0.0, START_S, each, each / 20, 0.0, each)
    shape = _shape(session)
    kind = "gpu" if session.gpus else "cpu"
    train, gpus = session.study.train, session.gpus
    narrow = kind == "cpu" and _in_16_bits(session)
    faster = BF16_RATE if narrow and computes_bf16() else 1.0
    rate = BUSY[kind] * (min(one.flops for one in gpus) if gpus else faster * cpu_flops())
    moved = min(one.bandwidth_bytes_s for one in gpus) if gpus else cpu_bytes_s()
    numbers, layers = (shape.active_parameters, shape.layers) if shape else (10**9, 24)
    wide = 2 if gpus or narrow else 4
    forward, launched = 2 * numbers / rate, layers * LAUNCH_S[kind]
    passes = 2 + (train.method == "full") + (train.gradient_checkpointing and bool(gpus))
    held = 2 * layers * (shape.kv_heads * shape.head_dim if shape else 512) * wide
    lengths = 200.0 * train.per_device_train_batch_size
    size = (shape.parameters if shape else numbers) * wide
    return Speed(
        "by formula",
        open_s=1.0 + size / DISK_BYTES_S + (SERVER_START_S if engine == "vllm" else 0.0),
        start_s=START_S + size / DISK_BYTES_S,
        train_s=(passes * forward + 3 * launched / lengths) / max(1, len(gpus)),
        read_s=forward,
        round_s=launched + numbers * (0.5 if session.pool.nf4 else wide) / moved,
        write_s=forward,
        cached_s=2 * held / moved,
        rows=session.study.answer.batch_size or ROWS[kind],
    )


def _in_16_bits(session: Session) -> bool:
    """Whether the models are computed in bfloat16; not known where their device is elsewhere."""
    with suppress(HoldfastError):
        found = session.pool.precision()
        return found is not None and found.dtype == "bfloat16"
    return False


def _shape(session: Session) -> Shape | None:
    with suppress(HoldfastError):
        return read_shape(session.plan.model.base, session.plan.model.revision)
    return None


@cache
def cpu_flops() -> float:
    """Operations per second of a float32 matrix product on all cores, whatever else runs on them.

    Of the processor's time, not of the clock's, which other work takes away for milliseconds at a
    time: the best product of a twentieth of a second, times the cores.
    """
    import numpy

    one = numpy.ones((768, 768), dtype=numpy.float32)
    return cores() * 2 * 768**3 / _least(lambda: one @ one)


@cache
def cpu_bytes_s() -> float:
    """Bytes per second that a large copy reads, by the processor's time."""
    import numpy

    one = numpy.ones(1 << 24, dtype=numpy.float32)
    return one.nbytes / _least(one.copy)


def _least(work: Callable[[], object]) -> float:
    """Seconds of the processor that the quickest of several rounds took; the first warms up."""
    work()
    until, least = time.process_time() + 0.05, float("inf")
    while least == float("inf") or time.process_time() < until:
        started = time.process_time()
        work()
        least = min(least, max(1e-6, time.process_time() - started))
    return least


def device(session: Session) -> str:
    """Which device does the work, in words."""
    if session.gpus:
        names = sorted({one.name for one in session.gpus})
        return f"{len(session.gpus)} x {', '.join(names)}"
    return f"CPU, {cores()} cores"


def key(session: Session) -> Mapping[str, object]:
    """All that the speed of a model depends on."""
    train = session.study.train
    return {
        "model": session.identity, "device": device(session), "processor": _processor(),
        "threads": os.environ.get("OMP_NUM_THREADS"), "versions": environment.versions(),
        "precision": session.precision, "answer": session.study.answer.batch_size,
        "train": [train.method, train.lora.model_dump(mode="json"), train.optim,
                  train.per_device_train_batch_size, train.gradient_checkpointing,
                  *filter(None, [train.of_our_trainer])],
    }  # fmt: skip


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("model name", "CPU part")):
                return line.partition(":")[2].strip()
    return ""


def asked_mark(session: Session, task: str) -> str:
    """A mark of what the length of a task's answers depends on besides the model.

    A name is the study's own, and another study may call another task by it.
    """
    asked, sampling = session.measuring.asked[task], session.measuring.samplings[task]
    some = [one.messages for one in asked[:: max(1, len(asked) // 4)]]
    how = sampling.model_dump(exclude={"max_new_tokens", "samples", "seed"})
    return store.fingerprint([some, how])


def file(session: Session) -> Path:
    """Where the speed of a study's model on this device is kept."""
    return cache_folder().parent / "speed" / f"{store.fingerprint(key(session))[:24]}.json"


def measured_before(session: Session) -> Speed | None:
    """What `keep` kept; None where there is nothing, or nothing that can be read."""
    try:
        found = json.loads(file(session).read_text(encoding="utf-8"))
        kept = {str(mark): float(value) for mark, value in found.pop("usual").items()}
        marks = {task: asked_mark(session, task) for task in session.plan.tasks}
        usual = {task: kept[mark] for task, mark in marks.items() if mark in kept}
        numbers = {name: float(value) for name, value in found.items() if name != "how"}
        if not all(0 <= value < 1e9 for value in (*numbers.values(), *kept.values())):
            return None
        rows = max(1, int(numbers.pop("rows")))
        return Speed("measured", **numbers, rows=rows, usual=usual)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def keep(session: Session, speed: Speed) -> None:
    """Keep what was measured; a home that cannot be written is done without."""
    with suppress(OSError, HoldfastError):
        usual = {asked_mark(session, task): value for task, value in speed.usual.items()}
        store.write_json(file(session), asdict(speed) | {"usual": usual})
