"""The command that plans memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.front import Json, say
from holdfast.errors import UsageError

if TYPE_CHECKING:
    from holdfast.memory.planner.memory_report import MemoryReport
    from holdfast.memory.planner.request import PlanRequest
    from holdfast.memory.planner.translations import Language


def plan(
    study: Annotated[Path | None, typer.Argument(help="A study file; or give --model.")] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Hub id, folder or name; beside a study: instead of its own."),
    ] = None,
    gpus: Annotated[
        str | None, typer.Option("--gpus", help="2x24GiB, rtx4090, ... Left out: those here.")
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
    from holdfast.memory.planner.request import PlanRequest

    asked = PlanRequest(
        model or "", gpus, seq_len, method, micro_batch, global_batch, strategy,
        not no_quantize, not dry_run,
    )  # fmt: skip
    language = _language(lang)
    report = answer(asked, study, export)
    if as_json:
        say(True, report.to_json())
    else:
        report.show(every, language)
    raise typer.Exit(0 if report.fits else 2)


def answer(
    asked: PlanRequest, study_file: Path | None = None, export: Path | None = None
) -> MemoryReport:
    """Plan a study, or a model alone; write the script when one is wanted and something fits.

    Args:
        asked: what the command line says, which wins over the study.
        study_file: of the study.
        export: where the script goes.

    Raises:
        UsageError: neither a study nor a model, an unknown method, a script that exists already.
    """
    from holdfast.memory.planner import planner
    from holdfast.memory.planner.memory_report import DEFAULT_SEED, check_new
    from holdfast.models import gguf_cache

    if export:
        check_new(export)
    train, seed = None, DEFAULT_SEED
    if study_file is None:
        gguf_cache.base_of(asked.model or "")
        report = planner.plan(asked)
    else:
        from holdfast.config import load
        from holdfast.train.planning import plan_study

        other = [f"model={asked.model}"] if asked.model else []
        study = load.load(study_file, other)
        train, seed = study.train, study.seeds[0]
        launch = " ".join(["holdfast run", str(study_file), *other])
        gguf_cache.base_of(study.model.id, study.model.revision)
        report = plan_study(study, asked)
        report = replace(report, launch=launch if report.fits else "")
    return report.write_script(export, train, seed) if export and report.fits else report


def _language(text: str) -> Language:
    from holdfast.memory.planner.translations import LANGUAGES

    language = LANGUAGES.get(text)
    if language is None:
        raise UsageError(f"no language {text!r}", remedy="--lang en or --lang zh")
    return language
