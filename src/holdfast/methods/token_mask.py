"""Token masking: takes the loss off the tokens that the model finds most surprising.

One pass of the untouched model over the training answers gives each token's perplexity; labels
whose perplexity is above a limit are dropped (selective token masking, arXiv:2501.14315: 2.5 drops
20 to 24 % of the tokens of human answers, and forgetting all but vanishes). The rest of the answer
is trained on as before. Nothing is added to a training step. Where training sees a part of the
questions only, those that it sees are looked at, and examples of other kinds keep their share.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import Field

from holdfast.config import Section
from holdfast.errors import DataError
from holdfast.methods import PROBE, TASK, LossMethod, MethodContext
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

        seen = _seen(own, context, work)
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
        elif len(own) < len(context.plain) and (filled := _filled(context, used)) < 1:
            note += f"; what is left of {len(own)} answers fills {filled:.0%} of the budget, so "
            note += "some are seen again"
        kept = _in_proportion(examples, own, seen)
        return [found[id(one)][0] if id(one) in found else one for one in kept], [note]

    def _marked(self, example: Example, losses: Sequence[float]) -> Example:
        limit = math.log(self.options.max_perplexity)
        places = [place for place, loss in enumerate(losses) if loss > limit]
        return replace(example, meta={**example.meta, "dropped": places})


def _seen(
    own: Sequence[Example],
    context: MethodContext,
    work: Callable[[int, Sequence[Example]], Mapping[str, Sequence[Example]]],
) -> Sequence[Example]:
    """Those of the task's examples that fill the budget; all, where their order is not known."""
    bound = context.bound
    places = {context.plain[i].id: at for at, i in enumerate(bound.order)} if bound else {}
    ids = {one.id for one in own}
    if bound is None or len(ids) < len(own) or ids - places.keys():
        work(0, own)
        return own
    return filled(bound, sorted(own, key=lambda one: places[one.id]), work)[1]


def _filled(context: MethodContext, used: Sequence[tuple[Example, int]]) -> float:
    """Which share of the budget examples fill, seen once; 1 where nobody says how large it is."""
    bound = context.bound
    if bound is None or bound.tokens is None:
        return 1.0
    return sum(bound.cost([one for one, _ in used])) / max(1, bound.tokens())


def _in_proportion(
    examples: Sequence[Example], own: Sequence[Example], seen: Sequence[Example]
) -> list[Example]:
    """Without the task's own that are not seen, and as much less of other kinds that are trained.

    Of these the first stay, as those that are seen first come first.
    """
    left_out = {id(one) for one in own} - {id(one) for one in seen}
    kinds = Counter(str(one.meta.get("kind", TASK)) for one in examples)
    share = len(seen) / len(own) if own else 1.0
    room = {kind: max(1, round(count * share)) for kind, count in kinds.items()}
    kept = []
    for one in examples:
        kind = str(one.meta.get("kind", TASK))
        if kind in (TASK, PROBE):
            kept += [] if id(one) in left_out else [one]
        elif room[kind]:
            room[kind] -= 1
            kept.append(one)
    return kept
