"""Trains one arm with one seed: `fit` takes a job and encoded rows, and leaves checkpoints.

TRL's `SFTTrainer` runs on rows that were tokenised, masked and dealt into micro-batches beforehand
(`holdfast.data.chat`, `holdfast.data.batching`), so that the trainer decides nothing about the
data. Checkpoints are marked complete after they are fully written; a killed run goes on from the
last complete one and ends in the same weights.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast import models
from holdfast.data.batching import deal, regroup
from holdfast.data.packing import Passes, Room, pack
from holdfast.data.phases import in_phases
from holdfast.memory.estimate.method_overhead import NOTHING, Logits, MethodOverhead
from holdfast.memory.loading import loading
from holdfast.memory.precision import Dtype
from holdfast.methods import Term
from holdfast.models import placement, precision
from holdfast.models.cpu_training import mask_generator
from holdfast.models.rank import Rank
from holdfast.progress import Progress, Silent
from holdfast.runs import records, sealed, store
from holdfast.train import adapters, checkpoints, kernels, packed
from holdfast.train.arguments import explained, trainer_arguments
from holdfast.train.data import TrainingData, collate, dataset, tokens_of
from holdfast.train.going_on import go_on
from holdfast.train.job import EVENTS, HISTORY, SUMMARY, TrainJob
from holdfast.train.kept import keeping
from holdfast.train.meters import Meters
from holdfast.train.mixed_precision import cast_adapters, computed_in, skipped_steps
from holdfast.train.planning import settled_on_cpu
from holdfast.train.rehearsal import measured
from holdfast.train.saving import writing
from holdfast.train.shards import dealt_out
from holdfast.train.validation import Validation, validated
from holdfast.train.watch import Planned, Reader, ended_by, watch

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import SFTConfig

    from holdfast.train.trainer import Trainer

Slots = list[list[int]]
"""For each micro-batch the indices of its rows."""


def fit(
    job: TrainJob,
    data: TrainingData,
    *,
    terms: Sequence[Term] = (),
    meters: Meters | None = None,
    validation: Validation | None = None,
    progress: Progress | None = None,
) -> Mapping[str, object]:
    """Train one arm with one seed, in this process or as one of several.

    Args:
        job: the model, its settings, budget and seed, and where checkpoints go. Its `examples`,
            `losses`, `probes` and `stop` are for a process that makes the other arguments of them
            (`launch.worker`), and are not looked at here.
        data: the rows to train on.
        terms: what the arm's loss methods do in a step.
        meters: read at every checkpoint; they may end the training.
        validation: the loss of held-out examples, which may end it too.
        progress: is advanced per optimiser step; None: nobody is told.

    Returns:
        What was spent: steps, tokens, examples, and what it took of each GPU's memory;
        `stopped_at` when a meter or the validation ended it.

    Raises:
        TrainingError: the loss became NaN, or the run is not as planned.
        OutOfMemory: memory ran out and nothing in this process can be made smaller.
    """
    if (job.folder / SUMMARY).is_file():  # killed after training, before its stage was recorded
        return sealed.read(job.folder / SUMMARY, records.again(job.folder))
    device = "cpu" if job.plan and job.plan.placement == "cpu" else job.device
    job = replace(job, device=models.pick_device(device))
    try:
        summary = _train(_Run(job, data, terms, meters, validation, progress or Silent()))
    finally:  # trainer and model hold each other; the next stage needs their memory
        if progress is not None:
            progress.stop.hold("")
        gc.collect()
        models.empty_cache()
    if Rank.current().is_first:
        store.write_sealed(job.folder / SUMMARY, summary)
        checkpoints.keep_weights_only(job.folder, job.save_at)
    return summary


@dataclass(frozen=True, slots=True)
class _Run:
    """The arguments of `fit`, the job's device decided."""

    job: TrainJob
    data: TrainingData
    terms: Sequence[Term]
    meters: Meters | None
    validation: Validation | None
    progress: Progress

    @property
    def lengths(self) -> list[int]:
        """Tokens of every example."""
        return [len(row.ids) for row in self.data.rows]

    @property
    def varlen(self) -> bool:
        """Whether packed rows are told by their lengths, as flash attention wants it."""
        return self.job.train.packing and self.job.model.attention.startswith("flash_attention")

    @property
    def dtype(self) -> torch.dtype:
        """What the step computes in, and the frozen base is loaded in."""
        return precision.torch_dtype(self.precision)

    @property
    def precision(self) -> Dtype:
        """Its name: what the plan says; without one by the rule that plans follow too."""
        return computed_in(self.job, self.job.device)

    @property
    def overhead(self) -> MethodOverhead:
        """What the terms take of memory, as far as they tell: whole logits where they compare."""
        compares = any(one.divergence is not None for one in self.terms)
        kept = sum(one.kept is not None for one in self.terms) + len(self.job.averages)
        logits: Logits = "policy+reference" if compares else "none"
        return MethodOverhead(("terms",), logits, kept=kept) if compares or kept else NOTHING

    @property
    def stopped_at(self) -> int | None:
        """The step at which something that reads the model ended the training."""
        ended = ended_by(self.readers)
        return ended.stopped_at if ended else None

    @property
    def readers(self) -> list[Reader]:
        """What reads the model while it trains."""
        return [one for one in (self.meters, self.validation) if one is not None]

    @property
    def rehearses(self) -> bool:
        """Whether the longest micro-batch is run before the first step."""
        asked = self.job.rehearsal
        return self.job.device == "cuda" if asked is None else asked


