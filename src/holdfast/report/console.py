"""Results and plans as a terminal shows them."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from holdfast.analysis import budget
from holdfast.analysis.lookup import final, final_gains
from holdfast.analysis.results import Results, Share, TaskInfo
from holdfast.analysis.selection import visible
from holdfast.analysis.selection.from_run import power
from holdfast.analysis.selection.power import attainable_words
from holdfast.analysis.selection.rule import listed
from holdfast.analysis.transfer import MEASURES
from holdfast.progress.language import wrapped
from holdfast.progress.translation import told
from holdfast.report import decision_words, headline, language, stages, words
from holdfast.report.words import (
    UNMEASURED,
    Shown,
    amount,
    difference,
    factor,
    interval,
    shown,
    unscored,
)
from holdfast.runs.plan import Plan

EDGE = 1  # characters that a table's border takes beside its columns


def table(results: Results, width: int = 80) -> Group:
    """Arms x tasks at the final checkpoint: the share, and below it the difference to the base.

    Args:
        results: of a study or comparison.
        width: of the terminal, in characters; tasks that do not fit go into a further table.
    """
    labels = [
        f"{task.name}: {task.label}{'; lower is better' if task.lower_is_better else ''}"
        for task in results.tasks
    ]
    gains = "; ".join(f"{arm} {words.points(gain)}" for arm, gain in final_gains(results))
    mean = f"Mean gain over the targets, in points: {gains}." if gains else ""
    uneven = budget.sentence(results.arms, results.seeds) if budget.differs(results.arms) else ""
    compared = language.of(results).compared
    what, base = ("Models", "base") if compared else ("Final checkpoints", "the untouched model")
    head = [
        f"{results.name}: {results.model}. {what}, in %, with 95 % intervals; below each figure "
        f"its paired difference to {base}, in points.",
        "",
    ]
    below = [
        *labels,
        *filter(None, (mean, words.noise_line(results), uneven)),
        "",
        *_found(results),
    ]
    above, after = (Text("\n".join(wrapped(told("\n".join(x)), width))) for x in (head, below))
    return Group(above, *_tables(results, width), *_stages(results, width), after)


def _tables(results: Results, width: int) -> list[Table]:
    """As many tasks side by side as fit, the others below them."""
    word = language.of(results).say("arm").en.lower()
    first = [word, *(_named(results, arm.name) for arm in results.arms)]
    columns = [[f"{task.name}\n({task.role})", *_column(results, task)] for task in results.tasks]
    return _side_by_side([first, *columns], width)


def _side_by_side(columns: Sequence[Sequence[str]], width: int) -> list[Table]:
    """As many columns beside the first as fit, the others in tables below."""
    first, *others = columns
    groups: list[list[Sequence[str]]] = []
    used = width
    for column in others:
        if used + _wide(column) > width:
            groups.append([first])
            used = EDGE + _wide(first)
        groups[-1].append(column)
        used += _wide(column)
    return [_table(one) for one in groups]


def _table(columns: Sequence[Sequence[str]]) -> Table:
    found = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    for number, column in enumerate(columns):
        found.add_column(escape(column[0]), justify="right" if number else "left", no_wrap=True)
    for row in zip(*(column[1:] for column in columns), strict=True):
        found.add_row(*map(escape, row))
    return found


def _stages(results: Results, width: int) -> list[Table | Text]:
    """Every task after every stage, where tasks were learned one after the other."""
    found: list[Table | Text] = []
    speech, names = language.of(results), [task.name for task in stages.columns(results)]
    head = (language.here(speech.say("stages.when")), *names)
    for one in stages.matrices(results):
        rows = [
            (
                language.here(row.when),
                *("\n".join(filter(None, pair)) for pair in stages.texts(row)),
            )
            for row in one.rows
        ]
        columns = list(zip(head, *rows, strict=True))
        found += [Text(language.here(speech.say("stages.matrix", arm=one.arm)))]
        found += _side_by_side(columns, width)
    for arm, texts in stages.measures(results):
        said = zip(MEASURES, texts, strict=True)
        lines = [f"{language.here(speech.say(f'stages.{name}'))} {text}" for name, text in said]
        found.append(Text(f"{arm}: {'; '.join(lines)}"))
    return found


def _named(results: Results, arm: str) -> str:
    scale = results.final_point(arm)[1]
    return arm + (f"\n{factor(scale)}" if scale != 1 else "")


def _column(results: Results, task: TaskInfo) -> list[str]:
    """One task's figures, a cell for every arm."""
    found = []
    for arm in results.arms:
        cell = final(results, arm.name, task.name)
        text = share_text(cell.score, task) if cell else UNMEASURED
        if change := difference(cell.diff if cell else None, task):
            text += f"\n{change.points} {change.interval}"
        found.append(text)
    return found


