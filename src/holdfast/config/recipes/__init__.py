"""The studies that come with the package.

Commented YAML files: `hw6` (GSM8K against AILuminate on a real model), `hw6_faithful` (the same as
the course's starter does it), `jsonl` (your own data) and `lab` (the built-in model; what `holdfast
demo` runs).
"""

from __future__ import annotations

from pathlib import Path

from holdfast.errors import UsageError
from holdfast.registry import nearest

DEMO = "lab"
QUICK = (
    "name=demo-quick",
    "tasks.lab_math.items=60",
    "tasks.lab_math.train_items=200",
    "tasks.lab_refuse.items=60",
    "tasks.lab_help.items=60",
    "train.max_steps=60",
    "train.checkpoints=2",
)


def recipe_file(name: str) -> Path:
    """The file of a recipe.

    Raises:
        UsageError: no such recipe.
    """
    files = {path.stem: path for path in sorted(Path(__file__).parent.glob("*.yaml"))}
    if name not in files:
        raise UsageError(
            f"no recipe is called {name!r}{nearest(name, files)}",
            remedy=f"recipes: {', '.join(files)}",
        )
    return files[name]
