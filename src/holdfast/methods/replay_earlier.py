"""Replay of earlier stages: mixes in examples of the tasks that were learned before.

Experience replay, the plainest remedy of continual learning (Chaudhry et al., arXiv:1902.10486;
Rolnick et al., arXiv:1811.11682), for a study with `stages`: from the second stage on a share of
the training set is drawn from the training sets of all stages before it, every stage alike. The
number of training steps does not grow: what is replayed takes the place of the stage's own
examples.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

from pydantic import Field

from holdfast.config import Section
from holdfast.methods import REPLAY, DataMethod, MethodContext
from holdfast.methods._bound import beside
from holdfast.methods._replay_prompts import in_turn
from holdfast.types import Example


class ReplayEarlier(DataMethod):
    """Mix in examples of the stages before."""

    options: Options

    class Options(Section):
        """Settings of ``replay_earlier``."""

        share: float = Field(0.1, gt=0, lt=1)
        """Of each later stage's training set; all earlier stages together."""
        pool: int | None = Field(None, ge=1)
        """Examples of each earlier stage that are kept for it, drawn at random; left out: all."""

    mixes = True

    def recipe(self) -> str:
        """See `DataMethod.recipe`."""
        of = "all" if self.options.pool is None else f"{self.options.pool} examples of each"
        return f"replay of earlier stages ({self.options.share:.0%}, {of})"

    def mixed(self, context: MethodContext | None = None) -> float:
        """See `Configured.mixed`."""
        nothing = context is not None and not context.earlier
        return 0.0 if nothing else float(self.options.share)

    def apply(
        self, examples: Sequence[Example], context: MethodContext, made: Mapping[str, Path]
    ) -> tuple[list[Example], list[str]]:
        """Append as many earlier examples as the share asks for; few are repeated."""
        pools = [self._kept(one, context.seed, n) for n, one in enumerate(context.earlier or ())]
        if not pools:
            return list(examples), ["the first stage: nothing to replay"]
        wanted = beside(len(examples), self.share_so_far(context))
        there = list(in_turn(pools))
        chosen = [
            replace(
                one,
                id=f"earlier-{place}",
                source=f"replayed: {one.source}",
                meta={**one.meta, "kind": REPLAY},
            )
            for place, one in enumerate(islice(cycle(there), wanted))
        ]
        note = f"{wanted} examples of {len(pools)} earlier stages replayed, from {len(there)}"
        return [*examples, *chosen], [note + (" (some are repeated)" * (wanted > len(there)))]

    def _kept(self, plain: Sequence[Example], seed: int, number: int) -> list[Example]:
        """One stage's examples in a random order, the same in every later stage."""
        found = list(plain)
        random.Random(f"{seed} {number}").shuffle(found)
        return found[: self.options.pool]
