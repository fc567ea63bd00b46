"""Every error that a user can cause, with what to do about it.

A message says what was wrong, where, and what to do next; `holdfast.cli` prints it without a
traceback and exits with its `exit_code`::

    HoldfastError                 exit 1: failed while running
    ├── UsageError                exit 3: wrong usage; nothing was written
    │   ├── StudyError            the study file: unknown key, wrong type, impossible combination
    │   ├── DataError             a data file: missing, malformed line, missing column, empty
    │   ├── ModelError            a model folder: no config, tokenizer, chat template, safetensors
    │   │   └── Unreachable       a model on the hub, and no way to it from here now
    │   ├── FolderError           a run folder: unwritable, locked, of another version
    │   │   └── Damaged           a file of it that is not as it was written
    │   ├── LeakError             training data that contains evaluation prompts
    │   └── DriftError            a study that changed under a run folder, with the field diff
    ├── MissingDependency         exit 3: an optional package, and the command that installs it
    ├── DoesNotFit                exit 2: no plan fits the GPUs; names what would
    ├── TrainingError             a run that would train on nothing, or never learn to stop
    ├── EndpointError             a server that is down, slow, busy, or says what cannot be used
    ├── WorkerLost                a process, node or job that made stages died too often
    ├── OutOfMemory               memory ran out and nothing in this process can be made smaller
    └── Interrupted               Ctrl-C, with the command that continues

To add one: subclass the nearest parent, give it a docstring that says when it is raised, draw it
above, and make sure that its message names the remedy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

SPACES = frozenset(
    "\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
)
"""Spaces of text in many languages; they are seen as spaces and do nothing."""

Phase = Literal["load", "forward", "backward", "step", "save", "answer"]
"""What a run does when its memory runs out."""

Fault = Literal[
    "down", "slow", "busy", "broken", "key", "quota",
    "unknown", "garbled", "other", "refused", "cap",
]  # fmt: skip
"""What a server does: `unknown` is the model that was asked for, `other` the model that answered,
`refused` a question that it will not take, `cap` the user's own limit."""

RELATIVE = (
    "a relative path is taken from the study file's folder, on the command line and in key=value "
    "from the working folder"
)
"""Ends the remedy for a file that is not there."""


LONGEST = 6000
"""Characters of each part of a message: names and values of a stranger may have megabytes."""


