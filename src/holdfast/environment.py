"""Says what a run stands on: versions, devices, machine, and how to install what is missing.

Recorded beside the results and shown in the report; never part of a stage's identity. Reads package
metadata only, so it is fast and needs no torch until the device is asked for.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shlex
import sys
import time
from pathlib import Path
from typing import TypedDict

PACKAGES = (
    "torch", "transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes", "tokenizers",
)  # fmt: skip


CACHE = "HOLDFAST_CACHE"
"""Names the folder of everything that can be made again, instead of ``~/.cache/holdfast``."""


def cache_folder(kind: str) -> Path:
    """Where what can be made again is kept.

    Args:
        kind: ``models``, ``traces``.
    """
    own, root = os.environ.get(CACHE), os.environ.get("XDG_CACHE_HOME")
    place = Path(own) if own else Path(root or Path.home() / ".cache") / "holdfast"
    return place.expanduser().absolute() / kind


def version(name: str) -> str:
    """The installed version of a package; see `importlib.metadata`, which is slow to import."""
    from importlib import metadata

    return metadata.version(name)


def requires(name: str) -> list[str] | None:
    """What an installed package requires; see `importlib.metadata`."""
    from importlib import metadata

    return metadata.requires(name)


class Environment(TypedDict):
    """What is recorded of a machine: no user name, no host name, no paths.

    Attributes:
        time: in UTC.
        platform: operating system and processor.
        devices: the GPUs, or the CPU.
        versions: see `versions`.
    """

    time: str
    platform: str
    devices: list[str]
    versions: dict[str, str | None]


def versions() -> dict[str, str | None]:
    """Installed version of each package that bears on the results; None where it is missing."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in ("holdfast", *PACKAGES):
        try:
            found[name] = version(name)
        except ModuleNotFoundError:
            found[name] = None
    return found


def devices() -> list[str]:
    """The GPUs that torch sees, with memory in GiB; empty without torch or GPU."""
    if importlib.util.find_spec("torch") is None:
        return []
    import torch

    found = []
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        found.append(f"{about.name}, {about.total_memory / 2**30:.0f} GiB")
    return found


def describe() -> Environment:
    """Everything worth recording of this machine."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "platform": f"{platform.system()} {platform.machine()}",
        "devices": devices() or ["CPU"],
        "versions": versions(),
    }


def install_command(extra: str, *only: str) -> str:
    """The command that installs what an extra of Holdfast needs, into this interpreter.

    It names the packages themselves, with the versions that were tested, so that it works whether
    Holdfast came from a checkout or from a wheel.

    Args:
        extra: ``train``, ``remote``, ``gguf``, ``lm-eval``, ``ray``, ``pandas`` or ``notebook``.
        only: names of some of its packages; none: all of them.
    """
    try:
        lines = requires("holdfast") or []
    except ModuleNotFoundError:  # the sources were put on the path by hand
        lines = []
    wanted = []
    for line in lines:
        requirement, _, marker = (part.strip() for part in line.partition(";"))
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        of_it = re.search(rf"extra\s*==\s*['\"]{re.escape(extra)}['\"]", marker)
        if of_it and (not only or _plain(name) in map(_plain, only)):
            wanted.append(requirement)
    words = [sys.executable, "-m", "pip", "install", *(wanted or only)]
    return shlex.join(words)


def _plain(name: str) -> str:
    """A package's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()
