"""How does an arm become checkpoints?

`fit` trains with TRL's `SFTTrainer` on rows that were tokenised, masked and dealt into
micro-batches beforehand (`holdfast.data.chat`, `holdfast.data.batching`), so that the trainer decides nothing
about the data. Checkpoints are marked complete after they are fully written; a killed run goes on
from the last complete one and ends in the same weights.
"""

from __future__ import annotations

import gc
import importlib.util
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast import models
from holdfast.config import TrainSpec
from holdfast.data.batching import Budget, deal, regroup
from holdfast.data.chat import Encoded
from holdfast.environment import install_command
from holdfast.errors import HoldfastError, MissingDependency, TrainingError
from holdfast.memory.memory_plan import MemoryPlan
from holdfast.memory.out_of_memory import loading
from holdfast.methods import Term
from holdfast.models import ModelRef, placement
from holdfast.models.placement import Seat
from holdfast.progress import Progress
from holdfast.runs import store
from holdfast.train import adapters, checkpoints
from holdfast.train.arguments import trainer_arguments
from holdfast.train.checkpoints import checkpoint_name as checkpoint_name  # part of this interface
from holdfast.train.data import collate, dataset, tokens_of
from holdfast.train.job import EVENTS, SUMMARY
from holdfast.train.meters import Meters
from holdfast.train.rehearsal import measured
from holdfast.train.watch import Planned, watch

BF16 = "torch.bfloat16"


def fit(
    ref: ModelRef,
    rows: Sequence[Encoded],
    kinds: Sequence[str],
    budget: Budget,
    spec: TrainSpec,
    seed: int,
    save_at: Sequence[int],
    folder: Path,
    progress: Progress,
    device: str = "auto",
    plan: MemoryPlan | None = None,
    rehearsal: bool | None = None,
    terms: Sequence[Term] = (),
    probes: Sequence[Encoded] = (),
    meters: Meters | None = None,
) -> Mapping[str, Any]:
    """Train one arm with one seed, in this process or as one of several.

    Args:
        ref: the base model.
        rows: the training examples, encoded.
        kinds: of each row; kinds are interleaved evenly (see `budget.deal`).
        budget: steps, micro-batches and tokens.
        spec: everything else.
        seed: of adapters, dropout and, unless `spec.data_seed` is given, of the order.
        save_at: steps after which a checkpoint is kept.
        folder: gets ``checkpoint-*`` and ``log.jsonl``; complete checkpoints in it are resumed.
        progress: is advanced per optimiser step.
        device: `auto`, `cpu` or `cuda`.
        plan: placement, dtypes, micro-batch; has no bearing on what is learned, up to rounding.
            None: one device and the micro-batches as dealt.
        rehearsal: run the longest micro-batch before the first step; None: on a GPU.
        terms: what the arm's loss methods do in a step.
        probes: examples that they look at before the first step.
        meters: read at every checkpoint; they may end the training.

    Returns:
        What was spent: steps, tokens, examples, and what it took of each GPU's memory;
        `stopped_at` when a meter ended it.

    Raises:
        TrainingError: the loss became NaN, or the run is not as planned.
        OutOfMemory: memory ran out and nothing in this process can be made smaller.
    """
    if (folder / SUMMARY).is_file():  # killed after training, before its stage was recorded
        return dict(store.read_json(folder / SUMMARY))
    job = _Job(
        ref, rows, kinds, budget, spec, seed, save_at, folder, progress, terms, probes, meters
    )
    device = models.pick_device("cpu" if plan and plan.placement == "cpu" else device)
    try:
        summary = _train(job, device, plan, device == "cuda" if rehearsal is None else rehearsal)
    finally:  # trainer and model hold each other; the next stage needs their memory
        gc.collect()
        models.empty_cache()
    if Seat.taken().rank == 0:
        store.write_json(folder / SUMMARY, summary)
        checkpoints.keep_weights_only(folder)
    return summary


@dataclass(frozen=True, slots=True)
class _Job:
    """The arguments of `fit` that say what is learned."""

    ref: ModelRef
    rows: Sequence[Encoded]
    kinds: Sequence[str]
    budget: Budget
    spec: TrainSpec
    seed: int
    save_at: Sequence[int]
    folder: Path
    progress: Progress
    terms: Sequence[Term]
    probes: Sequence[Encoded]
    meters: Meters | None


