"""How does an arm learn from a teacher's distributions over its own answers?

`distill` trains with TRL's `SDFTTrainer` or `GKDTrainer` as they are (`holdfast.train.teaching`):
as many optimiser steps of as many prompts as plain training, in the same order. The untouched base
is the model itself with its adapters switched off, so no second copy is held.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast import models
from holdfast.config import TrainSpec
from holdfast.data.batching import Budget, deal, plain_budget
from holdfast.data.chat import Encoded
from holdfast.errors import TrainingError
from holdfast.memory.memory_plan import MemoryPlan
from holdfast.memory.out_of_memory import failure_of, is_out_of_memory, loading, unrecoverable
from holdfast.methods import ANCHOR, PROBE, TASK
from holdfast.methods.gkd import GKD
from holdfast.methods.sdft import SDFT
from holdfast.models import ModelRef, placement
from holdfast.models.placement import Rank
from holdfast.progress import Progress
from holdfast.runs import store
from holdfast.train import checkpoints
from holdfast.train.adapters import adapt
from holdfast.train.arguments import trainer_arguments
from holdfast.train.data import encode_all
from holdfast.train.job import SUMMARY
from holdfast.train.meters import Meters
from holdfast.train.rehearsal import measured
from holdfast.train.teaching import Drawn, Lesson, gkd_trainer, quiet, sdft_trainer
from holdfast.train.watch import watch
from holdfast.types import Example

BF16 = "torch.bfloat16"
MARKS = {"dropped", "kl"}
"""What other loss methods write into an example's `meta` (see `rows`)."""
AVERAGED = {"lora", "rslora"}
"""Variants of LoRA that are the base where their matrices are zero."""


def distill(
    ref: ModelRef,
    examples: Sequence[Example],
    budget: Budget,
    spec: TrainSpec,
    method: SDFT | GKD,
    seed: int,
    save_at: Sequence[int],
    folder: Path,
    progress: Progress,
    device: str = "auto",
    plan: MemoryPlan | None = None,
    meters: Meters | None = None,
) -> Mapping[str, Any]:
    """Train one arm with one seed against a teacher, on one device.

    Args:
        ref: the base model.
        examples: prompts and gold answers.
        budget: optimiser steps, and prompts per step (`micro_batches` x `per_micro_batch`).
        spec: everything else; dropout is off, as TRL has it, so that it does not disturb drawing.
        method: the teacher and the divergence.
        seed: of adapters, drawing and, unless `spec.data_seed` is given, of the order.
        save_at: steps after which a checkpoint is kept.
        folder: gets ``checkpoint-*``, ``log.jsonl`` and `teaching.DRAWN`. A killed run goes on from
            its last complete checkpoint; with a running mean for a teacher, which no checkpoint
            holds, it starts anew.
        progress: is advanced per optimiser step.
        device: `auto`, `cpu` or `cuda`.
        plan: of one device; None: micro-batches as budgeted.
        meters: read at every checkpoint; they may end the training.

    Returns:
        What `train.fit` returns. Of the tokens, `generated` were drawn by the student,
        `supervised` bore loss (drawn or gold), `tokens` are prompts and answers as the student
        read them in training, and `reference` as the teacher did.

    Raises:
        TrainingError: full fine-tuning, several devices, marks of another loss method on the
            examples, a teacher with another vocabulary, or a loss that became NaN.
        OutOfMemory: memory ran out.
    """
    if (folder / SUMMARY).is_file():  # killed after training, before its stage was recorded
        return dict(store.read_json(folder / SUMMARY))
    _refuse(examples, spec, plan, method)
    device = models.pick_device("cpu" if plan and plan.placement == "cpu" else device)
    dtype = models.pick_dtype(device, spec.bf16 if plan is None else plan.dtype == "bfloat16")
    spec = spec.model_copy(update={"completion_only_loss": True, "cut_template_header": False})
    rows, examples, _ = encode_all(ref, examples, spec)
    order = prompt_order(rows, examples, budget, spec, seed)
    ours = trainer_arguments(spec, budget, seed, folder, device, str(dtype) == BF16, plan)
    lesson = Lesson(ref, examples, rows, order, budget.steps, _micro_batch(budget, plan), ours)
    try:
        summary = _train(
            lesson, method, spec, seed, save_at, folder, progress, device, dtype, plan, meters
        )
    finally:  # trainer and model hold each other; the next stage needs their memory
        gc.collect()
        models.empty_cache()
    store.write_json(folder / SUMMARY, summary)
    checkpoints.keep_weights_only(folder)
    for averaged in folder.glob("checkpoint-*/teacher"):
        shutil.rmtree(averaged)
    return summary


def _refuse(
    examples: Sequence[Example], spec: TrainSpec, plan: MemoryPlan | None, method: SDFT | GKD
) -> None:
    name, averaged = str(method.trainer), _has_mean(method)
    placement = "single" if plan is None else plan.placement
    if placement not in {"single", "cpu"} or Rank.current().world_size > 1:
        raise TrainingError(
            f"{name} trains on one device, and the plan is {placement}",
            remedy="name one GPU in hardware.gpus; where the model does not fit it, set "
            "train.method: qlora or take a smaller model",
        )
    if not spec.reference_by_switch:
        raise TrainingError(
            f"{name} needs adapters: its teacher is the model with them switched off",
            remedy="set train.method: lora",
        )
    if averaged and spec.lora.variant not in AVERAGED:
        raise TrainingError(
            f"a running mean of {spec.lora.variant} adapters is no teacher: TRL begins it at zero",
            remedy="leave sdft.ema out, or set train.lora.variant: lora",
        )
    for one in examples:
        if one.meta.get("kind") in {ANCHOR, PROBE} or MARKS & set(one.meta):
            raise TrainingError(
                f"example {one.id} bears the mark of another loss method",
                remedy=f"let {name} stand alone under `loss:` of its arm",
            )


