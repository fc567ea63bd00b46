"""Checks everything that can fail before a model is asked, when a study has still cost nothing.

`check` runs before anything is written, whenever there is work left to do, and loads no weights:
models are built from their configuration on torch's meta device. What it changes or finds that
whoever reads the figures must know comes back as notices; they are printed, and kept in the run
folder for the report.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import HoldfastError, Unreachable
from holdfast.runs import store
from holdfast.runs.plan import NOTICES
from holdfast.runs.stages import Step
from holdfast.study import readiness
from holdfast.study.session import Session
from holdfast.train.adapters import check_model
from holdfast.train.arguments import check_settings

CHECKED = (
    "models reachable, packages, disk space, weights and tokenizers whole, judges, settings, "
    "adapters"
)
"""What `CHECKS` look at, in words."""
NEEDED = ("torch", "transformers", "peft")
"""Without these no model can be looked at."""
Check = Callable[[Session], Sequence[str]]
"""Raises what would fail later; returns notices."""


def check(session: Session) -> list[str]:
    """Refuse a study that would fail once money is spent.

    Args:
        session: prepared; nothing of it has run.

    Returns:
        Notices, in sentences.

    Raises:
        HoldfastError: what would fail, where, and what to do about it.
    """
    return list(dict.fromkeys(notice for one in CHECKS for notice in one(session)))


@dataclass(frozen=True, slots=True)
class Looked:
    """What a dry run looked at.

    Attributes:
        checked: whether models were looked at.
        notices: what whoever reads the figures must know, in sentences.
        lines: both in words.
    """

    checked: bool
    notices: list[str]
    lines: list[str]


def looked_at(session: Session, steps: Sequence[Step]) -> Looked:
    """Check a study as `check` does, as far as that is possible here; for a dry run.

    A model that only another machine may reach is said, and no mistake of the study.

    Args:
        session: prepared.
        steps: its schedule; where all is done nothing is looked at.

    Raises:
        HoldfastError: see `check`.
    """
    notices = list(session.plan.notices)
    if all(step.done for step in steps):
        return Looked(False, notices, notices)
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if absent and next(readiness.loaded(session), None) is not None:
        said = f"Not checked, because {absent[0]} is not installed: {CHECKED}."
        return Looked(False, notices, [*notices, said])
    try:
        notices += check(session)
    except Unreachable as error:  # another machine may reach it
        return Looked(False, notices, [*notices, f"Not checked: {error}"])
    return Looked(True, notices, [*notices, f"Checked: {CHECKED}."])


def write_notices(folder: Path, notices: Sequence[str]) -> None:
    """Keep notices in a run folder."""
    store.write_json(folder / NOTICES, {"notices": list(notices)})


def _training(session: Session) -> list[str]:
    """The trainer takes every arm's settings, and the model the adapters that they ask for."""
    for name, arm in session.arms.items():
        if arm.variant.trains:
            with _in_arm(name):
                check_settings(arm.variant.train, session.study.hardware.device)
                if session.study.train.method != "full":
                    check_model(session.plan.model, arm.variant.train)
    return []


@contextmanager
def _in_arm(name: str) -> Iterator[None]:
    """Say which arm's settings are meant."""
    try:
        yield
    except HoldfastError as error:
        error.where = f"arms.{name}: {error.where}" if error.where else f"arms.{name}"
        raise


CHECKS: tuple[Check, ...] = (
    readiness.reachable,
    readiness.packages,
    readiness.room,
    readiness.whole,
    readiness.judges,
    _training,
)
"""In this order, the cheapest first."""
