"""Bases that are published in few bits: how their weights lie, and what can be done with them.

bitsandbytes' layers are trained on, and measured, as they are. MXFP4 (gpt-oss) and FP8 weights are
written out in 16 bits when they are loaded. AWQ and GPTQ need packages and a GPU; of the rest PEFT
0.21 or transformers 5.23 cannot train any. Read from config.json alone; needs no torch.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from holdfast.environment import install_command
from holdfast.errors import MissingDependency, ModelError
from holdfast.types import LAB, LAB_FOLDER

BNB4, BNB8 = "bitsandbytes 4-bit", "bitsandbytes 8-bit"
EXPANDED: Mapping[str, str] = {"mxfp4": "Mxfp4Config", "fp8": "FineGrainedFP8Config"}
"""Kinds that are written out in 16 bits when loaded, and transformers' settings for that."""
PACKAGES: Mapping[str, tuple[str, ...]] = {
    BNB4: ("bitsandbytes",), BNB8: ("bitsandbytes",),
    "awq": ("gptqmodel",), "gptq": ("gptqmodel", "optimum"),
}  # fmt: skip
"""Kinds on which adapters can be trained as they lie, and what reads them."""
UNQUANTISED = "name the base as it was published in 16 bits"


@dataclass(frozen=True, slots=True)
class Stored:
    """How a base's weights lie in its files.

    Attributes:
        kind: `bitsandbytes 4-bit`, `bitsandbytes 8-bit`, or the `quant_method` of its config.
        bits: of one weight of a matrix once it is loaded.
        nested: the scales of 4-bit blocks are in 8 bits themselves.
    """

    kind: str
    bits: int
    nested: bool = True

    @property
    def expands(self) -> bool:
        """Whether the weights are written out in 16 bits when they are loaded."""
        return self.kind in EXPANDED


def stored(config: Mapping[str, object]) -> Stored | None:
    """How the weights of a model with this config.json lie; None: in 16 bits or more."""
    text = config.get("text_config")
    inner = text.get("quantization_config") if isinstance(text, Mapping) else None
    given = config.get("quantization_config") or inner
    if not isinstance(given, Mapping):
        return None
    method = str(given.get("quant_method") or "").lower()
    if given.get("load_in_4bit") or given.get("_load_in_4bit"):
        return Stored(BNB4, 4, bool(given.get("bnb_4bit_use_double_quant")))
    if given.get("load_in_8bit") or given.get("_load_in_8bit"):
        return Stored(BNB8, 8)
    if method in EXPANDED:
        return Stored(method, 16)
    bits = given.get("bits") or given.get("w_bit")
    return Stored(method or "unknown", bits if isinstance(bits, int) else 8)


def stored_in(base: str, revision: str | None = None) -> Stored | None:
    """How a model's weights lie; None also where its config.json is not on this machine yet."""
    try:
        path = _config(base, revision)
        content = json.loads(path.read_text(encoding="utf-8")) if path else None
    except (ImportError, OSError, ValueError, RecursionError):
        return None  # whoever loads it says what is wrong
    return stored(content) if isinstance(content, Mapping) else None


def check(
    held: Stored | None, method: str, where: str, device: str = "auto", here: bool = True
) -> list[str]:
    """Check that a base can be trained as it is stored.

    Args:
        held: see `stored`.
        method: `train.method`.
        where: the model, for messages.
        device: `auto`, `cpu` or `cuda`.
        here: it is to be trained on this machine, so its packages must be there.

    Returns:
        What a reader of the figures must know.

    Raises:
        ModelError: it cannot; naming why, and what can.
        MissingDependency: a package that reads it is missing.
    """
    if held is None:
        return []
    if held.expands:
        if method == "qlora":
            raise _refused(held, "is not made into NF4", where, "set train.method: lora, or ")
        return [f"{where} is stored in {held.kind}; its weights are written out in 16 bits, for "
                "training and for measuring"]  # fmt: skip
    if held.kind not in PACKAGES:
        raise _refused(held, "cannot be trained with adapters by PEFT", where)
    if method == "full":
        raise _refused(held, "has no weights that could be trained", where,
                       "set train.method: qlora, or ")  # fmt: skip
    if held.kind == BNB8 and method == "qlora":
        raise _refused(held, "is not made into NF4", where, "set train.method: lora, or ")
    for package in PACKAGES[held.kind]:
        if here and importlib.util.find_spec(package) is None:
            raise MissingDependency(
                f"is stored in {held.kind}, which needs {package}",
                where=where,
                remedy=f"{install_command('train', package)}; or {UNQUANTISED}",
            )
    if held.kind in ("awq", "gptq") and device == "cpu":
        raise _refused(held, "needs a GPU", where)
    if held.kind == BNB4:
        return []
    needs = "" if here else f" ({' and '.join(PACKAGES[held.kind])} must be installed)"
    return [f"{where} is stored in {held.kind}; it is trained and measured in {held.bits} "
            f"bits{needs}"]  # fmt: skip


def method_for(held: Stored | None, method: str) -> str:
    """The method that a study means: adapters on a 4-bit base are QLoRA, whatever it says."""
    four = held is not None and held.kind == BNB4
    return "qlora" if four and method in ("lora", "auto") else method


def _refused(held: Stored, why: str, where: str, first: str = "") -> ModelError:
    return ModelError(f"is stored in {held.kind}, which {why}", where=where,
                      remedy=f"{first}{UNQUANTISED}")  # fmt: skip


def _config(base: str, revision: str | None) -> Path | None:
    """A model's config.json on this machine; None: it is not here."""
    folder = LAB_FOLDER if base == LAB else Path(base).expanduser()
    if folder.is_dir():
        file = folder / "config.json"
        return file if file.is_file() else None
    if base.count("/") > 1 or base.startswith((".", "/", "~")):
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(base, "config.json", revision=revision)
    return Path(found) if isinstance(found, str) else None
