"""Do the words of a report and of a dry run say what is meant?"""

from __future__ import annotations

from holdfast.report import words
from holdfast.runs.stages import PlannedStage, Step


def test_what_the_base_is_asked_is_said_beforehand() -> None:
    def step(done: bool, **asks: int) -> Step:
        planned = PlannedStage("shared/own", {}, (), asks or None)
        return Step(planned, "0", done)

    pool = {"questions": 400, "expected": 18, "samples": 1, "new_tokens": 64}
    drawn = {"questions": 60, "expected": 60, "samples": 4, "new_tokens": 96}
    assert words.asked([step(False, **pool), step(False, **drawn), step(True, **pool)]) == [
        "Asked for shared/own: 18 questions expected, 400 at most, up to 64 new tokens",
        "Asked for shared/own: 60 questions expected, 4 answers each, up to 96 new tokens",
    ]
    assert words.asked([step(False)]) == []
