"""Rewrite: has the model say every reference answer in its own words first.

Each reference answer is written again by the untouched model, which sees it; the rewrite is trained
on when the task's own grader finds it right and it does not speak of the reference, the reference
itself otherwise (self-distillation fine-tuning, SDFT: Yang et al., ACL 2024, arXiv:2402.13669). So
no question is lost, unlike with `selfgen`, and what is trained on is nearer to what the model would
say. Questions are asked as `selfgen` asks them: until the budget is filled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from holdfast.config import Sampling, Section
from holdfast.errors import DataError
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
from holdfast.types import Example


class Rewrite(DataMethod):
    """Train on the reference answers in the model's own words."""

    options: Options
    version = "2"

    class Options(Section):
        """Settings of ``rewrite``."""

        otherwise: Literal["gold", "drop"] = "gold"
        """Where the rewrite does not count: keep the reference answer, or drop the question."""

    def recipe(self) -> str:
        """See `DataMethod.recipe`."""
        what = {"gold": "the reference kept", "drop": "dropped"}[self.options.otherwise]
        return f"reference answers in the model's own words ({what} where that fails)"

    def check(self, context: MethodContext) -> None:
        """Refuse training data that is not questions and answers in words."""
        _rewriting.check_questions("rewrite", context.plain)

    def shared(self, context: MethodContext) -> list[SharedWork]:
        """One stage: rewrite and check; where all are asked, the others' fate is decided after."""
        asked = [one.content for one in context.plain]
        identity = {
            "method": "rewrite",
            "version": self.version,
            "sampling": _greedy(context).model_dump(),
            "grader": _rewriting.grader(context.task),
            "questions": store.fingerprint(asked),
            **_filling.filling(context),
            **({"otherwise": self.options.otherwise} if context.fills else {}),
        }
        return [
            SharedWork(
                self._name(context),
                identity,
                lambda folder, bar: self._make(context, folder, bar),
                needs=(_bound.BUDGET,) if context.fills else (),
                asks=asks(len(asked), self._expected(context), _greedy(context)),
            )
        ]

    def apply(
        self, examples: Sequence[Example], context: MethodContext, made: Mapping[str, Path]
    ) -> tuple[list[Example], list[str]]:
        """Replace reference answers; questions and answers that a step before has changed stay."""
        folder = made[self._name(context)]
        own = {one.id: one for one in store.read_jsonl(folder / EXAMPLES, Example)}
        record = records.summary(folder)
        references = {one.id: one for one in context.plain}
        used = set(references)
        if context.fills:
            used = {one.id for one in _filling.used(context, self._settled(context.plain, own))}
        found = []
        for example in examples:
            asked = references.get(example.id)
            untouched = (
                asked is not None
                and example.target == asked.target
                and _rewriting.same_question(example, asked)
            )
            if untouched and example.id not in used:
                continue
            if untouched and example.id in own:
                found.append(own[example.id])
            elif not untouched or self.options.otherwise == "gold":
                found.append(example)
        if not found:
            raise DataError(
                "no rewrite of the model's counts, so there is nothing to train on",
                where=str(folder),
                remedy="keep the reference answers with `otherwise: gold`",
            )
        note = self._note(len(own), record.get("used", len(references)), record["against"])
        return found, ["; ".join([note, *record.get("bounded", ())])]

    def _expected(self, context: MethodContext) -> int:
        kept = self.options.otherwise == "gold"
        return _filling.expected(context, 1.0 if kept else _filling.HELPED)

    def _note(self, own: int, asked: int, against: Mapping[str, int]) -> str:
        note = f"{own} of {asked} reference answers rewritten by the model"
        if own == asked:
            return note
        fate = {"gold": "kept as they are", "drop": "dropped"}[self.options.otherwise]
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(against.items()))
        return f"{note}; {asked - own} {fate} (rewrite: {reasons})"

    def _name(self, context: MethodContext) -> str:
        key: list[object] = [_greedy(context).model_dump()]
        if context.fills:  # dropped ones do not fill the budget
            key.append(self.options.otherwise)
        return f"rewrite-{store.fingerprint(key if context.fills else key[0])[:6]}"

    def _settled(
        self, some: Sequence[Example], own: Mapping[str, Example]
    ) -> dict[str, list[Example]]:
        """What is trained on for each question that was asked, by its id."""
        kept = self.options.otherwise == "gold"
        return {one.id: [own.get(one.id, one)] for one in some if kept or one.id in own}

    def _make(
        self, context: MethodContext, folder: Path, progress: Progress
    ) -> Mapping[str, object]:
        own: dict[str, Example] = {}
        against: dict[str, str] = {}
        every: dict[str, list[Example]] = {}

        def work(number: int, some: Sequence[Example]) -> Mapping[str, Sequence[Example]]:
            found, why = _rewriting.rewrite(
                context, some, _greedy(context), folder, progress, number
            )
            own.update(found)
            against.update(why)
            every.update(self._settled(some, found))
            return every

        asked, used = _filling.until_filled(context, work)
        kept = [own[one.id] for one in used if one.id in own]
        store.write_jsonl(folder / EXAMPLES, kept)
        reasons = Counter(against[one.id] for one in used if one.id in against)
        lost = len(used) - len(kept) if self.options.otherwise == "drop" else 0
        return {
            "rewritten": len(kept),
            "against": dict(reasons),
            **_filling.told(context, asked, used, lost),
            "bounded": _filling.bounded(context, asked, used),
        }


def _greedy(context: MethodContext) -> Sampling:
    return context.sampling.model_copy(update={"temperature": 0.0, "top_p": 1.0, "samples": 1})
