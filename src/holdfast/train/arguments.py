"""Which settings does the trainer get for a study and a plan?

All of them are spelled out where TRL and transformers have defaults of their own that differ from
each other, or that depend on what the machine happens to have.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.config import TrainSpec
from holdfast.data.batching import Budget
from holdfast.memory.memory_plan import MemoryPlan

if TYPE_CHECKING:
    from trl import SFTConfig


def trainer_arguments(
    spec: TrainSpec,
    budget: Budget,
    seed: int,
    folder: Path,
    device: str,
    bf16: bool,
    plan: MemoryPlan | None = None,
) -> SFTConfig:
    """The trainer's arguments; micro-batches are dataset rows, so its batch size is 1."""
    from trl import SFTConfig

    checkpointing = spec.gradient_checkpointing
    if plan is not None:  # without, offloaded weights would pile up until the backward pass
        checkpointing = plan.checkpointing or plan.placement == "offload"
    shards: dict[str, Any] | None = None
    if plan is not None and plan.placement == "fsdp2":
        shards = {"version": 2, "reshard_after_forward": True}
        shards["cpu_ram_efficient_loading"] = not plan.quantized  # rank 0 alone reads the weights

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
        activation_checkpointing=checkpointing,
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
        average_tokens_across_devices=True,  # the loss is a mean over the step's tokens
        fsdp=shards is not None or None,
        fsdp_config=shards,
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # one process, one GPU; TRL refuses nn.DataParallel
    return arguments
