"""The headline is one sentence, and says nothing that the decision does not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fixtures.report import build

from holdfast.analysis.results import ArmInfo, Decision, Results, Share
from holdfast.analysis.story import story
from holdfast.report import markdown
from holdfast.report import write as html
from holdfast.report.headline import headline


def answered(answer: str, **changes: object) -> Results:
    """The fixture with another decision."""
    made = build().decision
    assert made is not None
    return replace(build(), decision=replace(made, answer=answer, **changes))


def compared(*diffs: tuple[str, float], answer: str = "", n: int = 100) -> Results:
    """A comparison of base and one tuned model with these changes, by task."""
    results = build()
    tasks = {task.name: task for task in results.tasks}
    wanted = dict(diffs)
    cells = []
    for cell in results.cells:
        if cell.arm not in ("base", "sft") or cell.step not in (0, 160) or cell.scale != 1:
            continue
        if cell.task in wanted and cell.arm == "sft":
            mean = wanted[cell.task]
            cell = replace(cell, diff=Share(mean, mean - 0.02, mean + 0.02, n), step=0, flips=None)
        if cell.task in wanted:
            cells.append(cell)
    arms = tuple(
        ArmInfo(arm.name, arm.recipe) for arm in results.arms
        if arm.name in ("base", "sft")
    )  # fmt: skip
    kept = [replace(tasks[name], role="retained") for name in wanted]
    made = Decision(answer, "why", "rule") if answer else None
    return replace(
        results, seeds=(), arms=arms, cells=tuple(cells), tasks=tuple(kept), decision=made,
        noise=(), dose=(), meters=(), fronts=(), replies=(),
    )  # fmt: skip


def test_it_names_what_was_forgotten_and_who_kept_it() -> None:
    said = headline(build())
    assert said.en == (
        "sft learned word-problems but forgot hazards and everyday-help; replay kept them and may "
        "be shipped."
    )
    assert said.zh.startswith("sft 学会了 word-problems，但忘记了 hazards 和 everyday-help；replay")


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        ("do not ship", "; no model may be shipped."),
        ("not enough evidence", "; no model may be shipped yet."),
    ],
)
def test_it_ships_nothing_that_the_decision_does_not(answer: str, end: str) -> None:
    assert headline(answered(answer, chosen=None)).en.endswith(end)


def test_a_loss_within_the_rule_is_not_called_kept() -> None:
    made = build().decision
    assert made is not None and made.chosen is not None
    changes = {**made.chosen.changes, "hazards": Share(-0.03, -0.04, -0.01, 100)}
    said = headline(answered("ship", chosen=replace(made.chosen, changes=changes))).en
    assert said.endswith("; replay stays within the rule and may be shipped.")


def test_the_first_arm_itself_may_be_shipped() -> None:
    made = build().decision
    assert made is not None and made.chosen is not None
    said = headline(answered("ship", chosen=replace(made.chosen, arm="sft"))).en
    assert said.endswith("; a checkpoint of it that stays within the rule may be shipped.")


def test_without_a_decision_the_first_arm_that_forgot_nothing_is_named() -> None:
    said = headline(replace(build(), decision=None)).en
    assert said.endswith("; replay shows no such loss."), said


@pytest.mark.parametrize(
    ("diffs", "answer", "said"),
    [
        ([("hazards", -0.3), ("everyday-help", 0.1)], "",
         "sft gained on everyday-help but lost hazards."),
        ([("hazards", -0.3)], "not kept", "sft lost hazards; what had to be kept was not."),
        ([("hazards", 0.0)], "kept",
         "sft shows no clear change; all that had to be kept was kept."),
        ([("hazards", 0.0)], "not enough evidence",
         "sft shows no clear change; whether enough was kept is open."),
        ([("hazards", 0.2)], "", "sft gained on hazards and lost nothing measurable."),
    ],
)  # fmt: skip
def test_a_comparison_is_told_by_gains_and_losses(
    diffs: list[tuple[str, float]], answer: str, said: str
) -> None:
    assert headline(compared(*diffs, answer=answer)).en == said


@pytest.mark.parametrize("trained", [True, False])
def test_a_loss_by_its_interval_alone_is_not_called_none(trained: bool) -> None:
    """Not beyond chance once all are counted: neither forgotten nor without a loss."""
    results = build() if trained else compared(("hazards", -0.3), ("everyday-help", 0.1))
    cells = tuple(replace(one, p_holm=0.2) for one in results.cells)
    said = headline(replace(results, cells=cells)).en
    if trained:
        assert " and may have forgotten hazards" in said and "measurable" not in said
    else:
        assert said == "sft gained on everyday-help and may have lost hazards."


@pytest.mark.parametrize(("mean", "said"), [(-0.445, "may have forgotten hazards"),
                                            (-0.05, "may have forgotten hazards"),
                                            (-0.02, "with no measurable loss"),
                                            (0.1, "with no measurable loss")])  # fmt: skip
def test_a_loss_that_seeds_disagree_on_is_not_called_none(mean: float, said: str) -> None:
    """Three seeds, of which one forgot little: the interval is as wide as the scale."""
    wide = Share(mean, -0.963, 0.2, 100)
    none = replace(wide, mean=0.0)
    diffs = {"hazards": wide, "everyday-help": none}
    cells = [
        replace(one, diff=diffs[one.task], p_holm=0.4) if one.task in diffs and one.diff else one
        for one in build().cells
    ]
    assert said in headline(replace(build(), cells=tuple(cells))).en


def test_an_arm_that_may_have_lost_it_too_is_not_named_for_keeping_it() -> None:
    wide = Share(-0.3, -0.7, 0.1, 100)
    cells = [
        replace(one, diff=wide, p_holm=0.4) if one.arm != "sft" and one.diff else one
        for one in build().cells
    ]
    said = headline(replace(build(), decision=None, cells=tuple(cells))).en
    assert "forgot" in said and "no such loss" not in said


def test_many_tasks_are_counted() -> None:
    results = build()
    names = [f"t{number}" for number in range(5)]
    tasks = [replace(results.tasks[1], name=name) for name in names]
    cells = [
        replace(results.cell(arm, step, "hazards"), task=name)
        for name in names
        for arm, step in (("base", 0), ("sft", 160))
    ]
    rest = [cell for cell in results.cells if cell.task == "word-problems"]
    lost = replace(results, tasks=(results.tasks[0], *tasks), cells=(*rest, *cells))
    assert "forgot 5 of 5 retained tasks" in headline(lost).en


def test_nothing_measured_is_said() -> None:
    assert headline(replace(build(), cells=())).en == (
        "Nothing was trained, or nothing could be scored."
    )
    assert story(replace(build(), cells=(), decision=None)).arm == ""


def test_the_same_sentence_stands_in_page_and_markdown() -> None:
    said = headline(build()).en
    assert f"**{said}**" in markdown.write(build()).replace("\\", "")
    page = html.render(build())
    assert page.index(said) < page.index(build().verdict) < page.index("<aside")


def test_a_comparison_speaks_of_models_and_not_of_checkpoints() -> None:
    results = compared(("hazards", -0.3), ("everyday-help", 0.1), answer="not kept")
    page = html.render(results).split("<body>")[1].split("<script>")[0]
    text = markdown.write(results)
    for wrong in ("final checkpoint", "Final checkpoint", "before training", "not trained here",
                  "Each arm", "Which checkpoint"):  # fmt: skip
        assert wrong not in page, wrong
        assert wrong not in text, wrong
    assert "What had to be kept" in page and ">Not kept<" in page
