"""Self-training in rounds: answer, keep what the grader finds right, learn it, and answer again.

In every round the model, as it is by then, answers the questions of the round several times; its
right answers are what the round's steps learn from, by plain cross-entropy (RAFT,
arXiv:2304.06767; ReST-EM, arXiv:2312.06585, which begins each round from the base, and this does
not). It is the cheap cousin of `grpo`: on the model's own words, but nothing is learned from wrong
answers. With one round it is `selfgen` without a choice of the least surprising.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from holdfast.config import TrainSpec
from holdfast.data import chat
from holdfast.data.chat import IGNORED
from holdfast.errors import StudyError, TrainingError
from holdfast.memory.estimate.method_overhead import MethodOverhead
from holdfast.methods import Lesson, LossMethod, MethodContext, _rewards
from holdfast.methods._counting import each_step
from holdfast.methods._rewards import Drawn, drawing, reward_of
from holdfast.runs import store

if TYPE_CHECKING:
    from transformers import Trainer, TrainerCallback


class Raft(LossMethod):
    """Learn one's own right answers, drawn anew in every round."""

    options: Options
    graded = True
    asks_questions = True

    class Options(Drawn):
        """Settings of ``raft``."""

        rounds: int = Field(4, ge=1)
        """How often answers are drawn; the steps are shared out evenly among the rounds."""
        samples: int = Field(4, ge=1)
        """Answers drawn for each question of a round."""
        keep: int = Field(1, ge=1)
        """Different right answers kept for each question, in the order in which they were drawn."""

        @model_validator(mode="after")
        def _enough(self) -> Self:
            if self.keep > self.samples:
                raise ValueError("keep cannot be more than samples")
            return self

    def recipe(self) -> str:
        """See `DataMethod.recipe`."""
        given = self.options
        return (
            f"self-training on right answers in {given.rounds} rounds ({given.samples} samples at "
            f"temperature {given.temperature:g}, {given.keep} kept"
            f"{', drawn by vLLM' * (given.engine == 'vllm')})"
        )

    def check(self, context: MethodContext) -> None:
        """Refuse a target task that cannot say what is right, or whose judge has no cap."""
        answers = context.seen * self.options.samples
        _rewards.check("raft", context, answers, self.options.judged)

    def overhead(self) -> MethodOverhead:
        """See `LossMethod.overhead`."""
        given = self.options
        return MethodOverhead(
            ("raft",), generated_tokens=given.max_new_tokens, drawn=given.samples,
            served=given.engine == "vllm",
        )  # fmt: skip

    def check_training(self, spec: TrainSpec) -> None:
        """Refuse adapters that vLLM cannot serve, where it draws."""
        _rewards.check_served("raft", spec, self.options)

    def check_steps(self, steps: int) -> None:
        """Refuse more rounds than steps."""
        if steps < self.options.rounds:
            raise StudyError(
                f"{self.options.rounds} rounds need as many optimiser steps, and there are {steps}",
                remedy="set raft.rounds lower, or train.max_steps higher",
            )

    def trainer(self, lesson: Lesson) -> Trainer:
        """TRL's `SFTTrainer`, on rows that are made when they are asked for."""
        from trl import SFTConfig, SFTTrainer

        _rewards.check_room("loss.raft", lesson, self.options.max_new_tokens)
        rounds = _Rounds(lesson, self.options)
        more = {"dataloader_num_workers": 0, "dataloader_prefetch_factor": None}
        trainer = SFTTrainer(
            model=lesson.model,
            args=lesson.batched_config(SFTConfig, **more),
            train_dataset=lesson.micro_batches(),  # it looks at a row; those below come later
            data_collator=lesson.collate,
            processing_class=lesson.tokenizer,
        )
        trainer.train_dataset = rounds
        trainer.add_callback(rounds.callback())
        return trainer


@dataclass(frozen=True, slots=True)
class _Kept:
    """One right answer, as it is learned: token ids, of which the first `start` are the prompt.

    `target` names the target of its question, among several; "" of a single one.
    """

    ids: Sequence[int]
    start: int
    target: str = ""


@dataclass(frozen=True, slots=True)
class _Round:
    """What a round learns from: its right answers, and the tokens that were drawn for them."""

    kept: Sequence[_Kept]
    drawn: int
    asked: int
    answers: int

    def count(self, target: str) -> int:
        """How many of its right answers are to a target's questions."""
        return sum(one.target == target for one in self.kept)


