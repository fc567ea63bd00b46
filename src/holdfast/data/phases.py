"""Deals examples so that one kind has optimiser steps of its own, in turn with all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from holdfast.data.batching import Budget, Cost, deal
from holdfast.errors import StudyError


@dataclass(frozen=True, slots=True)
class Phases:
    """Which steps are whose.

    Attributes:
        kind: of the examples that have steps of their own.
        alone: steps on these, first of every turn.
        others: steps on all other kinds, which then follow.
    """

    kind: str
    alone: int
    others: int

    def is_alone(self, step: int) -> bool:
        """Whether a step, counted from 0, is on the one kind."""
        return step % (self.alone + self.others) < self.alone

    def begins(self, step: int) -> bool:
        """Whether a step, counted from 0, is the first of a phase."""
        return step % (self.alone + self.others) in (0, self.alone)

    def count_alone(self, steps: int) -> int:
        """How many of the first steps are on the one kind."""
        return sum(map(self.is_alone, range(steps)))


def in_phases(
    costs: Sequence[Cost],
    kinds: Sequence[str],
    phases: Phases,
    budget: Budget,
    seed: int,
    by_length: bool = False,
    rounds: Sequence[int] = (),
) -> list[list[int]]:
    """`batching.deal`, for each of both parts by itself, its steps put where they belong.

    Each part spends its steps' share of the supervised tokens, so that all of them together are
    those of the budget.

    Args:
        costs: tokens of each example.
        kinds: the kind of each example.
        phases: which steps are whose.
        budget: of the whole run.
        seed: see `deal`.
        by_length: see `deal`.
        rounds: see `deal`.

    Returns:
        steps x micro_batches lists of indices.

    Raises:
        StudyError: one part has no steps, or no examples.
    """
    parts = {}
    for alone in (True, False):
        own = [index for index, kind in enumerate(kinds) if (kind == phases.kind) == alone]
        steps = sum(phases.is_alone(step) == alone for step in range(budget.steps))
        if not own or not steps:
            raise StudyError(
                f"{len(own)} examples and {steps} of {budget.steps} steps "
                f"{'of the kind' if alone else 'of other kinds than'} {phases.kind!r}",
                remedy="train longer (train.max_steps), or take shorter phases",
            )
        tokens = round(budget.supervised_tokens * steps / budget.steps)
        some = replace(budget, steps=steps, supervised_tokens=tokens)
        dealt = deal(
            [costs[i] for i in own], [kinds[i] for i in own], some, seed, by_length,
            [rounds[i] for i in own] if rounds else (),
        )  # fmt: skip
        parts[alone] = iter([[own[place] for place in slot] for slot in dealt])
    return [
        next(parts[phases.is_alone(step)])
        for step in range(budget.steps)
        for _ in range(budget.micro_batches)
    ]
