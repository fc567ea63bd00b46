"""The command line: argv becomes one call each, errors become messages and exit codes.

Nothing is decided here. Exit codes: 0 done, 1 failed while running, 2 the answer is no, 3 wrong
usage, 130 stopped by Ctrl-C, 143 by SIGTERM.
"""

from __future__ import annotations

import errno
import io
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.advising import recommend
from holdfast.cli.comparing import compare
from holdfast.cli.front import HELP, STOP, Json, app, quiet_libraries, say, tell, volume
from holdfast.cli.helping import Command
from holdfast.cli.planning import plan
from holdfast.cli.starting import import_, init, new_judge, new_method, new_task
from holdfast.cli.studies import demo, report, run, track, watch
from holdfast.cli.typed import TYPED, half_width, without
from holdfast.cli.verbs import chat, clean, export, merge, power, ship
from holdfast.errors import HoldfastError, Interrupted, UsageError
from holdfast.progress import translation
from holdfast.progress.language import Language, speaking
from holdfast.progress.rendered import study_in_language
from holdfast.progress.stopping import listen
from holdfast.progress.translation import told
from holdfast.registry import Registry

if TYPE_CHECKING:
    from holdfast.cli.catalogue import Entry


Named = Annotated[
    str | None, typer.Argument(metavar="NAME", help="Show all of one; yours: FILE.py:Class.")
]


def schema() -> None:
    """Print the JSON schema of a study file: every key, its type, its meaning."""
    from holdfast.cli.study_schema import study_schema

    found = study_schema()
    say(False, found, json.dumps(found, indent=1, ensure_ascii=False))


def tasks(name: Named = None, as_json: Json = False) -> None:
    """List the tasks, or show one: what it measures, its keys, its source."""
    from holdfast.cli import catalogue
    from holdfast.config import TaskSpec
    from holdfast.tasks import REGISTRY

    def usage(one: Entry) -> str:
        return f"tasks: {{{one.name}: {{...}}}}, or any name with kind: {one.name}"

    common = [translation.told("Every task takes:"), *catalogue.told(catalogue.settings(TaskSpec))]
    _list(REGISTRY, name, as_json, usage, common)


def methods(name: Named = None, as_json: Json = False) -> None:
    """List the remedies, or show one: what it does, its settings, its source."""
    from holdfast.methods import REGISTRY

    def usage(one: Entry) -> str:
        return f"arms: {{mine: {{{one.group}: [{{{one.name}: {{...}}}}]}}}}"

    _list(REGISTRY, name, as_json, usage)


def judges(name: Named = None, as_json: Json = False) -> None:
    """List the judges, or show one: what it says, its settings, its source."""
    from holdfast.judges import REGISTRY

    def usage(one: Entry) -> str:
        return f"judge: {{{one.name}: {{...}}}}, under a task"

    _list(REGISTRY, name, as_json, usage)


def recipes(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Show this one.")] = None,
    as_json: Json = False,
) -> None:
    """List the studies that `init --recipe` writes, or show one."""
    from holdfast.cli import catalogue
    from holdfast.config import recipes as known

    if name is not None:
        text = known.recipe_file(name).read_text("utf-8")
        shown = translation.Said(study_in_language(text).rstrip())
        say(as_json, {name: text}, shown)
        return
    found = [
        catalogue.Entry(one, "", known.purpose(file), "", "", {})
        for one, file in known.recipes().items()
    ]
    after = "One of them: holdfast recipes NAME; to have it: holdfast init --recipe NAME"
    purposes = {one.name: one.purpose for one in found}
    say(as_json, purposes, catalogue.listed(found, {}, after))


LISTS = {
    "data": "data: what is trained on",
    "loss": "loss: what is made of it in a training step",
    "weights": "weights: what becomes of the weights afterwards",
    "ask": "ask: how the tuned model is asked",
}


