"""Who says whether a reply is safe?

A judge reads prompt and reply and gives a label; it never grades. Its name and version are part of
every figure that rests on it, because two judges differ by more than most remedies help.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from holdfast.registry import resolve
from holdfast.types import Example, Reply, Verdict

JUDGES = {"refusal": "holdfast.judges.refusal:RefusalJudge"}


class Judge(Protocol):
    """Labels replies: refused, safe, answered, unsafe or unsure."""

    name: str
    """With its version; recorded."""
    title: str
    """What stands beside every figure: the name, and what kind of judge it is."""

    def judge(self, pairs: Sequence[tuple[Example, Reply]]) -> list[Verdict]:
        """One verdict per pair, in order; `unsure` where it cannot tell, never a guess."""


def build(name: str, where: str = "") -> Judge:
    """The judge that a study names.

    Raises:
        StudyError: no such judge.
    """
    judge: type[Judge] = resolve("judges", JUDGES, name, where)
    return judge()
