"""Gives Holdfast what strangers and broken machines give, and says what became of it, by family.

*Typed* is an error that names the place and a remedy, with exit code 3 (1 once a run has begun);
*right* what was read as it is meant. *Traceback*, *hang* (more than 10 seconds of work) and *wrong*
(text lost, a figure that is not the true one, more than 1 GiB, something written) must be 0.

The tables of the project's own tests are always tried: add a case there, and it is tried here too.

    python benchmarks/robust.py [--cases FOLDER] [--family NAME] [--verbose]
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from benchmarks import cases
from benchmarks.field_cases import Case, hostile, outputs

FAMILIES = {
    "malformed rows": "rows", "malformed jsonl": "rows", "malformed csv": "rows",
    "malformed files": "containers", "broken models": "model folders",
    "templates": "model folders", "broken adapters": "adapters",
}  # fmt: skip
"""Kinds of cases that are told together with another."""


def _cases(folder: Path | None, family: str | None) -> Iterator[Case]:
    every = (cases.given(folder), hostile.cases(), outputs.cases())
    for case in (one for source in every for one in source):
        found = replace(case, kind=FAMILIES.get(case.kind, case.kind))
        if family in (None, found.kind):
            yield found


def main() -> None:
    """Try every case and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=Path)
    parser.add_argument("--family")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    counts = cases.carried_out(_cases(args.cases, args.family), args.verbose)
    print(
        "\n| family | tried | right | typed | traceback | hang | wrong |\n|---|---|---|---|---|---|---|"
    )
    every = sum(counts.values(), Counter[str]())
    for name, found in (*counts.items(), ("all", every)):
        bad = " | ".join(str(found[one]) for one in cases.BAD)
        print(f"| {name} | {found.total()} | {found['right']} | {found['refused']} | {bad} |")
    sys.exit(any(every[one] for one in cases.BAD))


if __name__ == "__main__":
    main()
