"""Checks what lies in a model's folder, and hashes large files by samples. Needs no torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from holdfast.errors import RELATIVE, ModelError

SAMPLE_BYTES = 1 << 20
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")


def check_folder(folder: Path, chats: bool = True) -> None:
    """Refuse a model folder that cannot be used.

    Args:
        folder: of the model.
        chats: it is asked through its chat template.

    Raises:
        ModelError: naming the missing file and where it comes from.
    """
    where = str(folder)
    if not folder.is_dir():
        raise ModelError("no such folder", where=where, remedy=f"check the path; {RELATIVE}")
    if not (folder / "config.json").is_file():
        remedy = "save the model with `model.save_pretrained(folder)`"
        if (folder / "adapter_config.json").is_file():
            remedy = "this is an adapter: merge it into its base first, or name the base model"
        raise ModelError("has no config.json", where=where, remedy=remedy)
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise ModelError(
            "has no tokenizer", where=where, remedy="add it: `tokenizer.save_pretrained(folder)`"
        )
    if not list(folder.glob("*.safetensors")):
        pickled = [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]
        if pickled:
            raise ModelError(
                f"its weights are pickled ({pickled[0].name}), which can run code when loaded",
                where=where,
                remedy="convert them once: `AutoModelForCausalLM.from_pretrained(folder)"
                ".save_pretrained(folder)` writes safetensors",
            )
        raise ModelError("has no weights (*.safetensors)", where=where, remedy="download them")
    if chats and not _has_template(folder):
        raise ModelError(
            "its tokenizer has no chat template, so it is unclear how a conversation looks to it",
            where=where,
            remedy="use the instruction-tuned model, or give a template in model.chat_template",
        )


def checkpoint_in(folder: Path) -> Path | None:
    """The last usable checkpoint of a training folder or run folder; None: it is neither.

    Args:
        folder: that holds no model itself.
    """
    levels = ("", "*/", "*/*/", "train/*/*/")  # a run's are train/ARM/SEED/checkpoint-N
    found = [one for at in levels for one in folder.glob(f"{at}checkpoint-*") if _usable(one)]
    return max(found, key=lambda one: int(one.name.rpartition("-")[2]), default=None)


def _usable(checkpoint: Path) -> bool:
    if not checkpoint.name.rpartition("-")[2].isdecimal():
        return False
    return any((checkpoint / name).is_file() for name in ("config.json", "adapter_config.json"))


def _has_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file():
        return True
    config = folder / "tokenizer_config.json"
    try:
        return bool(json.loads(config.read_text(encoding="utf-8")).get("chat_template"))
    except (OSError, json.JSONDecodeError):
        return False


def sampled_hash(path: Path) -> bytes:
    """A hash of a file's size and of 64 megabytes of it; of all of it where it is smaller."""
    digest = hashlib.sha256()
    size = path.stat().st_size
    digest.update(str(size).encode())
    with path.open("rb") as file:
        if size <= 64 * SAMPLE_BYTES:
            digest.update(file.read())
        else:
            for place in range(64):
                file.seek((size - SAMPLE_BYTES) * place // 63)
                digest.update(file.read(SAMPLE_BYTES))
    return digest.digest()
