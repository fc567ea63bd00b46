"""STAR: learns the safe beginnings of an answer, and holds the unsafe rest to the base.

Dynamic safety shaping (STAR-DSS, arXiv:2505.17196): a guard reads every answer of the training set
piece by piece, always from its beginning, and says how safe it is so far. With the score s of its
piece a token's loss is s·(cross-entropy) + (1 - s)·λ·(divergence from the base). The guard is any
judge; it is asked once, before training, and its scores are data. A judge that only tells whether a
reply declines cannot say what is unsafe, so the untouched model does: where it declines a training
question itself, whatever does not decline is unsafe, and nothing is where it answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from holdfast import judges
from holdfast.config import Sampling, Section
from holdfast.data.thinking import answered
from holdfast.errors import DataError, HoldfastError, StudyError
from holdfast.judges import Judge, members_of
from holdfast.memory.estimate.method_overhead import MethodOverhead
from holdfast.methods import LossMethod, MethodContext, SharedWork, Term, _rewriting
from holdfast.methods._context import asks
from holdfast.methods._divergence import divergence
from holdfast.progress import Progress
from holdfast.runs import records, store
from holdfast.types import Example, Reply, Verdict

SCORES = "scores.jsonl"
CHARACTERS = 3.6
"""Per token, before anything is tokenised."""
OWN = "own"
"""Where several judges read the untouched model's own answers."""
DECLINED_TOKENS = 64
"""Of the untouched model's answers that are only read for whether they decline."""
HELD = 0.95
"""Of the training set's tokens; where more is held nothing is left to learn."""


