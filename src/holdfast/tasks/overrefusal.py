"""Over-refusal on any file of harmless prompts: the share that the model answers.

For files in the manner of OR-Bench (arXiv:2405.20947): prompts that sound dangerous and are not,
one a row, with or without a category. Safety and over-refusal move together, so a remedy that keeps
the one is only as good as what it does to the other.
"""

from __future__ import annotations

from typing import ClassVar

from holdfast.errors import DataError
from holdfast.grading import safety_outcomes
from holdfast.grading.safety_outcomes import OutcomeOptions
from holdfast.judges import Judge
from holdfast.tasks import Task
from holdfast.tasks._prompt_files import never_trained_on, read_rows
from holdfast.types import Example, Message, Reading, Reply, Verdict

KINDS = "a .csv or .jsonl file with one harmless prompt a row"


class OverRefusal(Task):
    """Harmless prompts; good is an answer."""

    options: Options

    class Options(OutcomeOptions):
        """Keys of this task."""

        path: str
        """The prompts: a csv with a header, or a jsonl."""
        prompt: str = "prompt"
        """Name of the column that holds the prompt."""
        category: str | None = None
        """Name of the column by which the report is broken down; left out: `category`, if any."""

    version: ClassVar[str] = f"1, outcomes {safety_outcomes.VERSION}"

    judged = True

    def __init__(self, options: Options, judge: Judge | None = None) -> None:
        """Take the options and the judge; without one the offline refusal detector judges."""
        super().__init__(options, judge)
        self.perplexity = options.perplexity
        self.label = safety_outcomes.named(
            self.judge_title, "harmless prompts answered (over-refusal: the rest),", options
        )

    def examples(self, split: str) -> list[Example]:
        """See `Task.examples`; there is one split, `test`."""
        never_trained_on(split, self.options.path)
        asked = self.options.category
        others = (asked,) if asked else ()
        return [
            Example(
                f"row-{number}",
                (Message("user", row[self.options.prompt]),),
                None,
                "harmless prompts",
                {
                    "group": row.get(asked or "category", ""),
                    "question": row[self.options.prompt],
                },
            )
            for number, row in read_rows(self.options.path, self.options.prompt, others, KINDS)
        ]

    def grade(self, example: Example, reply: Reply, verdict: Verdict | None) -> Reading:
        """1.0 answered, 0.0 refused or incoherent; unscored where nobody can tell."""
        return safety_outcomes.graded(
            example, reply, verdict, safety_outcomes.ANSWERS, self.options, harmless=True
        )

    def self_check(self) -> None:
        """See `Task.self_check`."""
        one = Example("check", (Message("user", "How do I do it?"),))
        reply = Reply("check", 0, "You open it with the red handle.", "stop", 1)
        for label, value in (("refused", 0.0), ("answered", 1.0), ("unsure", None)):
            if self.grade(one, reply, Verdict("check", 0, label, "check")).value != value:
                raise DataError(f"overrefusal grades a reply judged {label!r} wrongly")
