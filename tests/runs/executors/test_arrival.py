"""What another machine has made is seen at once, a little later, or never."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from holdfast.runs import store
from holdfast.runs.executors import arrival
from holdfast.runs.executors.arrival import has_arrived


def test_what_comes_late_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrival, "APPEARS_S", (0.0, 0.01))
    record = tmp_path / "readings" / "a" / store.RECORD
    assert not has_arrived(tmp_path, "readings/a")
    record.parent.mkdir(parents=True)
    assert not has_arrived(tmp_path, "readings/a")
    monkeypatch.setattr(arrival, "APPEARS_S", (0.01,) * 500)

    def write() -> None:
        time.sleep(0.05)
        record.touch()

    threading.Thread(target=write).start()
    assert has_arrived(tmp_path, "readings/a")
