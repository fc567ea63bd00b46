"""The trainings of one arm taken together: one, or one for each chapter (`runs.chapters`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from holdfast.runs import records
from holdfast.runs.chapters import data_of
from holdfast.runs.plan import Plan

SUMS = (
    "steps", "supervised_tokens", "examples_seen", "tokens", "reference_tokens", "generated_tokens",
    "probe_tokens",
)  # fmt: skip


def folders(plan: Plan, arm: str, seeds: Iterable[int]) -> list[Path]:
    """Of all its trainings."""
    return [plan.folder / one.stage for seed in seeds for one in plan.trainings(arm, seed)]


def data_summary(plan: Plan, arm: str) -> dict[str, Any]:
    """What the stages that make an arm's training sets say, numbers added up."""
    stages = data_of(plan.chapters, arm)
    found = [records.summary(plan.folder / one) for one in stages]
    if not plan.chapters:
        return dict(found[0])
    by_source: dict[str, float] = {}
    spent: dict[str, float] = {}
    for one in found:
        _add(by_source, one["by_source"])
        _add(spent, one["spent"])
    return {
        "examples": sum(one["examples"] for one in found),
        "by_source": by_source,
        "notes": [
            f"{chapter.task}: {note}"
            for chapter, one in zip(plan.chapters, found, strict=True)
            for note in one["notes"]
        ],
        "spent": spent,
        "alike": any(one["alike"] for one in found),
    }


def run_summary(plan: Plan, arm: str, seed: int) -> dict[str, Any]:
    """What the trainings of an arm with one seed say, numbers added up; steps count on."""
    trained = plan.trainings(arm, seed)
    found = [records.summary(plan.folder / one.stage) for one in trained]
    if not plan.chapters:
        return dict(found[0])
    loss = [
        [step + of.before, value]
        for of, one in zip(trained, found, strict=True)
        for step, value in one["loss"]
    ]
    return {
        **found[-1],
        **{name: sum(one.get(name, 0) for one in found) for name in SUMS},
        "loss": loss,
        "recomputed": any(one.get("recomputed") for one in found),
    }


def seconds(folder: Path) -> float:
    """What a finished stage took."""
    return float(records.finished(folder)["seconds"])


def _add(to: dict[str, float], more: Mapping[str, float]) -> None:
    for name, value in more.items():
        to[name] = to.get(name, 0) + value
