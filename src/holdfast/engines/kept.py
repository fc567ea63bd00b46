"""Keeps each answer as it ends, so that an interrupted chunk is not answered from its beginning.

Beside the chunks of a stage (`holdfast.engines.resumable`), in a file that goes when the stage is
finished. An answer is known by all that decides it, so that no other question gets it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from holdfast.runs import store
from holdfast.runs.stages import PARTS

NAME = "answers.jsonl"


class KeptAnswers:
    """Token ids of the answers of one stage, by a mark of what was asked."""

    def __init__(self, folder: Path | None) -> None:
        """Read what is there; a line that is not as it was written is passed over.

        Args:
            folder: of the stage; None, or one that is gone: nothing is kept.
        """
        self._path = folder / PARTS / NAME if folder is not None and folder.is_dir() else None
        self._known: dict[str, list[int]] = {}
        if self._path is None or not self._path.is_file():
            return
        for line in self._path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                row = json.loads(line)
            except ValueError:  # it was being written
                continue
            match row:
                case {"of": str(mark), "ids": list(ids), "check": str(check)}:
                    if check == store.fingerprint([mark, ids]):
                        self._known[mark] = ids

    def find(self, mark: str) -> list[int] | None:
        """The answer of a mark, if it is there."""
        return self._known.get(mark)

    def add(self, mark: str, ids: Sequence[int]) -> None:
        """Keep an answer."""
        if self._path is None:
            return
        self._path.parent.mkdir(exist_ok=True)
        row = {"of": mark, "ids": list(ids), "check": store.fingerprint([mark, list(ids)])}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"\n{store.jsonl_line(row)}")  # on a line of its own after a torn one, too
