"""Trackio: runs in a group of the study's name, kept on this machine, or sent to a Space or server.

``trackio show --project holdfast`` shows them. They are where Trackio keeps its own
(TRACKIO_DIR). The token of a server comes from TRACKIO_WRITE_TOKEN, that of a Space from HF_TOKEN.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

from holdfast.config import Section
from holdfast.errors import UsageError
from holdfast.report.trackers import TrackedRun, Tracker
from holdfast.report.trackers.content import Batch

PLACES = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_DIR")
"""What Trackio looks at where neither a server nor a Space is named, in its order."""


class Trackio(Tracker):
    """A project of Trackio."""

    package: ClassVar[str] = "trackio"

    class Options(Section):
        """Settings under ``trackio:``."""

        project: str = "holdfast"
        """The project that the runs belong to."""
        url: str | None = None
        """A Trackio server of your own; left out: this machine."""
        space: str | None = None
        """A Space of Hugging Face, `user/name`."""

    def check(self) -> None:
        """Refuse a server without a token, and two places at once.

        Raises:
            UsageError: naming what to set.
        """
        if self.options.url and self.options.space:
            raise UsageError(
                "a server and a Space are named", where="track: trackio", remedy="keep one of them"
            )
        if self.options.url and not os.environ.get("TRACKIO_WRITE_TOKEN"):
            raise UsageError(
                "the server takes a token",
                where="track: trackio",
                remedy="set TRACKIO_WRITE_TOKEN to the one that `trackio show` printed there",
            )

    def destination(self) -> str:
        """Place and project."""
        named = [self.options.url, self.options.space, *(os.environ.get(one) for one in PLACES)]
        return f"{next(filter(None, named), 'here')} {self.options.project}"

    def start(self, run: TrackedRun) -> None:
        """Nothing: Trackio has one run open at a time, so each batch opens and closes its own."""

    def send(self, run: TrackedRun, batch: Batch) -> None:
        """Open the run, or go on with it, and close it when everything is written."""
        import trackio

        own = trackio.init(
            project=self.options.project, name=f"{run.group}/{run.name}-{run.id[:6]}",
            group=run.group, server_url=self.options.url, space_id=self.options.space,
            config={**run.params, **{f"lineage.{k}": v for k, v in run.lineage.items()}},
            resume="allow", embed=False, auto_log_gpu=False, auto_log_cpu=False,
        )  # fmt: skip
        try:
            for one in batch.figures:
                own.log(dict(one.values), step=one.step)
            told: dict[str, Any] = {
                table.name: trackio.Table(
                    columns=list(table.columns), data=[list(row) for row in table.rows]
                )
                for table in batch.tables
            }
            told |= {name: trackio.Markdown(text) for name, text in batch.words}
            if told:
                own.log(told, step=0)
            for file in batch.files:
                own.log_artifact(str(file), name=f"{run.id}-{file.name}", type="report")
        finally:
            trackio.finish()
