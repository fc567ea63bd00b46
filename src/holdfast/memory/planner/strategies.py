"""Bytes that each GPU needs under each placement of the work.

The peak of a process is composed from its states and the moments of
`holdfast.memory.estimate.activations`, such as the loss and the backward pass through the last
layer. Placements differ in what a process holds:

======== ==========================================================================================
single   everything
ddp      everything, on every GPU, and buckets for the gradients
split    a run of layers with what is trained of them; the first or last also the embedding, the
         last the head and the loss
fsdp2    1/N of the states, and two gathered units at a time; all of its own activations
offload  adapters and activations; weights lie in host memory and pass through, two units at a time
======== ==========================================================================================
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

from holdfast.memory.estimate.activations import Activations
from holdfast.memory.estimate.states import States
from holdfast.memory.estimate.workload import Workload
from holdfast.memory.hardware.devices import GPU
from holdfast.memory.memory_plan import GIB, Breakdown
from holdfast.memory.model.shape import Shape


@dataclass(frozen=True, slots=True)
class RuntimeOverheads:
    """What lies outside the tensors; measured by calibration, assumed until then.

    Attributes:
        fragmentation: share of activations and scratch space that the allocator reserves on top.
        context_bytes: CUDA context and libraries' workspaces of one process.
        distributed_bytes: the same with communication buffers.
        measured: on how many runs of this machine they rest; 0: assumed.
        logits: the share for whole logits, whose blocks are too large to be used for anything else.
        states: the share for what is allocated once: large blocks are rounded up to 2 MiB.
    """

    fragmentation: float = 0.06
    context_bytes: int = 3 * GIB // 4
    distributed_bytes: int = 3 * GIB // 2
    measured: int = 0
    logits: float = 0.10
    states: float = 0.005


RIGID = RuntimeOverheads(fragmentation=0.10, logits=0.25)
"""Without `expandable_segments`: of published trainings under torch's own allocator nvidia-smi
showed 8 to 11 % more than was allocated where the loss worked in tiles, and 22 to 28 % with whole
logits."""
ON_CPU = RuntimeOverheads(0.0, GIB // 2, logits=0.0, states=0.0)
"""Of a training on the CPU: what the interpreter and the libraries take themselves."""
WORD_BYTES = 512
"""What a tokenizer keeps of each of its words: 346 bytes of SmolLM2's 49,152, 675 of Qwen2.5's
151,936 (its tables double as they grow)."""


HALVINGS = 60
"""Of a share of a GPU's memory: until two sizes in bytes are told apart."""


def overheads_on_cpu(shape: Shape) -> RuntimeOverheads:
    """What lies outside the tensors of a training on the CPU: libraries and tokenizer."""
    return replace(ON_CPU, context_bytes=ON_CPU.context_bytes + WORD_BYTES * shape.vocab)


@dataclass(frozen=True, slots=True)
class Held:
    """What one process holds: its share of the states, and the layers that it runs; bytes.

    Attributes:
        weights: see `States`.
        adapters: see `States`.
        gradients: see `States`.
        optimiser: see `States`.
        layers: decoder layers that it runs.
        head: it runs the output head and the loss.
        gathered: of weights fetched from elsewhere, at any moment of forward and backward pass.
        step: what the optimiser takes while it steps.
        in_flight: gradients of a unit on their way to their shards, in the backward pass.
        overlap: layers whose recomputed activations are there at once; gradients of one.
    """

    weights: int
    adapters: int
    gradients: int
    optimiser: int
    layers: int
    head: bool
    gathered: int = 0
    step: int = 0
    in_flight: int = 0
    overlap: int = 1


