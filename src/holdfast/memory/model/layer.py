"""Lists the matrices of a decoder layer for each model family.

Taken from transformers 5.23's modelling code. Each function reads the fields of config.json that
matter and builds the list; `holdfast.memory.model.shape` adds the parameters up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Reach = Literal["all", "named", "never"]


@dataclass(frozen=True, slots=True)
class Linear:
    """One matrix of a decoder layer.

    Attributes:
        name: last part of the module's name.
        n_in: input width.
        n_out: output width.
        bias: whether it has one.
        count: how many of it a layer has; on average, where only some layers have it.
        targets: the names under which LoRA reaches a fused matrix; its rank is multiplied by their
            number. For an `nn.Linear` that is its own name.
        path: its whole name with numbers as stars, where the model's class told it; else its name.
        reach: whether adapters on everything mean it, or only those that name it (routers, mixers
            that read a weight without calling its layer), or not even those: PEFT takes its name
            for the fused experts'.
        kind: `attention`, `mlp` or neither, where the class told it.
        layers: the numbers of the layers that have it, where the class told them.
    """

    name: str
    n_in: int
    n_out: int
    bias: bool = False
    count: float = 1
    targets: tuple[str, ...] = ()
    path: str = ""
    reach: Reach = "all"
    kind: str = ""
    layers: tuple[int, ...] = ()

    @property
    def weights(self) -> int:
        """Parameters of the matrices, without biases."""
        return round(self.count * self.n_in * self.n_out)

    @property
    def parameters(self) -> int:
        """Parameters, biases included."""
        return self.weights + round(self.count * self.n_out * self.bias)

    def adapter(self, rank: int) -> int:
        """Parameters of its LoRA matrices."""
        return round(self.count * self.each(rank))

    def each(self, rank: int) -> int:
        """Parameters of the LoRA matrices of one such matrix."""
        return max(1, len(self.targets)) * rank * (self.n_in + self.n_out)


@dataclass(frozen=True, slots=True)
class Layer:
    """What one decoder layer is made of; see the attributes of the same names of `Shape`."""

    linears: tuple[Linear, ...]
    fused: tuple[Linear, ...]
    norms: int


@dataclass(frozen=True, slots=True)
class Widths:
    """The numbers that a layer is built from; see the attributes of the same names of `Shape`."""

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    experts: int


def decoder_layer(kind: str, widths: Widths, fields: Mapping[str, object]) -> Layer:
    """The matrices and norms of one decoder layer.

    Args:
        kind: `model_type` of the language model; one that is not counted here is built like Llama.
        widths: its dimensions.
        fields: the config, for the switches of biases and shared experts.
    """
    hidden, width = widths.hidden, widths.intermediate
    queries, keys = widths.heads * widths.head_dim, widths.kv_heads * widths.head_dim
    norms = (4 if kind in {"gemma2", "gemma3_text"} else 2) * hidden
    if kind in {"qwen3", "qwen3_moe", "gemma3_text"}:
        norms += 2 * widths.head_dim  # of each head's queries and keys
    if kind in {"olmo2", "olmo3"}:
        norms += queries + keys  # of all heads' at once
    if kind == "phi3":
        fused_attention = Linear("qkv_proj", hidden, queries + 2 * keys)
        output = Linear("o_proj", queries, hidden)
        feed = (Linear("gate_up_proj", hidden, 2 * width), Linear("down_proj", width, hidden))
        return Layer((fused_attention, output, *feed), (), norms)
    bias, out_bias = _attention_biases(kind, fields)
    attention = (
        Linear("q_proj", hidden, queries, bias),
        Linear("k_proj", hidden, keys, bias),
        Linear("v_proj", hidden, keys, bias),
        Linear("o_proj", queries, hidden, out_bias),
    )
    if not widths.experts:
        mlp_bias = bool(fields.get("mlp_bias"))
        return Layer((*attention, *_gated(hidden, width, mlp_bias)), (), norms)
    sparse = _sparse_share(kind, fields)
    shared = _shared_expert(kind, hidden, width, fields)
    some = [replace(one, count=sparse * one.count) for one in shared]
    if sparse < 1:  # the others are dense, of a width of their own
        dense = _gated(hidden, _number(fields, "intermediate_size", 4 * hidden))
        reach: Reach = "never" if kind == "qwen3_moe" else "all"  # the experts' names to PEFT
        some += [replace(one, count=1 - sparse, reach=reach) for one in dense]
    experts = _experts(kind, hidden, width, widths.experts)
    every = tuple(replace(one, count=sparse * one.count) for one in experts) if sparse else ()
    return Layer((*attention, *some), every, norms)


def _sparse_share(kind: str, fields: Mapping[str, object]) -> float:
    """The share of layers that have experts: in Qwen's families some may be dense."""
    layers = _number(fields, "num_hidden_layers", 1)
    named = fields.get("mlp_only_layers")
    if kind not in {"qwen2_moe", "qwen3_moe"} or layers < 1:
        return 1
    dense = set(named) if isinstance(named, list | tuple) else set()
    step = max(1, _number(fields, "decoder_sparse_step", 1))
    every = [place for place in range(layers) if place not in dense and (place + 1) % step == 0]
    return 1 if len(every) == layers else len(every) / layers


