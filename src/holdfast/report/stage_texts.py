"""Tasks that were learned one after the other, in files: as markdown, and as rows of numbers."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.analysis.lookup import find
from holdfast.analysis.results import Learned, Results
from holdfast.analysis.transfer import MEASURES
from holdfast.report import language, stages
from holdfast.report.harmless import clean, table, title
from holdfast.types import BASE


def markdown(results: Results) -> list[str]:
    """Every task after every stage; nothing where all was learned at once."""
    if not results.transfer:
        return []

    def said(key: str) -> str:
        return language.of(results).say(key).en

    parts = [f"## {said('stages.title')}\n", said("stages.lede") + "\n"]
    head = [said(f"stages.{name}") for name in MEASURES]
    rows = [[clean(arm), *map(clean, texts)] for arm, texts in stages.measures(results)]
    parts.append(table([said("arm"), *head], rows))
    columns = [said("stages.when"), *map(title, stages.columns(results))]
    for one in stages.matrices(results):
        cells = [
            [clean(row.when.en), *("<br>".join(filter(None, pair)) for pair in stages.texts(row))]
            for row in one.rows
        ]
        parts += [f"{clean(one.arm)}\n", table(columns, cells)]
    return parts


def numbers(results: Results) -> Iterator[tuple[object, ...]]:
    """The matrices as rows of numbers: arm, stage, what it learned, step, task, share, interval."""
    order = [Learned("", 0), *results.learned]
    for one in results.transfer:
        for number, of in enumerate(order):
            arm, scale = (one.arm, one.scale) if number else (BASE, 1.0)
            for task in stages.columns(results):
                if cell := find(results, arm, of.step, task.name, scale):
                    score = cell.score
                    yield (one.arm, number, of.task, of.step, task.name,
                           score.mean, score.low, score.high, score.n)  # fmt: skip


HEAD = ("arm", "stage", "learned", "step", "task", "value", "low", "high", "n")
"""Columns of `numbers`."""
