"""Runs the stages of a plan in order, skips what is done, and continues after a crash.

A `Stage` is a value: a name (which is also its folder and its selector), the values that bear its
identity, and a function that fills a folder. Identity covers *what* is computed; where and how fast
it runs (paths, device, batch size of answering) is not in it. A stage whose ``record.json`` bears
the same fingerprint is skipped; a different one stops the run with a field diff. Output goes to
``NAME.tmp``, the record is written last, then one rename makes it final.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from holdfast.runs import store
from holdfast.errors import DriftError, HoldfastError, UsageError
from holdfast.progress import Progress

SPELLED = 6
"""Stages that a remedy names one by one."""
NEARLY_NOTHING_BYTES = 1 << 20
FULL = ("No space left on device", "os error 28", "Disk quota exceeded", "os error 122")
"""How libraries that are not written in Python tell of a full disk."""
Run = Callable[[Path, Progress], Mapping[str, object] | None]


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """A stage as data: what it is called, what it computes, and which stages it reads.

    Attributes:
        name: see `Stage`, as are the others.
        identity: JSON values.
        needs: names of the stages whose output it reads.
    """

    name: str
    identity: Mapping[str, object]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stage:
    """One unit of work.

    Attributes:
        name: unique; the folder below the run folder, and what ``--only`` selects.
        identity: JSON values; equal identity (and equal needs) means equal results.
        run: fills the folder it is given, reports progress, returns a summary for the record.
        needs: names of the stages whose output it reads.
        resumable: keep a half-done ``.tmp`` folder of the same identity and continue in it.
    """

    name: str
    identity: Mapping[str, object]
    run: Run
    needs: tuple[str, ...] = ()
    resumable: bool = False

    @property
    def planned(self) -> PlannedStage:
        """The stage without its code."""
        return PlannedStage(self.name, self.identity, self.needs)


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the schedule: a stage, and whether it is done or has to run."""

    stage: PlannedStage
    fingerprint: str
    done: bool


def schedule(
    stages: Sequence[PlannedStage], folder: Path, only: str = "*", rebuild: Sequence[str] = ()
) -> list[Step]:
    """Decide for every stage whether it runs; touches nothing.

    Args:
        stages: in an order in which needs come first.
        folder: the run folder; need not exist.
        only: run the stages that match this glob, and what they need.
        rebuild: globs of stages to make again, whether or not they differ.

    Raises:
        DriftError: finished stages differ from what the study asks for now.
        UsageError: `only` or `rebuild` match nothing.
    """
    names = [stage.name for stage in stages]
    if len(set(names)) != len(names):
        raise ValueError("two stages of one name")
    for glob in (only, *rebuild):
        if not any(fnmatchcase(name, glob) for name in names):
            raise UsageError(f"no stage matches {glob!r}", remedy="see the names with `--dry-run`")
    marks = fingerprints(stages)
    records = {name: read_record(folder / name) for name in names}
    wanted: set[str] = set()
    for stage in reversed(stages):
        if fnmatchcase(stage.name, only) or stage.name in wanted:
            wanted |= {stage.name, *stage.needs}
    steps: list[Step] = []
    drifted: list[str] = []
    changed: list[str] = []
    undone: set[str] = set()
    for stage in stages:
        record = records[stage.name]
        forgotten = any(fnmatchcase(stage.name, glob) for glob in rebuild)
        done = record is not None and not forgotten and not undone.intersection(stage.needs)
        if record is not None and done:
            if record["fingerprint"] != marks[stage.name]:
                done = False
                diff = store.field_diff(record["identity"], store.canonical(stage.identity))
                if diff and stage.name in wanted:
                    changed.append(stage.name)
                    drifted += [stage.name, *(f"    {line}" for line in diff)]
            else:
                done = record["needs"] == _made(stage, records)
        if not done:
            undone.add(stage.name)
        if stage.name in wanted:
            steps.append(Step(stage, marks[stage.name], done))
    if drifted:
        raise DriftError(
            "the study has changed since these stages were made:\n  " + "\n  ".join(drifted[:40]),
            where=str(folder),
            remedy="give the changed study another `name` (of a comparison: --name), or make them "
            f"again with {_rebuild(changed)}",
        )
    return steps


