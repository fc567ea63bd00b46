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

from holdfast.errors import HoldfastError
from holdfast.runs import store
from holdfast.runs.plan import NOTICES
from holdfast.study.session import Session
from holdfast.train.adapter_check import check_mergeable, check_model
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
    notices: list[str] = []
    built: dict[tuple[object, ...], list[str]] = {}
    ref, device = session.plan.model, session.study.hardware.device
    for name, arm in session.arms.items():
        train = arm.variant.train
        with _in_arm(name):
            if arm.variant.trains:
                check_settings(train, device)
                key = (train.method, train.lora.model_dump_json())
                if key not in built:
                    built[key] = check_model(ref, train, device)
                notices += built[key]
            if any(method.makes for method in arm.weights) and train.method != "full":
                check_mergeable(ref, train)
    return notices


@contextmanager
def _in_arm(name: str) -> Iterator[None]:
    """Say which arm's settings are meant."""
    try:
        yield
    except HoldfastError as error:
        error.where = f"arms.{name}: {error.where}" if error.where else f"arms.{name}"
        raise


CHECKS: tuple[Check, ...] = (_training,)
