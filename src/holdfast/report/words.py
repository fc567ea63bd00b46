"""How are single figures put into words, the same way on the page, in markdown and in a terminal?

One place decides how a share, an interval, a difference, a probability or a duration is written,
and which way round an `inverted` task is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.analysis.results import Choice, Share
from holdfast.analysis.selection.rule import in_points

NONE = "—"
UNMEASURED = "not measured"

STATISTICS = (
    "All intervals are 95 %. With one training seed the interval of a share is Wilson's score "
    "interval; with several it allows for seeds and items, small-sample corrected. A difference "
    "to base is paired: the same items are compared before and after; its interval is Tango's for "
    "paired shares with one seed, and with several the crossed one. One training seed says "
    "nothing of how much training again would change. A difference is called better or worse "
    "only if its interval excludes 0; otherwise the data do not tell. Intervals are not corrected "
    "for the number of comparisons; p-values named so are (Holm). Unscored items are neither right "
    "nor wrong: they take no part in a share and are counted beside it."
)


@dataclass(frozen=True, slots=True)
class Difference:
    """A paired difference to base, as it is shown."""

    points: str  # "+12.3", in percentage points, the way round in which the task is shown
    interval: str  # "[+10.1, +14.6]"
    verdict: str  # "better", "worse" or "no clear change"
    arrow: str  # which way the shown figure went: ▲ ▼, or ≈ where the interval includes 0
    n: int


def percent(value: float | None) -> str:
    """A share as a percentage with one decimal; a dash where there is none."""
    return NONE if value is None else f"{100 * value:.1f}\u202f%"


def signed(value: float) -> str:
    """A difference of shares in percentage points, with its sign unless it is exactly 0."""
    return in_points(value) if value else "0.0"


def shown(share: Share, inverted: bool) -> Share:
    """The share as it is shown: `1 - mean` for an inverted task, with its interval turned too."""
    if not inverted or share.mean is None:
        return share
    low = None if share.high is None else 1 - share.high
    high = None if share.low is None else 1 - share.low
    return Share(1 - share.mean, low, high, share.n, share.unscored)


def interval(share: Share) -> str:
    """The interval of a (shown) share, in percent; empty where there is none."""
    if share.low is None or share.high is None:
        return ""
    return f"[{100 * share.low:.1f}, {100 * share.high:.1f}]"


def points(share: Share) -> str:
    """A difference in points with its interval, as it is; a dash where there is none."""
    if share.mean is None:
        return NONE
    if share.low is None or share.high is None:
        return signed(share.mean)
    return f"{signed(share.mean)} [{signed(share.low)}, {signed(share.high)}]"


def spelled(judge: Mapping[str, Any]) -> str:
    """All that a judge's verdicts depend on, in words; members of an ensemble one after another."""
    several = judge.get("members")
    if several:
        own = {key: value for key, value in judge.items() if key != "members"}
        return "; ".join([_flat(own), *(f"({spelled(one)})" for one in several)])
    return _flat(judge)


def _flat(values: Mapping[str, Any], under: str = "") -> str:
    found = []
    for key, value in values.items():
        name = f"{under}{key}"
        if isinstance(value, Mapping):
            found.append(_flat(value, f"{name} "))
        elif value is not None:
            several = isinstance(value, list | tuple)
            said = ", ".join(map(str, value)) if several else str(value)
            found.append(said if name == "judge" else f"{name} {said}")
    return ", ".join(found)


def plain(share: Share | None, digits: int = 2) -> str:
    """A figure without a unit (a correlation, an area) with its interval."""
    if share is None or share.mean is None:
        return NONE

    def one(value: float) -> str:
        return f"{value:.{digits}f}".replace("-", "\u2212")

    if share.low is None or share.high is None:
        return one(share.mean)
    return f"{one(share.mean)} [{one(share.low)}, {one(share.high)}]"


def difference(diff: Share | None, inverted: bool) -> Difference | None:
    """The paired difference as it is shown; whether it is good is judged before turning it."""
    if diff is None or diff.mean is None:
        return None
    turn = -1.0 if inverted else 1.0
    low, high = diff.low, diff.high
    ends = "" if low is None or high is None else f"[{signed(low)}, {signed(high)}]"
    if ends and inverted:
        ends = f"[{signed(-(high or 0.0))}, {signed(-(low or 0.0))}]"
    verdict = "no clear change"
    if low is not None and low > 0:
        verdict = "better"
    elif high is not None and high < 0:
        verdict = "worse"
    arrow = "≈" if verdict == "no clear change" else "▲" if turn * diff.mean > 0 else "▼"
    return Difference(signed(turn * diff.mean), ends, verdict, arrow, diff.n)


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


def candidate(choice: Choice) -> str:
    """A candidate for shipping: ``replay, seed 1127, step 160, λ = 0.8``."""
    seed = "" if choice.seed is None else f"seed {choice.seed}"
    step = f"step {choice.step:,}" if choice.step else ""
    return ", ".join(filter(None, (choice.arm, seed, step, factor(choice.scale))))