class _Rounds:
    """A dataset with one row per micro-batch; the first of a round draws the answers of all.

    The loader is a row ahead, so that a round is drawn with the weights of one step before it.
    """

    def __init__(self, lesson: Lesson, options: Raft.Options) -> None:
        self.lesson, self.options = lesson, options
        self.grader = reward_of(lesson.target, "raft", lesson.folder)
        self.live = _rewards.drawer(lesson, options, "raft")
        self.known: dict[int, _Round] = {}

    @cached_property
    def per_step(self) -> int:
        """Examples of one step."""
        return len(self.lesson.order) // self.lesson.steps

    def __len__(self) -> int:
        return len(self.lesson.order) // self.lesson.micro_batch

    def __getitem__(self, row: int) -> dict[str, list[list[int]]]:
        if not 0 <= row < len(self):
            raise IndexError(row)
        step = row * self.lesson.micro_batch // self.per_step
        start = row * self.lesson.micro_batch - self.begins(self.round_of(step)) * self.per_step
        some = self._dealt(self.round_of(step), start, self.lesson.micro_batch)
        return {
            "input_ids": [list(one.ids) for one in some],
            "labels": [[IGNORED] * one.start + list(one.ids[one.start :]) for one in some],
        }

    def round_of(self, step: int) -> int:
        """The round of a step; both count from 0."""
        return next(n for n in count() if step < self.begins(n + 1))

    def begins(self, number: int) -> int:
        """The first step of a round."""
        return number * self.lesson.steps // self.options.rounds

    def spent(self, step: int) -> tuple[int, int, int]:
        """Tokens drawn for a step, read as prompts in it, and learned."""
        number = self.round_of(step)
        first = (step - self.begins(number)) * self.per_step
        some = self._dealt(number, first, self.per_step)
        drawn = self._round(number).drawn if step == self.begins(number) else 0
        prompts = sum(one.start for one in some)
        return drawn, prompts, sum(len(one.ids) for one in some) - prompts

    def callback(self) -> TrainerCallback:
        """What counts the tokens of every step."""

        def end(step: int) -> None:
            drawn, prompts, learned = self.spent(step - 1)
            self.lesson.counts.add(drawn, learned, prompts=prompts)

        return each_step(end)

    def _dealt(self, number: int, first: int, many: int) -> list[_Kept]:
        """Some of a round's examples: all that were kept in a new order, over and over.

        Where there are several targets, each gives as many as the round has questions of it.
        """
        begin = self.begins(number) * self.per_step
        places = self.lesson.order[begin : begin + first + many]
        targets = [self.grader.target_of(self.lesson.examples[at]) for at in places]
        taken = Counter(targets[:first])
        orders: dict[tuple[str, int], list[_Kept]] = {}
        found = []
        for target in targets[first:]:
            again, at = divmod(taken[target], self._round(number).count(target))
            if (order := orders.get((target, again))) is None:
                order = [one for one in self._round(number).kept if one.target == target]
                random.Random(f"{self.lesson.seed}:{number}:{again}").shuffle(order)
                orders[target, again] = order
            found.append(order[at])
            taken[target] += 1
        return found

    def _round(self, number: int) -> _Round:
        if number not in self.known:
            file = self.lesson.folder / f"round-{number}.jsonl"
            self.known = {number: _read(file) if file.is_file() else self._draw(number, file)}
        return self.known[number]

    def _draw(self, number: int, file: Path) -> _Round:
        """Ask the model as it is now, and keep what is right.

        Raises:
            TrainingError: nothing is.
        """
        given, lesson = self.options, self.lesson
        first, end = (self.begins(one) * self.per_step for one in (number, number + 1))
        places = list(dict.fromkeys(lesson.order[first:end]))
        prompts = [chat.asked_ids(lesson.tokenizer, lesson.examples[at]) for at in places]
        asked = [
            (lesson.examples[at], ids, sample)
            for at, ids in zip(places, prompts, strict=True)
            for sample in range(given.samples)
        ]
        said = self.live.answers(asked, drawing(self.lesson, self.options, "raft", number))
        pairs = [(example, one.reply) for (example, _, _), one in zip(asked, said, strict=True)]
        values = self.grader.of(pairs)
        right: dict[str, dict[str, _Kept]] = {}
        for (example, ids, _), one, value in zip(asked, said, values, strict=True):
            if value == 1.0 and one.reply.finish == "stop" and one.tokens:
                texts = right.setdefault(example.id, {})
                if one.reply.text not in texts and len(texts) < given.keep:
                    target = self.grader.target_of(example)
                    texts[one.reply.text] = _Kept([*ids, *one.tokens], len(ids), target)
        kept = [one for texts in right.values() for one in texts.values()]
        drawn = sum(len(one.tokens) for one in said)
        targets = Counter(self.grader.target_of(lesson.examples[at]) for at in places)
        for target in sorted(targets.keys() - {one.target for one in kept}):
            of, many = f" of {target}" if target else "", targets[target]
            raise TrainingError(
                f"round {number + 1} of {given.rounds} found no right answer among "
                f"{many * given.samples:,} answers to {many:,} questions{of}, so there is nothing "
                "to learn from",
                where=str(lesson.folder),
                remedy="draw more raft.samples, allow longer answers (raft.max_new_tokens), take "
                "easier questions, or fine-tune first",
            )
        found = _Round(kept, drawn, len(places), len(said))
        _write(file, found)
        return found


def _write(file: Path, found: _Round) -> None:
    """Keep a round: what it took, then one line for each answer."""
    about = {"asked": found.asked, "answers": found.answers, "drawn": found.drawn}
    rows = [asdict(one) for one in found.kept]
    store.write_jsonl(file, [{**about, "right": len(rows)}, *rows])


def _read(file: Path) -> _Round:
    """What `_write` kept."""
    (_, about), *rows = store.read_objects(file)
    kept = [_Kept(row["ids"], row["start"], row.get("target", "")) for _, row in rows]
    return _Round(kept, about["drawn"], about["asked"], about["answers"])
