"""Fits what is printed to the width of a terminal or a pipe, wide characters counted as wide."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from holdfast.progress.language import wrapped

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

NARROW = 72
"""Cells below which a table of six columns is told as lines."""
INDENT = "    "


def put(page: Console, part: RenderableType) -> None:
    """Print a part: text in lines that are as long as the page is wide, anything else as it is."""
    from rich.text import Text

    if not isinstance(part, str):
        page.print(part)
        return
    for line in wrapped(part, page.width):
        page.print(Text(line))


def command_lines(command: str, width: int) -> str:
    r"""A command in lines that can be copied: each but the last ends in ``\``.

    Args:
        command: as a shell takes it.
        width: of the page, cells.
    """
    from rich.cells import cell_len

    lines = [""]
    for word in shlex.split(command, posix=False):
        longer = f"{lines[-1]} {word}" if lines[-1].strip() else lines[-1] + word
        if cell_len(longer) > width - 2 and lines[-1].strip():
            lines[-1] += " \\"
            lines.append(INDENT + word)
        else:
            lines[-1] = longer
    return "\n".join(lines)
