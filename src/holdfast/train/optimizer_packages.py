"""Which packages optimisers come in, and what is said where one is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from holdfast.config import TrainSpec
from holdfast.errors import HoldfastError, MissingDependency, StudyError, first_line

PACKAGES = {
    "galore_": ("galore_torch", "pip install galore-torch"),
    "apollo_": ("apollo_torch", "pip install apollo-torch"),
    "grokadamw": ("grokadamw", "pip install grokadamw"),
    "schedule_free_": ("schedulefree", "pip install schedulefree"),
    "stable_adamw": ("optimi", "pip install torch-optimi"),
    "adamw_torch_4bit": ("torchao", "pip install torchao"),
    "adamw_torch_8bit": ("torchao", "pip install torchao"),
    "adamw_anyprecision": (
        "torchdistx", "pip install git+https://github.com/pytorch/torchdistx",
    ),
    "adamw_torch_xla": ("torch_xla", "pip install torch_xla"),
    "adamw_torch_npu_fused": ("torch_npu", "pip install torch-npu"),
}  # fmt: skip
"""Beginnings of optimisers' names, the module that each needs, and how to get it."""
BITSANDBYTES = ("paged", "8bit", "bnb", "lion_", "ademamix")
INSTEAD = "train.optim: adamw_torch needs no package; docs/study.md says more"


def needs_bitsandbytes(optim: str) -> bool:
    """Whether an optimiser is one of bitsandbytes."""
    return any(part in optim for part in BITSANDBYTES) and not optim.startswith(
        ("adamw_torch", "galore")
    )


@contextmanager
def told(spec: TrainSpec, setting: str) -> Iterator[None]:
    """Turn what a library raises into an error that names the setting, or the package to install.

    Raises:
        MissingDependency: a package is not there, or cannot be imported.
        StudyError: anything else.
    """
    try:
        yield
    except HoldfastError:
        raise
    except Exception as error:
        package = _package(spec.optim) if setting == "optim" else None
        first = first_line(error)
        if package and (isinstance(error, ImportError) or _absent(package[0])):
            raise MissingDependency(
                f"train.optim {spec.optim} needs {package[0]}: {first}",
                remedy=f"{package[1]}; {INSTEAD}",
            ) from error
        said = getattr(spec, setting)
        remedy = INSTEAD if setting == "optim" else "docs/study.md says what schedules take"
        raise StudyError(
            f"{said} cannot be used here: {first}", where=f"train.{setting}", remedy=remedy
        ) from error


def _package(optim: str) -> tuple[str, str] | None:
    from holdfast.environment import install_command

    for start, found in PACKAGES.items():
        if optim.startswith(start):
            return found
    if needs_bitsandbytes(optim):
        return "bitsandbytes", install_command("train", "bitsandbytes")
    return None


def _absent(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is None
