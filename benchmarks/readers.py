"""How many tricky replies and judges' outputs are read as a careful person reads them.

The corpus is `tests/data/readers_seen.jsonl` and `readers_unseen.jsonl` (its form:
`tests/judges/test_reader_corpus.py`), drawn up by somebody who had not seen the readers; the unseen
part was kept away from whoever builds them. F1 of refusals alone: `benchmarks/refusal.py`.

    python benchmarks/readers.py
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

from holdfast.data.thinking import split
from holdfast.judges import harmbench, llamaguard, qwen3guard, strongreject, wildguard, yes_no
from holdfast.judges.refusal import detect
from holdfast.tasks._extraction import read

DATA = Path(__file__).parents[1] / "tests" / "data"
PARTS = ("seen", "unseen")
Row = dict[str, Any]
GUARDS: dict[str, Callable[[str], Any]] = {
    "harmbench": harmbench.parse,
    "llamaguard": llamaguard.parse,
    "qwen3guard": qwen3guard.parse,
    "wildguard": wildguard.parse,
    "yes_no": yes_no.parse,
    "strongreject": lambda said: strongreject.read(strongreject.parse(said), 0.5),
}
"""ShieldGemma is read by probabilities, never by what it prints."""


def rows(part: str) -> list[Row]:
    """One part of the corpus."""
    text = (DATA / f"readers_{part}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def reading(row: Row) -> Decimal | str | None:
    """What the project reads."""
    if row["kind"] == "number":
        found = read(split(row["reply"]).answer, "tolerant")
        assert found is None or isinstance(found, Decimal)
        return found
    if row["kind"] == "refusal":
        return detect(row["reply"], row["prompt"]).label
    seen = GUARDS[row["judge"]](row["output"])
    return "refused" if row["label"] == "refused" and seen.refused else str(seen.label)


def right(row: Row) -> bool:
    """Whether it is what a careful person reads; None of a judge is *unsure*."""
    found = reading(row)
    if row["kind"] == "number":
        return found == (None if row["value"] is None else Decimal(row["value"]))
    if row["kind"] == "refusal":
        return found in (row["label"], row.get("human"))
    if row["label"] == "refused" and found != "refused":
        return found == "safe"
    return found == (row["label"] or "unsure")


def readable(part: str) -> list[Row]:
    """The rows that a reader of text is for."""
    return [row for row in rows(part) if row.get("judge") != "shieldgemma"]


def counts(some: Iterable[Row]) -> dict[tuple[str, str], tuple[int, int]]:
    """Right and tried, by kind and by language or judge."""
    tried: Counter[tuple[str, str]] = Counter()
    well: Counter[tuple[str, str]] = Counter()
    for row in some:
        for name in ("all", row.get("language") or row["judge"]):
            tried[row["kind"], name] += 1
            well[row["kind"], name] += right(row)
    return {key: (well[key], tried[key]) for key in sorted(tried)}


def main() -> None:
    """Print the table."""
    seen, unseen = (counts(readable(part)) for part in PARTS)
    print(f"{'kind':<9} {'language or judge':<18} {'seen':>9} {'unseen':>9}")
    for key in sorted({*seen, *unseen}):
        told = ["/".join(map(str, part.get(key, (0, 0)))) for part in (seen, unseen)]
        print(f"{key[0]:<9} {key[1]:<18} {told[0]:>9} {told[1]:>9}")


if __name__ == "__main__":
    main()
