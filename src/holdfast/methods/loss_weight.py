"""Loss weights: lets surprising tokens count less.

Fine-tuning data contradict the model where it is sure of something else, and it is there that it
forgets. `eaft` weighs each token's loss by the entropy of the model's own prediction among its 20
likeliest words, so that confident conflicts count little (arXiv:2601.02151); `dft` by the
probability that the model gives to the token (arXiv:2508.05629); `talr` by exp(-loss / mean loss of
its answer), with a floor (arXiv:2509.20758). The weights are computed anew in every step and carry
no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from holdfast.config import Section
from holdfast.methods import LossMethod, Term
from holdfast.models import language_head

if TYPE_CHECKING:
    import torch

PUBLISHED = 20
MOST_ENTROPY = 3.0
"""Nats, about ln 20, by which the published code divides; other numbers of words k by ln k."""


class LossWeight(LossMethod):
    """Weigh the loss of each token by what the model thinks of it."""

    options: Options

    class Options(Section):
        """Settings of ``loss_weight``."""

        by: Literal["eaft", "dft", "talr"] = "eaft"
        """`eaft`: entropy of the prediction; `dft`: probability of the token; `talr`: its loss."""
        top_k: Annotated[int, Field(ge=2)] | Literal["all"] = PUBLISHED
        """`eaft`: among how many likeliest words entropy is taken; 20 as published, or `all`."""
        power: float = Field(1.0, gt=0)
        """Exponent of the weight: above 1 it acts more strongly."""
        floor: float = Field(0.0, ge=0, lt=1)
        """Least weight of a token; TALR's authors use a small one."""

        @model_validator(mode="after")
        def _makes_sense(self) -> Self:
            if self.by != "eaft" and self.top_k != PUBLISHED:
                raise ValueError(f"{self.by} asks for no entropy: leave `top_k` out")
            return self

    def identity(self) -> Mapping[str, object]:
        """See `LossMethod.identity`; `all` is what EAFT once was, and keeps its name."""
        found = dict(super().identity())
        if self.options.by != "eaft" or self.options.top_k == "all":
            del found["top_k"]
        return found

    def recipe(self) -> str:
        """See `DataMethod.recipe`."""
        top = self.options.top_k
        among = "all words" if top == "all" else f"the {top} likeliest words"
        what = {
            "eaft": f"by the entropy of the prediction among {among} (EAFT)",
            "dft": "by the probability of the token (DFT)",
            "talr": "by the loss of the token (TALR)",
        }[self.options.by]
        power = f", power {self.options.power:g}" if self.options.power != 1 else ""
        return f"loss weighed {what}{power}"

    def term(self) -> Term:
        """See `LossMethod.term`."""
        top = self.options.top_k
        return Term(weights=self._weights, top_k=None if top == "all" else top)

    def _weights(
        self, log_probs: torch.Tensor, seen: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        match self.options.by:
            case "eaft":
                top = self.options.top_k
                most = MOST_ENTROPY if top == "all" or top == PUBLISHED else math.log(top)
                entropy = seen if top == "all" else language_head.entropy_among(seen)
                found = (entropy / most).clamp(max=1.0)
            case "dft":
                found = log_probs.exp()
            case _:
                losses = -log_probs * mask  # the mean of each answer: the same in every batch
                mean = losses.sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
                found = (-losses / mean.clamp(min=1e-6)).exp()
        return (found**self.options.power).clamp(min=self.options.floor)
