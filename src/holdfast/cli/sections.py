"""What a word such as ``gsm8k``, ``xstest=FILE``, ``harness:arc_easy`` or a file is as a task."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from holdfast.config import TaskSpec
from holdfast.config.load import parse
from holdfast.config.places import anchored
from holdfast.config.section import made_usable
from holdfast.data.documents import is_text
from holdfast.errors import UsageError
from holdfast.tasks import REGISTRY, Task, build, measuring_set

Section = dict[str, object]
USUAL = {
    "ailuminate": "data/airr_official_1.0_demo_en_us_prompt_set_release.csv",
    "xstest": "data/xstest_prompts.csv",
    "gsm8k": "data/gsm8k",
}
"""Where the files of public benchmarks are looked for."""
HUB_ITEMS = {"gsm8k": 1319}
"""Of benchmarks that are read from the hub, which is not asked here."""
LIMIT, BUILT_IN = 500, 200
"""Items of a benchmark of the harness, and of those that are made up."""
LADDER = (0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
"""Margins that are offered, the strictest that the items can show first."""
MODELS = 10
"""Checkpoints to choose from, about; the level of the interval hardly depends on them."""
NUMBER = re.compile(r"(.*####)?\s*[-+$€£]?\s*\d[\d.,]*\s*%?\s*\.?\s*", re.DOTALL)


def sections(word: str, study: Path) -> Iterator[tuple[str, Section]]:
    """The sections that a word stands for, one or several, each with its name.

    Args:
        word: ``TASK``, ``TASK=FILE``, ``harness:NAME``, or a file of rows or of text.
        study: the file that they will stand in.

    Raises:
        StudyError: no such task.
        UsageError: no such file, or a task without the file that it needs.
        DataError: a file that cannot be read.
    """
    name, _, place = word.partition("=")
    if word.startswith("harness:"):
        task = word.removeprefix("harness:")
        yield made_usable(task), {"kind": "harness", "task": task, "limit": LIMIT}
        return
    if not place and name not in REGISTRY.names():
        if not re.search(r"[./\\]", name):
            REGISTRY.find(name)  # which says what there is
        rows = "text" if is_text(Path(name)) else "jsonl"
        section: Section = {"kind": rows, "path": place_in(study, name)}
        section |= {"grader": grader(section, study)} if rows == "jsonl" else {}
        yield made_usable(Path(name).stem), section
        return
    needs = "path" in REGISTRY.find(name).make.Options.model_fields
    if not place and needs and name in USUAL and Path(USUAL[name]).exists():
        place = USUAL[name]
    if not place and needs and name != "gsm8k":
        raise UsageError(
            f"{name} needs its file: {origin(name)}", where=name, remedy=f"write {name}=FILE"
        )
    at: Section = {"path": place_in(study, place)} if place else {}
    if name == "xstest":
        yield "over_refusal", {"kind": name, **at, "half": "safe"}
        yield "contrast", {"kind": name, **at, "half": "unsafe"}
        return
    made: Section = {"items": BUILT_IN} if name in ("lab_refuse", "lab_help") else {}
    yield name, {**at, **made}


def place_in(study: Path, place: str) -> str:
    """A path as a study has it, once it is known to be there.

    Raises:
        UsageError: it is not.
    """
    if not Path(place).expanduser().exists():
        raise UsageError(
            "no such file", where=place, remedy="correct the path; it is taken from here"
        )
    return from_study(study, place)


def from_study(study: Path, place: str) -> str:
    """A path that is whole, or from the working folder, as a study has it: from its own folder."""
    path = Path(place).expanduser()
    return place if path.is_absolute() else Path(os.path.relpath(path, study.parent)).as_posix()


def grader(section: Mapping[str, object], study: Path) -> str:
    """`number` where all answers of a file are numbers, else `exact`."""
    targets = [one.target or "" for one in _made("mine", section, study)[0].examples("test")]
    return "number" if all(map(NUMBER.fullmatch, targets)) else "exact"


def items(name: str, section: Mapping[str, object], study: Path) -> int:
    """How many items measure; a benchmark on the hub is not asked."""
    kind = section.get("kind", name)
    if kind == "harness":
        return LIMIT
    if kind in HUB_ITEMS and "path" not in section:
        return HUB_ITEMS[str(kind)]
    return len(measuring_set(*_made(name, section, study)))


def _made(name: str, section: Mapping[str, object], study: Path) -> tuple[Task, TaskSpec]:
    folder = study.absolute().parent
    spec = parse(TaskSpec, anchored(dict(section), folder), str(study), at=("tasks", name))
    return build(name, spec, str(study), folder), spec


def margin_for(task: str, count: int) -> tuple[float, str] | None:
    """The strictest usual margin that a model meets which lost three answers, and why that one.

    Args:
        task: its name.
        count: of items that measure it.

    Returns:
        None where so few items can show nothing.
    """
    from holdfast.analysis.selection import Need, attainable
    from holdfast.analysis.selection.rule import confidence, error_of

    level = confidence(error_of(0, MODELS))
    least = attainable(Need(task, -LADDER[0]), level, count, count).margins[-1] if count else 1.0
    margin = next((one for one in LADDER if one >= least - 1e-9), None)
    if margin is None:
        return None
    return -margin, f"of {count:,} items: three lost reach down to {100 * least:g} points"


def split(words: Iterable[str]) -> tuple[str, ...]:
    """Words, and those between commas."""
    return tuple(one.strip() for word in words for one in word.split(",") if one.strip())


def origin(kind: str) -> str:
    """Where the file of a benchmark comes from."""
    if kind == "gsm8k":
        return "or delete the line to read openai/gsm8k from the hub"
    module = sys.modules[REGISTRY.find(kind).make.__module__]
    return str(getattr(module, "SOURCE", "a file of your own"))
