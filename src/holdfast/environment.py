"""On what does it run: versions, device, machine?

Recorded beside the results and shown in the report; never part of a stage's identity. Reads package
metadata only, so it is fast and needs no torch until the device is asked for.
"""

from __future__ import annotations

import importlib.util
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = (
    "torch", "transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes", "tokenizers",
)  # fmt: skip


def versions() -> dict[str, str | None]:
    """Installed version of each package that bears on the results; None where it is missing."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in ("holdfast", *PACKAGES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def devices() -> list[str]:
    """The GPUs that torch sees, with their memory in GiB; empty without torch or GPU."""
    if importlib.util.find_spec("torch") is None:
        return []
    import torch

    found = []
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        found.append(f"{about.name}, {about.total_memory / 2**30:.0f} GiB")
    return found


def describe() -> dict[str, Any]:
    """Everything worth recording of this machine; no user name, no host name, no paths."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "platform": f"{platform.system()} {platform.machine()}",
        "devices": devices() or ["CPU"],
        "versions": versions(),
    }
