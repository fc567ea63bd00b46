"""Rewrite: what if the model says every reference answer in its own words first?

Each reference answer is written again by the untouched model, which sees it; the rewrite is trained
on when the task's own grader finds it right and it does not speak of the reference, the reference
itself otherwise (self-distillation fine-tuning, SDFT: Yang et al., ACL 2024, arXiv:2402.13669). So
no question is lost, unlike with `selfgen`, and what is trained on is nearer to what the model would
say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from holdfast.config import Sampling, Section
from holdfast.errors import DataError
from holdfast.methods import EXAMPLES, Entry, Setting, Shared, _rewriting
from holdfast.progress import Progress
from holdfast.runs import store
from holdfast.types import Example


class Rewrite:
    """Train on the reference answers in the model's own words."""

    class Options(Section):
        """Settings of ``rewrite``."""

        otherwise: Literal["gold", "drop"] = "gold"
        """Where the rewrite does not count: keep the reference answer, or drop the question."""

    entry: ClassVar[Entry] = "data"
    version: ClassVar[str] = "1"
    mixes: ClassVar[bool] = False

    def __init__(self, options: Options) -> None:
        """Take the settings."""
        self.options = options

    def recipe(self) -> str:
        """See `Method.recipe`."""
        what = {"gold": "the reference kept", "drop": "dropped"}[self.options.otherwise]
        return f"reference answers in the model's own words ({what} where that fails)"

    def check(self, setting: Setting) -> None:
        """See `DataMethod.check`; it reads no files."""

    def identity(self) -> Mapping[str, Any]:
        """See `Method.identity`."""
        return self.options.model_dump()

    def shared(self, setting: Setting) -> list[Shared]:
        """One stage: rewrite and check; what becomes of the others is decided afterwards."""
        asked = [(one.id, one.messages, one.target) for one in setting.plain]
        identity = {
            "method": "rewrite",
            "version": self.version,
            "sampling": _greedy(setting).model_dump(),
            "grader": [type(setting.task).__name__, setting.task.version, setting.task.label],
            "questions": store.fingerprint(asked),
        }
        return [Shared(_name(setting), identity, lambda folder, bar: _make(setting, folder, bar))]

    def apply(
        self, examples: Sequence[Example], setting: Setting, made: Mapping[str, Path]
    ) -> tuple[list[Example], list[str]]:
        """Replace reference answers; answers that a step before has replaced stay."""
        folder = made[_name(setting)]
        own = {one.id: one for one in store.read_jsonl(folder / EXAMPLES, Example)}
        against = store.read_json(folder / store.RECORD)["summary"]["against"]
        references = {one.id: one.target for one in setting.plain}
        found = []
        for one in examples:
            untouched = one.id in references and one.target == references[one.id]
            if untouched and one.id in own:
                found.append(own[one.id])
            elif not untouched or self.options.otherwise == "gold":
                found.append(one)
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


def _greedy(setting: Setting) -> Sampling:
    return setting.sampling.model_copy(update={"temperature": 0.0, "top_p": 1.0, "samples": 1})


def _name(setting: Setting) -> str:
    return f"rewrite-{store.fingerprint(_greedy(setting).model_dump())[:6]}"


def _make(setting: Setting, folder: Path, progress: Progress) -> Mapping[str, Any]:
    found, against = _rewriting.rewrite(setting, setting.plain, _greedy(setting), folder, progress)
    store.write_jsonl(folder / EXAMPLES, list(found.values()))
    return {"rewritten": len(found), "against": against}