def _train(run: _Run) -> dict[str, object]:
    job, rank = run.job, Rank.current()
    if job.plan is not None:
        placement.check_world(job.plan, rank.world_size)
    kernels.check_plan(job.train, job.plan)
    dealt, passes = _dealt(run)
    arguments = _arguments(run, passes, rank)
    if rank.is_first:
        checkpoints.tidy(job.folder, run.progress.say)
    checkpoints.meet()
    start = checkpoints.last_complete(job.folder)
    done = checkpoints.step_of(start) if start else 0
    tokenizer = models.load_tokenizer(job.model, chats=False)
    trainer = _trainer(run, arguments, passes, tokenizer, done)
    if job.train.method != "full":
        cast_adapters(trainer.model, job, run.precision)
    if job.plan is not None and job.plan.placement == "split":
        placement.outputs_to_first_gpu(trainer.model, trainer.args.device)
    longest = _longest(run, trainer, passes) if run.rehearses else None
    planned = None if job.plan is None else Planned(job.plan, job.train.method, job.device, rank)
    if job.averages or any(one.begin or one.end or one.kept is not None for one in run.terms):
        trainer.add_callback(keeping(trainer, run.terms, job.averages))
    with writing(trainer, job.train.async_save) as writer:
        trainer.add_callback(
            watch(trainer, set(job.save_at), run.progress, planned, longest, run.readers, writer)
        )
        with loading():
            _prepare(run, trainer, done, tokenizer.pad_token_id)
        _train_from(start, run, trainer)
    if rank.is_first:
        store.write_jsonl(job.folder / HISTORY, trainer.state.log_history)
    return _summary(run, trainer, dealt) | _as_packed(run, dealt, passes)


def _dealt(run: _Run) -> tuple[Slots, Passes]:
    """The micro-batches as budgeted, and as they are packed or the memory plan cuts them."""
    job, plan = run.job, run.job.plan
    data, spec = run.data, job.train
    costs = [row.cost for row in data.rows]
    phases = next((one.phases for one in run.terms if one.phases), None)
    how = job.budget, job.order_seed, spec.group_by_length, data.rounds
    dealt = in_phases(costs, data.kinds, phases, *how) if phases else deal(costs, data.kinds, *how)
    per_pass = job.budget.per_micro_batch if plan is None else plan.micro_batch
    ranks = 1 if plan is None else plan.world_size
    if spec.packing:
        width = spec.row_tokens(max(run.lengths)) or 1
        flat = run.varlen  # flash attention takes one row, and no padding in it
        room = Room(width * (per_pass if flat else 1), 1 if flat else per_pass, ranks)
        passes = pack(dealt, run.lengths, job.budget.micro_batches, room)
        told = _as_packed(run, dealt, passes)["packing"]
        run.progress.say(
            f"packing: {told['padding']:.1%} padding instead of {told['padding_unpacked']:.1%}"
        )
        return dealt, passes
    if plan is None:
        return dealt, Passes(dealt)
    return dealt, Passes(regroup(dealt, job.budget.micro_batches, per_pass, ranks))


def _as_packed(run: _Run, dealt: Slots, passes: Passes) -> dict[str, dict[str, float]]:
    """What packing came to, for the record; empty without."""
    if passes.rows is None:
        return {}
    padding, before = passes.padding(run.lengths), Passes(dealt).padding(run.lengths)
    ran = len(passes.slots) - len(passes.skipped)
    return {"packing": {"passes": ran, "padding": padding, "padding_unpacked": before}}


def _arguments(run: _Run, passes: Passes, rank: Rank) -> SFTConfig:
    """The trainer's arguments, with as many forward passes per step and process as there are."""
    job, spec = run.job, run.job.train
    if job.device == "cpu" and job.plan is None:
        rows, width = passes.size(_widest(run, passes), run.lengths)
        answers = max(len(row.ids) - row.start for row in run.data.rows)
        spec = settled_on_cpu(
            spec, job.model, run.precision, rows, max(1, width), run.overhead,
            None if spec.packing else answers,
        )  # fmt: skip
    with explained(spec):
        arguments = trainer_arguments(
            spec, job.budget, job.seed, job.folder, job.device, run.precision, job.plan
        )
    each = len(passes.slots) // job.budget.steps // rank.world_size
    arguments.gradient_accumulation_steps = each
    return arguments


