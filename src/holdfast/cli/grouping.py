"""Options that belong together: a parameter of a command that is a dataclass."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """A command some of whose parameters are dataclasses: options that belong together.

    On the command line every field is an option of its own, with the field's default.
    """
    parts: dict[str, type] = {}
    flat: list[inspect.Parameter] = []
    for one in inspect.signature(command, eval_str=True).parameters.values():
        if not is_dataclass(one.annotation):
            flat.append(one)
            continue
        assert isinstance(one.annotation, type)
        parts[one.name] = one.annotation
        hints = inspect.get_annotations(one.annotation, eval_str=True)
        flat += [
            inspect.Parameter(
                field.name, one.kind, default=field.default, annotation=hints[field.name]
            )
            for field in fields(one.annotation)
        ]

    @functools.wraps(command)
    def called(**given: object) -> None:
        made = {
            name: kind(**{field.name: given.pop(field.name) for field in fields(kind)})
            for name, kind in parts.items()
        }
        command(**given, **made)

    called.__dict__.pop("__wrapped__", None)
    called.__dict__["__signature__"] = inspect.Signature(flat)
    called.__annotations__ = {one.name: one.annotation for one in flat}
    return called
