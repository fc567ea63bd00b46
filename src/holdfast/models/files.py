"""Checks what lies in a model's folder, and hashes large files by samples. Needs no torch."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.config.places import text_of
from holdfast.errors import RELATIVE, ModelError
from holdfast.memory.model.hub import near_folder
from holdfast.models import safetensors_files
from holdfast.models.json_files import AGAIN, LFS, PULL, read_object

SAMPLE_BYTES = 1 << 20
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")
OBJECTS = (
    "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json",
)  # fmt: skip
"""Beside config.json: read by transformers where they are there, and JSON objects all."""
BINARY = ("tokenizer.model", "spiece.model")
HASHED = {".json", ".safetensors", ".jinja", ".model", ".txt"}
"""Endings of the files that make a model what it is."""
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
WHOLE = ("hidden_size", "n_embd", "d_model", "num_hidden_layers", "n_layer", "vocab_size")
"""Fields of config.json that are positive whole numbers wherever they stand."""
LABELS = "num_labels"
"""A list of so many names is made of it, whatever the model."""
MOST_LABELS = 100_000
MOST = 10**8
"""No size of a model comes near; above it, building its skeleton alone takes hours."""
MOST_LAYERS = 10_000
SAVED = "save the model with `model.save_pretrained(folder)`, or download the file again"
CONVERT = (
    "convert them once, where you trust them: `AutoModelForCausalLM.from_pretrained(folder)"
    ".save_pretrained(folder)` writes safetensors"
)


def check_folder(folder: Path, chats: bool = True) -> None:
    """Refuse a model folder that cannot be used.

    Args:
        folder: of the model.
        chats: it is asked through its chat template.

    Raises:
        ModelError: naming the file that is missing or damaged, and where it comes from.
    """
    where = str(folder)
    try:
        if not folder.is_dir():
            near = near_folder(folder)
            raise ModelError(
                "no such folder" + (f"; did you mean {near}?" if near else ""),
                where=where,
                remedy=f"check the path; {RELATIVE}",
            )
        _check_kinds(folder)
        _check_is_model(folder)
        check_config(folder)
        _check_tokenizer(folder)
        _check_weights(folder)
    except OSError as error:
        raise ModelError(
            f"cannot be read: {error.strerror or error}", where=where, remedy="mend its permissions"
        ) from error
    if chats:
        check_template(folder)


def check_template(folder: Path) -> None:
    """Refuse a model that has no chat template of its own.

    Raises:
        ModelError: it has none.
    """
    if not _has_template(folder):
        raise ModelError(
            "its tokenizer has no chat template, so it is unclear how a conversation looks to it",
            where=str(folder),
            remedy="use the instruction-tuned model, or give a template in model.chat_template",
        )


def _check_kinds(folder: Path) -> None:
    """Refuse links that lead nowhere, and pipes, which would be waited for without end."""
    for path in sorted(folder.iterdir()):
        if path.suffix not in HASHED and path.name not in BINARY:
            continue
        try:
            mode = path.stat().st_mode
        except (OSError, RuntimeError) as error:
            raise ModelError(
                "is a link that leads nowhere, or in a circle",
                where=str(path),
                remedy="put the file itself there",
            ) from error
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise ModelError(
                "is no regular file (a pipe, a socket or a device)",
                where=str(path),
                remedy="put the file itself there",
            )


def _check_is_model(folder: Path) -> None:
    """Tell a model from an adapter, and from what other programs make of a model."""
    where, config = str(folder), (folder / "config.json").is_file()
    if (folder / "adapter_config.json").is_file():
        if config and any(folder.glob("model*.safetensors")):
            raise ModelError(  # transformers would load the adapter's base, and not these weights
                "holds a whole model and an adapter (adapter_config.json), so it is unclear which "
                "is meant",
                where=where,
                remedy="put the adapter's files into a folder of their own",
            )
        raise ModelError(
            "has no config.json: this is an adapter"
            if not config
            else "has no weights of a whole model: this is an adapter",
            where=where,
            remedy="merge it into its base first, or name the base model; `holdfast compare BASE "
            "ADAPTER` measures it as it is",
        )
    if config:
        return
    gguf = sorted(folder.glob("*.gguf"))
    if gguf:
        raise ModelError(
            f"has no config.json, only GGUF ({gguf[0].name})",
            where=where,
            remedy=f"name the file itself: {where}/{gguf[0].name}",
        )
    raise ModelError("has no config.json", where=where, remedy=SAVED + _inside(folder))


def _inside(folder: Path) -> str:
    """Where the model may be, if it is one folder further down."""
    found = sorted(one.parent.name for one in folder.glob("*/config.json"))
    return f"; {', '.join(found[:3])} in it looks like a model" if found else ""


def check_config(folder: Path) -> dict[str, Any]:
    """The content of a model's config.json.

    Raises:
        ModelError: it is no JSON object, does not say what kind of model it is, or a size in it is
            none.
    """
    path = folder / "config.json"
    config = read_object(path)
    kind = config.get("model_type")
    if not isinstance(kind, str) or not kind:
        raise ModelError(
            "does not say what kind of model it is (model_type)"
            if kind is None
            else f"its model_type is {json.dumps(kind)[:60]}, and must be a name",
            where=str(path),
            remedy=SAVED,
        )
    inner = config.get("text_config")
    for part in (config, inner if isinstance(inner, Mapping) else {}):
        for name in (*WHOLE, LABELS):
            if (value := part.get(name)) is not None and not _is_size(value, name):
                raise ModelError(
                    f"{name} is {json.dumps(value)[:60]}, and must be a positive whole number",
                    where=str(path),
                    remedy=SAVED,
                )
    return config


def _is_size(value: object, name: str) -> bool:
    most = MOST_LABELS if name == LABELS else MOST_LAYERS if "layer" in name else MOST
    if isinstance(value, list):  # some kinds have a size for every layer
        return bool(value) and all(_is_size(one, name) for one in value)
    return type(value) is int and 0 < value <= most


def _check_tokenizer(folder: Path) -> None:
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise ModelError(
            "has no tokenizer",
            where=str(folder),
            remedy="add it: `tokenizer.save_pretrained(folder)`",
        )
    for name in OBJECTS:
        if (folder / name).is_file():
            content = read_object(folder / name)
            _check_fields(content, folder / name)
            if name == "tokenizer.json" and not isinstance(content.get("model"), Mapping):
                raise ModelError(
                    "holds no vocabulary (model)", where=str(folder / name), remedy=AGAIN
                )
    for name in BINARY:
        if (folder / name).is_file():
            with (folder / name).open("rb") as file:
                start = file.read(len(LFS))
            if start == LFS:
                raise ModelError("is a git-lfs pointer", where=str(folder / name), remedy=PULL)
            if not start:
                raise ModelError("is empty", where=str(folder / name), remedy=AGAIN)
    template = folder / "chat_template.jinja"
    if template.is_file():
        try:
            text_of(template)
        except UnicodeDecodeError as error:
            raise ModelError("is not UTF-8 text", where=str(template), remedy=AGAIN) from error


def _check_fields(content: Mapping[str, Any], path: Path) -> None:
    """Refuse fields of a kind that would only be stumbled over once the model answers."""
    template, longest = content.get("chat_template"), content.get("model_max_length", 1)
    ends = content.get("eos_token_id") if path.name == "generation_config.json" else None
    several = ends if isinstance(ends, list) else [] if ends is None else [ends]
    wrong = {
        "chat_template": not isinstance(template, str | list | dict | None),
        "model_max_length": type(longest) not in (int, float) or not longest > 0,
        "eos_token_id": not all(type(one) is int and 0 <= one < MOST for one in several),
    }
    for name, is_wrong in wrong.items():
        if is_wrong:
            raise ModelError(
                f"its {name} is {json.dumps(content[name])[:60]}, which no tokenizer or model has",
                where=str(path),
                remedy=AGAIN,
            )


def _check_weights(folder: Path) -> None:
    if not any(folder.glob("*.safetensors*")):
        where = str(folder)
        pickled = [one for pattern in PICKLES for one in sorted(folder.glob(pattern))]
        if pickled:
            raise ModelError(
                f"its weights are pickled ({pickled[0].name}), which can run code when loaded",
                where=where,
                remedy=CONVERT,
            )
        gguf = sorted(folder.glob("*.gguf"))
        raise ModelError(
            f"has no weights (*.safetensors), only GGUF ({gguf[0].name})"
            if gguf
            else "has no weights (*.safetensors)",
            where=where,
            remedy=f"name the file itself: {where}/{gguf[0].name}" if gguf else "download them",
        )
    safetensors_files.tensors_of(folder)


def checkpoint_in(folder: Path) -> Path | None:
    """The last usable checkpoint of a training folder or run folder; None: it is neither.

    Args:
        folder: that holds no model itself.
    """
    levels = ("", "*/", "*/*/", "train/*/*/", "train/*/*/*/")  # train/ARM/SEED[/STAGE]/checkpoint-N
    found = [one for at in levels for one in folder.glob(f"{at}checkpoint-*") if _usable(one)]
    return max(found, key=_place, default=None)


def _place(checkpoint: Path) -> tuple[int, int]:
    """Number of the stage, where tasks are learned one after the other (``2-code``), and step."""
    number = checkpoint.parent.name.partition("-")[0]
    step = int(checkpoint.name.rpartition("-")[2])
    return int(number) if number.isdecimal() else 0, step


def _usable(checkpoint: Path) -> bool:
    if not checkpoint.name.rpartition("-")[2].isdecimal():
        return False
    return any((checkpoint / name).is_file() for name in ("config.json", "adapter_config.json"))


def _has_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file():
        return True
    config = folder / "tokenizer_config.json"
    return config.is_file() and bool(read_object(config).get("chat_template"))


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
