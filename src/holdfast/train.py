"""How does an arm become checkpoints?

`fit` trains with TRL's `SFTTrainer` on rows that were tokenised, masked and dealt into
micro-batches beforehand (`holdfast.chat`, `holdfast.budget`), so that the trainer decides nothing
about the data. Checkpoints are marked complete after they are fully written; a killed run goes on
from the last complete one and ends in the same weights.
"""

from __future__ import annotations

import gc
import importlib.util
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast import models, store
from holdfast.budget import Budget, deal
from holdfast.chat import Encoded
from holdfast.errors import HoldfastError, MissingDependency, TrainingError
from holdfast.models import ModelRef
from holdfast.progress import Progress
from holdfast.rows import collate, dataset
from holdfast.spec import TrainSpec

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import SFTConfig

COMPLETE = "complete"
SUMMARY = "summary.json"
BF16 = "torch.bfloat16"
STATE_FILES = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "README.md")


def checkpoint_name(step: int) -> str:
    """Folder of the checkpoint after `step` optimiser steps, as transformers names it."""
    return f"checkpoint-{step}"


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
) -> Mapping[str, Any]:
    """Train one arm with one seed.

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

    Returns:
        What was spent: steps, tokens, examples, seconds.

    Raises:
        TrainingError: the loss became NaN.
    """
    if (folder / SUMMARY).is_file():  # killed after training, before its stage was recorded
        return dict(store.read_json(folder / SUMMARY))
    try:
        summary = _train(ref, rows, kinds, budget, spec, seed, save_at, folder, progress, device)
    finally:  # trainer and model hold each other; the next stage needs their memory
        gc.collect()
        models.empty_cache()
    store.write_json(folder / SUMMARY, summary)
    for state in (path / name for path in folder.glob("checkpoint-*") for name in STATE_FILES):
        state.unlink(missing_ok=True)
    return summary


def _train(
    ref: ModelRef,
    rows: Sequence[Encoded],
    kinds: Sequence[str],
    budget: Budget,
    spec: TrainSpec,
    seed: int,
    save_at: Sequence[int],
    folder: Path,
    progress: Progress,
    device: str,
) -> dict[str, Any]:
    device = models.pick_device(device)
    dtype = models.pick_dtype(device, spec.bf16)
    order_seed = seed if spec.data_seed is None else spec.data_seed
    costs = [row.cost for row in rows]
    slots = deal(costs, kinds, budget, order_seed, spec.group_by_length)
    tokenizer = models.load_tokenizer(ref)
    # All weights train: bfloat16 would round most updates away, so they are float32 under autocast.
    loaded_as = models.pick_dtype(device, False) if spec.method == "full" else dtype
    model = models.load_model(ref, loaded_as, device, nf4=spec.method == "qlora")
    model.config.use_cache = False

    from transformers import PrinterCallback
    from transformers.trainer_utils import set_seed
    from trl import SFTTrainer

    set_seed(seed)
    start = _last_complete(folder)
    done = int(start.name.rpartition("-")[2]) if start else 0
    progress.total(budget.steps, "steps")
    progress.advance(done)
    try:
        trainer = SFTTrainer(
            model=model,
            args=_arguments(spec, budget, seed, folder, device, bf16=str(dtype) == BF16),
            train_dataset=dataset(rows, slots),
            data_collator=lambda batch: collate(batch, tokenizer.pad_token_id),
            processing_class=tokenizer,
            peft_config=None if spec.method == "full" else _lora(spec),
            callbacks=[_watch(save_at, progress)],
        )
    except ValueError as error:
        raise _explained(error, spec) from error
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=str(start) if start else None)
    store.write_jsonl(folder / "log.jsonl", trainer.state.log_history)
    seen = [index for slot in slots for index in slot]
    losses = [(log["step"], log["loss"]) for log in trainer.state.log_history if "loss" in log]
    return {
        "steps": budget.steps,
        "supervised_tokens": sum(costs[index].supervised for index in seen),
        "tokens": sum(costs[index].tokens for index in seen),
        "examples_seen": len(seen),
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "device": models.describe_device(device, dtype),
        "loss": losses,
    }


