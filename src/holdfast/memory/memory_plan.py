"""The value `MemoryPlan`: how the training is placed on GPUs, with its predicted peaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from holdfast.memory.precision import Dtype

GIB = 1 << 30
Placement = Literal["single", "split", "ddp", "fsdp2", "offload", "cpu"]


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Predicted peak of one GPU, by what takes it; bytes.

    Attributes:
        weights: the base model, quantisation constants included.
        adapters: LoRA matrices.
        gradients: of what is trained.
        optimiser: Adam's moments (and fp32 masters where there are any).
        activations: kept for the backward pass.
        logits: logits and loss, forward and backward.
        workspace: recomputed activations, dequantised weights, gather buffers.
        context: CUDA context and communication buffers; outside torch's allocator.
        fragmentation: what the allocator reserves on top, as a safety margin.
    """

    weights: int = 0
    adapters: int = 0
    gradients: int = 0
    optimiser: int = 0
    activations: int = 0
    logits: int = 0
    workspace: int = 0
    context: int = 0
    fragmentation: int = 0

    @property
    def allocated(self) -> int:
        """What torch's allocator is expected to hand out at the peak, bytes."""
        return (
            self.weights + self.adapters + self.gradients + self.optimiser
            + self.activations + self.logits + self.workspace
        )  # fmt: skip

    @property
    def total(self) -> int:
        """All of it: what the GPU must have free, bytes."""
        return self.allocated + self.context + self.fragmentation


def strategy_of(placement: Placement, quantized: bool) -> str:
    """What a placement is called, on a 4-bit base or not."""
    if not quantized:
        return placement
    return "qlora" if placement == "single" else f"qlora+{placement}"


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """One way to run the training, with what it is predicted to take.

    Attributes:
        placement: one GPU, layers split over several, a copy on each, shards on each, weights in
            host memory, or no GPU at all.
        quantized: the base is NF4 with double quantisation.
        checkpointing: activations are recomputed in the backward pass.
        micro_batch: examples per forward pass and process.
        accumulation: forward passes per optimiser step and process.
        gpus: indices of the GPUs used, as the driver numbers them.
        dtype: of the computation and of a frozen base; float16 is trained with loss scaling. Under
            full fine-tuning the weights themselves are float32.
        adapter_dtype: of the LoRA matrices.
        device_map: module name to position in `gpus` (or "cpu"); None when one device holds all.
        predicted: one breakdown for each of `gpus`.
        tokens_per_s: modelled training speed, all GPUs together.
        nodes: machines that do this together, each with the same GPUs.
        meeting: ``host:port`` of the first of them, where the others find it.
    """

    placement: Placement
    quantized: bool = False
    checkpointing: bool = True
    micro_batch: int = 1
    accumulation: int = 4
    gpus: tuple[int, ...] = ()
    dtype: Dtype = "bfloat16"
    adapter_dtype: str = "float32"
    device_map: Mapping[str, int | str] | None = None
    predicted: tuple[Breakdown, ...] = field(default=())
    tokens_per_s: float = 0.0
    nodes: int = 1
    meeting: str = ""

    @property
    def strategy(self) -> str:
        """Its name, as the tables show it: `single`, `qlora`, `split`, `qlora+split`, ..."""
        return strategy_of(self.placement, self.quantized)

    @property
    def world_size(self) -> int:
        """Processes that train together."""
        return self.nodes * self.per_node

    @property
    def per_node(self) -> int:
        """Processes of one machine."""
        return len(self.gpus) if self.placement in {"ddp", "fsdp2"} else 1

    @property
    def fullest(self) -> Breakdown:
        """The breakdown of the GPU that is filled most; an empty one without a prediction."""
        return max(self.predicted, key=lambda one: one.total, default=Breakdown())

    @property
    def global_batch(self) -> int:
        """Examples per optimiser step."""
        return self.micro_batch * self.accumulation * self.world_size


def plan_from_json(value: Mapping[str, Any]) -> MemoryPlan:
    """The plan that `dataclasses.asdict` made of one."""
    parts = dict(value)
    parts["gpus"] = tuple(parts["gpus"])
    parts["predicted"] = tuple(Breakdown(**one) for one in parts["predicted"])
    return MemoryPlan(**parts)
