"""Lisa: trains on safety data and on the task in turn, and holds each phase near its beginning.

Lazy safety alignment (arXiv:2405.18641): some optimiser steps on safety data alone, then more on
the task alone, and so on. In every phase (ρ/2)·‖w - w₀‖² is added to the loss, where w₀ are the
weights at which the other phase ended, so that neither undoes the other. As in the authors' code a
run begins with safety data, has no such term in its first tenth, and under LoRA w are the factors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from holdfast.data.phases import Phases
from holdfast.errors import StudyError
from holdfast.memory.estimate.method_overhead import MethodOverhead
from holdfast.methods import SAFETY, LossMethod, MethodContext, SharedWork, Term, _own_answers
from holdfast.models import weight_delta
from holdfast.types import Example

if TYPE_CHECKING:
    import torch


class Lisa(LossMethod):
    """Give safety data steps of their own, and hold the weights near where the last phase ended."""

    options: Options

    class Options(_own_answers.Pool):
        """Settings of ``lisa``; `prompts`, `pool` and so on are those of ``replay``."""

        source: Literal["both", "refusals", "everyday", "dialogue", "file"] = "refusals"
        """Where safety data come from: the untouched model's own refusals, or as ``replay``."""
        safety_steps: int = Field(1, ge=1)
        """Optimiser steps on safety data, first in every turn; 100 to 900 as published."""
        task_steps: int = Field(9, ge=1)
        """Optimiser steps on everything else, which then follow."""
        rho: float = Field(1.0, ge=0)
        """Nats per supervised token and unit of squared distance; it is halved, as usual. 0: the
        phases alone."""
        after: float = Field(0.1, ge=0, lt=1)
        """Share of the run without that term, at its beginning."""

    mixes = True

    @property
    def phases(self) -> Phases:
        """Which steps are whose."""
        return Phases(SAFETY, self.options.safety_steps, self.options.task_steps)

    def recipe(self) -> str:
        """See `DataMethod.recipe`."""
        given = self.options
        return (
            f"Lisa: {given.safety_steps} steps on {_own_answers.words(given)} and "
            f"{given.task_steps} on the task in turn (ρ {given.rho:g})"
        )

    def identity(self) -> Mapping[str, object]:
        """See `DataMethod.identity`."""
        own = self.options.model_dump(include={"safety_steps", "task_steps", "rho", "after"})
        return {**own, "pool": _own_answers.identity(self.options)}

    def check(self, context: MethodContext) -> None:
        """See `DataMethod.check`."""
        _own_answers.check(self.options, context)

    def check_steps(self, steps: int) -> None:
        """Refuse a run that has not even one whole turn."""
        turn = self.options.safety_steps + self.options.task_steps
        if steps < turn:
            raise StudyError(
                f"a turn of lisa takes {turn} optimiser steps, and there are {steps}",
                remedy="take shorter phases (safety_steps, task_steps), or train longer",
            )

    @property
    def _share(self) -> float:
        """Of the steps that are on safety data."""
        given = self.options
        return given.safety_steps / (given.safety_steps + given.task_steps)

    def shared(self, context: MethodContext) -> list[SharedWork]:
        """The base's answers, the same as those of ``replay``.

        All of the pool: a phase takes its share of the *tokens*, and refusals are short.
        """
        wanted = None if context.bound is None else self.options.pool
        return _own_answers.shared(self.options, context, wanted)

    def apply(
        self, examples: Sequence[Example], context: MethodContext, made: Mapping[str, Path]
    ) -> tuple[list[Example], list[str]]:
        """Append the safety data; how often each is seen follows from the steps."""
        given = self.options
        pool = _own_answers.read(given, context, made)
        chosen = _own_answers.choose(pool, len(pool), SAFETY)
        note = f"{len(chosen)} safety examples, from a pool of {len(pool)}, have "
        note += f"{self._share:.0%} of the steps to themselves"
        notes = [note, _own_answers.note(given, context, made)]
        return [*examples, *chosen], [one for one in notes if one]

    def overhead(self) -> MethodOverhead:
        """See `LossMethod.overhead`."""
        return MethodOverhead(("lisa",), kept=1) if self.options.rho else MethodOverhead()

    def term(self) -> Term:
        """See `LossMethod.term`."""
        if not self.options.rho:
            return Term(phases=self.phases)
        kept: dict[str, torch.Tensor] = {}
        held = [False]  # whether the step under way has the term

        def begin(model: torch.nn.Module, step: int, steps: int) -> None:
            if not kept or self.phases.begins(step):
                kept.update(weight_delta.copies(model))
            held[0] = step > self.options.after * steps

        def penalty(model: torch.nn.Module) -> torch.Tensor:
            if not held[0]:
                return next(iter(kept.values())).new_zeros(())
            return self.options.rho / 2 * weight_delta.square(model, kept)

        return Term(penalty=penalty, begin=begin, kept=kept, phases=self.phases)