def check_settings(spec: TrainSpec, device: str) -> None:
    """Let the trainer look at the settings before any GPU time is spent on them.

    Raises:
        TrainingError: an unknown optimiser or schedule, or one that needs a missing package.
    """
    device = models.pick_device(device)
    bf16 = str(models.pick_dtype(device, spec.bf16)) == BF16
    with tempfile.TemporaryDirectory() as folder:
        try:
            _arguments(spec, Budget(1, 1, 1, 1), 0, Path(folder), device, bf16)
        except (ValueError, ImportError) as error:
            raise _explained(error, spec) from error
    if (spec.method == "qlora" or "paged" in spec.optim or "8bit" in spec.optim) and (
        importlib.util.find_spec("bitsandbytes") is None
    ):
        raise MissingDependency(
            f"method {spec.method} with optim {spec.optim} needs bitsandbytes",
            remedy="pip install bitsandbytes, or set train.optim: adamw_torch and method: lora",
        )


def _arguments(
    spec: TrainSpec, budget: Budget, seed: int, folder: Path, device: str, bf16: bool
) -> SFTConfig:
    """The trainer's arguments; micro-batches are dataset rows, so its batch size is 1."""
    from trl import SFTConfig

    arguments = SFTConfig(
        output_dir=str(folder),
        max_steps=budget.steps,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=budget.micro_batches,
        train_sampling_strategy="sequential",
        learning_rate=spec.learning_rate,
        lr_scheduler_type=spec.lr_scheduler_type,
        warmup_steps=spec.warmup_steps,
        optim=spec.optim,
        weight_decay=spec.weight_decay,
        max_grad_norm=spec.max_grad_norm,
        activation_checkpointing=spec.gradient_checkpointing,
        bf16=bf16,
        fp16=False,
        use_cpu=device == "cpu",
        seed=seed,
        data_seed=seed,
        logging_steps=min(spec.logging_steps, budget.steps),
        logging_nan_inf_filter=False,  # a lost loss must be seen, not replaced by the last good one
        save_strategy="no",
        max_length=None,
        packing=False,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=device == "cuda",
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # one process, one GPU; TRL refuses nn.DataParallel
    return arguments


def _lora(spec: TrainSpec) -> LoraConfig:
    from peft import LoraConfig

    modules = spec.lora.target_modules
    return LoraConfig(
        r=spec.lora.r,
        lora_alpha=spec.lora.alpha,
        lora_dropout=spec.lora.dropout,
        target_modules=modules if isinstance(modules, str) else list(modules),
        bias="none",
        task_type="CAUSAL_LM",
    )


def _watch(save_at: Sequence[int], progress: Progress) -> TrainerCallback:
    """Saves where asked, marks what is complete, and stops a run whose loss is lost."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc]  # mypy does not follow transformers
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            progress.advance(1)
            control.should_save = state.global_step in set(save_at)
            return control

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            loss = (logs or {}).get("loss")
            if loss is not None and not math.isfinite(loss):
                raise TrainingError(
                    f"the loss is {loss} at step {state.global_step}",
                    remedy="lower train.learning_rate; with float16 hardware set train.bf16: false",
                )

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            done = Path(args.output_dir) / checkpoint_name(state.global_step)
            store.write_text(done / COMPLETE, "")
            for other in done.parent.glob("checkpoint-*"):
                if other != done:  # only the newest is ever resumed
                    (other / "optimizer.pt").unlink(missing_ok=True)

    return Watch()


def _last_complete(folder: Path) -> Path | None:
    """The newest complete checkpoint; half-written ones are removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    for path in found:
        if not (path / COMPLETE).is_file():
            shutil.rmtree(path)
    usable = [path for path in found if (path / "optimizer.pt").is_file()]
    return usable[-1] if usable else None


def _explained(error: Exception, spec: TrainSpec) -> HoldfastError:
    return TrainingError(
        f"the trainer refused: {error}",
        remedy=f"check train.optim ({spec.optim}), train.lora.target_modules and the model",
    )
