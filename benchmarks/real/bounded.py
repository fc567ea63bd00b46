"""Tokens that `selfgen` and `replay` have the untouched model write: all they can, and bounded.

Before, every question of the training set was answered, and every prompt of the pool; now questions
are asked in the order in which they are seen until their answers fill the budget, and prompts until
what is seen is there. Both rules are carried out on the same study; with `--count` the first is
counted instead, from the mean length of the answers that the second has drawn.

    OMP_NUM_THREADS=1 python benchmarks/real/bounded.py                    the built-in model
    OMP_NUM_THREADS=1 python benchmarks/real/bounded.py --model FOLDER --data DATA/gsm8k --count
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

warnings.simplefilter("ignore")

from holdfast import environment, study
from holdfast.config import Study
from holdfast.progress import Silent
from holdfast.runs import records, store
from holdfast.study.session import Session

QUESTIONS = 2491  # the shortest third of GSM8K
ARMS = ("self", "replay")


@dataclass(frozen=True, slots=True)
class Made:
    """What one arm's data took: questions or prompts asked, tokens written, rows kept."""

    asked: int
    of: int
    written: int
    kept: int


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", default="lab", help="a folder; left out: the built-in model")
    parser.add_argument("--data", help="folder with GSM8K's train.jsonl, for another model")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--new-tokens", type=int, default=160)
    parser.add_argument("--unsolved", default="rewrite,drop")
    parser.add_argument("--count", action="store_true", help="do not carry the old rule out")
    given = parser.parse_args()
    asked = settings(given)
    with tempfile.TemporaryDirectory() as folder:
        now = {arm: carried_out(asked, arm, Path(folder) / "now") for arm in ARMS}
        if given.count:
            before = {arm: counted(one) for arm, one in now.items()}
        else:
            with mock.patch.object(Session, "_bound", lambda self, arm: None):
                before = {arm: carried_out(asked, arm, Path(folder) / "before") for arm in ARMS}
    print(table(before, now))
    versions = environment.versions()
    rule = "counted from the mean answer" if given.count else "carried out"
    print(
        f"\n{Path(given.model).name}; {given.steps} steps of {given.batch} examples, {QUESTIONS:,} "
        f"training questions, {given.samples} samples at temperature 0.7, up to "
        f"{given.new_tokens} new tokens, unsolved: {given.unsolved}, replay 5 %; seed 1126; the "
        f"old rule {rule}; torch {versions['torch']}, transformers {versions['transformers']}, CPU."
    )


def settings(given: argparse.Namespace) -> dict[str, object]:
    """The study: two arms whose data the untouched model writes."""
    lab = given.model == "lab"
    if not lab and given.data is None:
        sys.exit("--data: the folder with GSM8K's train.jsonl")
    task: dict[str, object] = {"role": "target"}
    if lab:
        task |= {"items": 8, "train_items": QUESTIONS}
    else:
        task |= {"path": given.data, "limit": 8}
    pool = {
        "share": 0.05,
        **({"prompts": "lab"} if lab else {}),
        "max_new_tokens": given.new_tokens,
    }
    drawn = {"samples": given.samples, "unsolved": given.unsolved.split(",")}
    return {
        "name": "bounded",
        "model": given.model,
        "tasks": {"lab_math" if lab else "gsm8k": task},
        "answer": {"sampling": {"max_new_tokens": given.new_tokens}},
        "train": {
            "method": "lora", "max_steps": given.steps, "checkpoints": 1, "optim": "adamw_torch",
            "per_device_train_batch_size": given.batch, "gradient_accumulation_steps": 1,
            **({} if lab else {"keep_shortest": 0.3334}),
        },
        "hardware": {"device": "cpu"},
        "arms": {"self": {"data": [{"selfgen": drawn}]}, "replay": {"data": [{"replay": pool}]}},
    }  # fmt: skip


def carried_out(asked: Mapping[str, object], arm: str, folder: Path) -> Made:
    """Make one arm's data, and read what that took."""
    study.run(Study.model_validate(asked), folder, Silent(), only=f"data/{arm}")
    found = study.plan(Study.model_validate(asked), folder)
    (name,) = found.arms[arm].shared
    shared = folder / "shared" / name
    summary = records.summary(shared)
    (asks,) = (one.asks for one in found.stages if one.name == f"shared/{name}")
    return Made(
        int(str(summary["asked"])),
        int(asks["questions"]) if asks else 0,
        int(store.read_json(shared / "usage.json")["written"]),
        len(list(store.read_objects(shared / "examples.jsonl"))),
    )


def counted(now: Made) -> Made:
    """What the old rule would have taken, at the same tokens for each question."""
    share = now.of / now.asked
    return Made(now.of, now.of, round(now.written * share), round(now.kept * share))


def table(before: Mapping[str, Made], now: Mapping[str, Made]) -> str:
    """Markdown."""
    lines = [
        "| arm | rule | questions asked | tokens written | examples kept | of the tokens |",
        "|---|---|---|---|---|---|",
    ]
    for arm in before:
        for rule, one in (("all", before[arm]), ("bounded", now[arm])):
            share = one.written / before[arm].written
            lines.append(
                f"| {arm} | {rule} | {one.asked:,} of {one.of:,} | {one.written:,} | {one.kept:,} "
                f"| {share:.1%} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
