"""Bytes of weights, adapters, gradients and optimiser states, by exact arithmetic.

Sources: bitsandbytes 0.50 (`functional.quantize_4bit`: blocks of 64, statistics again in 8 bits in
blocks of 256), QLoRA (arXiv:2305.14314, section 3), transformers' optimisers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from holdfast.memory.estimate import adapters, litgpt
from holdfast.memory.estimate.method_overhead import NOTHING
from holdfast.memory.estimate.workload import Workload
from holdfast.memory.model.shape import Shape

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
NF4_BLOCK = 64
NF4_NESTED_BLOCK = 256
FOREACH = ("adamw_torch", "adamw_hf", "adamw")
"""Optimisers that are torch's plain AdamW."""
GROUP, GROUP_BYTES = 128, 2.5
"""AWQ's and GPTQ's usual groups: a scale in 16 bits and a zero point in 4."""
CODE_BYTES = 16 * 4 + 256 * 4 + 4
"""Of each quantised matrix: the 16 levels, the 256 levels of its statistics, their offset."""


@dataclass(frozen=True, slots=True)
class States:
    """What lies in memory all along a training step, bytes, unsharded.

    Attributes:
        weights: the base model.
        adapters: LoRA matrices, and what other kinds of adapters keep frozen; 0 under full
            fine-tuning.
        gradients: of what is trained.
        optimiser: moments and, for 8-bit and 32-bit optimisers, what these keep; also a method's
            copies of what is trained.
        layer_weights: of one decoder layer, part of `weights`.
        embedding: of the input embedding, part of `weights`.
        head: of the output head, part of `weights`; 0 when it is the embedding.
        trained: number of trained parameters.
        trained_ends: of them those of the embedding, and those of the head.
        trained_rest: of them those that belong to no layer, embedding or head.
        step: what the optimiser takes on top while it steps.
        gathered: what share of a weight's bytes is gathered where it is sharded: masters in float32
            are gathered as wide as the computation.
    """

    weights: int
    adapters: int
    gradients: int
    optimiser: int
    layer_weights: int
    embedding: int
    head: int
    trained: int
    trained_ends: tuple[int, int] = (0, 0)
    trained_rest: int = 0
    step: int = 0
    gathered: float = 1.0


def nf4_bytes(parameters: int, nested: bool = True) -> int:
    """Bytes of one matrix in NF4, with double quantisation unless the blocks' scales are whole."""
    blocks = math.ceil(parameters / NF4_BLOCK)
    if not nested:
        return math.ceil(parameters / 2) + 4 * blocks + CODE_BYTES
    above = math.ceil(blocks / NF4_NESTED_BLOCK)
    return math.ceil(parameters / 2) + blocks + 4 * above + CODE_BYTES


def optimiser_bytes(optim: str, parameters: int, parameter_bytes: int) -> int:
    """Bytes of an optimiser's states for so many trained parameters.

    torch keeps Adam's moments in the parameters' dtype; bitsandbytes keeps 32 or 8 bits whatever
    the parameters are. Paged states are counted as resident: they are only evicted under pressure.
    """
    name = optim.lower()
    if "8bit" in name:
        return 2 * parameters + 8 * math.ceil(parameters / 256)
    if name.startswith("sgd"):
        return 0
    if "adafactor" in name or "galore" in name:
        return math.ceil(parameters * parameter_bytes * 0.1)  # rows and columns: a small share
    moments = 1 if "lion" in name or "rmsprop" in name or "adagrad" in name else 2
    each = 4 if "bnb" in name or "paged" in name or "32bit" in name else parameter_bytes
    return moments * each * parameters


