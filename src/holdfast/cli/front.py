"""What all commands share: the application, options of one meaning, how a result is said."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.helping import Group
from holdfast.errors import printable, printable_json
from holdfast.progress.translation import told
from holdfast.types import Where

if TYPE_CHECKING:
    from holdfast.progress import Progress
    from holdfast.progress.stopping import Stop

STOP: ContextVar[Stop | None] = ContextVar("stop", default=None)
"""Ctrl-C, as the command under way is told of it."""
QUIET: ContextVar[bool] = ContextVar("quiet", default=False)
"""Only results and errors are wanted."""
HELP = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(
    name="holdfast",
    cls=Group,
    help="Fine-tune a language model and see what it gained and what it forgot.",
    no_args_is_help=True,
    context_settings=HELP,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Settings that win over the file: train.epochs=1 ...")
]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="The same as such a setting behind the file.")
]
RunsDir = Annotated[Path, typer.Option("--runs-dir", help="Where run folders are made.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what it will take, and stop.")]
All = Annotated[bool, typer.Option("--all", help="With --dry-run: list every stage.")]
Calibrate = Annotated[
    bool,
    typer.Option("--calibrate", help="With --dry-run: measure this device on the model first."),
]
On = Annotated[
    Where | None,
    typer.Option(
        "--on",
        help="One stage after another (local), or side by side: workers (processes on the CPU), "
        "gpus, ray, slurm. Left out: gpus where there are several, else local.",
    ),
]
Only = Annotated[str, typer.Option("--only", help="Run the stages of this glob and their needs.")]
Rebuild = Annotated[
    list[str] | None, typer.Option("--rebuild", help="Make the stages of this glob again.")
]

TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-code",
        help="Run the Python code that the study of a run folder names, and send keys where it "
        "says.",
    ),
]


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        say(False, None, f"holdfast {version('holdfast')}")
        raise typer.Exit


@app.callback()
def _front(
    version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_version, is_eager=True, help="Show it and exit."),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Only results and errors; anywhere on the line.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="What the libraries say, too; likewise.")
    ] = False,
    lang: Annotated[
        str | None,
        typer.Option(
            "--lang",
            help="en or zh: what is printed, before or after the command. Left out: the locale's.",
        ),
    ] = None,
) -> None:
    pass  # `holdfast.cli.call` has looked for both


def volume(arguments: Sequence[str]) -> list[str]:
    """Take ``--quiet`` and ``--verbose`` from wherever they stand; the rest of the line."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    said = set(arguments[:end])
    QUIET.set(bool(said & {"--quiet", "-q"}))
    if said & {"--verbose", "-v"}:
        os.environ["HOLDFAST_VERBOSE"] = "1"
    loud = ("--quiet", "-q", "--verbose", "-v")
    return [word for n, word in enumerate(arguments) if n >= end or word not in loud]


def say(as_json: bool, value: object, text: str = "") -> None:
    """Print a result, as JSON or in words."""
    typer.echo(printable_json(value) if as_json else printable(told(text), keep="\n\t"))


def with_run(text: str, folder: Path) -> str:
    """A text in the reader's language, with the run's own folder in a command that it names."""
    return told(text).replace("holdfast ship RUN", f"holdfast ship {shlex.quote(str(folder))}")


def tell(text: str, always: bool = False) -> None:
    """Print a line beside the result, to standard error.

    Args:
        text: the line.
        always: in spite of ``--quiet``, as an error is.
    """
    if QUIET.get() and not always:
        return
    typer.echo(printable(told(text), keep="\n\t"), err=True)


@contextmanager
def shown(quiet: bool) -> Iterator[Progress]:
    """Progress for a person, or none where only the result is wanted; stopped as the command is."""
    from holdfast import progress

    quiet = quiet or QUIET.get()
    with nullcontext(progress.Silent()) if quiet else progress.default() as found:
        found.stop = STOP.get() or found.stop
        yield found


def quiet_libraries() -> None:
    """Keep the libraries' progress bars and notices out of ours; HOLDFAST_VERBOSE=1 shows them."""
    if os.environ.get("HOLDFAST_VERBOSE"):
        return
    import warnings

    warnings.simplefilter("ignore")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    for name, value in (
        ("TRANSFORMERS_VERBOSITY", "error"),
        ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
        ("HF_DATASETS_DISABLE_PROGRESS_BARS", "1"),
        ("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1"),
        ("BITSANDBYTES_NOWELCOME", "1"),
        ("TQDM_DISABLE", "1"),
    ):
        os.environ.setdefault(name, value)
