"""Places the weights of a model that answers: on one GPU, or split over several.

On one GPU when they fit there with room for a batch's keys and values; else its layers are split
over the GPUs, as in training. A row's keys and values are taken at their full length when it
begins, and as many rows begin as the memory that is left holds (`holdfast.engines.pace`).

What Holdfast itself starts comes one after the other: answering ends before a training begins, and
a judge is loaded when there is something to judge. What lies beside a training is the server that
draws its answers (`drawing_server`), and what the user says, such as his own (`left_beside`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal
from unicodedata import normalize

from holdfast.errors import UsageError
from holdfast.memory.estimate.activations import cache_bytes
from holdfast.memory.estimate.states import States, states
from holdfast.memory.estimate.workload import Workload
from holdfast.memory.hardware.devices import GPU
from holdfast.memory.memory_plan import GIB
from holdfast.memory.model.catalogue import locate
from holdfast.memory.model.shape import Shape
from holdfast.memory.planner.counting import shape_by_class
from holdfast.memory.planner.host_memory import size_bytes
from holdfast.memory.planner.strategies import Held, device_map, split
from holdfast.memory.precision import Dtype

ROOM_BYTES = 3 * GIB // 2
"""Context, workspace and one layer's activations."""
PROMPT_TOKENS = 2048
"""What a long prompt is taken to be."""

GPUs = tuple[GPU, ...]
NEW_TOKENS = 512
"""Of an answer, where nobody says; as in a study."""
ENGINE = "vllm"
FORMS = "write vllm=0.3 (its share of every GPU), 6GiB, or judge=MODEL or judge=MODEL:nf4"


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


def left_beside(gpus: GPUs, beside: Sequence[str]) -> tuple[GPUs, tuple[str, ...]]:
    """The GPUs with what is left of their memory, and a sentence for each thing that lies there.

    Args:
        gpus: to train on.
        beside: as the user writes them. `vllm=0.3`: a vLLM server with that
            `--gpu-memory-utilization`, a share of each GPU's whole memory. `judge=MODEL` (with any
            word for `judge`, and `:nf4` behind it for 4 bits): another model that answers one
            prompt at a time, on the GPU that has most free. `6GiB`: on every GPU.

    Raises:
        UsageError: none of these, or more than there is.
        ModelError: no such model.
    """
    if beside and gpus[0].cpu:
        raise UsageError(
            "what lies beside a training is subtracted from GPUs, and there is none",
            where="beside",
            remedy="leave it out, or name the GPUs",
        )
    said = []
    whole = tuple(gpu.total_bytes for gpu in gpus)
    for text in beside:
        taken, words = _taken(text, gpus)
        whole = tuple(size - less for size, less in zip(whole, taken, strict=True))
        gpus = tuple(  # what is in use already may be the very same
            replace(gpu, free_bytes=min(gpu.free_bytes, size))
            for gpu, size in zip(gpus, whole, strict=True)
        )
        if short := next((gpu for gpu in gpus if gpu.free_bytes <= 0), None):
            raise UsageError(
                f"{text!r} leaves nothing of {short.name} (GPU {short.index})",
                where="beside",
                remedy="give it less, or put it on another machine",
            )
        said.append(words)
    return gpus, tuple(said)


def _taken(text: str, gpus: tuple[GPU, ...]) -> tuple[list[int], str]:
    """The bytes of each GPU that one thing takes, and what to say of it."""
    plain = normalize("NFKC", text)
    name, equals, value = (part.strip() for part in plain.partition("="))
    if not equals:
        size = round(size_bytes(name))
        if size <= 0 or name.isdigit():
            raise UsageError(f"{text[:60]!r} says no size", where="beside", remedy=FORMS)
        return [size] * len(gpus), f"beside it on every GPU: {size / GIB:.1f} GiB"
    if name.lower() == ENGINE:
        share = float(value) if re.fullmatch(r"\d*\.?\d+", value) else 0.0
        if not 0 < share < 1:
            raise UsageError(
                f"vllm={value[:40]!r} is no share of a GPU's memory", where="beside", remedy=FORMS
            )
        sizes = [round(share * gpu.total_bytes) for gpu in gpus]
        most = f"{max(sizes) / GIB:.1f}"
        return sizes, f"beside it on every GPU: vLLM with {share:g} of its memory, {most} GiB"
    model, _, kind = value.partition(":")
    if kind not in ("", "nf4") or not name or not model:
        raise UsageError(f"{text[:60]!r} names no model", where="beside", remedy=FORMS)
    shape = shape_by_class(locate(model), None, False, ask=False)
    size = answering_bytes(shape, kind == "nf4", longest(shape, NEW_TOKENS))
    roomiest = max(range(len(gpus)), key=lambda place: gpus[place].free_bytes)
    sizes = [size if place == roomiest else 0 for place in range(len(gpus))]
    bits = " in 4 bits" if kind else ""
    return sizes, (
        f"beside it on GPU {gpus[roomiest].index}: {name} {shape.name}{bits}, "
        f"{size / GIB:.1f} GiB while it answers one prompt"
    )
