"""Study files, answers from elsewhere and plans."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.field_cases import Case
from holdfast import comparison, study
from holdfast.comparison.request import Request
from holdfast.config import load
from holdfast.errors import HoldfastError
from holdfast.memory.planner.planner import plan_memory
from holdfast.progress import Silent
from tests.config import test_yaml


def own() -> Iterator[Case]:
    """Study files of the project's own tests."""
    for name, (text, _) in test_yaml.TEXTS.items():
        yield Case("study files", name, _text(text), must_be_refused=True)


def _text(text: str | bytes) -> Callable[[Path], str | None]:
    def run(scratch: Path) -> str | None:
        file = scratch / "study.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return _prepared(file)(scratch)

    return run


def given(folder: Path) -> Iterator[Case]:
    """Those of a folder of cases."""
    for file in sorted((folder / "faults" / "yaml").glob("*.yaml")):
        yield Case("study files", file.name, _prepared(file))
    optimiser = folder / "yaml" / "s.yaml"
    if optimiser.is_file():
        overrides = ["train.optim=galore_adamw"]
        yield Case(
            "study files", "an optimiser without its package", _checked(optimiser, overrides), True
        )
        yield Case("study files", "2e-4 is a number", _prepared(optimiser), must_work=True)
    for file in sorted((folder / "replies").glob("*.*")):
        if file.suffix in (".jsonl", ".txt"):
            test = folder / "containers" / "test.jsonl"
            yield Case("answers from elsewhere", file.name, _compared(file, test))
    for model in sorted((folder / "plan").glob("*/config.json")):
        yield Case("plans", model.parent.name, _planned(model.parent))


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _prepared(file: Path, overrides: tuple[str, ...] = ()) -> Callable[[Path], str | None]:
    """A study is planned without a trace of it outside of its run folder, or refused."""

    def run(scratch: Path) -> str | None:
        with _inside(scratch):
            try:
                loaded = load.load(file, list(overrides))
                study.prepare(loaded, Path("runs") / loaded.name, str(file))
            finally:
                left = [one for one in scratch.iterdir() if one != file]
        if "\x1b" in loaded.name or Path(loaded.name).name != loaded.name:
            return f"accepted the name {loaded.name!r}"
        if file.name == "dupkey.yaml":
            return "the second of two equal keys wins without a word"
        return f"wrote {left}" if left else None

    return run


def _checked(file: Path, overrides: list[str]) -> Callable[[Path], str | None]:
    """A study is refused before its run folder exists."""

    def run(scratch: Path) -> str | None:
        folder = scratch / "run"
        try:
            study.run(load.load(file, overrides), folder)
        except HoldfastError:
            if folder.exists():
                return "refused too late: the run folder exists"
            raise
        return None

    return run


def _compared(file: Path, test: Path) -> Callable[[Path], str | None]:
    """The right answers are all read as right."""

    def run(scratch: Path) -> str | None:
        rows = [json.loads(line) for line in test.read_text("utf-8").splitlines()]
        right = scratch / "right.jsonl"
        right.write_text(
            "".join(
                json.dumps({"id": f"test-{number}", "reply": row["answer"]}) + "\n"
                for number, row in enumerate(rows, start=1)
            ),
            encoding="utf-8",
        )
        request = Request(
            models=(str(right), str(file)),
            replies=True,
            tasks=("mine",),
            settings=(
                "tasks.mine.kind=jsonl", f"tasks.mine.path={test}", "tasks.mine.grader=number",
            ),
        )  # fmt: skip
        results = comparison.run(request, scratch / "runs", Silent()).results
        scores = [cell.score.mean for cell in results.cells]
        return None if all(one == 1 for one in scores) else f"scores {scores}"

    return run


def _planned(model: Path) -> Callable[[Path], str | None]:
    """A base in 4 bits is counted as such, or refused."""

    def run(scratch: Path) -> str | None:
        report = plan_memory(str(model), gpus="1x16GiB", trace=False)
        if report.plan is None:
            return "7 billion weights of 4 bits do not fit 16 GiB"
        gib = report.plan.fullest.total / 2**30
        return f"needs {gib:.1f} GiB, as with 16 bits" if gib > 13 else None

    return run
