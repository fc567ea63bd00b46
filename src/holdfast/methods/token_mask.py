"""Token masking: takes the loss off the tokens that the model finds most surprising.

One pass of the untouched model over the training answers gives each token's perplexity; labels
whose perplexity is above a limit are dropped (selective token masking, arXiv:2501.14315: 2.5 drops
20 to 24 % of the tokens of human answers, and forgetting all but vanishes). The rest of the answer
is trained on as before. Nothing is added to a training step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import Field

from holdfast.config import Section
from holdfast.errors import DataError
from holdfast.methods import TASK, LossMethod, MethodContext
from holdfast.types import Example


class TokenMask(LossMethod):
    """Drop the labels that surprise the base most."""

    options: Options

    class Options(Section):
        """Settings of ``token_mask``."""

        max_perplexity: float = Field(2.5, gt=1)
        """Tokens above this get no loss: exp of their loss under the untouched model."""

    def recipe(self) -> str:
        """See `DataMethod.recipe`."""
        return f"tokens of perplexity above {self.options.max_perplexity:g} masked"

    def apply(
        self, examples: Sequence[Example], context: MethodContext, made: Mapping[str, Path]
    ) -> tuple[list[Example], list[str]]:
        """Mark the surprising tokens of the task's own answers.

        Raises:
            DataError: hardly anything would be left to train on.
        """
        own = [one for one in examples if one.meta.get("kind", TASK) == TASK]
        losses = context.token_nll(own)
        limit = math.log(self.options.max_perplexity)
        marked, total, dropped = {}, 0, 0
        for example, values in zip(own, losses, strict=True):
            places = [place for place, loss in enumerate(values) if loss > limit]
            total, dropped = total + len(values), dropped + len(places)
            marked[id(example)] = replace(example, meta={**example.meta, "dropped": places})
        share = dropped / max(1, total)
        if share > 0.95:
            raise DataError(
                f"{share:.0%} of the tokens are above perplexity {self.options.max_perplexity:g}",
                where="token_mask",
                remedy="raise `max_perplexity`",
            )
        note = f"{share:.1%} of the task's tokens bear no loss (perplexity above "
        note += f"{self.options.max_perplexity:g})"
        return [marked.get(id(one), one) for one in examples], [note]
