"""The GPUs that are known by name, with the figures of their data sheets: `cards.json`.

Every group there names its source. Speeds are the makers' figures for dense 16-bit matrix products
with 32-bit accumulation (half of the "with sparsity" figure, and on GeForce half of the
16-bit-accumulation one); where a group gives operations per core and clock, they are that times the
published cores and boost clock. Sizes are what CUDA reports as total, rounded down: a little under
the nameplate, because the driver and ECC keep a part. Except for the H200 nothing was measured
here; figures rank plans, and `detect` replaces the sizes. Links are per direction: NVLink as in the
data sheet, PCIe at about 80 % of the bus.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

DATA = Path(__file__).with_name("cards.json")
PCIE3, PCIE4, PCIE5 = 12.0, 25.0, 50.0
PCIE = {3: PCIE3, 4: PCIE4, 5: PCIE5}
LANES = 16
Market = Literal["consumer", "workstation", "data centre"]
CONSUMER = ("GTX", "RTX", "RX", "TITAN", "Radeon VII", "Ryzen")
WORKSTATION = re.compile(r"RTX (A\d|PRO)|Quadro|Radeon Pro|Radeon (AI )?PRO|T\d00|.* Ada\b")


@dataclass(frozen=True, slots=True)
class Card:
    """One GPU model.

    Attributes:
        name: as people write it.
        gib: memory that CUDA reports, GiB.
        bandwidth: of the memory, GB/s.
        tflops: dense bfloat16 or float16, 10^12 operations per second; float32's where float16
            has 1/64 of that.
        capability: CUDA compute capability; 0 for AMD.
        link_gb_s: to another such card in the same machine, one direction, GB/s.
        nvlink: whether that is NVLink (or AMD's Infinity Fabric).
        float32_share: what of that rate is left in float32, without TF32.
        mig_gb: its memory as the names of its slices count it, GB; 0: it cannot be sliced.
        also: other spellings.
        bf16: it computes in bfloat16; None: by its capability.
        rebuilt: with other memory than its maker's; sold second-hand.
        source: where the figures are published.
    """

    name: str
    gib: float
    bandwidth: float
    tflops: float
    capability: float
    link_gb_s: float = PCIE4
    nvlink: bool = False
    float32_share: float = 0.25
    mig_gb: int = 0
    also: tuple[str, ...] = ()
    bf16: bool | None = None
    rebuilt: bool = False
    source: str = ""

    @property
    def amd(self) -> bool:
        """Whether it is driven by ROCm."""
        return not self.capability

    @property
    def laptop(self) -> bool:
        """Whether it is part of a computer, and not for sale by itself."""
        return " Laptop" in self.name or self.name.startswith("Ryzen")

    @property
    def market(self) -> Market:
        """Whom it is made for, by its name."""
        if WORKSTATION.match(self.name):
            return "workstation"
        return "consumer" if self.name.startswith(CONSUMER) else "data centre"


def _read() -> tuple[Card, ...]:
    groups = json.loads(DATA.read_text(encoding="utf-8"))
    return tuple(_card({**group, **row}) for group in groups for row in group["cards"])


def _card(row: Mapping[str, Any]) -> Card:
    """One card; what its row leaves out is its group's."""
    each = row.get("per_clock", 0)
    clocked = "cores" in row
    usual = 2 / each if clocked else 1 / 16 if row["capability"] in (8.0, 9.0, 10.0, 10.3) else 0.25
    return Card(
        name=row["name"],
        gib=row["gib"],
        bandwidth=row["bandwidth"],
        tflops=row["cores"] * row["mhz"] * each / 1e6 if clocked else row["tflops"],
        capability=row["capability"],
        link_gb_s=row.get("nvlink") or PCIE[row["pcie"]] * row.get("lanes", LANES) / LANES,
        nvlink="nvlink" in row,
        float32_share=row.get("float32") or usual,
        mig_gb=row.get("mig", 0),
        also=tuple(row.get("also", ())),
        bf16=row.get("bf16"),
        rebuilt=bool(row.get("rebuilt")),
        source=row["source"],
    )


CARDS = _read()
TYPICAL = (
    "GTX 1060 6GB", "RTX 3070", "RTX 3080", "RTX 3060", "RTX 4060 Ti 16GB", "RTX 3090", "RTX 5090",
    "A100-40GB PCIe", "RTX A6000", "A100-80GB PCIe", "H100 NVL", "H200", "B200", "B300",
)  # fmt: skip
"""Cards whose speed is assumed of a GPU known by its size only; the one nearest in size."""
