"""Trains an arm with the trainer that a loss method brings itself (`LossMethod.trainer`).

As many optimiser steps of as many examples as plain training, in the same order, on one device. The
trainer is used as the method makes it; what is added are callbacks: progress, checkpoints, meters
and the counting of tokens, since nobody knows beforehand how many a trainer will generate. No
method is named here: SDFT and GKD, which use TRL's trainers, stand in `holdfast.methods`.
"""

from __future__ import annotations

import gc
import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast import models
from holdfast.config import TrainSpec
from holdfast.data.batching import Budget, deal, plain_budget
from holdfast.data.chat import Encoded
from holdfast.errors import HoldfastError, TrainingError
from holdfast.memory.loading import loading
from holdfast.memory.memory_plan import MemoryPlan
from holdfast.memory.out_of_memory import RAISED, failure_of, is_out_of_memory, unrecoverable
from holdfast.memory.precision import Dtype
from holdfast.methods import ANCHOR, PROBE, TASK, Lesson, LossMethod, Target
from holdfast.methods._counting import TokenCounts
from holdfast.models import precision
from holdfast.models.averages import AVERAGED
from holdfast.models.cpu_training import mask_generator
from holdfast.models.rank import Rank
from holdfast.progress import Progress
from holdfast.runs import records, sealed, store
from holdfast.runs.plan import checkpoint_name
from holdfast.train import checkpoints
from holdfast.train.adapters import adapt
from holdfast.train.arguments import trainer_arguments
from holdfast.train.data import collate, dataset, encode_all, rounds_of
from holdfast.train.going_on import go_on
from holdfast.train.job import HISTORY, SUMMARY, TrainJob
from holdfast.train.kept import keeping
from holdfast.train.meters import Meters
from holdfast.train.mixed_precision import cast_adapters, computed_in, skipped_steps
from holdfast.train.planning import settled_on_cpu
from holdfast.train.rehearsal import measured
from holdfast.train.saving import writing
from holdfast.train.served import starting
from holdfast.train.validation import Validation, validated
from holdfast.train.watch import Reader, ended_by, watch
from holdfast.types import Example

if TYPE_CHECKING:
    from transformers import Trainer

AS_ASKED = {"completion_only_loss": True, "cut_template_header": False, "train_on": "last"}
MARKS = {"dropped", "kl"}
"""What other loss methods write into an example's `meta` (see `train.data`)."""
SHARED = (
    "output_dir", "max_steps", "learning_rate", "lr_scheduler_type", "warmup_steps", "optim",
    "optim_args", "optim_target_modules", "lr_scheduler_kwargs", "adam_beta1", "adam_beta2",
    "adam_epsilon", "weight_decay", "max_grad_norm", "activation_checkpointing", "bf16",
    "fp16", "use_cpu", "seed",
    "data_seed", "logging_steps", "logging_nan_inf_filter", "save_strategy", "report_to",
    "remove_unused_columns", "disable_tqdm", "dataloader_pin_memory", "dataloader_num_workers",
    "dataloader_prefetch_factor",
)  # fmt: skip
"""Arguments of Holdfast's own trainer that hold for every other too."""
LOUD = ("trl.experimental", "trl.trainer.grpo_trainer")
OLD_NAMES = "`(is_)?gradient_checkpointing"


@dataclass(frozen=True, slots=True)
class _Run:
    """What `train_with` was asked, and the device it came to."""

    method: LossMethod
    job: TrainJob
    progress: Progress
    device: str
    dtype: Dtype
    meters: Meters | None
    validation: Validation | None
    target: Target | None

    @property
    def readers(self) -> list[Reader]:
        """What reads the student while it trains."""
        return [one for one in (self.meters, self.validation) if one is not None]


def train_with(
    method: LossMethod,
    job: TrainJob,
    examples: Sequence[Example],
    meters: Meters | None,
    progress: Progress,
    validation: Validation | None = None,
    target: Target | None = None,
) -> Mapping[str, object]:
    """Train one arm with one seed, with a method's own trainer, on one device.

    Args:
        method: one that has an `own_trainer`.
        job: what is learned. Its folder gets ``checkpoint-*``, ``log.jsonl`` and ``drawn.jsonl``
            (the tokens of each step). A killed run goes on from its last complete checkpoint,
            unless the method is not `resumable`; then it starts anew.
        examples: prompts and gold answers.
        meters: read at every checkpoint; they may end the training.
        progress: is advanced per optimiser step.
        validation: the loss of held-out examples, which may end it too.
        target: the task that is learned, for a method that is `graded`.

    Returns:
        What `fit.fit` returns. Of the tokens, `generated` were drawn by the student,
        `supervised` had a loss (drawn or gold), `tokens` are prompts and answers as the student
        read them in training, and `reference` as a teacher did.

    Raises:
        TrainingError: full fine-tuning, several devices, marks of another loss method on the
            examples, settings that the method refuses, a trainer that fails or does not do all
            steps, or a loss that became NaN.
        OutOfMemory: memory ran out.
    """
    folder, plan = job.folder, job.plan
    if (folder / SUMMARY).is_file():  # killed after training, before its stage was recorded
        return sealed.read(folder / SUMMARY, records.again(folder))
    _refuse(examples, job.train, plan, method)
    device = models.pick_device("cpu" if plan and plan.placement == "cpu" else job.device)
    dtype = computed_in(job, device)
    spec = job.train.model_copy(update=AS_ASKED)
    run = _Run(
        method, replace(job, train=spec), progress, device, dtype, meters, validation, target
    )
    try:
        summary = _train(run, examples)
    finally:  # trainer and model hold each other; the next stage needs their memory
        progress.stop.hold("")
        gc.collect()
        models.empty_cache()
    store.write_sealed(folder / SUMMARY, summary)
    checkpoints.keep_weights_only(folder, job.save_at)
    for beside in folder.glob("checkpoint-*/*/"):  # other adapters, such as a teacher's
        if beside.name != AVERAGED:
            shutil.rmtree(beside)
    return summary


