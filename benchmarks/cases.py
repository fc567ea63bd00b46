"""Runs inputs as people really have them, and says what became of each.

*Right*: every text of the input is where it belongs. *Refused*: a typed error that names the place
and a remedy. *Wrong*: anything else: a traceback, text that was dropped without a word or turned
into something that nobody wrote, a figure that is not the true one. Wrong must be 0.

The cases of the project's own tests are always run; a folder of further ones with `--cases`.

    python benchmarks/cases.py [--cases FOLDER] [--verbose]
"""

from __future__ import annotations

import argparse
import resource
import shutil
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
warnings.filterwarnings("ignore")

from benchmarks.field_cases import Case, adapters, models, rows, studies, templates
from holdfast.errors import HoldfastError

SECONDS, MOST_MIB = 10, 1024
"""More than that a case may not take."""
KINDS = (rows, studies, templates, adapters, models)
BAD = ("traceback", "hang", "wrong")
"""Outcomes that must not be."""


class _Hangs(Exception):
    """A case took too long."""


def outcome(case: Case, scratch: Path) -> tuple[str, str]:
    """`right`, `refused`, or one of `BAD`, and why.

    A case has so many seconds of work, and six times as many by the clock.
    """
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(6 * SECONDS)
    before = _mib()
    try:
        wrong = case.run(scratch)
    except HoldfastError as error:
        lacks = [name for name in ("where", "remedy") if not getattr(error, name)]
        if lacks or error.exit_code not in case.exits:
            exits = " or ".join(map(str, case.exits))
            return (
                "wrong",
                f"refused without {' and '.join(lacks) or f'exit code {exits}'}: {error}",
            )
        if case.must_work:
            return "wrong", f"refused what should work: {error}"
        if (grown := _mib() - before) > MOST_MIB:
            return "wrong", f"took {grown:,} MiB before it was refused"
        return "refused", str(error)
    except _Hangs:
        return "hang", f"more than {SECONDS} s"
    except BaseException as error:  # whatever a user would see as a traceback
        return "traceback", f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
    if wrong is None and case.must_be_refused:
        return "wrong", "accepted what should be refused"
    return ("right", "") if wrong is None else ("wrong", wrong)


def _mib() -> int:
    """The most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def given(folder: Path | None) -> Iterator[Case]:
    """The project's own cases, and those of a folder."""
    for kind in KINDS:
        yield from kind.own()
        if folder is not None:
            yield from kind.given(folder.resolve())


def carried_out(cases: Iterable[Case], verbose: bool) -> dict[str, Counter[str]]:
    """How often what came of the cases, by kind; what should not be is printed."""

    import torch
    import transformers  # noqa: F401  # no case is to wait for them

    def hang(*_: object) -> None:
        raise _Hangs

    signal.signal(signal.SIGALRM, hang)
    signal.signal(signal.SIGPROF, hang)
    counts: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number, case in enumerate(cases):
            place = Path(scratch) / str(number)
            place.mkdir()
            what, why = outcome(case, place)
            counts.setdefault(case.kind, Counter())[what] += 1
            if what in BAD or verbose:
                print(f"{what:10}{case.kind}: {case.name}: {' '.join(why.split())[:300]}")
            shutil.rmtree(place, ignore_errors=True)
    return counts


def main() -> None:
    """Run every case and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=Path)
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    counts = carried_out(given(args.cases), args.verbose)
    print("\n| kind | right | refused with reason | wrong |\n|---|---|---|---|")
    for kind, found in counts.items():
        print(f"| {kind} | {found['right']} | {found['refused']} | {_wrong(found)} |")
    every = sum(counts.values(), Counter[str]())
    print(f"| all {every.total()} | {every['right']} | {every['refused']} | {_wrong(every)} |")
    sys.exit(_wrong(every) > 0)


def _wrong(found: Counter[str]) -> int:
    return sum(found[one] for one in BAD)


if __name__ == "__main__":
    main()
