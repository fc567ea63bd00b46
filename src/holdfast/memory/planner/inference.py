"""Places the weights of a model that answers: on one GPU, or split over several.

On one GPU when they fit there with room for a batch's keys and values; else its layers are split
over the GPUs, as in training. A row's keys and values are taken at their full length when it
begins, and as many rows begin as the memory that is left holds (`holdfast.engines.pace`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from holdfast.memory.estimate.activations import cache_bytes
from holdfast.memory.estimate.states import States, states
from holdfast.memory.estimate.workload import Workload
from holdfast.memory.hardware.devices import GPU
from holdfast.memory.memory_plan import GIB
from holdfast.memory.model.shape import Shape
from holdfast.memory.planner.strategies import Held, device_map, split
from holdfast.memory.precision import Dtype

ROOM_BYTES = 3 * GIB // 2
"""Context, workspace and one layer's activations."""
PROMPT_TOKENS = 2048
"""What a long prompt is taken to be."""


def answering_map(
    shape: Shape, gpus: Sequence[GPU], quantized: bool, tokens: int, dtype: Dtype = "bfloat16"
) -> Mapping[str, int | str] | None:
    """The device map for answering; None when one GPU holds the model, or nothing can be split.

    Args:
        shape: the model.
        gpus: with their free memory, as torch numbers them.
        quantized: the base is NF4.
        tokens: of the longest prompt and answer together; one such sequence must fit.
        dtype: of what is not quantised.
    """
    whole = [one for one in gpus if not one.mig]
    held, cache = _held(shape, quantized, tokens, dtype)
    if len(whole) < 2 or held.weights + cache + ROOM_BYTES <= whole[0].free_bytes:
        return None

    def cost(part: Held) -> int:
        return part.weights + cache * part.layers // shape.layers + ROOM_BYTES

    return device_map(shape, split(held, shape, whole, cost))


def longest(shape: Shape, new_tokens: int) -> int:
    """Tokens of a long prompt and its answer together, as far as the model reads."""
    return min(shape.max_positions, PROMPT_TOKENS + new_tokens)


def answering_bytes(shape: Shape, quantized: bool, tokens: int, dtype: Dtype = "bfloat16") -> int:
    """What a model takes while it answers one prompt; see `answering_map` for the arguments."""
    held, cache = _held(shape, quantized, tokens, dtype)
    return held.weights + cache + ROOM_BYTES


def _held(shape: Shape, quantized: bool, tokens: int, dtype: Dtype) -> tuple[States, int]:
    """The model's states, and the bytes of one sequence's keys and values."""
    method: Literal["lora", "qlora"] = "qlora" if quantized else "lora"
    work = Workload(method=method, seq_len=max(1, tokens), dtype=dtype)
    return states(shape, work, method), cache_bytes(shape, work, 1, tokens)
