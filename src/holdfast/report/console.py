"""What does a terminal show of a plan and of a result?"""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from holdfast.plan import BASE, Plan
from holdfast.report.markdown import difference, interval, shown, unscored
from holdfast.report.results import Results, Share, TaskInfo
from holdfast.stages import Step


def table(results: Results) -> Table:
    """Arms x tasks at the final checkpoint: the share, and below it the difference to the base."""
    found = Table(
        box=box.SIMPLE_HEAD,
        title=f"{results.name}: {results.model}. Final checkpoints, in %, with 95 % intervals;\n"
        "below each figure its paired difference to the untouched model, in points.",
        title_justify="left",
        padding=(0, 1),
    )
    found.add_column("arm", no_wrap=True)
    for task in results.tasks:
        found.add_column(f"{task.name}\n({task.role})", justify="right", no_wrap=True)
    for arm in results.arms:
        row = [arm.name]
        for task in results.tasks:
            cell = results.cell(arm.name, results.last_step(arm.name), task.name)
            text = _share(cell.score, task)
            if change := difference(cell.diff, task.inverted):
                text += f"\n{change.points} {change.interval}"
            row.append(text)
        found.add_row(*row)
    labels = [f"{task.name}: {task.label}" for task in results.tasks]
    spent = [
        f"{arm.name} {arm.steps} steps, {arm.supervised_tokens:,} supervised tokens"
        for arm in results.arms
        if arm.name != BASE
    ]
    found.caption = "\n".join([*labels, f"Budget: {'; '.join(spent)}."] if spent else labels)
    found.caption_justify = "left"
    return found


def _share(share: Share, task: TaskInfo) -> str:
    one = shown(share, task.inverted)
    if one.mean is None:
        return unscored(one)
    text = f"{100 * one.mean:.1f} {interval(one)}"
    return f"{text}\n{unscored(one)}" if one.unscored else text


def dry_run_text(plan: Plan, steps: Sequence[Step]) -> str:
    """What would run, and what is done already."""
    train = plan.study.train
    lines = [
        f"Study {plan.study.name}: {plan.study.model.id}",
        f"Run folder {plan.folder}",
        f"Training: {train.method}, {plan.steps} steps of {train.batch_size} examples "
        f"({len(plan.plain)} in the training set of {plan.study.target}), "
        f"checkpoints after {', '.join(map(str, plan.save_at))}",
        "Measured: "
        + ", ".join(f"{name} ({len(asked)} items)" for name, asked in plan.asked.items()),
        "",
        *(f"  {'done' if step.done else 'run '}  {step.stage.name}" for step in steps),
        "",
        f"{sum(step.done for step in steps)} of {len(steps)} stages are done.",
    ]
    return "\n".join(lines)
