"""Puts the adapters that a study asks for on a model, and checks that they can be trained there.

All of PEFT's ways that are offered leave the base's weights untouched: switching the adapter off
gives back the base, and what is saved loads on the base as it was downloaded. CorDA as its authors
and PEFT have it takes its starting point B₀A₀ out of the base; here the same start is a LoRA of
twice the rank, W + s·(B·A - B₀·A₀), whose second half is frozen. Both train the same function.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from holdfast.config import TrainSpec
from holdfast.data.chat import Encoded
from holdfast.errors import StudyError
from holdfast.memory.memory_plan import MemoryPlan
from holdfast.memory.model.targets import ALL_LINEAR, PRESETS
from holdfast.methods import ANCHOR, REPLAY
from holdfast.models import ModelRef
from holdfast.models.placement import match_buffers
from holdfast.registry import nearest

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel

CALIBRATION_ROWS = 256
"""Most conversations that CorDA looks at; PEFT's advice for a hidden size of 4096."""
ANYWHERE = {"lora", "rslora"}
"""Variants that were tried in every placement; the others on one device, or a copy on each GPU."""
NUMBERED = re.compile(r".*?\.[^.]*\.(\d+)\.")  # as PEFT finds the number of a layer


def adapter_config(model: PreTrainedModel, spec: TrainSpec) -> PeftConfig:
    """PEFT's settings for the adapters that a study asks for.

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

    lora = spec.lora
    matrices = _matrices(model)
    _check_layers(matrices, lora.layers)
    names = _names(matrices, spec, fused=any(one.dim() > 2 for one in model.parameters()))
    chosen = {name: one for name, one in matrices.items() if _is_chosen(name, names, lora.layers)}
    if not chosen:
        raise _no_such(f"of {lora.target_modules!r}", matrices)
    common: dict[str, object] = {"target_modules": names, "task_type": "CAUSAL_LM"}
    layers = None if lora.layers is None else list(lora.layers)
    if lora.variant == "oft":
        for name, module in chosen.items():
            if module.in_features % lora.r:
                raise _rank(f"blocks of {lora.r} do not divide the {module.in_features} inputs of "
                            f"{name}", "for OFT choose a power of two, such as 32")  # fmt: skip
        return OFTConfig(r=0, oft_block_size=lora.r, layers_to_transform=layers, **common)
    if lora.variant in ("osf", "corda"):
        for name, module in chosen.items():
            least = min(module.in_features, module.out_features)
            if lora.r >= least:
                raise _rank(f"rank {lora.r} is not below the rank of {name}, {least}",
                            f"choose a rank below {least}, or other matrices")  # fmt: skip
    if lora.variant == "osf":
        kept = {
            f"{re.escape(name)}$": min(module.in_features, module.out_features) - lora.r
            for name, module in chosen.items()
        }
        if layers is not None:
            common["target_modules"] = list(chosen)
        return OSFConfig(rank_pattern=kept, **common)
    halves = 2 if lora.variant == "corda" else 1
    return LoraConfig(
        r=lora.r * halves,
        lora_alpha=lora.alpha * halves,
        lora_dropout=lora.dropout,
        use_rslora=lora.variant == "rslora",
        use_dora=lora.variant == "dora",
        layers_to_transform=layers,
        bias="none",
        **common,
    )


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
        adapted = get_peft_model(model, config)
        dtype = next(one.dtype for one in adapted.parameters() if one.requires_grad)
        match_buffers(adapted, dtype)
        return adapted
    start = _corda_start(model, spec, config, *calibration(rows, kinds))
    with torch.random.fork_rng(devices=[]):
        adapted = get_peft_model(model, config)
    _start_from(adapted, start, spec.lora.r)
    return adapted


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


def check_model(ref: ModelRef, spec: TrainSpec) -> None:
    """Check that the model has what the adapters are to go on; its weights are not loaded.

    Raises:
        StudyError: see `adapter_config`.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(ref.base, **ref.loading())
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=ref.trust_remote_code)
    adapter_config(model, spec)


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


def _matrices(model: PreTrainedModel) -> dict[str, torch.nn.Linear]:
    """Every linear layer but the head, by its full name."""
    import torch

    head = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }


def _names(
    matrices: Mapping[str, torch.nn.Module], spec: TrainSpec, fused: bool
) -> str | list[str]:
    """`target_modules` for PEFT; it finds the experts that are one parameter by itself."""
    asked, found = spec.lora.target_modules, {_last(name) for name in matrices}
    if asked == ALL_LINEAR:  # written out where PEFT would forget the layers
        return ALL_LINEAR if spec.lora.layers is None else sorted(found)
    if isinstance(asked, str) and asked in PRESETS:
        return list(PRESETS[asked]) if fused else sorted(found & set(PRESETS[asked]))
    given = [asked] if isinstance(asked, str) else list(asked)
    for name in given:
        if not fused and not any(_is_chosen(one, [name], None) for one in matrices):
            raise _no_such(f"called {name!r}", matrices, nearest(name, found))
    return given


def _is_chosen(name: str, names: str | list[str], layers: Sequence[int] | None) -> bool:
    if layers is not None:
        layer = NUMBERED.match(name)
        if layer is None or int(layer[1]) not in layers:
            return False
    return names == ALL_LINEAR or any(name == one or name.endswith(f".{one}") for one in names)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _check_layers(matrices: Mapping[str, torch.nn.Module], layers: Sequence[int] | None) -> None:
    there = {int(found[1]) for found in map(NUMBERED.match, matrices) if found}
    missing = sorted(set(layers or ()) - there)
    if missing:
        raise StudyError(
            f"the model has no layer {missing[0]}",
            where="train.lora.layers",
            remedy=f"its layers are numbered {min(there, default=0)} to {max(there, default=0)}",
        )


def _no_such(what: str, matrices: Mapping[str, torch.nn.Module], near: str = "") -> StudyError:
    return StudyError(
        f"the model has no matrix {what}{near}",
        where="train.lora.target_modules",
        remedy=f"it has {', '.join(sorted({_last(name) for name in matrices}))}",
    )


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
    names = [name for name in _matrices(model)
             if _is_chosen(name, config.target_modules, spec.lora.layers)]  # fmt: skip
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
