"""First tokens: lets the first words of an answer move away from the base only a little.

Whether a model refuses is decided in the first few tokens of its answer, and that is where
fine-tuning takes the refusal away. The constrained loss of Qi et al. (arXiv:2406.05946, section 4)
is -(2/β)·log σ(β·log(π/π_base)) for each token, with a large β on the first ones. Its gradient is
that of the cross-entropy times 2·σ(-β·log(π/π_base)): 1 where the model is the base, falling to 0
the more of the token it has learned beyond it. As in the authors' code the cross-entropy is
multiplied by that weight, which carries no gradient and is never below 0.001.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from holdfast.config import Section, TrainSpec
from holdfast.errors import DataError, StudyError
from holdfast.memory.estimate.method_overhead import MethodOverhead
from holdfast.methods import LossMethod, MethodContext, Term

if TYPE_CHECKING:
    import torch

LEAST = 1e-3
"""Of the weight of a token."""


class FirstTokens(LossMethod):
    """Constrain the first tokens of every answer."""

    options: Options

    class Options(Section):
        """Settings of ``first_tokens``; the defaults are those that the authors published."""

        beta: float = Field(0.1, gt=0)
        """How strongly every token is held."""
        first: int = Field(5, ge=1)
        """So many tokens at the start of each answer are held more."""
        first_beta: float = Field(2.0, gt=0)
        """How strongly these."""
        very_first_beta: float = Field(0.5, gt=0)
        """How strongly the very first of them, whose loss is large to begin with."""

    def recipe(self) -> str:
        """See `DataMethod.recipe`."""
        given = self.options
        return (
            f"constrained loss (β {given.very_first_beta:g} and {given.first_beta:g} on the first "
            f"{given.first} tokens, {given.beta:g} after them)"
        )

    def overhead(self) -> MethodOverhead:
        """See `LossMethod.overhead`; the base's pass is tiled, and over before the model's own."""
        return MethodOverhead(("first_tokens",), second_pass=True)

    def check(self, context: MethodContext) -> None:
        """Refuse plain text, which answers nothing."""
        if plain := next((one for one in context.plain if not one.messages), None):
            raise DataError(
                f"the training example {plain.id} is plain text: there is no answer to begin",
                where="first_tokens",
                remedy="take first_tokens out of this arm, or plain text out of the training data",
            )

    def check_training(self, spec: TrainSpec) -> None:
        """Refuse a loss on what comes before the answer, whose tokens would be the first."""
        if not spec.completion_only_loss or spec.train_on != "last":
            raise StudyError(
                "the first tokens with a loss would not be those of the answer",
                where="train.completion_only_loss, train.train_on",
                remedy="leave first_tokens out, or train on the last answer only",
            )

    def term(self) -> Term:
        """See `LossMethod.term`."""
        return Term(weights=self._weights, reference=True)

    def _weights(
        self,
        log_probs: torch.Tensor,
        seen: torch.Tensor,
        mask: torch.Tensor,
        reference: torch.Tensor,
    ) -> torch.Tensor:
        import torch

        given, place = self.options, mask.long().cumsum(1)  # from 1; tokens without a loss pass
        beta = torch.where(place <= given.first, given.first_beta, given.beta)
        beta = torch.where(place <= 1, given.very_first_beta, beta)
        return (2 * torch.sigmoid(-beta * (log_probs - reference))).clamp(min=LEAST)