def _train(job: _Job, device: str, plan: MemoryPlan | None, rehearsal: bool) -> dict[str, Any]:
    spec, folder, seat = job.spec, job.folder, Seat.taken()
    if plan is not None:
        placement.check_world(plan, seat.world_size)
    dtype = models.pick_dtype(device, spec.bf16)
    if plan is not None and spec.method != "full":
        dtype = models.pick_dtype(device, plan.dtype == "bfloat16")
    order_seed = job.seed if spec.data_seed is None else spec.data_seed
    costs = [row.cost for row in job.rows]
    dealt = deal(costs, job.kinds, job.budget, order_seed, spec.group_by_length)
    slots = dealt
    if plan is not None:
        slots = regroup(dealt, job.budget.micro_batches, plan.micro_batch, plan.world_size)
    bf16 = str(dtype) == BF16
    with _explained(spec):
        arguments = trainer_arguments(spec, job.budget, job.seed, folder, device, bf16, plan)
    arguments.gradient_accumulation_steps = len(slots) // job.budget.steps // seat.world_size
    if seat.rank == 0:
        checkpoints.tidy(folder)
    checkpoints.meet()
    start = checkpoints.last_complete(folder)
    tokenizer = models.load_tokenizer(job.ref)
    model = _load(job, device, dtype, plan)
    model.config.use_cache = False

    from transformers import PrinterCallback, TrainerState
    from transformers.trainer_utils import set_seed

    from holdfast.train.trainer import Trainer

    set_seed(job.seed)
    job.progress.total(job.budget.steps, "steps")
    job.progress.advance(checkpoints.step_of(start) if start else 0)
    with loading(), _explained(spec):
        model = _adapted(job, model, device, plan)
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=dataset(job.rows, slots),
            data_collator=lambda batch: collate(batch, tokenizer.pad_token_id),
            processing_class=tokenizer,
            terms=job.terms,
            say=job.progress.say,
        )
    if plan is not None and spec.method != "full":
        placement.cast_adapters(model, plan)
    if plan is not None and plan.placement == "split":
        placement.bring_home(trainer.model, arguments.device)
    trainer.remove_callback(PrinterCallback)
    longest = None
    if rehearsal:
        row = max(range(len(slots)), key=lambda i: _area([costs[j].tokens for j in slots[i]]))
        longest = collate([trainer.train_dataset[row]], tokenizer.pad_token_id)
    planned = None if plan is None else Planned(plan, spec.method, device, seat)
    trainer.add_callback(
        watch(trainer, set(job.save_at), job.progress, planned, longest, job.meters)
    )
    with loading():
        _prepare(job, trainer, checkpoints.step_of(start) if start else 0, tokenizer.pad_token_id)
    over = job.meters is not None and job.meters.stopped_at is not None  # killed after its end
    if over and start is not None:
        trainer.state = TrainerState.load_from_json(str(start / "trainer_state.json"))
    try:
        if not over:
            _run(trainer, start)
    finally:
        with (folder / EVENTS).open("a", encoding="utf-8") as file:
            file.writelines(store.jsonl_line(event) for event in trainer.events)
    if seat.rank == 0:
        store.write_jsonl(folder / "log.jsonl", trainer.state.log_history)
    seen = [index for slot in dealt for index in slot]
    losses = [[log["step"], log["loss"]] for log in trainer.state.log_history if "loss" in log]
    stopped = job.meters.stopped_at if job.meters else None
    if stopped:
        seen = [i for slot in dealt[: stopped * job.budget.micro_batches] for i in slot]
    return {
        "steps": stopped or job.budget.steps,
        "stopped_at": stopped,
        **tokens_of(job.rows, seen, job.probes, job.terms),
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "device": models.describe_device(device, dtype),
        "loss": losses,
        "memory": measured(),
    }


def _prepare(job: _Job, trainer: Any, step: int, pad: int) -> None:
    """Let loss methods and meters look at the untouched model; nothing of it stays."""
    model = trainer.model
    if job.meters is not None:
        job.meters.begin(model, step)
    if not any(term.prepare for term in job.terms):
        return
    batches = [
        {key: value.to(trainer.args.device) for key, value in collate([one], pad).items()}
        for one in dataset(job.probes, [[i] for i in range(len(job.probes))])
    ] if job.probes else []  # fmt: skip
    model.eval()
    for term in job.terms:
        if term.prepare:
            term.prepare(model, batches)
    model.train()


def _load(job: _Job, device: str, dtype: Any, plan: MemoryPlan | None) -> Any:
    # All weights train: bfloat16 would round most updates away, so they are float32 under autocast.
    loaded_as = models.pick_dtype(device, False) if job.spec.method == "full" else dtype
    if plan is not None:
        return placement.load(job.ref, plan, loaded_as, device, Seat.taken())
    with loading():
        return models.load_model(job.ref, loaded_as, device, nf4=job.spec.method == "qlora")


def _adapted(job: _Job, model: Any, device: str, plan: MemoryPlan | None) -> Any:
    if job.spec.method == "full":
        return model
    adapted = adapters.adapt(model, job.spec, job.rows, job.kinds, plan)
    if plan is not None and plan.placement == "offload":
        placement.offload(adapted, device)
    return adapted


def _area(lengths: Sequence[int]) -> int:
    """Padded tokens of one micro-batch."""
    return len(lengths) * max(lengths, default=0)


def _run(trainer: Any, start: Path | None) -> None:
    shards = start is not None and trainer.is_fsdp_enabled
    with checkpoints.dealt_out(trainer, start) if start and shards else nullcontext():
        trainer.train(resume_from_checkpoint=str(start) if start else None)


def check_settings(spec: TrainSpec, device: str) -> None:
    """Let the trainer look at the settings before any GPU time is spent on them.

    Raises:
        TrainingError: an unknown optimiser or schedule, or one that needs a missing package.
    """
    device = models.pick_device(device)
    bf16 = str(models.pick_dtype(device, spec.bf16)) == BF16
    with tempfile.TemporaryDirectory() as folder, _explained(spec):
        trainer_arguments(spec, Budget(1, 1, 1, 1), 0, Path(folder), device, bf16)
    if (spec.method == "qlora" or "paged" in spec.optim or "8bit" in spec.optim) and (
        importlib.util.find_spec("bitsandbytes") is None
    ):
        raise MissingDependency(
            f"method {spec.method} with optim {spec.optim} needs bitsandbytes",
            remedy=f"{install_command('train', 'bitsandbytes')}, or set train.optim: adamw_torch and "
            "method: lora",
        )


@contextmanager
def _explained(spec: TrainSpec) -> Iterator[None]:
    try:
        yield
    except HoldfastError:
        raise
    except (ValueError, ImportError) as error:
        raise TrainingError(
            f"the trainer refused: {error}",
            remedy=f"check train.optim ({spec.optim}), train.lora.target_modules and the model",
        ) from error
