"""Rewards drawn answers with what the target task's own grader says of them.

An answer is read as where it is measured: what was thought is not graded, what cannot be scored is
neither right nor wrong. A task that needs a judge has one asked for every answer, which may cost
money, so that it needs a cap that is known to suffice before anything runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from holdfast import judges
from holdfast.config import Sampling, Section, TrainSpec
from holdfast.data.thinking import answered
from holdfast.engines import Engine
from holdfast.engines.kept import LIKELIHOODS
from holdfast.engines.live import Live
from holdfast.engines.vllm import servable
from holdfast.errors import StudyError, TrainingError
from holdfast.judges import Judge, JudgeContext, members_of
from holdfast.methods import Lesson, MethodContext, Target, _rewriting
from holdfast.methods._context import Drawer
from holdfast.models import ModelRef
from holdfast.progress import Silent
from holdfast.tasks import Task
from holdfast.types import Example, Reply

COPIED = ("lora", "rslora", "dora")
"""Variants of LoRA of which TRL can keep a second set of adapters, alike to the first."""
SEEDS = 2**32
CHECKED = 8
"""Gold answers that are graded before anything runs."""
Pair = tuple[Example, Reply]


class Drawn(Section):
    """How answers are drawn in training; methods that draw them inherit these settings."""

    temperature: float = Field(1.0, gt=0)
    """Of the drawing."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus of the drawing."""
    max_new_tokens: int = Field(256, ge=1)
    """Longest answer, in tokens."""
    judged: int | None = Field(None, ge=1)
    """Where the target task asks a judge that may cost money: so many answers may be judged in one
    training."""
    engine: Literal["hf", "vllm"] = "hf"
    """Who draws: `hf` the model that trains, by the loop that measures; `vllm` a server beside it,
    which is given the adapter of every step or round (`hardware.vllm`)."""

    @model_serializer(mode="wrap")
    def _sparse(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        found: dict[str, object] = write(self)
        if self.engine == "hf":  # older fingerprints stay as they are
            found.pop("engine", None)
        return found


def drawing(lesson: Lesson, given: Drawn, name: str, number: int) -> Sampling:
    """How the answers of one step or round are drawn.

    Args:
        lesson: says what ends an answer, and the training's seed.
        given: the settings.
        name: of the method, which is mixed into the seed.
        number: of the step or round, likewise.
    """
    from holdfast.engines.next_token import seed_of

    return Sampling(
        max_new_tokens=given.max_new_tokens,
        temperature=given.temperature,
        top_p=given.top_p,
        stop=() if lesson.target is None else lesson.target.sampling.stop,
        seed=seed_of(lesson.seed, name, number) % SEEDS,
    )


def drawer(lesson: Lesson, given: Drawn, name: str) -> Drawer:
    """What draws the answers of a training.

    Raises:
        TrainingError: a server is asked for, and none was planned for.
    """
    if given.engine == "hf":
        return Live(lesson.model, lesson.tokenizer, lesson.micro_batch)
    if lesson.served is None:
        raise TrainingError(
            f"{name} is to draw its answers by vLLM, and no server was planned for",
            remedy=f"set TrainJob.served, or leave `engine: vllm` out of {name}",
        )
    return lesson.served(given.max_new_tokens)


def identity(task: Task) -> dict[str, object]:
    """The grader, and the judge that it asks, as they stand in a training's identity."""
    asked = [judges.identity_of(one.judge) for one in task.parts if one.judge is not None]
    judge = {"judge": asked[0] if len(task.parts) == 1 else asked} if asked else {}
    return {"grader": _rewriting.grader(task), **judge}


def check(name: str, context: MethodContext, answers: int, cap: int | None) -> None:
    """Refuse a task whose grader cannot reward the answers that a method draws.

    Args:
        name: of the method, for messages.
        context: has the task and the training questions.
        answers: that will be graded in one training.
        cap: replies that a judge may be asked about in one training; None: none that cost.

    Raises:
        DataError: the training data holds other things than questions.
        StudyError: there is no grader, or it needs a judge that is not to be had for this.
    """
    _rewriting.check_questions(name, context.plain)
    for task in context.task.parts:
        mine = [one for one in context.plain if context.task.part_of(one) is task]
        _check_part(name, task, [context.task.bare(one) for one in mine], answers, cap)
    asked = [task.judge for task in context.task.parts if task.judge is not None]
    if cap is not None and not any(map(_may_cost, asked)):
        which = "a judge that costs nothing" if asked else "no judge"
        raise StudyError(
            f"{name}.judged: the target task {context.task.plugin} asks {which}",
            remedy="leave `judged` out",
        )


def _check_part(
    name: str, task: Task, questions: Sequence[Example], answers: int, cap: int | None
) -> None:
    """`check` for one target, of which these are the training questions."""
    if task.perplexity or any(LIKELIHOODS in one.meta for one in questions):
        raise StudyError(
            f"the target task {task.plugin} grades no answers in words, so nothing can be a reward",
            remedy=f"take {name} out of this arm, or make a task with answers the target",
        )
    some, who = questions[:CHECKED], "grader"
    if task.judge is not None:
        _check_judge(name, task, answers, cap)
        who = f"judge {task.judge.name}"
        asked = members_of(task.judge)
        free = not any(one.remote or one.guard is not None or one.code for one in asked)
        some = [one for one in questions if one.target][:CHECKED] if free else []
        if not some:
            return
    found = [_gold(task, one) for one in some]
    if not any(found):
        given = "no value" if set(found) == {None} else "no credit"
        raise StudyError(
            f"the {who} of {task.plugin} gives {given} to the gold answers of the training "
            f"questions (the first {len(some)} were tried), so it can reward no answer to them",
            remedy="give the task a grader (docs/tasks/your-own.md), correct its training answers, "
            f"or take {name} out of this arm",
        )


def check_adapters(name: str, spec: TrainSpec, copied: bool) -> None:
    """Refuse adapters that TRL's trainers of answers cannot train.

    Args:
        name: of the method, for messages.
        spec: how the arm is trained.
        copied: the adapters are copied as they begin, to be compared with.

    Raises:
        StudyError: naming the setting.
    """
    targets = spec.lora.target_modules
    if "lm_head" in ([targets] if isinstance(targets, str) else targets or ()):
        raise StudyError(
            f"{name} computes with the weights of lm_head alone, so an adapter on it would never "
            "be trained",
            remedy="leave lm_head out of train.lora.target_modules",
        )
    if copied and spec.lora.variant not in COPIED:
        raise StudyError(
            f"{name} compares with a copy of the adapters as they begin, which {spec.lora.variant} "
            "does not allow",
            remedy=f"set train.lora.variant to one of {', '.join(COPIED)}",
        )


def check_served(name: str, spec: TrainSpec, given: Drawn) -> None:
    """Refuse a server for adapters that vLLM does not take while they are trained.

    Raises:
        StudyError: naming why.
    """
    if given.engine == "hf":
        return
    why = servable.refused_training(spec.lora)
    if spec.method == "qlora":
        why = "the base is trained in 4 bits, and vLLM would draw with another"
    if why:
        raise StudyError(
            f"{name} cannot have its answers drawn by vLLM: {why}",
            remedy=f"leave `engine: vllm` out of {name}, or train with train.method lora and "
            "train.lora.variant lora or rslora",
        )


def check_room(where: str, lesson: Lesson, new_tokens: int) -> None:
    """Refuse answers that would not fit behind the longest question; see `refuse_long`."""
    config = lesson.model.config.get_text_config()
    reads = getattr(config, "max_position_embeddings", None)  # none where states stand for it
    if reads is not None:
        refuse_long(where, new_tokens, max(row.start for row in lesson.rows), reads)


def refuse_long(where: str, new_tokens: int, longest: int, reads: int) -> None:
    """Refuse answers of so many tokens to questions of up to `longest`, where a model reads less.

    Raises:
        StudyError: at `where`, which ends with the method's name; says what would fit.
    """
    if longest + new_tokens > reads:
        method = where.rpartition(".")[2]
        raise StudyError(
            f"draws answers of up to {new_tokens:,} tokens to questions of up to {longest:,}, and "
            f"the model reads {reads:,} in all",
            where=where,
            remedy=f"set {method}.max_new_tokens to {max(1, reads - longest)} or less",
        )


def _gold(task: Task, example: Example) -> float | None:
    said = answered(Reply(example.id, 0, example.target or "", "stop", 1))
    verdict = None
    if task.judge is not None:
        context = JudgeContext(Path(), Silent(), _no_engine)  # it needs none of it
        (verdict,) = task.judge.judge([(example, said)], context)
    return task.grade(example, said, verdict).value


def _may_cost(judge: Judge) -> bool:
    return any(one.remote for one in members_of(judge))


def _check_judge(name: str, task: Task, answers: int, cap: int | None) -> None:
    assert task.judge is not None
    members = members_of(task.judge)
    local = [one for one in members if one.guard is not None and not one.remote]
    if local:
        raise StudyError(
            f"the judge {local[0].name} would have to be in memory beside the model that trains",
            remedy=f"let a server answer for it (`judge: {{remote: ...}}`), or take {name} out of "
            "this arm",
        )
    if _may_cost(task.judge) and (cap is None or cap < answers):
        allowed = "no cap is set" if cap is None else f"the cap is {cap:,}"
        raise StudyError(
            f"{answers:,} answers would be judged in each training by {task.judge.name}, which may "
            f"cost money, and {allowed}",
            remedy=f"set {name}.judged: {answers} to allow it, or train with fewer steps, a "
            "smaller batch or a smaller group",
        )


@dataclass(frozen=True, slots=True)
class Rewards:
    """The target task's grader, for answers of the model that trains.

    Attributes:
        target: the task.
        folder: of the training; a judge keeps there what it was paid for.
    """

    target: Target
    folder: Path

    def target_of(self, example: Example) -> str:
        """See `Task.target_of`."""
        return self.target.task.target_of(example)

    def of(self, pairs: Sequence[Pair]) -> list[float | None]:
        """What each answer earns, 0 to 1; None: it cannot be scored."""
        whole = self.target.task
        read = [(example, answered(reply)) for example, reply in pairs]
        context = JudgeContext(self.folder, Silent(), _no_engine, self.folder / "judged")
        found: list[float | None] = [None] * len(read)
        for task in whole.parts:
            mine = [at for at, (example, _) in enumerate(read) if whole.part_of(example) is task]
            asked = [read[at] for at in mine]
            verdicts = (
                task.judge.judge(asked, context) if task.judge and asked else [None] * len(mine)
            )
            for at, (example, reply), verdict in zip(mine, asked, verdicts, strict=True):
                found[at] = whole.grade(example, reply, verdict).value
        return found


def _no_engine(ref: ModelRef, nf4: bool) -> Engine:
    raise TrainingError(
        f"the judge asks for the model {ref.base} while another trains",
        remedy="let a server answer for it",
    )


def reward_of(target: Target | None, name: str, folder: Path) -> Rewards:
    """The grader of a lesson's target.

    Raises:
        TrainingError: the lesson has none.
    """
    if target is None:
        raise TrainingError(
            f"{name} learns from a grader, and no target task was given",
            remedy="set TrainJob.graded",
        )
    return Rewards(target, folder)
