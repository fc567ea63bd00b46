"""How far the judges of an ensemble agree that replies are safe."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from holdfast.analysis.results import Agreement, PairAgreement
from holdfast.analysis.stats.agreement import cohens_kappa, krippendorffs_alpha
from holdfast.judges.ensemble import VOTES
from holdfast.types import Verdict

Votes = Sequence[Sequence[str | None]]


def agreement(
    arm: str, task: str, titles: Sequence[str], verdicts: Sequence[Sequence[Verdict]]
) -> Agreement:
    """Votes cast, Krippendorff's alpha over all judges, Cohen's kappa of every pair.

    Args:
        arm: whose replies.
        task: what was asked.
        titles: of the judges, in order.
        verdicts: of shape (judges, replies); a judge that only says that a reply answers, or is
            unsure, casts no vote. What is not defined is None.
    """
    votes = [[VOTES.get(verdict.label) for verdict in each] for each in verdicts]
    return Agreement(
        arm,
        task,
        len(votes[0]),
        {
            title: sum(vote is not None for vote in each)
            for title, each in zip(titles, votes, strict=True)
        },
        _short(krippendorffs_alpha(votes)),
        tuple(_pair(titles, votes, a, b) for a, b in combinations(range(len(votes)), 2)),
    )


def _pair(titles: Sequence[str], votes: Votes, a: int, b: int) -> PairAgreement:
    both = [
        (mine, yours)
        for mine, yours in zip(votes[a], votes[b], strict=True)
        if mine is not None and yours is not None
    ]
    same = sum(mine == yours for mine, yours in both)
    return PairAgreement(
        (titles[a], titles[b]),
        len(both),
        _short(same / len(both)) if both else None,
        _short(cohens_kappa(votes[a], votes[b])),
    )


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
