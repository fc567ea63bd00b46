"""What can be typed?

Argv becomes one call each; nothing is decided here. `holdfast.boundary` turns errors into messages
and exit codes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast import boundary
from holdfast.errors import FolderError, UsageError

app = typer.Typer(
    name="holdfast",
    help="Fine-tune a language model and see what it gained and what it forgot.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Settings that win over the file: train.epochs=1 ...")
]
RunsDir = Annotated[Path, typer.Option("--runs-dir", help="Where run folders are made.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the stages and stop.")]
Only = Annotated[str, typer.Option("--only", help="Run the stages of this glob and their needs.")]
Rebuild = Annotated[
    list[str] | None, typer.Option("--rebuild", help="Make the stages of this glob again.")
]


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"holdfast {version('holdfast')}")
        raise typer.Exit


@app.callback()
def _front(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    overrides: Overrides = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer items, two checkpoints: a minute.")
    ] = False,
    runs_dir: RunsDir = Path("runs"),
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """The built-in study on the built-in model: CPU, minutes, no network."""
    from holdfast.recipes import DEMO, QUICK, recipe_file

    chosen = [*(QUICK if quick else ()), *(overrides or [])]
    _run(recipe_file(DEMO), chosen, runs_dir, dry_run, "*", [], as_json)


@app.command()
def init(
    study: Annotated[Path, typer.Argument(help="The file to write.")] = Path("study.yaml"),
    recipe: Annotated[
        str, typer.Option("--recipe", help="hw6 (GSM8K and AILuminate), jsonl or lab.")
    ] = "hw6",
    as_json: Json = False,
) -> None:
    """Write a commented starter study."""
    from holdfast import store
    from holdfast.recipes import recipe_file

    if study.exists():
        raise UsageError("exists already", where=str(study), remedy="name another file")
    text = recipe_file(recipe).read_text(encoding="utf-8")
    try:
        store.write_text(study, text)
    except OSError as error:
        raise FolderError(
            f"cannot be written: {error.strerror}", where=str(study), remedy="choose another place"
        ) from error
    following = f"holdfast run {study} --dry-run"
    _say(as_json, {"study": str(study), "next": following}, f"Wrote {study}.\nNext: {following}")


@app.command()
def run(
    study: Annotated[Path, typer.Argument(help="The study file.")],
    overrides: Overrides = None,
    runs_dir: RunsDir = Path("runs"),
    dry_run: DryRun = False,
    only: Only = "*",
    rebuild: Rebuild = None,
    as_json: Json = False,
) -> None:
    """Run a study, or continue it: baseline, data, train, answer, grade, report."""
    _run(study, overrides or [], runs_dir, dry_run, only, rebuild or [], as_json)


@app.command()
def plan(
    study: Annotated[Path | None, typer.Argument(help="A study file; or give --model.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Hub id, folder or name of the catalogue.")
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
    from holdfast import planning

    found = planning.answer(planning.Wishes(
        study, model, gpus, seq_len, micro_batch, global_batch, method, strategy,
        not no_quantize, not dry_run, lang, export,
    ))  # fmt: skip
    if as_json:
        typer.echo(json.dumps(found.to_json(), ensure_ascii=False))
    else:
        found.show(every)
    raise typer.Exit(0 if found.planned.chosen else 2)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")],
    replies: Annotated[
        int, typer.Option("--replies", min=0, help="Show the first N replies per arm and task.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Render the report of a run again; needs no GPU and no torch."""
    from holdfast.report.console import table
    from holdfast.report.render import render

    results, page = render(folder, replies)
    _finish(results, page, as_json, table)


@app.command()
def schema() -> None:
    """Print the JSON schema of a study file: every key, its type, its meaning."""
    from holdfast.spec import Study

    typer.echo(json.dumps(Study.model_json_schema(by_alias=False), indent=1, ensure_ascii=False))


@app.command()
def tasks(as_json: Json = False) -> None:
    """List the tasks and the keys that each takes in a study file."""
    from holdfast.registry import resolve
    from holdfast.tasks import TASKS

    known: dict[str, dict[str, str]] = {}
    for name in TASKS:
        fields = resolve("tasks", TASKS, name).Options.model_fields
        known[name] = {
            key: " ".join((one.description or "").split()) for key, one in fields.items()
        }
    lines = [
        line
        for name, keys in known.items()
        for line in (name, *(f"    {key:<24} {text}" for key, text in keys.items()))
    ]
    _say(as_json, known, "\n".join(lines))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Show versions and devices, what is missing, and the command that installs it."""
    from holdfast import environment

    about = environment.describe()
    missing = [name for name, found in about["versions"].items() if found is None]
    about["missing"] = missing
    about["install"] = "pip install 'holdfast[train]'" if missing else None
    lines = [f"{name:<14} {found or 'missing'}" for name, found in about["versions"].items()]
    lines += [f"{'device':<14} {device}" for device in about["devices"]]
    if missing:
        lines.append(f"\nMissing packages are needed to train and to answer: {about['install']}")
    _say(as_json, about, "\n".join(lines))


def _run(
    path: Path,
    overrides: list[str],
    runs_dir: Path,
    dry_run: bool,
    only: str,
    rebuild: list[str],
    as_json: bool,
) -> None:
    from holdfast import study as studies
    from holdfast import studyfile
    from holdfast.progress import Bars, Silent
    from holdfast.report.console import dry_run_text, table

    study = studyfile.load(path, overrides)
    folder = runs_dir / study.name
    if dry_run:
        planned = studies.plan(study, folder, str(path))
        steps = studies.schedule(planned, only, rebuild)
        names = [{"stage": step.stage.name, "done": step.done} for step in steps]
        _say(as_json, {"folder": str(folder), "stages": names}, dry_run_text(planned, steps))
        return
    if as_json:
        results = studies.run(study, folder, Silent(), str(path), only, rebuild)
    else:
        typer.echo(f"Run folder: {folder}", err=True)
        with Bars() as bars:
            results = studies.run(study, folder, bars, str(path), only, rebuild)
    if results is not None:
        _finish(results, folder / "report" / "index.html", as_json, table)


def _finish(results: Any, page: Path, as_json: bool, table: Any) -> None:
    if as_json:
        from holdfast.report.results import to_json

        typer.echo(json.dumps(to_json(results) | {"report": str(page)}, ensure_ascii=False))
        return
    from rich.console import Console

    console = Console()
    console.print(table(results))
    for note in results.warnings:
        console.print(f"Note: {note}", highlight=False, markup=False)
    console.print(results.verdict, highlight=False, markup=False)
    if page.is_file():
        console.print(f"\nReport: {page}", highlight=False, markup=False, soft_wrap=True)


def _say(as_json: bool, value: Any, text: str) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, default=str) if as_json else text)


def main() -> None:
    """The console script: run the command, turn errors into messages and exit codes."""
    sys.exit(call(sys.argv[1:]))


def call(arguments: list[str]) -> int:
    """Run one command line; returns the exit code."""
    return boundary.call(app, arguments)
