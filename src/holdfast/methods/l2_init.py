"""L2 to the start: holds the weights near where they began.

A penalty on the squared distance between the weights and their first values (L2-SP,
arXiv:1802.01483): the plainest way of forgetting less, a baseline for the others. Under LoRA the
distance is that of the product, ‖s·B·A‖², not of the factors (weight decay on A and B does not do
that); nothing is copied for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from holdfast.config import Section
from holdfast.memory.estimate.method_overhead import MethodOverhead
from holdfast.methods import LossMethod, Term
from holdfast.models import weight_delta

if TYPE_CHECKING:
    import torch


class L2Init(LossMethod):
    """Hold the weights near the base's."""

    options: Options

    class Options(Section):
        """Settings of ``l2_init``."""

        weight: float = Field(0.01, gt=0)
        """Nats per supervised token and unit of squared distance; it is halved, as usual."""

    def recipe(self) -> str:
        """See `DataMethod.recipe`."""
        return f"L2 to the base's weights ({self.options.weight:g})"

    def overhead(self) -> MethodOverhead:
        """See `LossMethod.overhead`."""
        return MethodOverhead(("l2_init",), copies=1)

    def term(self) -> Term:
        """See `LossMethod.term`."""
        first: list[dict[str, torch.Tensor] | None] = []

        def prepare(model: torch.nn.Module, probes: Sequence[object]) -> None:
            plain = weight_delta.only_low_rank(model, experts=True)
            first.append(None if plain else weight_delta.copies(model))

        def penalty(model: torch.nn.Module) -> torch.Tensor:
            return self.options.weight / 2 * weight_delta.square(model, first[0])

        return Term(prepare=prepare, penalty=penalty)