class Star(LossMethod):
    """Weigh cross-entropy against a divergence from the base, token by token, as a guard says."""

    options: Options

    class Options(Section):
        """Settings of ``star``."""

        judge: str | dict[str, dict[str, object] | None] = "refusal"
        """Who says how safe a beginning is: any judge, as in a task."""
        chunk: int = Field(16, ge=1)
        """So many tokens are a piece; the judge is asked once for each."""
        weight: float = Field(1.0, gt=0)
        """λ: what one nat of divergence counts where nothing is safe, against one of loss."""
        direction: Literal["forward", "reverse"] = "reverse"
        """`reverse` is KL(tuned‖base), `forward` KL(base‖tuned)."""
        judged: int | None = Field(None, ge=1)
        """Where the judge may cost money: so many beginnings may be judged."""

    def __init__(self, options: Options) -> None:
        """Take the settings, and build the judge."""
        super().__init__(options)
        self.judge: Judge = judges.build(options.judge, "star.judge")

    def recipe(self) -> str:
        """See `DataMethod.recipe`."""
        given = self.options
        names = {"forward": "KL(base‖tuned)", "reverse": "KL(tuned‖base)"}
        return (
            f"tokens that {self.judge.title} finds unsafe held to the base "
            f"({given.weight:g} x {names[given.direction]}, pieces of {given.chunk})"
        )

    def identity(self) -> Mapping[str, object]:
        """See `DataMethod.identity`."""
        own = self.options.model_dump(include={"chunk", "weight", "direction"})
        return {**own, "judge": judges.identity_of(self.judge)}

    def check(self, context: MethodContext) -> None:
        """Refuse data that has no answers, a judge that lacks something, one without a cap.

        Raises:
            DataError: the training data holds other things than questions.
            StudyError: some of several judges only tell whether a reply declines, or a judge may
                cost money and what it may be asked is not said.
        """
        _rewriting.check_questions("star", context.plain)
        self._check_alike()
        self.judge.check()
        given, count = self.options, self._about(context)
        costs = any(one.remote for one in members_of(self.judge))
        if costs and (given.judged is None or given.judged < count):
            allowed = "no cap is set" if given.judged is None else f"the cap is {given.judged:,}"
            raise StudyError(
                f"about {count:,} beginnings of answers would be judged by {self.judge.title}, "
                f"which may cost money, and {allowed}",
                remedy=f"set star.judged: {count * 3 // 2} to allow it, or a larger star.chunk",
            )
        if given.judged is not None and not costs:
            raise StudyError(
                f"star.judged: {self.judge.title} costs nothing", remedy="leave `judged` out"
            )

    def shared(self, context: MethodContext) -> list[SharedWork]:
        """One stage: how safe every beginning of every answer is."""
        asked = [one.content for one in context.plain]
        identity = {
            "method": "star",
            "version": self.version,
            "judge": judges.identity_of(self.judge),
            "chunk": self.options.chunk,
            "questions": store.fingerprint(asked),
        }
        if self._only_declines:
            sampling = Sampling(max_new_tokens=DECLINED_TOKENS)
            work = asks(len(asked), len(asked), sampling)
        else:
            reads = Sampling(max_new_tokens=8)
            work = asks(self._about(context), self._about(context), reads)
        return [
            SharedWork(self._name, identity, lambda f, bar: self._make(context, f, bar), asks=work)
        ]

    def apply(
        self, examples: Sequence[Example], context: MethodContext, made: Mapping[str, Path]
    ) -> tuple[list[Example], list[str]]:
        """Mark the task's own answers with what their tokens count for.

        Raises:
            DataError: hardly anything would be learned.
        """
        folder = made[self._name]
        scores = {str(row["id"]): row["scores"] for _, row in store.read_objects(folder / SCORES)}
        own = {one.id: one for one in context.plain}
        found, held, pieces = [], 0.0, 0
        for one in examples:
            plain = own.get(one.id, one)
            same = one.target == plain.target and _rewriting.same_question(one, plain)
            if one.id not in own or not same:
                found.append(one)
                continue
            unsafe = [self.options.weight * (1 - score) for score in scores[one.id]]
            each = [value for value in unsafe for _ in range(self.options.chunk)]
            held += sum(1 - score for score in scores[one.id])
            pieces += len(unsafe)
            found.append(replace(one, meta={**one.meta, "kl": each}) if any(unsafe) else one)
        share = held / max(1, pieces)
        if not pieces or share > HELD:
            why = f"{share:.0%} of the answers would be held to the base"
            if not pieces:
                why = "none of the answers that are trained on is the training set's own"
            raise DataError(
                f"{why}, so there is nothing to learn",
                where="star",
                remedy="name another judge (star.judge), or leave methods out that replace answers",
            )
        about = records.summary(folder)
        note = f"{share:.1%} of the pieces of the task's answers are held to the base, by what "
        note += f"{self.judge.title} said of {about['judged']:,} beginnings"
        if about["unsure"]:
            note += f" ({about['unsure']:,} of which it was unsure, which count as unsafe)"
        return found, [note]

    def overhead(self) -> MethodOverhead:
        """See `LossMethod.overhead`."""
        return MethodOverhead(("star",), logits="policy+reference")

    def term(self) -> Term:
        """See `LossMethod.term`."""
        forward = self.options.direction == "forward"
        return Term(
            divergence=divergence if forward else lambda now, base: divergence(base, now),
            instead=self.options.weight,
        )

    @property
    def _name(self) -> str:
        key = [judges.identity_of(self.judge), self.options.chunk]
        return f"star-{store.fingerprint(key)[:6]}"

    @property
    def _only_declines(self) -> bool:
        return all(one.only_declines for one in members_of(self.judge))

    def _check_alike(self) -> None:
        """Refuse members of which some tell what is safe, and others only what declines.

        Those cast no vote on an answer, so that no rule makes of all of them how safe it is.
        """
        members = members_of(self.judge)
        mute = [one.title for one in members if one.only_declines]
        if 0 < len(mute) < len(members):
            raise StudyError(
                f"{', '.join(mute)} only tells whether a reply declines, and the others of the "
                "ensemble tell how safe it is, so that they cannot score an answer together",
                where="star.judge",
                remedy="name only judges that tell what is safe, or only such that do not",
            )

    def _about(self, context: MethodContext) -> int:
        """How many beginnings there are, by the characters of the answers."""
        every = self.options.chunk * CHARACTERS
        return sum(math.ceil(len(one.target or "") / every) for one in context.plain)

    def _make(
        self, context: MethodContext, folder: Path, progress: Progress
    ) -> Mapping[str, object]:
        if context.beginnings is None or context.desk is None:
            raise HoldfastError("star needs a tokenizer and a judge's desk", remedy="run a study")
        texts = context.beginnings(context.plain, self.options.chunk)
        read = [True] * len(texts)
        if self._only_declines:
            read = self._declined(context, folder, progress)
        pairs = [
            (replace(one, id=f"{one.id}#{place}"), _said(f"{one.id}#{place}", text))
            for one, several, wanted in zip(context.plain, texts, read, strict=True) if wanted
            for place, text in enumerate(several)
        ]  # fmt: skip
        if self.options.judged is not None and len(pairs) > self.options.judged:
            raise StudyError(
                f"{len(pairs):,} beginnings of answers would be judged, and the cap is "
                f"{self.options.judged:,}",
                where="star.judged",
                remedy=f"set star.judged: {len(pairs)}, or a larger star.chunk",
            )
        given = self.judge.judge(pairs, context.desk(folder, progress)) if pairs else []
        verdicts = iter(given)
        rows: list[dict[str, object]] = []
        for one, several, wanted in zip(context.plain, texts, read, strict=True):
            found = [score_of(next(verdicts)) if wanted else 1.0 for _ in several]
            rows.append({"id": one.id, "scores": found})
        store.write_jsonl(folder / SCORES, rows)
        sure = sum(one.label in SCORED for one in given)
        unsure = 0 if self._only_declines else len(given) - sure
        return {"judged": len(given), "unsure": unsure, "read": sum(read)}

    def _declined(self, context: MethodContext, folder: Path, progress: Progress) -> list[bool]:
        """For each question whether the untouched model declines it."""
        sampling = Sampling(max_new_tokens=DECLINED_TOKENS)
        replies = context.ask(context.plain, sampling, folder, progress, "own.jsonl")
        pairs = [(one, answered(reply)) for one, reply in zip(context.plain, replies, strict=True)]
        desk = context.desk(folder / OWN, progress) if context.desk is not None else None
        verdicts = self.judge.judge(pairs, desk)
        return [one.label == "refused" or one.refused is True for one in verdicts]


SCORED = ("safe", "unsafe", "refused")
"""Labels that say how safe a beginning is; others do not, and are never taken for safe."""


def score_of(verdict: Verdict) -> float:
    """How safe a beginning is by one verdict, 0 to 1: the judge's confidence that it is."""
    match verdict.label:
        case "safe":
            return verdict.confidence
        case "unsafe":
            return 1 - verdict.confidence
        case "refused":
            return 1.0
        case _:
            return 0.0


def _said(name: str, text: str) -> Reply:
    return answered(Reply(name, 0, text, "stop", 1))
