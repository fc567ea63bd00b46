"""L2 to the start: what if the weights are held near where they began?

A penalty on the squared distance between the weights and their first values: the plainest way of
forgetting less, a baseline for the others. Under LoRA the distance is that of the product,
‖s·B·A‖², not of the factors (weight decay on A and B does not do that); nothing is copied for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from holdfast.config import Section
from holdfast.memory.estimate.method_overhead import MethodOverhead
from holdfast.methods import Entry, Setting, Shared, Term
from holdfast.models import weight_delta
from holdfast.types import Example


class L2Init:
    """Hold the weights near the base's."""

    class Options(Section):
        """Settings of ``l2_init``."""

        weight: float = Field(0.01, gt=0)
        """Nats per supervised token and unit of squared distance; it is halved, as usual."""

    entry: ClassVar[Entry] = "loss"
    trainer: ClassVar[str | None] = None
    version: ClassVar[str] = "1"
    mixes: ClassVar[bool] = False

    def __init__(self, options: Options) -> None:
        """Take the settings."""
        self.options = options

    def recipe(self) -> str:
        """See `Method.recipe`."""
        return f"L2 to the base's weights ({self.options.weight:g})"

    def identity(self) -> Mapping[str, Any]:
        """See `Method.identity`."""
        return self.options.model_dump()

    def check(self, setting: Setting) -> None:
        """See `DataMethod.check`; it reads no files."""

    def shared(self, setting: Setting) -> list[Shared]:
        """Nothing."""
        return []

    def apply(
        self, examples: Sequence[Example], setting: Setting, made: Mapping[str, Path]
    ) -> tuple[list[Example], list[str]]:
        """See `DataMethod.apply`; the examples stay as they are."""
        return list(examples), []

    def demand(self) -> MethodOverhead:
        """See `LossMethod.demand`."""
        return MethodOverhead(("l2_init",), copies=1)

    def term(self) -> Term:
        """See `LossMethod.term`."""
        first: list[Any] = []

        def prepare(model: Any, probes: Sequence[Any]) -> None:
            first.append(None if weight_delta.only_low_rank(model) else weight_delta.copies(model))

        def penalty(model: Any) -> Any:
            return self.options.weight / 2 * weight_delta.square(model, first[0])

        return Term(prepare=prepare, penalty=penalty)
