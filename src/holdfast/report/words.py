"""Figures and findings in words, the same on the page, in markdown and in a terminal.

One place decides how a share, an interval, a difference, a probability or a duration is written,
which way round an `inverted` task is shown, and how decision, noise and dose-response are told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from holdfast.analysis.results import Dose, Noise, Results, Share
from holdfast.analysis.selection.rule import in_bits, in_points
from holdfast.report.language import Said, Speech
from holdfast.runs.stages import Step

NONE = "—"
UNMEASURED = "not measured"

SIGNIFICANT = 0.05  # a Holm-corrected p below this is set in bold


class Shown(Protocol):
    """What a figure of a task is, as far as it bears on how it is written."""

    @property
    def inverted(self) -> bool:
        """It is shown as 1 - mean."""

    @property
    def unit(self) -> str:
        """Of what is no share: shown as -mean."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A paired difference to base, as it is shown."""

    points: str  # "+12.3", in percentage points or `unit`, as the task is shown
    interval: str  # "[+10.1, +14.6]"
    verdict: str  # "better", "worse" or "no clear change"
    arrow: str  # which way the shown figure went: ▲ ▼, or ≈ where the interval includes 0
    n: int
    unit: str = ""  # of a measure; "": percentage points


def percent(value: float | None) -> str:
    """A share as a percentage with one decimal; a dash where there is none."""
    return NONE if value is None else f"{100 * value:.1f}\u202f%"


def signed(value: float) -> str:
    """A difference of shares in percentage points, with its sign unless it is exactly 0."""
    return in_points(value)


def shown(share: Share, task: Shown) -> Share:
    """The share as it is shown: `1 - mean` for an inverted task, with its interval turned too.

    A measure of which less is better is shown with its sign turned.
    """
    if task.unit:
        return share.negated()
    return share.turned() if task.inverted else share


def amount(value: float | None, task: Shown) -> str:
    """A (shown) figure: a share as a percentage, a measure with four decimals."""
    return percent(value) if value is None or not task.unit else f"{value:.4f}"


def interval(share: Share, task: Shown | None = None) -> str:
    """The interval of a (shown) share, in percent, or of a measure; empty where there is none."""
    if share.low is None or share.high is None:
        return ""
    if task is not None and task.unit:
        return f"[{share.low:.4f}, {share.high:.4f}]"
    return f"[{100 * share.low:.1f}, {100 * share.high:.1f}]"


def points(share: Share) -> str:
    """A difference in points with its interval, as it is; a dash where there is none."""
    if share.mean is None:
        return NONE
    if share.low is None or share.high is None:
        return signed(share.mean)
    return f"{signed(share.mean)} [{signed(share.low)}, {signed(share.high)}]"


def spelled(judge: Mapping[str, object]) -> str:
    """All that a judge's verdicts depend on, in words; members of an ensemble one after another."""
    several = judge.get("members")
    if isinstance(several, list | tuple) and several:
        own = {key: value for key, value in judge.items() if key != "members"}
        return "; ".join([_flat(own), *(f"({spelled(member)})" for member in several)])
    return _flat(judge)


def _flat(values: Mapping[str, object], under: str = "") -> str:
    found = []
    for key, value in values.items():
        name = f"{under}{key}"
        if isinstance(value, Mapping):
            found.append(_flat(value, f"{name} "))
        elif value is not None:
            said = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            found.append(said if name == "judge" else f"{name} {said}")
    return ", ".join(found)


def plain(share: Share | None, digits: int = 2) -> str:
    """A figure without a unit (a correlation, an area) with its interval."""
    if share is None or share.mean is None:
        return NONE

    def text(value: float) -> str:
        return f"{value:.{digits}f}".replace("-", "\u2212")

    if share.low is None or share.high is None:
        return text(share.mean)
    return f"{text(share.mean)} [{text(share.low)}, {text(share.high)}]"


def difference(diff: Share | None, task: Shown) -> Difference | None:
    """The paired difference as it is shown; whether it is good is judged before turning it."""
    if diff is None or diff.mean is None:
        return None
    turned = diff.negated() if task.inverted or task.unit else diff
    mean, low, high = turned.mean or 0.0, turned.low, turned.high
    write = in_bits if task.unit else signed
    ends = "" if low is None or high is None else f"[{write(low)}, {write(high)}]"
    verdict = diff.direction
    arrow = "≈" if verdict == "no clear change" else "▲" if mean > 0 else "▼"
    return Difference(write(mean), ends, verdict, arrow, diff.n, task.unit)


def unscored(share: Share) -> str:
    """How many items could not be scored, or nothing at all if every one could."""
    return f"{share.unscored:,} of {share.n + share.unscored:,} unscored" if share.unscored else ""


def probability(p: float) -> str:
    """A p-value with three decimals."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def scientific(value: float) -> str:
    """A large count such as FLOPs with two figures: ``1.2e15``; a dash for none."""
    return f"{value:.1e}".replace("e+0", "e").replace("e+", "e") if value else NONE


def factor(scale: float) -> str:
    """The share of the training's change that is applied; nothing for all of it."""
    return "" if scale == 1 else f"λ = {scale:g}"


def noise(found: Noise, unit: str = "") -> Said:
    """What asking again changes on one task, whose figure may have a unit of its own."""
    if not found.flipped:
        return Speech().say("noise.none")
    if unit:
        return Speech().say("noise.measure", floor=f"{found.floor:.1g} {unit}")
    floor = f"{100 * found.floor:.1f}"
    return Speech().say("noise.some", share=percent(found.flipped), floor=floor)


def noise_line(results: Results) -> str:
    """The noise floor of every task that has one, in a sentence."""
    if not results.noise:
        return ""
    repeats = ", ".join(sorted({str(one.repeats) for one in results.noise}))
    if not any(one.flipped for one in results.noise):
        return f"Noise floor: asked {repeats} times, the untouched model changed no item."
    units = {task.name: task.unit for task in results.tasks}
    alike: dict[str, list[str]] = {}
    for one in results.noise:
        alike.setdefault(noise(one, units.get(one.task, "")).en, []).append(one.task)
    told = "; ".join(f"{', '.join(tasks)}: {text}" for text, tasks in alike.items())
    return f"Noise floor, the untouched model asked {repeats} times: {told}."


def dose(found: Dose) -> str:
    """One dose-response in words, the sign of the finding first."""
    return dose_said(found).en


def dose_said(found: Dose) -> Said:
    """The same in both languages."""
    speech = Speech()
    told = speech.say(f"dose.{found.words}")
    if found.words == "too little data" or found.rho is None:
        return speech.say("dose.few", words=told, n=found.points)
    text = speech.say("dose.told", words=told, rho=plain(found.rho), n=found.points)
    if found.rise is not None and found.rise.mean is not None:
        return speech.say("dose.rise", first=text, rise=points(found.rise))
    return text


def asked(steps: Sequence[Step]) -> list[str]:
    """What methods and meters ask of the untouched model before training, by formula."""
    lines = []
    for step in steps:
        asks = step.stage.asks
        if step.done or not asks:
            continue
        drawn = f", {asks['samples']} answers each" if asks["samples"] > 1 else ""
        some = f"{asks['expected']} questions expected"
        if asks["questions"] > asks["expected"]:
            some += f", {asks['questions']} at most"
        lines.append(
            f"Asked for {step.stage.name}: {some}{drawn}, up to {asks['new_tokens']} new tokens"
        )
    return lines
