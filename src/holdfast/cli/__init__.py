"""What can be typed?

Argv becomes one call each; nothing is decided here. `holdfast.cli.boundary` turns errors into messages
and exit codes.
"""

from __future__ import annotations

import sys

from holdfast.cli import boundary
from holdfast.cli.about import doctor, methods, schema, tasks
from holdfast.cli.comparing import compare
from holdfast.cli.front import app
from holdfast.cli.planning import plan
from holdfast.cli.studies import demo, init, report, run, ship

COMMANDS = (demo, init, plan, run, compare, report, ship, tasks, methods, schema, doctor)
for one in COMMANDS:
    app.command()(one)


def main() -> None:
    """The console script: run the command, turn errors into messages and exit codes."""
    sys.exit(call(sys.argv[1:]))


def call(arguments: list[str]) -> int:
    """Run one command line; returns the exit code."""
    return boundary.call(app, arguments)