def peak(held: Held, acts: Activations, accumulated: bool = True) -> Breakdown:
    """The largest of a process's moments, without context and fragmentation.

    Args:
        held: its share of the states.
        acts: what a micro-batch takes.
        accumulated: a step has several micro-batches, so that from the second one on gradients are
            there all along; else they come into being in the backward pass.
    """
    parts = []
    for one in acts.moments(held.layers, held.head):
        share = 1.0 if accumulated else min(1.0, one.gradients)
        work = held.gathered + one.workspace + (held.overlap - 1) * one.again
        work += held.in_flight * one.backward
        parts.append((one.activations, one.logits, work, round(held.gradients * share)))
    parts.append((0, 0, held.step, held.gradients))  # the optimiser steps
    activations, logits, workspace, gradients = max(parts, key=sum)
    return Breakdown(held.weights, held.adapters, gradients, held.optimiser,
                     activations, logits, workspace)  # fmt: skip


def with_overheads(found: Breakdown, overheads: RuntimeOverheads, distributed: bool) -> Breakdown:
    """Add what the allocator and the driver take, by what is allocated."""
    outside = overheads.distributed_bytes if distributed else overheads.context_bytes
    moving = found.activations + found.workspace
    if not found.activations and not found.logits:  # the optimiser steps: as large as the states
        moving = 0
    settled = found.allocated - moving - found.logits
    reserved = overheads.fragmentation * moving + overheads.logits * found.logits
    return Breakdown(
        found.weights, found.adapters, found.gradients, found.optimiser, found.activations,
        found.logits, found.workspace, outside, round(reserved + overheads.states * settled),
    )  # fmt: skip


def whole(states: States, shape: Shape, fsdp1: bool = False) -> Held:
    """All of the model in one process; `fsdp1`: in its units, see `sharded`."""
    return Held(
        states.weights,
        states.adapters,
        states.gradients,
        states.optimiser,
        shape.layers,
        True,
        step=states.step,
        overlap=2 if fsdp1 and states.adapters else 1,
    )


