"""Tracks which bytes are alive at once while torch runs, and what they are for.

It is a dispatch mode: it sees every operation, books each storage once when an operation first
returns it, and strikes it out when the last tensor on it dies. Under fake tensors nothing is
computed or allocated, so that a model of any size is booked in a second. This module needs torch;
it is imported only in the tracer's own process.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CATEGORIES = (
    "weights", "adapters", "gradients", "optimiser", "activations", "logits", "workspace",
)  # fmt: skip
CUDA_ROUNDING = 512
"""The caching allocator hands out multiples of this, bytes (torch: kMinBlockSize)."""


class AllocationTracker(TorchDispatchMode):  # type: ignore[misc]  # torch is untyped here
    """Books storages by category, and the peak of every phase with what it consisted of.

    Attributes:
        live: bytes alive now, by category.
        peaks: for every phase, the bytes by category at the moment when most were alive.
    """

    def __init__(self, cuda: bool) -> None:
        """Start empty.

        Args:
            cuda: round sizes up as the CUDA allocator does, and count what CUDA kernels allocate
                inside themselves; else book what the CPU allocator is asked for.
        """
        super().__init__()
        self.cuda = cuda
        self.live = dict.fromkeys(CATEGORIES, 0)
        self.peaks: dict[str, dict[str, int]] = {}
        self._phase, self._category, self._highest = "", "workspace", -1
        self._booked: dict[int, tuple[int, str]] = {}

    def enter(self, phase: str, category: str) -> None:
        """Begin a phase; storages that are new in it are of this category."""
        self._phase, self._category = phase, category
        self._highest = sum(self.peaks[phase].values()) if phase in self.peaks else -1
        self._note()

    def label(self, tensor: torch.Tensor, category: str) -> None:
        """Say what a tensor's storage is for; books it when it was not seen before."""
        storage = tensor.untyped_storage()
        entry = self._booked.get(storage._cdata)
        if entry is None:
            self._book(storage, category)
            return
        size, before = entry
        self.live[before] -= size
        self.live[category] += size
        self._booked[storage._cdata] = (size, category)

    def __torch_dispatch__(
        self, func: Any, types: object, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run one operation and book what it returned."""
        if func is torch.ops.prim.device.default:  # two thirds of all calls; allocates nothing
            return args[0].fake_device
        result = func(*args, **(kwargs or {}))
        if not isinstance(result, torch.Tensor | tuple | list):
            return result
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in self._booked:
                    self._book(storage, self._category)
        inside = INSIDE.get(func.name().partition(".")[0])
        if inside is not None:
            self._note(inside(self.cuda, *args))
        return result

    def _book(self, storage: torch.UntypedStorage, category: str) -> None:
        size = storage.nbytes()
        if self.cuda:
            size = math.ceil(size / CUDA_ROUNDING) * CUDA_ROUNDING
        self._booked[storage._cdata] = (size, category)
        weakref.finalize(storage, self._strike, storage._cdata).atexit = False
        self.live[category] += size
        self._note()

    def _strike(self, key: int) -> None:
        size, category = self._booked.pop(key)
        self.live[category] -= size

    def _note(self, momentary: int = 0) -> None:
        total = sum(self.live.values()) + momentary
        if total > self._highest:
            self._highest = total
            self.peaks[self._phase] = self.live | {"workspace": self.live["workspace"] + momentary}


def _gemm_4bit(
    cuda: bool, inputs: torch.Tensor, _: object, shape: Sequence[int], *__: object
) -> int:
    """The weight in the inputs' dtype, and its scales in fp32 (bitsandbytes: dequant + linear)."""
    elements = shape[0] * shape[1]
    return int(elements * inputs.element_size() + elements // 64 * 4)


def _flash_backward(
    cuda: bool, grad: torch.Tensor, query: torch.Tensor, key: torch.Tensor, *_: object
) -> int:
    """What FlashAttention 2 allocates inside its backward on CUDA, bytes.

    The fp32 sum of dQ, one fp32 number per row, and under grouped queries dK and dV once for each
    query head (torch: aten/native/transformers/cuda/flash_attn/flash_api.cpp, `mha_bwd`).
    """
    if not cuda:
        return 0
    inside = 4 * query.numel() + 4 * query.numel() // query.shape[-1]
    if key.shape[1] != query.shape[1]:
        inside += 2 * query.numel() * query.element_size()
    return int(inside)


INSIDE: dict[str, Callable[..., int]] = {
    "bitsandbytes::gemm_4bit": _gemm_4bit,
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward": _flash_backward,
}
"""Operations that allocate more than they return while they run."""
