"""Tells that memory ran out while a model was loaded, whatever loading makes of the exception."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from holdfast.errors import HoldfastError
from holdfast.memory.fault_injection import FaultInjector
from holdfast.memory.out_of_memory import failure_of, is_out_of_memory, unrecoverable


@contextmanager
def loading() -> Iterator[None]:
    """Say that the model does not fit, where loading it runs out of memory.

    transformers 5 keeps errors of on-the-fly quantisation for a report and raises a general one
    instead; the report is read for the real reason.

    Raises:
        OutOfMemory: with phase ``load``.
    """
    try:
        FaultInjector.from_environment().at("load")
        yield
    except Exception as error:
        kept = None if isinstance(error, HoldfastError) else kept_back(error)
        if kept is None and not is_out_of_memory(error):
            raise
        raise unrecoverable("load", "the model does not fit", failure_of(kept or error)) from error


def kept_back(error: BaseException) -> RuntimeError | None:
    """The out-of-memory message among the conversion errors that transformers kept, if any."""
    trace = error.__traceback__
    while trace is not None:
        found = trace.tb_frame.f_locals.get("loading_info")
        for text in dict(getattr(found, "conversion_errors", None) or {}).values():
            for line in str(text).splitlines():
                if " out of memory" in line or is_out_of_memory(RuntimeError(line)):
                    return RuntimeError(line)
        trace = trace.tb_next
    return None
