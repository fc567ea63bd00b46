"""Reinforcement learning with a reward that can be checked: the target task's own grader.

The model answers each training question several times, the grader marks the answers, and those that
earned more than the others to the same question become likelier (GRPO, arXiv:2402.03300; without
its biases of length and difficulty: Dr. GRPO, arXiv:2503.20783; by tokens, and clipped apart: DAPO,
arXiv:2503.14476). What is learned are the model's own words, which is why it moves less for the
same gain (arXiv:2509.04259). Trained by TRL's `GRPOTrainer`; the answers are drawn by the loop that
also measures, and read as they are measured.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from holdfast.config import TrainSpec
from holdfast.data import chat
from holdfast.data.thinking import answered
from holdfast.engines.live import Said
from holdfast.errors import StudyError, TrainingError
from holdfast.memory.estimate.method_overhead import MethodOverhead
from holdfast.methods import Lesson, LossMethod, MethodContext, _rewards
from holdfast.methods._counting import each_step
from holdfast.methods._rewards import Drawn, drawing, reward_of
from holdfast.runs import records, store

if TYPE_CHECKING:
    from transformers import Trainer, TrainerCallback
    from trl import GRPOTrainer

ROLLOUTS = "You are using 'rollout_func'"
TRIED = 256
"""Answers after which a reward that never differed in a group is a mistake, and not bad luck."""
DULL = (
    "always 0: take easier questions, allow longer answers (grpo.max_new_tokens), or fine-tune "
    "first; always 1: the questions are solved already, or the grader is too kind"
)


class GRPO(LossMethod):
    """Learn from what the grader says of the model's own answers."""

    options: Options
    graded = True
    asks_questions = True

    class Options(Drawn):
        """Settings of ``grpo``."""

        group: int = Field(8, ge=2)
        """Answers drawn for each question; they are compared with one another."""
        beta: float = Field(0.0, ge=0)
        """Weight of the divergence from the model before training."""
        loss_type: Literal["grpo", "dapo", "dr_grpo", "bnpo"] = "dapo"
        """How tokens are averaged, in TRL's words: `grpo` by answer, `dapo` over the step, `bnpo`
        over a forward pass, `dr_grpo` by the longest answer that is allowed."""
        scale_rewards: Literal["group", "batch", "none"] = "group"
        """Whose spread a reward's distance from its group's mean is divided by."""
        iterations: int = Field(1, ge=1)
        """Optimiser steps on the same answers; from the second on clipping has something to do."""
        epsilon: float = Field(0.2, gt=0)
        """Clipping: how far an answer's tokens may become likelier or less likely, as a share."""
        epsilon_high: float | None = Field(None, gt=0)
        """The same upwards, where it differs (DAPO: 0.28)."""
        format: str | None = None
        """A regular expression; an answer in which it is found earns `format_weight` more."""
        format_weight: float = Field(0.2, gt=0)
        """What the form is worth beside a right answer's 1."""

        @field_validator("format")
        @classmethod
        def _is_pattern(cls, value: str | None) -> str | None:
            try:
                re.compile(value or "")
            except re.error as error:
                raise ValueError(f"no regular expression: {error}") from error
            return value

        @model_validator(mode="after")
        def _has_effect(self) -> Self:
            given = self.model_fields_set
            if self.iterations == 1 and given & {"epsilon", "epsilon_high"}:
                raise ValueError(
                    "clipping does nothing where every answer is learned from once: set "
                    "iterations to 2 or more, or leave epsilon and epsilon_high out"
                )
            if self.format is None and "format_weight" in given:
                raise ValueError("format_weight goes with format")
            return self

    def __init__(self, options: Options) -> None:
        """Take the settings; no checkpoint holds answers that are still to be learned from."""
        super().__init__(options)
        self.resumable = options.iterations == 1

    def recipe(self) -> str:
        """See `DataMethod.recipe`."""
        given = self.options
        parts = [f"{given.group} answers a question", f"loss {given.loss_type}"]
        parts += [f"beta {given.beta:g}"] * (given.beta > 0)
        parts += [f"{given.iterations} steps on each answer"] if given.iterations > 1 else []
        parts += ["drawn by vLLM"] if given.engine == "vllm" else []
        parts += [f"form rewarded by {given.format_weight:g}"] if given.format else []
        return f"reinforcement by the task's own grader ({', '.join(parts)})"

    def check(self, context: MethodContext) -> None:
        """Refuse a target task that cannot reward, and a judge whose cost nobody allowed."""
        given = self.options
        answers = context.seen * given.group // given.iterations
        _rewards.check("grpo", context, answers, given.judged)

    def overhead(self) -> MethodOverhead:
        """See `LossMethod.overhead`."""
        given = self.options
        return MethodOverhead(
            ("grpo",), kept=int(given.beta > 0), second_pass=given.beta > 0,
            generated_tokens=given.max_new_tokens, answers=given.group,
            drawn=given.group / given.iterations if given.iterations > 1 else None,
            served=given.engine == "vllm",
        )  # fmt: skip

    def check_training(self, spec: TrainSpec) -> None:
        """Refuse adapters that TRL's trainer cannot train, or vLLM not serve where it draws."""
        _rewards.check_adapters("grpo", spec, copied=self.options.beta > 0)
        _rewards.check_served("grpo", spec, self.options)

    def check_steps(self, steps: int) -> None:
        """Refuse a number of steps that leaves answers half used."""
        if steps % self.options.iterations:
            count = self.options.iterations
            raise StudyError(
                f"{steps} optimiser steps are no multiple of grpo.iterations {count}",
                remedy="choose train.max_steps so that they are",
            )

    def trainer(self, lesson: Lesson) -> Trainer:
        """TRL's `GRPOTrainer`, with our answers, our grader and our counting."""
        from datasets import Dataset
        from trl import GRPOConfig, GRPOTrainer

        given = self.options
        _rewards.check_room("loss.grpo", lesson, given.max_new_tokens)
        drawn = _Drawing(lesson, given)
        accumulation = len(lesson.order) // lesson.steps // lesson.micro_batch * given.group
        asked = {"prompt": [str(at) for at in lesson.order], "place": list(lesson.order)}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ROLLOUTS, UserWarning)
            trainer = GRPOTrainer(
                model=lesson.model,
                reward_funcs=[drawn.right, *([drawn.formed] if given.format else [])],
                args=lesson.config(
                    GRPOConfig, **self.arguments(), shuffle_dataset=False,
                    per_device_train_batch_size=lesson.micro_batch,
                    gradient_accumulation_steps=accumulation,
                ),
                train_dataset=Dataset.from_dict(asked),
                processing_class=lesson.tokenizer,
                rollout_func=drawn.rollout,
            )  # fmt: skip
        trainer.add_callback(drawn.callback())
        return trainer

    def arguments(self) -> dict[str, object]:
        """The settings in the words of TRL's ``GRPOConfig``."""
        given = self.options
        return {
            "num_generations": given.group,
            "temperature": given.temperature,
            "top_p": given.top_p,
            "max_completion_length": given.max_new_tokens,
            "beta": given.beta,
            "loss_type": given.loss_type,
            "scale_rewards": given.scale_rewards,
            "num_iterations": given.iterations,
            "epsilon": given.epsilon,
            "epsilon_high": given.epsilon_high,
            "reward_weights": [1.0, given.format_weight] if given.format else None,
        }


