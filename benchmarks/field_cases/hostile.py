"""What strangers give on the command line, as names, as bombs, and as run folders."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from fixtures.hostile import BROKEN_TEMPLATES, FILES, NAMES, PATTERNS, TEMPLATES

from benchmarks.field_cases import Case
from benchmarks.field_cases.models import adapter
from holdfast import comparison, study, tasks
from holdfast.cli import call
from holdfast.comparison.request import Request
from holdfast.config import TaskSpec, load
from holdfast.config.section import made_usable, unusable
from holdfast.data.templates import EndlessTemplate, compiled
from holdfast.errors import ModelError
from holdfast.models import external
from holdfast.progress import Silent
from holdfast.report.run import open_run
from tests.config import test_yaml

Run = Callable[[Path], str | None]
LONG = "x" * 5000
FLAGS: list[list[str]] = [
    ["run", LONG], ["run", "a\0b"], ["run", "."], ["run", "/dev/zero"], ["run", "~nobody_here/s.yaml"],
    ["run", "\udcff.yaml"], ["run", "", "--dry-run"], ["run", "s.yaml", "--nope"], ["run"],
    ["plan", "--model", LONG], ["plan", "--model", "a\0b"], ["plan", "--model", "/dev/zero"],
    ["plan", "--model", "lab", "--gpus", "1x" + "9" * 400 + "GiB"],
    ["plan", "--model", "lab", "--gpus", "0xh100"], ["plan", "--model", "lab", "--gpus", "x" * 9999],
    ["plan", "--model", "lab", "--gpus", "1x16GiB," * 5000],
    ["compare", "lab", LONG, "--tasks", "lab_math"], ["compare", "lab", "a\0b", "--tasks", "lab_math"],
    ["compare", "lab", "con=lab", "--tasks", "lab_math"], ["compare", "lab", "--tasks", "lab_math"],
    ["compare", "lab", "x.tmp=lab", "--tasks", "lab_math"], ["compare", "lab", "lab", "--tasks", LONG],
    ["compare", "lab", "lab", "--tasks", f"{LONG}.py:Task"], ["compare", "lab", "lab", "--tasks", ""],
    ["compare", "lab", "lab", "--tasks", "lab_math", "--set", "=1"],
    ["compare", "lab", "lab", "--tasks", "lab_math", "--set", "tasks.lab_math.limit=" + "9" * 5000],
    ["compare", "lab", "lab", "--tasks", "lab_math", "--name", "../x"],
    ["compare", "lab", "lab", "--tasks", "lab_math", "--name", "nul"],
    ["compare", "lab", "lab", "--tasks", "lab_math", "--retain", "lab_math=nan"],
    ["report", LONG], ["report", "a\0b"], ["report", "/dev/zero"], ["report", "."],
    ["ship", LONG], ["ship", "/dev/null"], ["ship", "."], ["init", "/dev/null/x/y.yaml"],
    ["init", LONG], ["nope"], ["--nope"], ["tasks", "x"], ["schema", "--nope"],
]  # fmt: skip
"""Command lines that cannot be carried out."""
DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "half": lambda file: os.truncate(file, file.stat().st_size // 2),
    "[1]": lambda file: file.write_bytes(b"[1]"),
    "null": lambda file: file.write_bytes(b"null\n"),
    "deep": lambda file: file.write_bytes(b"[" * 100_000),
    "digits": lambda file: file.write_bytes(b"9" * 10_000),
    "binary": lambda file: file.write_bytes(bytes(range(256))),
    "half a character": lambda file: file.write_bytes(b'{"a": "\\ud800"}'),
    "gone": Path.unlink,
    "a folder": lambda file: (file.unlink(), file.mkdir()),
    "a circle": lambda file: (file.unlink(), file.symlink_to(file.name)),
}  # fmt: skip
"""What may become of a file of a run folder."""


def cases() -> Iterator[Case]:
    """All families; what others add stands in the tables that they import."""
    for override, _ in test_yaml.OVERRIDES:
        yield Case("overrides and flags", override[:60], _override(override), must_be_refused=True)
    for line in FLAGS:
        shown = " ".join(line)[:60]
        yield Case("overrides and flags", shown, _flags(line), must_be_refused=True)
    for name in NAMES:
        for where in ("arms", "tasks", "name"):
            yield Case("names", f"{where} {name[:20]!a}", _named(where, name), must_be_refused=True)
        yield Case("names", f"made of {name[:20]!a}", _made(name), must_work=True)
    for pattern in PATTERNS:
        yield Case("adapters", f"pattern {pattern[:30]!a}", _pattern(pattern), must_be_refused=True)
    for name, text in {**TEMPLATES, **BROKEN_TEMPLATES}.items():
        yield Case("model folders", f"template: {name}", _template(text), must_be_refused=True)
    for name, make in FILES.items():
        yield Case("containers", name, _file(name, make), must_be_refused=True)
    for damage in DAMAGE:
        for number in range(24):
            run = _damaged(damage, number)
            yield Case("run folders", f"{damage} {number}", run, exits=(1, 2, 3))


def _override(text: str) -> Run:
    def run(folder: Path) -> str | None:
        file = folder / "study.yaml"
        file.write_text(test_yaml.GOOD, encoding="utf-8")
        study.prepare(load.load(file, [text]), folder / "run")
        return None

    return run


class _Refused(ModelError):
    """What a command line printed."""


def _flags(line: list[str]) -> Run:
    def run(folder: Path) -> str | None:
        said, before = io.StringIO(), Path.cwd()
        os.chdir(folder)
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                code = call(line)
        finally:
            os.chdir(before)
        if list(folder.iterdir()):
            return "wrote something"
        text = said.getvalue()
        if code == 0:
            return "accepted"
        if code not in (2, 3) or len(text) > 20_000 or "\x1b" in text:
            return f"exit {code}: {text[:200]}"
        raise _Refused(text, where=" ".join(line)[:60], remedy="→" if "→" in text else "")

    return run


def _named(where: str, name: str) -> Run:
    def run(folder: Path) -> str | None:
        given: dict[str, object] = {
            "name": "s", "model": "lab", "tasks": {"lab_math": {"role": "target"}}, "arms": {"a": {}}
        }  # fmt: skip
        if where == "name":
            given["name"] = name
        else:
            section = given[where]
            assert isinstance(section, dict)
            section[name] = {} if where == "arms" else {"kind": "lab_math"}
        load.load(given)
        return None

    return run


def _made(text: str) -> Run:
    def run(folder: Path) -> str | None:
        name = made_usable(text)
        (folder / f"{name}.tmp").mkdir()
        path = text if text.isprintable() else "x"
        return unusable(name) or unusable(external.answers(path or "x").name) or None

    return run


def _pattern(pattern: str) -> Run:
    from fixtures.broken_models import CONFIG, fields

    return adapter(fields(CONFIG, target_modules=pattern))


def _template(text: str) -> Run:
    def run(folder: Path) -> str | None:
        try:
            compiled(text, "2024-07-26").render({"messages": []})
        except EndlessTemplate as error:  # what asks for the rendering makes this of it
            raise ModelError("does not come to an end", where="template", remedy="→") from error
        return None

    return run


def _file(name: str, make: Callable[[], bytes]) -> Run:
    def run(folder: Path) -> str | None:
        (folder / name).write_bytes(make())
        values = {"kind": "jsonl", "path": str(folder / name), "train_path": str(folder / name)}
        tasks.build("mine", TaskSpec.model_validate(values), "study.yaml").examples("train")
        return None

    return run


def _damaged(damage: str, number: int) -> Run:
    """A finished comparison of answers of which one file is damaged is shown as it was, or refused."""

    def run(folder: Path) -> str | None:
        runs = _compared(folder.parent)
        copy = Path(shutil.copytree(runs, folder / "run"))
        files = sorted(one for one in copy.rglob("*") if one.is_file())
        if number >= len(files):
            return None
        before = open_run(runs).results
        DAMAGE[damage](files[number])
        after = open_run(copy).results
        return None if after == before else f"{files[number].relative_to(copy)}: other figures"

    return run


def _compared(folder: Path) -> Path:
    """The run folder of a finished comparison of two files of answers."""
    place = folder / "answers"
    if not place.is_dir():
        place.mkdir()
        test = place / "test.jsonl"
        rows = [
            f'{{"id": "q{n}", "question": "{n} + 1?", "answer": "{n + 1}"}}\n' for n in range(6)
        ]
        test.write_text("".join(rows), encoding="utf-8")
        for name, more in (("base", 1), ("tuned", 2)):
            said = [
                f'{{"id": "q{n}", "reply": "{n + (more if n > 3 else 1)}"}}\n' for n in range(6)
            ]
            (place / f"{name}.jsonl").write_text("".join(said), encoding="utf-8")
        request = Request(
            models=(str(place / "base.jsonl"), str(place / "tuned.jsonl")), replies=True,
            tasks=("mine",),
            settings=("tasks.mine.kind=jsonl", f"tasks.mine.path={test}",
                      "tasks.mine.grader=number"),
        )  # fmt: skip
        comparison.run(request, place / "runs", Silent())
    return next((place / "runs").iterdir())
