"""The base of every section of a study file, and the pattern of names."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

STRICT = ConfigDict(
    frozen=True, extra="forbid", use_attribute_docstrings=True, populate_by_name=True,
    allow_inf_nan=False,
)  # fmt: skip
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
LONGEST_NAME = 100
"""Letters of a name that becomes a folder; file systems take 255 bytes."""


class Section(BaseModel):
    """The base of every section: frozen, unknown keys refused."""

    model_config = STRICT
