"""The page of a dry run: what a study will take, on one screen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from holdfast.memory.memory_plan import GIB
from holdfast.progress import language, translation
from holdfast.progress.remaining import in_words

if TYPE_CHECKING:
    from holdfast.runs.stages import Step
    from holdfast.study.outlook import Outlook

MOST_ARMS, MOST_CHANGES = 14, 5


def page(told: Outlook, steps: Sequence[Step], width: int = 80, every: bool = False) -> list[str]:
    """Hours, disk, memory, arm by arm; the longest stages; what would shorten it.

    Args:
        told: what the study will take.
        steps: its schedule.
        width: of the terminal, in characters.
        every: list all stages, which take longest, and what methods ask of the base.
    """
    from holdfast.report.words import asked
    from holdfast.study.start import DAY_S

    stages = listed(steps, lambda step: _at(told, step))
    if not every:
        stages = [stages[-1].replace("done.", "done; --all lists them.")]
    if all(step.done for step in steps):
        return stages
    more = "; --calibrate measures it" if told.measurable else ""
    lines = [
        f"Time: about {in_words(told.left)} on {told.device} ({told.how}{more})",
        f"Disk: {size(told.disk)} will be written, {size(told.disk_free)} are free",
    ]
    if told.memory:
        short = ": that is too little" if told.memory > told.memory_free else ""
        lines.append(
            f"Memory: {size(told.memory)} at the peak by formula, {size(told.memory_free)} are "
            f"free{short}"
        )
    lines += ["", *_table(told)]
    if every:
        lines += [*asked(steps), "", "Longest stages:"]
        lines += [f"  {in_words(one.seconds):>9}  {name} ({one.how})" for name, one in told.longest]
    if told.left > DAY_S and told.changes:
        lines += ["", f"This takes {in_words(told.left)} here. What would shorten it:"]
        some = told.changes[:MOST_CHANGES]
        wide = max(len(one.setting) for one in some)
        lines += [
            f"  {one.setting:<{wide}}  saves {in_words(one.saved):>9}  ({one.words})"
            for one in some
        ]
        still = "; use a GPU, or a smaller model" if told.shortened > DAY_S else ""
        lines.append(f"  all of these together: {in_words(told.shortened)} are left{still}")
    return wrapped([*lines, *stages], width)


def as_json(told: Outlook, steps: Sequence[Step]) -> dict[str, object]:
    """The same as JSON values, seconds and bytes."""
    stages = [
        {"stage": step.stage.name, "done": step.done, **told.stages[step.stage.name]._asdict()}
        for step in steps
    ]
    kept = ("device", "how", "left", "done", "disk", "disk_free", "memory", "memory_free")
    time = {name: getattr(told, name) for name in kept}
    time |= {"parts": [asdict(one) for one in told.parts]}
    time |= {"changes": [asdict(one) for one in told.changes], "shortened": told.shortened}
    return {"stages": stages, "outlook": time}


def wrapped(lines: Sequence[str], width: int) -> list[str]:
    """Lines, each in as many as the terminal needs."""
    found = []
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip()) + 4)
        found += language.wrapped(translation.told(line), max(40, width), indent)
    return found


def _at(told: Outlook, step: Step) -> str:
    name, one = step.stage.name, told.stages[step.stage.name]
    return f"{in_words(one.seconds):>9}  {name}"


def _table(told: Outlook) -> list[str]:
    """A row for every arm."""
    from rich.cells import cell_len

    parts = list(told.parts)
    if (rest := len(parts) - MOST_ARMS) > 0:
        parts = sorted(parts, key=lambda one: -one.seconds)[:MOST_ARMS]
    names = ("runs", "trained", "answers", "written", "time", "disk")
    head = ("", *map(translation.told, names))
    rows = [head] + [
        (
            one.name, str(one.trainings or ""), count(one.trained), count(one.answers),
            count(one.written), in_words(one.seconds), size(one.disk) if one.disk else "",
        )
        for one in parts
    ]  # fmt: skip
    widths = [max(cell_len(row[i]) for row in rows) for i in range(len(head))]
    lines = []
    for row in rows:
        gaps = [" " * (wide - cell_len(cell)) for cell, wide in zip(row, widths, strict=True)]
        cells = [
            row[0] + gaps[0],
            *(gap + cell for cell, gap in zip(row[1:], gaps[1:], strict=True)),
        ]
        lines.append("  ".join(cells).rstrip())
    more = [f"and {rest} more that take less"] if rest > 0 else []
    return [*lines, *more, "(runs of training; trained and written: tokens)"]


def count(number: float) -> str:
    """A number to three digits.

    >>> [count(one) for one in (0, 950, 1_234, 45_600, 3_210_000, 1.74e9, 2e12)]
    ['', '950', '1.2k', '46k', '3.2M', '1.7G', '2.0T']
    """
    if number < 0.5:
        return ""
    for limit, unit in ((1e3, ""), (1e6, "k"), (1e9, "M"), (1e12, "G"), (1e15, "T")):
        if number < limit:
            scaled = number * 1e3 / limit
            return f"{scaled:.1f}{unit}" if unit and scaled < 10 else f"{scaled:.0f}{unit}"
    return f"{number:.1e}"


def listed(steps: Sequence[Step], told: Callable[[Step], str]) -> list[str]:
    """All stages, each in such words, and how many are done."""
    return [
        *(f"  {'done' if step.done else 'run '}  {told(step)}" for step in steps),
        "",
        f"{sum(step.done for step in steps)} of {len(steps)} stages are done.",
    ]


def size(number: float) -> str:
    """Bytes in MiB or GiB."""
    if number < GIB:
        return f"{max(1, round(number / 2**20))} MiB"
    return f"{number / GIB:.1f} GiB"
