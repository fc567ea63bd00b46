"""The pages of `--help` in another language: as typer lays them out, in letters that are wide."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer
from typer.core import TyperCommand, TyperGroup

from holdfast.progress.language import spoken, wrapped
from holdfast.progress.translation import told

if TYPE_CHECKING:
    from typer._click import HelpFormatter
else:
    HelpFormatter = typer.Context.formatter_class  # of typer's own copy of click


NARROW = 52


class Spoken(HelpFormatter):
    """Lays a page out by the width of what is shown, in the language of whoever reads it.

    In English it serves narrow terminals, where names stand on lines of their own.
    """

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """Write the first line."""
        super().write_usage(prog, args, told(prefix or "Usage: "))

    def write_heading(self, heading: str) -> None:
        """Write the name of a part."""
        end = ":" if spoken() == "en" else "："
        self.write(f"{'':>{self.current_indent}}{told(heading)}{end}\n")

    def write_text(self, text: str) -> None:
        """Write a paragraph."""
        indent = " " * self.current_indent
        for line in wrapped(told(" ".join(text.split())), self.width - len(indent)):
            self.write(f"{indent}{line}\n")

    def write_dl(
        self, rows: Sequence[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        """Write names and what they mean."""
        col_max = min(col_max, max(12, self.width // 3))
        first = min(max(len(name) for name, _ in rows), col_max) + col_spacing
        indent = " " * self.current_indent
        for name, meaning in rows:
            said = "  ".join(map(told, meaning.split("  ")))
            lines = wrapped(said, max(10, self.width - first - 2))
            fits = len(name) + col_spacing <= first
            head = f"{indent}{name:<{first}}{lines[0]}" if fits else f"{indent}{name}"
            rest = lines[1:] if fits else lines
            self.write("\n".join([head.rstrip(), *(f"{indent}{'':<{first}}{one}" for one in rest)]))
            self.write("\n")


class SpokenContext(typer.Context):
    """Whose pages are laid out like that, where English is not what is spoken."""

    def make_formatter(self) -> HelpFormatter:
        """The formatter of a page; click's own is never below 50 columns."""
        columns = shutil.get_terminal_size().columns
        width = self.terminal_width or (columns - 2 if columns < NARROW else None)
        kind = HelpFormatter if spoken() == "en" and columns >= NARROW else Spoken
        return kind(width=width, max_width=self.max_content_width)


class Command(TyperCommand):
    """A command with such pages."""

    context_class = SpokenContext

    def get_short_help_str(self, limit: int = 45) -> str:
        """Its line in the list of commands: the first sentence, however long."""
        said = told(" ".join((self.help or "").split()))
        first, end, _ = said.replace("。", ". ").partition(". ")
        return first + ("。" if spoken() == "zh" else end.strip())


class Group(TyperGroup):
    """All of them."""

    context_class = SpokenContext
