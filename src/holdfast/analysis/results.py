"""The results of a finished study as data: every figure, interval and finding.

`Results` is the contract between the statistics and everything that shows them: it is written to
`results.json`, and `report.md` and `index.html` are made from it and from nothing else. Means are
shares between 0 and 1 in which **1 is good**; a task with `inverted=True` is shown as `1 - mean`
(an unsafe rate). All intervals are 95 %.

For analyses of your own, `Results.to_frame` has all figures as rows, `Results.curve` one arm over
training steps, and `Results.frontier` what every model gained and lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from holdfast.analysis.findings import (
    Agreement,
    ArmInfo,
    Cell,
    Choice,
    Decision,
    Direction,
    Dose,
    EqualGain,
    EqualLoss,
    Flips,
    Front,
    Learned,
    MeanGain,
    Meter,
    Noise,
    PairAgreement,
    ReplyShown,
    Share,
    TaskInfo,
    Transfer,
)
from holdfast.errors import DataError, UsageError, printable
from holdfast.registry import nearest
from holdfast.types import BASE

if TYPE_CHECKING:
    import pandas

__all__ = [
    "SCHEMA",
    "Agreement",
    "ArmInfo",
    "Cell",
    "Choice",
    "CurvePoint",
    "Decision",
    "Direction",
    "Dose",
    "EqualGain",
    "EqualLoss",
    "Flips",
    "Front",
    "FrontierPoint",
    "Learned",
    "MeanGain",
    "Meter",
    "Noise",
    "PairAgreement",
    "ReplyShown",
    "Results",
    "Row",
    "Share",
    "TaskInfo",
    "Transfer",
    "from_json",
    "to_json",
]

SCHEMA = 2

Row = dict[str, str | int | float | bool | None]
"""One row of `Results.to_frame`, by column."""


class CurvePoint(NamedTuple):
    """An arm's share on one task after `step` optimiser steps; 1 is good."""

    step: int
    value: float | None
    low: float | None
    high: float | None


class FrontierPoint(NamedTuple):
    """What one model gained on the target and lost on the retained tasks, means over seeds.

    Attributes:
        arm: whose training it is from.
        step: of the checkpoint.
        scale: share of the training's change that is applied.
        gain: mean difference to the untouched model on the target.
        worst_change: least mean difference on a retained task; None without one that was scored.
        on_frontier: no other model, the untouched one included, is at least as good on every task
            and better on one.
    """

    arm: str
    step: int
    scale: float
    gain: float
    worst_change: float | None
    on_frontier: bool