def _refuse(
    examples: Sequence[Example], spec: TrainSpec, plan: MemoryPlan | None, method: LossMethod
) -> None:
    name = method.plugin
    placed = "single" if plan is None else plan.placement
    if placed not in {"single", "cpu"} or Rank.current().world_size > 1:
        raise TrainingError(
            f"{name} trains on one device, and the plan is {placed}",
            remedy="name one GPU in hardware.gpus; where the model does not fit it, set "
            "train.method: qlora or take a smaller model",
        )
    if not spec.reference_by_switch:
        raise TrainingError(
            f"{name} needs adapters: with them switched off the model is the base",
            remedy="set train.method: lora",
        )
    method.check_training(spec)
    for example in examples:
        if example.meta.get("kind") in {ANCHOR, PROBE} or MARKS & set(example.meta):
            raise TrainingError(
                f"example {example.id} has the mark of another loss method",
                remedy=f"let {name} stand alone under `loss:` of its arm",
            )


def prompt_order(rows: Sequence[Encoded], examples: Sequence[Example], job: TrainJob) -> list[int]:
    """Which example is asked when: the order of `fit`, the same number in every step."""
    costs, budget = [row.cost for row in rows], job.budget
    kinds = [str(example.meta.get("kind", TASK)) for example in examples]
    even = plain_budget(costs, budget.steps, budget.micro_batches, budget.per_micro_batch)
    by_length = job.train.group_by_length
    slots = deal(costs, kinds, even, job.order_seed, by_length, rounds_of(examples))
    return [index for slot in slots for index in slot]


def _micro_batch(budget: Budget, plan: MemoryPlan | None) -> int:
    """Prompts per forward pass: as budgeted, or as many as the plan holds and divide a step."""
    if plan is None:
        return budget.per_micro_batch
    batch = budget.micro_batches * budget.per_micro_batch
    return max(size for size in range(1, plan.micro_batch + 1) if batch % size == 0)


def _start(folder: Path, method: LossMethod, progress: Progress) -> Path | None:
    """The checkpoint to go on from, if there is one and the method can."""
    checkpoints.tidy(folder, progress.say)
    if not method.resumable:
        if kept := [*folder.glob("checkpoint-*")]:
            progress.say(
                f"{method.plugin} with these settings goes on from no checkpoint: this training "
                "begins again"
            )
        for old in kept:
            shutil.rmtree(old)
    return checkpoints.last_complete(folder)


def _train(run: _Run, examples: Sequence[Example]) -> dict[str, object]:
    job, budget = run.job, run.job.budget
    start = _start(job.folder, run.method, run.progress)
    done = checkpoints.step_of(start) if start else 0
    run.progress.total(budget.steps, "steps")
    run.progress.kept(done)
    with ExitStack() as closing:
        lesson = _lesson(run, examples, done, closing)
        return _taught(run, lesson, start)


def _taught(run: _Run, lesson: Lesson, start: Path | None) -> dict[str, object]:
    """Train the student of a lesson; what was spent."""
    job, budget = run.job, run.job.budget
    trainer = _trainer(run, lesson)
    student = lesson.model
    cast_adapters(student, job, run.dtype)
    for reader in run.readers:
        reader.begin(student, checkpoints.step_of(start) if start else 0)
    trainable = sum(values.numel() for values in student.parameters() if values.requires_grad)
    try:
        if job.averages:
            trainer.add_callback(keeping(trainer, (), job.averages))
        with writing(trainer, job.train.async_save) as writer, quiet():
            given = set(job.save_at), run.progress, None, None, run.readers, writer
            trainer.add_callback(watch(trainer, *given))
            if ended_by(run.readers) is None:  # else it was killed after its end
                trainer.train(resume_from_checkpoint=str(start) if start else None)
    except RAISED as error:
        if not is_out_of_memory(error):
            raise
        raise unrecoverable("forward", "a training step does not fit", failure_of(error)) from error
    lesson.counts.write()
    log = trainer.state.log_history
    store.write_jsonl(job.folder / HISTORY, log)
    ended = ended_by(run.readers)
    steps = (ended.stopped_at if ended else None) or budget.steps
    _check_complete(run, steps)
    return {
        "steps": steps,
        "stopped_at": ended.stopped_at if ended else None,
        **_tokens(lesson, steps),
        "trainable_parameters": trainable,
        "device": models.describe_device(run.device, precision.torch_dtype(run.dtype)),
        "recomputed": bool(trainer.args.activation_checkpointing),
        **mask_generator(student),
        **skipped_steps(trainer),
        "loss": [[entry["step"], entry["loss"]] for entry in log if "loss" in entry],
        "memory": measured(),
        **validated(run.validation),
    }


