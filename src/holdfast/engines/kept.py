"""Answers and losses of the untouched model that are kept, so that nothing is asked for twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import UnionType
from typing import Any

from holdfast.config import Sampling
from holdfast.data.windows import TEXT
from holdfast.engines import Engine, Usage
from holdfast.engines.chunks import CHUNK
from holdfast.errors import HoldfastError
from holdfast.progress import Progress
from holdfast.runs import store
from holdfast.runs.rows import as_row
from holdfast.types import Example, Reply

LIKELIHOODS = "likelihoods"
"""In an example's meta: pairs of a context and a continuation. Instead of an answer, the reply is
JSON with the log-probability of each continuation and whether it is the likeliest. A context is
None for the example's own prompt, a text as it stands, or turns of [role, content]."""
OTHERWISE = ("continue", "prefix", "until", LIKELIHOODS, TEXT)
"""What an example's meta says of how it is asked, besides its messages."""

Kinds = Mapping[str, UnionType | type]
"""Of every column of a row that is kept, besides its mark."""
ANSWERED: Kinds = {"replies": list, "read": float | int, "written": float | int}
SCORED: Kinds = {"nll": list, "read": float | int, "seconds": object}


def is_scored(example: Example) -> bool:
    """Whether what is given is scored, and nothing is answered."""
    return LIKELIHOODS in example.meta or TEXT in example.meta


def mark_of(example: Example, *of: object) -> str:
    """A mark of all that an answer depends on of what is asked, and of what is given beside it."""
    otherwise = {key: example.meta[key] for key in OTHERWISE if key in example.meta}
    return store.fingerprint([example.id, example.messages, example.tools, otherwise, *of])


@dataclass(frozen=True, slots=True)
class Kept:
    """Answers of the untouched model that any of its stages may have asked for before.

    Attributes:
        folder: a file for each way of sampling; rows by what was asked.
        of: what the answers depend on besides: model, revision, precision, engine.
    """

    folder: Path
    of: Mapping[str, object] | None = None

    def around(
        self,
        work: Callable[[Sequence[Example]], list[list[Reply]]],
        sampling: Sampling,
        spent: Usage,
        progress: Progress,
    ) -> Callable[[Sequence[Example]], list[list[Reply]]]:
        """`work` for what was not answered yet.

        Args:
            work: answers, and leaves in `spent` what that took.
            sampling: how.
            spent: gets what all answers took, now or then.
            progress: is told of what is known.
        """
        file = self.folder / f"{store.fingerprint([sampling.model_dump(), self.of])}.jsonl"
        known = _known(file, ANSWERED)

        def looked_up(some: Sequence[Example]) -> list[list[Reply]]:
            marks = [mark_of(one) for one in some]
            missing = [one for mark, one in zip(marks, some, strict=True) if mark not in known]
            progress.kept(len(some) - len(missing))
            if missing:
                found = work(missing)
                read, written = spent.read / len(missing), spent.written / len(missing)
                for one, replies in zip(missing, found, strict=True):
                    row = {"of": mark_of(one), "replies": [asdict(reply) for reply in replies],
                           "read": read, "written": written}  # fmt: skip
                    known[str(row["of"])] = {**row, "check": store.fingerprint(row)}
                _keep(file, known, ANSWERED)
            rows = [known[mark] for mark in marks]
            spent.read = round(sum(row["read"] for row in rows))
            spent.written = round(sum(row["written"] for row in rows))
            return [[as_row(Reply, one, str(file)) for one in row["replies"]] for row in rows]

        return looked_up


def score(
    engine: Callable[[], Engine],
    examples: Sequence[Example],
    kept: Path | None,
    of: Mapping[str, object] | None = None,
) -> tuple[list[list[float]], Usage]:
    """The base's loss of each token of each answer, nats; what is known already is not asked.

    Args:
        engine: opens the engine; only called when something is left to score.
        examples: questions with their answers.
        kept: a jsonl of losses by content, read and added to; None: nowhere.
        of: what the losses depend on besides the answers: model, revision, precision.

    Returns:
        The losses, and what they took when they were computed, then or now.
    """
    marks = [store.fingerprint([*one.content[1:], of]) for one in examples]
    known = _known(kept, SCORED)
    missing = {mark: one for mark, one in zip(marks, examples, strict=True) if mark not in known}
    todo = list(missing.items())
    for start in range(0, len(todo), CHUNK):
        some = todo[start : start + CHUNK]
        started, before = time.perf_counter(), engine().usage.read
        found = engine().token_nll([one for _, one in some])
        seconds = (time.perf_counter() - started) / len(some)
        read = (engine().usage.read - before) / len(some)
        for (mark, _), losses in zip(some, found, strict=True):
            row = {"of": mark, "nll": losses, "read": read, "seconds": seconds}
            known[mark] = {**row, "check": store.fingerprint(row)}
        if kept is not None:
            _keep(kept, known, SCORED)
    used = [known[mark] for mark in dict.fromkeys(marks)]
    usage = Usage(round(sum(row["read"] for row in used)), 0, sum(row["seconds"] for row in used))
    return [known[mark]["nll"] for mark in marks], usage


def _keep(file: Path, known: dict[str, dict[str, Any]], kinds: Kinds) -> None:
    """Write what is known, with what other stages have added meanwhile: theirs came first."""
    from filelock import FileLock

    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_name(f".{file.name}.lock")):
        known |= _known(file, kinds)
        store.write_jsonl(file, known.values())


def _known(kept: Path | None, kinds: Kinds) -> dict[str, dict[str, Any]]:
    """The rows that are there, by mark; a line that is not as it was written is made anew.

    Args:
        kept: the file; None: there is none.
        kinds: of every column of a row, besides its mark.
    """
    found: dict[str, dict[str, Any]] = {}
    if kept is None or not kept.is_file():
        return found
    try:
        for _, row in store.read_objects(kept):
            if not isinstance(row, dict) or not isinstance(row.get("of"), str):
                continue
            if not all(isinstance(row.get(name), kind) for name, kind in kinds.items()):
                continue
            check = store.fingerprint({k: v for k, v in row.items() if k != "check"})
            if row.get("check", check) == check:  # older versions wrote none
                found[row["of"]] = row
    except HoldfastError:
        pass  # the lines after a torn one
    return found
