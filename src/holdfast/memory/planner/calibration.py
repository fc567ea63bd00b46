"""Records what trainings on this machine took, and fits the runtime overheads to that.

Every training on a GPU leaves one line: what was predicted for torch's allocator, what the
allocator handed out and reserved, and what else the process took. From three lines of one version
of torch on, their largest overheads replace the assumed ones; never the mean, because a plan that
fits on average does not fit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from holdfast.memory.memory_plan import GIB
from holdfast.memory.planner.strategies import RuntimeOverheads
from holdfast.memory.trace.measuring import cache_folder

FEWEST = 3
HEADROOM = 1.10
"""On what was seen: the next run is not the same."""
LEAST_FRAGMENTATION = 0.02
LEAST_CONTEXT_BYTES = GIB // 2


@dataclass(frozen=True, slots=True)
class Observation:
    """One process of one training, bytes.

    Attributes:
        torch: version.
        gpu: name.
        distributed: several processes trained together.
        predicted: for the allocator, without fragmentation.
        allocated: what it handed out at most.
        reserved: what it held at most.
        context: what the GPU lost beyond that.
    """

    torch: str
    gpu: str
    distributed: bool
    predicted: int
    allocated: int
    reserved: int
    context: int


def file() -> Path:
    """Where observations are kept: beside the traces."""
    return cache_folder().parent / "memory.jsonl"


def observe(observation: Observation, path: Path | None = None) -> None:
    """Add an observation; a home that cannot be written is done without."""
    path = path or file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(asdict(observation)) + "\n")
    except OSError:
        return


def observations(path: Path | None = None) -> list[Observation]:
    """All that was observed with the installed torch; lines that cannot be read are left out."""
    try:
        lines = (path or file()).read_text(encoding="utf-8").splitlines()
        installed = version("torch")
    except (OSError, PackageNotFoundError):
        return []
    found = []
    for line in lines:
        try:
            found.append(Observation(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return [one for one in found if one.torch.split("+")[0] == installed.split("+")[0]]


def overheads(path: Path | None = None) -> RuntimeOverheads:
    """The assumed overheads, or those of this machine's own runs when there are enough."""
    return fitted(observations(path))


def fitted(seen: Sequence[Observation]) -> RuntimeOverheads:
    """RuntimeOverheads that would have covered every observation."""
    assumed = RuntimeOverheads()
    if len(seen) < FEWEST:
        return assumed
    gap = max(one.reserved / max(1, one.predicted) - 1 for one in seen)
    contexts: Mapping[bool, list[int]] = {
        kind: [one.context for one in seen if one.distributed is kind] for kind in (False, True)
    }

    def context(kind: bool, default: int) -> int:
        found = contexts[kind]
        return max(LEAST_CONTEXT_BYTES, round(HEADROOM * max(found))) if found else default

    share = max(
        LEAST_FRAGMENTATION, HEADROOM * gap
    )  # of all, for all: the kinds were not told apart
    return RuntimeOverheads(
        share,
        context(False, assumed.context_bytes),
        context(True, assumed.distributed_bytes),
        len(seen),
        logits=share,
        states=share,
    )
