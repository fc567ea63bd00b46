"""GPUs are understood as users write them, and as answers in nvidia-smi's format show them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast.errors import UsageError
from holdfast.memory.hardware.detect import detect, from_torch
from holdfast.memory.hardware.devices import GIB, GPU, card, parse, plain
from holdfast.memory.hardware.gpu_catalogue import CARDS, TYPICAL
from holdfast.memory.hardware.host import host_ram_bytes, kills

MIB = 1 << 20
CAPABILITIES = {0, 6.0, 6.1, 7.0, 7.5, 8.0, 8.6, 8.9, 9.0, 10.0, 10.3, 12.0, 12.1}
U0, U1 = "GPU-5f2a0c1e-0001-4a4b-8c3d-000000000000", "GPU-9b7d4e3f-0002-4a4b-8c3d-000000000001"
M0, M1 = "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb"

TWO_3090 = (
    f"0, NVIDIA GeForce RTX 3090, 24576, 24105, 8.6, [N/A], {U0}\n"
    f"1, NVIDIA GeForce RTX 3090, 24576, 23950, 8.6, [N/A], {U1}\n"
)
H200 = f"0, NVIDIA H200, 143771, 143156, 9.0, Disabled, {U0}\n"
UNEQUAL = (
    f"0, NVIDIA GeForce RTX 3060, 12288, 11911, 8.6, [N/A], {U0}\n"
    f"1, NVIDIA GeForce RTX 4090, 24564, 24080, 8.9, [N/A], {U1}\n"
)
MIG = f"0, NVIDIA A100-SXM4-40GB, 40960, 40326, 8.0, Enabled, {U0}\n"
MIG_LIST = (
    f"GPU 0: NVIDIA A100-SXM4-40GB (UUID: {U0})\n"
    f"  MIG 3g.20gb     Device  0: (UUID: {M0})\n"
    f"  MIG 1g.5gb      Device  1: (UUID: {M1})\n"
)
NVLINK = (
    "\t\x1b[4mGPU0\tGPU1\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m\n"
    "GPU0\t X \tNV4\t0-31\t0\t\tN/A\nGPU1\tNV4\t X \t0-31\t0\t\tN/A\n\nLegend:\n\n  X    = Self\n"
)
PCIE = NVLINK.replace("NV4", "PHB")
BROKEN = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that "
    "the latest NVIDIA driver is installed and running.\n"
)


def machine(query: str, topology: str = PCIE, listing: str = "") -> Any:
    """A stand-in for running nvidia-smi; an empty answer that is asked for fails the test."""

    def run(command: Sequence[str]) -> str:
        assert command[0] == "nvidia-smi"
        answer = query if command[1].startswith("--query-gpu") else ""
        answer = topology if command[1] == "topo" else answer
        answer = listing if command[1] == "-L" else answer
        assert answer, command
        return answer

    return run


def missing(command: Sequence[str]) -> str:
    raise FileNotFoundError(command[0])


def sizes(gpus: Sequence[GPU]) -> list[int]:
    return [one.total_bytes for one in gpus]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2x24GiB", [24 * GIB] * 2),
        ("24GiB", [24 * GIB]),
        (" 2 x 24 GiB ", [24 * GIB] * 2),
        ("1x24GiB,1x12GiB", [24 * GIB, 12 * GIB]),
        ("2*16gib", [16 * GIB] * 2),
        ("24gb,24GB", [24 * 10**9] * 2),
        ("2×24GiB，1×12GiB", [24 * GIB, 24 * GIB, 12 * GIB]),
        ("２ｘ２４ＧｉＢ、12GiB", [24 * GIB, 24 * GIB, 12 * GIB]),
        ("1x24GiB+1x12GiB", [24 * GIB, 12 * GIB]),
        ("15.5GiB", [round(15.5 * GIB)]),
        ("24576MiB", [24 * GIB]),
        ("24GiBx2", [24 * GIB] * 2),
        ("24 GiB * 2", [24 * GIB] * 2),
        ("24G", [24 * 10**9]),
        ("24GiB and 12GiB", [24 * GIB, 12 * GIB]),
    ],
)
def test_sizes(text: str, expected: list[int]) -> None:
    gpus = parse(text)
    assert sizes(gpus) == expected
    assert [one.index for one in gpus] == list(range(len(expected)))
    assert all(one.free_bytes == one.total_bytes and not one.known for one in gpus)


@pytest.mark.parametrize(
    ("text", "name", "count"),
    [
        ("h200", "H200", 1),
        ("2xrtx4090", "RTX 4090", 2),
        ("2x RTX 4090", "RTX 4090", 2),
        ("4x a100-80gb", "A100-80GB PCIe", 4),
        ("2*3090", "RTX 3090", 2),
        ("4090-24gb", "RTX 4090", 1),
        ("A6000", "RTX A6000", 1),
        ("6000 ada", "RTX 6000 Ada", 1),
        ("v100", "V100-16GB", 1),
        ("a100-sxm4-80gb", "A100-80GB SXM", 1),
        ("mi300x", "MI300X", 1),
        ("A100 80G", "A100-80GB PCIe", 1),
        ("A100-80G", "A100-80GB PCIe", 1),
        ("A100(80GB)", "A100-80GB PCIe", 1),
        ("A100 SXM 80GB", "A100-80GB SXM", 1),
        ("8xH100", "H100 PCIe", 8),
        ("2 x 4090", "RTX 4090", 2),
        ("4090*2", "RTX 4090", 2),
        ("4090 x2", "RTX 4090", 2),
        ("RTX 4090x2", "RTX 4090", 2),
        ("rtx 3070", "RTX 3070", 1),
        ("2 H100 SXM", "H100 SXM", 2),
        ("8 T4", "T4", 8),
        ("2张4090", "RTX 4090", 2),
        ("４０９０×２", "RTX 4090", 2),
        ("3070", "RTX 3070", 1),
        ("4060", "RTX 4060", 1),
        ("4060 ti", "RTX 4060 Ti 8GB", 1),
        ("4060Ti 16GB", "RTX 4060 Ti 16GB", 1),
        ("4070 Ti", "RTX 4070 Ti", 1),
        ("5070 Ti", "RTX 5070 Ti", 1),
        ("L20", "L20", 1),
        ("RTX PRO 6000", "RTX PRO 6000", 1),
        ("rtx 6000 pro", "RTX PRO 6000", 1),
        ("B300", "B300", 1),
        ("GB10", "GB10", 1),
        ("RX 7900 XTX", "RX 7900 XTX", 1),
        ("7900xtx x 2", "RX 7900 XTX", 2),
        ("W7900", "Radeon PRO W7900", 1),
        ("MI355X", "MI355X", 1),
        ("1080 Ti", "GTX 1080 Ti", 1),
        ("gtx1060", "GTX 1060 6GB", 1),
        ("gtx 1060 3gb", "GTX 1060 3GB", 1),
        ("V100 32G", "V100-32GB", 1),
        ("16GB T4", "T4", 1),
        ("两张4090", "RTX 4090", 2),
        ("双卡 4090", "RTX 4090", 2),
        ("4090 八张", "RTX 4090", 8),
        ("8卡A100", "A100-40GB PCIe", 8),
        ("一张A100", "A100-40GB PCIe", 1),
        ("A100:8", "A100-40GB PCIe", 8),
        ("gpu:a100:4", "A100-40GB PCIe", 4),
        ("a100-80gb:2", "A100-80GB PCIe", 2),
        ("4090M", "RTX 4090 Laptop", 1),
        ("RTX 4090 mobile", "RTX 4090 Laptop", 1),
        ("4080 notebook x2", "RTX 4080 Laptop", 2),
        ("NVIDIA GeForce RTX 3080 Laptop GPU 16GB", "RTX 3080 Laptop 16GB", 1),
        ("GTX 1660 Ti Max-Q", "GTX 1660 Ti Laptop", 1),
        ("RTX PRO 6000 Max-Q", "RTX PRO 6000 Max-Q", 1),
        ("2070S", "RTX 2070 SUPER", 1),
        ("4070TiS", "RTX 4070 Ti SUPER", 1),
        ("1660s", "GTX 1660 SUPER", 1),
        ("GeForce RTX™ 4090", "RTX 4090", 1),
        ("GeForce(R) RTX(TM) 4090", "RTX 4090", 1),
        ("2080Ti 22G", "RTX 2080 Ti 22GB", 1),
        ("4090 48G x 8", "RTX 4090 48GB", 8),
        ("3080 20GB", "RTX 3080 20GB", 1),
        ("RTX 5090 D v2", "RTX 5090 D v2", 1),
        ("T1000 8GB", "T1000 8GB", 1),
        ("RTX 3500 Ada", "RTX 3500 Ada Laptop", 1),
        ("Ryzen AI Max+ 395", "Ryzen AI Max+ 395", 1),
        ("6800 XT", "RX 6800 XT", 1),
        ("W7900 Dual Slot", "Radeon PRO W7900", 1),
        ("MI100", "MI100", 1),
    ],
)
def test_names(text: str, name: str, count: int) -> None:
    gpus = parse(text)
    assert [one.name for one in gpus] == [name] * count
    assert all(one.known for one in gpus)


@pytest.mark.parametrize(
    ("driver", "name"),
    [
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 2080 Ti", "RTX 2080 Ti"),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB SXM"),
        ("NVIDIA A100 80GB PCIe", "A100-80GB PCIe"),
        ("NVIDIA A100-PCIE-40GB", "A100-40GB PCIe"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA RTX A6000", "RTX A6000"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("Tesla T4", "T4"),
        ("Tesla V100-SXM2-16GB", "V100-16GB"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA GeForce RTX 3080 12GB", "RTX 3080 12GB"),
        ("NVIDIA GeForce GTX 1060 3GB", "GTX 1060 3GB"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "RTX PRO 6000"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX PRO 6000 Server"),
        ("NVIDIA B300 SXM6 AC", "B300"),
        ("NVIDIA L20", "L20"),
        ("AMD Instinct MI355X", "MI355X"),
        ("AMD Radeon RX 7900 XTX", "RX 7900 XTX"),
        ("Quadro P6000", "Quadro P6000"),
    ],
)
def test_names_as_drivers_write_them(driver: str, name: str) -> None:
    found = card(driver)
    assert found is not None and found.name == name


@pytest.mark.parametrize(
    "driver", ["NVIDIA GeForce RTX 4065 Laptop GPU", "NVIDIA GeForce RTX 3080 30GB", "NVIDIA X"]
)
def test_other_cards_are_not_taken_for_known_ones(driver: str) -> None:
    assert card(driver) is None


def test_the_table_is_consistent() -> None:
    owners: dict[str, set[str]] = {}
    for one in CARDS:
        for name in (one.name, *one.also):
            owners.setdefault(plain(name), set()).add(one.name)
    assert not {name: found for name, found in owners.items() if len(found) > 1}
    assert len(CARDS) >= 230
    assert set(TYPICAL) <= {one.name for one in CARDS}
    for one in CARDS:
        assert card(one.name) is one
        assert 1.5 < one.gib < 300 and 75 < one.bandwidth < 10_000 and 1.5 < one.tflops < 3000
        assert one.source and one.capability in CAPABILITIES


def test_what_the_hardware_can_do() -> None:
    what = {name: parse(name)[0] for name in ("t4", "v100", "p100", "a100", "4090", "mi300x")}
    assert {name: one.bf16 for name, one in what.items()} == {
        "t4": False, "v100": False, "p100": False, "a100": True, "4090": True, "mi300x": True,
    }  # fmt: skip
    assert {name for name, one in what.items() if not one.nf4} == {"mi300x"}
    assert not parse("rx 6800 xt")[0].bf16 and not parse("mi50")[0].bf16 and parse("mi100")[0].bf16


def test_a_bare_size_borrows_the_speed_of_a_typical_card() -> None:
    one, named = parse("24GiB")[0], parse("rtx3090")[0]
    assert one.like == "RTX 3090" and one.flops == named.flops
    assert one.bandwidth_bytes_s == named.bandwidth_bytes_s == 936e9
    assert one.total_bytes > named.total_bytes  # the user's word against the nameplate's remainder
    assert parse("80GiB")[0].like == "A100-80GB PCIe"


def test_links() -> None:
    assert {one.link for one in parse("2xh200")} == {"nvlink"}
    mixed = parse("h200,rtx2080ti")
    assert {(one.link, one.link_bytes_s) for one in mixed} == {("pcie", 12e9)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0x24GiB", "0 GPUs cannot be used"),
        ("-1x24GiB", "-1 GPUs cannot be used"),
        ("1.5x24GiB", "1.5 GPUs cannot be used"),
        ("2x-24GiB", "a GPU of -24GiB cannot be used"),
        ("0GiB", "a GPU of 0GiB cannot be used"),
        ("9999TiB", "a GPU of 9999TiB cannot be used"),
        ("0.1GiB", "a GPU of 0.1GiB cannot be used"),
        ("4090x0", "0 GPUs cannot be used"),
        ("4090*-2", "-2 GPUs cannot be used"),
        (f"{'9' * 5000}x24GiB", "GPUs cannot be used"),
        ("2x", "'2x' names no GPU"),
        ("", "a GPU is missing"),
        ("24GiB,,24GiB", "a GPU is missing"),
        ("99x24GiB", "more than 64 GPUs"),
        ("rtx4095", "no GPU is known as 'rtx4095'"),
        ("quatsch", "no GPU is known as 'quatsch'"),
        ("a100-60gb", "no GPU is known as 'a100-60gb'"),
        ("2080Ti 30G", "RTX 2080 Ti has 10.5 GiB"),
        ("4090Ti", "no GPU is known as '4090Ti'"),
        ("三体4090", "no GPU is known as '三体4090'"),
        ("4x3090 NVLink", "'NVLink' says how GPUs are linked"),
        ("4090,mi300x", "not both at once"),
    ],
)
def test_nonsense_is_refused_with_a_remedy(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert message in caught.value.message and "2x24GiB" in caught.value.remedy
    assert caught.value.exit_code == 3


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean RTX 4090"):
        parse("rtx4095")


def test_two_cards_over_nvlink() -> None:
    gpus = detect(machine(TWO_3090, NVLINK), {})
    assert [one.index for one in gpus] == [0, 1]
    assert [one.free_bytes for one in gpus] == [24105 * MIB, 23950 * MIB]
    assert sizes(gpus) == [24576 * MIB] * 2
    assert {(one.link, one.link_bytes_s) for one in gpus} == {("nvlink", 56e9)}
    assert all(one.known and one.nf4 and one.bf16 and not one.mig for one in gpus)
    assert [one.uuid for one in gpus] == [U0, U1]


def test_the_same_cards_without_the_bridge() -> None:
    gpus = detect(machine(TWO_3090, PCIE), {})
    assert {(one.link, one.link_bytes_s) for one in gpus} == {("pcie", 25e9)}


def test_nvlink_that_does_not_join_all_is_not_counted() -> None:
    rows = "".join(
        f"{n}, NVIDIA H100 80GB HBM3, 81559, 81000, 9.0, Disabled, GPU-{n}\n" for n in (0, 1, 2)
    )
    matrix = "\tGPU0\tGPU1\tGPU2\nGPU0\t X \tNV18\tSYS\nGPU1\tNV18\t X \tSYS\nGPU2\tSYS\tSYS\t X \n"
    assert {one.link for one in detect(machine(rows, matrix), {})} == {"pcie"}
    pair = detect(machine(rows, matrix), {"CUDA_VISIBLE_DEVICES": "0,1"})
    assert {(one.link, one.link_bytes_s) for one in pair} == {("nvlink", 450e9)}


def test_one_card_of_a_data_centre() -> None:
    (one,) = detect(machine(H200, topology=""), {})
    assert one.known and one.like == "H200" and one.flops == 989e12
    assert one.free_bytes == 143156 * MIB and 139 < one.free_bytes / GIB < 140


def test_unequal_cards_keep_their_own_sizes() -> None:
    gpus = detect(machine(UNEQUAL), {})
    assert [one.free_bytes for one in gpus] == [11911 * MIB, 24080 * MIB]
    assert [one.like for one in gpus] == ["RTX 3060", "RTX 4090"]


def test_mig_slices() -> None:
    gpus = detect(machine(MIG, topology="", listing=MIG_LIST), {})
    assert [one.uuid for one in gpus] == [M0, M1]
    assert all(one.mig and one.index == 0 and one.link == "pcie" for one in gpus)
    # a real 3g.20gb has about 19968 MiB, a 1g.5gb about 4864
    assert [
        one.total_bytes < real * MIB for one, real in zip(gpus, (19968, 4864), strict=True)
    ] == [True] * 2
    assert gpus[0].flops == pytest.approx(312e12 * 3 / 7)
    (second,) = detect(machine(MIG, topology="", listing=MIG_LIST), {"CUDA_VISIBLE_DEVICES": M1})
    assert second == gpus[1]
    (first,) = detect(machine(MIG, topology="", listing=MIG_LIST), {"CUDA_VISIBLE_DEVICES": "0"})
    assert first == gpus[0]  # as CUDA does


@pytest.mark.parametrize(
    ("visible", "indices"),
    [("1", [1]), ("1,0", [1, 0]), (U1, [1]), (U1[:12], [1]), ("0,7,1", [0]), ("", []), ("-1", [])],
)
def test_visible_devices(visible: str, indices: list[int]) -> None:
    found = detect(machine(UNEQUAL), {"CUDA_VISIBLE_DEVICES": visible})
    assert [one.index for one in found] == indices


def test_visible_devices_that_are_not_there() -> None:
    with pytest.raises(UsageError, match=r"CUDA_VISIBLE_DEVICES=7 names no GPU.*\n.*0, 1"):
        detect(machine(UNEQUAL), {"CUDA_VISIBLE_DEVICES": "7"})


def test_a_card_that_is_not_in_the_table() -> None:
    row = f"0, NVIDIA CMP 40HX, 24576, 24000, 6.1, [N/A], {U0}\n"
    (one,) = detect(machine(row, topology=""), {})
    assert not one.known and one.like == "RTX 3090" and one.nf4 and not one.bf16
    (old,) = detect(machine(row.replace("6.1", "5.2"), topology=""), {})
    assert not old.nf4


def test_unified_memory() -> None:
    row = f"0, NVIDIA GB10, [N/A], [N/A], 12.1, [N/A], {U0}\n"
    (one,) = detect(machine(row, topology=""), {})
    assert one.total_bytes == one.free_bytes > 0


@pytest.mark.parametrize("answer", [BROKEN, "no answer within 10 s"])
def test_a_driver_that_does_not_answer_is_said(answer: str) -> None:
    with pytest.raises(UsageError, match="driver does not answer") as caught:
        detect(machine(answer), {})
    assert "--gpus" in caught.value.remedy
    assert detect(machine(answer), {"CUDA_VISIBLE_DEVICES": ""}) == ()


def test_no_gpu() -> None:
    assert detect(machine("No devices were found\n"), {}) == ()


def test_no_nvidia_smi_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.memory.hardware.detect.DEVICE_FILES", ())
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert detect(missing, {}) == ()


def test_the_real_command_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{H200.strip()}'\nexit 0\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert [one.like for one in detect(environ={})] == ["H200"]
    program.write_text(f'#!/bin/sh\necho "{BROKEN.strip()}"\nexit 9\n', encoding="utf-8")
    with pytest.raises(UsageError, match="couldn't communicate"):
        detect(environ={})


def fake_torch(name: str, capability: tuple[int, int], hip: str | None) -> Any:
    cuda = SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 2,
        mem_get_info=lambda index: (20 * GIB - index, 24 * GIB),
        get_device_name=lambda index: name,
        get_device_capability=lambda index: capability,
    )
    return SimpleNamespace(cuda=cuda, version=SimpleNamespace(hip=hip))


def test_torch_instead_of_nvidia_smi() -> None:
    gpus = from_torch(fake_torch("NVIDIA GeForce RTX 3090", (8, 6), None))
    assert [(one.index, one.free_bytes) for one in gpus] == [(0, 20 * GIB), (1, 20 * GIB - 1)]
    assert all(one.known and one.nf4 and one.bf16 for one in gpus)
    amd = from_torch(fake_torch("AMD Instinct MI300X", (9, 4), "7.0"))
    assert all(one.known and one.bf16 and not one.nf4 for one in amd)
    assert from_torch(None) == ()


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


MEMINFO = {"proc/meminfo": "MemTotal:       65000000 kB\nMemAvailable:   50000000 kB\n"}
V2 = "sys/fs/cgroup/"
V1 = "sys/fs/cgroup/memory/"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 50_000_000 * 1024),
        ({f"{V2}memory.max": "max\n", f"{V2}memory.current": "5\n"}, 50_000_000 * 1024),
        (
            {
                f"{V2}memory.max": "9000\n",
                f"{V2}memory.current": "5000\n",
                f"{V2}memory.stat": "anon 1\ninactive_file 700\n",
            },
            4700,
        ),
        ({f"{V2}memory.max": "9000\n", f"{V2}memory.current": "9999\n"}, 0),
        (
            {
                f"{V1}memory.limit_in_bytes": "8000\n",
                f"{V1}memory.usage_in_bytes": "6000\n",
                f"{V1}memory.stat": "total_inactive_file 100\n",
            },
            2100,
        ),
        (  # a service's own group below the root, and the tighter one above it
            {
                "proc/self/cgroup": "0::/system.slice/fit.service\n",
                f"{V2}system.slice/memory.max": "6000\n",
                f"{V2}system.slice/memory.current": "5500\n",
                f"{V2}system.slice/fit.service/memory.max": "3000\n",
                f"{V2}system.slice/fit.service/memory.current": "100\n",
            },
            500,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,memory:/box\n0::/\n",
                f"{V1}box/memory.limit_in_bytes": "3000\n",
                f"{V1}box/memory.usage_in_bytes": "100\n",
            },
            2900,
        ),
    ],
)
def test_host_memory(files: dict[str, str], expected: int, tmp_path: Path) -> None:
    assert host_ram_bytes(tree(tmp_path, {**MEMINFO, **files})) == expected


def test_kills_for_want_of_memory_are_counted(tmp_path: Path) -> None:
    assert kills(tree(tmp_path, {"proc/vmstat": "oom_kill_x 9\noom_kill 2\n"})) == 2
    own = {"proc/self/cgroup": "0::/a\n", f"{V2}a/memory.max": "9\n"}
    assert kills(tree(tmp_path, {**own, f"{V2}a/memory.events": "oom 7\noom_kill 3\n"})) == 3
    old = {f"{V1}memory.limit_in_bytes": "9\n", f"{V1}memory.oom_control": "oom_kill 4\n"}
    assert kills(tree(tmp_path, old)) == 4
    assert kills(tmp_path / "elsewhere") == 0


def test_limits_on_the_process_count() -> None:
    code = (
        "import resource\n"
        "from holdfast.memory.hardware.host import host_ram_bytes, host_total_bytes\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (1 << 28, resource.RLIM_INFINITY))\n"
        "left = host_ram_bytes(); kept = bytearray(1 << 26)\n"
        "print(left, left - host_ram_bytes(), host_total_bytes())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    left, taken, total = map(int, done.stdout.split())
    assert 1 << 27 < left < total == 1 << 28
    assert taken == pytest.approx(1 << 26, rel=0.05)


def test_host_memory_where_nothing_says(tmp_path: Path) -> None:
    assert host_ram_bytes(tmp_path) == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < host_ram_bytes() <= host_ram_bytes(tmp_path)


def test_it_is_little_work() -> None:
    code = (
        "import time; start = time.process_time()\n"
        "from holdfast.memory.hardware.detect import detect\n"
        "from holdfast.memory.hardware.host import host_ram_bytes\n"
        "from holdfast.memory.hardware.devices import parse\n"
        "from holdfast.memory.model.reading import read_shape\n"
        "parse('2x24GiB'), read_shape('qwen3-8b'), host_ram_bytes()\n"
        "print(time.process_time() - start)"
    )
    took = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(3)
    ]
    assert min(took) < 0.25  # of processor time; measured: 0.05


def test_throughput_from_cores_and_clock_is_that_of_the_data_sheets() -> None:
    published = {"RTX 2080 Ti": 53.8, "RTX 3090": 71, "RTX 4090": 165.2, "RTX 5090": 209.5,
                 "TITAN RTX": 130.5, "RTX 6000 Ada": 364.2, "RTX PRO 6000": 503.8,
                 "GTX 1080 Ti": 11.3, "RTX 4060 Ti 16GB": 44.1, "RTX 5080": 112.6}  # fmt: skip
    for name, tflops in published.items():
        assert parse(name)[0].flops == pytest.approx(tflops * 1e12, rel=0.01), name


def test_a_size_before_a_name_is_what_is_meant_of_it() -> None:
    (part,) = parse("1x8GiB T4")
    assert part.total_bytes == 8 * GIB and part.like == "T4" and part.known
    (more,) = parse("20GiB 2080 Ti")
    assert more.total_bytes == 20 * GIB and more.like == "RTX 2080 Ti"


@pytest.mark.parametrize(
    ("text", "like", "gigabytes", "sevenths"),
    [
        ("a100-80gb 3g.40gb", "A100-80GB PCIe", 40, 3),
        ("MIG 3g.40gb", "A100-80GB PCIe", 40, 3),
        ("1g.5gb", "A100-40GB PCIe", 5, 1),
        ("2g.12gb", "A30", 12, 2),
        ("h200 1g.18gb", "H200", 18, 1),
        ("H100 1g.10gb+me", "H100 PCIe", 10, 1),
        ("H100 1g.20gb", "H100 PCIe", 20, 1),
        ("b200 1g.23gb+me.all", "B200", 23, 1),
        ("A100 1c.3g.20gb", "A100-40GB PCIe", 20, 1),
    ],
)
def test_slices_by_profile(text: str, like: str, gigabytes: int, sevenths: int) -> None:
    (one,) = parse(text)
    assert one.mig and one.like == like and one.link == "pcie"
    assert 0.9 < one.total_bytes / (gigabytes * 1e9) < 1
    parts = 4 if like == "A30" else 7
    assert one.flops == pytest.approx(parse(like)[0].flops * sevenths / parts)


def test_cards_that_are_cut_into_fourths() -> None:
    (one,) = parse("RTX PRO 6000 1g.24gb")
    assert one.like == "RTX PRO 6000"
    assert one.flops == pytest.approx(parse("RTX PRO 6000")[0].flops / 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4090 1g.10gb", "cannot be divided into slices"),
        ("a100-40gb 7g.80gb", "has 40 GB, and no slice of 80 GB"),
        ("5g.40gb", "sevenths of a GPU, not 5"),
        ("a100-80gb 1g.40gb", "has 10 or 20 GB, not 40"),
        ("a100-80gb 7g.40gb", "has 80 GB, not 40"),
        ("A30 3g.12gb", "a slice has 1, 2, 4 fourths of a GPU, not 3"),
        ("A100 4c.3g.20gb", "has no 4 of them"),
        ("昇腾910B", "not driven"),
        ("MTT S4000", "not driven"),
        ("Intel Data Center GPU Max 1550", "Intel's GPUs"),
        ("mps", "Apple's GPUs"),
        ("M3 Max", "Apple's GPUs"),
        ("2xTPU v5e", "TPUs are not driven"),
        ("ascend 910b", "not driven"),
        ("arc a770", "Intel's GPUs"),
        ("rocm", "says only who makes it"),
        ("cuda", "is no GPU's name"),
        ("4090,cpu", "is no GPU's name"),
        ("a100-60gb", "A100-40GB PCIe has 39.3 GiB"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert message in caught.value.message and caught.value.remedy


@pytest.mark.parametrize(
    ("text", "said"),
    [("8x", "say of what: 8x rtx4090"), ("8", "'8' is neither a size nor a card"),
     ("2x24", "a size has a unit (24GiB)"), ("0,1", "CUDA_VISIBLE_DEVICES"),
     ("", "a GPU is missing"), ("24GiB,,12GiB", "a GPU is missing"), ("24GiB,", "a GPU is missing"),
     ("cuda:0", "is no GPU's name"), ("mps", "Apple's GPUs"), ("rocm", "name it: mi300x")],
)  # fmt: skip
def test_what_names_no_gpu_is_told_what_to_write(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert said in f"{caught.value.message} {caught.value.remedy}" and caught.value.exit_code == 3


def test_whom_a_card_is_made_for() -> None:
    markets = {name: card(name).market for name in (  # type: ignore[union-attr]
        "rtx 4090", "rx 7900 xtx", "titan rtx", "rtx a6000", "rtx 6000 ada", "rtx pro 6000", "t4",
        "a100", "mi300x", "quadro rtx 8000", "l40s")}  # fmt: skip
    assert list(markets.values()) == ["consumer"] * 3 + ["workstation"] * 3 + [
        "data centre", "data centre", "data centre", "workstation", "data centre"]  # fmt: skip


def test_cards_before_turing_say_which_torch_has_kernels_for_them() -> None:
    from holdfast.memory.planner.request import PlanRequest

    said = PlanRequest(gpus="v100-32gb,p100").devices()[1]
    assert [one.key for one in said] == ["old_cuda"] and "P100, V100-32GB" in said[0].words("en")
    assert PlanRequest(gpus="t4").devices()[1] == []


def test_amds_cards_are_planned_without_4_bit_weights_and_say_so() -> None:
    from holdfast.memory.planner.request import PlanRequest

    gpus, said = PlanRequest(gpus="2xmi300x").devices()
    assert not any(one.nf4 for one in gpus) and "ROCm" in said[0].words("en")
    assert PlanRequest(gpus="2x4090").devices()[1] == []
    assert PlanRequest(gpus=" ＣＰＵ ").devices()[0][0].cpu
