"""The command line: argv becomes one call each, errors become messages and exit codes.

Nothing is decided here. Exit codes: 0 done, 1 failed while running, 2 the answer is no, 3 wrong
usage, 130 stopped by Ctrl-C, 143 by SIGTERM.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from holdfast.cli.comparing import compare, recommend
from holdfast.cli.front import STOP, Json, app, quiet_libraries, say, tell
from holdfast.cli.planning import plan
from holdfast.cli.studies import demo, init, report, run, ship, track, watch
from holdfast.errors import HoldfastError, Interrupted, UsageError
from holdfast.progress.stopping import listen
from holdfast.registry import Registry


def schema() -> None:
    """Print the JSON schema of a study file: every key, its type, its meaning."""
    from holdfast.config import Study

    found = Study.model_json_schema(by_alias=False)
    say(False, found, json.dumps(found, indent=1, ensure_ascii=False))


def tasks(as_json: Json = False) -> None:
    """List the tasks and the keys that each takes in a study file."""
    from holdfast.config import TaskSpec
    from holdfast.tasks import REGISTRY

    _list(REGISTRY, as_json, ["every task", *_lines(_keys(TaskSpec))])


def methods(as_json: Json = False) -> None:
    """List the remedies, the list of an arm that each belongs to, and its settings."""
    from holdfast.methods import REGISTRY

    _list(REGISTRY, as_json, [])


def _list(registry: Registry[Any], as_json: bool, first: Sequence[str]) -> None:
    found: dict[str, dict[str, str]] = {}
    lines = list(first)
    for name in registry.names():
        made = registry.find(name).make
        found[name] = _keys(made.Options)
        lines.append(f"{name} ({made.entry})" if registry.kind == "methods" else name)
        lines += _lines(found[name])
    say(as_json, found, "\n".join(lines))


def _keys(section: type[BaseModel]) -> dict[str, str]:
    """The keys of a section and what they mean; those that have no default are marked."""
    return {
        key: " ".join([*["(required)"] * field.is_required(), *(field.description or "").split()])
        for key, field in section.model_fields.items()
    }


def _lines(keys: Mapping[str, str]) -> list[str]:
    return [f"    {key:<24} {text}" for key, text in keys.items()]


def doctor(as_json: Json = False) -> None:
    """Show versions and devices, what is missing, and the command that installs it."""
    from holdfast import environment
    from holdfast.memory import precision as precisions

    about, precision = environment.describe(), precisions.here()
    missing = [name for name in environment.PACKAGES if about["versions"][name] is None]
    command = environment.install_command("train", *missing) if missing else None
    lines = [f"{name:<14} {found or 'missing'}" for name, found in about["versions"].items()]
    lines += [f"{'device':<14} {device}" for device in about["devices"]]
    lines.append(f"{'precision':<14} {precision}")
    if command:
        lines.append(f"\nMissing packages are needed to train and to answer:\n  {command}")
    say(
        as_json,
        {**about, "precision": precision, "missing": missing, "install": command},
        "\n".join(lines),
    )


PLACES = (
    errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR,
    errno.EROFS, errno.ENXIO,
)  # fmt: skip
"""Of what a path names, if nothing nearer to it has said so."""
INTERRUPTED, STOPPED = 130, (130, 143)  # what typer makes of an interrupt
COMMANDS = (
    demo, init, plan, recommend, run, watch, compare, report, track, ship, tasks, methods, schema,
    doctor,
)  # fmt: skip
for _command in COMMANDS:
    app.command()(_command)


def main() -> None:
    """The console script: run the command, turn errors into messages and exit codes."""
    code = call(sys.argv[1:])
    if code in STOPPED:  # threads that still wait for a server are not waited for
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def call(arguments: list[str]) -> int:
    """Run one command line; returns the exit code."""
    quiet_libraries()

    def stopped() -> None:
        said = Interrupted("everything finished is kept", remedy=f"continue with: {again}")
        _fail(arguments, said, INTERRUPTED)

    again = shlex.join(["holdfast", *_without_rebuild(arguments)])
    try:
        with listen(tell, stopped) as stop:
            STOP.set(stop)
            code = app(args=arguments, prog_name="holdfast", standalone_mode=False)
            if code == INTERRUPTED:
                code = stop.code
                stopped()
    except HoldfastError as error:
        return _fail(arguments, error, error.exit_code)
    except OSError as error:
        if error.errno in PLACES and error.filename:
            place = str(error.filename)[:300]
            wrong = UsageError(
                str(error.strerror), where=place, remedy="check that path and its permissions"
            )
            return _fail(arguments, wrong, 3)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        full = HoldfastError("the disk is full", remedy=f"make room and continue with: {again}")
        return _fail(arguments, full, 1)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        wrong = UsageError(error.format_message(), remedy="see `holdfast --help`")
        return _fail(arguments, wrong, 3)  # typer's own: an unknown option, a missing argument
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
        say(True, {"error": about | {"remedy": error.remedy}})
    else:
        kind = "Stopped" if isinstance(error, Interrupted) else "Error"
        tell(f"{kind}: {error}")
    return code
