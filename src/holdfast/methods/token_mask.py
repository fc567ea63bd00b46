"""Token masking: takes the loss off the tokens that the model finds most surprising.

One pass of the untouched model over the training answers gives each token's perplexity; labels
whose perplexity is above a limit are dropped (selective token masking, arXiv:2501.14315: 2.5 drops
20 to 24 % of the tokens of human answers, and forgetting all but vanishes). The rest of the answer
is trained on as before. Nothing is added to a training step. Where training sees a part of the
questions only, those that it sees are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import Field

from holdfast.config import Section
from holdfast.errors import DataError
from holdfast.methods import TASK, LossMethod, MethodContext
from holdfast.methods._bound import filled
from holdfast.types import Example


class TokenMask(LossMethod):
    """Drop the labels that surprise the base most."""

    options: Options
    version = "2"

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
        found: dict[int, tuple[Example, int]] = {}

        def work(number: int, some: Sequence[Example]) -> dict[str, list[Example]]:
            for one, values in zip(some, context.token_nll(some), strict=True):
                found[id(one)] = self._marked(one, values), len(values)
            return {one.id: [found[id(one)][0]] for one in own if id(one) in found}

        seen = _seen(own, examples, context, work)
        used = [found[id(one)] for one in seen]
        dropped = sum(len(one.meta["dropped"]) for one, _ in used)
        share = dropped / max(1, sum(tokens for _, tokens in used))
        if share > 0.95:
            raise DataError(
                f"{share:.0%} of the tokens are above perplexity {self.options.max_perplexity:g}",
                where="token_mask",
                remedy="raise `max_perplexity`",
            )
        note = f"{share:.1%} of the task's tokens bear no loss (perplexity above "
        note += f"{self.options.max_perplexity:g})"
        if len(used) < len(own):
            note += f"; {len(found)} of {len(own)} answers looked at, {len(used)} fill the budget"
        left_out = {id(one) for one in own} - {id(one) for one in seen}
        return [
            found[id(one)][0] if id(one) in found else one
            for one in examples
            if id(one) not in left_out
        ], [note]

    def _marked(self, example: Example, losses: Sequence[float]) -> Example:
        limit = math.log(self.options.max_perplexity)
        places = [place for place, loss in enumerate(losses) if loss > limit]
        return replace(example, meta={**example.meta, "dropped": places})


def _seen(
    own: Sequence[Example],
    examples: Sequence[Example],
    context: MethodContext,
    work: Callable[[int, Sequence[Example]], Mapping[str, Sequence[Example]]],
) -> Sequence[Example]:
    """Those of the task's examples that fill the budget; all, where others are mixed in already."""
    bound = context.bound
    places = {context.plain[i].id: at for at, i in enumerate(bound.order)} if bound else {}
    ids = {one.id for one in own}
    if bound is None or len(own) < len(examples) or len(ids) < len(own) or ids - places.keys():
        work(0, own)
        return own
    return filled(bound, sorted(own, key=lambda one: places[one.id]), work)[1]
