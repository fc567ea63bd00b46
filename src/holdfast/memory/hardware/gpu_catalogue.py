"""The GPUs that are known by name, with the figures of their data sheets.

Speeds are the makers' figures for dense 16-bit matrix products with 32-bit accumulation (half of
the "with sparsity" figure, and on GeForce half of the 16-bit-accumulation one), and memory
bandwidth. Sizes are what CUDA reports as total, rounded down: a little under the nameplate, because
the driver and ECC keep a part. All are written down from memory of the sources named below, none
was measured here or looked up again; they rank plans, and `detect` replaces the sizes. Links are
per direction: NVLink as in the data sheet, PCIe at about 80 % of the bus.
"""

from __future__ import annotations

from dataclasses import dataclass

PCIE3, PCIE4, PCIE5 = 12.0, 25.0, 50.0


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
        float32: what of that rate is left in float32, without TF32; 0: as usual.
        also: other spellings, in lower case without spaces and signs (see `devices.plain`).
    """

    name: str
    gib: float
    bandwidth: float
    tflops: float
    capability: float
    link_gb_s: float = PCIE4
    nvlink: bool = False
    also: tuple[str, ...] = ()
    float32: float = 0.0

    @property
    def float32_share(self) -> float:
        """What of the 16-bit rate is left in float32: about this much in each generation."""
        return self.float32 or (1 / 16 if self.capability in (8.0, 9.0, 10.0) else 0.25)


# NVIDIA Pascal, Turing, Ampere, Ada and Blackwell GPU architecture whitepapers, GeForce appendices.
GEFORCE = (
    Card("GTX 1080 Ti", 10.9, 484, 11.3, 6.1, PCIE3, also=("1080ti",), float32=1.0),
    Card("RTX 2080 Ti", 10.5, 616, 53.8, 7.5, PCIE3),
    Card("RTX 3060", 11.7, 360, 25.5, 8.6, also=("rtx306012gb",)),
    Card("RTX 3080", 9.7, 760, 59.5, 8.6, also=("rtx308010gb",)),
    Card("RTX 3090", 23.6, 936, 71.0, 8.6),
    Card("RTX 3090 Ti", 23.6, 1008, 80.0, 8.6),
    Card(
        "RTX 4060 Ti 16GB", 15.5, 288, 44.1, 8.9, PCIE4 / 2
    ),  # x8; the 8 GB card has the same name
    Card("RTX 4070", 11.6, 504, 58.3, 8.9),
    Card("RTX 4070 Ti SUPER", 15.5, 672, 88.2, 8.9),
    Card("RTX 4080", 15.5, 717, 97.5, 8.9),
    Card("RTX 4090", 23.5, 1008, 165.2, 8.9),
    Card("RTX 4090 D", 23.5, 1008, 147.1, 8.9),
    Card("RTX 5080", 15.4, 960, 112.6, 12.0, PCIE5),
    Card("RTX 5090", 31.3, 1792, 209.5, 12.0, PCIE5),
)
# NVIDIA data sheets of each card (RTX A4000/A5000/A6000, RTX 6000 Ada, Quadro RTX 8000).
WORKSTATION = (
    Card("RTX A4000", 15.6, 448, 76.7, 8.6),
    Card("RTX A5000", 23.6, 768, 111.1, 8.6),
    Card("RTX A6000", 47.4, 768, 154.8, 8.6),
    Card("RTX 6000 Ada", 47.3, 960, 364.2, 8.9, also=("rtx6000adageneration",)),
    Card("Quadro RTX 8000", 44.4, 672, 130.5, 7.5, PCIE3),
)
# NVIDIA data sheets of each accelerator; A10G: Amazon EC2 G5, T4 and V100: Tesla data sheets.
DATA_CENTRE = (
    Card("P100", 15.8, 732, 18.7, 6.0, PCIE3, also=("p100pcie16gb", "p100sxm216gb"), float32=0.5),
    Card("P40", 22.4, 346, 11.8, 6.1, PCIE3, float32=1.0),
    Card("V100-16GB", 15.7, 900, 112, 7.0, PCIE3, also=("v100", "v100pcie16gb", "v100sxm216gb")),
    Card("V100-32GB", 31.7, 900, 112, 7.0, PCIE3, also=("v100pcie32gb", "v100sxm232gb")),
    Card("T4", 14.5, 320, 65, 7.5, PCIE3),
    Card("A10", 21.9, 600, 125, 8.6),
    Card("A10G", 21.9, 600, 70, 8.6),
    Card("A30", 23.4, 933, 165, 8.0),
    Card("A40", 44.3, 696, 149.7, 8.6),
    Card("L4", 21.9, 300, 121, 8.9),
    Card("L40S", 44.3, 864, 362, 8.9),
    Card("A100-40GB PCIe", 39.3, 1555, 312, 8.0, also=("a10040gb", "a100pcie40gb", "a100")),
    Card("A100-40GB SXM", 39.3, 1555, 312, 8.0, 300, True, ("a100sxm440gb",)),
    Card("A100-80GB PCIe", 79.1, 1935, 312, 8.0, also=("a10080gb",)),
    Card("A100-80GB SXM", 79.1, 2039, 312, 8.0, 300, True, ("a100sxm480gb",)),
    Card("A800-80GB PCIe", 79.1, 1935, 312, 8.0, also=("a800", "a80080gb")),
    Card("A800-80GB SXM", 79.1, 2039, 312, 8.0, 200, True, ("a800sxm480gb",)),
    Card("H100 PCIe", 79.0, 2000, 756, 9.0, PCIE5, also=("h100", "h10080gb")),
    Card("H100 SXM", 79.0, 3350, 989, 9.0, 450, True, ("h10080gbhbm3", "h100sxm5")),
    Card("H100 NVL", 93.0, 3900, 835, 9.0, 300, True),
    Card("H20", 95.0, 4000, 148, 9.0, 450, True),
    Card("H200", 139.7, 4800, 989, 9.0, 450, True, ("h200sxm",)),
    Card("H200 NVL", 139.7, 4800, 835, 9.0, 450, True),
    Card("GH200", 94.5, 4000, 989, 9.0, 450, True, ("gh200480gb", "gh200120gb")),
    Card("B200", 178.0, 8000, 2250, 10.0, 900, True),
)  # fmt: skip
# AMD CDNA 2 and 3 data sheets. bitsandbytes 0.50 lists gfx90a and gfx942, but Holdfast never ran
# there: 4-bit plans are not offered. An MI250 shows itself as two GPUs; this is one of the two.
AMD = (
    Card("MI250", 63.9, 1638, 181, 0.0, 50, True),
    Card("MI300X", 191.4, 5300, 1307, 0.0, 64, True),
)
CARDS = (*GEFORCE, *WORKSTATION, *DATA_CENTRE, *AMD)
TYPICAL = (
    "RTX 3080", "RTX 3060", "RTX 4060 Ti 16GB", "RTX 3090", "RTX 5090", "A100-40GB PCIe",
    "RTX A6000", "A100-80GB PCIe", "H100 NVL", "H200", "B200",
)  # fmt: skip
"""Cards whose speed is assumed of a GPU known by its size only; the one nearest in size."""