def sharded(states: States, shape: Shape, world_size: int, work: Workload) -> Held:
    """One rank under FSDP; decoder layers are units, and under FSDP2 embedding and head.

    A unit is gathered whole and the next one is fetched meanwhile; the head, once gathered, stays
    until the backward pass is through it. Weights are gathered in the dtype of the computation.
    A layer's gradients are whole, in that dtype, until they are added up over the ranks.

    FSDP1 gathers embedding and head with each other and keeps them while the model runs (torch:
    the root is not resharded). Where its layers are frozen and recomputed, published trainings took
    what two layers compute again at once, with shards and without, and the gradients of one: the
    next layer is there before what the last one kept is gone.
    """
    share = states.gathered
    layer = states.layer_weights + states.adapters // shape.layers
    head = states.head or states.embedding
    units = max(layer + head, 2 * layer, states.embedding)
    if work.fsdp == 1:
        units = 2 * layer + states.embedding + states.head
    trained = (states.trained - sum(states.trained_ends)) // shape.layers
    each = states.gradients * share / max(1, states.trained)

    def part(whole_bytes: int) -> int:
        return -(-whole_bytes // world_size)

    return Held(
        part(states.weights),
        part(states.adapters),
        part(states.gradients),
        part(states.optimiser),
        shape.layers,
        True,
        gathered=round(share * units),
        step=part(states.step),
        in_flight=round(each * trained),
        overlap=2 if work.fsdp == 1 and states.adapters else 1,
    )


def offloaded(states: States, shape: Shape) -> Held:
    """Frozen weights in host memory; the head stays, because the loss needs it in tiles."""
    head = states.head or states.embedding
    return Held(
        head, states.adapters, states.gradients, states.optimiser, shape.layers, True,
        gathered=2 * states.layer_weights, step=states.step,
    )  # fmt: skip


def stage(states: States, shape: Shape, layers: int, first: bool, last: bool) -> Held:
    """One of several stages; a head that is the embedding lies on the last, the embedding with it.

    The first also holds what is neither layer nor embedding nor head: a vision tower, norms.
    """
    weights = layers * states.layer_weights
    inner_trained = states.trained - sum(states.trained_ends) - states.trained_rest
    trained = layers * inner_trained / shape.layers
    if last if shape.tied else first:
        weights += states.embedding
        trained += states.trained_ends[0]
    if last:
        weights += states.head
        trained += states.trained_ends[1]
    if first:
        trained += states.trained_rest
        inner = shape.layers * states.layer_weights + states.embedding + states.head
        weights += states.weights - inner
    share = trained / max(1, states.trained)
    return Held(
        weights,
        round(share * states.adapters),
        round(share * states.gradients),
        round(share * states.optimiser),
        layers,
        last,
        step=round(share * states.step),
    )


def stages(states: States, shape: Shape, bounds: Sequence[int]) -> list[Held]:
    """All stages; `bounds` are the first layer of each, and the number of layers."""
    count = len(bounds) - 1
    return [
        stage(states, shape, end - start, index == 0, index == count - 1)
        for index, (start, end) in enumerate(pairwise(bounds))
    ]


def split(
    states: States, shape: Shape, gpus: Sequence[GPU], cost: Callable[[Held], int]
) -> list[int]:
    """Where to cut the layers so that the fullest GPU, relative to its free memory, is least full.

    accelerate's `balanced` map counts weights alone; here the last stage's head and loss count too.

    Args:
        states: of the whole model.
        shape: the model.
        gpus: one per stage, in order.
        cost: bytes that a stage's process needs.

    Returns:
        The first layer of each stage, and the number of layers.
    """
    count = len(gpus)
    longest = range(1, shape.layers - count + 2)
    ends = [(index == 0, index == count - 1) for index in range(count)]
    room = [max(1, one.free_bytes) for one in gpus]

    @cache
    def needed(end: tuple[bool, bool], layers: int) -> int:
        return cost(stage(states, shape, layers, *end))

    @cache
    def most(end: tuple[bool, bool], size: int, full: float) -> int:
        """The most layers of such a stage on so much memory that fill no more than that of it."""
        return bisect_right(longest, full * size + 0.5, key=lambda layers: needed(end, layers))

    def caps(full: float, first: int) -> list[int]:
        return [most(end, size, full) for end, size in zip(ends[first:], room[first:], strict=True)]

    bounds = [0]
    for index in range(count - 1):  # the least full that all left can be, then this stage
        left = shape.layers - bounds[-1]

        def holds(full: float, left: int = left, first: int = index) -> bool:
            found = caps(full, first)
            return min(found) > 0 and sum(found) >= left

        here = list(zip(ends[index:], room[index:], strict=True))
        low, high = 0.0, max(needed(end, longest[-1]) / size for end, size in here)
        for _ in range(HALVINGS):
            if all(one - other < 2 for one, other in zip(caps(high, index), caps(low, index),
                                                          strict=True)):  # fmt: skip
                break
            middle = (low + high) / 2
            low, high = (low, middle) if holds(middle) else (middle, high)
        fills = sorted(
            {
                needed(end, layers) / size
                for (end, size), layers in zip(here, caps(high, index), strict=True)
            }
        )  # the fullest GPU is as full as one of these
        full = next(one for one in fills if holds(one))
        bounds.append(bounds[-1] + max(1, left - sum(caps(full, index + 1))))
    return [*bounds, shape.layers]


def device_map(shape: Shape, bounds: Sequence[int]) -> Mapping[str, int | str]:
    """Module names to stages, as transformers takes them; nothing is left to be guessed."""
    last, stem = len(bounds) - 2, shape.stem
    found: dict[str, int | str] = {f"{stem}.embed_tokens": last if shape.tied else 0}
    if shape.tower_parameters:
        found |= {"model.vision_tower": 0, "model.multi_modal_projector": 0}
    for index, (start, end) in enumerate(pairwise(bounds)):
        found |= {f"{stem}.layers.{layer}": index for layer in range(start, end)}
    return found | {f"{stem}.norm": last, f"{stem}.rotary_emb": 0, "lm_head": last}
