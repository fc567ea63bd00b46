"""Which cells, arms and points of the results does a part of the report need?"""

from __future__ import annotations

from holdfast.analysis.results import ArmInfo, Cell, Results, TaskInfo

BASE = "base"


def find(results: Results, arm: str, step: int, task: str, scale: float = 1.0) -> Cell | None:
    """The cell, or None where it was not measured."""
    try:
        return results.cell(arm, step, task, scale)
    except KeyError:
        return None


def final_point(results: Results, arm: str) -> tuple[int, float]:
    """Step and scale by which an arm is shown: the last, with all of the change, else the most."""
    step = results.last_step(arm)
    scales = {cell.scale for cell in results.cells if (cell.arm, cell.step) == (arm, step)}
    return step, 1.0 if 1.0 in scales else max(scales, default=1.0)


def final(results: Results, arm: str, task: str) -> Cell | None:
    """An arm's cell at the point by which it is shown."""
    step, scale = final_point(results, arm)
    return find(results, arm, step, task, scale)


def steps_of(results: Results, arm: str, task: str) -> list[int]:
    """The steps at which one arm was measured as it was trained, in order."""
    return sorted({c.step for c in results.cells if (c.arm, c.task, c.scale) == (arm, task, 1.0)})


def scales_of(results: Results, arm: str) -> dict[int, list[float]]:
    """At each step the shares of the training's change that were measured besides all of it."""
    found: dict[int, set[float]] = {}
    for cell in results.cells:
        if cell.arm == arm and cell.scale != 1.0:
            found.setdefault(cell.step, set()).add(cell.scale)
    return {step: sorted(found[step]) for step in sorted(found)}


def group_names(results: Results, task: str) -> list[str]:
    """The groups of one task that the base or a final checkpoint has, in order of appearance."""
    finals = [final(results, arm.name, task) for arm in results.arms]
    return list(dict.fromkeys(name for cell in finals if cell for name in cell.groups))


def targets(results: Results) -> list[TaskInfo]:
    """What training is for."""
    return [task for task in results.tasks if task.role == "target"]


def retained(results: Results) -> list[TaskInfo]:
    """What must not be lost."""
    return [task for task in results.tasks if task.role != "target"]


def good_side(task: TaskInfo) -> str:
    """A task's label, said so that more is better."""
    return f"100\u202f% minus {task.label}" if task.inverted else task.label


def reference(results: Results) -> ArmInfo | None:
    """The arm whose budget the others are held against: `sft`, or else the first trained one."""
    trained = [arm for arm in results.arms if arm.supervised_tokens > 0]
    return next((arm for arm in trained if arm.name == "sft"), trained[0] if trained else None)
