"""The cases of `benchmarks/cases.py`, a module for each kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
        kind: of input, for the table.
        name: of the case.
        run: tries it in an empty folder; says what is wrong, or None. May raise.
        must_be_refused: accepting it would be wrong.
        must_work: refusing it would be wrong.
        exits: exit codes that a refusal may have; 1 once a run has begun.
    """

    kind: str
    name: str
    run: Callable[[Path], str | None]
    must_be_refused: bool = False
    must_work: bool = False
    exits: tuple[int, ...] = (2, 3)
