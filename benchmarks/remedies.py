"""The tables of docs/remedies.md, from a finished run: ends, equal gain, equal loss, frontiers.

All figures are those of the run's own results; nothing is computed here but shares of arithmetic.

    holdfast run examples/lab_remedies.yaml
    python benchmarks/remedies.py runs/lab-remedies
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from holdfast.analysis import budget
from holdfast.analysis.findings import Cell, Share
from holdfast.analysis.results import Results
from holdfast.report.run import read_results


def main() -> None:
    """Read the run and print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    results = read_results(parser.parse_args().run)
    for part in (ends, at_equal_gain, at_equal_loss, frontiers, dose):
        print("\n".join(part(results)), end="\n\n")


def ends(results: Results) -> list[str]:
    """Every arm at its last step, with the shares of its change; bold: lost by Holm's test."""
    names = [one.name for one in results.tasks]
    reference = budget.reference(results.arms)
    whole = reference.flops if reference else 1.0
    flops = {one.name: one.flops / whole for one in results.arms if one.flops}
    lines = [f"| arm | {' | '.join(names)} | arithmetic |", f"|---|{'---|' * (len(names) + 1)}"]
    by_point: dict[tuple[str, float], dict[str, Cell]] = {}
    for cell in results.cells:
        last = max(one.step for one in results.cells if one.arm == cell.arm)
        if cell.step == last and cell.diff is not None:
            by_point.setdefault((cell.arm, cell.scale), {})[cell.task] = cell
    for (arm, scale), cells in by_point.items():
        told = arm + (f" λ = {scale:g}" if scale != 1 else "")
        shown = [_bold(cells[name]) if name in cells else "—" for name in names]
        times = f"{flops[arm]:.2f}" if scale == 1 and arm in flops else ""
        lines.append(f"| {told} | {' | '.join(shown)} | {times} |")
    return lines


def at_equal_gain(results: Results) -> list[str]:
    """What every arm had lost when it had gained as much as the others."""
    lines = []
    head = "| arm | lost by then | against the first | reached in |"
    for (task, gain), some in _grouped(results.equal_gain, lambda one: one.gain).items():
        there = [one for one in some if one.change.mean is not None]
        rows = [(one.arm, one.change, one.against, one.reached) for one in there]
        lines += _common(f"{task} at a gain of {100 * gain:+.1f} points", head, rows)
        never = [one.arm for one in some if one.change.mean is None]
        lines += [f"\nNever: {', '.join(never)}."] if never else []
    return lines


def at_equal_loss(results: Results) -> list[str]:
    """What every arm had gained before it had lost as much as the others."""
    lines = []
    head = "| arm | gained by then | against the first | loses so much in |"
    for (task, loss), some in _grouped(results.equal_loss, lambda one: one.loss).items():
        rows = [(one.arm, one.gain, one.against, one.reached) for one in some]
        lines += _common(f"{task} at a loss of {100 * loss:.1f} points", head, rows)
    return lines


def _grouped(found: Sequence[Any], value: Callable[[Any], float]) -> dict[tuple[str, float], Any]:
    """By retained task and common value, in their order."""
    groups: dict[tuple[str, float], Any] = {}
    for one in found:
        groups.setdefault((one.task, value(one)), []).append(one)
    return groups


def _common(
    title: str, head: str, rows: Sequence[tuple[str, Share, Share | None, float]]
) -> list[str]:
    """A table of one task at one common value."""
    return [f"\n{title}\n", head, "|---|---|---|---|"] + [
        f"| {arm} | {_points(own)} | {_points(against)} | {reached:.0%} |"
        for arm, own, against, reached in rows
    ]


def frontiers(results: Results) -> list[str]:
    """The area that every arm dominates, the largest first."""
    lines = ["| arm | area | on the frontier |", "|---|---|---|"]
    for one in sorted(results.fronts, key=lambda one: -_mean(one.volume)):
        area = "—" if one.volume is None else _between(one.volume, 3)
        shown = [f"step {step}" + (f", λ = {s:g}" if s != 1 else "") for step, s in one.points]
        lines.append(f"| {one.arm} | {area} | {', '.join(shown) or '—'} |")
    return lines


def dose(results: Results) -> list[str]:
    """Spearman's correlation of gain and loss."""
    lines = ["| retained task | arm | points | ρ | the claim is |", "|---|---|---|---|---|"]
    for one in results.dose:
        rho, arm = one.rho, one.arm or "**pooled within arms**"
        told = "—" if rho is None or rho.mean is None else _between(rho)
        lines.append(f"| {one.task} | {arm} | {one.points} | {told} | {one.words} |")
    return lines


def _bold(cell: Cell) -> str:
    """The change in points; bold where it is a loss beyond chance of all that were looked at."""
    text = _points(cell.diff)
    worse = cell.diff is not None and cell.diff.direction == "worse"
    return f"**{text}**" if worse and cell.p_holm is not None and cell.p_holm < 0.05 else text


def _points(share: Share | None) -> str:
    return "—" if share is None or share.mean is None else _between(share, 1, 100)


def _between(share: Share, digits: int = 2, times: int = 1) -> str:
    """A figure with its sign, and its interval where there is one."""
    every = [one for one in (share.mean, share.low, share.high) if one is not None]
    mean, *ends = (f"{times * one:+.{digits}f}".replace("-", "−") for one in every)
    return f"{mean} [{', '.join(ends)}]" if len(ends) == 2 else mean


def _mean(share: Share | None) -> float:
    return 0.0 if share is None or share.mean is None else share.mean


if __name__ == "__main__":
    main()
