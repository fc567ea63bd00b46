"""Loss weights: lets surprising tokens count less.

Fine-tuning data contradict the model where it is sure of something else, and it is there that it
forgets. `eaft` weighs each token's loss by the entropy of the model's own prediction, so that
confident conflicts count little (arXiv:2601.02151); `dft` by the probability that the model gives
to the token (arXiv:2508.05629); `talr` by exp(-loss / mean loss of its answer), with a floor
(arXiv:2509.20758). The weights are computed anew in every step and carry no gradient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from holdfast.config import Section
from holdfast.methods import LossMethod, Term

if TYPE_CHECKING:
    import torch

MOST_ENTROPY = 3.0
"""Nats, about ln 20: the entropy of twenty equally likely words, to which EAFT normalises."""


class LossWeight(LossMethod):
    """Weigh the loss of each token by what the model thinks of it."""

    options: Options

    class Options(Section):
        """Settings of ``loss_weight``."""

        by: Literal["eaft", "dft", "talr"] = "eaft"
        """`eaft`: entropy of the prediction; `dft`: probability of the token; `talr`: its loss."""
        power: float = Field(1.0, gt=0)
        """Exponent of the weight: above 1 it acts more strongly."""
        floor: float = Field(0.0, ge=0, lt=1)
        """Least weight of a token; TALR's authors use a small one."""

    def recipe(self) -> str:
        """See `DataMethod.recipe`."""
        what = {
            "eaft": "by the entropy of the prediction (EAFT)",
            "dft": "by the probability of the token (DFT)",
            "talr": "by the loss of the token (TALR)",
        }[self.options.by]
        power = f", power {self.options.power:g}" if self.options.power != 1 else ""
        return f"loss weighed {what}{power}"

    def term(self) -> Term:
        """See `LossMethod.term`."""
        return Term(weights=self._weights)

    def _weights(
        self, log_probs: torch.Tensor, entropy: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        match self.options.by:
            case "eaft":
                found = (entropy / MOST_ENTROPY).clamp(max=1.0)
            case "dft":
                found = log_probs.exp()
            case _:
                losses = -log_probs * mask  # the mean of each answer: the same in every batch
                mean = losses.sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
                found = (-losses / mean.clamp(min=1e-6)).exp()
        return (found**self.options.power).clamp(min=self.options.floor)
