"""Loads tasks of lm-evaluation-harness, and refuses those that cannot be measured here.

The only file that imports ``lm_eval`` (Gao et al., doi:10.5281/zenodo.10256836).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from holdfast.environment import install_command
from holdfast.errors import RELATIVE, DataError, MissingDependency, StudyError
from holdfast.registry import nearest

RUNS_CODE = "grading it runs code that the model wrote"


def version() -> str:
    """Of the harness.

    Raises:
        MissingDependency: it is not installed.
    """
    from importlib.metadata import version as installed

    _imported()
    return installed("lm_eval")


def load(task: str, include_path: str | None, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The harness's tasks behind a name, by name: one, or all of a group or tag.

    Args:
        task: a name, or the path of a YAML file.
        include_path: a folder of further YAML files.
        overrides: keys of the task's definition that differ.

    Raises:
        MissingDependency: the harness is not installed.
        StudyError: no such task, or it cannot be asked here.
        DataError: its data cannot be had.
    """
    _imported()
    manager, found = _manager(task, include_path)
    if (manager.task_index[found].cfg or {}).get("unsafe_code"):
        raise _refused(found, RUNS_CODE)  # before its metric is fetched, which is code itself
    wanted: Any = found
    if overrides:
        if found not in manager.all_subtasks:
            raise StudyError(
                f"{task!r} is no single task, so its definition cannot be overridden",
                remedy="name one of its tasks, or leave `overrides` out",
            )
        wanted = {"group": "overridden", "task": [{"task": found, **overrides}]}
    try:
        loaded: dict[str, Any] = manager.load(wanted)["tasks"]
    except Exception as error:  # data sets and task code raise anything
        raise DataError(
            f"lm_eval cannot load it: {type(error).__name__}: {_first_line(error)}",
            where=task,
            remedy="if its data cannot be fetched, give a local copy: `overrides: {dataset_path: "
            "json, dataset_kwargs: {data_files: {test: test.jsonl}}}`, or a YAML of your own with "
            "`include_path`",
        ) from error
    for name, one in loaded.items():
        _check(name, one)
    return loaded


@cache
def _built_in() -> Any:
    """The index of the harness's own tasks; reading its 14,000 files takes seconds."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _manager(task: str, include_path: str | None) -> tuple[Any, str]:
    """The index that knows a task, and its name there."""
    from lm_eval.tasks import TaskManager

    if task.endswith((".yaml", ".yml")):
        file = Path(task).expanduser()
        if not file.is_file():
            raise StudyError("no such file", where=task, remedy=f"check the path; {RELATIVE}")
        own = TaskManager(include_path=str(file.parent), include_defaults=False)
        paths = {name: entry.yaml_path for name, entry in own.task_index.items()}
        name = next((one for one, path in paths.items() if path == file), None)
        if name is None:
            raise StudyError("holds no task", where=task, remedy="it needs `task: my_name`")
        return own, name
    known: list[str] = []
    if include_path is not None:
        folder = Path(include_path).expanduser()
        if not folder.is_dir():
            remedy = f"correct it; {RELATIVE}"
            raise StudyError("include_path is no folder", where=include_path, remedy=remedy)
        own = TaskManager(include_path=str(folder), include_defaults=False)
        if task in own.all_tasks and _whole(own, task):
            return own, task
        known = list(own.all_tasks)
    manager = TaskManager(include_path=include_path) if task in known else _built_in()
    if task in manager.all_tasks:
        return manager, task
    raise StudyError(
        f"lm_eval has no task {task!r}{nearest(task, [*known, *manager.all_tasks])}",
        remedy="`lm_eval ls tasks` lists them; a YAML of your own needs `include_path`",
    )


def _whole(manager: Any, name: str) -> bool:
    """Whether an index knows all that a task or group is made of; the built-in one takes longer."""
    parts = (manager.task_index[name].cfg or {}).get("task")
    return not isinstance(parts, list) or all(
        isinstance(one, str) and one in manager.task_index for one in parts
    )


def _imported() -> None:
    try:
        import lm_eval.tasks  # noqa: F401
    except ImportError as error:
        raise MissingDependency(
            f"tasks of lm-evaluation-harness need `lm_eval` ({_first_line(error)})",
            remedy=install_command("lm-eval"),
        ) from error


def _check(name: str, task: Any) -> None:
    """Refuse what cannot be asked, or must not be graded, here."""
    if getattr(task, "UNSAFE_CODE", False):
        raise _refused(name, RUNS_CODE)
    if getattr(task, "MULTIMODAL", False):
        raise _refused(name, "it shows pictures or sound")
    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        raise _refused(name, "it measures perplexity of whole texts, which is no share of items")


def _refused(name: str, why: str) -> StudyError:
    return StudyError(
        f"lm_eval's task {name!r} cannot be measured here: {why}", remedy="choose another task"
    )


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
