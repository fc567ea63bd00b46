"""Rewrite: has the model say every reference answer in its own words first.

Each reference answer is written again by the untouched model, which sees it; the rewrite is trained
on when the task's own grader finds it right and it does not speak of the reference, the reference
itself otherwise (self-distillation fine-tuning, SDFT: Yang et al., ACL 2024, arXiv:2402.13669). So
no question is lost, unlike with `selfgen`, and what is trained on is nearer to what the model would
say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from holdfast.config import Sampling, Section
from holdfast.errors import DataError
from holdfast.methods import EXAMPLES, DataMethod, MethodContext, SharedWork, _rewriting
from holdfast.progress import Progress
from holdfast.runs import records, store
from holdfast.types import Example


class Rewrite(DataMethod):
    """Train on the reference answers in the model's own words."""

    options: Options

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
        """One stage: rewrite and check; what becomes of the others is decided afterwards."""
        asked = [one.content for one in context.plain]
        identity = {
            "method": "rewrite",
            "version": self.version,
            "sampling": _greedy(context).model_dump(),
            "grader": _rewriting.grader(context.task),
            "questions": store.fingerprint(asked),
        }
        return [
            SharedWork(_name(context), identity, lambda folder, bar: _make(context, folder, bar))
        ]

    def apply(
        self, examples: Sequence[Example], context: MethodContext, made: Mapping[str, Path]
    ) -> tuple[list[Example], list[str]]:
        """Replace reference answers; answers that a step before has replaced stay."""
        folder = made[_name(context)]
        own = {one.id: one for one in store.read_jsonl(folder / EXAMPLES, Example)}
        against = records.summary(folder)["against"]
        references = {one.id: one.target for one in context.plain}
        found = []
        for example in examples:
            untouched = example.id in references and example.target == references[example.id]
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
        return found, [self._note(len(own), len(references), against)]

    def _note(self, own: int, asked: int, against: Mapping[str, int]) -> str:
        note = f"{own} of {asked} reference answers rewritten by the model"
        if own == asked:
            return note
        fate = {"gold": "kept as they are", "drop": "dropped"}[self.options.otherwise]
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(against.items()))
        return f"{note}; {asked - own} {fate} (rewrite: {reasons})"


def _greedy(context: MethodContext) -> Sampling:
    return context.sampling.model_copy(update={"temperature": 0.0, "top_p": 1.0, "samples": 1})


def _name(context: MethodContext) -> str:
    return f"rewrite-{store.fingerprint(_greedy(context).model_dump())[:6]}"


def _make(context: MethodContext, folder: Path, progress: Progress) -> Mapping[str, object]:
    found, against = _rewriting.rewrite(context, context.plain, _greedy(context), folder, progress)
    store.write_jsonl(folder / EXAMPLES, list(found.values()))
    return {"rewritten": len(found), "against": against}
