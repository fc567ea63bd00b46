"""Commands that make, run and show a study."""

from __future__ import annotations

import sys
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.front import (
    All,
    Calibrate,
    DryRun,
    Json,
    On,
    Only,
    Overrides,
    Rebuild,
    RunsDir,
    Set,
    TrustCode,
    say,
    shown,
    tell,
    with_run,
)
from holdfast.cli.grouping import grouped
from holdfast.errors import UsageError
from holdfast.progress.language import wrapped
from holdfast.progress.translation import told

if TYPE_CHECKING:
    from holdfast.analysis.results import Results
    from holdfast.types import Where


def demo(
    overrides: Overrides = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer items, two checkpoints: a minute.")
    ] = False,
    runs_dir: RunsDir = Path("runs"),
    dry_run: DryRun = False,
    every: All = False,
    calibrate: Calibrate = False,
    as_json: Json = False,
) -> None:
    """The built-in study on the built-in model: CPU, minutes, no network."""
    from holdfast.config.recipes import DEMO, QUICK, recipe_file

    chosen = [*(QUICK if quick else ()), *(overrides or [])]
    ahead = _Ahead(dry_run, every, calibrate)
    _run(recipe_file(DEMO), chosen, runs_dir, ahead, ("*", [], None), as_json)


def run(
    study: Annotated[Path, typer.Argument(help="The study file.")],
    overrides: Overrides = None,
    settings: Set = None,
    runs_dir: RunsDir = Path("runs"),
    dry_run: DryRun = False,
    every: All = False,
    calibrate: Calibrate = False,
    only: Only = "*",
    rebuild: Rebuild = None,
    on: On = None,
    trust_code: TrustCode = False,
    as_json: Json = False,
) -> None:
    """Run a study, or continue it: baseline, data, train, answer, grade, report."""
    said = [*(overrides or ()), *(settings or ())]
    if trust_code:
        from holdfast.config import load

        load.load(study, said, trust_code)  # which remembers it
    ahead = _Ahead(dry_run, every, calibrate)
    _run(study, said, runs_dir, ahead, (only, rebuild or [], on), as_json)


@dataclass(frozen=True, slots=True)
class Beside:
    """What is written beside the page."""

    csv: Annotated[bool, typer.Option("--csv", help="All figures as report/figures.csv too.")] = (
        False
    )
    paper: Annotated[
        bool, typer.Option("--paper", help="Tables and figures in LaTeX as report/paper/ too.")
    ] = False


@grouped
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")],
    beside: Beside,
    replies: Annotated[
        int,
        typer.Option("--replies", min=0, help="Show replies to N items a task; flips first."),
    ] = 0,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    serve: Annotated[
        bool,
        typer.Option("--serve", help="Serve it on this machine, renewed while the run goes."),
    ] = False,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="With --serve; 0: any that is free.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Render the report of a run again; needs no GPU and no torch."""
    from holdfast.report.run import render

    if serve:
        for name, given in (("--csv", beside.csv), ("--paper", beside.paper)):
            if given:
                raise UsageError(f"{name} writes files, and --serve none", remedy="leave one out")
        _serve(folder, replies, port, open_it, as_json)
        return
    if port:
        raise UsageError("--port goes with --serve", remedy="add --serve")
    results, page = render(folder, replies, csv=beside.csv, paper=beside.paper)
    finish(results, page, as_json, folder, notes=0)
    beside_it = [
        name for name, given in (("figures.csv", beside.csv), ("paper", beside.paper)) if given
    ]
    if beside_it and not as_json:
        say(False, None, f"Beside it: {', '.join(str(page.parent / one) for one in beside_it)}")
    if open_it:
        _open(page.resolve().as_uri())


def _open(address: str) -> None:
    """Open a page in the user's browser; where there is none, say where the page is."""
    import webbrowser

    if not webbrowser.open(address):
        tell(f"No browser was found; open {address}")


def _serve(folder: Path, replies: int, port: int, open_it: bool, as_json: bool) -> None:
    """Serve the page until Ctrl-C."""
    from holdfast.report.serving import Served, server

    with server(Served(folder, replies), port) as made:
        address = f"http://127.0.0.1:{made.server_address[1]}/"
        say(as_json, {"address": address}, f"Report: {address}\nCtrl-C ends it.")
        sys.stdout.flush()
        if open_it:
            _open(address)
        with suppress(KeyboardInterrupt):
            made.serve_forever()


