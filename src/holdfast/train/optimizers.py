"""Makes a study's optimiser and schedule once, before anything is spent on it.

A small model of the same shape stands in for the real one, and what transformers' trainer would
make is really made: a missing package, an argument that nobody reads and a schedule that lacks its
own are told now, with the setting's name. On the CPU a step is taken as well, since some
optimisers exist for GPUs only.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from holdfast.config import TrainSpec
from holdfast.errors import StudyError
from holdfast.registry import nearest
from holdfast.train.optimizer_packages import told

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, TrainingArguments

OLD = {"adam": "adamw_torch", "adamw": "adamw_torch", "adamw_hf": "adamw_torch"}
"""What optimisers were called, or are elsewhere."""
IN_BACKWARD = ("lomo", "adalomo", "layerwise")
"""Optimisers that change the weights inside the backward pass."""
BY_METRIC = ("reduce_lr_on_plateau", "greedy")
"""Schedules that go by a loss of held-out examples instead of the step."""


def check_optimizer(spec: TrainSpec, arguments: TrainingArguments, device: str, steps: int) -> None:
    """Make the optimiser and the schedule of a training, and try them.

    Args:
        spec: the study's settings.
        arguments: that the trainer would get.
        device: `cpu` or `cuda`.
        steps: of the whole training.

    Raises:
        MissingDependency: naming the package and the command that installs it.
        StudyError: naming the setting of `train` that cannot be.
    """
    import torch

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of paged states that lie in plain memory on the CPU
        model = _stand_in()
        with told(spec, "optim"):
            optimizer = _made(spec, arguments, model)
        if device == "cpu":
            with told(spec, "optim"):
                _step(model, optimizer)
    _check_schedule(spec, arguments, optimizer, steps)


def check_names(spec: TrainSpec) -> None:
    """Refuse an optimiser or a schedule that transformers does not know.

    Raises:
        StudyError: naming the setting of `train`, and what there is.
    """
    from transformers.trainer_utils import SchedulerType
    from transformers.training_args import OptimizerNames

    for setting, known in (("optim", OptimizerNames), ("lr_scheduler_type", SchedulerType)):
        name, names = getattr(spec, setting), [one.value for one in known]
        if name not in names:
            raise StudyError(
                f"transformers has no {name!r}{nearest(OLD.get(name.lower(), name), names)}",
                where=f"train.{setting}",
                remedy=f"it has {', '.join(names)}",
            )


def refuse(spec: TrainSpec) -> None:
    """Refuse what transformers would make, and Holdfast cannot train with.

    Raises:
        StudyError: naming the setting of `train`, and what to write instead.
    """
    optim = spec.optim
    if any(part in optim for part in IN_BACKWARD):
        raise StudyError(
            f"{optim} changes weights inside the backward pass: nothing could be clipped, "
            "accumulated over a step, or continued after an interruption",
            where="train.optim",
            remedy="take the one without `layerwise`, or adafactor, which needs little memory too",
        )
    if optim.startswith(("galore", "apollo")):
        if spec.method != "full":
            raise StudyError(
                f"{optim} projects the gradients of whole matrices, and train.method "
                f"{spec.method} trains none",
                where="train.optim",
                remedy="set train.method: full, or another optimiser",
            )
        if spec.optim_target_modules is None:
            raise StudyError(
                f"{optim} has to be told which matrices it projects",
                where="train.optim_target_modules",
                remedy="write optim_target_modules: all-linear, or [attn, mlp]",
            )
    elif spec.optim_target_modules is not None:
        raise StudyError(
            f"{optim} does not read it: it is for galore_... and apollo_...",
            where="train.optim_target_modules",
            remedy="leave it out; which matrices get adapters is lora.target_modules",
        )
    schedule = spec.lr_scheduler_type
    if schedule in BY_METRIC:
        raise StudyError(
            f"{schedule} goes by a loss that is read while training, so arms of one budget would "
            "not have one schedule",
            where="train.lr_scheduler_type",
            remedy="use cosine, linear or warmup_stable_decay; to stop on the loss of held-out "
            "examples, set val_size and early_stopping_patience",
        )
    if schedule == "constant" and spec.warmup_steps:
        raise StudyError(
            "the schedule `constant` has no warm-up",
            where="train.warmup_steps",
            remedy="write lr_scheduler_type: constant_with_warmup",
        )


def settle(optimizer: object) -> None:
    """Let an optimiser that trains other weights than it ends with put those in place.

    Schedule-free ones do; the trainer puts them back before its next step.
    """
    if callable(put := getattr(optimizer, "eval", None)):
        put()


def _stand_in() -> PreTrainedModel:
    """A decoder of one layer, whose matrices are large enough for 8-bit states."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=16,
        )
    )  # fmt: skip


