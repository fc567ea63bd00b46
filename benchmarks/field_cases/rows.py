"""Rows and files of rows: what is trained on must be what they say, or they are refused."""

from __future__ import annotations

import ast
import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.field_cases import Case
from holdfast import tasks
from holdfast.config import TaskSpec
from holdfast.data import containers
from holdfast.data.formats import Row, conversation
from holdfast.types import Example
from tests.data import test_containers, test_formats, test_formats_refused

REPR = ("[{", "{'", "['", "nan", "None", "True", "False")
"""How Python writes what is no text."""
SUMS = [(f"What is {i} + {i + 1}?", f"#### {2 * i + 1}") for i in range(1, 41)]
SHORT = {"role", "from", "type", "id", "weight"}
"""Keys whose values are no text to be learned."""


def own() -> Iterator[Case]:
    """Forms and malformed rows and files of the project's own tests."""
    for name, (row, wanted) in test_formats.FORMS.items():
        yield Case("rows", name, _as_wanted(row, wanted), must_work=True)
    for number, (row, *_) in enumerate(test_formats_refused.REFUSED, start=1):
        yield Case("malformed rows", str(number), _refused(row), must_be_refused=True)
    for name, make in test_containers.GOOD.items():
        yield Case("containers", name, _same_rows(name, make), must_work=True)
    for name, content, *_ in test_containers.BAD:
        yield Case("malformed files", name, _malformed(name, content), must_be_refused=True)


def _as_wanted(row: object, wanted: Row) -> Callable[[Path], str | None]:
    def run(scratch: Path) -> str | None:
        found = conversation(row, "f.jsonl:1")
        parts = ("messages", "target", "extra", "tools")
        wrong = [one for one in parts if getattr(found, one) != getattr(wanted, one)]
        return f"{', '.join(wrong)} differ" if wrong else None

    return run


def _refused(row: object) -> Callable[[Path], str | None]:
    def run(scratch: Path) -> str | None:
        conversation(row, "f.jsonl:1")
        return None

    return run


def _same_rows(name: str, make: Callable[[Path], bytes]) -> Callable[[Path], str | None]:
    def run(scratch: Path) -> str | None:
        (scratch / name).write_bytes(make(scratch))
        found = [row.value for row in containers.rows(scratch / name)]
        return None if found == test_containers.ROWS else f"reads {found}"

    return run


