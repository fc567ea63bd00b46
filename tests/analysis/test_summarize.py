"""Do readings add up to the right figures and the right sentence?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.analysis.arrays import Measured
from holdfast.analysis.cells import all_cells, cells
from holdfast.analysis.results import ArmInfo, Choice, Decision, TaskInfo
from holdfast.analysis.summarize import RunData, assemble
from holdfast.types import Reading

TASKS = [
    TaskInfo("maths", "target", "accuracy", 100, ""),
    TaskInfo("safety", "retained", "unsafe rate by judge x", 100, "", inverted=True),
]


def _readings(good: int, n: int = 100, unscored: int = 0) -> list[Reading]:
    values = [1.0] * good + [0.0] * (n - good - unscored) + [None] * unscored
    return [
        Reading(f"i{i}", 0, value, "x" if value else "y", "", "ab"[i % 2])
        for i, value in enumerate(values)
    ]


def _measured(**arms: tuple[int, int]) -> list[Measured]:
    return [
        Measured(arm, 0 if arm == "base" else 9, task, [_readings(good)])
        for arm, goods in arms.items()
        for task, good in zip(("maths", "safety"), goods, strict=True)
    ]


def _verdict(decision: Decision | None = None, **arms: tuple[int, int]) -> str:
    infos = [ArmInfo(name, "") for name in arms]
    run = RunData("s", "m", [1], TASKS, infos, _measured(**arms), {}, decision=decision)
    return assemble(run).verdict


def test_seeds_that_see_the_same_questions_are_said() -> None:
    measured = _measured(base=(0, 9), self=(1, 9))
    arms = [ArmInfo("base", ""), ArmInfo("self", "")]
    several = RunData("s", "m", [1, 2], TASKS, arms, measured, {}, alike=["self"])
    (said,) = [one for one in assemble(several).warnings if one.startswith("self: all seeds")]
    assert "too good" in said
    for other in (replace(several, alike=()), replace(several, seeds=[1])):
        assert not any("all seeds are" in one for one in assemble(other).warnings)


def test_figures() -> None:
    base, _, tuned, safety = cells(_measured(base=(40, 90), sft=(80, 50)))
    assert base.score.mean == 0.4
    assert base.diff is None
    assert tuned.diff is not None
    assert tuned.diff.mean == pytest.approx(0.4)
    assert tuned.diff.low is not None
    assert tuned.diff.low > 0.25
    assert safety.diff is not None
    assert safety.diff.mean == pytest.approx(-0.4)
    assert set(safety.groups) == {"a", "b"}
    assert safety.groups["a"].n == 50
    assert safety.outcomes == {"x": 50, "y": 50}


def test_items_are_matched_by_id_not_by_place() -> None:
    base = Measured("base", 0, "maths", [_readings(40)])
    shuffled = Measured("sft", 9, "maths", [list(reversed(_readings(40)))])
    assert cells([base, shuffled])[1].diff.mean == 0.0  # type: ignore[union-attr]


def test_the_sentence_says_what_the_first_arm_changed_and_no_more_than_the_decision() -> None:
    arms = {"base": (40, 95), "sft": (85, 40), "replay": (80, 94), "self": (45, 95)}
    said = _verdict(**arms)
    assert said.startswith("sft gained 45.0 points [+")
    assert "and lost 55.0 points [\u2212" in said
    assert "replay" not in said  # nothing is praised that the rule was not put to
    decision = Decision(
        "not enough evidence", "why", "rule", summary="No model may be shipped yet."
    )
    assert _verdict(decision, **arms) == said.replace(
        "on safety.", "on safety. No model may be shipped yet."
    )


def test_the_sentence_without_arms() -> None:
    assert "Nothing was trained" in _verdict(base=(40, 95))


def test_unscored_is_counted_and_warned_of() -> None:
    measured = _measured(base=(40, 90), sft=(80, 50))
    measured[3] = Measured("sft", 9, "safety", [_readings(50, unscored=20)])
    results = assemble(
        RunData("s", "m", [1], TASKS, [ArmInfo("base", ""), ArmInfo("sft", "")], measured, {})
    )
    assert results.cell("sft", 9, "safety").score.unscored == 20
    assert results.cell("sft", 9, "safety").score.n == 80
    assert any("20% of the replies of sft" in one for one in results.warnings)


@pytest.mark.parametrize(
    ("right", "said"), [(0, "only at the form of the answer"), (100, "leaves little room to gain")]
)
def test_no_room_is_warned_of(right: int, said: str) -> None:
    arms = [ArmInfo("base", ""), ArmInfo("sft", "")]
    measured = _measured(base=(right, 9), sft=(1, 9))
    results = assemble(RunData("s", "m", [1], TASKS, arms, measured, {}))
    assert any(said in one for one in results.warnings)


def test_an_arm_that_could_not_be_judged_is_said_to_be_so() -> None:
    measured = _measured(base=(40, 90), sft=(90, 0), replay=(70, 70))
    measured[3] = Measured("sft", 9, "safety", [_readings(0, unscored=100)])
    arms = [ArmInfo(name, "") for name in ("base", "sft", "replay")]
    said = assemble(RunData("s", "m", [1], TASKS, arms, measured, {})).verdict
    assert "safety could not be judged" in said
    assert "sft gained" in said


def test_replies_are_counted_over_seeds_and_samples() -> None:
    rows = [_readings(50, unscored=1), _readings(50, unscored=1)]
    found = cells([_measured(base=(40, 90))[0], Measured("sft", 9, "maths", rows)])[1].score
    assert (found.n, found.unscored) == (198, 2)


def test_replies_of_groups_and_outcomes_are_counted_likewise() -> None:
    """Five items, two seeds; one reply of the second could not be told."""

    def run(unsure: bool) -> list[Reading]:
        told = [
            Reading(f"i{number}", 0, 1.0, "safe refusal", "", "g" if number < 3 else "h")
            for number in range(5)
        ]
        return [replace(told[0], value=None, outcome="unsure"), *told[1:]] if unsure else told

    base = Measured("base", 0, "t", [run(False)])
    tuned = Measured("sft", 1, "t", [run(False), run(True)], seeds=(1, 2))
    cell = all_cells([base, tuned], ["other"])[1]
    for share, scored in (
        (cell.score, 9),
        (cell.groups["g"], 5),
        (cell.outcome_shares["unsafe"], 9),
        (cell.group_outcomes["g"]["safe refusal"], 5),
    ):
        assert (share.n, share.unscored) == (scored, 1)
    assert cell.groups["h"].n == cell.group_outcomes["h"]["unsafe"].n == 4


def test_withheld_replies_are_warned_of() -> None:
    measured = _measured(base=(40, 90), sft=(80, 50))
    gone = [Reading(f"i{i}", 0, None, "withheld") for i in range(100)]
    measured[2] = Measured("sft", 9, "maths", [[*gone[:20], *_readings(80)[20:]]])
    arms = [ArmInfo("base", ""), ArmInfo("sft", "")]
    (note,) = [
        one
        for one in assemble(RunData("s", "m", [1], TASKS, arms, measured, {})).warnings
        if "withheld" in one
    ]
    assert "20% of the replies of sft at step 9 (20 of 100) were withheld" in note
    assert "Likewise" not in note
    measured[0] = Measured("base", 0, "maths", [[*gone[:1], *_readings(40)[1:]]])
    warned = assemble(RunData("s", "m", [1], TASKS, arms, measured, {})).warnings
    assert any(
        "filter; they are unscored. Likewise some of the replies of base." in w for w in warned
    )


def test_cut_off_replies_are_warned_of() -> None:
    measured = _measured(base=(40, 90), sft=(80, 50))
    measured[2] = Measured("sft", 9, "maths", [_readings(80)], cut_off=30)
    arms = [ArmInfo("base", ""), ArmInfo("sft", "")]
    results = assemble(RunData("s", "m", [1], TASKS, arms, measured, {}))
    assert any("30% of the replies of sft at step 9 were cut" in one for one in results.warnings)


def test_thinking_is_told_of() -> None:
    measured = _measured(base=(40, 90), sft=(80, 50))
    measured[0] = Measured("base", 0, "maths", [_readings(40)], thinking_tokens=1312.4)
    measured[2] = Measured(
        "sft", 9, "maths", [_readings(80)], cut_off=3, thinking_cut=3, thinking_tokens=20.0
    )
    arms = [ArmInfo("base", ""), ArmInfo("sft", "")]
    notes = assemble(RunData("s", "m", [1], TASKS, arms, measured, {})).warnings
    assert any("3 of 100 replies of sft at step 9 were cut off while thinking" in n for n in notes)
    assert any("on average: base 1,312, sft 20." in n for n in notes)
    assert not any("safety: tokens thought" in n for n in notes)


def test_the_headline_says_why_the_first_arm_is_passed_over() -> None:
    chosen = Choice("replay", 1, 9, 1.0, {}, {}, True)
    why = "sft, seed 1, step 9 is not allowed: it loses more than 2 points on safety"
    decision = Decision(
        "ship", "why", "rule", chosen=chosen, summary="replay, seed 1, step 9 may be shipped.",
        passed={"sft": f"{why} (-55.0 points)."},
    )  # fmt: skip
    said = _verdict(decision, base=(40, 95), sft=(85, 40), replay=(80, 94))
    assert f"replay, seed 1, step 9 may be shipped. {why}." in said
    assert "55.0 points)" not in said, "figures stand in the decision"
