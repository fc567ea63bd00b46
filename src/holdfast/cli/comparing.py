"""The command that compares models which were trained elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli import forecast
from holdfast.cli.front import DryRun, Json, Rebuild, RunsDir, say, shown, tell
from holdfast.cli.studies import finish
from holdfast.errors import UsageError

if TYPE_CHECKING:
    from holdfast.comparison.layout import Comparison
    from holdfast.runs.stages import Step

OVERRIDE = re.compile(r"(tasks|answer|ship|hardware|model|train|meters)\.[\w./:-]+=")
"""A setting among the models; a model's own name has no dot behind such a word."""


def compare(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            help="The base, then the tuned ones: [NAME=] folder, hub id, adapter, FILE.gguf or "
            "http://host:port/v1#model. Settings may follow, as in `run`: tasks.gsm8k.path=data.",
        ),
    ],
    tasks: Annotated[
        str,
        typer.Option(
            "--tasks",
            help="What to measure: gsm8k,harness:arc_easy. See `tasks`. Left out: a default suite.",
        ),
    ] = "",
    data: Annotated[
        str | None,
        typer.Option("--data", help="Where the default suite looks for benchmarks; else ./data."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="The same as such a setting among the models.")
    ] = None,
    study: Annotated[
        Path | None, typer.Option("--study", help="Take tasks, answer and ship of this study.")
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", help="The task that the models were tuned for.")
    ] = None,
    retain: Annotated[
        list[str] | None,
        typer.Option("--retain", help="ailuminate=-0.02: exit code 2 unless that much is kept."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Only N items of each task.")
    ] = None,
    replies: Annotated[
        bool, typer.Option("--replies", help="The models are files of answers; needs no torch.")
    ] = False,
    allow_missing: Annotated[
        float,
        typer.Option(
            "--allow-missing", min=0, max=1, help="Share of items without a reply, and the reverse."
        ),
    ] = 0.05,
    mixed_engines: Annotated[
        bool, typer.Option("--mixed-engines", help="Contrast an endpoint with a model loaded here.")
    ] = False,
    any_base: Annotated[
        bool, typer.Option("--any-base", help="Apply an adapter that names another base.")
    ] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run the Python code that models bring.")
    ] = False,
    name: Annotated[
        str | None, typer.Option("--name", help="Of the run folder. Left out: BASE-vs-TUNED.")
    ] = None,
    runs_dir: RunsDir = Path("runs"),
    dry_run: DryRun = False,
    rebuild: Rebuild = None,
    as_json: Json = False,
) -> None:
    """Measure models that were trained elsewhere against their base: gained and forgotten."""
    from holdfast import comparison as comparing

    named = tuple(word for word in models if not OVERRIDE.match(word))
    given = (*(settings or ()), *(word for word in models if OVERRIDE.match(word)))
    request = comparing.Request(
        named, tuple(filter(None, (name.strip() for name in tasks.split(",")))),
        given, str(study) if study else None, target, _margins(retain or []),
        limit, name, replies, mixed_engines, any_base, allow_missing,
        trust_remote_code, data,
    )  # fmt: skip
    if dry_run:
        from holdfast.progress.bars import console
        from holdfast.study.preflight import looked_at

        found = comparing.plan(request, runs_dir)
        steps = comparing.schedule(found, rebuild or ())
        looked = looked_at(found.session, steps)
        about, text = _dry(found, steps)
        about |= {"checked": looked.checked, "notices": looked.notices}
        lines = forecast.wrapped([*text.splitlines(), *looked.lines], console().width)
        say(as_json, about, "\n".join(lines))
        return
    with shown(quiet=as_json) as bars:
        outcome = comparing.run(request, runs_dir, bars, rebuild or ())
    if not as_json:
        tell(f"Run folder: {outcome.folder}")
    finish(outcome.results, outcome.folder / "report/index.html", as_json, outcome.folder)
    raise typer.Exit(outcome.exit_code)


def _margins(retain: Sequence[str]) -> dict[str, float]:
    """``ailuminate=-0.02`` as a mapping."""
    found = {}
    for text in retain:
        task, _, margin = text.partition("=")
        try:
            found[task.strip()] = float(margin)
        except ValueError as error:
            raise UsageError(
                "is no margin", where=f"--retain {text}", remedy="write TASK=-0.02 for two points"
            ) from error
    return found


def _dry(found: Comparison, steps: Sequence[Step]) -> tuple[dict[str, object], str]:
    """What would run, as JSON values and in words."""
    from holdfast.analysis.selection import visible

    plan = found.plan
    stages = [{"stage": step.stage.name, "done": step.done} for step in steps]
    items = {task.name: task.items for task in plan.tasks.values()}
    models = {"base": found.base, **found.tuned}
    said = {who: {"form": one.form, "said": one.source} for who, one in models.items()}
    about: dict[str, object] = {"folder": str(plan.folder), "models": said, "items": items}
    about |= {"notes": list(found.notes), "stages": stages}
    lines = [
        f"Run folder {plan.folder}",
        *(f"  {who}: {one.source} ({one.form})" for who, one in models.items()),
        "Measured: " + ", ".join(f"{name} ({n} items)" for name, n in items.items()),
        *visible.ahead(items, 1),
        *(f"Note: {note}" for note in found.notes),
        f"{sum(step.done for step in steps)} of {len(steps)} stages are done; --json lists them.",
    ]
    return about, "\n".join(lines)
