"""The command that plans memory."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from holdfast.cli.front import Json, Overrides, Set, say
from holdfast.cli.typed import overrides_of, request_of, retyped, study_of
from holdfast.errors import UsageError
from holdfast.progress.language import spoken

if TYPE_CHECKING:
    from holdfast.memory.estimate.workload import Loss
    from holdfast.memory.planner.found import Found
    from holdfast.memory.planner.memory_report import MemoryReport
    from holdfast.memory.planner.request import PlanRequest

FIND_GPUS = ("--find-gpus",)


def plan(
    study: Annotated[Path | None, typer.Argument(help="A study file; or give --model.")] = None,
    overrides: Overrides = None,
    said: Set = None,
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
        str | None,
        typer.Option("--variant", help="lora, rslora, dora, oft, osf, corda or guardspace."),
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
    find_gpus: Annotated[
        bool, typer.Option("--find-gpus", help="Which sets of GPUs hold it? (of --gpus, or of all)")
    ] = False,
    find_length: Annotated[
        bool, typer.Option("--find-length", help="The longest examples that fit.")
    ] = False,
    find_batch: Annotated[
        bool, typer.Option("--find-batch", help="The most examples at once that fit.")
    ] = False,
    examples: Annotated[
        int | None, typer.Option("--examples", min=1, help="Trained on, for what the run costs.")
    ] = None,
    every: Annotated[
        bool,
        typer.Option("--all", help="Every candidate; the memory by its parts; what was not taken."),
    ] = False,
    export: Annotated[
        Path | None, typer.Option("--export", help="Write a plain script with these settings.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What fits on which GPUs, what does not and why, how fast; loads no weights."""
    from holdfast.memory.planner.host_memory import host_size
    from holdfast.memory.planner.request import PlanRequest
    from holdfast.memory.planner.stated import Half, Stated

    given = [*(overrides or ()), *(said or ())]
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
        beside=tuple(beside or ()), examples=examples,
        host_bytes=None if host_ram is None else host_size(host_ram),
    )  # fmt: skip
    looked_for = {"--find-gpus": find_gpus, "--find-length": find_length,
                  "--find-batch": find_batch}  # fmt: skip
    report: MemoryReport | Found
    if any(looked_for.values()):
        alone = {"--export": export, "--all": every, "--examples": examples}
        report = search({**looked_for, **alone}, asked, study, settings, remedy or ())
    else:
        report = answer(asked, study, export, settings, remedy or ())
    if as_json:
        say(True, report.to_json())
    else:
        report.show(every, spoken())
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
    if study_file is None:
        asked = request_of(asked, settings, remedies)
        gguf_cache.base_of(asked.named)
        report = planner.plan(asked)
        train, seed = asked.train, DEFAULT_SEED
        step = {"--export": "train.py"} if report.fits and asked.trace else {}
        off = ["--dry-run"] if report.fits else ["--gpus", "--export"]
        report = replace(report, following=retyped(off, step, () if report.fits else FIND_GPUS))
    else:
        from holdfast.train.planning import after_training, plan_study

        study, other = study_of(asked, study_file, settings, remedies)
        train, seed = study.train, study.seeds[0]
        launch = shlex.join(["holdfast", "run", str(study_file), *other])
        report = plan_study(study, asked)
        report = replace(report, said=(*report.said, *after_training(study)))
        report = replace(report, launch=launch) if report.fits else replace(
            report, following=retyped(["--gpus", "--export"], {}, FIND_GPUS))  # fmt: skip
    return report.write_script(export, train, seed) if export and report.fits else report


def search(
    flags: Mapping[str, object],
    asked: PlanRequest,
    study_file: Path | None = None,
    settings: Sequence[str] = (),
    remedies: Sequence[str] = (),
) -> Found:
    """Look for GPUs, length or batch; see `holdfast.memory.planner.searches`.

    Args:
        flags: those that ask for it, then those that mean nothing here; false: not given.
        asked: see `answer`, as are the other arguments.
        study_file: of the study; the arm that takes most counts.
        settings: of the study.
        remedies: loss methods.

    Raises:
        UsageError: several at once, or with what is looked for given; else see `answer`.
    """
    from holdfast.memory.planner import gpu_search, searches
    from holdfast.models import gguf_cache

    flag, *more = [name for name, given in flags.items() if given]
    looked_for = {"--find-length": ("--seq-len", asked.seq_len),
                  "--find-batch": ("--micro-batch", asked.micro_batch)}  # fmt: skip
    name, given = looked_for.get(flag, ("", None))
    if more := [*more, *[name] * (given is not None)]:
        raise UsageError(f"{flag} does not go with {more[0]}", remedy="leave one of them out")
    if study_file is None:
        request = request_of(asked, settings, remedies)
        gguf_cache.base_of(request.named)
    else:
        from holdfast.train.planning import hardest_request

        study, _ = study_of(asked, study_file, settings, remedies)
        request = hardest_request(study, asked)
    if flag == "--find-gpus":  # those of a study, or those here, are none to choose from
        request = replace(request, gpus=asked.gpus)
    find = {"--find-gpus": gpu_search.find_gpus, "--find-length": searches.find_length,
            "--find-batch": searches.find_batch}  # fmt: skip
    found = find[flag](request)
    return replace(found, following=retyped([flag], found.flags()) if found.fits else "")