@dataclass(frozen=True, slots=True)
class Results:
    """Everything that a report shows; a notebook shows it as a table."""

    name: str
    model: str
    seeds: tuple[int, ...]
    verdict: str  # one or two sentences
    tasks: tuple[TaskInfo, ...]
    arms: tuple[ArmInfo, ...]
    cells: tuple[Cell, ...]
    conditions: Mapping[str, str]  # versions, engine, device, date; label -> value
    warnings: tuple[str, ...] = ()
    replies: tuple[ReplyShown, ...] = ()
    noise: tuple[Noise, ...] = ()
    dose: tuple[Dose, ...] = ()
    meters: tuple[Meter, ...] = ()
    fronts: tuple[Front, ...] = ()
    decision: Decision | None = None
    agreements: tuple[Agreement, ...] = ()
    equal_gain: tuple[EqualGain, ...] = ()
    equal_loss: tuple[EqualLoss, ...] = ()
    mean_gain: tuple[MeanGain, ...] = ()  # of studies with several targets
    learned: tuple[Learned, ...] = ()  # tasks in the order in which they were learned
    transfer: tuple[Transfer, ...] = ()

    @property
    def trained(self) -> bool:
        """Whether any arm was trained here; a comparison only measures."""
        return any(arm.examples for arm in self.arms)

    def cell(self, arm: str, step: int, task: str, scale: float = 1.0) -> Cell:
        """The cell of one arm, step and task; KeyError where it was not measured."""
        for cell in self.cells:
            if (cell.arm, cell.step, cell.task, cell.scale) == (arm, step, task, scale):
                return cell
        raise KeyError((arm, step, task, scale))

    def last_step(self, arm: str) -> int:
        """The final checkpoint of an arm that was measured (0 for base)."""
        return max((c.step for c in self.cells if c.arm == arm), default=0)

    def final_point(self, arm: str) -> tuple[int, float]:
        """Step and scale that an arm is shown by: the last, with all of the change or the most."""
        step = self.last_step(arm)
        scales = {cell.scale for cell in self.cells if (cell.arm, cell.step) == (arm, step)}
        return step, 1.0 if 1.0 in scales else max(scales, default=1.0)

    def rows(self) -> list[Row]:
        """All figures, a row per arm, step, scale and task; seeds are aggregated.

        Columns: ``arm``, ``family`` (the arm of the study file), ``step``, ``scale``, ``final``
        (the point by which the arm is shown), ``task``, ``role`` (target or retained), ``value``
        with ``low`` and ``high`` (share of good answers; of a measure minus it, so that more is
        better), ``diff`` with ``diff_low`` and
        ``diff_high`` (paired difference to the untouched model), ``p_holm`` (final points only),
        ``n`` and ``unscored`` (replies), ``judge`` (its name and version; "" without one).
        """
        tasks = {task.name: task for task in self.tasks}
        families = {arm.name: arm.family or arm.name for arm in self.arms}
        finals = {arm.name: self.final_point(arm.name) for arm in self.arms}
        nothing = Share(None, None, None, 0)
        found: list[Row] = []
        for cell in self.cells:
            task, diff = tasks[cell.task], cell.diff or nothing
            row: Row = {
                "arm": cell.arm,
                "family": families[cell.arm],
                "step": cell.step,
                "scale": cell.scale,
                "final": finals[cell.arm] == (cell.step, cell.scale),
                "task": cell.task,
                "role": task.role,
                "value": cell.score.mean,
                "low": cell.score.low,
                "high": cell.score.high,
                "diff": diff.mean,
                "diff_low": diff.low,
                "diff_high": diff.high,
                "p_holm": cell.p_holm,
                "n": cell.score.n,
                "unscored": cell.score.unscored,
                "judge": str(task.judge.get("judge", "")),
            }
            found.append(row)
        return found

    def to_frame(self) -> pandas.DataFrame | list[Row]:
        """`rows` as a pandas DataFrame; as a list of dictionaries where pandas is not installed."""
        try:
            import pandas
        except ImportError:
            return self.rows()
        return pandas.DataFrame(self.rows())

    def curve(self, arm: str, task: str) -> list[CurvePoint]:
        """One arm on one task over training steps, all of its change applied, sorted by step.

        A trained arm starts at step 0 with the untouched model.

        Raises:
            UsageError: there is no such arm or task.
        """
        self._known(arm, [info.name for info in self.arms], "arm")
        self._known(task, [info.name for info in self.tasks], "task")
        mine = {c.step: c.score for c in self.cells if (c.arm, c.task, c.scale) == (arm, task, 1.0)}
        start = {c.step: c.score for c in self.cells if (c.arm, c.task) == (BASE, task)}
        scores = start | mine if any(mine) else mine  # an arm without training is one point
        return [
            CurvePoint(k, scores[k].mean, scores[k].low, scores[k].high) for k in sorted(scores)
        ]

    def frontier(self) -> list[FrontierPoint]:
        """Gain on the target and worst change of a retained task for every model measured.

        Only models whose gain could be scored; the untouched one is not among them. In a
        comparison, and in a study without a target, the list is empty.
        """
        roles = {task.name: task.role for task in self.tasks}
        best = {(front.arm, *point) for front in self.fronts for point in front.points}
        changes: dict[tuple[str, int, float], dict[str, list[float]]] = {}
        for cell in self.cells:
            if cell.diff is not None and cell.diff.mean is not None:
                by_role = changes.setdefault((cell.arm, cell.step, cell.scale), {})
                by_role.setdefault(roles[cell.task], []).append(cell.diff.mean)
        return [
            FrontierPoint(
                *key,
                gain=sum(by_role["target"]) / len(by_role["target"]),
                worst_change=min(by_role.get("retained", ()), default=None),
                on_frontier=key in best,
            )
            for key, by_role in changes.items()
            if "target" in by_role
        ]

    def _repr_html_(self) -> str:
        """The final checkpoints as a table, for notebooks; everything in it is escaped."""
        head = ["arm", *(f"{t.name} ({t.role}): {t.label}" for t in self.tasks)]
        rows = [[a.name, *(self._shown(a.name, t) for t in self.tasks)] for a in self.arms]
        notes = [*self.warnings]
        if self.decision is not None:
            notes.insert(0, f"{self.decision.answer.capitalize()}. {self.decision.reason}")
        return _html_table(f"{self.name}: {self.verdict}", head, rows, notes)

    def _shown(self, arm: str, task: TaskInfo) -> str:
        """An arm's final figure in percent, and its difference to base in points."""
        try:
            step, scale = self.final_point(arm)
            cell = self.cell(arm, step, task.name, scale)
        except KeyError:
            return "not measured"
        score = cell.score.turned() if task.inverted else cell.score
        text = _measure(cell.score.negated()) if task.unit else _percent(score)
        if cell.diff is None or cell.diff.mean is None:
            return text
        turn = -1.0 if task.lower_is_better else 1.0
        if task.unit:
            change = f"{turn * cell.diff.mean:+.4f} {task.unit}"
            return f"{text}, {change} ({cell.diff.direction})"
        return f"{text}, {100 * turn * cell.diff.mean:+.1f} points ({cell.diff.direction})"

    @staticmethod
    def _known(name: str, names: Iterable[str], kind: str) -> None:
        known = list(names)
        if name not in known:
            raise UsageError(
                f"no {kind} is called {name!r}{nearest(name, known)}",
                remedy=f"these results have: {', '.join(known)}",
            )