def _list(
    registry: Registry[Any], name: str | None, as_json: bool, usage: Callable[[Entry], str],
    below: Sequence[str] = (),
) -> None:  # fmt: skip
    """Every plug-in of a kind in a line, or one on a page."""
    from holdfast.cli import catalogue

    kind = registry.kind
    if name is not None:
        one = catalogue.entry(registry, name)
        more = f"docs/{kind}/{name}.md" if kind != "judges" else "docs/judges.md"
        more = "docs/lab.md" if name.startswith("lab_") else more
        more = f"More: {more}" if name in registry.known else ""
        text = "\n".join([catalogue.page(one, usage(one), more), *([""] if below else []), *below])
        say(as_json, catalogue.as_json([one]), translation.Said(text))
        return
    found = catalogue.entries(registry)
    groups = LISTS if kind == "methods" else {}
    after = f"One of them, with its settings: holdfast {kind} NAME. Your own: docs/plugins.md"
    say(as_json, catalogue.as_json(found), catalogue.listed(found, groups, after))


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
    errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENOTDIR,
    errno.EISDIR, errno.EROFS, errno.ENXIO,
)  # fmt: skip
"""Of what a path names, if nothing nearer to it has said so."""
INTERRUPTED, STOPPED = 130, (130, 143)  # what typer makes of an interrupt
COMMANDS = (
    demo, init, import_, plan, recommend, run, watch, compare, power, report, track, chat, ship,
    merge, export, clean, tasks, methods, judges, recipes, new_task, new_judge, new_method, schema,
    doctor,
)  # fmt: skip


def named(command: Callable[..., None]) -> str:
    """What a command is called: its function's name, with dashes."""
    return command.__name__.strip("_").replace("_", "-")


for _command in COMMANDS:
    app.command(named(_command), cls=Command, context_settings=HELP)(_command)


def main() -> None:
    """The console script: run the command, turn errors into messages and exit codes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
            stream.reconfigure(errors="replace")  # a sign that cannot be shown ends no command
    code = call(sys.argv[1:])
    if code in STOPPED:  # threads that still wait for a server are not waited for
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def call(arguments: list[str]) -> int:
    """Run one command line, in the language that it names anywhere; returns the exit code."""
    try:
        language, rest = language_of(arguments)
    except UsageError as error:
        return _fail(arguments, error, 3)
    with speaking(language):
        return _called(rest)


def language_of(arguments: Sequence[str]) -> tuple[Language | None, list[str]]:
    """What `--lang` says, and the other words.

    Raises:
        UsageError: a language that is not spoken here.
    """
    language: Language | None = None
    end = arguments.index("--") if "--" in arguments else len(arguments)
    rest, words = [], iter(arguments[:end])
    for word in words:
        name, mark, value = word.partition("=")
        if name != "--lang":
            rest.append(word)
            continue
        value = value if mark else next(words, "")
        if value not in ("en", "zh"):
            raise UsageError(f"no language {value!r}", remedy="--lang en or --lang zh")
        language = "zh" if value == "zh" else "en"
    return language, [*rest, *arguments[end:]]


def _called(arguments: list[str]) -> int:
    # what was to be rebuilt has been set aside already
    again = shlex.join(["holdfast", *without(arguments, ["--rebuild"])])
    arguments = half_width(volume(arguments)) or ["--help"]
    quiet_libraries()

    def stopped() -> None:
        said = Interrupted("everything finished is kept", remedy=f"continue with: {again}")
        _fail(arguments, said, INTERRUPTED)

    try:
        with listen(tell, stopped) as stop:
            STOP.set(stop)
            TYPED.set(tuple(arguments))
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
    except typer.Abort:  # Ctrl-C, or the end of what was typed, at a question
        stopped()
        return INTERRUPTED
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        path = getattr(getattr(error, "ctx", None), "command_path", "holdfast")
        wrong = UsageError(error.format_message(), remedy=f"see `{path} --help`")
        return _fail(arguments, wrong, 3)  # typer's own: an unknown option, a missing argument
    return int(code or 0)


def _fail(arguments: list[str], error: HoldfastError, code: int) -> int:
    if "--json" in arguments:
        about = {"type": type(error).__name__, "message": error.message, "where": error.where}
        say(True, {"error": about | {"remedy": error.remedy}})
    else:
        kind = "Stopped: " if isinstance(error, Interrupted) else "Error: "
        tell(f"{told(kind)}{_said(error)}", always=True)
    return code


def _said(error: HoldfastError) -> HoldfastError:
    """The same in the language of this process."""
    return HoldfastError(told(error.message), where=told(error.where), remedy=told(error.remedy))
