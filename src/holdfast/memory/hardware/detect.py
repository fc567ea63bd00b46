"""Finds the GPUs of this machine, and how much of their memory is free.

Asks `nvidia-smi`, which needs no torch. CUDA_VISIBLE_DEVICES is read as nvidia-smi numbers the GPUs
(CUDA_DEVICE_ORDER=PCI_BUS_ID, which the launcher sets). Where there is no nvidia-smi but there is a
GPU driver, torch is asked.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from holdfast.errors import UsageError
from holdfast.memory.hardware import mig
from holdfast.memory.hardware.card_names import card
from holdfast.memory.hardware.gpu_catalogue import PCIE4
from holdfast.memory.hardware.gpu_value import GPU, gpu, joined, like_size
from holdfast.memory.hardware.host import host_ram_bytes

Run = Callable[[Sequence[str]], str]

QUERY = "index,name,memory.total,memory.free,compute_cap,mig.mode.current,uuid"
TIMEOUT_S = 10
MIB = 1 << 20
NVLINK_BYTES_S = 14e9
"""One link, one direction, of the slowest generation in use (GA102: RTX 3090, A6000)."""
DEVICE_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


def detect(
    run: Run | None = None,
    environ: Mapping[str, str] | None = None,
) -> tuple[GPU, ...]:
    """The GPUs that this process may use, with the memory that is free now; () when there is none.

    Args:
        run: executes a command and returns its standard output; raises FileNotFoundError when the
            program is missing. Tests give answers of their own.
        environ: the environment, for CUDA_VISIBLE_DEVICES.

    Raises:
        UsageError: there is a driver but it does not answer, or CUDA_VISIBLE_DEVICES names a GPU
            that does not exist.
    """
    run = run or _run
    visible = (os.environ if environ is None else environ).get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in {"", "-1", "NoDevFiles"}:
        return ()
    try:
        answer = run(["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"])
    except FileNotFoundError:
        return from_torch(_torch())
    if "no devices were found" in answer.lower():
        return ()
    rows = [[cell.strip() for cell in line.split(",")] for line in answer.splitlines()]
    rows = [row for row in rows if len(row) == QUERY.count(",") + 1 and row[0].isdigit()]
    if not rows:
        first = (answer.strip().splitlines() or ["no answer"])[0]
        raise UsageError(
            f"the GPU driver does not answer: {first}",
            where="nvidia-smi",
            remedy="repair the driver; or say which GPUs are meant with --gpus 2x24GiB; or go on "
            "without them: CUDA_VISIBLE_DEVICES= holdfast ...",
        )
    gpus = [_from_row(row) for row in rows]
    if any(row[5].lower() == "enabled" for row in rows):
        gpus = _with_slices(gpus, rows, run(["nvidia-smi", "-L"]))
    chosen = _visible(gpus, visible)
    if len(chosen) < 2 or any(one.mig for one in chosen):
        return tuple(chosen)
    return _linked(chosen, run(["nvidia-smi", "topo", "-m"]))


def _run(command: Sequence[str]) -> str:
    """Its output, whatever its exit status: nvidia-smi explains failures on standard output."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {TIMEOUT_S} s"
    return done.stdout or done.stderr


@dataclass(frozen=True, slots=True)
class InUse:
    """How busy one GPU is now: bytes taken of all there are, and the share of the time it works."""

    index: int
    name: str
    used_bytes: int
    total_bytes: int
    busy: float | None


def in_use(run: Run | None = None) -> tuple[InUse, ...]:
    """Every GPU of this machine as `nvidia-smi` sees it; () where there is none to ask.

    Args:
        run: see `detect`.
    """
    query = "index,name,memory.used,memory.total,utilization.gpu"
    try:
        command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
        answer = (run or _run)(command)
    except OSError:
        return ()
    rows = [[cell.strip() for cell in line.split(",")] for line in answer.splitlines()]
    return tuple(
        InUse(
            int(row[0]), row[1], _number(row[2]) * MIB, _number(row[3]) * MIB,
            int(row[4]) / 100 if row[4].isdigit() else None,
        )
        for row in rows
        if len(row) == query.count(",") + 1 and row[0].isdigit()
    )  # fmt: skip


def _from_row(row: Sequence[str]) -> GPU:
    index, name, total, free, capability, _, uuid = row
    known = card(name)
    total_bytes = _number(total) * MIB or host_ram_bytes()
    found = gpu(
        known or like_size(total_bytes),
        int(index),
        name=name,
        total_bytes=total_bytes,
        free_bytes=_number(free) * MIB if free.isdigit() else total_bytes,
        known=known is not None,
        capability=float(capability) if re.fullmatch(r"\d+\.\d+", capability) else None,
    )
    return replace(found, uuid=uuid)


