"""Tables that the page and the markdown share: flips, outcomes, readings, judges, costs, meters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.analysis import budget
from holdfast.analysis.lookup import final, last_meters, reading_spread, retained
from holdfast.analysis.results import (
    Agreement,
    ArmInfo,
    Cell,
    Dose,
    Flips,
    PairAgreement,
    Results,
    Share,
    TaskInfo,
)
from holdfast.grading.safety_outcomes import OUTCOMES
from holdfast.report import words
from holdfast.report.figures import Figure, figure

COUNTS = {2: "two", 3: "three", 4: "four"}
COSTS = 8
"""Columns of the costs: steps, examples, tokens (three kinds), times (two), FLOPs."""


@dataclass(frozen=True, slots=True)
class Flipped:
    """Items of one retained task that changed sides, an arm a row."""

    task: TaskInfo
    rows: tuple[tuple[ArmInfo, Flips, str], ...]  # arm, its flips, the share kept in words
    groups: tuple[tuple[str, tuple[Flips | None, ...]], ...]  # a group, and its flips of every row
    top: int  # most items that went one way, for the bars


def flipped(results: Results) -> list[Flipped]:
    """Every retained task of which the flips are known."""
    found = []
    for task in retained(results):
        rows: list[tuple[ArmInfo, Flips, str]] = []
        cells: list[Cell] = []
        for arm in results.arms:
            cell = final(results, arm.name, task.name)
            if cell and cell.flips:
                rows.append((arm, cell.flips, kept(cell)))
                cells.append(cell)
        names = list(dict.fromkeys(name for cell in cells for name in cell.group_flips))
        groups = tuple((n, tuple(cell.group_flips.get(n) for cell in cells)) for n in names)
        if rows:
            top = max(max(one.lost, one.won) for _, one, _ in rows)
            found.append(Flipped(task, tuple(rows), groups, max(top, 1)))
    return found


def kept(cell: Cell) -> str:
    """The good share after training over the one before, as a percentage."""
    one = cell.retained_share
    return words.NONE if one is None else f"{words.percent(one.mean)} {words.interval(one)}".strip()


@dataclass(frozen=True, slots=True)
class Response:
    """Gain against loss on one retained task: in a sentence, as a fit, and family by family."""

    task: TaskInfo
    pooled: Dose | None
    curve: tuple[tuple[float, float], ...]
    rows: tuple[Dose, ...]

    @property
    def sentence(self) -> str:
        """The finding over all arms; empty where they were not pooled."""
        return words.dose(self.pooled) if self.pooled else ""


def responses(results: Results) -> list[Response]:
    """Every retained task of which the dose-response is known."""
    found = []
    for task in retained(results):
        mine = [dose for dose in results.dose if dose.task == task.name]
        if mine:
            pooled = next((dose for dose in mine if not dose.arm), None)
            families = tuple(dose for dose in mine if dose.arm)
            found.append(Response(task, pooled, pooled.curve if pooled else (), families))
    return found


OutcomeRow = tuple[ArmInfo, tuple[Figure, ...]]


@dataclass(frozen=True, slots=True)
class Four:
    """One task: the four shares of every arm, and for each group again."""

    task: TaskInfo
    names: tuple[str, ...]
    rows: tuple[OutcomeRow, ...]
    groups: tuple[tuple[str, tuple[OutcomeRow, ...]], ...]


def four(results: Results) -> list[Four]:
    """Every task whose replies have the four outcomes, in the study's order."""
    found = []
    for task in results.tasks:
        cells = [(arm, final(results, arm.name, task.name)) for arm in results.arms]
        mine = [(arm, cell) for arm, cell in cells if cell is not None and cell.outcome_shares]
        if not mine:
            continue
        rows = tuple(_outcome_row(arm, cell.outcome_shares, task) for arm, cell in mine)
        names = dict.fromkeys(name for _, cell in mine for name in cell.group_outcomes)
        groups = tuple(
            (
                name,
                tuple(
                    _outcome_row(arm, cell.group_outcomes[name], task)
                    for arm, cell in mine
                    if name in cell.group_outcomes
                ),
            )
            for name in names
        )
        found.append(Four(task, OUTCOMES, rows, groups))
    return found


def _outcome_row(arm: ArmInfo, shares: Mapping[str, Share], task: TaskInfo) -> OutcomeRow:
    upright = TaskInfo(task.name, task.role, task.label, task.n, task.how)  # shares are as they are
    figures = (figure(shares[name], upright) for name in OUTCOMES)
    return arm, tuple(one for one in figures if one is not None)