def _made(
    spec: TrainSpec, arguments: TrainingArguments, model: PreTrainedModel
) -> torch.optim.Optimizer:
    """The optimiser, as the trainer makes it.

    Raises:
        StudyError: arguments that it does not read.
    """
    from transformers import Trainer

    if spec.optim_target_modules is not None:
        arguments.optim_target_modules = "all-linear"  # the stand-in has names of its own
    with _read(spec) as read:
        made, options = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
    if strange := [name for name in spec.optim_args if name not in read]:
        raise StudyError(
            f"{spec.optim} does not read {', '.join(strange)}",
            where="train.optim_args",
            remedy=f"it reads {', '.join(sorted(read))}" if read else "leave optim_args out",
        )
    groups = options.pop("params", None) or [{"params": list(model.parameters())}]
    optimizer: torch.optim.Optimizer = made(groups, **options)
    return optimizer


@contextmanager
def _read(spec: TrainSpec) -> Iterator[set[str]]:
    """Collect which entries of `optim_args` are looked at: transformers passes over the rest."""
    from transformers import trainer

    seen: set[str] = set()

    class Watched(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            seen.add(key)
            return super().get(key, default)

        def pop(self, key: str, *default: Any) -> Any:
            seen.add(key)
            return super().pop(key, *default)

        def __contains__(self, key: object) -> bool:
            seen.add(str(key))
            return super().__contains__(key)

        def keys(self) -> Any:
            seen.update(self)
            return super().keys()

    if spec.optim.startswith("rmsprop_bnb"):
        seen.update(spec.optim_args)  # takes them all
    parse = getattr(trainer, "_parse_optim_args", None)
    if parse is None:  # another version's trainer: it is taken at its word
        yield set(spec.optim_args)
        return
    trainer._parse_optim_args = lambda text: Watched(parse(text))
    try:
        yield seen
    finally:
        trainer._parse_optim_args = parse


def _step(model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> None:
    import torch

    ids = torch.arange(8)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    if callable(turn_on := getattr(optimizer, "train", None)):
        turn_on()
    optimizer.step()
    if not all(bool(one.isfinite().all()) for one in model.parameters()):
        raise ValueError("its first step gives weights that are no numbers")


def _check_schedule(
    spec: TrainSpec, arguments: TrainingArguments, optimizer: torch.optim.Optimizer, steps: int
) -> None:
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, get_scheduler
    from transformers.trainer_utils import SchedulerType

    name, given = spec.lr_scheduler_type, dict(spec.lr_scheduler_kwargs)
    takes = inspect.signature(TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(name)]).parameters
    own = {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}
    allowed = [one for one in takes if one not in own]
    if name.startswith("constant"):
        allowed = []
    if strange := [one for one in given if one not in allowed]:
        raise StudyError(
            f"the schedule {name} does not read {strange[0]}{nearest(strange[0], allowed)}",
            where="train.lr_scheduler_kwargs",
            remedy=f"it reads {', '.join(allowed)}" if allowed else "leave lr_scheduler_kwargs out",
        )
    needed = [one for one in allowed if takes[one].default is inspect.Parameter.empty]
    if missing := [one for one in needed if one not in given]:
        raise StudyError(
            f"the schedule {name} needs {', '.join(missing)}",
            where="train.lr_scheduler_kwargs",
            remedy=f"write lr_scheduler_kwargs: {{{missing[0]}: {max(1, steps // 10)}}} (a "
            f"training has {steps} steps)",
        )
    warmup = arguments.get_warmup_steps(steps)
    parts = [one for one in ("num_decay_steps", "num_stable_steps") if one in given]
    spent = warmup + sum(int(given[one]) for one in parts)
    if parts and spent > steps:
        raise StudyError(
            f"warm-up and the schedule's own parts take {spent} steps, and a training has {steps}",
            where="train.lr_scheduler_kwargs", remedy="give fewer",
        )  # fmt: skip
    with told(spec, "lr_scheduler_kwargs" if given else "lr_scheduler_type"):
        schedule = get_scheduler(name, optimizer, warmup, steps, given or None)
        rates = [float(schedule.get_last_lr()[0])]
        for step in sorted({1, warmup, steps // 2, steps - 1}):
            rates += [float(each(step)) for each in getattr(schedule, "lr_lambdas", ())]
    if not all(math.isfinite(rate) and rate >= 0 for rate in rates):
        raise StudyError(
            f"the schedule {name} gives a learning rate of {min(rates):g}",
            where="train.lr_scheduler_kwargs", remedy="check its settings",
        )  # fmt: skip
