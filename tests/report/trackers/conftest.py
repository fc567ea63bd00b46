"""Trackers that keep, fail or hang, as a user would bring them: in a file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

TRACKERS = '''
import json, os, time
from holdfast.config import Section
from holdfast.report.trackers import Tracker


class Kept(Tracker):
    """Writes what it gets, a line each."""

    name = "kept"

    class Options(Section):
        path: str
        """Where to."""

    def _tell(self, what, run, **more):
        with open(self.options.path, "a") as file:
            told = {"what": what, "run": run.name, "id": run.id, **more}
            file.write(json.dumps(told) + "\\n")

    def start(self, run):
        self._tell("start", run, params=dict(run.params), lineage=dict(run.lineage))

    def send(self, run, batch):
        print("noise of a library")
        figures = [[one.step, one.at, dict(one.values)] for one in batch.figures]
        self._tell("send", run, figures=figures, tables=[one.name for one in batch.tables],
                   files=[one.name for one in batch.files], words=dict(batch.words))

    def finish(self, run, done):
        self._tell("finish", run, done=done)


class Broken(Kept):
    """Fails whenever it is sent anything."""

    name = "broken"

    def send(self, run, batch):
        raise RuntimeError("the server is on fire\\nand more")


class Hangs(Kept):
    """Never comes back."""

    name = "hangs"

    def send(self, run, batch):
        self._tell("hangs", run, pid=os.getpid())
        time.sleep(600)


class Dies(Kept):
    """Takes its process with it."""

    name = "dies"

    def send(self, run, batch):
        os._exit(9)
'''


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run, tmp_path / "run"))


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file with the trackers."""
    path = tmp_path_factory.mktemp("trackers") / "mine.py"
    path.write_text(TRACKERS, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def told() -> Any:
    """Reads what `Kept` wrote."""

    def read(path: Path) -> list[dict[str, Any]]:
        if not path.is_file():
            return []
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]

    return read
