"""Finds vLLM, here or in an environment of its own, and refuses versions that are not spoken to.

vLLM pins versions of torch and transformers that Holdfast does not, so it mostly has an environment
of its own, which `hardware.vllm` names. Its version is read from its package's metadata, because
importing it takes many seconds.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from holdfast import environment
from holdfast.errors import MissingDependency

OLDEST, BEYOND = (0, 32), (1, 0)
"""Versions that are taken: from the first on, below the second."""
TRIED = "0.32.0"
RANGE = f"{'.'.join(map(str, OLDEST))} or newer, below {BEYOND[0]}"
MODULE = "vllm.entrypoints.cli.main"
WHERE = "hardware.vllm"
REMEDY = (
    f"python -m venv vllm && vllm/bin/pip install vllm=={TRIED}, then write `hardware: {{vllm: "
    "vllm/bin/python}`; or let the models answer here: `engine: hf`"
)
ASKED = "from importlib import metadata; print(metadata.version('vllm'))"
QUICK_S, SLOW_S = 30.0, 300.0
"""Longest wait for the version: from metadata, and from the program itself."""
NOT_ITS_OWN = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "PYTHONWARNINGS")
"""Variables of this process's environment that would have another Python import what is here."""


@dataclass(frozen=True, slots=True)
class Program:
    """A vLLM that can be started.

    Attributes:
        words: what its command line begins with, before ``serve``.
        version: as its package says.
    """

    words: tuple[str, ...]
    version: str

    @property
    def untried(self) -> bool:
        """Whether it is newer than what was tried."""
        return _numbers(self.version) > _numbers(TRIED)[:2]


def environment_of_its_own() -> dict[str, str]:
    """This process's environment, without what would lead another Python to packages here."""
    return {name: value for name, value in os.environ.items() if name not in NOT_ITS_OWN}


def find(named: str | None) -> Program:
    """The vLLM that is used.

    Args:
        named: a Python that has it, or the program ``vllm``; None: that of this environment.

    Raises:
        MissingDependency: there is none, it does not say its version, or that is not taken.
    """
    if named is None:
        try:
            found = Program((sys.executable, "-m", MODULE), environment.version("vllm"))
        except ModuleNotFoundError:
            raise MissingDependency(
                "`engine: vllm` needs vLLM, which this environment does not have",
                where=WHERE,
                remedy=REMEDY,
            ) from None
        return _taken(found, WHERE)
    path = Path(named).expanduser()
    where = f"{WHERE}: {named}"
    if not path.is_file() or not os.access(path, os.X_OK):
        raise MissingDependency(
            "is no program: name a Python that has vLLM, or the program `vllm`",
            where=where,
            remedy=REMEDY,
        )
    words: tuple[str, ...] = (str(path),)
    if path.name.startswith("python"):
        words = (str(path), "-m", MODULE)
    return _taken(Program(words, _version(str(path), path.stat().st_mtime_ns)), where)


def _taken(found: Program, where: str) -> Program:
    """Refuse a version that is not spoken to."""
    if not found.version:
        raise MissingDependency(
            "has no vLLM, or one that does not say its version", where=where, remedy=REMEDY
        )
    if not OLDEST <= _numbers(found.version)[:2] < BEYOND:
        raise MissingDependency(
            f"is vLLM {found.version}, and Holdfast speaks to {RANGE} (tried: {TRIED})",
            where=where,
            remedy=REMEDY,
        )
    return found


@lru_cache(maxsize=16)
def _version(path: str, changed_ns: int) -> str:
    """The version that a program says; "": none.

    Args:
        path: of a Python, or of `vllm`.
        changed_ns: when it was changed, so that it is asked again after that.
    """
    first = path if Path(path).name.startswith("python") else _interpreter(path)
    if first and (said := _said((first, "-I", "-c", ASKED), QUICK_S)):
        return said
    return "" if first == path else _said((path, "--version"), SLOW_S)


def _interpreter(path: str) -> str:
    """The Python that the first line of a script names; "": it names none."""
    with open(path, "rb") as file:
        line = file.readline(512).decode("utf-8", "replace").strip()
    word = line.removeprefix("#!").strip().partition(" ")[0]
    return word if line.startswith("#!") and Path(word).name.startswith("python") else ""


def _said(command: Sequence[str], seconds: float) -> str:
    """What looks like a version in what a command says; "" where it fails or says none."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, check=False,
            stdin=subprocess.DEVNULL, env=environment_of_its_own(),
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = done.stdout.strip().splitlines() if done.returncode == 0 else []
    found = re.search(r"\d+\.\d+[\w.+]*", lines[-1]) if lines else None
    return found[0] if found else ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(one) for one in re.findall(r"\d+", version)[:2])
