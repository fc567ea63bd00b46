"""The stages of continual learning, as a plan holds them: chapters, learned one after the other.

What a study calls `stages` is a chapter here, because the stages of a run are another thing. Every
chapter of an arm is a training of its own, with its own folder, budget, optimiser and schedule,
which begins with the weights that the chapter before it ended with. Steps of points count on
through all chapters; the checkpoints in a chapter's folder bear its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Chapter:
    """One task that is learned, and when.

    Attributes:
        number: its place, 1 is the first.
        task: that is learned.
        before: optimiser steps of the chapters before it.
        steps: its own.
        save_at: of its own steps those after which it is measured; the last one among them.
        items: examples of its training set.
    """

    number: int
    task: str
    before: int
    steps: int
    save_at: tuple[int, ...]
    items: int

    @property
    def folder(self) -> str:
        """The last part of its folders' names."""
        return f"{self.number}-{self.task}"

    @property
    def end(self) -> int:
        """Optimiser steps when it is over."""
        return self.before + self.steps

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """What ``asdict`` wrote.

        Raises:
            ValueError: a number that is none.
        """
        found = cls(**{**value, "save_at": tuple(value["save_at"])})
        numbers = (found.number, found.before, found.steps, found.items, *found.save_at)
        if not all(type(one) is int for one in numbers):
            raise ValueError(f"the stage {found.task!r} has steps that are no whole numbers")
        return found


@dataclass(frozen=True, slots=True)
class Trained:
    """One training of an arm with one seed: the only one, or that of a chapter.

    Attributes:
        stage: that trains it, and its folder.
        before: optimiser steps that the weights had behind them when it began.
    """

    stage: str
    before: int = 0


def trainings(chapters: Sequence[Chapter], arm: str, seed: int | None) -> tuple[Trained, ...]:
    """All trainings of an arm with one seed, the first one first."""
    folder = f"train/{arm}/seed{seed}"
    found = tuple(Trained(f"{folder}/{one.folder}", one.before) for one in chapters)
    return found or (Trained(folder),)


def data_of(chapters: Sequence[Chapter], arm: str) -> tuple[str, ...]:
    """The stages that make an arm's training sets, one for each of its `trainings`."""
    return tuple(f"data/{arm}/{one.folder}" for one in chapters) or (f"data/{arm}",)


def holding(found: Sequence[Trained], step: int) -> Trained:
    """The training that has so many optimiser steps of the whole behind it when it saves them."""
    return [one for one in found if one is found[0] or one.before < step][-1]
