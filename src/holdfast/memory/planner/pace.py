"""Records how fast trainings on this machine were, and corrects the model of speed by that.

Every training leaves one line: what the model of speed said of it, and the tokens that went through
it in a second, the median over its log. A plan takes the median of the trainings that were like it:
on such a device, alone or in several processes, of a model and with passes of a like size. Where
there is none the model stands alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from holdfast.memory.hardware.devices import GPU
from holdfast.memory.trace.measuring import cache_folder
from holdfast.runs import store

ALIKE = 8.0
"""Models, and tokens of a pass, that differ by more than this factor tell nothing of each other."""
FEWEST_ROWS = 2
"""Of a log: the first has loading and warming up in it."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast one training was.

    Attributes:
        device: see `device_of`.
        several: several processes trained together.
        parameters: of the model.
        tokens: of one forward pass at most.
        modelled: tokens a second by the model of speed, all GPUs together.
        tokens_per_s: that went through.
    """

    device: str
    several: bool
    parameters: int
    tokens: int
    modelled: float
    tokens_per_s: float


@dataclass(frozen=True, slots=True)
class Correction:
    """What the model's speed is multiplied with, by how many trainings, in which placements."""

    several: bool
    factor: float
    runs: int


def device_of(gpus: Sequence[GPU]) -> str:
    """What a training's speed depends on, as the key of its record; "" for unequal GPUs."""
    kinds = {one.like if one.known and one.like else one.name for one in gpus}
    return kinds.pop() if len(kinds) == 1 else ""


def file() -> Path:
    """Where paces are kept: beside the traces."""
    return cache_folder().parent / "pace.jsonl"


def record(pace: Pace, path: Path | None = None) -> None:
    """Add one; a home that cannot be written is done without."""
    path = path or file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        store.append_line(path, asdict(pace))
    except OSError:
        return


def recorded(path: Path | None = None) -> list[Pace]:
    """All of them; lines that cannot be read are left out."""
    found = []
    try:
        lines = (path or file()).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
    for line in lines:
        try:
            one = Pace(**json.loads(line))
            if one.modelled > 0 and one.tokens_per_s > 0:
                found.append(one)
        except (ValueError, TypeError):
            continue
    return found


def logged(rows: Sequence[Mapping[str, object]]) -> float:
    """Tokens a second by a training's log, the median; 0: it is too short to tell."""
    seen = [float(str(row["tokens_per_s"])) for row in rows if "tokens_per_s" in row]
    return median(seen[1:]) if len(seen) >= FEWEST_ROWS else 0.0


def corrections(
    gpus: Sequence[GPU], parameters: int, tokens: int, path: Path | None = None
) -> tuple[Correction, ...]:
    """What the trainings of this machine say of a job's speed.

    Args:
        gpus: to plan for.
        parameters: of the model.
        tokens: of one example.
        path: of the records; None: the usual one.
    """
    device, found = device_of(gpus), []
    alike = [
        one
        for one in recorded(path)
        if one.device == device
        and 1 / ALIKE <= one.parameters / max(1, parameters) <= ALIKE
        and 1 / ALIKE <= one.tokens / max(1, tokens) <= ALIKE
    ]
    for several in (False, True):
        ratios = [one.tokens_per_s / one.modelled for one in alike if one.several is several]
        if ratios and device:
            found.append(Correction(several, median(ratios), len(ratios)))
    return tuple(found)


def factor(found: Sequence[Correction], several: bool) -> float:
    """What the model's speed is multiplied with for one process, or for several."""
    return next((one.factor for one in found if one.several is several), 1.0)
