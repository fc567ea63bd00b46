"""Writes a plan as a plain training script with transformers, PEFT and TRL, and its launch line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from holdfast.config import LoraSpec, TrainSpec
from holdfast.errors import UsageError
from holdfast.memory.memory_plan import MemoryPlan
from holdfast.memory.model.paths import adaptable, pattern_of
from holdfast.memory.model.shape import Shape
from holdfast.memory.model.targets import names_of
from holdfast.memory.model.words import ALL_LINEAR, is_pattern
from holdfast.memory.planner import explanation
from holdfast.memory.planner.choice import Comparison
from holdfast.memory.planner.reasons import gib

TEMPLATE = Path(__file__).parent / "train_script.py.j2"
ALLOCATOR = "PYTORCH_ALLOC_CONF"


def launch_line(plan: MemoryPlan, script: str) -> str:
    """What to type to start a plain script under a plan."""
    visible = ",".join(map(str, plan.gpus))
    start = f"CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES={visible} "
    if plan.world_size > 1:
        return f"{start}torchrun --standalone --nproc_per_node {plan.world_size} {script}"
    return f"{start}python {script}"


def script(
    comparison: Comparison, source: str, model: str, train: TrainSpec, seed: int, name: str
) -> str:
    """The text of the script.

    Args:
        comparison: with a choice.
        source: `traced` or `formula`.
        model: hub id or folder.
        train: learning rate, schedule and so on.
        seed: of adapters, dropout and order.
        name: of the file that it will be.

    Raises:
        UsageError: nothing fits, or weights would lie in host memory.
    """
    import jinja2

    if comparison.chosen is None:
        raise UsageError(
            "nothing fits, so there is no script to write",
            remedy="apply one of the changes that `holdfast plan` names",
        )
    plan, work = comparison.chosen.plan, comparison.work
    if plan.placement == "offload":
        raise UsageError(
            "weights in host memory need more than a plain script",
            remedy="run the study with `holdfast run`, or allow 4-bit weights",
        )
    full = work.method == "full"
    if not full and work.variant not in ("lora", "rslora", "dora"):
        raise UsageError(
            f"{work.variant} needs more than a plain script",
            remedy="run the study with `holdfast run`",
        )
    targets, stacked = _targets(comparison.shape, work.target_modules)
    settings = {
        "model": comparison.shape.name,
        "model_literal": json.dumps(model),
        "what": explanation.describe(plan, "en"),
        "why": explanation.reason(comparison, "en").capitalize(),
        "launch": launch_line(plan, name),
        "peak": " + ".join(f"{gib(one.total)} GiB" for one in plan.predicted),
        "grounds": explanation.grounds(comparison, source, "en").rstrip(".").lower(),
        "bitsandbytes": plan.quantized or "paged" in train.optim or "8bit" in train.optim,
        "sharded": plan.placement == "fsdp2",
        "placement": plan.placement,
        "world": plan.world_size,
        "adapters": not full,
        "quantized": plan.quantized,
        "load_dtype": "float32" if full else plan.dtype,
        "compute_dtype": plan.dtype,
        "adapter_dtype": plan.adapter_dtype,
        "stem": comparison.shape.stem,
        **_device_map(plan.device_map or {}, comparison.shape.stem),
        "rank": work.rank,
        "alpha": train.lora.alpha,
        "dropout": 0.0 if stacked else work.dropout,  # PEFT has none for stacked experts
        "target_modules": _literal(targets),
        "more": _more(train.lora),
        "stored": comparison.shape.stored is not None,
        "micro_batch": plan.micro_batch,
        "accumulation": plan.accumulation,
        "global_batch": plan.global_batch,
        "epochs": f"{train.num_train_epochs:g}",
        "seq_len": work.seq_len,
        "learning_rate": train.learning_rate,
        "schedule": train.lr_scheduler_type,
        "optim": train.optim,
        "sampling": "group_by_length" if train.group_by_length else "random",
        "checkpointing": plan.checkpointing,
        "bf16": plan.dtype == "bfloat16",
        "fp16": plan.dtype == "float16",
        "seed": seed,
        "fsdp_config": _literal(FSDP_CONFIG),
        "allocator": ALLOCATOR,
    }
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(settings)


FSDP_CONFIG: Mapping[str, object] = {
    "version": 2,
    "reshard_after_forward": True,
    "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "state_dict_type": "SHARDED_STATE_DICT",
}


def _targets(
    shape: Shape, target_modules: str | Iterable[str]
) -> tuple[str | tuple[str, ...], bool]:
    """`target_modules` for a plain script with PEFT, and whether they mean stacked experts.

    PEFT's own "all-linear" would take routers and vision towers too, and knows no other short
    words.
    """
    word = target_modules if isinstance(target_modules, str) else ""
    if is_pattern(word):
        return word, False
    if shape.told:
        return pattern_of(shape, target_modules)
    wanted = names_of(shape, target_modules)
    stacked = {name for one in shape.fused for name in one.targets}
    names = wanted
    if names is None:
        if not shape.fused and not shape.tower:
            return ALL_LINEAR, False
        names = {name for one in adaptable(shape) for name in one.targets or (one.name,)}
    if shape.tower:
        return rf".*\.language_model\..*\.({'|'.join(sorted(names))})", bool(names & stacked)
    return tuple(sorted(names)), bool(names & stacked)


def _more(lora: LoraSpec) -> Mapping[str, str]:
    """Further arguments of PEFT's `LoraConfig`, those that are not as usual."""
    given = {
        "use_rslora": lora.variant == "rslora", "use_dora": lora.variant == "dora",
        "layers_to_transform": lora.layers, "layers_pattern": lora.layers_pattern,
        "exclude_modules": lora.exclude_modules, "modules_to_save": lora.modules_to_save,
        "rank_pattern": lora.rank_pattern, "alpha_pattern": lora.alpha_pattern,
        "target_parameters": lora.target_parameters,
        "trainable_token_indices": lora.trainable_token_indices,
    }  # fmt: skip
    return {name: repr(list(value) if isinstance(value, tuple) else value)
            for name, value in given.items() if value}  # fmt: skip


def _device_map(where: Mapping[str, int | str], stem: str) -> dict[str, object]:
    """A device map as single modules and runs of layers."""
    named = [(name, stage) for name, stage in where.items() if f"{stem}.layers." not in name]
    runs: list[list[int]] = []
    for name, stage in where.items():
        if f"{stem}.layers." in name:
            layer = int(name.rpartition(".")[2])
            if runs and runs[-1][2] == stage and runs[-1][1] == layer:
                runs[-1][1] = layer + 1
            else:
                runs.append([layer, layer + 1, int(stage)])
    return {"named": named, "runs": runs}


def _literal(value: str | Sequence[str] | Mapping[str, object]) -> str:
    """A value as Python source, in double quotes."""
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f'"{key}": {_plain(one)}' for key, one in value.items()) + "}"
    return "[" + ", ".join(json.dumps(one) for one in value) + "]"


def _plain(value: object) -> str:
    return json.dumps(value) if isinstance(value, str) else repr(value)


def check_new(path: Path) -> None:
    """Refuse to overwrite a file with a script.

    Raises:
        UsageError: the file exists.
    """
    if path.exists():
        raise UsageError("exists already", where=str(path), remedy="name another file for --export")
