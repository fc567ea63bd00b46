"""Writes checkpoints in the background, so that training waits for a copy and not for a disk.

The libraries' own writers are called as ever; tensors are copied into the host's memory first, and
written by a thread: one checkpoint at a time, its mark last, from which on it counts.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any
from unittest import mock

from holdfast.errors import HoldfastError, TrainingError
from holdfast.memory.out_of_memory import is_out_of_memory
from holdfast.models.rank import Rank

if TYPE_CHECKING:
    from transformers import Trainer

WRITERS = (
    ("torch", "save"), ("safetensors.torch", "save_file"), ("peft.peft_model", "safe_save_file"),
    ("transformers.modeling_utils", "safe_save_file"),
)  # fmt: skip
"""Where the libraries look for what writes tensors. What is not there is written at once."""
Work = Callable[[], None]


class Background:
    """Writes one checkpoint after another in a thread of its own."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._work: list[Work] = []
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """For as long as this lasts, tensors that are written are copied, and written later."""
        self.wait()
        with ExitStack() as stack:
            for module, name in WRITERS:
                with suppress(ImportError, AttributeError):
                    place = importlib.import_module(module)
                    later = self._later(getattr(place, name))
                    stack.enter_context(mock.patch.object(place, name, later))
            try:
                yield
            except BaseException:
                self._work = []
                raise

    def _later(self, write: Callable[..., Any]) -> Callable[..., Any]:
        """Stands for one of the writers."""

        def later(value: object, *given: object, **more: object) -> Any:
            there = given[0] if given else more.get("f", more.get("filename"))
            copy = copied(value) if isinstance(there, str | os.PathLike) else value
            if copy is value:
                return write(value, *given, **more)
            self._work.append(lambda: write(copy, *given, **more))
            return None

        return later

    def finish(self, then: Work) -> None:
        """Write in the thread what was deferred, then do `then`, which makes it count."""
        work, self._work = [*self._work, then], []

        def run() -> None:
            try:
                while work:
                    work.pop(0)()  # and let go of the copy
            except BaseException as error:
                self._error = error

        self._thread = threading.Thread(target=run, name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until everything is written.

        Raises:
            TrainingError: it could not be.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if isinstance(error, HoldfastError) or (error is not None and is_out_of_memory(error)):
            raise error
        if error is not None:
            raise TrainingError(
                f"a checkpoint could not be written in the background: {error}",
                where="train.async_save",
                remedy="make room; started again, training goes on from the last whole one",
            ) from error


def copied(value: Any) -> Any:
    """A value with copies of its tensors in the host's memory; itself where it holds none.

    What holds the tensors is copied with all that is in it: a list of numbers beside them may be
    changed by the next step as well.
    """
    return _copy(value) if _holds_tensors(value) else value


def _holds_tensors(value: object) -> bool:
    import torch

    if isinstance(value, Mapping):
        return any(map(_holds_tensors, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_holds_tensors, value))
    return isinstance(value, torch.Tensor)


def _copy(value: Any) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        copy = value.detach().to("cpu", copy=True)
        copy.__dict__.update(value.__dict__)
        return copy
    if isinstance(value, Mapping):
        return {key: _copy(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        parts = [_copy(one) for one in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


@contextmanager
def writing(trainer: Trainer, in_background: bool) -> Iterator[Background | None]:
    """What writes a trainer's checkpoints in the background; None where that is not asked for.

    When this ends, everything is written, or `TrainingError` raised. Only the first process has
    much to write; the others' random states must be there before it says that one is whole.
    """
    if not (in_background and Rank.current().is_first):
        yield None
        return
    writer, save = Background(), trainer._save_checkpoint

    def saved(*given: object, **more: object) -> None:
        with writer.deferred():
            save(*given, **more)

    trainer._save_checkpoint = saved
    try:
        yield writer
    except BaseException:
        with suppress(BaseException):  # what ended the training is what is told
            writer.wait()
        raise
    writer.wait()