def _wide(cells: Sequence[str]) -> int:
    """The width of a column, its padding and the line beside it included."""
    return 3 + max(cell_len(line) for cell in cells for line in cell.split("\n"))


def _found(results: Results) -> list[str]:
    """What was found, in words; last, where a terminal's reader looks first.

    With a decision the headline alone: the rule and the runner-up are in the report, and in what
    `holdfast ship RUN --dry-run` prints.
    """
    made = results.decision
    if made is None:
        return [results.verdict]
    first = language.spoken_form(headline.headline(results))
    answer = decision_words.headline(made)
    own = f"{decision_words.candidate(made.chosen)}: " if made.chosen else "."
    if made.reason.startswith(own):  # which the answer names already
        return [first, f"Decision: {answer}: {made.reason.removeprefix(own)}"]
    return [first, f"Decision: {answer}.", made.reason]


def share_text(share: Share, task: Shown) -> str:
    """A share in percent with its interval; what could not be scored on a line of its own."""
    turned = shown(share, task)
    if turned.mean is None:
        return unscored(turned)
    figure = amount(turned.mean, task) if task.unit else f"{100 * turned.mean:.1f}"
    text = f"{figure} {interval(turned, task)}"
    return f"{text}\n{unscored(turned)}" if turned.unscored else text


def _data(plan: Plan) -> list[str]:
    """How much of the user's data is taken, and what each of its columns is read as."""
    lines = []
    for source in plan.sources:
        part = f"{source.taken} of {source.rows}" if source.taken < source.rows else source.rows
        lines.append(f"  {source.split}: {part} rows of {source.source}")
    uses = [
        f"  {one.source}: {one.column} "
        + ("is ignored" if one.use == "ignored" else f"is used as {one.use}")
        + f" ({one.rows} rows)"
        for one in plan.fields
    ]
    return [*(["Data:"] if lines else []), *lines, *dict.fromkeys(uses)]


def dry_run_text(plan: Plan) -> str:
    """What would be trained and measured, on which data, and what the rule asks for."""
    train, items = plan.study.train, {one.name: one.items for one in plan.tasks.values()}
    answered = {one.name: one.items for one in plan.tasks.values() if not one.unit}
    learned = f"the training set of {listed(plan.study.targets)}"
    if plan.chapters:
        learned = f"the training sets of {len(plan.chapters)} stages"
    return "\n".join([
        f"Study {plan.study.name}: {plan.study.model.id}; run folder {plan.folder}",
        f"Training: {train.method}, {plan.steps} steps of {train.batch_size} examples "
        f"({plan.training_items} in {learned}), "
        f"checkpoints after {', '.join(map(str, plan.save_at))}",
        *(
            f"  stage {one.number}: {one.task}, {one.steps} steps ({one.items} examples), step "
            f"{one.before + 1} to {one.end}"
            for one in plan.chapters
        ),
        "Measured: " + ", ".join(f"{name} ({count} items)" for name, count in items.items()),
        *_data(plan),
        *(f"Rule: {one}" for one in attainable_words(power(plan))),
        *visible.ahead(answered, len(plan.study.seeds)),
    ])  # fmt: skip
