"""Runs inputs as people really have them, and says what became of each.

*Right*: every text of the input is where it belongs. *Refused*: a typed error that names the place
and a remedy. *Wrong*: anything else: a traceback, text that was dropped without a word or turned
into something that nobody wrote, a figure that is not the true one. Wrong must be 0.

The cases of the project's own tests are always run; a folder of further ones with `--cases`.

    python benchmarks/cases.py [--cases FOLDER] [--verbose]
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
warnings.filterwarnings("ignore")

from benchmarks.field_cases import Case, adapters, models, rows, studies, templates
from holdfast.errors import HoldfastError

SECONDS = 60
"""After which a case hangs."""
KINDS = (rows, studies, templates, adapters, models)


class _Hangs(Exception):
    """A case took too long."""


def _outcome(case: Case, scratch: Path) -> tuple[str, str]:
    """`right`, `refused` or `wrong`, and why."""
    signal.alarm(SECONDS)
    try:
        wrong = case.run(scratch)
    except HoldfastError as error:
        lacks = [name for name in ("where", "remedy") if not getattr(error, name)]
        if lacks or error.exit_code not in (2, 3):
            return "wrong", f"refused without {' and '.join(lacks) or 'exit code 3'}: {error}"
        if case.must_work:
            return "wrong", f"refused what should work: {error}"
        return "refused", str(error)
    except _Hangs:
        return "wrong", f"hangs for more than {SECONDS} s"
    except BaseException as error:  # whatever a user would see as a traceback
        return "wrong", f"traceback: {type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    if wrong is None and case.must_be_refused:
        return "wrong", "accepted what should be refused"
    return ("right", "") if wrong is None else ("wrong", wrong)


def _cases(folder: Path | None) -> Iterator[Case]:
    for kind in KINDS:
        yield from kind.own()
        if folder is not None:
            yield from kind.given(folder.resolve())


def main() -> None:
    """Run every case and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=Path)
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()

    import datasets  # noqa: F401  # slow to import on a busy machine, which is no case's hang
    import torch  # noqa: F401
    import transformers.models.auto.modeling_auto  # noqa: F401
    import trl  # noqa: F401

    def hang(*_: object) -> None:
        raise _Hangs

    signal.signal(signal.SIGALRM, hang)
    counts: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number, case in enumerate(_cases(args.cases)):
            place = Path(scratch) / str(number)
            place.mkdir()
            what, why = _outcome(case, place)
            counts.setdefault(case.kind, Counter())[what] += 1
            if what == "wrong" or args.verbose:
                print(f"{what:8}{case.kind}: {case.name}: {' '.join(why.split())[:300]}")
    print("\n| kind | right | refused with reason | wrong |\n|---|---|---|---|")
    for kind, found in counts.items():
        print(f"| {kind} | {found['right']} | {found['refused']} | {found['wrong']} |")
    every = sum(counts.values(), Counter[str]())
    print(f"| all {every.total()} | {every['right']} | {every['refused']} | {every['wrong']} |")
    sys.exit(every["wrong"] > 0)


if __name__ == "__main__":
    main()
