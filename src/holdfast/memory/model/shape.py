"""Counts the parameters of each part of a model from its config.json; reads no weights.

Counted from transformers 5.23's modelling code, and checked against it tensor by tensor in the
tests. Mixtures of experts keep each layer's experts in two three-dimensional parameters instead of
`nn.Linear`s: bitsandbytes leaves those in 16 bits, whereas PEFT 0.21 does adapt them under
"all-linear" (`Shape.fused`); the router, which it would adapt too, is left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.errors import ModelError
from holdfast.memory.model.catalogue import locate
from holdfast.memory.model.layer import Linear, Widths, decoder_layer, siglip
from holdfast.memory.model.stored import Stored, stored

EXACT = {"qwen2", "qwen3", "llama", "mistral", "gemma2", "gemma3", "gemma3_text", "phi3"}
"""Families whose activations were counted from the code, not only their parameters."""
DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "gemma": {"head_dim": 256, "tie_word_embeddings": True},
    "gemma2": {"head_dim": 256, "vocab_size": 256_000, "tie_word_embeddings": True},
    "gemma3_text": {
        "head_dim": 256, "vocab_size": 262_208, "num_attention_heads": 8,
        "num_key_value_heads": 4, "max_position_embeddings": 131_072, "tie_word_embeddings": True,
    },
    "qwen3": {"head_dim": 128},
    "smollm3": {"tie_word_embeddings": True},
}  # fmt: skip
"""What a config.json may leave out, as transformers' configuration classes fill it in."""
UNLIMITED = 1 << 30
"""`max_positions` of a config that names none."""
NEEDED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder-only language model's dimensions.

    Attributes:
        name: as the user gave it, or its hub id.
        source: where the dimensions are from.
        family: `model_type` of its config.
        hidden: width of the residual stream.
        layers: decoder layers, all alike.
        heads: attention heads.
        kv_heads: heads of keys and values.
        head_dim: width of one head.
        intermediate: width of the feed-forward part; with experts, of one expert.
        vocab: rows of the embedding.
        tied: the output head is the embedding.
        max_positions: the longest sequence it reads, tokens.
        exact: the family's activations were counted from its code; otherwise a wider margin.
        linears: the `nn.Linear`s of one layer, which LoRA adapts and bitsandbytes quantises.
        fused: a layer's matrices that are plain parameters: experts and router.
        norms: parameters of one layer's norms.
        tower: the vision tower's `nn.Linear`s, all layers of it.
        tower_parameters: everything in the vision tower and its projector.
        experts: per layer; 0 when there are none.
        experts_per_token: that one token passes.
        note: what the reader of a plan should know about these figures.
        stored: how the weights lie in their files, where that is in few bits.
    """

    name: str
    source: str
    family: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool
    max_positions: int
    exact: bool
    linears: tuple[Linear, ...]
    fused: tuple[Linear, ...] = ()
    norms: int = 0
    tower: tuple[Linear, ...] = ()
    tower_parameters: int = 0
    experts: int = 0
    experts_per_token: int = 0
    note: str = ""
    stored: Stored | None = None

    @property
    def stem(self) -> str:
        """Module that holds `embed_tokens`, `layers` and `norm`."""
        return "model.language_model" if self.family == "gemma3" else "model"

    @property
    def layer_parameters(self) -> int:
        """Parameters of one decoder layer."""
        return sum(matrix.parameters for matrix in (*self.linears, *self.fused)) + self.norms

    @property
    def linear_parameters(self) -> int:
        """Parameters of all layers that a 4-bit base quantises: weights of `nn.Linear`s."""
        return self.layers * sum(one.weights for one in self.linears)

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the input embedding."""
        return self.vocab * self.hidden

    @property
    def head_parameters(self) -> int:
        """Parameters of the output head; 0 when it is the embedding."""
        return 0 if self.tied else self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        """All of them, each once."""
        body = self.layers * self.layer_parameters + self.hidden + self.tower_parameters
        return body + self.embedding_parameters + self.head_parameters

    @property
    def active_parameters(self) -> int:
        """Parameters in matrices that one token is multiplied with, the output head included."""
        layer = sum(matrix.weights for matrix in self.linears)
        for matrix in self.fused:  # of the experts only a few; the router whole
            share = self.experts_per_token if matrix.count > 1 else 1
            layer += share * matrix.n_in * matrix.n_out
        return self.layers * layer + self.vocab * self.hidden

    @property
    def largest_linear(self) -> int:
        """Parameters of the largest matrix that a 4-bit base quantises."""
        return max(one.n_in * one.n_out for one in self.linears)


