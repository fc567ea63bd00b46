"""Finds a model's config.json: in a folder, in the built-in catalogue, or on the hub.

`catalogue.json` holds the fields of each model's config.json that decide its size, so that planning
works offline and in milliseconds. It was written without access to the hub: each entry says where
its figures were `seen` (a configuration stored in a public repository, a family's defaults in
transformers), and its parameter count is that of transformers' own class with these figures
(`benchmarks/catalogue.py` counts again). Entries without `seen` are pinned by published counts in
the tests. `max_position_embeddings` and `sliding_window` are pinned by nothing.

An entry may have models of the `same` dimensions, other `names`, and `parts`: the matrices of a
family whose layers are not counted from its fields, as the class has them.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from holdfast.environment import install_command
from holdfast.errors import ModelError
from holdfast.memory.model import gguf_folder, hub
from holdfast.memory.model.names import MIRRORS, Meant, Names
from holdfast.types import LAB, LAB_FOLDER

CATALOGUE = Path(__file__).with_name("catalogue.json")
CONFIG = "config.json"
PLAIN = re.compile(r"(\w[\w.-]{0,95}/)?\w[\w.-]{0,95}")  # a name of the catalogue or the hub
Config = dict[str, Any]
"""Content of a config.json."""
GIVE_A_FOLDER = "or give a local folder that contains its config.json"


@dataclass(frozen=True, slots=True)
class Found:
    """A model's config.json, and what else is known of it.

    Attributes:
        name: its hub id, or as the user wrote it.
        config: content of its config.json; of the catalogue those of its fields that matter.
        source: where that is from.
        parts: its matrices, where the catalogue lists them.
        note: what the reader should know.
        listed: it is one of the catalogue's, or built in: its class was asked when it was written.
    """

    name: str
    config: Config
    source: str
    parts: Config | None = None
    note: str = ""
    listed: bool = False


def read_config(model: str, revision: str | None = None) -> Config:
    """The content of a model's config.json, or of the catalogue those of its fields that matter.

    Raises:
        ModelError: see `locate`.
    """
    return locate(model, revision).config


def locate(model: str, revision: str | None = None) -> Found:
    """Name, config and the config's source.

    Tried in this order: `lab`, a GGUF file that was written out, a local folder, the catalogue
    (whatever the revision: they share the architecture), the hub's local cache, the catalogue under
    the names of mirrors and of people who type, the hub.

    Args:
        model: as the user wrote it; names of the catalogue in any case, with or without the owner,
            with other separators, or as a mirror has them (`unsloth/Qwen3-8B-bnb-4bit`).
        revision: of the hub's repository.

    Raises:
        ModelError: no such model, not reachable, or its config.json cannot be read.
    """
    model = model.strip() if model.strip() else model
    if model == LAB:
        return Found(LAB, _read(LAB_FOLDER), "built in", listed=True)
    if gguf_folder.is_named(model):
        return Found(model, _read_gguf(model, revision), model)
    meant = None
    if not PLAIN.fullmatch(model):  # reading a shape by its name imports no study file
        meant = _names().recognise(model)
        if meant is None:
            from holdfast.config.places import check_place

            check_place(model, "the model")
    folder = Path(os.path.expanduser(model))
    if model.startswith((".", "/", "~")) or folder.is_dir():
        return Found(model, _read(folder), str(folder / CONFIG), listed=folder == LAB_FOLDER)
    if exact := _names().exact(model):
        return _known(model, Meant(exact))
    mirror = model.rpartition("/")[0].lower() in MIRRORS
    if mirror and _is_cached(model, revision):
        return Found(model, _read(_download(model, revision).parent), source(model, revision))
    if meant := meant or _names().recognise(model):
        return _known(model, meant)
    if "/" not in model:
        _refuse_bare(model, revision)
    path = _download(model, revision)
    return Found(model, _read(path.parent), source(model, revision))


def _is_cached(model: str, revision: str | None) -> bool:
    there = importlib.util.find_spec("huggingface_hub") is not None
    return there and hub.is_cached(model, revision)


def _known(model: str, meant: Meant) -> Found:
    """What the catalogue has of a model; a base in few bits keeps the name that was given."""
    name = model if meant.stored else meant.id
    other = "/" in model and model.lower() != meant.id.lower()
    told = [f"{model} is taken for {meant.id}"] if other else []
    note = "; ".join(filter(None, [*told, meant.note]))
    config = copy.deepcopy(catalogue()[meant.id])
    if meant.stored:
        config["quantization_config"] = dict(meant.stored)
    return Found(name, config, source(meant.id), _parts().get(meant.id), note, True)


def _refuse_bare(model: str, revision: str | None) -> None:
    """Refuse a name without an owner at once: such names on the hub are few, and old."""
    close = nearest_names(model)
    if not close or _is_cached(model, revision):
        return
    raise ModelError(
        "is not in the catalogue",
        where=model,
        remedy=f"did you mean {' or '.join(close)}? Otherwise give its hub id (owner/model), "
        f"{GIVE_A_FOLDER}",
    )


def source(name: str, revision: str | None = None) -> str:
    """Where a hub model's config.json is published."""
    return f"https://huggingface.co/{name}/blob/{revision or 'main'}/{CONFIG}"


