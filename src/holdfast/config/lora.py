"""The `train.lora` section: which adapters, where, and how large, as PEFT spells them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AliasChoices,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from holdfast.config.patterns import pattern_fault
from holdfast.config.section import Section

SPARSE = (
    "exclude_modules", "layers_pattern", "rank_pattern", "alpha_pattern", "modules_to_save",
    "target_parameters", "trainable_token_indices", "init_lora_weights", "bias",
)  # fmt: skip
"""Left out of what is written down where they are as usual: older fingerprints stay as they are."""
TWO_HALVES = ("corda", "guardspace")
"""Variants whose adapters have twice the rank: what is trained, and its start, taken away again."""
SWITCHES = {"use_rslora": "rslora", "use_dora": "dora"}
"""PEFT's switches, and the variants that they mean."""
NOT_HERE = {
    "fan_in_fan_out": "it is found out from the model's layers",
    "task_type": "it is always CAUSAL_LM",
    "inference_mode": "adapters are trained here",
    "lora_bias": "biases are not trained: a LoRA of matrices is what can be scaled and merged",
    "new_tokens": "rows are not added here: resize the base once (`tokenizer.add_tokens(...)`, "
    "`model.resize_token_embeddings(len(tokenizer))`, save both), name that folder as the model, "
    "and give the new ids in trainable_token_indices",
    "loftq_config": "it changes the base's weights",
    "layer_replication": "it changes the base's layers",
    "corda_config": "use variant: corda",
    "alora_invocation_tokens": "answers are asked with the adapter on all tokens",
}
"""Settings of PEFT's `LoraConfig` that have no place in a study, and why."""


def _listed(value: object) -> object:
    """One name or number is a list of one."""
    return (value,) if isinstance(value, str | int) and not isinstance(value, bool) else value


class LoraSpec(Section):
    """Low-rank adapters."""

    r: int = Field(16, ge=1, validation_alias=AliasChoices("r", "lora_r", "rank"))
    """Rank. [lora_r, rank]"""
    alpha: int = Field(16, ge=1, validation_alias=AliasChoices("alpha", "lora_alpha"))
    """Scale: the update is multiplied by alpha / r. [lora_alpha]"""
    dropout: float = Field(
        0.05, ge=0, lt=1, validation_alias=AliasChoices("dropout", "lora_dropout")
    )
    """Dropout on the adapter's input; 0 where experts are adapted. [lora_dropout]"""
    target_modules: str | tuple[str, ...] = Field(
        "all-linear",
        validation_alias=AliasChoices("target_modules", "lora_target_modules", "lora_target"),
    )
    """Which matrices: `all-linear`, `attention`, `mlp`, a list such as [q_proj, v_proj], or a
    regular expression for whole module names. [lora_target_modules, lora_target]"""
    exclude_modules: str | tuple[str, ...] = ()
    """Which of them not: names, or a regular expression for whole module names."""
    target_parameters: tuple[str, ...] = ()
    """Experts that are stacked in one parameter, by name, such as [experts.gate_up_proj]."""
    layers: Annotated[tuple[int, ...] | None, BeforeValidator(_listed)] = Field(
        None, validation_alias=AliasChoices("layers", "layers_to_transform")
    )
    """Only these decoder layers, counted from 0; left out: all. [layers_to_transform]"""
    layers_pattern: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    """Names of the lists that hold layers, where a model has several."""
    rank_pattern: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """Other ranks for some modules: names, or patterns as PEFT reads them, to ranks."""
    alpha_pattern: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """Other scales for some modules."""
    modules_to_save: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    """Modules trained whole beside the adapters, such as [embed_tokens, lm_head]."""
    trainable_token_indices: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_listed)
    ] = ()
    """Tokens whose rows of the embedding are trained, by id."""
    variant: Literal["lora", "rslora", "dora", "oft", "osf", "corda", "guardspace"] = "lora"
    """Which of PEFT's ways: plain LoRA, rank-stabilised, DoRA, orthogonal (OFT), OSF, CorDA; or
    `guardspace`, with the method of that name. PEFT's `use_rslora: true` and `use_dora: true` are
    read too."""
    init_lora_weights: Literal[True, "gaussian"] = True
    """Where A begins: as PEFT's default has it, or normally distributed; B begins at zero."""
    bias: Literal["none"] = "none"
    """Biases are never trained: the base is the adapter switched off."""

    @model_validator(mode="before")
    @classmethod
    def _as_peft_spells_it(cls, given: object) -> object:
        if not isinstance(given, Mapping):
            return given
        values: dict[str, Any] = dict(given)
        for key, why in NOT_HERE.items():
            if values.get(key) not in (None, False):
                raise ValueError(f"{key}: {why}; leave it out")
            values.pop(key, None)
        if values.get("bias", "none") != "none":
            raise ValueError(
                "bias: with trained biases the adapter switched off is not the base any more; "
                "leave it out"
            )
        if values.get("init_lora_weights", True) not in (True, "gaussian"):
            raise ValueError(
                f"init_lora_weights: {values['init_lora_weights']!r} changes the base's weights or "
                "its first answers; leave it out, use gaussian, or variant: corda"
            )
        asked = {meant for key, meant in SWITCHES.items() if values.pop(key, False)}
        named = values.get("variant")
        if len(asked) > 1 or (asked and named not in (None, "lora", *asked)):
            raise ValueError("use_rslora, use_dora and variant name different kinds of adapters")
        return values | ({"variant": asked.pop()} if asked else {})

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        more = ("rank_pattern", "alpha_pattern", "target_parameters", "trainable_token_indices")
        for name in (*more, "modules_to_save", "layers_pattern"):
            if self.variant in ("oft", "osf", *TWO_HALVES) and getattr(self, name):
                raise ValueError(f"{name} goes with variant lora, rslora or dora")
        if self.variant == "dora" and self.target_parameters:
            raise ValueError("target_parameters goes with variant lora or rslora")
        if self.layers_pattern and self.layers is None:
            raise ValueError("layers_pattern says where `layers` are: give both")
        for name, pattern in self._patterns():
            if why := pattern_fault(pattern):
                raise ValueError(f"{name}: {pattern[:60]!r} {why}")
        return self

    def _patterns(self) -> Iterator[tuple[str, str]]:
        """The settings that are regular expressions, as PEFT matches them."""
        for name in ("target_modules", "exclude_modules"):
            if isinstance(text := getattr(self, name), str):
                yield name, text
        for name in ("rank_pattern", "alpha_pattern", "layers_pattern"):
            for text in getattr(self, name):
                yield name, rf"(.*\.)?({text})"

    @model_serializer(mode="wrap")
    def _sparse(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = write(self)
        for name in SPARSE:
            usual = self.__class__.model_fields[name].get_default(call_default_factory=True)
            if getattr(self, name) == usual:
                found.pop(name, None)
        return found

    @property
    def adds(self) -> bool:
        """Whether what is saved is added to the weights, so that it can be scaled and merged."""
        whole = self.modules_to_save or self.trainable_token_indices
        return self.variant in ("lora", "rslora", *TWO_HALVES) and not whole

    @property
    def halves(self) -> int:
        """How many times the rank a low-rank adapter has: 2 where its second half is its start."""
        return 2 if self.variant in TWO_HALVES else 1

    @property
    def kind(self) -> str:
        """What is trained, in words for messages."""
        whole = " with modules_to_save" if self.modules_to_save else ""
        return self.variant + (whole or " with trained tokens" * bool(self.trainable_token_indices))