def watch(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")],
    once: Annotated[bool, typer.Option("--once", help="Show one page, and no more.")] = False,
    every: Annotated[
        float, typer.Option("--every", min=0.2, help="Seconds between two looks.")
    ] = 2.0,
    as_json: Json = False,
) -> None:
    """Show how far a run is: stages, losses, readings as they come, GPUs. Changes nothing."""
    from holdfast.report.watching import as_values, shown_until_it_ends

    if as_json:
        found = as_values(folder)
        say(True, found)
        return
    with suppress(KeyboardInterrupt):
        shown_until_it_ends(folder, once, every)


def track(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")],
    settings: Annotated[
        list[str] | None, typer.Argument(help="The tracker's settings: experiment=mine ...")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option("--to", help="tensorboard, wandb, mlflow or trackio. Left out: the study's."),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Send all of it anew, in new runs.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Send what a run has, and a tracker lacks, to that tracker."""
    from holdfast.report.trackers.sending import send_run

    found = send_run(folder, to, settings or [], again)
    lines = [f"{name}: {count} batches sent" if count else f"{name}: has all of it already"
             for name, count in found.items()]  # fmt: skip
    say(as_json, {"sent": found}, "\n".join(lines))


@dataclass(frozen=True, slots=True)
class _Ahead:
    """Whether a study is only looked at, and how."""

    dry: bool
    every: bool
    calibrate: bool

    def __post_init__(self) -> None:
        """Refuse what would do nothing.

        Raises:
            UsageError: an option of a dry run without it.
        """
        for name, given in (("--all", self.every), ("--calibrate", self.calibrate)):
            if given and not self.dry:
                raise UsageError(
                    f"{name} goes with --dry-run",
                    remedy="add --dry-run; a long run measures the device by itself",
                )


def _run(
    path: Path,
    overrides: list[str],
    runs_dir: Path,
    ahead: _Ahead,
    what: tuple[str, list[str], Where | None],
    as_json: bool,
) -> None:
    from holdfast import study as studies
    from holdfast.config import load
    from holdfast.report.console import dry_run_text

    study, (only, rebuild, on) = load.load(path, overrides), what
    folder = runs_dir / study.name
    if ahead.dry:
        from holdfast.cli import forecast
        from holdfast.progress.bars import console
        from holdfast.study import executing
        from holdfast.study.outlook import outlook
        from holdfast.study.preflight import looked_at
        from holdfast.study.start import measured

        elsewhere = executing.is_elsewhere(on)
        session = studies.prepare(study, folder, str(path), () if elsewhere else None)
        executing.chosen(session, on)
        steps = studies.schedule(session.plan, only, rebuild)
        found = looked_at(session, steps, elsewhere)
        with shown(quiet=as_json) as bars, closing(session.pool):
            speed = measured(session, bars) if ahead.calibrate else None
        told = outlook(session, steps, speed)
        width = console().width
        lines = [*forecast.wrapped(dry_run_text(session.plan).splitlines(), width)]
        lines += forecast.page(told, steps, width, ahead.every)
        lines += forecast.wrapped(found.lines, width)
        about = {"folder": str(folder), "checked": found.checked, "notices": found.notices}
        say(as_json, about | forecast.as_json(told, steps), "\n".join(lines))
        return
    if not as_json:
        tell(f"Run folder: {folder}")
    with shown(quiet=as_json) as bars:
        results = studies.run(study, folder, bars, str(path), only, rebuild, on)
    if results is not None:
        finish(results, folder / "report" / "index.html", as_json)


def finish(
    results: Results,
    page: Path,
    as_json: bool,
    folder: Path | None = None,
    notes: int | None = None,
) -> None:
    """Say what a run has found.

    Args:
        results: of the run.
        page: its report.
        as_json: as JSON.
        folder: of the run, where it may be a comparison, which is told on one screen.
        notes: of a comparison that are shown, the others are counted; None: as after a run.
    """
    if as_json:
        from holdfast.analysis.results import to_json

        say(True, to_json(results) | {"report": str(page)})
        return
    from holdfast.progress import console
    from holdfast.report.console import table

    here = console()
    if folder is not None and not results.trained:
        from holdfast.comparison import opened, screen

        if (asked := opened.request_of(folder)) is not None:
            most = screen.SHOWN_NOTES if notes is None else notes
            lines = screen.screen(results, asked, folder, here.width, most)
            say(False, None, "\n".join([*lines, f"Report: {page}"]))
            return
    here.print(table(results, here.width))
    said = [f"Note: {one}" for one in results.warnings]
    made = results.decision
    if made is not None and made.next_step:
        said.append(with_run(f"Next: {made.next_step}", page.parent.parent))
    for note in said:
        lines = wrapped(told(note), here.width)
        here.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
    if page.is_file():
        here.print(f"Report: {page}", highlight=False, markup=False, soft_wrap=True)
