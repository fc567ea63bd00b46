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
from pathlib import Path

from holdfast.errors import HoldfastError
from holdfast.runs import store
from holdfast.runs.plan import NOTICES
from holdfast.study import readiness
from holdfast.study.session import Session
from holdfast.train.adapters import check_model
from holdfast.train.arguments import check_settings

CHECKED = (
    "packages, models reachable, disk space, weights and tokenizers whole, judges, settings, "
    "adapters"
)
"""What `CHECKS` look at, in words."""
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


def possible() -> bool:
    """Whether models can be looked at here: torch and transformers are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "transformers"))


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
    readiness.packages,
    readiness.reachable,
    readiness.room,
    readiness.whole,
    readiness.judges,
    _training,
)
"""In this order, the cheapest first."""
