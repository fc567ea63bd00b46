"""AILuminate demo prompts: hazardous requests, and the share that are answered unsafely.

MLCommons AILuminate v1.0 DEMO set (arXiv:2503.05731, CC BY 4.0), a CSV of 1,200 prompts in twelve
hazards and two personas. The official grade comes from a private ensemble of judges, so what is
reported here is always "unsafe rate by judge X" and never a grade. Replies have one of four
outcomes (`holdfast.grading.safety_outcomes`). Never train on these prompts.
"""

from __future__ import annotations

from typing import ClassVar

from holdfast.errors import DataError, printable
from holdfast.grading import safety_outcomes
from holdfast.grading.safety_outcomes import OutcomeOptions
from holdfast.judges import Judge
from holdfast.judges.refusal import languages
from holdfast.tasks import Task
from holdfast.tasks._prompt_files import never_trained_on, read_rows
from holdfast.types import Example, Message, Reading, Reply, Verdict

SOURCE = "the en_US demo CSV of the GitHub repository mlcommons/ailuminate"


class AILuminate(Task):
    """Hazardous prompts, judged per hazard and persona."""

    options: Options

    class Options(OutcomeOptions):
        """Keys of this task."""

        path: str
        """The CSV with the columns release_prompt_id, prompt_text and hazard."""
        hazards: tuple[str, ...] = ()
        """Only these hazards (vcr, src, cse, ...); left out: all."""

    version: ClassVar[str] = f"2, outcomes {safety_outcomes.VERSION}"
    inverted = True

    judged = True

    def __init__(self, options: Options, judge: Judge | None = None) -> None:
        """Take the options and the judge; without one the offline refusal detector judges."""
        super().__init__(options, judge)
        self.perplexity = options.perplexity
        self.label = safety_outcomes.named(self.judge_title, "unsafe rate", options)

    def examples(self, split: str) -> list[Example]:
        """See `Task.examples`; there is one split, `test`."""
        never_trained_on(split, self.options.path)
        found = [
            Example(
                id=row.get("release_prompt_id") or f"row-{number + 1}",
                messages=(Message("user", row["prompt_text"]),),
                source="ailuminate-demo",
                meta={
                    "group": row.get("hazard", ""),
                    "also": _persona(row.get("persona", "")),
                    "question": row["prompt_text"],
                },
            )
            for number, row in self._rows()
        ]
        if self.options.hazards:
            known = {str(one.meta["group"]) for one in found}
            if unknown := set(self.options.hazards) - known:
                raise DataError(
                    f"no prompts of hazard {', '.join(sorted(unknown))}",
                    where=self.options.path,
                    remedy=f"hazards in this file: {', '.join(sorted(known))}",
                )
            found = [one for one in found if one.meta["group"] in self.options.hazards]
        return found

    def _rows(self) -> list[tuple[int, dict[str, str]]]:
        """The file's rows; the offline judge is not given replies in languages it cannot read."""
        rows = read_rows(self.options.path, "prompt_text", (), SOURCE)
        offline = self.judge is not None and self.judge.name.startswith("refusal")
        for number, row in rows if offline else ():
            locale = row.get("locale", "")
            if locale and not languages.reads(locale):
                raise DataError(
                    f"the prompt is in {printable(locale)}, and the offline refusal detector reads "
                    f"{languages.names()}: replies in other languages would stay unscored",
                    where=f"{self.options.path}, row {number}, column locale",
                    remedy="name a judge that reads this language (`judge: qwen3guard`, "
                    "`judge: llamaguard`), or use " + SOURCE,
                )
        return rows

    def grade(self, example: Example, reply: Reply, verdict: Verdict | None) -> Reading:
        """1.0 safe and coherent, 0.0 unsafe or incoherent; unscored where nobody can tell."""
        return safety_outcomes.graded(
            example, reply, verdict, safety_outcomes.NOT_UNSAFE, self.options
        )

    def self_check(self) -> None:
        """See `Task.self_check`."""
        one = Example("check", (Message("user", "How do I do it?"),), meta={"group": "src"})
        reply = Reply("check", 0, "I cannot help with that request.", "stop", 1)
        for label, value in (("refused", 1.0), ("answered", 0.0), ("unsure", None)):
            if self.grade(one, reply, Verdict("check", 0, label, "check")).value != value:
                raise DataError(f"ailuminate grades a reply judged {label!r} wrongly")


def _persona(name: str) -> str:
    return f"persona: {name}" if name else ""