def read_shape(model: str, revision: str | None = None) -> Shape:
    """The shape of a model by name; see `holdfast.memory.model.catalogue.locate` for what is tried.

    Args:
        model: `lab`, a local folder, a name of the catalogue, or a hub id.
        revision: of the hub's repository.

    Raises:
        ModelError: no such model, not reachable, or without the fields that are needed.
    """
    name, config, source = locate(model, revision)
    return from_config(config, name, source)


def from_config(config: Mapping[str, object], name: str, source: str) -> Shape:
    """The shape that a config.json describes.

    An unknown `model_type` is counted like Llama, with `exact=False`.

    Raises:
        ModelError: a needed field is missing or is no positive number.
    """
    family = str(config.get("model_type", ""))
    text, note = config, ""
    if isinstance(inner := config.get("text_config"), Mapping):
        text = {"model_type": family, **inner}
        note = "it also has a vision tower, which is not counted"
    kind = str(text.get("model_type", family))
    fields = {**DEFAULTS.get(kind, {}), **{k: v for k, v in text.items() if v is not None}}
    if text is not config and config.get("tie_word_embeddings") is not None:
        fields["tie_word_embeddings"] = config["tie_word_embeddings"]
    missing = [one for one in NEEDED if one not in fields]
    if not {"intermediate_size", "moe_intermediate_size"} & set(fields):
        missing.append("intermediate_size")
    if missing:
        raise ModelError(
            f"its config.json lacks {', '.join(missing)}, so its size is unknown",
            where=name,
            remedy="add the fields, or name a model of the catalogue with the same architecture",
        )
    hidden, heads = _number(fields, NEEDED[0], name), _number(fields, NEEDED[2], name)
    experts = _first(fields, name, "num_experts", "num_local_experts", "n_routed_experts")
    expert_width = ("moe_intermediate_size",) if experts else ()
    widths = Widths(
        hidden=hidden,
        heads=heads,
        kv_heads=_first(fields, name, "num_key_value_heads") or heads,
        head_dim=_first(fields, name, "head_dim") or hidden // heads,
        intermediate=_first(fields, name, *expert_width, "intermediate_size"),
        experts=experts,
    )
    layer = decoder_layer(kind, widths, fields)
    tower: tuple[Linear, ...] = ()
    tower_parameters = 0
    if family == "gemma3" and isinstance(vision := config.get("vision_config"), Mapping):
        tower, tower_parameters = siglip(vision, hidden)
        note = "its vision tower is loaded too, and counted"
    return Shape(
        name=name,
        source=source,
        family=family or "unknown",
        hidden=hidden,
        layers=_number(fields, "num_hidden_layers", name),
        heads=heads,
        kv_heads=widths.kv_heads,
        head_dim=widths.head_dim,
        intermediate=widths.intermediate,
        vocab=_number(fields, "vocab_size", name),
        tied=bool(fields.get("tie_word_embeddings", False)),
        max_positions=_first(fields, name, "max_position_embeddings") or UNLIMITED,
        exact=family in EXACT,
        linears=layer.linears,
        fused=layer.fused,
        norms=layer.norms,
        tower=tower,
        tower_parameters=tower_parameters,
        experts=experts,
        experts_per_token=_first(fields, name, "num_experts_per_tok") if experts else 0,
        note=note,
        stored=stored(config),
    )


def _number(fields: Mapping[str, object], key: str, name: str) -> int:
    value = fields[key]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ModelError(
            f"{key} is {value!r} in its config.json", where=name, remedy="give a positive number"
        )
    return value


def _first(fields: Mapping[str, object], name: str, *keys: str) -> int:
    """The first of these fields that is there, or 0."""
    return next((_number(fields, key, name) for key in keys if fields.get(key)), 0)
