"""Sends to a tracker what it lacks, and notes in ``tracking/`` of the run folder what has arrived.

While a study runs `holdfast.report.trackers.follower` does it again and again; `holdfast track`
does it once.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.config import consent
from holdfast.errors import FolderError, HoldfastError, UsageError, first_line, printable
from holdfast.report.trackers import (
    FOLDER,
    SECRET,
    TrackedRun,
    Tracker,
    build,
    named,
    ready,
    runs_of,
)
from holdfast.report.trackers.content import STUDY, Batch, Sent, batches, renew
from holdfast.runs import live, store
from holdfast.runs.live import Watched


@dataclass
class Sending:
    """One tracker's way through a study.

    Attributes:
        tracker: where it goes.
        watched: the run folder.
        file: notes what has arrived.
        mark: of this sending; runs are named by it.
        sent: see `content.Sent`.
    """

    tracker: Tracker
    watched: Watched
    file: Path
    mark: str
    sent: Sent
    _started: dict[str, TrackedRun] = field(default_factory=dict)

    def once(self) -> int:
        """Send everything that is new; returns how many batches that were.

        Raises:
            Exception: whatever the tracker raises; what had arrived before is noted.
        """
        plan, look, count = self.watched.plan, self.watched.look(), 0
        for key in renew(plan, look, self.sent):
            if (replaced := self._started.pop(key, None)) is not None:
                self.tracker.finish(replaced, False)
        runs = runs_of(plan, self.mark, self.sent)
        self._run(runs[STUDY])
        for batch in batches(plan, look, self.sent):
            self.tracker.send(self._run(runs[batch.run]), batch)
            self._note(batch)
            count += 1
        return count

    def _run(self, run: TrackedRun) -> TrackedRun:
        if run.key not in self._started:
            self.tracker.start(run)
            self._started[run.key] = run
        return run

    def _note(self, batch: Batch) -> None:
        self.sent |= batch.sent
        store.write_json(self.file, {"mark": self.mark, "sent": self.sent})

    def finish(self) -> None:
        """Close every run; of the study last."""
        look = self.watched.look()  # the study may not have let go of its folder yet
        done = not look.working and not look.left
        for run in sorted(self._started.values(), key=lambda one: one.key == STUDY):
            self.tracker.finish(run, done)


def open_sending(tracker: Tracker, folder: Path, again: bool = False) -> Sending:
    """Go on sending where an earlier one ended.

    Args:
        tracker: where to.
        folder: the run folder.
        again: begin anew, in new runs.
    """
    settings = {} if tracker.options is None else tracker.options.model_dump(mode="json")
    mark = store.fingerprint([tracker.plugin, tracker.destination(), settings])[:8]
    file = folder / FOLDER / f"{tracker.folder.name}-{mark}.json"
    known = {} if again else live.parsed(file)
    sent = known.get("sent")
    return Sending(
        tracker,
        Watched(folder),
        file,
        str(known.get("mark") or secrets.token_hex(6)),
        dict(sent) if isinstance(sent, dict) else {},
    )


def send_run(
    folder: Path, to: str | None = None, settings: Sequence[str] = (), again: bool = False
) -> dict[str, int]:
    """Send what a run folder holds and its trackers lack; how many batches each got.

    Args:
        folder: the run folder, of a finished run or of one that is under way.
        to: the tracker; None: those that the study names.
        settings: ``key=value``, which win over what the study says of that tracker.
        again: send everything anew, in new runs.

    Raises:
        UsageError: no tracker is named, or settings without one; or the run folder, which may be
            somebody else's, says of one where to send, and nobody here has consented to that
            (`config.consent`).
        HoldfastError: a tracker cannot be, or what it raised.
    """
    study = Watched(folder).plan.study
    own = named(study.track)
    if to is None and (settings or not own):
        what = "settings, but no tracker" if settings else "no tracker, and neither does its study"
        raise UsageError(f"the command names {what}", remedy="add --to, e.g. --to tensorboard")
    given = _settings(settings)
    taken = own
    if to is not None:  # its code is the command's, and of its settings those that it leaves open
        left = {key: value for key, value in own.get(to, {}).items() if key not in given}
        taken = {to: left} if left else {}
    consent.check_tracking(taken, folder / "study.yaml")
    chosen = own if to is None else {to: {**own.get(to, {}), **given}}
    return {name: _send(name, options, folder, again) for name, options in chosen.items()}


def _settings(given: Sequence[str]) -> dict[str, object]:
    pairs = [one.partition("=") for one in given]
    if wrong := next((key + rest for key, equals, rest in pairs if not (key and equals)), None):
        raise UsageError(f"{wrong!r} is no setting", remedy="write key=value: experiment=mine")
    return {key: value for key, _, value in pairs}


def _send(name: str, options: Mapping[str, object], folder: Path, again: bool) -> int:
    tracker = ready(build(name, options, folder, "track"))
    with alone(tracker, folder), redirect_stdout(sys.stderr):
        sending = open_sending(tracker, folder, again)
        try:
            count = sending.once()
            sending.finish()
        except HoldfastError:
            raise
        except Exception as error:
            raise HoldfastError(
                f"{tracker.plugin} failed: {said(error)}",
                where=SECRET.sub("", tracker.destination()),
                remedy="what had arrived is noted; the same command sends the rest",
            ) from error
    return count


@contextmanager
def alone(tracker: Tracker, folder: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Send to one place from one process at a time.

    Args:
        tracker: where to.
        folder: the run folder.
        wait_s: so long another process is waited for; below 0: as long as it takes.

    Raises:
        FolderError: another one does.
    """
    from filelock import FileLock, Timeout

    place = folder / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    guard = FileLock(place / f".{tracker.folder.name}.lock")
    try:
        guard.acquire(timeout=wait_s, poll_interval=0.5)
    except Timeout as error:
        raise FolderError(
            f"{tracker.plugin} is being sent to by another process",
            where=str(folder),
            remedy="wait for the study: it sends by itself what there is",
        ) from error
    try:
        yield
    finally:
        guard.release()


def said(error: BaseException) -> str:
    """What went wrong in one line, without what an address may hold of secrets."""
    return printable(SECRET.sub("", f"{type(error).__name__}: {first_line(error)}")[:300])
