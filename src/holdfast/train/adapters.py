"""Puts the adapters that a study asks for on a model, and checks that they can be trained there.

All of PEFT's ways that are offered leave the base's weights untouched: switching the adapter off
gives back the base, and what is saved loads on the base as it was downloaded. CorDA as its authors
and PEFT have it takes its starting point B₀A₀ out of the base; here the same start is a LoRA of
twice the rank, W + s·(B·A - B₀·A₀), whose second half is frozen. Both train the same function.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from holdfast.config import LoraSpec, TrainSpec
from holdfast.data.chat import Encoded
from holdfast.errors import StudyError
from holdfast.memory.memory_plan import MemoryPlan
from holdfast.methods import ANCHOR, REPLAY
from holdfast.models.cpu_training import quicken
from holdfast.models.placement import match_buffers
from holdfast.train import whole_modules as whole
from holdfast.train.targets import Targets, choose

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel

CALIBRATION_ROWS = 256
"""Most conversations that CorDA looks at; PEFT's advice for a hidden size of 4096."""
ANYWHERE = {"lora", "rslora"}
"""Variants that were tried in every placement; the others on one device, or a copy on each GPU."""


def adapter_config(model: PreTrainedModel, spec: TrainSpec) -> PeftConfig:
    """PEFT's settings for the adapters that a study asks for; see `settings`."""
    return settings(model, spec)[0]


def settings(model: PreTrainedModel, spec: TrainSpec) -> tuple[PeftConfig, Targets]:
    """PEFT's settings for the adapters that a study asks for, and what they mean for this model.

    The rank means: for LoRA and its kin the rank of the change; for OFT (arXiv:2306.07280) the size
    of the rotated blocks; for OSF (arXiv:2504.07097) how many of a matrix's smallest singular
    directions are trained; for CorDA (arXiv:2406.05223) the rank of the trained half.

    Args:
        model: the base, not wrapped; its modules are looked at.
        spec: see `LoraSpec`.

    Raises:
        StudyError: a module or layer that the model does not have, or a rank that does not suit it.
    """
    from peft import LoraConfig, OFTConfig, OSFConfig

    lora, targets = spec.lora, choose(model, spec.lora)
    _check_ranks(targets, lora)
    names = list(targets.modules)
    common: dict[str, object] = {"target_modules": names, "task_type": "CAUSAL_LM"}
    if lora.variant == "oft":
        return OFTConfig(r=0, oft_block_size=lora.r, **common), targets
    if lora.variant == "osf":
        kept = {f"{re.escape(name)}$": min(_sizes(module)) - lora.r
                for name, module in targets.modules.items()}  # fmt: skip
        return OSFConfig(rank_pattern=kept, **common), targets
    halves = 2 if lora.variant == "corda" else 1
    more, notices = whole.settings(model, lora)
    config = LoraConfig(
        r=lora.r * halves,
        lora_alpha=lora.alpha * halves,
        lora_dropout=targets.dropout,
        use_rslora=lora.variant == "rslora",
        use_dora=lora.variant == "dora",
        target_parameters=list(targets.parameters) or None,
        rank_pattern=dict(targets.ranks),
        alpha_pattern=dict(targets.alphas),
        fan_in_fan_out=targets.transposed,
        init_lora_weights=lora.init_lora_weights,
        bias="none",
        **more,
        **common,
    )
    return config, replace(targets, notices=(*targets.notices, *notices))


def _sizes(module: torch.nn.Module) -> tuple[int, int]:
    """Inputs and outputs of a matrix, whatever its bits and whichever way round it lies."""
    if hasattr(module, "in_features"):
        return module.in_features, module.out_features
    n_in, n_out = module.weight.shape[:2]
    return n_in, n_out


def _check_ranks(targets: Targets, lora: LoraSpec) -> None:
    """Refuse a rank that a matrix cannot have."""
    for name, module in targets.modules.items():
        n_in, n_out = _sizes(module)
        if lora.variant == "oft" and n_in % lora.r:
            raise _rank(f"blocks of {lora.r} do not divide the {n_in} inputs of {name}",
                        "for OFT choose a power of two, such as 32")  # fmt: skip
        if lora.variant in ("osf", "corda") and lora.r >= min(n_in, n_out):
            raise _rank(f"rank {lora.r} is not below the rank of {name}, {min(n_in, n_out)}",
                        f"choose a rank below {min(n_in, n_out)}, or other matrices")  # fmt: skip


def adapt(
    model: PreTrainedModel,
    spec: TrainSpec,
    rows: Sequence[Encoded] = (),
    kinds: Sequence[str] = (),
    plan: MemoryPlan | None = None,
) -> PeftModel:
    """Put fresh adapters on a model; with every variant it still says what the base says.

    Args:
        model: the base on its device.
        spec: see `adapter_config`.
        rows: the training examples; only CorDA looks at them.
        kinds: of each row.
        plan: where the model is; None: on one device.

    Raises:
        StudyError: see `adapter_config` and `check`.
    """
    import torch
    from peft import get_peft_model

    quantized = getattr(model, "is_loaded_in_4bit", False)
    check(spec, plan.placement if plan is not None else "single", quantized)
    config = adapter_config(model, spec)
    if spec.lora.variant != "corda":
        with told_apart():
            adapted = get_peft_model(model, config)
        dtype = next(one.dtype for one in adapted.parameters() if one.requires_grad)
        match_buffers(adapted, dtype)
        _quicken(adapted, spec)
        return adapted
    start = _corda_start(model, spec, config, *calibration(rows, kinds))
    with torch.random.fork_rng(devices=[]):
        adapted = get_peft_model(model, config)
    _start_from(adapted, start, spec.lora.r)
    _quicken(adapted, spec)
    return adapted


