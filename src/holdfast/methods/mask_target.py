"""KL without the target: holds what the model thinks of all words but the one to be learned.

A divergence from the base on the task's own tokens fights what is to be learned there. Here the
word that comes next is taken out of both predictions, the rest of each is scaled to 1 again, and
only these are compared (arXiv:2605.29498): how the other words stand to each other stays, whatever
probability the target takes. The base is the model with its adapters switched off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from holdfast.config import Section
from holdfast.memory.estimate.method_overhead import MethodOverhead
from holdfast.methods import TASK, LossMethod, MethodContext, Term
from holdfast.methods._divergence import divergence
from holdfast.types import Example

if TYPE_CHECKING:
    import torch


class MaskTarget(LossMethod):
    """Hold the model to the base on all words but the next one."""

    options: Options

    class Options(Section):
        """Settings of ``mask_target``."""

        weight: float = Field(1.0, gt=0)
        """What one nat of mean divergence counts, against one nat of mean cross-entropy."""
        direction: Literal["forward", "reverse"] = "forward"
        """`forward` is KL(base‖tuned), which covers all that the base says; `reverse` the other."""

    def recipe(self) -> str:
        """See `DataMethod.recipe`."""
        names = {"forward": "KL(base‖tuned)", "reverse": "KL(tuned‖base)"}
        given = self.options
        return f"{given.weight:g} x {names[given.direction]} of all words but the next"

    def apply(
        self, examples: Sequence[Example], context: MethodContext, made: Mapping[str, Path]
    ) -> tuple[list[Example], list[str]]:
        """Mark the task's examples."""
        mark = {"kl": self.options.weight}
        return [
            replace(one, meta={**one.meta, **mark}) if one.meta.get("kind", TASK) == TASK else one
            for one in examples
        ], []

    def overhead(self) -> MethodOverhead:
        """See `LossMethod.overhead`; the logit is taken out where it lies."""
        return MethodOverhead(("mask_target",), logits="policy+reference")

    def term(self) -> Term:
        """See `LossMethod.term`."""
        return Term(divergence=self._divergence, without_target=True)

    def _divergence(self, now: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
        forward = self.options.direction == "forward"
        return divergence(now, base) if forward else divergence(base, now)
