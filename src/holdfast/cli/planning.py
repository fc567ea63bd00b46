"""The command that plans memory."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from holdfast.cli.front import Json, Overrides, say
from holdfast.errors import UsageError

if TYPE_CHECKING:
    from holdfast.memory.estimate.workload import Loss
    from holdfast.memory.planner.memory_report import MemoryReport
    from holdfast.memory.planner.request import PlanRequest
    from holdfast.memory.planner.translations import Language

SOURCE = "the command line"
"""Where settings are from, in messages."""


def plan(
    study: Annotated[Path | None, typer.Argument(help="A study file; or give --model.")] = None,
    overrides: Overrides = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Hub id, folder or name; beside a study: instead of its own."),
    ] = None,
    gpus: Annotated[
        str | None, typer.Option("--gpus", help="2x24GiB, rtx4090, ... Left out: those here.")
    ] = None,
    host_ram: Annotated[
        str | None, typer.Option("--host-ram", help="Memory of their machine: 64GiB.")
    ] = None,
    seq_len: Annotated[
        int | None, typer.Option("--seq-len", min=1, help="Longest example, tokens.")
    ] = None,
    micro_batch: Annotated[
        int | None, typer.Option("--micro-batch", min=1, help="Left out: chosen.")
    ] = None,
    global_batch: Annotated[
        int | None, typer.Option("--global-batch-size", min=1, help="Examples per step.")
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", help="auto, lora, qlora or full.")
    ] = None,
    strategy: Annotated[
        str | None, typer.Option("--strategy", help="Only this one: ddp, split, qlora, ...")
    ] = None,
    no_quantize: Annotated[bool, typer.Option("--no-quantize", help="No 4-bit weights.")] = False,
    lora_r: Annotated[int | None, typer.Option("--lora-r", help="Rank.")] = None,
    lora_dropout: Annotated[
        float | None, typer.Option("--lora-dropout", help="On the adapters' input.")
    ] = None,
    targets: Annotated[
        str | None, typer.Option("--target-modules", help="all-linear, mlp, or q_proj,v_proj.")
    ] = None,
    variant: Annotated[
        str | None, typer.Option("--variant", help="lora, rslora, dora, oft, osf or corda.")
    ] = None,
    optim: Annotated[str | None, typer.Option("--optim", help="Any of transformers.")] = None,
    checkpointing: Annotated[
        bool | None,
        typer.Option(
            "--gradient-checkpointing/--no-gradient-checkpointing", help="Recompute activations."
        ),
    ] = None,
    attention: Annotated[
        str | None, typer.Option("--attn-implementation", help="sdpa, eager, flash_attention_2.")
    ] = None,
    packing: Annotated[bool, typer.Option("--packing", help="Several examples a row.")] = False,
    kernels: Annotated[str | None, typer.Option("--kernels", help="liger.")] = None,
    remedy: Annotated[
        list[str] | None, typer.Option("--remedy", help="A loss method: kl, ewc, ... Repeatable.")
    ] = None,
    precision: Annotated[
        str, typer.Option("--precision", help="bf16, fp16, fp32, pure_bf16 or autocast_bf16.")
    ] = "",
    adapter_dtype: Annotated[
        str | None, typer.Option("--adapter-dtype", help="float32 or bfloat16.")
    ] = None,
    loss: Annotated[str | None, typer.Option("--loss", help="tiled, whole or in_place.")] = None,
    script: Annotated[
        str, typer.Option("--script", help="What a script of trl or litgpt would take.")
    ] = "holdfast",
    expandable: Annotated[
        bool | None,
        typer.Option(
            "--expandable-segments/--no-expandable-segments", help="Of torch's allocator."
        ),
    ] = None,
    no_double_quant: Annotated[
        bool, typer.Option("--no-double-quant", help="4-bit blocks keep whole scales.")
    ] = False,
    kbit: Annotated[
        bool, typer.Option("--prepare-kbit", help="PEFT made what is not in 4 bits float32.")
    ] = False,
    beside: Annotated[
        list[str] | None,
        typer.Option("--beside", help="Else on the GPUs: vllm=0.3, judge=MODEL, 6GiB. Repeatable."),
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Count by the Python code a model brings.")
    ] = False,
    keeps_inputs: Annotated[
        bool, typer.Option("--old-bitsandbytes", help="Before 0.43.2: 4-bit layers keep inputs.")
    ] = False,
    fsdp: Annotated[
        int, typer.Option("--fsdp-version", min=1, max=2, help="1: as scripts elsewhere shard.")
    ] = 2,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="By formula only: no trace of the model's code.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="Show every candidate.")] = False,
    lang: Annotated[str, typer.Option("--lang", help="en or zh.")] = "en",
    export: Annotated[
        Path | None, typer.Option("--export", help="Write a plain script with these settings.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What fits on which GPUs, what does not and why, how fast; loads no weights."""
    from holdfast.memory.planner.host_memory import host_size
    from holdfast.memory.planner.request import PlanRequest
    from holdfast.memory.planner.stated import Half, Stated

    language = _language(lang)
    given = list(overrides or [])
    if study is not None and "=" in str(study) and not study.exists():
        study, given = None, [str(study), *given]
    settings = overrides_of(
        {
            "train.lora.r": lora_r, "train.lora.dropout": lora_dropout,
            "train.lora.target_modules": targets, "train.lora.variant": variant,
            "train.optim": optim, "train.packing": packing, "train.kernels": kernels,
            "model.attn_implementation": attention,
        },
        given,
    )  # fmt: skip
    stated = Stated(  # which refuses words that are none of its own
        loss=cast("Loss | None", loss), precision=precision,
        adapter_dtype=cast("Half | None", adapter_dtype), script=script,
        checkpointing=checkpointing, expandable=expandable, nested=not no_double_quant,
        kbit_upcast=kbit, fsdp=1 if fsdp == 1 else 2, keeps_inputs=keeps_inputs,
    )  # fmt: skip
    asked = PlanRequest(
        model or "", gpus, seq_len, method, micro_batch, global_batch, strategy,
        not no_quantize, not dry_run, stated=stated, trust=trust_remote_code,
        beside=tuple(beside or ()),
        host_bytes=None if host_ram is None else host_size(host_ram),
    )  # fmt: skip
    report = answer(asked, study, export, settings, remedy or ())
    if as_json:
        say(True, report.to_json())
    else:
        report.show(every, language)
    raise typer.Exit(0 if report.fits else 2)


