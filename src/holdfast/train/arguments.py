"""Turns a study's settings and a memory plan into the trainer's arguments, and checks them.

All are spelled out where TRL's and transformers' defaults differ, or depend on the machine.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast import models
from holdfast.config import TrainSpec
from holdfast.data.batching import Budget
from holdfast.environment import install_command
from holdfast.errors import HoldfastError, MissingDependency, StudyError, TrainingError
from holdfast.memory.memory_plan import MemoryPlan
from holdfast.memory.precision import Dtype
from holdfast.models.precision import decide
from holdfast.train import kernels
from holdfast.train.optimizer_packages import needs_bitsandbytes
from holdfast.train.optimizers import check_names, check_optimizer, refuse

if TYPE_CHECKING:
    from trl import SFTConfig


def trainer_arguments(
    spec: TrainSpec,
    budget: Budget,
    seed: int,
    folder: Path,
    device: str,
    dtype: Dtype,
    plan: MemoryPlan | None = None,
) -> SFTConfig:
    """The trainer's arguments; micro-batches are dataset rows, so its batch size is 1.

    `dtype` is autocast of what is trained, which is float32; in float16 the loss is scaled.
    """
    from trl import SFTConfig

    checkpointing = spec.gradient_checkpointing
    if plan is not None:  # without, offloaded weights would pile up until the backward pass
        checkpointing = plan.checkpointing or plan.placement == "offload"
    shards: dict[str, object] | None = None
    if plan is not None and plan.placement == "fsdp2":
        alone = not plan.quantized  # rank 0 alone reads the weights
        shards = {"version": 2, "reshard_after_forward": True, "cpu_ram_efficient_loading": alone}

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
        optim_args=",".join(f"{name}={value}" for name, value in spec.optim_args.items()) or None,
        optim_target_modules=_listed(spec.optim_target_modules),
        lr_scheduler_kwargs=dict(spec.lr_scheduler_kwargs),
        weight_decay=spec.weight_decay,
        adam_beta1=spec.adam_beta1,
        adam_beta2=spec.adam_beta2,
        adam_epsilon=spec.adam_epsilon,
        neftune_noise_alpha=spec.neftune_noise_alpha,
        max_grad_norm=spec.max_grad_norm,
        activation_checkpointing=checkpointing,
        bf16=dtype == "bfloat16",
        fp16=dtype == "float16",
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
        accelerator_config={"non_blocking": device == "cuda"},
        dataloader_num_workers=spec.dataloader_num_workers,
        dataloader_prefetch_factor=spec.dataloader_prefetch_factor,
        average_tokens_across_devices=True,  # the loss is a mean over the step's tokens
        fsdp=shards is not None or None,
        fsdp_config=shards,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # one process, one GPU; TRL refuses DataParallel
    return arguments


def _listed(names: str | tuple[str, ...] | None) -> str | list[str] | None:
    return list(names) if isinstance(names, tuple) else names


def check_settings(spec: TrainSpec, device: str, steps: int = 1) -> None:
    """Make what the trainer would make of the settings before any GPU time is spent on them.

    Args:
        spec: the settings.
        device: `auto`, `cpu` or `cuda`.
        steps: of a whole training.

    Raises:
        UsageError: float16 on a CPU.
        StudyError: an unknown optimiser or schedule, one that cannot be made, kernels for others.
        MissingDependency: one that needs a package which is not there.
    """
    device = models.pick_device(device)
    dtype = decide(device, (), spec.precisions).dtype
    check_names(spec)
    refuse(spec)
    kernels.check(spec, device)
    with tempfile.TemporaryDirectory() as folder:
        try:
            few = Budget(steps, 1, 1, 1)
            arguments = trainer_arguments(spec, few, 0, Path(folder), device, dtype)
        except (ValueError, ImportError) as error:
            said = f"the trainer refused: {error}"
            raise StudyError(said, where="train", remedy="see docs/study.md") from error
    needed = spec.method == "qlora" or needs_bitsandbytes(spec.optim)
    if needed and importlib.util.find_spec("bitsandbytes") is None:
        raise MissingDependency(
            f"method {spec.method} with optim {spec.optim} needs bitsandbytes",
            remedy=f"{install_command('train', 'bitsandbytes')}, or set train.optim: adamw_torch "
            "and method: lora",
        )
    check_optimizer(spec, arguments, device, steps)


@contextmanager
def explained(spec: TrainSpec) -> Iterator[None]:
    """Turn what TRL and transformers raise about their settings into `TrainingError`."""
    try:
        yield
    except HoldfastError:
        raise
    except (ValueError, ImportError) as error:
        raise TrainingError(
            f"the trainer refused: {error}",
            remedy=f"check train.optim ({spec.optim}), train.lora.target_modules and the model",
        ) from error