def _lesson(run: _Run, examples: Sequence[Example], done: int, closing: ExitStack) -> Lesson:
    """The student, which begins with the adapters of `fit`, and all that it learns from."""
    from transformers.trainer_utils import set_seed

    job, spec, plan, budget = run.job, run.job.train, run.job.plan, run.job.budget
    rows, examples, _ = encode_all(job.model, examples, spec)
    if run.device == "cpu" and plan is None:
        longest, micro = max(row.cost.tokens for row in rows), _micro_batch(budget, plan)
        spec = settled_on_cpu(spec, job.model, run.dtype, micro, longest, run.method.overhead())
    ours = trainer_arguments(spec, budget, job.seed, job.folder, run.device, run.dtype, plan)
    with loading(), quiet():
        loaded_as = precision.torch_dtype(run.dtype)
        base = models.load_model(job.model, loaded_as, run.device, nf4=spec.method == "qlora")
        set_seed(job.seed)
        kinds = [str(example.meta.get("kind", TASK)) for example in examples]
        student = adapt(base, spec, rows, kinds, plan)
        if job.start is not None:
            go_on(student, job.start, plan)
    pad = models.load_tokenizer(job.model).pad_token_id
    served = None
    if job.served is not None:
        of = job.model, run.dtype, spec.lora
        served = starting(job.served, student, of, closing, run.progress.say)
    return Lesson(
        student, job.model, examples, rows, prompt_order(rows, examples, job), budget.steps,
        _micro_batch(budget, plan), {name: getattr(ours, name) for name in SHARED},
        lambda batch: collate(batch, pad), lambda slots: dataset(rows, slots),
        TokenCounts(job.folder, done), run.target, served,
    )  # fmt: skip


def _trainer(run: _Run, lesson: Lesson) -> Trainer:
    """The method's trainer, counted.

    Raises:
        TrainingError: the method cannot make it; of one in a user's file every fault is told.
    """
    from transformers import PrinterCallback, Trainer

    method = run.method
    try:
        with loading(), quiet():
            trainer = method.trainer(lesson)
            if not isinstance(trainer, Trainer):
                raise TypeError(f"it is {type(trainer).__name__}, no transformers.Trainer")
    except HoldfastError:
        raise
    except Exception as error:
        if not method.code or is_out_of_memory(error):
            raise
        raise TrainingError(
            f"its trainer cannot be made: {type(error).__name__}: {error}",
            where=method.plugin,
            remedy="correct `trainer` in its file; docs/plugins.md has a whole example",
        ) from error
    trainer.add_callback(lesson.counts.callback())
    trainer.remove_callback(PrinterCallback)
    return trainer


def _check_complete(run: _Run, steps: int) -> None:
    """Refuse a trainer that ended early: what is measured later would be missing.

    Raises:
        TrainingError: naming the checkpoint.
    """
    for step in run.job.save_at:
        folder = run.job.folder / checkpoint_name(step)
        if step <= steps and not (folder / checkpoints.COMPLETE).is_file():
            raise TrainingError(
                f"the trainer of {run.method.plugin} ended without its checkpoint of step {step}",
                where=str(run.job.folder),
                remedy="let it take max_steps and the data as they come from the lesson",
            )


def _tokens(lesson: Lesson, steps: int) -> dict[str, int]:
    """What went through the model: as counted, or the gold answers where nothing was."""
    seen_rows = [lesson.rows[i] for i in lesson.order[: len(lesson.order) // lesson.steps * steps]]
    counts = lesson.counts
    generated, supervised = counts.total("generated_tokens"), counts.total("supervised_tokens")
    prompts = counts.total("prompt_tokens")
    answers = supervised if prompts else max(generated, supervised)  # drawn ones may lack a loss
    if not answers:
        supervised = sum(row.cost.supervised for row in seen_rows)
        answers = sum(len(row.ids) - row.start for row in seen_rows)
    return {
        "supervised_tokens": supervised,
        "tokens": (prompts or sum(row.start for row in seen_rows)) + answers,
        "reference_tokens": counts.total("reference_tokens"),
        "generated_tokens": generated,
        "examples_seen": counts.total("examples") or len(seen_rows),
    }


@contextmanager
def quiet() -> Iterator[None]:
    """Keep TRL from saying that its trainers may change, and what it thinks of adapters.

    Its calls of transformers' older names for activation checkpointing are passed over too, and so
    are answers that no reward could be given to, which it would print.
    """
    from trl.import_utils import TRLExperimentalWarning

    before = {name: logging.getLogger(name).level for name in LOUD}
    for name in LOUD:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TRLExperimentalWarning)
            warnings.filterwarnings("ignore", OLD_NAMES, FutureWarning)
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