def listed(parts: Mapping[str, Any], layers: int) -> Layer:
    """A layer as the catalogue or the model's class lists it, shared out evenly over all layers.

    Args:
        parts: `linears`, rows of name, inputs, outputs, bias and how many, and of the class also
            reach, kind and layers; `stacked`, rows of name, inputs, outputs, how many and targets,
            and of the class layers. The class gives whole names, with numbers as stars.
        layers: of the model.
    """

    def each(total: int) -> float:
        return total // layers if total % layers == 0 else total / layers

    def made(path: str, n_in: int, n_out: int, bias: object, count: int, *more: Any) -> Linear:
        reach, kind, some = more or ("all", "", ())
        name, where = path.rpartition(".")[2], tuple(some or range(layers))
        return Linear(name, n_in, n_out, bool(bias), each(count), (), path, reach, kind, where)

    linears = tuple(made(*row) for row in parts["linears"])
    fused = tuple(
        replace(made(path, n_in, n_out, 0, count, "all", "", *where or [()]), targets=tuple(names))
        for path, n_in, n_out, count, names, *where in parts.get("stacked", ())
    )
    return Layer(linears, fused, 0)


def _attention_biases(kind: str, fields: Mapping[str, object]) -> tuple[bool, bool]:
    """Of queries, keys and values, and of the output."""
    match kind:
        case "qwen2":
            return True, False
        case "qwen2_moe":
            return bool(fields.get("qkv_bias", True)), False
        case "mistral" | "mixtral":
            return False, False
        case _:
            both = bool(fields.get("attention_bias"))
            return both, both


def _gated(hidden: int, width: int, bias: bool = False) -> tuple[Linear, ...]:
    return (
        Linear("gate_proj", hidden, width, bias),
        Linear("up_proj", hidden, width, bias),
        Linear("down_proj", width, hidden, bias),
    )


def _shared_expert(
    kind: str, hidden: int, width: int, fields: Mapping[str, object]
) -> tuple[Linear, ...]:
    """The expert that every token passes, where there is one."""
    if kind == "qwen2_moe":
        shared = _number(fields, "shared_expert_intermediate_size", 5632)
        return (*_gated(hidden, shared), Linear("shared_expert_gate", hidden, 1))
    shared = width * _number(fields, "n_shared_experts", 0)
    return _gated(hidden, shared) if shared else ()


def _experts(kind: str, hidden: int, width: int, experts: int) -> tuple[Linear, ...]:
    """Experts and router, and the names under which PEFT 0.21 adapts them.

    It translates the names of transformers 4 (`utils/transformers_weight_conversion.py`), also when
    resolving "all-linear"; qwen2_moe itself has no entry there, so its experts are never adapted.
    """
    first, second, last = (
        ("w1", "w3", "w2") if kind == "mixtral" else ("gate_proj", "up_proj", "down_proj")
    )
    adapted = kind != "qwen2_moe"
    return (
        Linear(
            "gate_up_proj", hidden, 2 * width, False, experts, (first, second) if adapted else ()
        ),
        Linear("down_proj", width, hidden, False, experts, (last,) if adapted else ()),
        Linear("gate", hidden, experts),  # the router; Holdfast leaves it as it is
    )


def siglip(vision: Mapping[str, object], hidden: int) -> tuple[tuple[Linear, ...], int]:
    """The vision tower of Gemma 3: its `nn.Linear`s, and all its parameters with the projector.

    Args:
        vision: `vision_config`; defaults are those of `SiglipVisionConfig`.
        hidden: width of the language model, which the projector ends in.
    """
    width = _number(vision, "hidden_size", 768)
    feed = _number(vision, "intermediate_size", 3072)
    layers = _number(vision, "num_hidden_layers", 12)
    patch, image = _number(vision, "patch_size", 16), _number(vision, "image_size", 224)
    linears = [
        Linear(name, width, width, True, layers)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj")
    ]
    linears += [Linear("fc1", width, feed, True, layers), Linear("fc2", feed, width, True, layers)]
    total = sum(matrix.parameters for matrix in linears) + layers * 4 * width + 2 * width
    total += 3 * patch * patch * width + width + (image // patch) ** 2 * width  # patches, positions
    if vision.get("vision_use_head", True):  # pooling: a query, attention, norm and MLP
        total += width + 4 * (width * width + width) + 2 * width
        total += 2 * width * feed + width + feed
    return tuple(linears), total + width * hidden + width


def _number(fields: Mapping[str, object], key: str, default: int) -> int:
    """A whole number of a config; the default where it is missing."""
    value = fields.get(key)
    return int(value) if isinstance(value, int | float | str) else default
