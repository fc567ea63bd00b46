"""Looks at a run while it is under way, from another process: reads only, and never takes the lock.

A run says once a second in ``progress.json`` how far it is (`holdfast.runs.noted`); all else is
seen in the run folder: finished stages have a record, those at work a ``.tmp`` folder with a claim.
Files may be half written, or vanish between two looks: nothing is an error but a missing plan.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from holdfast.runs import records, sealed, stages
from holdfast.runs.noted import FILE, host
from holdfast.runs.plan import PLAN, Plan, read_plan

FRESH_S = 60.0
"""How long it is believed that a run of another machine is under way."""
State = Literal["under way", "finished", "broken off", "stopped"]


@dataclass(frozen=True, slots=True)
class Look:
    """What a run folder shows at one moment.

    Attributes:
        state: of the run.
        done: the finished stages, each with the mark of its making; not those that read what was
            made again since, as they will be made again too.
        working: stages that are begun.
        left: the others, in order.
        pid: of the process that holds the folder, or held it; None: none does.
        told: what the run said of itself last (`progress.json`); empty where it says nothing.
    """

    state: State
    done: Mapping[str, str]
    working: tuple[str, ...]
    left: tuple[str, ...]
    pid: int | None = None
    told: Mapping[str, Any] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many stages there are."""
        return len(self.done) + len(self.working) + len(self.left)


class Watched:
    """A run folder that is looked at again and again; what has not changed is not read again."""

    def __init__(self, folder: Path) -> None:
        """Watch a run folder."""
        self.folder = folder
        self._plan: tuple[object, Plan, Mapping[str, str]] | None = None
        self._records: dict[str, tuple[tuple[int, int, int], str, str, Mapping[str, Any]]] = {}

    @property
    def plan(self) -> Plan:
        """The plan as it stands.

        Raises:
            FolderError: no run folder, or one without a plan.
        """
        return self._planned()[0]

    def _planned(self) -> tuple[Plan, Mapping[str, str]]:
        mark = _mark(self.folder / PLAN)
        if self._plan is None or self._plan[0] != mark or mark is None:
            plan = read_plan(self.folder)
            self._plan = (mark, plan, stages.fingerprints(plan.stages))
        return self._plan[1], self._plan[2]

    def look(self) -> Look:
        """What the folder shows now.

        Raises:
            FolderError: see `plan`.
        """
        plan, marks = self._planned()
        done: dict[str, str] = {}
        working, left = [], []
        for stage in plan.stages:
            fingerprint, made, needs = self._record(stage.name)
            read = all(one in done and mark in (None, done[one]) for one, mark in needs.items())
            if fingerprint == marks[stage.name] and read:
                done[stage.name] = made
            elif (self.folder / f"{stage.name}.tmp" / records.CLAIM).is_file():
                working.append(stage.name)
            else:
                left.append(stage.name)
        told, holder = parsed(self.folder / FILE), parsed(self.folder / "lock.json")
        pid = holder.get("pid")
        state: State = "stopped"
        if isinstance(pid, int) and _lives(pid, told):
            state = "under way"
        elif not working and not left:
            state = "finished"
        elif pid is not None:
            state = "broken off"
        return Look(state, done, tuple(working), tuple(left), pid, told)

    def times(self) -> dict[str, int]:
        """When each stage was finished that the last look found so, nanoseconds since 1970."""
        return {name: known[0][0] for name, known in self._records.items()}

    def _record(self, name: str) -> tuple[str, str, Mapping[str, Any]]:
        """Fingerprint and making of a finished stage, and which makings it read; else empty."""
        file = self.folder / name / records.RECORD
        mark = _mark(file)
        if mark is None:
            return "", "", {}
        known = self._records.get(name)
        if known is None or known[0] != mark:
            found = parsed(file)
            made = str(found.get("made") or found.get("started", ""))
            needs = found.get("needs")
            known = self._records[name] = (
                mark, str(found.get("fingerprint", "")), made,
                needs if isinstance(needs, dict) else {},
            )  # fmt: skip
        return known[1:]


def parsed(file: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is none, or none that is whole."""
    try:
        found = sealed.parse(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def rows(file: Path) -> list[dict[str, Any]]:
    """The whole lines of a file that is being written, as objects; others are passed over."""
    try:
        whole = file.read_bytes().split(b"\n")[:-1]
    except OSError:
        return []
    found = []
    for line in whole:
        with suppress(ValueError, RecursionError):
            found.append(sealed.parse(line))
    return [one for one in found if isinstance(one, dict)]


def training_folder(folder: Path, stage: str, look: Look) -> Path:
    """Where a training's files are: its final folder, or where it is at work.

    While it is made again, the final folder still holds what is to be replaced.
    """
    return folder / (stage if stage in look.done else f"{stage}.tmp")


def _mark(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _lives(pid: int, told: Mapping[str, Any]) -> bool:
    """Whether the process at work is there; of another machine's only what it says is known."""
    if told.get("host", host()) != host():
        return time.time() - float(told.get("at", 0.0)) < FRESH_S
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError, ValueError):
        return True
    return True