def _rebuild(names: Sequence[str]) -> str:
    """What to add to the command so that these stages are made again, and no others."""
    if len(names) > SPELLED:
        return f"--rebuild '{names[0]}' and so on (globs, such as '{names[0].split('/')[0]}/*')"
    return " ".join(f"--rebuild '{name}'" for name in names)


def forget(stages: Sequence[PlannedStage], folder: Path, rebuild: Sequence[str]) -> None:
    """Set the records of the stages to be rebuilt aside, so that an interrupted rebuild goes on."""
    for stage in stages:
        record = folder / stage.name / store.RECORD
        if record.is_file() and any(fnmatchcase(stage.name, glob) for glob in rebuild):
            os.replace(record, record.with_suffix(".forgotten.json"))


def execute(
    steps: Sequence[Step], stages: Sequence[Stage], folder: Path, progress: Progress
) -> None:
    """Run what is not done, in order.

    Args:
        steps: the schedule.
        stages: the stages with their code, among them all of the schedule.
        folder: the run folder.
        progress: follows it.
    """
    code = {stage.name: stage for stage in stages}
    waiting = [step for step in steps if not step.done]
    progress.begin(len(steps), len(steps) - len(waiting))
    for step in waiting:
        progress.enter(step.stage.name)
        try:
            _run(step, code[step.stage.name], folder, progress)
        except Exception as error:  # torch, tokenizers and safetensors have their own for this
            if isinstance(error, HoldfastError) or not _disk_full(error, folder):
                raise
            raise HoldfastError(
                "the disk is full; everything finished is kept",
                where=str(folder / step.stage.name),
                remedy="make room and run the same command again: it continues from here",
            ) from error
        progress.leave(step.stage.name)


def _disk_full(error: Exception, folder: Path) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    if any(words in str(error) for words in FULL):
        return True
    if not isinstance(error, OSError | RuntimeError):
        return False
    return shutil.disk_usage(folder).free < NEARLY_NOTHING_BYTES


def _run(step: Step, stage: Stage, folder: Path, progress: Progress) -> None:
    final = folder / stage.name
    work = final.with_name(final.name + ".tmp")
    needs = _made(step.stage, {need: read_record(folder / need) for need in stage.needs})
    claim = {"fingerprint": step.fingerprint, "needs": needs}
    marker = work / "claim.json"
    claimed = marker.exists() and store.read_json(marker) == claim
    if not (claimed and (work / store.RECORD).exists()):  # else it died just before the rename
        if work.exists() and not (claimed and stage.resumable):
            shutil.rmtree(work)
        work.mkdir(parents=True, exist_ok=True)
        store.write_json(marker, claim)
        started = time.time()
        summary = stage.run(work, progress)
        store.write_json(
            work / store.RECORD,
            {
                "name": stage.name,
                "made": uuid.uuid4().hex[:12],
                "fingerprint": step.fingerprint,
                "identity": stage.identity,
                "needs": needs,
                "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
                "seconds": round(time.time() - started, 3),
                "summary": summary or {},
            },
        )
    if final.exists():
        shutil.rmtree(final)
    os.replace(work, final)
    (final / "claim.json").unlink()


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of a finished stage, or None."""
    path = folder / store.RECORD
    return store.read_json(path) if path.is_file() else None


def _made(
    stage: PlannedStage, records: Mapping[str, Mapping[str, Any] | None]
) -> dict[str, str | None]:
    """Which making of each need a stage reads: the mark that its record got when it was made."""
    return {need: (records[need] or {}).get("made") for need in stage.needs}


def fingerprints(stages: Sequence[PlannedStage]) -> dict[str, str]:
    """The fingerprint of every stage by name: a hash of its identity and of its needs' own.

    Args:
        stages: needs first.
    """
    marks: dict[str, str] = {}
    for stage in stages:
        missing = [need for need in stage.needs if need not in marks]
        if missing:
            raise ValueError(f"{stage.name} needs {missing}, which do not come before it")
        needs = {need: marks[need] for need in stage.needs}
        marks[stage.name] = store.fingerprint({"identity": stage.identity, "needs": needs})
    return marks
