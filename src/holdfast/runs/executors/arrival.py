"""Whether a stage that another machine has made can be seen here; a shared disk may show it late.

A network file system answers out of its memory for up to a minute whether a file is there. To
change the time of the folder makes it ask.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from holdfast.runs import store

APPEARS_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Waits between two looks."""
SHARE = "put --runs-dir on storage that all machines see under the same path"


def has_arrived(folder: Path, stage: str) -> bool:
    """Whether the record of a finished stage is in the run folder, at once or before long."""
    record = folder / stage / store.RECORD
    for wait in APPEARS_S:
        if record.is_file():
            return True
        time.sleep(wait)
        with suppress(OSError):
            os.utime(record.parent.parent)
    return record.is_file()
