"""Scores replies by how likely the untouched model finds them.

One scoring pass over stored replies, in chunks that are kept: interrupted, it goes on with the next
chunk. A reply's figure is its mean loss under the base, end of turn left out, so that a cut-off
reply is not punished for being cut off. Loops are *likely* by this measure and word salad is not;
`holdfast.grading.degeneration` has the tests for the former and the limit for the latter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from holdfast.engines import Engine
from holdfast.engines.chunks import read_part, write_part
from holdfast.engines.pool import EnginePool
from holdfast.grading.answer import paired
from holdfast.grading.degeneration import NLL_TOKENS, usual_limit
from holdfast.progress import Progress
from holdfast.runs import store
from holdfast.runs.stages import PARTS
from holdfast.types import Example, ModelRef, Reply

PERPLEXITY = "perplexity.jsonl"
CHUNK = 256
SETTLED = 4
"""Decimals that are kept: batches differ beyond them."""
Loss = tuple[float | None, int]


@dataclass(frozen=True, slots=True)
class Scored:
    """What the untouched model makes of a reply: nats per token, None where it is short."""

    example_id: str
    sample: int
    nll: float | None
    tokens: int


def measure(
    engine: Callable[[], Engine],
    pairs: Iterable[tuple[Example, Reply]],
    folder: Path,
    progress: Progress,
    chunk: int = CHUNK,
    known: Mapping[tuple[str, str], Loss] | None = None,
) -> Mapping[str, object]:
    """Score replies by the untouched model; writes ``perplexity.jsonl``, continues a half-done one.

    Args:
        engine: opens the base; only called when something is left to score.
        pairs: what was asked and what was said.
        folder: of the stage.
        progress: is advanced per reply.
        chunk: replies scored, and written down, together.
        known: loss and tokens by example and text, of replies that were scored before.
    """
    before = dict(known or {})
    every = list(pairs)
    progress.total(len(every), "replies scored")
    rows: list[dict[str, Any]] = []
    for index, start in enumerate(range(0, len(every), chunk)):
        some, part = every[start : start + chunk], folder / PARTS / f"{index:05d}.jsonl"
        done = read_part(part, progress)
        if done is None:
            done = _scored(engine, some, before)
            write_part(part, done)
            progress.worked(sum(row["tokens"] for row in done))
            progress.advance(len(some))
        else:
            progress.kept(len(some))
        rows += done
    store.write_jsonl(folder / PERPLEXITY, rows)
    told = [row["nll"] for row in rows if row["nll"] is not None]
    mean = round(sum(told) / len(told), SETTLED) if told else None
    return {"scored": len(told), "too_short": len(rows) - len(told), "mean_nll": mean}


def score_replies(
    pool: EnginePool,
    base: ModelRef,
    examples: Sequence[Example],
    replies: Path,
    folder: Path,
    progress: Progress,
    before: tuple[Path, Path] | None = None,
) -> Mapping[str, object]:
    """Score stored replies by the untouched model; see `measure`.

    Args:
        pool: lends the engine.
        base: the untouched model.
        examples: what was asked.
        replies: folder of what was said.
        folder: of the stage.
        progress: is advanced per reply.
        before: folders of other replies to the same, and of their scores: what the base says again
            in the same words is not scored again. None: there are none.
    """
    known = _known(examples, *before) if before else None
    pairs = paired(examples, replies)
    return measure(lambda: pool.engine(base), pairs, folder, progress, known=known)


def _known(examples: Sequence[Example], replies: Path, scores: Path) -> dict[tuple[str, str], Loss]:
    """What is known of replies: loss and tokens by example and text."""
    scored = store.iterate_jsonl(scores / PERPLEXITY, Scored)
    by_place = {(row.example_id, row.sample): row for row in scored}
    return {
        (example.id, reply.text.strip()): (row.nll, row.tokens)
        for example, reply in paired(examples, replies)
        if (row := by_place.get((reply.example_id, reply.sample)))
    }


def read(folder: Path) -> dict[tuple[str, int], float | None]:
    """What `measure` wrote: by example and sample, nats per token; None for short replies."""
    rows = store.iterate_jsonl(folder / PERPLEXITY, Scored)
    return {(row.example_id, row.sample): row.nll for row in rows}


def limit(base: Path) -> float | None:
    """The loss above which a reply is surprising, by what `measure` wrote of the base's own."""
    return usual_limit([nll for nll in read(base).values() if nll is not None])


def _scored(
    engine: Callable[[], Engine],
    pairs: list[tuple[Example, Reply]],
    known: dict[tuple[str, str], Loss],
) -> list[dict[str, Any]]:
    """Loss and tokens of each reply; adds to `known` what is new."""
    new = {
        (example.id, text): replace(example, target=text)
        for example, reply in pairs
        if (text := reply.text.strip()) and (example.id, text) not in known
    }
    losses = engine().token_nll(list(new.values())) if new else []
    for mark, (*said, _) in zip(new, losses, strict=True):
        nll = round(sum(said) / len(said), SETTLED) if len(said) >= NLL_TOKENS else None
        known[mark] = (nll, len(said))
    found = [(one, known.get((asked.id, one.text.strip()), (None, 0))) for asked, one in pairs]
    return [
        {"example_id": one.example_id, "sample": one.sample, "nll": nll, "tokens": tokens}
        for one, (nll, tokens) in found
    ]
