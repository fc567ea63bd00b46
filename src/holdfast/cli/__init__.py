"""The command line: argv becomes one call each, errors become messages and exit codes.

Nothing is decided here. Exit codes: 0 done, 1 failed while running, 2 the answer is no, 3 wrong
usage.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shlex
import sys

import typer

from holdfast.cli.about import doctor, methods, schema, tasks
from holdfast.cli.comparing import compare
from holdfast.cli.front import app
from holdfast.cli.planning import plan
from holdfast.cli.studies import demo, init, report, run, ship
from holdfast.errors import HoldfastError, Interrupted, UsageError

INTERRUPTED = 130  # what typer makes of Ctrl-C
COMMANDS = (demo, init, plan, run, compare, report, ship, tasks, methods, schema, doctor)
for _command in COMMANDS:
    app.command()(_command)


def main() -> None:
    """The console script: run the command, turn errors into messages and exit codes."""
    sys.exit(call(sys.argv[1:]))


def call(arguments: list[str]) -> int:
    """Run one command line; returns the exit code."""
    _quiet_libraries()
    again = shlex.join(["holdfast", *_without_rebuild(arguments)])
    try:
        code = app(args=arguments, prog_name="holdfast", standalone_mode=False)
    except HoldfastError as error:
        return _fail(arguments, error, error.exit_code)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        full = HoldfastError("the disk is full", remedy=f"make room and continue with: {again}")
        return _fail(arguments, full, 1)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        wrong = UsageError(error.format_message(), remedy="see `holdfast --help`")
        return _fail(arguments, wrong, 3)  # typer's own: an unknown option, a missing argument
    if code == INTERRUPTED:
        stopped = "stopped; everything finished is kept"
        return _fail(arguments, Interrupted(stopped, remedy=f"continue with: {again}"), 1)
    return int(code or 0)


def _without_rebuild(arguments: list[str]) -> list[str]:
    """What to type to go on: what was to be rebuilt has been set aside already."""
    kept, skip = [], False
    for word in arguments:
        if not skip and word != "--rebuild" and not word.startswith("--rebuild="):
            kept.append(word)
        skip = word == "--rebuild"
    return kept


def _fail(arguments: list[str], error: HoldfastError, code: int) -> int:
    if "--json" in arguments:
        about = {"type": type(error).__name__, "message": error.message, "where": error.where}
        typer.echo(json.dumps({"error": about | {"remedy": error.remedy}}, ensure_ascii=False))
    else:
        typer.echo(f"{'Stopped' if isinstance(error, Interrupted) else 'Error'}: {error}", err=True)
    return code


def _quiet_libraries() -> None:
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
