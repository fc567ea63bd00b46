"""Where rows come from: a file, a folder or a set on the hub, all of it or a part."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from holdfast.config.section import Section


class SourceSpec(Section):
    """One source of rows."""

    path: str | None = None
    """File or folder: JSON Lines, a JSON array, CSV, TSV, Parquet or Arrow."""
    hub: str | None = None
    """Data set on the hub, `owner/name`, instead of a path."""
    config: str | None = None
    """Configuration of the set: the subset's name on the hub, or a folder's subfolder."""
    split: str | None = None
    """Split of the set. Left out: `train` for training, else the task's `split`."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    format: Literal["json", "jsonl", "csv", "tsv", "parquet", "arrow", "text"] | None = None
    """Left out: told by the file's content and name. `text`: each file is one text, for the task
    `text` alone."""
    field: str | None = None
    """Key of a JSON file under which its list of rows stands, `data` or `a.b`."""
    delimiter: str | None = Field(None, min_length=1, max_length=1)
    """What separates the cells of a CSV, where that is no comma."""
    columns: dict[str, str] = Field({})
    """By the known name, the file's own: `{prompt: question, completion: meta.answer}`."""
    share: float | None = Field(None, gt=0, le=1)
    """Share of all rows of the list that come from here; sources without one are taken whole."""
    count: int | None = Field(None, ge=1)
    """Take so many rows, drawn by the task's `data_seed`."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.hub is None):
            raise ValueError("name a `path` (file or folder) or a `hub` (owner/name), one of them")
        if self.share is not None and self.count is not None:
            raise ValueError("give `share` or `count`, not both")
        if self.path is not None and self.revision is not None:
            raise ValueError("`revision` is of a `hub` set; a path has none")
        if self.hub is not None and (self.format or self.field or self.delimiter):
            raise ValueError("`format`, `field` and `delimiter` are of a `path`, not of a hub set")
        return self

    @field_validator("hub")
    @classmethod
    def _is_a_name(cls, value: str | None) -> str | None:
        if value is not None and (
            value.startswith((".", "/", "~")) or value.count("/") > 1 or "://" in value
        ):
            raise ValueError(f"{value!r} is no name of a set on the hub; a file is a `path`")
        return value


def _listed(value: object) -> object:
    """One source or several, each a path or a mapping, as a list of mappings."""
    several = value if isinstance(value, list | tuple) else [value]
    return [{"path": str(one)} if isinstance(one, str | Path) else one for one in several]


Sources = Annotated[tuple[SourceSpec, ...], BeforeValidator(_listed), Field(min_length=1)]
"""A path, a source, or a list of both."""
