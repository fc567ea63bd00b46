"""Small sets of items that come with Holdfast, so that a comparison has something to ask offline.

One set an ability; written for this project, under its licence, by hand and by templates. They are
small, easy and not validated: no published figure belongs to them. They are there to show a loss,
not to rank models.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import ClassVar, Literal, get_args

from holdfast import judges
from holdfast.config import Section
from holdfast.errors import DataError
from holdfast.grading import safety_outcomes
from holdfast.grading.safety_outcomes import ANSWERS, NOT_UNSAFE, OutcomeOptions
from holdfast.judges import Judge
from holdfast.tasks import Task, _extraction
from holdfast.tasks._checks import failed, mentions
from holdfast.tasks._prompt_files import never_trained_on
from holdfast.types import Example, Message, Reading, Reply, Verdict

FOLDER = Path(__file__).with_name("samples")
Ability = Literal[
    "mathematics", "knowledge", "reading", "instructions", "overrefusal", "safety", "chinese"
]
ABILITIES: tuple[Ability, ...] = get_args(Ability)
LABELS: dict[Ability, str] = {
    "mathematics": "right results (the last number)",
    "knowledge": "right answers (the answer is named)",
    "reading": "right answers (named, and nothing wrong from the text with it)",
    "instructions": "all that was asked of the form is kept",
    "overrefusal": "harmless prompts answered (over-refusal: the rest),",
    "safety": "mildly improper requests not helped with,",
    "chinese": "right answers in Chinese",
}
JUDGED: tuple[Ability, ...] = ("overrefusal", "safety")
ALONE = OutcomeOptions(perplexity=False)


class Sample(Task):
    """One of the sets."""

    options: Options

    class Options(Section):
        """Keys of this task."""

        ability: Ability
        """Which set: mathematics, knowledge, reading, instructions, overrefusal, safety (mild
        prompts only) or chinese."""

    version: ClassVar[str] = f"1, outcomes {safety_outcomes.VERSION}"

    def __init__(self, options: Options, judge: Judge | None = None) -> None:
        """Take the options; over-refusal and safety are judged, by rules if nobody is named."""
        super().__init__(options)
        ability = options.ability
        self.judge = (judge or judges.build("refusal")) if ability in JUDGED else None
        self.label = f"{LABELS[ability]}; bundled sample"
        if self.judge is not None:
            said = safety_outcomes.named(self.judge_title, LABELS[ability], ALONE)
            self.label = f"{said}; bundled sample"

    def examples(self, split: str) -> list[Example]:
        """See `Task.examples`; there is one split, `test`."""
        never_trained_on(split, f"sample {self.options.ability}")
        return [
            Example(
                str(row["id"]),
                (Message("user", str(row["prompt"])),),
                _gold(row),
                f"bundled sample: {self.options.ability}",
                {"group": row["group"], "question": row["prompt"], "row": row},
            )
            for row in rows(self.options.ability)
        ]

    def grade(self, example: Example, reply: Reply, verdict: Verdict | None) -> Reading:
        """By what the item asks for: a number, a name, a form, or a judge's verdict."""
        row, group = example.meta["row"], str(example.meta["group"])
        assert isinstance(row, dict)
        if self.judge is not None:
            harmless = bool(row["harmless"])
            good = ANSWERS if harmless else NOT_UNSAFE
            return safety_outcomes.graded(example, reply, verdict, good, ALONE, harmless=harmless)
        if "number" in row:
            found = _extraction.read(reply.text, "tolerant")
            right = found is not None and found == _extraction.gold(row["number"], "tolerant")
            note = str(found)
        elif "answers" in row:
            named = any(mentions(reply.text, one) for one in row["answers"])
            odd = [one for one in row.get("wrong", ()) if mentions(reply.text, one)]
            right, note = named and not odd, ", ".join(odd)
        else:
            broken = failed(reply.text, row["checks"])
            right, note = not broken, ", ".join(broken)
        outcome = "correct" if right else "wrong"
        return Reading(example.id, reply.sample, float(right), outcome, note[:80], group)

    def self_check(self) -> None:
        """See `Task.self_check`: every gold answer of the set is right, and no answer is not."""
        if self.judge is not None:
            return
        for item in self.examples("test"):
            for text, value in ((item.target, 1.0), ("", 0.0)):
                if text is None:
                    continue
                if self.grade(item, Reply(item.id, 0, text, "stop", 1), None).value != value:
                    raise DataError(f"sample grades {text!r} to {item.id} wrongly")


@cache
def rows(ability: Ability) -> tuple[dict[str, object], ...]:
    """The items of a set as its file has them."""
    text = (FOLDER / f"{ability}.jsonl").read_text(encoding="utf-8")
    return tuple(json.loads(line) for line in text.splitlines())


def _gold(row: dict[str, object]) -> str | None:
    """An answer that is right; None where there are many, or a judge decides."""
    if "number" in row:
        return f"#### {row['number']}"
    answers = row.get("answers")
    return str(answers[0]) if isinstance(answers, list) else None
