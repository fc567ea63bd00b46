"""The `model:` section: which model a study starts from."""

from __future__ import annotations

from pathlib import Path

from holdfast.config.section import Section

LAB = "lab"
"""What a user writes for the built-in model."""
LAB_FOLDER = Path(__file__).parents[1] / "lab" / "model"


class ModelSpec(Section):
    """Which model to start from."""

    id: str
    """Hub id, local folder, or `lab` for the built-in model."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Only for models you trust."""
