"""Seconds that `holdfast plan` takes: by formula, and with a trace of the model's own code.

Whole processes of Qwen2.5-7B's plan for two 24 GiB GPUs. The trace is not read from a cache.

    python benchmarks/plan.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

COMMAND = [
    sys.executable, "-m", "holdfast", "plan", "--model", "Qwen/Qwen2.5-7B-Instruct",
    "--gpus", "2x24GiB", "--seq-len", "2048", "--json",
]  # fmt: skip
LIMITS_S = {"formula": 0.5, "trace": 15.0}


def main() -> None:
    """Time both and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    print("\n| plan | limit | within | median, share of the limit | grounds |")
    print("|---|---|---|---|---|")
    for kind, limit_s in LIMITS_S.items():
        times, grounds = [], ""
        for _ in range(args.rounds if kind == "formula" else max(1, args.rounds // 2)):
            with tempfile.TemporaryDirectory() as cache:
                started = time.perf_counter()
                done = subprocess.run(
                    COMMAND + (["--dry-run"] if kind == "formula" else []),
                    env=os.environ | {"XDG_CACHE_HOME": cache},
                    capture_output=True,
                    text=True,
                    check=True,
                )
                times.append(time.perf_counter() - started)
            grounds = done.stdout.partition('"source": "')[2].partition('"')[0]
        within = sum(one <= limit_s for one in times)
        print(
            f"| {kind} | {limit_s:g} s | {within} of {len(times)} | "
            f"{statistics.median(times) / limit_s:.0%} | {grounds} |"
        )


if __name__ == "__main__":
    main()
