"""Holds examples out of a training set: the same ones for every arm and seed, and on every machine.

Which ones is told by their words alone, not by their place in a file. Examples that ask the same
go together, so that nothing is trained on that is held out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from holdfast.data.text_leaks import normalise
from holdfast.errors import StudyError
from holdfast.types import Example

SALT = "held out"


def hold_out(examples: Sequence[Example], size: float) -> tuple[list[Example], list[Example]]:
    """What is trained on, and what is held out.

    Args:
        examples: a training set.
        size: a share of it below 1, or how many examples.

    Raises:
        StudyError: nothing would be left to train on.
    """
    wanted = max(1, round(size * len(examples))) if size < 1 else int(size)
    asked: dict[str, int] = {}
    for example in examples:
        key = _asked(example)
        asked[key] = asked.get(key, 0) + 1
    if wanted >= len(examples) or len(asked) < 2:
        raise StudyError(
            f"val_size {size:g} leaves nothing of {len(examples)} examples to train on",
            where="train.val_size",
            remedy="give a smaller one: a share below 1, or a number of examples",
        )
    held: set[str] = set()
    count = 0
    for key in sorted(asked, key=_order)[:-1]:
        if count >= wanted:
            break
        held.add(key)
        count += asked[key]
    return (
        [one for one in examples if _asked(one) not in held],
        [one for one in examples if _asked(one) in held],
    )


def without(examples: Iterable[Example], held: Iterable[Example]) -> list[Example]:
    """Examples that ask nothing which is held out."""
    kept_back = {_asked(one) for one in held}
    return [one for one in examples if _asked(one) not in kept_back]


def _asked(example: Example) -> str:
    """All that an example asks, as words; of plain text, all of it."""
    turns = [turn.content for turn in example.messages if turn.role == "user"]
    return " ".join(normalise("\n".join(turns) or example.target or ""))


def _order(key: str) -> str:
    return hashlib.sha256(f"{SALT}:{key}".encode()).hexdigest()