class _Drawing:
    """Draws the answers of each step, has them graded, and keeps account of both."""

    def __init__(self, lesson: Lesson, options: GRPO.Options) -> None:
        self.lesson, self.options = lesson, options
        self.live = _rewards.drawer(lesson, options, "grpo")
        self.grader = reward_of(lesson.target, "grpo", lesson.folder)
        self.path = lesson.folder / records.REWARDS
        self.form = re.compile(options.format or "")
        self.forms: list[float | None] = []
        self.steps: list[dict[str, Any]] = []
        self.read = self.written = 0

    def rollout(self, prompts: Sequence[str], trainer: GRPOTrainer) -> dict[str, object]:
        """The answers of one step; a prompt is the place of its question."""
        asked, number = [], Counter[str]()
        for place in map(int, prompts):
            example = self.lesson.examples[place]
            ids = chat.asked_ids(self.lesson.tokenizer, example)  # as where it is measured
            asked.append((example, ids, number[example.id]))
            number[example.id] += 1
        said = self.live.answers(
            asked, drawing(self.lesson, self.options, "grpo", trainer.state.global_step)
        )
        self.read = sum(len(ids) for _, ids, _ in asked)
        self.written = sum(len(one.tokens) for one in said)
        self.lesson.counts.generated += self.written
        return {
            "prompt_ids": [list(ids) for _, ids, _ in asked],
            "completion_ids": [list(one.tokens) for one in said],
            "logprobs": None,
            "said": said,
        }

    def right(self, said: Sequence[Said], place: Sequence[int], **_: object) -> list[float | None]:
        examples = [self.lesson.examples[at] for at in place]
        pairs = [(example, one.reply) for example, one in zip(examples, said, strict=True)]
        found = self.grader.of(pairs)
        texts = [answered(one.reply).text for one in said]
        self.forms = [
            None if value is None else float(self.form.search(text) is not None)
            for value, text in zip(found, texts, strict=True)
        ]
        weight = self.options.format_weight if self.options.format else 0.0
        earned = [
            None if value is None or form is None else value + weight * form
            for value, form in zip(found, self.forms, strict=True)
        ]
        self._note(found, earned, list(map(self.grader.target_of, examples)))
        return found

    def formed(self, **_: object) -> list[float | None]:
        """Whether each answer has the form; asked right after `right`."""
        return self.forms

    def callback(self) -> TrainerCallback:
        """What counts each step, and stops where no reward ever differs."""

        def begin(step: int) -> None:
            before = store.read_objects(self.path) if step else ()
            self.steps = [row for _, row in before if row["step"] <= step]

        return each_step(self.close, begin=begin, save=self.write)

    def close(self, step: int) -> None:
        """Account for a step; on the first that shows that nothing can be learned, stop.

        Raises:
            TrainingError: the answers to one question always earned the same.
        """
        given, counts = self.options, self.lesson.counts
        counts.add(0, self.written, 0, self.read)
        if (step - 1) % given.iterations == 0:  # the step that drew
            self.steps[-1]["step"] = step
            before = int(given.beta > 0) + int(given.iterations > 1)  # read once by the reference,
            counts.add(reference=before * (self.read + self.written))  # and for the old likelihoods
            counts.examples += int(self.steps[-1]["groups"])
        by = [row.get("targets") or {"": row} for row in self.steps]
        for name in dict.fromkeys(name for one in by for name in one):
            rows = [one[name] for one in by if name in one]
            tried = sum(row["answers"] for row in rows)
            if (tried >= TRIED or step >= self.lesson.steps) and not any(r["mixed"] for r in rows):
                self.write()
                raise TrainingError(_dull(name, rows, tried), where=str(self.path), remedy=DULL)

    def write(self) -> None:
        store.write_jsonl(self.path, self.steps)

    def _note(
        self,
        values: Sequence[float | None],
        earned: Sequence[float | None],
        targets: Sequence[str],
    ) -> None:
        """Account for what a step's answers earned, in all and by target."""
        size = self.options.group
        by: dict[str, list[int]] = {}
        for start in range(0, len(values), size):
            by.setdefault(targets[start], []).append(start)

        def row(starts: Sequence[int]) -> dict[str, float]:
            some = [values[at : at + size] for at in starts]
            scored = [one for group in some for one in group if one is not None]
            differ = [{*earned[at : at + size]} - {None} for at in starts]
            return {
                "answers": size * len(some), "unscored": size * len(some) - len(scored),
                "reward": sum(scored) / len(scored) if scored else 0.0,
                "groups": len(some), "mixed": sum(len(one) > 1 for one in differ),
                "never": sum(not any(group) for group in some),
            }  # fmt: skip

        several = {name: row(starts) for name, starts in by.items() if name}
        self.steps.append({
            "step": 0, **row(range(0, len(values), size)),
            **({"targets": several} if several else {}),
        })  # fmt: skip


def _dull(name: str, rows: Sequence[Mapping[str, float]], tried: float) -> str:
    earned = {row["reward"] for row in rows if row["answers"] > row["unscored"]}
    what = "the same for every answer to one question"
    if not earned:
        what = "unknown, because no answer could be scored"
    elif earned in ({0.0}, {1.0}):
        what = f"always {earned.pop():g}"
    of = f" of {name}" if name else ""
    return f"the reward{of} is {what} ({tried:,.0f} answers were tried), so nothing can be learned"
