"""Weights & Biases: runs in a group of the study's name, online or kept for ``wandb sync``.

The key comes from WANDB_API_KEY or from ``wandb login``. Offline runs lie in the run folder, below
``tracking/wandb``, a folder for each sitting of a run; they say that they go on with it, so that
``wandb sync`` appends them one after another, where each would replace what was sent before.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar, Literal

from holdfast.config import Section
from holdfast.errors import UsageError
from holdfast.report.trackers import TrackedRun, Tracker
from holdfast.report.trackers.content import STUDY, Batch

STEP = "step"
"""The axis of all figures: readings of earlier steps come after later losses."""
SETTINGS = {
    "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false", "WANDB_DISABLE_CODE": "true",
    "WANDB_DISABLE_GIT": "true",
}  # fmt: skip


class WandB(Tracker):
    """A project of Weights & Biases."""

    package: ClassVar[str] = "wandb"

    class Options(Section):
        """Settings under ``wandb:``."""

        project: str = "holdfast"
        """The project that the runs belong to."""
        entity: str | None = None
        """User or team; left out: your default."""
        mode: Literal["online", "offline"] | None = None
        """`offline` keeps the runs in the run folder; left out: WANDB_MODE, else online."""

    def __init__(self, options: Any, folder: Path) -> None:
        """Ask no server yet."""
        super().__init__(options, folder)
        self._runs: dict[str, Any] = {}

    @property
    def _mode(self) -> str:
        return self.options.mode or os.environ.get("WANDB_MODE") or "online"

    def check(self) -> None:
        """Refuse to go online without a key: wandb would ask for one in the middle.

        Raises:
            UsageError: there is none.
        """
        netrc = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
        if self._mode == "online" and not os.environ.get("WANDB_API_KEY") and not netrc.is_file():
            raise UsageError(
                "wandb has no key",
                where="track: wandb",
                remedy="set WANDB_API_KEY, or run `wandb login`, or keep the runs here: "
                "track: [{wandb: {mode: offline}}]",
            )

    def destination(self) -> str:
        """Project, and whether online."""
        return f"{self._mode} {self.options.entity or ''}/{self.options.project}"

    def start(self, run: TrackedRun) -> None:
        """Begin the run of this id, or go on with it."""
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        for name in ("cache", "data"):  # what artefacts lie in until they are sent
            (place := (self.folder / name).absolute()).mkdir(parents=True, exist_ok=True)
            os.environ[f"WANDB_{name.upper()}_DIR"] = str(place)
        import wandb

        mode: Any = self._mode
        found = self._runs[run.key] = wandb.init(
            project=self.options.project, entity=self.options.entity, mode=mode,
            id=run.id, name=run.name, group=run.group, dir=str(self.folder),
            job_type=STUDY if run.key == STUDY else "arm",
            config={**run.params, "lineage": dict(run.lineage)},
            resume="allow", reinit="create_new",
            settings=wandb.Settings(
                silent=True, console="off", init_timeout=30, x_disable_stats=True, symlink=False,
            ),
        )  # fmt: skip
        found.define_metric(STEP, hidden=True)
        found.define_metric("*", step_metric=STEP)
        self._without_links()

    def send(self, run: TrackedRun, batch: Batch) -> None:
        """Hand over what is new; wandb keeps it on the disk until its server has it."""
        import wandb

        own = self._runs[run.key]
        for one in batch.figures:
            own.log({STEP: one.step, **one.values})
        for table in batch.tables:
            columns, rows = list(table.columns), [list(row) for row in table.rows]
            shown = wandb.Table(columns=columns, data=rows, allow_mixed_types=True)
            own.log({table.name: shown})
        for name, text in batch.words:
            own.summary[name] = text
        if batch.files:
            kept = wandb.Artifact(f"report-{run.id}", type="report", metadata=dict(run.lineage))
            for file in batch.files:
                kept.add_file(str(file))
            own.log_artifact(kept)

    def finish(self, run: TrackedRun, done: bool) -> None:
        """Upload what is left, or close the offline run."""
        self._runs.pop(run.key).finish(exit_code=0 if done else 1)
        self._without_links()

    def _without_links(self) -> None:
        """Remove links to its logs: moved elsewhere, they would lead out of the run folder."""
        for place in self.folder.rglob("*"):
            if place.is_symlink():
                place.unlink(missing_ok=True)
