"""Learn to prefer one's own right answers to one's own wrong ones.

The untouched base answers every training question several times; the task's grader says which
answers are right, and each question with both kinds gives pairs of a right and a wrong answer. What
is learned is that the right one becomes likelier than the wrong one, measured from where the model
began (DPO, arXiv:2305.18290; on pairs that a checkable answer decides: arXiv:2404.19733). Trained
by TRL's `DPOTrainer`. The answers are the model's own, but drawn once, before training: off policy
from the second step on, and cheaper than `grpo`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from holdfast.config import Sampling, Section, TrainSpec
from holdfast.data import chat
from holdfast.data.thinking import answered, learned
from holdfast.errors import DataError, TrainingError
from holdfast.memory.estimate.method_overhead import MethodOverhead
from holdfast.methods import (
    EXAMPLES,
    Lesson,
    LossMethod,
    MethodContext,
    SharedWork,
    _rewards,
    _rewriting,
)
from holdfast.methods._context import asks
from holdfast.methods._counting import each_step
from holdfast.progress import Progress
from holdfast.runs import records, store
from holdfast.types import Example, Reply

if TYPE_CHECKING:
    from transformers import Trainer, TrainerCallback

REJECTED = "rejected"
"""In an example's meta: the wrong answer, as the fields of an `Example` that differ."""
SEQUENTIAL: Mapping[str, object] = {"train_sampling_strategy": "sequential", "max_length": None}


class DPO(LossMethod):
    """Prefer one's own right answers."""

    options: Options
    asks_questions = True

    class Options(Section):
        """Settings of ``dpo``."""

        samples: int = Field(8, ge=2)
        """Answers drawn per question."""
        pairs: int = Field(1, ge=1)
        """Pairs kept per question, at most."""
        temperature: float = Field(1.0, gt=0)
        """Of the drawing."""
        top_p: float = Field(1.0, gt=0, le=1)
        """Nucleus of the drawing."""
        beta: float = Field(0.1, gt=0)
        """How strongly the model is held where it began."""
        loss_type: Literal["sigmoid", "ipo", "hinge"] = "sigmoid"
        """In TRL's words: `sigmoid` is DPO, `ipo` arXiv:2310.12036, `hinge` arXiv:2305.10425."""
        sft: float = Field(0.0, ge=0)
        """Weight of plain cross-entropy on the right answers beside it (arXiv:2404.19733 has 1);
        it keeps them from becoming less likely together with the wrong ones."""

        @model_validator(mode="after")
        def _enough(self) -> Self:
            if self.samples < 2 * self.pairs:
                raise ValueError("samples must be twice the pairs, or more")
            return self

    def recipe(self) -> str:
        """See `DataMethod.recipe`."""
        given = self.options
        beside = f", cross-entropy by {given.sft:g}" if given.sft else ""
        return (
            f"preference for its own right answers ({given.loss_type}, beta {given.beta:g}, "
            f"{given.samples} samples, {given.pairs} pairs a question{beside})"
        )

    def check(self, context: MethodContext) -> None:
        """Refuse a target task whose grader cannot say what is right."""
        judged = next((one for one in context.task.parts if one.judge is not None), None)
        if judged is not None:
            raise DataError(
                f"the target task {judged.plugin} asks a judge what is right, which pairs "
                "for dpo cannot",
                remedy="take dpo out of this arm, or use grpo, which takes a judge with a cap",
            )
        _rewards.check("dpo", context, 0, None)

    def shared(self, context: MethodContext) -> list[SharedWork]:
        """One stage: draw, grade, pair."""
        sampling = self._sampling(context)
        asked = [one.content for one in context.plain]
        identity = {
            "method": "dpo",
            "version": self.version,
            "pairs": self.options.pairs,
            "sampling": sampling.model_dump(),
            "grader": _rewriting.grader(context.task),
            "questions": store.fingerprint(asked),
        }
        return [
            SharedWork(
                self._name(context), identity,
                lambda folder, bar: self._make(context, folder, bar),
                asks=asks(len(asked), len(asked), sampling),
            )
        ]  # fmt: skip

    def apply(
        self, examples: Sequence[Example], context: MethodContext, made: Mapping[str, Path]
    ) -> tuple[list[Example], list[str]]:
        """The pairs, in the place of the questions' own answers.

        Raises:
            DataError: no question has both a right and a wrong answer.
        """
        folder = made[self._name(context)]
        about = records.summary(folder)
        pairs = store.read_jsonl(folder / EXAMPLES, Example)
        if not pairs:
            raise DataError(
                f"no question has both a right and a wrong answer ({about['note']}), so there are "
                "no pairs to learn from",
                where=str(folder),
                remedy="draw more dpo.samples, or take questions that are harder or easier",
            )
        return pairs, [str(about["note"])]

    def overhead(self) -> MethodOverhead:
        """See `LossMethod.overhead`."""
        return MethodOverhead(("dpo",), kept=1, second_pass=True, rows=2)

    def check_training(self, spec: TrainSpec) -> None:
        """Refuse adapters that TRL's trainer cannot train."""
        _rewards.check_adapters("dpo", spec, copied=True)

    def trainer(self, lesson: Lesson) -> Trainer:
        """TRL's `DPOTrainer`, on token ids of ours."""
        from datasets import Dataset
        from trl import DPOConfig, DPOTrainer

        given = self.options
        sft = {"loss_type": [given.loss_type, "sft"], "loss_weights": [1.0, given.sft]}
        trainer = DPOTrainer(
            model=lesson.model,
            args=lesson.config(
                DPOConfig, beta=given.beta, **SEQUENTIAL,
                **(sft if given.sft else {"loss_type": [given.loss_type]}),
                per_device_train_batch_size=lesson.micro_batch,
            ),
            # It renders conversations itself; what it trains on is put in its place, rendered as
            # ours are.
            train_dataset=Dataset.from_list([{"prompt": "?", "chosen": "a", "rejected": "b"}]),
            processing_class=lesson.tokenizer,
        )  # fmt: skip
        pairs = _pairs(lesson)
        trainer.train_dataset = Dataset.from_list([pairs[place] for place in lesson.order])
        trainer.add_callback(_counting(lesson, pairs))
        return trainer

    def _name(self, context: MethodContext) -> str:
        key = [self.options.pairs, self._sampling(context).model_dump()]
        return f"dpo-{self.options.samples}x-{store.fingerprint(key)[:6]}"

    def _sampling(self, context: MethodContext) -> Sampling:
        given = self.options
        return context.sampling.model_copy(
            update={
                "samples": given.samples,
                "temperature": given.temperature,
                "top_p": given.top_p,
                "seed": context.seed,
            }
        )

    def _make(self, context: MethodContext, folder: Path, bar: Progress) -> Mapping[str, object]:
        asked = context.plain
        drawn = context.ask(asked, self._sampling(context), folder, bar, "samples.jsonl")
        by_id = {one.id: one for one in asked}
        right, wrong = _told_apart(context, by_id, drawn)
        longest = max((one.n_tokens for some in right.values() for one in some), default=0)
        found = []
        for example in asked:
            bad = [one for one in wrong.get(example.id, ()) if one.n_tokens <= longest]
            some = zip(right.get(example.id, ()), bad, strict=False)
            for number, (good, other) in enumerate(list(some)[: self.options.pairs]):
                one = learned(example, good, "self")
                rejected = learned(example, other, "self")
                meta = {REJECTED: {"target": rejected.target, "extra": dict(rejected.extra)}}
                name = f"{example.id}/{number}" if number else example.id
                found.append(replace(one, id=name, meta={**one.meta, **meta}))
        store.write_jsonl(folder / EXAMPLES, found)
        both = sum(name in wrong for name in right)
        return {
            "asked": len(asked),
            "pairs": len(found),
            "note": f"{len(found)} pairs of a right and a wrong answer; of {len(asked)} questions "
            f"{len(right)} were answered rightly at least once, {both} also wrongly",
        }