def prompt_order(
    rows: Sequence[Encoded], examples: Sequence[Example], budget: Budget, spec: TrainSpec, seed: int
) -> list[int]:
    """Which example is asked when: the order of `fit`, the same number in every step."""
    costs = [row.cost for row in rows]
    kinds = [str(one.meta.get("kind", TASK)) for one in examples]
    even = plain_budget(costs, budget.steps, budget.micro_batches, budget.per_micro_batch)
    order_seed = seed if spec.data_seed is None else spec.data_seed
    slots = deal(costs, kinds, even, order_seed, spec.group_by_length)
    return [index for slot in slots for index in slot]


def _micro_batch(budget: Budget, plan: MemoryPlan | None) -> int:
    """Prompts per forward pass: as budgeted, or as many as the plan holds and divide a step."""
    if plan is None:
        return budget.per_micro_batch
    batch = budget.micro_batches * budget.per_micro_batch
    return max(one for one in range(1, plan.micro_batch + 1) if batch % one == 0)


def _start(folder: Path, method: SDFT | GKD) -> Path | None:
    """The checkpoint to go on from; no checkpoint holds a teacher that is a running mean."""
    checkpoints.tidy(folder)
    if _has_mean(method):
        for old in folder.glob("checkpoint-*"):
            shutil.rmtree(old)
    return checkpoints.last_complete(folder)


def _has_mean(method: SDFT | GKD) -> bool:
    return isinstance(method, SDFT) and method.options.ema is not None


def _train(
    lesson: Lesson, method: SDFT | GKD, spec: TrainSpec, seed: int, save_at: Sequence[int],
    folder: Path, progress: Progress, device: str, dtype: Any, plan: MemoryPlan | None,
    meters: Meters | None,
) -> dict[str, Any]:  # fmt: skip
    start = _start(folder, method)
    done = checkpoints.step_of(start) if start else 0
    drawn = Drawn(folder, done)
    progress.total(lesson.steps, "steps")
    progress.advance(done)
    with loading(), quiet():
        student = _student(lesson, spec, seed, device, dtype, plan)
        trainer = _trainer(lesson, method, student, drawn)
    if plan is not None:
        placement.cast_adapters(student, plan)
    if meters is not None:
        meters.begin(student, done)
    trainable = sum(one.numel() for one in student.parameters() if one.requires_grad)
    trainer.add_callback(watch(trainer, set(save_at), progress, None, None, meters))
    try:
        if meters is None or meters.stopped_at is None:  # else it was killed after its end
            with quiet():
                trainer.train(resume_from_checkpoint=str(start) if start else None)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise unrecoverable(
            "forward", "a step of distillation does not fit", failure_of(error)
        ) from error
    drawn.write()
    log = trainer.state.log_history
    store.write_jsonl(folder / "log.jsonl", log)
    stopped = meters.stopped_at if meters else None
    steps = stopped or lesson.steps
    asked = lesson.order[: len(lesson.order) // lesson.steps * steps]
    prompts = sum(lesson.rows[i].start for i in asked)
    generated, supervised = drawn.total("generated_tokens"), drawn.total("supervised_tokens")
    return {
        "steps": steps,
        "stopped_at": stopped,
        "supervised_tokens": supervised,
        # SDFT may leave drawn tokens without loss; GKD has loss on gold ones that nobody drew.
        "tokens": prompts + max(generated, supervised),
        "reference_tokens": drawn.total("reference_tokens"),
        "generated_tokens": generated,
        "examples_seen": len(asked),
        "trainable_parameters": trainable,
        "device": models.describe_device(device, dtype),
        "loss": [[one["step"], one["loss"]] for one in log if "loss" in one],
        "memory": measured(),
    }


def _student(
    lesson: Lesson, spec: TrainSpec, seed: int, device: str, dtype: Any, plan: MemoryPlan | None
) -> Any:
    """The base with the adapters that `fit` would begin with."""
    from transformers.trainer_utils import set_seed

    base = models.load_model(lesson.ref, dtype, device, nf4=spec.method == "qlora")
    set_seed(seed)
    kinds = [str(one.meta.get("kind", TASK)) for one in lesson.examples]
    return adapt(base, spec, lesson.rows, kinds, plan)


def _trainer(lesson: Lesson, method: SDFT | GKD, model: Any, drawn: Drawn) -> Any:
    from transformers import PrinterCallback

    if isinstance(method, SDFT):
        trainer = sdft_trainer(lesson, method, model)
        trainer.add_callback(drawn.callback(method.options.skip))
    else:
        trainer = gkd_trainer(lesson, method, model)
        drawn.listen(trainer)
        trainer.add_callback(drawn.callback())
    trainer.remove_callback(PrinterCallback)
    return trainer