def catalogue() -> dict[str, Config]:
    """The built-in configs by hub id."""
    found: dict[str, Config] = {}
    for entry in entries():
        found[entry["id"]] = entry["config"]
        for name, changes in entry.get("same", {}).items():
            found[name] = {**entry["config"], **changes}
    return found


@cache
def entries() -> list[Config]:
    """`catalogue.json`: id, parameters, config, and models of the same dimensions."""
    content: list[Config] = json.loads(CATALOGUE.read_text(encoding="utf-8"))
    return content


@cache
def _names() -> Names:
    """The names of the catalogue."""
    read = entries()
    alike = {entry["id"]: (entry["id"], *entry.get("same", {})) for entry in read}
    also = {name: one for entry in read for name, one in entry.get("names", {}).items()}
    return Names(alike, also)


@cache
def _parts() -> dict[str, Config]:
    """The listed matrices by hub id."""
    found: dict[str, Config] = {}
    for entry in entries():
        if parts := entry.get("parts"):
            listed = {**parts, "total": entry["parameters"]}
            found |= dict.fromkeys((entry["id"], *entry.get("same", {})), listed)
    return found


def nearest_names(model: str) -> list[str]:
    """Up to three names of the catalogue that look like this one."""
    return _names().near(model)


def _read_gguf(model: str, revision: str | None) -> Config:
    """The config.json of the folder that a GGUF file was written out to."""
    folder = gguf_folder.folder_of(model, revision)
    if folder is None:
        raise ModelError(
            "its weights were not written out yet, so its shape is not known",
            where=model,
            remedy="check the path; `holdfast run STUDY --dry-run` writes them out",
        )
    return _read(folder)


def _read(folder: Path) -> Config:
    """The config.json of a folder."""
    path = folder / CONFIG
    if not folder.is_dir():
        raise ModelError("no such folder", where=str(folder), remedy="check the path of the model")
    if not path.is_file():
        remedy = "save the model with `model.save_pretrained(folder)`"
        if (folder / "adapter_config.json").is_file():
            remedy = "this is an adapter: merge it into its base first, or name the base model"
        raise ModelError("has no config.json", where=str(folder), remedy=remedy)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"cannot be read: {error}", where=str(path), remedy="save or download it again"
        ) from error
    if not isinstance(content, dict):
        raise ModelError("is not a JSON object", where=str(path), remedy="download it again")
    return content


def _download(model: str, revision: str | None) -> Path:
    """The hub's config.json, from the local cache where it is there."""
    close = nearest_names(model)
    meant = f"did you mean {' or '.join(close)}? Otherwise " if close else ""
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise ModelError(
            "is not in the catalogue, and huggingface_hub is not installed to look further",
            where=model,
            remedy=f"{meant}{install_command('train', 'transformers')}, {GIVE_A_FOLDER}",
        ) from error
    # the bases are OSError and the HTTP client's own root, whichever client this version uses
    failures: Any = (ValueError, *HfHubHTTPError.__bases__)
    try:
        hub.require(model, revision, CONFIG, meant)
        return Path(hf_hub_download(model, CONFIG, revision=revision))
    except ModelError as error:
        why, remedy = error.message, error.remedy
    except failures as error:
        first = (str(error).strip().splitlines() or [""])[0]
        why, remedy = f"{type(error).__name__} {first}".strip(), f"{meant}check the name, go online"
    raise ModelError(
        f"is not in the catalogue, and the hub did not give its config.json: {why}",
        where=model,
        remedy=f"{remedy}, {GIVE_A_FOLDER}",
    )
