"""Seconds until `holdfast --help` answers, and until a finished study is known to be so.

Whole processes are timed. Limits, not ratios: 0.5 s and 3 s are what a person does not notice and
does not mind. The study is the quick demo; it is run first when it is not there.

    python benchmarks/front_door.py [--runs-dir runs] [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

HEAVY = "torch"


def seconds(*arguments: str) -> float:
    """Wall time of one `holdfast` process."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "holdfast", *arguments], check=True, capture_output=True, timeout=900
    )
    return time.perf_counter() - started


def imports_torch(*arguments: str) -> bool:
    """Whether the command loads torch."""
    code = (
        f"import sys; from holdfast.cli import call; call({list(arguments)!r}); "
        f"sys.exit({HEAVY!r} in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    return bool(done.returncode)


def main() -> None:
    """Time both and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    demo = ("demo", "--quick", "--runs-dir", str(args.runs_dir))
    seconds(*demo)
    rows = [("holdfast --help", ("--help",), 0.5), ("re-run of a finished study", demo, 3.0)]
    print("\n| command | limit | within it (of all rounds) | share of the limit (median) | torch |")
    print("|---|---|---|---|---|")
    for name, command, limit in rows:
        times = [seconds(*command) for _ in range(args.rounds)]
        within = sum(one <= limit for one in times)
        share = statistics.median(times) / limit
        torch = "imported" if imports_torch(*command) else "not imported"
        print(f"| {name} | {limit} s | {within} of {args.rounds} | {share:.0%} | {torch} |")


if __name__ == "__main__":
    main()
