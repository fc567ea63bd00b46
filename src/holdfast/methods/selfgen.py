"""Self-generated data: the model writes its own fine-tuning answers.

The base answers every training question `samples` times; an answer is kept when the task's own
grader says that it is right, the one that the base finds least surprising first (self-output,
arXiv:2501.14315; selective self-rehearsal, arXiv:2409.04787). Questions that the base cannot solve
are rewritten from the gold answer in the model's own words and checked again (SDFT,
arXiv:2402.13669), kept with the gold answer, or dropped, in the order that `unsolved` gives.

Questions are asked in the order in which plain training sees them, until their answers fill the
budget: for one that is dropped the next in that order is asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from holdfast.config import Sampling, Section
from holdfast.data.thinking import learned
from holdfast.engines import mean_nll
from holdfast.errors import DataError
from holdfast.grading.perplexity import SETTLED
from holdfast.methods import (
    EXAMPLES,
    DataMethod,
    MethodContext,
    SharedWork,
    _bound,
    _filling,
    _rewriting,
)
from holdfast.methods._context import asks
from holdfast.progress import Progress
from holdfast.runs import records, store
from holdfast.types import Example, Reply


class Selfgen(DataMethod):
    """Train on what the model itself says when it is right."""

    options: Options
    version = "2"

    class Options(Section):
        """Settings of ``selfgen``."""

        samples: int = Field(8, ge=1)
        """Answers drawn per question."""
        temperature: float = Field(0.7, ge=0)
        """Of the drawing; 0 with one sample is greedy."""
        top_p: float = Field(1.0, gt=0, le=1)
        """Nucleus."""
        keep: int = Field(1, ge=1)
        """Right answers kept per question, least surprising first."""
        unsolved: tuple[Literal["rewrite", "gold", "drop"], ...] = ("rewrite", "drop")
        """What becomes of questions without a right answer: tried in order."""

        @model_validator(mode="after")
        def _several_need_heat(self) -> Self:
            if self.samples > 1 and self.temperature == 0:
                raise ValueError("several samples at temperature 0 are all the same")
            return self

        @field_validator("unsolved", mode="before")
        @classmethod
        def _one_word(cls, value: object) -> object:
            return (value,) if isinstance(value, str) else value

    def recipe(self) -> str:
        """See `DataMethod.recipe`."""
        given = self.options
        return (
            f"self-generated answers ({given.samples} samples at temperature "
            f"{given.temperature:g}; unsolved: {', then '.join(given.unsolved)})"
        )

    def check(self, context: MethodContext) -> None:
        """Refuse training data that is not questions and answers in words."""
        _rewriting.check_questions("selfgen", context.plain)

    def shared(self, context: MethodContext) -> list[SharedWork]:
        """One stage: draw, grade, choose."""
        asked = [one.content for one in context.plain]
        identity = {
            "method": "selfgen",
            "version": self.version,
            "options": self.options.model_dump(),
            "sampling": self._sampling(context).model_dump(),
            "grader": _rewriting.grader(context.task),
            "questions": store.fingerprint(asked),
            **_filling.filling(context),
        }
        return [
            SharedWork(
                self._name(context),
                identity,
                lambda folder, bar: self._make(context, folder, bar),
                needs=(_bound.BUDGET,) if context.fills else (),
                need=0 if context.fills else 1,
                asks=asks(len(asked), self._expected(context), self._sampling(context)),
            )
        ]

    def apply(
        self, examples: Sequence[Example], context: MethodContext, made: Mapping[str, Path]
    ) -> tuple[list[Example], list[str]]:
        """Replace the answers of the target's questions.

        Examples of other kinds stay, and so does what a step before made of a question: one that it
        left out stays out, and one that it changed is another than the model was asked.
        """
        folder = made[self._name(context)]
        plain = {one.id: one for one in context.plain}
        own: dict[str, list[Example]] = {}
        for one in store.read_jsonl(folder / EXAMPLES, Example):  # of one question side by side
            asked = one.id if one.id in plain else next(reversed(own))
            own.setdefault(asked, []).append(one)
        if not own:
            raise DataError(
                "the model solved none of the training questions, so there is nothing to train on",
                where=str(folder),
                remedy="add `gold` to `unsolved`, draw more `samples`, or use easier questions",
            )
        used = {one.id for one in _filling.used(context, own)}
        kept: list[Example] = []
        others: list[Example] = []
        notes = [str(records.summary(folder)["note"])]
        for one in examples:
            if one.id in plain and _rewriting.same_question(one, plain[one.id]):
                kept += own.get(one.id, ()) if one.id in used else ()
            else:
                others.append(one)
        if changed := sum(one.id in plain for one in others):
            notes.append(f"{changed} questions that a method before has changed stay as they are")
        return kept + others, notes

    def _expected(self, context: MethodContext) -> int:
        ways = self.options.unsolved
        helped = _filling.HELPED if "rewrite" in ways else _filling.SOLVED
        return _filling.expected(context, 1.0 if "gold" in ways else helped)

    def _name(self, context: MethodContext) -> str:
        key = [self.options.model_dump(), self._sampling(context).model_dump()]
        return f"selfgen-{self.options.samples}x-{store.fingerprint(key)[:6]}"

    def _sampling(self, context: MethodContext) -> Sampling:
        return context.sampling.model_copy(
            update={
                "samples": self.options.samples,
                "temperature": self.options.temperature,
                "top_p": self.options.top_p,
                "seed": context.seed,
            }
        )

    def _make(
        self, context: MethodContext, folder: Path, progress: Progress
    ) -> Mapping[str, object]:
        found = _Found()

        def work(number: int, some: Sequence[Example]) -> Mapping[str, Sequence[Example]]:
            self._answer(context, some, found, folder, progress, number)
            return found.made

        asked, used = _filling.until_filled(context, work)
        ways = Counter(found.ways.get(one.id, "dropped") for one in used)
        named = ["self", *self.options.unsolved]
        counts = {way: ways[way] for way in named} | {"dropped": ways["dropped"]}
        chosen = [one for plain in used for one in found.made.get(plain.id, [])]
        store.write_jsonl(folder / EXAMPLES, chosen)
        words = {"rewrite": "rewritten from the gold answer", "gold": "kept with the gold answer"}
        parts = [f"{counts['self']} of {len(used)} questions solved by the model itself"]
        parts += [f"{counts[way]} {words[way]}" for way in words if way in counts]
        parts.append(f"{counts['dropped']} dropped")
        return {
            "counts": counts,
            **_filling.told(context, asked, used, counts["dropped"]),
            "note": "; ".join([*parts, *_filling.bounded(context, asked, used)]),
        }

    def _answer(
        self,
        context: MethodContext,
        some: Sequence[Example],
        found: _Found,
        folder: Path,
        bar: Progress,
        number: int,
    ) -> None:
        """One round: what becomes of some of the questions."""
        file = _bound.numbered("samples.jsonl", number)
        drawn = context.ask(some, self._sampling(context), folder, bar, file)
        found.add("self", self._choose(context, self._right(context, drawn)))
        for way in self.options.unsolved:
            missing = [one for one in some if one.id not in found.made]
            if way == "gold":
                found.add(way, {one.id: [one] for one in missing})
            elif way == "rewrite" and missing:
                written, _ = _rewriting.rewrite(
                    context, missing, context.sampling, folder, bar, number
                )
                found.add(way, {name: [one] for name, one in written.items()})

    def _right(self, context: MethodContext, replies: Sequence[Reply]) -> dict[str, list[Reply]]:
        """Finished, right and distinct replies by question."""
        by_id = {one.id: one for one in context.plain}
        right: dict[str, list[Reply]] = {}
        for reply in replies:
            known = right.setdefault(reply.example_id, [])
            if reply.text in {one.text for one in known}:
                continue
            if not _rewriting.objection(context, by_id[reply.example_id], reply):
                known.append(reply)
        return {name: known for name, known in right.items() if known}

    def _choose(
        self, context: MethodContext, right: Mapping[str, Sequence[Reply]]
    ) -> dict[str, list[Example]]:
        """Per question the `keep` answers that the base finds least surprising."""
        by_id = {one.id: one for one in context.plain}
        candidates = [
            learned(by_id[name], reply, "self")
            for name, replies in right.items()
            for reply in replies
        ]
        several = [one for one in candidates if len(right[one.id]) > 1]  # else nothing to choose
        losses = iter(mean_nll(context.engine(), several) if several else [])
        surprise = [
            round(next(losses), SETTLED) if len(right[one.id]) > 1 else 0.0 for one in candidates
        ]
        chosen: dict[str, list[Example]] = {}
        ranked = sorted(zip(surprise, range(len(candidates)), strict=True))
        for _, place in ranked:
            candidate = candidates[place]
            kept = chosen.setdefault(candidate.id, [])
            if len(kept) < self.options.keep:
                kept.append(
                    replace(candidate, id=f"{candidate.id}/{len(kept)}") if kept else candidate
                )
        return chosen


@dataclass(frozen=True, slots=True)
class _Found:
    """What came of the questions so far, by id: examples, and in which way."""

    made: dict[str, list[Example]] = field(default_factory=dict)
    ways: dict[str, str] = field(default_factory=dict)

    def add(self, way: str, found: Mapping[str, Sequence[Example]]) -> None:
        for name, some in found.items():
            self.made[name], self.ways[name] = list(some), way
