"""Counts the parameters of each part of a model from its config.json; reads no weights.

Counted from transformers 5.23's modelling code, and checked against it tensor by tensor in the
tests. Mixtures of experts keep each layer's experts in two three-dimensional parameters instead of
`nn.Linear`s: bitsandbytes leaves those in 16 bits, whereas PEFT 0.21 does adapt them under
"all-linear" (`Shape.fused`); the router, which it would adapt too, is left as it is. Families whose
layers are not counted from their fields (hybrids, latent attention, towers) have their matrices as
transformers' own class has them, listed in the catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.errors import ModelError
from holdfast.memory.model import names
from holdfast.memory.model.layer import Linear, Widths, decoder_layer, listed, siglip
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
ALIASES: Mapping[str, str] = {
    "n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads",
    "n_positions": "max_position_embeddings", "n_inner": "intermediate_size",
    "block_ff_dim": "intermediate_size", "top_k_experts": "num_experts_per_tok",
    "moe_num_experts": "num_experts", "moe_k": "num_experts_per_tok",
}  # fmt: skip
"""Fields under the names that some families give them."""
WIDTHS = {"intermediate_size", "moe_intermediate_size"}
UNLIMITED = 1 << 30
TOWER = "its vision tower is loaded too, and counted"
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
        counted: all parameters, each once, as transformers' own class has them; 0: added up here.
        trunk: module that holds the layers, where it is not `model`.
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
    counted: int = 0
    trunk: str = ""

    @property
    def told(self) -> bool:
        """Whether the model's class told the whole names of its matrices."""
        return any("." in one.path for one in self.linears)

    @property
    def stem(self) -> str:
        """Module that holds `embed_tokens`, `layers` and `norm`."""
        return self.trunk or ("model.language_model" if self.family == "gemma3" else "model")

    @property
    def layer_parameters(self) -> int:
        """Parameters of one decoder layer."""
        return sum(matrix.parameters for matrix in (*self.linears, *self.fused)) + self.norms

    @property
    def linear_parameters(self) -> int:
        """Parameters of all layers that a 4-bit base quantises: weights of `nn.Linear`s."""
        return round(self.layers * sum(one.count * one.n_in * one.n_out for one in self.linears))

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
        if self.counted:
            return self.counted
        every = (*self.linears, *self.fused)  # some are in some layers only
        body = sum(one.count * one.n_out * (one.n_in + one.bias) for one in every)
        ends = self.embedding_parameters + self.head_parameters + self.hidden
        return round(self.layers * (body + self.norms)) + ends + self.tower_parameters

    @property
    def active_parameters(self) -> int:
        """Parameters in matrices that one token is multiplied with, the output head included."""
        layer = sum(one.count * one.n_in * one.n_out for one in self.linears)
        for matrix in self.fused:  # of the experts only a few; the router whole
            share = 1.0
            if matrix.count > 1 and self.experts:
                share = self.experts_per_token * matrix.count / self.experts
            layer += share * matrix.n_in * matrix.n_out
        return round(self.layers * layer) + self.vocab * self.hidden

    @property
    def largest_linear(self) -> int:
        """Parameters of the largest matrix that a 4-bit base quantises."""
        return max(one.n_in * one.n_out for one in self.linears)


def from_config(
    config: Mapping[str, object],
    name: str,
    source: str,
    parts: Mapping[str, Any] | None = None,
    note: str = "",
) -> Shape:
    """The shape that a config.json describes.

    A family that transformers knows and that is not counted here is built like Llama, with
    `exact=False`, unless its parts are given.

    Args:
        config: content of the config.json.
        name: the model, for messages.
        source: of the config.
        parts: the matrices as the catalogue lists them; None: of every layer alike, by its fields.
        note: what the reader should know already.

    Raises:
        ModelError: a needed field is missing or is no positive number, or transformers does not
            know the family.
    """
    family = str(config.get("model_type") or "")
    if parts is None:
        names.require_family(family, config, name)
    text, said = config, [note] if note else []
    if isinstance(inner := config.get("text_config"), Mapping):
        text = {"model_type": family, **inner}
        if parts is None and family != "gemma3":
            said.append("it also has a vision tower, which is not counted")
    kind = str(text.get("model_type", family))
    fields = {**DEFAULTS.get(kind, {}),
              **{ALIASES.get(k, k): v for k, v in text.items() if v is not None}}  # fmt: skip
    if text is not config and config.get("tie_word_embeddings") is not None:
        fields["tie_word_embeddings"] = config["tie_word_embeddings"]
    missing = [one for one in NEEDED if one not in fields]
    if parts is None and not WIDTHS & set(fields):
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
        intermediate=_first(fields, name, *expert_width, "intermediate_size") or 4 * hidden,
        experts=experts,
    )
    layers = _number(fields, "num_hidden_layers", name)
    layer = decoder_layer(kind, widths, fields) if parts is None else listed(parts, layers)
    tower: tuple[Linear, ...] = ()
    tower_parameters = 0
    if family == "gemma3" and isinstance(vision := config.get("vision_config"), Mapping):
        tower, tower_parameters = siglip(vision, hidden)
        said.append(TOWER)
    if parts is not None and (tower_parameters := int(parts.get("tower", 0))):
        tower = listed({"linears": parts.get("towers", ())}, 1).linears
        said.append(TOWER)
    return Shape(
        name=name,
        source=source,
        family=family or "unknown",
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=widths.kv_heads,
        head_dim=widths.head_dim,
        intermediate=widths.intermediate,
        vocab=_number(fields, "vocab_size", name),
        tied=bool(fields.get("tie_word_embeddings", False)),
        max_positions=_positions(fields.get("max_position_embeddings")),
        exact=family in EXACT,
        linears=layer.linears,
        fused=layer.fused,
        norms=layer.norms,
        tower=tower,
        tower_parameters=tower_parameters,
        experts=experts,
        experts_per_token=_first(fields, name, "num_experts_per_tok") if experts else 0,
        note="; ".join(said),
        stored=stored(config),
        counted=0 if parts is None else int(parts["total"]),
        trunk="" if parts is None else str(parts.get("trunk", "")),
    )


def _positions(value: object) -> int:
    """The longest sequence; some families say -1 where they know no limit."""
    known = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return value if known else UNLIMITED  # type: ignore[return-value]


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