def _trainer(
    run: _Run, arguments: SFTConfig, passes: Passes, tokenizer: PreTrainedTokenizerBase, done: int
) -> Trainer:
    """The trainer around the model, placed and adapted."""
    from transformers import PrinterCallback
    from transformers.trainer_utils import set_seed

    from holdfast.train.trainer import Trainer

    job = run.job
    model = _load(run)
    model.config.use_cache = False
    set_seed(job.seed)
    run.progress.total(job.budget.steps, "steps")
    run.progress.kept(done)
    with loading(), explained(job.train):
        trainer = Trainer(
            model=_adapted(run, model),
            args=arguments,
            train_dataset=dataset(run.data.rows, passes.slots, passes),
            data_collator=partial(collate, pad=tokenizer.pad_token_id, varlen=run.varlen),
            processing_class=tokenizer,
            terms=run.terms,
            say=run.progress.say,
        )
    trainer.remove_callback(PrinterCallback)
    kernels.apply(trainer.model, job.train)
    if passes.rows is not None:
        trainer.add_callback(packed.trial(trainer, run.varlen))
    return trainer


def _load(run: _Run) -> PreTrainedModel:
    # All weights train: 16 bits would round most updates away, so they are float32 under autocast.
    job, full = run.job, run.job.train.method == "full"
    loaded_as = precision.torch_dtype("float32") if full else run.dtype
    ref = (
        replace(job.model, base=str(job.start), revision=None) if full and job.start else job.model
    )
    if job.plan is not None:
        return placement.load(ref, job.plan, loaded_as, job.device, Rank.current())
    with loading():
        return models.load_model(ref, loaded_as, job.device, nf4=job.train.method == "qlora")


def _adapted(run: _Run, model: PreTrainedModel) -> PreTrainedModel | PeftModel:
    job = run.job
    if job.train.method == "full":
        return model
    adapted = adapters.adapt(model, job.train, run.data.rows, run.data.kinds, job.plan)
    if job.start is not None:
        go_on(adapted, job.start, job.plan)
    if job.plan is not None and job.plan.placement == "offload":
        placement.offload(adapted, job.device)
    return adapted


def _longest(run: _Run, trainer: Trainer, passes: Passes) -> dict[str, torch.Tensor]:
    """The micro-batch with most padded tokens, collated."""
    found: dict[str, torch.Tensor] = trainer.data_collator(
        [trainer.train_dataset[_widest(run, passes)]]
    )
    return found


def _widest(run: _Run, passes: Passes) -> int:
    """The pass with most tokens, padding included."""
    lengths = run.lengths
    return max(range(len(passes.slots)), key=lambda at: prod(passes.size(at, lengths)))


def _prepare(run: _Run, trainer: Trainer, step: int, pad: int) -> None:
    """Let loss methods and meters look at the untouched model; nothing of it stays."""
    model, probes = trainer.model, run.data.probes
    for reader in run.readers:
        reader.begin(model, step)
    if not any(term.prepare for term in run.terms):
        return
    batches = [
        {key: value.to(trainer.args.device) for key, value in collate([row], pad).items()}
        for row in dataset(probes, [[i] for i in range(len(probes))])
    ] if probes else []  # fmt: skip
    model.eval()
    for term in run.terms:
        if term.prepare:
            term.prepare(model, batches)
    model.train()


def _train_from(start: Path | None, run: _Run, trainer: Trainer) -> None:
    """Train from a checkpoint on, unless a reader had ended it before; events are always kept."""
    from transformers import TrainerState

    over = run.stopped_at is not None  # killed after its end
    if over and start is not None:
        trainer.state = TrainerState.load_from_json(str(start / "trainer_state.json"))
    shards = start is not None and trainer.is_fsdp_enabled
    try:
        if not over:
            with dealt_out(trainer, start) if start and shards else nullcontext():
                trainer.train(resume_from_checkpoint=str(start) if start else None)
    finally:
        with (run.job.folder / EVENTS).open("a", encoding="utf-8") as file:
            file.writelines(store.jsonl_line(event) for event in trainer.events)


def _summary(run: _Run, trainer: Trainer, dealt: Slots) -> dict[str, object]:
    budget, stopped = run.job.budget, run.stopped_at
    done = dealt[: stopped * budget.micro_batches] if stopped else dealt
    seen = [index for slot in done for index in slot]
    trained = (one.numel() for one in trainer.model.parameters() if one.requires_grad)
    history = trainer.state.log_history
    return {
        "steps": stopped or budget.steps,
        "stopped_at": stopped,
        **tokens_of(run.data, seen, run.terms),
        "trainable_parameters": sum(trained),
        "device": models.describe_device(run.job.device, run.dtype),
        "recomputed": bool(trainer.args.activation_checkpointing),
        **mask_generator(trainer.model),
        **kernels.used(run.job.train),
        **skipped_steps(trainer),
        "loss": [[log["step"], log["loss"]] for log in history if "loss" in log],
        "memory": measured(),
        **validated(run.validation),
    }