def _told_apart(
    context: MethodContext, by_id: Mapping[str, Example], drawn: Sequence[Reply]
) -> tuple[dict[str, list[Reply]], dict[str, list[Reply]]]:
    """Finished right and wrong answers by question, each text once, in the order of drawing."""
    right: dict[str, list[Reply]] = {}
    wrong: dict[str, list[Reply]] = {}
    known: set[tuple[str, str]] = set()
    for reply in drawn:
        said = answered(reply).text.strip()
        if (reply.example_id, said) in known:
            continue
        known.add((reply.example_id, said))
        reason = _rewriting.objection(context, by_id[reply.example_id], reply)
        if reason in ("", "wrong"):
            (wrong if reason else right).setdefault(reply.example_id, []).append(reply)
    return right, wrong


def _pairs(lesson: Lesson) -> list[dict[str, list[int]]]:
    """Prompt, right and wrong answer of each example, as token ids."""
    stops = chat.stop_ids(lesson.tokenizer, lesson.model.generation_config)
    found = []
    for example, row in zip(lesson.examples, lesson.rows, strict=True):
        given = example.meta.get(REJECTED)
        if given is None:
            raise TrainingError(
                f"example {example.id} has no wrong answer beside its right one",
                remedy="let dpo stand alone in its arm, and leave `data:` out",
            )
        other = replace(example, target=given["target"], extra=given["extra"])
        rejected = chat.encode(lesson.tokenizer, other, stops)
        found.append({
            "prompt_ids": list(row.ids[: row.start]),
            "chosen_ids": list(row.ids[row.start :]),
            "rejected_ids": list(rejected.ids[rejected.start :]),
        })  # fmt: skip
    return found


def _counting(lesson: Lesson, pairs: Sequence[Mapping[str, Sequence[int]]]) -> TrainerCallback:
    """What counts the tokens of every step; the base reads all that the model does."""
    each = len(lesson.order) // lesson.steps

    def end(step: int) -> None:
        for place in lesson.order[(step - 1) * each : step * each]:
            one = pairs[place]
            answers = len(one["chosen_ids"]) + len(one["rejected_ids"])
            prompts = 2 * len(one["prompt_ids"])
            lesson.counts.add(supervised=answers, reference=answers + prompts, prompts=prompts)

    return each_step(end)
