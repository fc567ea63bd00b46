"""MLflow: a run for the study, and below it one for each training and for the untouched model.

To a server (`uri`, or MLFLOW_TRACKING_URI), else into a database file in the run folder. User,
password and token come from MLflow's own variables (MLFLOW_TRACKING_USERNAME, ...).
"""

from __future__ import annotations

import importlib.util
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from holdfast.config import Section
from holdfast.environment import install_command
from holdfast.errors import MissingDependency
from holdfast.report.trackers import TrackedRun, Tracker
from holdfast.report.trackers.content import STUDY, Batch

MARK = "holdfast.run"
"""The tag by which a run is found again: MLflow makes up the ids itself."""
MOST_METRICS, MOST_PARAMS, LONGEST = 1000, 100, 5000
"""Of one request; and letters of a value."""
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # whoever calls tries again
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "GIT_PYTHON_REFRESH": "quiet",
}


class MLflow(Tracker):
    """A tracking server, or a file."""

    package: ClassVar[str] = "mlflow"

    class Options(Section):
        """Settings under ``mlflow:``."""

        uri: str | None = None
        """The tracking server, `http://host:5000`; left out: MLFLOW_TRACKING_URI, else a file."""
        experiment: str = "holdfast"
        """The experiment that the runs belong to; made where it is missing."""

    def __init__(self, options: Any, folder: Path) -> None:
        """Ask no server yet."""
        super().__init__(options, folder)
        self._known: Any = None
        self._ids: dict[str, str] = {}

    @property
    def _uri(self) -> str:
        given = self.options.uri or os.environ.get("MLFLOW_TRACKING_URI")
        return given or f"sqlite:///{(self.folder / 'mlflow.db').absolute()}"

    def check(self) -> None:
        """Refuse a database file where only MLflow's client is installed."""
        if self._uri.startswith("sqlite:") and importlib.util.find_spec("sqlalchemy") is None:
            raise MissingDependency(
                "keeping MLflow's runs in a file needs all of mlflow, and this is its client alone",
                remedy=f"{install_command('mlflow', 'mlflow')}, or name a server: "
                "track: [{mlflow: {uri: http://host:5000}}]",
            )

    def destination(self) -> str:
        """Server and experiment; of a file in the run folder, that the folder can be moved."""
        given = self.options.uri or os.environ.get("MLFLOW_TRACKING_URI") or "file"
        return f"{given} {self.options.experiment}"

    def _client(self) -> Any:
        if self._known is None:
            for name, value in SETTINGS.items():
                os.environ.setdefault(name, value)
            from mlflow.tracking import MlflowClient

            self.folder.mkdir(parents=True, exist_ok=True)
            self._known = MlflowClient(tracking_uri=self._uri)
        return self._known

    def _experiment(self) -> str:
        client, name = self._client(), self.options.experiment
        found = client.get_experiment_by_name(name)
        if found is None:
            local = self._uri.startswith("sqlite:")
            place = (self.folder / "artifacts").absolute().as_uri() if local else None
            return str(client.create_experiment(name, artifact_location=place))
        return str(found.experiment_id)

    def start(self, run: TrackedRun) -> None:
        """Find the run by its tag, or make it."""
        from mlflow.entities import Param

        client, experiment = self._client(), self._experiment()
        found = client.search_runs([experiment], f"tags.`{MARK}` = '{run.id}'", max_results=1)
        if found:
            self._ids[run.key] = found[0].info.run_id
            client.update_run(self._ids[run.key], status="RUNNING")
            return
        tags = {MARK: run.id, "holdfast.study": run.group}
        tags |= {f"holdfast.{name}": value[:LONGEST] for name, value in run.lineage.items()}
        if run.key != STUDY and STUDY in self._ids:
            tags["mlflow.parentRunId"] = self._ids[STUDY]
        name = run.group if run.key == STUDY else f"{run.group}: {run.name}"
        made = client.create_run(experiment, run_name=name, tags=tags)
        self._ids[run.key] = made.info.run_id
        named = {_name(key): str(value)[:LONGEST] for key, value in run.params.items()}
        params = [Param(key, value) for key, value in named.items()]
        for some in _parts(params, MOST_PARAMS):
            client.log_batch(made.info.run_id, params=some)

    def send(self, run: TrackedRun, batch: Batch) -> None:
        """Send figures with the time at which they were written: what comes twice is one."""
        from mlflow.entities import Metric

        client, own = self._client(), self._ids[run.key]
        metrics = [
            Metric(_name(name), value, round(1000 * (one.at or time.time())), one.step)
            for one in batch.figures
            for name, value in one.values.items()
        ]
        for some in _parts(metrics, MOST_METRICS):
            client.log_batch(own, metrics=some)
        for table in batch.tables:
            split: Mapping[str, object] = {
                "columns": list(table.columns), "data": [list(row) for row in table.rows],
            }  # fmt: skip
            client.log_dict(own, split, f"{table.name}.json")
        for name, text in batch.words:
            client.set_tag(own, f"holdfast.{name}", text[:LONGEST])
        for file in batch.files:
            client.log_artifact(own, str(file), "report")

    def finish(self, run: TrackedRun, done: bool) -> None:
        """Say whether it came to its end; a study that goes on says RUNNING again."""
        self._client().set_terminated(self._ids[run.key], "FINISHED" if done else "KILLED")


def _name(name: str) -> str:
    """A name as MLflow takes it: one with other signs would hold up all that comes after it."""
    return re.sub(r"[^\w.\- /]", "_", name)[:250]


def _parts(values: Sequence[Any], most: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), most):
        yield values[start : start + most]
