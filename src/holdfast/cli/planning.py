"""The command that plans memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli.front import Json


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
    from holdfast.train import planning

    found = planning.answer(planning.Wishes(
        study, model, gpus, seq_len, micro_batch, global_batch, method, strategy,
        not no_quantize, not dry_run, lang, export,
    ))  # fmt: skip
    if as_json:
        typer.echo(json.dumps(found.to_json(), ensure_ascii=False))
    else:
        found.show(every)
    raise typer.Exit(0 if found.planned.chosen else 2)