def _malformed(name: str, content: bytes | str) -> Callable[[Path], str | None]:
    def run(scratch: Path) -> str | None:
        (scratch / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        list(containers.rows(scratch / name))
        return None

    return run


def given(folder: Path) -> Iterator[Case]:
    """Those of a folder of cases."""
    probe = folder / "data_formats" / "probe.py"
    if probe.is_file():
        for name, row in _table(probe).items():
            yield Case("rows", name, _whole(row))
    for file in sorted((folder / "containers").glob("train*")):
        yield Case("containers", file.name, _same_sums(file))
    for file in sorted((folder / "faults" / "jsonl").glob("*.jsonl")):
        yield Case("malformed jsonl", file.name, _read(file))
    for file in sorted((folder / "faults" / "csv").glob("*.csv")):
        yield Case("malformed csv", file.name, _prompts(file))
    safety = folder / "safety_files"
    if safety.is_dir():
        yield Case("safety files", "French prompts", _french(safety / "ailuminate_fr.csv"))
        for name in ("xstest_v2_old.csv", "xstest_hub.csv"):
            yield Case("safety files", name, _halves(safety / name), must_work=True)
        yield Case("safety files", "no answers", _unanswered(safety / "private_no_answers.jsonl"))


def _table(probe: Path) -> Mapping[str, Any]:
    """The rows that a probe holds, without running it."""
    for node in ast.parse(probe.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "CASES":
            code = compile(ast.Expression(node.value), str(probe), "eval")
            found: Mapping[str, Any] = eval(code, {"__builtins__": {}, "json": json})
            return found
    raise ValueError(f"{probe} holds no CASES")


def _examples(file: Path) -> tuple[tasks.Task, list[Example]]:
    values = {"kind": "jsonl", "path": str(file), "train_path": str(file)}
    task = tasks.build("mine", TaskSpec.model_validate(values), "study.yaml")
    return task, task.examples("train")


def _whole(row: object) -> Callable[[Path], str | None]:
    """Every text of a row is where the model sees it, or its column is named as ignored."""

    def run(scratch: Path) -> str | None:
        file = scratch / "train.jsonl"
        file.write_text(json.dumps(row) + "\n", encoding="utf-8")
        return dropped(row, *_examples(file))

    return run


def dropped(row: object, task: tasks.Task, examples: list[Example]) -> str | None:
    """What of a row's texts is neither in its example nor named as ignored; None: nothing."""
    if len(examples) != 1:
        return f"{len(examples)} examples of one row"
    example = examples[0]
    seen = json.dumps(
        [[asdict(one) for one in example.messages], example.target, example.extra, example.tools],
        ensure_ascii=False,
    )
    if not isinstance(row, dict):
        return "accepted what is no object"
    ignored = {use.column for use in task.fields if use.use == "ignored"}
    for column, value in row.items():
        if column in ignored:
            continue
        for text in _texts(value):
            if json.dumps(text, ensure_ascii=False)[1:-1] not in seen:
                return f"{text!r} of `{column}` is dropped"
    texts = [one.content for one in example.messages] + [example.target or ""]
    for text in texts:
        if text.startswith(REPR) and text not in _texts(row):
            return f"{text!r} is Python's word for a value"
    return None


def _texts(value: object, key: str = "") -> list[str]:
    """All texts inside a value that mean something; JSON inside of text is opened."""
    if isinstance(value, dict):
        return [text for name, inner in value.items() for text in _texts(inner, name)]
    if isinstance(value, list):
        return [text for inner in value for text in _texts(inner, key)]
    nothing = value is None or isinstance(value, bool) or key in SHORT
    if nothing or (isinstance(value, float) and math.isnan(value)):
        return []
    if isinstance(value, str) and value[:1] in "[{":
        try:
            return _texts(json.loads(value), key)
        except ValueError:
            return [value]
    return [str(value).strip()] if str(value).strip() else []


def _same_sums(file: Path) -> Callable[[Path], str | None]:
    """A file holds the forty sums, however it is packed; a repeated row is kept."""

    def run(scratch: Path) -> str | None:
        _, found = _examples(file)
        said = {(one.messages[-1].content.replace(" ok", ""), one.target) for one in found}
        if said != set(SUMS):
            lost = sorted(set(SUMS) - said)[:1]
            return f"{len(said)} different sums of {len(SUMS)}; {lost} is not among them"
        pirates = "system" in file.name
        if any((one.messages[0].role == "system") != pirates for one in found):
            return "the system turn is lost or made up"
        return None

    return run


def _read(file: Path) -> Callable[[Path], str | None]:
    def run(scratch: Path) -> str | None:
        task, found = _examples(file)
        lines = file.read_bytes().decode(
            "utf-16" if file.read_bytes()[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        )
        rows = [json.loads(line) for line in lines.replace("\r", "\n").split("\n") if line.strip()]
        if len(rows) != len(found):
            return f"{len(found)} examples of {len(rows)} rows"
        wrong = (dropped(row, task, [one]) for row, one in zip(rows, found, strict=True))
        return next((one for one in wrong if one), None)

    return run


def _prompts(file: Path) -> Callable[[Path], str | None]:
    """A CSV of prompts says what a strict reader of it says."""

    def run(scratch: Path) -> str | None:
        found = []
        for half in ("safe", "unsafe"):
            spec = TaskSpec.model_validate({"kind": "xstest", "path": str(file), "half": half})
            found += tasks.build("x", spec, "study.yaml").examples("test")
        with file.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines))
        if any(None in row or None in row.values() for row in rows):
            return "accepted rows with more or fewer cells than the head"
        said = sorted(one.messages[-1].content for one in found)
        return None if said == sorted(row["prompt"] for row in rows) else f"reads {said}"

    return run


def _french(file: Path) -> Callable[[Path], str | None]:
    """A refusal in French is not graded as unsafe."""
    from holdfast.types import Reply

    def run(scratch: Path) -> str | None:
        task = tasks.build(
            "a", TaskSpec.model_validate({"kind": "ailuminate", "path": str(file)}), "study.yaml"
        )
        asked = task.examples("test")
        said = "Je suis désolé, mais je ne peux pas vous aider avec cela."
        pairs = [(one, Reply(one.id, 0, said, "stop", 9)) for one in asked]
        assert task.judge is not None
        verdicts = task.judge.judge(pairs)
        graded = (task.grade(*pair, said) for pair, said in zip(pairs, verdicts, strict=True))
        return "refusals are unsafe" if any(one.value == 0 for one in graded) else None

    return run


def _halves(file: Path) -> Callable[[Path], str | None]:
    def run(scratch: Path) -> str | None:
        sizes = [
            len(
                tasks.build(
                    "x",
                    TaskSpec.model_validate({"kind": "xstest", "path": str(file), "half": half}),
                    "study.yaml",
                ).examples("test")
            )
            for half in ("safe", "unsafe")
        ]
        return None if sizes == [1, 1] else f"{sizes} prompts in the halves"

    return run


def _unanswered(file: Path) -> Callable[[Path], str | None]:
    def run(scratch: Path) -> str | None:
        spec = TaskSpec.model_validate({"kind": "gsm8k", "path": str(file)})
        found = tasks.build("g", spec, "study.yaml").examples("test")
        return None if all(one.target is None for one in found) else "makes an answer up"

    return run
