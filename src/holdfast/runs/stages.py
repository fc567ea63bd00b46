"""Runs the stages of a plan in order, skips what is done, and continues after a crash.

A `Stage` is a value: a name (which is also its folder and its selector), the values that bear its
identity, and a function that fills a folder. Identity covers *what* is computed; where and how fast
it runs (paths, device, batch size of answering) is not in it. A stage whose ``record.json`` bears
the same fingerprint is skipped; a different one stops the run with a field diff. Output goes to
``NAME.tmp``, the record with size and digest of every file is written last, then one rename makes
it final. A finished stage whose files are not those of its record stops the run as well.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from holdfast.errors import Damaged, DriftError, EndpointError, HoldfastError, UsageError, begun
from holdfast.progress import Clocked, Progress
from holdfast.runs import records, sealed, store, temporary
from holdfast.runs.full_disk import explained_disk

SPELLED = 6
"""Stages that a remedy names one by one."""
PARTS = "parts"
"""Folders of a stage that only serve to go on with it; gone when it is finished."""
Run = Callable[[Path, Progress], Mapping[str, object] | None]


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """A stage as data: what it is called, what it computes, and which stages it reads.

    Attributes:
        name: see `Stage`, as are the others.
        identity: JSON values.
        needs: names of the stages whose output it reads.
        asks: what a model is asked, by formula; None where that is no question of the budget.
    """

    name: str
    identity: Mapping[str, object]
    needs: tuple[str, ...] = ()
    asks: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Stage:
    """One unit of work.

    Attributes:
        name: unique; the folder below the run folder, and what ``--only`` selects.
        identity: JSON values; equal identity (and equal needs) means equal results.
        run: fills the folder it is given, reports progress, returns a summary for the record.
        needs: names of the stages whose output it reads.
        resumable: keep a half-done ``.tmp`` folder of the same identity and continue in it.
        asks: what a model is asked, see `holdfast.methods.SharedWork`.
        absent: of a stage that a server is needed for: says why it cannot be made yet, "" where it
            can. Such a stage is put off until all else is done rather than end the run.
    """

    name: str
    identity: Mapping[str, object]
    run: Run
    needs: tuple[str, ...] = ()
    resumable: bool = False
    asks: Mapping[str, int] | None = None
    absent: Callable[[], str] | None = None

    @property
    def planned(self) -> PlannedStage:
        """The stage without its code."""
        return PlannedStage(self.name, self.identity, self.needs, self.asks)


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the schedule: a stage, and whether it is done or has to run.

    Attributes:
        stage: what is to be done.
        fingerprint: of it and its needs.
        done: it is.
        checked: its files were compared with its record; False where an older version made it.
    """

    stage: PlannedStage
    fingerprint: str
    done: bool
    checked: bool = True


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
        Damaged: files of finished stages are not those of their records.
        UsageError: `only` or `rebuild` match nothing.
    """
    names = [stage.name for stage in stages]
    if len(set(names)) != len(names):
        raise ValueError("two stages of one name")
    for glob in (only, *rebuild):
        if not any(fnmatchcase(name, glob) for name in names):
            raise UsageError(f"no stage matches {glob!r}", remedy="see the names with `--dry-run`")
    marks = fingerprints(stages)
    again = {name for name in names if any(fnmatchcase(name, glob) for glob in rebuild)}
    found = {name: None if name in again else read_record(folder / name) for name in names}
    wanted: set[str] = set()
    for stage in reversed(stages):
        if fnmatchcase(stage.name, only) or stage.name in wanted:
            wanted |= {stage.name, *stage.needs}
    steps: list[Step] = []
    drifted: list[str] = []
    changed: list[str] = []
    damaged: dict[str, list[str]] = {}
    undone: set[str] = set()
    for stage in stages:
        record = found[stage.name]
        done = record is not None and not undone.intersection(stage.needs)
        if record is not None and done:
            if record["fingerprint"] != marks[stage.name]:
                done = False
                diff = store.field_diff(record["identity"], store.canonical(stage.identity))
                if diff and stage.name in wanted:
                    changed.append(stage.name)
                    drifted += [stage.name, *(f"    {line}" for line in diff)]
            else:
                done = record["needs"] == _made(stage, found)
            if done and (lines := records.differences(folder / stage.name, record)):
                damaged[stage.name] = [stage.name, *(f"    {line}" for line in lines)]
        if not done:
            undone.add(stage.name)
        if stage.name in wanted:
            checked = not done or "files" in (record or {})
            steps.append(Step(stage, marks[stage.name], done, checked))
    if drifted:
        raise DriftError(
            "the study has changed since these stages were made:\n  " + "\n  ".join(drifted[:40]),
            where=str(folder),
            remedy="give the changed study another `name` (of a comparison: --name), or make them "
            f"again with {_rebuild(changed)}",
        )
    if damaged:
        lines = [line for some in damaged.values() for line in some]
        raise Damaged(
            "files of finished stages are not as they were written:\n  " + "\n  ".join(lines[:40]),
            where=str(folder),
            remedy=f"move aside what you added yourself, or make these stages again with "
            f"{_rebuild([*damaged])}",
        )
    return steps


def unchecked(steps: Sequence[Step]) -> list[str]:
    """What to say of finished stages whose records hold no digests; nothing where all do."""
    old = [step.stage.name for step in steps if not step.checked]
    if not old:
        return []
    return [
        f"the files of {len(old)} finished stages are not checked: they were made by an older "
        f"version, which kept no digests (the first is {old[0]})"
    ]


def _rebuild(names: Sequence[str]) -> str:
    """What to add to the command so that these stages are made again, and no others."""
    if len(names) > SPELLED:
        return f"--rebuild '{names[0]}' and so on (globs, such as '{names[0].split('/')[0]}/*')"
    return " ".join(f"--rebuild '{name}'" for name in names)


def forget(stages: Sequence[PlannedStage], folder: Path, rebuild: Sequence[str]) -> None:
    """Set the records of the stages to be rebuilt aside, so that an interrupted rebuild goes on.

    What was begun of them goes: they are made from the beginning. The records may be torn.
    """
    for stage in stages:
        if not any(fnmatchcase(stage.name, glob) for glob in rebuild):
            continue
        record, begun_on = folder / stage.name / store.RECORD, work_folder(folder / stage.name)
        if os.path.lexists(begun_on):
            temporary.remove_tree(begun_on)
        if os.path.lexists(record):
            os.replace(record, record.with_suffix(".forgotten.json"))


def execute(
    steps: Sequence[Step],
    stages: Sequence[Stage],
    folder: Path,
    progress: Progress,
    expected: Mapping[str, float] | None = None,
) -> None:
    """Run what is not done, in order.

    What a server is needed for that is not there, or fails, comes last, with all that reads it.

    Args:
        steps: the schedule.
        stages: the stages with their code, among them all of the schedule.
        folder: the run folder.
        progress: follows it.
        expected: seconds that stages may take, as far as that is known.
    """
    code = {stage.name: stage for stage in stages}
    late: dict[str, Step] = {}
    failed = ""
    for step in announce(steps, folder, progress, expected):
        name, absent = step.stage.name, code[step.stage.name].absent
        why = (failed or absent()) if absent else ""
        if not (why or late.keys() & set(step.stage.needs)):
            try:
                _enter(step, code[name], folder, progress)
                continue
            except EndpointError as error:
                if not (absent and error.passes):
                    raise
                why = failed = error.message
        if why and not late:
            progress.say(f"{name}: {why}; it is put off until all else is done")
        late[name] = step
    for name, step in late.items():
        _enter(step, code[name], folder, progress)


def _enter(step: Step, stage: Stage, folder: Path, progress: Progress) -> None:
    progress.enter(stage.name)
    make(step, stage, folder, progress)
    progress.leave(stage.name)


def announce(
    steps: Sequence[Step],
    folder: Path,
    progress: Progress,
    expected: Mapping[str, float] | None = None,
) -> list[Step]:
    """Tell of a schedule, and clear what nobody asks for any more; returns what has to run."""
    waiting = [step for step in steps if not step.done]
    for step in steps:
        if step.done and (left := work_folder(folder / step.stage.name)).exists():
            temporary.remove_tree(left)  # of another identity
    told = expected or {}
    progress.begin(len(steps), len(steps) - len(waiting))
    progress.expect(
        {step.stage.name: told.get(step.stage.name) for step in waiting},
        {step.stage.name: _took(folder / step.stage.name) for step in steps if step.done},
    )
    return waiting


def make(step: Step, stage: Stage, folder: Path, progress: Progress) -> None:
    """Make one stage, or go on with it; the same whoever does it, in whatever order."""
    with begun(), explained_disk(folder / stage.name):
        _run(step, stage, folder, progress)


def _took(folder: Path) -> float:
    """Seconds of a finished stage."""
    with suppress(HoldfastError):
        return _seconds(read_record(folder) or {})
    return 0.0


def work_folder(final: Path) -> Path:
    """Where a stage is made."""
    return final.with_name(final.name + ".tmp")


def _run(step: Step, stage: Stage, folder: Path, progress: Progress) -> None:
    final = folder / stage.name
    work = work_folder(final)
    needs = _made(step.stage, {need: read_record(folder / need) for need in stage.needs})
    claim = {"fingerprint": step.fingerprint, "needs": needs}
    if not _is_made(work, claim):  # else it died just before the rename
        marker, again = work / records.CLAIM, f"start it again with --rebuild '{stage.name}'"
        resumed = stage.resumable and os.path.lexists(marker)
        before = sealed.read(marker, again) if resumed else {}
        if claim.items() <= before.items():
            clock = Clocked(progress, _seconds(before), int(before.get("sittings", 1)) + 1)
        else:
            if os.path.lexists(work):
                temporary.remove_tree(work)
            clock = Clocked(progress)
        work.mkdir(parents=True, exist_ok=True)

        def keep() -> None:
            store.write_sealed(
                marker, {**claim, "seconds": clock.seconds, "sittings": clock.sittings}
            )

        keep()
        started = time.gmtime()
        clock.keep = keep
        try:
            summary = stage.run(work, clock)
        except BaseException:
            with suppress(OSError):  # a full disk, for one
                keep()
            raise
        for parts in [one for one in work.rglob(PARTS) if one.is_dir()]:
            shutil.rmtree(parts, ignore_errors=True)
        temporary.clear(work)
        store.write_sealed(
            work / store.RECORD,
            {
                "name": stage.name,
                "made": uuid.uuid4().hex[:12],
                "fingerprint": step.fingerprint,
                "identity": stage.identity,
                "needs": needs,
                "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", started),
                "seconds": round(clock.seconds, 3),
                "sittings": clock.sittings,
                "summary": summary or {},
                "files": records.files_of(work),
            },
        )
    (work / records.CLAIM).unlink(missing_ok=True)
    if os.path.lexists(final):
        temporary.remove_tree(final)
    os.replace(work, final)
    temporary.settle(final.parent)


def _is_made(work: Path, claim: Mapping[str, object]) -> bool:
    """Whether all of a stage is there, under another name yet."""
    try:
        record = read_record(work)
    except Damaged:
        return False
    if record is None or not claim.items() <= record.items():
        return False
    return not records.differences(work, record)


def _seconds(claim: Mapping[str, object]) -> float:
    found = claim.get("seconds", 0.0)
    return float(found) if isinstance(found, int | float) else 0.0


read_record = records.read


@contextmanager
def renewed(folder: Path) -> Iterator[None]:
    """Let the files of a finished stage be written again; until they are it is not finished.

    Raises:
        Damaged: its record is torn.
    """
    record = read_record(folder)
    (folder / store.RECORD).unlink(missing_ok=True)
    yield
    if record is not None:
        store.write_sealed(folder / store.RECORD, {**record, "files": records.files_of(folder)})


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
