"""Reads the shape of a model by its name; needs no torch and runs no model's code."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.memory.model.catalogue import Found, locate
from holdfast.memory.model.shape import EXACT, Shape, from_config

BY_FIELDS = EXACT | {
    "ernie4_5", "gemma", "granite", "internlm3", "minicpm", "mixtral", "olmo2", "olmo3",
    "qwen2_moe", "qwen3_moe", "smollm3",
}  # fmt: skip
"""Families whose parameters are counted from their fields, to the parameter, as the tests compare
with transformers' own classes."""


def read_shape(model: str, revision: str | None = None) -> Shape:
    """The shape of a model by name; see `holdfast.memory.model.catalogue.locate` for what is tried.

    A family that is not counted by its fields has the count of its own class, where a plan asked
    for that before; else it is taken to be built like Llama.

    Args:
        model: `lab`, a local folder, a name of the catalogue, or a hub id.
        revision: of the hub's repository.

    Raises:
        ModelError: no such model, not reachable, or without the fields that are needed.
    """
    found = locate(model, revision)
    if not is_counted(found):
        from holdfast.memory.trace.counts import kept_parts  # slow to import

        if counted := kept_parts(found):
            return of_class(found, counted)
    return from_config(found.config, found.name, found.source, found.parts, found.note)


def is_counted(found: Found) -> bool:
    """Whether a model's parameters are known without its class: listed, or told by its fields."""
    return found.listed or str(found.config.get("model_type")) in BY_FIELDS


def of_class(found: Found, counted: Mapping[str, object]) -> Shape:
    """The shape of a model as its own class told it.

    Args:
        found: its config.json.
        counted: see `holdfast.memory.trace.class_counter.answer`.

    Raises:
        ModelError: the class did not tell enough.
    """
    config = found.config
    fields = counted.get("fields")
    if isinstance(fields, Mapping):  # under the names that every class answers to
        plain = {name: value for name, value in config.items() if name != "text_config"}
        config = {**plain, **fields}
    return from_config(config, found.name, found.source, counted, found.note)
