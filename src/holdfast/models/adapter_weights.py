"""Is an adapter's file whole and free of NaN? Told from it and its settings, without torch."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from holdfast.config.patterns import pattern_fault
from holdfast.errors import ModelError
from holdfast.models import safetensors_files
from holdfast.models.json_files import AGAIN
from holdfast.models.safetensors_files import Stored

PAIRS = ((".lora_A.", ".lora_B."), (".lora_embedding_A", ".lora_embedding_B"))
"""Both halves of a LoRA product, as PEFT names them; either may come first."""
VOCABULARY = re.compile(
    r"\.(embed_tokens|lm_head|wte|embed_in|embed_out)\."
    r"(?:weight|base_layer\.weight|lora_embedding_A|lora_B\.weight)$"
)
"""An embedding or a head that is brought whole, or the factor that has a number for each token."""
MOST_RANK = 65_536
"""No matrix has so large a rank."""
DIGITS = re.compile(r"\.\d+\.")


def check_settings(settings: Mapping[str, object], where: str) -> None:
    """Refuse settings that PEFT would stumble over.

    Raises:
        ModelError: naming the key.
    """
    targets = settings.get("target_modules")
    for key in ("target_modules", "exclude_modules"):
        if isinstance(text := settings.get(key), str) and (why := pattern_fault(text)):
            raise _wrong(key, why, where)
    for key in ("rank_pattern", "alpha_pattern", "layers_pattern"):
        given = settings.get(key) or []
        if not isinstance(given, str | list | dict):
            raise _wrong(key, "is neither a mapping nor a list", where)
        for text in [given] if isinstance(given, str) else given:
            if why := pattern_fault(rf"(.*\.)?({text})"):
                raise _wrong(key, why, where)
    if targets is not None and not isinstance(targets, str | list):
        raise _wrong("target_modules", "is neither a list of names nor a text", where)
    if isinstance(targets, list) and not all(isinstance(one, str) for one in targets):
        raise _wrong("target_modules", "holds what is no name", where)
    if settings.get("peft_type") == "LORA":
        rank, alpha = settings.get("r", 8), settings.get("lora_alpha", 8)
        if type(rank) is not int or not 0 < rank <= MOST_RANK:
            raise _wrong("r", f"is {str(rank)[:40]}, and must be a positive whole number", where)
        if type(alpha) not in (int, float) or not math.isfinite(float(str(alpha))):
            raise _wrong("lora_alpha", f"is {str(alpha)[:40]}, and must be a number", where)
    base = settings.get("base_model_name_or_path")
    if base is not None and not isinstance(base, str):
        raise _wrong("base_model_name_or_path", "is no text", where)


def _wrong(key: str, what: str, where: str) -> ModelError:
    return ModelError(
        f"{key} {what}", where=where, remedy=f"mend it, or {AGAIN.rpartition(': ')[2]}"
    )


def check(file: Path) -> dict[str, Stored]:
    """The tensors of an adapter's file, if it is whole.

    Raises:
        ModelError: it is torn or empty, one half of a product is missing or does not go with the
            other, or a number is NaN or infinite.
    """
    held = safetensors_files.read_header(file)
    if not held:
        raise ModelError("holds no weights", where=str(file), remedy=AGAIN)
    for name, one in held.items():
        for first, second in PAIRS:
            other = None
            if first in name:
                other = name.replace(first, second)
            elif second in name:
                other = name.replace(second, first)
            if other is not None and other not in held:
                raise ModelError(f"is not whole: {other} is missing", where=str(file), remedy=AGAIN)
            if first in name and other is not None:
                _check_ranks(name, one.shape, held[other].shape, file)
    safetensors_files.check_finite(held, str(file), "the adapter's weights")
    return held


def _check_ranks(name: str, a: tuple[int, ...], b: tuple[int, ...], file: Path) -> None:
    """A is (rank, in) and B (out, rank)."""
    if len(a) == len(b) == 2 and a[0] != b[1]:
        raise ModelError(
            f"{name} has {a[0]} rows and its other half {b[1]} columns; both are the rank",
            where=str(file),
            remedy=AGAIN,
        )


def check_vocabulary(
    held: Mapping[str, Stored], rows: int, where: str, tokenizer: str = ""
) -> None:
    """Refuse an adapter that brings a vocabulary of another size than its base has.

    Args:
        held: its tensors.
        rows: of the base's embedding.
        where: for the message.
        tokenizer: the folder that holds the adapter's own; "" for none.

    Raises:
        ModelError: naming both sizes, with the lines that resize the base.
    """
    for name, one in held.items():
        found = VOCABULARY.search(name)
        if found is None or len(one.shape) != 2:
            continue
        there = one.shape[1] if name.endswith("lora_embedding_A") else one.shape[0]
        if there != rows:
            own = tokenizer or "the tokenizer that it was trained with"
            raise ModelError(
                f"was trained on a vocabulary of {there} rows ({found[1]}); the base has {rows}",
                where=where,
                remedy=f"resize the base as it was then: model.resize_token_embeddings({there}), "
                f"save the model and {own} in one folder, and name that as BASE",
            )


def check_places(held: Mapping[str, Stored], places: Collection[str], where: str) -> None:
    """Refuse an adapter of a deeper model: PEFT passes over layers that the base does not have.

    Args:
        held: its tensors.
        places: the names that there are on the base.
        where: for the message.

    Raises:
        ModelError: naming the first that has no place.
    """
    kinds = {DIGITS.sub(".#.", name) for name in places}
    for name in held:
        if name not in places and DIGITS.search(name) and DIGITS.sub(".#.", name) in kinds:
            raise ModelError(
                f"holds {name}, and the base has no such layer",
                where=where,
                remedy="name the base that it was trained on",
            )