def to_json(results: Results) -> dict[str, object]:
    """`results` as plain JSON values, with the schema's version."""
    return {"schema": SCHEMA, **asdict(results)}


def from_json(data: Mapping[str, object]) -> Results:
    """Inverse of `to_json`.

    Raises:
        DataError: not written by `to_json` of this version.
    """
    from pydantic import TypeAdapter, ValidationError

    if not isinstance(data, Mapping):
        raise DataError(
            "the results cannot be read: not a JSON object",
            remedy="make them again with --rebuild stats",
        )
    try:
        found = TypeAdapter(Results).validate_python(
            {key: value for key, value in data.items() if key != "schema"}
        )
    except ValidationError as error:
        raise DataError(
            f"the results cannot be read: {error.error_count()} fields are not as they should be",
            remedy="make them again with --rebuild stats",
        ) from error
    if not all(0 < level < 1 for level in _levels(found)):
        raise DataError(
            "the results cannot be read: a level of an interval is no share",
            remedy="make them again with --rebuild stats",
        )
    return found


def _levels(results: Results) -> Iterator[float]:
    if (made := results.decision) is not None:
        for choice in filter(None, (made.chosen, made.runner_up)):
            yield from choice.levels.values()


def _html_table(
    title: str, head: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]
) -> str:
    """A title, a table and notes below it; every text is escaped."""
    top = "".join(f"<th>{_safe(text)}</th>" for text in head)
    cells = ["".join(f"<td>{_safe(text)}</td>" for text in row) for row in rows]
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    below = "".join(f"<p>{_safe(note)}</p>" for note in notes)
    table = f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div><p><b>{_safe(title)}</b></p>{table}{below}</div>"


def _safe(text: str) -> str:
    return escape(printable(text, keep="\n"))


def _measure(share: Share) -> str:
    """A figure in its own unit with its interval: ``0.8170 [0.7764, 0.8520]``."""
    if share.mean is None:
        return "nothing could be scored"
    if share.low is None or share.high is None:
        return f"{share.mean:.4f}"
    return f"{share.mean:.4f} [{share.low:.4f}, {share.high:.4f}]"


def _percent(share: Share) -> str:
    """A share in percent with its interval: ``81.7 % [77.6, 85.2]``."""
    if share.mean is None:
        return "nothing could be scored"
    text = f"{100 * share.mean:.1f} %"
    if share.low is None or share.high is None:
        return text
    return f"{text} [{100 * share.low:.1f}, {100 * share.high:.1f}]"
