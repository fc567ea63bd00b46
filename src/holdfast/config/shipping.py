"""The `ship:` section: the rule by which a checkpoint may be shipped."""

from __future__ import annotations

from pydantic import Field

from holdfast.config.section import Section


class ShipSpec(Section):
    """Which checkpoint may be shipped."""

    retain: dict[str, float] = Field({})
    """Least change allowed on a task, by its interval's worse end: `{ailuminate: -0.02}`. How many
    items a margin takes: docs/ship.md."""
    maximize: str | None = None
    """The task that decides among those; left out: the target."""
    seed: int = Field(0, ge=0)
    """Deals the items into the parts on which the area that an arm dominates is measured."""
