"""Runs a study on a pretrained model, and keeps what may be published of it.

The studies are the YAML files in ``benchmarks/real/studies``. Real data lie outside of the project:
``--data`` names a folder with ``gsm8k/{train,test}.jsonl``, ``ailuminate/*.csv`` and
``xstest/xstest_prompts.csv``, byte for byte as published. Hours on a CPU; the same command goes on
where it was, and what another of the studies has asked of the untouched model is not asked again.
When the study is whole, its figures go to ``benchmarks/real/results/NAME``: the results, the report
and the outcome of every item, never a reply.

    python benchmarks/real/models.py qwen0.5b
    python benchmarks/real/studies.py dose --data ../data [--runs-dir runs] [OVERRIDE ...]
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]
import holdfast
from benchmarks.real import reports
from holdfast.runs import records, run_folder, stages, store
from holdfast.types import Reading

HERE = Path(__file__).resolve().parent
MADE = ("knowledge", "counting")
"""Data that a script of this name here makes; all other data are published ones."""


def overrides(study: holdfast.Study, data: Path, made: Path) -> list[str]:
    """Where this machine has the files of the study's tasks; makes those that can be made."""
    found = []
    for name, task in study.tasks.items():
        given = task.model_dump()
        key = "include_path" if given.get("include_path") else "path"
        if given.get(key):
            inside = Path(given[key]).relative_to(HERE / "studies" / "data")
            if inside.name in MADE:
                make = [sys.executable, str(HERE / f"{inside.name}.py"), str(made / inside)]
                subprocess.run(make, check=True)
            root = made if inside.name in MADE else data
            found.append(f"tasks.{name}.{key}={root.resolve() / inside}")
    return found


def reuse(study: holdfast.Study, runs: Path) -> None:
    """Take over what other studies below `runs` asked of the base, where it is the same."""
    plan = holdfast.plan(study, runs / study.name)
    there: dict[str, Path] = {}
    for name, mark in stages.fingerprints(plan.stages).items():
        if not name.startswith("replies/base/") or (plan.folder / name).exists():
            continue
        for other in sorted(runs.glob("real-*")):
            record = records.read(other / name)
            if record is not None and record["fingerprint"] == mark:
                there[name] = other
                break
    if there:
        run_folder.open_run(plan.folder)  # `holdfast run` refuses a folder that is none
    for name, other in there.items():
        shutil.copytree(other / name, plan.folder / name)
        print(f"{name}: as {other.name} has it")


def publish(folder: Path, into: Path) -> None:
    """The figures of a finished run, without anything that a model or a data set said."""
    run = holdfast.open_run(folder)
    found = run.results
    model = found.model.removeprefix(f"{HERE}/studies/../../../")
    reports.publish(replace(found, replies=(), model=model), into)
    keep_outcomes(folder, into)


def keep_outcomes(folder: Path, into: Path) -> None:
    """The outcome of every item that a run has read, whole or not."""
    into.mkdir(parents=True, exist_ok=True)
    rows = []
    for path in sorted((folder / "readings").rglob("readings.jsonl")):
        where = path.parent.relative_to(folder / "readings").as_posix()
        for reading in store.read_jsonl(path, Reading):
            rows.append([where, reading.example_id, reading.value, reading.outcome])
    with (into / "readings.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([["model/task", "item", "value", "outcome"], *rows])
    print(f"{len(rows)} readings in {into}")


def main() -> None:
    """Run it, then publish."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=sorted(p.stem for p in (HERE / "studies").glob("*.yaml")))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    parser.add_argument("--only", default="*", help="stages, as `holdfast run` takes them")
    parser.add_argument("--outcomes", metavar="NAME", help="with --only: keep these, as NAME")
    parser.add_argument("override", nargs="*", help="settings that win over the file")
    args = parser.parse_intermixed_args()
    path = HERE / "studies" / f"{args.name}.yaml"
    study = holdfast.load(path)
    given = [*overrides(study, args.data, args.runs_dir), *args.override]
    asked = holdfast.load(path, given)
    reuse(asked, args.runs_dir)
    command = [sys.executable, "-m", "holdfast", "run", str(path), *given]
    command += ["--runs-dir", str(args.runs_dir), "--only", args.only]
    code = subprocess.run(command).returncode
    if code:
        sys.exit(code)
    if args.only == "*":
        publish(args.runs_dir / asked.name, HERE / "results" / args.name)
    elif args.outcomes:
        keep_outcomes(args.runs_dir / asked.name, HERE / "results" / args.outcomes)


if __name__ == "__main__":
    main()
