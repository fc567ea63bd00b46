"""Takes relative paths in a study from the folder of the file that names them.

What names a place is told by its key (`PLACES`, ``*_path``), or by its form (``file.py:Class``),
since the options of a plug-in are read later by the plug-in itself.
"""

from __future__ import annotations

import errno
import stat
from pathlib import Path

from holdfast.config.model import LAB
from holdfast.errors import RELATIVE, StudyError
from holdfast.registry import in_folder, names_file

PLACES = ("path", "cache", "vllm")
"""Options that always name a file or folder; so do those that end in ``_path``."""
MODELS = ("model", "id", "base", "teacher", "unaligned")
"""Options that name a hub id, a folder, or a GGUF file: where they begin with ``.``, ``/`` or
``~``, or where there is a folder or such a file of that name."""
FREE = ("columns", "extra", "overrides", "sampling", "template_kwargs")
"""Mappings whose keys are somebody else's."""
LONGEST_PATH, LONGEST_PART = 4096, 255
MOST_BYTES = 4_000_000
"""Of a text that a study names: a template, a prompt."""


def anchored(value: object, folder: Path, key: str = "") -> object:
    """The same with absolute paths.

    Args:
        value: a part of a study as YAML gives it.
        folder: from which relative paths are taken.
        key: under which the value stands.
    """
    if isinstance(value, dict):
        remote = "url" in value  # then `model` is the server's name for it
        return {
            anchored(name, folder): inner
            if name in FREE or (remote and name == "model")
            else anchored(inner, folder, name if isinstance(name, str) else "")
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [anchored(inner, folder, key) for inner in value]
    if isinstance(value, str | Path) and str(value):
        return _anchored(str(value), folder, key)
    return value


def text_of(file: Path, most: int = MOST_BYTES) -> str:
    """The UTF-8 text of a file; nothing is waited for, and nothing endless is read.

    Args:
        file: whose text is wanted.
        most: bytes that it may have.

    Raises:
        OSError: it is not there, is no regular file (a pipe, a device), or is too large.
        UnicodeDecodeError: it is no UTF-8.
    """
    if not stat.S_ISREG(file.stat().st_mode):
        raise OSError(errno.EINVAL, "no regular file (a folder, a pipe or a device)")
    with file.open("rb") as stream:
        raw = stream.read(most + 1)
    if len(raw) > most:
        raise OSError(errno.EFBIG, f"has more than {most:,} bytes")
    return raw.decode("utf-8")


def _anchored(text: str, folder: Path, key: str) -> str:
    if names_file(text):
        check_place(text, key)
        return in_folder(text, folder)
    a_model = key in MODELS and text != LAB
    if not (a_model or key in PLACES or key == "task" or key.endswith(("_path", "_template"))):
        return text
    a_text = key == "chat_template" and "{" in text
    if a_text or "://" in text:
        return text
    check_place(text, key)
    try:
        place = folder / Path(text).expanduser()
    except RuntimeError as error:
        raise StudyError(
            f"{key}: {text!r} begins with the home folder of somebody who is not known here",
            remedy="write the whole path",
        ) from error
    a_template = key == "chat_template" and "{" not in text
    a_task_file = key == "task" and text.endswith((".yaml", ".yml"))
    if (
        key in PLACES
        or key.endswith("_path")
        or a_task_file
        or a_template
        or (a_model and (text.startswith((".", "/", "~")) or _is_model(place)))
    ):
        return str(place)
    return text


def _is_model(place: Path) -> bool:
    return place.is_dir() or (place.suffix.lower() == ".gguf" and place.is_file())


def check_place(text: str, key: str) -> None:
    """Refuse what no file system and no hub takes for a name.

    Raises:
        StudyError: control characters, or too long.
    """
    why = ""
    if not text.isprintable():
        why = "holds characters that cannot be printed"
    elif len(text.encode()) > LONGEST_PATH:
        why = f"is longer than {LONGEST_PATH} bytes"
    elif any(len(part.encode()) > LONGEST_PART for part in text.split("/")):
        why = f"has a part of more than {LONGEST_PART} bytes"
    if why:
        shown = repr(text) if len(text) < 60 else repr(text[:56])[:-1] + "...'"
        raise StudyError(f"{key or 'a path'}: {shown} {why}", remedy=RELATIVE)