class HoldfastError(Exception):
    """The root: something failed while running.

    Attributes:
        exit_code: of the command that it ends; see `begun`.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str = "", remedy: str = "") -> None:
        """Say what was wrong, where it was, and what to do about it."""
        self.message, self.where, self.remedy = message, where, remedy
        super().__init__(message, where, remedy)

    def __str__(self) -> str:
        """One line each for place and problem, and for the remedy."""
        message = _cut(self.message)
        head = f"{_cut(self.where)}: {message}" if self.where else message
        return printable(f"{head}\n  → {_cut(self.remedy)}" if self.remedy else head, keep="\n")


def _cut(text: str) -> str:
    """A text that a screen holds: of what is longer its beginning and its end."""
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]} [...] {text[-half:]}"


def printable(text: str, keep: str = "") -> str:
    """A text without what a terminal would obey: control and direction marks become escapes.

    The one door for whatever is printed (`holdfast.cli.front`, `holdfast.progress`), and for
    texts of others inside a message. Spaces of every width stay, as text has them.

    Args:
        text: of anywhere: keys of a file, names, what a library said.
        keep: characters that stay as they are.
    """
    if text.isprintable():
        return text
    kept = frozenset(keep) | SPACES
    return "".join(one if one.isprintable() or one in kept else ascii(one)[1:-1] for one in text)


def first_line(error: BaseException) -> str:
    """What an error of somebody else's says, in one line; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def printable_json(value: object) -> str:
    """A value as one line of JSON that a terminal does not obey either; equal when read again."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one in SPACES else json.dumps(one)[1:-1] for one in text
    )


@contextmanager
def located(where: str) -> Iterator[None]:
    """Give errors from inside a place of the study, where they name none of their own."""
    try:
        yield
    except HoldfastError as error:
        if error.where:
            raise
        error.where = where
        raise


@contextmanager
def begun() -> Iterator[None]:
    """Once a run has begun, whatever stops it is a failure of the run and no wrong usage."""
    try:
        yield
    except HoldfastError as error:
        if error.exit_code == UsageError.exit_code:
            error.exit_code = HoldfastError.exit_code
        raise


class UsageError(HoldfastError):
    """The request itself was wrong; nothing was started and nothing was written."""

    exit_code = 3


class StudyError(UsageError, ValueError):
    """A study file with an unknown key, a wrong type or an impossible combination."""


class DataError(UsageError, ValueError):
    """A data file that is missing, malformed, without the needed column, or empty."""


class ModelError(UsageError, ValueError):
    """A model that cannot be used as it is: files missing, no chat template, unsafe weights."""


class Unreachable(ModelError):
    """A model on the hub that is not in the cache, and no connection, or none that is allowed."""


class FolderError(UsageError, OSError):
    """A run folder that cannot be written, is in use, or was made by another version."""


class Damaged(FolderError):
    """A file of a run that is torn, changed, missing or added; the remedy makes its stage again."""


class LeakError(UsageError, ValueError):
    """Training examples that contain prompts of an evaluation set."""


class DriftError(UsageError, ValueError):
    """A run folder whose finished stages were made by a different study."""


class MissingDependency(HoldfastError, ImportError):
    """An optional package is not installed."""

    exit_code = 3


class DoesNotFit(HoldfastError):
    """No way of placing the training fits the GPUs; the remedy names what would."""

    exit_code = 2


class TrainingError(HoldfastError, RuntimeError):
    """Training that would be wasted: no trained token, no end-of-turn token, a loss that is NaN."""


class EndpointError(HoldfastError):
    """A server could not be asked, or its answer cannot be used; what it answered is kept.

    Attributes:
        fault: what kind of fault, in a word.
    """

    def __init__(self, message: str, *, fault: Fault, where: str = "", remedy: str = "") -> None:
        """Say what the server did, which server it was, and what to do about it."""
        self.fault = fault
        super().__init__(message, where=where, remedy=remedy)

    @property
    def passes(self) -> bool:
        """Whether it may have passed some hours later, without a change of the study."""
        return self.fault in ("down", "slow", "busy", "broken", "quota", "cap")


class OutOfMemory(HoldfastError, MemoryError):
    """Memory ran out where the work cannot be made smaller; a fresh process may do better.

    Attributes:
        phase: what was being done when it ran out.
    """

    def __init__(self, message: str, *, phase: Phase, where: str = "", remedy: str = "") -> None:
        """Say what did not fit, while doing what, and what to do about it."""
        self.phase = phase
        super().__init__(message, where=where, remedy=remedy)


class WorkerLost(HoldfastError):
    """What made a stage (a process, a node, a job) died more often than it is begun again."""


class Interrupted(HoldfastError):
    """The user stopped the run; what was finished is kept."""


def as_json(error: HoldfastError) -> dict[str, object]:
    """An error as JSON values, for another process."""
    kept = ("message", "where", "remedy", "exit_code", "phase", "fault")
    about = {name: getattr(error, name) for name in kept if hasattr(error, name)}
    return {"type": type(error).__name__, **about}


def from_json(said: Mapping[str, Any]) -> HoldfastError:
    """The error of `as_json`; the plain one where it was of a kind that there is not."""
    kind = globals().get(str(said.get("type")), HoldfastError)
    if not (isinstance(kind, type) and issubclass(kind, HoldfastError)):
        kind = HoldfastError
    more = {name: said[name] for name in ("phase", "fault") if name in said}
    where, remedy = str(said.get("where", "")), str(said.get("remedy", ""))
    found: HoldfastError = kind(str(said.get("message")), where=where, remedy=remedy, **more)
    found.exit_code = int(said.get("exit_code", found.exit_code))
    return found
