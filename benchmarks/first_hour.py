"""Follows the README's three doors where nothing is yet, and counts what a newcomer meets.

Each door is entered in an empty folder with an empty home, its commands as the README prints them:
commands, seconds and lines printed, beside the limits (`tests/test_readme.py` holds them). Models
that are not here (a hub id, somebody's adapter) are stood in for by the built-in one and what the
demo trained, so the first door is entered before the third.

    python benchmarks/first_hour.py [--quick] [--door fit] [--say]
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOORS = {
    "see": "I want to see it", "fit": "It does not fit", "forgot": "What did my fine-tune forget?",
}  # fmt: skip
MOST_COMMANDS, MOST_LINES = 5, 60
TUNED = "runs/demo/train/sft/seed1126/checkpoint-{}"
STANDING_IN = {"Qwen/Qwen2.5-1.5B-Instruct": "lab", "path/to/your-lora": TUNED.format(160)}
"""What the third door names and is not here, and what is compared instead."""
SMALLER = {
    "demo": ["tasks.lab_math.items=60", "tasks.lab_math.train_items=64",
             "tasks.lab_refuse.items=60", "tasks.lab_help.items=60",  # its rule can be met
             "train.max_steps=2", "train.checkpoints=1"],
    "compare": ["--limit", "8"],
    "plan": ["--dry-run"],  # by formula: a trace takes seconds
}  # fmt: skip
"""What is added to a command so that a door takes a minute; the demo trains for two steps then."""
NO = {"ship", "plan"}
"""Commands that may say no, with exit code 2."""


def door(name: str, instead: Mapping[str, str] | None = None) -> list[list[str]]:
    """The commands of a door, with the variables that it sets.

    Args:
        name: in bold letters in the README.
        instead: by a word of its commands, or one between commas, another.

    Raises:
        ValueError: the README has no such door, or it has other programs than ``holdfast``.
    """
    text = (ROOT / "README.md").read_text("utf-8")
    found = re.search(rf"\*\*{re.escape(name)}\.?\*\*.*?```bash\n(.*?)```", text, re.S)
    if found is None:
        raise ValueError(f"the README has no door {name!r}")
    lines, given = found[1].splitlines(), dict[str, str]()
    while re.match(r"[A-Z]+=", lines[0]):
        given |= dict(word.split("=", 1) for word in shlex.split(lines.pop(0)))
    words = [shlex.split(string.Template(line).substitute(given), comments=True) for line in lines]
    if any(one[0] != "holdfast" for one in words):
        raise ValueError(f"{name}: a command is not holdfast's")
    known = instead or {}
    return [
        [",".join(known.get(part, part) for part in word.split(",")) for word in one[1:]]
        for one in words
    ]


def enter(command: list[str], folder: Path, say: bool) -> tuple[float, int, int]:
    """Run one command in a folder, with a home of its own; seconds, lines printed, lines told.

    Raises:
        SystemExit: it failed.
    """
    home = folder / "home"
    home.mkdir(exist_ok=True)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HOLDFAST_")}
    environment = kept | {
        "HOME": str(home), "COLUMNS": "80", "LC_ALL": "C.UTF-8", "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT / "src"),
    }  # fmt: skip
    work = folder / "work"
    work.mkdir(exist_ok=True)
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", *command], cwd=work, env=environment, text=True,
        capture_output=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    if say:
        print(f"\n$ holdfast {shlex.join(command)}\n{done.stdout}", flush=True)
    if done.returncode not in ((0, 2) if command[0] in NO else (0,)):
        sys.exit(f"holdfast {shlex.join(command)}: exit code {done.returncode}\n{done.stderr}")
    return seconds, len(done.stdout.splitlines()), len(done.stderr.splitlines())


def commands_of(key: str, quick: bool) -> list[list[str]]:
    """What is entered at a door: as printed, or with fewer items and checkpoints."""
    instead = STANDING_IN | ({"path/to/your-lora": TUNED.format(2)} if quick else {})
    more = SMALLER if quick else {}
    return [[*one, *more.get(one[0], [])] for one in door(DOORS[key], instead)]


def main() -> None:
    """Enter the doors and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two steps, 8 items, no trace")
    parser.add_argument("--door", choices=tuple(DOORS), help="this one alone")
    parser.add_argument("--say", action="store_true", help="what the commands print, too")
    args = parser.parse_args()
    keys = [args.door] if args.door and args.door != "forgot" else list(DOORS)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for key in keys:
            met = [enter(one, Path(name), args.say) for one in commands_of(key, args.quick)]
            seconds, lines, told = (sum(one) for one in zip(*met, strict=True))
            each = " + ".join(str(one[1]) for one in met)
            rows.append(
                f"| {DOORS[key]} | {len(met)} | {lines} ({each}) | {told} | {seconds:.0f} |"
            )
    print(f"\n| door | commands (≤ {MOST_COMMANDS}) | lines printed (≤ {MOST_LINES}) "
          "| of progress, where no terminal is | s |")  # fmt: skip
    print("\n".join(["|---|---|---|---|---|", *rows]))


if __name__ == "__main__":
    main()
