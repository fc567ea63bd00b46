"""What a training takes of the host's memory: while it loads, while it runs, while it saves.

The machine that is meant is the one with the GPUs: where these are only named, its memory is not
this machine's, and is compared only when it is said (`--host-ram`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from unicodedata import normalize

from holdfast.errors import UsageError
from holdfast.memory.estimate.states import States
from holdfast.memory.memory_plan import GIB, Placement

USABLE = 0.8
"""Share of the free host memory that weights may take."""
PROCESS_BYTES = 2 * GIB
"""Of each process: interpreter, libraries and what CUDA maps; assumed."""
UNITS = {"": GIB, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "mb": 10**6, "gib": GIB, "gi": GIB,
         "gb": 10**9, "g": 10**9, "tib": 1 << 40, "tb": 10**12, "t": 10**12}  # fmt: skip
MOST_BYTES = 1 << 50


@dataclass(frozen=True, slots=True)
class HostNeed:
    """The host memory that one machine needs, bytes.

    Attributes:
        loading: weights that lie there while they are loaded, or all along (`offload`).
        saving: what is gathered there for a checkpoint.
        aside: a checkpoint's copy that is written in the background.
        processes: what all its processes take themselves.
    """

    loading: int = 0
    saving: int = 0
    aside: int = 0
    processes: int = 0

    @property
    def peak(self) -> int:
        """The most of it at once."""
        return max(self.loading, self.saving, self.aside) + self.processes


def host_need(
    placement: Placement, quantized: bool, processes: int, held: States, aside: int = 0
) -> HostNeed:
    """What a way of running needs of the host.

    Weights go from their file to the GPU; only what is sharded is read whole by the first process
    before it is dealt out (`cpu_ram_efficient_loading`), unless it is in 4 bits. Its checkpoints
    are gathered there: what is trained, and its moments.

    Args:
        placement: see `MemoryPlan`.
        quantized: 4-bit weights.
        processes: on one machine.
        held: the states of the whole model.
        aside: see `HostNeed`.
    """
    base = processes * PROCESS_BYTES
    match placement:
        case "offload":
            return HostNeed(held.weights, 0, aside, base)
        case "fsdp2":
            trained = held.adapters or held.weights
            loading = 0 if quantized else held.weights
            return HostNeed(loading, trained + held.optimiser, aside, base)
        case _:
            return HostNeed(0, 0, aside, base)


def size_bytes(text: str) -> float:
    """The bytes of a size such as `64GiB`, `64` (GiB) or `0.5 TB`; 0: it is none."""
    plain = normalize("NFKC", text).lower()
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", plain)
    return float(found[1]) * UNITS.get(found[2], 0) if found else 0.0


def host_size(text: str) -> int:
    """The bytes of a size such as `64GiB`, `64` (GiB) or `0.5 TB`.

    Raises:
        UsageError: no size, or none that a machine could have.
    """
    size = size_bytes(text)
    if not GIB // 2 <= size <= MOST_BYTES:
        raise UsageError(
            f"{text[:40]!r} is no size of a machine's memory",
            where="--host-ram",
            remedy="write for example --host-ram 64GiB",
        )
    return round(size)
