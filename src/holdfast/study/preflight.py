"""Checks everything that can fail before a model is asked, when a study has still cost nothing.

`check` runs before anything is written, whenever there is work left to do, and loads no weights:
models are built from their configuration on torch's meta device. What it changes or finds that
whoever reads the figures must know comes back as notices; they are printed, and kept in the run
folder for the report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from holdfast import models
from holdfast.errors import HoldfastError
from holdfast.models import attention
from holdfast.runs import store
from holdfast.runs.plan import NOTICES
from holdfast.study.session import Session
from holdfast.train.adapters import check_model
from holdfast.train.arguments import check_settings

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


def write_notices(folder: Path, notices: Sequence[str]) -> None:
    """Keep notices in a run folder."""
    store.write_json(folder / NOTICES, {"notices": list(notices)})


def _training(session: Session) -> list[str]:
    """The trainer takes every arm's settings, and the model the adapters that they ask for."""
    for name, arm in session.arms.items():
        if arm.variant.trains:
            with _in_arm(name):
                check_settings(arm.variant.train, session.study.hardware.device, session.plan.steps)
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


def _attention(session: Session) -> list[str]:
    """The model takes the attention and the scaling of positions that the study asks for."""
    attention.check(session.plan.model, models.pick_device(session.study.hardware.device))
    return []


CHECKS: tuple[Check, ...] = (_attention, _training)
