"""Token masking: what if the tokens that the model finds most surprising bear no loss?

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
from typing import Any, ClassVar

from pydantic import Field

from holdfast.config import Section
from holdfast.errors import DataError
from holdfast.memory.estimate.method_overhead import NOTHING, MethodOverhead
from holdfast.methods import TASK, Entry, Setting, Shared, Term
from holdfast.types import Example


class TokenMask:
    """Drop the labels that surprise the base most."""

    class Options(Section):
        """Settings of ``token_mask``."""

        max_perplexity: float = Field(2.5, gt=1)
        """Tokens above this bear no loss: exp of their loss under the untouched model."""

    entry: ClassVar[Entry] = "loss"
    trainer: ClassVar[str | None] = None
    version: ClassVar[str] = "1"
    mixes: ClassVar[bool] = False

    def __init__(self, options: Options) -> None:
        """Take the settings."""
        self.options = options

    def recipe(self) -> str:
        """See `Method.recipe`."""
        return f"tokens of perplexity above {self.options.max_perplexity:g} masked"

    def identity(self) -> Mapping[str, Any]:
        """See `Method.identity`."""
        return self.options.model_dump()

    def check(self, setting: Setting) -> None:
        """See `DataMethod.check`; it reads no files."""

    def shared(self, setting: Setting) -> list[Shared]:
        """Nothing of its own: the base's losses are kept by answer (`Setting.token_nll`)."""
        return []

    def apply(
        self, examples: Sequence[Example], setting: Setting, made: Mapping[str, Path]
    ) -> tuple[list[Example], list[str]]:
        """Mark the surprising tokens of the task's own answers.

        Raises:
            DataError: hardly anything would be left to train on.
        """
        own = [one for one in examples if one.meta.get("kind", TASK) == TASK]
        losses = setting.token_nll(own)
        limit = math.log(self.options.max_perplexity)
        marked, total, dropped = {}, 0, 0
        for one, values in zip(own, losses, strict=True):
            places = [place for place, loss in enumerate(values) if loss > limit]
            total, dropped = total + len(values), dropped + len(places)
            marked[id(one)] = replace(one, meta={**one.meta, "dropped": places})
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

    def demand(self) -> MethodOverhead:
        """See `LossMethod.demand`."""
        return NOTHING

    def term(self) -> Term | None:
        """See `LossMethod.term`; the marks are all."""
        return None