def answer(
    asked: PlanRequest,
    study_file: Path | None = None,
    export: Path | None = None,
    settings: Sequence[str] = (),
    remedies: Sequence[str] = (),
) -> MemoryReport:
    """Plan a study, or a model alone; write the script when one is wanted and something fits.

    Args:
        asked: what the command line says, which wins over the study.
        study_file: of the study.
        export: where the script goes.
        settings: of the study, as `key=value`, which win over its own.
        remedies: loss methods, where there is no study with arms.

    Raises:
        UsageError: neither a study nor a model, an unknown method, a script that exists already.
        StudyError: a setting that is none.
    """
    from holdfast.memory.planner import planner
    from holdfast.memory.planner.memory_report import DEFAULT_SEED
    from holdfast.memory.planner.train_script import check_new
    from holdfast.models import gguf_cache

    if export:
        check_new(export)
    train, seed = None, DEFAULT_SEED
    if study_file is None:
        if settings or remedies:
            asked = request_of(asked, settings, remedies)
            train = asked.train
        gguf_cache.base_of(asked.model or "")
        report = planner.plan(asked)
    else:
        from holdfast.config import load
        from holdfast.train.planning import after_training, plan_study

        if remedies:
            raise UsageError(
                "--remedy goes with --model", remedy="a study's arms name their own methods"
            )
        other = [f"model={asked.model}"] if asked.model else []
        other += settings
        study = load.load(study_file, other)
        train, seed = study.train, study.seeds[0]
        launch = shlex.join(["holdfast", "run", str(study_file), *other])
        gguf_cache.base_of(study.model.id, study.model.revision)
        report = plan_study(study, asked)
        report = replace(report, notes=(*report.notes, *after_training(study)))
        report = replace(report, launch=launch if report.fits else "")
    return report.write_script(export, train, seed) if export and report.fits else report


def _language(text: str) -> Language:
    from holdfast.memory.planner.translations import LANGUAGES

    language = LANGUAGES.get(text)
    if language is None:
        raise UsageError(f"no language {text!r}", remedy="--lang en or --lang zh")
    return language


def overrides_of(flags: Mapping[str, object], given: Sequence[str]) -> list[str]:
    """Settings as `key=value`: those of flags that were given, then those that were written so.

    Args:
        flags: keys of a study to values; None and False were not given.
        given: as the user wrote them.
    """
    found = []
    for key, value in flags.items():
        if value is None or value is False:
            continue
        names = str(value).replace(",", " ").split()
        listed = key == "train.lora.target_modules" and len(names) > 1
        found.append(f"{key}={json.dumps(names if listed else value)}")
    return [*found, *given]


def request_of(asked: PlanRequest, settings: Sequence[str], remedies: Sequence[str]) -> PlanRequest:
    """The request without a study: for a model, with these settings.

    Args:
        asked: what has flags of its own.
        settings: of `train`, `model` and `hardware`, as `key=value`.
        remedies: loss methods, as in an arm.

    Raises:
        StudyError: a setting that is none, or a method that is none.
        UsageError: a section that means nothing without a study.
    """
    from holdfast.config import HardwareSpec, ModelSpec, TrainSpec
    from holdfast.config.load import parse, said

    sections = said(settings)
    if unknown := sorted(set(sections) - {"train", "model", "hardware"}):
        raise UsageError(
            f"{unknown[0]} means nothing without a study",
            remedy="give settings of train, model or hardware, or name a study file",
        )
    of_model = sections.get("model")
    named = of_model if isinstance(of_model, Mapping) else {"id": of_model or asked.model}
    model = parse(ModelSpec, {"id": asked.model, **named}, SOURCE, at=("model",))
    train = parse(TrainSpec, sections.get("train") or {}, SOURCE, at=("train",))
    hardware = parse(HardwareSpec, sections.get("hardware") or {}, SOURCE, at=("hardware",))
    said_method = train.method if "method" in train.model_fields_set else "auto"
    found = replace(
        asked,
        model=model.id,
        revision=model.revision,
        gpus=asked.gpus or hardware.gpus or ("cpu" if hardware.device == "cpu" else None),
        seq_len=asked.seq_len or train.row_tokens(None),
        strategy=asked.strategy or hardware.strategy,
        method=asked.method or said_method,
        train=train,
        attention=model.attn_implementation,
    )
    if not remedies:
        return found
    from holdfast.train.planning import overhead_of_named

    return replace(found, overhead=overhead_of_named(remedies))