def _quicken(adapted: PeftModel, spec: TrainSpec) -> None:
    """Use a CPU's own ways, unless the layers are compiled: masks drawn by numpy cannot be."""
    if not spec.torch_compile:
        quicken(adapted)


@contextmanager
def told_apart() -> Iterator[None]:
    """Keep PEFT from warning of what was decided knowingly: Conv1D, tied weights, no dropout."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*fan_in_fan_out.*")
        warnings.filterwarnings("ignore", ".*[Tt]ied.*")
        warnings.filterwarnings("ignore", ".*_pattern keys did not match.*")  # of stacked experts
        yield


def check(spec: TrainSpec, placement: str, quantized: bool) -> None:
    """Check that a variant can be trained with a placement. Needs no torch.

    Raises:
        StudyError: it cannot, or nobody tried.
    """
    variant = spec.lora.variant
    if quantized and variant in ("osf", "corda"):
        raise StudyError(
            f"{variant} takes the base's weights apart, which 4-bit weights do not allow",
            where="train.lora.variant",
            remedy="set train.method: lora, or choose lora, rslora, dora or oft",
        )
    beside = {"cpu", "single"} if variant in ("osf", "corda") else {"cpu", "single", "ddp"}
    if variant not in ANYWHERE and placement not in beside:
        raise StudyError(
            f"{variant} was not validated with the placement {placement}",
            where="train.lora.variant",
            remedy=f"use one of {', '.join(sorted(beside))}, or the variant lora or rslora",
        )
    if variant == "corda" and spec.weight_decay:
        raise StudyError(
            "weight decay would pull at the frozen half of CorDA's adapters",
            where="train.weight_decay",
            remedy="set it to 0",
        )


def calibration(rows: Sequence[Encoded], kinds: Sequence[str]) -> tuple[Sequence[Encoded], str]:
    """What CorDA looks at, and which of its two modes that calls for.

    Returns:
        Replayed and anchor rows and ``kpm`` (preserve what matters to them); where there are none,
        the task's rows and ``ipm`` (begin with what matters to the task).
    """
    old = [row for row, kind in zip(rows, kinds, strict=True) if kind in (REPLAY, ANCHOR)]
    pool, mode = (old, "kpm") if old else (rows, "ipm")
    step = max(1, len(pool) / CALIBRATION_ROWS)
    return [pool[int(i * step)] for i in range(int(len(pool) / step))], mode


def _rank(what: str, remedy: str) -> StudyError:
    return StudyError(what, where="train.lora.r", remedy=remedy)


def _corda_start(
    model: PreTrainedModel, spec: TrainSpec, config: PeftConfig, rows: Sequence[Encoded], mode: str
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A₀ of shape (r, in) and B₀ of shape (out, r) for every matrix, by its name."""
    import torch
    from peft import LoraConfig
    from peft.tuners.lora.config import CordaConfig
    from peft.tuners.lora.corda import preprocess_corda

    if not rows:
        raise StudyError("corda needs training examples to look at", where="train.lora.variant")
    names = list(choose(model, spec.lora).modules)
    seen = LoraConfig(
        r=spec.lora.r, target_modules=names, init_lora_weights="corda",
        corda_config=CordaConfig(corda_method=mode),
    )  # fmt: skip

    def look() -> None:
        for row in rows:  # one at a time: PEFT's hooks take no padding
            model(torch.tensor([row.ids], device=model.device))

    training = model.training
    preprocess_corda(model, seen, look)
    model.train(training)
    start, scale = {}, spec.lora.alpha / spec.lora.r
    for name in names:
        module = model.get_submodule(name)
        values = (module.eigens.S_WC / scale).sqrt()
        start[name] = ((module.eigens.V_WC * values).T, module.eigens.U_WC * values)
        del module.eigens
    return start


def _start_from(
    adapted: PeftModel, start: Mapping[str, tuple[torch.Tensor, torch.Tensor]], rank: int
) -> None:
    """Fill the adapters with both halves, and let gradients into the first one only."""
    import torch

    for name, a, b in _pairs(adapted, start):
        a0, b0 = (one.to(a.device, a.dtype) for one in start[name])
        a.data, b.data = torch.cat([a0, a0]).contiguous(), torch.cat([b0, -b0], 1).contiguous()
        a.register_hook(lambda grad: torch.cat([grad[:rank], torch.zeros_like(grad[rank:])]))
        b.register_hook(
            lambda grad: torch.cat([grad[:, :rank], torch.zeros_like(grad[:, rank:])], 1)
        )


def _pairs(
    adapted: PeftModel, start: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    for name in start:
        module = adapted.base_model.model.get_submodule(name)
        yield name, module.lora_A["default"].weight, module.lora_B["default"].weight