def _number(text: str) -> int:
    """MiB; 0 for `[N/A]`, which unified-memory devices answer."""
    return int(text) if text.isdigit() else 0


def _with_slices(gpus: Sequence[GPU], rows: Sequence[Sequence[str]], listing: str) -> list[GPU]:
    """GPUs in MIG mode replaced by their slices, from `nvidia-smi -L`.

    Memory is the profile's; what others use of a slice is not shown there.
    """
    slices: dict[int, list[GPU]] = {}
    parent: GPU | None = None
    by_index = {one.index: one for one in gpus}
    for line in listing.splitlines():
        if head := re.match(r"GPU (\d+):", line):
            parent = by_index.get(int(head[1]))
        piece = re.match(r"\s+MIG (\S*?(\d+)g\.(\d+)gb\S*).*\(UUID: ([^)]+)\)", line)
        if piece and parent is not None:
            of = mig.Profile(piece[1], int(piece[2]), int(piece[3]))
            slices.setdefault(parent.index, []).append(mig.sliced(parent, of, piece[4]))
    found: list[GPU] = []
    for parent, row in zip(gpus, rows, strict=True):
        found += slices.get(parent.index, []) if row[5].lower() == "enabled" else [parent]
    return found


def _visible(gpus: Sequence[GPU], visible: str | None) -> list[GPU]:
    """Those that CUDA_VISIBLE_DEVICES names, in its order; like CUDA, up to the first invalid one.

    CUDA ignores everything from an unknown name on; when nothing is left, that is an error here.
    """
    if visible is None:
        return list(gpus)
    found: list[GPU] = []
    for name in (one.strip() for one in visible.split(",")):
        if name.isdigit():
            named = [one for one in gpus if one.index == int(name)][:1]  # of slices, the first
        else:
            named = [one for one in gpus if name and one.uuid.startswith(name)]
        if len(named) != 1:
            break
        found += named
    if not found:
        known = ", ".join(one.uuid if one.mig else str(one.index) for one in gpus)
        raise UsageError(
            f"CUDA_VISIBLE_DEVICES={visible} names no GPU of this machine",
            where="nvidia-smi",
            remedy=f"unset it, or name some of: {known}",
        )
    return found


def _linked(gpus: Sequence[GPU], topology: str) -> tuple[GPU, ...]:
    """With the slowest link between any two of them, from the matrix of `nvidia-smi topo -m`."""
    cells = {}
    columns: list[str] = []
    for line in re.sub(r"\x1b\[[0-9;]*m", "", topology).splitlines():
        words = line.split()
        if words and not columns and words[0] == "GPU0":
            columns = [word for word in words if re.fullmatch(r"GPU\d+", word)]
        elif columns and words and re.fullmatch(r"GPU\d+", words[0]):
            for column, cell in zip(columns, words[1:], strict=False):
                cells[words[0], column] = cell
    names = [f"GPU{one.index}" for one in gpus]
    between = [cells.get((a, b), "SYS") for a in names for b in names if a != b]
    lanes = [int(cell[2:]) if re.fullmatch(r"NV\d+", cell) else 0 for cell in between]
    if min(lanes) == 0:
        slowest = min(_pcie(one) for one in gpus)
        return tuple(replace(one, link="pcie", link_bytes_s=slowest) for one in gpus)
    slowest = min(
        one.link_bytes_s if one.link == "nvlink" else min(lanes) * NVLINK_BYTES_S for one in gpus
    )
    return tuple(replace(one, link="nvlink", link_bytes_s=slowest) for one in gpus)


def _pcie(found: GPU) -> float:
    """PCIe's speed where the card's own figure is NVLink's."""
    return PCIE4 * 1e9 if found.link == "nvlink" else found.link_bytes_s


def _torch() -> Any:
    """torch, if it is loaded already, or if there is a GPU driver; loading it takes seconds."""
    if "torch" not in sys.modules and not any(Path(one).exists() for one in DEVICE_FILES):
        return None
    try:
        import torch
    except ImportError:
        return None
    return torch


def from_torch(torch: Any) -> tuple[GPU, ...]:
    """What torch sees.

    Args:
        torch: the module, or None.
    """
    if torch is None or not torch.cuda.is_available():
        return ()
    found = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        known = card(name)
        rocm = getattr(torch.version, "hip", None) is not None
        major, minor = torch.cuda.get_device_capability(index)
        found.append(
            gpu(
                known or like_size(total),
                index,
                name=name,
                total_bytes=total,
                free_bytes=free,
                known=known is not None,
                capability=0.0 if rocm else float(f"{major}.{minor}"),
            )
        )
    return joined(found)