def step_bytes(optim: str, trained_bytes: int, largest_bytes: int, on_cpu: bool) -> int:
    """Bytes that an optimiser takes on top while it steps.

    torch's plain AdamW takes roots of all second moments at once on a GPU (`foreach`), and one by
    one on a CPU; fused and 8-bit ones take none.

    Args:
        optim: its name.
        trained_bytes: of all that is trained.
        largest_bytes: of the largest matrix of that.
        on_cpu: where it steps.
    """
    if optim.lower() not in FOREACH:
        return 0
    return 2 * largest_bytes if on_cpu else trained_bytes


def _stored_bytes(shape: Shape, parameters: int, quantized: bool, nested: bool, each: int) -> int:
    """Bytes of one matrix of so many parameters as it is loaded."""
    held = shape.stored
    if quantized:
        return nf4_bytes(parameters, nested if held is None else held.nested)
    if held is not None and not held.expands:
        return math.ceil(parameters * held.bits / 8) + math.ceil(parameters / GROUP * GROUP_BYTES)
    return each * parameters


def states(shape: Shape, work: Workload, method: str) -> States:
    """The states of one training method.

    Under full fine-tuning all weights are float32 and computed with in 16 bits, for in these most
    updates would be rounded away, unless the job says otherwise. Loss scaling keeps two numbers.

    Args:
        shape: the model.
        work: rank, target modules, optimiser.
        method: `lora`, `qlora` or `full`.
    """
    full = method == "full"
    each = work.weight_bytes(method)
    quantized = method == "qlora"
    layer = each * shape.layer_parameters
    layer += round(
        sum(
            one.count
            * (
                _stored_bytes(shape, one.n_in * one.n_out, quantized, work.nested, each)
                - each * one.n_in * one.n_out
            )
            for one in shape.linears
        )
    )
    embedding = each * shape.embedding_parameters
    head = each * shape.head_parameters
    twice = 0
    if work.script == "litgpt" and not full:  # a matrix of its own, quantised with the others
        own = shape.vocab * shape.hidden
        head = _stored_bytes(shape, own, quantized, work.nested, each)
        twice = litgpt.extra_embeddings(work, method) * embedding
    rest_parameters = (
        shape.parameters
        - shape.layers * shape.layer_parameters
        - shape.embedding_parameters
        - shape.head_parameters
    )
    trained = shape.parameters if full else adapters.trained(shape, work)
    frozen = 0 if full else adapters.frozen(shape, work)
    kept = 0 if full else adapters.projector_bytes(shape, work)
    trained_bytes = each if full else BYTES[work.adapters(quantized)]
    ends = (shape.embedding_parameters, shape.head_parameters)
    largest = max(ends) if full else max(shape.largest_linear // shape.hidden, 1) * work.rank
    # How far a product of two small matrices has moved is seen from them alone.
    copied = full or work.variant not in adapters.LOW_RANK
    copies = work.method_overhead.copies * trained_bytes * trained if copied else 0
    copies += work.method_overhead.kept * BYTES["float32"] * trained
    return States(
        weights=shape.layers * layer
        + embedding
        + head
        + each * rest_parameters
        + twice
        + work.wide * work.method_overhead.teacher_parameters,
        adapters=0 if full else trained_bytes * (trained + frozen) + kept,
        gradients=trained_bytes * trained,
        optimiser=optimiser_bytes(work.optim, trained, trained_bytes) + copies,
        layer_weights=layer,
        embedding=embedding,
        head=head,
        trained=trained,
        trained_ends=ends if full else adapters.whole_ends(shape, work),
        trained_rest=rest_parameters if full else 0,
        step=step_bytes(work.optim, trained_bytes * trained, trained_bytes * largest, work.on_cpu),
        gathered=work.wide / each if full else 1.0,
    )


def aside_bytes(shape: Shape, work: Workload, method: str) -> int:
    """Bytes of a checkpoint's copy in the host's memory, where one is made: weights, moments."""
    if not work.saved_aside:
        return 0
    held = states(shape, replace(work, method_overhead=NOTHING), method)
    return held.adapters + held.optimiser + (held.weights if method == "full" else 0)
