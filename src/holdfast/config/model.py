"""The `model:` section: which model a study starts from."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import AliasChoices, Field, model_validator

from holdfast.config.section import Section
from holdfast.types import LAB, LAB_FOLDER

__all__ = ["LAB", "LAB_FOLDER", "ModelSpec"]

Attention = Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"]


class ModelSpec(Section):
    """Which model to start from."""

    id: str = Field(validation_alias=AliasChoices("id", "base"))
    """Hub id, local folder, GGUF file (`folder/file.gguf`), or `lab` for the built-in model.
    [base]"""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Only for models you trust."""
    chat_template: str | None = None
    """A Jinja file, or its text, instead of the tokenizer's own template."""
    template_kwargs: dict[str, object] = Field({})
    """Variables for the chat template: `{enable_thinking: false}`."""
    thinking: bool | Literal["auto"] = "auto"
    """Whether the model thinks before it answers, where its template has a switch for that, before
    and after training alike. `auto`: off where there is a switch."""
    attn_implementation: Attention | None = None
    """`sdpa`, `eager`, `flash_attention_2`, ...: in training and asking. Left out: the model's."""
    rope_scaling: dict[str, object] | None = Field(
        None, validation_alias=AliasChoices("rope_scaling", "rope_parameters")
    )
    """Stretches the positions: `{rope_type: yarn, factor: 2.0}`; in training and asking.
    [rope_parameters]"""
    date: datetime.date = datetime.date(2024, 7, 26)
    """What a template that reads the clock is told, in training and asking, today and tomorrow."""

    @model_validator(mode="before")
    @classmethod
    def _file_in_folder(cls, value: object) -> object:
        """`{base: folder, gguf: file}` is `folder/file`."""
        if not isinstance(value, Mapping) or not isinstance(value.get("gguf"), str):
            return value
        name = next((one for one in ("id", "base") if isinstance(value.get(one), str)), "id")
        folder, rest = value.get(name), {k: v for k, v in value.items() if k != "gguf"}
        if not folder or not value["gguf"].lower().endswith(".gguf"):
            raise ValueError("gguf is the name of a file (.gguf) in the folder or repository `id`")
        return {**rest, name: f"{str(folder).rstrip('/')}/{value['gguf']}"}

    @model_validator(mode="after")
    def _one_switch(self) -> Self:
        for name in ("enable_thinking", "thinking"):
            if name in self.template_kwargs and self.thinking != "auto":
                said = self.template_kwargs[name]
                if bool(said) != self.thinking:
                    raise ValueError(
                        f"thinking is {str(self.thinking).lower()} and template_kwargs.{name} is "
                        f"{str(said).lower()}; give one of them"
                    )
        return self
