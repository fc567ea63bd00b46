"""Where several judges decide together: how far do they agree, arm by arm?"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.analysis.results import Agreement, ArmInfo, PairAgreement, Results, TaskInfo
from holdfast.report import words

EXPLAINED = (
    "The final checkpoint of each arm, all seeds. κ (Cohen, of two judges) and α (Krippendorff, of "
    "all) are 1 for full agreement and 0 for what chance would give; they are not defined where "
    "nobody ever says a second thing. Beside κ: the share of replies on which the two said the "
    "same, of those that both judged safe or unsafe. Where judges agree less on a tuned model than "
    "on base, its change may be the judges'."
)


@dataclass(frozen=True, slots=True)
class Row:
    """One arm: α and, in the order of the pairs, κ with the share that agrees."""

    arm: ArmInfo
    alpha: str
    pairs: tuple[str, ...]
    votes: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One task whose replies several judges judged."""

    task: TaskInfo
    pairs: tuple[str, ...]
    rows: tuple[Row, ...]


def panels(results: Results) -> list[Panel]:
    """Every task that an ensemble judged, in the study's order."""
    arms = {arm.name: arm for arm in results.arms}
    found = []
    for task in results.tasks:
        mine = [one for one in results.agreements if one.task == task.name]
        if mine:
            names = tuple(" × ".join(pair.judges) for pair in mine[0].pairs)
            found.append(Panel(task, names, tuple(_row(arms[one.arm], one) for one in mine)))
    return found


def _row(arm: ArmInfo, one: Agreement) -> Row:
    votes = ", ".join(f"{cast:,}" for cast in one.votes.values())
    pairs = tuple(_pair(pair) for pair in one.pairs)
    return Row(arm, _number(one.alpha), pairs, f"{votes} of {one.replies:,}")


def _pair(pair: PairAgreement) -> str:
    if pair.agree is None:
        return "no reply judged by both"
    return f"{_number(pair.kappa)}; {words.percent(pair.agree)} of {pair.replies:,}"


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.2f}".replace("-", "\u2212")
