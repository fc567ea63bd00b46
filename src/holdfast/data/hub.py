"""Fetches a data set from the hub; no code of the set is ever run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from holdfast.data.containers import suffix_kind
from holdfast.environment import install_command
from holdfast.errors import DataError, MissingDependency, printable
from holdfast.memory.model import hub


def table(name: str, config: str | None, split: str, revision: str | None, remedy: str = "") -> Any:
    """One split as a table of Arrow's; `arrow_rows.table_rows` reads it.

    Args:
        name: owner/name.
        config: which of its configurations; None: its default.
        split: as the set calls it.
        revision: branch, tag or commit.
        remedy: what else would do, for messages.

    Raises:
        DataError: it cannot be had: no such set, split or configuration, no connection, no licence.
        MissingDependency: `datasets` is not installed.
    """
    else_ = remedy or "give a local file instead: path"
    if suffix_kind(Path(name)) or Path(name).exists():
        raise DataError(
            "is a file or folder, no set on the hub",
            where=printable(name),
            remedy="write `path` instead of `hub`",
        )
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise MissingDependency(
            "reading a hub dataset needs `datasets`",
            where=name,
            remedy=f"{install_command('train', 'datasets')}, or {else_}",
        ) from error
    why = "" if hub.asked_offline() else hub.down()  # if so, the cache alone is looked at
    try:
        data: Any = load_dataset(name, config, split=split, revision=revision)
        return data.with_format("arrow").data.table
    except Exception as error:  # the hub client raises many types, all meaning "not to be had"
        said = [why] if why else str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"cannot be loaded from the hub: {printable(said[0])}",
            where=f"{name}, split {split}",
            remedy=f"check name, config, split and the connection{_settings()}; or {else_}",
        ) from error


def _settings() -> str:
    """The variables that decide how the hub is reached."""
    offline = hub.asked_offline()
    mirror = printable(os.environ.get("HF_ENDPOINT", ""))
    return (
        f"; HF_ENDPOINT names a mirror{f' (now {mirror})' if mirror else ''}; HF_HUB_OFFLINE=1 "
        f"{'is set: it' if offline else 'is for work offline: it'} finds only what was downloaded "
        "before"
    )
