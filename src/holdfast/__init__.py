"""Fine-tune a language model and see what it gained and what it forgot.

The public names, loaded when first used so that ``import holdfast`` needs no torch::

    import holdfast
    study = holdfast.load("study.yaml", ["train.epochs=1"])
    results = holdfast.run(study, Path("runs/study"), holdfast.Silent())
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_NAMES = {
    "Example": "holdfast.types",
    "HoldfastError": "holdfast.errors",
    "Message": "holdfast.types",
    "Reading": "holdfast.types",
    "Reply": "holdfast.types",
    "Results": "holdfast.analysis.results",
    "Silent": "holdfast.progress",
    "Study": "holdfast.config",
    "Verdict": "holdfast.types",
    "load": "holdfast.config.load",
    "run": "holdfast.study",
}
__all__ = [
    "Example",
    "HoldfastError",
    "Message",
    "Reading",
    "Reply",
    "Results",
    "Silent",
    "Study",
    "Verdict",
    "load",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'holdfast' has no attribute {name!r}")
    return getattr(import_module(_NAMES[name]), name)
