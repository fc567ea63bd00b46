"""TensorBoard: a folder of event files for each run, without torch and without TensorFlow.

Parameters are hyperparameters (the HPARAMS page), tables and findings are texts. A file cannot be
kept in it; the report is named. ``tensorboard --logdir RUN/tracking/tensorboard`` shows it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from holdfast.config import Section
from holdfast.report.trackers import TrackedRun, Tracker
from holdfast.report.trackers.content import Batch, Cell, Table

EVENTS = "events.out.tfevents.*"


class TensorBoard(Tracker):
    """Event files on this machine."""

    package: ClassVar[str] = "tensorboard"

    class Options(Section):
        """Settings under ``tensorboard:``."""

        path: str | None = None
        """The folder of the event files; left out: `tracking/tensorboard` in the run folder."""

    def __init__(self, options: Any, folder: Path) -> None:
        """Write into `options.path`, below the study's name, or into the run folder."""
        super().__init__(options, folder)
        self._writers: dict[str, Any] = {}

    def destination(self) -> str:
        """The folder."""
        return str(self.options.path or self.folder.name)

    def start(self, run: TrackedRun) -> None:
        """Open a new event file, which bears the run's id; one folder's files are read as one."""
        from tensorboard.compat.proto import event_pb2
        from tensorboard.plugins.hparams import summary_v2 as hparams
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        root = Path(self.options.path) / run.group if self.options.path else self.folder
        place, own = root / run.name, f"{EVENTS}.{run.id}"
        if any(place.glob(EVENTS)) and not any(place.glob(own)):  # it was sent before, as another
            place = place.with_name(f"{place.name}-{run.id[:6]}")
        known = any(place.glob(own))
        writer = EventFileWriter(str(place), filename_suffix=f".{run.id}")
        self._writers[run.key] = writer
        if not known:
            told = hparams.hparams_pb(dict(run.params), trial_id=run.id)
            writer.add_event(event_pb2.Event(summary=told, wall_time=time.time(), step=0))
            self._text(run, "lineage", _listed(("", "is"), [*run.lineage.items()]))

    def send(self, run: TrackedRun, batch: Batch) -> None:
        """Write the figures, and flush them to the disk."""
        from tensorboard.compat.proto import event_pb2
        from tensorboard.plugins.scalar import metadata
        from tensorboard.util import tensor_util

        writer = self._writers[run.key]
        for one in batch.figures:
            event = event_pb2.Event(wall_time=one.at or time.time(), step=one.step)
            for tag, value in one.values.items():
                about = metadata.create_summary_metadata("", "")
                tensor = tensor_util.make_tensor_proto(value, dtype="float32")
                event.summary.value.add(tag=tag, metadata=about, tensor=tensor)
            writer.add_event(event)
        for table in batch.tables:
            self._text(run, table.name, _markdown(table))
        for name, text in batch.words:
            self._text(run, name, text)
        if batch.files:
            names = ", ".join(f"{one.parent.name}/{one.name}" for one in batch.files)
            self._text(run, "report", f"In the run folder: {names}")
        writer.flush()

    def _text(self, run: TrackedRun, tag: str, text: str) -> None:
        from tensorboard.compat.proto import event_pb2
        from tensorboard.plugins.text import summary_v2 as texts

        told = texts.text_pb(tag, text)
        self._writers[run.key].add_event(
            event_pb2.Event(summary=told, wall_time=time.time(), step=0)
        )

    def finish(self, run: TrackedRun, done: bool) -> None:
        """Close the file."""
        self._writers.pop(run.key).close()


def _markdown(table: Table) -> str:
    return _listed(table.columns, table.rows)


def _listed(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    lines = [columns, ["---"] * len(columns), *([_cell(one) for one in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Cell) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str("" if value is None else value)
    return text.replace("|", "\\|").replace("\n", " ")