@dataclass(frozen=True, slots=True)
class Ways:
    """One task's replies under every way of reading: a row per arm, a figure per way."""

    task: TaskInfo
    title: str
    names: tuple[str, ...]
    rows: tuple[tuple[ArmInfo, tuple[Figure | None, ...], str], ...]


def ways(results: Results) -> list[Ways]:
    """Every task that knows more ways than one, in the study's order."""
    found = []
    for task in results.tasks:
        cells = [(arm, final(results, arm.name, task.name)) for arm in results.arms]
        names = tuple(dict.fromkeys(way for _, cell in cells if cell for way in cell.read_as))
        if len(names) < 2:
            continue
        rows = []
        for arm, cell in cells:
            if cell is None:
                continue
            shares = [cell.read_as.get(name) for name in names]
            apart = reading_spread(shares)
            spread = words.NONE if apart is None else f"{100 * apart:.1f}"
            rows.append((arm, tuple(figure(one, task) for one in shares), spread))
        title = f"The same replies, {COUNTS.get(len(names), len(names))} readings"
        found.append(Ways(task, title, names, tuple(rows)))
    return found


@dataclass(frozen=True, slots=True)
class AgreementRow:
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
    rows: tuple[AgreementRow, ...]


def panels(results: Results) -> list[Panel]:
    """Every task that an ensemble judged, in the study's order."""
    arms = {arm.name: arm for arm in results.arms}
    found = []
    for task in results.tasks:
        mine = [agreement for agreement in results.agreements if agreement.task == task.name]
        if mine:
            names = tuple(" × ".join(pair.judges) for pair in mine[0].pairs)
            found.append(
                Panel(
                    task,
                    names,
                    tuple(_agreement_row(arms[agreement.arm], agreement) for agreement in mine),
                )
            )
    return found


def _agreement_row(arm: ArmInfo, found: Agreement) -> AgreementRow:
    votes = ", ".join(f"{cast:,}" for cast in found.votes.values())
    pairs = tuple(_pair(pair) for pair in found.pairs)
    return AgreementRow(arm, _number(found.alpha), pairs, f"{votes} of {found.replies:,}")


def _pair(pair: PairAgreement) -> str:
    if pair.agree is None:
        return "no reply judged by both"
    return f"{_number(pair.kappa)}; {words.percent(pair.agree)} of {pair.replies:,}"


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.2f}".replace("-", "\u2212")


@dataclass(frozen=True, slots=True)
class Cost:
    """One arm's cost in words, a column each, and multiples of the reference arm."""

    arm: ArmInfo
    cells: tuple[str, ...]
    tokens: float | None  # supervised, as a multiple
    flops: float | None

    def times(self, number: int) -> str:
        """The multiple that belongs to a column; empty for the other columns."""
        value = {2: self.tokens, 7: self.flops}.get(number)
        return "" if value is None else f"{value:.2f}\u00d7"


def costs(results: Results) -> list[Cost]:
    """Every arm but those that cost nothing at all."""
    against, found = budget.reference(results.arms), []
    for arm in budget.costly(results.arms):
        counts = (arm.steps, arm.examples_seen, arm.supervised_tokens, arm.tokens)
        times = (arm.seconds, arm.shared_seconds)
        cells = (
            *(f"{count:,}" if count else words.NONE for count in (*counts, arm.generated_tokens)),
            *(words.duration(time) if time else words.NONE for time in times),
            words.scientific(arm.flops),
        )
        tokens = budget.token_multiple(arm, against)
        found.append(Cost(arm, cells, tokens, budget.flops_multiple(arm, against)))
    return found


MeterRow = tuple[str, int, str, str, str]
"""Arm, step, KL, cross-entropy and the norm of the weights' change."""


def meters(results: Results) -> list[MeterRow]:
    """The last readings of the drift meters, an arm a row."""
    found: list[MeterRow] = []
    for arm in results.arms:
        last = last_meters([reading for reading in results.meters if reading.arm == arm.name])
        if last is not None:
            norm = words.NONE if last.norm is None else f"{last.norm:.2f}"
            row = (f"{last.kl:.3f}", f"{last.cross_entropy:.3f}", norm)
            found.append((arm.name, last.step, *row))
    return found
