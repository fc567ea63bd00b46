"""Finds a model's config.json: in a folder, in the built-in catalogue, or on the hub.

`catalogue.json` holds the fields of each model's config.json that decide its size, so that planning
works offline and in milliseconds. It was written without access to the hub: the dimensions of each
entry are pinned by its parameter count, 32 of them by a list of published counts in the tests, the
others by counts written down with the entry. `max_position_embeddings` and `sliding_window` are
pinned by nothing: compare them with the page that `source` names when you touch an entry.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.environment import install_command
from holdfast.errors import ModelError
from holdfast.memory.model import gguf_folder, hub
from holdfast.types import LAB, LAB_FOLDER

CATALOGUE = Path(__file__).with_name("catalogue.json")
CONFIG = "config.json"
PLAIN = re.compile(r"(\w[\w.-]{0,95}/)?\w[\w.-]{0,95}")  # a name of the catalogue or the hub
Config = dict[str, Any]
"""Content of a config.json."""
GIVE_A_FOLDER = "or give a local folder that contains its config.json"


def read_config(model: str, revision: str | None = None) -> Config:
    """The content of a model's config.json, or of the catalogue those of its fields that matter.

    Raises:
        ModelError: see `locate`.
    """
    return locate(model, revision)[1]


def locate(model: str, revision: str | None = None) -> tuple[str, Config, str]:
    """Name, config and the config's source.

    Tried in this order: `lab`, a GGUF file that was written out, a local folder, the catalogue
    (whatever the revision: they share the architecture), the hub's local cache, the hub.

    Args:
        model: as the user wrote it; catalogue names in any case, with or without the owner.
        revision: of the hub's repository.

    Raises:
        ModelError: no such model, not reachable, or its config.json cannot be read.
    """
    if model == LAB:
        return LAB, _read(LAB_FOLDER), "built in"
    if gguf_folder.is_named(model):
        return model, _read_gguf(model, revision), model
    if not PLAIN.fullmatch(model):  # reading a shape by its name imports no study file
        from holdfast.config.places import check_place

        check_place(model, "the model")
    folder = Path(os.path.expanduser(model))
    if model.startswith((".", "/", "~")) or folder.is_dir():
        return model, _read(folder), str(folder / CONFIG)
    known = catalogue()
    if found := {name.lower(): name for name in reversed(known)}.get(model.lower()):
        return found, dict(known[found]), source(found)
    short = {name.rpartition("/")[2].lower(): name for name in reversed(known)}
    if found := short.get(model.lower()):
        return found, dict(known[found]), source(found)
    path = _download(model, revision, known)
    return model, _read(path.parent), source(model, revision)


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


def entries() -> list[Config]:
    """`catalogue.json`: id, parameters, config, and models of the same dimensions."""
    content: list[Config] = json.loads(CATALOGUE.read_text(encoding="utf-8"))
    return content


def nearest_names(model: str, names: Mapping[str, object] | None = None) -> list[str]:
    """Up to three names of the catalogue that look like this one."""
    by_short = {name.rpartition("/")[2].lower(): name for name in (names or catalogue())}
    wanted = model.rpartition("/")[2].lower()
    return [by_short[one] for one in difflib.get_close_matches(wanted, by_short, n=3, cutoff=0.5)]


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


def _download(model: str, revision: str | None, known: Mapping[str, object]) -> Path:
    """The hub's config.json, from the local cache where it is there."""
    close = nearest_names(model, known)
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
